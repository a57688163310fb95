#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Our tests on the stock kernel and on ours, and a table of both, case by case. Ours has
# to pass all of them, without a word of the kernel, and each row of DEFECTS.md to be
# true. A test that the stock kernel passes in every case shows nothing about it, and is
# told.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

check_settings
[ "$BASE" = patched ] || die $EXIT_USAGE "BASE=$BASE: make compare runs on both kernels; leave it out"
[ "$MACHINE" != all ] || die $EXIT_USAGE "MACHINE=all: make compare makes one table; give amd or intel"
open_output
find_base
# A test that may skip on this machine, or is too slow for it, would show nothing.
: "${TESTS:=$(awk -v machine="$MACHINE" '
	{ kinds = split($2, kind, "/") }
	kind[machine == "intel" ? kinds : 1] == "required" &&
		$1 ~ /^(kvmclock_|kvm_clock_check$|linux_guest$)/ { print $1 }
	' "$lab/machine/plan" | paste -sd' ')}"
export TESTS
trap 'exit 130' INT
trap 'exit 143' HUP TERM

# run_on BASE CODE...: leaves its results in $results. CODE: how it may end. The stock
# kernel may fail its tests, and even warn; not to have run all of them is another matter.
run_on()
{
	say "=== BASE=$1"
	BASE=$1 "$lab/run.sh" check
	code=$?
	case " $* " in
	*" $code "*) ;;
	*) exit $code ;;
	esac
	results=$(cd "$O/results/latest" && pwd -P)
	awk -f "$lab/checks/cases.awk" "$results/ktap.log" >"$results/cases"
}

run_on stock 0 "$EXIT_FAILED" "$EXIT_SPLAT" "$EXIT_SKIPPED"
stock=$results
run_on patched 0

say
say "=== stock: $stock, ours: $results"
bad=0
awk '
	{
		id = $1 " " $2
		if (!(id in line)) {
			line[id] = ++lines
			test[lines] = $1
			name[lines] = $2 == "-" ? $1 : "  " $2
		}
		word[line[id], FILENAME == ARGV[1] ? "stock" : "ours"] = $3
	}
	function of(i, base) {
		return (i, base) in word ? word[i, base] : "none"
	}
	END {
		printf "%-50s  %-5s  %s\n", "test", "stock", "ours"
		for (i = 1; i <= lines; i++) {
			printf "%-50s  %-5s  %s\n", name[i], of(i, "stock"), of(i, "ours")
			if (name[i] != test[i]) {
				cases++
				differ += of(i, "stock") != "ok" && of(i, "stock") != "skip"
				continue
			}
			if (of(i, "stock") == "ok")
				same = same " " test[i]
		}
		printf "%d of %d cases are not ok on stock\n", differ, cases
		if (same)
			print "no difference is shown by:" same
		exit same != ""
	}' "$stock/cases" "$results/cases" || bad=1
awk -v machine="$MACHINE" -v kernel="$KERNEL" -v drift="$DRIFT" \
	-f "$lab/checks/defects.awk" "$lab/DEFECTS.md" "$stock/cases" "$results/cases" || bad=1
for base in "$stock" "$results"; do
	[ ! -s "$base/wrong-verdicts" ] || {
		say "kvm-clock-check and the tests do not agree, see $base/wrong-verdicts"
		bad=1
	}
done
[ $bad -eq 0 ] ||
	die $EXIT_FAILED "stock must pass no test completely, and fail what DEFECTS.md says; see the table"
