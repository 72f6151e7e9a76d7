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
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "credentials.h"
#include "log.h"
#include "sandbox.h"
#include "session.h"
#include "system.h"

#define STOP_MS		(20 * 1000)	/* how long running sessions get after SIGTERM */
#define KEEPER_MS	1000		/* between two attempts to reach authd's keeper */
#define START_MS	2000		/* how long it may take to answer at start */
#define REST_MS		100		/* pause after an error that would come again at once */

enum child_state { CHILD_IDLE, CHILD_ADMITTING, CHILD_SERVING };

struct child {
	pid_t pid;
	enum child_state state;
	int handover;			/* CONNECTION goes out here; with a proxy's, PROXIED comes in; -1 while serving */
	char network[ADDRESS_SIZE];	/* its client's, as max-per-address counts; "" while it is idle */
};

static struct {
	struct conf *conf;
	const struct listener *listeners;
	unsigned listener_count;
	struct child *children;
	size_t count;			/* all; the idle ones among them are `idle` */
	size_t idle;
	size_t admitting;		/* as many wait for ADMITTED */
	bool stopping;
	bool leaving;			/* and the sessions are not waited for: another listener takes the place of this one */
	int64_t rest_until;
	struct pollfd *poll;
	int keeper;			/* tells of the certificate chains, and by its end that they may have changed; -1: not there */
	int64_t keeper_again;		/* when to try to reach it */
	bool keeper_missed;		/* and it was said that it is not there */
} state = { .keeper = -1 };

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

static void
listener_log(const struct listener *l)
{
	struct sockaddr_storage sa;
	socklen_t size = sizeof sa;
	char address[ADDRESS_SIZE];
	uint32_t port;

	if (getsockname(l->fd, (struct sockaddr *)&sa, &size) == -1)
		return;
	address_of((struct sockaddr *)&sa, address, &port);
	log_begin(LOG_INFO, "listening");
	log_string("address", address);
	log_number("port", port);
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
keeper_drop(void)
{
	if (state.keeper != -1)
		close(state.keeper);
	state.keeper = -1;
}

/* A child: waits for its connection, serves it, ends. */
static _Noreturn void
child_run(int handover)
{
	struct message m;

	for (unsigned i = 0; i < state.listener_count; i++)
		close(state.listeners[i].fd);
	keeper_drop();
	for (size_t i = 0; i < state.count; i++)
		if (state.children[i].handover != -1)
			close(state.children[i].handover);
	prctl(PR_SET_PDEATHSIG, 0);	/* a listener that ends must not cut sessions; an idle child sees end of file */
	if (message_receive(handover, &m, SIDE_LISTENER, SIDE_POP3D) != 1)
		_exit(0);
	process_name("pop3d");
	session_run(state.conf, m.fds[0], m.fds[0], m.body.connection.implicit_tls != 0, handover);
	_exit(0);
}

static bool
child_fork(void)
{
	int pair[2];

	if (message_pair(pair) == -1) {
		log_text(LOG_ERR, "no socket for another process: %s", strerror(errno));
		return false;
	}
	pid_t pid = fork_named("pop3d-idle");
	if (pid == 0) {
		close(pair[0]);
		child_run(pair[1]);
	}
	close(pair[1]);
	if (pid == -1) {
		log_text(LOG_ERR, "no process for another connection: %s", strerror(errno));
		close(pair[0]);
		return false;
	}
	state.children[state.count++] = (struct child){ .pid = pid, .handover = pair[0] };
	state.idle++;
	return true;
}

/* Forks until as many wait as the configuration wants, never more in all than may be. */
static void
children_ahead(void)
{
	while (!state.stopping && state.idle < state.conf->prefork &&
	    state.count < state.conf->max_connections && clock_ms() >= state.rest_until)
		if (!child_fork())
			state.rest_until = clock_ms() + REST_MS;
}

/* It has its connection, or is to end: nothing more is said to it. */
static void
child_release(struct child *c)
{
	if (c->state == CHILD_SERVING)
		return;
	close(c->handover);
	c->handover = -1;
	if (c->state == CHILD_IDLE)
		state.idle--;
	else
		state.admitting--;
	c->state = CHILD_SERVING;
}

static void
idle_release(void)
{
	for (size_t i = 0; i < state.count; i++)
		if (state.children[i].state == CHILD_IDLE)
			child_release(&state.children[i]);	/* end of file: it goes */
}

/*
 * The keeper is asked to say when it has other chains. Until it is there all is served without TLS. What it says is used by children forked afterwards.
 */
static void
keeper_seek(void)
{
	if (!credentials_configured(state.conf) || state.keeper != -1 || clock_ms() < state.keeper_again)
		return;
	state.keeper_again = clock_ms() + KEEPER_MS;
	state.keeper = credentials_connect(state.conf, true);
	if (state.keeper == -1 && !state.keeper_missed)
		log_text(LOG_ERR, "authd's keeper cannot be reached: %s; no TLS until it runs", strerror(errno));
	state.keeper_missed = state.keeper == -1;
}

/* It has said something, or is gone. Waiting children know the old chains: others take their place. */
static void
keeper_hear(int milliseconds)
{
	int news = state.keeper != -1 ? credentials_receive(state.keeper, milliseconds) : 0;

	if (news == -1)
		keeper_drop();
	if (news != 1)
		return;
	idle_release();
	log_begin(LOG_INFO, "certificates");
	log_end();
}

static void
children_reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (size_t i = 0; i < state.count; i++) {
			if (state.children[i].pid != pid)
				continue;
			if (state.children[i].state == CHILD_IDLE)	/* it never had a connection: do not fork in a circle */
				state.rest_until = clock_ms() + REST_MS;
			if (WIFSIGNALED(status) && !state.stopping)
				log_text(LOG_ERR, "a pop3d process (pid %ld) was killed by signal %d", (long)pid, WTERMSIG(status));
			child_release(&state.children[i]);
			state.children[i] = state.children[--state.count];
			break;
		}
	}
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
over_limit(const char *network)
{
	size_t same = 0;

	if (state.count - state.idle >= state.conf->max_connections)
		return "max-connections";
	if (network[0] == '\0')
		return NULL;
	for (size_t i = 0; i < state.count; i++)
		same += strcmp(state.children[i].network, network) == 0;
	return same >= state.conf->max_per_address ? "max-per-address" : NULL;
}

