/* The loop: a line, its command in the table of the state, its handler, and what the handler says comes next. */
#include "session.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ask.h"
#include "log.h"
#include "proxy.h"
#include "sandbox.h"
#include "system.h"
#include "tls.h"

#define NONSENSE_MAX	20		/* lines in a row */
#define LET_GO_MAX	(64 * 1024)	/* octets that are still read, and thrown away, of a client that is let go */
#define SHORT_MS	100		/* a poll is over by then; a longer session runs wherever there is room */
#define SILENT_MS	1000		/* after so long a client is no longer fetching one message after the other */
#define DECIPHERED_WITHIN (16 * 1024)	/* octets of stack */
#define SKIPPED_MAX	(1024 * 1024)	/* octets of one line that is too long */

/* The next line, sending what is gathered before waiting for it. */
static bool
next_line(struct session *s, bool sasl, char **line, enum line_result *result)
{
	while ((*result = line_next(&s->lines, sasl, line)) == LINE_MORE) {
		size_t size;
		if (s->lines.skipped > SKIPPED_MAX) {
			s->end = "nonsense";
			return false;
		}
		if (!output_flush(&s->output))
			return false;
		/* from here on it is the client's turn, for the whole line: an octet now and then is no sign of life */
		if (s->state == STATE_TRANSACTION && s->stream.deadline == 0)
			s->stream.deadline = clock_ms() + s->stream.idle_ms;
		if (s->just != 0)
			retrieve_ahead(s);
		if (output_is_large(&s->output) && !stream_has_input(&s->stream, SILENT_MS))
			output_give_back(&s->output);
		/* what was asked for ahead may be answered at any time, and is no reason to wake up */
		s->stream.also_speaks = s->asked.left > 0;
		char *room = line_room(&s->lines, &size);
		size_t n = stream_read(&s->stream, room, size);
		if (n == 0)
			return false;
		line_added(&s->lines, n);
	}
	return true;
}

bool
session_answer(struct session *s, char **line, enum line_result *result)
{
	return next_line(s, true, line, result);
}

static const struct command *
command_find(const struct command *table, const char *name, size_t length)
{
	for (; table->name != NULL; table++)
		if (strlen(table->name) == length && strncasecmp(table->name, name, length) == 0)
			return table;
	return NULL;
}

static void
trim_end(char *text)
{
	size_t n = strlen(text);

	while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t'))
		text[--n] = '\0';
}

/* A name that is not in this state's table: is it in the other's? */
static enum event
command_unknown(struct session *s, const char *name, size_t length)
{
	bool before = s->state == STATE_AUTHORIZATION;

	if (command_find(before ? transaction_commands : authorization_commands, name, length) != NULL) {
		output_err(&s->output, before ? "log in first" : "you are logged in already");
		return EVENT_REFUSED;
	}
	output_err(&s->output, "unknown command");
	return EVENT_NONSENSE;
}

static enum event
command_run(struct session *s, char *line)
{
	char *name = line + strspn(line, " \t");
	size_t length = strcspn(name, " \t");
	const struct command *c = command_find(
	    s->state == STATE_AUTHORIZATION ? authorization_commands : transaction_commands, name, length);
	char *argument = name + length;

	if (c == NULL)
		return command_unknown(s, name, length);
	if (c->argument == ARGUMENT_RAW)
		argument += *argument != '\0';
	else {
		argument += strspn(argument, " \t");
		trim_end(argument);
	}
	if ((*argument == '\0' && (c->argument == ARGUMENT_SOME || c->argument == ARGUMENT_RAW)) ||
	    (*argument != '\0' && c->argument == ARGUMENT_NONE)) {
		output_err(&s->output, "usage: %s", language_text(s->output.language, c->usage));
		return EVENT_NONSENSE;
	}
	s->before = s->just;
	s->just = 0;
	return c->handler(s, argument);
}

static enum event
line_run(struct session *s, enum line_result result, char *line)
{
	if (result == LINE_LONG) {
		output_err(&s->output, "line too long: at most %d octets", LINE_COMMAND);
		return EVENT_NONSENSE;
	}
	if (result == LINE_NUL) {
		output_err(&s->output, "an octet 0 is not accepted");
		return EVENT_NONSENSE;
	}
	if (log_wants(LOG_DEBUG)) {	/* the name alone: what follows may be a secret */
		char *name = line + strspn(line, " \t");
		log_begin(LOG_DEBUG, "command");
		log_bytes("name", name, strcspn(name, " \t"));
		log_end();
	}
	return command_run(s, line);
}

