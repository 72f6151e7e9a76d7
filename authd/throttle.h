/*
 * Guessing is slowed, by address (IPv4 /32, IPv6 /64) and by user. The first few failures are free; then every one
 * doubles the wait before the next attempt is looked at. Attempts from one address wait in line behind each other; a
 * user's wait is short and each attempt's own, so that guessing at an account from many places does not lock its owner
 * out, who comes from elsewhere.
 */
#ifndef POSTERN_AUTHD_THROTTLE_H
#define POSTERN_AUTHD_THROTTLE_H

#include <stdint.h>

#include "conf.h"

/* The parent: makes the tables, which are of a fixed size. */
void throttle_make(void);

/*
 * The verifier: reads what an authd before this one has left in state-dir, unless another verifier has. A file that is damaged, or from
 * the future, counts for nothing.
 */
void throttle_start(const struct conf *c);
/* Writes it down, if anything has changed: at most some 800 KB. Called now and then, and at the end. */
void throttle_save(void);

/*
 * An attempt begins: it counts as a failure until throttle_refund says otherwise, so that hanging up early gains nothing.
 * Returns how many milliseconds it has to wait, or -1 if so many wait already that it is to be refused. `address` may be
 * empty (no Internet peer).
 */
int64_t throttle_charge(const char *address, const char *user);

/*
 * The attempt succeeded: the user's failures are forgotten; of the address's only this one, or one account of one's own
 * would buy guesses at others'.
 */
void throttle_refund(const char *address, const char *user);

#endif
