/*
 * The listener. It accepts, counts, and hands the connection to a child that was forked ahead; it never reads an octet from the
 * network, and keeps nothing of a connection but its address.
 */
#include "listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ask.h"
#include "credentials.h"
#include "crowd.h"
#include "log.h"
#include "sandbox.h"
#include "session.h"
#include "stream.h"
#include "system.h"

#define STOP_MS		(20 * 1000)	/* how long running sessions get after SIGTERM */
#define KEEPER_MS	1000		/* between two attempts to reach authd's keeper */
#define START_MS	2000		/* how long it may take to answer at start */
#define RESTART_MS	3000		/* for which connections wait when the keeper goes, or is not there yet: authd may just be started */
#define REST_MS		100		/* pause after an error that would come again at once */
#define REAP_MS		10		/* children that end are not looked at one by one, if other things are to be done meanwhile */
#define CALM_MS		10		/* without a connection, before processes are forked ahead again of many that are served */

#define EVENTS		16		/* taken at once */
#define NOBODY		UINT32_MAX

enum child_state {
	CHILD_IDLE,
	CHILD_ADMITTING,		/* its connection is a proxy's: PROXIED comes */
	CHILD_SERVING,			/* REACH may come, as long as it can */
};

struct child {
	pid_t pid;
	enum child_state state;
	int handover;			/* CONNECTION goes out here; -1: nothing more will be said */
	bool heard;			/* what comes from it is waited for */
	bool may_reach;
	uint32_t crowd;			/* its client's network, as max-per-address counts; CROWD_NONE while it has none */
	uint32_t next;			/* with the same chain of pids, or of those that are free */
};

/* What an event is of; in its lower half, which. */
enum { OF_SIGNALS, OF_ENDS, OF_KEEPER, OF_LISTENER, OF_CHILD };

static struct {
	struct conf *conf;
	struct listener *listeners;
	unsigned listener_count;
	struct child *children;
	uint32_t free;			/* the first that is */
	uint32_t *pids;			/* chains, by the lower bits of the pid */
	uint32_t pids_mask;
	uint32_t *waiting;		/* the idle ones, so many: */
	size_t idle;
	size_t count;			/* all */
	bool stopping;
	bool leaving;			/* and the sessions are not waited for: another listener takes the place of this one */
	int64_t rest_until;
	bool resting;			/* no connection is waited for */
	int64_t taken_at;		/* the last connection */
	int events, signals;
	int ends;			/* SIGCHLD alone, told of once until it is read */
	int64_t reap_at;		/* a child has ended: when to look for all at the latest; 0: none has */
	int keeper;			/* tells of the certificate chains, and by its end that they may have changed; -1: not there */
	int64_t keeper_again;		/* when to try to reach it */
	bool keeper_missed;		/* and it was said that it is not there */
} state = { .keeper = -1 };

static struct message message;		/* the one that is being made, or looked at */

static const char *
address_split(char *text, char **host, char **port)
{
	char *colon = strrchr(text, ':');

	if (colon == NULL || colon[1] == '\0')
		return "ADDRESS:PORT is accepted";
	*colon = '\0';
	*port = colon + 1;
	*host = text;
	size_t n = strlen(text);
	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		text[n - 1] = '\0';
		*host = text + 1;
	} else if (strchr(text, ':') != NULL)
		return "an IPv6 address stands in brackets, [ADDRESS]:PORT";
	if (strcmp(*host, "*") == 0)
		*host = NULL;
	return NULL;
}

