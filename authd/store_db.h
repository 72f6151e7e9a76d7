/* What the two files that know Berkeley DB, store.c and store_edit.c, share. */
#ifndef POSTERN_AUTHD_STORE_DB_H
#define POSTERN_AUTHD_STORE_DB_H

#include <db.h>

#include "store.h"

/* The key of the meta record: no user's name, since it has a NUL in it. */
#define META_KEY	"\0meta"
#define META_KEY_SIZE	5

/* The key of a certificate is this and the fingerprint; the value is the user's name. */
#define CERTIFICATE_KEY	"\0cert"
#define CERTIFICATE_KEY_SIZE	(5 + STORE_FINGERPRINT)

/* Sets errno for an error of Berkeley DB, whose own numbers are negative; returns -1. */
int db_errno(int error);
/* Opens a hash file without an environment, with so much memory for pages; DB_CREATE: under a lock. 0, or -1 with errno. */
int db_open(DB **db, const char *path, uint32_t flags, uint32_t cache);
/* 1 and the record, 0 if there is none, -1 with errno (EPROTO: larger than `size`). */
int db_get(DB *db, const void *name, size_t length, uint8_t *record, uint32_t size, size_t *got);
int db_find_user(DB *db, const char *name, struct store_user *u);
void certificate_key(uint8_t key[static CERTIFICATE_KEY_SIZE], const uint8_t fingerprint[static STORE_FINGERPRINT]);
int db_find_certificate(DB *db, const uint8_t fingerprint[static STORE_FINGERPRINT], char user[static USER_SIZE]);
int db_find_meta(DB *db, struct store_meta *meta);
uint8_t *store_encode_meta(const struct store_meta *meta, size_t *length);

#endif
