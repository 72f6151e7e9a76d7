/*
 * The user store `db`: users.db, the secrets by which users prove who they are. The only file that knows Berkeley DB,
 * besides lib/accounts.c, which reads the file without secrets that lies beside it.
 *
 * Readers open the file read-only, take no lock, and look at each question whether another file has taken its name.
 * Writers (authctl alone) change copies of users.db and maildrops.db and rename them over the old ones, under one lock:
 * whatever happens, each of the two is the old file or the new one.
 */
#ifndef POSTERN_AUTHD_STORE_H
#define POSTERN_AUTHD_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "accounts.h"

#define STORE_HASH_SIZE		512	/* as in struct body_hash */
#define STORE_SALT_MAX		32
#define STORE_SECRET_MAX	128	/* sealed, with nonce and tag */
#define STORE_APPS		16	/* app passwords a user */
#define STORE_APP_NAME		64
#define STORE_FROM_SIZE		64	/* a network, as text */
#define STORE_KEY_SIZE		32
#define STORE_DIGEST_SIZE	32
#define STORE_CERTIFICATES	8	/* a user */
#define STORE_FINGERPRINT	32	/* SHA-256 of a certificate, or of its public key */

struct store_scram {
	uint32_t iterations;	/* 0: there is no verifier */
	uint32_t salt_length;
	uint8_t salt[STORE_SALT_MAX];
	uint8_t stored_key[32];
	uint8_t server_key[32];
};

struct store_app {
	char name[STORE_APP_NAME];
	char from[STORE_FROM_SIZE];	/* empty: from anywhere */
	uint8_t hash[32];		/* keyed, fast: the password is random */
	int64_t created;		/* seconds since 1970 */
	int64_t expires;		/* 0: never */
	bool no_delete;
};

struct store_user {
	bool locked;
	char hash[STORE_HASH_SIZE];	/* libsodium's or crypt(3)'s; empty: no password opens it */
	struct store_scram scram;
	uint32_t secret_length;		/* 0: there is none */
	uint8_t secret[STORE_SECRET_MAX];
	uint32_t apps;
	struct store_app app[STORE_APPS];
	uint32_t certificates;
	uint8_t certificate[STORE_CERTIFICATES][STORE_FINGERPRINT];
	/* set by store_find: of the whole record; another one means that something of it was changed */
	uint8_t digest[STORE_DIGEST_SIZE];
};

/*
 * What the file says of itself: what to show and to spend for a user who is not there, so that he cannot be told from one
 * who is.
 */
struct store_meta {
	char hash[STORE_HASH_SIZE];	/* of a password that nobody knows, at the cost that authctl last used */
	uint8_t salt_key[STORE_KEY_SIZE];	/* salts of unknown users come from it */
	uint32_t iterations;		/* of SCRAM */
};

struct store_file {
	char path[CONF_STRING];
	void *db;		/* NULL: not open */
	dev_t device;		/* of the file that is open */
	ino_t inode;
	off_t size;
	struct timespec changed;
};

/* Sets the path; the file is opened by the first question. */
void store_start(struct store_file *s, const char *path);
void store_end(struct store_file *s);

/*
 * 1 and *u, 0 if there is no such user (or no file), -1 with errno (logged once a state: EIO damaged, EPROTO a record of
 * another version, EACCES). The caller wipes *u.
 */
int store_find(struct store_file *s, const char *name, struct store_user *u);
/* Whose certificate is it? As store_find; what it finds is an index: the user's own record has the last word. */
int store_find_certificate(struct store_file *s, const uint8_t fingerprint[static STORE_FINGERPRINT],
    char user[static USER_SIZE]);
/* The same for the file itself. */
int store_meta(struct store_file *s, struct store_meta *meta);

/*
 * The record of a user, into malloc'ed memory that the caller wipes and frees. NULL with errno. Exposed for the test.
 */
