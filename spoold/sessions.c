/*
 * The parent: never blocks on a name service or a mailbox. It makes the socket pair, forks, and answers the verifier
 * at once; all else about a user happens in the child.
 *
 * A worker whose session is over may linger: it is idle until its user's next session, or until its time is over, and
 * has its uid and its cell all the while. It is never given anybody else's, and none when anything that its resolving
 * rested on may have changed: the configuration, maildrops.db, or, by an age that it never exceeds, the name service.
 * Until it has claimed the maildrop, its end of the session is kept here as well: one that cannot take it, or is dead,
 * is followed by another, which is forked, and neither pop3d nor the user learns of that.
 */
#include "sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "accounts.h"
#include "check.h"
#include "figures.h"
#include "front.h"
#include "grant.h"
#include "lock.h"
#include "locked.h"
#include "log.h"
#include "messages.h"
#include "privilege.h"
#include "sandbox.h"
#include "system.h"
#include "worker.h"

#define SESSIONS_MAX	20000
#define SETTLE_WAIT_MS	30000	/* for recoveries at the start */
#define STOP_WAIT_MS	10000	/* for sessions to end by themselves after SIGTERM */
#define END_WAIT_MS	5000	/* and then for workers that were told to */
#define LINGER_KEPT_MOST	(64ull << 20)	/* octets that all idle workers together may keep */

enum peer_kind { PEER_OPEN, PEER_CONTROL, PEER_SIGNALS, PEER_FRONT, PEER_VERIFIER, PEER_TOOL, PEER_WORKER };

struct peer {
	struct peer *next;
	enum peer_kind kind;
	int fd;
	struct session *session;	/* PEER_WORKER */
	/* PEER_TOOL: recoveries that it waits for */
	uint32_t pending, total, unfinished;
};

/* maildrops.db as it was: authctl replaces it whole. */
struct edition {
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec modified, changed;
};

struct session {
	struct session *next;
	pid_t pid;
	struct job job;			/* as it was told: its descriptors are not ours */
	char client[ADDRESS_SIZE];
	int64_t since;
	int64_t begun;			/* the same by clock_ms() */
	bool found;			/* figures_privileged's */
	bool claimed;
	bool finishing;			/* its UPDATE is answered and being carried out */
	uint64_t device, inode;
	struct holding holding;
	struct peer *worker;		/* NULL once it has closed */
	struct peer *tool;		/* who waits for this recovery */
	/* lingering */
	char asked[USER_SIZE];		/* the user as the verifier named him */
	struct edition accounts;	/* before the worker read it */
	int64_t forked;			/* clock_ms() */
	uint64_t generation;		/* of the configuration it has */
	bool ended;			/* the session is over; the worker may be idle, or on its way out */
	bool idle;
	struct session *idle_next;
	uint64_t kept;			/* octets, as it says */
	int handed;			/* the worker's end of a session that it has not claimed yet; -1 */
	struct holding recovers;	/* JOB_RECOVER: only the key of what it is to finish */
};

static struct conf *conf;
static int first_own;			/* descriptors from here on are the parent's alone */
static int epoll_fd = -1;
static uid_t verifier_uid;
static struct session *sessions;
static uint32_t session_count;
static struct peer *peers;
static bool stopping;
static bool leaving;			/* stopping, for another spoold to take the place: the sessions are let finish */
static sigset_t caught;
static struct session *idle;		/* who came last is first */
static uint64_t idle_count, idle_kept;
static uint64_t generation;		/* of the configuration */
static struct message *received, *sent;	/* the one that is looked at, and the one that is made; no child has them */

static struct peer *
peer_add(enum peer_kind kind, int fd)
{
	struct peer *p = calloc(1, sizeof *p);
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = p };

	if (p != NULL) {
		p->kind = kind;
		p->fd = fd;
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0) {
			p->next = peers;
			peers = p;
			return p;
		}
	}
	log_text(LOG_ERR, "cannot watch a descriptor: %s", strerror(errno));
	free(p);
	close(fd);
	return NULL;
}

static void
peer_drop(struct peer *p)
{
	if (p->kind == PEER_WORKER)
		p->session->worker = NULL;
	for (struct session *s = p->kind == PEER_TOOL ? sessions : NULL; s != NULL; s = s->next)
		if (s->tool == p)
			s->tool = NULL;
	struct peer **at = &peers;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	/* A child that was just forked may still have it open, so closing alone would leave it in epoll. */
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, p->fd, NULL);
	close(p->fd);
	free(p);
}

