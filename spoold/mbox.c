/*
 * The mbox store. The file is never renamed over and its owner and mode are never changed: delivery agents hold it
 * open by name and lock the inode.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "age.h"
#include "archive.h"
#include "ask.h"
#include "journal.h"
#include "lock.h"
#include "locked.h"
#include "locker.h"
#include "log.h"
#include "maildrop.h"
#include "path.h"
#include "scan.h"
#include "system.h"

struct mbox {
	int fd;				/* -1: missing. For reading, and for writing if this user may */
	int directory;
	char name[NAME_MAX + 1];
	char dotlock[NAME_MAX + 1];
	struct session_lock session;
	struct delivery_lock delivery;
	dev_t device;			/* of the file that was scanned */
	ino_t inode;
	bool changed;			/* the cache does not know it as it is */
	bool replaced;			/* another file has its name now */
	int archive;			/* server-copy = archive: where to; -1: beside the mbox, once it is needed */
	int journal;			/* of the UPDATE; its blocks are given back when it is closed, at the very end; -1 */
	off_t promised;			/* so long the mbox is to be, and it is under its delivery locks still; -1: nothing is to be done */
};

/* Of a mailbox so large the cache is written after the client has been answered. */
#define LATER_FROM (4 << 20)
/*
 * To cut off so much takes longer than to promise it in a journal, since the kernel gives back every page of it first: then the
 * client has its answer between the two. Of less it never sees a mailbox that is not yet cut.
 */
#ifndef PROMISE_FROM
#define PROMISE_FROM (16 << 20)
#endif

#define REPLACED_WAIT_MS	5000	/* for one that is missing and locked */
#define REPLACED_PAUSE_MS	10

/* Opens directory and splits the name off. 0, 1 if the directory is missing, -1. */
static int
mbox_directory(struct maildrop *m, struct mbox *b)
{
	char path[PATH_SIZE];
	const char *wrong;
	char *slash;

	string_copy(path, sizeof path, m->grant->mbox);
	slash = strrchr(path, '/');
	if (slash == NULL || slash[1] == '\0' || !string_copy(b->name, sizeof b->name - 5, slash + 1))
		return maildrop_refuse(m, FAILURE_KIND, "the path of the mbox has no file name");
	string_copy(b->dotlock, sizeof b->dotlock, b->name);
	memcpy(b->dotlock + strlen(b->name), ".lock", sizeof ".lock");
	slash[slash == path] = '\0';
	b->directory = path_open_directory(path, m->grant->uid, (uid_t)m->conf->min_uid, O_PATH, &wrong);
	/* the locker of a worker that lingered is where it was */
	if (b->directory != -1 && m->kept->again && !locker_is_in(b->directory))
		return maildrop_refuse(m, FAILURE_TEMPORARY, "another directory than before");
	if (b->directory != -1)
		return 0;
	if (wrong != NULL)
		return maildrop_refuse(m, FAILURE_KIND, wrong);
	return errno == ENOENT ? 1 : maildrop_fail(m, "directory");
}

