# SPDX-License-Identifier: GPL-2.0-or-later
# The output of xfstests' check as lines "test, status, seconds, reason" with tabs
# between. Set by scripts/xfstests: timeouts, deaths and known, files with a test
# and a text on each line; work, a folder whose name is left out of reasons.

function load(file, table,    line, test) {
	while ((getline line < file) > 0) {
		test = line
		sub(/ .*/, "", test)
		sub(/^[^ ]* /, "", line)
		table[test] = line
	}
	close(file)
}

function add(text) {
	reason = reason (reason == "" ? "" : "; ") text
}

function finish(    status, t) {
	if (test == "")
		return
	status = "pass"
	reason = ""
	if (match(first, /\[not run\] */)) {
		status = "notrun"
		reason = substr(first, RSTART + RLENGTH)
	} else if (first ~ /\[expunged\]/) {
		status = "excluded"
		t = why[test]
		sub(/^[^ ]* /, "", t)
		reason = t
	} else {
		if (match(first, /exit status [0-9]+/))
			add(substr(first, RSTART, RLENGTH))
		if (text ~ /is inconsistent/)
			add("e2fsck finds the volume inconsistent")
		if (text ~ /output mismatch/)
			add("output differs" (lines == "" ? "" : ":" lines))
		if (text ~ /\[dumped core\]/)
			add("core dump")
		if (text ~ /no qualified output/)
			add("no output to compare with")
		if (test in died)
			add(died[test])
		if (reason != "")
			status = "fail"
		else if (first !~ /[0-9]+s *$/) {
			status = "fail"
			add("no result")
		}
		if (test in late) {
			status = "timeout"
			reason = late[test] (reason == "" ? "" : "; ") reason
		}
	}
	seconds = ""
	if (match(first, /[0-9]+s *$/)) {
		seconds = substr(first, RSTART, RLENGTH)
		sub(/s *$/, "", seconds)
	}
	gsub(work "/tests/", "", reason)
	gsub(work "/mnt", "", reason)
	gsub(work "/", "", reason)
	gsub(/\/dev\/loop[0-9]+/, "DEVICE", reason)
	gsub(/[\t ]+/, " ", reason)
	printf "%s\t%s\t%s\t%s\n", test, status, seconds, reason
}

BEGIN {
	load(timeouts, late)
	load(deaths, died)
	load(known, why)
}

/^(generic|ext4)\/[0-9]+/ {
	finish()
	test = $1
	first = text = substr($0, length(test) + 1)
	lines = ""
	count = 0
	next
}

/^(Ran:|Not run:|Failures:|Failed |Passed all|Interrupted)/ {
	finish()
	test = ""
}

test != "" {
	text = text "\n" $0
	if ($0 ~ /^ +[-+][^-+]/ && count++ < 4)
		lines = lines " " substr($0, match($0, /[-+]/), 90)
}

END {
	finish()
}
