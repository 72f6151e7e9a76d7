/*
 * A worker's parent for tests that link a worker's files without one (spoold/ask.h): the journal and the cache are where the test says, and what happens
 * to them and to dotlocks can be seen, or be made to fail.
 */
#ifndef POSTERN_TESTS_ASK_STUB_H
#define POSTERN_TESTS_ASK_STUB_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "../spoold/ask.h"
#include "../spoold/locker.h"
#include "messages.h"

static char journal_path[64], cache_path[64];
static bool keep_journal;	/* it is not removed when it is dropped: as after a crash */
static bool no_journal;		/* none can be made */
static int dotlocks;		/* made and removed */

void ask_open(int fd) { (void)fd; }
void ask_resolved(const struct grant *g) { (void)g; }
void ask_maildrop(const char *p, uint32_t kind) { (void)p; (void)kind; }
uint32_t ask_claim(dev_t device, ino_t inode, int64_t born) { (void)device; (void)inode; (void)born; return JOURNAL_OURS; }
bool ask_since(dev_t device, ino_t inode, int64_t *since) { (void)device; (void)inode; *since = 0; return false; }

void
ask_measured(uint32_t what, uint32_t result, int64_t milliseconds, uint64_t count, uint64_t more)
{
	(void)what;
	(void)result;
	(void)milliseconds;
	(void)count;
	(void)more;
}

int
ask_privileged(uint32_t what)
{
	if ((what == PRIVILEGED_JOURNAL_DROP && !keep_journal) || what == PRIVILEGED_JOURNAL_SET_ASIDE)
		unlink(journal_path);
	if (what == PRIVILEGED_DOTLOCK_MAKE || what == PRIVILEGED_DOTLOCK_REMOVE)
		dotlocks++;
	return 0;
}

/* No locker: what is beside an mbox is within reach. */
bool ask_has_locker(void) { return false; }
int ask_beside(uint32_t what) { (void)what; return EACCES; }
void ask_beside_over(void) { }
void ask_beside_last(uint32_t what) { (void)what; }
int locker_start(const struct conf *c, const struct grant *g, int directory) { (void)c; (void)g; (void)directory; return 0; }
bool locker_is_in(int directory) { (void)directory; return true; }

int
ask_beside_file(uint32_t what)
{
	(void)what;
	errno = EACCES;
	return -1;
}

int
ask_file(uint32_t what)
{
	if (what == PRIVILEGED_JOURNAL_FIND)
		return open(journal_path, O_RDWR | O_CLOEXEC);
	if (what == PRIVILEGED_KEEP || what == PRIVILEGED_KEPT) {
		errno = ENOENT;		/* nobody outlives the test */
		return -1;
	}
	if (what == PRIVILEGED_JOURNAL_MAKE && no_journal) {
		errno = ENOSPC;
		return -1;
	}
	return open(what == PRIVILEGED_JOURNAL_MAKE ? journal_path : cache_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

#endif
