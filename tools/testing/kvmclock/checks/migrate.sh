#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A Linux guest that is taken from QEMU to QEMU again and again, with the stock QEMU and
# with ours, as a table and a plot of its time of day. TESTS= names the ways. Fails if
# one of them fails: for ours each is judged, for stock only that the guest lives.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

MACHINE=amd
: "${TESTS:=linux_migrations linux_migrations_tsc linux_savevm linux_stop_tsc}"
: "${TIMEOUT:=7200}"
export MACHINE TESTS TIMEOUT
check_settings
[ "$BASE" = patched ] ||
	die $EXIT_USAGE "BASE=$BASE: make migrate compares two QEMUs, on a host with our clock; leave it out"
open_output
"$lab/deps.sh" scale || exit
scratch
trap 'exit 130' INT
trap 'exit 143' HUP TERM

for kind in stock patched; do
	say "=== QEMU=$kind"
	QEMU=$kind "$lab/run.sh" check || exit
	results=$(cd "$O/results/latest" && pwd -P)
	# Test, number, ms away, ms noticed, us of the clock over the TSC, us of the time of day
	sed -n 's/^# \([^ ]*\): report: \([0-9]*\): away \([0-9]*\) ms, noticed \([0-9]*\) ms; clock over TSC \([^ ]*\) us, CLOCK_REALTIME \([^ ]*\) us$/\1 \2 \3 \4 \5 \6/p' \
		"$results/ktap.log" >"$work/$kind"
	[ -s "$work/$kind" ] || die $EXIT_FAILED "nothing was told; see $results/ktap.log"
done

# A block per test: number, stock, ours.
for test in $TESTS; do
	awk -v test="$test" '
		$1 != test { next }
		NR == FNR { stock[$2] = $6; next }
		{ print $2, stock[$2], $6 }' "$work/stock" "$work/patched" >"$results/$test"
done
# A guest that somebody has paused is to be behind.
away=$(echo "$TESTS" | tr ' ' '\n' | grep -v -e stop -e paused | paste -sd' ')
[ -z "$away" ] || gnuplot - <<END || die $EXIT_TOOL "gnuplot failed, see above"
set terminal svg size 800,360 font "sans-serif,13" background "white"
set output "$results/migrate.svg"
set key left bottom reverse Left
load "$lab/checks/plot.gp"
set xlabel "times that the guest was away for some seconds"
set ylabel "s that its CLOCK_REALTIME is ahead" noenhanced
set offsets 0, 0, graph 0.08, 0
plot for [n = 1:words("$away")] "$results/".word("$away", n) using 1:(\$2 / 1e6) \
		with linespoints linecolor rgb stock pointtype n + 3 pointsize 0.5 \
		title word("$away", n).", stock QEMU" noenhanced, \
	for [n = 1:words("$away")] "$results/".word("$away", n) using 1:(\$3 / 1e6) \
		with linespoints linecolor rgb ours pointtype n + 3 pointsize 0.5 \
		title word("$away", n).", ours" noenhanced
END

say
awk '
	function abs(x) { return x < 0 ? -x : x }
	{
		kind = FILENAME ~ /stock$/ ? "stock" : "ours"
		id = $1 " " kind
		if (!(id in times)) {
			order[++nr] = id
			last[id] = 0
		}
		times[id]++
		away[id] += $3
		noticed[id] += $4
		if (abs($5) > abs(moved[id]))
			moved[id] = $5
		real[id] = $6
	}
	END {
		printf "%-24s %-6s %5s %8s %10s %18s %18s\n", "", "QEMU", "times", "ms away",
			"ms noticed", "clock over TSC, us", "time of day, us"
		for (i = 1; i <= nr; i++) {
			split(order[i], part, " ")
			id = order[i]
			printf "%-24s %-6s %5d %8d %10d %18.3f %18.3f\n", part[1], part[2], times[id],
				away[id] / times[id], noticed[id] / times[id], moved[id], real[id]
		}
	}' "$work/stock" "$work/patched" | sort -s -k1,1 | tee "$results/migrate"
[ -z "$away" ] || say "plot: $results/migrate.svg"
