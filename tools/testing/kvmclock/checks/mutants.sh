#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Each breakage of our code in mutants/ must be caught by the case of a test that
# the patch names in its first line; with QEMU=patched those that ask for it, else all
# others. MUTANT=name: that one only. Prints KTAP.
# BY="TEST CASE": how many of those that are built as usual does that one catch?
# A patch may name variables in its third line, "with: NAME=VALUE...": KCFLAGS for an
# option of ours, DRIFT, QEMU. Under KVM_PROVE_CLOCK a warning of the clock counts as well.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

HOST=distro
export HOST
check_settings
[ "$BASE" = patched ] || die $EXIT_USAGE "BASE=$BASE: mutants are mutants of ours; leave it out"
open_output
scratch

# attempt TEST CASE: runs it on the mutant, and says in $end how that went.
attempt()
{
	if [ "$1" = check-arith ]; then
		"$lab/checks/arith.sh" >"$work/log" 2>&1
		code=$?
		sed -n 's/^not ok [0-9]* //p' "$work/log" >"$work/failed"
	else
		# An int3 is QEMU's, see run.sh, also if it comes later.
		for try in 1 2 3; do
			# shellcheck disable=SC2086 # words
			env $with TESTS="$1" CASE="${2##*.}" "$lab/run.sh" check \
				>"$work/log" 2>&1
			code=$?
			grep -q 'Oops: int3' "$O/results/latest/console.log" || break
			echo "# attempt $try ended in a stale breakpoint"
		done
		awk -f "$lab/checks/cases.awk" "$O/results/latest/ktap.log" |
			awk '$2 != "-" && $3 == "FAIL" { print $2 }' >"$work/failed"
	fi
	case $code in
	0) end="survived" ;;
	"$EXIT_SPLAT")
		end=caught
		case $with in
		*PROVE_CLOCK*) grep -q "WARNING: .*/kvmclock[._]" "$O/results/latest/console.log" ;;
		*) false ;;
		esac || end="$(grep '^verdict:' "$work/log" | tail -n 1)" ;;
	"$EXIT_FAILED")
		end=caught
		grep -qxF -e "$2" "$work/failed" ||
			end="failed, but not there: $(paste -sd' ' "$work/failed")" ;;
	*) end="$(grep -e '^error:' -e '^verdict:' "$work/log" | tail -n 1)" ;;
	esac
}

# caught_by NAME: the test and the case that are to catch it
caught_by()
{
	if [ -n "$BY" ]; then
		echo "$BY"
	else
		sed -n '1s/^caught by: //p' "$lab/checks/mutants/$1.patch"
	fi
}

# variables NAME: of its run
variables()
{
	sed -n '3s/^with: *//p' "$lab/checks/mutants/$1.patch"
}

# named FIELD: of those on that machine, the tests (1) or the cases (2)
named()
{
	awk -F'|' -v with="$with" '$1 == with { print $2 }' "$work/due" |
		awk -v field="$1" '!seen[$field]++ { print $field }'
}

# Those that are built with other options come last: all of KVM is built for them.
names=${MUTANT:-$(cd "$lab/checks/mutants" &&
	{ grep -L '^with: *KCFLAGS' -- *.patch; grep -l '^with: *KCFLAGS' -- *.patch; } |
		sed 's/\.patch$//')}

# Those that need another emulator than the distribution's are for who has it built.
[ -n "$MUTANT" ] || names=$(for name in $names; do
	asks=$(variables "$name" | grep -o 'QEMU=[a-z]*')
	[ "${asks:-QEMU=stock}" != "QEMU=$QEMU" ] || echo "$name"
done)

[ -z "$BY" ] || names=$(for name in $names; do
	grep -q -e "^caught by: check-arith" -e "^with: *KCFLAGS" "$lab/checks/mutants/$name.patch" ||
		echo "$name"
done)

# To be caught means nothing where the unbroken code is, too, on the same machine.
MUTANT=
export MUTANT
"$lab/checks/arith.sh" >/dev/null || exit
for name in $names; do
	echo "$(variables "$name" | grep -v '^KCFLAGS')|$(caught_by "$name")"
done >"$work/due"
cut -d'|' -f1 "$work/due" | sort -u >"$work/machines"
while read -r with; do
	tests=$(named 1 | grep -vx check-arith | paste -sd' ')
	[ -n "$tests" ] || continue
	CASE=
	[ "$(named 2 | wc -w)" -gt 1 ] || CASE=$(named 2 | sed 's/.*\.//')
	export CASE
	# shellcheck disable=SC2086 # words
	env $with TESTS="$tests" "$lab/run.sh" check </dev/null || exit
done <"$work/machines"

ktap_plan "$(echo "$names" | wc -w)"
for name in $names; do
	MUTANT=$name
	say "# $(sed -n '2s/^broken: *//p' "$lab/checks/mutants/$MUTANT.patch")"
	with=$(variables "$MUTANT")
	begin=$(date +%s)
	# shellcheck disable=SC2046 # two words
	set -- $(caught_by "$MUTANT")
	if [ $# -eq 2 ]; then
		attempt "$1" "$2"
	else
		end="the patch's first line must be: caught by: TEST CASE"
	fi
	if [ "$end" = caught ]; then
		ktap_result 0 "$MUTANT # ${2-}, $(($(date +%s) - begin)) s"
	else
		ktap_result 1 "$MUTANT # ${2-}: $end; again: make mutants MUTANT=$MUTANT" "$work/log"
	fi
done
if [ -n "$BY" ]; then
	say "# $((nr - bad)) of $nr are caught by $BY"
	[ $((100 * (nr - bad))) -ge $((60 * nr)) ] ||
		die $EXIT_FAILED "BY=\"$BY\": less than three in five are caught, see above"
	exit 0
fi
ktap_end mutants
