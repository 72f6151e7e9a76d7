/* How authctl prints: JSON, a value at a time, and how far long work has come. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "authctl.h"

/* How many octets the UTF-8 character at `p` has; 0: it is none (RFC 3629). */
static size_t
utf8_length(const unsigned char *p)
{
	size_t n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : *p >> 4 == 14 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < n; i++)
		if (p[i] >> 6 != 2)
			return 0;
	bool longer = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
	bool none = (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf4 && p[1] > 0x8f);
	return longer || none ? 0 : n;
}

/* An octet that is not UTF-8 becomes a lone surrogate, from which Python and others get it back. */
static void
put_text(const char *text)
{
	putchar('"');
	for (const unsigned char *p = (const unsigned char *)text; *p != '\0';) {
		size_t n = utf8_length(p);
		if (n == 0)
			printf("\\udc%02x", *p++);
		else if (*p < 0x20 || *p == 0x7f || *p == '"' || *p == '\\')
			printf("\\u%04x", *p++);
		else {
			fwrite(p, 1, n, stdout);
			p += n;
		}
	}
	putchar('"');
}

void
json_row(struct json *j)
{
	fputs(j->rows++ == 0 ? "[\n" : ",\n", stdout);
	j->values = 0;
}

void
json_end(const struct json *j)
{
	puts(j->rows == 0 ? "[]" : "\n]");
}

static void
put_key(struct json *j, const char *key)
{
	fputs(j->values++ == 0 ? "{" : ", ", stdout);
	put_text(key);
	fputs(": ", stdout);
}

void
json_done(const struct json *j)
{
	(void)j;
	putchar('}');
}

void
json_string(struct json *j, const char *key, const char *value)
{
	put_key(j, key);
	if (value != NULL)
		put_text(value);
	else
		fputs("null", stdout);
}

void
json_alone(const char *value)
{
	put_text(value);
}

void
json_number(struct json *j, const char *key, int64_t value)
{
	put_key(j, key);
	printf("%lld", (long long)value);
}

void
json_bool(struct json *j, const char *key, bool value)
{
	put_key(j, key);
	fputs(value ? "true" : "false", stdout);
}

const char *
time_text(char text[static TIME_TEXT], int64_t when)
{
	time_t t = (time_t)when;
	struct tm tm;

	if (when == 0 || gmtime_r(&t, &tm) == NULL || strftime(text, TIME_TEXT, "%Y-%m-%dT%H:%MZ", &tm) == 0)
		return NULL;
	return text;
}

void
json_time(struct json *j, const char *key, int64_t when)
{
	char text[TIME_TEXT];

	json_string(j, key, time_text(text, when));
}

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void
progress_show(struct progress *p, unsigned long done, int64_t octets, int64_t of)
{
	if (p->shown == -1)
		return;
	int64_t now = now_ms();
	if (p->shown == 0 && !isatty(STDERR_FILENO)) {
		p->shown = -1;
		return;
	}
	if (p->shown != 0 && now - p->shown < 200)
		return;
	p->shown = now;
	if (of > 0)
		fprintf(stderr, "\r%lu lines, %d %%", done, (int)(octets * 100 / of));
	else
		fprintf(stderr, "\r%lu lines", done);
	fflush(stderr);
}

void
progress_say(const struct progress *p, const char *what)
{
	if (p->shown > 0)
		fprintf(stderr, "\r\033[K%s", what);
}
