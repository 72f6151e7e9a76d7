/*
 * What is there, seen with the owner's rights. Others may be at work on it meanwhile: then what is counted is what was
 * there at some moment of it, and a file that shrinks under the count leaves it out.
 */
#include "look.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ask.h"
#include "cache.h"
#include "listing.h"
#include "log.h"
#include "maildrop.h"
#include "path.h"
#include "sandbox.h"
#include "scan.h"
#include "system.h"
#include "uidl.h"
#include "wire.h"

/* With the maildrop open; -1 is what there is not. */
struct look {
	const struct conf *conf;
	struct grant grant;
	struct body_shown *shown;
	int directory;			/* of the mbox, or the Maildir */
	int file;			/* the mbox */
	int cache;
	char name[NAME_MAX + 1];	/* of the mbox */
};

static int
fail(struct look *l, uint32_t failure)
{
	l->shown->failure = failure;
	return -1;
}

static int
fail_errno(struct look *l)
{
	return fail(l, errno == EACCES || errno == EPERM ? FAILURE_PERMISSION : errno == ELOOP || errno == ENOTDIR || errno == ENXIO ?
	    FAILURE_KIND : FAILURE_TEMPORARY);
}

/* The last access stays as it was, where it may: mail readers go by it. */
static int
open_quietly(int directory, const char *name, int flags)
{
	const int how = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | flags;
	int fd = openat(directory, name, how | O_NOATIME);

	return fd != -1 || errno != EPERM ? fd : openat(directory, name, how);
}

static int
look_directory(struct look *l, const char *path)
{
	const char *wrong;

	l->directory = path_open_directory(path, l->grant.uid, (uid_t)l->conf->min_uid, O_RDONLY, &wrong);
	if (l->directory == -1 && wrong == NULL && errno == EACCES)	/* the spool may be searched and not read */
		l->directory = path_open_directory(path, l->grant.uid, (uid_t)l->conf->min_uid, O_PATH, &wrong);
	if (l->directory != -1)
		return 0;
	if (wrong != NULL)
		return fail(l, FAILURE_KIND);
	return errno == ENOENT ? 1 : fail_errno(l);
}

static void
canonical(struct look *l, int fd)
{
	char link[64], path[PATH_SIZE];

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n <= 0 || path[0] != '/')
		return;
	path[n] = '\0';
	memcpy(l->shown->path, path, (size_t)n + 1);
}

