/* Replies, gathered into as few writes as they need. */
#include "output.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define STAYS (32 * 1024)	/* of the buffer, whatever happens */
#define PAGE 4096
#define REPLY_MAX 512	/* RFC 2449 section 4: a response line is at most 512 octets, its end included */

void
output_drop(struct output *o)
{
	if (o->touched < o->used)
		o->touched = o->used;
	o->used = 0;
	o->ahead = false;
}

bool
output_flush(struct output *o)
{
	size_t used = o->used;

	output_drop(o);
	return used == 0 ? o->stream->failed == NULL : stream_write(o->stream, o->buffer, used, false);
}

void
output_begin(struct output *o)
{
	size_t rest = o->used % OUTPUT_RECORD, whole = o->used - rest;

	output_drop(o);
	if (whole > 0 && stream_write(o->stream, o->buffer, whole, true))
		memmove(o->buffer, o->buffer + whole, rest);
	o->used = rest;
}

void
output_ahead(struct output *o)
{
	o->kept = 0;
	o->ahead = true;
}

void
output_keep(struct output *o)
{
	o->kept = o->used;
	output_drop(o);
}

bool
output_kept(struct output *o)
{
	if (o->kept == 0)
		return false;
	o->used = o->kept;
	o->kept = 0;
	o->ahead = true;
	return true;
}

bool
output_is_large(const struct output *o)
{
	return o->touched > STAYS + PAGE;
}

void
output_give_back(struct output *o)
{
	char *from = o->buffer + STAYS + (PAGE - (uintptr_t)(o->buffer + STAYS) % PAGE) % PAGE;

	(void)madvise(from, o->touched - (size_t)(from - o->buffer), MADV_DONTNEED);
	o->kept = o->touched = 0;
}

size_t
output_left(const struct output *o)
{
	size_t most = o->ahead ? OUTPUT_AHEAD : OUTPUT_SIZE;

	return o->used < most ? most - o->used : 0;
}

char *
output_room(struct output *o, size_t room)
{
	o->kept = 0;
	if (output_left(o) < room)
		output_begin(o);
	return o->buffer + o->used;
}

void
output_put(struct output *o, size_t count)
{
	o->used += count;
}

/* As much of it as there is room for. Returns how much is used then. */
static size_t
put_text(char *at, size_t used, const char *text)
{
	size_t n = strnlen(text, REPLY_MAX - used - 3);

	memcpy(at + used, text, n);
	return used + n;
}

static void __attribute__((format(printf, 3, 0)))
put_reply(struct output *o, const char *status, const char *format, va_list ap)
{
	char *at = output_room(o, REPLY_MAX);
	size_t used = strlen(status);

	memcpy(at, status, used);
	if (o->language != LANGUAGE_ENGLISH) {
		format = language_text(o->language, format);
		if (format[0] == '%' && format[1] == 's') {
			used = put_text(at, used, language_text(o->language, va_arg(ap, const char *)));
			format += 2;
		}
	}
	if (strchr(format, '%') == NULL)
		used = put_text(at, used, format);
	else {
		int n = vsnprintf(at + used, REPLY_MAX - used - 2, format, ap);
		used += n < 0 ? 0 : (size_t)n < REPLY_MAX - used - 2 ? (size_t)n : REPLY_MAX - used - 3;
	}
	memcpy(at + used, "\r\n", 2);
	output_put(o, used + 2);
}

void
output_ok(struct output *o, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	put_reply(o, "+OK ", format, ap);
	va_end(ap);
}

void
output_err(struct output *o, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	put_reply(o, "-ERR ", format, ap);
	va_end(ap);
}

void
output_line(struct output *o, const char *line)
{
	size_t n = strlen(line);
	char *at = output_room(o, n + 2);

	memcpy(at, line, n);
	memcpy(at + n, "\r\n", 2);
	output_put(o, n + 2);
}

static char *
put_number(char *at, uint64_t n)
{
	char digits[20];
	size_t i = sizeof digits;

	do
		digits[--i] = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	memcpy(at, digits + i, sizeof digits - i);
	return at + sizeof digits - i;
}

void
output_number_text(struct output *o, uint64_t a, const char *text, size_t length)
{
	char *start = output_room(o, 32 + length), *at = put_number(start, a);

	*at++ = ' ';
	memcpy(at, text, length);
	at += length;
	memcpy(at, "\r\n", 2);
	output_put(o, (size_t)(at + 2 - start));
}

void
output_number_number(struct output *o, uint64_t a, uint64_t b)
{
	char text[20], *end = put_number(text, b);

	output_number_text(o, a, text, (size_t)(end - text));
}
