/*
 * A worker's life: resolve, drop, open, confine, scan; then FETCH, and at the end UPDATE or RELEASE. After RELEASE, which
 * is how a session ends that only looked whether there is mail, it may linger, with nothing open but the socket to its
 * parent, and begin again with open, in the cell that it is in.
 */
#include "worker.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "log.h"
#include "look.h"
#include "maildrop.h"
#include "sandbox.h"
#include "system.h"

static struct job the_job;		/* its session changes; all else is what the worker was forked for */
static const struct job *job = &the_job;
static struct maildrop maildrop;
static struct kept kept;
static struct grant grant;
static int64_t born, started;		/* clock_ms() of the worker, and of its session */
static bool over;			/* the session is */
static bool spent;			/* and POP3D has said what it took */
static struct body_leave leaving;	/* with LEAVE, and then the parent */
static bool untold;			/* does not know it yet */
static bool opened;			/* nor of the opening, which took */
static int64_t opened_ms;
static struct message received, sent;	/* not on the stack: each would dirty pages of it, which an idle worker keeps */

#define TRIM_FROM	(64u << 10)
#define OPENED_TELL_MS	50		/* a session that is over by then tells of its opening and its end in one */

static volatile sig_atomic_t stopped;	/* SIGTERM: end; SIGUSR1: a newer login takes over */

static void
on_stop(int signal_number)
{
	stopped = signal_number;
}

/* They are let in only where the worker waits for POP3D, so that nothing is left half done. */
static void
signals_set(void)
{
	struct sigaction act = { .sa_handler = on_stop };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGUSR1, &act, NULL);
	signal(SIGINT, SIG_IGN);	/* a terminal's Ctrl-C is for the parent */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);	/* EFBIG instead: a failure like another */
}

static void
tell(const struct message *m)
{
	if (job->session != -1 && message_send(job->session, m) == -1 && errno != EPIPE && errno != ECONNRESET)
		log_text(LOG_WARNING, "cannot send %s: %s", message_name(m->header.type), strerror(errno));
}

static void
tell_failed(uint32_t failure, uint32_t number)
{
	struct message *m = &sent;

	message_start(m, MESSAGE_FAILED);
	m->body.failed.failure = failure;
	m->body.failed.number = number;
	tell(m);
}

static void
opened_tell(void)
{
	if (opened)
		ask_measured(MEASURED_OPEN, OPENED_READY, opened_ms, 0, 0);
	opened = false;
}

static _Noreturn void
end_failed(uint32_t failure)
{
	if (job->kind == JOB_SESSION)
		ask_measured(MEASURED_OPEN, OPENED_FAILED, clock_ms() - started, 0, 0);
	tell_failed(failure, 0);
	_exit(1);
}

static _Noreturn void
end_busy(int64_t since)
{
	struct message *m = &sent;

	log_begin(LOG_INFO, "busy");
	log_string("user", grant.user);
	log_string("maildrop", maildrop.path);
	log_number("since", (uint64_t)since);
	log_end();
	if (job->kind == JOB_SESSION)
		ask_measured(MEASURED_OPEN, OPENED_BUSY, clock_ms() - started, 0, 0);
	message_start(m, MESSAGE_BUSY);
	m->body.busy.since = since;
	tell(m);
	_exit(0);
}

/* Which of the configured stores knows the user? For spoolctl, which does not say. */
static int
resolve_any(const struct conf *c, uint32_t *failure)
{
	for (uint32_t i = 0; i < c->stores.count; i++)
		if (asroot_resolve(c, job->user, c->stores.item[i], &grant, failure) == 0)
			return 0;
	return -1;
}

