#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Each breakage of our code in mutants/ must be caught by the case of a test that
# the patch names in its first line. MUTANT=name: that one only. Prints KTAP.
set -u
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

HOST=distro
export HOST
check_settings
[ "$BASE" = patched ] || die $EXIT_USAGE "BASE=$BASE: mutants are mutants of ours; leave it out"
open_output
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM

# attempt TEST CASE: runs it on the mutant, and says in $end how that went.
attempt()
{
	if [ "$1" = check-arith ]; then
		"$lab/check-arith.sh" >"$work/log" 2>&1
		code=$?
		sed -n 's/^not ok [0-9]* //p' "$work/log" >"$work/failed"
	else
		# An int3 is QEMU's, see run.sh, also if it comes later.
		for try in 1 2 3; do
			TESTS=$1 CASE=${2##*.} "$lab/run.sh" check >"$work/log" 2>&1
			code=$?
			grep -q 'Oops: int3' "$O/results/latest/console.log" || break
			echo "# attempt $try ended in a stale breakpoint"
		done
		awk -f "$lab/cases.awk" "$O/results/latest/ktap.log" |
			awk '$2 != "-" && $3 == "FAIL" { print $2 }' >"$work/failed"
	fi
	case $code in
	0) end="survived" ;;
	"$EXIT_FAILED")
		end=caught
		grep -qxF -e "$2" "$work/failed" ||
			end="failed, but not there: $(paste -sd' ' "$work/failed")" ;;
	*) end="$(grep -e '^error:' -e '^verdict:' "$work/log" | tail -n 1)" ;;
	esac
}

# named FIELD: of the first line of each patch, the test (3) or the case (4)
named()
{
	for name in $names; do
		sed -n 1p "$lab/mutants/$name.patch"
	done | awk -v field="$1" '!seen[$field]++ { print $field }'
}

names=${MUTANT:-$(cd "$lab/mutants" && echo *.patch | sed 's/\.patch//g')}

# To be caught means nothing where the unbroken code is, too.
MUTANT=
CASE=
export MUTANT CASE
tests=$(named 3 | grep -vx check-arith | paste -sd' ')
"$lab/check-arith.sh" >/dev/null || exit
if [ -n "$tests" ]; then
	[ "$(echo "$names" | wc -w)" -gt 1 ] || CASE=$(named 4 | sed 's/.*\.//')
	TESTS=$tests "$lab/run.sh" check || exit
fi

nr=0
bad=0
say "KTAP version 1"
say "1..$(echo "$names" | wc -w)"
for name in $names; do
	MUTANT=$name
	say "# $(sed -n '2s/^broken: *//p' "$lab/mutants/$MUTANT.patch")"
	begin=$(date +%s)
	# shellcheck disable=SC2046 # two words
	set -- $(sed -n '1s/^caught by: //p' "$lab/mutants/$MUTANT.patch")
	if [ $# -eq 2 ]; then
		attempt "$1" "$2"
	else
		end="the patch's first line must be: caught by: TEST CASE"
	fi
	nr=$((nr + 1))
	spent=$(($(date +%s) - begin))
	if [ "$end" = caught ]; then
		printf 'ok %d %-26s # %s, %d s\n' $nr "$MUTANT" "${2-}" $spent
	else
		bad=$((bad + 1))
		sed 's/^/# /' "$work/log"
		printf 'not ok %d %-26s # %s: %s; again: make mutants MUTANT=%s\n' \
			$nr "$MUTANT" "${2-}" "$end" "$MUTANT"
	fi
done
say "# Totals: pass:$((nr - bad)) fail:$bad skip:0"
[ $bad -eq 0 ] || die $EXIT_FAILED "$bad of $nr mutants were not caught by the test that they name"
