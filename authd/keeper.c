#include "keeper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "messages.h"
#include "sandbox.h"
#include "sign.h"
#include "system.h"

#define SPARE		64		/* conversations beyond what the configuration can make, for children that are just ending */
#define GRACE_MS	(30 * 1000)	/* beyond the time that a login may take */
#define LOOK_MS		(12 * 3600 * 1000)	/* between two looks at the dates */
#define SIGNATURES_MOST	1		/* a handshake needs one, and a connection has one handshake */

/* A conversation. In the list the oldest comes first. */
struct peer {
	struct source source;
	struct timer timer;
	struct peer *next, *before;
	pid_t pid;
	bool follows;
	unsigned signatures;
};

static struct {
	const struct conf *conf;
	const struct keys *keys;
	uid_t pop3d;
	struct source listener, control;
	struct timer look;
	struct peer *oldest, *newest;
	size_t count, most;
	bool retired;
} keeper;

static void
peer_end(struct peer *p)
{
	timer_clear(&p->timer);
	loop_close(&p->source);
	if (p->before != NULL)
		p->before->next = p->next;
	else
		keeper.oldest = p->next;
	if (p->next != NULL)
		p->next->before = p->before;
	else
		keeper.newest = p->before;
	keeper.count--;
	free(p);
	if (keeper.retired && keeper.count == 0)
		_exit(0);
}

static void
peer_misbehaved(struct peer *p, const char *how)
{
	log_begin(LOG_WARNING, "peer-cut-off");
	log_string("by", "keeper");
	log_number("pid", (uint64_t)p->pid);
	log_string("reason", how);
	log_end();
	peer_end(p);
}

/* Sends without waiting: who does not read what it asked for is cut off. */
static bool
peer_send(struct peer *p, const struct message *m)
{
	if (message_send(p->source.fd, m) == 0)
		return true;
	if (errno == EPIPE || errno == ECONNRESET)
		peer_end(p);
	else
		peer_misbehaved(p, "it does not read");
	return false;
}

static void
on_sign(struct peer *p, const struct message *m)
{
	static struct message reply;

	if (p->signatures == SIGNATURES_MOST) {
		peer_misbehaved(p, "a signature too many");
		return;
	}
	p->signatures++;
	message_start(&reply, MESSAGE_SIGNATURE);
	const char *wrong = sign(keeper.keys, &m->body.sign, &reply.body.signature);
	if (wrong != NULL)
		peer_misbehaved(p, wrong);
	else
		peer_send(p, &reply);
}

static void
on_follow(struct peer *p)
{
	if (p->follows || p->signatures > 0) {
		peer_misbehaved(p, "a message out of turn");
		return;
	}
	p->follows = true;
	timer_clear(&p->timer);
	if (keeper.retired)
		peer_end(p);
}

static void
on_peer(struct source *s)
{
	struct peer *p = owner_of(s, struct peer, source);
	static struct message m;
	int got = message_receive(s->fd, &m, SIDE_POP3D, SIDE_KEEPER);

	if (got == 1 && m.header.type == MESSAGE_FOLLOW)
		on_follow(p);
	else if (got == 1 && m.header.type == MESSAGE_SIGN && !p->follows)
		on_sign(p, &m);
	else if (got == 1)
		peer_misbehaved(p, "a message out of turn");
	else if (got == 0)
		peer_end(p);
	else if (errno == EPROTO)
		peer_misbehaved(p, "a packet that is no message");
	else if (errno != EAGAIN && errno != EINTR)
		peer_end(p);
}

static void
on_overdue(struct timer *t)
{
	peer_end(owner_of(t, struct peer, timer));
}

/* A conversation begins with the chains; all its messages are small, so the first always fits the socket. */
static void
peer_begin(int fd, pid_t pid)
{
	static struct message m;
	struct peer *p = calloc(1, sizeof *p);

	if (p == NULL) {
		close(fd);
		return;
	}
	*p = (struct peer){ .source = { fd, on_peer }, .timer = { .on_due = on_overdue }, .pid = pid, .before = keeper.newest };
	if (keeper.newest != NULL)
		keeper.newest->next = p;
	else
		keeper.oldest = p;
	keeper.newest = p;
	keeper.count++;
	if (loop_watch(&p->source) == -1 ||
	    timer_set(&p->timer, clock_ms() + (int64_t)keeper.conf->login_timeout * 1000 + GRACE_MS) == -1) {
		peer_end(p);
		return;
	}
	message_start(&m, MESSAGE_CHAINS);
	m.body.chains.generation = keeper.keys->generation;
	m.fds[0] = keeper.keys->chains;
	peer_send(p, &m);
}

