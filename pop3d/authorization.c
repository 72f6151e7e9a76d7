/* The AUTHORIZATION state (RFC 1939 section 4, RFC 2449, RFC 5034): who the client is. */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "ask.h"
#include "log.h"
#include "print.h"
#include "session.h"
#include "system.h"

#define BASE64 sodium_base64_VARIANT_ORIGINAL

static const char *const denials[DENIED_COUNT] = {
	[DENIED_CREDENTIALS] = "[AUTH] user name or password is wrong",
	[DENIED_DELAY] = "[LOGIN-DELAY] too soon after the last login",
	[DENIED_TEMPORARY] = "[SYS/TEMP] no login is possible at the moment, try again later",
	[DENIED_PERMANENT] = "[SYS/PERM] no login is possible, ask your administrator",
	[DENIED_MECHANISM] = "this mechanism is not offered here",
	[DENIED_PROTOCOL] = "the exchange was cancelled or is not what the mechanism asks for",
};

static const char *const failures[FAILURE_COUNT] = {
	[FAILURE_TEMPORARY] = "[SYS/TEMP] the maildrop cannot be opened at the moment, try again later",
	[FAILURE_PERMISSION] = "[SYS/PERM] the maildrop may not be read by its owner",
	[FAILURE_KIND] = "[SYS/PERM] what stands in the maildrop's place is not a maildrop",
	[FAILURE_USER] = "[SYS/PERM] there is no maildrop for this user",
	[FAILURE_FULL] = "[SYS/TEMP] the disk is full",
	[FAILURE_CHANGED] = "[SYS/TEMP] the maildrop is being changed by another program",
	[FAILURE_VANISHED] = "[SYS/TEMP] the maildrop has vanished",
	[FAILURE_TAKEN] = "[IN-USE] a newer session took the maildrop over",
	[FAILURE_ARCHIVE] = "[SYS/PERM] the archive may not be written by its owner, or something else stands in its place",
};

static void
authd_close(struct session *s)
{
	if (s->authd != -1)
		close(s->authd);
	s->authd = -1;
}

/* How long the verifier may take: what is left of the login's time. */
static int
login_ms(const struct session *s)
{
	int64_t left = s->stream.deadline - clock_ms();

	return left < 1000 ? 1000 : (int)left;
}