static int
resolve(const struct conf *c, uint32_t *failure)
{
	const struct leftover *l = &job->leftover;

	if (job->kind != JOB_RECOVER)
		return job->store < STORE_COUNT ? asroot_resolve(c, job->user, job->store, &grant, failure) : resolve_any(c, failure);
	grant = (struct grant){ .uid = l->uid, .gid = l->gid, .kind = l->kind == MAILDROP_MBOX ? STORE_MBOX : STORE_MAILDIR,
		.server_copy = c->server_copy, .shared = true };
	string_copy(grant.user, sizeof grant.user, job->user);
	string_copy(l->kind == MAILDROP_MBOX ? grant.mbox : grant.maildir, PATH_SIZE, l->path);
	/* the archive of an mbox may be there */
	const struct passwd *pw = getpwuid(l->uid);
	string_copy(grant.home, sizeof grant.home, pw != NULL ? pw->pw_dir : "");
	return 0;
}

static void
log_open_line(void)
{
	log_begin(LOG_INFO, "open");
	log_string("user", grant.user);
	log_string("store", maildrop.store->name);
	log_string("maildrop", maildrop.path);
	log_number("uid", grant.uid);
	log_number("messages", maildrop_shown(&maildrop));
	log_number("octets", maildrop_octets(&maildrop));
	if (maildrop.view != NULL)
		log_string("view", "recent");
	log_number("ms", (uint64_t)(clock_ms() - started));
	log_end();
}

static void
tell_ready(void)
{
	struct message *m = &sent;

	message_start(m, MESSAGE_READY);
	m->body.ready.octets = maildrop_octets(&maildrop);
	m->body.ready.count = maildrop_shown(&maildrop);
	/* what a view shows may be in two files: every message is asked for, as a Maildir's are */
	m->body.ready.kind = maildrop.view != NULL ? (uint32_t)MAILDROP_MAILDIR : (uint32_t)maildrop.store->kind;
	if (m->body.ready.kind == MAILDROP_MBOX) {
		m->body.ready.mtime_sec = maildrop.seen[0].mtime / 1000000000;
		m->body.ready.mtime_nsec = maildrop.seen[0].mtime % 1000000000;
		m->body.ready.size = maildrop.seen[0].size;
	}
	m->body.ready.expire = maildrop_stays(&maildrop, job->no_delete);
	m->fds[0] = maildrop.catalogue;
	m->fds[1] = m->body.ready.kind == MAILDROP_MBOX && maildrop.reader != -1 ? maildrop.reader : maildrop.catalogue;
	tell(m);
	/* it has them now */
	close(maildrop.catalogue);
	if (maildrop.reader != -1)
		close(maildrop.reader);
	maildrop.catalogue = maildrop.reader = -1;
}

static void
scan(void)
{
	if (maildrop_scan(&maildrop) == -1)
		end_failed(maildrop.failure);
	if (job->kind == JOB_RECOVER)
		return;
	log_open_line();
	tell_ready();
	opened = job->kind == JOB_SESSION;
	opened_ms = clock_ms() - started;
}

/* Everything up to READY. */
static void
begin(const struct conf *c)
{
	uint32_t failure = FAILURE_TEMPORARY;
	int result;

	if (resolve(c, &failure) == -1)
		end_failed(failure);
	ask_resolved(&grant);
	if (asroot_drop(&grant) == -1)
		end_failed(FAILURE_TEMPORARY);
	signals_set();
	result = maildrop_open(&maildrop, c, &grant, job->kind == JOB_REBUILD, &kept);
	if (result == 1)
		end_busy(maildrop.since);
	if (result == -1)
		end_failed(maildrop.failure);
	maildrop.tidy = job->kind == JOB_RECOVER;
	maildrop.recent = job->recent;
	maildrop.expires = job->expires;
	sandbox_enter(CELL_WORKER, c, maildrop.paths, maildrop.path_count);
	scan();
}

/*
 * The same, once more. Nothing is told before the maildrop is claimed: another worker takes the session of one that
 * ends without that.
 */
