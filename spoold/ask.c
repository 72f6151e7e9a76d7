/* Questions to the parent, over the worker's own socket pair with it. */
#include "ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "system.h"

static int parent = -1;

void
ask_open(int fd)
{
	parent = fd;
}

static void
tell(const struct message *m)
{
	if (message_send(parent, m) == -1)
		exit(1);	/* it has gone, and said why itself */
}

/* The answer of one of two types. */
static void
answer(struct message *m, uint32_t type, uint32_t other)
{
	int n;

	do
		n = message_receive(parent, m, SIDE_SPOOLD, SIDE_WORKER);
	while (n == -1 && errno == EINTR);
	if (n == 1 && (m->header.type == type || m->header.type == other))
		return;
	if (n == 1)
		log_text(LOG_ERR, "the parent answered %s, which was not asked", message_name(m->header.type));
	exit(1);
}

void
ask_resolved(const struct grant *g)
{
	struct message m;

	message_start(&m, MESSAGE_RESOLVED);
	string_copy(m.body.resolved.user, sizeof m.body.resolved.user, g->user);
	string_copy(m.body.resolved.mbox, sizeof m.body.resolved.mbox, g->mbox);
	m.body.resolved.uid = g->uid;
	m.body.resolved.gid = g->gid;
	tell(&m);
}

void
ask_maildrop(const char *path, uint32_t kind)
{
	struct message m;

	message_start(&m, MESSAGE_MAILDROP);
	string_copy(m.body.maildrop.path, sizeof m.body.maildrop.path, path);
	m.body.maildrop.kind = kind;
	tell(&m);
}

static void
claim(struct message *m, dev_t device, ino_t inode, bool held)
{
	message_start(m, MESSAGE_CLAIM);
	m->body.claim.device = device;
	m->body.claim.inode = inode;
	m->body.claim.held = held;
	tell(m);
	answer(m, MESSAGE_CLAIMED, MESSAGE_CLAIMED);
}

bool
ask_claim(dev_t device, ino_t inode)
{
	struct message m;

	claim(&m, device, inode, true);
	return m.body.claimed.journal == 1;
}

bool
ask_since(dev_t device, ino_t inode, int64_t *since)
{
	struct message m;

	claim(&m, device, inode, false);
	*since = m.body.claimed.since;
	return m.body.claimed.ended == 1;
}

void
ask_measured(uint32_t what, uint32_t result, int64_t milliseconds, uint64_t count, uint64_t more)
{
	struct message m;

	message_start(&m, MESSAGE_MEASURED);
	m.body.measured.what = what;
	m.body.measured.result = result;
	m.body.measured.milliseconds = milliseconds > 0 ? (uint64_t)milliseconds : 0;
	m.body.measured.count = count;
	m.body.measured.more = more;
	tell(&m);
}

void
ask_idle(uint64_t kept)
{
	struct message m;

	message_start(&m, MESSAGE_IDLE);
	m.body.idle.kept = kept;
	tell(&m);
}

static int
privileged(struct message *m, uint32_t what)
{
	message_start(m, MESSAGE_PRIVILEGED);
	m->body.privileged.what = what;
	tell(m);
	answer(m, MESSAGE_DONE, MESSAGE_HANDED);
	return m->header.type == MESSAGE_DONE ? m->body.done.error : 0;
}

int
ask_privileged(uint32_t what)
{
	struct message m;
	int error = privileged(&m, what);

	message_clear(&m);
	return error;
}

int
ask_file(uint32_t what)
{
	struct message m;
	int error = privileged(&m, what);

	if (m.header.type == MESSAGE_HANDED)
		return m.fds[0];
	errno = error != 0 ? error : EIO;
	return -1;
}
