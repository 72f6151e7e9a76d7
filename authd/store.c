/* Reading users.db, and the form of its records. store_edit.c changes it. */
#include "store.h"

#include <db.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "print.h"
#include "store_db.h"

/*
 * A record: the version, then fields of a tag, a length and so many octets; numbers in network byte order. A tag that
 * this version does not know makes the record unreadable rather than half understood.
 */
#define RECORD_VERSION	1
enum tag { TAG_LOCKED = 1, TAG_HASH, TAG_SCRAM, TAG_SECRET, TAG_APP, TAG_SALT_KEY, TAG_ITERATIONS, TAG_CERTIFICATE };

struct cursor {
	uint8_t *at;
	const uint8_t *end;
};

static void
put_bytes(struct cursor *c, const void *from, size_t n)
{
	memcpy(c->at, from, n);
	c->at += n;
}

static void
put_number(struct cursor *c, uint64_t value, unsigned octets)
{
	while (octets-- > 0)
		*c->at++ = (uint8_t)(value >> (8 * octets));
}

static void
put_field(struct cursor *c, enum tag tag, size_t length)
{
	put_number(c, tag, 2);
	put_number(c, length, 2);
}

static void
put_string_field(struct cursor *c, enum tag tag, const char *string)
{
	size_t n = strlen(string);

	put_field(c, tag, n);
	put_bytes(c, string, n);
}

static void
put_app(struct cursor *c, const struct store_app *a)
{
	size_t name = strlen(a->name), from = strlen(a->from);

	put_field(c, TAG_APP, 1 + 8 + 8 + sizeof a->hash + 1 + name + from);
	put_number(c, a->no_delete ? 1 : 0, 1);
	put_number(c, (uint64_t)a->created, 8);
	put_number(c, (uint64_t)a->expires, 8);
	put_bytes(c, a->hash, sizeof a->hash);
	put_number(c, name, 1);
	put_bytes(c, a->name, name);
	put_bytes(c, a->from, from);
}

static void
put_scram(struct cursor *c, const struct store_scram *s)
{
	put_field(c, TAG_SCRAM, 4 + sizeof s->stored_key + sizeof s->server_key + s->salt_length);
	put_number(c, s->iterations, 4);
	put_bytes(c, s->stored_key, sizeof s->stored_key);
	put_bytes(c, s->server_key, sizeof s->server_key);
	put_bytes(c, s->salt, s->salt_length);
}

uint8_t *
store_encode(const struct store_user *u, size_t *length)
{
	uint8_t *record = malloc(sizeof *u + 128);	/* more than all fields with their tags */
	struct cursor c = { record, NULL };

	if (record == NULL)
		return NULL;
	put_number(&c, RECORD_VERSION, 4);
	if (u->locked)
		put_field(&c, TAG_LOCKED, 0);
	put_string_field(&c, TAG_HASH, u->hash);
	if (u->scram.iterations > 0)
		put_scram(&c, &u->scram);
	if (u->secret_length > 0) {
		put_field(&c, TAG_SECRET, u->secret_length);
		put_bytes(&c, u->secret, u->secret_length);
	}
	for (uint32_t i = 0; i < u->apps; i++)
		put_app(&c, &u->app[i]);
	for (uint32_t i = 0; i < u->certificates; i++) {
		put_field(&c, TAG_CERTIFICATE, STORE_FINGERPRINT);
		put_bytes(&c, u->certificate[i], STORE_FINGERPRINT);
	}
	*length = (size_t)(c.at - record);
	return record;
}

/* One field, or the rest of one; every get leaves the cursor alone and says false if there is too little. */
struct view {
	const uint8_t *at;
	size_t left;
};

static bool
get_number(struct view *v, unsigned octets, uint64_t *value)
{
	if (v->left < octets)
		return false;
	*value = 0;
	for (unsigned i = 0; i < octets; i++)
		*value = *value << 8 | *v->at++;
	v->left -= octets;
	return true;
}

