#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# apply.sh [--pristine | --tests | --part] BASE TREE: make TREE, a kernel tree that has
# our clock, from BASE, a pristine kernel of a series that has a folder here (a tarball
# or an unpacked folder).  With --pristine it stays as it is; with --tests it gets
# our tests and samples, and nothing else; with --part some of our files may not be
# there yet, nor the words that the base calls otherwise.
# apply.sh --folders BASE: print the folders here whose steps BASE takes, a line each:
# common, that of its series, and upstream if it has what is in there; --touched BASE:
# its files that they change.
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

usage()
{
	die 2 "usage: ${0##*/} [--pristine | --tests | --part] BASE TREE, or --folders|--touched BASE; BASE is a kernel's tarball or folder, TREE the folder to make"
}

mode=integrate
part=
upstream=
if [ "${1-}" = --part ]; then
	part=yes
	shift
fi
case ${1-} in
--pristine | --tests | --folders | --touched)
	mode=${1#--}
	shift ;;
esac
case $mode:$# in
folders:1 | touched:1 | pristine:2 | tests:2 | integrate:2) ;;
*) usage ;;
esac
base=$1
tree=${2-}
tree=${tree%/}
new=$tree.new

# What TREE remembers, in a folder of its own:
#	base		which base it was unpacked from; written when it was
#	pristine/	the base's version of each file that was ever changed
#	overlay		our files in it; written before they are copied
#	hash		of all that is changed in it, or ours
#	stamp		the integration it has, or "pristine"; written when it is complete
memory=.kvmclock

# ---- what the steps consist of ---------------------------------------------

# A base that has the series of upstream/ has more than its own number's folder: what is
# in upstream/ there, and that stands for what has the same name elsewhere.
folders()
{
	printf '%s\n' common "$series" $upstream
}

# The folders are numbered in the order of the steps.  What is in one of them, in any
# folder of the base, is applied in the order of its names.
step()
{
	for folder in $(folders); do
		find "$here/$folder" -path "*/$1" ! -name '*~'
	done | awk -F/ '{ file[$NF] = $0 } END { for (name in file) print name "/" file[name] }' |
		sort | cut -d/ -f2-
}

rules()
{
	step '2-rules/*.cocci'
}

patches()
{
	step '4-patches/*.patch'
}

# edits FOLDER: the edits of a step, a line each.
edits()
{
	step "$1/[0-9]*" | grep -v '\.patch$' | xargs -r cat | grep -v -e '^#' -e '^$' || :
}

# What a rule changes, as "file places": of every base, of this series, or of upstream,
# which the last one of a file tells.  A rule that removes by name has that instead of a
# number: check_names() looks for each.
rule_changes()
{
	awk -v series="$series" -v upstream="${upstream:-none}" '
		sub(/^\/\/ changes: /, "") || sub("^// changes in (" series "|" upstream "): ", "") {
			if (!($1 in places))
				file[++n] = $1
			places[$1] = $2
		}
		END { for (i = 1; i <= n; i++) print file[i], places[file[i]] }' "$1"
}

rule_files()
{
	rule_changes "$1" | awk '{ print $1 }'
}

# lists NAME: the lines of all lists of that name.
lists()
{
	folders | while read -r folder; do
		cat "$here/$folder/$1" 2>/dev/null
	done | grep -v -e '^#' -e '^$' || :
}

# Every file of the base that some step changes.
touched()
{
	{
		lists removed
		rules | while read -r rule; do
			rule_files "$rule"
		done
		for folder in 1-edits 3-leftovers; do
			edits $folder | awk '{ print $2 }'
		done
		patches | while read -r patch; do
			sed -n 's,^+++ b/,,p' "$patch"
		done
	} | sort -u
}

# Our files, as "ours theirs": from the top of the repository, in the tree, where the
# base's list of paths may have another place for them.
overlay()
{
	roots="arch include Documentation samples tools/testing/selftests"
	[ "$mode" != tests ] || roots="samples/kvm tools/testing/selftests"
	(
		cd "$top"
		# shellcheck disable=SC2086 # a list of words
		find $roots -type f \
			! -name '*~' ! -name '.*.sw?' ! -name '*.orig' ! -name '*.rej' \
			! -name '*.[oa]' ! -name '.*.cmd' ! -name '.checkpatch*' 2>/dev/null | sort
		[ "$mode" = tests ] || [ ! -f Kconfig ] || echo Kconfig
	) | in_base
}

in_base()
{
	awk -v paths="$(lists paths | paste -sd' ' -)" '
		BEGIN { n = split(paths, path, " ") }
		{
			theirs = $0
			for (i = 1; i < n; i += 2)
				if (index($0, path[i]) == 1)
					theirs = path[i + 1] == "-" ? "" : path[i + 1] substr($0, length(path[i]) + 1)
			if (theirs != "")
				print $0, theirs
		}'
}

integration_id()
{
	if [ "$mode" != integrate ]; then
		echo "$mode"
		return
	fi
	(
		cd "$here"
		# shellcheck disable=SC2046 # a list of words
		find apply.sh edit.awk $(folders) -type f ! -name '.*' ! -name '*~' | sort |
		while read -r file; do
			sha256sum "$file"
		done | sha256sum | cut -d' ' -f1
	)
}

