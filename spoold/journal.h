/*
 * The journal of an mbox UPDATE: takes ranges out of a mailbox in place, so that after a crash, a kill or a power cut
 * at any moment the mailbox is as it was or as it was meant to be, with whatever mail was delivered meanwhile.
 * journal.c says how, and what it assumes of the file system.
 *
 * Both functions are called with the mailbox locked against delivery agents and against other sessions. `mbox` is
 * open O_RDWR, without O_APPEND. `journal` is open O_RDWR; its name is durable (whoever made it has synced its
 * directory) and goes with the mailbox's path, not with its device number, which may be another after a boot. The
 * caller ignores SIGXFSZ. No descriptor is closed, no file position is moved. Memory: 2 MiB, given back. errno says
 * why wherever something failed.
 */
#ifndef POSTERN_SPOOLD_JOURNAL_H
#define POSTERN_SPOOLD_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Octets that are to go: [start, start + length). */
struct range {
	off_t start;
	off_t length;
};

enum journal_outcome {
	JOURNAL_APPLIED,	/* exactly these ranges are gone, and that is on disk: drop the journal */
	/* errno; the mailbox is octet for octet as it was, and the journal is empty: drop it (not after EEXIST) */
	JOURNAL_UNCHANGED,
	/* errno; not surely finished, nor undone: KEEP the journal for journal_recover. Answer as for a failure */
	JOURNAL_PENDING,
	JOURNAL_PROMISED	/* durable, but for the truncation: journal_keep, or, failing that, journal_recover */
};

/*
 * Takes `gone` (sorted, apart or touching, none empty, all inside) out of a mailbox of exactly `size` octets (else
 * ESTALE: look again). `journal` is empty but for a note (else EEXIST: recover first), or -1 if none can be had: then only what
 * moves nothing is done (a tail, or all of it), and the rest is ENOENT. A journal is not touched where none is
 * needed. JOURNAL_PENDING without a journal: truncated, but not known to be on disk.
 */
enum journal_outcome journal_apply(int mbox, int journal, const struct range *gone, size_t count, off_t size);

/*
 * The same, but always in a journal (not -1), and without the truncation, which takes long if much goes: JOURNAL_PROMISED, or
 * JOURNAL_UNCHANGED or JOURNAL_PENDING as there (JOURNAL_APPLIED if `count` is 0). Whatever happens after JOURNAL_PROMISED, it
 * comes to pass before anybody has the mailbox who asks journal_recover first; so the client may be answered.
 */
enum journal_outcome journal_promise(int mbox, int journal, const struct range *gone, size_t count, off_t size);
/* And then the truncation, to the `left` octets that remain: JOURNAL_APPLIED, or JOURNAL_PENDING. */
enum journal_outcome journal_keep(int mbox, off_t left);

/* Where a copy of what goes is put before it goes: behind the first `before` octets of the file with this inode. */
struct journal_note {
	ino_t archive;
	off_t before;
};

/*
 * Notes in the empty journal (else EEXIST), before the first octet is copied, what goes where; synced. After that
 * journal_apply takes the journal for empty, and the note stays until it is dropped. 0, or -1 with errno.
 */
int journal_note(int journal, const struct journal_note *n, const struct range *gone, size_t count);
/* After JOURNAL_NOTHING: 1 with what was noted (*gone is the caller's to free), 0 if nothing was, -1 with errno. */
int journal_noted(int journal, struct journal_note *n, struct range **gone, size_t *count);

/* Does taking these out move anything, so that journal_apply needs a journal? */
bool journal_needed(const struct range *gone, size_t count, off_t size);

enum journal_state {
	JOURNAL_NOTHING,	/* empty, or nobody can have been told that it is done: the mailbox is as it was; drop it */
	JOURNAL_DONE,		/* the UPDATE that it holds is finished and on disk: drop it */
	JOURNAL_TORN,		/* not whole: not acted on, the mailbox is served as it is; set it aside and say so */
	/* of another inode, version or content than this mailbox has: not acted on; set it aside and say so */
	JOURNAL_FOREIGN,
	JOURNAL_FAILED		/* errno; an error while finishing: keep it, do not serve the mailbox, try again */
};

/*
 * Finishes what an earlier journal_apply left, if anything. What was appended to the mailbox after the crash is kept.
 * May itself be killed at any moment, and called again. *why (may be NULL) becomes a fixed text for the log.
 */
enum journal_state journal_recover(int mbox, int journal, const char **why);

#endif
