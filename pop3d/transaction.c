/* The TRANSACTION state (RFC 1939 section 5), and QUIT's way into UPDATE (section 6). */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ask.h"
#include "log.h"
#include "session.h"
#include "system.h"

#define CUT_MS 1000	/* the client waits that long at most for a file to become shorter */

/* What the client is told if the UPDATE did not remove all that was marked. */
static const char *const update_failures[FAILURE_COUNT] = {
	[FAILURE_TEMPORARY] = "[SYS/TEMP] the maildrop could not be updated",
	[FAILURE_PERMISSION] = "[SYS/PERM] the maildrop may not be written by its owner",
	[FAILURE_KIND] = "[SYS/PERM] what stands in the maildrop's place is not a maildrop",
	[FAILURE_USER] = "[SYS/PERM] there is no maildrop for this user",
	[FAILURE_FULL] = "[SYS/TEMP] the disk is full or over quota",
	[FAILURE_CHANGED] = "[SYS/TEMP] another program changed the maildrop",
	[FAILURE_VANISHED] = "[SYS/TEMP] the maildrop has vanished",
	[FAILURE_TAKEN] = "[IN-USE] a newer session took the maildrop over",
	[FAILURE_ARCHIVE] = "[SYS/PERM] the archive may not be written by its owner, or something else stands in its place",
};

static bool
is_deleted(const struct session *s, uint32_t number)
{
	return (s->marks[number - 1] & MARK_DELETED) != 0;
}

static const struct catalogue_row *
row_of(const struct session *s, uint32_t number)
{
	return &s->catalogue.rows[number - 1];
}

/* The number of a message that is there and not deleted. False, with the reply given, if it is not one. */
static bool
number_take(struct session *s, const char *text, uint32_t *number, enum event *event)
{
	uint64_t n;
	const char *wrong = number_parse(text, 1, s->ready.count, &n);

	*event = EVENT_REFUSED;
	if (wrong != NULL && wrong[0] == 'n') {
		output_err(&s->output, "a message number is accepted, from 1 to %u", s->ready.count);
		*event = EVENT_NONSENSE;
	} else if (wrong != NULL)
		output_err(&s->output, "no such message, there are %u", s->ready.count);
	else if (is_deleted(s, (uint32_t)n))
		output_err(&s->output, "message %u is deleted", (unsigned)n);
	else {
		*number = (uint32_t)n;
		return true;
	}
	return false;
}

static uint32_t
left_count(const struct session *s)
{
	return s->ready.count - s->deleted;
}

static unsigned long long
left_octets(const struct session *s)
{
	return s->ready.octets - s->deleted_octets;
}

static enum event
on_stat(struct session *s, char *argument)
{
	(void)argument;
	output_ok(&s->output, "%u %llu", left_count(s), left_octets(s));
	return EVENT_DONE;
}

static enum event
on_list(struct session *s, char *argument)
{
	uint32_t n;
	enum event event;

	if (*argument != '\0') {
		if (!number_take(s, argument, &n, &event))
			return event;
		output_ok(&s->output, "%u %llu", n, (unsigned long long)row_of(s, n)->octets);
		return EVENT_DONE;
	}
	output_ok(&s->output, "%u messages (%llu octets)", left_count(s), left_octets(s));
	for (n = 1; n <= s->ready.count; n++)
		if (!is_deleted(s, n))
			output_number_number(&s->output, n, row_of(s, n)->octets);
	output_line(&s->output, ".");
	return EVENT_DONE;
}

static enum event
on_uidl(struct session *s, char *argument)
{
	uint32_t n;
	enum event event;

	if (*argument != '\0') {
		if (!number_take(s, argument, &n, &event))
			return event;
		output_ok(&s->output, "%u %.*s", n, (int)row_of(s, n)->uid_length, s->catalogue.uids + row_of(s, n)->uid);
		return EVENT_DONE;
	}
	output_ok(&s->output, "%u messages", left_count(s));
	for (n = 1; n <= s->ready.count; n++)
		if (!is_deleted(s, n))
			output_number_text(&s->output, n, s->catalogue.uids + row_of(s, n)->uid, row_of(s, n)->uid_length);
	output_line(&s->output, ".");
	return EVENT_DONE;
}

static enum event
on_retr(struct session *s, char *argument)
{
	uint32_t n;
	enum event event;

	return number_take(s, argument, &n, &event) ? retrieve(s, n, NULL) : event;
}

