/* spoolctl who, end: the sessions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "spoolctl.h"

#define REFRESH_S 2

static void
print_session(const struct body_spool_session *s)
{
	char when[TIME_SIZE];

	printf("session=%s user=", s->session);
	print_safe(stdout, s->user);
	printf(" client=%s uid=%u pid=%u since=%s maildrop=", s->client[0] != '\0' ? s->client : "-", (unsigned)s->uid, (unsigned)s->pid,
	    print_time(s->since, when, sizeof when));
	print_safe(stdout, s->path[0] != '\0' ? s->path : "-");
	putchar('\n');
}

static void
print_sessions(const struct body_spool_session *list, size_t count, bool json)
{
	struct json j = { .file = stdout };

	if (json)
		json_open(&j, NULL, '[');
	for (size_t i = 0; i < count; i++)
		if (json)
			json_session(&j, NULL, &list[i]);
		else
			print_session(&list[i]);
	if (json) {
		json_close(&j, ']');
		json_end(&j);
	}
}

/* Before each refresh: on a terminal the screen is its own; elsewhere an empty line is between two. */
static void
print_head(size_t count, bool first, bool json)
{
	char when[TIME_SIZE];

	if (isatty(STDOUT_FILENO))
		printf("\033[H\033[2J%s  %zu sessions\n", print_time((int64_t)time(NULL), when, sizeof when), count);
	else if (!first && !json)
		putchar('\n');
}

int
command_who(const struct conf *c, const struct arguments *a)
{
	const struct timespec pause = { .tv_sec = REFRESH_S };
	size_t count;

	for (bool first = true;; first = false) {
		struct body_spool_session *list = talk_sessions(c, &count);
		if (list == NULL && errno == EACCES)
			die("spoold closed the conversation (only root, or the user that it runs as, may ask)");
		if (list == NULL)
			die("cannot reach spoold at %s/spoold.ctl: %s", c->run_dir, strerror(errno));
		if (a->watch)
			print_head(count, first, a->json);
		print_sessions(list, count, a->json);
		free(list);
		if (print_flush() != 0)
			return 1;
		if (!a->watch)
			return 0;
		nanosleep(&pause, NULL);
	}
}

int
command_end(const struct conf *c, const struct arguments *a)
{
	struct message m;
	int control = talk_ask(c, SPOOL_END, a->word[0]);

	talk_answer(control, &m);
	close(control);
	if (m.header.type == MESSAGE_SPOOL_FINISHED && m.body.spool_finished.error == 0)
		return 0;
	return complain("no session %s (see spoolctl who)", a->word[0]);
}