/* Room for one more: whoever has been here longest without being asked to stay has had its time. */
static void
make_room(void)
{
	struct peer *p = keeper.oldest;

	while (p != NULL && p->follows)
		p = p->next;
	if (p != NULL)
		peer_misbehaved(p, "too many conversations, and it is the oldest");
}

static void
on_connection(struct source *s)
{
	uid_t uid;
	pid_t pid;

	if (keeper.count >= keeper.most)
		make_room();
	int fd = unix_accept(s->fd, &uid, &pid);
	if (fd == -1) {
		if (errno == EMFILE || errno == ENFILE)
			make_room();
		return;
	}
	if (uid == keeper.pop3d) {
		peer_begin(fd, pid);
		return;
	}
	log_text(LOG_WARNING, "uid %u (pid %ld) is not pop3d's, and is not served by the keeper", (unsigned)uid, (long)pid);
	close(fd);
}

/* The parent has another that serves. Who follows is sent to it; handshakes that are under way are still signed. */
static void
on_control(struct source *s)
{
	loop_close(s);
	loop_close(&keeper.listener);
	keeper.retired = true;
	if (keeper.count == 0)
		_exit(0);
	for (struct peer *p = keeper.oldest, *next; p != NULL; p = next) {
		next = p->next;
		if (p->follows)
			peer_end(p);
	}
}

static void
say(int level, const char *text)
{
	log_text(level, "%s", text);
}

static void
on_look(struct timer *t)
{
	struct findings f = { say, 0 };

	keys_say_expiry(keeper.keys, &f);
	timer_set(t, clock_ms() + LOOK_MS);
}

static void
log_certificates(const struct keys *k)
{
	char kind[32];

	for (uint32_t i = 0; i < k->count; i++) {
		log_begin(LOG_INFO, "certificate");
		log_string("file", k->pair[i].file);
		log_string("names", k->pair[i].names);
		log_string("key", keys_kind(&k->pair[i], kind, sizeof kind));
		log_number("days", k->pair[i].expires > time(NULL) ? (uint64_t)(k->pair[i].expires - time(NULL)) / 86400 : 0);
		log_end();
	}
}

/* Descriptors for as many conversations as there can be. */
static void
limits_fit(void)
{
	struct rlimit files;

	keeper.most = keeper.conf->max_connections + keeper.conf->prefork + SPARE;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
		if (files.rlim_max < keeper.most + 32)
			keeper.most = files.rlim_max > 64 ? files.rlim_max - 32 : 32;
	}
	if (mlockall(MCL_CURRENT) == -1)
		log_text(LOG_INFO, "the keeper's memory cannot be locked (%s): a host that swaps should have encrypted swap",
		    strerror(errno));
}

static bool
tell_parent(int control, const struct keys *k)
{
	static struct message m;

	message_start(&m, MESSAGE_KEPT);
	m.body.kept.pairs = k->count;
	return message_send(control, &m) == 0;
}

_Noreturn void
keeper_run(const struct conf *c, const struct keys *k, int listener, int control, uid_t pop3d)
{
	keeper.conf = c;
	keeper.keys = k;
	keeper.pop3d = pop3d;
	keeper.listener = (struct source){ listener, on_connection };
	keeper.control = (struct source){ control, on_control };
	keeper.look = (struct timer){ .on_due = on_look };
	limits_fit();
	log_certificates(k);
	if (loop_start() == -1 || loop_watch(&keeper.listener) == -1 || loop_watch(&keeper.control) == -1)
		fatal("the keeper cannot start: %s", strerror(errno));
	on_look(&keeper.look);
	sandbox_enter(CELL_KEEPER, c, NULL, 0);
	if (!tell_parent(control, k))
		_exit(0);
	for (;;)
		loop_turn();
}