static bool
get_bytes(struct view *v, void *to, size_t n)
{
	if (v->left < n)
		return false;
	memcpy(to, v->at, n);
	v->at += n;
	v->left -= n;
	return true;
}

/* n octets as a string; none of them may be NUL. */
static bool
get_string(struct view *v, char *to, size_t size, size_t n)
{
	if (n >= size || v->left < n || memchr(v->at, '\0', n) != NULL)
		return false;
	get_bytes(v, to, n);
	to[n] = '\0';
	return true;
}

static bool
get_app(struct view *v, struct store_user *u)
{
	uint64_t no_delete, created, expires, name;
	struct store_app *a = &u->app[u->apps];

	if (u->apps == STORE_APPS || !get_number(v, 1, &no_delete) || !get_number(v, 8, &created) ||
	    !get_number(v, 8, &expires) || !get_bytes(v, a->hash, sizeof a->hash) || !get_number(v, 1, &name) ||
	    !get_string(v, a->name, sizeof a->name, name) || !get_string(v, a->from, sizeof a->from, v->left))
		return false;
	a->no_delete = no_delete != 0;
	a->created = (int64_t)created;
	a->expires = (int64_t)expires;
	u->apps++;
	return true;
}

static bool
get_scram(struct view *v, struct store_scram *s)
{
	uint64_t iterations;

	if (!get_number(v, 4, &iterations) || iterations == 0 || !get_bytes(v, s->stored_key, sizeof s->stored_key) ||
	    !get_bytes(v, s->server_key, sizeof s->server_key) || v->left > sizeof s->salt)
		return false;
	s->iterations = (uint32_t)iterations;
	s->salt_length = (uint32_t)v->left;
	return get_bytes(v, s->salt, v->left);
}

static bool
get_field(struct store_user *u, uint64_t tag, struct view v)
{
	switch (tag) {
	case TAG_LOCKED:
		u->locked = true;
		return v.left == 0;
	case TAG_HASH:
		return get_string(&v, u->hash, sizeof u->hash, v.left);
	case TAG_SCRAM:
		return get_scram(&v, &u->scram);
	case TAG_SECRET:
		u->secret_length = (uint32_t)v.left;
		return v.left <= sizeof u->secret && get_bytes(&v, u->secret, v.left);
	case TAG_APP:
		return get_app(&v, u);
	case TAG_CERTIFICATE:
		return u->certificates < STORE_CERTIFICATES && v.left == STORE_FINGERPRINT &&
		    get_bytes(&v, u->certificate[u->certificates++], v.left);
	default:
		return false;
	}
}

/* Takes the version off, then the next field off `record`. */
static bool
next_field(struct view *record, uint64_t *tag, struct view *field)
{
	uint64_t length;

	if (!get_number(record, 2, tag) || !get_number(record, 2, &length) || record->left < length)
		return false;
	*field = (struct view){ record->at, length };
	record->at += length;
	record->left -= length;
	return true;
}

static bool
get_version(struct view *record)
{
	uint64_t version;

	return get_number(record, 4, &version) && version == RECORD_VERSION;
}

int
store_decode(struct store_user *u, const uint8_t *record, size_t length)
{
	struct view v = { record, length }, field;
	uint64_t tag;
	bool good = get_version(&v);

	memset(u, 0, sizeof *u);
	while (good && v.left > 0)
		good = next_field(&v, &tag, &field) && get_field(u, tag, field);
	if (!good) {
		sodium_memzero(u, sizeof *u);
		errno = EPROTO;
		return -1;
	}
	crypto_generichash(u->digest, sizeof u->digest, record, length, NULL, 0);
	return 0;
}

uint8_t *
store_encode_meta(const struct store_meta *meta, size_t *length)
{
	uint8_t *record = malloc(sizeof *meta + 64);
	struct cursor c = { record, NULL };

	if (record == NULL)
		return NULL;
	put_number(&c, RECORD_VERSION, 4);
	put_string_field(&c, TAG_HASH, meta->hash);
	put_field(&c, TAG_SALT_KEY, sizeof meta->salt_key);
	put_bytes(&c, meta->salt_key, sizeof meta->salt_key);
	put_field(&c, TAG_ITERATIONS, 4);
	put_number(&c, meta->iterations, 4);
	*length = (size_t)(c.at - record);
	return record;
}

