#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "print.h"
#include "system.h"

size_t
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

bool
utf8_sound(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t n;

	while (*p != '\0') {
		n = utf8_length(p);
		if (n == 0)
			return false;
		p += n;
	}
	return true;
}

static void __attribute__((format(printf, 1, 0)))
vcomplain(const char *format, va_list ap)
{
	fprintf(stderr, "%s: ", program_invocation_short_name);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
}

int
complain(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vcomplain(format, ap);
	va_end(ap);
	return 1;
}

void
die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vcomplain(format, ap);
	va_end(ap);
	exit(1);
}

/* The first time it fails it says so; the error stays with the stream. */
int
print_flush(void)
{
	static bool told;

	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	if (!told)
		complain("cannot write to the standard output: %s", errno != 0 ? strerror(errno) : "an error before");
	told = true;
	return 1;
}

/* For atexit(3): usage and version are printed elsewhere, and not every end is a return from main. */
static void
print_end(void)
{
	if (print_flush() != 0)
		_exit(1);
}

void
print_start(void)
{
	bool closed = fcntl(STDOUT_FILENO, F_GETFD) == -1;

	descriptors_sane();
	int fd = closed ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
	if (fd != -1)
		dup2(fd, STDOUT_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) == -1)
			die("descriptor %d is closed, and there is no /dev/null to put in its place", fd);
	if (atexit(print_end) != 0)
		die("not enough memory");
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
		fputs(j->depth == 1 && key == NULL ? ",\n" : ", ", j->file);
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
	j->depth++;
	j->more = false;
}

void
json_close(struct json *j, char bracket)
{
	fputc(bracket, j->file);
	j->depth--;
	j->more = true;
}

void
json_string(struct json *j, const char *key, const char *value)
{
	json_key(j, key);
	if (value != NULL)
		json_text(j->file, value);
	else
		fputs("null", j->file);
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
	json_string(j, key, NULL);
}

void
json_end(struct json *j)
{
	fputc('\n', j->file);
	j->more = false;
}