/* One that does not read what it asked for is dropped: the parent waits for nobody. */
static void
peer_tell(struct peer *p, const struct message *m)
{
	if (message_send(p->fd, m) == -1)
		log_text(LOG_WARNING, "%s could not be sent: %s", message_name(m->header.type), strerror(errno));
}

static void
nonblocking(int fd)
{
	fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void
idle_leave(struct session *s)
{
	struct session **at = &idle;

	while (*at != s)
		at = &(*at)->idle_next;
	*at = s->idle_next;
	s->idle = false;
	idle_count--;
	idle_kept -= s->kept;
}

/* It ends, and is buried when it has. */
static void
idle_end(struct session *s)
{
	idle_leave(s);
	kill(s->pid, SIGTERM);
	if (s->worker != NULL)
		peer_drop(s->worker);
}

static void
idle_end_all(void)
{
	while (idle != NULL)
		idle_end(idle);
}

static struct edition
accounts_edition(void)
{
	struct edition e = { 0 };
	char path[CONF_STRING + 16];
	struct stat st;

	if (accounts_path(conf->db, path, sizeof path) == 0 && stat(path, &st) == 0)
		e = (struct edition){ st.st_dev, st.st_ino, st.st_size, st.st_mtim, st.st_ctim };
	return e;
}

static bool
edition_same(const struct edition *a, const struct edition *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size &&
	    a->modified.tv_sec == b->modified.tv_sec && a->modified.tv_nsec == b->modified.tv_nsec &&
	    a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Does what it resolved still hold? */
static bool
linger_fresh(const struct session *s)
{
	if (stopping || s->generation != generation || clock_ms() - s->forked > LINGER_LIFE_MS)
		return false;
	struct edition now = accounts_edition();
	return edition_same(&s->accounts, &now);	/* accounts of the host may have a policy there */
}

/* In the child: only the two sockets stay open, of all that the parent has. */
static void
keep_two(int a, int b)
{
	int low = a < b ? a : b, high = a < b ? b : a;

	if (low > first_own)
		close_range((unsigned)first_own, (unsigned)low - 1, 0);
	if (high > low + 1)
		close_range((unsigned)low + 1, (unsigned)high - 1, 0);
	close_range((unsigned)high + 1, ~0u, 0);
}

/* Forks a worker for s->job, whose end of the session is `end`, or -1: it stays the caller's. 0, or -1, and then s is freed. */
static int
session_fork(struct session *s, int end)
{
	int asks[2] = { -1, -1 };

	if (session_count >= SESSIONS_MAX || message_pair(asks) == -1)
		goto fail;
	s->generation = generation;
	s->forked = clock_ms();
	if (s->job.linger_ms > 0)
		s->accounts = accounts_edition();
	heap_tidy();
	s->pid = fork_named(s->job.kind == JOB_RECOVER ? "recovery" : "worker");
	if (s->pid == -1)
		goto fail;
	if (s->pid == 0) {
		s->job.session = end;
		s->job.parent = asks[1];
		keep_two(end != -1 ? end : asks[1], asks[1]);
		worker_run(conf, &s->job);
	}
	close(asks[1]);
	nonblocking(asks[0]);
	s->since = time(NULL);
	s->begun = clock_ms();
	s->next = sessions;
	sessions = s;
	session_count++;
	s->worker = peer_add(PEER_WORKER, asks[0]);
	if (s->worker != NULL)
		s->worker->session = s;
	return 0;
fail:
	figures.refused++;
	log_text(LOG_ERR, "cannot start a worker: %s", session_count >= SESSIONS_MAX ? "too many sessions" : strerror(errno));
	for (int i = 0; i < 2; i++)
		if (asks[i] != -1)
			close(asks[i]);
	free(s);
	return -1;
}

/* The same, with a new session, whose other end is *channel. */
static int
session_start(struct session *s, int *channel)
{
	int pair[2];

	if (message_pair(pair) == -1) {
		log_text(LOG_ERR, "cannot start a session: %s", strerror(errno));
		free(s);
		return -1;
	}
	int result = session_fork(s, pair[1]);
	close(pair[1]);
	if (result == 0)
		*channel = pair[0];
	else
		close(pair[0]);
	return result;
}

static void
session_blank(struct session *s)
{
	s->handed = s->holding.kept = -1;
}

static void
recover_one(const struct leftover *l, void *data)
{
	struct session *s = calloc(1, sizeof *s);

	if (s == NULL)
		return;
	session_blank(s);
	s->recovers.uid = l->uid;
	asroot_hold(&s->recovers, l->path, l->kind);
	s->job.kind = JOB_RECOVER;
	s->job.session = -1;
	s->job.leftover = *l;
	session_id(s->job.id);
	snprintf(s->job.user, sizeof s->job.user, "uid-%u", (unsigned)l->uid);
	s->tool = data;
	if (session_fork(s, -1) == 0 && data != NULL)
		((struct peer *)data)->pending++;
}

void
sessions_recover(void)
{
	uint32_t count = asroot_leftovers(recover_one, NULL);

	if (count > 0)
		log_text(LOG_NOTICE, "%u journals were left: finishing what they hold", (unsigned)count);
}

static void
tool_progress(struct peer *p)
{
	struct message m;

	message_start(&m, MESSAGE_SPOOL_PROGRESS);
	m.body.spool_progress.total = p->total;
	m.body.spool_progress.done = p->total > p->pending ? p->total - p->pending : 0;
	peer_tell(p, &m);
}

static void
tool_finished(struct peer *p, int error, uint32_t count)
{
	struct message m;

	message_start(&m, MESSAGE_SPOOL_FINISHED);
	m.body.spool_finished.error = error;
	m.body.spool_finished.count = count;
	peer_tell(p, &m);
}

/* A session for a user; NULL if it cannot be. */
static struct session *
session_for(const char *user, const char *id, enum job_kind kind, uint32_t store)
{
	struct session *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	session_blank(s);
	s->job.kind = kind;
	s->job.store = store;
	string_copy(s->job.user, sizeof s->job.user, user);
	string_copy(s->asked, sizeof s->asked, user);
	string_copy(s->job.id, sizeof s->job.id, id);
	return s;
}

static int64_t
linger_ms(void)
{
	return conf->linger_workers > 0 ? (int64_t)conf->linger * 1000 : 0;
}

/* A worker that lingered is gone, and had not claimed the session that it was handed: another one has it now. */
static void
session_again(const struct session *s)
{
	struct session *n = session_for(s->asked, s->job.id, s->job.kind, s->job.store);

	if (n != NULL) {
		string_copy(n->client, sizeof n->client, s->client);
		n->job.no_delete = s->job.no_delete;
		n->job.expires = s->job.expires;
		n->job.linger_ms = linger_ms();
		session_fork(n, s->handed);
	}
	close(s->handed);
}

/* Is there one who has this maildrop, or is to recover it? */
static bool
is_at_work(const char *key)
{
	for (const struct session *s = sessions; s != NULL; s = s->next)
		if (strcmp(s->holding.key, key) == 0 || strcmp(s->recovers.key, key) == 0)
			return true;
	return false;
}

/* The worker is dead: what it had is given back, and an UPDATE that it did not finish is. */
static void
session_end(struct session *s, int status)
{
	struct session **at = &sessions;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	session_count--;
	if (s->idle)
		idle_leave(s);
	log_session(s->job.id);
	figures_privileged(&s->found, PRIVILEGED_COUNT, s->holding.journal);
	if (s->job.kind == JOB_SESSION && !s->ended && s->handed == -1)
		figures_ended(clock_ms() - s->begun);
	if (WIFSIGNALED(status)) {
		figures.workers_died++;
		log_begin(LOG_ERR, "worker-died");
		log_string("user", s->job.user);
		log_number("pid", (uint64_t)s->pid);
		log_number("signal", (uint64_t)WTERMSIG(status));
		log_end();
	}
	log_session(NULL);
	asroot_release(&s->holding);
	/* one that was killed may have left a dotlock of its own making as well */
	if ((s->holding.journal || (WIFSIGNALED(status) && s->claimed)) && s->holding.key[0] != '\0' && s->job.kind != JOB_RECOVER) {
		struct leftover l = { .uid = s->holding.uid, .gid = s->holding.gid, .kind = s->holding.kind };
		string_copy(l.path, sizeof l.path, s->holding.path);
		recover_one(&l, NULL);
	}
	if (s->tool != NULL) {
		s->tool->unfinished += s->holding.journal;
		s->tool->pending--;
		tool_progress(s->tool);
		if (s->tool->pending == 0)
			tool_finished(s->tool, s->tool->unfinished > 0 ? EIO : 0, s->tool->total);
	}
	if (s->handed != -1)
		session_again(s);
	if (s->worker != NULL)
		peer_drop(s->worker);
	free(s);
	locked_sweep(is_at_work);
}

static void
reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (struct session *s = sessions; s != NULL; s = s->next)
			if (s->pid == pid) {
				session_end(s, status);
				break;
			}
}

/* The idle worker of the user who is to be opened, no longer idle; NULL: there is none that may be used. */
static struct session *
idle_take(const struct body_open *o)
{
	struct session *s = idle;

	while (s != NULL && (s->job.store != o->store || strcmp(s->asked, o->user) != 0))
		s = s->idle_next;
	if (s == NULL)
		return NULL;
	if (s->worker == NULL || !linger_fresh(s)) {
		idle_end(s);
		return NULL;
	}
	idle_leave(s);
	return s;
}

/* Hands a new session to the idle worker of its user. False: it has to be forked. */
static bool
session_reopen(const struct body_open *o, int *channel)
{
	struct session *s = idle != NULL ? idle_take(o) : NULL;
	struct message *m = sent;
	int pair[2];

	if (s == NULL)
		return false;
	if (message_pair(pair) == -1) {
		kill(s->pid, SIGTERM);
		return false;
	}
	message_start(m, MESSAGE_REOPEN);
	string_copy(m->body.reopen.session, sizeof m->body.reopen.session, o->session);
	m->body.reopen.no_delete = o->no_delete;
	m->fds[0] = pair[1];
	if (message_send(s->worker->fd, m) == -1) {
		kill(s->pid, SIGTERM);
		close(pair[0]);
		close(pair[1]);
		return false;
	}
	string_copy(s->job.id, sizeof s->job.id, o->session);
	string_copy(s->client, sizeof s->client, o->client);
	s->job.no_delete = o->no_delete == 1;
	s->since = time(NULL);
	s->begun = clock_ms();
	s->ended = false;
	s->handed = pair[1];
	*channel = pair[0];
	return true;
}

static int
session_open(const struct body_open *o, int *channel)
{
	if (stopping)
		return -1;
	/* a view is made by a worker of its own */
	if (o->recent == 0 && session_reopen(o, channel))
		return 0;
	struct session *s = session_for(o->user, o->session, JOB_SESSION, o->store);
	if (s == NULL)
		return -1;
	string_copy(s->client, sizeof s->client, o->client);
	s->job.no_delete = o->no_delete == 1;
	s->job.expires = true;
	s->job.recent = o->recent == 1;
	s->job.linger_ms = s->job.recent ? 0 : linger_ms();
	return session_start(s, channel);
}

static void
on_open(struct peer *p, struct message *in)
{
	const struct body_open *o = &in->body.open;
	struct message *m = sent;
	int channel = -1;

	if (session_open(o, &channel) == -1) {
		message_start(m, MESSAGE_REFUSED);
		string_copy(m->body.refused.session, sizeof m->body.refused.session, o->session);
		m->body.refused.failure = FAILURE_TEMPORARY;
		peer_tell(p, m);
		return;
	}
	message_start(m, MESSAGE_CHANNEL);
	string_copy(m->body.channel.session, sizeof m->body.channel.session, o->session);
	m->fds[0] = channel;
	peer_tell(p, m);
	close(channel);
}

static void
on_resolved(struct peer *p, struct message *in)
{
	struct holding *h = &p->session->holding;
	const struct body_resolved *r = &in->body.resolved;

	/* Once, and it is the first thing a worker says: what it would say later, without root, changes nothing. */
	if (h->resolved)
		return;
	h->resolved = true;
	h->uid = r->uid;
	h->gid = r->gid;
	string_copy(h->mbox, sizeof h->mbox, r->mbox);
	string_copy(p->session->job.user, sizeof p->session->job.user, r->user);
}

static void
on_maildrop(struct peer *p, struct message *in)
{
	struct holding *h = &p->session->holding;

	if (h->resolved && h->key[0] == '\0' && in->body.maildrop.path[0] == '/')
		asroot_hold(h, in->body.maildrop.path, in->body.maildrop.kind);
}

/* When did a process start? 0 if that cannot be known. */
static int64_t
started_at(pid_t pid)
{
	char path[64], text[1024];
	unsigned long long ticks, boot = 0;
	int fd;

	snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
	if (pid <= 0 || (fd = open(path, O_RDONLY | O_CLOEXEC)) == -1)
		return 0;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	const char *after = strrchr(text, ')');	/* the name may hold anything */
	if (after == NULL || sscanf(after, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ticks) != 1)
		return 0;
	struct timespec now, up;
	clock_gettime(CLOCK_REALTIME, &now);
	clock_gettime(CLOCK_BOOTTIME, &up);
	boot = (unsigned long long)(now.tv_sec - up.tv_sec);
	return (int64_t)(boot + ticks / (unsigned long long)sysconf(_SC_CLK_TCK));
}

/* Somebody else has this maildrop: who, since when, and may it be taken? */
static void
claim_held(const struct session *me, const struct body_claim *claim, struct body_claimed *answer)
{
	for (struct session *s = sessions; s != NULL; s = s->next) {
		if (s == me || !s->claimed || s->device != claim->device || s->inode != claim->inode)
			continue;
		answer->since = s->since;
		answer->ended = s->job.kind == JOB_RECOVER || s->finishing;	/* that ends soon by itself */
		if (answer->ended == 1 || conf->takeover == 0 || me->job.kind != JOB_SESSION)
			return;
		answer->ended = kill(s->pid, SIGUSR1) == 0;
		figures.takeovers += answer->ended;
		log_session(s->job.id);
		log_begin(LOG_INFO, "takeover");
		log_string("user", s->job.user);
		log_string("by", me->job.id);
		log_end();
		log_session(NULL);
		return;
	}
	/* another spoold's, or another program's */
	pid_t holder = lock_holder((dev_t)claim->device, (ino_t)claim->inode);
	answer->since = started_at(holder);
	/* or a recovery's that has not yet come to say so */
	for (const struct session *s = sessions; s != NULL; s = s->next)
		if (s->pid == holder && s->job.kind == JOB_RECOVER)
			answer->ended = 1;
}

/*
 * enum journal_left. What is believed of which file it is was said before any mail was read, by the first session; one that
 * lingered leaves another file, and recovery, to another.
 */
static uint32_t
claim_journal(struct session *s, const struct body_claim *claim)
{
	struct holding *h = &s->holding;
	bool same = h->known && h->device == (dev_t)claim->device && h->inode == (ino_t)claim->inode;

	if (s->handed != -1)
		return !same || asroot_journal_may_be(h) ? JOURNAL_OURS : JOURNAL_NONE;
	if (!h->known) {
		h->known = true;
		h->device = (dev_t)claim->device;
		h->inode = (ino_t)claim->inode;
	}
	return asroot_journal_left(h, claim->born);
}

static void
on_claim(struct peer *p, struct message *in)
{
	struct session *s = p->session;
	struct message *m = sent;

	message_start(m, MESSAGE_CLAIMED);
	if (in->body.claim.held == 1) {
		s->claimed = true;
		s->device = in->body.claim.device;
		s->inode = in->body.claim.inode;
		m->body.claimed.journal = claim_journal(s, &in->body.claim);
		if (s->handed != -1 && m->body.claimed.journal == JOURNAL_NONE) {
			close(s->handed);
			s->handed = -1;
		}
	} else
		claim_held(s, &in->body.claim, &m->body.claimed);
	peer_tell(p, m);
}

/* The worker has nothing open any more. Whoever has waited longest goes if there are too many. */
static void
session_rests(struct session *s, uint64_t kept)
{
	if (s->idle || s->handed != -1)
		return;
	figures_ended(clock_ms() - s->begun);
	s->claimed = s->finishing = false;
	s->ended = true;
	s->kept = kept < LINGER_KEPT_MOST ? kept : LINGER_KEPT_MOST;
	s->idle = true;
	s->idle_next = idle;
	idle = s;
	idle_count++;
	idle_kept += s->kept;
	if (s->job.linger_ms == 0 || s->holding.journal || s->holding.dotlock || s->holding.key[0] == '\0' || !linger_fresh(s))
		idle_end(s);
	while (idle != NULL && (idle_count > conf->linger_workers || idle_kept > LINGER_KEPT_MOST)) {
		struct session *oldest = idle;
		while (oldest->idle_next != NULL)
			oldest = oldest->idle_next;
		idle_end(oldest);
	}
}

static void
on_idle(struct peer *p, struct message *in)
{
	session_rests(p->session, in->body.idle.kept);
}

static void
on_left(struct peer *p, struct message *in)
{
	struct body_measured spent = { .what = MEASURED_SPENT, .count = in->body.left.octets, .more = in->body.left.messages };

	if (in->body.left.opened)
		figures_measured(&(struct body_measured){ .what = MEASURED_OPEN, .result = OPENED_READY, .milliseconds = in->body.left.opened_ms });
	figures_measured(&spent);
	session_rests(p->session, in->body.left.kept);
}

static void
on_privileged(struct peer *p, struct message *in)
{
	uint32_t what = in->body.privileged.what;
	struct session *s = p->session;
	struct message m;
	int fd, error;

	log_session(s->job.id);
	error = 0;
	fd = -1;
	if (what == PRIVILEGED_FINISHING || what == PRIVILEGED_RELEASED) {
		s->finishing = true;
		s->claimed = s->claimed && what == PRIVILEGED_FINISHING;
	} else
		error = asroot_privileged(&s->holding, what, s->pid, &fd);
	figures_privileged(&s->found, what, error == 0);
	log_session(NULL);
	privileged_answer(&m, what, error, fd);
	peer_tell(p, &m);
	if (fd != -1)
		close(fd);
}

static void
on_measured(struct peer *p, struct message *in)
{
	(void)p;
	figures_measured(&in->body.measured);
}

/* In a child, which may wait for the tool to read. */
static _Noreturn void
list_sessions(int fd)
{
	struct message m;
	uint32_t count = 0;

	fcntl(fd, F_SETFL, 0);
	for (const struct session *s = sessions; s != NULL; s = s->next) {
		if (s->job.kind == JOB_RECOVER || s->job.kind == JOB_SHOW || s->finishing || s->idle)
			continue;
		message_start(&m, MESSAGE_SPOOL_SESSION);
		struct body_spool_session *row = &m.body.spool_session;
		string_copy(row->session, sizeof row->session, s->job.id);
		string_copy(row->user, sizeof row->user, s->job.user);
		string_copy(row->client, sizeof row->client, s->client);
		string_copy(row->path, sizeof row->path, s->holding.path);
		row->uid = s->holding.uid;
		row->pid = (uint32_t)s->pid;
		row->since = s->since;
		if (message_send(fd, &m) == -1)
			_exit(1);
		count++;
	}
	message_start(&m, MESSAGE_SPOOL_FINISHED);
	m.body.spool_finished.count = count;
	_exit(message_send(fd, &m) == 0 ? 0 : 1);
}

static void
on_who(struct peer *p)
{
	pid_t pid = fork_named("who");

	if (pid == 0)
		list_sessions(p->fd);
	if (pid == -1)
		tool_finished(p, errno, 0);
}

static void
on_end(struct peer *p, const char *id)
{
	for (const struct session *s = sessions; s != NULL; s = s->next)
		if (s->job.kind != JOB_RECOVER && !s->idle && strcmp(s->job.id, id) == 0) {
			tool_finished(p, kill(s->pid, SIGTERM) == 0 ? 0 : errno, 1);
			return;
		}
	tool_finished(p, ESRCH, 0);
}

static void
on_tool_open(struct peer *p, const char *user, enum job_kind kind, bool expires)
{
	char id[SESSION_ID_SIZE];
	struct session *s;
	struct message m;
	int channel;

	session_id(id);
	s = session_for(user, id, kind, STORE_COUNT);
	if (s != NULL) {
		string_copy(s->client, sizeof s->client, "spoolctl");
		s->job.no_delete = !expires;
		s->job.expires = expires;
	}
	if (s == NULL || session_start(s, &channel) == -1) {
		tool_finished(p, EAGAIN, 0);
		return;
	}
	message_start(&m, MESSAGE_SPOOL_CHANNEL);
	string_copy(m.body.spool_channel.session, sizeof m.body.spool_channel.session, id);
	m.fds[0] = channel;
	peer_tell(p, &m);
	close(channel);
	tool_finished(p, 0, 1);
}

static void
on_tool_recover(struct peer *p)
{
	if (p->pending > 0)
		return;
	p->unfinished = 0;
	p->total = asroot_leftovers(recover_one, p);
	if (p->pending == 0)
		tool_finished(p, p->total > 0 ? EIO : 0, p->total);
}

static void
on_figures(struct peer *p)
{
	struct message m;
	struct body_spool_figures *f = &m.body.spool_figures;

	message_start(&m, MESSAGE_SPOOL_FIGURES);
	*f = figures;
	f->confinement.mode = (uint32_t)conf->sandbox;
	f->confinement.whole = sandbox_whole(conf);
	for (const struct session *s = sessions; s != NULL; s = s->next) {
		f->sessions += s->job.kind == JOB_SESSION && !s->finishing && !s->ended;
		f->recoveries_running += s->job.kind == JOB_RECOVER;
	}
	peer_tell(p, &m);
}

static void
on_command(struct peer *p, struct message *in)
{
	const struct body_spool_command *c = &in->body.spool_command;

	switch (c->command) {
	case SPOOL_WHO:
		on_who(p);
		break;
	case SPOOL_END:
		on_end(p, c->argument);
		break;
	case SPOOL_OPEN:
		on_tool_open(p, c->argument, JOB_SESSION, false);
		break;
	case SPOOL_REBUILD:
		on_tool_open(p, c->argument, JOB_REBUILD, false);
		break;
	case SPOOL_RECOVER:
		on_tool_recover(p);
		break;
	case SPOOL_SHOW:
		on_tool_open(p, c->argument, JOB_SHOW, false);
		break;
	case SPOOL_EXPIRE:
		on_tool_open(p, c->argument, JOB_SESSION, true);
		break;
	case SPOOL_FIGURES:
		on_figures(p);
		break;
	default:
		break;
	}
}

/* Who may say what to the parent. */
static const struct {
	enum peer_kind from;
	enum side side;
	enum message_type type;
	void (*on)(struct peer *p, struct message *in);
} table[] = {
	{ PEER_VERIFIER, SIDE_VERIFIER, MESSAGE_OPEN, on_open },
	{ PEER_WORKER, SIDE_WORKER, MESSAGE_RESOLVED, on_resolved },
	{ PEER_WORKER, SIDE_WORKER, MESSAGE_MAILDROP, on_maildrop },
	{ PEER_WORKER, SIDE_WORKER, MESSAGE_CLAIM, on_claim },
	{ PEER_WORKER, SIDE_WORKER, MESSAGE_PRIVILEGED, on_privileged },
	{ PEER_WORKER, SIDE_WORKER, MESSAGE_MEASURED, on_measured },
	{ PEER_WORKER, SIDE_WORKER, MESSAGE_IDLE, on_idle },
	{ PEER_WORKER, SIDE_WORKER, MESSAGE_LEFT, on_left },
	{ PEER_TOOL, SIDE_TOOL, MESSAGE_SPOOL_COMMAND, on_command },
};
#define TABLE (sizeof table / sizeof table[0])

static void
serve_peer(struct peer *p)
{
	enum side from = p->kind == PEER_VERIFIER ? SIDE_VERIFIER : p->kind == PEER_TOOL ? SIDE_TOOL : SIDE_WORKER;
	struct message *in = received;
	int n = message_receive(p->fd, in, from, SIDE_SPOOLD);

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == -1 && errno == EPROTO)
		log_text(LOG_ERR, "a peer sent what is no message: dropped");
	if (n != 1) {
		/* a session that it has not claimed goes to another, once this one is dead */
		if (p->kind == PEER_WORKER && p->session->handed != -1)
			kill(p->session->pid, SIGKILL);
		peer_drop(p);
		return;
	}
	size_t i = 0;
	while (i < TABLE && (table[i].from != p->kind || table[i].type != in->header.type))
		i++;
	if (i < TABLE)
		table[i].on(p, in);	/* after which p may be gone */
	message_clear(in);
}

