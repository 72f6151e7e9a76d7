/*
 * authd's parent. As root: makes the run directory and the socket, forks the verifier, the hashers and the PAM process,
 * starts anew whichever dies, and does nothing else. It reads no message of anybody: what pop3d says goes to the verifier
 * alone, which is not root.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "advice.h"
#include "cache.h"
#include "figures.h"
#include "hash.h"
#include "log.h"
#include "memory.h"
#include "messages.h"
#include "pam.h"
#include "privilege.h"
#include "renewal.h"
#include "sandbox.h"
#include "shared.h"
#include "system.h"
#include "throttle.h"
#include "verifier.h"
#include "wipe.h"

#define WORKERS_MOST	65	/* 64 hashers and PAM */
#define GENERATIONS	8	/* one that serves, and those that end after a reload */
#define TOO_SOON	1000	/* a child that lived for less is not started again before this has passed */

struct child {
	enum side side;
	pid_t pid;		/* 0: to be started */
	int64_t started, not_before;
};

/* A verifier and those who work for it. They start together and end together. */
struct generation {
	pid_t verifier;		/* 0: this place is free */
	int control;
	int64_t started;
	size_t workers;
	struct child worker[WORKERS_MOST];
};

/* Who the processes are to be; all found before the first is forked. */
struct people {
	bool root;
	uid_t uid;		/* the verifier's and the hashers' */
	gid_t gid;
	uid_t pop3d;		/* who may ask */
};

static struct conf conf;
static struct options options;
static struct people people;
static struct generation generations[GENERATIONS], *current;
static int64_t verifier_not_before;
static int listener = -1, tools = -1;	/* authd.sock and authd.ctl */

static void
harden(void)
{
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
}

/* For all children, which lock what they have once they are no longer root. */
static void
unlimit_locking(void)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY }, now;

	if (people.root)
		setrlimit(RLIMIT_MEMLOCK, &all);
	if (getrlimit(RLIMIT_MEMLOCK, &now) == 0 && now.rlim_cur != RLIM_INFINITY)
		log_text(LOG_WARNING, "memory is not locked: what libraries copy of a password may reach a swap device; "
		    "start authd as root, or without a limit (LimitMEMLOCK=infinity)");
}

/* The child's first steps: nothing of the parent's stays open, and root goes for good where it is not needed. */
static void
child_begin(bool keep_listener, bool keep_root)
{
	for (size_t i = 0; i < GENERATIONS; i++)
		if (generations[i].verifier != 0)
			close(generations[i].control);
	if (!keep_listener) {
		close(listener);
		close(tools);
		shared_drop();
	}
	renewal_forget();
	/* hashers and the keeper open nothing more; the verifier does, and Landlock knows what */
	if (people.root && !keep_root && !keep_listener)
		sandbox_empty_root(&conf);
	if (people.root && !keep_root && privilege_drop(people.uid, people.gid) == -1)
		fatal("cannot become uid %u, gid %u for good: %s", (unsigned)people.uid, (unsigned)people.gid, strerror(errno));
	/* A change of user takes both of these back. */
	harden();
	if (!wipe_lock())
		log_text(LOG_WARNING, "memory could not be locked: %s", strerror(errno));
	prctl(PR_SET_PDEATHSIG, SIGTERM);
}

/* The keeper's, once it has read the keys. */
static void
keeper_begin(void)
{
	child_begin(false, false);
}

static _Noreturn void
worker_main(enum side side, int channel)
{
	child_begin(false, side == SIDE_PAM);
	if (side == SIDE_PAM) {
		sandbox_enter(CELL_PAM, &conf, NULL, 0);
		pam_run(&conf, channel);
	}
	hash_limit();
	sandbox_enter(CELL_HASHER, &conf, NULL, 0);
	hasher_run(channel);
}

/* Tells the verifier of a worker; its end of the channel goes along. */
static int
attach(int control, enum side side, int end)
{
	static struct message m;

	message_start(&m, MESSAGE_ATTACH);
	m.body.attach.side = side;
	m.fds[0] = end;
	int result = message_send(control, &m);
	m.fds[0] = -1;
	return result;
}

