#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# clean.sh [all]: removes what was built; with all, the folder itself.
set -u
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

[ -d "$O" ] || exit 0
open_output
# Only a folder that the laboratory has filled is removed.
if [ "${1-}" != all ]; then
	rm -rf "$O"/kernel* "$O"/kvm-* "$O"/modules "$O"/tests* "$O"/log "$O"/plan \
		"$O"/host "$O"/cd "$O"/cd.iso "$O"/*.cpio "$O"/*.cpio.* "$O"/distro/stage*
	exit 0
fi
rm -rf "$O"/linux* "$O"/results "$O"/distro "$O"/kernel* "$O"/kvm-* "$O"/modules \
	"$O"/tests* "$O"/log "$O"/host "$O"/plan "$O"/arith* "$O"/cd "$O"/cd.iso "$O"/*.cpio "$O"/*.cpio.* "$O"/.lock
rmdir "$O" 2>/dev/null || say "O=$O is kept, it holds files of others"
