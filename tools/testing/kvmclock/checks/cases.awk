# SPDX-License-Identifier: GPL-2.0
#
# The results of a ktap.log, one a line: test, case, and ok, FAIL or skip. The
# case "-" is the test as a whole; it comes before its cases.

/^ *(not )?ok / {
	word = /^ *not / ? "FAIL" : / # SKIP/ ? "skip" : "ok"
	name = word == "FAIL" ? $4 : $3
}

/^  (not )?ok / {
	nested[++n] = name " " word
	next
}

/^(not )?ok / {
	print name, "-", word
	for (i = 1; i <= n; i++)
		print name, nested[i]
	n = 0
}
