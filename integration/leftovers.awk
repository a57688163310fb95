# SPDX-License-Identifier: GPL-2.0
#
# awk -f leftovers.awk -v op=... -v words=... FILE: one line of 60-leftovers
# carried out on FILE, result on standard output.  Exit status 1 if there was
# nothing to do, or more than one place to do it where one is meant.

{ line[NR] = $0 }

# The line that closes the comment, or 0 if none is open at the start of n.
function comment_end(n)
{
	if (!index(line[n], "/*"))
		return 0
	while (n < NR && !index(line[n], "*/"))
		n++
	return n
}

function drop(from, to,    n)
{
	for (n = from; n <= to; n++)
		gone[n] = 1
	done++
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
	return done == 1
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

function drop_if(    n, at)
{
	pair_ifs()
	for (n = 1; n <= NR; n++)
		if (index(line[n], words)) {
			done++
			at = around[n]
		}
	if (done != 1 || !at || has_else[at])
		return 0
	drop_line(at)
	drop_line(close_of[at])
	return 1
}

# With the blank line that followed it, if it stood between two.
function drop_line(n)
{
	gone[n] = 1
	if (line[n - 1] == "" && line[n + 1] == "")
		gone[n + 1] = 1
}

function drop_empty_ifs(    n, m, last)
{
	pair_ifs()
	for (n = NR; n >= 1; n--) {
		if (!(n in close_of))
			continue
		for (m = n + 1; m < close_of[n]; m++)
			if (!gone[m] && line[m] !~ /^[ \t]*(#[ \t]*el.*)?$/)
				break
		if (m < close_of[n])
			continue
		last = close_of[n]
		drop(n, last)
		# One blank line is enough of the two around.
		for (m = n - 1; m > 1 && gone[m]; m--)
			;
		for (last++; last < NR && gone[last]; last++)
			;
		if (line[m] == "" && line[last] == "")
			gone[last] = 1
	}
	return done > 0
}

function rename(    n, pair, inside)
{
	split(words, pair, " ")
	for (n = 1; n <= NR; n++) {
		if (index(line[n], "/*"))
			inside = 1
		if (inside && match(line[n], "(^|[^A-Za-z0-9_])" pair[1] "([^A-Za-z0-9_]|$)")) {
			sub(pair[1], pair[2], line[n])
			done++
		}
		if (index(line[n], "*/"))
			inside = 0
	}
	return done > 0
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
	return done > 0
}

function blank_before(    n)
{
	for (n = 2; n <= NR; n++)
		if (index(line[n], words)) {
			if (line[n - 1] != "")
				line[n] = "\n" line[n]
			done++
		}
	return done == 1
}

END {
	if (op == "drop-comment")
		ok = drop_comment()
	else if (op == "drop-if")
		ok = drop_if()
	else if (op == "drop-empty-if")
		ok = drop_empty_ifs()
	else if (op == "rename")
		ok = rename()
	else if (op == "wrap")
		ok = wrap()
	else if (op == "blank-before")
		ok = blank_before()
	for (n = 1; n <= NR; n++)
		if (!gone[n])
			print line[n]
	exit !ok
}
