/*
 * The Maildir store. A message is known by its file's base name, which nobody changes; others may rename the file
 * (new/ to cur/, flags) at any time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "ask.h"
#include "maildir.h"
#include "path.h"

/* Opens the Maildir and its parts. 0; 1: missing; -1. */
static int
maildir_directories(struct maildrop *m, struct maildir *d)
{
	static const char *const names[PART_COUNT] = { "new", "cur" };
	const char *wrong;

	d->root = path_open_directory(m->grant->maildir, m->grant->uid, (uid_t)m->conf->min_uid, O_RDONLY, &wrong);
	if (d->root == -1 && wrong != NULL)
		return maildrop_refuse(m, FAILURE_KIND, wrong);
	if (d->root == -1)
		return errno == ENOENT ? 1 : maildrop_fail(m, "open");
	for (int i = 0; i < PART_COUNT; i++) {
		d->part[i] = openat(d->root, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (d->part[i] == -1 && errno != ENOENT)
			return maildrop_fail(m, names[i]);
	}
	return 0;
}

static enum lock_result
maildir_lock_once(struct maildrop *m, struct maildir *d, int wait_ms)
{
	if (!lock_flock_is_ours(d->root, m->conf, false))
		return session_lock_file(&d->session, d->root, "postern.lock", false, wait_ms);
	int fd = openat(d->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd == -1)
		return LOCK_FAILED;
	enum lock_result r = session_lock_flock(&d->session, fd, wait_ms);
	if (r != LOCK_TAKEN) {
		int saved = errno;
		close(fd);
		errno = saved;
	}
	return r;
}

static int
maildir_session_lock(struct maildrop *m, struct maildir *d, struct stat *st)
{
	enum lock_result r;

	if (fstat(d->root, st) == -1)
		return maildrop_fail(m, "stat");
	r = maildir_lock_once(m, d, 0);
	if (r == LOCK_HELD && m->kept->again)
		return 1;	/* in the cell there is no clock to wait by */
	if (r == LOCK_HELD)
		r = maildir_lock_once(m, d, ask_since(st->st_dev, st->st_ino, &m->since) ? TAKEOVER_WAIT_MS : GRACE_WAIT_MS);
	if (r == LOCK_FAILED)
		return maildrop_fail(m, "session lock");
	if (r == LOCK_HELD) {
		if (m->since == 0)
			m->since = d->session.since;
		return 1;
	}
	return 0;
}

static int
maildir_open(struct maildrop *m)
{
	struct maildir *d = calloc(1, sizeof *d);
	struct stat st = { 0 };
	int result;

	if (d == NULL)
		return maildrop_fail(m, "memory");
	m->of_store = d;
	*d = (struct maildir){ .root = -1, .part = { -1, -1 }, .session = SESSION_LOCK_NONE, .archive = -1, .trusted = UINT64_MAX };
	if ((result = maildir_directories(m, d)) != 0) {
		m->missing = result == 1;
		return result == 1 ? 0 : -1;
	}
	if ((result = maildir_session_lock(m, d, &st)) != 0 ||
	    (result = maildrop_ready(m, d->root, d->root, st.st_dev, st.st_ino)) != 0)
		return result;
	m->paths[0] = (struct sandbox_path){ .fd = d->root, .rights = SANDBOX_READ | SANDBOX_WRITE };
	m->path_count = 1;
	return 0;
}

/* Is this (-1: no) a message's file? One that is not as long as LIST has it is not the message that was listed. */
static bool
is_listed(int fd, uint64_t length)
{
	struct stat st;

	return fd != -1 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !maildir_foreign_link(&st) && (uint64_t)st.st_size == length;
}

static int
maildir_fetch(struct maildrop *m, uint32_t index, struct place *p)
{
	struct maildir *d = m->of_store;
	struct inventory_message im;
	char scanned[PART_PREFIX + NAME_MAX + 1];
	const char *name = scanned;

	if (inventory_get(m->inventory, index, &im) == -1)
		return maildrop_fail(m, "inventory");
	snprintf(scanned, sizeof scanned, "%.*s", (int)im.name_length, im.name);
	for (int tries = 0; tries < 8; tries++) {
		p->fd = maildir_open_file(d, name);
		if (p->fd != -1 || errno != ENOENT)
			break;
		name = maildir_find(d, name);
		errno = ENOENT;
		if (name[0] == '\0')
			break;
	}
	if (p->fd == -1 && errno != ENOENT)
		return maildrop_fail(m, "fetch");
	if (is_listed(p->fd, im.length)) {
		p->offset = 0;
		p->length = im.length;
		return 0;
	}
	if (p->fd != -1) {
		close(p->fd);
		maildir_doubt(m, index);
	}
	m->failure = FAILURE_VANISHED;
	return -1;
}

/* The second in a base name that is made of it; 0 if it is not. */
static int64_t
name_second(const char *base)
{
	size_t digits = strspn(base, "0123456789");

	return digits >= 9 && digits <= 11 && base[digits] == '.' ? (int64_t)strtoull(base, NULL, 10) : 0;
}

/*
 * By the file's time, which renaming leaves alone. What was copied here later than it says has a name that is younger: it
 * is to be removed for neither.
 */
static bool
maildir_older(struct maildrop *m, uint32_t index, int64_t than, bool surely)
{
	struct maildir *d = m->of_store;
	struct inventory_message im;
	struct stat st;
	char name[PART_PREFIX + NAME_MAX + 1];

	if (inventory_get(m->inventory, index, &im) == -1)
		return false;
	snprintf(name, sizeof name, "%.*s", (int)im.name_length, im.name);
	if (fstatat(d->root, name, &st, AT_SYMLINK_NOFOLLOW) == -1) {
		const char *now = errno == ENOENT ? maildir_find(d, name) : "";
		if (now[0] == '\0' || fstatat(d->root, now, &st, AT_SYMLINK_NOFOLLOW) == -1)
			return false;
	}
	return st.st_mtime > 0 && st.st_mtime < than && (!surely || name_second(name + PART_PREFIX) < than);
}

/* The archive's files, in `a`, which is no Maildir of a session's: only its root and its listing are used. */
static int
archived_add(struct maildrop *m, struct maildir *a, int64_t than, struct inventory *to)
{
	struct stat st;

	if (listing_read(&a->listing, a->root, PART_NEW) == -1 || listing_read(&a->listing, a->root, PART_CUR) == -1)
		return -1;
	listing_sort(&a->listing);
	for (uint32_t i = 0; i < a->listing.count; i++) {
		const struct listing_entry *e = &a->listing.entry[i];
		if (fstatat(a->root, listing_name(&a->listing, e), &st, AT_SYMLINK_NOFOLLOW) == -1 || st.st_mtime < than)
			continue;
		if (maildir_add(m, a, e, NULL, to) == -1)
			return -1;
	}
	return 0;
}

static int
maildir_archived(struct maildrop *m, int64_t than, struct inventory *to)
{
	struct maildir *d = m->of_store, a = { .root = archive_look(d->root), .part = { -1, -1 } };

	if (a.root == -1)
		return errno == ENOENT ? 0 : -1;
	int result = archived_add(m, &a, than, to), saved = errno;
	listing_free(&a.listing);
	close(a.root);
	errno = saved;
	return result;
}

/* One that has changed its name or its length since it was listed is not looked for. */
static int
maildir_archived_fetch(struct maildrop *m, const struct inventory_message *im, struct place *p)
{
	struct maildir *d = m->of_store, a = { .root = archive_look(d->root), .part = { -1, -1 } };
	char name[PART_PREFIX + NAME_MAX + 1];

	snprintf(name, sizeof name, "%.*s", (int)im->name_length, im->name);
	*p = (struct place){ .fd = a.root != -1 ? maildir_open_file(&a, name) : -1, .length = im->length };
	if (a.root != -1)
		close(a.root);
	if (is_listed(p->fd, im->length))
		return 0;
	if (p->fd != -1)
		close(p->fd);
	m->failure = FAILURE_VANISHED;
	return -1;
}

static void
maildir_release(struct maildrop *m)
{
	struct maildir *d = m->of_store;

	session_lock_release(&d->session);
}

static void
maildir_close(struct maildrop *m)
{
	struct maildir *d = m->of_store;
	int fds[] = { d->root, d->part[PART_NEW], d->part[PART_CUR], d->archive };

	session_lock_release(&d->session);
	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
		if (fds[i] != -1)
			close(fds[i]);
	listing_free(&d->listing);
	free(d->wrong);
	free(d);
	m->of_store = NULL;
}

const struct mailstore store_maildir = {
	.kind = MAILDROP_MAILDIR, .name = "maildir",
	.open = maildir_open, .scan = maildir_scan, .fetch = maildir_fetch, .doubt = maildir_doubt, .update = maildir_update, .remember = maildir_remember,
	.older = maildir_older, .archived = maildir_archived, .archived_fetch = maildir_archived_fetch,
	.release = maildir_release, .complete = maildir_complete, .untidy = maildir_untidy, .sweep = maildir_sweep, .close = maildir_close,
};
