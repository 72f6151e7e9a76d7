/*
 * The Maildir store. A message is known by its file's base name, which nobody changes; others may rename the file (new/ to cur/, flags) at any time.
 *
 * At UPDATE a message in new/ that was retrieved and not deleted moves to cur/ with ":2,": a mail reader has seen that it exists, and nobody has
 * said that a person read it. What was not retrieved stays in new/.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ask.h"
#include "intent.h"
#include "listing.h"
#include "lock.h"
#include "log.h"
#include "maildrop.h"
#include "system.h"
#include "wire.h"

#define NO_MESSAGE UINT32_MAX

struct maildir {
	int root;
	int part[PART_COUNT];		/* new/ and cur/; -1: missing */
	struct session_lock session;
	struct listing listing;		/* what is there, as of `listed` */
	struct stamp listed[PART_COUNT];
	bool changed;			/* the cache does not know it as it is */
};

/* Opens the Maildir and its parts. 0; 1: missing; -1. */
static int
maildir_directories(struct maildrop *m, struct maildir *d)
{
	static const char *const names[PART_COUNT] = { "new", "cur" };

	d->root = open(m->grant->maildir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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
maildir_session_lock(struct maildrop *m, struct maildir *d)
{
	struct stat st;
	enum lock_result r;

	if (fstat(d->root, &st) == -1)
		return maildrop_fail(m, "stat");
	r = maildir_lock_once(m, d, 0);
	if (r == LOCK_HELD)
		r = maildir_lock_once(m, d, ask_since(st.st_dev, st.st_ino, &m->since) ? TAKEOVER_WAIT_MS : GRACE_WAIT_MS);
	if (r == LOCK_FAILED)
		return maildrop_fail(m, "session lock");
	if (r == LOCK_HELD)
		return 1;
	ask_claim(st.st_dev, st.st_ino);
	return 0;
}

static int
maildir_open(struct maildrop *m)
{
	struct maildir *d = calloc(1, sizeof *d);
	int result;

	if (d == NULL)
		return maildrop_fail(m, "memory");
	m->of_store = d;
	*d = (struct maildir){ .root = -1, .part = { -1, -1 }, .session = SESSION_LOCK_NONE };
	if ((result = maildir_directories(m, d)) != 0) {
		m->missing = result == 1;
		return result == 1 ? 0 : -1;
	}
	if ((result = maildir_session_lock(m, d)) != 0)
		return result;
	if (maildrop_ready(m, d->root, d->root) == -1)
		return -1;
	m->paths[0] = (struct sandbox_path){ m->path, SANDBOX_READ | SANDBOX_WRITE };
	m->path_count = 1;
	return 0;
}

static int
stamps_take(const struct maildir *d, struct stamp stamps[static PART_COUNT])
{
	for (int i = 0; i < PART_COUNT; i++) {
		stamps[i] = (struct stamp){ 0 };
		if (d->part[i] != -1 && stamp_take(&stamps[i], d->part[i]) == -1)
			return -1;
	}
	return 0;
}

static bool
stamp_equal(const struct stamp *a, const struct stamp *b)
{
	return a->inode == b->inode && a->mtime == b->mtime && a->ctime == b->ctime && a->size == b->size;
}

/*
 * Lists what is there. new/ first: a message that moves meanwhile is then seen twice (and kept once), and not missed. A rename within cur/ while it
 * is read may hide a file, so then it is read again.
 */
static int
maildir_list(struct maildir *d)
{
	struct stamp after[PART_COUNT];

	for (int tries = 0; tries < 4; tries++) {
		listing_free(&d->listing);
		if (stamps_take(d, d->listed) == -1 || listing_read(&d->listing, d->root, PART_NEW) == -1 ||
		    listing_read(&d->listing, d->root, PART_CUR) == -1 || stamps_take(d, after) == -1)
			return -1;
		if (stamp_equal(&d->listed[PART_CUR], &after[PART_CUR]))
			break;
	}
	listing_sort(&d->listing);
	return 0;
}

/* Opens a message's file: never a FIFO, a device or what a link points to. -1 with errno. */
static int
open_file(const struct maildir *d, const char *name)
{
	return openat(d->root, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static char block[128 << 10];

/* Reads a file whole: its octets on the wire, and its content to u if that is not NULL. */
static int
measure_content(int fd, struct uidl *u, struct inventory_message *im)
{
	struct wire_count count = { 0 };
	ssize_t n;

	im->length = 0;
	while ((n = read(fd, block, sizeof block)) != 0) {
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		wire_count(&count, block, (size_t)n);
		if (u != NULL)
			uidl_add(u, block, (size_t)n);
		im->length += (uint64_t)n;
	}
	im->octets = wire_count_end(&count);
	return 0;
}

/* ",W=" is believed if ",S=" is right, and it is possible. */
static bool
name_tells(const char *base, size_t length, uint64_t size, uint64_t *octets)
{
	uint64_t s, w;

	if (!listing_number(base, length, 'S', &s) || s != size || !listing_number(base, length, 'W', &w) || w < size || w > 2 * size + 2)
		return false;
	*octets = w;
	return true;
}

/* Size and octets. 1; 0: it is no message (any more, or that we may read); -1 with errno. */
static int
measure(struct maildrop *m, const struct maildir *d, const char *name, size_t base, struct inventory_message *im)
{
	struct uidl *u = uidl_wants_content(m->uidl) ? m->uidl : NULL;
	struct stat st;
	int fd = -1, result = -1;

	if (fstatat(d->root, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT ? 0 : -1;
	if (!S_ISREG(st.st_mode))
		return 0;
	im->length = (uint64_t)st.st_size;
	if (u == NULL && name_tells(name + PART_PREFIX, base, im->length, &im->octets))
		return 1;
	fd = open_file(d, name);
	if (fd == -1) {
		if (errno != ENOENT)
			log_text(LOG_WARNING, "left out %s: %s", name, strerror(errno));
		return errno == ENOENT || errno == EACCES || errno == ELOOP || errno == ENXIO ? 0 : -1;
	}
	if (u != NULL)
		uidl_begin(u, "", 0);
	if (measure_content(fd, u, im) == 0)
		result = 1;
	int saved = errno;
	close(fd);
	errno = saved;
	return result;
}

/* Adds what is in a file. What is known already by its base name is not looked at. 1; 0: there is no message; -1. */
static int
add_entry(struct maildrop *m, struct maildir *d, const struct listing_entry *e, struct inventory *old, struct inventory *to)
{
	const char *name = listing_name(&d->listing, e);
	struct inventory_message im = { 0 };
	struct uidl_id id;
	uint32_t known = old != NULL ? inventory_find(old, name + PART_PREFIX, e->base) : NO_MESSAGE;

	if (known != NO_MESSAGE) {
		if (inventory_get(old, known, &im) == -1)
			return -1;
	} else {
		int found = measure(m, d, name, e->base, &im);
		if (found != 1)
			return found;
		uidl_name(m->uidl, name + PART_PREFIX, e->length - (size_t)PART_PREFIX, &id);
		im.uid = id.text;
		im.uid_length = id.length;
	}
	im.offset = 0;
	im.name = name;
	im.name_length = e->length;
	return inventory_add(to, &im) == -1 ? -1 : 1;
}

/* Everything anew, in order. */
static int
scan_all(struct maildrop *m, struct maildir *d, struct inventory *old)
{
	struct inventory *inv = inventory_new();
	int result = inv == NULL ? -1 : 0;

	for (uint32_t i = 0; result >= 0 && i < d->listing.count; i++)
		result = add_entry(m, d, &d->listing.entry[i], old, inv);
	if (result >= 0 && old != NULL)
		result = inventory_remember(inv, old);
	if (result < 0) {
		int saved = errno;
		inventory_free(inv);
		errno = saved;
		return -1;
	}
	m->inventory = inv;
	d->changed = true;
	return 0;
}

/* How many of these are in new/? */
static uint32_t
count_new(struct inventory *inv)
{
	struct inventory_message im;
	uint32_t count = 0;

	for (uint32_t i = 0; i < inventory_count(inv); i++)
		if (inventory_get(inv, i, &im) == 0 && im.name_length > 0 && im.name[0] == 'n')
			count++;
	return count;
}

/*
 * Leaves in the listing what is not known, in order. 1; 0: a message that is known has another name now, has gone, or is younger than one that is not known.
 */
static int
keep_unknown(struct maildir *d, struct inventory *old)
{
	struct listing *l = &d->listing;
	uint32_t found = 0, kept = 0, count = inventory_count(old);
	struct inventory_message last;

	/* Not sorted before: of 100,000 that are known the order is known as well. */
	for (uint32_t i = 0; i < l->count; i++) {
		const struct listing_entry *e = &l->entry[i];
		const char *name = listing_name(l, e);
		uint32_t known = inventory_find(old, name + PART_PREFIX, e->base);
		if (known == NO_MESSAGE)
			l->entry[kept++] = *e;
		else if (inventory_is_named(old, known, name, e->length))
			found++;
		else
			return 0;
	}
	l->count = kept;
	if (found != count_new(old))
		return 0;
	listing_sort(l);
	if (kept == 0 || count == 0)
		return 1;
	return inventory_get(old, count - 1, &last) == 0 && listing_after(l, &l->entry[0], last.name, last.name_length);
}

/*
 * cur/ has not changed. Where new/ has only got more, and all of that is younger than what is known, what is known stays as it is. 1 with
 * m->inventory; 0: not so; -1.
 */
static int
scan_appended(struct maildrop *m, struct maildir *d, struct inventory *old)
{
	stamps_take(d, d->listed);
	if (!stamp_equal(&d->listed[PART_CUR], &m->seen[PART_CUR]))
		return 0;
	listing_free(&d->listing);
	int result = listing_read(&d->listing, d->root, PART_NEW) == -1 ? -1 : keep_unknown(d, old);
	for (uint32_t i = 0; result == 1 && i < d->listing.count; i++)
		if (add_entry(m, d, &d->listing.entry[i], NULL, old) == -1)
			result = -1;
	/* it is not all that is there */
	int saved = errno;
	listing_free(&d->listing);
	errno = saved;
	if (result == 1) {
		m->inventory = old;
		d->changed = true;
	}
	return result;
}

/* Finds by its base name the file that was `name`. "" if it has gone. */
static const char *
find_again(struct maildir *d, const char *name, size_t length)
{
	struct stamp now[PART_COUNT];
	const struct listing_entry *e;

	if (stamps_take(d, now) == -1)
		return "";
	if (d->listing.count == 0 || !stamp_equal(&now[PART_NEW], &d->listed[PART_NEW]) ||
	    !stamp_equal(&now[PART_CUR], &d->listed[PART_CUR]))
		if (maildir_list(d) == -1)
			return "";
	e = listing_find(&d->listing, name + PART_PREFIX, listing_base(name + PART_PREFIX, length - PART_PREFIX));
	return e != NULL ? listing_name(&d->listing, e) : "";
}

/* Removes a message, wherever it is now. One that is not there is gone. 0, or -1 with errno. *part is where it was. */
static int
remove_message(struct maildir *d, const char *name, size_t length, enum maildir_part *part)
{
	for (int tries = 0; tries < 8; tries++) {
		*part = name[0] == 'n' ? PART_NEW : PART_CUR;
		if (unlinkat(d->root, name, 0) == 0)
			return 0;
		/* some filesystems need room to remove, and find it at the second try */
		if (errno != ENOENT && unlinkat(d->root, name, 0) == 0)
			return 0;
		if (errno != ENOENT)
			return -1;
		const char *now = find_again(d, name, length);
		if (now[0] == '\0')
			return 0;
		name = now;
		length = strlen(now);
	}
	errno = EAGAIN;
	return -1;
}

static int
sync_parts(const struct maildir *d, const bool dirty[static PART_COUNT])
{
	for (int i = 0; i < PART_COUNT; i++)
		if (dirty[i] && d->part[i] != -1 && fsync(d->part[i]) == -1)
			return -1;
	return 0;
}

/* Carries out what an UPDATE that was cut off had begun. */
static int
intent_carry_out(struct maildir *d, const struct intent *i)
{
	bool dirty[PART_COUNT] = { true, true };
	enum maildir_part part;

	for (const char *p = i->names; p < i->names + i->length; p += strlen(p) + 1)
		if (remove_message(d, p, strlen(p), &part) == -1)
			return -1;
	return sync_parts(d, dirty);
}

static int
maildir_recover(struct maildrop *m, struct maildir *d, int journal)
{
	struct intent i;
	enum intent_state state = intent_read(&i, journal, d->root);
	int result = state == INTENT_WHOLE ? intent_carry_out(d, &i) : state == INTENT_FAILED ? -1 : 0, saved = errno;

	log_begin(state == INTENT_FOREIGN || result == -1 ? LOG_ERR : LOG_NOTICE, "recover");
	log_string("user", m->grant->user);
	log_string("maildrop", m->path);
	log_string("result", result == -1 ? "failed" : state == INTENT_FOREIGN ? "foreign" : state == INTENT_WHOLE ? "finished" : "nothing");
	if (state == INTENT_WHOLE)
		log_number("messages", i.count);
	log_end();
	intent_free(&i);
	errno = saved;
	if (result == -1)
		return maildrop_fail(m, "recover");
	int error = ask_privileged(state == INTENT_FOREIGN ? PRIVILEGED_JOURNAL_SET_ASIDE : PRIVILEGED_JOURNAL_DROP);
	if (error == 0)
		return 0;
	errno = error;
	return maildrop_fail(m, "journal");
}

/* What has changed since the cache was written, and only that, is read. */
static int
maildir_scan_known(struct maildrop *m, struct maildir *d, struct inventory *old)
{
	bool same[PART_COUNT];
	int done = 0;

	for (int i = 0; i < PART_COUNT; i++)
		same[i] = stamp_compare(cache_stamp(m->cache, (unsigned)i), &m->seen[i]) == STAMP_SAME;
	if (same[PART_NEW] && same[PART_CUR]) {
		m->inventory = old;
		return 0;
	}
	if (same[PART_CUR])
		done = scan_appended(m, d, old);
	if (done == 1)
		return 0;
	if (done == -1 || maildir_list(d) == -1) {
		inventory_free(old);
		return -1;
	}
	memcpy(m->seen, d->listed, sizeof d->listed);
	int result = scan_all(m, d, old), saved = errno;
	inventory_free(old);
	errno = saved;
	return result;
}

static int
maildir_scan(struct maildrop *m)
{
	struct maildir *d = m->of_store;
	struct inventory *old;
	int journal = ask_file(PRIVILEGED_JOURNAL_FIND), result;

	if (journal == -1 && errno != ENOENT)
		return maildrop_fail(m, "journal");
	if (journal != -1) {
		result = maildir_recover(m, d, journal);
		close(journal);
		if (result == -1)
			return -1;
	}
	if (stamps_take(d, m->seen) == -1)
		return maildrop_fail(m, "stat");
	if ((old = cache_load(m->cache)) != NULL)
		result = maildir_scan_known(m, d, old);
	else if ((result = maildir_list(d)) == 0) {
		memcpy(m->seen, d->listed, sizeof d->listed);
		result = scan_all(m, d, NULL);
	}
	if (result == -1)
		return maildrop_fail(m, "scan");
	if (d->listing.skipped > 0)
		log_text(LOG_WARNING, "%s: %u entries of new/ and cur/ are not files and were left out", m->path, (unsigned)d->listing.skipped);
	/* most sessions never need it again */
	listing_free(&d->listing);
	return 0;
}

static int
maildir_fetch(struct maildrop *m, uint32_t index, struct place *p)
{
	struct maildir *d = m->of_store;
	struct inventory_message im;
	struct stat st;
	const char *name;

	if (inventory_get(m->inventory, index, &im) == -1)
		return maildrop_fail(m, "inventory");
	name = im.name;
	for (int tries = 0; tries < 8; tries++) {
		p->fd = open_file(d, name);
		if (p->fd != -1 || errno != ENOENT)
			break;
		name = find_again(d, im.name, im.name_length);
		errno = ENOENT;
		if (name[0] == '\0')
			break;
	}
	if (p->fd == -1 && errno != ENOENT)
		return maildrop_fail(m, "fetch");
	/* a file that is not as long as LIST has it is not the message that was listed */
	if (p->fd != -1 && fstat(p->fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == im.length) {
		p->offset = 0;
		p->length = im.length;
		return 0;
	}
	if (p->fd != -1)
		close(p->fd);
	m->failure = FAILURE_VANISHED;
	return -1;
}

/* One file needs no list: it goes, or it does not. *journal is -1 if there is none. */
static int
intent_begin(struct maildrop *m, const struct maildir *d, const uint8_t *marks, uint32_t marked, int *journal)
{
	struct intent list = { 0 };
	struct inventory_message im;
	int result = 0;

	*journal = -1;
	if (marked < 2)
		return 0;
	for (uint32_t i = 0; result == 0 && i < maildrop_count(m); i++)
		if ((marks[i] & MARK_DELETED) != 0)
			result = inventory_get(m->inventory, i, &im) == -1 ? -1 : intent_add(&list, im.name, im.name_length);
	if (result == 0 && (*journal = ask_file(PRIVILEGED_JOURNAL_MAKE)) == -1)
		result = -1;
	if (result == 0)
		result = intent_write(&list, *journal, d->root);
	int saved = errno;
	intent_free(&list);
	if (result == -1 && *journal != -1) {
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
		close(*journal);
	}
	errno = saved;
	return result;
}

/* Removes all that is marked. Returns the first errno, and goes on; t->left is what is still there. */
static int
remove_marked(struct maildrop *m, struct maildir *d, const uint8_t *marks, struct tally *t, bool dirty[static PART_COUNT])
{
	struct inventory_message im;
	enum maildir_part part;
	int first = 0;

	for (uint32_t i = 0; i < maildrop_count(m); i++) {
		if ((marks[i] & MARK_DELETED) == 0)
			continue;
		if (inventory_get(m->inventory, i, &im) == -1 || remove_message(d, im.name, im.name_length, &part) == -1) {
			if (first == 0)
				first = errno;
			/* if the first one cannot go, all of them stay */
			if (t->deleted == 0)
				break;
			continue;
		}
		dirty[part] = true;
		t->deleted++;
		t->left--;
	}
	return first;
}

/* "new/FILE" becomes "cur/FILE:2,". 0, or -1 if it stays. */
static int
move_to_cur(const struct maildir *d, const char *name, size_t length, char *to, size_t size)
{
	const char *file = name + PART_PREFIX;
	bool has_info = listing_base(file, length - PART_PREFIX) < length - PART_PREFIX;
	int n = snprintf(to, size, "cur/%.*s%s", (int)(length - PART_PREFIX), file, has_info ? "" : ":2,");

	if (n < 0 || (size_t)n >= size || (size_t)n > PART_PREFIX + NAME_MAX)
		return -1;
	if (renameat2(d->root, name, d->root, to, RENAME_NOREPLACE) == 0)
		return 0;
	struct stat st;
	if (errno != EINVAL || fstatat(d->root, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -1;
	return renameat(d->root, name, d->root, to);	/* a filesystem that does not know NOREPLACE */
}

/*
 * Moves what was retrieved, and gives the cache what the maildrop is now. Names only: nothing here can fail an UPDATE. The directories that were
 * changed have no stamp: others may have delivered since they were listed, so the next session lists them again.
 */
static void
settle(struct maildrop *m, struct maildir *d, const uint8_t *marks, bool forget, bool dirty[static PART_COUNT])
{
	uint32_t count = maildrop_count(m), next = 0;
	uint8_t *gone = calloc((size_t)count + 1, 1), *read_ones = calloc((size_t)count + 1, 1);
	struct inventory *now = NULL;
	char to[PART_PREFIX + NAME_MAX + 1];

	for (uint32_t i = 0; gone != NULL && read_ones != NULL && i < count; i++) {
		gone[i] = forget && (marks[i] & MARK_DELETED) != 0;
		read_ones[next] = (marks[i] & (MARK_DELETED | MARK_RETRIEVED)) == MARK_RETRIEVED;
		next += gone[i] == 0;
	}
	d->changed = false;
	if (gone != NULL && read_ones != NULL && (now = inventory_without(m->inventory, gone)) != NULL) {
		m->inventory = now;
		d->changed = true;
	}
	for (uint32_t i = 0; now != NULL && i < next; i++) {
		struct inventory_message im;
		if (read_ones[i] == 0 || inventory_get(now, i, &im) == -1 || im.name[0] != 'n' ||
		    move_to_cur(d, im.name, im.name_length, to, sizeof to) == -1)
			continue;
		im.name = to;
		im.name_length = strlen(to);
		dirty[PART_NEW] = dirty[PART_CUR] = true;
		if (inventory_change(now, i, &im) == -1)
			d->changed = false;
	}
	for (int i = 0; i < PART_COUNT; i++)
		if (dirty[i])
			m->seen[i] = (struct stamp){ 0 };
	free(gone);
	free(read_ones);
}

static int
maildir_update(struct maildrop *m, const uint8_t *marks, struct tally *t)
{
	struct maildir *d = m->of_store;
	bool dirty[PART_COUNT] = { false, false };
	int journal, error;

	for (uint32_t i = 0; i < maildrop_count(m); i++)
		t->left += (marks[i] & MARK_DELETED) != 0;
	if (intent_begin(m, d, marks, t->left, &journal) == -1)
		return maildrop_fail(m, "journal");
	error = remove_marked(m, d, marks, t, dirty);
	bool failed = error != 0;
	if (sync_parts(d, dirty) == -1 && error == 0)
		error = errno;
	if (journal != -1) {
		/* While some are gone and some are not it is kept: the next opening goes on with it. */
		if (error == 0 || t->deleted == 0)
			ask_privileged(PRIVILEGED_JOURNAL_DROP);
		close(journal);
	}
	t->remain -= t->deleted;
	if (error == 0)
		settle(m, d, marks, true, dirty);
	else
		d->changed = false;
	if (error == 0)
		return 0;
	if (!failed)
		t->left = t->deleted;	/* gone, but not known to be on disk */
	errno = error;
	return maildrop_fail(m, "update");
}

static void
maildir_remember(struct maildrop *m)
{
	struct maildir *d = m->of_store;

	if (d->changed && cache_store(m->cache, m->inventory, m->seen) == -1)
		log_text(LOG_INFO, "the cache could not be written: %s", strerror(errno));
	d->changed = false;
}

static void
maildir_release(struct maildrop *m)
{
	struct maildir *d = m->of_store;

	session_lock_release(&d->session);
}

const struct mailstore store_maildir = {
	.kind = MAILDROP_MAILDIR, .name = "maildir",
	.open = maildir_open, .scan = maildir_scan, .fetch = maildir_fetch, .update = maildir_update, .remember = maildir_remember,
	.release = maildir_release,
};
