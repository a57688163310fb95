#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# apply.sh [--pristine] BASE TREE: make TREE, a kernel tree that has our clock,
# from BASE, a pristine kernel of a supported series (a tarball or an unpacked
# folder). With --pristine it stays as it is.
#
# A TREE that is there is brought up to date: with the same base and the same
# integration/ only our files that differ are copied, so that a kernel build
# stays incremental.  TREE appears by a rename when all steps have succeeded;
# work in progress is in TREE.new, which the next run takes up or removes.
#
# Exit status: 0 done, 1 failed, 2 usage or no space, 3 base does not fit, 4 missing tool.
set -eu
LC_ALL=C
export LC_ALL

here=$(cd "$(dirname "$0")" && pwd)
top=${here%/*}

die()
{
	status=$1
	shift
	printf 'integration: %s\n' "$*" >&2
	exit "$status"
}

say()
{
	printf 'tree: %s\n' "$*"
}

pristine=
if [ "${1-}" = --pristine ]; then
	pristine=yes
	shift
fi
[ $# -eq 2 ] || die 2 "usage: ${0##*/} [--pristine] BASE TREE; BASE is a kernel's tarball or folder, TREE the folder to make"
base=$1
tree=${2%/}
new=$tree.new

# What TREE remembers, in a folder of its own:
#	base		which base it was unpacked from; written when it was
#	pristine/	the base's version of each file that was ever changed
#	overlay		our files in it; written before they are copied
#	stamp		the integration it has, or "pristine"; written when it is complete
memory=.kvmclock

# ---- what the steps consist of ---------------------------------------------

# The folders are numbered in the order of the steps, and what is in one of them
# in the order in which it is applied.
step()
{
	find "$here" -path "$here/$1" ! -name '*~' | sort
}

rules()
{
	step '1-rules/*.cocci'
}

patches()
{
	step '3-patches/*.patch'
}

rule_files()
{
	sed -n 's,^// files: ,,p' "$1"
}

leftovers()
{
	step '2-leftovers/[0-9]*' | xargs -r cat | grep -v -e '^#' -e '^$'
}

# Files of the base that ours replace elsewhere.
removed()
{
	grep -hv -e '^#' -e '^$' "$here/removed"
}

# Every file of the base that some step changes.
touched()
{
	{
		removed
		rules | while read -r rule; do
			rule_files "$rule" | tr ' ' '\n'
		done
		leftovers | awk '{ print $2 }'
		patches | while read -r patch; do
			sed -n 's,^+++ b/,,p' "$patch"
		done
	} | sort -u
}

# Our files, as "ours theirs": from the top of the repository, in the tree.
overlay()
{
	(
		cd "$top"
		find arch include Documentation samples tools/testing/selftests -type f \
			! -name '*~' ! -name '.*.sw?' ! -name '*.orig' ! -name '*.rej' \
			! -name '*.[oa]' ! -name '.*.cmd' ! -name '.checkpatch*' 2>/dev/null |
			sort | awk '{ print $0, $0 }'
		[ ! -f Kconfig ] || echo Kconfig arch/x86/kvm/Kconfig.kvmclock
	)
}

integration_id()
{
	if [ -n "$pristine" ]; then
		echo pristine
		return
	fi
	(
		cd "$here"
		find . -type f ! -name '.*' ! -name '*~' | sort | while read -r file; do
			sha256sum "$file"
		done | sha256sum | cut -d' ' -f1
	)
}

# ---- the base --------------------------------------------------------------

supported()
{
	grep -v -e '^#' -e '^$' "$here/base"
}

check_series()
{
	supported | grep -qxF "$1" && return
	die 3 "$2 is Linux $1, but the base must be $(supported | paste -sd, -): set KERNEL_SRC= to such a kernel"
}

makefile_version()
{
	awk '$2 == "=" && ($1 == "VERSION" || $1 == "PATCHLEVEL") { v[$1] = $3 }
	     END { print v["VERSION"] "." v["PATCHLEVEL"] }'
}

