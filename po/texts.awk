# A gettext catalogue (po) as a C table: a row { "English", "other" } for each text that is translated. awk -f texts.awk fr.po
# msgid and msgstr may go on over several lines; plural forms and contexts are not used here, and are an error.
function row() {
	if (id != "" && text != "" && !fuzzy)
		printf "{ \"%s\", \"%s\" },\n", id, text
	id = text = ""
	fuzzy = 0
}
function quoted(line) {
	sub(/^[^"]*"/, "", line)
	sub(/"[ \t\r]*$/, "", line)
	return line
}
/^#,.*fuzzy/ { row(); next_fuzzy = 1; next }
/^#/ { next }
/^(msgctxt|msgid_plural|msgstr\[)/ { print "texts.awk: line " FNR ": not used here: " $1 > "/dev/stderr"; bad = 1; exit 1 }
/^msgid / { row(); fuzzy = next_fuzzy; next_fuzzy = 0; at = "id"; id = quoted($0); next }
/^msgstr / { at = "text"; text = quoted($0); next }
/^"/ { if (at == "id") id = id quoted($0); else text = text quoted($0) }
END { if (!bad) row() }
