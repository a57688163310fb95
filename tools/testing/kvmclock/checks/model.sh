#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make check-model: Spin looks at each interleaving of the models in model/, which say
# what they prove; and finds one that is wrong in each breakage that they name by an
# #ifdef or #ifndef.  Prints KTAP.
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

check_settings
"$lab/deps.sh" check-model || exit
scratch
cd "$work"

# explore MODEL [BREAKAGE]: the errors that there are, 0 or 1
explore()
{
	errors=
	rm -f pan* ./*.trail
	spin ${2:+-D$2} -a "$1" >pan.log 2>&1 || return 0
	gcc -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM=6000 -o pan pan.c || return 0
	./pan -m1000000 >pan.log 2>&1 || :
	# Without this line it was not looked at to the end.
	errors=$(sed -n 's/.*errors: \([0-9]*\)$/\1/p' pan.log)
	if grep -q -e 'max search depth too small' -e 'reached -DMEMLIM' pan.log; then
		errors=
	fi
}

breakages()
{
	sed -n 's/^#ifn*def //p' "$1" | sort -u
}

for model in "$lab"/model/*.pml; do
	{ echo; breakages "$model"; } | sed "s,^,$model ,"
done >models
ktap_plan "$(wc -l <models)"
while read -r model breakage; do
	begin=$(date +%s)
	name=$(basename "$model" .pml)${breakage:+ $breakage}
	: >pan.log
	explore "$model" "$breakage"
	states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' pan.log)
	if [ -z "$breakage" ]; then
		if [ "$errors" = 0 ]; then
			ktap_result 0 "$name # $states states, $(($(date +%s) - begin)) s"
		else
			spin -t -p "$model" >>pan.log 2>&1 || :
			ktap_result 1 "$name" pan.log
		fi
	elif [ "$errors" = 1 ]; then
		ktap_result 0 "$name # wrong, after $states states"
	else
		ktap_result 1 "$name # nothing is wrong with it" pan.log
	fi
done <models
ktap_end check-model
