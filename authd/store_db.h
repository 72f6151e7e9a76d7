/* What the two files that know Berkeley DB, store.c and store_edit.c, share. */
#ifndef POSTERN_AUTHD_STORE_DB_H
#define POSTERN_AUTHD_STORE_DB_H

#include <db.h>

#include "store.h"

/* The key of the meta record: no user's name, since it has a NUL in it. */
#define META_KEY	"\0meta"
#define META_KEY_SIZE	5

/* Sets errno for an error of Berkeley DB, whose own numbers are negative; returns -1. */
int db_errno(int error);
/* Opens a hash file without an environment, with so much memory for pages. 0, or -1 with errno. */
int db_open(DB **db, const char *path, uint32_t flags, uint32_t cache);
/* 1 and the record, 0 if there is none, -1 with errno (EPROTO: larger than `size`). */
int db_get(DB *db, const void *name, size_t length, uint8_t *record, uint32_t size, size_t *got);
int db_find_user(DB *db, const char *name, struct store_user *u);
int db_find_meta(DB *db, struct store_meta *meta);
uint8_t *store_encode_meta(const struct store_meta *meta, size_t *length);

#endif
