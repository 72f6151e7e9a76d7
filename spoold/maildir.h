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

#include "listing.h"
#include "lock.h"
#include "maildrop.h"

#define HIDDEN "tmp/postern."	/* and the session's id, and a number */

/* Names, each NUL ended. */
struct names {
	char *at;
	size_t length, room;
};

/* How what an UPDATE has moved to tmp/ or to the archive can be put back, as long as it is not decided. */
struct way_back {
	uint8_t *moved;			/* a bit for each of its messages, in order: it has been, by the name it was found by; NULL: no way back */
	uint32_t first;			/* the number in tmp/ of the first */
	struct names odd, odd_as;	/* those that had another name, or got one that is not the usual */
};

struct maildir {
	int root;
	int part[PART_COUNT];		/* new/ and cur/; -1: missing */
	struct session_lock session;
	struct listing listing;		/* what is there, as of `listed` */
	struct stamp listed[PART_COUNT];
	uint64_t trusted;		/* what was written to after this moment (ms) was measured too soon after that to be believed */
	uint64_t newest;		/* when the last of all messages was written to */
	bool anew;			/* new/ or cur/ is another directory than it was: no file is known by its name */
	bool left_out[PART_COUNT];	/* a file of its own there is no message, and may become one without the directory being changed */
	uint8_t *wrong;			/* a bit a message: it is not as long as it was said to be; NULL: none */
	bool changed;			/* the cache does not know it as it is */
	int archive;			/* the archive's cur/; -1: messages are removed */
	char id[SESSION_ID_SIZE];	/* part of the names in tmp/ */
	uint32_t hidden;		/* the next one's number */
	uint32_t swept;			/* those before this number are not there any more, or not this session's to remove */
	bool looked;			/* what others before have left in tmp/ has been removed */
	struct way_back back;
	uint32_t position;		/* of the message that is acted on, among all that are */
	int journal;			/* of what is still to be moved: all of it, and so many octets of its names are done */
	uint64_t reached;
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
/*
 * Notes that a message was not what LIST said of it, so that maildir_correct() measures it: at the end of a session, so that the next has it
 * right.
 */
void maildir_doubt(struct maildrop *m, uint32_t index);
void maildir_correct(struct maildrop *m, struct maildir *d);
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
/* Renames a file, never over another. 0, or -1 with errno. */
int maildir_rename(int root, const char *from, const char *to);

#endif