check_twins()
{
	twins=$(find "$here/common" "$here/$series" -path '*/[0-9]-*/*' ! -name '*~' |
		awk -F/ '{ print $NF }' | sort | uniq -d | paste -sd' ' -)
	[ -z "$twins" ] ||
		die 1 "$twins: in common/ and in $series/; only what is in upstream/ may stand for another"
}

# ---- the base --------------------------------------------------------------

supported()
{
	(cd "$here" && find [0-9]*.[0-9]* -prune -type d | sort -V)
}

check_series()
{
	series=$1
	supported | grep -qxF "$series" && return
	die 3 "$2 is Linux $series, but the base must be $(supported | paste -sd, - | sed 's/,/ or /g'): set KERNEL_SRC= to such a kernel"
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
		# By a function of the first of them that is left in the end.
		! grep -qs kvm_guest_moved_tsc "$base/arch/x86/kvm/x86.c" || upstream=upstream
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
	found=$(printf '%s\n' "${first%%/*}" | sed -n 's/^linux-\(source-\)\{0,1\}\([0-9]*\.[0-9]*\).*/\2/p')
	[ -n "$found" ] ||
		found=$(tar --occurrence=1 -xOf "$base" "${first%%/*}/Makefile" 2>/dev/null | makefile_version)
	[ "$found" != . ] || die 3 "$base: has no Makefile at its top, so this is no kernel; give a kernel's tarball"
	check_series "$found" "$base"
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

# edit OP FILE PLACES WORDS: makes the edit, in FILE.
edit()
{
	awk -f "$here/edit.awk" -v op="$1" -v places="$3" -v words="$4" "$2" >"$2.edited" || {
		rm -f "$2.edited"
		return 1
	}
	cat "$2.edited" >"$2"
	rm "$2.edited"
}

# edit_base FOLDER: the edits of a step, in $work
edit_base()
{
	edits "$1" | while read -r op file places words; do
		edit "$op" "$work/$file" "$places" "$words" ||
			die 3 "$file: '$op $words' of $1/ does not fit in $places places; look at what the base has there"
	done
}

# How many places differ.  Blank lines are none: Coccinelle's versions differ in them.
places_changed()
{
	diff -B -U0 "$1" "$2" | grep -c '^@@' || :
}

apply_rule()
{
	say "semantic patch ${1##*/}"
	[ -n "$(rule_changes "$1")" ] ||
		die 1 "${1##*/}: does not say what it changes in $series"
	rule_files "$1" | while read -r file; do
		mkdir -p "$before/${file%/*}"
		cp "$work/$file" "$before/$file"
	done
	# shellcheck disable=SC2046 # a list of words
	(cd "$work" && spatch --in-place --sp-file "$1" $(rule_files "$1")) >"$log" 2>&1 ||
		die 3 "${1##*/}: Coccinelle failed on $(rule_files "$1" | paste -sd' ' -): $(grep -v '^\(warning\|HANDLING\|init\)' "$log" | tail -n 1)"
	rule_changes "$1" | while read -r file places; do
		[ "$places" != by-name ] || continue
		found=$(places_changed "$before/$file" "$work/$file")
		[ "$found" -eq "$places" ] ||
			die 3 "${1##*/}: changes $found places of $file, not $places; look at what the base has there"
	done
}

# Works on copies in $work, so that the tree only sees what has succeeded.
change()
{
	check_twins
	work=$new/$memory/work
	before=$new/$memory/before
	log=$new/$memory/log
	rm -rf "$work" "$before"
	touched | while read -r file; do
		mkdir -p "$(dirname "$work/$file")" "$(dirname "$new/$memory/pristine/$file")"
		[ -f "$new/$memory/pristine/$file" ] || cp -p "$new/$file" "$new/$memory/pristine/$file" 2>/dev/null ||
			die 3 "$file: missing in $base; this base does not fit"
		cp "$new/$memory/pristine/$file" "$work/$file"
	done

	edit_base 1-edits
	rules | while read -r rule; do
		apply_rule "$rule"
	done
	rm -rf "$before"
	edit_base 3-leftovers

	patches | while read -r patch; do
		(cd "$work" && patch -p1 -F0 --no-backup-if-mismatch -r - <"$patch") >"$log" 2>&1 ||
			die 3 "${patch##*/} does not fit: $(grep -B 1 FAILED "$log" | paste -sd' ' -)"
	done

	lists removed | while read -r file; do
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
	lists "$1" | awk '{ for (n = 2; n <= NF; n++) print $1, $n }'
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
				lists gone-before | grep -qxF "$name" ||
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

# Sections of documentation that a patch adds have numbers of their own.
check_sections()
{
	touched | grep '\.rst$' | while read -r file; do
		again=$(awk '
			!/^[0-9]+\.[0-9]+\.? / { next }
			NR == FNR { before[$1]++; next }
			++now[$1] > 1 && now[$1] > before[$1] { print $1 }
		' "$new/$memory/pristine/$file" "$work/$file" | paste -sd' ' -)
		[ -z "$again" ] || die 3 "$file: has two sections $again; a patch of 4-patches/ must take another number"
	done
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
		if lists removed | grep -qxF "$file"; then
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

# Our files in the folder $ours, as this base has them: with the base's words for
# what it calls otherwise, after patches where that is not all.  A step for files that
# are not there - a series begins with few - does nothing.
fit_ours()
{
	rm -rf "$ours"
	mkdir "$ours"
	while read -r file theirs; do
		mkdir -p "$ours/${theirs%/*}"
		cp -p "$top/$file" "$ours/$theirs"
	done <"$list.new"

	step '5-ours/*.patch' | while read -r patch; do
		sed -n 's,^+++ b/,,p' "$patch" | while read -r file; do
			[ -e "$ours/$file" ] || echo "$file"
		done | grep -q . && continue
		(cd "$ours" && patch -s -p1 -F0 --no-backup-if-mismatch -r - <"$patch") >"$ours.log" 2>&1 ||
			die 1 "${patch##*/} does not fit: $(grep -B 1 FAILED "$ours.log" | paste -sd' ' -)"
	done
	rm -f "$ours.log"

	edits 5-ours | while read -r op file places words; do
		find "$ours/$file" -type f -exec grep -lwF "${words%% *}" {} + >"$ours.hits" 2>/dev/null || :
		[ -s "$ours.hits" ] || [ ! -e "$ours/$file" ] || [ -n "$part" ] ||
			die 1 "$file: '$op $words' of 5-ours/ finds nothing; drop it, or mend it"
		while read -r hit; do
			edit "$op" "$hit" "$places" "$words" ||
				die 1 "${hit#"$ours/"}: '$op $words' of 5-ours/ does not fit"
		done <"$ours.hits"
	done
	rm -f "$ours.hits"
}

sync_overlay()
{
	to=$1
	list=$to/$memory/overlay
	ours=$to/$memory/ours
	overlay >"$list.new"
	while read -r file theirs; do
		case $theirs in
		*[!A-Za-z0-9._/+-]*)
			die 1 "$file: no file name for a kernel tree; rename it" ;;
		esac
		grep -qxF "$file $theirs" "$list" || [ ! -e "$to/$theirs" ] ||
			die 3 "$theirs: the base has such a file, and so have we ($file); change the base's by a rule or patch"
	done <"$list.new"
	fit_ours

	# Known before they are copied, so that an interrupted run can be undone.
	sort -u "$list" "$list.new" >"$list.both"
	mv "$list.both" "$list"
	while read -r file theirs; do
		cmp -s "$ours/$theirs" "$to/$theirs" || replace "$ours/$theirs" "$to/$theirs"
	done <"$list.new"
	while read -r file theirs; do
		grep -qxF "$file $theirs" "$list.new" || rm -f "$to/$theirs"
	done <"$list"
	mv "$list.new" "$list"
	rm -rf "$ours"
	[ "$mode" = tests ] || check_walls "$to"
	hash_tree "$to" >"$to/$memory/hash"
}

# Of every file that is ours, or changed: two trees of one base have the same hash
# exactly if they are the same.
hash_tree()
{
	(
		cd "$1"
		{
			(cd "$memory/pristine" && find . -type f) | sed 's,^\./,,'
			awk '{ print $2 }' "$memory/overlay"
		} | sort -u | while read -r file; do
			[ ! -f "$file" ] || sha256sum "$file"
		done
	) | sha256sum | cut -d' ' -f1
}

# ---- in order --------------------------------------------------------------

case $mode in
folders | touched)
	check_base
	$mode
	exit ;;
esac
check_tools
check_base
check_place
trap 'die 130 "interrupted; the next run completes $tree"' INT
trap 'die 143 "interrupted; the next run completes $tree"' HUP TERM

integration=$(integration_id)
known=$tree/$memory
if [ -f "$known/stamp" ] && [ "$(cat "$known/base")" = "$identity" ] &&
   [ "$(cat "$known/stamp")" = "$integration" ] && ! base_is_newer "$known/base"; then
	[ "$mode" = pristine ] || sync_overlay "$tree"
	exit 0
fi

# From here on there is no TREE.  What is unpacked need not be unpacked again.
if [ -d "$tree" ]; then
	rm -rf "$new"
	mv "$tree" "$new"
fi
rm -f "$new/$memory/stamp"
if [ "$mode" != integrate ] || [ "$(cat "$new/$memory/base" 2>/dev/null)" != "$identity" ] ||
   base_is_newer "$new/$memory/base"; then
	rm -rf "$new"
	unpack
fi

if [ "$mode" = integrate ]; then
	change
	check_names
	check_sections
	install_changed
fi
[ "$mode" = pristine ] || sync_overlay "$new"
printf '%s\n' "$integration" >"$new/$memory/stamp"
mv "$new" "$tree"
say "$tree is ready$(sed "s,^,: sha256 ," "$tree/$memory/hash" 2>/dev/null)"
