/* How spoolctl prints: times, sessions, progress. */
#include <time.h>
#include <unistd.h>

#include "spoolctl.h"

const char *
print_time(int64_t when, char *text, size_t size)
{
	time_t t = (time_t)when;
	struct tm tm;

	if (when == 0 || localtime_r(&t, &tm) == NULL || strftime(text, size, "%Y-%m-%dT%H:%M:%S%z", &tm) == 0)
		return "-";
	return text;
}

void
json_time(struct json *j, const char *key, int64_t when)
{
	char text[TIME_SIZE];

	json_string(j, key, when == 0 ? NULL : print_time(when, text, sizeof text));
}

void
json_session(struct json *j, const char *key, const struct body_spool_session *s)
{
	json_open(j, key, '{');
	json_string(j, "session", s->session);
	json_string(j, "user", s->user);
	json_string(j, "client", s->client[0] != '\0' ? s->client : NULL);
	json_number(j, "uid", s->uid);
	json_number(j, "pid", s->pid);
	json_time(j, "since", s->since);
	json_string(j, "maildrop", s->path[0] != '\0' ? s->path : NULL);
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
