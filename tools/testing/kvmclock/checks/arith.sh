#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The arithmetic of a clock line, compiled for userspace from the very file
# that the kernel compiles.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

check_settings
open_output
"$lab/deps.sh" || exit
source=$top/arch/x86
if [ -n "$MUTANT" ]; then
	source=$O/arith-mutant/arch/x86
	mkdir -p "$source"
	rsync -rcm --include='*/' --include='kvm*clock*.h' --exclude='*' "$top/arch/x86/" "$source/"
	mutate "$O/arith-mutant"
fi
gcc -O2 -Wall -Wextra -Werror -I "$source/include" -I "$source/kvm" \
	-o "$O/arith" "$lab/checks/arith.c" ||
	die $EXIT_BUILD "checks/arith.c did not build, see above"
"$O/arith" || die $EXIT_FAILED "the arithmetic is wrong, see above; again: make check-arith"