static void
begin_again(const struct conf *c)
{
	int result = maildrop_open(&maildrop, c, &grant, false, &kept);

	if (!maildrop.claimed)
		_exit(0);
	if (result == -1)
		end_failed(maildrop.failure);
	maildrop.expires = job->expires;
	scan();
}

/* One that cannot be handed over (ETOOMANYREFS: too many descriptors of this uid are on their way) is asked for again. */
static void
hand_over(uint32_t number, const struct place *p)
{
	struct message *m = &sent;

	message_start(m, MESSAGE_MESSAGE);
	m->body.message.number = number;
	m->body.message.offset = (uint64_t)p->offset;
	m->body.message.length = p->length;
	m->fds[0] = p->fd;
	if (message_send(job->session, m) == -1 && errno != EPIPE && errno != ECONNRESET)
		tell_failed(FAILURE_TEMPORARY, number);
}

/* FETCHED_TOGETHER of them. False if that cannot be. */
static bool
hand_over_together(uint32_t number, const struct place *places)
{
	struct message *m = &sent;

	message_start(m, MESSAGE_MESSAGES);
	m->body.messages.number = number;
	for (uint32_t i = 0; i < FETCHED_TOGETHER; i++) {
		m->body.messages.offsets[i] = (uint64_t)places[i].offset;
		m->body.messages.lengths[i] = places[i].length;
		m->fds[i] = places[i].fd;
	}
	return message_send(job->session, m) == 0;
}

static void
hand_over_all(uint32_t number, const struct place *places, uint32_t count)
{
	bool done = count == FETCHED_TOGETHER && hand_over_together(number, places);

	for (uint32_t i = 0; i < count; i++) {
		if (!done)
			hand_over(number + i, &places[i]);
		close(places[i].fd);
	}
}

static void
on_fetch(struct message *in)
{
	struct place p = { .fd = -1 };
	uint32_t number = in->body.fetch.number;

	if (maildrop_fetch(&maildrop, number, &p) == -1)
		tell_failed(maildrop.failure, number);
	else
		hand_over_all(number, &p, 1);
}

static void
on_fetch_ahead(struct message *in)
{
	struct place places[FETCHED_TOGETHER];
	uint32_t number = in->body.fetch_ahead.number, end = number + in->body.fetch_ahead.count, count = 0;

	for (; number != end; number++) {
		places[count] = (struct place){ .fd = -1 };
		bool failed = maildrop_fetch(&maildrop, number, &places[count]) == -1;
		count += !failed;
		if (failed || count == FETCHED_TOGETHER || number + 1 == end) {
			hand_over_all(number + !failed - count, places, count);
			count = 0;
		}
		if (failed)
			tell_failed(maildrop.failure, number);
	}
}

static void
on_differs(struct message *in)
{
	maildrop_doubt(&maildrop, in->body.differs.number);
}

static bool
is_untidy(void)
{
	return !maildrop.missing && maildrop.store->untidy != NULL && maildrop.store->untidy(&maildrop);
}

/* Nobody waits for this. */
static void
sweep(void)
{
	ask_privileged(PRIVILEGED_RELEASED);
	maildrop.store->sweep(&maildrop);
}

static void
spent_tell(void)
{
	if (untold)
		ask_measured(MEASURED_SPENT, 0, 0, leaving.octets, leaving.messages);
	untold = false;
}

static int64_t
linger_ms(void)
{
	int64_t rest = born + LINGER_LIFE_MS - clock_ms();

	return rest < job->linger_ms ? rest : job->linger_ms;
}

/* The session is over, and its lock is free: sees to it that another can begin. */
static void
linger(void)
{
	uint64_t octets = maildrop_close(&maildrop);

	/* what a few messages took is taken again at once; of many, most is not needed soon */
	if (octets == 0 || octets > TRIM_FROM)
		malloc_trim(0);
	if (untold)
		ask_left(octets, &leaving, opened, opened_ms);
	else {
		opened_tell();
		ask_idle(octets);
	}
	untold = opened = false;
}

