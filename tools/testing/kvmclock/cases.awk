# SPDX-License-Identifier: GPL-2.0
#
# What is wrong with the cases of a run, after machine/cases and what checks/cases.awk
# makes of its results: one a line. Wants machine, whether it is one of scaling or else
# stock, kernel, and only: the one CASE=.

function wrong(word, test, name, why)
{
	print test (name ? " " name : "") ": " word (why ? " (" why ")" : "")
}

# The case that CASE= has selected, or all.
function wanted(name)
{
	sub(/.*\./, "", name)
	return !only || name == only
}

FNR == NR {
	if (/^#/ || NF == 0)
		next
	split($2, part, "@")
	if (part[2] && part[2] != kernel)
		next
	listed[$1]
	if (part[1] == "-")
		next
	has_cases[$1]
	due[++nr] = $1 " " part[1]
	if ($3 == machine ":" || $3 == (scaling ? "scaling:" : "stock:")) {
		why = $0
		sub(/^[^:]*: */, "", why)
	} else {
		why = ""
	}
	skips[due[nr]] = why
	next
}

$2 == "-" {
	ran[$1] = $3 == "ok"
	next
}

{
	id = $1 " " $2
	has[id] = $3
	looked[$1]++
	if (!($1 in listed))
		next
	why = $0
	sub(/^[^ ]+ [^ ]+ [^ ]+ */, "", why)
	if (!(id in skips))
		wrong("not in machine/cases", $1, $2)
	else if ($3 == "skip" && why != skips[id])
		wrong("skipped", $1, $2, why)
}

END {
	for (i = 1; i <= nr; i++) {
		split(due[i], part, " ")
		if (ran[part[1]] && !(due[i] in has) && wanted(part[2]))
			wrong("missing", part[1], part[2])
	}
	for (test in ran) {
		if (ran[test] && !looked[test] && (test in has_cases))
			wrong("nothing was looked at", test, only)
		if (test ~ /^(kvmclock_.*_test|lab_case.*)$/ && !(test in listed))
			wrong("not in machine/cases", test)
	}
}