static bool
get_meta_field(struct store_meta *meta, uint64_t tag, struct view v)
{
	uint64_t number;

	switch (tag) {
	case TAG_HASH:
		return get_string(&v, meta->hash, sizeof meta->hash, v.left);
	case TAG_SALT_KEY:
		return v.left == sizeof meta->salt_key && get_bytes(&v, meta->salt_key, v.left);
	case TAG_ITERATIONS:
		if (!get_number(&v, 4, &number) || v.left > 0)
			return false;
		meta->iterations = (uint32_t)number;
		return true;
	default:
		return false;
	}
}

static int
decode_meta(struct store_meta *meta, const uint8_t *record, size_t length)
{
	struct view v = { record, length }, field;
	uint64_t tag;
	bool good = get_version(&v);

	memset(meta, 0, sizeof *meta);
	while (good && v.left > 0)
		good = next_field(&v, &tag, &field) && get_meta_field(meta, tag, field);
	if (good)
		return 0;
	errno = EPROTO;
	return -1;
}

/* A name ends up in paths, log lines and PAM: what means something to any of them is not part of one. */
const char *
store_name_check(const char *name)
{
	static const char accepted[] = "accepted: 1 to 255 octets of UTF-8, no blanks, control characters, '/' or ':', "
	    "and no '.' or '-' in front";
	size_t n = strlen(name);

	if (n == 0 || n >= USER_SIZE || name[0] == '.' || name[0] == '-' || !utf8_sound(name))
		return accepted;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)name[i] <= ' ' || name[i] == 0x7f || name[i] == '/' || name[i] == ':')
			return accepted;
	return NULL;
}

void
store_start(struct store_file *s, const char *path)
{
	memset(s, 0, sizeof *s);
	memcpy(s->path, path, strnlen(path, sizeof s->path - 1));
}

void
store_end(struct store_file *s)
{
	DB *db = s->db;

	if (db != NULL)
		db->close(db, DB_NOSYNC);
	s->db = NULL;
}

int
db_errno(int error)
{
	errno = error > 0 ? error : error == DB_BUFFER_SMALL ? EPROTO : EIO;
	return -1;
}

/*
 * Berkeley DB makes a file as __db.NAME and renames it. Where that was cut off it waits, for ever, for whoever is making
 * it; but whoever makes one of our files has a lock of it, and now we do.
 */
