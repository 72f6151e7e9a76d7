/* Questions to the parent and the locker, over the worker's own socket pair with each. */
#include "ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "system.h"

static int parent = -1, locker = -1;
static bool beside;			/* the locker may have the directory open */
static struct message question;		/* and its answer; on the stack each would dirty pages of it, which an idle worker keeps */

void
ask_open(int fd)
{
	parent = fd;
}

/* A parent that has gone has said why itself. */
static _Noreturn void
gone(int who)
{
	if (who == locker) {
		locker = -1;
		log_text(LOG_ERR, "the locker has gone");
	}
	exit(1);
}

static void
tell_who(int who, const struct message *m)
{
	if (message_send(who, m) == -1)
		gone(who);
}

static void
tell(const struct message *m)
{
	tell_who(parent, m);
}

/* The answer of one of two types. */
static void
answer(int who, struct message *m, uint32_t type, uint32_t other)
{
	int n;

	do
		n = message_receive(who, m, SIDE_SPOOLD, SIDE_WORKER);
	while (n == -1 && errno == EINTR);
	if (n == 1 && (m->header.type == type || m->header.type == other))
		return;
	if (n == 1)
		log_text(LOG_ERR, "the %s answered %s, which was not asked", who == parent ? "parent" : "locker", message_name(m->header.type));
	gone(who);
}

void
ask_resolved(const struct grant *g)
{
	struct message *m = &question;

	message_start(m, MESSAGE_RESOLVED);
	string_copy(m->body.resolved.user, sizeof m->body.resolved.user, g->user);
	string_copy(m->body.resolved.mbox, sizeof m->body.resolved.mbox, g->mbox);
	m->body.resolved.uid = g->uid;
	m->body.resolved.gid = g->gid;
	tell(m);
}

void
ask_maildrop(const char *path, uint32_t kind)
{
	struct message *m = &question;

	message_start(m, MESSAGE_MAILDROP);
	string_copy(m->body.maildrop.path, sizeof m->body.maildrop.path, path);
	m->body.maildrop.kind = kind;
	tell(m);
}

static void
claim(struct message *m, dev_t device, ino_t inode, int64_t born, bool held)
{
	message_start(m, MESSAGE_CLAIM);
	m->body.claim.device = device;
	m->body.claim.inode = inode;
	m->body.claim.born = born;
	m->body.claim.held = held;
	tell(m);
	answer(parent, m, MESSAGE_CLAIMED, MESSAGE_CLAIMED);
}

uint32_t
ask_claim(dev_t device, ino_t inode, int64_t born)
{
	struct message *m = &question;

	claim(m, device, inode, born, true);
	return m->body.claimed.journal;
}

bool
ask_since(dev_t device, ino_t inode, int64_t *since)
{
	struct message *m = &question;

	claim(m, device, inode, 0, false);
	*since = m->body.claimed.since;
	return m->body.claimed.ended == 1;
}

void
ask_measured(uint32_t what, uint32_t result, int64_t milliseconds, uint64_t count, uint64_t more)
{
	struct message *m = &question;

	message_start(m, MESSAGE_MEASURED);
	m->body.measured.what = what;
	m->body.measured.result = result;
	m->body.measured.milliseconds = milliseconds > 0 ? (uint64_t)milliseconds : 0;
	m->body.measured.count = count;
	m->body.measured.more = more;
	tell(m);
}

void
ask_idle(uint64_t kept)
{
	struct message *m = &question;

	message_start(m, MESSAGE_IDLE);
	m->body.idle.kept = kept;
	tell(m);
}

void
ask_left(uint64_t kept, const struct body_leave *spent, bool opened, int64_t opened_ms)
{
	struct message *m = &question;

	message_start(m, MESSAGE_LEFT);
	m->body.left.kept = kept;
	m->body.left.octets = spent->octets;
	m->body.left.messages = spent->messages;
	m->body.left.opened = opened;
	m->body.left.opened_ms = opened && opened_ms > 0 ? (uint64_t)opened_ms : 0;
	tell(m);
}

static int
privileged(int who, struct message *m, uint32_t what)
{
	message_start(m, MESSAGE_PRIVILEGED);
	m->body.privileged.what = what;
	tell_who(who, m);
	answer(who, m, MESSAGE_DONE, MESSAGE_HANDED);
	return m->header.type == MESSAGE_DONE ? m->body.done.error : 0;
}

static int
error_of(int who, uint32_t what)
{
	struct message *m = &question;
	int error = privileged(who, m, what);

	message_clear(m);
	return error;
}

static int
file_of(int who, uint32_t what)
{
	struct message *m = &question;
	int error = privileged(who, m, what);

	if (m->header.type == MESSAGE_HANDED)
		return m->fds[0];
	errno = error != 0 ? error : EIO;
	return -1;
}

int
ask_privileged(uint32_t what)
{
	return error_of(parent, what);
}

int
ask_file(uint32_t what)
{
	return file_of(parent, what);
}

void
ask_locker(int fd)
{
	locker = fd;
	beside = true;
}

bool
ask_has_locker(void)
{
	return locker != -1;
}

int
ask_beside(uint32_t what)
{
	beside = true;
	return locker != -1 ? error_of(locker, what) : EACCES;
}

int
ask_beside_file(uint32_t what)
{
	beside = true;
	if (locker != -1)
		return file_of(locker, what);
	errno = EACCES;
	return -1;
}

void
ask_beside_over(void)
{
	if (locker != -1 && beside)
		ask_beside(PRIVILEGED_RELEASED);
	beside = false;
}

void
ask_beside_last(uint32_t what)
{
	struct message *m = &question;

	message_start(m, MESSAGE_PRIVILEGED);
	m->body.privileged.what = what;
	if (locker != -1)
		message_send(locker, m);
}