static void
worker_start(struct generation *g, struct child *w)
{
	int pair[2];

	w->started = clock_ms();
	w->not_before = w->started + TOO_SOON;
	if (message_pair(pair) == -1) {
		log_text(LOG_ERR, "no channel to a new process: %s", strerror(errno));
		return;
	}
	pid_t pid = fork_named(w->side == SIDE_PAM ? "authd: pam" : "authd: hasher");
	if (pid == 0) {
		close(pair[1]);
		worker_main(w->side, pair[0]);
	}
	close(pair[0]);
	if (pid == -1)
		log_text(LOG_ERR, "no new process: %s", strerror(errno));
	else if (attach(g->control, w->side, pair[1]) == -1)
		log_text(LOG_WARNING, "the verifier cannot be told of a new process: %s", strerror(errno));
	close(pair[1]);
	w->pid = pid == -1 ? 0 : pid;
}

static struct generation *
generation_free(void)
{
	for (size_t i = 0; i < GENERATIONS; i++)
		if (generations[i].verifier == 0)
			return &generations[i];
	return NULL;
}

static void
workers_plan(struct generation *g)
{
	uint64_t hashers = conf.hashers;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (hashers == 0)
		hashers = cores < 1 ? 1 : cores > 64 ? 64 : (uint64_t)cores;
	for (uint64_t i = 0; i < hashers; i++)
		g->worker[g->workers++] = (struct child){ .side = SIDE_HASHER };
	if (conf_has(&conf.stores, STORE_PAM))
		g->worker[g->workers++] = (struct child){ .side = SIDE_PAM };
}

/* Starts a verifier with all that works for it, and makes it the one that serves. -1 with the reason logged. */
static int
generation_start(void)
{
	struct generation *g = generation_free();
	int pair[2];

	verifier_not_before = clock_ms() + TOO_SOON;
	if (g == NULL || message_pair(pair) == -1) {
		log_text(LOG_ERR, "no new verifier: %s", g == NULL ? "too many old ones are still ending" : strerror(errno));
		return -1;
	}
	pid_t pid = fork_named("authd: verifier");
	if (pid == 0) {
		close(pair[1]);
		child_begin(true, false);
		verifier_run(&conf, listener, tools, pair[0], people.pop3d);
	}
	close(pair[0]);
	if (pid == -1) {
		log_text(LOG_ERR, "no new verifier: %s", strerror(errno));
		close(pair[1]);
		return -1;
	}
	*g = (struct generation){ .verifier = pid, .control = pair[1], .started = clock_ms() };
	workers_plan(g);
	for (size_t i = 0; i < g->workers; i++)
		worker_start(g, &g->worker[i]);
	current = g;
	return 0;
}

static void
log_death(const char *what, pid_t pid, int status)
{
	log_begin(LOG_WARNING, "child-died");
	log_string("process", what);
	log_number("pid", (uint64_t)pid);
	if (WIFSIGNALED(status))
		log_number("signal", (uint64_t)WTERMSIG(status));
	else
		log_number("status", (uint64_t)WEXITSTATUS(status));
	log_end();
}

/* Without their verifier the workers have nothing to do: they end when its side of their channels is gone. */
static void
verifier_died(struct generation *g, int status)
{
	if (g == current) {
		log_death("verifier", g->verifier, status);
		current = NULL;
		if (clock_ms() - g->started >= TOO_SOON)
			verifier_not_before = 0;
	}
	close(g->control);
	g->verifier = 0;
}

static void
on_death(pid_t pid, int status)
{
	for (size_t i = 0; i < GENERATIONS; i++) {
		struct generation *g = &generations[i];
		if (g->verifier == 0)
			continue;
		if (g->verifier == pid) {
			verifier_died(g, status);
			return;
		}
		for (size_t j = 0; j < g->workers; j++)
			if (g->worker[j].pid == pid) {
				g->worker[j].pid = 0;
				log_death(g->worker[j].side == SIDE_PAM ? "pam" : "hasher", pid, status);
				return;
			}
	}
}

static void
reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (!renewal_died(pid, status))
			on_death(pid, status);
}

/* Starts what is missing and may be started by now. Returns whether something has to wait. */
static bool
revive(void)
{
	int64_t now = clock_ms();
	bool waiting = false;

	if (current == NULL && (now < verifier_not_before || generation_start() == -1))
		return true;
	for (size_t i = 0; i < GENERATIONS; i++) {
		struct generation *g = &generations[i];
		for (size_t j = 0; g->verifier != 0 && j < g->workers; j++) {
			struct child *w = &g->worker[j];
			if (w->pid == 0 && now >= w->not_before)
				worker_start(g, w);
			waiting = waiting || w->pid == 0;
		}
	}
	return waiting;
}

