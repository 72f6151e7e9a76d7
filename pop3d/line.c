/* Lines from the client, out of one buffer. */
#include "line.h"

#include <sodium.h>
#include <string.h>
#include <strings.h>

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* How long the line that starts here may be, its end not included in the SASL limit, included in the other. */
static bool
too_long(const char *line, size_t length, size_t ending, bool sasl)
{
	size_t blanks = 0;

	while (blanks < length && is_blank(line[blanks]))
		blanks++;
	const char *name = line + blanks;
	/* An initial response may make AUTH as long as what answers a challenge. */
	if (sasl || (length - blanks > 4 && strncasecmp(name, "AUTH", 4) == 0 && is_blank(name[4])))
		return length > LINE_SASL;
	return length + ending > LINE_COMMAND;
}

/* Without an end yet: is it already too long, whatever follows? */
static bool
will_be_too_long(const struct lines *l, bool sasl)
{
	const char *begin = l->buffer + l->start;
	size_t length = l->end - l->start;

	length -= length > 0 && begin[length - 1] == '\r';	/* it may be of the end */
	return too_long(begin, length, 1, sasl);
}

static enum line_result
line_take(struct lines *l, char *lf, bool sasl, char **line)
{
	char *begin = l->buffer + l->start;
	size_t length = (size_t)(lf - begin), ending = 1;

	l->start = l->searched = (size_t)(lf + 1 - l->buffer);
	if (l->skipping) {
		l->skipping = false;
		l->skipped = 0;
		return LINE_LONG;
	}
	if (length > 0 && begin[length - 1] == '\r') {
		length--;
		ending = 2;
	}
	if (too_long(begin, length, ending, sasl))
		return LINE_LONG;
	if (memchr(begin, '\0', length) != NULL)
		return LINE_NUL;
	begin[length] = '\0';
	*line = begin;
	return LINE_OK;
}

enum line_result
line_next(struct lines *l, bool sasl, char **line)
{
	char *lf = memchr(l->buffer + l->searched, '\n', l->end - l->searched);

	if (lf != NULL)
		return line_take(l, lf, sasl, line);
	l->searched = l->end;
	if (l->skipping || will_be_too_long(l, sasl)) {
		l->skipping = true;
		l->skipped += l->end - l->start;
		l->start = l->end;	/* all of it is of a line that nobody wants */
	}
	return LINE_MORE;
}

char *
line_room(struct lines *l, size_t *size)
{
	size_t left = l->end - l->start;

	if (left == 0)
		l->start = l->end = l->searched = 0;
	else if (l->start > 0) {
		memmove(l->buffer, l->buffer + l->start, left);
		/* the start of a password must not stay behind where it first arrived */
		sodium_memzero(l->buffer + left, l->end - left);
		l->searched -= l->start;
		l->end = left;
		l->start = 0;
	}
	*size = sizeof l->buffer - l->end;
	return l->buffer + l->end;
}

void
line_added(struct lines *l, size_t count)
{
	l->end += count;
}

void
line_wipe(struct lines *l)
{
	sodium_memzero(l->buffer, l->start);
}

bool
line_pending(const struct lines *l)
{
	return l->start < l->end || l->skipping;
}
