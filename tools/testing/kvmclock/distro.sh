#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# distro.sh headers|image VERSION: the distribution's own kernel of this version and
# FLAVOUR=, from its packages, unpacked instead of installed. Leaves in O=/distro:
#	headers-VERSION-FLAVOUR/build		folder to build modules against
#	image-VERSION-FLAVOUR/boot/vmlinuz-*	kernel
#	image-VERSION-FLAVOUR/lib/modules/*	its modules
set -eu
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

# The smallest one that is a host and a guest is the cloud's.
flavour=$FLAVOUR-amd64
[ "$FLAVOUR" != generic ] || flavour=amd64

newest()
{
	apt-cache search --names-only "^linux-$1-$version([^0-9 -][^ -]*)?-$flavour\$" |
		cut -d' ' -f1 | sort -V | tail -n 1
}

# find_package KIND
find_package()
{
	package=$(newest "$1")
	[ -z "$package" ] || return 0
	"$lab/deps.sh" update
	package=$(newest "$1")
	[ -n "$package" ] ||
		die $EXIT_TOOL "no package linux-$1-$version*-$flavour is to be had: take the newest kernel source that it has, apt-get install linux-source-${version%.*}$2"
}

# unpack FOLDER PACKAGE...: appears complete or not at all
unpack()
{
	to=$1
	shift
	need_space 700 "the distribution's kernel"
	say "distro: unpacking $1"
	rm -rf "$to.part"
	mkdir -p "$to.part/deb"
	# As root apt says that it downloads as root; only its failure matters.
	(cd "$to.part/deb" && apt-get -q download "$@" >log 2>&1) || {
		cat "$to.part/deb/log" >&2
		die $EXIT_TOOL "apt-get could not download $*, see above"
	}
	for deb in "$to.part/deb"/*.deb; do
		dpkg -x "$deb" "$to.part"
	done
	rm -r "$to.part/deb"
}

get_headers()
{
	find_package headers ", or name another kernel's build folder by KHEADERS="
	# shellcheck disable=SC2046 # a list of packages
	unpack "$folder" "$package" $(apt-cache depends "$package" |
		sed -n 's/^ *Depends: \(linux-\(headers\|kbuild\)-.*\)/\1/p')
	# Its Makefile names the folder that it would be installed to.
	sed -i "s, /usr/src/, $folder/usr/src/," "$folder.part/usr/src/$package/Makefile"
	ln -s "usr/src/$package" "$folder.part/build"
}

get_image()
{
	find_package image ""
	unpack "$folder" "$package"
}

[ $# -eq 2 ] || die $EXIT_USAGE "usage: distro.sh headers|image VERSION"
version=$2
open_output
folder=$O/distro/$1-$version-$FLAVOUR
[ ! -d "$folder" ] || exit 0
command -v apt-get >/dev/null ||
	die $EXIT_TOOL "the distribution's kernel comes by apt-get, which is not here; KHEADERS= names a build folder for make modules"
case $1 in
headers) get_headers ;;
image) get_image ;;
*) die $EXIT_USAGE "usage: distro.sh headers|image VERSION" ;;
esac
mv "$folder.part" "$folder"
