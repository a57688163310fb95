#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make check-all: each command of RESULTS.md, one after the other, and its row there made
# anew; with ROWS= those that have these words in them. Fails if one of them does.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

results=$lab/RESULTS.md
check_settings
open_output
scratch

# With a + if what is tested is not what was committed.
commit=$(git -C "$top" rev-parse --short HEAD) ||
	die $EXIT_USAGE "$top is no git repository, whose commit could be named"
[ -z "$(git -C "$top" status --porcelain -- . ":!$results")" ] || commit=$commit+

# outcome LOG STATUS: in a few words
outcome()
{
	awk -v status="$2" '
		/^totals:/ { said = said (said == "" ? "" : "; ") substr($0, 10) }
		/^ok / { good++ }
		/^not ok / { bad++ }
		/^error:|^verdict: FAILED/ { why = $0 }
		END {
			gsub(/ +/, " ", said)
			if (said == "" && good + bad)
				said = good + 0 " passed, " bad + 0 " failed"
			if (said == "")
				said = status ? "" : "passed"
			if (status)
				said = said (said == "" ? "" : "; ") (why == "" ? "failed" : why)
			gsub(/\|/, "/", said)
			print said
		}' "$1"
}

# shellcheck disable=SC2016 # a row's quotes
sed -n 's/^| `make \([^`]*\)` |.*/\1/p' "$results" | grep -e "$ROWS" >"$work/commands" ||
	die $EXIT_USAGE "ROWS=$ROWS: no command in $results has these words"
ktap_plan "$(wc -l <"$work/commands")"
while read -r command; do
	say "# make $command"
	begin=$(date +%s)
	# Nothing but its own variables, and our hold of the folder.
	# shellcheck disable=SC2086 # words
	env -i PATH="$PATH" HOME="$HOME" KVMCLOCK_HOLDS="$KVMCLOCK_HOLDS" \
		${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} \
		make -C "$top" O="$O" JOBS="$JOBS" $command </dev/null >"$work/log" 2>&1
	status=$?
	minutes=$((($(date +%s) - begin + 59) / 60))
	result=$(outcome "$work/log" $status)
	row="| \`make $command\` | $(date -u +%F) | $commit | $minutes | $result |"
	# Anew in the file as it is now, in which others may have written their rows.
	ROW=$row awk -v begin="| \`make $command\` |" '
		index($0, begin) == 1 { print ENVIRON["ROW"]; next }
		{ print }' "$results" >"$work/table" && cp "$work/table" "$results"
	ktap_result $status "make $command # $minutes min: $result" "$work/log"
done <"$work/commands"
ktap_end check-all
