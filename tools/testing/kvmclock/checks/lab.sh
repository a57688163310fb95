#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A laboratory that cannot fail proves nothing: each kind of failure is staged
# here, and must end with its own exit code. Prints KTAP.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

check_settings
open_output
scratch

# expect CODE WHAT VARIABLE=VALUE...: how a run under these variables ends
expect()
{
	want=$1
	what=$2
	shift 2
	env "$@" "$lab/run.sh" check >"$work/log" 2>&1
	got=$?
	tail -n 1 "$work/log" | sed 's/^/# /'
	ktap_result $((got != want)) "$what # exit code $got, $want expected" "$work/log"
}

# expect_base NAME WORDS: how one ends on the base $work/NAME, and what it says of it
expect_base()
{
	KERNEL_SRC=$work/$1 O=$work/o "$lab/run.sh" check >"$work/log" 2>&1
	got=$?
	tail -n 1 "$work/log" | sed 's/^/# /'
	tail -n 1 "$work/log" | grep -qF -e "$2" || got="$got without '$2'"
	[ "$got" = $EXIT_BASE ]
	ktap_result $? "base_$1 # exit code $got, $EXIT_BASE expected" "$work/log"
}

# expect_check CHECK WHAT WORDS VARIABLE=VALUE...: how one of this project's copy ends,
# with code 1, and what it says
expect_check()
{
	check=$1
	what=$2
	words=$3
	shift 3
	env "$@" "$copy/checks/$check.sh" >"$work/log" 2>&1
	got=$?
	grep -F -e "$words" "$work/log" | sed 's/^/# /'
	grep -qF -e "$words" "$work/log" || got="$got without '$words'"
	[ "$got" = $EXIT_FAILED ]
	ktap_result $? "$what # exit code $got, $EXIT_FAILED expected" "$work/log"
}

# base NAME: a copy of what the base has of the files that integration/ changes
base()
{
	cp -r "$tree/.kvmclock/pristine" "$work/$1"
	cp "$tree/Makefile" "$work/$1"
}

# stand_in TOOL SCRIPT: a folder for PATH in which TOOL does this instead
stand_in()
{
	mkdir -p "$work/$1"
	printf '#!/bin/sh\n%s\n' "$2" >"$work/$1/$1"
	chmod +x "$work/$1/$1"
}

# The first run builds what is missing; not silently, it may take minutes.
"$lab/build.sh" kernel || exit
find_base

stand_in make 'echo "*** Error staged by check-lab"; exit 2'
stand_in df 'printf "staged\ndisk 9 8 1024 9%% /\n"'
mkdir "$work/few" "$work/6.1"
for tool in sh dirname nproc awk sed tr id mkdir flock readlink cat; do
	ln -s "$(command -v $tool)" "$work/few/$tool"
