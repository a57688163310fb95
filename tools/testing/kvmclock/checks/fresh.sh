#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make check-fresh SUITE=: the README's commands in a fresh Debian of that suite, from
# a clone of what is committed here. Needs root, debootstrap and an archive of Debian
# in this machine's apt; the fresh system is below O=, and gone at the end. Prints KTAP.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

again="make check-fresh SUITE=$SUITE${KERNEL:+ KERNEL=$KERNEL}"
keys=/usr/share/keyrings/debian-archive-keyring.gpg

# archive NAME: where this machine has that part of Debian from
archive()
{
	# shellcheck disable=SC2016 # apt's variables
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		grep "/$1/\$" | head -n 1
}

need()
{
	die "$1" "check-fresh: $2"
}

# in_root COMMAND...: there, with mounts and processes that end with it
in_root()
{
	# shellcheck disable=SC2016 # the inner shell's
	unshare --mount --pid --fork --kill-child sh -c '
		root=$1
		shift
		mount -t proc proc "$root/proc" && mount -t sysfs -o ro sysfs "$root/sys" &&
			mount --rbind /dev "$root/dev" || exit
		exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' \
		in_root "$root" ${http_proxy:+"http_proxy=$http_proxy"} \
		${https_proxy:+"https_proxy=$https_proxy"} "$@" 9>&- &
	child=$!
	# In the background: a shell that waits for it hears a signal.
	status=0
	wait $child || status=$?
	child=
	return $status
}

# Nothing is mounted here, only where in_root() has been.
end()
{
	if [ -n "$child" ]; then
		kill -KILL "$child"
		# All that it started dies with it, but not before it.
		sleep 1
	fi
	rm -rf --one-file-system "$root"
}

make_root()
{
	debootstrap --variant=minbase --include=git,make,ca-certificates --keyring="$keys" \
		"$SUITE" "$root" "$debian" &&
	if [ -n "$security" ]; then
		echo "deb $security $SUITE-security main" >>"$root/etc/apt/sources.list"
	fi &&
	git clone -q --no-hardlinks "$top" "$root/root/kvmclock"
}

# step TARGET: one of the README's commands
step()
{
	begin=$(date +%s)
	in_root ${KERNEL:+"KERNEL=$KERNEL"} ${TESTS:+"TESTS=$TESTS"} "JOBS=$JOBS" \
		make -C /root/kvmclock "$1" >"$results/$1.log" 2>&1
	status=$?
	grep -e '^totals:' -e '^verdict:' -e '^error:' "$results/$1.log" | sed 's/^/# /'
	tail -n 30 "$results/$1.log" >"$results/last"
	ktap_result $status "$1 # $SUITE, $(($(date +%s) - begin)) s" "$results/last"
}

check_settings
one_of SUITE bookworm trixie
[ "$(id -u)" -eq 0 ] ||
	need $EXIT_USAGE "only root may make another system's root folder: sudo $again"
command -v debootstrap >/dev/null ||
	need $EXIT_TOOL "debootstrap is missing: apt-get install debootstrap"
unshare --mount true 2>/dev/null ||
	need $EXIT_USAGE "no mount may be made here, as in a container without CAP_SYS_ADMIN; run it on a machine, or in a privileged one"
[ -r "$keys" ] ||
	need $EXIT_TOOL "$keys is missing: apt-get install debian-archive-keyring"
debian=$(archive debian)
[ -n "$debian" ] ||
	need $EXIT_TOOL "this machine's apt knows no archive of Debian; add one to /etc/apt/sources.list"
security=$(archive debian-security)
git -C "$top" rev-parse -q --verify HEAD >/dev/null ||
	need $EXIT_USAGE "$top is no git repository, of which a clone can be had"
open_output
need_space 8000 "a fresh system, with two kernel trees"
root=$O/fresh-$SUITE
results=$O/results/fresh-$SUITE
child=
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
rm -rf --one-file-system "$root" "$results"
mkdir -p "$results"

ktap_plan 3
[ -z "$(git -C "$top" status --porcelain)" ] ||
	say "# what is not committed is not in it"
begin=$(date +%s)
status=0
make_root >"$results/root.log" 2>&1 || status=$?
tail -n 5 "$results/root.log" >"$results/last"
ktap_result $status "root # $SUITE of $debian, $(($(date +%s) - begin)) s" "$results/last"
for command in run check; do
	step $command
done
cp -rL "$root/root/kvmclock/build/results/latest" "$results/check" 2>/dev/null || :
say "# logs: $results"
ktap_end "check-fresh SUITE=$SUITE"
