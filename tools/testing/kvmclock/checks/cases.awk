# SPDX-License-Identifier: GPL-2.0
#
# The results of a ktap.log, one a line: test, case, ok, FAIL or skip, and the reason
# for a skip. The case "-" is the test as a whole; it comes before its cases.

/^ *(not )?ok / {
	word = /^ *not / ? "FAIL" : / # SKIP/ ? "skip" : "ok"
	name = word == "FAIL" ? $4 : $3
	why = ""
	if (word == "skip" && match($0, / # SKIP ?/))
		why = " " substr($0, RSTART + RLENGTH)
}

/^  (not )?ok / {
	nested[++n] = name " " word why
	next
}

/^(not )?ok / {
	print name, "-", word why
	for (i = 1; i <= n; i++)
		print name, nested[i]
	n = 0
}