/* A numeric address, or NULL for all. 0 if it is none. */
static socklen_t
address_make(char *host, uint16_t port, struct sockaddr_storage *sa)
{
	struct sockaddr_in *four = (struct sockaddr_in *)sa;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)sa;
	uint64_t scope = 0;

	*four = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
	if (host != NULL && inet_pton(AF_INET, host, &four->sin_addr) == 1)
		return sizeof *four;
	char *interface = host != NULL ? strchr(host, '%') : NULL;
	if (interface != NULL) {
		*interface++ = '\0';
		scope = if_nametoindex(interface);
		if (scope == 0 && number_parse(interface, 1, UINT32_MAX, &scope) != NULL)
			return 0;
	}
	*six = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_scope_id = (uint32_t)scope };
	return host == NULL || inet_pton(AF_INET6, host, &six->sin6_addr) == 1 ? sizeof *six : 0;
}

static int
socket_listen(const struct sockaddr_storage *sa, socklen_t size, bool all)
{
	int on = 1, off = 0, fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (all)	/* IPv4's too */
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	if (bind(fd, (const struct sockaddr *)sa, size) == 0 && listen(fd, SOMAXCONN) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

const char *
listener_bind(struct listener *l, const char *where, bool implicit_tls)
{
	static char wrong[256];
	char text[128], *host, *port;
	struct sockaddr_storage sa;
	const char *error;
	uint64_t number;
	socklen_t size;

	if (!string_copy(text, sizeof text, where))
		return "an address that long is not accepted";
	if ((error = address_split(text, &host, &port)) != NULL)
		return error;
	if (number_parse(port, 0, 65535, &number) != NULL || (size = address_make(host, (uint16_t)number, &sa)) == 0)
		return "a numeric address and a port from 0 to 65535 are accepted";
	l->fd = socket_listen(&sa, size, host == NULL);
	if (l->fd == -1 && host == NULL && errno == EAFNOSUPPORT) {	/* a host without IPv6 */
		size = address_make(strcpy(text, "0.0.0.0"), (uint16_t)number, &sa);
		l->fd = socket_listen(&sa, size, false);
	}
	if (l->fd == -1) {
		snprintf(wrong, sizeof wrong, "cannot listen on %s: %s", where, strerror(errno));
		return wrong;
	}
	l->implicit_tls = implicit_tls;
	return NULL;
}

/* Its own address, for the log and its connections. */
static void
listener_log(struct listener *l)
{
	struct sockaddr_storage sa;
	socklen_t size = sizeof sa;

	if (getsockname(l->fd, (struct sockaddr *)&sa, &size) == -1)
		return;
	address_of((struct sockaddr *)&sa, l->address, &l->port);
	l->any = strcmp(l->address, "0.0.0.0") == 0 || strcmp(l->address, "::") == 0;
	log_begin(LOG_INFO, "listening");
	log_string("address", l->address);
	log_number("port", l->port);
	log_string("tls", l->implicit_tls ? "yes" : "no");
	log_end();
}

/* What max-per-address counts as one: an IPv4 address, an IPv6 /64. */
static void
network_of_text(const char *address, char network[static ADDRESS_SIZE])
{
	struct in6_addr six;

	string_copy(network, ADDRESS_SIZE, address);
	if (inet_pton(AF_INET6, address, &six) != 1)
		return;
	memset(&six.s6_addr[8], 0, 8);
	inet_ntop(AF_INET6, &six, network, ADDRESS_SIZE);
}

static void
event_set(int operation, int fd, uint32_t events, uint32_t of, uint32_t which)
{
	struct epoll_event e = { .events = events, .data.u64 = (uint64_t)of << 32 | which };

	if (sandbox_call(SYS_epoll_ctl, state.events, operation, fd, (long)&e, 0) == -1)
		log_text(LOG_ERR, "descriptor %d cannot be waited for: %s", fd, strerror(errno));
}

/* Closing alone is not enough: what a child has inherited of it keeps its events alive. */
static void
keeper_drop(void)
{
	if (state.keeper != -1) {
		event_set(EPOLL_CTL_DEL, state.keeper, 0, OF_KEEPER, 0);
		close(state.keeper);
	}
	state.keeper = -1;
}

/* `given`, not received: then the listener's own descriptors are what the message names, the connection perhaps twice. */
static struct connection
connection_of(const struct message *m, int handover, bool given)
{
	const struct body_connection *b = &m->body.connection;
	struct connection c = { .in = m->fds[0], .out = m->fds[0], .authd = m->fds[1], .keeper = -1, .listener = handover,
		.implicit_tls = b->implicit_tls != 0, .tls = b->tls != 0, .client_port = b->client_port, .local_port = b->local_port };

	if (!b->verifier) {
		if (!given)
			close(c.authd);
		c.authd = -1;
	}
	memcpy(c.client, b->client, sizeof c.client);
	memcpy(c.local, b->local, sizeof c.local);
	return c;
}

/* Of all that the listener has open a child keeps its log and these; -1 is none. */
static void
close_all_but(int a, int b, int c)
{
	int kept[] = { a, b, c, log_descriptor() };
	unsigned low = 3;

	for (;;) {
		unsigned next = ~0u;
		for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
			if (kept[i] != -1 && (unsigned)kept[i] >= low && (unsigned)kept[i] < next)
				next = (unsigned)kept[i];
		if (next > low)
			close_range(low, next == ~0u ? next : next - 1, 0);
		if (next == ~0u)
			return;
		low = next + 1;
	}
}

static void
child_enter(const char *name)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	process_name(name);
	sandbox_enter(CELL_POP3D, state.conf, NULL, 0);
}

/* A child: waits for its connection, serves it, ends. It outlives the listener; while it is idle, the listener's end is its own. */
static _Noreturn void
child_wait(int handover)
{
	struct message *m = session_room();

	child_enter("pop3d-idle");
	close_all_but(handover, -1, -1);
	if (message_receive(handover, m, SIDE_LISTENER, SIDE_POP3D) != 1 || m->header.type != MESSAGE_CONNECTION)
		_exit(0);
	process_name("pop3d");
	struct connection c = connection_of(m, handover, false);
	session_run(state.conf, &c);
	_exit(0);
}

/* One that is forked for a connection, and has it from the beginning. */
static _Noreturn void
child_serve(const struct message *m, int handover)
{
	struct connection c = connection_of(m, handover, true);

	processor_stay();
	child_enter("pop3d");
	close_all_but(c.in, c.authd, handover);
	session_run(state.conf, &c);
	_exit(0);
}

static struct child *
child_add(pid_t pid, int handover)
{
	uint32_t slot = state.free, *chain = &state.pids[(uint32_t)pid & state.pids_mask];
	struct child *c = &state.children[slot];

	state.free = c->next;
	*c = (struct child){ .pid = pid, .handover = handover, .crowd = CROWD_NONE, .next = *chain };
	*chain = slot;
	state.count++;
	return c;
}

/*
 * For the connection of *m, or to wait for one if m is NULL. A process that waits is told by a message; so are those that are to say something
 * themselves (speaks); the others have no conversation with the listener at all. NULL: there is none (logged).
 */
static struct child *
child_fork(const struct message *m, bool speaks)
{
	int pair[2] = { -1, -1 };

	if (state.free == NOBODY)
		return NULL;
	if ((m == NULL || speaks) && sandbox_call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, (long)pair, 0) == -1) {
		log_text(LOG_ERR, "no socket for another process: %s", strerror(errno));
		return NULL;
	}
	pid_t pid = sandbox_fork(state.conf);
	if (pid == 0 && m == NULL)
		child_wait(pair[1]);
	if (pid == 0)
		child_serve(m, pair[1]);
	if (pid == -1)
		log_text(LOG_ERR, "no process for another connection: %s", strerror(errno));
	if (pair[1] != -1)
		close(pair[1]);
	if (pid != -1)
		return child_add(pid, pair[0]);
	if (pair[0] != -1)
		close(pair[0]);
	return NULL;
}

