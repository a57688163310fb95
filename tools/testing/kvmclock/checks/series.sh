#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make series-check: git am puts the mails on a pristine base, patch by patch, and
# ends with the tree that make tree makes; none changes more than can be read; each
# tree on the way builds without a word, boots, and passes the tests that it has; and
# of the last one coccicheck says nothing that it does not say of the base.  A patch
# that has passed is not tried again until it changes.  Prints KTAP.
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

check_settings
open_output
"$lab/deps.sh" check-build || exit
"$lab/series.sh" || exit
find_base
export KERNEL KERNEL_SRC
mails=$O/mails
work=$O/series-check-$KERNEL
linux=$work/linux
mkdir -p "$work/passed"

in_linux()
{
	git -C "$linux" -c user.name=lab -c user.email=lab@localhost -c core.hooksPath=/dev/null "$@"
}

# A repository of the whole base: git am is what a maintainer does.
pristine()
{
	[ -e "$linux/.git/complete" ] || need_space 4000 "a repository of the base"
	"$top/integration/apply.sh" --pristine "$KERNEL_SRC" "$linux" || exit
	[ ! -e "$linux/.git/complete" ] || return 0
	say "# a repository of the base, a minute"
	rm -rf "$linux/.git"
	git -C "$linux" init -q -b base
	in_linux add -A -f -- . ':!.kvmclock'
	in_linux commit -q -m base
	rm -f "$work/coccicheck.base"
	touch "$linux/.git/complete"
}

# The tests of the plan that the tree has.  Ours fail without the clock, and one of the
# base's that the series changes is another one until then.
tests_there()
{
	awk '/^#/ || NF == 0 || $2 ~ /^(named|debug|kcsan|distro)/ { next } { print $1, $4 }' "$lab/machine/plan" |
	while read -r name command; do
		case $name:$command in
		*:kvm/x86/*) needs=tools/testing/selftests/kvm/$x86/${command#kvm/x86/}.c ;;
		*:kvm/*) needs=tools/testing/selftests/$command.c ;;
		kunit:*) needs=arch/x86/kvm/tests ;;
		kvm_time:*) needs=samples/kvm/kvm-time.c ;;
		*) needs=arch/x86/kvm/Kconfig.kvmclock ;;
		esac
		[ -e "$linux/$needs" ] || continue
		case $needs in
		tools/*) in_linux diff --quiet HEAD series -- "$needs" || continue ;;
		esac
		printf '%s ' "$name"
	done
}

# Those of them that a patch which leaves the kernel alone brings or changes.
tests_changed()
{
	for name in $(tests_there); do
		in_linux diff --quiet HEAD~ -- "tools/testing/selftests/kvm/*/$name.c" || printf '%s ' "$name"
	done
}

with_tree()
{
	O=$work KVMCLOCK_TREE=$linux KVMCLOCK_HOLDS=$work TESTS=$TESTS "$@"
}

# Everything about the tree that is checked out; $mail brought it there.  Of what it
# did not change, the patch before has shown that it passes.
check_tree()
{
	# A new file has nobody in MAINTAINERS yet, this repository no other commits, and
	# a Kconfig that is sourced has the name of one.
	(cd "$linux" && PATH=/usr/bin:/bin scripts/checkpatch.pl --strict --terse --no-summary \
		--no-signoff --ignore FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID,EMBEDDED_FILENAME "$mail") || return
	if in_linux diff --quiet HEAD~ -- . ':!tools/testing/selftests'; then
		TESTS=$(tests_changed)
		[ -z "$TESTS" ] || with_tree "$lab/run.sh" check
		return
	fi

	with_tree "$lab/build.sh" kernel || return
	if grep -E ':[0-9]+:.*warning:' "$work/log/kernel"; then
		return 1
	fi
	for file in "$linux"/arch/x86/kvm/kvmclock_*.c; do
		file=$(basename "$file" .c)
		grep -q "$file" "$linux/arch/x86/kvm/Makefile" || continue
		if ! make -s -C "$linux" O="$work/kernel-$KERNEL" W=1 C=2 "arch/x86/kvm/$file.o" \
			>"$work/log/sparse" 2>&1; then
			tail -n 5 "$work/log/sparse"
			return 1
		fi
		if grep -E ':[0-9]+:.*(warning|error):' "$work/log/sparse"; then
			return 1
		fi
	done
	TESTS=$(tests_there)
	with_tree "$lab/run.sh" check
}

