/*
 * What authd remembers of users by itself, in a file of its own under state-dir: when each was last here, when each app
 * password was last used, and the Argon2id hash that took the place of an imported one. It counts only as long as the
 * user's record is unchanged, is written by the verifier alone, and may be deleted at any time: then it begins afresh.
 */
#ifndef POSTERN_AUTHD_MEMORY_H
#define POSTERN_AUTHD_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "conf.h"
#include "store.h"

struct memory {
	uint8_t digest[STORE_DIGEST_SIZE];	/* of the record that `hash` and `used` were made for; zero for a user of PAM */
	int64_t last;				/* seconds since 1970; 0: never */
	int64_t used[STORE_APPS];
	char hash[STORE_HASH_SIZE];		/* empty: none */
};

/* The directory and file that hold it. -1 with ENAMETOOLONG. */
int memory_directory(const struct conf *c, char *path, size_t size);

/*
 * The verifier: opens it, or starts afresh if it is damaged. Without it authd serves, and says what it will not remember.
 */
void memory_start(const struct conf *c);
/* authctl: opens it to be read. -1 if it is not there or not to be read. */
int memory_open(const struct conf *c);

/* *m for this user; all zero if there is nothing, or the record is another by now (`last` is kept). */
void memory_find(const char *user, const uint8_t digest[static STORE_DIGEST_SIZE], struct memory *m);
void memory_put(const char *user, const struct memory *m);

/* Onto the disk. Called now and then: what a crash loses is a few dates. Also opens what memory_start could not yet. */
void memory_sync(void);
void memory_end(void);

#endif