/*
 * Where more are served than wait in good times, and connections keep coming, the processors are busy, and a fork ahead comes no sooner than
 * one at need: that spares a socket pair, a message and a process that falls asleep in between.
 */
static bool
is_busy(void)
{
	return state.count - state.idle > state.conf->prefork && clock_ms() - state.taken_at < CALM_MS;
}

/* Forks until as many wait as the configuration wants, never more in all than may be. */
static void
children_ahead(void)
{
	while (!state.stopping && state.idle < state.conf->prefork && !is_busy() &&
	    state.count < state.conf->max_connections && clock_ms() >= state.rest_until) {
		struct child *c = child_fork(NULL, true);
		if (c != NULL)
			state.waiting[state.idle++] = (uint32_t)(c - state.children);
		else
			state.rest_until = clock_ms() + REST_MS;
	}
}

/* Nothing more is said to it, nor heard. */
static void
child_release(struct child *c)
{
	if (c->handover == -1)
		return;
	if (c->heard)
		event_set(EPOLL_CTL_DEL, c->handover, 0, OF_CHILD, 0);
	close(c->handover);
	c->handover = -1;
	c->heard = false;
}

/* What it says comes as events from now on. */
static void
child_hear(struct child *c)
{
	if (!c->heard)
		event_set(EPOLL_CTL_ADD, c->handover, EPOLLIN, OF_CHILD, (uint32_t)(c - state.children));
	c->heard = true;
}

