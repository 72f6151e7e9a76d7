/*
 * Memory that outlives a verifier, so that neither a reload nor a crash of one forgets who guessed and what was verified.
 * The parent makes it before the first fork and never looks into it; verifiers inherit it, the other children give it up. Two
 * verifiers may write at once for a while after a reload: what is kept here must bear that.
 */
#ifndef POSTERN_AUTHD_SHARED_H
#define POSTERN_AUTHD_SHARED_H

#include <stddef.h>

/* Zeroed, between guard pages, locked as far as the limit allows, and in no core dump. Fatal if it is not to be had. */
void *shared_make(size_t size);

/* In a child that is no verifier: all of it goes. */
void shared_drop(void);

#endif
