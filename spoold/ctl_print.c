/* How spoolctl prints: text that is safe on a terminal, JSON, progress. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "spoolctl.h"

int
complain(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("spoolctl: ", stderr);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
	va_end(ap);
	return 1;
}

void
die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("spoolctl: ", stderr);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

/* How many octets the UTF-8 character at `p` has; 0: it is none. */
static size_t
utf8_length(const unsigned char *p)
{
	size_t n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* no surrogate, nothing that is shorter otherwise, nothing beyond the last one */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

void
print_safe(FILE *f, const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p != '\0';) {
		size_t n = utf8_length(p);
		/* C1 controls, too */
		if (n == 0 || *p < 0x20 || *p == 0x7f || *p == '\\' || (n == 2 && p[0] == 0xc2 && p[1] < 0xa0)) {
			fprintf(f, "\\x%02x", *p);
			p++;
		} else {
			fwrite(p, 1, n, f);
			p += n;
		}
	}
}

const char *
print_time(int64_t when, char *text, size_t size)
{
	time_t t = (time_t)when;
	struct tm tm;

	if (when == 0 || localtime_r(&t, &tm) == NULL || strftime(text, size, "%Y-%m-%dT%H:%M:%S%z", &tm) == 0)
		return "-";
	return text;
}

/* An octet that is not UTF-8 becomes the lone surrogate by which Python and others give it back: U+DC80 to U+DCFF. */
static void
json_text(FILE *f, const char *text)
{
	fputc('"', f);
	for (const unsigned char *p = (const unsigned char *)text; *p != '\0';) {
		size_t n = utf8_length(p);
		if (n == 0)
			fprintf(f, "\\udc%02x", *p++);
		else if (*p < 0x20 || *p == 0x7f || *p == '"' || *p == '\\')
			fprintf(f, "\\u%04x", *p++);
		else {
			fwrite(p, 1, n, f);
			p += n;
		}
	}
	fputc('"', f);
}

static void
json_key(struct json *j, const char *key)
{
	if (j->more)
		fputs(", ", j->file);
	j->more = true;
	if (key != NULL) {
		json_text(j->file, key);
		fputs(": ", j->file);
	}
}

void
json_open(struct json *j, const char *key, char bracket)
{
	json_key(j, key);
	fputc(bracket, j->file);
	j->more = false;
}

void
json_close(struct json *j, char bracket)
{
	fputc(bracket, j->file);
	j->more = true;
}

void
json_string(struct json *j, const char *key, const char *value)
{
	json_key(j, key);
	json_text(j->file, value);
}

void
json_number(struct json *j, const char *key, int64_t value)
{
	json_key(j, key);
	fprintf(j->file, "%lld", (long long)value);
}

void
json_bool(struct json *j, const char *key, bool value)
{
	json_key(j, key);
	fputs(value ? "true" : "false", j->file);
}

void
json_null(struct json *j, const char *key)
{
	json_key(j, key);
	fputs("null", j->file);
}

void
json_time(struct json *j, const char *key, int64_t when)
{
	char text[TIME_SIZE];

	if (when == 0)
		json_null(j, key);
	else
		json_string(j, key, print_time(when, text, sizeof text));
}

void
json_end(struct json *j)
{
	fputc('\n', j->file);
	j->more = false;
}

void
json_session(struct json *j, const char *key, const struct body_spool_session *s)
{
	json_open(j, key, '{');
	json_string(j, "session", s->session);
	json_string(j, "user", s->user);
	if (s->client[0] != '\0')
		json_string(j, "client", s->client);
	else
		json_null(j, "client");
	json_number(j, "uid", s->uid);
	json_number(j, "pid", s->pid);
	json_time(j, "since", s->since);
	if (s->path[0] != '\0')
		json_string(j, "maildrop", s->path);
	else
		json_null(j, "maildrop");
	json_close(j, '}');
}

void
progress_show(const char *what, uint32_t done, uint32_t total)
{
	if (!isatty(STDERR_FILENO))
		return;
	if (done >= total)
		fputs("\r\033[K", stderr);
	else
		fprintf(stderr, "\r\033[K%s: %u of %u", what, (unsigned)done, (unsigned)total);
	fflush(stderr);
}