/* 0; 1: missing; -1. */
static int
look_open_mbox(struct look *l)
{
	char path[PATH_SIZE];
	struct stat st;
	int result;

	memcpy(path, l->grant.mbox, sizeof path);
	char *slash = strrchr(path, '/');
	if (slash == NULL || slash[1] == '\0' || !string_copy(l->name, NAME_MAX - 4, slash + 1))	/* with room for .lock */
		return fail(l, FAILURE_KIND);
	slash[slash == path] = '\0';
	if ((result = look_directory(l, path)) != 0)
		return result;
	if (fstatat(l->directory, l->name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT ? 1 : fail_errno(l);
	if (!S_ISREG(st.st_mode))
		return fail(l, FAILURE_KIND);
	if ((l->file = open_quietly(l->directory, l->name, 0)) == -1 || fstat(l->file, &st) == -1)
		return fail_errno(l);
	if (!S_ISREG(st.st_mode) || (st.st_nlink > 1 && st.st_uid != l->grant.uid))
		return fail(l, FAILURE_KIND);
	if (faccessat(l->directory, l->name, W_OK, AT_EACCESS) == -1)
		l->shown->flags |= SHOWN_READONLY;
	l->shown->device = st.st_dev;
	l->shown->inode = st.st_ino;
	l->shown->size = (uint64_t)st.st_size;
	l->shown->changed = st.st_mtime;
	canonical(l, l->file);
	return 0;
}

static int
look_open_maildir(struct look *l)
{
	static const char *const parts[] = { "new", "cur" };
	struct stat st;
	int result = look_directory(l, l->grant.maildir);

	if (result != 0)
		return result;
	if (fstat(l->directory, &st) == -1)
		return fail_errno(l);
	l->shown->device = st.st_dev;
	l->shown->inode = st.st_ino;
	if (faccessat(l->directory, ".", W_OK, AT_EACCESS) == -1)
		l->shown->flags |= SHOWN_READONLY;
	for (int i = 0; i < 2; i++)
		if (fstatat(l->directory, parts[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_mtime > l->shown->changed)
			l->shown->changed = st.st_mtime;
	canonical(l, l->directory);
	return 0;
}

static void
look_dotlock(struct look *l)
{
	char dotlock[sizeof l->name + 8], text[24] = "";
	struct stat st;
	int fd;

	snprintf(dotlock, sizeof dotlock, "%s.lock", l->name);
	if (fstatat(l->directory, dotlock, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return;
	l->shown->flags |= SHOWN_DOTLOCK;
	l->shown->dotlock_since = st.st_mtime;
	if (!S_ISREG(st.st_mode) || (fd = open_quietly(l->directory, dotlock, 0)) == -1)
		return;
	if (read(fd, text, sizeof text - 1) > 0) {
		long pid = strtol(text, NULL, 10);
		l->shown->dotlock_pid = pid > 0 && pid < INT32_MAX ? (uint32_t)pid : 0;
	}
	close(fd);
}

/* The files under state-dir that this maildrop has. */
static void
look_state(struct look *l)
{
	struct stat st;
	int journal;

	ask_maildrop(l->shown->path, l->shown->kind);
	if ((l->cache = ask_file(PRIVILEGED_CACHE_LOOK)) != -1 && fstat(l->cache, &st) == 0) {
		l->shown->flags |= SHOWN_CACHE;
		l->shown->cache_size = (uint64_t)st.st_size;
		l->shown->cache_changed = st.st_mtime;
	}
	if ((journal = ask_file(PRIVILEGED_JOURNAL_LOOK)) != -1 && fstat(journal, &st) == 0) {
		l->shown->flags |= SHOWN_JOURNAL;
		l->shown->journal_size = (uint64_t)st.st_size;
		l->shown->journal_changed = st.st_mtime;
	}
	if (journal != -1)
		close(journal);
}

static int
count_one(const struct scan_found *f, void *data)
{
	struct body_shown *shown = data;

	if (!f->pseudo) {
		shown->messages++;
		shown->octets += f->octets;
	}
	return 0;
}

static int
count_mbox(struct look *l)
{
	struct scan s = { .fd = l->file, .end = (off_t)l->shown->size, .each = count_one, .data = l->shown };

	if (mbox_scan(&s) == 0)
		return 0;
	return errno == EPROTO ? fail(l, FAILURE_KIND) : -1;
}

/* Its octets on the wire; -1 if it is not there any more, or no message. */
static int
count_file(const struct look *l, const char *name, uint64_t *octets)
{
	static char block[128 << 10];
	struct wire_count count = { 0 };
	struct stat st;
	ssize_t n = -1;
	int fd = open_quietly(l->directory, name, 0);

	if (fd == -1)
		return -1;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_nlink == 1 || st.st_uid == geteuid()))
		while ((n = read(fd, block, sizeof block)) > 0)
			wire_count(&count, block, (size_t)n);
	close(fd);
	*octets = wire_count_end(&count);
	return n == 0 ? 0 : -1;
}

/* What the cache has, or the name says, need not be read. */
static int
count_entry(const struct look *l, const char *name, size_t base, struct inventory *known, uint64_t *octets)
{
	uint32_t at = known != NULL ? inventory_find(known, name + PART_PREFIX, base) : UINT32_MAX;
	uint64_t size, wire;
	struct stat st;

	if (at != UINT32_MAX) {
		*octets = inventory_row(known, at)->octets;
		return 0;
	}
	if (listing_number(name + PART_PREFIX, base, 'S', &size) && listing_number(name + PART_PREFIX, base, 'W', &wire) &&
	    fstatat(l->directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size &&
	    wire >= size && wire <= 2 * size + 2) {
		*octets = wire;
		return 0;
	}
	return count_file(l, name, octets);
}

static int
count_maildir(struct look *l)
{
	struct uidl *u = uidl_open(l->conf->uidl_format, MAILDROP_MAILDIR, l->directory);
	struct cache *cache = u != NULL ? cache_open(l->cache, MAILDROP_MAILDIR, uidl_context(u)) : NULL;
	struct inventory *known = cache != NULL && l->cache != -1 ? cache_load(cache) : NULL;
	struct listing list = { 0 };

	if (listing_read(&list, l->directory, PART_NEW) == -1 || listing_read(&list, l->directory, PART_CUR) == -1)
		return -1;
	listing_sort(&list);
	for (uint32_t i = 0; i < list.count; i++) {
		const struct listing_entry *e = &list.entry[i];
		uint64_t octets;
		if (count_entry(l, listing_name(&list, e), e->base, known, &octets) == -1)
			continue;
		l->shown->messages++;
		l->shown->octets += octets;
		l->shown->fresh += e->part == PART_NEW;
	}
	return 0;
}

static void
look_count(struct look *l)
{
	const struct sandbox_path paths[] = { { .fd = l->directory, .rights = SANDBOX_READ } };
	bool mbox = l->shown->kind == MAILDROP_MBOX;

	/* of an mbox nothing more is wanted by path */
	if (mbox)
		look_dotlock(l);
	sandbox_enter(CELL_WORKER, l->conf, paths, mbox ? 0 : 1);
	if ((mbox ? count_mbox(l) : count_maildir(l)) == 0)
		l->shown->flags |= SHOWN_COUNTED;
	else
		l->shown->messages = l->shown->fresh = 0, l->shown->octets = 0;
}

/* Which of the configured stores knows the user, and who that is; -1: none. */
static int
look_resolve(struct look *l, const char *user)
{
	uint32_t failure = FAILURE_USER;

	l->shown->store = STORE_COUNT;
	for (uint32_t i = 0; i < l->conf->stores.count; i++)
		if (asroot_resolve(l->conf, user, l->conf->stores.item[i], &l->grant, &failure) == 0) {
			l->shown->store = l->conf->stores.item[i];
			l->shown->uid = l->grant.uid;
			l->shown->server_copy = (uint32_t)l->grant.server_copy;
			l->shown->server_copy = (uint32_t)l->grant.server_copy;
			return 0;
		}
	return fail(l, failure);
}

static void
look(struct look *l, const char *user)
{
	int result;

	if (look_resolve(l, user) == -1)
		return;
	ask_resolved(&l->grant);
	if (asroot_drop(&l->grant) == -1) {
		fail(l, FAILURE_TEMPORARY);
		return;
	}
	l->shown->kind = maildrop_choose(&l->grant)->kind;
	bool mbox = l->shown->kind == MAILDROP_MBOX;
	memcpy(l->shown->path, mbox ? l->grant.mbox : l->grant.maildir, sizeof l->shown->path);
	result = mbox ? look_open_mbox(l) : look_open_maildir(l);
	if (result == 1)
		l->shown->flags |= SHOWN_MISSING;
	if (result != 0)
		return;
	look_state(l);
	look_count(l);
}

_Noreturn void
look_run(const struct conf *c, const struct job *j)
{
	static struct message m;
	static struct look l = { .directory = -1, .file = -1, .cache = -1 };

	message_start(&m, MESSAGE_SHOWN);
	l.conf = c;
	l.shown = &m.body.shown;
	l.shown->failure = FAILURE_COUNT;
	l.shown->server_copy = (uint32_t)c->server_copy;
	memcpy(l.shown->user, j->user, sizeof l.shown->user);
	look(&l, j->user);
	_exit(message_send(j->session, &m) == 0 ? 0 : 1);
}
