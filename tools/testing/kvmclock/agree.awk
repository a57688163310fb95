# SPDX-License-Identifier: GPL-2.0
#
# Where kvm-clock-check and the tests do not agree about a defect, after DEFECTS.md,
# which names the cases that show it, and what checks/cases.awk makes of a run's
# results: one a line. A defect is there if any of its cases fails.

function trim(text)
{
	gsub(/^[ `]+|[ `]+$/, "", text)
	return text
}

# What is a case's own in its name
function short(name)
{
	sub(/.*\./, "", name)
	return name
}

FNR == NR {
	if (split($0, cell, "|") != 7 || cell[2] !~ /^ D[0-9]+ $/)
		next
	gsub(/\([^)]*\)/, "", cell[4])
	groups = split(cell[4], group, ";")
	for (i = 1; i <= groups; i++) {
		if (split(group[i], part, ":") == 1) {
			shown[trim(group[i]) " -"] = shown[trim(group[i]) " -"] cell[2]
			continue
		}
		names = split(part[2], name, ",")
		for (j = 1; j <= names; j++) {
			id = "kvmclock_" trim(part[1]) "_test " short(trim(name[j]))
			shown[id] = shown[id] cell[2]
		}
	}
	next
}

$2 ~ /^D[0-9]+$/ {
	says[$2] = $3
	next
}

{
	id = $1 " " $2
	n = split(shown[$1 " " short($2)], defect, " ")
	for (i = 1; i <= n; i++) {
		if ($3 == "FAIL")
			failed[defect[i]] = failed[defect[i]] ", " id
		else if ($3 == "ok")
			passed[defect[i]] = passed[defect[i]] ", " id
	}
}

END {
	for (d in says) {
		if (says[d] == "FAIL" && !failed[d] && passed[d])
			print d ": found by kvm-clock-check; passed: " substr(passed[d], 3)
		if (says[d] == "ok" && failed[d])
			print d ": not found by kvm-clock-check; failed: " substr(failed[d], 3)
	}
}
