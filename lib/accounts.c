#include "accounts.h"

#include <db.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The record, in network byte order:
 *	0	version, 1 or 2
 *	4	flags; version 1 knows HAS_UID alone
 *	8	uid
 *	12	kind
 *	16	version 2: server-copy
 *	16, 20	path, not NUL ended, to the end of the record
 * Version 2 is written only for those who need it, so that a Postern before it reads all others.
 */
#define RECORD_PATH_1	16
#define RECORD_PATH_2	20
enum flag { HAS_UID = 1, HAS_COPY = 2, POLICY_ONLY = 4 };

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
	bool second = a->has_copy || a->policy_only;
	size_t length = strlen(a->path), at = second ? RECORD_PATH_2 : RECORD_PATH_1;

	put32(record, second ? 2 : 1);
	put32(record + 4, (a->has_uid ? HAS_UID : 0u) | (a->has_copy ? HAS_COPY : 0u) | (a->policy_only ? POLICY_ONLY : 0u));
	put32(record + 8, a->has_uid ? a->uid : 0);
	put32(record + 12, (uint32_t)a->kind);
	if (second)
		put32(record + 16, a->has_copy ? (uint32_t)a->server_copy : 0);
	memcpy(record + at, a->path, length);
	return at + length;
}

int
account_decode(struct account *a, const uint8_t *record, size_t length)
{
	uint32_t version = length >= RECORD_PATH_1 ? get32(record) : 0;
	size_t at = version == 2 ? RECORD_PATH_2 : RECORD_PATH_1;

	memset(a, 0, sizeof *a);
	if (version < 1 || version > 2 || length < at || length - at >= sizeof a->path ||
	    get32(record + 4) > (version == 2 ? HAS_UID | HAS_COPY | POLICY_ONLY : HAS_UID) || get32(record + 12) >= (uint32_t)KINDS ||
	    (version == 2 && get32(record + 16) >= COPY_COUNT) || memchr(record + at, '\0', length - at) != NULL) {
		errno = EPROTO;
		return -1;
	}
	a->has_uid = (get32(record + 4) & HAS_UID) != 0;
	a->has_copy = (get32(record + 4) & HAS_COPY) != 0;
	a->policy_only = (get32(record + 4) & POLICY_ONLY) != 0;
	a->uid = get32(record + 8);
	a->kind = (int)get32(record + 12);
	a->server_copy = a->has_copy ? (int)get32(record + 16) : COPY_AS_CLIENT_SAYS;
	memcpy(a->path, record + at, length - at);
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

	memset(a, 0, sizeof *a);
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