check_base()
{
	[ -e "$base" ] || die 2 "$base: no such file; KERNEL_SRC= names the kernel's tarball or folder"
	[ -r "$base" ] || die 2 "$base: not readable; check its permissions"
	if [ -d "$base" ]; then
		base=$(cd "$base" && pwd)
		[ -f "$base/Makefile" ] || die 3 "$base/Makefile: missing, so this is no kernel; give its topmost folder"
		check_series "$(makefile_version <"$base/Makefile")" "$base"
		[ ! -e "$base/arch/x86/kvm/kvmclock_core.c" ] ||
			die 3 "$base/arch/x86/kvm/kvmclock_core.c: this tree has the clock already; give a pristine one"
		if [ -e "$base/.config" ] || [ -e "$base/include/config" ]; then
			die 3 "$base: something was built in it; run 'make mrproper' there, or give a pristine tree"
		fi
		identity="$base $(makefile_identity <"$base/Makefile")"
		return
	fi

	# A tarball says what it is in its first name, or else in its Makefile.
	first=$(tar -tf "$base" 2>/dev/null | head -n 1) || first=
	[ -n "$first" ] || die 3 "$base: tar cannot read it; give a kernel's tarball or folder"
	series=$(printf '%s\n' "${first%%/*}" | sed -n 's/^linux-\(source-\)\{0,1\}\([0-9]*\.[0-9]*\).*/\2/p')
	[ -n "$series" ] ||
		series=$(tar --occurrence=1 -xOf "$base" "${first%%/*}/Makefile" 2>/dev/null | makefile_version)
	[ "$series" != . ] || die 3 "$base: has no Makefile at its top, so this is no kernel; give a kernel's tarball"
	check_series "$series" "$base"
	identity="$(cd "$(dirname "$base")" && pwd)/${base##*/} $(stat -Lc '%s %Y' "$base")"
}

makefile_identity()
{
	awk '/^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) =/ { printf "%s ", $3 }'
}

# A folder may have been edited since it was copied.
base_is_newer()
{
	[ -d "$base" ] && [ -n "$(find "$base" -path "$base/.git" -prune -o \
		-cnewer "$1" -print | head -n 1)" ]
}

# ---- the steps -------------------------------------------------------------

check_tools()
{
	for tool in spatch:coccinelle patch:patch tar:tar xz:xz-utils awk:mawk cmp:diffutils; do
		command -v "${tool%:*}" >/dev/null ||
			die 4 "${tool%:*}: not installed; run 'make deps' or 'apt-get install ${tool#*:}'"
	done
}

check_place()
{
	parent=$(dirname "$tree")
	mkdir -p "$parent" 2>/dev/null || die 2 "$parent: cannot be created; set O= to a folder that you may write"
	[ -w "$parent" ] || die 2 "$parent: not writable; set O= to a folder that you may write"
	if [ -e "$tree" ] && [ ! -d "$tree/$memory" ]; then
		die 2 "$tree: is there, and is not ours; remove it or set O= elsewhere"
	fi
}

need_space()
{
	need=2000000
	free=$(df -Pk "$(dirname "$tree")" | awk 'END { print $4 }')
	[ "$free" -ge "$need" ] ||
		die 2 "$(dirname "$tree"): $((free / 1000)) MB free, a kernel tree needs $((need / 1000)); free some or set O= elsewhere"
}

unpack()
{
	need_space
	say "unpacking $base (half a minute)"
	mkdir "$new" "$new/$memory" "$new/$memory/pristine"
	printf '%s\n' "$identity" >"$new/$memory/base.part"
	# With fresh times (-m): objects of another base must not look newer.
	if [ -d "$base" ]; then
		(cd "$base" && tar --exclude=./.git -cf - .) | tar -C "$new" -xmf - ||
			die 1 "$base: copying it to $new failed, see above"
	else
		tar -C "$new" --strip-components=1 -xmf "$base" ||
			die 1 "$base: tar could not unpack it into $new, see above"
	fi
	[ -f "$new/Makefile" ] || die 3 "$base: has no Makefile, so this is no kernel"
	check_series "$(makefile_version <"$new/Makefile")" "$base"
	[ ! -e "$new/arch/x86/kvm/kvmclock_core.c" ] ||
		die 3 "$base has arch/x86/kvm/kvmclock_core.c: it has the clock already; give a pristine kernel"
	: >"$new/$memory/overlay"
	mv "$new/$memory/base.part" "$new/$memory/base"
}

