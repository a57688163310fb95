#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Which lines and branches of the clock's files all tests together execute, on both
# machines or on MACHINE=; on the AMD one also with QEMU=patched, whose TSC scales,
# restarts and can be written. What is not executed has to stand in checks/uncovered,
# with its reason, and nothing else there: a difference fails.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

# Which machines' list it is, is known if it was asked for by one name only.
case " $given" in
*" MACHINE="*) machines=$MACHINE ;;
*) machines=all ;;
esac
case $machines in
all) machines="amd-stock amd-patched intel-stock" ;;
amd) machines="amd-stock amd-patched" ;;
intel) machines=intel-stock ;;
esac
CONFIG=coverage
export CONFIG
check_settings
[ "$BASE$HOST" = patchedbuilt ] ||
	die $EXIT_USAGE "BASE=$BASE HOST=$HOST: make coverage is of a kernel with our clock; leave them out"
open_output
find_base
work=$O/coverage
rm -rf "$work"
mkdir -p "$work/merged"

# Everything that runs there by itself, and what gives the counters away.
tests_of()
{
	awk -v machine="$1" -v kernel="$KERNEL" '
		/^#/ || NF == 0 { next }
		split($2, only, "@") == 2 && only[2] != kernel { next }
		{ kinds = split(only[1], kind, "/"); $2 = kind[machine ~ /^intel/ ? kinds : 1] }
		$2 ~ /^(required|optional|scaling|built)$/ { print $1 }' "$lab/machine/plan" | paste -sd' '
}

for machine in $machines; do
	say "=== MACHINE=${machine%-*} QEMU=${machine#*-}"
	mkdir "$work/$machine"
	MACHINE=${machine%-*} QEMU=${machine#*-} \
		TESTS="${TESTS:-$(tests_of "$machine")} coverage_data" "$lab/run.sh" check || exit
	awk -v to="$work/$machine" '
		$2 != "coverage_data:" { next }
		$3 == "gcda:" { sub(".*/", "", $4); file = to "/" $4 ".base64"; next }
		NF == 3 { print $3 >file }' "$O/results/latest/ktap.log"
	for file in "$work/$machine"/*.base64; do
		base64 -d "$file" >"${file%.base64}" || exit
		rm "$file"
	done
	if [ -e "$work/merged/kvmclock_core.gcda" ]; then
		gcov-tool merge -o "$work/both" "$work/merged" "$work/$machine" || exit
		rm -r "$work/merged"
		mv "$work/both" "$work/merged"
	else
		cp "$work/$machine"/*.gcda "$work/merged/"
	fi
done

cp "$O/kernel-$KERNEL-coverage/arch/x86/kvm"/kvmclock_*.gcno "$work/merged/"
(cd "$work" && gcov -b -c merged/kvmclock_*.gcda) >"$work/log" 2>&1 ||
	die $EXIT_FAILED "gcov failed, see $work/log"

# A line of a header is there once for each object, and its functions once more for each
# copy: it is executed if one of them is. A function begins at the margin.
awk -v report="$work/report" -v list="$work/uncovered" '
	FNR == 1 {
		file = FILENAME
		sub(/.*\//, "", file)
		sub(/\.gcov$/, "", file)
		line = 0
	}
	/^branch/ && line {
		branch = file SUBSEP line SUBSEP $2
		if (!(branch in taken)) {
			taken[branch] = 0
			branches[owner[file, line]]++
		}
		if (!/never executed/ && $4 > 0 && !taken[branch]) {
			taken[branch] = 1
			went[owner[file, line]]++
		}
		next
	}
	!match($0, /^ *[^: ]+: *[0-9]+:/) { line = 0; next }
	{
		split($0, column, ":")
		count = column[1]
		line = column[2] + 0
		text = substr($0, RLENGTH + 1)
		gsub(/ /, "", count)
		if (text ~ /^[a-z].*\(/ && text !~ /;$/) {
			name = text
			sub(/\(.*/, "", name)
			sub(/.*[ *]/, "", name)
		}
		if (count == "-")
			next
		id = file SUBSEP line
		if (!(id in owner)) {
			owner[id] = file " " name
			if (!lines[owner[id]]++)
				functions[++nr] = owner[id]
			gsub(/^[ \t]+/, "", text)
			words[id] = text
			order[++n] = id
		}
		if (count !~ /^[#=]/ && !executed[id]) {
			executed[id] = 1
			done[owner[id]]++
		}
	}
	END {
		printf "%-18s %-36s %12s %14s\n", "file", "function", "lines", "branches" >report
		for (i = 1; i <= nr; i++) {
			f = functions[i]
			split(f, part, " ")
			printf "%-18s %-36s %5d of %-4d %5d of %-4d\n", part[1], part[2],
				done[f], lines[f], went[f], branches[f] >report
			all += lines[f]; all_done += done[f]
			all_branches += branches[f]; all_went += went[f]
		}
		printf "%d of %d lines, %d of %d branches\n", all_done, all, all_went, all_branches >report
		printf "" >list
		for (i = 1; i <= n; i++)
			if (!executed[order[i]])
				print owner[order[i]] ": " words[order[i]] >list
	}' "$work"/kvmclock*.gcov

cat "$work/report"
say
# A line with a ? before it needs a race: it is executed in some runs.
sed -n -e '/^#/d' -e 's/^? //' -e '/./p' "$lab/checks/uncovered" | LC_ALL=C sort -u >"$work/expected"
sed -n 's/^? //p' "$lab/checks/uncovered" | LC_ALL=C sort -u >"$work/sometimes"
LC_ALL=C sort -u "$work/uncovered" >"$work/found"
bad=0
LC_ALL=C comm -13 "$work/expected" "$work/found" | sed 's/^/not executed: /' | grep . && bad=1
LC_ALL=C comm -23 "$work/expected" "$work/found" | LC_ALL=C comm -23 - "$work/sometimes" |
	sed 's/^/executed, but listed: /' | grep . && bad=1
say "report:  $work/report, and each file with its counts beside it"
[ $bad -eq 0 ] ||
	die $EXIT_FAILED "checks/uncovered does not say what is not executed; see above"
