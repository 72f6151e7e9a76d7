#include "peer.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "figures.h"
#include "grant.h"
#include "log.h"
#include "system.h"

#define HELLOS_MOST	2
#define AUTHS_MOST	20
#define ROW_HELLO	1	/* its place in the table */
#define ROW_AUTH	2
#define RESPONDS_MOST	80

static const struct conf *conf;
static struct peer *peers;
static size_t count, granted;	/* granted: of these, those that have logged in */

static void
peer_end(struct peer *p)
{
	login_abandon(&p->login);
	timer_clear(&p->timer);
	loop_close(&p->source);
	if (p->before != NULL)
		p->before->next = p->next;
	else
		peers = p->next;
	if (p->next != NULL)
		p->next->before = p->before;
	count--;
	if (p->granted)
		granted--;
	else
		figures_unused(p->said[ROW_AUTH] > 0);
	free(p);
}

/* A peer that does not take its answer is not waited for. */
static void
peer_send(struct peer *p, const struct message *m)
{
	if (message_send(p->source.fd, m) == -1)
		peer_end(p);
}

/* It did what pop3d never does: a line in the log, and the end of it. */
static void
peer_misbehaved(struct peer *p, const char *how)
{
	log_session(p->hello.session);
	log_text(LOG_WARNING, "a peer was cut off: %s", how);
	log_session(NULL);
	peer_end(p);
}

static bool
is_session_id(const char *id)
{
	return strlen(id) == SESSION_ID_SIZE - 1 && strspn(id, "0123456789abcdef") == SESSION_ID_SIZE - 1;
}

/* Logs of two sessions must not be taken for one, nor may spoold's answers: an id that is in use is not given again. */
static bool
is_taken(const char *session)
{
	for (const struct peer *p = peers; p != NULL; p = p->next)
		if (strcmp(p->hello.session, session) == 0)
			return true;
	return grant_pending(session);
}

/* False if the peer is gone for it. */
static bool
hello_take(struct peer *p, const struct body_hello *h)
{
	/* The second one is of the same session, after STLS. */
	bool again = p->phase == PEER_IDLE;

	if (!is_session_id(h->session) || (again ? strcmp(h->session, p->hello.session) != 0 : is_taken(h->session))) {
		peer_misbehaved(p, "a session id that is malformed or in use");
		return false;
	}
	p->hello = *h;
	p->phase = PEER_IDLE;
	return true;
}

static void
on_hello(struct peer *p, const struct message *m)
{
	(void)hello_take(p, &m->body.hello);
}

/*
 * What APOP signs. The name of the host is not looked up: it need only be unlike any other greeting's (RFC 1939 section
 * 7).
 */
static void
on_greet(struct peer *p, const struct message *m)
{
	static struct message reply;
	uint8_t random[16];
	char hex[33];

	(void)m;
	randombytes_buf(random, sizeof random);
	sodium_bin2hex(hex, sizeof hex, random, sizeof random);
	message_start(&reply, MESSAGE_BANNER);
	if (conf_has(&conf->mechanisms, MECHANISM_APOP))
		snprintf(p->timestamp, sizeof p->timestamp, "<%s@postern>", hex);
	string_copy(reply.body.banner.timestamp, sizeof reply.body.banner.timestamp, p->timestamp);
	peer_send(p, &reply);
}

static void
on_auth(struct peer *p, const struct message *m)
{
	const struct body_auth *a = &m->body.auth;

	p->phase = PEER_WORKING;
	login_begin(&p->login, a->mechanism, a->has_initial ? a->data : NULL, a->length);
}

/* HELLO and AUTH: it counts as either. */
static void
on_login(struct peer *p, const struct message *m)
{
	const struct body_login *b = &m->body.login;

	if (p->said[ROW_HELLO]++ >= HELLOS_MOST) {
		peer_misbehaved(p, "a message too often");
		return;
	}
	if (!hello_take(p, &b->hello))
		return;
	p->said[ROW_AUTH]++;
	p->phase = PEER_WORKING;
	login_begin(&p->login, b->mechanism, b->has_initial ? b->data : NULL, b->length);
}

static void
on_respond(struct peer *p, const struct message *m)
{
	p->phase = PEER_WORKING;
	login_respond(&p->login, &m->body.respond);
}

