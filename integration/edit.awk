# SPDX-License-Identifier: GPL-2.0
#
# awk -f edit.awk -v op=... -v words=... FILE: FILE with one edit that Coccinelle
# cannot make, on standard output.  Exit status 1 if it was not made in as many places
# as -v places= says, or, if that is + or is not given, in none.
#
# drop-item NAME         a function, prototype, type, macro or test case, with the
#                        comment before it
# drop-case LABEL        a case of a switch statement
# drop-config OPTION     an option of a Kconfig
# drop-empty-if          every #if ... #endif with nothing between
# drop-block WORDS       the block that has WORDS, with what it is the block of
# drop-line WORDS        the lines that have WORDS
# drop-comment WORDS     the comment that has WORDS
# unwrap-if WORDS        the #if and #endif around the line that has WORDS
# replace OLD NEW        an identifier
# rename OLD NEW         an identifier, in comments
# wrap FUNCTION          its arguments, where a call is over 100 columns
# blank-before WORDS     a blank line before the line that has WORDS
# blank-after WORDS      ... or after it

{ line[NR] = $0 }

function drop(from, to,    n)
{
	for (n = from; n <= to; n++)
		gone[n] = 1
	# One blank line is enough of the two around.
	for (from--; from > 0 && gone[from]; from--)
		;
	for (to++; to < NR && gone[to]; to++)
		;
	if ((!from || line[from] == "") && line[to] == "")
		gone[to] = 1
	done++
}

# The line that closes the comment which opens at n, or 0 if none does.
function comment_end(n)
{
	if (!index(line[n], "/*"))
		return 0
	while (n < NR && !index(line[n], "*/"))
		n++
	return n
}

# The last line of what begins at n, outside of any function.
function item_end(n,    body)
{
	if (line[n] ~ /^#/) {
		while (line[n] ~ /\\$/)
			n++
		return n
	}
	for (; n <= NR; n++) {
		if (line[n] ~ /^\}/ && line[n] !~ /\{$/)
			return n
		if (line[n] ~ /\{$/)
			body = 1
		if (!body && line[n] ~ /[;}]$/)
			return n
		if (!body && line[n] == "")
			return n - 1
	}
	return NR
}

