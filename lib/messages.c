/* Sending and receiving the messages of the roster: every check that makes one trustworthy is here. */
#include "messages.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sodium.h>
#include <stdbool.h>
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

static bool
ends(const char *string, size_t size)
{
	return memchr(string, '\0', size) != NULL;
}
#define ENDS(array) ends(array, sizeof(array))

static bool
hello_sound(const struct body_hello *h)
{
	return ENDS(h->session) && ENDS(h->client) && ENDS(h->local) && ENDS(h->tls_version) && ENDS(h->binding_type) &&
	    h->binding_length <= sizeof h->binding && h->has_certificate <= 1 && h->end_point_length <= sizeof h->end_point;
}

/* The strings of every body end in place, and its lengths stay inside. */
static bool
body_sound(uint32_t type, const union message_body *b)
{
	switch (type) {
	case MESSAGE_CONNECTION:
		return ENDS(b->connection.client) && ENDS(b->connection.local) && b->connection.verifier <= 1 &&
		    b->connection.implicit_tls <= 1 && b->connection.tls <= 1;
	case MESSAGE_HELLO:
		return hello_sound(&b->hello);
	case MESSAGE_LOGIN:
		return hello_sound(&b->login.hello) && b->login.mechanism < MECHANISM_COUNT && b->login.has_initial <= 1 &&
		    b->login.length <= LOGIN_SIZE;
	case MESSAGE_AUTH:
		return b->auth.mechanism < MECHANISM_COUNT && b->auth.has_initial <= 1 && b->auth.length <= SASL_SIZE;
	case MESSAGE_RESPOND:
		return b->respond.cancelled <= 1 && b->respond.length <= SASL_SIZE;
	case MESSAGE_CHALLENGE:
		return b->challenge.length <= CHALLENGE_SIZE;
	case MESSAGE_GRANTED:
		return ENDS(b->granted.user) && b->granted.no_delete <= 1;
	case MESSAGE_DENIED:
		return b->denied.denial < DENIED_COUNT && b->denied.last <= 1;
	case MESSAGE_OPEN:
		return ENDS(b->open.session) && ENDS(b->open.user) && ENDS(b->open.client) &&
		    b->open.store < STORE_COUNT && b->open.no_delete <= 1 && b->open.recent <= 1;
	case MESSAGE_CHANNEL:
		return ENDS(b->channel.session);
	case MESSAGE_REFUSED:
		return ENDS(b->refused.session) && b->refused.failure < FAILURE_COUNT;
	case MESSAGE_FAILED:
		return b->failed.failure < FAILURE_COUNT;
	case MESSAGE_UPDATE_FAILED:
		return b->update_failed.failure < FAILURE_COUNT;
	case MESSAGE_CLAIM:
		return b->claim.held <= 1;
	case MESSAGE_CLAIMED:
		return b->claimed.ended <= 1 && b->claimed.journal <= 1;
	case MESSAGE_PRIVILEGED:
		return b->privileged.what < PRIVILEGED_COUNT;
	case MESSAGE_DONE:
		return b->done.what < PRIVILEGED_COUNT;
	case MESSAGE_HASH:
		return ENDS(b->hash.hash) && ENDS(b->hash.password);
	case MESSAGE_HASHED:
		return b->hashed.verdict <= 1 && b->hashed.error <= 1;
	case MESSAGE_ATTEMPT:
		return ENDS(b->attempt.user) && ENDS(b->attempt.password) && ENDS(b->attempt.client);
	case MESSAGE_VERDICT:
		return ENDS(b->verdict.user) && b->verdict.denial <= DENIED_COUNT;
	case MESSAGE_ATTACH:
		return b->attach.side == SIDE_HASHER || b->attach.side == SIDE_PAM || b->attach.side == SIDE_KEEPER;
	case MESSAGE_HANDED:
		return b->handed.what < PRIVILEGED_COUNT;
	case MESSAGE_RESOLVED:
		return ENDS(b->resolved.user) && ENDS(b->resolved.mbox);
	case MESSAGE_MAILDROP:
		return ENDS(b->maildrop.path) && b->maildrop.kind < 2; /* enum maildrop_kind */
	case MESSAGE_SPOOL_COMMAND:
		return ENDS(b->spool_command.argument) && b->spool_command.command < SPOOL_COMMAND_COUNT;
	case MESSAGE_SPOOL_SESSION:
		return ENDS(b->spool_session.session) && ENDS(b->spool_session.user) && ENDS(b->spool_session.client) &&
		    ENDS(b->spool_session.path);
	case MESSAGE_SPOOL_CHANNEL:
		return ENDS(b->spool_channel.session);
	case MESSAGE_PROXIED:
		return ENDS(b->proxied.client);
	case MESSAGE_ADMITTED:
		return b->admitted.allowed <= 1;
	case MESSAGE_GREET:
		return ENDS(b->greet.session);
	case MESSAGE_BANNER:
		return ENDS(b->banner.timestamp);
	case MESSAGE_MAKE:
		return ENDS(b->make.like) && ENDS(b->make.password);
	case MESSAGE_MADE:
		return ENDS(b->made.hash);
	case MESSAGE_SIGN:
		return b->sign.scheme < SIGN_SCHEME_COUNT && b->sign.length <= SIGN_DATA_SIZE;
	case MESSAGE_REOPEN:
		return ENDS(b->reopen.session) && b->reopen.no_delete <= 1;
	case MESSAGE_SIGNATURE:
		return b->signature.length <= SIGNATURE_SIZE;
	case MESSAGE_SHOWN:
		return ENDS(b->shown.user) && ENDS(b->shown.path) && b->shown.failure <= FAILURE_COUNT && b->shown.store <= STORE_COUNT &&
		    b->shown.kind < 2 && b->shown.server_copy < 5;	/* enum maildrop_kind, enum server_copy */
	case MESSAGE_FETCH_AHEAD:
		return b->fetch_ahead.count <= FETCH_AHEAD_MAX;
	case MESSAGE_MEASURED:
		return b->measured.what < MEASURED_COUNT &&
		    b->measured.result < (b->measured.what == MEASURED_OPEN ? (uint32_t)OPENED_COUNT : 2);
	default:
		/* numbers only, any of which the receiver can bear */
		return type < MESSAGE_COUNT;
	}
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