static enum event
on_top(struct session *s, char *argument)
{
	size_t length = strcspn(argument, " \t");
	char *lines = argument + length;
	uint64_t count;
	uint32_t n;
	enum event event;

	if (*lines != '\0')
		*lines++ = '\0';
	lines += strspn(lines, " \t");
	if (number_parse(lines, 0, UINT64_MAX, &count) != NULL) {
		output_err(&s->output, "usage: TOP message lines");
		return EVENT_NONSENSE;
	}
	return number_take(s, argument, &n, &event) ? retrieve(s, n, &count) : event;
}

static enum event
on_dele(struct session *s, char *argument)
{
	uint32_t n;
	enum event event;

	if (!number_take(s, argument, &n, &event))
		return event;
	if (s->no_delete) {
		output_err(&s->output, "[SYS/PERM] this password is for reading only");
		return EVENT_REFUSED;
	}
	s->marks[n - 1] |= MARK_DELETED;
	s->deleted++;
	s->deleted_octets += row_of(s, n)->octets;
	output_ok(&s->output, "message %u deleted", n);
	return EVENT_DONE;
}

static enum event
on_rset(struct session *s, char *argument)
{
	(void)argument;
	for (uint32_t i = 0; i < s->ready.count; i++)
		s->marks[i] &= (unsigned char)~MARK_DELETED;
	s->deleted = 0;
	s->deleted_octets = 0;
	output_ok(&s->output, "%u messages (%llu octets)", left_count(s), left_octets(s));
	return EVENT_DONE;
}

static enum event
on_noop(struct session *s, char *argument)
{
	(void)argument;
	output_ok(&s->output, "nothing done");
	return EVENT_DONE;
}

/* Is anything marked that the worker has to know of? */
static bool
any_mark(const struct session *s)
{
	return s->deleted > 0 || s->retrieved > 0;
}

/* Asks the worker for the end; what it says is in s->message. 0 if it is gone. */
static int
leave(struct session *s)
{
	if (!any_mark(s))
		return ask_leave(s->worker, s->stream.octets_out, s->retrieved, &s->message);
	ask_spent(s->worker, s->stream.octets_out, s->retrieved);
	return ask_update(s->worker, s->marks, s->ready.count, &s->message);
}

/*
 * Who is told +OK can see it, too: a file is as long as it will be as soon as the truncation has begun. It is certain in any case, so
 * nobody waits for a disk that does not answer.
 */
static void
await_cut(const struct session *s, uint64_t length)
{
	struct pollfd p = { .fd = s->worker };		/* which closes it when it has done all */
	struct stat st;

	for (int i = 0; i < CUT_MS && length != NO_CUT && fstat(s->mbox, &st) == 0 && (uint64_t)st.st_size > length; i++)
		if (poll(&p, 1, 1) != 0)
			break;
}

static enum event
on_quit(struct session *s, char *argument)
{
	struct message *m = &s->message;

	(void)argument;
	place_forget(s, UINT32_MAX);	/* what was asked for ahead is answered before anything else */
	s->end = "quit";
	s->quit = true;
	if (leave(s) == 0) {
		s->end = "update-failed";
		if (s->deleted > 0)
			output_err(&s->output, "%s", update_failures[FAILURE_TEMPORARY]);
		else
			output_ok(&s->output, "goodbye");
		return EVENT_END;
	}
	if (m->header.type == MESSAGE_UPDATED) {
		await_cut(s, m->body.updated.length);
		s->removed = m->body.updated.deleted;
		output_ok(&s->output, "goodbye, %u messages left", m->body.updated.left);
	} else {
		s->end = "update-failed";
		output_err(&s->output, "%s: %u marked messages were left", update_failures[m->body.update_failed.failure],
		    m->body.update_failed.left);
	}
	message_clear(m);
	return EVENT_END;
}

const struct command transaction_commands[] = {
	{ "STAT", on_stat, ARGUMENT_NONE, "STAT" },
	{ "LIST", on_list, ARGUMENT_MAYBE, "LIST [message]" },
	{ "RETR", on_retr, ARGUMENT_SOME, "RETR message" },
	{ "DELE", on_dele, ARGUMENT_SOME, "DELE message" },
	{ "NOOP", on_noop, ARGUMENT_NONE, "NOOP" },
	{ "RSET", on_rset, ARGUMENT_NONE, "RSET" },
	{ "TOP", on_top, ARGUMENT_SOME, "TOP message lines" },
	{ "UIDL", on_uidl, ARGUMENT_MAYBE, "UIDL [message]" },
	{ "CAPA", on_capa, ARGUMENT_NONE, "CAPA" },
	{ "LANG", on_lang, ARGUMENT_MAYBE, "LANG [language]" },
	{ "QUIT", on_quit, ARGUMENT_NONE, "QUIT" },
	{ NULL, NULL, ARGUMENT_NONE, NULL }
};