/* Who may say what, when and how often. What has no row is not allowed. */
static const struct row {
	uint32_t type;
	uint32_t phases;
	uint32_t budget;
	void (*on_message)(struct peer *p, const struct message *m);
} table[PEER_ROWS] = {
	{ MESSAGE_GREET,	1u << PEER_NEW,		1,		on_greet },
	[ROW_HELLO] =
	{ MESSAGE_HELLO,	1u << PEER_NEW | 1u << PEER_IDLE, HELLOS_MOST,	on_hello },
	[ROW_AUTH] =
	{ MESSAGE_AUTH,		1u << PEER_IDLE,	AUTHS_MOST,	on_auth },
	{ MESSAGE_RESPOND,	1u << PEER_EXCHANGE,	RESPONDS_MOST,	on_respond },
	{ MESSAGE_LOGIN,	1u << PEER_NEW | 1u << PEER_IDLE, HELLOS_MOST,	on_login },
};

static void
dispatch(struct peer *p, const struct message *m)
{
	for (size_t i = 0; i < PEER_ROWS; i++) {
		if (table[i].type != m->header.type)
			continue;
		if ((table[i].phases & (1u << p->phase)) == 0)
			peer_misbehaved(p, "a message out of turn");
		else if (p->said[i] == table[i].budget)
			peer_misbehaved(p, "a message too often");
		else {
			p->said[i]++;
			table[i].on_message(p, m);
		}
		return;
	}
	peer_misbehaved(p, "a message that is not for a peer");
}

static void
on_peer(struct source *s)
{
	struct peer *p = owner_of(s, struct peer, source);
	static struct message m;
	int got = message_receive(s->fd, &m, SIDE_POP3D, SIDE_VERIFIER);

	if (got == 1)
		dispatch(p, &m);
	else if (got == 0)
		peer_end(p);
	else if (errno == EPROTO)
		peer_misbehaved(p, "a packet that is no message");
	else if (errno != EAGAIN && errno != EINTR)
		peer_end(p);
	message_clear(&m);
}

static void
on_overdue(struct timer *t)
{
	peer_end(owner_of(t, struct peer, timer));
}

void
peers_start(const struct conf *c)
{
	conf = c;
}

size_t
peers_count(void)
{
	return count;
}

size_t
peers_waiting(void)
{
	return count - granted;
}

/* pop3d ends a connection that does not log in; this is for one that has been taken over, or that hangs. */
static int64_t
overdue(void)
{
	return clock_ms() + ((int64_t)conf->login_timeout + 60) * 1000;
}

void
peer_add(int fd)
{
	struct peer *p = count < conf->max_connections + 64 ? calloc(1, sizeof *p) : NULL;

	if (p == NULL) {
		log_text(LOG_WARNING, "too many connections to authd: one is closed");
		close(fd);
		return;
	}
	p->source = (struct source){ fd, on_peer };
	p->timer.on_due = on_overdue;
	p->next = peers;
	if (peers != NULL)
		peers->before = p;
	peers = p;
	count++;
	figures_connection();
	if (loop_watch(&p->source) == -1 || timer_set(&p->timer, overdue()) == -1)
		peer_end(p);
}

static struct peer *
peer_of(const struct login *l)
{
	return (struct peer *)(uintptr_t)((const char *)l - offsetof(struct peer, login));
}

const char *
peer_timestamp(const struct login *l)
{
	return peer_of(l)->timestamp;
}

const struct body_hello *
peer_hello(const struct login *l)
{
	return &peer_of(l)->hello;
}

void
peer_challenge(struct login *l, const uint8_t *data, uint32_t length)
{
	struct peer *p = peer_of(l);
	static struct message m;

	message_start(&m, MESSAGE_CHALLENGE);
	m.body.challenge.length = length;
	memcpy(m.body.challenge.data, data, length);
	p->phase = PEER_EXCHANGE;
	peer_send(p, &m);
}

void
peer_granted(struct login *l, int fd, const char *user, bool no_delete)
{
	struct peer *p = peer_of(l);
	static struct message m;

	message_start(&m, MESSAGE_GRANTED);
	string_copy(m.body.granted.user, sizeof m.body.granted.user, user);
	m.body.granted.no_delete = no_delete;
	m.fds[0] = fd;
	/* Another AUTH may follow if the worker says BUSY; a session that goes on for days need not hang up here. */
	p->phase = PEER_IDLE;
	timer_clear(&p->timer);
	granted += !p->granted;
	p->granted = true;
	peer_send(p, &m);
}

void
peer_denied(struct login *l, enum denial denial, uint32_t seconds)
{
	struct peer *p = peer_of(l);
	static struct message m;

	if (denial != DENIED_TEMPORARY && denial != DENIED_PERMANENT && denial != DENIED_DELAY)
		p->failures++;
	message_start(&m, MESSAGE_DENIED);
	m.body.denied.denial = denial;
	m.body.denied.seconds = seconds;
	m.body.denied.last = p->failures >= PEER_FAILURES || p->said[ROW_AUTH] == AUTHS_MOST;
	p->phase = m.body.denied.last ? PEER_DONE : PEER_IDLE;
	peer_send(p, &m);
}