done
printf 'VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 1\n' >"$work/6.1/Makefile"
tree=$O/linux-$KERNEL
base peek
echo "bool peek(struct kvm *kvm) { return kvm->arch.clock.master; }" >>"$work/peek/arch/x86/kvm/pmu.c"
base needs_no_rule
cp "$tree/arch/x86/kvm/mmu/mmu.c" "$work/needs_no_rule/arch/x86/kvm/mmu/"
base has_no_leftover
sed -i 's/kvm_update_master_clock/kvm_updated_clock/' "$work/has_no_leftover/arch/x86/kvm/trace.h"
base has_the_section
sed -n 's/^+\(4\.[0-9]* \)KVM_GET.*/\n\1KVM_OTHER\n/p' "$top/integration/$KERNEL"/4-patches/*-clock-guest.patch \
	>>"$work/has_the_section/Documentation/virt/kvm/api.rst"

# A copy of the project: with a mutant that changes nothing, and with a machine that
# counts what it is told, in both runs the same or not.
copy=$work/copy/tools/testing/kvmclock
mkdir "$work/copy"
(cd "$top" && cp -rp arch Documentation include integration samples series tools \
	Kconfig Makefile README.md "$work/copy/")
cat >"$copy/checks/mutants/lab-nothing.patch" <<END
caught by: kvmclock_abi_test kvmclock_abi.cpuid
broken: nothing
--- a/arch/x86/kvm/kvmclock_page.c
+++ b/arch/x86/kvm/kvmclock_page.c
@@ -1,1 +1,1 @@
-$(sed -n 1p "$top/arch/x86/kvm/kvmclock_page.c")
+$(sed -n 1p "$top/arch/x86/kvm/kvmclock_page.c") //
END
cat >"$work/run.sh" <<'END'
#!/bin/sh
mkdir -p "$O/results/latest"
echo "# instruction_count: count: $(($(date +%s%N) % ${OTHER:-1} + 5)) a call" >"$O/results/latest/ktap.log"
END
chmod +x "$work/run.sh"

ktap_plan "$(grep -c '^expect[a-z_]* ' "$0")"
expect 0 pass TESTS=lab_pass
expect 1 failing_test TESTS="lab_pass lab_fail"
expect 1 test_over_its_limit TESTS="lab_pass lab_limit"
expect 6 kernel_warning TESTS="lab_pass lab_warn"
expect 6 kernel_panic TESTS="lab_pass lab_panic"
expect 6 slab_corrupted TESTS="lab_pass lab_slab"
expect 6 taint_without_a_word TESTS="lab_pass lab_taint"
expect 6 guest_kernel_warning TESTS="lab_pass lab_guest_warn"
expect 7 timeout TESTS="lab_pass lab_hang" TIMEOUT=15
expect 8 plan_cut_short TESTS="lab_pass lab_end"
expect 9 required_test_skipped TESTS="lab_pass lab_skip"
expect 0 cases TESTS=lab_cases
expect 8 case_missing TESTS="lab_pass lab_case_missing"
expect 8 case_skipped TESTS=lab_case_skipped
expect 8 case_unknown TESTS=lab_case_new
expect 8 case_selects_nothing TESTS=kvmclock_abi_test CASE=no_such_case
expect 1 verdict_contradicted TESTS="kvmclock_line_test lab_verdict" CASE=one_forced_update
expect 0 verdict_unjudged TESTS=lab_verdict
expect 2 unknown_test TESTS=no_such_test
expect 2 unknown_base BASE=other
expect 2 unknown_machine MACHINE=other
expect 2 unknown_host HOST=other
expect 2 unknown_config CONFIG=other
expect 2 debug_distro HOST=distro CONFIG=debug
expect 2 intel_distro MACHINE=intel HOST=distro
expect 2 intel_processors MACHINE=intel SMP=9
expect 2 kcsan_distro HOST=distro CONFIG=kcsan
expect 1 unwatched_kcsan TESTS=kcsan_watches
expect 1 unwatched_leaks TESTS=kmemleak
expect 2 unknown_mutant HOST=distro MUTANT=other
expect 2 built_mutant HOST=built MUTANT=one-vcpu-forgotten
expect 2 bad_case TESTS=lab_pass CASE=a/b
expect 2 bad_number SMP=two
expect 2 number_out_of_range TIMEOUT=0
expect 2 small_drift DRIFT=5000
expect 2 drift_intel MACHINE=intel DRIFT=15000
expect 1 drift_corrected TESTS="lab_pass lab_refined" DRIFT=15000
expect 2 unwritable_folder O=/proc/build
expect 2 folder_with_blank O="$work/a b"
expect 2 folder_of_others O="$work"
expect 2 missing_base KERNEL_SRC="$work/none" O="$work/o"
expect 2 disk_full PATH="$work/df:$PATH" O="$work/o"
expect 3 other_base KERNEL_SRC="$work/6.1" O="$work/o"
expect 4 missing_tool PATH="$work/few"
expect_base needs_no_rule "changes 1 places of arch/x86/kvm/mmu/mmu.c, not 3"
expect_base has_no_leftover "arch/x86/kvm/trace.h: 'unwrap-if "
expect_base has_the_section "Documentation/virt/kvm/api.rst: has two sections"
expect_check mutants survivor "survived" MUTANT=lab-nothing
expect_check compare equal_base "no difference is shown by: kvm_pv_test" HOST=distro TESTS=kvm_pv_test
mv "$work/run.sh" "$copy/run.sh"
expect_check count other_number "COSTS.md had other numbers" O="$work/o"
expect_check count two_numbers "two runs differ" O="$work/o" OTHER=1000000
expect 5 look_into_the_clock KERNEL_SRC="$work/peek" O="$work/o"
expect 5 build_failure PATH="$work/make:$PATH" TESTS=lab_pass
ktap_end check-lab
