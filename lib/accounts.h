/*
 * Where the mail of a user of store `db` is: maildrops.db, which lies beside users.db and holds no secret. It is a
 * Berkeley DB file, access method hash, one record a user: the key is the name, the value an account record (accounts.c).
 * Only authctl writes, and replaces the file whole, so a reader needs no lock and no write access; spoold reads it for
 * every session anew, authctl to change it.
 *
 * Every user of users.db has a record here; so may an account of the host, for its policy alone. authctl replaces maildrops.db first when it adds and users.db first when it
 * removes, so that a crash between the two leaves nobody who can log in without one.
 */
#ifndef POSTERN_ACCOUNTS_H
#define POSTERN_ACCOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf.h"
#include "messages.h"

#define ACCOUNT_RECORD_MAX	(20 + PATH_SIZE)

struct account {
	bool has_uid;		/* false: the uid is that of the system account of the same name, or virtual-user */
	uint32_t uid;
	int kind;		/* enum store_kind */
	char path[PATH_SIZE];	/* absolute; empty: as postern.conf has it for this kind */
	bool has_copy;		/* the user has a server-copy policy of his own */
	int server_copy;	/* enum server_copy */
	/*
	 * Nobody of users.db: an account of the host (store pam), of whom only the policy is kept here. To the store db
	 * he is not there.
	 */
	bool policy_only;
};

/* The path of maildrops.db, given that of users.db. -1 with ENAMETOOLONG if it does not fit. */
int accounts_path(const char *users_db, char *path, size_t size);

/*
 * Looks `user` up in the maildrops.db beside users_db. 1 with *a filled; 0, and *a empty, if there is no such user (or no such file); -1
 * with errno (EIO: damaged, EPROTO: a record that this version does not know). Blocks on the disk. Leaves nothing open.
 */
int account_find(const char *users_db, const char *user, struct account *a);

/* The record of *a, into `record`; returns its length. */
size_t account_encode(const struct account *a, uint8_t record[static ACCOUNT_RECORD_MAX]);
/* The other way. 0, or -1 with EPROTO. */
int account_decode(struct account *a, const uint8_t *record, size_t length);

/* "KIND:PATH", "KIND", as authctl takes it: kind auto, mbox or maildir. NULL, or what is wrong and what is accepted. */
const char *account_parse(struct account *a, const char *text);
/* "maildir", "maildir:/srv/mail/u". */
void account_print(const struct account *a, char *text, size_t size);

#endif