/* They are to go, as what they were forked with is no longer what holds; others will be forked. */
static void
idle_release(void)
{
	heap_tidy();
	while (state.idle > 0) {
		struct child *c = &state.children[state.waiting[--state.idle]];
		c->state = CHILD_SERVING;
		child_release(c);	/* end of file: it goes */
	}
}

/*
 * The keeper is asked to say when it has other chains. Until it is there all is served without TLS. What it says is used by children forked afterwards.
 */
static void
keeper_seek(void)
{
	if (!credentials_configured(state.conf) || state.keeper != -1 || clock_ms() < state.keeper_again)
		return;
	state.keeper_again = clock_ms() + (state.resting ? REST_MS : KEEPER_MS);
	state.keeper = credentials_connect(state.conf, true);
	if (state.keeper != -1) {
		event_set(EPOLL_CTL_ADD, state.keeper, EPOLLIN, OF_KEEPER, 0);
		state.rest_until = 0;
	} else if (!state.keeper_missed) {
		log_text(LOG_ERR, "authd's keeper cannot be reached: %s; no TLS until it runs", strerror(errno));
		/* a service manager may start both at once */
		if (state.rest_until == 0)
			state.rest_until = clock_ms() + RESTART_MS;
		state.keeper_again = clock_ms() + REST_MS;
	}
	state.keeper_missed = state.keeper == -1;
}

/* It has said something, or is gone. Waiting children know the old chains: others take their place. */
static void
keeper_hear(int milliseconds)
{
	int news = state.keeper != -1 ? credentials_receive(state.keeper, milliseconds) : 0;

	if (news == -1) {
		keeper_drop();
		state.rest_until = clock_ms() + RESTART_MS;
	}
	if (news != 1)
		return;
	idle_release();
	log_begin(LOG_INFO, "certificates");
	log_end();
}

/* One that never had a connection is not to be forked again at once. */
static void
idle_forget(uint32_t slot)
{
	for (size_t i = 0; i < state.idle; i++)
		if (state.waiting[i] == slot)
			state.waiting[i] = state.waiting[--state.idle];
	state.rest_until = clock_ms() + REST_MS;
}

static void
child_ended(pid_t pid, int status)
{
	uint32_t *at = &state.pids[(uint32_t)pid & state.pids_mask];

	while (*at != NOBODY && state.children[*at].pid != pid)
		at = &state.children[*at].next;
	if (*at == NOBODY)
		return;
	uint32_t slot = *at;
	struct child *c = &state.children[slot];
	if (WIFSIGNALED(status) && !state.stopping)
		log_text(LOG_ERR, "a pop3d process (pid %ld) was killed by signal %d", (long)pid, WTERMSIG(status));
	if (c->state == CHILD_IDLE)
		idle_forget(slot);
	child_release(c);
	crowd_leave(c->crowd);
	*at = c->next;
	c->next = state.free;
	state.free = slot;
	state.count--;
}