static bool
may_speak(enum peer_kind listener, uid_t uid)
{
	if (uid == 0 || uid == geteuid())
		return true;
	return listener == PEER_OPEN && privilege_is_root() && uid == verifier_uid;
}

static void
serve_accept(const struct peer *p)
{
	uid_t uid;
	pid_t pid;
	int fd = unix_accept(p->fd, &uid, &pid);

	if (fd == -1) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			log_text(LOG_ERR, "accept: %s", strerror(errno));
		return;
	}
	if (!may_speak(p->kind, uid)) {
		log_begin(LOG_WARNING, "peer-refused");
		log_string("socket", p->kind == PEER_OPEN ? "spoold.sock" : "spoold.ctl");
		log_number("uid", uid);
		log_number("pid", (uint64_t)pid);
		log_end();
		close(fd);
		return;
	}
	peer_add(p->kind == PEER_OPEN ? PEER_VERIFIER : PEER_TOOL, fd);
}

/* Sessions that run keep what they began with. */
static void
reload(void)
{
	static struct conf next;
	char error[1024], restart[256];

	if (conf_load(&next, conf->file, true, error, sizeof error) == -1 || !check_conf(&next, error, sizeof error)) {
		log_text(LOG_ERR, "not reloaded: %s", error);
		return;
	}
	conf_keep(&next, conf, PROGRAM_SPOOLD, restart, sizeof restart);
	*conf = next;
	generation++;
	idle_end_all();
	log_level(conf->log_level);
	log_begin(LOG_NOTICE, "reload");
	if (restart[0] != '\0')
		log_string("restart", restart);
	log_end();
}

