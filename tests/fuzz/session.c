/*
 * A whole pop3d: what a client says, from greeting to end. The first 16 octets are what authd and the worker answer, one each; the rest is the client's.
 * What pop3d says is checked: every line ends in CRLF, and each begins as a reply where one is due.
 * links: pop3d/session.c pop3d/authorization.c pop3d/transaction.c pop3d/retrieve.c pop3d/line.c pop3d/output.c pop3d/stream.c pop3d/tls.c
 * links: pop3d/place.c pop3d/window.c pop3d/credentials.c pop3d/proxy.c pop3d/language.c lib/catalogue.c lib/chains.c lib/conf.c lib/language.c lib/log.c lib/messages.c lib/print.c lib/system.c lib/wire.c
 * libs: -lgnutls
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "catalogue.h"
#include "log.h"
#include "sandbox.h"
#include "system.h"

#include "../../pop3d/ask.h"
#include "../../pop3d/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGES 3
static const char mail[] =
    "From a Sat Jan  3 01:05:34 1998\nSubject: one\n\n.dots\n..\n.\r\nend\n\n"
    "From b Sat Jan  3 01:05:34 1998\n\n"
    "From c Sat Jan  3 01:05:34 1998\nSubject: three\r\n\r\nno end of line";
static const struct { uint32_t offset, length, octets; } place[MESSAGES] = { { 32, 30, 35 }, { 95, 0, 0 }, { 128, 32, 34 } };
static int catalogue = -1, mailbox = -1;
static const uint8_t *choices;
static size_t choices_left;

static uint8_t
choice(void)
{
	return choices_left > 0 ? choices_left--, *choices++ : 0;
}

static void
mailbox_make(void)
{
	struct catalogue_header h = { CATALOGUE_MAGIC, MESSAGES, 0, 3 * MESSAGES };
	struct catalogue_row rows[MESSAGES];

	mailbox = memfd_create("mailbox", 0);
	catalogue = sealed_create("catalogue");
	for (uint32_t i = 0; i < MESSAGES; i++) {
		rows[i] = (struct catalogue_row){ place[i].octets, place[i].offset, place[i].length, 3 * i, 3 };
		h.octets += place[i].octets;
	}
	if (write(mailbox, mail, sizeof mail - 1) != sizeof mail - 1 || write(catalogue, &h, sizeof h) != sizeof h ||
	    write(catalogue, rows, sizeof rows) != sizeof rows || write(catalogue, "id1id2id3", 9) != 9 || sealed_finish(catalogue) == -1)
		abort();
}

/* Everything but what ask.c says to others is real. */
void sandbox_enter(enum cell cell, const struct conf *c, const struct sandbox_path *paths, size_t count)
{ (void)cell; (void)c; (void)paths; (void)count; }
int ask_reach(const struct conf *c, const char *name) { (void)c; (void)name; return -1; }
int ask_keeper(int listener) { (void)listener; return -1; }
bool ask_admitted(int listener, const char *client) { (void)listener; (void)client; return choice() != 255; }
void ask_differs(int worker, uint32_t number) { (void)worker; (void)number; }
void ask_spent(int worker, uint64_t octets, uint64_t messages) { (void)worker; (void)octets; (void)messages; }
bool ask_fetch(int worker, uint32_t number) { (void)worker; return number >= 1 && number <= MESSAGES && choice() != 255; }
bool ask_fetch_ahead(int worker, uint32_t number, uint32_t count)
{ return count >= 1 && count <= FETCH_AHEAD_MAX && ask_fetch(worker, number) && number + count - 1 <= MESSAGES; }
int ask_fetched_now(int worker, uint32_t number, struct message *answer) { return choice() % 2 ? ask_fetched(worker, number, answer) : 0; }

void
ask_banner(int authd, const char *session, char timestamp[static BANNER_SIZE])
{
	(void)authd;
	(void)session;
	string_copy(timestamp, BANNER_SIZE, choice() == 255 ? "" : "<1.2@postern>");
}

static enum ask_login
login(struct message *m)
{
	uint8_t c = choice();

	if (c < 100) {
		message_start(m, MESSAGE_GRANTED);
		string_copy(m->body.granted.user, sizeof m->body.granted.user, "user");
		m->body.granted.no_delete = c == 99;
		m->fds[0] = dup(0);
		return ASK_GRANTED;
	}
	if (c < 180) {
		message_start(m, MESSAGE_CHALLENGE);
		m->body.challenge.length = c < 178 ? c - 100u : CHALLENGE_SIZE;
		return ASK_CHALLENGE;
	}
	if (c == 255)
		return ASK_GONE;
	message_start(m, MESSAGE_DENIED);
	m->body.denied.denial = c % DENIED_COUNT;
	m->body.denied.last = c > 240;
	return ASK_DENIED;
}

enum ask_login
ask_auth(int authd, const struct body_hello *hello, enum mechanism mechanism, const void *data, size_t length, int milliseconds,
    struct message *answer)
{
	(void)authd;
	(void)milliseconds;
	if (hello != NULL && choice() == 255)
		return ASK_GONE;
	if (mechanism >= MECHANISM_COUNT || length > SASL_SIZE || (data == NULL && length > 0))
		abort();
	return login(answer);
}

