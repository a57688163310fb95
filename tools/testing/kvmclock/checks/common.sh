# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Read by every check: the settings, a scratch folder, and KTAP.

# shellcheck source=../settings.sh
. "$(dirname "$0")/../settings.sh"

# A folder $work that is gone with the script.
scratch()
{
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' HUP TERM
}

# The host that is the quicker one to have, once the base is found.  Not every
# distribution has a kernel of 7.3: it is built, optimised as a distribution's is.  What is
# optimised for size instead is not dearer by its instructions, but at 1,024 vCPUs up to a
# fifth by the emulator's caches.
quick_host()
{
	HOST=distro
	[ "$KERNEL" = 6.12 ] || { HOST=built CONFIG=fast; }
}

# ktap_plan NUMBER: how many results will come
ktap_plan()
{
	planned=$1
	nr=0
	bad=0
	printf 'KTAP version 1\n1..%d\n' "$planned"
}

# ktap_result STATUS NAME [FILE]: the next result; FILE tells of a failure
ktap_result()
{
	nr=$((nr + 1))
	if [ "$1" -eq 0 ]; then
		say "ok $nr $2"
		return
	fi
	bad=$((bad + 1))
	[ $# -lt 3 ] || sed 's/^/# /' "$3"
	say "not ok $nr $2"
}

# ktap_empty NAME FILE: passes if FILE, of what is wrong, is empty
ktap_empty()
{
	status=0
	[ ! -s "$2" ] || status=1
	ktap_result $status "$1" "$2"
}

# ktap_end TARGET: the totals, and the exit code of make TARGET
ktap_end()
{
	say "# Totals: pass:$((nr - bad)) fail:$bad skip:0"
	bad=$((bad + planned - nr))
	[ $bad -eq 0 ] || die $EXIT_FAILED "$bad of $planned did not pass, see above; again: make $1"
}
