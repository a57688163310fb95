#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# source.sh SERIES: the source of a kernel that no suite of this machine has, from the
# suite of Debian that has it, into O=/source. The archive and its keys are those of
# this machine; lists and packages stay below O=, and nothing is installed.
set -eu
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

[ $# -eq 1 ] || die $EXIT_USAGE "usage: source.sh SERIES"
series=$1
case $series in
6.12) suite=trixie ;;
7.3) suite=trixie-backports ;;
*) die $EXIT_USAGE "KERNEL=$series: no suite is known to have it; give its source by KERNEL_SRC=" ;;
esac
package=linux-source-$series
keys=/usr/share/keyrings/debian-archive-keyring.gpg

lacks()
{
	die $EXIT_TOOL "$package is in no suite of this machine, and $*: give the kernel's source by KERNEL_SRC="
}

own_apt()
{
	apt-get -q -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache" "$@" >"$folder/log" 2>&1
}

open_output
folder=$O/source
[ ! -e "$folder/$package.tar.xz" ] || exit 0
command -v apt-get >/dev/null || lacks "there is no apt-get to ask for others"
[ -r "$keys" ] || lacks "$keys is missing, without which no other can be trusted"
# shellcheck disable=SC2016 # apt's variables
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
	grep '/debian/$' | head -n 1) || :
[ -n "$archive" ] || lacks "its apt knows no archive of Debian"
need_space 1000 "the source of Linux $series"

say "source: no suite of this machine has $package; fetching it from $suite of $archive into $folder, nothing is installed"
mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/deb"
echo "deb [signed-by=$keys] $archive $suite main" >"$folder/sources.list"
# As root apt says that it downloads as root; only its failure matters.
if ! own_apt update || ! (cd "$folder/deb" && own_apt download "$package"); then
	grep '^[EW]:' "$folder/log" >&2 || cat "$folder/log" >&2
	lacks "$suite of $archive did not give it, see above"
fi
dpkg -x "$folder"/deb/*.deb "$folder/deb"
mv "$folder/deb/usr/src/$package.tar.xz" "$folder/"
rm -rf "$folder/deb" "$folder/lists" "$folder/cache"
