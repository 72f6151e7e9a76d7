/* The parent's loop: who is asked for, who has what, and what a worker may not do for itself. */
#ifndef POSTERN_SPOOLD_SESSIONS_H
#define POSTERN_SPOOLD_SESSIONS_H

#include "conf.h"

/*
 * Makes the sockets in run-dir. `first` is the lowest descriptor that no worker may inherit. Fatal. Before the sandbox.
 */
void sessions_open(struct conf *c, int first);

/* Finishes every UPDATE that was cut off, each in a worker of its own; does not wait for them. */
void sessions_recover(void);
/* Serves until that is over, but not for longer than SETTLE_WAIT_MS: a program that is started after this one finds no mailbox half done. */
void sessions_settle(void);

/* Until SIGTERM, and then until the sessions have ended or their time is over. */
void sessions_serve(void);

#endif
