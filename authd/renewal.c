/* Keepers come and go; see renewal.h. */
#include "renewal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper.h"
#include "log.h"
#include "messages.h"
#include "system.h"

#define KEEPERS		8		/* one that serves, one that is starting, and those that end */
#define START_MS	30000		/* to read the keys; they may be on a network */
#define QUIET_MS	1000		/* certificate and key are written one after the other */
#define TOO_SOON	1000		/* one that lived for less is not started again before this has passed */
#define AGAIN_MS	60000		/* after the files could not be loaded and nothing serves */
#define BACKLOG		1024
#define CHANGES		(IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)

enum stage { STAGE_FREE, STAGE_STARTING, STAGE_SERVING, STAGE_RETIRED };

struct keeper_process {
	enum stage stage;
	pid_t pid;
	int control;		/* -1 when retired */
	int64_t started;
};

static struct {
	const struct conf *conf;
	uid_t pop3d;
	void (*become)(void);
	struct keeper_process keeper[KEEPERS];
	int listener, watch;
	int64_t changed;	/* when a watched folder last changed; 0: not since it was looked at */
	int64_t again;		/* when to start one because none serves; 0: no need */
	uint8_t seen[crypto_generichash_BYTES];		/* the files as they were when they were last loaded */
} renewal = { .listener = -1, .watch = -1 };

static bool
configured(void)
{
	return renewal.conf->certificate.count > 0;
}

static void
close_fd(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

static const char *
file_name(const struct conf *c, uint32_t i)
{
	if (i < c->certificate.count)
		return c->certificate.path[i];
	i -= c->certificate.count;
	if (i < c->key.count)
		return c->key.path[i];
	return i == c->key.count && c->client_ca[0] != '\0' ? c->client_ca : NULL;
}

/* Which files they are now, without reading them. */
static void
files_look(uint8_t seen[static crypto_generichash_BYTES])
{
	crypto_generichash_state hash;
	struct stat st;
	const char *path;

	crypto_generichash_init(&hash, NULL, 0, crypto_generichash_BYTES);
	for (uint32_t i = 0; (path = file_name(renewal.conf, i)) != NULL; i++) {
		int64_t facts[8] = { 0 };
		if (stat(path, &st) == 0)
			memcpy(facts, (int64_t[8]){ (int64_t)st.st_dev, (int64_t)st.st_ino, st.st_size, st.st_mode, st.st_mtim.tv_sec,
			    st.st_mtim.tv_nsec, st.st_ctim.tv_sec, st.st_ctim.tv_nsec }, sizeof facts);
		crypto_generichash_update(&hash, (const unsigned char *)path, strlen(path) + 1);
		crypto_generichash_update(&hash, (const unsigned char *)facts, sizeof facts);
	}
	crypto_generichash_final(&hash, seen, crypto_generichash_BYTES);
}

/* The signal SIGIO comes when there is something to read. */
static void
signal_when_ready(int fd)
{
	if (fcntl(fd, F_SETOWN, getpid()) == -1 || fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC) == -1)
		log_text(LOG_WARNING, "a change of the certificates may go unseen until the next SIGHUP: %s", strerror(errno));
}

/* The folder of a file, and of what it is a link to: renewal programs replace either. */
static void
watch_file(const char *path)
{
	char real[PATH_MAX], folder[CONF_STRING];
	const char *names[2] = { path, realpath(path, real) };

	for (size_t i = 0; i < 2 && names[i] != NULL; i++) {
		if (!string_copy(folder, sizeof folder, names[i]))
			continue;
		char *slash = strrchr(folder, '/');
		slash[slash == folder] = '\0';
		if (inotify_add_watch(renewal.watch, folder, CHANGES | IN_ONLYDIR | IN_MASK_ADD) == -1)
			log_text(LOG_WARNING, "%s: cannot be watched (%s): after a change, send authd SIGHUP", folder, strerror(errno));
	}
}