uint8_t *store_encode(const struct store_user *u, size_t *length);
int store_decode(struct store_user *u, const uint8_t *record, size_t length);

/*
 * Is this a name that a user may have: 1 to 255 octets of UTF-8 without control characters, blanks, '/', ':' or a '.' or
 * '-' in front? NULL, or what is accepted.
 */
const char *store_name_check(const char *name);

/*
 * Whose store is it? Root may keep that of an ordinary user who runs everything: his is users.db, or for want of it the directory. Whatever
 * is made there becomes his.
 */
struct store_owner {
	bool other;		/* we are root, and it is not root's */
	uid_t uid;
	gid_t gid;
	mode_t mode;		/* of users.db and its key */
};
/* 0, or -1 with errno. */
int store_owner(const char *path, struct store_owner *owner);

/*
 * Changing: open both, put and remove, then commit or abandon. One at a time on a host: the second waits for the first.
 */
struct store_edit {
	char users[CONF_STRING], users_new[CONF_STRING + 8];
	char accounts[CONF_STRING + 16], accounts_new[CONF_STRING + 24];
	void *users_db, *accounts_db;
	int lock;
	gid_t group;		/* who may read users.db, if it is root's; -1: as the process */
	struct store_owner owner;
};

/* How much memory for pages: few are touched by one change, all of them by an import. */
#define EDIT_CACHE	(4u * 1024 * 1024)
#define EDIT_CACHE_IMPORT	(256u * 1024 * 1024)

/* `group` may read users.db and the key. 0, or -1 with errno and nothing left behind. */
int edit_begin(struct store_edit *e, const char *path, gid_t group, uint32_t cache);
/* As store_find, in what is being changed. */
int edit_find(struct store_edit *e, const char *name, struct store_user *u);
int edit_find_account(struct store_edit *e, const char *name, struct account *a);
int edit_meta(struct store_edit *e, struct store_meta *meta);
int edit_put(struct store_edit *e, const char *name, const struct store_user *u, const struct account *a);
/* A policy_only account, who has no record in users.db; remove with edit_remove. */
int edit_put_account(struct store_edit *e, const char *name, const struct account *a);
int edit_put_meta(struct store_edit *e, const struct store_meta *meta);
/* With his certificates. */
int edit_remove(struct store_edit *e, const char *name);
/* The index of certificates: as store_find_certificate, and its changes. */
int edit_find_certificate(struct store_edit *e, const uint8_t fingerprint[static STORE_FINGERPRINT],
    char user[static USER_SIZE]);
int edit_put_certificate(struct store_edit *e, const uint8_t fingerprint[static STORE_FINGERPRINT], const char *user);
int edit_remove_certificate(struct store_edit *e, const uint8_t fingerprint[static STORE_FINGERPRINT]);

/* In which order the two new files take their names: see lib/accounts.h. */
enum edit_order { EDIT_ADDS, EDIT_REMOVES };
/*
 * Makes it durable and real. 0, or -1 with errno: then each file is the old or the new one, and e is closed either way.
 */
int edit_commit(struct store_edit *e, enum edit_order order);
void edit_abandon(struct store_edit *e);

/*
 * Calls `each` for every user in no order, with his account (NULL: there is none); stops at its first non-zero, and
 * returns it. -1 with errno.
 */
int store_each(const char *path, int (*each)(const char *name, const struct store_user *u, const struct account *a, void *arg),
    void *arg);

/* The same for every policy_only account of maildrops.db. */
int store_each_policy(const char *path, int (*each)(const char *name, const struct account *a, void *arg), void *arg);

/*
 * The key of the store: in a file of its own, users.db.key, beside users.db. App passwords are hashed and secrets sealed
 * with it. `make`: make one if there is none (authctl). 1, 0 if there is none, -1 with errno. `key` is in the caller's
 * guarded memory.
 */
int store_key(const char *path, gid_t group, bool make, uint8_t key[static STORE_KEY_SIZE]);

#endif