# Works on copies in $work, so that the tree only sees what has succeeded.
change()
{
	work=$new/$memory/work
	rm -rf "$work"
	touched | while read -r file; do
		mkdir -p "$work/${file%/*}" "$new/$memory/pristine/${file%/*}"
		[ -f "$new/$memory/pristine/$file" ] || cp -p "$new/$file" "$new/$memory/pristine/$file" 2>/dev/null ||
			die 3 "$file: missing in $base; this base does not fit"
		cp "$new/$memory/pristine/$file" "$work/$file"
	done

	log=$new/$memory/log
	rules | while read -r rule; do
		say "semantic patch ${rule##*/}"
		# shellcheck disable=SC2046 # a list of words
		(cd "$work" && spatch --in-place --sp-file "$rule" $(rule_files "$rule")) >"$log" 2>&1 ||
			die 3 "${rule##*/}: Coccinelle failed on $(rule_files "$rule" | paste -sd' ' -): $(grep -v '^\(warning\|HANDLING\|init\)' "$log" | tail -n 1)"
	done

	leftovers | while read -r op file words; do
		awk -f "$here/edit.awk" -v op="$op" -v words="$words" "$work/$file" >"$work/tidied" ||
			die 3 "$file: '$op $words' of its leftovers does not fit; look at what the base has there"
		cat "$work/tidied" >"$work/$file"
	done
	rm -f "$work/tidied"

	patches | while read -r patch; do
		(cd "$work" && patch -p1 -F0 --no-backup-if-mismatch -r - <"$patch") >"$log" 2>&1 ||
			die 3 "${patch##*/} does not fit: $(grep -B 1 FAILED "$log" | paste -sd' ' -)"
	done

	removed | while read -r file; do
		rm "$work/$file"
	done
}

# How many lines of FILE have NAME, an extended regular expression.
lines_with()
{
	grep -cE "(^|[^A-Za-z0-9_])$2([^A-Za-z0-9_]|\$)" "$1" || :
}

entries()
{
	grep -v -e '^#' -e '^$' "$here/$1" | awk '{ for (n = 2; n <= NF; n++) print $1, $n }'
}