static void
watch_all(void)
{
	const char *path;

	close_fd(&renewal.watch);
	if (!configured())
		return;
	if ((renewal.watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) == -1) {
		log_text(LOG_WARNING, "certificates cannot be watched (%s): after a change, send authd SIGHUP", strerror(errno));
		return;
	}
	signal_when_ready(renewal.watch);
	for (uint32_t i = 0; (path = file_name(renewal.conf, i)) != NULL; i++)
		watch_file(path);
}

static int
listen_once(void)
{
	char path[CONF_STRING + 16];

	if (renewal.listener != -1)
		return 0;
	if (conf_run_path(renewal.conf, "keeper.sock", path, sizeof path) == -1 ||
	    (renewal.listener = unix_listen(path, 0666, BACKLOG)) == -1) {
		log_text(LOG_ERR, "%s: cannot be served: %s", path, strerror(errno));
		return -1;
	}
	return 0;
}

static void
say_log(int level, const char *text)
{
	log_text(level, "%s", text);
}

/* The child: the only place where a key is read. */
static _Noreturn void
keeper_main(int control, bool dates)
{
	static struct keys keys;
	struct findings f = { say_log, 0 };
	int listener = renewal.listener;

	renewal.listener = -1;	/* what become() closes is the parent's; this one stays */
	if (keys_load(&keys, renewal.conf, dates, &f) == -1)
		_exit(1);
	renewal.become();
	keeper_run(renewal.conf, &keys, listener, control, renewal.pop3d);
}

static struct keeper_process *
keeper_at(enum stage stage)
{
	for (size_t i = 0; i < KEEPERS; i++)
		if (renewal.keeper[i].stage == stage)
			return &renewal.keeper[i];
	return NULL;
}

/* Forks another. With `dates` it refuses what has expired: there is one that serves. NULL with the reason logged. */
static struct keeper_process *
keeper_start(bool dates)
{
	struct keeper_process *k = keeper_at(STAGE_FREE);
	int pair[2];

	if (listen_once() == -1)
		return NULL;
	if (k == NULL || message_pair(pair) == -1) {
		log_text(LOG_ERR, "no new keeper: %s", k == NULL ? "too many old ones are still ending" : strerror(errno));
		return NULL;
	}
	files_look(renewal.seen);
	pid_t pid = fork_named("authd: keeper");
	if (pid == 0) {
		close(pair[1]);
		keeper_main(pair[0], dates);
	}
	close(pair[0]);
	if (pid == -1) {
		log_text(LOG_ERR, "no new keeper: %s", strerror(errno));
		close(pair[1]);
		return NULL;
	}
	*k = (struct keeper_process){ STAGE_STARTING, pid, pair[1], clock_ms() };
	return k;
}

/* It accepts nobody any more, and ends when those it has are done. */
static void
keeper_retire(struct keeper_process *k)
{
	close_fd(&k->control);
	k->stage = STAGE_RETIRED;
}

