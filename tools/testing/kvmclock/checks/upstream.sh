#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make upstream-check: git am puts the mails of upstream/ on a pristine base, and each
# tree on the way builds without a word and boots; each case of the series' tests fails
# on the tree before the patch that it shows, and passes from there on, which the table
# at the end tells.  MACHINE=all has it on Bochs, too, which is too slow for all trees:
# see boots().  A tree that has been seen is not built again until it changes.  Prints
# KTAP.
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

# The kernel's own tests that touch time: what passes on the base has to go on.
neighbours="x86/hyperv_clock x86/kvm_clock_test x86/kvm_pv_test x86/nested_tsc_adjust_test
	x86/nested_tsc_scaling_test x86/state_test x86/tsc_msrs_test x86/xen_shinfo_test
	steal_time system_counter_offset_test"

check_settings
open_output
"$lab/deps.sh" check-build || exit
"$top/upstream/mails.sh" || exit
work=$O/upstream
linux=$work/linux
kernel=$work/kernel
tests=$work/tests
mails=$work/mails
seen=$work/seen
mkdir -p "$seen" "$tests"
case $MACHINE in
all) machines="amd intel" ;;
amd) machines=amd ;;
*) die $EXIT_USAGE "MACHINE=$MACHINE: Bochs boots a few of the trees only; give amd, or all" ;;
esac

