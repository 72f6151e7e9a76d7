/*
 * What the files of the Maildir store share: maildir.c (opening, fetching, closing), maildir_scan.c (what is there) and
 * maildir_update.c (what an UPDATE does, and its recovery). Functions fail with -1 and errno, or, where they are the
 * store's own verbs, as maildrop.h says.
 */
#ifndef POSTERN_SPOOLD_MAILDIR_H
#define POSTERN_SPOOLD_MAILDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "intent.h"
#include "listing.h"
#include "lock.h"
#include "maildrop.h"

#define HIDDEN "tmp/postern."	/* and the session's id, and a number */

struct maildir {
	int root;
	int part[PART_COUNT];		/* new/ and cur/; -1: missing */
	struct session_lock session;
	struct listing listing;		/* what is there, as of `listed` */
	struct stamp listed[PART_COUNT];
	bool changed;			/* the cache does not know it as it is */
	int archive;			/* the archive's cur/; -1: messages are removed */
	struct intent moved, moved_as;	/* what an UPDATE has moved to tmp/ or to the archive, and the names it has there */
	struct intent left;		/* in tmp/: what UPDATEs before this have moved there and not removed */
	char id[SESSION_ID_SIZE];	/* part of the names in tmp/ */
	uint32_t hidden;		/* the next one's number */
	struct intent deferred;		/* what it is still to move, all of it; the journal has it */
	size_t reached;			/* so much of that is done: octets of its names */
	bool decided;			/* there is no way back: where it was need not be known of what moves */
	int journal;			/* of `deferred` */
};

/* maildir_scan.c */
int maildir_scan(struct maildrop *m);
/* Lists new/ and cur/ anew into d->listing. */
int maildir_list(struct maildir *d);
/* Finds by its base name the file that was `tried` and is not any more. "" if it has gone. Good until the next call. */
const char *maildir_find(struct maildir *d, const char *tried);
/* Opens a message's file: never a FIFO, a device or what a link points to. */
int maildir_open_file(const struct maildir *d, const char *name);
/* Delivery makes links for a moment, of the user's own files; one of another's file is not mail. */
bool maildir_foreign_link(const struct stat *st);
/* Adds the message of a listing's entry to an inventory; `old` (may be NULL) may know it. 1; 0: there is no message. */
int maildir_add(struct maildrop *m, struct maildir *d, const struct listing_entry *e, struct inventory *old, struct inventory *to);

/* maildir_update.c */
int maildir_update(struct maildrop *m, const uint8_t *marks, struct tally *t);
void maildir_complete(struct maildrop *m);
/* Carries out what the journal of an UPDATE that was cut off holds. */
int maildir_recover(struct maildrop *m, struct maildir *d, int journal);
void maildir_remember(struct maildrop *m);
bool maildir_untidy(const struct maildrop *m);
void maildir_sweep(struct maildrop *m);

#endif
