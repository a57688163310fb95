# SPDX-License-Identifier: GPL-2.0
#
# Is each row of DEFECTS.md true?  Of its cases, each fails on the stock kernel, in one
# of its variants at least, and on ours none does. Wants machine, kernel and drift; reads
# DEFECTS.md and what checks/cases.awk makes of the results on stock and on ours. A row
# of which nothing was run is named, one that is not true is an error.

function trim(s)
{
	gsub(/^ +| +$/, "", s)
	return s
}

# judge(ROW, TEST, CASE): adds to what is wrong with the row, or to what was looked at
function judge(row, test, name, i, id, stock, fails, ours)
{
	if (!(test in ran))
		return
	for (i = 1; i <= nr; i++) {
		split(result[i], id, " ")
		if (id[1] != test || (id[2] != name && substr(id[2], length(id[2]) - length(name)) != "." name))
			continue
		ours = ours || (result[i], "ours") in word && word[result[i], "ours"] != "skip"
		if (word[result[i], "ours"] == "FAIL")
			wrong[row] = wrong[row] "; " name " fails on ours"
		stock = stock || word[result[i], "stock"] ~ /ok|FAIL/
		fails = fails || word[result[i], "stock"] == "FAIL"
	}
	if (!ours)
		return
	looked[row]++
	if (!stock)
		wrong[row] = wrong[row] "; " name " did not run on stock"
	else if (fails)
		shown[row]++
	else
		passes[row] = passes[row] "; " name " passes on stock"
}

function clause(row, text, part, list, n, i, where)
{
	text = trim(text)
	if (text ~ /^\(/)
		return
	# The one machine, or the setting, where it is shown
	if (match(text, / *\([^()]*\)$/)) {
		where = substr(text, RSTART, RLENGTH)
		gsub(/[ ()]/, "", where)
		if (where != machine && where != "DRIFT=" drift)
			return
		text = substr(text, 1, RSTART - 1)
	}
	if (split(text, part, ": ") == 1) {
		judge(row, text, "-")
		return
	}
	n = split(part[2], list, ", ")
	for (i = 1; i <= n; i++)
		judge(row, "kvmclock_" part[1] "_test", trim(list[i]))
}

FILENAME == ARGV[1] {
	split($0, column, "|")
	if (/^## Stock Linux 7.3/)
		second = 1
	n = split(column[2], names, ",")
	for (i = 1; i <= n; i++) {
		row = trim(names[i])
		if (row !~ /^D[0-9]+$/)
			continue
		if (second) {
			on_7_3[row] = trim(column[3])
		} else {
			rows[++nr_rows] = row
			cases[row] = column[4]
		}
	}
	next
}

{
	id = $1 " " $2
	if (!(id in seen)) {
		seen[id]
		result[++nr] = id
	}
	word[id, FILENAME == ARGV[2] ? "stock" : "ours"] = $3
	if (FILENAME != ARGV[2])
		ran[$1]
}

END {
	for (r = 1; r <= nr_rows; r++) {
		row = rows[r]
		# What is told of 7.3 in parentheses is shown elsewhere.
		if (kernel == "7.3" && on_7_3[row] ~ /^\(/) {
			left = left " " row
			continue
		}
		n = split(cases[row], clauses, ";")
		for (c = 1; c <= n; c++)
			clause(row, clauses[c])
		if (!looked[row]) {
			left = left " " row
			continue
		}
		judged++
		# What 7.3 has of it is told there; half of a defect is one.
		if (kernel == "7.3" && on_7_3[row] ~ /^gone/) {
			if (shown[row])
				wrong[row] = wrong[row] "; said to be gone, but its cases fail on stock"
		} else if (kernel == "7.3" ? !shown[row] : passes[row] != "") {
			wrong[row] = wrong[row] passes[row]
		}
		if (wrong[row]) {
			print row ": " substr(wrong[row], 3)
			bad++
		}
	}
	printf "%d of %d rows of DEFECTS.md judged, %d are not true\n", judged, nr_rows, bad
	if (left)
		print "not run here:" left
	exit bad > 0
}
