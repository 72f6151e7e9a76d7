#include "accounts.h"

#include <db.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The record, in network byte order:
 *	0	version, 1
 *	4	1 if there is a uid, else 0
 *	8	uid
 *	12	kind
 *	16	path, not NUL ended, to the end of the record
 */
#define RECORD_VERSION	1
#define RECORD_PATH	16

static const char *const kinds[] = { [STORE_AUTO] = "auto", [STORE_MBOX] = "mbox", [STORE_MAILDIR] = "maildir" };
#define KINDS (int)(sizeof kinds / sizeof kinds[0])

static void
put32(uint8_t *to, uint32_t value)
{
	to[0] = (uint8_t)(value >> 24);
	to[1] = (uint8_t)(value >> 16);
	to[2] = (uint8_t)(value >> 8);
	to[3] = (uint8_t)value;
}

static uint32_t
get32(const uint8_t *from)
{
	return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

size_t
account_encode(const struct account *a, uint8_t record[static ACCOUNT_RECORD_MAX])
{
	size_t length = strlen(a->path);

	put32(record, RECORD_VERSION);
	put32(record + 4, a->has_uid ? 1 : 0);
	put32(record + 8, a->has_uid ? a->uid : 0);
	put32(record + 12, (uint32_t)a->kind);
	memcpy(record + RECORD_PATH, a->path, length);
	return RECORD_PATH + length;
}

int
account_decode(struct account *a, const uint8_t *record, size_t length)
{
	memset(a, 0, sizeof *a);
	if (length < RECORD_PATH || length - RECORD_PATH >= sizeof a->path || get32(record) != RECORD_VERSION ||
	    get32(record + 4) > 1 || get32(record + 12) >= (uint32_t)KINDS ||
	    memchr(record + RECORD_PATH, '\0', length - RECORD_PATH) != NULL) {
		errno = EPROTO;
		return -1;
	}
	a->has_uid = get32(record + 4) == 1;
	a->uid = get32(record + 8);
	a->kind = (int)get32(record + 12);
	memcpy(a->path, record + RECORD_PATH, length - RECORD_PATH);
	return 0;
}

const char *
account_parse(struct account *a, const char *text)
{
	static const char accepted[] = "accepted: auto, mbox:PATH, maildir:PATH, with an absolute PATH";
	size_t length = strcspn(text, ":");
	const char *path = text[length] == ':' ? text + length + 1 : "";
	int kind;

	for (kind = 0; kind < KINDS; kind++)
		if (strlen(kinds[kind]) == length && strncmp(kinds[kind], text, length) == 0)
			break;
	if (kind == KINDS)
		return accepted;
	if (text[length] == ':' && path[0] != '/')
		return accepted;
	if (strlen(path) >= sizeof a->path)
		return "the path is too long";
	a->kind = kind;
	memset(a->path, 0, sizeof a->path);
	memcpy(a->path, path, strlen(path));
	return NULL;
}

void
account_print(const struct account *a, char *text, size_t size)
{
	snprintf(text, size, "%s%s%s", kinds[a->kind], a->path[0] != '\0' ? ":" : "", a->path);
}

int
accounts_path(const char *users_db, char *path, size_t size)
{
	const char *slash = strrchr(users_db, '/');
	int directory = slash == NULL ? 0 : (int)(slash + 1 - users_db);
	int length = snprintf(path, size, "%.*smaildrops.db", directory, users_db);

	if (length < 0 || (size_t)length >= size) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return 0;
}

/* Berkeley DB's own errors are negative; what they mean to us is that the file is no good. */
static int
as_errno(int error)
{
	return error > 0 ? error : EIO;
}

static int
get_record(DB *db, const char *user, struct account *a)
{
	uint8_t record[ACCOUNT_RECORD_MAX];
	DBT key = { .size = (uint32_t)strlen(user), .flags = DB_DBT_USERMEM };
	DBT value = { .data = record, .ulen = sizeof record, .flags = DB_DBT_USERMEM };
	char name[USER_SIZE];
	int error;

	memcpy(name, user, key.size);
	key.data = name;
	key.ulen = sizeof name;
	error = db->get(db, NULL, &key, &value, 0);
	if (error == DB_NOTFOUND)
		return 0;
	if (error == DB_BUFFER_SMALL)
		error = EPROTO;
	if (error != 0) {
		errno = as_errno(error);
		return -1;
	}
	return account_decode(a, record, value.size) == 0 ? 1 : -1;
}

int
account_find(const char *users_db, const char *user, struct account *a)
{
	char path[CONF_STRING + 16];
	DB *db;
	int error, result;

	if (strlen(user) >= USER_SIZE || user[0] == '\0')
		return 0;
	if (accounts_path(users_db, path, sizeof path) == -1)
		return -1;
	error = db_create(&db, NULL, 0);
	if (error != 0) {
		errno = as_errno(error);
		return -1;
	}
	/* Berkeley DB would write its complaints to the standard error; ours go to the log. */
	db->set_errfile(db, NULL);
	error = db->open(db, NULL, path, NULL, DB_HASH, DB_RDONLY, 0);
	if (error == 0) {
		result = get_record(db, user, a);
		error = errno;
	} else {
		result = error == ENOENT ? 0 : -1;
		error = as_errno(error);
	}
	db->close(db, DB_NOSYNC);
	errno = error;
	return result;
}
