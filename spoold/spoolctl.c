/* spoolctl: what an administrator asks of a running spoold, over its control socket. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "catalogue.h"
#include "log.h"
#include "messages.h"
#include "system.h"

static struct conf conf;
static int control = -1;

static _Noreturn void
die(const char *what)
{
	fprintf(stderr, "spoolctl: %s\n", what);
	exit(1);
}

static void
connect_control(void)
{
	char path[CONF_STRING + 32];

	if (conf_run_path(&conf, "spoold.ctl", path, sizeof path) == 0)
		control = unix_connect(path);
	if (control == -1) {
		fprintf(stderr, "spoolctl: cannot reach spoold at %s/spoold.ctl: %s\n", conf.run_dir, strerror(errno));
		exit(1);
	}
}

static void
command(uint32_t what, const char *argument)
{
	struct message m;

	connect_control();
	message_start(&m, MESSAGE_SPOOL_COMMAND);
	m.body.spool_command.command = what;
	if (!string_copy(m.body.spool_command.argument, sizeof m.body.spool_command.argument, argument))
		die("that is too long");
	if (message_send(control, &m) == -1)
		die(strerror(errno));
}

/* The next message from spoold. */
static void
answer(struct message *m)
{
	int n = message_receive(control, m, SIDE_SPOOLD, SIDE_TOOL);

	if (n == 0)
		die("spoold closed the conversation (only root, or the user that it runs as, may ask)");
	if (n == -1)
		die(strerror(errno));
}

static void
print_session(const struct body_spool_session *s)
{
	time_t since = (time_t)s->since;
	struct tm tm;
	char when[32] = "";

	if (localtime_r(&since, &tm) != NULL)
		strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S%z", &tm);
	printf("session=%s user=%s client=%s uid=%u pid=%u since=%s maildrop=%s\n", s->session, s->user,
	    s->client[0] != '\0' ? s->client : "-", (unsigned)s->uid, (unsigned)s->pid, when, s->path[0] != '\0' ? s->path : "-");
}

static int
on_who(char **argv)
{
	struct message m;

	(void)argv;
	command(SPOOL_WHO, "");
	for (answer(&m); m.header.type == MESSAGE_SPOOL_SESSION; answer(&m))
		print_session(&m.body.spool_session);
	return m.body.spool_finished.error == 0 ? 0 : 1;
}

static int
on_end(char **argv)
{
	struct message m;

	command(SPOOL_END, argv[0]);
	answer(&m);
	if (m.header.type == MESSAGE_SPOOL_FINISHED && m.body.spool_finished.error == 0)
		return 0;
	fprintf(stderr, "spoolctl: no session %s (see spoolctl who)\n", argv[0]);
	return 1;
}

static int
on_recover(char **argv)
{
	struct message m;

	(void)argv;
	command(SPOOL_RECOVER, "");
	answer(&m);
	if (m.header.type != MESSAGE_SPOOL_FINISHED)
		die("spoold answered something else");
	uint32_t count = m.body.spool_finished.count;
	if (count == 0)
		printf("no journals are left: nothing to recover\n");
	else if (m.body.spool_finished.error == 0)
		printf("%u journals: all finished\n", (unsigned)count);
	else
		printf("%u journals: not all could be finished; spoold's log says why\n", (unsigned)count);
	return m.body.spool_finished.error == 0 ? 0 : 1;
}

static const char *
why(uint32_t failure)
{
	static const char *const reasons[FAILURE_COUNT] = {
		[FAILURE_TEMPORARY] = "it cannot be opened now", [FAILURE_PERMISSION] = "its owner may not read it",
		[FAILURE_KIND] = "it is neither an mbox nor a Maildir", [FAILURE_USER] = "no such user, or a user who may have no maildrop here",
		[FAILURE_FULL] = "the disk is full", [FAILURE_CHANGED] = "it was changed", [FAILURE_VANISHED] = "it has gone",
		[FAILURE_TAKEN] = "a newer login took it over",
	};

	return failure < FAILURE_COUNT ? reasons[failure] : "?";
}

/* Opens a user's maildrop as pop3d would. The session ends when *session is closed, and changes nothing. */
static void
open_maildrop(uint32_t what, const char *user, struct catalogue *c, int *session)
{
	struct message m;

	command(what, user);
	answer(&m);
	if (m.header.type != MESSAGE_SPOOL_CHANNEL)
		die("spoold cannot start a session now");
	*session = m.fds[0];
	if (message_receive(*session, &m, SIDE_WORKER, SIDE_POP3D) != 1)
		die("the session ended at once: spoold's log says why");
	if (m.header.type == MESSAGE_BUSY)
		die("the maildrop is in use: try again when that session is over (spoolctl who)");
	if (m.header.type != MESSAGE_READY) {
		fprintf(stderr, "spoolctl: the maildrop of %s: %s (spoold's log says more)\n", user, why(m.body.failed.failure));
		exit(1);
	}
	if (catalogue_map(c, m.fds[0]) == -1)
		die("the catalogue is damaged");
}

