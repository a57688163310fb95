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
# shellcheck source=archive.sh
. "$lab/archive.sh"

# The smallest one that is a host and a guest is the cloud's.
flavour=$FLAVOUR-amd64
[ "$FLAVOUR" != generic ] || flavour=amd64

newest()
{
	# shellcheck disable=SC2086 # options
	apt-cache $apt search --names-only "^linux-$1-$version([^0-9 -][^ -]*)?-$flavour\$" |
		cut -d' ' -f1 | sort -V | tail -n 1
}

# find_package KIND
find_package()
{
	package=$(newest "$1")
	[ -z "$package" ] || return 0
	"$lab/deps.sh" update
	package=$(newest "$1")
	[ -z "$package" ] || return 0
	use_suite "${version%.*}" "linux-$1-$version*-$flavour"
	package=$(newest "$1")
	[ -n "$package" ] ||
		die $EXIT_TOOL "neither has $suite: take a source whose kernel is to be had, the newest by apt-get install linux-source-${version%.*}$2"
}

# depends PACKAGE NAMES: its dependencies linux-NAME-*, NAMES being a pattern
depends()
{
	# shellcheck disable=SC2086 # options
	apt-cache $apt depends "$1" | sed -n "s/^ *Depends: \(linux-\($2\)-.*\)/\1/p"
}

get_headers()
{
	find_package headers ", or name another kernel's build folder by KHEADERS="
	# shellcheck disable=SC2046 # a list of packages
	unpack "$folder" "$package" $(depends "$package" 'headers\|kbuild')
	build=$folder.part/usr/src/$package
	compiler=$(sed -n 's/^CC = .*\(gcc-[0-9]*\)$/\1/p' "$build/.kernelvariables")
	command -v "${compiler:-gcc}" >/dev/null ||
		die $EXIT_TOOL "$package wants $compiler, which is not here: build its modules on the distribution that has both"
	# Its Makefile names the folder that it would be installed to.
	sed -i "s,\([ =]\)/usr/src/,\1$folder/usr/src/," "$build/Makefile"
	ln -s "usr/src/$package" "$folder.part/build"
}

get_image()
{
	find_package image ""
	# shellcheck disable=SC2046 # a list of packages
	unpack "$folder" "$package" $(depends "$package" 'base\|binary\|modules')
	# On Debian 13 the modules are below /usr; so is 7.3's kernel, a package of its own.
	new=$folder.part/usr/lib/modules
	[ -d "$new" ] || return 0
	mkdir -p "$folder.part/boot" "$folder.part/lib"
	for release in "$new"/*; do
		[ ! -e "$release/vmlinuz" ] ||
			mv "$release/vmlinuz" "$folder.part/boot/vmlinuz-${release##*/}"
	done
	mv "$new" "$folder.part/lib/"
}

[ $# -eq 2 ] || die $EXIT_USAGE "usage: distro.sh headers|image VERSION"
version=$2
open_output
folder=$O/distro/$1-$version-$FLAVOUR
[ ! -d "$folder" ] || exit 0
need_space 700 "the distribution's kernel"
say "distro: fetching Linux $version, $1, of $flavour"
command -v apt-get >/dev/null ||
	die $EXIT_TOOL "the distribution's kernel comes by apt-get, which is not here; KHEADERS= names a build folder for make modules"
case $1 in
headers) get_headers ;;
image) get_image ;;
*) die $EXIT_USAGE "usage: distro.sh headers|image VERSION" ;;
esac
mv "$folder.part" "$folder"