/* In the cell it may be another file than the one that was opened before it. */
static int
mbox_open_file(const struct mbox *b, int flags)
{
	int fd = openat(b->directory, b->name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	return fd != -1 || errno != EACCES ? fd : ask_beside_file(flags == O_RDWR ? PRIVILEGED_MAILBOX_OPEN : PRIVILEGED_MAILBOX_LOOK);
}

/* The file, for writing if that may be. 0, 1 if it is missing, -1. */
static int
mbox_file(struct maildrop *m, struct mbox *b)
{
	struct stat st;

	/* looked at first: opening a FIFO or a device is not for us */
	if (fstatat(b->directory, b->name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT ? 1 : maildrop_fail(m, "stat");
	if (!S_ISREG(st.st_mode))
		return maildrop_refuse(m, FAILURE_KIND, S_ISLNK(st.st_mode) ? "a symbolic link where the mbox should be" :
		    S_ISDIR(st.st_mode) ? "a directory where the mbox should be" : "not a regular file");
	m->readonly = false;
	b->fd = mbox_open_file(b, O_RDWR);
	if (b->fd == -1 && (errno == EACCES || errno == EROFS || errno == EPERM)) {
		m->readonly = true;
		b->fd = mbox_open_file(b, O_RDONLY);
	}
	if (b->fd == -1)
		return errno == ENOENT ? 1 : maildrop_fail(m, "open");
	if (fstat(b->fd, &st) == -1 || !S_ISREG(st.st_mode))
		return maildrop_refuse(m, FAILURE_KIND, "not a regular file");
	if (st.st_nlink > 1 && st.st_uid != m->grant->uid)
		return maildrop_refuse(m, FAILURE_KIND, "a hard link to a file of another user");
	b->device = st.st_dev;
	b->inode = st.st_ino;
	return 0;
}

/* A dotlock may be a dead worker's; whoever takes the locks sees that, and no deliverer is kept off any longer. */
static bool
mbox_is_dotlocked(const struct maildrop *m, const struct mbox *b)
{
	return conf_has(&m->conf->mbox_locks, LOCK_DOTLOCK) && dotlock_is_there(b->directory, b->dotlock);
}

/*
 * The same; but one that is missing while there is a dotlock is being replaced by a program that renames the old one
 * away before the new one into its place (GNU mailutils does): then it is waited for.
 */
static int
mbox_file_settled(struct maildrop *m, struct mbox *b)
{
	int64_t begun = clock_ms();
	int result;

	while ((result = mbox_file(m, b)) == 1 && mbox_is_dotlocked(m, b) && clock_ms() < begun + REPLACED_WAIT_MS)
		poll(NULL, 0, REPLACED_PAUSE_MS);
	/* the lock may have gone since the look, and then it is there */
	return result == 1 ? mbox_file(m, b) : result;
}

static enum lock_result
mbox_lock_once(struct maildrop *m, struct mbox *b, int wait_ms)
{
	char file[NAME_MAX + 1];

	if (!lock_flock_is_ours(b->fd, m->conf, true)) {
		if (snprintf(file, sizeof file, LOCKFILE_NAME, b->name) >= (int)sizeof file)
			return LOCK_FAILED;
		return session_lock_file(&b->session, b->directory, file, true, wait_ms);
	}
	/* A description of its own: a lock goes with the last descriptor of it, and this one is nobody's but ours. */
	int fd = mbox_open_file(b, O_RDONLY);
	if (fd == -1)
		return LOCK_FAILED;
	enum lock_result r = session_lock_flock(&b->session, fd, wait_ms);
	if (r != LOCK_TAKEN) {
		int saved = errno;
		close(fd);
		errno = saved;
	}
	return r;
}

/* Is the file that we have still the one of that name? */
static bool
mbox_is_current(const struct mbox *b)
{
	struct stat here, there;

	return fstat(b->fd, &here) == 0 && fstatat(b->directory, b->name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	    here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

/* 0; 1: another session has it; -1. */
static int
mbox_session_lock(struct maildrop *m, struct mbox *b)
{
	enum lock_result r = mbox_lock_once(m, b, 0);

	if (r == LOCK_HELD && m->kept->again)
		return 1;	/* in the cell there is no clock to wait by */
	if (r == LOCK_HELD)
		r = mbox_lock_once(m, b, ask_since(b->device, b->inode, &m->since) ? TAKEOVER_WAIT_MS : GRACE_WAIT_MS);
	if (r == LOCK_FAILED)
		return maildrop_fail(m, "session lock");
	if (r == LOCK_HELD) {
		if (m->since == 0)
			m->since = b->session.since;
		return 1;
	}
	return 0;
}

/* A description that POP3D may have: for reading, of the same file, and not the one that holds a lock. */
static int
mbox_reader(const struct mbox *b)
{
	struct stat st;
	int fd = mbox_open_file(b, O_RDONLY);

	if (fd != -1 && fstat(fd, &st) == 0 && st.st_dev == b->device && st.st_ino == b->inode)
		return fd;
	if (fd != -1)
		close(fd);
	errno = EAGAIN;
	return -1;
}

/*
 * The archive is beside the mbox, under a name that no user's mbox has; or, where the user may make no file there, the
 * account's ~/mbox, where mail readers put what was read. That one is opened now, since the cell will not reach it.
 */
static void
mbox_archive_home(struct maildrop *m, struct mbox *b)
{
	bool makes = m->grant->server_copy == COPY_ARCHIVE;	/* else it is only needed to finish what was cut off */
	const char *wrong;
	struct stat st;

	if ((!makes && !m->journal) || m->grant->home[0] == '\0' || faccessat(b->directory, ".", W_OK, 0) == 0)
		return;
	int home = path_open_directory(m->grant->home, m->grant->uid, (uid_t)m->conf->min_uid, O_PATH, &wrong);
	if (home != -1)
		b->archive = archive_file(home, "mbox", makes);
	bool wrong_one = b->archive != -1 && (fstat(b->archive, &st) == -1 || (st.st_dev == b->device && st.st_ino == b->inode));
	if (wrong_one || (b->archive == -1 && makes))
		log_text(LOG_WARNING, "%s/mbox cannot be the archive: %s", m->grant->home, b->archive == -1 ? strerror(errno) : "it is the maildrop");
	if (wrong_one) {
		close(b->archive);
		b->archive = -1;
	}
	if (home != -1)
		close(home);
}

/*
 * What the cell leaves. A directory of root's, where users have a mailbox each and nothing else, is left whole if the uid is no other user's: whose a mailbox is
 * keeps them apart. In any other there is what this uid may read and no mail program needs, or other users' mail: there it is the mbox alone, and a locker.
 */
static int
mbox_cell(struct maildrop *m, struct mbox *b)
{
	struct stat st;
	bool whole = !m->grant->shared && fstat(b->directory, &st) == 0 && st.st_uid == 0;

	m->paths[0] = (struct sandbox_path){ .fd = b->directory, .rights = SANDBOX_READ | SANDBOX_WRITE };
	m->path_count = 1;
	if (m->kept->again || whole || m->conf->sandbox == SANDBOX_OFF)
		return 0;
	m->paths[0].fd = b->fd;
	return locker_start(m->conf, m->grant, b->directory);
}

static int
mbox_open(struct maildrop *m)
{
	struct mbox *b = calloc(1, sizeof *b);
	int result;

	if (b == NULL)
		return maildrop_fail(m, "memory");
	m->of_store = b;
	*b = (struct mbox){ .fd = -1, .directory = -1, .session = SESSION_LOCK_NONE, .archive = -1, .journal = -1, .promised = -1 };
	if ((result = mbox_directory(m, b)) != 0 || (result = mbox_file_settled(m, b)) != 0) {
		m->missing = result == 1;
		return result == 1 ? 0 : -1;
	}
	b->delivery = (struct delivery_lock){ .kinds = &m->conf->mbox_locks, .directory = b->directory, .dotlock = b->dotlock };
	for (int tries = 0; ; tries++) {
		if ((result = mbox_session_lock(m, b)) != 0)
			return result;
		if (mbox_is_current(b) && (m->reader = mbox_reader(b)) != -1)
			break;
		/* another program put another file there between open and lock */
		session_lock_release(&b->session);
		close(b->fd);
		b->fd = -1;
		if (tries == 10)
			return maildrop_refuse(m, FAILURE_TEMPORARY, "the mbox is replaced again and again");
		if ((result = mbox_file_settled(m, b)) != 0) {
			m->missing = result == 1;
			return result == 1 ? 0 : -1;
		}
	}
	if ((result = maildrop_ready(m, b->fd, -1, b->device, b->inode)) != 0)
		return result;
	mbox_archive_home(m, b);
	return mbox_cell(m, b) == 0 ? 0 : maildrop_fail(m, "locker");
}

/* The archive that is beside the mbox; -1 with errno. */
static int
archive_beside(const struct mbox *b, bool makes)
{
	char name[sizeof b->name + 16];

	if (ask_has_locker())
		return ask_beside_file(makes ? PRIVILEGED_ARCHIVE_OPEN : PRIVILEGED_ARCHIVE_FIND);
	if (snprintf(name, sizeof name, ARCHIVE_NAME, b->name) < NAME_MAX)
		return archive_file(b->directory, name, makes);
	errno = ENAMETOOLONG;
	return -1;
}

/* An UPDATE did not come to pass: what it had copied to the archive is taken back. 0, or -1. */
static int
mbox_unarchive(struct maildrop *m, struct mbox *b, int journal)
{
	struct journal_note n;
	struct range *range;
	struct stat st;
	size_t count;
	int noted = journal_noted(journal, &n, &range, &count), result = 0;

	if (noted != 1)
		return noted == 0 ? 0 : maildrop_fail(m, "journal");
	int fd = b->archive != -1 ? b->archive : archive_beside(b, false);
	if (fd != -1 && fstat(fd, &st) == 0 && st.st_ino == n.archive)
		result = archive_take_back(fd, b->fd, range, count, n.before);	/* model: UNARCHIVE */
	else
		log_text(LOG_ERR, "%s: the archive of the UPDATE that was cut off cannot be found: it is let alone", m->path);
	int saved = errno;
	if (fd != -1 && fd != b->archive)
		close(fd);
	free(range);
	errno = saved;
	if (result == 1)
		log_text(LOG_NOTICE, "%s: what was copied to the archive and is still in the mbox was taken back", m->path);
	return result == -1 ? maildrop_fail(m, "archive") : 0;
}

/* Under the delivery locks: finishes what an earlier UPDATE left. */
static int
mbox_recover(struct maildrop *m, struct mbox *b, int journal)
{
	const char *why = "";
	enum journal_state state;

	if (m->readonly)
		return maildrop_refuse(m, FAILURE_PERMISSION, "an UPDATE was cut off, and the mbox cannot be written to finish it");
	state = journal_recover(b->fd, journal, &why);
	log_begin(state == JOURNAL_NOTHING || state == JOURNAL_DONE ? LOG_NOTICE : LOG_ERR, "recover");
	log_string("user", m->grant->user);
	log_string("maildrop", m->path);
	log_string("result", state == JOURNAL_NOTHING ? "nothing" : state == JOURNAL_DONE ? "finished" : state == JOURNAL_TORN ? "torn" :
	    state == JOURNAL_FOREIGN ? "foreign" : "failed");
	log_string("reason", why);
	log_end();
	if (state == JOURNAL_FAILED)
		return maildrop_fail(m, "recover");
	b->changed = true;
	if (state == JOURNAL_NOTHING && mbox_unarchive(m, b, journal) == -1)
		return -1;
	int error = ask_privileged(state == JOURNAL_NOTHING || state == JOURNAL_DONE ? PRIVILEGED_JOURNAL_DROP :
	    PRIVILEGED_JOURNAL_SET_ASIDE);
	if (error == 0)
		return 0;
	errno = error;
	return maildrop_fail(m, "journal");
}

/* What one scan gathers. */
struct gather {
	struct inventory *inventory;
};

static int
gather_one(const struct scan_found *f, void *data)
{
	struct gather *g = data;
	struct inventory_message im = {
		.octets = f->octets, .offset = (uint64_t)f->offset, .length = f->length, .uid = f->id.text, .uid_length = f->id.length,
	};

	if (f->pseudo)
		return 0;
	memcpy(im.fingerprint, f->id.fingerprint, sizeof im.fingerprint);
	return inventory_add(g->inventory, &im);
}

/* What follows the last message that is known: its end, and whether an empty line is behind it. */
static int
mbox_scan_tail(struct maildrop *m, struct mbox *b, struct inventory *old, off_t from, off_t size)
{
	struct gather g = { old };
	uint32_t count = inventory_count(old);
	struct scan s = { .fd = b->fd, .start = from, .end = size, .uidl = m->uidl, .each = gather_one, .data = &g };

	if (count > 0) {
		const struct catalogue_row *row = inventory_row(old, count - 1);
		s.after_blank = row->offset + row->length < (uint64_t)from;
	}
	return mbox_scan(&s);
}

static int
mbox_scan_all(struct maildrop *m, struct mbox *b, struct inventory *old, off_t size)
{
	struct gather g = { inventory_new() };
	struct scan s = { .fd = b->fd, .end = size, .uidl = m->uidl, .each = gather_one, .data = &g };

	if (g.inventory == NULL)
		return maildrop_fail(m, "memory");
	m->inventory = g.inventory;
	b->changed = true;
	if (mbox_scan(&s) == -1) {
		if (errno == EPROTO)
			return maildrop_refuse(m, FAILURE_KIND, "the file does not start with a From_ line: not an mbox");
		return maildrop_fail(m, "scan");
	}
	if (old != NULL && inventory_remember(g.inventory, old) == -1)
		return maildrop_fail(m, "unique-ids");
	return 0;
}

/* Under the delivery locks. */
static int
mbox_scan_locked(struct maildrop *m, struct mbox *b, struct inventory *old)
{
	enum stamp_verdict verdict;

	if (stamp_take(&m->seen[0], b->fd) == -1)
		return maildrop_fail(m, "stat");
	if (old != NULL && (verdict = stamp_compare(cache_stamp(maildrop_cache(m), 0), &m->seen[0])) != STAMP_CHANGED) {
		off_t known = (off_t)cache_stamp(maildrop_cache(m), 0)->size, size = (off_t)m->seen[0].size;
		b->changed = true;
		/* with nothing at all known there is no mbox yet whose end could be gone on from */
		if (verdict == STAMP_SAME || (known > 0 && inventory_holds(old, b->fd) && mbox_scan_tail(m, b, old, known, size) == 0)) {
			m->inventory = old;
			return 0;
		}
		/* the tail may have added some of it already */
		inventory_free(old);
		old = cache_load(maildrop_cache(m));
	}
	int result = mbox_scan_all(m, b, old, (off_t)m->seen[0].size);
	inventory_free(old);
	return result;
}

/* The description that a dead worker had locked, instead of our own. */
static void
mbox_take_over(struct mbox *b)
{
	int fd = locked_find(b->fd);

	if (fd == -1)
		return;
	close(b->fd);
	b->fd = fd;
}

static int
mbox_scan_store(struct maildrop *m)
{
	struct mbox *b = m->of_store;
	struct inventory *old;
	int journal = maildrop_journal(m);

	if (journal == -1 && errno != ENOENT)
		return maildrop_fail(m, "journal");
	bool settled = journal == -1 && !m->tidy && !mbox_is_dotlocked(m, b) && stamp_take(&m->seen[0], b->fd) == 0;
	/* Nobody has touched it: what was true under the locks is true now. */
	if (settled && maildrop_unchanged(m))
		return 0;
	if (maildrop_cache(m) == NULL)
		return maildrop_fail(m, "cache");
	old = settled ? cache_load(m->cache) : NULL;
	if (old != NULL && stamp_compare(cache_stamp(m->cache, 0), &m->seen[0]) == STAMP_SAME) {
		m->inventory = old;
		return 0;
	}
	if (journal != -1 && !m->readonly)
		mbox_take_over(b);
	if (delivery_lock_take(&b->delivery, b->fd, journal != -1 && !m->readonly) == -1) {
		if (journal != -1)
			close(journal);
		return maildrop_fail(m, "delivery locks");
	}
	int result = journal != -1 ? mbox_recover(m, b, journal) : 0;
	if (b->archive != -1 && m->grant->server_copy != COPY_ARCHIVE) {
		close(b->archive);
		b->archive = -1;
	}
	if (result == 0)
		result = mbox_scan_locked(m, b, old);
	delivery_lock_release(&b->delivery);
	if (journal != -1)
		close(journal);
	return result;
}

/*
 * Makes b->fd the file that has the name now, under its delivery locks (which the caller releases). 0; 1: no file has it.
 */
static int
mbox_lock_current(struct maildrop *m, struct mbox *b, bool exclusive)
{
	for (int tries = 0; tries < 10; tries++) {
		if (delivery_lock_take(&b->delivery, b->fd, exclusive) == -1)
			return maildrop_fail(m, "delivery locks");
		if (mbox_is_current(b))
			return 0;
		delivery_lock_release(&b->delivery);
		struct session_lock old = b->session;
		int fd = b->fd, gone;
		b->replaced = true;
		if ((gone = mbox_file_settled(m, b)) != 0) {
			b->fd = fd;
			return gone;
		}
		close(fd);
		enum lock_result r = mbox_lock_once(m, b, 0);
		/* a lock file goes by the name and is held already */
		if (old.directory != -1 || old.by_parent)
			b->session = old;
		else if (r == LOCK_TAKEN)
			close(old.fd);
		else
			return maildrop_refuse(m, FAILURE_CHANGED, "the mbox was replaced, and another session has the new one");
	}
	return maildrop_refuse(m, FAILURE_TEMPORARY, "the mbox is replaced again and again");
}

/* One message of a second look, by content. */
struct look {
	uint8_t fingerprint[FINGERPRINT_SIZE];
	uint32_t index;
	off_t start, offset;
	uint64_t length, octets;
};

struct looks {
	struct look *look;
	uint32_t count, room;
};

static int
look_one(const struct scan_found *f, void *data)
{
	struct looks *l = data;

	if (f->pseudo)
		return 0;
	if (l->count == l->room) {
		uint32_t room = l->room > 0 ? 2 * l->room : 64;
		struct look *more = reallocarray(l->look, room, sizeof *more);
		if (more == NULL)
			return -1;
		l->look = more;
		l->room = room;
	}
	l->look[l->count] = (struct look){ .index = l->count, .start = f->start, .offset = f->offset, .length = f->length, .octets = f->octets };
	memcpy(l->look[l->count++].fingerprint, f->id.fingerprint, FINGERPRINT_SIZE);
	return 0;
}

/* Everything that is in the file now. 0, or -1 with errno. */
static int
look_again(const struct mbox *b, off_t size, struct looks *l)
{
	struct scan s = { .fd = b->fd, .end = size, .each = look_one, .data = l };

	*l = (struct looks){ 0 };
	if ((s.hash = content_new()) == NULL)
		return -1;
	int result = mbox_scan(&s), saved = errno;
	free(s.hash);
	errno = saved;
	return result;
}

static ssize_t
read_at(int fd, char *to, size_t length, off_t at)
{
	size_t done = 0;

	while (done < length) {
		ssize_t n = pread(fd, to + done, length - done, at + (off_t)done);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/*
 * Is what lies at the row what was scanned there? Copied to `copy` on the way, if that is not -1. 1, 0, or -1 with
 * errno.
 */
static int
row_holds(const struct mbox *b, const struct inventory_message *im, struct content_hash *h, int copy)
{
	static char buffer[64 << 10];
	uint8_t fingerprint[FINGERPRINT_SIZE];

	content_begin(h);
	for (uint64_t done = 0; done < im->length;) {
		size_t want = im->length - done < sizeof buffer ? (size_t)(im->length - done) : sizeof buffer;
		ssize_t n = read_at(b->fd, buffer, want, (off_t)(im->offset + done));
		if (n == -1)
			return -1;
		if ((size_t)n < want)
			return 0;
		content_add(h, buffer, want);
		if (copy != -1 && write(copy, buffer, want) != (ssize_t)want)
			return -1;
		done += want;
	}
	content_end(h, fingerprint);
	return memcmp(fingerprint, im->fingerprint, sizeof fingerprint) == 0;
}

/*
 * Where the From_ line of the message at [offset, offset + length) starts, and where the next message starts, or the
 * file ends. 1; 0 if it is not framed like a message; -1 with errno.
 */
static int
row_frame(int fd, off_t offset, uint64_t length, off_t size, struct range *r)
{
	char before[FROM_LINE_MAX + 2], after[16];
	size_t n = offset < (off_t)sizeof before ? (size_t)offset : sizeof before, at = 0;
	off_t end = offset + (off_t)length;
	ssize_t got = read_at(fd, before, n, offset - (off_t)n);

	if (got == -1)
		return -1;
	if ((size_t)got < n || n < 5)
		return 0;
	/* a From_ line at the end of the file may lack its end */
	const char *lf = memrchr(before, '\n', n - 1);
	const char *line = lf != NULL ? lf + 1 : before;
	if ((lf == NULL && (off_t)n < offset) || before + n - line < 5 || memcmp(line, "From ", 5) != 0)
		return 0;
	r->start = offset - (off_t)(before + n - line);
	if (end > size || (got = read_at(fd, after, sizeof after, end)) == -1)
		return end > size ? 0 : -1;
	/* one empty line; a last line that had no end when it was scanned may have been given one since */
	for (int i = 0; i < 2 && end + (off_t)at < size; i++)
		if ((size_t)got > at && after[at] == '\n')
			at++;
		else if ((size_t)got > at + 1 && after[at] == '\r' && after[at + 1] == '\n')
			at += 2;
	if (end + (off_t)at > size)
		return 0;
	r->length = end + (off_t)at - r->start;
	if (end + (off_t)at == size)
		return 1;
	return (size_t)got >= at + 5 && memcmp(after + at, "From ", 5) == 0;
}

/* A message has changed places: where is it now? 1 with *at; 0: nowhere. */
static int
find_moved(struct mbox *b, off_t size, const struct inventory_message *im, struct look *at)
{
	struct looks l;
	int found = look_again(b, size, &l);

	for (uint32_t i = 0; found == 0 && i < l.count; i++)
		if (l.look[i].length == im->length && l.look[i].octets == im->octets &&
		    memcmp(l.look[i].fingerprint, im->fingerprint, FINGERPRINT_SIZE) == 0) {
			*at = l.look[i];
			found = 1;
		}
	int saved = errno;
	free(l.look);
	errno = saved;
	return found;
}

/*
 * Under the locks: the message as a sealed copy, which nobody can change while it is sent. 1; 0: it is not there any
 * more.
 */
static int
fetch_copy(struct mbox *b, struct inventory_message im, int *copy)
{
	struct stat st;
	struct look at = { 0 };
	struct content_hash *h = content_new();
	int found = -1;

	*copy = h != NULL ? sealed_create("postern-message") : -1;
	if (*copy == -1 || fstat(b->fd, &st) == -1)
		goto out;
	found = row_holds(b, &im, h, *copy);
	if (found == 0 && (found = find_moved(b, st.st_size, &im, &at)) == 1) {
		im.offset = (uint64_t)at.offset;
		if (ftruncate(*copy, 0) == -1 || lseek(*copy, 0, SEEK_SET) == -1)
			found = -1;
		else
			found = row_holds(b, &im, h, *copy);
	}
	if (found == 1 && sealed_finish(*copy) == -1)
		found = -1;
out:
	if (found != 1 && *copy != -1)
		close(*copy);
	free(h);
	return found;
}

static int
mbox_fetch(struct maildrop *m, uint32_t index, struct place *p)
{
	struct mbox *b = m->of_store;
	struct inventory_message im;
	int found;

	if (inventory_get(m->inventory, index, &im) == -1)
		return maildrop_fail(m, "inventory");
	found = mbox_lock_current(m, b, false);
	if (found == -1)
		return -1;
	if (found == 0) {
		found = fetch_copy(b, im, &p->fd);
		int saved = errno;
		delivery_lock_release(&b->delivery);
		errno = saved;
		if (found == -1 && errno != EPROTO)
			return maildrop_fail(m, "fetch");
		if (found == 1) {
			p->offset = 0;
			p->length = im.length;
			return 0;
		}
	}
	m->failure = FAILURE_VANISHED;
	return -1;
}

/* The date of the From_ line that ends where the message starts; 0 if it is not known. -1 with errno. */
static int64_t
row_delivered(int fd, off_t offset)
{
	char before[FROM_LINE_MAX + 2];
	size_t n = offset < (off_t)sizeof before ? (size_t)offset : sizeof before;
	ssize_t got = read_at(fd, before, n, offset - (off_t)n);

	if (got == -1)
		return -1;
	if ((size_t)got < n || n < 6 || before[n - 1] != '\n')
		return 0;
	const char *lf = memrchr(before, '\n', n - 1), *line = lf != NULL ? lf + 1 : before;
	if ((lf == NULL && (off_t)n < offset) || before + n - line < 6 || memcmp(line, "From ", 5) != 0)
		return 0;
	return age_from_line(line + 5, (size_t)(before + n - 1 - line) - 5);
}

/*
 * By the date of the From_ line, and never of the header. The file may have been changed since it was scanned: before
 * something is removed the message must be found at that From_ line.
 */
static bool
mbox_older(struct maildrop *m, uint32_t index, int64_t than, bool surely)
{
	struct mbox *b = m->of_store;
	const struct catalogue_row *row = inventory_row(m->inventory, index);
	struct inventory_message im;
	int64_t when = row_delivered(b->fd, (off_t)row->offset);

	if (when <= 0 || when >= than)
		return false;
	if (!surely)
		return true;
	struct content_hash *h = content_new();
	bool holds = h != NULL && inventory_get(m->inventory, index, &im) == 0 && row_holds(b, &im, h, -1) == 1;
	free(h);
	return holds;
}

/* The archive for reading: beside the mbox, or the one in the home. The caller's to close, unless it is b->archive. */
static int
archived_open(const struct mbox *b)
{
	char name[sizeof b->name + 16];
	struct stat st;

	if (b->archive != -1)
		return b->archive;
	if (snprintf(name, sizeof name, ARCHIVE_NAME, b->name) >= NAME_MAX)
		return errno = ENOENT, -1;
	int fd = openat(b->directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd == -1 && errno == EACCES)
		fd = ask_beside_file(PRIVILEGED_ARCHIVE_LOOK);
	if (fd == -1 || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && st.st_nlink == 1))
		return fd;
	close(fd);
	return errno = ENOENT, -1;
}

static void
archived_close(const struct mbox *b, int fd)
{
	int saved = errno;

	if (fd != -1 && fd != b->archive)
		close(fd);
	errno = saved;
}

struct gather_archive {
	struct gather gather;
	int fd;
	int64_t than;
};

static int
gather_recent(const struct scan_found *f, void *data)
{
	struct gather_archive *g = data;
	int64_t when = row_delivered(g->fd, f->offset);

	if (when == -1)
		return -1;
	return when != 0 && when < g->than ? 0 : gather_one(f, &g->gather);
}

static int
mbox_archived(struct maildrop *m, int64_t than, struct inventory *to)
{
	const struct mbox *b = m->of_store;
	struct gather_archive g = { { to }, archived_open(b), than };
	struct scan s = { .fd = g.fd, .uidl = m->uidl, .each = gather_recent, .data = &g };
	struct stat st;

	if (g.fd == -1)
		return errno == ENOENT ? 0 : -1;
	int result = fstat(g.fd, &st);
	s.end = st.st_size;
	if (result == 0 && s.end > 0 && (result = mbox_scan(&s)) == -1 && errno == EPROTO) {
		log_text(LOG_WARNING, "the archive of %s is not an mbox: it is not shown", m->path);
		result = 0;
	}
	archived_close(b, g.fd);
	return result;
}

static int
mbox_archived_fetch(struct maildrop *m, const struct inventory_message *im, struct place *p)
{
	const struct mbox *b = m->of_store;
	struct mbox archive = { .fd = archived_open(b) };
	int found = archive.fd != -1 ? fetch_copy(&archive, *im, &p->fd) : 0;

	archived_close(b, archive.fd);
	if (found == -1 && errno != EPROTO)
		return maildrop_fail(m, "archive");
	p->offset = 0;
	p->length = im->length;
	m->failure = FAILURE_VANISHED;
	return found == 1 ? 0 : -1;
}

/* The ranges that are to go. */
struct cuts {
	struct range *range;
	size_t count;
};

/* Touching ranges become one. */
static void
cut_add(struct cuts *c, struct range r)
{
	struct range *last = c->count > 0 ? &c->range[c->count - 1] : NULL;

	if (last != NULL && last->start + last->length == r.start)
		last->length += r.length;
	else
		c->range[c->count++] = r;
}

static int
look_compare(const void *a, const void *b)
{
	const struct look *x = a, *y = b;
	int n = memcmp(x->fingerprint, y->fingerprint, FINGERPRINT_SIZE);

	return n != 0 ? n : (x->index > y->index) - (x->index < y->index);
}

/* What was scanned, as looks. */
static struct look *
looks_of(struct inventory *inv)
{
	uint32_t count = inventory_count(inv);
	struct look *l = calloc(count, sizeof *l);

	for (uint32_t i = 0; l != NULL && i < count; i++) {
		struct inventory_message im;
		if (inventory_get(inv, i, &im) == -1) {
			free(l);
			return NULL;
		}
		l[i].index = i;
		memcpy(l[i].fingerprint, im.fingerprint, FINGERPRINT_SIZE);
	}
	return l;
}

static uint32_t
group_end(const struct look *l, uint32_t from, uint32_t count)
{
	uint32_t i = from;

	while (i < count && memcmp(l[i].fingerprint, l[from].fingerprint, FINGERPRINT_SIZE) == 0)
		i++;
	return i;
}

/* Is there a marked message with a twin that is not marked? Then its place alone does not tell which of them it is. */
static bool
twins_apart(struct maildrop *m, const uint8_t *marks)
{
	uint32_t count = inventory_count(m->inventory);
	struct look *l = looks_of(m->inventory);
	bool apart = false;

	if (l == NULL)
		return true;
	qsort(l, count, sizeof *l, look_compare);
	for (uint32_t i = 1; !apart && i < count; i++)
		apart = ((marks[l[i].index] ^ marks[l[i - 1].index]) & MARK_DELETED) != 0 &&
		    memcmp(l[i].fingerprint, l[i - 1].fingerprint, FINGERPRINT_SIZE) == 0;
	free(l);
	return apart;
}

/*
 * Nobody has touched what was scanned: a run of marked messages goes from the From_ line of its first to the end of
 * its last. 1; 0: it does not look like that; -1 with errno.
 */
static int
cuts_trusted(struct maildrop *m, const struct mbox *b, const uint8_t *marks, off_t size, struct cuts *c)
{
	uint32_t count = inventory_count(m->inventory);
	int good = 1;

	for (uint32_t i = 0; i < count && good == 1; i++) {
		struct range first, last;
		if ((marks[i] & MARK_DELETED) == 0)
			continue;
		const struct catalogue_row *row = inventory_row(m->inventory, i);
		good = row_frame(b->fd, (off_t)row->offset, row->length, size, &first);
		uint32_t start = i;
		while (i + 1 < count && (marks[i + 1] & MARK_DELETED) != 0)
			i++;
		row = inventory_row(m->inventory, i);
		last = first;
		if (good == 1 && i > start)
			good = row_frame(b->fd, (off_t)row->offset, row->length, size, &last);
		if (good == 1)
			cut_add(c, (struct range){ first.start, last.start + last.length - first.start });
	}
	return good;
}

/*
 * Somebody has touched it: where the marked messages are, if all of them are where they were, by their content. 1; 0:
 * some are not; -1.
 */
static int
cuts_in_place(struct maildrop *m, const struct mbox *b, const uint8_t *marks, off_t size, struct cuts *c)
{
	struct content_hash *h = content_new();
	uint32_t count = inventory_count(m->inventory);
	int good = h == NULL ? -1 : 1;
	/* where twins are marked apart, all of them must be where they were: so look at every message */
	bool all = twins_apart(m, marks);

	for (uint32_t i = 0; i < count && good == 1; i++) {
		struct inventory_message im;
		struct range r;
		bool marked = (marks[i] & MARK_DELETED) != 0;
		if (!marked && !all)
			continue;
		const struct catalogue_row *row = inventory_row(m->inventory, i);
		good = row_frame(b->fd, (off_t)row->offset, row->length, size, &r);
		if (good == 1)
			good = inventory_get(m->inventory, i, &im) == -1 ? -1 : row_holds(b, &im, h, -1);
		if (good == 1 && marked)
			cut_add(c, r);
	}
	free(h);
	return good;
}

/*
 * One content: `thens` of it were scanned, and `nows` of it are there now. While none is missing they are the same
 * ones in the same order. If some are missing, those may be the marked ones, and what is there one that was not: only
 * what must be a marked one goes. Returns how many marked ones are not found.
 */
static uint32_t
group_match(const struct look *then, uint32_t thens, const struct look *now, uint32_t nows, const uint8_t *marks, uint8_t *go)
{
	uint32_t marked = 0, missing = thens > nows ? thens - nows : 0;

	for (uint32_t i = 0; i < thens; i++) {
		bool is_marked = (marks[then[i].index] & MARK_DELETED) != 0;
		marked += is_marked;
		if (missing == 0)
			go[now[i].index] = is_marked;
	}
	if (missing == 0)
		return 0;
	for (uint32_t i = 0; i < nows && missing + i < marked; i++)
		go[now[i].index] = 1;
	return marked < missing ? marked : missing;
}

/*
 * Both sorted by content. go[] is set for what must go; *lost: marked ones that are not found; *strange: messages that
 * were not there.
 */
static void
looks_match(const struct look *then, uint32_t thens, const struct looks *now, const uint8_t *marks, uint8_t *go, uint32_t *lost,
    uint32_t *strange)
{
	uint32_t i = 0, k = 0;

	*lost = *strange = 0;
	while (i < thens || k < now->count) {
		int n = i == thens ? 1 : k == now->count ? -1 :
		    memcmp(then[i].fingerprint, now->look[k].fingerprint, FINGERPRINT_SIZE);
		uint32_t ie = n <= 0 ? group_end(then, i, thens) : i, ke = n >= 0 ? group_end(now->look, k, now->count) : k;
		*lost += group_match(then + i, ie - i, now->look + k, ke - k, marks, go);
		if (ke - k > ie - i)
			*strange += ke - k - (ie - i);
		i = ie;
		k = ke;
	}
}

/*
 * Another program has moved or changed messages: finds the marked ones by content. 0, or -1 with errno. *left: marked
 * ones that may still be there in another form. A marked one that is not found has been deleted by somebody else,
 * unless there is a message that was not there before: it may be that one, changed.
 */
static int
cuts_by_content(struct maildrop *m, const struct mbox *b, const uint8_t *marks, off_t size, struct cuts *c, uint32_t *left)
{
	struct looks now;
	struct look *then = looks_of(m->inventory);
	uint32_t count = inventory_count(m->inventory), lost, strange;
	uint8_t *go = NULL;
	int result = -1;

	*c = (struct cuts){ .range = c->range };
	if (then == NULL || look_again(b, size, &now) == -1) {
		free(then);
		return -1;
	}
	off_t *start = calloc((size_t)now.count + 1, sizeof *start);
	go = calloc((size_t)now.count + 1, 1);
	if (start == NULL || go == NULL)
		goto out;
	for (uint32_t i = 0; i < now.count; i++)
		start[i] = now.look[i].start;
	start[now.count] = size;
	qsort(then, count, sizeof *then, look_compare);
	if (now.count > 0)
		qsort(now.look, now.count, sizeof *now.look, look_compare);
	looks_match(then, count, &now, marks, go, &lost, &strange);
	for (uint32_t i = 0; i < now.count; i++)
		if (go[i] != 0)
			cut_add(c, (struct range){ start[i], start[i + 1] - start[i] });
	*left = lost < strange ? lost : strange;
	result = 0;
out:
	free(then);
	free(now.look);
	free(start);
	free(go);
	return result;
}

/* The cuts are made: what the cache may know of the mailbox now. */
static void
mbox_forget(struct maildrop *m, struct mbox *b, const uint8_t *marks, const struct cuts *c)
{
	uint64_t known = m->seen[0].size, shift = 0;
	uint32_t count = inventory_count(m->inventory);
	struct inventory *now = NULL;
	uint8_t *gone = calloc((size_t)count + 1, 1);

	b->changed = false;
	for (uint32_t i = 0; gone != NULL && i < count; i++)
		gone[i] = (marks[i] & MARK_DELETED) != 0;
	if (gone == NULL || stamp_take(&m->seen[0], b->fd) == -1 || (now = inventory_without(m->inventory, gone)) == NULL)
		goto out;
	m->inventory = now;
	b->changed = true;
	size_t cut = 0;
	for (uint32_t i = 0; i < inventory_count(now); i++) {
		const struct catalogue_row *row = inventory_row(now, i);
		while (cut < c->count && (uint64_t)c->range[cut].start < row->offset)
			shift += (uint64_t)c->range[cut++].length;
		struct inventory_message im = { .octets = row->octets, .offset = row->offset - shift, .length = row->length };
		if (shift > 0 && inventory_change(now, i, &im) == -1)
			b->changed = false;
	}
	/*
	 * What was delivered during the session is not in the inventory: the cache knows the mailbox as far as it was
	 * scanned.
	 */
	uint64_t old = known;
	for (size_t i = 0; i < c->count; i++) {
		uint64_t start = (uint64_t)c->range[i].start, end = start + (uint64_t)c->range[i].length;
		known -= start < old ? (end < old ? end : old) - start : 0;
	}
	if (m->seen[0].size > known) {
		m->seen[0].size = known;
		m->seen[0].mtime = m->seen[0].ctime = 0;
	}
out:
	free(gone);
}

/* Copies the cuts to the archive. 0 with *before, and the archive is locked, or -1 with errno. */
static int
mbox_archive(struct mbox *b, const struct cuts *c, int journal, off_t *before)
{
	struct stat st;

	if (b->archive == -1 && (b->archive = archive_beside(b, true)) == -1)
		return -1;
	if (fstat(b->archive, &st) == -1 || archive_begin(b->archive, before) == -1)
		return -1;
	struct journal_note n = { .archive = st.st_ino, .before = *before };
	if (journal_note(journal, &n, c->range, c->count) == -1) {
		int saved = errno;
		archive_keep();
		errno = saved;
		return -1;
	}
	return archive_append(b->archive, b->fd, c->range, c->count, *before);
}

/* How much goes? */
static off_t
mbox_gone(const struct cuts *c)
{
	off_t gone = 0;

	for (size_t i = 0; i < c->count; i++)
		gone += c->range[i].length;
	return gone;
}

/* Under a journal if it needs one, as an archive does. Errno as journal_apply's. */
static enum journal_outcome
mbox_cut_journaled(struct mbox *b, const struct cuts *c, off_t size, bool archives, bool promises, int journal)
{
	off_t before = 0;

	if (archives && mbox_archive(b, c, journal, &before) == -1)	/* model: ARCHIVE */
		return JOURNAL_UNCHANGED;
	/* model: told, and with it the answer, after this and before TRUNCATE */
	enum journal_outcome outcome = promises && journal != -1 ?
	    journal_promise(b->fd, journal, c->range, c->count, size) : journal_apply(b->fd, journal, c->range, c->count, size);
	int saved = errno;
	if (archives && outcome == JOURNAL_UNCHANGED)
		archive_undo(b->archive, before);	/* model: UNARCHIVE */
	else if (archives)
		archive_keep();
	errno = saved;
	return outcome;
}

/* Takes the cuts out, or, if they are `all` that was marked, may promise to. 0, or -1. */
static int
mbox_cut(struct maildrop *m, struct mbox *b, const struct cuts *c, off_t size, bool all)
{
	bool archives = m->grant->server_copy == COPY_ARCHIVE, needed = archives || journal_needed(c->range, c->count, size);
	bool promises = all && mbox_gone(c) >= PROMISE_FROM;
	int journal = -1;

	/* a promise can be done without */
	if ((needed || promises) && (journal = ask_file(PRIVILEGED_JOURNAL_MAKE)) == -1 && needed)
		return maildrop_fail(m, "journal");
	if (journal != -1)
		locked_keep(b->fd);
	enum journal_outcome outcome = mbox_cut_journaled(b, c, size, archives, promises, journal);
	int saved = errno;
	bool of_before = outcome == JOURNAL_UNCHANGED && saved == EEXIST;	/* somebody's unfinished UPDATE */
	if (outcome == JOURNAL_UNCHANGED && !needed && journal != -1 && !of_before) {
		outcome = journal_apply(b->fd, -1, c->range, c->count, size);
		saved = errno;
	}
	bool in_force = outcome == JOURNAL_PENDING || outcome == JOURNAL_PROMISED;
	if (journal != -1 && !of_before && !in_force)
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
	/* while we have it open, dropping it takes its name alone, and holds up neither the parent nor the client */
	b->journal = journal;
	if (outcome == JOURNAL_PROMISED)
		b->promised = size - mbox_gone(c);
	errno = saved;
	if (outcome == JOURNAL_APPLIED || outcome == JOURNAL_PROMISED)
		return 0;
	return maildrop_fail(m, outcome == JOURNAL_PENDING ? "update, which is to be finished later" : "update");
}

/* Under the delivery locks, for writing. */
static int
mbox_update_locked(struct maildrop *m, struct mbox *b, const uint8_t *marks, uint32_t marked, struct tally *t)
{
	struct cuts c = { .range = calloc(marked, sizeof *c.range) };
	struct stamp now;
	struct stat st;
	uint32_t left = 0;
	int good = -1;

	if (c.range == NULL || stamp_take(&now, b->fd) == -1 || fstat(b->fd, &st) == -1)
		goto out;
	if (!b->replaced && stamp_compare(&m->seen[0], &now) == STAMP_SAME)
		good = cuts_trusted(m, b, marks, st.st_size, &c);
	else
		good = cuts_in_place(m, b, marks, st.st_size, &c);
	bool in_place = good == 1;
	if (good == 0)
		good = cuts_by_content(m, b, marks, st.st_size, &c, &left);
out:
	if (good == -1)
		maildrop_fail(m, "second look");
	else {
		good = c.count > 0 ? mbox_cut(m, b, &c, st.st_size, left == 0) : 0;
		if (good == 0) {
			t->left = left;
			t->deleted = marked - left;
			t->remain -= t->deleted;
			if (in_place)
				mbox_forget(m, b, marks, &c);
			else
				b->changed = false;	/* the next session scans */
			t->deferred = st.st_size >= LATER_FROM || b->promised != -1;
			t->cuts = b->promised != -1;
			t->length = t->cuts ? (uint64_t)b->promised : 0;
		}
	}
	free(c.range);
	return good == -1 ? -1 : 0;
}

static int
mbox_update(struct maildrop *m, const uint8_t *marks, struct tally *t)
{
	struct mbox *b = m->of_store;
	uint32_t marked = 0, count = inventory_count(m->inventory);

	for (uint32_t i = 0; i < count; i++)
		marked += (marks[i] & MARK_DELETED) != 0;
	if (marked == 0)
		return 0;
	t->left = marked;
	if (m->readonly)
		return maildrop_refuse(m, FAILURE_PERMISSION, "the mbox cannot be written");
	int gone = mbox_lock_current(m, b, true);
	if (gone == -1)
		return -1;
	if (gone == 1) {
		*t = (struct tally){ .deleted = marked };
		return 0;
	}
	int result = m->readonly ? maildrop_refuse(m, FAILURE_PERMISSION, "the mbox cannot be written") :
	    mbox_update_locked(m, b, marks, marked, t);
	if (b->promised == -1)
		delivery_lock_release(&b->delivery);
	if (result == 0 && t->left > 0)
		return maildrop_refuse(m, FAILURE_CHANGED, "another program changed some of the marked messages: they were left");
	return result;
}

/* model: TRUNCATE. What was promised, now that the client has its answer. */
static void
mbox_complete(struct maildrop *m)
{
	struct mbox *b = m->of_store;
	struct stamp now;

	if (b->promised == -1)
		return;
	if (journal_keep(b->fd, b->promised) == JOURNAL_APPLIED) {
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
		b->changed = b->changed && stamp_take(&now, b->fd) == 0;
		if (b->changed && now.size == m->seen[0].size)
			m->seen[0] = now;
	} else {
		maildrop_fail(m, "what was promised, which is to be finished later");
		b->changed = false;
	}
	delivery_lock_release(&b->delivery);
	b->promised = -1;
}

static void
mbox_remember(struct maildrop *m)
{
	struct mbox *b = m->of_store;

	if (b->changed && (maildrop_cache(m) == NULL || cache_store(m->cache, m->inventory, m->seen) == -1))
		log_text(LOG_INFO, "the cache could not be written: %s", strerror(errno));
	b->changed = false;
}

static void
mbox_release(struct maildrop *m)
{
	struct mbox *b = m->of_store;

	session_lock_release(&b->session);
}

static void
mbox_close(struct maildrop *m)
{
	struct mbox *b = m->of_store;
	int fds[] = { b->fd, b->directory, b->archive, b->journal };

	session_lock_release(&b->session);
	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
		if (fds[i] != -1)
			close(fds[i]);
	free(b);
	m->of_store = NULL;
	if (ask_has_locker())
		ask_beside(PRIVILEGED_RELEASED);
}

const struct mailstore store_mbox = {
	.kind = MAILDROP_MBOX, .name = "mbox",
	.open = mbox_open, .scan = mbox_scan_store, .fetch = mbox_fetch, .update = mbox_update, .complete = mbox_complete, .remember = mbox_remember,
	.older = mbox_older, .archived = mbox_archived, .archived_fetch = mbox_archived_fetch,
	.release = mbox_release, .close = mbox_close,
};