# Patches that change more lines of files that are there than a reader takes in, but
# for the one that is nearly all generated removal.  A new file comes whole.
too_long()
{
	for commit in $(in_linux rev-list --reverse base..series); do
		in_linux show --no-renames --diff-filter=M --numstat --format=%s "$commit" | awk '
			NR == 1 { subject = $0; next }
			{ changed += $1 + $2 }
			END { if (changed > 420) print changed " changed lines: " subject }'
	done | grep -v ': Switch to the clock'
}

# What coccicheck says of KVM in the tree that is checked out, without the line
# numbers, which move.  A rule that needs what is not installed is told, too.
coccicheck()
{
	find "$linux/scripts/coccinelle" -name '*.cocci' | while read -r rule; do
		nice make -s -C "$linux" coccicheck MODE=report M=arch/x86/kvm COCCI="$rule" \
			2>/dev/null </dev/null || echo "${rule##*/}:0:0-0: did not run"
	done | sed -n -E -e 's/[Ll]ine [0-9]+/line/g' \
		-e 's/^([^ :]+):[0-9]+:[0-9]+-[0-9]+:/\1:/p' | LC_ALL=C sort
}

pristine
total=$(find "$mails" -name '0*.patch' ! -name '0000-*' | wc -l)
ktap_plan $((total + 3))

in_linux am --abort 2>/dev/null || :
in_linux checkout -q -f base
in_linux clean -qfdx -e /.kvmclock
in_linux branch -f series base
in_linux checkout -q series
# shellcheck disable=SC2046 # names without blanks
if in_linux am -q $(find "$mails" -name '0*.patch' ! -name '0000-*' | sort) 2>"$work/am" </dev/null &&
   diff -rq -x .git -x .kvmclock "$linux" "$O/linux-$KERNEL"; then
	ktap_result 0 "git_am # the tree is the one of make tree"
else
	ktap_result 1 git_am "$work/am"
fi

too_long >"$work/long" || :
ktap_empty lengths "$work/long"

i=0
for commit in $(in_linux rev-list --reverse base..series); do
	i=$((i + 1))
	mail=$(find "$mails" -name "$(printf '%04d' $i)-*.patch")
	subject=$(in_linux log -1 --format=%s "$commit")
	# What was checked is the tree; a changed word in a changelog keeps it.
	mark=$work/passed/$(in_linux rev-parse "$commit^{tree}")
	if [ -e "$mark" ]; then
		ktap_result 0 "$subject # passed before"
		continue
	fi
	say "# $i of $total: $subject"
	begin=$(date +%s)
	in_linux checkout -q "$commit"
	status=0
	check_tree >"$work/patch.log" 2>&1 || status=1
	if [ $status -eq 0 ]; then
		sed -n -e '/^totals:/s/^/# /p' -e '/^verdict:/s/^/# /p' "$work/patch.log"
		touch "$mark"
	fi
	ktap_result $status "$subject # $(($(date +%s) - begin)) s" "$work/patch.log"
done

mark=$work/passed/coccicheck-$(in_linux rev-parse "series^{tree}")
if [ -e "$mark" ]; then
	ktap_result 0 "coccicheck # passed before"
else
	if [ ! -e "$work/coccicheck.base" ]; then
		say "# coccicheck of the base, some minutes"
		in_linux checkout -q -f base
		coccicheck >"$work/coccicheck.part"
		mv "$work/coccicheck.part" "$work/coccicheck.base"
	fi
	say "# coccicheck of the last tree, some minutes"
	in_linux checkout -q -f series
	coccicheck >"$work/coccicheck.ours"
	LC_ALL=C comm -13 "$work/coccicheck.base" "$work/coccicheck.ours" >"$work/coccicheck.new"
	[ -s "$work/coccicheck.new" ] || touch "$mark"
	ktap_empty coccicheck "$work/coccicheck.new"
fi

ktap_end series-check