/* The signal stays unread, so that of all that end until the next look there is no other. */
static void
child_told(void)
{
	if (state.reap_at == 0)
		state.reap_at = clock_ms() + (state.stopping ? 0 : REAP_MS);
}

static void
children_reap(void)
{
	int status;
	pid_t pid;

	while ((pid = (pid_t)sandbox_call(SYS_wait4, -1, (long)&status, WNOHANG, 0, 0)) > 0)
		child_ended(pid, status);
}

/* When its time has come. */
static void
children_look(void)
{
	struct signalfd_siginfo info;

	if (state.reap_at == 0 || clock_ms() < state.reap_at)
		return;
	state.reap_at = 0;
	if (read(state.ends, &info, sizeof info) == -1 && errno != EAGAIN)
		log_text(LOG_ERR, "children that end are not told of: %s", strerror(errno));
	children_reap();
}

static void
log_refused(const char *network, const char *limit)
{
	log_begin(LOG_WARNING, "refused");
	log_string("reason", limit);
	log_string("remote", network);
	log_end();
}

/* A client that cannot be served learns why, where that can be said in the clear. */
static void
turn_away(int fd, const struct listener *l, const char *network, const char *limit)
{
	static const char text[] = "-ERR [SYS/TEMP] too many connections, try again later\r\n";

	log_refused(network, limit);
	if (!l->implicit_tls && send(fd, text, sizeof text - 1, MSG_DONTWAIT | MSG_NOSIGNAL) == -1)
		log_text(LOG_DEBUG, "nothing could be said to it: %s", strerror(errno));
	close(fd);
}

static const char *
over_limit(const char *network, size_t served)
{
	if (served >= state.conf->max_connections)
		return "max-connections";
	return network[0] != '\0' && crowd_count(network) >= state.conf->max_per_address ? "max-per-address" : NULL;
}

/* Gives the connection to an idle child; NULL if there is none that takes it. */
static struct child *
hand_over(const struct message *m)
{
	while (state.idle > 0) {
		struct child *c = &state.children[state.waiting[--state.idle]];
		c->state = CHILD_SERVING;
		if (message_send(c->handover, m) == 0)
			return c;
		child_release(c);	/* it is dead, and will be reaped */
	}
	return NULL;
}

/* Is TLS to be had? The keeper may have been replaced a moment ago. */
static bool
tls_is_there(void)
{
	return credentials_configured(state.conf) && !state.keeper_missed;
}

/* A proxy's child knows its client: PROXIED is answered by ADMITTED, and counts from now on. */
static bool
admit(struct child *c, const char *client)
{
	struct message m;
	char network[ADDRESS_SIZE];

	network_of_text(client, network);
	const char *limit = over_limit(network, state.count - state.idle - 1);	/* it is one of them itself */
	message_start(&m, MESSAGE_ADMITTED);
	m.body.admitted.allowed = limit == NULL;
	if (limit == NULL)
		c->crowd = crowd_join(network);
	else
		log_refused(network, limit);
	c->state = CHILD_SERVING;
	if (message_send(c->handover, &m) == -1)
		log_text(LOG_DEBUG, "a child is gone before it was admitted");
	return limit == NULL;
}

/* For its handshake. What comes of it is the child's own conversation with the keeper. */
static void
reach(struct child *c)
{
	struct message m;
	int keeper = credentials_connect(state.conf, false);

	if (keeper == -1)
		return;
	message_start(&m, MESSAGE_REACHED);
	m.fds[0] = keeper;
	if (message_send(c->handover, &m) == -1)
		log_text(LOG_DEBUG, "a child is gone before it reached the keeper");
	close(keeper);
}

