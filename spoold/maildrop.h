/*
 * A maildrop of either kind, as a session sees it: numbers, unique-ids, marks, and the order of an UPDATE. Knows no
 * format; a store (mbox.c, maildir.c) is a struct mailstore.
 *
 * Every function returns 0, or -1 with m->failure set and the reason logged, once.
 */
#ifndef POSTERN_SPOOLD_MAILDROP_H
#define POSTERN_SPOOLD_MAILDROP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache.h"
#include "catalogue.h"
#include "conf.h"
#include "grant.h"
#include "lock.h"
#include "messages.h"
#include "sandbox.h"
#include "uidl.h"

/* Where a message's bytes are, for FETCH. */
struct place {
	int fd;			/* the caller's to close */
	off_t offset;
	uint64_t length;
};

/* What an UPDATE did. */
struct tally {
	uint32_t deleted;	/* marked, and gone */
	uint32_t left;		/* marked, and still there */
	uint32_t remain;	/* messages in the maildrop now, as far as this session knows */
	uint32_t expired;	/* gone besides, by age */
	bool deferred;		/* decided and durable; what is left to do takes long: complete() and remember() come after the answer */
	bool cuts;		/* and of that, an mbox is to be cut off */
	uint64_t length;	/* at so many octets */
};

struct maildrop;
struct view;

struct mailstore {
	enum maildrop_kind kind;
	const char *name;
	/*
	 * Opens all there is to open and takes the session lock; 1: another session has it, m->since. Before the
	 * sandbox.
	 */
	int (*open)(struct maildrop *m);
	/* Finishes what an earlier UPDATE left, finds every message and publishes the inventory. */
	int (*scan)(struct maildrop *m);
	/* Message `index` (from 0) as it is now. -1 with FAILURE_VANISHED is not logged. */
	int (*fetch)(struct maildrop *m, uint32_t index, struct place *p);
	/*
	 * Was it delivered before `than` (seconds since 1970)? What is not known is not older. `surely`: something will be removed
	 * for it; then what looks older and may be younger is not older either.
	 */
	bool (*older)(struct maildrop *m, uint32_t index, int64_t than, bool surely);
	/* Adds to `to` the messages of the archive that are not older. 0, or -1 with errno. */
	int (*archived)(struct maildrop *m, int64_t than, struct inventory *to);
	/* One of them, as fetch. */
	int (*archived_fetch)(struct maildrop *m, const struct inventory_message *im, struct place *p);
	/* Message `index` was not as long on the wire as it was said to be: the next session has it right. NULL: it cannot be. */
	void (*doubt)(struct maildrop *m, uint32_t index);
	/* Removes what is marked, durably. */
	int (*update)(struct maildrop *m, const uint8_t *marks, struct tally *t);
	/* After t->deferred, under the session lock. What fails is left to recovery. NULL: there is nothing left but to remember. */
	void (*complete)(struct maildrop *m);
	/* Remembers what was found, if something changed. Failing costs the next session a scan. */
	void (*remember)(struct maildrop *m);
	/* Gives the session lock back. */
	void (*release)(struct maildrop *m);
	/* Is there anything that may wait until the client has its answer? NULL: never. */
	bool (*untidy)(const struct maildrop *m);
	/* Does it; the lock is no longer held. */
	void (*sweep)(struct maildrop *m);
	/* Closes and frees all that open made; the lock is given back. */
	void (*close)(struct maildrop *m);
};

/* What a worker that lingers knows of its maildrop from one session to the next. */
struct kept {
	bool again;			/* there was a session before this one: the cell is closed */
	char path[PATH_SIZE];		/* canonical */
	struct inventory *inventory;	/* published; true as long as the stamps are. NULL: nothing is known */
	struct stamp seen[2];
	uint64_t context;		/* uidl_context() */
	enum maildrop_kind kind;
	bool young;			/* Maildir: some of it was measured so soon after it was written to that it is looked at again */
};