/*
 * Remembers, gives the lock back, and only then answers: a client that is told +OK can log in again at once. What is
 * durable but takes long to carry out, or to remember, is seen to after the answer, under the lock; the parent lets who
 * comes meanwhile wait.
 */
static void
finish(const struct message *answer, bool deferred, int status, bool may_linger)
{
	const struct mailstore *store = maildrop.store;

	if (deferred) {
		spent_tell();
		ask_privileged(PRIVILEGED_FINISHING);
		tell(answer);
		if (store->complete != NULL)
			store->complete(&maildrop);
	}
	if (!maildrop.missing) {
		store->remember(&maildrop);
		/* who comes next may write it at once */
		cache_close(maildrop.cache);
		maildrop.cache = NULL;
		store->release(&maildrop);
	}
	over = may_linger && !is_untidy() && linger_ms() > 0 && maildrop_may_linger(&maildrop);
	if (!over)
		opened_tell();
	/* the parent is told first, so that it knows when the same user comes again at once */
	if (over)
		linger();
	spent_tell();
	if (!deferred)
		tell(answer);
	close(job->session);
	if (over)
		return;
	if (is_untidy())
		sweep();
	_exit(status);
}

static void
make_updated(struct message *m, const struct tally *t)
{
	message_start(m, MESSAGE_UPDATED);
	m->body.updated.deleted = t->deleted;
	m->body.updated.left = t->remain;
	m->body.updated.length = t->cuts ? t->length : NO_CUT;
}

static void
on_update(struct message *in)
{
	struct message *m = &sent;
	struct tally t;
	int64_t begun = clock_ms();
	int result = maildrop_update(&maildrop, in->fds[0], in->body.update.count, job->no_delete, &t);

	log_begin(result == 0 ? LOG_INFO : LOG_WARNING, "update");
	log_string("user", grant.user);
	log_string("result", result == 0 ? "ok" : "failed");
	log_number("deleted", t.deleted);
	if (t.expired > 0)
		log_number("expired", t.expired);
	log_number("left", t.left);
	log_number("remain", t.remain);
	log_number("ms", (uint64_t)(clock_ms() - begun));
	log_end();
	ask_measured(MEASURED_UPDATE, result != 0, clock_ms() - begun, t.deleted + t.expired, 0);
	if (result == 0) {
		make_updated(m, &t);
	} else {
		message_start(m, MESSAGE_UPDATE_FAILED);
		m->body.update_failed.failure = maildrop.failure;
		m->body.update_failed.left = t.left;
	}
	finish(m, result == 0 && t.deferred, result == 0 ? 0 : 1, false);
}

static void
on_release(struct message *in)
{
	struct message *m = &sent;
	struct tally t;

	(void)in;
	maildrop_expire(&maildrop, job->no_delete, &t);
	make_updated(m, &t);
	finish(m, t.deferred, 0, t.expired == 0);
}

static void
on_spent(struct message *in)
{
	if (!spent)
		ask_measured(MEASURED_SPENT, 0, 0, in->body.spent.octets, in->body.spent.messages);
	spent = true;
}

static void
on_leave(struct message *in)
{
	untold = !spent;
	leaving = in->body.leave;
	spent = true;
	on_release(in);
}

/* What POP3D may say. */
static const struct {
	enum message_type type;
	void (*on)(struct message *in);
} table[] = {
	{ MESSAGE_FETCH, on_fetch }, { MESSAGE_UPDATE, on_update }, { MESSAGE_RELEASE, on_release },
	{ MESSAGE_SPENT, on_spent }, { MESSAGE_LEAVE, on_leave }, { MESSAGE_FETCH_AHEAD, on_fetch_ahead },
	{ MESSAGE_DIFFERS, on_differs },
};

