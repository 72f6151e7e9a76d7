/*
 * The Maildir store. A message is known by its file's base name, which nobody changes; others may rename the file
 * (new/ to cur/, flags) at any time.
 *
 * At UPDATE a message in new/ that was retrieved and not deleted moves to cur/ with ":2,": a mail reader has seen that
 * it exists, and nobody has said that a person read it. What was not retrieved stays in new/.
 *
 * Deleting one message is one unlink. Several are listed in a journal, which is synced; then they move to tmp/, where
 * no reader looks, and the directories are synced: now they are gone. The files themselves are removed after the
 * client has been answered. If a move fails, those before it are undone; if the process is killed, whoever opens the
 * maildrop next carries the list out. With server-copy = archive they move to the folder .Archive instead, and stay.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "ask.h"
#include "intent.h"
#include "listing.h"
#include "lock.h"
#include "log.h"
#include "maildrop.h"
#include "path.h"
#include "system.h"
#include "wire.h"

#define NO_MESSAGE UINT32_MAX
#define HIDDEN "tmp/postern."	/* and the session's id, and a number */
#define TMP_STALE_S (36 * 3600)
#define ARCHIVE_TWINS 1000
#define DEFER_MS 1000		/* so long an UPDATE moves files before it answers */

struct maildir {
	int root;
	int part[PART_COUNT];		/* new/ and cur/; -1: missing */
	struct session_lock session;
	struct listing listing;		/* what is there, as of `listed` */
	struct stamp listed[PART_COUNT];
	bool changed;			/* the cache does not know it as it is */
	int archive;			/* the archive's cur/; -1: messages are removed */
	struct intent moved, moved_as;	/* what an UPDATE has moved to tmp/ or to the archive, and the names it has there */
	struct intent left;		/* in tmp/: what UPDATEs before this have moved there and not removed */
	char id[SESSION_ID_SIZE];	/* part of the names in tmp/ */
	uint32_t hidden;		/* the next one's number */
	struct intent deferred;		/* what it is still to move, all of it; the journal has it */
	int journal;			/* of `deferred` */
};

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
	*d = (struct maildir){ .root = -1, .part = { -1, -1 }, .session = SESSION_LOCK_NONE, .archive = -1 };
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
 * Lists what is there. new/ first: a message that moves meanwhile is then seen twice (and kept once), and not missed.
 * A rename within cur/ while it is read may hide a file, so then it is read again.
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

/* Delivery makes links for a moment, of the user's own files; one of another's file is not mail. */
static bool
is_foreign_link(const struct stat *st)
{
	return st->st_nlink > 1 && st->st_uid != geteuid();
}

static char block[128 << 10];

/* Reads a file whole: its octets on the wire, and its content to u if that is not NULL. It had `size` octets when it was opened. */
static int
measure_content(int fd, off_t size, struct uidl *u, struct inventory_message *im)
{
	struct wire_count count = { 0 };
	ssize_t n;

	im->length = 0;
	do {
		n = read(fd, block, sizeof block);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		wire_count(&count, block, (size_t)n);
		if (u != NULL)
			uidl_add(u, block, (size_t)n);
		im->length += (uint64_t)n;
		/* a read that is not full, up to where the file ends, need not be followed by one that says so */
	} while (n != 0 && (n == sizeof block || im->length != (uint64_t)size));
	im->octets = wire_count_end(&count);
	return 0;
}

/* ",W=" is believed if ",S=" is right, and it is possible. */
static bool
name_tells(const char *base, size_t length, uint64_t *size, uint64_t *octets)
{
	return listing_number(base, length, 'S', size) && listing_number(base, length, 'W', octets) && *octets >= *size &&
	    *octets <= 2 * *size + 2;
}

/* Opens a message's file to be measured. 1; 0: it has gone, or may not be read; -1 with errno. */
static int
open_measured(const struct maildir *d, const char *name, int *fd)
{
	*fd = open_file(d, name);
	if (*fd != -1)
		return 1;
	if (errno != ENOENT)
		log_text(LOG_WARNING, "left out %s: %s", name, strerror(errno));
	return errno == ENOENT || errno == EACCES || errno == ELOOP || errno == ENXIO ? 0 : -1;
}

/*
 * Size and octets of a file that is open, or (-1) to be opened if it is not as large as its name says: `size` and
 * `octets`. 1; 0: it is no message; -1 with errno.
 */
static int
measure_file(struct maildrop *m, const struct maildir *d, const char *name, int *fd, uint64_t size, uint64_t octets,
    struct inventory_message *im)
{
	struct uidl *u = uidl_wants_content(m->uidl) ? m->uidl : NULL;
	int part = d->part[name[0] == 'n' ? PART_NEW : PART_CUR], found;
	struct stat st;

