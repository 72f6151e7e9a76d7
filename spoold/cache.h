/*
 * The inventory of a maildrop (its messages, in order) and the cache that remembers it from one session to the next.
 *
 *	stamp_take(&now[0], fd of the mbox, or of new/);  stamp_take(&now[1], fd of cur/);   (BEFORE scanning or listing)
 *	c = cache_open(fd, kind, uidl_context(u));
 *	old = cache_load(c);				NULL: nothing is known, scan all
 *	cache_stamp(c, 0) and stamp_compare() say of each file or directory: SAME, GROWN or CHANGED
 *	mbox SAME:	inventory_publish(old)
 *	mbox GROWN:	if inventory_holds(old, fd): inventory_inherit(old); scan from the old size on, inventory_add(old, ...), publish(old)
 *	mbox CHANGED:	inv = inventory_new(); scan; inventory_add(inv, ...); inventory_remember(inv, old); publish(inv)
 *	Maildir:	a directory that is SAME need not be listed: its messages are those of `old` whose names begin with it. A message
 *			that is found again (inventory_find) need not be read or stat'ed.
 *	...READY, the session, UPDATE...
 *	cache_store(c, inv, stamps)			at the end, and only if something changed
 *
 * It is only a cache: whatever is odd about it (torn, flipped, of another version, another user's inode, locked
 * by somebody else) makes cache_load() return NULL, and a failed cache_store() costs the next session a scan.
 * Nothing here logs or is fatal.
 */
#ifndef POSTERN_CACHE_H
#define POSTERN_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "catalogue.h"
#include "uidl.h"

/* A file or directory at one moment. All zero: unknown (compares as CHANGED). */
struct stamp {
	uint64_t device;
	uint64_t inode;
	uint64_t size;
	int64_t mtime;		/* ns */
	int64_t ctime;		/* ns */
	int64_t taken;		/* ns of CLOCK_REALTIME when it was taken, less what a network filesystem's clock may be off */
};

enum stamp_verdict {
	STAMP_SAME,		/* nobody has changed it since, and nobody could have done so unnoticed (not racy) */
	STAMP_GROWN,		/* the same file, and it is larger now: check with inventory_holds(), and that the new begins with a From_ line */
	STAMP_CHANGED
};

int stamp_take(struct stamp *s, int fd);	/* 0, or -1 with errno */
enum stamp_verdict stamp_compare(const struct stamp *then, const struct stamp *now);

/*
 * One message, to add or as it was added. Pointers are the caller's for add, and the inventory's (until the
 * next call on it) for get.
 */
struct inventory_message {
	uint64_t octets;	/* as catalogue.h has them */
	uint64_t offset;
	uint64_t length;
	const char *uid;
	size_t uid_length;
	const char *name;	/* Maildir: "cur/FILE" or "new/FILE"; mbox: NULL */
	size_t name_length;
	uint8_t fingerprint[FINGERPRINT_SIZE];	/* mbox; zero for a Maildir */
};

struct inventory;

struct inventory *inventory_new(void);		/* NULL: ENOMEM */
void inventory_free(struct inventory *inv);	/* the memfd of publish stays the caller's */
uint32_t inventory_count(const struct inventory *inv);
uint64_t inventory_octets(const struct inventory *inv);

/* At the end. Not after publish. 0, or -1 with errno (ENOMEM; E2BIG beyond MESSAGES_MAX). */
int inventory_add(struct inventory *inv, const struct inventory_message *m);
/* index from 0. The name costs a read of the cache or a search of nothing: cheap, not free. -1 with errno EIO. */
int inventory_get(struct inventory *inv, uint32_t index, struct inventory_message *m);
/* The row alone; valid until the next add, publish or free. */
const struct catalogue_row *inventory_row(const struct inventory *inv, uint32_t index);
/*
 * Row i becomes what row order[i] is; `order` has each of inventory_count() rows once, and is used up. Of them the first `count` stay. Before publish.
 */
void inventory_reorder(struct inventory *inv, uint32_t *order, uint32_t count);
/*
 * The message whose file's base name (up to ':', without the directory) is this; UINT32_MAX if none. Builds an
 * index at its first use (6 to 12 bytes a message).
 */
uint32_t inventory_find(struct inventory *inv, const char *base, size_t length);
/* Maildir: how many names begin with this letter ("new/", "cur/")? */
uint32_t inventory_count_in(const struct inventory *inv, char first);
/* Maildir: is this ("cur/FILE") the name of that message? Cheaper than to get it. */
bool inventory_is_named(struct inventory *inv, uint32_t index, const char *name, size_t length);

/*
 * mbox: is what is remembered still there? Looks at the end of what was known, at the first and the last
 * message and at a sample of the others, by fingerprint. `fd` is the mailbox, under its locks.
 */
bool inventory_holds(struct inventory *inv, int fd);

/* mbox: what is in it is inherited: the mailbox has grown since it was read, and may have been changed besides, unseen by inventory_holds(). */
void inventory_inherit(struct inventory *inv);
/* How many messages, from the first, are: before one of them is removed it is to be read. */
uint32_t inventory_inherited(const struct inventory *inv);

/*
 * Messages of `inv` that were in `old` under an id with an ordinal get that id again (twins). Call it after the
 * last add, before publish.
 */
int inventory_remember(struct inventory *inv, struct inventory *old);

/*
 * Makes every id differ from every other (twins get ".2", ".3"), and makes the catalogue: a sealed memfd, the
 * caller's. The inventory can be read on. -1 with errno (then it can only be freed).
 */
int inventory_publish(struct inventory *inv);

/*
 * Makes it as small as it can be, to be kept for a later session: no index, no name that was made. Returns how many octets it has; 0 if
 * it has not been published, or has more than `most`.
 */
uint64_t inventory_keep(struct inventory *inv, uint64_t most);

/*
 * For UPDATE, after publish: the inventory without the messages whose `gone` (one octet a message) is not 0, to
 * be stored and freed. `inv` lives on inside it: it is not to be used or freed any more. NULL with errno
 * ENOMEM: then inv is as it was.
 */
struct inventory *inventory_without(struct inventory *inv, const uint8_t *gone);
/*
 * What a moved, rewritten (mbox: offset, octets, length) or renamed (Maildir: name) message of such an
 * inventory has become. 0, or -1 with ENOMEM.
 */
int inventory_change(struct inventory *inv, uint32_t index, const struct inventory_message *m);

struct cache;

/*
 * fd is the cache's file, open for reading and writing, or -1 (then there is nothing to load and nothing is
 * stored). It stays the caller's and must stay open while the cache and an inventory loaded from it are in use.
 * NULL: ENOMEM.
 */
struct cache *cache_open(int fd, enum maildrop_kind kind, uint64_t context);
void cache_close(struct cache *c);
/* What was remembered, the caller's to free; NULL: nothing that can be used. */
struct inventory *cache_load(struct cache *c);
/* The stamp that was stored with it: 0 the mbox or new/, 1 cur/. All zero if nothing was loaded. */
const struct stamp *cache_stamp(const struct cache *c, unsigned which);
/*
 * Remembers `inv` as what was found when the stamps were taken. Appends when inv is what was loaded and more;
 * else writes anew; what was there stays valid until the new is complete. 0, or -1 with errno.
 */
int cache_store(struct cache *c, struct inventory *inv, const struct stamp stamps[static 2]);

#endif
