/*
 * Where a message's octets are: in the mbox, which this process has open, or behind a descriptor that the worker gives for this one message. A client
 * that fetches one message fetches the next, mostly: so the worker is asked for some of the next ones already.
 */
#ifndef POP3D_PLACE_H
#define POP3D_PLACE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "messages.h"

struct session;

struct place {
	uint32_t number;	/* whose it is; 0: none */
	int fd;
	bool own;		/* place_close closes it */
	off_t offset;
	uint64_t length;
};

/* What the worker has been asked for and not yet answered, or whose answer was not yet taken. Starts with {0}, most at 1. */
struct asked {
	uint32_t next, left;	/* message next and those after it, so many */
	struct place have[FETCHED_TOGETHER];	/* of these, what came together... */
	unsigned taken, came;			/* ... and how many of that were taken */
	uint32_t most;		/* so many may be asked for: doubled with each that was guessed right, to FETCH_AHEAD_MAX */
};

/* Is the mailbox still as the worker scanned it? Then the catalogue's offsets hold. Once it is not, it is not for the rest of the session. */
bool place_mbox_unchanged(struct session *s);

/* Message number's place; the caller closes it. False if it is not to be had: *failure says why. */
bool place_find(struct session *s, uint32_t number, struct place *p, uint32_t *failure);
/* The same from the worker, for an mbox, too. */
bool place_fetch(struct session *s, uint32_t number, struct place *p, uint32_t *failure);
/* The same without waiting and without looking at whether the mbox is unchanged: who uses it looks later. */
bool place_find_now(struct session *s, uint32_t number, struct place *p);

/* Asks the worker for some of the messages that follow the one whose place was just found. */
void place_ask_ahead(struct session *s, uint32_t number);
/* Takes the answers for all messages before `until`, which nobody wants any more; before the worker is asked anything else. False if it is gone. */
bool place_forget(struct session *s, uint32_t until);

void place_close(struct place *p);

#endif
