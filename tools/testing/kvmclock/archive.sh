# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154
#
# Read by source.sh, distro.sh and build.sh: packages that no suite of this machine has,
# from the suite of Debian that has them. The archive and its keys are those of this
# machine; lists and packages stay below O=, and nothing is installed.

# Options of apt: none for this machine's own suites. They hold no blanks, as O= has none.
suite=
apt=

# use_suite SERIES PACKAGE: from here on, by $apt, the suite that has kernels of SERIES,
# or, of qemu-SERIES, the source
use_suite()
{
	keys=/usr/share/keyrings/debian-archive-keyring.gpg
	lacks="no suite of this machine has $2, and"
	instead="give a kernel's source by KERNEL_SRC="
	type=deb
	case $1 in
	6.12) suite=trixie ;;
	7.3) suite=trixie-backports ;;
	qemu-7.2) suite=bookworm type=deb-src ;;
	qemu-10.0) suite=trixie type=deb-src ;;
	qemu-10.2) suite=sid type=deb-src ;;
	*) die "$EXIT_TOOL" "$lacks no other is known to: take another KERNEL_SRC=" ;;
	esac
	if [ $type = deb-src ]; then
		lacks="this machine's apt has no sources, and"
		instead="take QEMU=stock"
	fi
	[ -r "$keys" ] ||
		die "$EXIT_TOOL" "$lacks without $keys no other can be trusted: apt-get install debian-archive-keyring"
	# shellcheck disable=SC2016 # apt's variables
	archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
		grep '/debian/$' | head -n 1) || :
	[ -n "$archive" ] ||
		die "$EXIT_TOOL" "$lacks its apt knows no archive of Debian: $instead"

	lists=$O/apt/$suite-$type
	apt="-o Dir::Etc::SourceList=$lists/sources.list -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists=$lists/lists -o Dir::Cache=$lists/cache"
	say "apt: $lacks nothing is installed: looking into $suite of $archive, with lists in $lists"
	mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
	echo "$type [signed-by=$keys] $archive $suite main" >"$lists/sources.list"
	# shellcheck disable=SC2086 # options
	if ! apt-get -q $apt update >"$lists/log" 2>&1 || grep -q '^[EW]: Failed' "$lists/log"; then
		cat "$lists/log" >&2
		die "$EXIT_TOOL" "$lacks $suite of $archive cannot be read, see above: $instead"
	fi
}

# unpack FOLDER PACKAGE...: its files in a folder that appears complete or not at all
unpack()
{
	to=$1
	shift
	rm -rf "$to.part"
	mkdir -p "$to.part/deb"
	# As root apt says that it downloads as root; only its failure matters.
	# shellcheck disable=SC2086 # options
	(cd "$to.part/deb" && apt-get -q $apt download "$@" >log 2>&1) || {
		cat "$to.part/deb/log" >&2
		die "$EXIT_TOOL" "apt-get could not download $*${suite:+ from $suite}, see above"
	}
	for deb in "$to.part/deb"/*.deb; do
		dpkg -x "$deb" "$to.part"
	done
	rm -r "$to.part/deb"
}
