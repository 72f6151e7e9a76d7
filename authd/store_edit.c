/*
 * Changing the store, which only authctl does: copies of both files are changed, made durable, and renamed over the old
 * ones. A reader sees the old file or the new one; a crash leaves at most copies that the next change starts afresh.
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store_db.h"

static void
directory_of(const char *path, char *directory, size_t size)
{
	snprintf(directory, size, "%s", path);
	char *slash = strrchr(directory, '/');
	if (slash == NULL)
		snprintf(directory, size, ".");
	else
		slash[slash == directory ? 1 : 0] = '\0';
}

int
store_owner(const char *users, struct store_owner *owner)
{
	char directory[CONF_STRING + 24];
	struct stat st;
	bool there = stat(users, &st) == 0;

	directory_of(users, directory, sizeof directory);
	if (!there && (errno != ENOENT || stat(directory, &st) == -1))
		return -1;
	*owner = (struct store_owner){ .other = geteuid() == 0 && st.st_uid != 0, .uid = st.st_uid, .gid = st.st_gid };
	owner->mode = there ? st.st_mode & 0640 : 0600;
	return 0;
}

/*
 * Gives a file that we have just made to the owner of the store. It is in a directory of his: what he puts in its place meanwhile is not
 * what we made, and not given to him.
 */
static int
owner_give(int fd, const struct store_owner *owner)
{
	struct stat st;

	if (!owner->other)
		return 0;
	if (fstat(fd, &st) == -1)
		return -1;
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_uid != 0)
		return errno = EPERM, -1;
	return fchown(fd, owner->uid, owner->gid);
}

