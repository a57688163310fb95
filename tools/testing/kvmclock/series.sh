#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make series: the patches of series/order as mails in O=/mails, and as commits in
# O=/series/git.  The tree after each patch is made like the whole one, by
# integration/apply.sh, of what is there by then; git makes the differences.
# The same sources give the same mails, to the byte.
set -eu
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

series=$top/series
check_settings
open_output
case $SOB in
'' | *' <'*'@'*'>') ;;
*) die $EXIT_USAGE "SOB=$SOB: give a name and an address, as in SOB='Jo Doe <jo@example.org>'" ;;
esac
command -v git >/dev/null || die $EXIT_TOOL "git: not installed; apt-get install git"
"$lab/build.sh" tree || exit
find_base
tree=$O/linux-$KERNEL
work=$O/series
git=$work/git
mails=$O/mails

# What of integration/ this base takes
folders=$("$top/integration/apply.sh" --folders "$KERNEL_SRC") || exit

# For awk: takes(FOLDER), and for_it(ONLY), whether what is for the bases that take the
# folder ONLY alone, or with a - before it for the others, is for this base.
for_this_base='
	BEGIN {
		n = split(folders, folder)
		for (i = 1; i <= n; i++)
			taken[folder[i]]
	}
	function takes(folder) { return folder in taken }
	function for_it(only) { return only ~ /^-/ ? !takes(substr(only, 2)) : takes(only) }'

