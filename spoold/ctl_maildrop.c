/* spoolctl rebuild, recover, expire, uidl-diff: what is done with a maildrop, by a session like any other. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "spoolctl.h"
#include "system.h"

int
command_recover(const struct conf *c, const struct arguments *a)
{
	struct message m;
	int control = talk_ask(c, SPOOL_RECOVER, "");

	(void)a;
	for (talk_answer(control, &m); m.header.type == MESSAGE_SPOOL_PROGRESS; talk_answer(control, &m))
		progress_show("journals", m.body.spool_progress.done, m.body.spool_progress.total);
	close(control);
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

/* A user's maildrop, opened as pop3d would. The session ends with close_maildrop, and changes no mail. 0, or -1, said. */
static int
open_maildrop(const struct conf *c, uint32_t what, const char *user, struct catalogue *catalogue, int *session)
{
	struct message m;
	int control = talk_ask(c, what, user);

	talk_answer(control, &m);
	close(control);
	*session = -1;
	if (m.header.type != MESSAGE_SPOOL_CHANNEL) {
		complain("spoold cannot start a session now");
		return -1;
	}
	*session = m.fds[0];
	if (message_receive(*session, &m, SIDE_WORKER, SIDE_POP3D) != 1)
		complain("the session ended at once: spoold's log says why");
	else if (m.header.type == MESSAGE_BUSY)
		complain("the maildrop of %s is in use: try again when that session is over (spoolctl who)", user);
	else if (m.header.type != MESSAGE_READY)
		complain("the maildrop of %s: %s (spoold's log says more)", user, failure_text(m.body.failed.failure));
	else if (catalogue_map(catalogue, m.fds[0]) == -1)
		complain("the catalogue is damaged");
	else {
		message_clear(&m);
		return 0;
	}
	message_clear(&m);
	close(*session);
	return -1;
}

static void
close_maildrop(int session, struct catalogue *catalogue)
{
	struct message m;

	message_start(&m, MESSAGE_RELEASE);
	if (message_send(session, &m) == 0)
		(void)message_receive(session, &m, SIDE_WORKER, SIDE_POP3D);
	close(session);
	catalogue_unmap(catalogue);
}

int
command_rebuild(const struct conf *c, const struct arguments *a)
{
	struct catalogue catalogue;
	int session, result = 0;

	for (int i = 0; i < a->words; i++) {
		progress_show("maildrops", (uint32_t)i, (uint32_t)a->words);
		if (open_maildrop(c, SPOOL_REBUILD, a->word[i], &catalogue, &session) == -1) {
			result = 1;
			continue;
		}
		progress_show("", 1, 1);
		print_safe(stdout, a->word[i]);
		printf(": %u messages, %llu octets\n", (unsigned)catalogue.header->count, (unsigned long long)catalogue.header->octets);
		close_maildrop(session, &catalogue);
	}
	return result;
}

/* The session removes what is too old when it is given back. */
int
command_expire(const struct conf *c, const struct arguments *a)
{
	struct catalogue catalogue;
	struct message m;
	int session, result = 0;

	if (c->expire == 0)
		return complain("[spoold] expire is 0 in %s: nothing expires", c->file);
	for (int i = 0; i < a->words; i++) {
		progress_show("maildrops", (uint32_t)i, (uint32_t)a->words);
		if (open_maildrop(c, SPOOL_EXPIRE, a->word[i], &catalogue, &session) == -1) {
			result = 1;
			continue;
		}
		uint32_t before = catalogue.header->count;
		message_start(&m, MESSAGE_RELEASE);
		if (message_send(session, &m) == 0 && message_receive(session, &m, SIDE_WORKER, SIDE_POP3D) == 1 &&
		    m.header.type == MESSAGE_UPDATED && m.body.updated.left <= before) {
			progress_show("", 1, 1);
			print_safe(stdout, a->word[i]);
			printf(": %u expired, %u left\n", (unsigned)(before - m.body.updated.left), (unsigned)m.body.updated.left);
		} else
			result = complain("the session of %s ended: spoold's log says why", a->word[i]);
		close(session);
		catalogue_unmap(&catalogue);
	}
	return result;
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

	if (f == NULL)
		die("%s: %s", path, strerror(errno));
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

/* Prints those that are not in the list. Returns how many are. */
static uint32_t
compare_lists(const struct catalogue *c, const struct id *ids, size_t count, struct json *j)
{
	uint32_t stay = 0;
	struct id key;

	for (uint32_t i = 0; i < c->header->count; i++) {
		memcpy(key.text, c->uids + c->rows[i].uid, c->rows[i].uid_length);
		key.text[c->rows[i].uid_length] = '\0';
		if (ids != NULL && bsearch(&key, ids, count, sizeof *ids, compare_ids) != NULL) {
			stay++;
			continue;
		}
		if (j == NULL) {
			printf("new %u %s\n", (unsigned)i + 1, key.text);
			continue;
		}
		json_open(j, NULL, '{');
		json_number(j, "number", (int64_t)i + 1);
		json_string(j, "id", key.text);
		json_close(j, '}');
	}
	return stay;
}

int
command_uidl_diff(const struct conf *c, const struct arguments *a)
{
	struct catalogue catalogue;
	struct json j = { .file = stdout };
	size_t count;
	struct id *ids = read_ids(a->word[1], &count);
	int session;

	if (open_maildrop(c, SPOOL_OPEN, a->word[0], &catalogue, &session) == -1) {
		free(ids);
		return 1;
	}
	if (a->json) {
		json_open(&j, NULL, '{');
		json_open(&j, "new", '[');
	}
	uint32_t messages = catalogue.header->count, stay = compare_lists(&catalogue, ids, count, a->json ? &j : NULL);
	if (a->json) {
		json_close(&j, ']');
		json_number(&j, "messages", messages);
		json_number(&j, "stay", stay);
		json_number(&j, "listed", (int64_t)count);
		json_close(&j, '}');
		json_end(&j);
	} else
		printf("%u of %u stay (%zu in %s)\n", (unsigned)stay, (unsigned)messages, count, a->word[1]);
	free(ids);
	close_maildrop(session, &catalogue);
	return stay == messages ? 0 : 1;
}
