# SPDX-License-Identifier: GPL-2.0
#
# awk -f drop.awk -v op=... -v words=... FILE: FILE as it was before a patch of
# the series brought something to it, on standard output.  Exit status 1 if
# there is nothing of that name.
#
# item     a function, prototype, type or macro, with the comment before it
# section  from the comment that has only this title to the next such comment
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
		if (line[n] ~ /^\}/)
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

function drop_item(    n, start, code, end, m, head)
{
	for (n = 1; n <= NR; n = end + 1) {
		start = code = end = n
		if (line[n] == "")
			continue
		if (line[n] ~ /^\/\*/) {
			end = comment_end(n)
			code = end + 1
			if (line[code] == "" || code > NR)
				continue
		}
		end = item_end(code)
		head = ""
		for (m = code; m <= end && (m == code || line[m - 1] !~ /\{$/); m++)
			head = head " " line[m]
		if (match(head, "(^|[^A-Za-z0-9_])" words "([^A-Za-z0-9_]|$)"))
			drop(start, end)
	}
}

function is_title(n)
{
	return line[n] == "/*" && line[n + 1] ~ /^ \* / && line[n + 2] == " */" && line[n + 3] == ""
}

function drop_section(    n, m)
{
	for (n = 1; n <= NR; n++)
		if (is_title(n) && line[n + 1] == " * " words) {
			for (m = n + 1; m <= NR && !is_title(m); m++)
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
		if (index(line[n], words)) {
			gone[n] = 1
			done++
		}
}

END {
	if (op == "item")
		drop_item()
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
