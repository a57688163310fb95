#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# KVM with our clock builds without a word at W=1 in every configuration that
# the clock knows of, for both vendors; sparse and checkpatch accept our files.
set -eu
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

ours='kvmclock_core kvmclock_host kvmclock_tsc'

# One configuration a line: a name, and what it has beside the laboratory's.
variants()
{
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
	32-bit		64BIT=n HIGHMEM64G=y
	32-bit-modules	64BIT=n HIGHMEM64G=y KVM=m KVM_AMD=m KVM_INTEL=m KVM_XEN=n
	END
}

kmake()
{
	make -C "$tree" -j"$JOBS" O="$build" "$@"
}

# configure NAME OPTION=VALUE...: fails if an option did not take.
configure()
{
	case $* in
	*64BIT=n*) build=$O/check-build/32 arch=i386 ;;
	*) build=$O/check-build/64 arch=x86_64 ;;
	esac
	name=$1
	shift
	mkdir -p "$build"
	for option; do
		echo "CONFIG_$option"
	done >"$build/.variant"
	kmake ARCH=$arch tinyconfig
	(cd "$tree" && scripts/kconfig/merge_config.sh -m -O "$build" "$build/.config" \
		"$lab/configs/base.config" "$build/.variant")
	kmake ARCH=$arch olddefconfig
	for option; do
		case $option in
		*=n) ! grep -q "^CONFIG_${option%=*}=" "$build/.config" ;;
		*) grep -qx "CONFIG_$option" "$build/.config" ;;
		esac || { echo "error: $name: CONFIG_$option did not take"; return 1; }
	done
}

build_variant()
{
	configure "$@" &&
	kmake ARCH=$arch prepare &&
	kmake ARCH=$arch W=1 C=0 arch/x86/kvm/ 2>&1 &&
	for file in $ours; do
		kmake ARCH=$arch C=2 "arch/x86/kvm/$file.o" 2>&1 || return
	done
}

check_settings
open_output
"$lab/deps.sh" check-build || exit
"$lab/build.sh" tree
tree=$O/linux
logs=$O/log/check-build
mkdir -p "$logs"
failed=0

variants >"$logs/variants"
while read -r name options; do
	begin=$(date +%s)
	log=$logs/$name
	# shellcheck disable=SC2086 # the options are words
	if build_variant $name $options >"$log" 2>&1 </dev/null &&
	   ! grep -E ':[0-9]+:.*(warning|error):' "$log"; then
		say "ok    $name # $(($(date +%s) - begin)) s"
	else
		say "FAIL  $name: see $log"
		failed=$((failed + 1))
	fi
done <"$logs/variants"

cd "$tree"
for file in arch/x86/kvm/kvmclock*.[ch] arch/x86/kvm/tests/*.c arch/x86/include/asm/kvm_clock.h \
	    include/trace/events/kvmclock.h tools/testing/selftests/kvm/*/kvmclock_*.c \
	    tools/testing/selftests/kvm/include/x86_64/kvmclock*.h; do
	# An overlay's file has no maintainers to be told of, and its includes no tree.
	scripts/checkpatch.pl --strict --terse --no-summary -f "$file" || failed=$((failed + 1))
done

[ $failed -eq 0 ] || die $EXIT_BUILD "$failed of the builds and style checks failed, see above"
say "verdict: PASSED: $(wc -l <"$logs/variants") configurations, no warning"