struct maildrop {
	const struct conf *conf;
	struct kept *kept;
	const struct grant *grant;
	const struct mailstore *store;
	void *of_store;			/* the store's own */
	char path[PATH_SIZE];		/* canonical, once it is open and exists */
	bool claimed;			/* the parent knows that we have the session lock */
	bool journal;			/* an earlier UPDATE may have left one */
	bool missing;			/* nothing is there: an empty maildrop, and nothing is made */
	bool readonly;
	bool rebuild;
	bool tidy;			/* take the delivery locks in any case: a dead worker's dotlock goes with them */
	struct inventory *inventory;	/* after scan */
	bool recent;			/* a view is to be made */
	bool expires;			/* an UPDATE, and a RELEASE, removes what is too old */
	struct view *view;		/* what the session sees; NULL: all of it */
	int catalogue;			/* sealed; -1 before scan */
	struct uidl *uidl;
	struct cache *cache;		/* maildrop_cache() */
	int cache_fd;
	int reader;			/* mbox: open for reading, for POP3D; else -1 */
	struct stamp seen[2];		/* as it was scanned */
	int64_t since;
	uint32_t failure;		/* enum failure */
	struct sandbox_path paths[2];	/* what it still needs by path */
	size_t path_count;
};

extern const struct mailstore store_mbox;
extern const struct mailstore store_maildir;

/* Which it is, by looking if need be, with the user's rights. */
const struct mailstore *maildrop_choose(const struct grant *g);
/*
 * Chooses the store and opens it; `rebuild` drops the cache first. 0; 1: busy, m->since says since when; -1. With k->again, everything
 * must be where it was in the session before, and at once: until m->claimed, 1 and -1 mean that it is not, and nothing has been logged.
 */
int maildrop_open(struct maildrop *m, const struct conf *c, const struct grant *g, bool rebuild, struct kept *k);
/* After the session: closes and frees all. What is still known goes to *m->kept; returns the octets of that. */
uint64_t maildrop_close(struct maildrop *m);
/* May the worker that had this session have another? */
bool maildrop_may_linger(const struct maildrop *m);
int maildrop_scan(struct maildrop *m);
uint32_t maildrop_count(const struct maildrop *m);
/* What the session sees of it. */
uint32_t maildrop_shown(const struct maildrop *m);
uint64_t maildrop_octets(const struct maildrop *m);
/* number from 1. */
int maildrop_fetch(struct maildrop *m, uint32_t number, struct place *p);
/* It was not as long on the wire as the catalogue says. */
void maildrop_doubt(struct maildrop *m, uint32_t number);
/*
 * `marks` is what POP3D sent: a memfd of `count` octets that must be sealed. With no_delete none of them may be
 * deleted.
 */
int maildrop_update(struct maildrop *m, int marks, uint32_t count, bool no_delete, struct tally *t);

/* At the end of a session that has marked nothing: what has expired goes. What cannot be removed is logged, and stays. */
void maildrop_expire(struct maildrop *m, bool no_delete, struct tally *t);
/* For how many days a message stays at least; EXPIRE_NEVER. */
uint32_t maildrop_stays(const struct maildrop *m, bool no_delete);

/* For the stores: sets m->failure from errno and logs what could not be done. Returns -1. */
int maildrop_fail(struct maildrop *m, const char *what);
/* The same when it is the archive that is not to be had. */
int maildrop_fail_archive(struct maildrop *m);
/* The same with a failure of our own choice and a reason. */
int maildrop_refuse(struct maildrop *m, uint32_t failure, const char *reason);
/*
 * For the stores, once the maildrop `fd` is open and locked: its canonical path, the claim of the file that has the lock, uidl. 0; 1: as open's; -1.
 */
int maildrop_ready(struct maildrop *m, int fd, int directory, dev_t device, ino_t inode);
/* For the stores: the cache, opened at its first use. One that cannot be had loads and stores nothing; NULL: ENOMEM. */
struct cache *maildrop_cache(struct maildrop *m);
/* For the stores: is all as it was when m->kept was made? m->seen is as it is now. Then m->inventory is set. */
bool maildrop_unchanged(struct maildrop *m);
/* For the stores: the journal that an earlier UPDATE left. -1 with errno; ENOENT: none. */
int maildrop_journal(const struct maildrop *m);

#endif