enum ask_login
ask_respond(int authd, bool cancelled, const void *data, size_t length, int milliseconds, struct message *answer)
{
	(void)authd;
	(void)cancelled;
	(void)milliseconds;
	if (length > SASL_SIZE || data == NULL)
		abort();
	return login(answer);
}

static bool is_mbox;

int
ask_opened(int worker, struct message *answer)
{
	uint8_t c = choice();

	(void)worker;
	if (c > 200) {
		message_start(answer, c % 2 ? MESSAGE_BUSY : MESSAGE_FAILED);
		return c != 255;
	}
	is_mbox = c % 2;
	message_start(answer, MESSAGE_READY);
	answer->body.ready.count = MESSAGES;
	answer->body.ready.octets = place[0].octets + place[1].octets + place[2].octets;
	answer->body.ready.kind = is_mbox ? MAILDROP_MBOX : MAILDROP_MAILDIR;
	answer->body.ready.size = sizeof mail - 1;
	answer->fds[0] = dup(catalogue);
	answer->fds[1] = dup(is_mbox ? mailbox : catalogue);
	return 1;
}

int
ask_fetched(int worker, uint32_t number, struct message *answer)
{
	uint8_t c = choice();

	(void)worker;
	if (number < 1 || number > MESSAGES)
		abort();
	if (c > 250)
		return 0;
	if (c > 240) {
		message_start(answer, MESSAGE_FAILED);
		answer->body.failed.failure = c % FAILURE_COUNT;
		answer->body.failed.number = number;
		return 1;
	}
	if (c == 239) {		/* more than there are */
		message_start(answer, MESSAGE_MESSAGES);
		answer->body.messages.number = number;
		for (int i = 0; i < FETCHED_TOGETHER; i++)
			answer->fds[i] = dup(mailbox);
		return 1;
	}
	message_start(answer, MESSAGE_MESSAGE);
	answer->body.message.number = number;
	answer->body.message.offset = place[number - 1].offset;
	answer->body.message.length = c == 240 ? 1 << 20 : place[number - 1].length;
	answer->fds[0] = dup(mailbox);
	return 1;
}

static int
ended(struct message *answer)
{
	uint8_t c = choice();

	message_start(answer, c < 200 ? MESSAGE_UPDATED : MESSAGE_UPDATE_FAILED);
	if (c < 200)
		answer->body.updated.length = NO_CUT;
	return c != 255;
}

int
ask_update(int worker, const unsigned char *marks, uint32_t count, struct message *answer)
{
	(void)worker;
	if (count != MESSAGES)
		abort();
	for (uint32_t i = 0; i < count; i++)
		if (marks[i] > (MARK_DELETED | MARK_RETRIEVED))
			abort();
	return ended(answer);
}

int
ask_leave(int worker, uint64_t octets, uint64_t messages, struct message *answer)
{
	(void)worker;
	(void)octets;
	(void)messages;
	return ended(answer);
}

/* Every line is whole, and the first is a greeting. */
static void
said_check(int out)
{
	off_t size = lseek(out, 0, SEEK_END);
	char *text = mmap(NULL, (size_t)size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, out, 0);

	if (text == MAP_FAILED)
		abort();
	if (size < 3 || (memcmp(text, "+OK", 3) != 0 && memcmp(text, "-ERR", 4) != 0))
		abort();
	for (const char *at = text, *lf; (lf = memchr(at, '\n', (size_t)(text + size - at))) != NULL; at = lf + 1)
		if (lf == text || lf[-1] != '\r')
			abort();
	munmap(text, (size_t)size + 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conf conf;
	static int in = -1, out = -1;
	char error[256];

	if (size < 17 || size > 1 << 16)
		return 0;
	if (in == -1) {
		if (conf_load(&conf, "/nonexistent", true, error, sizeof error) == -1 && conf_load(&conf, CONF_PATH_DEFAULT, true, error, sizeof error) == -1)
			abort();
		conf.log = LOG_TO_STDERR;
		conf.log_level = 0;
		conf.cleartext_login = CLEARTEXT_ALWAYS;
		conf.login_timeout = conf.idle_timeout = 3600;
		for (uint32_t m = 0; m < MECHANISM_COUNT; m++)
			conf.mechanisms.item[m] = m;
		conf.mechanisms.count = MECHANISM_COUNT;
		log_start("pop3d");
		log_open(&conf, -1);
		mailbox_make();
		in = memfd_create("in", 0);
		out = memfd_create("out", 0);
	}
	choices = data;
	choices_left = 16;
	const struct connection connection = { .in = in, .out = out, .authd = choice() == 255 ? -1 : dup(0), .keeper = -1, .listener = -1 };
	if (ftruncate(in, 0) == -1 || ftruncate(out, 0) == -1 || pwrite(in, data + 16, size - 16, 0) != (ssize_t)size - 16)
		abort();
	lseek(in, 0, SEEK_SET);
	lseek(out, 0, SEEK_SET);
	int first = connection.authd != -1 ? connection.authd : dup(0);
	if (connection.authd == -1)
		close(first);
	session_run(&conf, &connection);
	close_range((unsigned)first, ~0u, 0);
	said_check(out);
	return 0;
}