static void
serve_one(void)
{
	struct message *in = &received;
	int n = message_receive(job->session, in, SIDE_POP3D, SIDE_WORKER);

	if (n == -1 && errno == EINTR)
		return;
	/* only the end of a session that just looked is worth waiting for */
	if (n == 1 && in->header.type != MESSAGE_LEAVE && in->header.type != MESSAGE_RELEASE)
		opened_tell();
	if (n != 1) {
		/* Closed without UPDATE: nothing is changed. What was found to be wrong is remembered: it may be why. */
		if (!maildrop.missing) {
			maildrop.store->remember(&maildrop);
			maildrop.store->release(&maildrop);
		}
		if (n == -1 && errno == EPROTO)
			log_text(LOG_ERR, "pop3d sent what is no message: the session is over");
		opened_tell();
		_exit(n == 0 ? 0 : 1);
	}
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
		if (table[i].type == in->header.type)
			table[i].on(in);
	for (size_t i = 0; i < MESSAGE_MAX_FDS; i++)
		if (in->fds[i] != -1)
			close(in->fds[i]);
}

static void
stop_if_told(void)
{
	if (stopped == 0)
		return;
	log_begin(LOG_INFO, "ended");
	log_string("user", grant.user);
	log_string("reason", stopped == SIGUSR1 ? "takeover" : "stopped");
	log_end();
	if (!maildrop.missing)
		maildrop.store->release(&maildrop);
	tell_failed(stopped == SIGUSR1 ? FAILURE_TAKEN : FAILURE_TEMPORARY, 0);
	opened_tell();
	_exit(0);
}

/* READY has been said: until the session is over. */
static void
serve(void)
{
	static const struct timespec soon = { .tv_nsec = OPENED_TELL_MS * 1000000 };
	sigset_t none;

	/* POP3D has its answer: now there is time to remember */
	if (!maildrop.missing)
		maildrop.store->remember(&maildrop);
	sigemptyset(&none);
	while (!over) {
		struct pollfd p[2] = { { .fd = job->session, .events = POLLIN }, { .fd = job->parent, .events = POLLIN } };
		int n = ppoll(p, 2, opened ? &soon : NULL, &none);
		stop_if_told();
		if (n == 0)
			opened_tell();
		if (n <= 0)
			continue;
		if (p[0].revents != 0)
			serve_one();
		else if (p[1].revents != 0)
			_exit(1);	/* the parent has gone: it speaks only when it is asked */
	}
}

/* Waits for the next session. Whatever else comes, or nothing for too long, is the end. */
static void
wait_idle(void)
{
	struct pollfd p = { .fd = job->parent, .events = POLLIN };
	int64_t ms = linger_ms();
	struct timespec most = { ms / 1000, ms % 1000 * 1000000 };
	struct message *in = &received;
	sigset_t none;

	log_session(NULL);
	sigemptyset(&none);
	if (ms <= 0 || ppoll(&p, 1, &most, &none) != 1 || message_receive(job->parent, in, SIDE_SPOOLD, SIDE_WORKER) != 1 ||
	    in->header.type != MESSAGE_REOPEN)
		_exit(0);
	started = clock_ms();
	over = spent = false;
	the_job.session = in->fds[0];
	the_job.no_delete = in->body.reopen.no_delete == 1;
	string_copy(the_job.id, sizeof the_job.id, in->body.reopen.session);
	log_session(the_job.id);
}

_Noreturn void
worker_run(const struct conf *c, const struct job *j)
{
	the_job = *j;
	born = started = clock_ms();
	log_session(j->id[0] != '\0' ? j->id : NULL);
	ask_open(j->parent);
	if (j->kind == JOB_SHOW)
		look_run(c, j);
	begin(c);
	if (j->kind == JOB_RECOVER) {
		if (!maildrop.missing) {
			maildrop.store->remember(&maildrop);
			maildrop.store->release(&maildrop);
		}
		if (is_untidy())
			sweep();
		_exit(0);
	}
	for (;;) {
		serve();
		wait_idle();
		begin_again(c);
	}
}
