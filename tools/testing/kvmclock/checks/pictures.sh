#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make pictures: README's pictures, made anew of what is measured now.  steps.svg is a
# guest's clock that is updated once a second, by the stock kernel and by ours, on one
# machine; each point is computed of two clock pages at one TSC, and exact.  scale.svg
# and migrate.svg are the plots of make scale and make migrate, if they have run here.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

MACHINE=amd
TESTS=clock_steps
export MACHINE HOST TESTS CONFIG
check_settings
[ "$BASE" = patched ] ||
	die $EXIT_USAGE "BASE=$BASE: make pictures runs on both kernels; leave it out"
open_output
find_base
quick_host
"$lab/deps.sh" scale || exit
scratch

for base in stock patched; do
	say "=== BASE=$base, a minute"
	BASE=$base "$lab/run.sh" check || exit
	sed -n 's/^# clock_steps: \([0-9.]* -*[0-9]*\)$/\1/p' "$O/results/latest/ktap.log" \
		>"$work/$base"
	[ "$(wc -l <"$work/$base")" -gt 1 ] ||
		die $EXIT_FAILED "no step was told; see $O/results/latest/ktap.log"
done

# Where there is room: the stock kernel's steps go up or down, by the TSC's rate.
room=$(awk 'END { print ($2 > 0 ? "top" : "bottom") }' "$work/stock")
gnuplot - <<END || die $EXIT_TOOL "gnuplot failed, see above"
set terminal svg size 800,360 font "sans-serif,13" background "white"
set output "$work/steps.svg"
set key left $room reverse Left
set xrange [* : *] noextend
load "$lab/checks/plot.gp"
set xlabel "seconds; the guest's clock page is updated in each"
set ylabel "ns that updates have moved the clock"
set offsets 0, 0, graph 0.08, 0
plot "$work/stock" using 1:2 with steps linewidth 2 linecolor rgb stock title "stock Linux $KERNEL", \
	"$work/patched" using 1:2 with steps linewidth 3 linecolor rgb ours title "ours"
END
cp "$work/steps.svg" "$lab/pictures/steps.svg"
say "picture: $lab/pictures/steps.svg"
for name in scale migrate; do
	newest=$(find "$O/results" -name "$name.svg" | LC_ALL=C sort | tail -n 1)
	[ -n "$newest" ] || continue
	cp "$newest" "$lab/pictures/$name.svg"
	say "picture: $lab/pictures/$name.svg"
done
