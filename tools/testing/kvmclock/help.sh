#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make help: the targets from the Makefile, the variables from settings.sh.
set -u
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

say "kvmclock for Linux 6.12 and 7.3. Start with: make run"
say
say "Targets"
sed -n 's/^\([a-z-]*\):.*## /\1 /p' "$top/Makefile" |
while read -r target what; do
	printf '  %-12s %s\n' "$target" "$what"
done
say
say "Variables, for example: make check CONFIG=debug"
sed -n 's/^: "${\([A-Z_]*\):=.*## /\1 /p' "$lab/settings.sh" |
while read -r name what; do
	eval "value=\$$name"
	printf '  %-12s %s\n  %-12s   now: %s\n' "$name=" "$what" "" "${value:-(empty)}"
done
say
say "Verdicts: each is the exit code of tools/testing/kvmclock/run.sh, and of make: 2"
say "    0  passed"
sed -n 's/^EXIT_[A-Z]*=\([0-9]\) *# /\1 /p' "$lab/settings.sh" |
while read -r code what; do
	printf '    %s  %s\n' "$code" "$what"
done
