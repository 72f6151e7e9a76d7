/*
 * Where the messages go that `server-copy = archive` takes out of a maildrop: the folder .Archive of a Maildir, or an
 * mbox of its own. A message is in the archive, and that is on disk, before it is out of the maildrop.
 */
#ifndef POSTERN_SPOOLD_ARCHIVE_H
#define POSTERN_SPOOLD_ARCHIVE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "journal.h"

#define ARCHIVE_NAME	".%s.archive"	/* beside the mbox */
#define ARCHIVE_CUR	".Archive/cur/"	/* from the Maildir on */

/* Makes what there is not of a Maildir's folder .Archive, durably. Its cur/, the caller's to close, or -1 with errno. */
int archive_folder(int root);
/* That folder itself, if it is there, the caller's to close; nothing is made. -1 with errno. */
int archive_look(int root);
/*
 * The name of "new/FILE" or "cur/FILE" there, from the Maildir on; `again` counts from 0 and gives another one each
 * time. 0, or -1 with ENAMETOOLONG.
 */
int archive_name(char to[static sizeof ARCHIVE_CUR + NAME_MAX], const char *name, unsigned again);

/*
 * Opens the mbox NAME in `directory` (O_PATH will do), made durably if it is missing and `makes`. -1 with errno: EPERM
 * if it is not a file of this user's alone.
 */
int archive_file(int directory, const char *name, bool makes);
/* Locks it: 0 with where it ends, or -1 with errno. archive_keep or archive_undo gives the lock back. */
int archive_begin(int archive, off_t *before);
/*
 * Appends these ranges of an mbox, whole messages with their From_ lines, behind `before`, and syncs. 0, or -1 with
 * errno: then the lock is given back, and the archive is as it was.
 */
int archive_append(int archive, int mbox, const struct range *range, size_t count, off_t before);
void archive_keep(void);
/* The messages stay in the maildrop after all. */
void archive_undo(int archive, off_t before);

/*
 * After a crash: takes back what archive_append has put there, all of it or some, if that is still in the mbox, and
 * nobody has appended to the archive since. 1 if there was something, and the archive is as it was before; 0 if there was
 * nothing, or what is there is not that: then it is let alone. -1 with errno.
 */
int archive_take_back(int archive, int mbox, const struct range *range, size_t count, off_t before);

#endif
