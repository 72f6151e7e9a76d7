#include "verifier.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"
#include "figures.h"
#include "grant.h"
#include "log.h"
#include "login.h"
#include "loop.h"
#include "memory.h"
#include "peer.h"
#include "sandbox.h"
#include "sasl.h"
#include "system.h"
#include "throttle.h"
#include "vouch.h"

/* After a reload another verifier takes what is new; this one serves what it has for so long at most. */
#define DRAIN_MS	180000

/* How often what is remembered of users goes to the disk. */
#define SYNC_MS		10000

static struct source listener, control;
static struct timer sync_timer;
static uid_t pop3d_uid;
static volatile sig_atomic_t hangup, terminated;

static void
on_signal(int signal)
{
	if (signal == SIGHUP)
		hangup = 1;
	else
		terminated = 1;
}

static void
on_listener(struct source *s)
{
	uid_t uid;
	pid_t pid;

	/* The signal and the connection may come at once: then this is for the next verifier, which has the new configuration. */
	if (hangup || terminated)
		return;
	int fd = unix_accept(s->fd, &uid, &pid);

	if (fd == -1) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			log_text(LOG_WARNING, "a connection could not be accepted: %s", strerror(errno));
		return;
	}
	if (uid == pop3d_uid || uid == geteuid() || uid == 0) {
		peer_add(fd);
		return;
	}
	log_begin(LOG_WARNING, "peer-refused");
	log_number("uid", uid);
	log_number("pid", (uint64_t)pid);
	log_end();
	close(fd);
}

/* The parent hands over channels; without it there is nobody to supervise, and nothing to serve. */
static void
on_control(struct source *s)
{
	static struct message m;
	int got = message_receive(s->fd, &m, SIDE_AUTHD, SIDE_VERIFIER);

	if (got == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got != 1) {
		throttle_save();
		memory_end();
		_exit(0);
	}
	workers_attach(m.body.attach.side, m.fds[0]);
	m.fds[0] = -1;
}

static size_t
rooms(const struct conf *c)
{
	return c->max_connections < 64 ? 64 : c->max_connections > 2048 ? 2048 : c->max_connections;
}

static void
confine(const struct conf *c)
{
	char directory[CONF_STRING];

	/* users.db is replaced by renaming: it is its directory that must stay in reach */
	string_copy(directory, sizeof directory, c->db);
	char *slash = strrchr(directory, '/');
	slash[slash == directory ? 1 : 0] = '\0';
	char own[CONF_STRING + 16];
	if (memory_directory(c, own, sizeof own) == -1)
		fatal("state-dir: %s", strerror(errno));
	const struct sandbox_path paths[] = {
		{ .path = directory, .rights = SANDBOX_READ },
		{ .path = c->run_dir, .rights = SANDBOX_READ },
		{ .path = own, .rights = SANDBOX_READ | SANDBOX_WRITE },
	};
	sandbox_enter(CELL_VERIFIER, c, paths, sizeof paths / sizeof paths[0]);
}

static void
on_sync(struct timer *t)
{
	memory_sync();
	throttle_save();
	timer_set(t, clock_ms() + SYNC_MS);
}

/* The next verifier writes the files from now on. */
static void
drain(void)
{
	loop_close(&listener);
	figures_retire();
	timer_clear(&sync_timer);
	memory_end();
	for (int64_t until = clock_ms() + DRAIN_MS; peers_count() > 0 && clock_ms() < until && !terminated;)
		loop_turn();
}

void
verifier_run(const struct conf *c, int listen_fd, int tools_fd, int control_fd, uid_t pop3d)
{
	struct sigaction action = { .sa_handler = on_signal };	/* without SA_RESTART: it must wake the loop */

	listener = (struct source){ listen_fd, on_listener };
	control = (struct source){ control_fd, on_control };
	pop3d_uid = pop3d;
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	throttle_start(c);
	cache_start(c->cache_ttl);
	sasl_start(c);
	memory_start(c);
	vouch_start(c);
	login_start(c, rooms(c));
	peers_start(c);
	grant_start(c);
	if (loop_start() == -1 || loop_watch(&listener) == -1 || loop_watch(&control) == -1 || figures_serve(c, tools_fd) == -1)
		fatal("the event loop could not be started: %s", strerror(errno));
	sync_timer.on_due = on_sync;
	timer_set(&sync_timer, clock_ms() + 1000);	/* if the verifier before this one has not closed the memory yet */
	confine(c);
	while (!hangup && !terminated)
		loop_turn();
	if (hangup && !terminated)
		drain();
	else
		throttle_save();
	memory_end();
	_exit(0);
}
