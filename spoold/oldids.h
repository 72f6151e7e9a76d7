/*
 * What another POP3 server left in a Maildir about the ids it gave: dovecot-uidlist (versions 1 and 3) and
 * courierpop3dsizelist (1 to 3).
 */
#ifndef POSTERN_OLDIDS_H
#define POSTERN_OLDIDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum oldids_kind { OLDIDS_DOVECOT, OLDIDS_COURIER };

/* A piece of the file; not NUL ended. */
struct oldids_text {
	const char *at;
	size_t length;		/* 0: there is none */
};

struct oldid {
	uint64_t uid;
	uint64_t validity;
	struct oldids_text saved;	/* Dovecot, P: the id itself, as it was imported or saved */
	struct oldids_text guid;	/* Dovecot, G */
};

struct oldids;

/*
 * Opens the file in the Maildir `directory`; it is read at the first oldids_find(), so that a maildrop whose
 * ids are all remembered does not pay for it. NULL: there is no such file, or no memory for it.
 */
struct oldids *oldids_open(int directory, enum oldids_kind kind);
void oldids_close(struct oldids *o);

/* By the base name of a message's file. False if it is not recorded. The texts stay until oldids_close(). */
bool oldids_find(struct oldids *o, const char *base, size_t length, struct oldid *id);

#endif
