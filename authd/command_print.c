/* How authctl prints times, and how far long work has come. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "authctl.h"

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