/* Gives the connection to an idle child. False if there is none that takes it. A proxy's counts once its client is known. */
static bool
hand_over(int fd, const struct listener *l, const char *network, bool proxy)
{
	struct message m;

	message_start(&m, MESSAGE_CONNECTION);
	m.body.connection.implicit_tls = l->implicit_tls;
	m.fds[0] = fd;
	for (size_t i = 0; i < state.count; i++) {
		struct child *c = &state.children[i];
		if (c->state != CHILD_IDLE)
			continue;
		if (message_send(c->handover, &m) == -1) {
			child_release(c);	/* it is dead, and will be reaped */
			continue;
		}
		if (proxy) {
			state.idle--;
			state.admitting++;
			c->state = CHILD_ADMITTING;
		} else {
			child_release(c);
			string_copy(c->network, sizeof c->network, network);
		}
		return true;
	}
	return false;
}

/* A proxy's child knows its client: PROXIED is answered by ADMITTED, and counts from now on. */
static void
admit(struct child *c)
{
	struct message m;
	char network[ADDRESS_SIZE];

	if (message_receive(c->handover, &m, SIDE_POP3D, SIDE_LISTENER) == 1 && m.header.type == MESSAGE_PROXIED) {
		network_of_text(m.body.proxied.client, network);
		const char *limit = over_limit(network);
		message_start(&m, MESSAGE_ADMITTED);
		m.body.admitted.allowed = limit == NULL;
		if (limit == NULL)
			string_copy(c->network, sizeof c->network, network);
		else
			log_refused(network, limit);
		if (message_send(c->handover, &m) == -1)
			log_text(LOG_DEBUG, "a child is gone before it was admitted");
	}
	child_release(c);
}

static void
connection_take(const struct listener *l)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t size = sizeof sa;
	char address[ADDRESS_SIZE], network[ADDRESS_SIZE];
	uint32_t port;
	int fd = accept4(l->fd, (struct sockaddr *)&sa, &size, SOCK_CLOEXEC);

	if (fd == -1) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			log_text(LOG_ERR, "a connection has to wait: %s", strerror(errno));
			state.rest_until = clock_ms() + REST_MS;
		}
		return;
	}
	address_of((struct sockaddr *)&sa, address, &port);
	network_of_text(address, network);
	bool proxy = conf_in_networks(&state.conf->proxy_protocol_from, address);
	const char *limit = over_limit(proxy ? "" : network);
	if (limit != NULL) {
		turn_away(fd, l, network, limit);
		return;
	}
	if (!hand_over(fd, l, network, proxy) && !(child_fork() && hand_over(fd, l, network, proxy))) {
		turn_away(fd, l, network, "no-process");
		return;
	}
	close(fd);
}

/* SIGHUP: children forked from now on have the new configuration; a broken one changes nothing. */
static void
reload(void)
{
	static struct conf fresh;
	char error[1024], restart[256];

	if (conf_load(&fresh, state.conf->file, true, error, sizeof error) == -1) {
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
on_signal(int signals)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo == SIGCHLD)
			children_reap();
		else if (info.ssi_signo == SIGHUP)
			reload();
		else {
			state.leaving = info.ssi_signo == SIGUSR2;
			if (!state.stopping)
				stop();
		}
	}
}

