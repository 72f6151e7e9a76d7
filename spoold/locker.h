/*
 * A worker's locker: a process that knows the directory of the worker's mbox, and four names in it. MAILBOX.lock and the session lock's file it makes
 * and removes, the archive it makes and opens, the mbox it opens anew when another program has put another file in its place. It has the rights that the worker
 * had when it forked it, reads no mail, and speaks with the worker alone, by the messages by which that asks its parent.
 *
 * So the worker itself, which reads what strangers have sent, has the mbox in its cell and not the directory: neither what else is in a home, nor the mailboxes
 * of others who have the same uid.
 */
#ifndef POSTERN_SPOOLD_LOCKER_H
#define POSTERN_SPOOLD_LOCKER_H

#include <stdbool.h>

#include "conf.h"
#include "grant.h"

/*
 * Before the cell: from then on ask_beside() is answered, of g->mbox, whose directory this is. It ends with the worker; after PRIVILEGED_RELEASED, and until
 * it is asked again, it has nothing open. 0, or -1 with errno.
 */
int locker_start(const struct conf *c, const struct grant *g, int directory);

/* Is this its directory? True if there is no locker. */
bool locker_is_in(int directory);

#endif
