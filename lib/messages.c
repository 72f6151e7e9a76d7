/* Sending and receiving the messages of the roster: every check that makes one trustworthy is here. */
#include "messages.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct roster_row {
	const char *name;
	enum side from, to;
	unsigned fds;
	size_t size;		/* of the body */
};

#define ROW(name, from, to, fds, body) { #name, SIDE_##from, SIDE_##to, fds, sizeof(struct body_##body) },
static const struct roster_row roster[MESSAGE_COUNT] = { MESSAGE_ROSTER(ROW) };
#undef ROW

#define CHECK_FDS(name, from, to, fds, body) \
	_Static_assert((fds) <= MESSAGE_MAX_FDS, #name " carries more descriptors than MESSAGE_MAX_FDS");
MESSAGE_ROSTER(CHECK_FDS)
#undef CHECK_FDS

const char *
message_name(uint32_t type)
{
	return type < MESSAGE_COUNT ? roster[type].name : "?";
}

size_t
message_size(uint32_t type)
{
	return type < MESSAGE_COUNT ? sizeof(struct message_header) + roster[type].size : 0;
}

void
message_start(struct message *m, enum message_type type)
{
	/* Only what will be sent: a whole struct message is larger than most bodies by far. */
	memset(&m->body, 0, roster[type].size);
	m->header.magic = MESSAGE_MAGIC;
	m->header.type = type;
	for (size_t i = 0; i < MESSAGE_MAX_FDS; i++)
		m->fds[i] = -1;
	m->pid = 0;
}

void
message_clear(struct message *m)
{
	for (size_t i = 0; i < MESSAGE_MAX_FDS; i++) {
		if (m->fds[i] != -1)
			close(m->fds[i]);
		m->fds[i] = -1;
	}
	/* of one that was sound no more has been written */
	sodium_memzero(&m->body, m->header.type < MESSAGE_COUNT ? roster[m->header.type].size : sizeof m->body);
}

/*
 * What must be so of every body, besides its size: a string ends in place, a number is no more than the receiver can bear. Numbers that are
 * not here it can bear whatever they are.
 */
struct rule {
	enum message_type type;
	uint16_t at, size;	/* of a string; size 0: a uint32_t, */
	uint32_t most;		/* which is at most this */
};

#define STRING(type, body, name) { MESSAGE_##type, offsetof(struct body_##body, name), sizeof ((struct body_##body *)0)->name, 0 },
#define NUMBER(type, body, name, most) { MESSAGE_##type, \
	offsetof(struct body_##body, name) + 0 * sizeof(char[_Generic(((struct body_##body *)0)->name, uint32_t: 1)]), 0, most },
#define FLAG(type, body, name) NUMBER(type, body, name, 1)
#define HELLO(type, body, in) \
	STRING(type, body, in session) STRING(type, body, in client) STRING(type, body, in local) STRING(type, body, in tls_version) \
	STRING(type, body, in binding_type) NUMBER(type, body, in binding_length, sizeof ((struct body_hello *)0)->binding) \
	FLAG(type, body, in has_certificate) NUMBER(type, body, in end_point_length, sizeof ((struct body_hello *)0)->end_point)

static const struct rule rules[] = {
	STRING(CONNECTION, connection, client) STRING(CONNECTION, connection, local) FLAG(CONNECTION, connection, verifier)
	FLAG(CONNECTION, connection, implicit_tls) FLAG(CONNECTION, connection, tls)
	HELLO(HELLO, hello, )
	NUMBER(AUTH, auth, mechanism, MECHANISM_COUNT - 1) FLAG(AUTH, auth, has_initial) NUMBER(AUTH, auth, length, SASL_SIZE)
	HELLO(LOGIN, login, hello.) NUMBER(LOGIN, login, mechanism, MECHANISM_COUNT - 1) FLAG(LOGIN, login, has_initial)
	NUMBER(LOGIN, login, length, LOGIN_SIZE)
	FLAG(RESPOND, respond, cancelled) NUMBER(RESPOND, respond, length, SASL_SIZE)
	NUMBER(CHALLENGE, challenge, length, CHALLENGE_SIZE)
	STRING(GRANTED, granted, user) FLAG(GRANTED, granted, no_delete)
	NUMBER(DENIED, denied, denial, DENIED_COUNT - 1) FLAG(DENIED, denied, last)
	STRING(OPEN, open, session) STRING(OPEN, open, user) STRING(OPEN, open, client) NUMBER(OPEN, open, store, STORE_COUNT - 1)
	FLAG(OPEN, open, no_delete) FLAG(OPEN, open, recent)
	STRING(CHANNEL, channel, session)
	STRING(REFUSED, refused, session) NUMBER(REFUSED, refused, failure, FAILURE_COUNT - 1)
	NUMBER(FAILED, failed, failure, FAILURE_COUNT - 1)
	NUMBER(FETCH_AHEAD, fetch_ahead, count, FETCH_AHEAD_MAX)
	NUMBER(UPDATE_FAILED, update_failed, failure, FAILURE_COUNT - 1)
	FLAG(CLAIM, claim, held)
	FLAG(CLAIMED, claimed, ended) NUMBER(CLAIMED, claimed, journal, JOURNAL_LEFT_COUNT - 1)
	NUMBER(PRIVILEGED, privileged, what, PRIVILEGED_COUNT - 1)
	NUMBER(DONE, done, what, PRIVILEGED_COUNT - 1)
	NUMBER(HANDED, handed, what, PRIVILEGED_COUNT - 1)
	STRING(RESOLVED, resolved, user) STRING(RESOLVED, resolved, mbox)
	STRING(MAILDROP, maildrop, path) NUMBER(MAILDROP, maildrop, kind, 1 /* enum maildrop_kind */)
	NUMBER(MEASURED, measured, what, MEASURED_COUNT - 1)
	FLAG(LEFT, left, opened)
	STRING(REOPEN, reopen, session) FLAG(REOPEN, reopen, no_delete)
	STRING(HASH, hash, hash) STRING(HASH, hash, password)
	FLAG(HASHED, hashed, verdict) FLAG(HASHED, hashed, error)
	STRING(MAKE, make, like) STRING(MAKE, make, password)
	STRING(MADE, made, hash)
	STRING(ATTEMPT, attempt, user) STRING(ATTEMPT, attempt, password) STRING(ATTEMPT, attempt, client)
	STRING(VERDICT, verdict, user) NUMBER(VERDICT, verdict, denial, DENIED_COUNT)
	STRING(SPOOL_COMMAND, spool_command, argument) NUMBER(SPOOL_COMMAND, spool_command, command, SPOOL_COMMAND_COUNT - 1)
	STRING(SPOOL_SESSION, spool_session, session) STRING(SPOOL_SESSION, spool_session, user)
	STRING(SPOOL_SESSION, spool_session, client) STRING(SPOOL_SESSION, spool_session, path)
	STRING(SPOOL_CHANNEL, spool_channel, session)
	STRING(SHOWN, shown, user) STRING(SHOWN, shown, path) NUMBER(SHOWN, shown, failure, FAILURE_COUNT)
	NUMBER(SHOWN, shown, store, STORE_COUNT) NUMBER(SHOWN, shown, kind, 1 /* enum maildrop_kind */)
	NUMBER(SHOWN, shown, server_copy, 4 /* enum server_copy */)
	STRING(PROXIED, proxied, client)
	FLAG(ADMITTED, admitted, allowed)
	STRING(GREET, greet, session)
	STRING(BANNER, banner, timestamp)
	NUMBER(SIGN, sign, scheme, SIGN_SCHEME_COUNT - 1) NUMBER(SIGN, sign, length, SIGN_DATA_SIZE)
	NUMBER(SIGNATURE, signature, length, SIGNATURE_SIZE)
};

static bool
is_kept(const struct rule *r, const unsigned char *body)
{
	uint32_t number;

	if (r->size > 0)
		return memchr(body + r->at, '\0', r->size) != NULL;
	memcpy(&number, body + r->at, sizeof number);
	return number <= r->most;
}

static bool
body_sound(uint32_t type, const union message_body *b)
{
	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
		if (rules[i].type == type && !is_kept(&rules[i], (const unsigned char *)b))
			return false;
	/* what is not one number's affair */
	if (type == MESSAGE_ATTACH)
		return b->attach.side == SIDE_HASHER || b->attach.side == SIDE_PAM || b->attach.side == SIDE_KEEPER;
	if (type == MESSAGE_MEASURED)
		return b->measured.result < (b->measured.what == MEASURED_OPEN ? (uint32_t)OPENED_COUNT : 2);
	return type < MESSAGE_COUNT;
}

static bool
message_sendable(const struct message *m)
{
	if (m->header.magic != MESSAGE_MAGIC || m->header.type >= MESSAGE_COUNT)
		return false;
	for (size_t i = 0; i < MESSAGE_MAX_FDS; i++)
		if ((m->fds[i] != -1) != (i < roster[m->header.type].fds))
			return false;
	return body_sound(m->header.type, &m->body);
}

union control {
	struct cmsghdr header;
	/* Room for more than is ever allowed, so that a packet with too many is seen as such and not cut silently. */
	char room[CMSG_SPACE((MESSAGE_MAX_FDS + 2) * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
};

int
message_send(int fd, const struct message *m)
{
	if (!message_sendable(m)) {
		errno = EPROTO;
		return -1;
	}
	const struct roster_row *row = &roster[m->header.type];
	struct iovec parts[2] = {
		{ (void *)(uintptr_t)&m->header, sizeof m->header },
		{ (void *)(uintptr_t)&m->body, row->size },
	};
	struct msghdr packet = { .msg_iov = parts, .msg_iovlen = row->size > 0 ? 2 : 1 };
	union control control;
	if (row->fds > 0) {
		memset(&control, 0, sizeof control);
		packet.msg_control = &control;
		packet.msg_controllen = CMSG_SPACE(row->fds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&packet);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(row->fds * sizeof(int));
		memcpy(CMSG_DATA(c), m->fds, row->fds * sizeof(int));
	}
	ssize_t n;
	do
		n = sendmsg(fd, &packet, MSG_NOSIGNAL);
	while (n == -1 && errno == EINTR);
	return n == -1 ? -1 : 0;
}

/* Takes every descriptor out of the packet: the first ones into m->fds, any more are closed. Returns how many there were. */
static size_t
take_control(struct msghdr *packet, struct message *m)
{
	size_t count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(packet); c != NULL; c = CMSG_NXTHDR(packet, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			for (size_t i = 0; i < n; i++, count++) {
				int fd;
				memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
				if (count < MESSAGE_MAX_FDS)
					m->fds[count] = fd;
				else
					close(fd);
			}
		} else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
			struct ucred cred;
			memcpy(&cred, CMSG_DATA(c), sizeof cred);
			m->pid = cred.pid;
		}
	}
	return count;
}

static int
receive(int fd, struct message *m, enum side from, enum side to, int flags)
{
	union control control;
	struct iovec parts[2] = {
		{ &m->header, sizeof m->header },
		{ &m->body, sizeof m->body },
	};
	struct msghdr packet = {
		.msg_iov = parts, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control,
	};

	m->pid = 0;
	m->header.type = MESSAGE_COUNT;
	for (size_t i = 0; i < MESSAGE_MAX_FDS; i++)
		m->fds[i] = -1;
	ssize_t n = recvmsg(fd, &packet, MSG_CMSG_CLOEXEC | flags);
	if (n == -1)
		return -1;
	size_t fds = take_control(&packet, m);
	/* End of file and an empty packet look alike; either ends the conversation, and nothing else is in an empty packet. */
	if (n == 0 && fds == 0)
		return 0;
	uint32_t type = m->header.type;
	if ((packet.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 && (size_t)n >= sizeof m->header &&
	    m->header.magic == MESSAGE_MAGIC && type < MESSAGE_COUNT && roster[type].from == from && roster[type].to == to &&
	    (size_t)n == message_size(type) && fds == roster[type].fds && body_sound(type, &m->body))
		return 1;
	m->header.type = MESSAGE_COUNT;
	message_clear(m);
	errno = EPROTO;
	return -1;
}

int
message_receive(int fd, struct message *m, enum side from, enum side to)
{
	return receive(fd, m, from, to, 0);
}

int
message_receive_now(int fd, struct message *m, enum side from, enum side to)
{
	return receive(fd, m, from, to, MSG_DONTWAIT);
}

int
message_look(int fd, struct message *m, enum side from, enum side to)
{
	return receive(fd, m, from, to, MSG_DONTWAIT | MSG_PEEK);
}

int
message_pair(int pair[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

int
message_wait(int fd, int milliseconds)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n;

	do
		n = poll(&p, 1, milliseconds);
	while (n == -1 && errno == EINTR);
	return n;
}