all_series()
{
	for folder in "$top"/upstream/*/order; do
		basename "${folder%/order}"
	done
}

in_linux()
{
	git -C "$linux" -c user.name=lab -c user.email=lab@localhost -c core.hooksPath=/dev/null "$@"
}

# The branch of the series before, on which it is to be put
before()
{
	last=base
	for name in $(all_series); do
		[ "$name" != "$1" ] || break
		last=$name
	done
	echo "$last"
}

# rows NAME: of the series, "patch machine test case"
rows()
{
	grep -v -e '^#' -e '^$' "$top/upstream/$1/order"
}

our_tests()
{
	for name in $(all_series); do
		rows "$name" | awk '{ print "x86/" $3 }'
	done | sort -u
}

# Paths below tools/testing/selftests/kvm/, a line each
list_tests()
{
	for test in $neighbours; do
		echo "$test"
	done
	our_tests
}

# git am, as a maintainer does, gives the same tree.
check_am()
{
	in_linux am --abort 2>/dev/null || :
	in_linux checkout -q -f -B am "$(before "$1")"
	# shellcheck disable=SC2046 # names without blanks
	in_linux am -q $(find "$mails/$1" -name '0*.patch' ! -name '0000-*' | sort) 2>"$work/am" </dev/null &&
		in_linux diff --quiet am "$1"
}

# A new file has nobody in MAINTAINERS yet, this repository no other commits.
check_mail()
{
	(cd "$linux" && PATH=/usr/bin:/bin scripts/checkpatch.pl --strict --terse --no-summary \
		--no-signoff --ignore FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID "$1" 2>/dev/null) || return
	! awk '/^diff/ { exit } /^Fixes: / && !/^Fixes: [0-9a-f]+ \("[^"]*"\)$/' "$1" | grep .
}

prepare_kernel()
{
	[ ! -e "$kernel/.config" ] || return 0
	need_space 3000 "a kernel"
	mkdir -p "$kernel"
	echo CONFIG_EXPERT=y >"$work/werror.config"
	echo CONFIG_KVM_WERROR=y >>"$work/werror.config"
	set -- "$lab/configs/base.config" "$work/werror.config"
	[ ! -e "$lab/configs/7.3.config" ] || set -- "$@" "$lab/configs/7.3.config"
	configure "$linux" "$kernel" "$@" >"$work/log" 2>&1 ||
		die $EXIT_BUILD "the kernel's configuration: $(tail -n 1 "$work/log")"
}

# complaints: those of the compiler and of sparse, in a build's output; fails if none is
complaints()
{
	grep -E ':[0-9]+:.*(warning|error):'
}

# KVM_WERROR stops at a warning.  The files that the patch changes have none by W=1, nor
# by sparse either.
build_kernel()
{
	if ! make -s -C "$linux" O="$kernel" -j"$JOBS" bzImage >"$work/build" 2>&1; then
		cat "$work/build"
		return 1
	fi
	# Of the base, which has no parent, this is none.
	! in_linux diff-tree --no-commit-id --name-only -r HEAD -- 'arch/x86/kvm/*.c' | while read -r file; do
		touch "$linux/$file"
		make -s -C "$linux" O="$kernel" W=1 C=1 "${file%.c}.o" 2>&1 || echo "$file:0: error: make"
	done | complaints
}

# A header may bring a warning into a file that no patch changes.
check_all_of_kvm()
{
	prepare_kernel
	! {
		make -s -C "$linux" O="$kernel" -j"$JOBS" W=1 arch/x86/kvm/ 2>&1 ||
			echo "arch/x86/kvm:0: error: make"
	} | complaints
}

# The tests are those of the last tree, so that each tree is held against all of them.
# $linux has to be at the end of the series.
build_tests()
{
	gcc -O2 -Wall -Wextra -Werror -static -pthread -o "$tests/init" "$lab/machine/init.c"
	gcc -O2 -o "$tests/gen_init_cpio" "$linux/usr/gen_init_cpio.c"
	if ! make -s -C "$linux" O="$tests/headers" headers >"$work/log" 2>&1 ||
	   ! make -s -C "$linux/tools/testing/selftests/kvm" -j"$JOBS" OUTPUT="$tests/kvm" \
			INSTALL_HDR_PATH="$tests/headers/usr" LDFLAGS="-static -pthread -no-pie -s" \
			EXTRA_CFLAGS=-mno-cx16 TEST_GEN_PROGS_EXTENDED_x86= TEST_PROGS_x86= \
			TEST_GEN_PROGS_x86="$(list_tests | paste -sd" ")" >"$work/log" 2>&1; then
		cat "$work/log"
		return 1
	fi
	! grep -E 'kvmclock.*warning:' "$work/log"
}

# archive FILE: the initramfs, of the plan and what it starts
archive()
{
	busybox=$(command -v busybox)
	{
		echo "dir /dev 0755 0 0"
		echo "nod /dev/console 0600 0 0 c 5 1"
		for dir in /bin /lib /lib64 /lib/x86_64-linux-gnu /tests /tests/kvm /tests/kvm/x86; do
			echo "dir $dir 0755 0 0"
		done
		echo "file /init $tests/init 0755 0 0"
		echo "file /plan $work/plan 0644 0 0"
		echo "file /bin/busybox $busybox 0755 0 0"
		ldd "$busybox" 2>/dev/null | sed -n 's,^[^/]*\(/[^ ]*\) (.*,file \1 \1 0755 0 0,p'
		"$busybox" --list | grep -v '^busybox$' | sed 's,.*,slink /bin/& busybox 0777 0 0,'
		for test in $(list_tests); do
			echo "file /tests/kvm/$test $tests/kvm/$test 0755 0 0"
		done
	} >"$1.list"
	"$tests/gen_init_cpio" -t 0 "$1.list" >"$1"
}

# boot MACHINE FOLDER: runs all tests on the kernel that was built; in FOLDER are
# console.log, ktap.log, and in "verdicts" a line "test case ok|FAIL|skip" for each.
boot()
{
	MACHINE=$1
	results=$2
	rm -rf "$results"
	mkdir -p "$results"
	for test in $(list_tests); do
		echo "${test##*/} optional 300 kvm/$test"
	done >"$work/plan"
	(
		O=$work/machine
		mkdir -p "$O"
		archive "$O/initramfs.cpio"
		image=$kernel/arch/x86/boot/bzImage
		append="no_console_suspend panic=-1 oops=panic patience=2"
		export MACHINE O SMP DRIFT V image append results
		touch "$results/ktap.log" "$results/console.log"
		"$lab/machine.sh" prepare || exit
		timeout --kill-after=2 "${TIMEOUT:-1800}" "$lab/machine.sh" start \
			</dev/null 3>/dev/null 9>&- >"$results/machine.log" 2>&1 &
		machine=$!
		while kill -0 $machine 2>/dev/null; do
			! grep -q -e '^# complete' -e '^Bail out!' "$results/ktap.log" || kill $machine
			sleep 1
		done
		wait $machine 2>/dev/null || :
	)
	if ! grep -q '^# complete' "$results/ktap.log"; then
		echo "the machine ended early:"
		tail -n 20 "$results/console.log"
		return 1
	fi
	if grep -E 'BUG: |WARNING: |Oops: |Call Trace' "$results/console.log"; then
		return 1
	fi
	awk '
		/^  (not )?ok / {
			name = $1 == "not" ? $4 : $3
			sub(/.*\./, "", name)
			kase[++n] = name " " ($1 == "not" ? "FAIL" : /# SKIP/ ? "skip" : "ok")
			next
		}
		/^(not )?ok / {
			name = $1 == "not" ? $4 : $3
			print name, "-", $1 == "not" ? "FAIL" : /# SKIP/ ? "skip" : "ok"
			for (i = 1; i <= n; i++)
				print name, kase[i]
			n = 0
		}' "$results/ktap.log" >"$results/verdicts"
}

# see COMMIT: builds its tree and runs the tests there, if not done before.
see()
{
	tree=$(in_linux rev-parse "$1^{tree}")
	for machine in $machines; do
		boots "$machine" "$1" || continue
		[ ! -e "$seen/$tree-$machine/verdicts" ] || continue
		in_linux checkout -q -f "$1"
		prepare_kernel
		build_kernel || return
		boot "$machine" "$seen/$tree-$machine" || return
	done
}