/* A child with a connection says something: what is due, or it is not heard any more. */
static void
child_speaks(struct child *c)
{
	struct message *m = &message;
	bool more = false;

	if (!c->heard)
		return;
	if (message_receive(c->handover, m, SIDE_POP3D, SIDE_LISTENER) == 1) {
		if (m->header.type == MESSAGE_PROXIED && c->state == CHILD_ADMITTING)
			more = admit(c, m->body.proxied.client) && c->may_reach;
		else if (m->header.type == MESSAGE_REACH && c->state == CHILD_SERVING && c->may_reach)
			reach(c);
	}
	if (!more)
		child_release(c);
}

/* The client's address and ours, and what is to be had here. */
static void
message_fill(struct message *m, int fd, const struct listener *l, const struct sockaddr *peer)
{
	struct body_connection *b = &m->body.connection;
	struct sockaddr_storage sa;
	socklen_t size = sizeof sa;

	message_start(m, MESSAGE_CONNECTION);
	address_of(peer, b->client, &b->client_port);
	memcpy(b->local, l->address, sizeof b->local);
	b->local_port = l->port;
	if (l->any && sandbox_call(SYS_getsockname, fd, (long)&sa, (long)&size, 0, 0) == 0)
		address_of((struct sockaddr *)&sa, b->local, &b->local_port);
	b->implicit_tls = l->implicit_tls;
	b->tls = tls_is_there();
	m->fds[0] = m->fds[1] = fd;
}

/* An idle child gets it, or one that is forked for it. A proxy's client counts once it is known. */
static bool
connection_give(struct message *m, const char *network, bool proxy)
{
	int authd = ask_connect(state.conf);

	m->body.connection.verifier = authd != -1;
	if (authd != -1)
		m->fds[1] = authd;
	bool speaks = proxy || m->body.connection.tls;
	struct child *c = hand_over(m);
	if (c == NULL)
		c = child_fork(m, speaks);
	if (authd != -1)
		close(authd);
	if (c == NULL)
		return false;
	c->state = proxy ? CHILD_ADMITTING : CHILD_SERVING;
	if (!proxy)
		c->crowd = crowd_join(network);
	c->may_reach = m->body.connection.tls;
	if (speaks)
		child_hear(c);
	else
		child_release(c);
	return true;
}

static void
connection_take(const struct listener *l)
{
	struct message *m = &message;
	struct sockaddr_storage sa = { 0 };
	socklen_t size = sizeof sa;
	char network[ADDRESS_SIZE];
	int fd = (int)sandbox_call(SYS_accept4, l->fd, (long)&sa, (long)&size, SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd == -1) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			log_text(LOG_ERR, "a connection has to wait: %s", strerror(errno));
			state.rest_until = clock_ms() + REST_MS;
		}
		return;
	}
	state.taken_at = clock_ms();
	message_fill(m, fd, l, (struct sockaddr *)&sa);
	network_of_text(m->body.connection.client, network);
	bool proxy = conf_in_networks(&state.conf->proxy_protocol_from, m->body.connection.client);
	const char *limit = over_limit(proxy ? "" : network, state.count - state.idle);
	if (limit == NULL && !connection_give(m, network, proxy))
		limit = "no-process";
	if (limit != NULL)
		turn_away(fd, l, network, limit);
	else
		close(fd);
}

/* SIGHUP: children forked from now on have the new configuration; a broken one changes nothing. */
static void
reload(void)
{
	static struct conf fresh;
	char error[1024], restart[256];
	int fd = (int)sandbox_call(SYS_openat, AT_FDCWD, (long)state.conf->file, O_RDONLY | O_CLOEXEC, 0, 0);

	if (conf_read(&fresh, state.conf->file, fd, true, error, sizeof error) == -1) {
		log_text(LOG_ERR, "%s; the configuration stays as it was", error);
		return;
	}
	conf_keep(&fresh, state.conf, PROGRAM_POP3D, restart, sizeof restart);
	*state.conf = fresh;
	log_level(state.conf->log_level);
	credentials_prepare(state.conf);
	state.keeper_again = 0;
	if (!credentials_configured(state.conf))
		keeper_drop();
	idle_release();
	log_begin(LOG_NOTICE, "reload");
	if (restart[0] != '\0')
		log_string("restart", restart);
	log_end();
}