static void
serve_signal(int fd)
{
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof info) != (ssize_t)sizeof info)
		return;
	if (info.ssi_signo == SIGCHLD)
		reap();
	else if (info.ssi_signo == SIGHUP)
		reload();
	else {
		stopping = true;
		leaving = info.ssi_signo == SIGUSR2;
	}
}

static void
serve_event(struct peer *p)
{
	switch (p->kind) {
	case PEER_OPEN:
	case PEER_CONTROL:
		serve_accept(p);
		break;
	case PEER_SIGNALS:
		serve_signal(p->fd);
		break;
	case PEER_FRONT:	/* it is gone */
		leaving = leaving || !stopping;
		stopping = true;
		peer_drop(p);
		break;
	default:
		serve_peer(p);
		break;
	}
}

static void
listen_at(enum peer_kind kind, const char *name, mode_t mode)
{
	char path[CONF_STRING + 32];
	int fd;

	if (conf_run_path(conf, name, path, sizeof path) == -1 || (fd = unix_listen(path, mode, 128)) == -1)
		fatal("cannot listen at %s/%s: %s", conf->run_dir, name, errno == EADDRINUSE ? "another spoold serves it" : strerror(errno));
	if (peer_add(kind, fd) == NULL)
		fatal("cannot listen at %s", path);
}