# kernel_of COMMIT: the commit that made its kernel; those after it leave the kernel alone.
kernel_of()
{
	in_linux log -1 --format=%H "$1" -- arch
}

# few: where Bochs is to look: at the base, around each patch that shows on no other
# machine, and in the end of all.
find_few()
{
	kernel_of base
	kernel_of "$end"
	for name in $(all_series); do
		rows "$name" | while read -r patch machine _; do
			[ "$machine" = intel ] || continue
			with=$(commit_of "$name" "$patch")
			kernel_of "$with"
			kernel_of "$with~"
		done
	done
}

# boots MACHINE COMMIT: that machine is to look at this commit's kernel.
boots()
{
	[ "$1" = amd ] || echo "$few" | grep -qxF -e "$(kernel_of "$2")"
}

# verdict COMMIT MACHINE TEST CASE
verdict()
{
	awk -v name="$3" -v kase="$4" '$1 == name && $2 == kase { v = $3 } END { print v ? v : "none" }' \
		"$seen/$(in_linux rev-parse "$(kernel_of "$1")^{tree}")-$2/verdicts" 2>/dev/null || echo none
}

# commit_of SERIES PATCH: by the number that the patch's name begins with
commit_of()
{
	in_linux rev-list --reverse "$(before "$1")..$1" | sed -n "$((1${2%%-*} - 100))p"
}

# What the base passes each tree passes.
check_neighbours()
{
	for machine in $machines; do
		boots "$machine" "$1" || continue
		for test in $neighbours; do
			test=${test##*/}
			[ "$(verdict base "$machine" "$test" -)" != ok ] ||
				[ "$(verdict "$1" "$machine" "$test" -)" = ok ] ||
				echo "$machine: $test passes on the base, not here"
		done
	done
}

# The cases of a series, before the patch, with it, and in the end of all.  Where Bochs
# has not looked before the patch it has on the base, and where not with it, at the end.
check_table()
{
	rows "$1" | while read -r patch machine test kase; do
		for on in $machines; do
			[ "$machine" = any ] || [ "$machine" = "$on" ] || continue
			with=$(commit_of "$1" "$patch")
			without=$with~
			boots "$on" "$without" || without=base
			boots "$on" "$with" || with=$end
			was=$(verdict "$without" "$on" "$test" "$kase")
			is=$(verdict "$with" "$on" "$test" "$kase")
			last=$(verdict "$end" "$on" "$test" "$kase")
			printf '%-22s %-6s %-24s %-30s %-5s %-5s %s\n' \
				"$patch" "$on" "$test" "$kase" "$was" "$is" "$last"
		done
	done
}

end=$(all_series | tail -n 1)
few=$(find_few)
total=0
for name in $(all_series); do
	total=$((total + $(in_linux rev-list --count "$(before "$name")..$name") + 2))
done
ktap_plan $((total + 3))

in_linux checkout -q -f "$end"
status=0
build_tests >"$work/why" 2>&1 || status=1
ktap_result $status selftests "$work/why"
[ $status -eq 0 ] || ktap_end upstream-check
status=0
see base >"$work/why" 2>&1 || status=1
ktap_result $status base "$work/why"

for name in $(all_series); do
	status=0
	check_am "$name" || status=1
	ktap_result $status "$name: git am" "$work/am"
	number=0
	for commit in $(in_linux rev-list --reverse "$(before "$name")..$name"); do
		number=$((number + 1))
		mail=$(find "$mails/$name" -name "$(printf '%04d' $number)-*.patch")
		begin=$(date +%s)
		status=0
		{
			check_mail "$mail" &&
				{ [ "$(kernel_of "$commit")" != "$commit" ] || see "$commit"; }
		} >"$work/why" 2>&1 || status=1
		# A patch that leaves the kernel alone was seen as the one before it.
		if [ "$(kernel_of "$commit")" = "$commit" ] && [ $status -eq 0 ]; then
			check_neighbours "$commit" >"$work/why"
			[ ! -s "$work/why" ] || status=1
		fi
		ktap_result $status "$name: $(in_linux log -1 --format=%s "$commit") # $(($(date +%s) - begin)) s" "$work/why"
	done
done

# The end of all has been seen by now.
for name in $(all_series); do
	check_table "$name" >"$work/table-$name"
	printf '# %-22s %-6s %-24s %-30s %-5s %-5s %s\n' patch on test case before after end
	sed 's/^/# /' "$work/table-$name"
	awk '$5 != "FAIL" || $6 != "ok" || $7 != "ok"' "$work/table-$name" >"$work/why"
	ktap_empty "$name: each test fails before its patch and passes after" "$work/why"
done
# As make upstream leaves it: a base for what goes on top.
in_linux checkout -q -f "$end"
status=0
check_all_of_kvm >"$work/why" || status=1
ktap_result $status "all of KVM at W=1" "$work/why"
ktap_end upstream-check