static void
stop(void)
{
	notify_manager("STOPPING=1");
	log_begin(LOG_INFO, "stopping");
	log_number("sessions", state.count - state.idle);
	log_end();
	state.stopping = true;
	idle_release();
}

static void
on_signal(void)
{
	struct signalfd_siginfo info[4];
	ssize_t n;

	do {
		n = read(state.signals, info, sizeof info);
		for (size_t i = 0; n > 0 && i < (size_t)n / sizeof *info; i++) {
			if (info[i].ssi_signo == SIGHUP)
				reload();
			else {
				state.leaving = info[i].ssi_signo == SIGUSR2;
				if (!state.stopping)
					stop();
			}
		}
	} while (n == sizeof info);
}

static int
signals_open(const int *numbers, size_t count)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < count; i++)
		sigaddset(&set, numbers[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* It may still read its configuration. */
static void
confine(const struct conf *c)
{
	char folder[CONF_STRING];
	struct sandbox_path path = { .path = folder, .rights = SANDBOX_READ };

	string_copy(folder, sizeof folder, c->file);
	char *slash = strrchr(folder, '/');
	string_copy(slash != NULL ? slash + (slash == folder) : folder, 2, slash != NULL ? "" : ".");
	sandbox_enter(CELL_LISTENER, c, &path, 1);
}

/* While it rests connections wait in the kernel's queue. */
static void
rest(bool resting)
{
	if (resting != state.resting)
		for (uint32_t i = 0; i < state.listener_count; i++)
			event_set(EPOLL_CTL_MOD, state.listeners[i].fd, resting ? 0 : EPOLLIN, OF_LISTENER, i);
	state.resting = resting;
}

/* How long to wait at most, if it was to be so long. */
static int
turn_limit(int milliseconds)
{
	if (state.reap_at == 0)
		return milliseconds;
	int64_t left = state.reap_at - clock_ms();
	if (milliseconds != -1 && left > milliseconds)
		return milliseconds;
	return left > 0 ? (int)left : 0;
}

/*
 * Children that have ended are counted no more before anything else is done. Then what children say, and only then connections: what is taken
 * for one of these is not taken for what it was.
 */
static void
serve_events(const struct epoll_event *events, long n)
{
	long ends = 0;

	for (long i = 0; i < n; i++)
		if (events[i].data.u64 >> 32 == OF_ENDS) {
			child_told();
			ends++;
		}
	if (state.reap_at != 0 && n > ends)
		children_reap();
	for (long i = 0; i < n; i++) {
		if (events[i].data.u64 >> 32 == OF_KEEPER)
			keeper_hear(0);
		else if (events[i].data.u64 >> 32 == OF_CHILD)
			child_speaks(&state.children[(uint32_t)events[i].data.u64]);
	}
	for (long i = 0; i < n; i++)
		if (events[i].data.u64 >> 32 == OF_LISTENER)
			connection_take(&state.listeners[(uint32_t)events[i].data.u64]);
}

/* What there is within so many milliseconds, signals last. */
static void
turn(int milliseconds)
{
	struct epoll_event events[EVENTS];
	bool signalled = false;

	milliseconds = turn_limit(milliseconds);
#ifdef SYS_epoll_wait
	long n = sandbox_call(SYS_epoll_wait, state.events, (long)events, EVENTS, milliseconds, 0);
#else
	long n = sandbox_call(SYS_epoll_pwait, state.events, (long)events, EVENTS, milliseconds, 0);
#endif

	serve_events(events, n);
	for (long i = 0; i < n; i++)
		signalled = signalled || events[i].data.u64 >> 32 == OF_SIGNALS;
	children_look();
	if (signalled)
		on_signal();
}

static void
serve_once(void)
{
	keeper_seek();
	children_ahead();
	rest(clock_ms() < state.rest_until);
	bool seeking = credentials_configured(state.conf) && state.keeper == -1;
	bool fewer = state.idle < state.conf->prefork && is_busy();	/* than are to wait, when it is calm again */
	int fed = watchdog_feed(), most = fewer ? CALM_MS : state.resting ? REST_MS : seeking ? KEEPER_MS : -1;
	turn(most == -1 || (fed != -1 && fed < most) ? fed : most);
}

/* Until the running sessions are over, or their time is. With SIGUSR2 they stay when this process goes, and end by themselves. */
static void
wait_for_sessions(void)
{
	int64_t until = clock_ms() + STOP_MS, left;

	while (!state.leaving && state.count > 0 && (left = until - clock_ms()) > 0)
		turn((int)left);
	if (state.leaving)
		return;
	for (uint32_t i = 0; i <= state.pids_mask; i++)
		for (uint32_t at = state.pids[i]; at != NOBODY; at = state.children[at].next)
			(void)sandbox_call(SYS_kill, state.children[at].pid, SIGTERM, 0, 0, 0);
}

/* Tables for all children that there can be. The children themselves have no part in them. */
static bool
tables_make(uint32_t most)
{
	uint32_t chains = 16;

	while (chains < most)
		chains *= 2;
	state.children = memory_unforked(most * sizeof *state.children);
	state.waiting = memory_unforked(most * sizeof *state.waiting);
	state.pids = memory_unforked(chains * sizeof *state.pids);
	if (state.children == NULL || state.waiting == NULL || state.pids == NULL || crowd_start(most) == -1)
		return false;
	memset(state.pids, 0xff, chains * sizeof *state.pids);
	state.pids_mask = chains - 1;
	for (uint32_t i = 0; i < most; i++)
		state.children[i].next = i + 1 < most ? i + 1 : NOBODY;
	return true;
}

/* What a connection inherits of the socket that it came by need not be set for each. */
static void
listener_start(uint32_t i)
{
	struct listener *l = &state.listeners[i];

	fcntl(l->fd, F_SETFL, fcntl(l->fd, F_GETFL) | O_NONBLOCK);
	stream_options(l->fd);
	listener_log(l);
	event_set(EPOLL_CTL_ADD, l->fd, EPOLLIN, OF_LISTENER, i);
}

int
listener_run(struct conf *c, struct listener *listeners, unsigned count)
{
	state.conf = c;
	state.listeners = listeners;
	state.listener_count = count;
	state.signals = signals_open((const int[]){ SIGTERM, SIGINT, SIGHUP, SIGUSR2 }, 4);
	state.ends = signals_open((const int[]){ SIGCHLD }, 1);
	state.events = epoll_create1(EPOLL_CLOEXEC);
	if (state.signals == -1 || state.ends == -1 || state.events == -1 || !tables_make((uint32_t)(c->max_connections + c->prefork + 1)))
		fatal("cannot start: %s", strerror(errno));
	event_set(EPOLL_CTL_ADD, state.signals, EPOLLIN, OF_SIGNALS, 0);
	event_set(EPOLL_CTL_ADD, state.ends, EPOLLIN | EPOLLET, OF_ENDS, 0);
	for (uint32_t i = 0; i < count; i++)
		listener_start(i);
	credentials_prepare(c);
	keeper_seek();
	keeper_hear(START_MS);
	notify_prepare();
	confine(c);
	notify_manager("READY=1");
	heap_tidy();
	while (!state.stopping)
		serve_once();
	for (unsigned i = 0; i < count; i++) {
		event_set(EPOLL_CTL_DEL, listeners[i].fd, 0, OF_LISTENER, i);
		close(listeners[i].fd);
	}
	wait_for_sessions();
	return 0;
}
