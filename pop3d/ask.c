/* pop3d's questions to authd's verifier and to its worker. */
#include "ask.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "catalogue.h"
#include "log.h"
#include "sandbox.h"
#include "system.h"

/* A large mailbox on a slow disk takes its time; who never answers must not hold the client for ever. */
#define OPEN_MS		(5 * 60 * 1000)
#define BANNER_MS	(2 * 1000)
#define ADMIT_MS	(10 * 1000)
#define FETCH_MS	(2 * 60 * 1000)
#define UPDATE_MS	(15 * 60 * 1000)

/* With `patient`, which waits a second if the other side has its hands full. */
static int
connect_to(const struct sockaddr_un *sa, bool patient)
{
	static const struct timeval second = { .tv_sec = 1 };
	int fd = (int)sandbox_call(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (patient ? 0 : SOCK_NONBLOCK), 0, 0, 0);

	if (fd == -1)
		return -1;
	if (patient)
		(void)sandbox_call(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, (long)&second, sizeof second);
	if (sandbox_call(SYS_connect, fd, (long)sa, sizeof *sa, 0, 0) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

int
ask_reach(const struct conf *c, const char *name)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char path[PATH_SIZE];

	if (conf_run_path(c, name, path, sizeof path) == -1)
		return -1;
	if (!string_copy(sa.sun_path, sizeof sa.sun_path, path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	int fd = connect_to(&sa, false);
	return fd == -1 && errno == EAGAIN ? connect_to(&sa, true) : fd;
}

int
ask_connect(const struct conf *c)
{
	int fd = ask_reach(c, "authd.sock");

	if (fd == -1)
		log_text(LOG_ERR, "authd cannot be reached at %s/authd.sock: %s; logins fail until it runs", c->run_dir, strerror(errno));
	return fd;
}

int
ask_keeper(int listener)
{
	struct message m;

	message_start(&m, MESSAGE_REACH);
	if (message_send(listener, &m) == -1 || message_wait(listener, ADMIT_MS) != 1 ||
	    message_receive(listener, &m, SIDE_LISTENER, SIDE_POP3D) != 1)
		return -1;
	if (m.header.type == MESSAGE_REACHED)
		return m.fds[0];
	message_clear(&m);
	return -1;
}

/* What was received, if so: is it an answer of one of the types that are timely here? Anything else ends the conversation. */
static int
timely(int n, struct message *answer, enum side from, const uint32_t *types, size_t count)
{
	if (n != 1) {
		log_text(LOG_ERR, "no answer from the %s: %s", from == SIDE_WORKER ? "worker" : "verifier",
		    n == -1 ? strerror(errno) : "it is gone or too slow");
		return 0;
	}
	for (size_t i = 0; i < count; i++)
		if (answer->header.type == types[i])
			return 1;
	log_text(LOG_ERR, "untimely %s", message_name(answer->header.type));
	message_clear(answer);
	return 0;
}

/* Receives such an answer. */
static int
receive(int fd, struct message *answer, enum side from, int milliseconds, const uint32_t *types, size_t count)
{
	int n = message_wait(fd, milliseconds);

	if (n == 1)
		n = message_receive(fd, answer, from, SIDE_POP3D);
	return timely(n, answer, from, types, count);
}

void
ask_banner(int authd, const char *session, char timestamp[static BANNER_SIZE])
{
	static const uint32_t types[] = { MESSAGE_BANNER };
	struct message m;

	timestamp[0] = '\0';
	message_start(&m, MESSAGE_GREET);
	string_copy(m.body.greet.session, sizeof m.body.greet.session, session);
	if (message_send(authd, &m) == 0 && receive(authd, &m, SIDE_VERIFIER, BANNER_MS, types, 1) == 1)
		string_copy(timestamp, BANNER_SIZE, m.body.banner.timestamp);
}

bool
ask_admitted(int listener, const char *client)
{
	struct message m;

	message_start(&m, MESSAGE_PROXIED);
	string_copy(m.body.proxied.client, sizeof m.body.proxied.client, client);
	return message_send(listener, &m) == 0 && message_wait(listener, ADMIT_MS) == 1 &&
	    message_receive(listener, &m, SIDE_LISTENER, SIDE_POP3D) == 1 && m.header.type == MESSAGE_ADMITTED &&
	    m.body.admitted.allowed;
}

static enum ask_login
login_answer(int authd, int milliseconds, struct message *answer)
{
	static const uint32_t types[] = { MESSAGE_CHALLENGE, MESSAGE_GRANTED, MESSAGE_DENIED };

	if (receive(authd, answer, SIDE_VERIFIER, milliseconds, types, 3) == 0)
		return ASK_GONE;
	return answer->header.type == MESSAGE_CHALLENGE ? ASK_CHALLENGE :
	    answer->header.type == MESSAGE_GRANTED ? ASK_GRANTED : ASK_DENIED;
}

/*
 * What is asked is put where the answer comes: a struct message is large, and each page of it that is touched costs, and
 * stays with the process. What the client said goes to `at` in it, and is wiped there when it has been sent.
 */
static int
send_secret(int authd, struct message *m, uint8_t *at, const void *data, size_t length)
{
	memcpy(at, data, length);
	int sent = message_send(authd, m);
	sodium_memzero(at, length);
	return sent;
}

static int
send_login(int authd, const struct body_hello *hello, enum mechanism mechanism, const void *data, size_t length, struct message *m)
{
	struct body_login *b = &m->body.login;

	message_start(m, MESSAGE_LOGIN);
	b->hello = *hello;
	b->mechanism = mechanism;
	b->has_initial = data != NULL;
	b->length = (uint32_t)length;
	return send_secret(authd, m, b->data, data != NULL ? data : "", length);
}

static int
send_auth(int authd, enum mechanism mechanism, const void *data, size_t length, struct message *m)
{
	struct body_auth *b = &m->body.auth;

	message_start(m, MESSAGE_AUTH);
	b->mechanism = mechanism;
	b->has_initial = data != NULL;
	b->length = (uint32_t)length;
	return send_secret(authd, m, b->data, data != NULL ? data : "", length);
}

enum ask_login
ask_auth(int authd, const struct body_hello *hello, enum mechanism mechanism, const void *data, size_t length, int milliseconds,
    struct message *answer)
{
	int sent = 0;

	if (data == NULL)
		length = 0;
	if (hello != NULL && length <= LOGIN_SIZE)
		sent = send_login(authd, hello, mechanism, data, length, answer);
	else {
		if (hello != NULL) {
			message_start(answer, MESSAGE_HELLO);
			answer->body.hello = *hello;
			sent = message_send(authd, answer);
		}
		if (sent == 0)
			sent = send_auth(authd, mechanism, data, length, answer);
	}
	return sent == -1 ? ASK_GONE : login_answer(authd, milliseconds, answer);
}

enum ask_login
ask_respond(int authd, bool cancelled, const void *data, size_t length, int milliseconds, struct message *answer)
{
	struct body_respond *b = &answer->body.respond;

	message_start(answer, MESSAGE_RESPOND);
	b->cancelled = cancelled;
	b->length = (uint32_t)length;
	return send_secret(authd, answer, b->data, data, length) == -1 ? ASK_GONE : login_answer(authd, milliseconds, answer);
}

int
ask_opened(int worker, struct message *answer)
{
	static const uint32_t types[] = { MESSAGE_READY, MESSAGE_BUSY, MESSAGE_FAILED };

	return receive(worker, answer, SIDE_WORKER, OPEN_MS, types, 3);
}

bool
ask_fetch(int worker, uint32_t number)
{
	struct message m;

	message_start(&m, MESSAGE_FETCH);
	m.body.fetch.number = number;
	return message_send(worker, &m) == 0;
}

bool
ask_fetch_ahead(int worker, uint32_t number, uint32_t count)
{
	struct message m;

	message_start(&m, MESSAGE_FETCH_AHEAD);
	m.body.fetch_ahead.number = number;
	m.body.fetch_ahead.count = count;
	return message_send(worker, &m) == 0;
}

/* An answer to a FETCH: is it for this message? */
static int
fetched_check(uint32_t number, struct message *answer)
{
	uint32_t type = answer->header.type;
	uint32_t got = type == MESSAGE_MESSAGE ? answer->body.message.number :
	    type == MESSAGE_MESSAGES ? answer->body.messages.number : answer->body.failed.number;

	if (got == number)
		return 1;
	log_text(LOG_ERR, "the worker answered for message %u, not %u", got, number);
	message_clear(answer);
	return 0;
}

static const uint32_t fetched_types[] = { MESSAGE_MESSAGE, MESSAGE_MESSAGES, MESSAGE_FAILED };

int
ask_fetched_now(int worker, uint32_t number, struct message *answer)
{
	int n = message_receive_now(worker, answer, SIDE_WORKER, SIDE_POP3D);

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return timely(n, answer, SIDE_WORKER, fetched_types, 3) ? fetched_check(number, answer) : 0;
}

int
ask_fetched(int worker, uint32_t number, struct message *answer)
{
	int n = message_receive_now(worker, answer, SIDE_WORKER, SIDE_POP3D);	/* what was asked for ahead is there */

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		n = receive(worker, answer, SIDE_WORKER, FETCH_MS, fetched_types, 3);
	else
		n = timely(n, answer, SIDE_WORKER, fetched_types, 3);
	return n == 1 ? fetched_check(number, answer) : 0;
}

/* The marks as sealed memory; -1 if there is none to be had. */
static int
marks_seal(const unsigned char *marks, uint32_t count)
{
	int fd = sealed_create("marks");

	if (fd == -1)
		return -1;
	for (size_t done = 0; done < count;) {
		ssize_t n = write(fd, marks + done, count - done);
		if (n <= 0) {
			close(fd);
			return -1;
		}
		done += (size_t)n;
	}
	if (sealed_finish(fd) == 0)
		return fd;
	close(fd);
	return -1;
}

void
ask_differs(int worker, uint32_t number)
{
	struct message m;

	message_start(&m, MESSAGE_DIFFERS);
	m.body.differs.number = number;
	(void)message_send(worker, &m);		/* one that is gone is noticed at the next question */
}

void
ask_spent(int worker, uint64_t octets, uint64_t messages)
{
	struct message m;

	message_start(&m, MESSAGE_SPENT);
	m.body.spent.octets = octets;
	m.body.spent.messages = messages;
	(void)message_send(worker, &m);		/* one that is gone counts nothing any more */
}

/* Says what *m has, and waits for what comes of it, which takes its place. */
static int
send_end(int worker, struct message *m)
{
	static const uint32_t types[] = { MESSAGE_UPDATED, MESSAGE_UPDATE_FAILED };
	int sent = message_send(worker, m);

	if (m->fds[0] != -1)
		close(m->fds[0]);
	if (sent == -1) {
		log_text(LOG_ERR, "the worker is gone: %s", strerror(errno));
		return 0;
	}
	return receive(worker, m, SIDE_WORKER, UPDATE_MS, types, 2);
}

int
ask_update(int worker, const unsigned char *marks, uint32_t count, struct message *answer)
{
	message_start(answer, MESSAGE_UPDATE);
	answer->body.update.count = count;
	if ((answer->fds[0] = marks_seal(marks, count)) == -1) {
		log_text(LOG_ERR, "no memory for %u marks: %s", count, strerror(errno));
		return 0;
	}
	return send_end(worker, answer);
}

int
ask_leave(int worker, uint64_t octets, uint64_t messages, struct message *answer)
{
	message_start(answer, MESSAGE_LEAVE);
	answer->body.leave.octets = octets;
	answer->body.leave.messages = messages;
	return send_end(worker, answer);
}