static int
lock_open(const char *path, const struct store_owner *owner)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd == -1)
		return errno == EEXIST ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	if (owner_give(fd, owner) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static int
lock_take(const char *users, const struct store_owner *owner)
{
	char path[CONF_STRING + 8];
	int fd;

	snprintf(path, sizeof path, "%s.lock", users);
	fd = lock_open(path, owner);
	if (fd == -1)
		return -1;
	while (flock(fd, LOCK_EX) == -1)
		if (errno != EINTR) {
			close(fd);
			return -1;
		}
	return fd;
}

static int
copy_all(int from, int to)
{
	char buffer[65536];
	ssize_t n;

	while ((n = read(from, buffer, sizeof buffer)) != 0) {
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		for (ssize_t done = 0, w; done < n; done += w)
			if ((w = write(to, buffer + done, (size_t)(n - done))) == -1) {
				if (errno != EINTR)
					return -1;
				w = 0;
			}
	}
	return 0;
}

/* A copy of `path` at `copy`, readable by its owner alone. Nothing to copy is an empty store: no file is made. */
static int
copy_file(const char *path, const char *copy)
{
	int from, to, result = -1, saved;

	if (unlink(copy) == -1 && errno != ENOENT)
		return -1;
	from = open(path, O_RDONLY | O_CLOEXEC);
	if (from == -1)
		return errno == ENOENT ? 0 : -1;
	to = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (to != -1) {
		result = copy_all(from, to);
		saved = errno;
		if (close(to) == -1 && result == 0)
			result = -1;
		else
			errno = saved;
	}
	saved = errno;
	close(from);
	errno = saved;
	return result;
}

static int
open_copy(const char *path, const char *copy, uint32_t cache, void **db)
{
	DB *opened;

	if (copy_file(path, copy) == -1 || db_open(&opened, copy, DB_CREATE, cache) == -1)
		return -1;
	*db = opened;
	return 0;
}

int
edit_begin(struct store_edit *e, const char *path, gid_t group, uint32_t cache)
{
	memset(e, 0, sizeof *e);
	e->lock = -1;
	e->group = group;
	snprintf(e->users, sizeof e->users, "%s", path);
	snprintf(e->users_new, sizeof e->users_new, "%s.new", path);
	if (accounts_path(path, e->accounts, sizeof e->accounts) == -1)
		return -1;
	snprintf(e->accounts_new, sizeof e->accounts_new, "%s.new", e->accounts);
	if (store_owner(path, &e->owner) == -1)
		return -1;
	e->lock = lock_take(path, &e->owner);
	if (e->lock != -1 && open_copy(e->users, e->users_new, cache, &e->users_db) == 0 &&
	    open_copy(e->accounts, e->accounts_new, cache / 4, &e->accounts_db) == 0)
		return 0;
	int saved = errno;
	edit_abandon(e);
	errno = saved;
	return -1;
}

int
edit_find(struct store_edit *e, const char *name, struct store_user *u)
{
	return db_find_user(e->users_db, name, u);
}

int
edit_meta(struct store_edit *e, struct store_meta *meta)
{
	return db_find_meta(e->users_db, meta);
}

int
edit_find_account(struct store_edit *e, const char *name, struct account *a)
{
	uint8_t record[ACCOUNT_RECORD_MAX];
	size_t length;
	int found = db_get(e->accounts_db, name, strlen(name), record, sizeof record, &length);

	return found == 1 && account_decode(a, record, length) == -1 ? -1 : found;
}

static int
put(DB *db, const void *name, size_t name_length, uint8_t *record, size_t length)
{
	uint8_t key_bytes[USER_SIZE];
	DBT key = { .data = key_bytes, .size = (uint32_t)name_length };
	DBT value = { .data = record, .size = (uint32_t)length };

	if (name_length >= sizeof key_bytes)
		return errno = ENAMETOOLONG, -1;
	memcpy(key_bytes, name, name_length);
	int error = db->put(db, NULL, &key, &value, 0);
	return error == 0 ? 0 : db_errno(error);
}

/* Puts a record that was malloc'ed, then wipes and frees it. */
static int
put_secret(DB *db, const void *name, size_t name_length, uint8_t *record, size_t length)
{
	if (record == NULL)
		return -1;
	int result = put(db, name, name_length, record, length);
	int saved = errno;
	sodium_memzero(record, length);
	free(record);
	errno = saved;
	return result;
}

int
edit_put(struct store_edit *e, const char *name, const struct store_user *u, const struct account *a)
{
	uint8_t account[ACCOUNT_RECORD_MAX];
	size_t length = 0;
	uint8_t *record = store_encode(u, &length);

	if (put_secret(e->users_db, name, strlen(name), record, length) == -1)
		return -1;
	return put(e->accounts_db, name, strlen(name), account, account_encode(a, account));
}

int
edit_put_account(struct store_edit *e, const char *name, const struct account *a)
{
	uint8_t account[ACCOUNT_RECORD_MAX];

	return put(e->accounts_db, name, strlen(name), account, account_encode(a, account));
}

int
edit_put_meta(struct store_edit *e, const struct store_meta *meta)
{
	size_t length = 0;
	uint8_t *record = store_encode_meta(meta, &length);

	return put_secret(e->users_db, META_KEY, META_KEY_SIZE, record, length);
}

static int
remove_key(DB *db, const void *name, size_t length)
{
	uint8_t key_bytes[USER_SIZE];
	DBT key = { .data = key_bytes, .size = (uint32_t)length };

	if (length >= sizeof key_bytes)
		return errno = ENAMETOOLONG, -1;
	memcpy(key_bytes, name, length);
	int error = db->del(db, NULL, &key, 0);
	return error == 0 || error == DB_NOTFOUND ? 0 : db_errno(error);
}

int
edit_find_certificate(struct store_edit *e, const uint8_t fingerprint[static STORE_FINGERPRINT], char user[static USER_SIZE])
{
	return db_find_certificate(e->users_db, fingerprint, user);
}

int
edit_put_certificate(struct store_edit *e, const uint8_t fingerprint[static STORE_FINGERPRINT], const char *user)
{
	uint8_t key[CERTIFICATE_KEY_SIZE], name[USER_SIZE];
	size_t length = strlen(user);

	certificate_key(key, fingerprint);
	memcpy(name, user, length);
	return put(e->users_db, key, sizeof key, name, length);
}

int
edit_remove_certificate(struct store_edit *e, const uint8_t fingerprint[static STORE_FINGERPRINT])
{
	uint8_t key[CERTIFICATE_KEY_SIZE];

	certificate_key(key, fingerprint);
	return remove_key(e->users_db, key, sizeof key);
}

int
edit_remove(struct store_edit *e, const char *name)
{
	static struct store_user u;
	int found = edit_find(e, name, &u), result = found == -1 ? -1 : 0;

	for (uint32_t i = 0; found == 1 && i < u.certificates && result == 0; i++)
		result = edit_remove_certificate(e, u.certificate[i]);
	sodium_memzero(&u, sizeof u);
	if (result == 0)
		result = remove_key(e->users_db, name, strlen(name));
	return result == 0 ? remove_key(e->accounts_db, name, strlen(name)) : -1;
}

static int
close_db(void **db)
{
	DB *open = *db;

	*db = NULL;
	int error = open != NULL ? open->close(open, 0) : 0;
	return error == 0 ? 0 : db_errno(error);
}

/* Of users.db and its key. */
static mode_t
secret_mode(const struct store_owner *owner, gid_t group)
{
	return owner->other ? owner->mode : group != (gid_t)-1 ? 0640 : 0600;
}

/* Owner, group and mode are set on the copy, before it takes the name. Another's store stays his. */
static int
finish_copy(const char *copy, const struct store_owner *owner, gid_t group, mode_t mode)
{
	int fd = open(copy, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), result = 0;

	if (fd == -1)
		return -1;
	if ((!owner->other && group != (gid_t)-1 && fchown(fd, (uid_t)-1, group) == -1) || owner_give(fd, owner) == -1 || fchmod(fd, mode) == -1 ||
	    fsync(fd) == -1)
		result = -1;
	int saved = errno;
	close(fd);
	errno = saved;
	return result;
}

static int
sync_directory(const char *path)
{
	char directory[CONF_STRING + 24];
	int fd, result;

	directory_of(path, directory, sizeof directory);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd == -1)
		return -1;
	result = fsync(fd);
	int saved = errno;
	close(fd);
	errno = saved;
	return result;
}

