#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# How many instructions the clock's operations take on the base as it is and on
# ours, on the machine where a cycle is one instruction. Each is counted in two
# runs, which must agree to the instruction.
set -u
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

MACHINE=intel
SMP=1
TESTS=instruction_count
export MACHINE SMP TESTS
check_settings
[ "$BASE" = patched ] || die $EXIT_USAGE "BASE=$BASE: make count runs on both bases; leave it out"
open_output
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM

for run in 1 2; do
	for base in stock patched; do
		say "=== BASE=$base, run $run of 2"
		BASE=$base "$lab/run.sh" check || exit
		sed -n 's/^# instruction_count: count: //p' "$O/results/latest/ktap.log" \
			>"$work/$base.$run"
		[ -s "$work/$base.$run" ] ||
			die $EXIT_FAILED "nothing was counted; see $O/results/latest/ktap.log"
	done
done

say
for base in stock patched; do
	diff "$work/$base.1" "$work/$base.2" ||
		die $EXIT_FAILED "BASE=$base: two runs differ, see above; this machine is not deterministic"
done
awk '
	{ number = $1; sub(/^[0-9]+ /, "") }
	NR == FNR { stock[$0] = number; next }
	FNR == 1 { printf "%-48s %9s %9s  %s\n", "instructions", "stock", "ours", "ours/stock" }
	{ printf "%-48s %9d %9d  %.2f\n", $0, stock[$0], number, number / stock[$0] }
	' "$work/stock.1" "$work/patched.1"
say "The same numbers in both runs."