static void
busy_reply(struct session *s, int64_t since)
{
	char when[32];
	struct tm tm;
	time_t t = (time_t)since;

	if (since > 0 && gmtime_r(&t, &tm) != NULL && strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", &tm) > 0)
		output_err(&s->output, "[IN-USE] another session has this maildrop since %s", when);
	else
		output_err(&s->output, "[IN-USE] another session has this maildrop");
}

/* READY: takes over the catalogue and the mailbox. False if they are not what they should be. */
static bool
maildrop_take(struct session *s, struct message *m)
{
	if (catalogue_read(&s->catalogue, m->fds[0], s->few_rows, sizeof s->few_rows) == -1) {
		log_text(LOG_ERR, "the worker's catalogue is not sound: %s", strerror(errno));
		return false;
	}
	s->ready = m->body.ready;
	uint32_t count = s->catalogue.header->count;
	s->marks = count < sizeof s->few_marks ? s->few_marks : calloc(count + 1, 1);
	if (s->marks == NULL || s->catalogue.header->count != s->ready.count) {
		log_text(LOG_ERR, "no memory for %u marks", s->ready.count);
		return false;
	}
	if (s->ready.kind == MAILDROP_MBOX) {
		s->mbox = m->fds[1];
		m->fds[1] = -1;
	}
	return true;
}

/* The capability is in hand: waits for the worker, and enters TRANSACTION if the maildrop is open. */
static enum event
maildrop_open(struct session *s, int worker)
{
	struct message *m = &s->message;

	if (ask_opened(worker, m) == 0)
		output_err(&s->output, "%s", failures[FAILURE_TEMPORARY]);
	else if (m->header.type == MESSAGE_BUSY)
		busy_reply(s, m->body.busy.since);
	else if (m->header.type == MESSAGE_FAILED)
		output_err(&s->output, "%s", failures[m->body.failed.failure]);
	else if (!maildrop_take(s, m))
		output_err(&s->output, "%s", failures[FAILURE_TEMPORARY]);
	else {
		message_clear(m);
		s->worker = worker;
		authd_close(s);
		output_ok(&s->output, "%u messages (%llu octets)", s->ready.count, (unsigned long long)s->ready.octets);
		return EVENT_TRANSACTION;
	}
	message_clear(m);
	close(worker);
	return EVENT_REFUSED;
}

static enum event
login_denied(struct session *s, const struct body_denied *d)
{
	if (d->denial == DENIED_DELAY)
		output_err(&s->output, "%s (%u seconds to wait)", denials[DENIED_DELAY], d->seconds);
	else
		output_err(&s->output, "%s", denials[d->denial]);
	if (!d->last)
		return EVENT_REFUSED;
	s->end = "login-failed";
	return EVENT_END;
}

/* What the verifier said last, once it asks nothing more. */
static enum event
login_finish(struct session *s, enum ask_login answer)
{
	struct message *m = &s->message;
	enum event event = EVENT_REFUSED;

	if (answer == ASK_GRANTED) {
		int worker = m->fds[0];
		m->fds[0] = -1;
		string_copy(s->user, sizeof s->user, m->body.granted.user);
		s->no_delete = m->body.granted.no_delete;
		return maildrop_open(s, worker);
	}
	if (answer == ASK_DENIED)
		event = login_denied(s, &m->body.denied);
	else {
		authd_close(s);
		output_err(&s->output, "%s", denials[DENIED_TEMPORARY]);
	}
	if (answer != ASK_GONE)
		message_clear(m);
	return event;
}

/* False, with the reply given, if the verifier is not there. */
static bool
verifier_there(struct session *s)
{
	if (s->authd != -1)
		return true;
	output_err(&s->output, "%s", denials[DENIED_TEMPORARY]);
	return false;
}

/* With the first question the verifier learns about the connection. */
static enum ask_login
login_begin(struct session *s, enum mechanism mechanism, const void *data, size_t length)
{
	const struct body_hello *hello = s->hello_sent ? NULL : &s->hello;

	s->hello_sent = true;
	return ask_auth(s->authd, hello, mechanism, data, length, login_ms(s), &s->message);
}

static bool
is_offered(const struct session *s, enum mechanism m)
{
	return (s->mechanisms & (1u << m)) != 0;
}

/* Why a mechanism that the configuration has is not offered now, before the password is read where that is possible. */
static enum event
not_offered(struct session *s, enum mechanism m)
{
	bool with_tls = !s->tls && (conf_mechanisms(s->conf, true, s->loopback) & (1u << m)) != 0;

	if (with_tls && (m == MECHANISM_SCRAM_SHA_256_PLUS || m == MECHANISM_EXTERNAL))
		output_err(&s->output, "this mechanism needs TLS");
	else if (with_tls)
		output_err(&s->output, "[AUTH] the password would be sent in the clear: use TLS");
	else
		output_err(&s->output, "%s", denials[DENIED_MECHANISM]);
	return EVENT_REFUSED;
}

/* RFC 6856 section 2.2, for clients that keep to it: others may have a password in an old encoding. */
static bool
not_utf8(struct session *s, const char *argument)
{
	if (!s->utf8 || utf8_sound(argument))
		return false;
	output_err(&s->output, "that is not UTF-8");
	return true;
}

static enum event
on_user(struct session *s, char *argument)
{
	if (!is_offered(s, MECHANISM_USER))
		return not_offered(s, MECHANISM_USER);
	if (not_utf8(s, argument))
		return EVENT_REFUSED;
	if (!string_copy(s->user, sizeof s->user, argument)) {
		s->user[0] = '\0';
		output_err(&s->output, "that name is too long");
		return EVENT_REFUSED;
	}
	output_ok(&s->output, "now the password");
	return EVENT_DONE;
}

static enum event
on_pass(struct session *s, char *argument)
{
	char data[LINE_COMMAND + USER_SIZE + 8];

	if (!is_offered(s, MECHANISM_USER))
		return not_offered(s, MECHANISM_USER);
	if (s->user[0] == '\0') {
		output_err(&s->output, "USER comes first");
		return EVENT_REFUSED;
	}
	if (not_utf8(s, argument))
		return EVENT_REFUSED;
	if (!verifier_there(s))
		return EVENT_REFUSED;
	int n = snprintf(data, sizeof data, "%c%s%c%s", 0, s->user, 0, argument);
	s->user[0] = '\0';
	enum ask_login answer = login_begin(s, MECHANISM_USER, data, (size_t)n);
	sodium_memzero(data, sizeof data);
	return login_finish(s, answer);
}

static enum event
on_apop(struct session *s, char *argument)
{
	if (!is_offered(s, MECHANISM_APOP)) {
		output_err(&s->output, "%s", denials[DENIED_MECHANISM]);
		return EVENT_REFUSED;
	}
	if (not_utf8(s, argument) || !verifier_there(s))
		return EVENT_REFUSED;
	return login_finish(s, login_begin(s, MECHANISM_APOP, argument, strlen(argument)));
}

/* Decodes base64 in place. False if it is not base64, whole and padded. */
static bool
decode(char *text, size_t *length)
{
	size_t n = strlen(text);

	if (n == 0) {
		*length = 0;
		return true;
	}
	unsigned char *out = (unsigned char *)text;
	const char *end = NULL;
	/* never longer than what it is made from, and read before it is overwritten: four octets become three */
	return sodium_base642bin(out, n, text, n, NULL, length, &end, BASE64) == 0 && end == text + n;
}

/* "+ " and the challenge; then the client's line. False if the exchange is over, with the event in *event. */
static bool
challenge(struct session *s, const struct body_challenge *c, char **line, enum event *event)
{
	char text[2 + sodium_base64_ENCODED_LEN(CHALLENGE_SIZE, BASE64)] = "+ ";
	enum line_result result;

	sodium_bin2base64(text + 2, sizeof text - 2, c->data, c->length, BASE64);
	output_line(&s->output, text);
	if (!session_answer(s, line, &result)) {
		*event = EVENT_END;
		return false;
	}
	if (result == LINE_OK)
		return true;
	*line = NULL;
	return true;
}

/* The exchange of a SASL mechanism, from its initial response (NULL: none) to the verdict. */
static enum event
exchange(struct session *s, enum mechanism mechanism, char *initial, size_t length)
{
	struct message *m = &s->message;
	enum event event;
	enum ask_login answer = login_begin(s, mechanism, initial, length);

	while (answer == ASK_CHALLENGE) {
		char *line;
		size_t n = 0;
		if (!challenge(s, &m->body.challenge, &line, &event)) {
			message_clear(m);
			return event;
		}
		message_clear(m);
		/* Too long, not base64, or "*": the verifier is told that it is over, and answers DENIED. */
		bool cancelled = line == NULL || strcmp(line, "*") == 0 || !decode(line, &n);
		answer = ask_respond(s->authd, cancelled, line != NULL ? line : "", cancelled ? 0 : n, login_ms(s), m);
		line_wipe(&s->lines);
	}
	return login_finish(s, answer);
}

static enum event
list_mechanisms(struct session *s)
{
	output_ok(&s->output, "the mechanisms:");
	for (uint32_t m = 0; m < MECHANISM_USER; m++)
		if (is_offered(s, m))
			output_line(&s->output, mechanism_name(m));
	output_line(&s->output, ".");
	return EVENT_DONE;
}

static enum event
on_auth(struct session *s, char *argument)
{
	size_t length = strcspn(argument, " \t"), n = 0;
	char *initial = argument + length;
	uint32_t m;

	if (*argument == '\0')
		return list_mechanisms(s);
	if (*initial != '\0')
		*initial++ = '\0';
	initial += strspn(initial, " \t");
	for (m = 0; m < MECHANISM_USER; m++)
		if (strcasecmp(mechanism_name(m), argument) == 0)
			break;
	if (m == MECHANISM_USER) {
		output_err(&s->output, "%s", denials[DENIED_MECHANISM]);
		return EVENT_REFUSED;
	}
	if (!is_offered(s, m))
		return not_offered(s, m);
	bool given = *initial != '\0', empty = strcmp(initial, "=") == 0;
	if (given && !empty && !decode(initial, &n)) {
		output_err(&s->output, "the initial response is not base64");
		return EVENT_REFUSED;
	}
	if (!verifier_there(s))
		return EVENT_REFUSED;
	s->user[0] = '\0';
	return exchange(s, m, given ? initial : NULL, n);
}

static enum event
on_quit(struct session *s, char *argument)
{
	(void)argument;
	output_ok(&s->output, "goodbye");
	s->end = "quit";
	return EVENT_END;
}

/*
 * RFC 2595 section 4. What came in the clear behind STLS was put there by the client against the rules, or by somebody between: the connection ends. What was said
 * before is forgotten.
 */
static enum event
on_stls(struct session *s, char *argument)
{
	(void)argument;
	if (s->tls || !s->connection->tls) {
		output_err(&s->output, s->tls ? "TLS is active already" : "no TLS here");
		return EVENT_REFUSED;
	}
	if (s->utf8) {
		output_err(&s->output, "STLS comes before UTF8");
		return EVENT_REFUSED;
	}
	if (!session_keeper(s)) {
		output_err(&s->output, "[SYS/TEMP] no TLS at the moment");
		return EVENT_REFUSED;
	}
	if (line_pending(&s->lines) || stream_has_input(&s->stream, 0)) {
		output_err(&s->output, "nothing may follow STLS before TLS is active");
		s->end = "stls-injection";
		return EVENT_END;
	}
	s->user[0] = '\0';
	output_ok(&s->output, "begin TLS now");
	if (!output_flush(&s->output) || !session_tls(s))
		return EVENT_END;
	s->output.language = LANGUAGE_ENGLISH;
	return EVENT_DONE;
}

/* The line of CAPA that names the SASL mechanisms, if any is offered. */
static void
capa_sasl(struct session *s)
{
	char text[256] = "SASL";
	size_t used = 4;

	for (uint32_t m = 0; m < MECHANISM_USER; m++)
		if (is_offered(s, m))
			used += (size_t)snprintf(text + used, sizeof text - used, " %s", mechanism_name(m));
	if (used > 4)
		output_line(&s->output, text);
}

/* Does what was retrieved leave the maildrop at QUIT, whatever the client says? */
static bool
copy_leaves(uint32_t copy)
{
	return copy == COPY_DELETE || copy == COPY_ARCHIVE;
}

/*
 * RFC 2449 section 6.7: after the login what holds for the user; before it the least that may hold for anyone, and "USER"
 * if it is not the same for all.
 */
static void
capa_expire(struct session *s)
{
	const struct conf *c = s->conf;
	uint32_t days = c->expire > 0 ? (uint32_t)c->expire : EXPIRE_NEVER;
	bool leaves = copy_leaves((uint32_t)c->server_copy), differs = false;
	char text[64];

	if (s->state == STATE_TRANSACTION)
		days = s->ready.expire;
	else {
		for (uint32_t i = 0; i < c->server_copy_choice.count; i++)
			differs = differs || copy_leaves(c->server_copy_choice.item[i]) != leaves;
		if (leaves || differs)
			days = 0;
	}
	if (days == EXPIRE_NEVER)
		snprintf(text, sizeof text, "EXPIRE NEVER%s", differs ? " USER" : "");
	else
		snprintf(text, sizeof text, "EXPIRE %u%s", days, differs ? " USER" : "");
	output_line(&s->output, text);
}

enum event
on_capa(struct session *s, char *argument)
{
	char text[64];

	(void)argument;
	output_ok(&s->output, "what this server can do:");
	output_line(&s->output, "TOP");
	output_line(&s->output, "UIDL");
	if (is_offered(s, MECHANISM_USER))
		output_line(&s->output, "USER");
	capa_sasl(s);
	output_line(&s->output, "RESP-CODES");
	output_line(&s->output, "AUTH-RESP-CODE");
	output_line(&s->output, "PIPELINING");
	output_line(&s->output, "UTF8 USER");
	output_line(&s->output, "LANG");
	if (s->connection->tls && !s->tls && s->state == STATE_AUTHORIZATION)
		output_line(&s->output, "STLS");
	if (s->conf->login_delay > 0) {
		snprintf(text, sizeof text, "LOGIN-DELAY %llu", (unsigned long long)s->conf->login_delay);
		output_line(&s->output, text);
	}
	capa_expire(s);
	output_line(&s->output, "IMPLEMENTATION Postern");
	output_line(&s->output, ".");
	return EVENT_DONE;
}

const struct command authorization_commands[] = {
	{ "USER", on_user, ARGUMENT_SOME, "USER name" },
	{ "PASS", on_pass, ARGUMENT_RAW, "PASS password" },
	{ "APOP", on_apop, ARGUMENT_SOME, "APOP name digest" },
	{ "AUTH", on_auth, ARGUMENT_MAYBE, "AUTH [mechanism [initial-response]]" },
	{ "STLS", on_stls, ARGUMENT_NONE, "STLS" },
	{ "CAPA", on_capa, ARGUMENT_NONE, "CAPA" },
	{ "LANG", on_lang, ARGUMENT_MAYBE, "LANG [language]" },
	{ "UTF8", on_utf8, ARGUMENT_NONE, "UTF8" },
	{ "QUIT", on_quit, ARGUMENT_NONE, "QUIT" },
	{ NULL, NULL, ARGUMENT_NONE, NULL }
};
