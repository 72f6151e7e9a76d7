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
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "ask.h"
#include "flag.h"
#include "locked.h"
#include "locker.h"
#include "log.h"
#include "mbox.h"
#include "path.h"
#include "system.h"

#define REPLACED_WAIT_MS	5000	/* for one that is missing and locked */
#define REPLACED_PAUSE_MS	10
#define HEAD_MAX		(128 << 10)	/* of the first message, with its header */

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
	/*
	 * That we look at it is no reading: who polls has not seen what is new, and shells announce it as long as it was read before it was
	 * changed. What is sent is read through the other description. One who does not own the file cannot have that.
	 */
	(void)fcntl(b->fd, F_SETFL, O_NONBLOCK | O_NOATIME);
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

int
mbox_archive_beside(const struct mbox *b, bool makes)
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
	int fd = b->archive != -1 ? b->archive : mbox_archive_beside(b, false);
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
	if (state == JOURNAL_NOTHING || state == JOURNAL_DONE)
		flag_clear(b->fd);
	int error = ask_privileged(state == JOURNAL_NOTHING || state == JOURNAL_DONE ? PRIVILEGED_JOURNAL_DROP :
	    PRIVILEGED_JOURNAL_SET_ASIDE);
	if (error == 0)
		return 0;
	errno = error;
	return maildrop_fail(m, "journal");
}

int
mbox_gather(const struct scan_found *f, void *data)
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

void
mbox_doubt(struct maildrop *m, struct mbox *b)
{
	m->seen[0] = (struct stamp){ 0 };
	b->changed = b->doubted = true;
}

/* The first message is enough. */
static int
mbox_head_found(const struct scan_found *f, void *data)
{
	(void)f;
	(void)data;
	errno = ECANCELED;
	return -1;
}

/* Before a scan that begins at `from`: what the head of the file says of the ids of them all. 0, or -1. */
static int
mbox_head(struct maildrop *m, const struct mbox *b, off_t from)
{
	struct scan s = { .fd = b->fd, .end = from < HEAD_MAX ? from : HEAD_MAX, .uidl = m->uidl, .each = mbox_head_found };

	uidl_start(m->uidl);
	if (uidl_wants_head(m->uidl) && mbox_scan(&s) == -1 && errno != ECANCELED)
		return -1;
	uidl_go_on(m->uidl);
	return 0;
}

/* What follows the last message that is known: its end, and whether an empty line is behind it. */
static int
mbox_scan_tail(struct maildrop *m, struct mbox *b, struct inventory *old, off_t from, off_t size)
{
	struct gather g = { old };
	uint32_t count = inventory_count(old);
	char last;
	struct scan s = { .fd = b->fd, .start = from, .end = size, .uidl = m->uidl, .each = mbox_gather, .data = &g };

	/* A line that had no end is gone on with: it may be no From_ line, or one that begins a message only now. */
	if (pread(b->fd, &last, 1, from - 1) != 1 || last != '\n') {
		errno = EPROTO;
		return -1;
	}
	if (mbox_head(m, b, from) == -1)
		return -1;
	inventory_inherit(old);
	if (count > 0) {
		const struct catalogue_row *row = inventory_row(old, count - 1);
		s.after_blank = row->offset + row->length < (uint64_t)from;
	}
	if (mbox_scan(&s) == -1)
		return -1;
	errno = EPROTO;
	return uidl_is_sure(m->uidl) ? 0 : -1;
}

static int
mbox_scan_all(struct maildrop *m, struct mbox *b, struct inventory *old, off_t size)
{
	struct gather g = { inventory_new() };
	struct scan s = { .fd = b->fd, .end = size, .uidl = m->uidl, .each = mbox_gather, .data = &g };

	if (g.inventory == NULL)
		return maildrop_fail(m, "memory");
	m->inventory = g.inventory;
	b->changed = true;
	uidl_start(m->uidl);
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
		if (verdict == STAMP_SAME || (known > 0 && inventory_holds(old, b->fd) &&
		    mbox_scan_tail(m, b, old, known, size) == 0)) {
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

/* Has a spoold with another state-dir left an UPDATE of it unfinished? 0; -1. */
static int
mbox_flag(struct maildrop *m, const struct mbox *b)
{
	char host[HOST_NAME_MAX + 1], reason[HOST_NAME_MAX + 256];
	enum flagged is = flag_look(b->fd, host);

	if (is == FLAGGED_OURS && !m->readonly)
		flag_clear(b->fd);	/* without a journal here it is what a power cut left of one that was finished */
	if (is != FLAGGED_OTHERS)
		return 0;
	snprintf(reason, sizeof reason, "an UPDATE of it was cut off by a spoold with another state-dir, on %s: that is to finish it "
	    "(or, if its journals are lost: setfattr -x user.postern-update)", host);
	return maildrop_refuse(m, FAILURE_TEMPORARY, reason);
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
	/* Nobody has touched it, nor set a flag, which changes its ctime: what was true under the locks is true now. */
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
	if (result == 0)
		result = mbox_flag(m, b);
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

int
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
	ask_beside_over();
}

const struct mailstore store_mbox = {
	.kind = MAILDROP_MBOX, .name = "mbox",
	.open = mbox_open, .scan = mbox_scan_store, .fetch = mbox_fetch, .update = mbox_update, .complete = mbox_complete, .remember = mbox_remember,
	.older = mbox_older, .archived = mbox_archived, .archived_fetch = mbox_archived_fetch,
	.release = mbox_release, .close = mbox_close,
};
