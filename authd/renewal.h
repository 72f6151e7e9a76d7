/*
 * The parent's part in TLS: starting the keeper, and another one when the configuration or a file that it names has
 * changed. The parent never reads a key: the keeper does, as root, right after it was forked. A keeper that cannot load
 * the new files ends, and the one before goes on.
 */
#ifndef POSTERN_AUTHD_RENEWAL_H
#define POSTERN_AUTHD_RENEWAL_H

#include <stdbool.h>
#include <sys/types.h>

#include "conf.h"

/*
 * Starts a keeper if the configuration has certificates, and waits until it serves; fatal if it cannot. `become` is
 * called in the keeper once it has read the keys: it closes what is the parent's and gives up root. `pop3d` is the uid
 * whose processes may ask. *c stays, and may change before renewal_reload. The process has SIGIO blocked: it comes when
 * renewal_turn has something to do.
 */
void renewal_start(const struct conf *c, uid_t pop3d, void (*become)(void));

/* The configuration was read again. */
void renewal_reload(void);

/*
 * Looks what has happened. True if it must be called again within a moment, and not only at the next SIGIO or SIGCHLD.
 */
bool renewal_turn(void);

/* A child has ended: was it a keeper? */
bool renewal_died(pid_t pid, int status);

/* In a child that is not the keeper: closes what is of no use to it. */
void renewal_forget(void);

/* The end: keepers are told to stop, and their socket goes. */
void renewal_stop(void);

/* authd -t: says on standard error what is wrong with certificates and keys. False after a mistake. */
bool renewal_check(const struct conf *c);

#endif
