#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What the clock's operations cost each vCPU of VMs of 16 to 1,024, in the stock kernel
# and in ours, as a table and a plot: the least of ROUNDS runs of each, in turn, as the
# machine below may be slow for a minute. No absolute number counts: fails if an
# operation of ours costs FLAT percent or more of what it does in the smallest VM, unless
# the rest of KVM has it grow so in the stock kernel, too, and ours is DEARER percent of
# that at most; or if the restore of the largest VM costs DEARER percent or more.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

FLAT=150
DEARER=120
ROUNDS=3

MACHINE=amd
TESTS=scale
export MACHINE HOST TESTS CONFIG
check_settings
[ "$BASE" = patched ] || die $EXIT_USAGE "BASE=$BASE: make scale runs on both kernels; leave it out"
open_output
find_base
quick_host
"$lab/deps.sh" scale || exit
scratch

round=1
while [ $round -le $ROUNDS ]; do
	for base in stock patched; do
		say "=== BASE=$base, round $round of $ROUNDS"
		BASE=$base "$lab/run.sh" check || exit
		results=$(cd "$O/results/latest" && pwd -P)
		sed -n 's/^# scale: scale: //p' "$results/ktap.log" >"$work/$base.$round"
		[ -s "$work/$base.$round" ] ||
			die $EXIT_FAILED "nothing was measured; see $results/ktap.log"
	done
	round=$((round + 1))
done
for base in stock patched; do
	awk '
		{ at = $1; number = $2; sub(/^[0-9]+ [0-9]+ /, "") }
		!((at, $0) in least) { size[++n] = at; what[n] = $0; least[at, $0] = number }
		number < least[at, $0] { least[at, $0] = number }
		END {
			for (i = 1; i <= n; i++)
				print size[i], least[size[i], what[i]], what[i]
		}' "$work/$base".? >"$work/$base"
done

# A line per operation and size: size, stock (or -), ours, operation.
awk '
	{ size = $1; number = $2; sub(/^[0-9]+ [0-9]+ /, "") }
	NR == FNR { stock[size, $0] = number; next }
	{ print size, (size, $0) in stock ? stock[size, $0] : "-", number, $0 }
	' "$work/stock" "$work/patched" >"$results/scale"

# A block per operation, and its title in a file of its own, for the plot.
awk -v names="$work/names" '
	!$1 { next }
	{ line = $1 " " $2 " " $3; sub(/^[^ ]+ [^ ]+ [^ ]+ /, "") }
	!($0 in block) { order[++nr] = $0; print >names }
	{ block[$0] = block[$0] line "\n" }
	END { for (i = 1; i <= nr; i++) print block[order[i]] "\n" }
	' "$results/scale" >"$work/blocks"
gnuplot - <<END || die $EXIT_TOOL "gnuplot failed, see above"
nr = $(wc -l <"$work/names")
set terminal svg noenhanced size 1200,1600 font "sans-serif,13" background "white"
set output "$results/scale.svg"
set datafile missing "-"
set logscale x
set xrange [14 : 1200]
set xtics (16, 64, 256, 1024)
set yrange [0 : *]
set key left bottom
load "$lab/checks/plot.gp"
set linetype 1 linecolor rgb stock linewidth 2
set linetype 2 linecolor rgb ours linewidth 2
set xlabel "vCPUs"
set ylabel "ns per vCPU"
set multiplot layout (nr + 2) / 3,3
do for [i = 1:nr] {
	set title system(sprintf("sed -n %dp '$work/names'", i))
	plot "$work/blocks" index i - 1 using 1:2 with linespoints title "stock", \
		"" index i - 1 using 1:3 with linespoints title "ours"
}
END

say
awk -v flat=$FLAT -v dearer=$DEARER '
	{
		size = $1; stock = $2; ours = $3
		sub(/^[^ ]+ [^ ]+ [^ ]+ /, "")
		if (!size) {
			printf "%-40s %9s | %6s\n", $0, stock, ours
			next
		}
		if (!seen[$0]++)
			name[++names] = $0
		if (!first[$0]) {
			first[$0] = ours
			first_stock[$0] = stock
		}
		if (!column[size]++)
			sizes[++nr] = size
		cell[$0, size] = stock " | " ours
		last[$0] = ours
		last_stock[$0] = stock
	}
	END {
		printf "%-40s", "ns per vCPU, stock | ours"
		for (j = 1; j <= nr; j++)
			printf " %15s", sizes[j]
		printf " %8s\n", "last/first"
		for (i = 1; i <= names; i++) {
			n = name[i]
			printf "%-40s", n
			for (j = 1; j <= nr; j++)
				printf " %15s", cell[n, sizes[j]]
			printf " %8.2f\n", last[n] / first[n]
			if (100 * last[n] >= flat * first[n])
				if (last_stock[n] == "-" ||
				    100 * last_stock[n] < flat * first_stock[n] ||
				    100 * last[n] >= dearer * last_stock[n])
					wrong = wrong "\nnot flat: " n
			if (n ~ /^restore/ && 100 * last[n] >= dearer * last_stock[n])
				wrong = wrong "\ndearer than in the stock kernel: " n
		}
		if (wrong) {
			print wrong
			exit 1
		}
	}' "$results/scale" || die $EXIT_FAILED "see above; the numbers are in $results/scale"
say "plot: $results/scale.svg"
