/*
 * The locks of an mbox UPDATE outlive the worker that is killed in it: nobody but a recovery gets in between.
 *
 * The kernel's locks are those of an open file description. Before a worker changes anything it sends that of the mbox
 * into a socket pair of the parent's, from which nobody reads; so it stays, and the locks on it do, until whoever
 * recovers has taken it over. The parent has the sockets alone: it neither opens nor closes a file of a user's, which
 * on some file systems may take for ever.
 */
#ifndef POSTERN_SPOOLD_LOCKED_H
#define POSTERN_SPOOLD_LOCKED_H

#include <stdbool.h>
#include <stddef.h>

/* ---- the worker's side */

/* Lets the parent keep the description of `mbox`. What cannot be kept is as if the parent had died, too. */
void locked_keep(int mbox);
/* The description of the same file that a dead worker has left, the caller's to close; -1: none. */
int locked_find(int mbox);

/* ---- the parent's */

/* What one worker has sent there: a pair's end, *kept (-1: none yet), is the parent's; the other, *fd, the worker's. 0 or an errno. */
int locked_pair(int *kept, int *fd);
/* The worker is dead, and its journal is left: keeps that for whoever recovers the maildrop that `key` names. */
void locked_leave(const char *key, int kept);
/* A second descriptor for it. 0 or an errno: ENOENT. */
int locked_left(const char *key, int *fd);
/* It is recovered, or nobody is about to. */
void locked_forget(const char *key);
/* Forgets all that needed() says no of. */
void locked_sweep(bool (*needed)(const char *key));

#endif