/* A line that may have been a password: of it the buffer has octets, and so have frames of GnuTLS's that are dead by now. */
static void
forget(struct session *s)
{
	line_wipe(&s->lines);
	if (s->stream.tls != NULL)
		sodium_stackzero(DECIPHERED_WITHIN);
}

/* From the greeting on, until a handler ends it or the client is gone. */
static void
session_loop(struct session *s)
{
	enum line_result result;
	char *line;

	while (s->end == NULL) {
		s->stream.also = s->worker;
		if (!next_line(s, false, &line, &result))
			break;
		if (clock_ms() - s->started > SHORT_MS)
			processor_leave();
		if (s->state == STATE_TRANSACTION)
			s->stream.deadline = 0;
		if (s->worker != -1 && s->stream.also_ready) {
			/* Nothing was asked of the worker: it is gone, or another login took the maildrop over. */
			output_err(&s->output, "[SYS/TEMP] the maildrop was closed; nothing was deleted");
			s->end = "worker-gone";
			break;
		}
		enum event event = line_run(s, result, line);
		if (s->state == STATE_AUTHORIZATION || event == EVENT_TRANSACTION)
			forget(s);
		if (event == EVENT_TRANSACTION) {
			s->state = STATE_TRANSACTION;
			s->stream.deadline = 0;
			s->stream.idle_ms = (int)s->conf->idle_timeout * 1000;
			sandbox_enter(CELL_SESSION, s->conf, NULL, 0);
		}
		s->nonsense = event == EVENT_NONSENSE ? s->nonsense + 1 : 0;
		if (s->nonsense >= NONSENSE_MAX) {
			output_err(&s->output, "too much nonsense");
			s->end = "nonsense";
		}
	}
	if (s->end == NULL)
		s->end = s->stream.failed;
	output_flush(&s->output);
}

/*
 * A socket that is closed with input unread is reset, and the last reply with it. So a client that sent more than it may gets a moment to
 * read why it is let go.
 */
static void
let_go(struct session *s)
{
	char scrap[4096];

	if (shutdown(s->stream.out, SHUT_WR) == -1)
		return;
	s->stream.failed = NULL;
	s->stream.tls = NULL;	/* whatever comes is thrown away: it need not be decrypted for that */
	s->stream.deadline = clock_ms() + 1000;
	for (size_t left = LET_GO_MAX, n; left > 0 && (n = stream_read(&s->stream, scrap, sizeof scrap)) > 0;)
		left -= n < left ? n : left;
}

/* The end of the connection. A message that broke off must not look as if it ended: no close-notify after it. */
static void
session_close(struct session *s)
{
	const char *failed = s->stream.failed, *end = s->end != NULL ? s->end : "";

	if (s->stream.tls != NULL && failed == NULL && strcmp(end, "read-error") != 0)
		tls_end(s->stream.tls);
	if (failed == NULL ? strcmp(end, "quit") != 0 : strcmp(failed, "tls-failed") == 0)
		let_go(s);
}

static uint32_t
mechanisms_now(const struct session *s)
{
	uint32_t m = conf_mechanisms(s->conf, s->tls, s->loopback);

	if (s->hello.binding_length == 0 && s->hello.end_point_length == 0)
		m &= ~(1u << MECHANISM_SCRAM_SHA_256_PLUS);
	if (!s->hello.has_certificate)
		m &= ~(1u << MECHANISM_EXTERNAL);
	return m;
}

bool
session_keeper(struct session *s)
{
	if (s->keeper == -1 && s->connection->listener != -1)
		s->keeper = ask_keeper(s->connection->listener);
	return s->keeper != -1;
}

bool
session_tls(struct session *s)
{
	(void)session_keeper(s);	/* without it tls_begin says that there is no TLS */
	if (!stream_tls(&s->stream, s->keeper))
		return false;
	close(s->keeper);
	s->keeper = -1;
	s->tls = true;
	tls_hello(s->stream.tls, &s->hello);
	s->hello_sent = false;	/* the verifier must know, even if it was asked before */
	s->mechanisms = mechanisms_now(s);
	return true;
}

