/* LANG and UTF8 (RFC 6856). */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "session.h"

static enum event
list_languages(struct session *s)
{
	output_ok(&s->output, "the languages:");
	for (int l = 0; l < LANGUAGE_COUNT; l++) {
		char line[64];
		snprintf(line, sizeof line, "%s %s", language_tag((enum language)l), language_name((enum language)l));
		output_line(&s->output, line);
	}
	output_line(&s->output, ".");
	return EVENT_DONE;
}

enum event
on_lang(struct session *s, char *argument)
{
	enum language l;

	if (*argument == '\0')
		return list_languages(s);
	l = strcmp(argument, "*") == 0 ? (enum language)s->conf->language : language_find(argument);
	if (l == LANGUAGE_COUNT) {
		output_err(&s->output, "no such language here: LANG lists them");
		return EVENT_REFUSED;
	}
	s->output.language = l;
	output_ok(&s->output, l == LANGUAGE_ENGLISH ? "en this is what you will read" : "fr this is what you will read");
	return EVENT_DONE;
}

/* Only in AUTHORIZATION, and after STLS if that is wanted (section 2.1). */
enum event
on_utf8(struct session *s, char *argument)
{
	(void)argument;
	s->utf8 = true;
	output_ok(&s->output, "UTF-8 from now on");
	return EVENT_DONE;
}

bool
header_needs_utf8(int fd, off_t offset, uint64_t length)
{
	unsigned char buffer[4096];
	unsigned char last = '\n';	/* an empty line is at once the end */
	bool lf = true;

	for (uint64_t done = 0; done < length;) {
		size_t want = length - done < sizeof buffer ? (size_t)(length - done) : sizeof buffer;
		ssize_t n = pread(fd, buffer, want, offset + (off_t)done);
		if (n <= 0)
			return false;
		for (ssize_t i = 0; i < n; i++) {
			if (buffer[i] >= 0x80)
				return true;
			if (buffer[i] == '\n' && lf)
				return false;
			lf = buffer[i] == '\n' || (buffer[i] == '\r' && last == '\n');
			last = buffer[i];
		}
		done += (uint64_t)n;
	}
	return false;
}
