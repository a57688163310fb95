# SPDX-License-Identifier: GPL-2.0
#
# awk -f drop.awk -v op=... -v words=... FILE: FILE as it was before a patch of
# the series brought something to it, on standard output.  Exit status 1 if
# there is nothing of that name.
#
# item     a function, prototype, type, macro or test case, with the comment before
#          it
# part     from one item to another, by the names of both
# section  from the comment that has only this title to the next such comment, or
#          from a title of reST to the next
# case     a case of a switch statement, by its label
# config   an option of a Kconfig
# if       an #if and what is in it, by words of its line
# line     lines that have these words

{ line[NR] = $0 }

function drop(from, to,    n)
{
	for (n = from; n <= to; n++)
		gone[n] = 1
	# One blank line is enough of the two around.
	if ((from == 1 || line[from - 1] == "") && line[to + 1] == "")
		gone[to + 1] = 1
	done++
}

function comment_end(n)
{
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

function is_named(item, name)
{
	return match(head[item], "(^|[^A-Za-z0-9_])" name "([^A-Za-z0-9_]|$)")
}

function drop_item(    i)
{
	find_items()
	for (i = 1; i <= items; i++)
		if (is_named(i, words))
			drop(start[i], end[i])
}

function drop_part(    i, from, name)
{
	split(words, name)
	find_items()
	for (i = 1; i <= items; i++) {
		if (!from && is_named(i, name[1]))
			from = start[i]
		if (from && is_named(i, name[2])) {
			drop(from, end[i])
			return
		}
	}
}

# The title that begins at this line, if one does: a comment's, or of reST.
function title(n)
{
	if (line[n] == "/*" && line[n + 1] ~ /^ \* / && line[n + 2] == " */" && line[n + 3] == "")
		return substr(line[n + 1], 4)
	if (line[n - 1] == "" && line[n + 1] ~ /^==+$/)
		return line[n]
	return ""
}

function drop_section(    n, m)
{
	for (n = 1; n <= NR; n++)
		if (title(n) == words) {
			for (m = n + 1; m <= NR && title(m) == ""; m++)
				;
			drop(n, m - 1)
		}
	# What was the last section leaves a blank line behind.
	for (n = NR; n > 1 && (gone[n] || line[n] == ""); n--)
		gone[n] = 1
}

function drop_case(    n, m)
{
	for (n = 1; n <= NR; n++)
		if (line[n] ~ "^\t+case " words ":") {
			for (m = n + 1; m <= NR && line[m] !~ /^\t+(case .*|default):/; m++)
				;
			drop(n, m - 1)
		}
}

function drop_config(    n, m)
{
	for (n = 1; n <= NR; n++)
		if (line[n] == "config " words) {
			for (m = n + 1; m <= NR && line[m] !~ /^[a-z]/; m++)
				;
			drop(n, m - 1)
		}
	for (n = NR; n > 1 && (gone[n] || line[n] == ""); n--)
		gone[n] = 1
}

function drop_if(    n, m, depth)
{
	for (n = 1; n <= NR; n++)
		if (line[n] ~ /^#[ \t]*if/ && index(line[n], words)) {
			depth = 0
			for (m = n; m <= NR; m++) {
				depth += (line[m] ~ /^#[ \t]*if/) - (line[m] ~ /^#[ \t]*endif/)
				if (!depth)
					break
			}
			drop(n, m)
			n = m
		}
}

function drop_lines(    n)
{
	for (n = 1; n <= NR; n++)
		if (index(line[n], words))
			drop(n, n)
}

END {
	if (op == "item")
		drop_item()
	else if (op == "part")
		drop_part()
	else if (op == "section")
		drop_section()
	else if (op == "case")
		drop_case()
	else if (op == "config")
		drop_config()
	else if (op == "if")
		drop_if()
	else if (op == "line")
		drop_lines()
	for (n = 1; n <= NR; n++)
		if (!gone[n])
			print line[n]
	exit !done
}
