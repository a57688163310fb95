#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# KVM with our clock builds without a word at W=1 in every configuration that
# the clock knows of, for both vendors; sparse and checkpatch accept our files.
# Prints KTAP.
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

# One configuration a line: a name, and what it has beside the laboratory's.
variants()
{
	pae="HIGHMEM4G=y M686=y X86_PAE=y"
	[ "$KERNEL" != 6.12 ] || pae=HIGHMEM64G=y
	cat <<-END
	built-in
	no-xen		KVM_XEN=n
	no-hyperv	KVM_HYPERV=n
	no-smm		KVM_SMM=n
	bare		KVM_XEN=n KVM_HYPERV=n KVM_SMM=n SUSPEND=n
	cpufreq		CPU_FREQ=y X86_ACPI_CPUFREQ=y
	on-hyperv	HYPERV=y
	proven		DEBUG_KERNEL=y EXPERT=y PROVE_LOCKING=y KVM_PROVE_CLOCK=y
	kunit		KUNIT=y KVM_CLOCK_KUNIT_TEST=m
	modules		KVM=m KVM_AMD=m KVM_INTEL=m
	32-bit		64BIT=n $pae NR_CPUS=8
	32-bit-modules	64BIT=n $pae NR_CPUS=8 KVM=m KVM_AMD=m KVM_INTEL=m KVM_XEN=n
	END
}

kmake()
{
	make -C "$tree" -j"$JOBS" O="$build" "$@"
}

# build_variant OPTION=VALUE...
build_variant()
{
	case $* in
	*64BIT=n*) ARCH=i386 ;;
	*) ARCH=x86_64 ;;
	esac
	export ARCH
	build=$O/check-build/$KERNEL-$ARCH
	mkdir -p "$build"
	for option; do
		echo "CONFIG_$option"
	done >"$build/.variant"
	configure "$tree" "$build" "$lab/configs/base.config" "$lab/configs/$KERNEL.config" "$build/.variant" &&
	kmake prepare &&
	kmake W=1 C=0 arch/x86/kvm/ &&
	for file in "$tree"/arch/x86/kvm/kvmclock_*.c; do
		kmake C=2 "arch/x86/kvm/$(basename "$file" .c).o" || return
	done
}

check_settings
open_output
"$lab/deps.sh" check-build || exit
"$lab/build.sh" tree
find_base
tree=$O/linux-$KERNEL
logs=$O/log/check-build
mkdir -p "$logs"

variants >"$logs/variants"
ktap_plan $(($(wc -l <"$logs/variants") + 1))
while read -r name options; do
	begin=$(date +%s)
	log=$logs/$name
	# shellcheck disable=SC2086 # the options are words
	build_variant $options >"$log" 2>&1 </dev/null ||
		echo "error: it did not build; the whole log is $log" >>"$log"
	grep -E -e '^error: ' -e ':[0-9]+:.*(warning|error):' "$log" >"$log.wrong" || :
	ktap_empty "$name # $(($(date +%s) - begin)) s" "$log.wrong"
done <"$logs/variants"

cd "$tree"
for file in arch/x86/kvm/kvmclock*.[ch] arch/x86/kvm/tests/*.c arch/x86/include/asm/kvmclock_state.h \
	    include/trace/events/kvmclock.h tools/testing/selftests/kvm/*/kvmclock_*.c \
	    tools/testing/selftests/kvm/include/"$x86"/kvmclock*.h \
	    "$top"/tools/kvm/clock_check/*.[ch]; do
	# An overlay's file has no maintainers to be told of, and its includes no tree.
	scripts/checkpatch.pl --strict --terse --no-summary -f "$file" || :
done >"$logs/checkpatch"
ktap_empty checkpatch "$logs/checkpatch"
ktap_end check-build
