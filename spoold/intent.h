/*
 * The journal of a Maildir UPDATE that removes more than one file: the list of what is to go, on disk before the first
 * goes. One file goes or does not; several are made one by carrying the list out to its end, now or at the next
 * opening. It is written and read bit by bit: the names of a million messages are never in memory.
 */
#ifndef POSTERN_SPOOLD_INTENT_H
#define POSTERN_SPOOLD_INTENT_H

#include <sodium.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum intent_kind { INTENT_REMOVES = 1, INTENT_ARCHIVES };

#define INTENT_BLOCK 8192

/* One that is being written or read; a name is "new/FILE" or "cur/FILE". */
struct intent {
	enum intent_kind kind;	/* what is to happen to them */
	uint64_t length;	/* of the names, each NUL ended */
	uint32_t count;
	int journal;		/* the caller's */
	uint64_t at;		/* so much of the names has been written, or read to `block` */
	size_t used, held;	/* of the block: what has been given out, and what there is */
	crypto_generichash_state hash;
	char block[INTENT_BLOCK];
};

/*
 * Writing: begin, add every name, end, which syncs. The journal is empty, the Maildir is `root`, and what the names will be in all is known: else
 * it does not end. Each 0, or -1 with errno.
 */
int intent_begin(struct intent *i, int journal, int root);	/* with kind, length and count set */
int intent_add(struct intent *i, const char *name, size_t length);
int intent_end(struct intent *i);

enum intent_state {
	INTENT_NOTHING,		/* never complete: nothing was removed because of it */
	INTENT_WHOLE,		/* *i is what was to go: all of it has been looked at */
	INTENT_FOREIGN,		/* of another Maildir or version */
	INTENT_FAILED		/* errno */
};
enum intent_state intent_read(struct intent *i, int journal, int root);
/* Of one that is whole: the next name, until the next call. 1; 0: that was all; -1 with errno. */
int intent_next(struct intent *i, const char **name);
/* From the name that begins so far behind the first. */
void intent_seek(struct intent *i, uint64_t at);

#endif
