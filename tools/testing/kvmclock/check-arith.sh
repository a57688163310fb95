#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The arithmetic of a clock line, compiled for userspace from the very file
# that the kernel compiles.
set -u
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

open_output
"$lab/deps.sh" || exit
gcc -O2 -Wall -Wextra -Werror -I "$top/arch/x86/include" -I "$top/arch/x86/kvm" \
	-o "$O/arith" "$lab/arith/test.c" ||
	die $EXIT_BUILD "arith/test.c did not build, see above"
"$O/arith" || die $EXIT_FAILED "the arithmetic is wrong, see above; again: make check-arith"