/* The old verifier serves out those it has; what cannot change without a restart is said. */
static void
reload(void)
{
	static struct conf fresh;
	char error[1024], restart[256];

	if (conf_load(&fresh, options.config, !options.config_given, error, sizeof error) == -1) {
		log_text(LOG_ERR, "not reloaded: %s", error);
		return;
	}
	conf_keep(&fresh, &conf, PROGRAM_AUTHD, restart, sizeof restart);
	if (conf_has(&fresh.stores, STORE_PAM) && !conf_has(&conf.stores, STORE_PAM)) {
		log_text(LOG_WARNING, "stores: pam takes effect at the next start: this process has given up what PAM may need");
		fresh.stores = conf.stores;
		size_t used = strlen(restart);
		snprintf(restart + used, sizeof restart - used, "%s[authd] stores", used > 0 ? ", " : "");
	}
	struct generation *old = current;
	struct conf before = conf;
	conf = fresh;
	log_level(conf.log_level);
	if (generation_start() == -1) {
		conf = before;
		renewal_reload();	/* certificates and keys do not wait for that */
		return;
	}
	if (old != NULL)
		kill(old->verifier, SIGHUP);
	renewal_reload();
	log_begin(LOG_NOTICE, "reload");
	if (restart[0] != '\0')
		log_string("restart", restart);
	log_end();
}

/* The verifier writes down what it remembers before it ends; nobody is waited for longer than this. */
#define STOP_MS		3000

static void
stop_wait(void)
{
	const int64_t until = clock_ms() + STOP_MS;
	const struct timespec moment = { 0, 50000000 };
	sigset_t death;

	sigemptyset(&death);
	sigaddset(&death, SIGCHLD);
	while (clock_ms() < until) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);
		if (pid == -1)
			return;		/* no child is left */
		if (pid == 0)
			sigtimedwait(&death, NULL, &moment);
	}
}

static _Noreturn void
stop(void)
{
	char path[CONF_STRING + 16];

	notify_manager("STOPPING=1");
	for (size_t i = 0; i < GENERATIONS; i++) {
		struct generation *g = &generations[i];
		if (g->verifier == 0)
			continue;
		kill(g->verifier, SIGTERM);
		for (size_t j = 0; j < g->workers; j++)
			if (g->worker[j].pid > 0)
				kill(g->worker[j].pid, SIGTERM);
	}
	renewal_stop();
	if (conf_run_path(&conf, "authd.sock", path, sizeof path) == 0)
		unlink(path);
	if (conf_run_path(&conf, "authd.ctl", path, sizeof path) == 0)
		unlink(path);
	stop_wait();
	log_text(LOG_INFO, "stopped");
	exit(0);
}