void
sessions_open(struct conf *c, int first)
{
	conf = c;
	first_own = first;
	figures_start();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	received = memory_unforked(sizeof *received);
	sent = memory_unforked(sizeof *sent);
	sigemptyset(&caught);
	sigaddset(&caught, SIGTERM);
	sigaddset(&caught, SIGINT);
	sigaddset(&caught, SIGHUP);
	sigaddset(&caught, SIGCHLD);
	sigaddset(&caught, SIGUSR2);
	sigprocmask(SIG_BLOCK, &caught, NULL);
	signal(SIGPIPE, SIG_IGN);
	int fd = signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
	if (received == NULL || sent == NULL)
		fatal("no memory: %s", strerror(errno));
	if (epoll_fd == -1 || fd == -1 || peer_add(PEER_SIGNALS, fd) == NULL)
		fatal("cannot wait for signals: %s", strerror(errno));
	if (front_descriptor() != -1 && peer_add(PEER_FRONT, front_descriptor()) == NULL)
		fatal("cannot watch the front: %s", strerror(errno));
	if (privilege_is_root()) {
		const struct passwd *pw = getpwnam(c->authd_user);
		if (pw == NULL)
			log_text(LOG_WARNING, "there is no account %s ([authd] user): only root may ask for a maildrop", c->authd_user);
		verifier_uid = pw != NULL ? pw->pw_uid : 0;
	}
	/* 0666: the verifier is another user. Whoever connects is known by SO_PEERCRED. */
	listen_at(PEER_OPEN, "spoold.sock", 0666);
	listen_at(PEER_CONTROL, "spoold.ctl", 0600);
}

