#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# run.sh check|demo|shell: builds what is not built, boots the host under test,
# and ends with one verdict, whose code is the exit code (see settings.sh).
set -u
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

# What the kernel says on its console when something is wrong with it.
splats='turning off the locking|BUG: |BUG [^ ]+ [(]|WARNING: |Oops: |Kernel panic|general protection|KASAN: |UBSAN: |KCSAN: |INFO: task|INFO: trying|detected stalls|self-detected stall|suspicious RCU|unchecked MSR|divide error|Bad page state'

machine=
trap '[ -z "$machine" ] || { kill "$machine"; wait; } 2>/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM

# Shows results as they arrive, and ends the machine at its last word: only here
# is it known to have arrived.
show()
{
	begin=$(date +%s)
	while IFS= read -r line; do
		case $line in
		"not ok "*) word=FAIL ;;
		"ok "*" # SKIP"*) word=skip ;;
		"ok "*) word=ok ;;
		"# "*": running for "*) word=... ;;
		"# complete") kill "$machine"; continue ;;
		"Bail out!"*) kill "$machine"; word=FAIL ;;
		*) continue ;;
		esac
		line=${line#not }
		line=${line#ok [0-9]* }
		printf '%5d s  %-4s  %s\n' $(($(date +%s) - begin)) "$word" "${line#\# }"
	done
}

# Of each failed test, what it said of its first failure, and its last words.
explain()
{
	awk '/^(not )?ok / {
			if ($1 == "not") {
				for (i = first; first && i < first + 7 && i < n - 8; i++)
					print "    " line[i]
				for (i = n > 8 ? n - 8 : 0; i < n; i++)
					print "    " line[i]
			}
			n = first = 0
			next
		}
		!/: report: |^KTAP|^1\.\./ {
			if (!first && /Test Assertion Failure|^ *# *not ok /)
				first = n
			line[n++] = $0
		}' "$ktap"
}

# What a kernel has said: the host's, or that of a Linux guest in it, whose console
# the test repeats; or done, without a word.
complained()
{
	grep -qE "$splats" "$results/console.log" && return
	grep ': console: ' "$ktap" | grep -E "$splats" && return
	grep ': kernel taint went from ' "$ktap"
}

# The kernel's first complaint with its trace: all that is left where only this
# output is kept.
complaint()
{
	awk -v splats="$splats" '
		found || $0 ~ splats { found = 1; print "    " substr($0, 1, 110) }
		found && (/end trace|end Kernel panic/ || ++n == 60) { exit }' \
		"$results/console.log" | tr -cd '[:print:]\n'
}

# What a reader needs to judge these results, and to get them again.
about()
{
	cat <<-END
	command:  $again${TESTS:+ TESTS="$TESTS"}
	date:     $(date)
	series:   $(git -C "$top" describe --always --dirty 2>/dev/null || echo "not a git repository")
	kernel:   $release $BASE${MUTANT:+, mutant $MUTANT}, $([ "$HOST" = distro ] && echo "the distribution's" || echo "$CONFIG") configuration
	base:     $base
	tree:     ${hash:-the base and our tests}
	compiler: $(gcc --version | head -n 1)
	spatch:   $(spatch --version 2>/dev/null | head -n 1)
	machine:  $("$lab/machine.sh" about)
	hardware: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) processors
	END
}

names()
{
	sed -n "s/^$1 [0-9]* \([^ ]*\) *$2.*/\1/p" "$ktap" | paste -sd' '
}

verdict()
{
	code=$1
	shift
	if [ "$code" -eq 0 ]; then
		say "verdict: PASSED: $*"
	else
		say "results: $results"
		say "again:   $again${repeat:+ TESTS=\"$repeat\"}"
		say "verdict: FAILED: $* (code $code)"
	fi
	exit "$code"
}

# Of the tests that passed: each case that is due, and no other, was looked at.
cases_are_right()
{
	scaling=1
	[ "$MACHINE$QEMU" != amdstock ] || scaling=
	awk -f "$lab/checks/cases.awk" "$ktap" |
		awk -v machine="$MACHINE" -v scaling="$scaling" -v only="$CASE" \
			-v kernel="$(echo "$release" | cut -d. -f1,2)" \
			-f "$lab/cases.awk" "$lab/machine/cases" - |
		{ ! grep .; }
}

# What kvm-clock-check says of this kernel's defects is what their tests say.
verdicts_agree()
{
	awk -f "$lab/checks/cases.awk" "$ktap" | awk -f "$lab/agree.awk" "$lab/DEFECTS.md" - |
		{ ! grep .; }
}

