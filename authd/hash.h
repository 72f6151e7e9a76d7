/* Slow password hashes: Argon2id through libsodium for what we make, crypt(3) besides for what was imported. */
#ifndef POSTERN_AUTHD_HASH_H
#define POSTERN_AUTHD_HASH_H

#include <stdbool.h>
#include <stddef.h>

#include "conf.h"

/* What one hash costs. */
struct hash_cost {
	uint64_t operations;
	uint64_t memory;	/* octets */
};

/*
 * libsodium's "interactive" cost, 2 passes over 64 MiB: three times what OWASP asks at least, and some 100 ms of one
 * core. The next step up, 256 MiB a hash, is for keys on disk; a server that hashes on request would hand a flood of
 * guesses a gigabyte.
 */
extern const struct hash_cost hash_cost_default;
#define HASH_MEMORY_MIN	8192	/* libsodium's least */
/* What no hash may exceed, so that the hashers together have a bound: their number times this and a little. */
#define HASH_MEMORY_MAX	(1024ul * 1024 * 1024)

/*
 * "$argon2id$..." of the password into `hash` (of `size`, at least STORE_HASH_SIZE). 0, or -1 if the memory is not to be
 * had.
 */
int hash_make(char *hash, size_t size, const char *password, const struct hash_cost *cost);

/* What a hash of ours costs. 0, or -1 if it is none of ours. */
int hash_cost_of(const char *hash, struct hash_cost *cost);

/* Does the password fit? 1, 0, or -1 if it could not be tried (memory). */
int hash_fits(const char *hash, const char *password);

/* Can hash_fits read this one? For import. */
bool hash_known(const char *hash);
/* Is it one that we would not make: to be upgraded? */
bool hash_is_foreign(const char *hash);

/*
 * No hash that this process computes from now on gets more than HASH_MEMORY_MAX: one that wants more cannot be tried.
 */
void hash_limit(void);

/*
 * The hasher: answers HASH with HASHED and MAKE with MADE on `channel` until that is closed. Already confined. Never
 * returns.
 */
_Noreturn void hasher_run(int channel);

#endif