/* Between the two renames the directory is made durable, so that a power cut cannot turn their order round. */
static int
rename_both(struct store_edit *e, enum edit_order order)
{
	const char *from[2] = { e->accounts_new, e->users_new }, *to[2] = { e->accounts, e->users };

	for (int i = 0; i < 2; i++) {
		int file = order == EDIT_ADDS ? i : 1 - i;
		if (rename(from[file], to[file]) == -1 || sync_directory(to[file]) == -1)
			return -1;
	}
	return 0;
}

int
edit_commit(struct store_edit *e, enum edit_order order)
{
	bool good = close_db(&e->users_db) == 0 && close_db(&e->accounts_db) == 0 &&
	    finish_copy(e->users_new, &e->owner, e->group, secret_mode(&e->owner, e->group)) == 0 &&
	    finish_copy(e->accounts_new, &e->owner, (gid_t)-1, 0600) == 0 && rename_both(e, order) == 0;
	int saved = errno;

	edit_abandon(e);
	errno = saved;
	return good ? 0 : -1;
}

void
edit_abandon(struct store_edit *e)
{
	close_db(&e->users_db);
	close_db(&e->accounts_db);
	if (e->lock != -1) {
		unlink(e->users_new);
		unlink(e->accounts_new);
		close(e->lock);
	}
	e->lock = -1;
}

static int
key_read(const char *path, uint8_t key[static STORE_KEY_SIZE])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd == -1)
		return errno == ENOENT ? 0 : -1;
	n = read(fd, key, STORE_KEY_SIZE);
	int saved = errno;
	close(fd);
	errno = n == -1 ? saved : EIO;
	return n == STORE_KEY_SIZE ? 1 : -1;
}

/* link(2), not rename(2): a key that another authctl has just put there is never replaced. */
static int
key_make(const char *path, const char *users, gid_t group, uint8_t key[static STORE_KEY_SIZE])
{
	char fresh[CONF_STRING + 32];
	struct store_owner owner;
	int fd, result = -1;

	if (store_owner(users, &owner) == -1)
		return -1;
	snprintf(fresh, sizeof fresh, "%s.%ld", path, (long)getpid());
	unlink(fresh);
	fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd == -1)
		return -1;
	randombytes_buf(key, STORE_KEY_SIZE);
	if (write(fd, key, STORE_KEY_SIZE) == STORE_KEY_SIZE &&
	    finish_copy(fresh, &owner, group, secret_mode(&owner, group)) == 0 &&
	    (link(fresh, path) == 0 || errno == EEXIST) && sync_directory(path) == 0)
		result = key_read(path, key);
	int saved = errno;
	close(fd);
	unlink(fresh);
	errno = saved;
	return result;
}

int
store_key(const char *path, gid_t group, bool make, uint8_t key[static STORE_KEY_SIZE])
{
	char file[CONF_STRING + 8];

	snprintf(file, sizeof file, "%s.key", path);
	int found = key_read(file, key);
	return found == 0 && make ? key_make(file, path, group, key) : found;
}