judge()
{
	status=$1
	planned=$(sed -n 's/^1\.\.//p' "$ktap" | head -n 1)
	passed=$(grep '^ok ' "$ktap" | grep -vc '# SKIP')
	failed=$(grep -c '^not ok ' "$ktap")
	skipped=$(grep -c '^ok .*# SKIP' "$ktap")
	due=$(names ok '# SKIP required')
	failures=$(names 'not ok' '')
	repeat=$TESTS

	say "totals:  $passed passed, $failed failed, $skipped skipped, of ${planned:-no plan}"
	explain
	if complained; then
		complaint
		verdict $EXIT_SPLAT "the kernel complained, see console.log and ktap.log"
	fi
	# Not if it was ended for its last word: see show().
	if ! grep -qe "^# complete\$" -e "^Bail out!" "$ktap"; then
		case $status in
		124 | 137) verdict $EXIT_TIMEOUT "the machine did not finish within TIMEOUT=$TIMEOUT seconds" ;;
		esac
	fi
	if ! grep -q '^# complete$' "$ktap" ||
	   [ "$planned" != $((passed + failed + skipped)) ]; then
		grep -av "support requested feature.*invtsc" "$results/machine.log" |
			tail -n 5 | tr -cd '[:print:]\n'
		tail -n 5 "$results/console.log"
		verdict $EXIT_SHORT "the machine ended ($status) before the plan's end: $(
			sed -n 's/^Bail out! //p' "$ktap" "$results/console.log" | head -n 1)"
	fi
	if [ -n "$DRIFT" ] && grep -q "tsc: Refined TSC" "$results/console.log"; then
		verdict $EXIT_FAILED "DRIFT=$DRIFT, but the kernel has measured its TSC again: $(
			sed -n "s/.*\(tsc: Refined TSC.*\)/\1/p" "$results/console.log" | head -n 1)"
	fi
	if ! verdicts_agree >"$results/wrong-verdicts"; then
		sed 's/^/    /' "$results/wrong-verdicts"
		verdict $EXIT_FAILED "kvm-clock-check and the tests do not agree about $(
			cut -d: -f1 "$results/wrong-verdicts" | paste -sd' ')"
	fi
	if [ "$failed" -gt 0 ]; then
		repeat=$failures
		verdict $EXIT_FAILED "$failures"
	fi
	if [ -n "$due" ]; then
		repeat=$due
		verdict $EXIT_SKIPPED "required, but skipped: $due"
	fi
	if [ "$BASE" = patched ] && ! cases_are_right >"$results/wrong-cases"; then
		sed 's/^/    /' "$results/wrong-cases"
		repeat=$(sed 's/[ :].*//' "$results/wrong-cases" | sort -u | paste -sd' ')
		verdict $EXIT_SHORT "not the cases that are due: $(head -n 1 "$results/wrong-cases")"
	fi
	verdict 0 "$passed of $planned, $skipped optional skipped"
}

mode=${1-}
case $mode in
check) again="make check$given" ;;
demo) again="make run$given" ;;
shell) ;;
*) die $EXIT_USAGE "usage: run.sh check|demo|shell" ;;
esac
check_settings
[ -z "$KCONFIG" ] ||
	die $EXIT_USAGE "KCONFIG= is for make kernel; the tests run on the laboratory's own configuration"

open_output
export TESTS
if [ "$MACHINE" = all ]; then
	[ "$mode" != shell ] || die $EXIT_USAGE "MACHINE=all: make shell takes one machine: amd"
	first=0
	for MACHINE in amd intel; do
		say "=== MACHINE=$MACHINE"
		export MACHINE
		# In the background: a shell that waits for it hears a signal.
		"$0" "$mode" &
		machine=$!
		code=0
		wait $machine || code=$?
		machine=
		[ $first -ne 0 ] || first=$code
	done
	exit $first
fi
[ "$mode$MACHINE" != shellintel ] ||
	die $EXIT_USAGE "MACHINE=intel: this machine has no console to type at; make shell takes MACHINE=amd"
# What a Linux guest takes seconds for on the one, it takes minutes for on the other.
[ "$mode" != demo ] ||
	TESTS=${TESTS:-$([ "$MACHINE" = intel ] || echo linux_guest) line_report$(
		[ "$QEMU" = stock ] || echo " linux_side_by_side")}
"$lab/build.sh" host || exit
image=''
release=''
base=''
hash=''
# shellcheck source=/dev/null # as build.sh left them
. "$O/host"
patience=1
[ "$CONFIG" = base ] || patience=8
append="no_console_suspend panic=-1 oops=panic sysctl.kernel.softlockup_all_cpu_backtrace=1 patience=$patience"
[ -n "$TIMEOUT" ] || TIMEOUT=$([ "$MACHINE-$CONFIG" = amd-base ] && echo 900 || echo 2400)
export MACHINE O SMP DRIFT V image append results

if [ "$mode" = shell ]; then
	say "The selftests are below /tests/kvm; linux-guest boots a guest. To leave: exit, or Ctrl-A X."
	"$lab/machine.sh" shell 3>&1
	exit 0
fi

results=$O/results/$(date +%Y%m%d-%H%M%S)
ktap=$results/ktap.log
rm -f "$O/results/latest"
mkdir -p "$results"
ln -s "${results##*/}" "$O/results/latest"
about >"$results/about"
touch "$ktap" "$results/console.log"
"$lab/machine.sh" prepare || exit
# That machine goes by its own time, on one processor, and has all that it needs: others
# may use the folder.
[ "$MACHINE" != intel ] || exec 9>&-

# The distribution's kernel has jump labels, of which QEMU may keep a breakpoint
# that the kernel has removed (CONTRIBUTING.md).  If that ends the boot, before
# init has begun, nothing was tested: boot again, at most twice.
for again_boot in 1 2 last; do
	timeout --kill-after=2 "$TIMEOUT" "$lab/machine.sh" start \
		</dev/null 3>&1 9>&- >"$results/machine.log" 2>&1 &
	machine=$!
	# In the background: a shell that waits for a pipeline hears no signal.
	tail -n +1 -s 0.2 -f --pid=$machine "$ktap" | show &
	wait $machine 2>/dev/null
	status=$?
	machine=
	wait
	if [ "$HOST" != distro ] || [ "$again_boot" = last ] || [ -s "$ktap" ] ||
	   ! grep -q 'Oops: int3' "$results/console.log"; then
		break
	fi
	say "machine: an int3 of a breakpoint that the kernel had removed; booting again"
	mv "$results/console.log" "$results/console-int3-$again_boot.log"
	: >"$results/console.log"
done

rm -f "$results/cd.iso"

if grep -q ': report: ' "$ktap"; then
	say "report:  Linux $release, $BASE"
	sed -n 's/^# [^ ]*: report: /         /p' "$ktap"
fi
judge "$status"
