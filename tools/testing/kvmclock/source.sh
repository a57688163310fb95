#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# source.sh SERIES: the source of a kernel that no suite of this machine has, into
# O=/source.
set -eu
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"
# shellcheck source=archive.sh
. "$lab/archive.sh"

[ $# -eq 1 ] || die $EXIT_USAGE "usage: source.sh SERIES"
package=linux-source-$1
open_output
[ ! -e "$O/source/$package.tar.xz" ] || exit 0
command -v apt-get >/dev/null ||
	die $EXIT_TOOL "$package is missing, and there is no apt-get to fetch it: give its source by KERNEL_SRC="
need_space 1000 "the source of Linux $1"
use_suite "$1" "$package"
say "source: fetching $package into $O/source"
unpack "$O/source" "$package"
mkdir -p "$O/source"
mv "$O/source.part/usr/src/$package.tar.xz" "$O/source/"
rm -r "$O/source.part"
