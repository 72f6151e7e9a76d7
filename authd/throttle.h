/*
 * Guessing is slowed, by address (IPv4 /32, IPv6 /64) and by user. The first few failures are free; then every one
 * doubles the wait before the next attempt is looked at. Attempts from one address wait in line behind each other; a
 * user's wait is short and each attempt's own, so that guessing at an account from many places does not lock its owner
 * out, who comes from elsewhere.
 */
#ifndef POSTERN_AUTHD_THROTTLE_H
#define POSTERN_AUTHD_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "conf.h"

/* The parent: makes the tables, which are of a fixed size. */
void throttle_make(void);

/*
 * The verifier: reads what an authd before this one has left in state-dir, unless another verifier has. A file that is
 * damaged, or from the future, counts for nothing.
 */
void throttle_start(const struct conf *c);
/* Writes it down, if anything has changed: at most 1 MiB. Called now and then, and at the end. */
void throttle_save(void);

/*
 * An attempt begins: it counts as a failure until throttle_settle says otherwise, so that hanging up early gains
 * nothing; but the first 64 of an address or a user that are under way at once make nobody wait, since many people may
 * be behind one address (a webmail, a school). Returns how many milliseconds it has to wait, or -1 if so many wait
 * already that it is to be refused: then it was not counted. `address` may be empty (no Internet peer).
 */
int64_t throttle_charge(const char *address, const char *user);

/* Has this address failed lately, or has it another attempt under way? Asked while one is. */
bool throttle_suspects(const char *address);

/*
 * The attempt is over; once for each throttle_charge. If it was right the user's failures are forgotten; of the
 * address's only this one, or one account of one's own would buy guesses at others'. If it was not looked at, for
 * want of a hasher or the like, nothing was guessed, and only this one is taken back.
 */
enum outcome { OUTCOME_WRONG, OUTCOME_RIGHT, OUTCOME_NONE };
void throttle_settle(const char *address, const char *user, enum outcome outcome);

#endif