static void
serve_once(int milliseconds)
{
	struct epoll_event e;
	int n = epoll_wait(epoll_fd, &e, 1, milliseconds);

	if (n == 1)
		serve_event(e.data.ptr);
	else if (n == -1 && errno != EINTR)
		fatal("epoll_wait: %s", strerror(errno));
}

/* Serves until the time is over or no session is left. */
static void
serve_until(int64_t end)
{
	int64_t left;

	while (session_count > 0 && (left = end - clock_ms()) > 0)
		serve_once((int)left);
}

static void
remove_sockets(void)
{
	static const char *const names[] = { "spoold.sock", "spoold.ctl" };
	char path[CONF_STRING + 32];

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (conf_run_path(conf, names[i], path, sizeof path) == 0)
			unlink(path);
}

/* The sockets are another spoold's from now on, and the verifier's next question, too. */
static void
make_way(void)
{
	for (struct peer *p = peers, *next; p != NULL; p = next) {
		next = p->next;
		if (p->kind == PEER_OPEN || p->kind == PEER_CONTROL || p->kind == PEER_VERIFIER)
			peer_drop(p);
	}
	front_release();
	log_text(LOG_NOTICE, "making way for another spoold: %u sessions are to finish", (unsigned)session_count);
	while (leaving && session_count > 0)
		serve_once(-1);
}

static bool
is_recovering(void)
{
	const struct session *s = sessions;

	while (s != NULL && s->job.kind != JOB_RECOVER)
		s = s->next;
	return s != NULL;
}

void
sessions_settle(void)
{
	int64_t end = clock_ms() + SETTLE_WAIT_MS, left;

	while (!stopping && is_recovering() && (left = end - clock_ms()) > 0)
		serve_once((int)left);
	if (is_recovering() && !stopping)
		log_text(LOG_WARNING, "some of what was cut off is not finished yet: that goes on");
}

void
sessions_serve(void)
{
	while (!stopping)
		serve_once(watchdog_feed());
	idle_end_all();
	if (!leaving)
		notify_manager("STOPPING=1");
	remove_sockets();
	if (leaving)
		make_way();
	serve_until(clock_ms() + STOP_WAIT_MS);
	for (const struct session *s = sessions; s != NULL; s = s->next)
		kill(s->pid, SIGTERM);
	/* one in the midst of an UPDATE finishes it */
	serve_until(clock_ms() + END_WAIT_MS);
	if (session_count > 0)
		log_text(LOG_WARNING, "%u workers are still at work: what they do not finish is finished at the next start", (unsigned)session_count);
}
