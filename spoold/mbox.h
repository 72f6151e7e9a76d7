/*
 * What the files of the mbox store share: mbox.c (opening, locks, recovery, scanning, closing), mbox_look.c (a message found again) and mbox_update.c
 * (what an UPDATE does). Functions fail with -1 and errno, or, where they are the store's own verbs, as maildrop.h says.
 */
#ifndef POSTERN_SPOOLD_MBOX_H
#define POSTERN_SPOOLD_MBOX_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "journal.h"
#include "lock.h"
#include "maildrop.h"
#include "scan.h"

struct mbox {
	int fd;				/* -1: missing. For reading, and for writing if this user may */
	int directory;
	char name[NAME_MAX + 1];
	char dotlock[NAME_MAX + 1];
	struct session_lock session;
	struct delivery_lock delivery;
	dev_t device;			/* of the file that was scanned */
	ino_t inode;
	bool changed;			/* the cache does not know it as it is */
	bool doubted;			/* the inventory is not what is there: no stamp of the file is one of it */
	bool unread;			/* its times say that there is mail that nobody has read */
	bool replaced;			/* another file has its name now */
	int archive;			/* server-copy = archive: where to; -1: beside the mbox, once it is needed */
	int journal;			/* of the UPDATE; its blocks are given back when it is closed, at the very end; -1 */
	off_t promised;			/* so long the mbox is to be, and it is under its delivery locks still; -1: nothing is to be done */
};

/* What one scan gathers. */
struct gather {
	struct inventory *inventory;
};

/* One message of a second look, by content. */
struct look {
	uint8_t fingerprint[FINGERPRINT_SIZE];
	uint32_t index;
	off_t start, offset;
	uint64_t length, octets;
};

struct looks {
	struct look *look;
	uint32_t count, room;
};

/* mbox.c */
/* A message that was found goes into the inventory of a struct gather. */
int mbox_gather(const struct scan_found *f, void *data);
/* The archive that is beside the mbox; -1 with errno. */
int mbox_archive_beside(const struct mbox *b, bool makes);
/* What was known does not hold: the next session reads the whole mailbox, and knows its messages by their content. */
void mbox_doubt(struct maildrop *m, struct mbox *b);
/* Makes b->fd the file that has the name now, under its delivery locks (which the caller releases). 0; 1: no file has it. */
int mbox_lock_current(struct maildrop *m, struct mbox *b, bool exclusive);

/* mbox_look.c */
/* Everything that is in the file now; l->look is the caller's to free. 0, or -1 with errno. */
int mbox_look(const struct mbox *b, off_t size, struct looks *l);
/* Is what lies at the row what was scanned there? Copied to `copy` on the way, if that is not -1. 1, 0, or -1 with errno. */
int mbox_row_holds(const struct mbox *b, const struct inventory_message *im, struct content_hash *h, int copy);
/* The same of many, one after the other: what lies together is read together. */
struct ahead {
	off_t at;			/* where buffer[0] is in the file */
	size_t have;
	char buffer[256 << 10];
};
int mbox_row_holds_next(const struct mbox *b, const struct inventory_message *im, struct content_hash *h, struct ahead *a);
/*
 * Where the From_ line of the message at [offset, offset + length) starts, and where the next message starts, or the
 * file ends. 1; 0 if it is not framed like a message; -1 with errno.
 */
int mbox_row_frame(int fd, off_t offset, uint64_t length, off_t size, struct range *r);
int mbox_fetch(struct maildrop *m, uint32_t index, struct place *p);
bool mbox_older(struct maildrop *m, uint32_t index, int64_t than, bool surely);
int mbox_archived(struct maildrop *m, int64_t than, struct inventory *to);
int mbox_archived_fetch(struct maildrop *m, const struct inventory_message *im, struct place *p);

/* mbox_update.c */
int mbox_update(struct maildrop *m, const uint8_t *marks, struct tally *t);
void mbox_complete(struct maildrop *m);

#endif
