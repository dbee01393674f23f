# SPDX-License-Identifier: GPL-2.0-or-later
# results.tsv as text to read: counts, what does not pass, and a comparison with a
# file of the same kind from the kernel's ext4. Set by scripts/xfstests: known,
# reference, seconds, size, preload. Lines that begin with NEW are tests that should pass, or
# have a reason in tests/xfstests.exclude, and do not.

function names(word, table,    i, line) {
	for (i = 1; i <= n; i++)
		if (table[order[i]] == word)
			line = line " " order[i]
	return line
}

BEGIN {
	while ((getline line < known) > 0) {
		split(line, part, " ")
		kind[part[1]] = part[2]
	}
	FS = "\t"
	while (reference != "" && (getline line < reference) > 0) {
		split(line, part, "\t")
		theirs[part[1]] = part[2]
	}
}

{
	order[++n] = $1
	status[$1] = $2
	why[$1] = $4
	counts[$2]++
}

END {
	if (preload != "")
		print "With libsluice-preload.so in the tests' programs:"
	printf "%s blocks, %d tests in %d s: %d passed, %d failed, %d took too long, %d cannot run, %d excluded\n",
		size, n, seconds, counts["pass"], counts["fail"], counts["timeout"],
		counts["notrun"], counts["excluded"]
	for (i = 1; i <= n; i++) {
		t = order[i]
		if (status[t] == "notrun")
			not_run[why[t]] = not_run[why[t]] " " t
		if (status[t] != "fail" && status[t] != "timeout")
			continue
		word = t in kind ? "known, " kind[t] : "NEW"
		if (reference != "" && theirs[t] != "pass")
			word = "with the kernel's ext4: " (t in theirs ? theirs[t] : "?")
		printf "%s: %s %s: %s\n", word, t, status[t], why[t]
	}
	print ""
	print "Cannot run:"
	for (w in not_run)
		printf "  %s:%s\n", w, not_run[w]
	if (reference == "")
		exit
	print ""
	for (i = 1; i <= n; i++) {
		t = order[i]
		if (theirs[t] != "pass")
			continue
		both++
		if (status[t] == "pass")
			ours++
		else
			bad[t in kind ? kind[t] : "NEW"] = bad[t in kind ? kind[t] : "NEW"] " " t
	}
	printf "Of %d tests that pass on the kernel's ext4, %d pass (%.1f %%).\n",
		both, ours, both ? 100 * ours / both : 0
	for (w in bad)
		printf "  %s:%s\n", w, bad[w]
}