	if ((*fd != -1 ? fstat(*fd, &st) : part != -1 ? fstatat(part, name + PART_PREFIX, &st, AT_SYMLINK_NOFOLLOW) :
	    fstatat(d->root, name, &st, AT_SYMLINK_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : -1;
	if (!S_ISREG(st.st_mode))
		return 0;
	if (is_foreign_link(&st)) {
		log_text(LOG_WARNING, "left out %s: a hard link to a file of another user", name);
		return 0;
	}
	im->length = (uint64_t)st.st_size;
	im->octets = octets;
	if (*fd == -1 && im->length == size)
		return 1;
	if (*fd == -1 && (found = open_measured(d, name, fd)) != 1)
		return found;
	if (u != NULL)
		uidl_begin(u, "", 0);
	return measure_content(*fd, st.st_size, u, im) == 0 ? 1 : -1;
}

/* Size and octets. 1; 0: it is no message (any more, or that we may read); -1 with errno. */
static int
measure(struct maildrop *m, const struct maildir *d, const char *name, size_t base, struct inventory_message *im)
{
	uint64_t size = 0, octets = 0;
	int fd = -1, result = 1;

	/* what must be read anyway is opened at once: asking by the name is half of what that costs */
	if (uidl_wants_content(m->uidl) || !name_tells(name + PART_PREFIX, base, &size, &octets))
		result = open_measured(d, name, &fd);
	if (result == 1)
		result = measure_file(m, d, name, &fd, size, octets, im);
	int saved = errno;
	if (fd != -1)
		close(fd);
	errno = saved;
	return result;
}

/* Adds what is in a file. What is known already by its base name is not looked at. 1; 0: there is no message; -1. */
static int
add_named(struct maildrop *m, struct maildir *d, const char *name, size_t length, struct inventory *old, struct inventory *to)
{
	size_t base = listing_base(name + PART_PREFIX, length - PART_PREFIX);
	struct inventory_message im = { 0 };
	struct uidl_id id;
	uint32_t known = old != NULL ? inventory_find(old, name + PART_PREFIX, base) : NO_MESSAGE;

	if (known != NO_MESSAGE) {
		if (inventory_get(old, known, &im) == -1)
			return -1;
	} else {
		int found = measure(m, d, name, base, &im);
		if (found != 1)
			return found;
		uidl_name(m->uidl, name + PART_PREFIX, length - (size_t)PART_PREFIX, &id);
		im.uid = id.text;
		im.uid_length = id.length;
	}
	im.offset = 0;
	im.name = name;
	im.name_length = length;
	return inventory_add(to, &im) == -1 ? -1 : 1;
}

static int
add_entry(struct maildrop *m, struct maildir *d, const struct listing_entry *e, struct inventory *old, struct inventory *to)
{
	return add_named(m, d, listing_name(&d->listing, e), e->length, old, to);
}

/* The arrival of a message in an inventory that is not in order yet. */
struct arrived {
	uint64_t second;
	uint32_t micro;
	uint32_t index;
};

/* By one octet of what is sorted by, from the last on: seconds behind microseconds. */
static unsigned
arrived_octet(const struct arrived *a, unsigned which)
{
	return (unsigned)(which < 4 ? a->micro >> 8 * which : a->second >> 8 * (which - 4)) & 0xff;
}

/*
 * By second and microsecond, an octet at a time, each time keeping the order of those before: a directory gives the
 * names in no order, of which comparing would take six times as long. The octets that are the same in all, as most of
 * a second's are, cost nothing. Returns which of the two it ends in.
 */
static struct arrived *
arrived_order(struct arrived *all, struct arrived *other, uint32_t count)
{
	uint64_t seconds = 0;
	uint32_t micros = 0;

	for (uint32_t i = 1; i < count; i++) {
		seconds |= all[i].second ^ all[0].second;
		micros |= all[i].micro ^ all[0].micro;
	}
	for (unsigned octet = 0; octet < 12; octet++) {
		uint32_t at[256] = { 0 }, sum = 0;
		if (((octet < 4 ? micros >> 8 * octet : seconds >> 8 * (octet - 4)) & 0xff) == 0)
			continue;
		for (uint32_t i = 0; i < count; i++)
			at[arrived_octet(&all[i], octet)]++;
		for (unsigned k = 0; k < 256; k++) {
			uint32_t these = at[k];
			at[k] = sum;
			sum += these;
		}
		for (uint32_t i = 0; i < count; i++)
			other[at[arrived_octet(&all[i], octet)]++] = all[i];
		struct arrived *swap = all;
		all = other;
		other = swap;
	}
	return all;
}

/* As listing_sort has it: a base name that is there twice is in new/ first. For those of one microsecond. */
static int
arrived_compare(const void *a, const void *b, void *data)
{
	const struct arrived *x = a, *y = b;
	struct inventory *inv = data;
	struct inventory_message im;
	char first[PART_PREFIX + NAME_MAX + 1];

	if (x->index == y->index || inventory_get(inv, x->index, &im) == -1)
		return 0;
	size_t length = im.name_length;
	memcpy(first, im.name, length);
	if (inventory_get(inv, y->index, &im) == -1)
		return 0;
	size_t m = listing_base(first + PART_PREFIX, length - PART_PREFIX), n = listing_base(im.name + PART_PREFIX, im.name_length - PART_PREFIX);
	int differ = memcmp(first + PART_PREFIX, im.name + PART_PREFIX, m < n ? m : n);
	if (differ != 0 || m != n)
		return differ != 0 ? differ : m < n ? -1 : 1;
	return (first[0] == 'c') - (im.name[0] == 'c');
}

/* All that arrived in one microsecond are put in order by name. */
static void
arrived_settle(struct arrived *all, uint32_t count, struct inventory *inv)
{
	for (uint32_t i = 0, end; i < count; i = end) {
		for (end = i + 1; end < count && all[end].second == all[i].second && all[end].micro == all[i].micro; end++)
			continue;
		if (end - i > 1)
			qsort_r(all + i, end - i, sizeof *all, arrived_compare, inv);
	}
}

/* The same base name, in both directories? */
static bool
is_twice(struct inventory *inv, const struct arrived *x, const struct arrived *y)
{
	struct inventory_message im;
	char first[PART_PREFIX + NAME_MAX + 1];

	if (x->second != y->second || x->micro != y->micro || inventory_get(inv, x->index, &im) == -1)
		return false;
	size_t base = listing_base(im.name + PART_PREFIX, im.name_length - PART_PREFIX);
	memcpy(first, im.name, im.name_length);
	return inventory_get(inv, y->index, &im) == 0 && base == listing_base(im.name + PART_PREFIX, im.name_length - PART_PREFIX) &&
	    memcmp(first + PART_PREFIX, im.name + PART_PREFIX, base) == 0;
}

/* By arrival; of a base name that is there twice, what is in cur/. 0, or -1 with ENOMEM. */
static int
sort_arrived(struct inventory *inv)
{
	uint32_t count = inventory_count(inv), kept = 0, gone = count;
	struct arrived *both = calloc(2 * (size_t)count + 1, sizeof *both), *all = both;
	struct inventory_message im;

	if (both == NULL)
		return -1;
	for (uint32_t i = 0; i < count; i++) {
		all[i].index = i;
		if (inventory_get(inv, i, &im) == 0)
			listing_arrival(im.name + PART_PREFIX, listing_base(im.name + PART_PREFIX, im.name_length - PART_PREFIX),
			    &all[i].second, &all[i].micro);
	}
	all = arrived_order(all, both + count, count);
	arrived_settle(all, count, inv);
	uint32_t *order = calloc((size_t)count + 1, sizeof *order);
	for (uint32_t i = 0; order != NULL && i < count; i++)
		if (i + 1 < count && is_twice(inv, &all[i], &all[i + 1]))
			order[--gone] = all[i].index;
		else
			order[kept++] = all[i].index;
	free(both);
	if (order == NULL)
		return -1;
	inventory_reorder(inv, order, kept);
	free(order);
	return 0;
}

/* What the first scan of all gathers: as it lies there, since a list of the names beside would be as large as the catalogue. */
struct first {
	struct maildrop *m;
	struct maildir *d;
	struct inventory *before, *to;
};

static int
first_add(void *data, const char *name, size_t length)
{
	struct first *f = data;

	return add_named(f->m, f->d, name, length, f->before, f->to);
}

/* Everything, of which nothing is known. As maildir_list: what was there twice is kept once, and cur/ is read again if it changed meanwhile. */
static int
scan_first(struct maildrop *m, struct maildir *d)
{
	struct first f = { .m = m, .d = d };
	struct stamp after[PART_COUNT];
	int result = -1;

	for (int tries = 0; tries < 4; tries++) {
		/* what was measured in vain need not be measured again */
		inventory_free(f.before);
		f.before = f.to;
		d->listing.skipped = 0;
		result = -1;
		if ((f.to = inventory_new()) == NULL || stamps_take(d, d->listed) == -1 ||
		    listing_each(d->root, PART_NEW, &d->listing.skipped, first_add, &f) == -1 ||
		    listing_each(d->root, PART_CUR, &d->listing.skipped, first_add, &f) == -1 || stamps_take(d, after) == -1)
			break;
		result = 0;
		if (stamp_equal(&d->listed[PART_CUR], &after[PART_CUR]))
			break;
	}
	if (result == 0)
		result = sort_arrived(f.to);
	int saved = errno;
	inventory_free(f.before);
	if (result == -1)
		inventory_free(f.to);
	errno = saved;
	if (result == -1)
		return -1;
	memcpy(m->seen, d->listed, sizeof d->listed);
	m->inventory = f.to;
	d->changed = true;
	return 0;
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

/*
 * Is this file known under just this name? What is known is in order, so a few are found by halves, and only many are
 * worth an index of all.
 */
static bool
is_known_so(struct maildir *d, struct inventory *old, const struct listing_entry *e)
{
	const char *name = listing_name(&d->listing, e);
	uint32_t low = 0, high = inventory_count(old);
	struct inventory_message im;

	if (d->listing.count > high / 64) {
		low = inventory_find(old, name + PART_PREFIX, e->base);
		return low != NO_MESSAGE && inventory_is_named(old, low, name, e->length);
	}
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (inventory_get(old, middle, &im) == -1)
			return false;
		if (listing_after(&d->listing, e, im.name, im.name_length))
			low = middle + 1;
		else
			high = middle;
	}
	return low < inventory_count(old) && inventory_is_named(old, low, name, e->length);
}

/*
 * Leaves in the listing what is not known, in order. 1; 0: a message that is known has another name now, has gone, or
 * is younger than one that is not known.
 */
static int
keep_unknown(struct maildir *d, struct inventory *old)
{
	struct listing *l = &d->listing;
	uint32_t found = 0, kept = 0, count = inventory_count(old);
	struct inventory_message im;
	char last[PART_PREFIX + NAME_MAX + 1] = "";

	if (count > 0 && inventory_get(old, count - 1, &im) == 0)
		snprintf(last, sizeof last, "%.*s", (int)im.name_length, im.name);
	for (uint32_t i = 0; i < l->count; i++) {
		const struct listing_entry *e = &l->entry[i];
		/* what comes after the last that is known need not be looked for */
		if (last[0] == '\0' || listing_after(l, e, last, strlen(last))) {
			l->entry[kept++] = *e;
			continue;
		}
		if (!is_known_so(d, old, e))
			return 0;
		found++;
	}
	l->count = kept;
	if (found != inventory_count_in(old, 'n'))
		return 0;
	listing_sort(l);
	return 1;
}

/*
 * cur/ has not changed. Where new/ has only got more, and all of that is younger than what is known, what is known
 * stays as it is. 1 with m->inventory; 0: not so; -1.
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

/* Finds by its base name the file that was `tried` and is not any more. "" if it has gone. Good until the next call. */
static const char *
find_again(struct maildir *d, const char *tried)
{
	char name[PART_PREFIX + NAME_MAX + 1];
	size_t length = strlen(tried), base = listing_base(tried + PART_PREFIX, length - PART_PREFIX);

	string_copy(name, sizeof name, tried);	/* it may be in the listing that is freed here */
	const struct listing_entry *e = listing_find(&d->listing, name + PART_PREFIX, base);
	struct stamp now[PART_COUNT];

	/* what is known from the last time, unless it is just the name that was tried */
	if (e != NULL && strcmp(listing_name(&d->listing, e), name) != 0)
		return listing_name(&d->listing, e);
	if (stamps_take(d, now) == -1)
		return "";
	if (d->listing.count == 0 || !stamp_equal(&now[PART_NEW], &d->listed[PART_NEW]) ||
	    !stamp_equal(&now[PART_CUR], &d->listed[PART_CUR]))
		if (maildir_list(d) == -1)
			return "";
	e = listing_find(&d->listing, name + PART_PREFIX, base);
	return e != NULL ? listing_name(&d->listing, e) : "";
}

/* Something that is done to a message's file. 0; 1: it is not there; -1 with errno. */
struct act {
	int (*on)(struct maildir *d, const char *name);
	bool dirty[PART_COUNT];		/* what it has changed */
	int64_t deadline;		/* clock_ms(); ETIME after it; 0: none */
};

static int
act_once(struct maildir *d, struct act *a, const char *name, struct intent *missing)
{
	int result = a->on(d, name);

	if (result == 0)
		a->dirty[name[0] == 'n' ? PART_NEW : PART_CUR] = true;
	if (result == 1)
		result = intent_add(missing, name, strlen(name));
	return result;
}

/*
 * Acts on every message of the list, wherever it is now. Those that are not where they were are looked for together,
 * so that a reader that renames all of them costs a listing and not one each; who is not in a listing that was made
 * after he was missed is gone. 0, or -1 with errno.
 */
static int
act_on_all(struct maildir *d, struct act *a, const struct intent *list)
{
	struct intent missing = { 0 }, next;
	int result = 0;

	uint32_t done = 0;
	for (const char *p = list->names; result == 0 && p < list->names + list->length; p += strlen(p) + 1) {
		result = act_once(d, a, p, &missing);
		if (result == 0 && a->deadline != 0 && ++done % 64 == 0 && clock_ms() > a->deadline) {
			errno = ETIME;
			result = -1;
		}
	}
	for (int tries = 0; result == 0 && missing.count > 0; tries++) {
		next = missing;
		missing = (struct intent){ 0 };
		result = maildir_list(d);
		for (const char *p = next.names; result == 0 && p < next.names + next.length; p += strlen(p) + 1) {
			const struct listing_entry *e = listing_find(&d->listing, p + PART_PREFIX, listing_base(p + PART_PREFIX, strlen(p) - PART_PREFIX));
			if (e != NULL)
				result = act_once(d, a, listing_name(&d->listing, e), &missing);
		}
		int saved = errno;
		intent_free(&next);
		errno = saved;
		if (result == 0 && tries == 8) {
			errno = EAGAIN;
			result = -1;
		}
	}
	int saved = errno;
	intent_free(&missing);
	errno = saved;
	return result;
}

static int
act_remove(struct maildir *d, const char *name)
{
	/* some filesystems need room to remove, and find it at the second try */
	if (unlinkat(d->root, name, 0) == 0 || (errno != ENOENT && unlinkat(d->root, name, 0) == 0))
		return 0;
	return errno == ENOENT ? 1 : -1;
}

static int
sync_parts(const struct maildir *d, const struct act *a)
{
	if (d->archive != -1 && fsync(d->archive) == -1)
		return -1;
	for (int i = 0; i < PART_COUNT; i++)
		if (a->dirty[i] && d->part[i] != -1 && fsync(d->part[i]) == -1)
			return -1;
	return 0;
}

/* Never over another file. 0, or -1 with errno. */
static int
rename_free(int root, const char *from, const char *to)
{
	struct stat st;

	if (renameat2(root, from, root, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL)
		return -1;
	/* a filesystem that does not know NOREPLACE */
	if (fstatat(root, to, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		errno = EEXIST;
		return -1;
	}
	return renameat(root, from, root, to);
}

/* Moves a message, which is accounted for before: there may be no memory for that afterwards. 0, or -1 with errno. */
static int
move_counted(struct maildir *d, const char *name, const char *to)
{
	size_t length = d->moved.length, length_as = d->moved_as.length;
	uint32_t count = d->moved.count;

	if (intent_add(&d->moved, name, strlen(name)) == 0 && intent_add(&d->moved_as, to, strlen(to)) == 0 &&
	    rename_free(d->root, name, to) == 0)
		return 0;
	d->moved.length = length;
	d->moved_as.length = length_as;
	d->moved.count = d->moved_as.count = count;
	return -1;
}

/*
 * Moves a message to tmp/, under a name of our own: by its own it may still be there, if who delivers it has linked it
 * to new/ just now.
 */
static int
act_hide(struct maildir *d, const char *name)
{
	char to[sizeof HIDDEN + SESSION_ID_SIZE + 16];

	snprintf(to, sizeof to, HIDDEN "%s.%u", d->id, (unsigned)d->hidden++);
	if (move_counted(d, name, to) == 0)
		return 0;
	return errno == ENOENT ? 1 : -1;
}

/* Moves a message to the archive. A name that is taken there is another message's. */
static int
act_archive(struct maildir *d, const char *name)
{
	char to[sizeof ARCHIVE_CUR + NAME_MAX];
	int result = -1;

	errno = EEXIST;
	for (unsigned again = 0; result == -1 && errno == EEXIST && again < ARCHIVE_TWINS; again++)
		if (archive_name(to, name, again) == -1 || (result = move_counted(d, name, to)) == -1)
			continue;
	if (result == 0)
		return 0;
	return errno == ENOENT ? 1 : -1;
}

/* How messages go: to the archive; else to tmp/, or, if there is none, at once. */
static int
(*way_out(const struct maildir *d))(struct maildir *, const char *)
{
	if (d->archive != -1)
		return act_archive;
	return faccessat(d->root, "tmp", F_OK, AT_SYMLINK_NOFOLLOW) == 0 ? act_hide : act_remove;
}

/* Carries out what an UPDATE that was cut off had begun. */
static int
intent_carry_out(struct maildir *d, const struct intent *i)
{
	struct act a = { .dirty = { true, true } };

	if (i->kind == INTENT_ARCHIVES && (d->archive = archive_folder(d->root)) == -1)
		return -1;
	a.on = way_out(d);
	if (act_on_all(d, &a, i) == -1 || sync_parts(d, &a) == -1)
		return -1;
	const struct intent *to = &d->moved_as;
	for (const char *p = to->names; d->archive == -1 && p < to->names + to->length; p += strlen(p) + 1)
		if (intent_add(&d->left, p, strlen(p)) == -1)
			return -1;
	return 0;
}

/* From here on it is this session's own UPDATE that is kept account of. */
static void
intent_carried_out(struct maildir *d)
{
	if (d->archive != -1)
		close(d->archive);
	d->archive = -1;
	intent_free(&d->moved);
	intent_free(&d->moved_as);
}

static int
maildir_recover(struct maildrop *m, struct maildir *d, int journal)
{
	struct intent i;
	enum intent_state state = intent_read(&i, journal, d->root);
	int result = state == INTENT_WHOLE ? intent_carry_out(d, &i) : state == INTENT_FAILED ? -1 : 0, saved = errno;

	intent_carried_out(d);
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

/*
 * What a worker that was killed between the move and the removal has left in tmp/: it has been decided, or is by the
 * journal. Removed once the client has been told what is there. What cannot be listed now is another time.
 */
static int
find_left(struct maildir *d)
{
	char name[sizeof "tmp/" + NAME_MAX];
	const struct dirent *e;
	int result = 0, fd = openat(d->root, "tmp", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *tmp = fd != -1 ? fdopendir(fd) : NULL;

	while (result == 0 && tmp != NULL && (e = readdir(tmp)) != NULL) {
		snprintf(name, sizeof name, "tmp/%s", e->d_name);
		if (strncmp(name, HIDDEN, sizeof HIDDEN - 1) == 0)
			result = intent_add(&d->left, name, strlen(name));
	}
	if (tmp != NULL)
		closedir(tmp);
	else if (fd != -1)
		close(fd);
	return result;
}

static int
maildir_scan(struct maildrop *m)
{
	struct maildir *d = m->of_store;
	struct inventory *old;
	int journal = maildrop_journal(m), result;

	if (journal == -1 && errno != ENOENT)
		return maildrop_fail(m, "journal");
	session_id(d->id);
	if (find_left(d) == -1)
		return maildrop_fail(m, "tmp");
	if (journal != -1) {
		result = maildir_recover(m, d, journal);
		close(journal);
		if (result == -1)
			return -1;
	}
	if (stamps_take(d, m->seen) == -1)
		return maildrop_fail(m, "stat");
	if (maildrop_unchanged(m))
		return 0;
	if (maildrop_cache(m) == NULL)
		return maildrop_fail(m, "cache");
	if ((old = cache_load(m->cache)) != NULL)
		result = maildir_scan_known(m, d, old);
	else
		result = scan_first(m, d);
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
	char scanned[PART_PREFIX + NAME_MAX + 1];
	const char *name = scanned;

	if (inventory_get(m->inventory, index, &im) == -1)
		return maildrop_fail(m, "inventory");
	snprintf(scanned, sizeof scanned, "%.*s", (int)im.name_length, im.name);
	for (int tries = 0; tries < 8; tries++) {
		p->fd = open_file(d, name);
		if (p->fd != -1 || errno != ENOENT)
			break;
		name = find_again(d, name);
		errno = ENOENT;
		if (name[0] == '\0')
			break;
	}
	if (p->fd == -1 && errno != ENOENT)
		return maildrop_fail(m, "fetch");
	/* a file that is not as long as LIST has it is not the message that was listed */
	if (p->fd != -1 && fstat(p->fd, &st) == 0 && S_ISREG(st.st_mode) && !is_foreign_link(&st) && (uint64_t)st.st_size == im.length) {
		p->offset = 0;
		p->length = im.length;
		return 0;
	}
	if (p->fd != -1)
		close(p->fd);
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
		const char *now = errno == ENOENT ? find_again(d, name) : "";
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
		if (add_entry(m, a, e, NULL, to) == -1)
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
	struct stat st;

	snprintf(name, sizeof name, "%.*s", (int)im->name_length, im->name);
	*p = (struct place){ .fd = a.root != -1 ? open_file(&a, name) : -1, .length = im->length };
	if (a.root != -1)
		close(a.root);
	if (p->fd != -1 && fstat(p->fd, &st) == 0 && S_ISREG(st.st_mode) && !is_foreign_link(&st) && (uint64_t)st.st_size == im->length)
		return 0;
	if (p->fd != -1)
		close(p->fd);
	m->failure = FAILURE_VANISHED;
	return -1;
}

/* Everything that is marked, by the names it had when it was scanned. 0, or -1 with errno. */
static int
marked_names(struct maildrop *m, const uint8_t *marks, struct intent *list)
{
	struct inventory_message im;

	for (uint32_t i = 0; i < maildrop_count(m); i++)
		if ((marks[i] & MARK_DELETED) != 0 &&
		    (inventory_get(m->inventory, i, &im) == -1 || intent_add(list, im.name, im.name_length) == -1))
			return -1;
	return 0;
}

/* Puts back what was moved. False: not all could be. */
static bool
unhide(struct maildir *d)
{
	const char *as = d->moved_as.names;
	bool all = true;

	for (const char *p = d->moved.names; d->moved.count > 0 && p < d->moved.names + d->moved.length;
	    p += strlen(p) + 1, as += strlen(as) + 1)
		if (rename_free(d->root, as, p) == -1)
			all = false;
	intent_free(&d->moved);
	intent_free(&d->moved_as);
	return all;
}

/* All of the list goes, or none. 0, or -1 with errno; *decided: there is no way back, by time or because not all could be put back. */
static int
hide_all(struct maildir *d, struct act *a, const struct intent *list, bool *decided)
{
	a->on = way_out(d);
	int result = act_on_all(d, a, list);
	if (result == 0)
		result = sync_parts(d, a);
	*decided = result == -1 && errno == ETIME;
	if (result == -1 && !*decided) {
		int saved = errno;
		*decided = !unhide(d) || (a->on == act_remove && (a->dirty[PART_NEW] || a->dirty[PART_CUR]));
		errno = saved;
	}
	return result;
}

/* Several messages, under a journal. 0, or -1 with errno, and then t->left of them are still there. */
static int
remove_several(struct maildrop *m, struct maildir *d, const uint8_t *marks, struct tally *t, struct act *a)
{
	struct intent list = { .kind = d->archive != -1 ? INTENT_ARCHIVES : INTENT_REMOVES };
	bool decided = false;
	int journal = -1, result = marked_names(m, marks, &list);

	if (result == 0 && (journal = ask_file(PRIVILEGED_JOURNAL_MAKE)) == -1)
		result = -1;
	/* here it is decided */
	if (result == 0)
		result = intent_write(&list, journal, d->root);
	a->deadline = clock_ms() + DEFER_MS;
	if (result == 0 && (result = hide_all(d, a, &list, &decided)) == -1 && decided) {
		/* It is durable already, and the client has waited long enough; or a half of it would be left. */
		d->deferred = list;
		d->journal = journal;
		a->dirty[PART_NEW] = a->dirty[PART_CUR] = true;
		t->deferred = true;
		t->deleted = t->left;
		t->left = 0;
		return 0;
	}
	int saved = errno;
	intent_free(&list);
	if (journal != -1) {
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
		close(journal);
	}
	t->deleted = result == 0 ? t->left : 0;
	t->left -= t->deleted;
	errno = saved;
	return result;
}

/* The rest of that. If it cannot be done now, the journal stays and the next opening does it. */
static void
maildir_complete(struct maildrop *m)
{
	struct maildir *d = m->of_store;
	struct act a = { .on = way_out(d) };
	int result;

	/* those that were moved before the time was over are not where they were, and so count as gone */
	result = act_on_all(d, &a, &d->deferred);
	a.dirty[PART_NEW] = a.dirty[PART_CUR] = true;
	if (result == 0)
		result = sync_parts(d, &a);
	if (result == 0)
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
	else
		log_text(LOG_ERR, "the UPDATE is decided and not carried out yet: %s", strerror(errno));
	close(d->journal);
	intent_free(&d->deferred);
}

/* One message: it goes, or it does not. */
static int
remove_one(struct maildrop *m, struct maildir *d, const uint8_t *marks, struct tally *t, struct act *a)
{
	struct intent list = { 0 };
	int result = marked_names(m, marks, &list);

	a->on = d->archive != -1 ? act_archive : act_remove;
	if (result == 0)
		result = act_on_all(d, a, &list);
	/* gone, but not known to be on disk, is not said to be gone */
	if (result == 0)
		result = sync_parts(d, a);
	int saved = errno;
	intent_free(&list);
	if (result == -1)
		unhide(d);
	errno = saved;
	t->deleted = result == 0;
	t->left = result != 0;
	return result;
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
	return rename_free(d->root, name, to);
}

/*
 * Moves what was retrieved, and gives the cache what the maildrop is now. Names only: nothing here can fail an UPDATE.
 * The directories that were changed have no stamp: others may have delivered since they were listed, so the next
 * session lists them again.
 */
static void
settle(struct maildrop *m, struct maildir *d, const uint8_t *marks, struct act *a)
{
	uint32_t count = maildrop_count(m), next = 0;
	uint8_t *gone = calloc((size_t)count + 1, 1), *read_ones = calloc((size_t)count + 1, 1);
	struct inventory *now = NULL;
	char to[PART_PREFIX + NAME_MAX + 1];

	for (uint32_t i = 0; gone != NULL && read_ones != NULL && i < count; i++) {
		gone[i] = (marks[i] & MARK_DELETED) != 0;
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
		a->dirty[PART_NEW] = a->dirty[PART_CUR] = true;
		if (inventory_change(now, i, &im) == -1)
			d->changed = false;
	}
	for (int i = 0; i < PART_COUNT; i++)
		if (a->dirty[i])
			m->seen[i] = (struct stamp){ 0 };
	free(gone);
	free(read_ones);
}

/*
 * The name in cur/ that says that a person has read it: 'S' among the flags, which are in order. 1; 0: it says so
 * already, or cannot.
 */
static int
name_read(char to[static PART_PREFIX + NAME_MAX + 1], const char *name)
{
	const char *file = name + PART_PREFIX, *info = strchr(file, ':');
	size_t room = PART_PREFIX + NAME_MAX + 1;

	if (info != NULL && strncmp(info, ":2,", 3) != 0)
		return 0;
	const char *flags = info != NULL ? info + 3 : "";
	if (strchr(flags, 'S') != NULL)
		return 0;
	size_t before = strspn(flags, "ABCDEFGHIJKLMNOPQR"), base = info != NULL ? (size_t)(info - file) : strlen(file);
	int n = snprintf(to, room, "cur/%.*s:2,%.*sS%s", (int)base, file, (int)before, flags, flags + before);
	return n > 0 && (size_t)n < room;
}

static int
act_read(struct maildir *d, const char *name)
{
	char to[PART_PREFIX + NAME_MAX + 1];

	if (name_read(to, name) == 0 || rename_free(d->root, name, to) == 0)
		return 0;
	return errno == ENOENT ? 1 : -1;
}

/* Nobody asked for it in this session: what cannot be marked is logged, and next time is another. */
static void
mark_read(struct maildrop *m, struct maildir *d, const uint8_t *marks)
{
	struct act a = { .on = act_read };
	struct intent list = { 0 };
	struct inventory_message im;
	int result = 0;

	for (uint32_t i = 0; result == 0 && i < maildrop_count(m); i++)
		if ((marks[i] & (MARK_RETRIEVED | MARK_DELETED)) == MARK_RETRIEVED)
			result = inventory_get(m->inventory, i, &im) == 0 ? intent_add(&list, im.name, im.name_length) : -1;
	if (result == 0)
		result = act_on_all(d, &a, &list);
	if (a.dirty[PART_NEW] || a.dirty[PART_CUR])
		a.dirty[PART_CUR] = true;
	if (result == 0)
		result = sync_parts(d, &a);
	if (result == -1)
		log_text(LOG_WARNING, "%s: not all that was retrieved could be marked as read: %s", m->path, strerror(errno));
	intent_free(&list);
}

static int
maildir_update(struct maildrop *m, const uint8_t *marks, struct tally *t)
{
	struct maildir *d = m->of_store;
	struct act a = { .on = act_remove };
	int result = 0;

	if (m->grant->server_copy == COPY_MARK_READ)
		mark_read(m, d, marks);
	for (uint32_t i = 0; i < maildrop_count(m); i++)
		t->left += (marks[i] & MARK_DELETED) != 0;
	if (t->left == 0 && m->grant->server_copy == COPY_MARK_READ)
		return 0;	/* what has expired goes all the same */
	if (t->left > 0 && m->grant->server_copy == COPY_ARCHIVE && (d->archive = archive_folder(d->root)) == -1)
		return maildrop_fail(m, "archive");
	if (t->left == 1)
		result = remove_one(m, d, marks, t, &a);
	else if (t->left > 1)
		result = remove_several(m, d, marks, t, &a);
	t->remain -= t->deleted;
	if (result == 0) {
		settle(m, d, marks, &a);
		return 0;
	}
	d->changed = false;
	return maildrop_fail(m, "update");
}

/* Removes the files of a list. */
static void
sweep_list(const struct maildir *d, struct intent *list)
{
	for (const char *p = list->names; list->count > 0 && p < list->names + list->length; p += strlen(p) + 1)
		unlinkat(d->root, p, 0);
	intent_free(list);
}

static bool
maildir_untidy(const struct maildrop *m)
{
	const struct maildir *d = m->of_store;

	return d->archive == -1 && d->moved_as.count > 0;
}

/*
 * After the answer: removes the files that were moved to tmp/, and what anybody else has left there for 36 hours, as
 * every reader of a Maildir may.
 */
static void
maildir_sweep(struct maildrop *m)
{
	struct maildir *d = m->of_store;
	int fd;

	sweep_list(d, &d->moved_as);
	fd = openat(d->root, "tmp", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd == -1)
		return;
	listing_clean(fd, TMP_STALE_S);
}

static void
maildir_remember(struct maildrop *m)
{
	struct maildir *d = m->of_store;

	sweep_list(d, &d->left);
	if (d->changed && (maildrop_cache(m) == NULL || cache_store(m->cache, m->inventory, m->seen) == -1))
		log_text(LOG_INFO, "the cache could not be written: %s", strerror(errno));
	d->changed = false;
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
	struct intent *lists[] = { &d->moved, &d->moved_as, &d->left, &d->deferred };

	session_lock_release(&d->session);
	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
		if (fds[i] != -1)
			close(fds[i]);
	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
		intent_free(lists[i]);
	listing_free(&d->listing);
	free(d);
	m->of_store = NULL;
}

const struct mailstore store_maildir = {
	.kind = MAILDROP_MAILDIR, .name = "maildir",
	.open = maildir_open, .scan = maildir_scan, .fetch = maildir_fetch, .update = maildir_update, .remember = maildir_remember,
	.older = maildir_older, .archived = maildir_archived, .archived_fetch = maildir_archived_fetch,
	.release = maildir_release, .complete = maildir_complete, .untidy = maildir_untidy, .sweep = maildir_sweep, .close = maildir_close,
};
