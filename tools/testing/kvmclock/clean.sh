#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# clean.sh [all]: removes what was built; with all, the folder itself.
set -u
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

[ -d "$O" ] || exit 0
open_output
if [ "${1-}" = all ]; then
	rm -rf "$O"
	exit 0
fi
# Kept: the trees and the packages, which take longest to get again, and the results.
rm -rf "$O"/kernel* "$O"/kvm-* "$O"/modules "$O"/tests* "$O"/log "$O"/plan "$O"/host \
	"$O"/arith* "$O"/*.cpio "$O"/*.cpio.* "$O"/distro/stage* \
	"$O"/check-build "$O"/check-docs "$O"/series "$O"/mails "$O"/deb \
	"$O"/qemu-kind "$O"/qemu-*/build "$O"/qemu-*/identity \
	"$O"/qemu-*/qemu-system-x86_64
