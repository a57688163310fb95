#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make qemu-mails: the patches for this machine's QEMU as mails in O=/qemu-mails; nothing
# is sent. What is kept here are the mails' texts and differences with a line of context;
# git makes the rest, and whatever a patch here says of the base has to be so. The same
# sources give the same mails, to the byte.
set -eu
# shellcheck source=../../tools/testing/kvmclock/settings.sh
. "$(dirname "$0")/../../tools/testing/kvmclock/settings.sh"
top=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck disable=SC2034 # the settings go by it
lab=$top/tools/testing/kvmclock
# shellcheck source=../../tools/testing/kvmclock/qemu.sh
. "$lab/qemu.sh"

case $SOB in
'' | *' <'*'@'*'>') ;;
*) die $EXIT_USAGE "SOB=$SOB: give a name and an address, as in SOB='Jo Doe <jo@example.org>'" ;;
esac
open_output
"$lab/build.sh" qemu-source || exit
find_qemu
work=$qemu/mails
git=$work/git
mails=$O/qemu-mails

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
	git -C "$git" -c core.hooksPath=/dev/null "$@"
}

# The files that patches touch, as they are without them
make_base()
{
	rm -rf "$work"
	mkdir -p "$git" "$qemu/applied"
	git init -q -b base "$git"
	find "$qemu/applied" -type f | sort -r >"$work/applied"
	# shellcheck disable=SC2046 # names without blanks
	sed -n 's,^+++ b/,,p' $(cat "$work/applied") "$qemu_patches"/*.patch | sort -u |
		rsync -a --ignore-missing-args --files-from=- "$qemu/source/" "$git/"
	while read -r patch; do
		in_git apply -R "$patch"
	done <"$work/applied"
	in_git add -A
	in_git commit -q -m "QEMU $(cat "$qemu/source/VERSION"), as the distribution's source package has it"
}

# The three parts of a stored patch: its message, notes for who reads the mail, and the
# difference.
part()
{
	awk -v want="$2" '
		/^diff --git / { part = "diff" }
		part == "" && $0 == "---" { part = "notes"; next }
		(part == "" ? "message" : part) == want' "$1"
}

commit()
{
	part "$1" diff >"$work/diff"
	in_git apply --index "$work/diff" || die $EXIT_BASE "${1#"$top/"} does not fit QEMU"
	{
		part "$1" message
		[ -z "$SOB" ] || printf '\nSigned-off-by: %s\n' "$SOB"
	} | in_git commit -q --cleanup=whitespace -F -
	in_git show --format= --abbrev=12 -U1 --patience --no-renames HEAD |
		sed 's/^\(@@ .* @@\).*/\1/' | cmp -s - "$work/diff" ||
		die $EXIT_BASE "${1#"$top/"}: the base is another one than it was made for"
}

# people FILE OPTION...: those that QEMU names for the mails, and want them so
people()
{
	file=$1
	shift
	(cd "$qemu/source" && HOME=$work scripts/get_maintainer.pl --nogit --nogit-fallback \
		--norolestats "$@" "$work/draft"/*.patch) >"$work/people" 2>"$work/log" ||
		die $EXIT_BASE "QEMU's get_maintainer.pl failed: $(tail -n 1 "$work/log")"
	LC_ALL=C sort -u "$work/people" >"$file"
}

# make_series NAME PATTERN: a branch of its own, and its mails
make_series()
{
	name=$1
	in_git checkout -q -b "$name" base
	for file in "$qemu_patches"/$2-*.patch; do
		commit "$file"
	done
	rm -rf "$work/draft"
	in_git format-patch -q -o "$work/draft" --no-renames base
	people "$work/to" --no-r --no-l
	people "$work/cc" --no-m
	{
		cat "$top/contrib/qemu/$name.cover"
		echo
		sed 's/^/To: /' "$work/to"
		LC_ALL=C comm -13 "$work/to" "$work/cc" | sed 's/^/Cc: /'
	} >"$work/cover"
	in_git config "branch.$name.description" "$(cat "$work/cover")"
	in_git format-patch -q -o "$mails/$name" --base=base --cover-letter --thread \
		--cover-from-description=subject --subject-prefix="$PREFIX" --signature= \
		--no-renames --patience base
	# git has the time of day in the mails' names.
	epoch=$(in_git log -1 --format=%ct)
	sed -i -E "/^(Message-Id|In-Reply-To|References): /I s/\.[0-9]+\.git\./.$epoch.git./" "$mails/$name"/*.patch
	say "qemu-mails: $(in_git rev-list --count base..) patches for QEMU $qemu_series in $mails/$name"
}

rm -rf "$mails"
make_base
make_series time '0[0-9]'
make_series tcg '1[0-9]'