# What a rule removes by names in braces, as "place name": its "gone:" lines say
# from where, and what stands before the name there.
removed_by()
{
	awk '/^\/\/ gone: / { place[++places] = $3 " " $4 }
	     /^identifier .*= *\{/ { sub(/.*\{/, ""); inside = 1 }
	     inside {
		inside = !sub(/\}.*/, "")
		count = split($0, name, /[ \t,]+/)
		for (n = 1; n <= count; n++)
			for (p = 1; name[n] && p <= places; p++)
				print place[p] name[n]
	     }' "$1"
}

gone()
{
	entries gone
	rules | while read -r rule; do
		removed_by "$rule"
	done
}

check_names()
{
	rules | while read -r rule; do
		removed_by "$rule" | sed 's/.*[^A-Za-z0-9_]//' | sort -u | while read -r name; do
			# shellcheck disable=SC2046 # a list of words
			(cd "$new/$memory/pristine" && grep -qw "$name" $(rule_files "$rule")) ||
				die 3 "${rule##*/}: $name is nothing that the base has; this base does not fit"
		done
	done
	gone | cut -d' ' -f1 | sort -u | while read -r where; do
		names=$(gone | awk -v where="$where" '$1 == where { print $2 }' | paste -sd'|')
		left=$(grep -rHnE --include='*.[ch]' "(^|[^A-Za-z0-9_])($names)([^A-Za-z0-9_]|\$)" "$work/$where" | head -n 1)
		[ -z "$left" ] ||
			die 3 "${left#"$work/"}: this must be gone, so the rules of integration/ do not fit this base"
	done
	entries there | while read -r file name; do
		want=${name#*=}
		[ "$want" != "$name" ] || want=1
		has=$(lines_with "$work/$file" "${name%=*}")
		[ "$has" -eq "$want" ] ||
			die 3 "$file: ${name%=*} is there $has times, not $want, so the rules of integration/ do not fit this base"
	done
	say "$(gone | sort -u | wc -l) names of the old clock are gone, $(entries there | wc -l) of the new one are there"
}

# All state is in two members arch.clock, for the clock's own files alone.
check_walls()
{
	found=$(cd "$1" && grep -rsnE --include='*.[chS]' 'arch\.clock([^A-Za-z0-9_]|$)' arch/x86 include virt |
		grep -vE '^(arch/x86/kvm/(tests/)?kvmclock|include/trace/events/kvmclock\.h:)' | head -n 1)
	[ -z "$found" ] ||
		die 1 "$found: looks into the clock's state; outside of its files call what arch/x86/kvm/kvmclock.h has"
}

install_changed()
{
	(cd "$new/$memory/pristine" && find . -type f) | sed 's,^\./,,' | while read -r file; do
		if removed | grep -qxF "$file"; then
			rm -f "$new/$file"
			continue
		fi
		from=$work/$file
		[ -f "$from" ] || from=$new/$memory/pristine/$file
		cmp -s "$from" "$new/$file" || replace "$from" "$new/$file"
	done
	rm -rf "$work" "$log"
}

# With a fresh time, and never half a file.
replace()
{
	mkdir -p "${2%/*}"
	cp "$1" "$2.kvmclock-new"
	mv "$2.kvmclock-new" "$2"
}

sync_overlay()
{
	to=$1
	list=$to/$memory/overlay
	overlay >"$list.new"
	while read -r ours theirs; do
		case $theirs in
		*[!A-Za-z0-9._/+-]*)
			die 1 "$ours: no file name for a kernel tree; rename it" ;;
		esac
		grep -qxF "$ours $theirs" "$list" || [ ! -e "$to/$theirs" ] ||
			die 3 "$theirs: the base has such a file, and so have we ($ours); change the base's by a rule or patch"
	done <"$list.new"

	# Known before they are copied, so that an interrupted run can be undone.
	sort -u "$list" "$list.new" >"$list.both"
	mv "$list.both" "$list"
	while read -r ours theirs; do
		cmp -s "$top/$ours" "$to/$theirs" || replace "$top/$ours" "$to/$theirs"
	done <"$list.new"
	while read -r ours theirs; do
		grep -qxF "$ours $theirs" "$list.new" || rm -f "$to/$theirs"
	done <"$list"
	mv "$list.new" "$list"
	check_walls "$to"
}

# ---- in order --------------------------------------------------------------

check_tools
check_base
check_place
trap 'die 130 "interrupted; the next run completes $tree"' INT
trap 'die 143 "interrupted; the next run completes $tree"' HUP TERM

integration=$(integration_id)
known=$tree/$memory
if [ -f "$known/stamp" ] && [ "$(cat "$known/base")" = "$identity" ] &&
   [ "$(cat "$known/stamp")" = "$integration" ] && ! base_is_newer "$known/base"; then
	[ -n "$pristine" ] || sync_overlay "$tree"
	exit 0
fi

# From here on there is no TREE.  What is unpacked need not be unpacked again.
if [ -d "$tree" ]; then
	rm -rf "$new"
	mv "$tree" "$new"
fi
rm -f "$new/$memory/stamp"
if [ -n "$pristine" ] || [ "$(cat "$new/$memory/base" 2>/dev/null)" != "$identity" ] ||
   base_is_newer "$new/$memory/base"; then
	rm -rf "$new"
	unpack
fi

if [ -z "$pristine" ]; then
	change
	check_names
	install_changed
	sync_overlay "$new"
fi
printf '%s\n' "$integration" >"$new/$memory/stamp"
mv "$new" "$tree"
say "$tree is ready"
