#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make check-fresh SUITE=: the README's commands in a fresh Debian of that suite, from
# a clone of what is committed here; and of this machine's base its tools make the tree
# that those here make. Needs root, debootstrap and an archive of Debian in this
# machine's apt; the fresh system is below O=, and gone at the end. Prints KTAP.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

again="make check-fresh SUITE=$SUITE${KERNEL:+ KERNEL=$KERNEL}"
# shellcheck source=root.sh
. "$lab/checks/root.sh"

make_root()
{
	debootstrap --variant=minbase --include=git,make,ca-certificates --keyring="$keys" \
		"$SUITE" "$root" "$debian" &&
	if [ -n "$security" ]; then
		echo "deb $security $SUITE-security main" >>"$root/etc/apt/sources.list"
	fi &&
	git clone -q --no-hardlinks "$top" "$root/root/kvmclock"
}

# step TARGET: one of the README's commands
step()
{
	begin=$(date +%s)
	in_root ${KERNEL:+"KERNEL=$KERNEL"} ${TESTS:+"TESTS=$TESTS"} "JOBS=$JOBS" \
		make -C /root/kvmclock "$1" >"$results/$1.log" 2>&1
	status=$?
	grep -e '^totals:' -e '^verdict:' -e '^error:' "$results/$1.log" | sed 's/^/# /'
	root_result $status "$1" "$SUITE"
}

# After the commands, which have installed the tools
compare_trees()
{
	begin=$(date +%s)
	find_base
	cp -r "$KERNEL_SRC" "$root/root/base" &&
		in_root /root/kvmclock/integration/apply.sh /root/base /root/tree \
			>"$results/tree.log" 2>&1 &&
		diff "$O/linux-$KERNEL/.kvmclock/hash" "$root/root/tree/.kvmclock/hash" \
			>>"$results/tree.log"
	root_result $? tree "the same by the tools of $SUITE and those here"
}

check_settings
one_of SUITE bookworm trixie
need_root
git -C "$top" rev-parse -q --verify HEAD >/dev/null ||
	need $EXIT_USAGE "$top is no git repository, of which a clone can be had"
open_output
need_space 10000 "a fresh system, with three kernel trees"
"$lab/build.sh" tree || exit
hold_root

ktap_plan 4
[ -z "$(git -C "$top" status --porcelain)" ] ||
	say "# what is not committed is not in it"
begin=$(date +%s)
status=0
make_root >"$results/root.log" 2>&1 || status=$?
root_result $status root "$SUITE of $debian"
for command in run check; do
	step $command
done
compare_trees
cp -rL "$root/root/kvmclock/build/results/latest" "$results/check" 2>/dev/null || :
say "# logs: $results"
ktap_end "check-fresh SUITE=$SUITE"
