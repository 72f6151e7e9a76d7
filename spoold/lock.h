/*
 * Locks. Two kinds, and they never meet:
 *
 * The session lock keeps a second session out of a maildrop. It is the kernel's, of an open file description that only
 * the worker has, so it dies with the worker, however that dies. It is flock(2) on the mbox or the Maildir's
 * directory, which delivery agents do not look at; where flock is not independent of their fcntl(2) locks (a network
 * filesystem), or they use it (mbox-locks has flock), it is an OFD lock of a file beside the maildrop.
 *
 * The delivery locks keep delivery agents and mail readers out of an mbox while it is scanned and while it is updated:
 * those that mbox-locks names, in that order.
 */
#ifndef POSTERN_SPOOLD_LOCK_H
#define POSTERN_SPOOLD_LOCK_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "conf.h"

#define DELIVERY_WAIT_MS	20000	/* how long the delivery locks are waited for */
#define DELIVERY_YIELD_MS	2000	/* and after so long a dead worker's dotlock no longer keeps anybody off */
#define TAKEOVER_WAIT_MS	20000	/* how long the session before this one has to end, once it was told */
#define GRACE_WAIT_MS		300	/* and if it was not: its client may just have hung up */
#define DOTLOCK_STALE_S		600	/* unchanged for so long, and its holder not alive: left behind */

#define LOCKFILE_NAME		".%.200s.postern-lock"	/* of a session lock that is no flock, beside the mbox */

enum lock_result { LOCK_TAKEN, LOCK_HELD, LOCK_FAILED };

struct session_lock {
	int fd;				/* has the lock; -1: none */
	bool by_parent;			/* it is a lock file that the parent has made and will remove */
	int directory;			/* where our own lock file is; -1: none */
	int64_t since;			/* after LOCK_HELD: as the lock file's holder wrote it there; 0: not known */
	char name[NAME_MAX + 1];
};
#define SESSION_LOCK_NONE { .fd = -1, .directory = -1 }

/* Is it on a file system of this host's own? */
bool lock_is_local(int fd);
/* Is flock(2) on this file independent of the fcntl(2) locks that others take? */
bool lock_flock_is_ours(int fd, const struct conf *c, bool mbox);

/*
 * Takes the session lock by flock on `fd`, which must be a description of its own and stays the lock's, to close.
 * LOCK_FAILED with errno; fd is then the caller's. Waits for at most wait_ms.
 */
enum lock_result session_lock_flock(struct session_lock *l, int fd, int wait_ms);
/*
 * The same by a file NAME in `directory` (which must stay open), or, if this user may make none there and
 * `parent_may`, by the parent's.
 */
enum lock_result session_lock_file(struct session_lock *l, int directory, const char *name, bool parent_may, int wait_ms);
/* Gives it back; a lock file is removed first, under its lock. */
void session_lock_release(struct session_lock *l);

struct delivery_lock {
	const struct conf_set *kinds;	/* mbox-locks */
	int directory;			/* of the mbox */
	const char *dotlock;		/* NAME.lock */
	int fd;				/* the mbox */
	bool exclusive;
	uint32_t held;			/* a bit for each enum mbox_lock */
	enum { BY_WORKER, BY_LOCKER, BY_PARENT } dotlock_by;
	bool told;			/* that there can be no dotlock */
	struct stat dotlock_made;
};

/*
 * Takes all of l->kinds on l->fd; waits, and while one is not to be had holds none. `exclusive` needs fd open for
 * writing. 0, or -1 with errno: ETIMEDOUT, or what made one of them impossible.
 */
int delivery_lock_take(struct delivery_lock *l, int fd, bool exclusive);
/* Gives all back. (A dotlock that this process or its locker made goes with exit(3), too.) */
void delivery_lock_release(struct delivery_lock *l);

/*
 * NAME in `directory`, holding `pid`; under the session lock of the maildrop. 0 with *made, or an errno: EEXIST while
 * somebody has it who is not known to be gone.
 */
int dotlock_make(int directory, const char *name, pid_t pid, struct stat *made);
/* Is there one, or what is left of the making of one? Who takes the locks tidies up either. */
bool dotlock_is_there(int directory, const char *name);
/* Removes it if it is the one that was made. */
void dotlock_remove(int directory, const char *name, dev_t device, ino_t inode);

/* Whose flock(2) lock the kernel has on this file; 0 if nobody's that we may know. */
pid_t lock_holder(dev_t device, ino_t inode);

#endif