# Finds the items, each from the comment before it; "head" is what names it.
function find_items(    n, m, code)
{
	for (n = 1; n <= NR; n = end[items] + 1) {
		start[++items] = code = end[items] = n
		if (line[n] ~ /^\/\*/) {
			end[items] = comment_end(n)
			code = end[items] + 1
		}
		if (line[code] == "" || code > NR)
			continue
		end[items] = item_end(code)
		for (m = code; m <= end[items] && (m == code || line[m - 1] !~ /\{$/); m++)
			head[items] = head[items] " " line[m]
		if (match(head[items], /^ #[ \t]*define[ \t]+[A-Za-z0-9_]+/))
			head[items] = substr(head[items], 1, RLENGTH)
	}
}

function has_word(text, name)
{
	return match(text, "(^|[^A-Za-z0-9_])" name "([^A-Za-z0-9_]|$)")
}

function drop_item(    i)
{
	find_items()
	for (i = 1; i <= items; i++)
		if (has_word(head[i], words))
			drop(start[i], end[i])
}

# From a line like the first to the one before a line like the last.
function drop_until(first, last,    n, m)
{
	for (n = 1; n <= NR; n++)
		if (line[n] ~ first) {
			for (m = n + 1; m <= NR && line[m] !~ last; m++)
				;
			drop(n, m - 1)
		}
}

# For each line the #if that it is in, for each #if its #endif.
function pair_ifs(    n, depth, open)
{
	for (n = 1; n <= NR; n++) {
		if (line[n] ~ /^[ \t]*#[ \t]*if/)
			open[++depth] = n
		around[n] = depth ? open[depth] : 0
		if (line[n] ~ /^[ \t]*#[ \t]*endif/)
			close_of[open[depth--]] = n
		else if (line[n] ~ /^[ \t]*#[ \t]*el/)
			has_else[open[depth]] = 1
	}
}

function drop_empty_if(    n, m)
{
	pair_ifs()
	for (n = NR; n >= 1; n--) {
		if (!(n in close_of))
			continue
		for (m = n + 1; m < close_of[n]; m++)
			if (!gone[m] && line[m] !~ /^[ \t]*(#[ \t]*el.*)?$/)
				break
		if (m == close_of[n])
			drop(n, m)
	}
}

function drop_block(    n, from, to, indent)
{
	for (n = 1; n <= NR; n++) {
		if (!index(line[n], words))
			continue
		match(line[n], /^\t*/)
		indent = substr(line[n], 2, RLENGTH - 1)
		for (from = n - 1; from > 1 && line[from] !~ "^" indent "[^\t]"; from--)
			;
		for (to = n + 1; to < NR && line[to] !~ "^" indent "}"; to++)
			;
		drop(from, to)
	}
}

function drop_line(    n)
{
	for (n = 1; n <= NR; n++)
		if (index(line[n], words))
			drop(n, n)
}

function drop_comment(    n, m, end, text)
{
	for (n = 1; n <= NR; n++) {
		end = comment_end(n)
		if (!end)
			continue
		text = ""
		for (m = n; m <= end; m++)
			text = text line[m] "\n"
		if (index(text, words)) {
			if (line[n] ~ /^[ \t]*\/\*/)
				drop(n, end)
			else if (n == end && sub(/[ \t]*\/\*.*\*\/[ \t]*$/, "", line[n]))
				done++
		}
		n = end
	}
}

function unwrap_if(    n, at)
{
	pair_ifs()
	for (n = 1; n <= NR; n++)
		if (index(line[n], words)) {
			at = around[n]
			done++
		}
	if (!at || has_else[at])
		done = 0
	if (done != 1)
		return
	drop(at, at)
	drop(close_of[at], close_of[at])
	done = 1
}

function rename(old, new,    n, inside)
{
	for (n = 1; n <= NR; n++) {
		if (index(line[n], "/*"))
			inside = 1
		if (inside && has_word(line[n], old)) {
			sub(old, new, line[n])
			done++
		}
		if (index(line[n], "*/"))
			inside = 0
	}
}

function replace(old, new,    n, at, rest)
{
	for (n = 1; n <= NR; n++) {
		rest = line[n]
		line[n] = ""
		while (has_word(rest, old)) {
			at = index(substr(rest, RSTART), old) + RSTART - 1
			line[n] = line[n] substr(rest, 1, at - 1) new
			rest = substr(rest, at + length(old))
			done++
		}
		line[n] = line[n] rest
	}
}

function width(text,    n, w)
{
	for (n = 1; n <= length(text); n++)
		w = substr(text, n, 1) == "\t" ? int(w / 8) * 8 + 8 : w + 1
	return w
}

function indent(w,    text)
{
	for (; w >= 8; w -= 8)
		text = text "\t"
	for (; w > 0; w--)
		text = text " "
	return text
}

function wrap(    n, at, m, c, depth, out)
{
	for (n = 1; n <= NR; n++) {
		at = index(line[n], words "(")
		if (!at || width(line[n]) <= 100)
			continue
		at += length(words)
		out = substr(line[n], 1, at)
		depth = 1
		for (m = at + 1; m <= length(line[n]); m++) {
			c = substr(line[n], m, 1)
			depth += (c == "(") - (c == ")")
			if (c == "," && depth == 1) {
				out = out ",\n" indent(width(substr(line[n], 1, at)))
				while (substr(line[n], m + 1, 1) == " ")
					m++
			} else
				out = out c
		}
		line[n] = out
		done++
	}
}

# Beside each line that has the words: before it, -1, or after it, 1.
function blank(where,    n)
{
	for (n = 1; n <= NR; n++)
		if (index(line[n], words)) {
			if (line[n + where] != "")
				line[n] = where < 0 ? "\n" line[n] : line[n] "\n"
			done++
		}
}

END {
	split(words, word)
	if (op == "drop-item")
		drop_item()
	else if (op == "drop-case")
		drop_until("^\t+case " words ":", "^\t+(case .*|default):")
	else if (op == "drop-config")
		drop_until("^config " words "$", "^[a-z]")
	else if (op == "drop-empty-if")
		drop_empty_if()
	else if (op == "drop-block")
		drop_block()
	else if (op == "drop-line")
		drop_line()
	else if (op == "drop-comment")
		drop_comment()
	else if (op == "unwrap-if")
		unwrap_if()
	else if (op == "replace")
		replace(word[1], word[2])
	else if (op == "rename")
		rename(word[1], word[2])
	else if (op == "wrap")
		wrap()
	else if (op == "blank-before")
		blank(-1)
	else if (op == "blank-after")
		blank(1)
	# What was at the end leaves no blank line behind.
	for (n = NR; n > 1 && (gone[n] || line[n] == ""); n--)
		gone[n] = 1
	for (n = 1; n <= NR; n++)
		if (!gone[n])
			print line[n]
	if (places + 0 && done != places)
		print "in " done + 0 " places" >"/dev/stderr"
	exit !(places + 0 ? done == places : done)
}