static void
session_log_end(const struct session *s)
{
	log_begin(LOG_INFO, "session");
	log_string("end", s->end != NULL ? s->end : "client-gone");
	if (s->worker != -1)
		log_string("user", s->user);
	log_string("remote", s->hello.client);
	log_number("port", s->hello.client_port);
	log_string("tls", s->tls ? s->hello.tls_version : "no");
	log_number("retr", s->retrieved);
	log_number("top", s->topped);
	log_number("dele", s->removed);
	log_number("in", s->stream.octets_in);
	log_number("out", s->stream.octets_out);
	log_number("ms", (uint64_t)(clock_ms() - s->started));
	log_end();
}

static void
hello_fill(struct body_hello *h, const struct connection *c)
{
	session_id(h->session);
	memcpy(h->client, c->client, sizeof h->client);
	memcpy(h->local, c->local, sizeof h->local);
	h->client_port = c->client_port;
	h->local_port = c->local_port;
}

/* Behind a proxy that the configuration names: who the client is, for the log, the limits and the verifier. False if it is to go. */
static bool
client_behind(struct session *s)
{
	int listener = s->connection->listener;
	struct proxy p;
	const char *wrong;

	if (!conf_in_networks(&s->conf->proxy_protocol_from, s->hello.client))
		return true;
	if ((wrong = proxy_read(&s->stream, &p)) != NULL) {
		s->end = wrong;
		return false;
	}
	if (p.client[0] == '\0')
		return true;
	memcpy(s->hello.client, p.client, sizeof s->hello.client);
	memcpy(s->hello.local, p.local, sizeof s->hello.local);
	s->hello.client_port = p.client_port;
	s->hello.local_port = p.local_port;
	if (listener == -1 || ask_admitted(listener, p.client))
		return true;
	s->end = "max-per-address";
	if (!s->connection->implicit_tls)
		output_err(&s->output, "[SYS/TEMP] too many connections, try again later");
	output_flush(&s->output);
	return false;
}

static void
greet(struct session *s)
{
	char timestamp[BANNER_SIZE] = "";

	if (s->authd != -1 && (s->mechanisms & (1u << MECHANISM_APOP)))
		ask_banner(s->authd, s->hello.session, timestamp);
	output_ok(&s->output, "Postern ready%s%s", timestamp[0] != '\0' ? " " : "", timestamp);
}

/* Large, and zero pages cost nothing until they are used. The one page that all of it shares is its own from the beginning. */
static struct session session;

struct message *
session_room(void)
{
	return &session.message;
}

void
session_run(const struct conf *c, const struct connection *connection)
{
	struct session *s = &session;

	s->conf = c;
	s->connection = connection;
	s->authd = connection->authd;
	s->keeper = connection->keeper;
	s->worker = s->mbox = -1;
	s->asked.most = 1;
	s->luck = 1;
	s->output.stream = &s->stream;
	hello_fill(&s->hello, connection);
	log_session(s->hello.session);
	stream_start(&s->stream, connection->in, connection->out);
	s->lines.start = 0;	/* written before it is read, or the page would be faulted in twice */
	s->started = clock_ms();
	s->stream.deadline = s->started + (int64_t)c->login_timeout * 1000;
	s->stream.idle_ms = (int)c->login_timeout * 1000;
	s->stream.least = (uint32_t)c->minimum_rate;
	if (client_behind(s)) {
		/* What is not an Internet socket is a program on this host. */
		s->loopback = s->hello.client[0] == '\0' || address_is_loopback(s->hello.client);
		s->mechanisms = mechanisms_now(s);
		if (connection->implicit_tls)
			session_tls(s);
		greet(s);
		session_loop(s);
	}
	if (s->worker != -1 && !s->quit)
		ask_spent(s->worker, s->stream.octets_out, s->retrieved);
	session_log_end(s);
	session_close(s);
#ifdef FUZZING	/* many sessions in one process, which is nowhere else so */
	place_close(&s->ahead.place);
	place_close(&s->ahead.sent);
	catalogue_unmap(&s->catalogue);
	if (s->marks != s->few_marks)
		free(s->marks);
	memset(s, 0, offsetof(struct session, output.buffer));
#endif
}