/* What a keeper that is starting says: KEPT, or nothing ever. False if it is not known yet. */
static bool
keeper_heard(struct keeper_process *k)
{
	struct message m;
	int got = message_receive(k->control, &m, SIDE_KEEPER, SIDE_AUTHD);

	if (got == -1 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (got == 1) {
		struct keeper_process *before = keeper_at(STAGE_SERVING);
		k->stage = STAGE_SERVING;
		renewal.again = 0;
		if (before != NULL)
			keeper_retire(before);
		return true;
	}
	keeper_retire(k);
	if (keeper_at(STAGE_SERVING) != NULL)
		log_text(LOG_ERR, "the certificates or keys on disk are NOT used: see the lines before. Those loaded earlier stay in use");
	else {
		log_text(LOG_ERR, "no TLS: the certificates or keys cannot be used, see the lines before");
		renewal.again = clock_ms() + AGAIN_MS;
	}
	return true;
}

/* Starts one beside the one that serves; one that was still starting has old files, and goes. */
static void
keeper_renew(void)
{
	struct keeper_process *k = keeper_at(STAGE_STARTING);

	if (k != NULL) {
		kill(k->pid, SIGKILL);
		keeper_retire(k);
	}
	watch_all();
	if (!configured()) {
		if ((k = keeper_at(STAGE_SERVING)) != NULL)
			keeper_retire(k);
		renewal.again = 0;
		return;
	}
	if ((k = keeper_start(keeper_at(STAGE_SERVING) != NULL)) != NULL)
		signal_when_ready(k->control);
}

void
renewal_start(const struct conf *c, uid_t pop3d, void (*become)(void))
{
	renewal.conf = c;
	renewal.pop3d = pop3d;
	renewal.become = become;
	/*
	 * For the keepers, of which later ones are started with less rights: what they read is never to reach a swap
	 * device.
	 */
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	if (geteuid() == 0)
		(void)setrlimit(RLIMIT_MEMLOCK, &all);
	if (!configured())
		return;
	watch_all();
	struct keeper_process *k = keeper_start(false);
	if (k == NULL || message_wait(k->control, START_MS) != 1 || !keeper_heard(k) || k->stage != STAGE_SERVING)
		fatal("authd does not start without the keys that [tls] names");
}

void
renewal_reload(void)
{
	keeper_renew();
}

/* Has a watched file changed? Only once it has been quiet for a while. */
static bool
changes_turn(void)
{
	char events[4096];
	uint8_t now[crypto_generichash_BYTES];

	while (renewal.watch != -1 && read(renewal.watch, events, sizeof events) > 0)
		renewal.changed = clock_ms();
	if (renewal.changed == 0)
		return false;
	if (clock_ms() - renewal.changed < QUIET_MS)
		return true;
	renewal.changed = 0;
	files_look(now);
	if (memcmp(now, renewal.seen, sizeof now) == 0)
		return false;
	log_text(LOG_INFO, "a certificate or key on disk has changed");
	keeper_renew();
	return false;
}

bool
renewal_turn(void)
{
	struct keeper_process *k = keeper_at(STAGE_STARTING);

	if (k != NULL)
		keeper_heard(k);
	bool waiting = changes_turn();
	if (renewal.again != 0 && clock_ms() >= renewal.again) {
		renewal.again = 0;
		keeper_renew();
	}
	return waiting || renewal.again != 0;
}

bool
renewal_died(pid_t pid, int status)
{
	for (size_t i = 0; i < KEEPERS; i++) {
		struct keeper_process *k = &renewal.keeper[i];
		if (k->stage == STAGE_FREE || k->pid != pid)
			continue;
		if (k->stage == STAGE_STARTING)
			keeper_heard(k);
		if (k->stage == STAGE_SERVING) {
			log_begin(LOG_WARNING, "child-died");
			log_string("process", "keeper");
			log_number("pid", (uint64_t)pid);
			log_number(WIFSIGNALED(status) ? "signal" : "status",
			    (uint64_t)(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)));
			log_end();
			renewal.again = clock_ms() - k->started < TOO_SOON ? k->started + TOO_SOON : clock_ms();
		}
		close_fd(&k->control);
		k->stage = STAGE_FREE;
		return true;
	}
	return false;
}

void
renewal_forget(void)
{
	close_fd(&renewal.listener);
	close_fd(&renewal.watch);
	for (size_t i = 0; i < KEEPERS; i++)
		if (renewal.keeper[i].stage != STAGE_FREE)
			close_fd(&renewal.keeper[i].control);
}

void
renewal_stop(void)
{
	char path[CONF_STRING + 16];

	for (size_t i = 0; i < KEEPERS; i++)
		if (renewal.keeper[i].stage != STAGE_FREE)
			kill(renewal.keeper[i].pid, SIGTERM);
	if (renewal.listener != -1 && conf_run_path(renewal.conf, "keeper.sock", path, sizeof path) == 0)
		unlink(path);
}

static void
say_plain(int level, const char *text)
{
	fprintf(stderr, "%s: %s\n", level == LOG_ERR ? "error" : "warning", text);
}

bool
renewal_check(const struct conf *c)
{
	static struct keys keys;
	struct findings f = { say_plain, 0 };

	if (c->certificate.count == 0)
		return true;
	if (sodium_init() == -1 || keys_load(&keys, c, true, &f) == -1)
		return false;
	keys_say_expiry(&keys, &f);
	return true;
}
