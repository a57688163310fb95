# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2034,SC2154
#
# Read by fresh.sh and deb.sh, which make a Debian of SUITE= in the folder $root, below
# O= and gone at the end. $again is the command that repeats them.

check=$(basename "$0" .sh)
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
	die "$1" "check-$check: $2"
}

# What it takes to make one; where from, in debian and security
need_root()
{
	[ "$(id -u)" -eq 0 ] ||
		need "$EXIT_USAGE" "only root may make another system's root folder: sudo $again"
	command -v debootstrap >/dev/null ||
		need "$EXIT_TOOL" "debootstrap is missing: apt-get install debootstrap"
	unshare --mount true 2>/dev/null ||
		need "$EXIT_USAGE" "no mount may be made here, as in a container without CAP_SYS_ADMIN; run it on a machine, or in a privileged one"
	[ -r "$keys" ] ||
		need "$EXIT_TOOL" "$keys is missing: apt-get install debian-archive-keyring"
	debian=$(archive debian)
	[ -n "$debian" ] ||
		need "$EXIT_TOOL" "this machine's apt knows no archive of Debian; add one to /etc/apt/sources.list"
	security=$(archive debian-security)
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

# That folder, and the one of what is told of it, both empty
hold_root()
{
	root=$O/$check-$SUITE
	results=$O/results/$check-$SUITE
	child=
	trap end EXIT
	trap 'exit 130' INT
	trap 'exit 143' HUP TERM
	rm -rf --one-file-system "$root" "$results"
	mkdir -p "$results"
}

# root_result STATUS NAME WHERE: of what began at $begin, and has its output in the log NAME
root_result()
{
	tail -n 30 "$results/$2.log" >"$results/last"
	ktap_result "$1" "$2 # $3, $(($(date +%s) - begin)) s" "$results/last"
}