/* A directory that others may not write to, made if it is not there. */
static void
directory_make(const char *path, mode_t mode)
{
	struct stat st;

	if (mkdir(path, mode) == 0)
		chmod(path, mode);
	else if (errno != EEXIST)
		fatal("%s: cannot be made: %s", path, strerror(errno));
	if (lstat(path, &st) == -1 || !S_ISDIR(st.st_mode))
		fatal("%s: is not a directory", path);
	if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		fatal("%s: belongs to uid %u and has mode %o; accepted: root's or this process's own, writable by no other", path,
		    (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
}

/* The ids of an account that is not root's. */
static bool
account_find_ids(const char *name, uid_t *uid, gid_t *gid)
{
	const struct passwd *pw = getpwnam(name);

	if (pw == NULL || pw->pw_uid == 0 || pw->pw_gid == 0)
		return false;
	*uid = pw->pw_uid;
	*gid = pw->pw_gid;
	return true;
}

static void
people_find(void)
{
	char place[CONF_PLACE];
	gid_t gid;

	people.root = privilege_is_root();
	people.uid = geteuid();
	people.gid = getegid();
	people.pop3d = geteuid();
	if (!people.root) {
		log_text(LOG_WARNING, "not root: all processes of authd run as uid %u and are not protected from each other by the "
		    "system's users%s", (unsigned)people.uid,
		    conf_has(&conf.stores, STORE_PAM) ? "; PAM may know only this user's password" : "");
		return;
	}
	if (!account_find_ids(conf.authd_user, &people.uid, &people.gid))
		fatal("%s: there is no account %s that is not root; accepted: the name of an account",
		    conf_place(&conf, "authd", "user", place, sizeof place), conf.authd_user);
	if (!account_find_ids(conf.pop3d_user, &people.pop3d, &gid))
		fatal("%s: there is no account %s that is not root; accepted: the name of an account",
		    conf_place(&conf, "pop3d", "user", place, sizeof place), conf.pop3d_user);
}

/* Where the verifier keeps what it remembers; it alone may read it. */
static void
state_start(void)
{
	char path[CONF_STRING + 16];
	struct stat st;

	directory_make(conf.state_dir, 0755);
	if (memory_directory(&conf, path, sizeof path) == -1)
		fatal("state-dir: %s", strerror(errno));
	if (mkdir(path, 0700) == -1 && errno != EEXIST)
		fatal("%s: cannot be made: %s", path, strerror(errno));
	/* root follows no link here: the directory above is nobody else's to write */
	if (lstat(path, &st) == -1 || !S_ISDIR(st.st_mode))
		fatal("%s: is not a directory", path);
	if (st.st_uid != people.uid && lchown(path, people.uid, people.gid) == -1)
		fatal("%s: cannot be given to uid %u: %s", path, (unsigned)people.uid, strerror(errno));
}

static void
listen_start(void)
{
	char path[CONF_STRING + 16];

	directory_make(conf.run_dir, 0755);
	if (conf_run_path(&conf, "authd.sock", path, sizeof path) == -1)
		fatal("run-dir: %s", strerror(errno));
	listener = unix_listen(path, 0666, 512);
	if (listener == -1)
		fatal("%s: cannot be served: %s", path, strerror(errno));
	if (conf_run_path(&conf, "authd.ctl", path, sizeof path) == -1 || (tools = unix_listen(path, 0600, 16)) == -1)
		fatal("%s: cannot be served: %s", path, strerror(errno));
}

static const char *
on_option(int option, const char *argument)
{
	(void)option;
	(void)argument;
	return "no such option";
}

/* It reads its configuration and the keys again, wherever they are, and writes only beneath its own two directories. */
static void
confine(void)
{
	const struct sandbox_path paths[] = {
		{ .path = "/", .rights = SANDBOX_READ },
		{ .path = conf.run_dir, .rights = SANDBOX_WRITE | SANDBOX_SOCKET },
		{ .path = conf.state_dir, .rights = SANDBOX_WRITE },
	};

	sandbox_enter(CELL_AUTHD, &conf, paths, sizeof paths / sizeof paths[0]);
}

static _Noreturn void
supervise(const sigset_t *signals)
{
	bool waiting = false;

	for (;;) {
		int most = watchdog_feed();
		if (waiting && (most == -1 || most > 200))
			most = 200;
		struct timespec moment = { most / 1000, most % 1000 * 1000000 };
		int got = most != -1 ? sigtimedwait(signals, NULL, &moment) : sigwaitinfo(signals, NULL);
		if (got == SIGTERM || got == SIGINT)
			stop();
		if (got == SIGHUP)
			reload();
		reap();
		waiting = revive();
		waiting = renewal_turn() || waiting;
	}
}

/* The one of the daemons that does not start without the accounts. */
static void
advise(const struct advice *a)
{
	advice_accounts(a);
	advice_installed(a);
}

int
main(int argc, char **argv)
{
	sigset_t signals;

	descriptors_sane();
	log_start("authd");
	options_on_test(renewal_check);
	options_on_advice(advise);
	options_parse(argc, argv, "authd [-tVh] [-c FILE]", "", on_option, &options, &conf);
	if (sodium_init() == -1 || !wipe_is_linked)
		fatal("libsodium cannot be used");
	log_open(&conf, -1);
	if (chdir("/") == -1)
		fatal("/: %s", strerror(errno));
	umask(022);
	harden();
	sandbox_check(&conf);
	people_find();
	state_start();
	listen_start();
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGIO);	/* renewal_turn has something to do */
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	unlimit_locking();
	figures_make();
	throttle_make();
	cache_make();
	if (generation_start() == -1)
		fatal("authd cannot start");
	renewal_start(&conf, people.pop3d, keeper_begin);
	confine();
	log_text(LOG_INFO, "ready");
	notify_manager("READY=1");
	supervise(&signals);
}
