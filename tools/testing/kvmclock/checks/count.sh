#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# How many instructions the clock's operations take on the stock kernel and on
# ours, both compiled as distributions do, on the machine where a cycle is one
# instruction. Each is counted in two runs, which must agree to the instruction.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

MACHINE=intel
SMP=1
TESTS=instruction_count
CONFIG=fast
export MACHINE SMP TESTS CONFIG
check_settings
[ "$BASE" = patched ] || die $EXIT_USAGE "BASE=$BASE: make count runs on both kernels; leave it out"
open_output
find_base
scratch

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

# The table of this base kernel in COSTS.md is this one, without the machine that it
# depends on, and with what is said there of a row.
costs=$lab/COSTS.md
heading="| instructions, Linux $KERNEL |"
awk -v heading="$heading" -v costs="$costs" '
	BEGIN {
		while ((getline line <costs) > 0) {
			if (index(line, heading) == 1)
				there = 1
			else if (line !~ /^\|/)
				there = 0
			if (there && split(line, field, / *\| */) == 7)
				why[field[2]] = field[6] == "" ? "" : field[6] " "
		}
	}
	function grouped(n) {
		return n < 1000 ? n : grouped(int(n / 1000)) sprintf(",%03d", n % 1000)
	}
	{ number = $1; sub(/^[0-9]+ /, "") }
	NR == FNR { stock[$0] = number; next }
	FNR == 1 { print heading " stock | ours | ours/stock | for |\n|---|--:|--:|--:|---|" }
	{
		name = $0
		what = $0; sub(/, [^,]*$/, "", what)
		if (what != $0 && what == last)
			name = "..." substr($0, length(what) + 2)
		last = what
		printf "| %s | %s | %s | %.2f | %s|\n", name, grouped(stock[$0]), grouped(number),
			number / stock[$0], why[name]
	}' "$work/stock.1" "$work/patched.1" >"$work/table"
awk -v table="$work/table" -v heading="$heading" '
	index($0, heading) == 1 {
		while ((getline line <table) > 0)
			print line
		there = 1
	}
	!there || !/^\|/ { print }
	there && !/^\|/ { there = 0 }
	' "$costs" >"$work/COSTS.md"
if ! cmp -s "$work/COSTS.md" "$costs"; then
	cp "$work/COSTS.md" "$costs"
	die $EXIT_FAILED "COSTS.md had other numbers; now it has these: git diff"
fi
