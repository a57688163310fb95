#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make upstream: the series of upstream/ as mails in O=/upstream/mails, and as branches
# of O=/upstream/linux, a repository of the base they are made for; nothing is sent.
# What is kept here are the mails' texts and differences with a line of context; git
# makes the rest, and whatever a patch here says of the base has to be so.  The same
# sources give the same mails, to the byte.
set -eu
# shellcheck source=../tools/testing/kvmclock/settings.sh
. "$(dirname "$0")/../tools/testing/kvmclock/settings.sh"
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck disable=SC2034 # the settings go by it
lab=$top/tools/testing/kvmclock

check_settings
open_output
case $SOB in
'' | *' <'*'@'*'>') ;;
*) die $EXIT_USAGE "SOB=$SOB: give a name and an address, as in SOB='Jo Doe <jo@example.org>'" ;;
esac
[ -n "$KERNEL$KERNEL_SRC" ] || KERNEL=7.3
find_base
[ "$KERNEL" = 7.3 ] || die $EXIT_USAGE "KERNEL=$KERNEL: the series of upstream/ are for Linux 7.3"
fetch_base
work=$O/upstream
linux=$work/linux
[ -z "$upstream" ] ||
	die $EXIT_USAGE "KERNEL_SRC=$KERNEL_SRC has the series already: give the source that they are for, or none"
mails=$work/mails
mkdir -p "$work"

# Author, committer and date are those of who posts, and of our last commit.
identity=${SOB:-Nobody yet <set.SOB@localhost>}
date=$(git -C "$top" log -1 --format=%cI 2>/dev/null) || date=2026-01-01T00:00:00Z
GIT_AUTHOR_NAME=${identity%% <*}
GIT_AUTHOR_EMAIL=${identity##*<}
GIT_AUTHOR_EMAIL=${GIT_AUTHOR_EMAIL%>}
GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME
GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
GIT_CONFIG_GLOBAL=/dev/null
GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL
export GIT_CONFIG_GLOBAL GIT_CONFIG_SYSTEM

dated()
{
	GIT_AUTHOR_DATE=$1 GIT_COMMITTER_DATE=$1
	export GIT_AUTHOR_DATE GIT_COMMITTER_DATE
}

in_linux()
{
	git -C "$linux" -c core.hooksPath=/dev/null -c gc.auto=0 "$@"
}

# The whole base: get_maintainer.pl, checkpatch.pl and git am want it.
make_base()
{
	identity_of_base=$(stat -L -c '%s %Y' "$KERNEL_SRC")
	[ "$(cat "$work/base" 2>/dev/null)" != "$identity_of_base" ] || return 0
	need_space 4000 "a repository of the base"
	say "upstream: a repository of $KERNEL_SRC, a minute or two"
	rm -rf "$linux" "$work/base"
	mkdir "$linux"
	if [ -d "$KERNEL_SRC" ]; then
		cp -R "$KERNEL_SRC/." "$linux/"
	else
		tar -C "$linux" --strip-components=1 -xf "$KERNEL_SRC"
	fi
	version=$(sed -n 's/^\(VERSION\|PATCHLEVEL\|SUBLEVEL\) = //p' "$linux/Makefile" | paste -sd.)
	git init -q -b base "$linux"
	dated 2026-01-01T00:00:00Z
	in_linux add -A -f
	in_linux commit -q -m "Linux $version, as the distribution's source package has it"
	echo "$identity_of_base" >"$work/base"
}

# The three parts of a stored patch: its message, notes for who reads the mail, and
# the difference.
part()
{
	awk -v want="$2" '
		/^diff --git / { part = "diff" }
		part == "" && $0 == "---" { part = "notes"; next }
		(part == "" ? "message" : part) == want' "$1"
}

# One as they are stored, of a commit: to be compared.
difference()
{
	in_linux show --format= --abbrev=12 -U1 --patience --no-renames "$1" | sed 's/^\(@@ .* @@\).*/\1/'
}

commit()
{
	part "$1" diff >"$work/diff"
	in_linux apply --index "$work/diff" ||
		die $EXIT_BASE "${1#"$top/"} does not fit $KERNEL_SRC"
	{
		part "$1" message
		if [ -n "$SOB" ]; then
			part "$1" message | grep -qE "^(Fixes|Link): " || echo
			echo "Signed-off-by: $SOB"
		fi
	} | in_linux commit -q --cleanup=whitespace -F -
	difference HEAD | cmp -s - "$work/diff" ||
		die $EXIT_BASE "${1#"$top/"}: the base is another one than it was made for"
}

# people FILE OPTION...: those that the base names for the mails, and want them so
people()
{
	file=$1
	shift
	(cd "$linux" && HOME=$work scripts/get_maintainer.pl --nogit --nogit-fallback \
		--norolestats "$@" "$work/draft"/*.patch) >"$work/people" 2>"$work/log" ||
		die $EXIT_BASE "$linux/scripts/get_maintainer.pl failed: $(tail -n 1 "$work/log")"
	LC_ALL=C sort -u "$work/people" >"$file"
}

# Notes go below the mail's "---", which git format-patch has no place for.
add_notes()
{
	part "$1" notes | awk 'NF { text = 1 } text' >"$work/notes"
	[ -s "$work/notes" ] || return 0
	awk -v notes="$work/notes" '
		{ print }
		$0 == "---" && !done { done = 1; while ((getline line < notes) > 0) print line }' \
		"$2" >"$work/mail"
	cat "$work/mail" >"$2"
}

# make_series FOLDER: its branch, on that of the one before, and its mails
make_series()
{
	name=$1
	from=$(in_linux rev-parse HEAD)
	in_linux checkout -q -B "$name"
	for file in "$top/upstream/$name"/*.patch; do
		commit "$file"
	done

	rm -rf "$work/draft"
	in_linux format-patch -q -o "$work/draft" --no-renames "$from"
	people "$work/to" --no-r --no-l
	people "$work/cc" --no-m
	{
		cat "$top/upstream/$name/cover"
		echo
		sed 's/^/To: /' "$work/to"
		LC_ALL=C comm -13 "$work/to" "$work/cc" | sed 's/^/Cc: /'
	} >"$work/cover"
	in_linux config "branch.$name.description" "$(cat "$work/cover")"
	in_linux format-patch -q -o "$mails/$name" --base=base --cover-letter --thread \
		--cover-from-description=subject --subject-prefix="$PREFIX" --signature= \
		--no-renames --patience "$from"
	nr=0
	for file in "$top/upstream/$name"/*.patch; do
		nr=$((nr + 1))
		add_notes "$file" "$(find "$mails/$name" -name "$(printf '%04d' $nr)-*.patch")"
	done
	# git has the time of day in the mails' names.
	epoch=$(in_linux log -1 --format=%ct)
	sed -i -E "/^(Message-Id|In-Reply-To|References): /I s/\.[0-9]+\.git\./.$epoch.git./" "$mails/$name"/*.patch
	say "upstream: $name: $nr patches in $mails/$name"
}

make_base
rm -rf "$mails"
in_linux checkout -q -f base
dated "$date"
for folder in "$top"/upstream/*/cover; do
	make_series "$(basename "${folder%/cover}")"
done