# A patch that is there for another base only is none here.
names=$(awk -v folders="$folders" "$for_this_base"'
	function brings(file) { sub("/.*", "", file); return takes(file) }
	function last() { if (here) print name }
	/^[a-z]/ { last(); split($1, only, "@"); name = only[1]; here = 0 }
	only[2] != "" && !for_it(only[2]) { next }
	/^[ \t]/ { for (i = 2; i <= NF; i++) here += $1 != "step" || brings($i) }
	END { last() }
	' "$series/order")

# brought PATCH KEYWORD: what the patch brings by this keyword, a line each
brought()
{
	awk -v patch="$1" -v keyword="$2" '
		/^[a-z]/ { split($1, name, "@"); on = name[1] == patch }
		on && $1 == keyword { sub(/^[ \t]*[a-z]+[ \t]+/, ""); print }
	' "$series/order"
}

# The patches up to PATCH, or those after it and last things first.
until_patch()
{
	for name in $names; do
		echo "$name"
		[ "$name" != "$1" ] || break
	done
}

after_patch()
{
	later=
	found=
	for name in $names; do
		[ -z "$found" ] || later="$name $later"
		[ "$name" != "$1" ] || found=yes
	done
	echo "$later"
}

# steps PATCH: what of integration/ the patch brings on this base
steps()
{
	for folder in $folders; do
		brought "$1" step | tr ' ' '\n' | grep "^$folder/" || :
	done
}

# What there is to apply for PATCH: a repository like this one, with less in it.
make_stage()
{
	stage=$work/stage
	rm -rf "$stage"
	cd "$top/integration"
	for folder in $folders; do
		mkdir -p "$stage/integration/$folder"
	done
	cp -p apply.sh edit.awk "$stage/integration/"
	# Where our files go, and what is done to them, whichever they are; and what the
	# base lacks of what rules remove.
	# shellcheck disable=SC2086 # names without blanks
	find $folders \( -name paths -o -name gone-before -o -path '*/5-ours/*' \) -type f \
		-exec cp -p --parents {} "$stage/integration/" \;
	for name in $(until_patch "$1"); do
		for file in $(steps "$name"); do
			cp -p --parents "$file" "$stage/integration/" || die $EXIT_USAGE "series/order: $name: integration/$file is not there"
		done
		for file in $(brought "$name" file | tr '\n' ' '); do
			[ -f "$top/$file" ] || die $EXIT_USAGE "series/order: $name: $file is not there"
			mkdir -p "$stage/$(dirname "$file")"
			cp -p "$top/$file" "$stage/$file"
		done
	done
	cd "$top"
}

# in_base FILE: its name on this base
in_base()
{
	for folder in $folders; do
		cat "$top/integration/$folder/paths" 2>/dev/null || :
	done | awk -v file="$1" '
		/^[^#]/ && index(file, $1) == 1 { file = $2 substr(file, length($1) + 1) }
		END { print file }'
}

# drop OP FILE WORDS: leaves it out of the file, in the worktree
drop()
{
	from=$git/$(in_base "$2")
	[ -f "$from" ] || return 0
	if awk -f "$top/integration/edit.awk" -v op="drop-$1" -v words="$3" "$from" >"$work/dropped"; then
		cat "$work/dropped" >"$from"
	elif [ -n "$next" ]; then
		die $EXIT_USAGE "series/order: '$1 $2 $3': there is no such thing in the file"
	fi
}

# leave_out PATCH NEXT: takes what PATCH brings out of the files that are there
# without it.  All of it is there if PATCH is the one to come next.
leave_out()
{
	next=$2
	for op in item case config; do
		brought "$1" $op | while read -r file words; do
			for word in $words; do
				drop $op "$file" "$word"
			done
		done
	done
	brought "$1" line | while read -r file words; do
		drop line "$file" "$words"
	done
}

# The files of the tree after PATCH, in the worktree.
make_tree()
{
	make_stage "$1"
	[ -z "$(steps "$1")" ] || rm -rf "$work/tree"
	"$work/stage/integration/apply.sh" --part "$work/base" "$work/tree" >"$work/log" 2>&1 ||
		die $EXIT_BASE "series: $1: $(tail -n 1 "$work/log")"
	rsync -rc --delete --exclude=/.git --exclude=/.kvmclock "$work/tree/" "$git/"
	for later in $(after_patch "$1"); do
		leave_out "$later" "$(after_patch "$1" | grep -o "$later \$")"
	done
	for name in $(until_patch "$1"); do
		brought "$name" until | while read -r end files; do
			case " $(until_patch "$1" | tr '\n' ' ') " in
			*" $end "*) continue ;;
			esac
			for file in $files; do
				patch -d "$git" -p1 -F0 -s --no-backup-if-mismatch -r - <"$series/$file" >&2 ||
					die $EXIT_BASE "series/$file does not fit after $1"
			done
		done
	done
}

# Author, committer and date are those of who posts, and of our last commit.
identity=${SOB:-Nobody yet <set.SOB@localhost>}
date=$(git -C "$top" log -1 --format=%cI 2>/dev/null) || date=2026-01-01T00:00:00Z
GIT_AUTHOR_NAME=${identity%% <*}
GIT_AUTHOR_EMAIL=${identity##*<}
GIT_AUTHOR_EMAIL=${GIT_AUTHOR_EMAIL%>}
GIT_AUTHOR_DATE=$date
GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME
GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
GIT_COMMITTER_DATE=$date
GIT_CONFIG_GLOBAL=/dev/null
GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE GIT_COMMITTER_NAME
export GIT_COMMITTER_EMAIL GIT_COMMITTER_DATE GIT_CONFIG_GLOBAL GIT_CONFIG_SYSTEM

in_git()
{
	git -C "$git" "$@"
}

# for_base FILE: without the lines for other bases, which begin with @ and a folder of
# integration/ that they take, or with @- and one that they don't
for_base()
{
	awk -v folders="$folders" "$for_this_base"'
		sub(/^@/, "") {
			if (!for_it($1))
				next
			sub(/^[^ ]* ?/, "")
		}
		{ print }' "$1"
}

# commit FILE: all there is, with the message in FILE
commit()
{
	in_git add -A
	in_git diff --cached --quiet && die $EXIT_USAGE "series: ${1##*/} changes nothing"
	{
		for_base "$1"
		[ -z "$SOB" ] || printf '\nSigned-off-by: %s\n' "$SOB"
	} | in_git commit -q --cleanup=whitespace -F -
}

rm -rf "$work" "$mails"
mkdir -p "$work/base" "$mails"
rsync -a "$tree/.kvmclock/pristine/" "$tree/Makefile" "$work/base/"
git init -q -b series "$git"
rsync -a "$work/base/" "$git/"
echo "Base: $(sed -n 's/^\(VERSION\|PATCHLEVEL\|SUBLEVEL\) = //p' "$tree/Makefile" | paste -sd.), the files that the series changes" >"$work/message"
commit "$work/message"
base=$(in_git rev-parse HEAD)

total=$(echo "$names" | wc -w)
nr=0
for name in $names; do
	nr=$((nr + 1))
	[ -f "$series/$name.msg" ] || die $EXIT_USAGE "series/$name.msg is missing: the patch's changelog"
	make_tree "$name"
	commit "$series/$name.msg"
	say "series: $nr of $total: $(head -n 1 "$series/$name.msg") ($(in_git diff --patience --shortstat HEAD~ | sed 's/^ [0-9]* files* changed, //'))"
done

# The last tree is the whole one: what is in no patch would be missing.
(cd "$git" && git ls-files) >"$work/files"
{
	cut -d' ' -f2 "$tree/.kvmclock/overlay"
	(cd "$tree/.kvmclock/pristine" && find . -type f | sed 's,^\./,,')
} | sort -u | while read -r file; do
	[ -e "$tree/$file" ] || continue
	cmp -s "$tree/$file" "$git/$file" ||
		die $EXIT_USAGE "series: $file is not what make tree makes of it; which patch of series/order brings it?"
done

# people FILE OPTION...: those that the base names for the mails, and want them so
people()
{
	file=$1
	shift
	(cd "$tree" && HOME=$work scripts/get_maintainer.pl --nogit --nogit-fallback \
		--norolestats "$@" "$work/mails"/*.patch) >"$work/people" ||
		die $EXIT_BASE "$tree/scripts/get_maintainer.pl failed"
	LC_ALL=C sort -u "$work/people" >"$file"
}

# The cover letter: {PATCH} is the patch's number, {FOLDER} the subject of a series of
# upstream/, and its trailer says whom to send the series to.
in_git format-patch -q -o "$work/mails" --no-renames "$base"
people "$work/to" --no-r --no-l
people "$work/cc" --no-m
nr=0
for name in $names; do
	nr=$((nr + 1))
	echo "s/{$name}/$nr/g"
done >"$work/numbers"
{
	for cover in "$top"/upstream/*/cover; do
		name=${cover%/cover}
		echo "s/{${name##*/}}/ \"$(head -n 1 "$cover" | sed 's/[&/]/\\&/g')\"/"
	done >>"$work/numbers"
	for_base "$series/cover" | sed -f "$work/numbers"
	echo
	sed 's/^/To: /' "$work/to"
	LC_ALL=C comm -13 "$work/to" "$work/cc" | sed 's/^/Cc: /'
} >"$work/cover"
if grep -o '{[a-z-]*}' "$work/cover" >&2; then
	die $EXIT_USAGE "series/cover: series/order has no such patch"
fi

in_git config branch.series.description "$(cat "$work/cover")"
in_git format-patch -q -o "$mails" --base="$base" --cover-letter --thread \
	--cover-from-description=subject --subject-prefix="$PREFIX" --signature= \
	--no-renames --patience "$base"
# git has the time of day in the mails' names.
epoch=$(in_git log -1 --format=%ct)
sed -i -E "/^(Message-Id|In-Reply-To|References): /I s/\.[0-9]+\.git\./.$epoch.git./" "$mails"/*.patch
say "series: $total patches in $mails"
