/*
 * Before spoold's parent, with -r: a process that does nothing but stand for it before a service manager. Workers need their parent until
 * they end; so when spoold is to be started anew (SIGUSR2), it is the front that goes, and the parent stays behind with its sessions.
 */
#ifndef SPOOLD_FRONT_H
#define SPOOLD_FRONT_H

#include "conf.h"

/*
 * Forks. Returns in the child, the parent of all workers; the process that was started stays as the front: it passes SIGTERM, SIGINT, SIGHUP and SIGUSR2
 * on, ends with the child's exit status, or when the child says front_release(). If the front is gone for another reason the child makes way, too.
 */
void front_stand(const struct conf *c);

/* Readable once the front is gone; -1 without one. */
int front_descriptor(void);

/* The sockets are free for a successor: lets the front go. Nothing is said to the service manager from now on. */
void front_release(void);

#endif
