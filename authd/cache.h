/*
 * Passwords that were verified a short while ago, so that a client that polls every minute does not cost an Argon2id
 * each time. What is kept is a hash under a key that was made at start, is in locked memory and dies with authd; it
 * covers the user, the store and its service, the state of the user's record, the client's address if that matters, and the password. A record that
 * changes has another digest, and nothing that is kept fits it any more.
 */
#ifndef POSTERN_AUTHD_CACHE_H
#define POSTERN_AUTHD_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#define CACHE_TAG_SIZE	32

/* The parent: makes the table and its key. Fatal if they are not to be had. */
void cache_make(void);
/* The verifier: `ttl` in seconds; 0: nothing is kept or known. */
void cache_start(uint64_t ttl);

/*
 * The tag of one login; `digest` is of STORE_DIGEST_SIZE, or NULL for a store that has no records of ours. `client`: the address, if the store
 * may say yes to one and no to another; otherwise "".
 */
void cache_tag(uint8_t tag[static CACHE_TAG_SIZE], uint32_t store, const char *service, const char *user,
    const uint8_t *digest, const char *client, const char *password);

bool cache_has(const uint8_t tag[static CACHE_TAG_SIZE]);
void cache_put(const uint8_t tag[static CACHE_TAG_SIZE]);

#endif
