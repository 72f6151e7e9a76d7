/*
 * The journal of a Maildir UPDATE that removes more than one file: the list of what is to go, on disk before the first
 * goes. One file goes or does not; several are made one by carrying the list out to its end, now or at the next
 * opening.
 */
#ifndef POSTERN_SPOOLD_INTENT_H
#define POSTERN_SPOOLD_INTENT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum intent_kind { INTENT_REMOVES = 1, INTENT_ARCHIVES };

struct intent {
	enum intent_kind kind;	/* what is to happen to them; 0 is INTENT_REMOVES */
	char *names;		/* "cur/FILE", each NUL ended */
	size_t length, room;
	uint32_t count;
};

/* 0, or -1 with ENOMEM. */
int intent_add(struct intent *i, const char *name, size_t length);
void intent_free(struct intent *i);

/* Writes it into the empty journal, for the Maildir `root`, and syncs that. 0, or -1 with errno. */
int intent_write(const struct intent *i, int journal, int root);

enum intent_state {
	INTENT_NOTHING,		/* never complete: nothing was removed because of it */
	INTENT_WHOLE,		/* *i is what was to go */
	INTENT_FOREIGN,		/* of another Maildir or version */
	INTENT_FAILED		/* errno */
};
enum intent_state intent_read(struct intent *i, int journal, int root);

#endif