static void
remove_unfinished(const char *path)
{
	char unfinished[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int directory = slash != NULL ? (int)(slash + 1 - path) : 0;
	int n = snprintf(unfinished, sizeof unfinished, "%.*s__db.%s", directory, path, path + directory);

	if (n > 0 && (size_t)n < sizeof unfinished)
		unlink(unfinished);
}

/*
 * Berkeley DB writes whole pages, and puts nothing where it has nothing to say: without this, what this process had in
 * its memory before would be in the file.
 */
static void *
zeroed(size_t size)
{
	return calloc(1, size);
}

/* Berkeley DB is given no environment: no region files, no locks, and its complaints go nowhere; ours go to the log. */
int
db_open(DB **db, const char *path, uint32_t flags, uint32_t cache)
{
	int error = db_env_set_func_malloc(zeroed);

	if (error == 0)
		error = db_create(db, NULL, 0);
	if (error != 0)
		return db_errno(error);
	if ((flags & DB_CREATE) != 0)
		remove_unfinished(path);
	(*db)->set_errfile(*db, NULL);
	(*db)->set_cachesize(*db, 0, cache, 1);
	error = (*db)->open(*db, NULL, path, NULL, DB_HASH, flags, 0600);
	if (error == 0)
		return 0;
	(*db)->close(*db, DB_NOSYNC);
	*db = NULL;
	return db_errno(error);
}

int
db_get(DB *db, const void *name, size_t length, uint8_t *record, uint32_t size, size_t *got)
{
	uint8_t key_bytes[USER_SIZE];
	DBT key = { .data = key_bytes, .size = (uint32_t)length, .ulen = sizeof key_bytes, .flags = DB_DBT_USERMEM };
	DBT value = { .data = record, .ulen = size, .flags = DB_DBT_USERMEM };
	int error;

	if (length >= sizeof key_bytes)
		return 0;
	memcpy(key_bytes, name, length);
	error = db->get(db, NULL, &key, &value, 0);
	if (error == DB_NOTFOUND)
		return 0;
	if (error != 0)
		return db_errno(error);
	*got = value.size;
	return 1;
}

int
db_find_user(DB *db, const char *name, struct store_user *u)
{
	uint8_t record[sizeof *u + 128];
	size_t length;
	int found = db_get(db, name, strlen(name), record, sizeof record, &length);

	if (found == 1 && store_decode(u, record, length) == -1)
		found = -1;
	sodium_memzero(record, sizeof record);
	return found;
}

void
certificate_key(uint8_t key[static CERTIFICATE_KEY_SIZE], const uint8_t fingerprint[static STORE_FINGERPRINT])
{
	memcpy(key, CERTIFICATE_KEY, CERTIFICATE_KEY_SIZE - STORE_FINGERPRINT);
	memcpy(key + CERTIFICATE_KEY_SIZE - STORE_FINGERPRINT, fingerprint, STORE_FINGERPRINT);
}

int
db_find_certificate(DB *db, const uint8_t fingerprint[static STORE_FINGERPRINT], char user[static USER_SIZE])
{
	uint8_t key[CERTIFICATE_KEY_SIZE];
	size_t length;

	certificate_key(key, fingerprint);
	int found = db_get(db, key, sizeof key, (uint8_t *)user, USER_SIZE - 1, &length);
	user[found == 1 ? length : 0] = '\0';
	return found;
}

int
db_find_meta(DB *db, struct store_meta *meta)
{
	uint8_t record[sizeof *meta + 64];
	size_t length;
	int found = db_get(db, META_KEY, META_KEY_SIZE, record, sizeof record, &length);

	if (found == 1 && decode_meta(meta, record, length) == -1)
		found = -1;
	sodium_memzero(record, sizeof record);
	return found;
}

/* Is the file that has the name still the one that is open? */
static bool
is_current(const struct store_file *s, const struct stat *st)
{
	return s->db != NULL && st->st_dev == s->device && st->st_ino == s->inode && st->st_size == s->size &&
	    st->st_mtim.tv_sec == s->changed.tv_sec && st->st_mtim.tv_nsec == s->changed.tv_nsec;
}

/* 1 with the file open, 0 if there is none, -1 with errno. */
static int
ensure_open(struct store_file *s)
{
	struct stat st;
	DB *db;

	if (stat(s->path, &st) == -1) {
		store_end(s);
		return errno == ENOENT ? 0 : -1;
	}
	if (is_current(s, &st))
		return 1;
	store_end(s);
	if (db_open(&db, s->path, DB_RDONLY, EDIT_CACHE) == -1)
		return errno == ENOENT ? 0 : -1;
	s->db = db;
	s->device = st.st_dev;
	s->inode = st.st_ino;
	s->size = st.st_size;
	s->changed = st.st_mtim;
	return 1;
}

int
store_find(struct store_file *s, const char *name, struct store_user *u)
{
	int open = ensure_open(s);

	if (open != 1 || store_name_check(name) != NULL)
		return open == -1 ? -1 : 0;
	return db_find_user(s->db, name, u);
}

int
store_find_certificate(struct store_file *s, const uint8_t fingerprint[static STORE_FINGERPRINT], char user[static USER_SIZE])
{
	int open = ensure_open(s);

	user[0] = '\0';
	return open == 1 ? db_find_certificate(s->db, fingerprint, user) : open;
}

int
store_meta(struct store_file *s, struct store_meta *meta)
{
	int open = ensure_open(s);

	return open == 1 ? db_find_meta(s->db, meta) : open;
}

/* True with the account of a user, if he has one; `accounts` may be NULL: none has. */
static bool
find_account(DB *accounts, const char *name, struct account *a)
{
	uint8_t record[ACCOUNT_RECORD_MAX];
	size_t length;

	return accounts != NULL && db_get(accounts, name, strlen(name), record, sizeof record, &length) == 1 &&
	    account_decode(a, record, length) == 0 && !a->policy_only;
}

/* Walks the whole file; what is no user's has a key that begins with a NUL. */
static int
each_record(DBC *cursor, DB *accounts, int (*each)(const char *, const struct store_user *, const struct account *, void *), void *arg)
{
	DBT key = { .flags = 0 }, value = { .flags = 0 };
	static struct store_user u;
	struct account a;
	char name[USER_SIZE];
	int error, result = 0;

	while (result == 0 && (error = cursor->get(cursor, &key, &value, DB_NEXT)) == 0) {
		if (key.size > 0 && *(const char *)key.data == '\0')
			continue;
		if (key.size >= sizeof name || store_decode(&u, value.data, value.size) == -1)
			return errno = EPROTO, -1;
		memcpy(name, key.data, key.size);
		name[key.size] = '\0';
		result = each(name, &u, find_account(accounts, name, &a) ? &a : NULL, arg);
		sodium_memzero(&u, sizeof u);
	}
	return result != 0 || error == DB_NOTFOUND ? result : db_errno(error);
}

static int
each_policy(DBC *cursor, int (*each)(const char *, const struct account *, void *), void *arg)
{
	DBT key = { .flags = 0 }, value = { .flags = 0 };
	struct account a;
	char name[USER_SIZE];
	int error, result = 0;

	while (result == 0 && (error = cursor->get(cursor, &key, &value, DB_NEXT)) == 0) {
		if (key.size >= sizeof name || account_decode(&a, value.data, value.size) == -1)
			return errno = EPROTO, -1;
		memcpy(name, key.data, key.size);
		name[key.size] = '\0';
		if (a.policy_only)
			result = each(name, &a, arg);
	}
	return result != 0 || error == DB_NOTFOUND ? result : db_errno(error);
}

int
store_each_policy(const char *path, int (*each)(const char *name, const struct account *a, void *arg), void *arg)
{
	char accounts[CONF_STRING + 16];
	DB *db;
	DBC *cursor;

	if (accounts_path(path, accounts, sizeof accounts) == -1)
		return -1;
	if (db_open(&db, accounts, DB_RDONLY, EDIT_CACHE) == -1)
		return errno == ENOENT ? 0 : -1;
	int error = db->cursor(db, NULL, &cursor, 0);
	int result = error != 0 ? db_errno(error) : each_policy(cursor, each, arg);
	int saved = errno;
	if (error == 0)
		cursor->close(cursor);
	db->close(db, DB_NOSYNC);
	errno = saved;
	return result;
}

int
store_each(const char *path, int (*each)(const char *name, const struct store_user *u, const struct account *a, void *arg), void *arg)
{
	char beside[CONF_STRING + 16];
	DB *db, *accounts = NULL;
	DBC *cursor;

	if (accounts_path(path, beside, sizeof beside) == -1)
		return -1;
	if (db_open(&db, path, DB_RDONLY, EDIT_CACHE) == -1)
		return errno == ENOENT ? 0 : -1;
	if (db_open(&accounts, beside, DB_RDONLY, EDIT_CACHE) == -1)
		accounts = NULL;	/* users are shown without maildrops, then */
	int error = db->cursor(db, NULL, &cursor, 0);
	int result = error != 0 ? db_errno(error) : each_record(cursor, accounts, each, arg);
	int saved = errno;
	if (error == 0)
		cursor->close(cursor);
	db->close(db, DB_NOSYNC);
	if (accounts != NULL)
		accounts->close(accounts, DB_NOSYNC);
	errno = saved;
	return result;
}