static int
signals_open(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Until the running sessions are over, or their time is. With SIGUSR2 they stay when this process goes, and end by themselves. */
static void
wait_for_sessions(int signals)
{
	struct pollfd p = { .fd = signals, .events = POLLIN };
	int64_t until = clock_ms() + STOP_MS, left;

	while (!state.leaving && state.count > 0 && (left = until - clock_ms()) > 0)
		if (poll(&p, 1, (int)left) > 0)
			on_signal(signals);
	if (state.leaving)
		return;
	for (size_t i = 0; i < state.count; i++)
		kill(state.children[i].pid, SIGTERM);
}

/* It may still read its configuration, and fork children whose narrower filters are made here once. */
static void
confine(const struct conf *c)
{
	char folder[CONF_STRING];
	struct sandbox_path path = { .path = folder, .rights = SANDBOX_READ };

	string_copy(folder, sizeof folder, c->file);
	char *slash = strrchr(folder, '/');
	string_copy(slash != NULL ? slash + (slash == folder) : folder, 2, slash != NULL ? "" : ".");
	if (c->sandbox != SANDBOX_OFF && (sandbox_prepare(CELL_POP3D) == -1 || sandbox_prepare(CELL_SESSION) == -1))
		fatal("cannot start without its filters");
	sandbox_enter(CELL_LISTENER, c, &path, 1);
}

/* What to wait for: the signals first, then the keeper, then the listeners unless it rests, then the children whose clients are not admitted yet. */
static nfds_t
poll_fill(int signals, bool resting)
{
	struct pollfd *p = state.poll;
	nfds_t n = 0;

	p[n++] = (struct pollfd){ .fd = signals, .events = POLLIN };
	p[n++] = (struct pollfd){ .fd = state.keeper, .events = POLLIN };
	for (unsigned i = 0; i < state.listener_count; i++)	/* while it rests connections wait in the kernel's queue */
		p[n++] = (struct pollfd){ .fd = resting ? -1 : state.listeners[i].fd, .events = POLLIN };
	for (size_t i = 0; i < state.count && state.admitting > 0; i++)
		if (state.children[i].state == CHILD_ADMITTING)
			p[n++] = (struct pollfd){ .fd = state.children[i].handover, .events = POLLIN };
	return n;
}

static void
admit_by(int handover)
{
	for (size_t i = 0; i < state.count; i++)
		if (state.children[i].handover == handover) {
			admit(&state.children[i]);
			return;
		}
}

static void
serve_once(int signals)
{
	keeper_seek();
	children_ahead();
	bool resting = clock_ms() < state.rest_until, seeking = credentials_configured(state.conf) && state.keeper == -1;
	nfds_t n = poll_fill(signals, resting), first = 2 + state.listener_count;
	int fed = watchdog_feed(), most = resting ? REST_MS : seeking ? KEEPER_MS : -1;
	if (poll(state.poll, n, most == -1 || (fed != -1 && fed < most) ? fed : most) <= 0)
		return;
	for (nfds_t i = first; i < n; i++)
		if (state.poll[i].revents != 0)
			admit_by(state.poll[i].fd);
	if (state.poll[0].revents != 0)
		on_signal(signals);
	if (state.poll[1].revents != 0)
		keeper_hear(0);
	for (unsigned i = 0; i < state.listener_count && !state.stopping; i++)
		if (state.poll[2 + i].revents != 0)
			connection_take(&state.listeners[i]);
}

int
listener_run(struct conf *c, const struct listener *listeners, unsigned count)
{
	size_t children = c->max_connections + c->prefork + 1;
	int signals = signals_open();

	state.conf = c;
	state.listeners = listeners;
	state.listener_count = count;
	state.children = calloc(children, sizeof *state.children);
	state.poll = calloc(children + LISTENERS + 2, sizeof *state.poll);
	if (signals == -1 || state.children == NULL || state.poll == NULL)
		fatal("cannot start: %s", strerror(errno));
	for (unsigned i = 0; i < count; i++) {
		fcntl(listeners[i].fd, F_SETFL, fcntl(listeners[i].fd, F_GETFL) | O_NONBLOCK);
		listener_log(&listeners[i]);
	}
	credentials_prepare(c);
	keeper_seek();
	keeper_hear(START_MS);
	confine(c);
	notify_manager("READY=1");
	while (!state.stopping)
		serve_once(signals);
	for (unsigned i = 0; i < count; i++)
		close(listeners[i].fd);
	wait_for_sessions(signals);
	return 0;
}
