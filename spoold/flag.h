/*
 * An mbox of which an UPDATE is under way carries a flag, an extended attribute (user.postern-update) that says under which
 * state-dir the journal is: so that a spoold with another state-dir, as another host may have, does not serve what is half moved.
 * A message cannot set it, whatever is in it. Where a file system has no such attributes nothing is flagged.
 */
#ifndef POSTERN_SPOOLD_FLAG_H
#define POSTERN_SPOOLD_FLAG_H

#include <limits.h>
#include <stdbool.h>

/* The name by which other spoolds know this state-dir: whoever starts the workers. Without one nothing is flagged. */
void flag_name(const char *name);
/* The journal is there, and the mailbox not yet touched. */
void flag_set(int mbox);
/* What the journal says is done, or undone, on disk. */
void flag_clear(int mbox);

enum flagged {
	FLAGGED_NOT,
	FLAGGED_OURS,
	FLAGGED_OTHERS		/* its journal is another spoold's */
};
/* The host whose it is goes to `host` if it is another's. */
enum flagged flag_look(int mbox, char host[static HOST_NAME_MAX + 1]);

#endif
