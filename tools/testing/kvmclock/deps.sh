#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# deps.sh [modules|check-build|check-docs|scale|deb|check-deb|update]: installs the
# tools that are missing, by the distribution's package manager; with modules, also
# those for modules of a distribution's kernel, with check-build, check-docs or scale,
# those that only it has a use for; with deb, only those that make the package, with
# check-deb, those that look at it; with update, only asks what packages there are.
# Looks for files, not for packages: a tool from elsewhere is as good.
set -u
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

[ -z "$KVMCLOCK_PACKAGE" ] || exit 0

# package, and the command or file that it is needed for
needs="
gcc              gcc
libc6-dev        /usr/include/stdio.h
make             make
flex             flex
bison            bison
bc               bc
perl             perl
xz-utils         xz
rsync            rsync
cpio             cpio
kmod             depmod
libelf-dev       /usr/include/gelf.h
libssl-dev       /usr/include/openssl/ssl.h
coccinelle       spatch
patch            patch
util-linux       flock
qemu-system-x86  qemu-system-x86_64
seabios          /usr/share/seabios/bios-256k.bin
busybox-static   busybox
"
[ "$MACHINE" = amd ] || needs="$needs
bochs            bochs
bochs-term       /usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so.0
bochsbios        /usr/share/bochs/BIOS-bochs-latest
vgabios          /usr/share/bochs/VGABIOS-lgpl-latest
grub-common      grub-mkimage
grub-pc-bin      /usr/lib/grub/i386-pc/linux.mod
xorriso          xorriso
"
find_base
source=
case $KERNEL_SRC in
/usr/src/*)
	[ -e "$KERNEL_SRC" ] || [ "${1-}" = update ] || source=${KERNEL_SRC##*/} source=${source%.tar.xz} ;;
esac

# The library of its selftests about devices asks for it.
[ "$KERNEL" = 6.12 ] || needs="$needs uuid-dev /usr/include/uuid/uuid.h"

# What a distribution's own configuration may ask of a build.
[ -z "$KCONFIG" ] || needs="$needs openssl openssl dwarves pahole zstd zstd lz4 lz4"
# What the source of QEMU is built with
[ "$QEMU" = stock ] || needs="$needs
dpkg-dev         dpkg-source
ninja-build      ninja
meson            meson
pkg-config       pkg-config
python3          python3
python3-venv     /usr/share/doc/python3-venv
libglib2.0-dev   /usr/include/glib-2.0/glib.h
libpixman-1-dev  /usr/include/pixman-1/pixman.h
libfdt-dev       /usr/include/libfdt.h
zlib1g-dev       /usr/include/zlib.h
"

case ${1-} in
modules) needs="$needs dwarves pahole dpkg dpkg" ;;
check-build) needs="$needs sparse sparse python3-ply /usr/share/doc/python3-ply python3-git /usr/share/doc/python3-git" ;;
check-docs) needs="$needs python3-sphinx sphinx-build" ;;
scale) needs="$needs gnuplot-nox gnuplot" ;;
check-model) needs="$needs spin spin" ;;
deb) source='' needs="make make dpkg-dev dpkg-buildpackage debhelper dh" ;;
check-deb) source='' needs="lintian lintian debootstrap debootstrap e2fsprogs mkfs.ext4
qemu-system-x86  qemu-system-x86_64 seabios /usr/share/seabios/bios-256k.bin" ;;
update) needs= ;;
esac

list_missing()
{
	# shellcheck disable=SC2086 # a list of pairs
	set -- $needs
	while [ $# -gt 0 ]; do
		case $2 in
		/*) [ -e "$2" ] || echo "$1" ;;
		*) command -v "$2" >/dev/null || echo "$1" ;;
		esac
		shift 2
	done
}

# The base kernel's source is; source.sh gets it elsewhere if not.
offered()
{
	[ -n "$source" ] && apt-cache show "$source" >/dev/null 2>&1
}

PATH=$PATH:/usr/sbin:/sbin
missing=$(list_missing | tr '\n' ' ')
[ -n "$missing$source" ] || [ "${1-}" = update ] || exit 0

command -v apt-get >/dev/null ||
	die $EXIT_TOOL "missing, and there is no apt-get to install it: $missing $source"
root=
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		[ -n "$missing" ] || offered || exit 0
		die $EXIT_TOOL "missing; as root: apt-get install $missing$source"
	fi
	root=sudo
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt()
{
	$root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >"$log" 2>&1 && return
	cat "$log" >&2
	die $EXIT_TOOL "apt-get $1 failed, see above; needed: $missing"
}
apt update
! offered || missing=$missing$source
[ -n "$missing" ] || exit 0
say "deps: installing $missing"
# shellcheck disable=SC2086 # a list of packages
apt install --no-install-recommends $missing

missing=$(list_missing | tr '\n' ' ')
! offered || [ -e "$KERNEL_SRC" ] || missing=$missing$source
[ -z "$missing" ] ||
	die $EXIT_TOOL "still missing after apt-get install: $missing"
