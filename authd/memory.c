#include "memory.h"

#include <db.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "store_db.h"
#include "system.h"

/*
 * One file a host, which nobody else reads: the struct as it is, behind a number that changes with it. Users of PAM and
 * of users.db share a name here when they share one there.
 */
#define MEMORY_VERSION	1

/*
 * Milliseconds: so long it is waited, at start, for the verifier before this one to close the file, and how often it is looked whether it has.
 * Nobody is served meanwhile: a login that this one knew nothing of would pass over its delay, and be forgotten.
 */
#define HELD_MS		1000
#define HELD_LOOK_MS	2

struct record {
	uint64_t version;
	struct memory memory;
};

static DB *db;
static bool dirty;
static char file[CONF_STRING + 32];
static int lock = -1;

int
memory_directory(const struct conf *c, char *path, size_t size)
{
	int n = snprintf(path, size, "%s/authd", c->state_dir);

	if (n > 0 && (size_t)n < size)
		return 0;
	errno = ENAMETOOLONG;
	return -1;
}

/* After a reload the verifier before this one may still be about to close the file: two writers would spoil it. */
static bool
lock_take(void)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[sizeof file + 8];

	snprintf(path, sizeof path, "%s.lock", file);
	if (lock == -1)
		lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return lock != -1 && fcntl(lock, F_OFD_SETLK, &whole) == 0;
}

static void
try_open(void)
{
	if (!lock_take()) {
		if (errno != EAGAIN && errno != EACCES)
			log_text(LOG_WARNING, "%s: %s; last logins and upgraded hashes are not remembered", file, strerror(errno));
		return;
	}
	if (db_open(&db, file, DB_CREATE, EDIT_CACHE) == -1 && (errno == EIO || errno == EINVAL)) {
		log_text(LOG_WARNING, "%s: damaged; it begins afresh", file);
		if (unlink(file) == 0)
			db_open(&db, file, DB_CREATE, EDIT_CACHE);
	}
	if (db == NULL)
		log_text(LOG_WARNING, "%s: %s; last logins and upgraded hashes are not remembered", file, strerror(errno));
}

void
memory_start(const struct conf *c)
{
	char directory[CONF_STRING + 16];

	if (memory_directory(c, directory, sizeof directory) == -1)
		return;
	snprintf(file, sizeof file, "%s/memory.db", directory);
	for (int64_t until = clock_ms() + HELD_MS; !lock_take() && (errno == EAGAIN || errno == EACCES) && clock_ms() < until;)
		usleep(HELD_LOOK_MS * 1000);
	try_open();
}

int
memory_open(const struct conf *c)
{
	char directory[CONF_STRING + 16];

	if (memory_directory(c, directory, sizeof directory) == -1)
		return -1;
	snprintf(file, sizeof file, "%s/memory.db", directory);
	return db_open(&db, file, DB_RDONLY, EDIT_CACHE);
}

void
memory_find(const char *user, const uint8_t digest[static STORE_DIGEST_SIZE], struct memory *m)
{
	struct record r;
	size_t length = 0;
	int64_t last;

	memset(m, 0, sizeof *m);
	if (db == NULL || db_get(db, user, strlen(user), (uint8_t *)&r, sizeof r, &length) != 1 || length != sizeof r ||
	    r.version != MEMORY_VERSION)
		length = 0;
	if (length == sizeof r) {
		last = r.memory.last;
		if (memcmp(r.memory.digest, digest, STORE_DIGEST_SIZE) == 0)
			*m = r.memory;
		m->last = last;
		m->hash[sizeof m->hash - 1] = '\0';
	}
	memcpy(m->digest, digest, STORE_DIGEST_SIZE);
	sodium_memzero(&r, sizeof r);
}

void
memory_put(const char *user, const struct memory *m)
{
	struct record r;
	char name[USER_SIZE];
	DBT key = { .data = name, .size = (uint32_t)strlen(user) }, value = { .data = &r, .size = sizeof r };

	if (db == NULL || key.size >= sizeof name)
		return;
	memset(&r, 0, sizeof r);
	r.version = MEMORY_VERSION;
	r.memory = *m;
	memcpy(name, user, key.size);
	int error = db->put(db, NULL, &key, &value, 0);
	if (error != 0 && db_errno(error) == -1)
		log_text(LOG_WARNING, "the memory of logins cannot be written: %s", strerror(errno));
	dirty = true;
	sodium_memzero(&r, sizeof r);
}

void
memory_sync(void)
{
	if (db == NULL && file[0] != '\0')
		try_open();
	if (db == NULL || !dirty)
		return;
	int error = db->sync(db, 0);
	if (error != 0 && db_errno(error) == -1)
		log_text(LOG_WARNING, "the memory of logins cannot be written: %s", strerror(errno));
	dirty = false;
}

void
memory_end(void)
{
	if (db != NULL)
		db->close(db, 0);
	db = NULL;
	file[0] = '\0';
	if (lock != -1)
		close(lock);
	lock = -1;
}