static void
close_maildrop(int session)
{
	struct message m;

	message_start(&m, MESSAGE_RELEASE);
	if (message_send(session, &m) == 0)
		(void)message_receive(session, &m, SIDE_WORKER, SIDE_POP3D);
	close(session);
}

static int
on_rebuild(char **argv)
{
	struct catalogue c;
	int session;

	open_maildrop(SPOOL_REBUILD, argv[0], &c, &session);
	printf("%s: %u messages, %llu octets\n", argv[0], (unsigned)c.header->count, (unsigned long long)c.header->octets);
	close_maildrop(session);
	return 0;
}

/* One of a saved list; cut off if it is longer than any of ours can be. */
struct id {
	char text[UID_MAX + 2];
};

static int
compare_ids(const void *a, const void *b)
{
	const struct id *x = a, *y = b;

	return strcmp(x->text, y->text);
}

/* The unique-ids of a saved list: a line each, alone or after a number, as UIDL prints them. */
static struct id *
read_ids(const char *path, size_t *count)
{
	FILE *f = fopen(path, "re");
	struct id *ids = NULL, *more;
	char line[512];
	size_t room = 0;

	if (f == NULL) {
		fprintf(stderr, "spoolctl: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	for (*count = 0; fgets(line, sizeof line, f) != NULL;) {
		char *save = NULL, *first = strtok_r(line, " \t\r\n", &save), *id = strtok_r(NULL, " \t\r\n", &save);
		if (first == NULL || strcmp(first, ".") == 0 || first[0] == '+')
			continue;
		if (*count == room) {
			room = room > 0 ? 2 * room : 1024;
			if ((more = reallocarray(ids, room, sizeof *ids)) == NULL)
				die("out of memory");
			ids = more;
		}
		(void)string_copy(ids[(*count)++].text, sizeof ids->text, id != NULL ? id : first);
	}
	fclose(f);
	if (ids != NULL)
		qsort(ids, *count, sizeof *ids, compare_ids);
	return ids;
}

static int
on_uidl_diff(char **argv)
{
	struct catalogue c;
	size_t count, stay = 0;
	struct id *ids = read_ids(argv[1], &count), key;
	int session;

	open_maildrop(SPOOL_OPEN, argv[0], &c, &session);
	for (uint32_t i = 0; i < c.header->count; i++) {
		memcpy(key.text, c.uids + c.rows[i].uid, c.rows[i].uid_length);
		key.text[c.rows[i].uid_length] = '\0';
		if (ids != NULL && bsearch(&key, ids, count, sizeof *ids, compare_ids) != NULL)
			stay++;
		else
			printf("new %u %s\n", (unsigned)i + 1, key.text);
	}
	printf("%zu of %u stay (%zu in %s)\n", stay, (unsigned)c.header->count, count, argv[1]);
	free(ids);
	close_maildrop(session);
	return stay == c.header->count ? 0 : 1;
}

static const struct {
	const char *name, *arguments;
	int count;
	int (*on)(char **argv);
} commands[] = {
	{ "who", "", 0, on_who },
	{ "end", "SESSION", 1, on_end },
	{ "rebuild", "USER", 1, on_rebuild },
	{ "recover", "", 0, on_recover },
	{ "uidl-diff", "USER FILE", 2, on_uidl_diff },
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static _Noreturn void
usage(const char *wrong)
{
	fprintf(stderr, "spoolctl: %s; accepted:\n", wrong);
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(stderr, "\tspoolctl [-c FILE] %s%s%s\n", commands[i].name, commands[i].arguments[0] != '\0' ? " " : "",
		    commands[i].arguments);
	exit(2);
}

int
main(int argc, char **argv)
{
	struct options options;
	char wrong[128];

	descriptors_sane();
	log_start("spoolctl");
	options_parse(argc, argv, "spoolctl [-tVh] [-c FILE] who | end SESSION | rebuild USER | recover | uidl-diff USER FILE", "", NULL,
	    &options, &conf);
	argc -= optind;
	argv += optind;
	if (argc == 0)
		usage("no command");
	for (size_t i = 0; i < COMMANDS; i++) {
		if (strcmp(commands[i].name, argv[0]) != 0)
			continue;
		if (argc - 1 != commands[i].count) {
			snprintf(wrong, sizeof wrong, "%s: wrong number of arguments", argv[0]);
			usage(wrong);
		}
		return commands[i].on(argv + 1);
	}
	snprintf(wrong, sizeof wrong, "%.60s: no such command", argv[0]);
	usage(wrong);
}
