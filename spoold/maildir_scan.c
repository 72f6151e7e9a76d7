/*
 * What is in a Maildir: listing, measuring, and of what is known already only what has changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "maildir.h"
#include "system.h"
#include "wire.h"

#define NO_MESSAGE UINT32_MAX
#define LINK_S 60		/* who moves a file by a link and the removal of the old name does both within this */
#define YOUNG_MS 5000		/* who writes a file under its own name is hardly ever idle for longer */

/*
 * What tells that a file is still the one that was measured: of its inode's number, which the listing has, so that one that was put in its place is
 * noticed at no cost; and when it was last written to, in ms. It is a row's `offset`, and 0 in what was remembered by a version without it.
 */
#define MARK_MS_BITS 42
_Static_assert(MARK_MS_BITS + LISTING_INODE_BITS < 63, "a mark and a length do not add up to too much");

static uint64_t
mark_make(uint32_t inode, uint64_t ms)
{
	return (uint64_t)inode << MARK_MS_BITS | ms;
}

static uint32_t
mark_inode(uint64_t mark)
{
	return (uint32_t)(mark >> MARK_MS_BITS);
}

static uint64_t
mark_ms(uint64_t mark)
{
	return mark & (((uint64_t)1 << MARK_MS_BITS) - 1);
}

static uint64_t
written_ms(const struct stat *st)
{
	return st->st_mtim.tv_sec > 0 ? mark_ms((uint64_t)st->st_mtim.tv_sec * 1000 + (uint64_t)st->st_mtim.tv_nsec / 1000000) : 0;
}

/* What was written to after this was written to too shortly before the stamps were taken, or since. */
static uint64_t
trusted_until(const struct stamp stamps[static PART_COUNT])
{
	uint64_t until = UINT64_MAX;

	for (int i = 0; i < PART_COUNT; i++) {
		int64_t ms = stamps[i].taken / 1000000 - YOUNG_MS;
		if (stamps[i].inode != 0 && (ms < 0 || (uint64_t)ms < until))
			until = ms < 0 ? 0 : (uint64_t)ms;
	}
	return until;
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

#define READINGS 4

/* Adds what an earlier reading had and this one, which is in order, has not. 0, or -1 with errno. */
static int
list_missed(struct listing *l, const struct listing *before)
{
	struct listing missed = { 0 };
	int result = 0;

	for (uint32_t i = 0; result == 0 && i < before->count; i++) {
		const struct listing_entry *e = &before->entry[i];
		const char *name = listing_name(before, e);
		if (listing_find(l, name + PART_PREFIX, e->base) == NULL)
			result = listing_add(&missed, name, e->length, e->inode);
	}
	for (uint32_t i = 0; result == 0 && i < missed.count; i++)
		result = listing_add(l, listing_name(&missed, &missed.entry[i]), missed.entry[i].length, missed.entry[i].inode);
	listing_free(&missed);
	uint32_t twice = l->twice;
	listing_sort(l);
	l->twice += twice;
	return result;
}

/*
 * Lists what is there. new/ first: a message that moves meanwhile is then seen twice (and kept once), and not missed.
 * A rename within cur/ while it is read may hide a file, so then it is read again; and if others rename there all the time, what was in one of the last two
 * readings is there. What has gone for good is then missed when it is wanted; but a client that does not see a message forgets that it had it.
 */
int
maildir_list(struct maildir *d)
{
	struct listing before = { 0 };
	struct stamp after[PART_COUNT];
	bool settled = false;
	int result = 0;

	for (int tries = 0; result == 0 && !settled && tries < READINGS; tries++) {
		listing_free(&before);
		before = d->listing;
		d->listing = (struct listing){ 0 };
		result = stamps_take(d, d->listed) == -1 || listing_read(&d->listing, d->root, PART_NEW) == -1 ||
		    listing_read(&d->listing, d->root, PART_CUR) == -1 || stamps_take(d, after) == -1 ? -1 : 0;
		settled = result == 0 && stamp_equal(&d->listed[PART_CUR], &after[PART_CUR]);
	}
	if (result == 0) {
		listing_sort(&d->listing);
		if (!settled)
			result = list_missed(&d->listing, &before);
	}
	int saved = errno;
	listing_free(&before);
	errno = saved;
	return result;
}

int
maildir_open_file(const struct maildir *d, const char *name)
{
	return openat(d->root, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

bool
maildir_foreign_link(const struct stat *st)
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

static enum maildir_part
part_of(const char *name)
{
	return name[0] == 'n' ? PART_NEW : PART_CUR;
}

/* Opens a message's file to be measured. 1; 0: it has gone, or may not be read; -1 with errno. */
static int
open_measured(struct maildir *d, const char *name, int *fd)
{
	*fd = maildir_open_file(d, name);
	if (*fd != -1)
		return 1;
	if (errno == ENOENT)
		return 0;
	if (errno != EACCES && errno != ELOOP && errno != ENXIO)
		return -1;
	if (errno == EACCES)
		d->left_out[part_of(name)] = true;
	log_text(LOG_WARNING, "left out %s: %s", name, strerror(errno));
	return 0;
}

/*
 * Size and octets of a file that is open, or (-1) to be opened if it is not as large as its name says: `size` and
 * `octets`. 1; 0: it is no message; -1 with errno.
 */
static int
measure_file(struct maildrop *m, struct maildir *d, const char *name, int *fd, uint64_t size, uint64_t octets,
    struct inventory_message *im)
{
	struct uidl *u = uidl_wants_content(m->uidl) ? m->uidl : NULL;
	int part = d->part[part_of(name)], found;
	struct stat st;

	if ((*fd != -1 ? fstat(*fd, &st) : part != -1 ? fstatat(part, name + PART_PREFIX, &st, AT_SYMLINK_NOFOLLOW) :
	    fstatat(d->root, name, &st, AT_SYMLINK_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : -1;
	if (!S_ISREG(st.st_mode))
		return 0;
	if (maildir_foreign_link(&st)) {
		d->left_out[part_of(name)] = true;
		log_text(LOG_WARNING, "left out %s: a hard link to a file of another user", name);
		return 0;
	}
	im->length = (uint64_t)st.st_size;
	im->octets = octets;
	im->offset = written_ms(&st);
	if (*fd == -1 && im->length == size)
		return 1;
	if (*fd == -1 && (found = open_measured(d, name, fd)) != 1)
		return found;
	if (u != NULL)
		uidl_begin(u, "", 0);
	return measure_content(*fd, st.st_size, u, im) == 0 ? 1 : -1;
}

/* Size, octets and, as the offset, when it was last written to. 1; 0: it is no message (any more, or that we may read); -1 with errno. */
static int
measure(struct maildrop *m, struct maildir *d, const char *name, size_t base, struct inventory_message *im)
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

/* Looks: is a file still as it was when it was measured? One that is not there under this name any more will be looked for when it is wanted. */
static bool
is_untouched(const struct maildir *d, const char *name, const struct inventory_message *im)
{
	struct stat st;

	if (fstatat(d->root, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT;
	return S_ISREG(st.st_mode) && !maildir_foreign_link(&st) && (uint64_t)st.st_size == im->length && written_ms(&st) == mark_ms(im->offset);
}

/* The same, and mostly without a look. */
static bool
is_as_measured(const struct maildir *d, const char *name, uint32_t inode, const struct inventory_message *im)
{
	return im->offset == 0 || (mark_inode(im->offset) == inode && !d->anew && mark_ms(im->offset) <= d->trusted) ||
	    is_untouched(d, name, im);
}

/*
 * A message that may be had again is not left out: to a client that leaves its mail on the server, the session without it would say that it has been
 * deleted, and the next that it is new. So there is none.
 */
static void
tell_unmeasured(const char *name)
{
	int saved = errno;

	log_text(LOG_ERR, "%s cannot be read, and nothing is shown without it: %s", name, strerror(errno));
	errno = saved;
}

/* Adds what is in a file. What is known already by its base name, and is still that file, is not read. 1; 0: there is no message; -1. */
static int
add_named(struct maildrop *m, struct maildir *d, const char *name, size_t length, uint32_t inode, struct inventory *old, struct inventory *to)
{
	size_t base = listing_base(name + PART_PREFIX, length - PART_PREFIX);
	struct inventory_message im = { 0 };
	struct uidl_id id;
	uint32_t known = old != NULL ? inventory_find(old, name + PART_PREFIX, base) : NO_MESSAGE;

	if (known != NO_MESSAGE && inventory_get(old, known, &im) == -1)
		return -1;
	if (known == NO_MESSAGE || !is_as_measured(d, name, inode, &im)) {
		im = (struct inventory_message){ 0 };
		int found = measure(m, d, name, base, &im);
		if (found == -1)
			tell_unmeasured(name);
		if (found != 1)
			return found;
		uidl_name(m->uidl, name + PART_PREFIX, length - (size_t)PART_PREFIX, &id);
		im.uid = id.text;
		im.uid_length = id.length;
	}
	uint64_t ms = mark_ms(im.offset);
	if (ms > d->newest)
		d->newest = ms;
	im.offset = mark_make(inode, ms);
	im.name = name;
	im.name_length = length;
	return inventory_add(to, &im) == -1 ? -1 : 1;
}

int
maildir_add(struct maildrop *m, struct maildir *d, const struct listing_entry *e, struct inventory *old, struct inventory *to)
{
	return add_named(m, d, listing_name(&d->listing, e), e->length, e->inode, old, to);
}

/* One of those files that have the same base name. */
struct twin {
	const struct listing_entry *entry;
	const char *name;
	struct stat st;
};
#define TWINS_MAX 16	/* of one name that are told apart in one session */

/* Do both have the same content, and is it on disk? */
static bool
twin_is_copy(const struct maildir *d, const struct twin *kept, const struct twin *other)
{
	static char theirs[sizeof block];
	int one = maildir_open_file(d, kept->name), two = maildir_open_file(d, other->name);
	bool same = one != -1 && two != -1 && kept->st.st_size == other->st.st_size;
	ssize_t n = 1;

	while (same && n > 0) {
		n = read(one, block, sizeof block);
		same = n >= 0 && read(two, theirs, sizeof theirs) == n && memcmp(block, theirs, (size_t)n) == 0;
	}
	same = same && fsync(one) == 0 && fsync(two) == 0;
	if (one != -1)
		close(one);
	if (two != -1)
		close(two);
	return same;
}

/* A base name that no message has or had: the old one, as far as there is room, with this moment behind it, and as ever what follows a comma or ':'. */
static int
twin_rename(const struct maildir *d, const struct twin *t, unsigned number)
{
	const char *file = t->name + PART_PREFIX;
	size_t head = strcspn(file, ",:"), rest = strlen(file + head);
	char to[PART_PREFIX + NAME_MAX + 1], mark[48];
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	int length = snprintf(mark, sizeof mark, "_%llx%05lx-%u", (unsigned long long)now.tv_sec, (unsigned long)now.tv_nsec / 1000, number);
	if (rest + (size_t)length > NAME_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (head > NAME_MAX - rest - (size_t)length)
		head = NAME_MAX - rest - (size_t)length;
	snprintf(to, sizeof to, "%.*s%s%s", (int)(PART_PREFIX + head), t->name, mark, file + strcspn(file, ",:"));
	if (maildir_rename(d->root, t->name, to) == -1)
		return -1;
	log_text(LOG_NOTICE, "two messages had one name: %s is %s now", t->name, to);
	return 0;
}

/* What becomes of one that has the name of another. 1: it has gone, or has a name of its own; 0; -1 with errno. */
static int
twin_settle(const struct maildir *d, const struct twin *kept, const struct twin *other, unsigned number)
{
	if (kept->st.st_ino == other->st.st_ino && kept->st.st_dev == other->st.st_dev) {
		/* a link: the one of two names that is about to be removed by another program must not be the only one left */
		if (time(NULL) - other->st.st_ctime < LINK_S)
			return 0;
		return unlinkat(d->root, other->name, 0) == 0 ? 1 : -1;
	}
	if (!twin_is_copy(d, kept, other))
		return twin_rename(d, other, number) == 0 ? 1 : -1;
	/* of a copy in new/ and one in cur/, who moves it there removes the first */
	const struct twin *goes = kept->entry->part == PART_NEW && other->entry->part == PART_CUR ? kept : other;
	return unlinkat(d->root, goes->name, 0) == 0 ? 1 : -1;
}

/* Which of them has the name: that which is known by it; else what is in cur/, and there the oldest. */
static unsigned
twin_first(const struct twin *t, unsigned count, struct inventory *old)
{
	uint32_t known = old != NULL ? inventory_find(old, t[0].name + PART_PREFIX, t[0].entry->base) : NO_MESSAGE;
	unsigned first = 0;

	for (unsigned i = 0; known != NO_MESSAGE && i < count; i++)
		if (mark_inode(inventory_row(old, known)->offset) == t[i].entry->inode)
			return i;
	for (unsigned i = 1; i < count; i++) {
		bool cur = t[i].entry->part == PART_CUR, was = t[first].entry->part == PART_CUR;
		if (cur != was ? cur : t[i].st.st_mtime < t[first].st.st_mtime)
			first = i;
	}
	return first;
}

/* Those of a base name that are there. How many have changed. */
static unsigned
twins_settle(const struct maildir *d, const struct listing *l, uint32_t from, uint32_t to, struct inventory *old)
{
	struct twin t[TWINS_MAX];
	unsigned count = 0, changed = 0;

	for (uint32_t i = from; i < to && count < TWINS_MAX; i++) {
		t[count] = (struct twin){ .entry = &l->entry[i], .name = listing_name(l, &l->entry[i]) };
		/* one that is on its way from the one directory to the other was seen twice, and is there once */
		if (fstatat(d->root, t[count].name, &t[count].st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(t[count].st.st_mode) &&
		    !maildir_foreign_link(&t[count].st))
			count++;
	}
	unsigned first = count > 0 ? twin_first(t, count, old) : 0;
	for (unsigned i = 0; i < count; i++) {
		int result = i != first ? twin_settle(d, &t[first], &t[i], i) : 0;
		if (result == -1)
			log_text(LOG_WARNING, "%s and %s have one name, and one of them is not shown: %s", t[first].name, t[i].name, strerror(errno));
		changed += result == 1;
	}
	return changed;
}

/*
 * Sees to it that no two messages have one base name, and with that one unique-id: of two files with the same content one goes, and another one gets a
 * name, as Dovecot does it. Were there any?
 */
static bool
twins_part(struct maildir *d, struct inventory *old)
{
	struct listing all = { 0 };
	unsigned changed = 0;

	if (listing_read(&all, d->root, PART_NEW) == 0 && listing_read(&all, d->root, PART_CUR) == 0) {
		listing_order(&all);
		for (uint32_t i = 0, end; i < all.count; i = end) {
			for (end = i + 1; end < all.count && listing_same(&all, &all.entry[i], &all.entry[end]); end++)
				continue;
			if (end - i > 1)
				changed += twins_settle(d, &all, i, end, old);
		}
	}
	listing_free(&all);
	for (int i = 0; i < PART_COUNT; i++)
		if (changed > 0 && d->part[i] != -1)
			(void)fsync(d->part[i]);	/* if it is not, they are told apart once more */
	return changed > 0;
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

/* By arrival; of a base name that is there twice, what is in cur/. How many are not kept, or -1 with ENOMEM. */
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
	return (int)(count - kept);
}

/* What the first scan of all gathers: as it lies there, since a list of the names beside would be as large as the catalogue. */
struct first {
	struct maildrop *m;
	struct maildir *d;
	struct inventory *before, *to;
};

static int
first_add(void *data, const char *name, size_t length, uint32_t inode)
{
	struct first *f = data;

	return add_named(f->m, f->d, name, length, inode, f->before, f->to);
}

/* As list_missed(). 0, or -1 with errno. */
static int
first_missed(struct first *f)
{
	struct inventory_message im;

	for (uint32_t i = 0; i < inventory_count(f->before); i++) {
		if (inventory_get(f->before, i, &im) == -1)
			return -1;
		const char *file = im.name + PART_PREFIX;
		if (inventory_find(f->to, file, listing_base(file, im.name_length - PART_PREFIX)) == NO_MESSAGE && inventory_add(f->to, &im) == -1)
			return -1;
	}
	return 0;
}

/*
 * Everything, of which nothing is known. As maildir_list: what was there twice is kept once, and cur/ is read again if it changed meanwhile. How many were
 * not kept, or -1.
 */
static int
scan_first_once(struct maildrop *m, struct maildir *d)
{
	struct first f = { .m = m, .d = d };
	struct stamp after[PART_COUNT];
	bool settled = false;
	int result = -1;

	for (int tries = 0; !settled && tries < READINGS; tries++) {
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
		settled = stamp_equal(&d->listed[PART_CUR], &after[PART_CUR]);
	}
	if (result == 0 && !settled)
		result = first_missed(&f);
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
	return result;
}

static int
scan_first(struct maildrop *m, struct maildir *d)
{
	int twice = scan_first_once(m, d);

	if (twice > 0 && twins_part(d, NULL)) {
		inventory_free(m->inventory);
		m->inventory = NULL;
		twice = scan_first_once(m, d);
	}
	return twice == -1 ? -1 : 0;
}

/* Everything anew, in order. */
static int
scan_all(struct maildrop *m, struct maildir *d, struct inventory *old)
{
	struct inventory *inv = inventory_new();
	int result = inv == NULL ? -1 : 0;

	for (uint32_t i = 0; result >= 0 && i < d->listing.count; i++)
		result = maildir_add(m, d, &d->listing.entry[i], old, inv);
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
 * is younger than one that is not known; or two have one name.
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
	return l->twice == 0;
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
		if (maildir_add(m, d, &d->listing.entry[i], NULL, old) == -1)
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

const char *
maildir_find(struct maildir *d, const char *tried)
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

/*
 * Has nobody written since to those files that had just been written to when they were measured? They are few, or this is the first time since many
 * came.
 */
static bool
young_untouched(struct maildir *d, struct inventory *inv)
{
	struct inventory_message im;
	bool same = true;

	d->newest = 0;
	for (uint32_t i = 0; same && i < inventory_count(inv); i++) {
		uint64_t ms = mark_ms(inventory_row(inv, i)->offset);
		if (ms > d->newest)
			d->newest = ms;
		if (ms > d->trusted)
			same = inventory_get(inv, i, &im) == 0 && is_untouched(d, im.name, &im);
	}
	return same;
}

/* What has changed since the cache was written, and only that, is read. */
static int
maildir_scan_known(struct maildrop *m, struct maildir *d, struct inventory *old)
{
	bool same[PART_COUNT];
	int done = 0;

	for (int i = 0; i < PART_COUNT; i++) {
		const struct stamp *then = cache_stamp(m->cache, (unsigned)i);
		same[i] = stamp_compare(then, &m->seen[i]) == STAMP_SAME;
		d->anew = d->anew || (then->inode != 0 && then->inode != m->seen[i].inode);
	}
	d->trusted = trusted_until((const struct stamp[]){ *cache_stamp(m->cache, PART_NEW), *cache_stamp(m->cache, PART_CUR) });
	same[PART_CUR] = same[PART_CUR] && young_untouched(d, old);
	if (same[PART_NEW] && same[PART_CUR]) {
		/* once they have been looked at, that is remembered */
		d->changed = d->newest > d->trusted;
		m->inventory = old;
		return 0;
	}
	if (same[PART_CUR])
		done = scan_appended(m, d, old);
	if (done == 1)
		return 0;
	if (done == 0 && (done = maildir_list(d)) == 0 && d->listing.twice > 0 && twins_part(d, old))
		done = maildir_list(d);
	if (done == -1) {
		inventory_free(old);
		return -1;
	}
	memcpy(m->seen, d->listed, sizeof d->listed);
	d->newest = 0;
	int result = scan_all(m, d, old), saved = errno;
	inventory_free(old);
	errno = saved;
	return result;
}

/* A worker that lingers: is all as it left it? */
static bool
maildir_unchanged(struct maildrop *m, struct maildir *d)
{
	d->trusted = trusted_until(m->kept->seen);
	if (!maildrop_unchanged(m))
		return false;
	if (!m->kept->young)
		return true;
	if (young_untouched(d, m->inventory)) {
		m->kept->young = d->newest > trusted_until(m->seen);
		return true;
	}
	inventory_free(m->inventory);
	m->inventory = NULL;
	return false;
}

void
maildir_doubt(struct maildrop *m, uint32_t index)
{
	struct maildir *d = m->of_store;

	if (d->wrong == NULL)
		d->wrong = calloc((size_t)maildrop_count(m) / 8 + 1, 1);
	if (d->wrong != NULL)	/* else the next time that it is wanted */
		d->wrong[index / 8] |= (uint8_t)(1u << index % 8);
}

/* By its content, whatever its name says. What cannot be measured now stays as it was. */
static void
correct_one(struct maildrop *m, struct maildir *d, uint32_t index)
{
	struct inventory_message im;
	char name[PART_PREFIX + NAME_MAX + 1];
	struct stat st;

	if (inventory_get(m->inventory, index, &im) == -1)
		return;
	snprintf(name, sizeof name, "%.*s", (int)im.name_length, im.name);
	int fd = maildir_open_file(d, name);
	if (fd == -1 && errno == ENOENT) {
		const char *now = maildir_find(d, name);
		fd = now[0] != '\0' ? maildir_open_file(d, now) : -1;
	}
	if (fd == -1)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !maildir_foreign_link(&st) && measure_content(fd, st.st_size, NULL, &im) == 0) {
		im.offset = mark_make(listing_inode(st.st_ino), written_ms(&st));
		im.name = name;
		if (inventory_change(m->inventory, index, &im) == 0)
			d->changed = true;
	}
	close(fd);
}

void
maildir_correct(struct maildrop *m, struct maildir *d)
{
	uint32_t count = maildrop_count(m);
	uint8_t *none = d->wrong != NULL ? calloc((size_t)count + 1, 1) : NULL;
	/* the one that was published stays as it is */
	struct inventory *now = none != NULL ? inventory_without(m->inventory, none) : NULL;

	if (now != NULL)
		m->inventory = now;
	for (uint32_t i = 0; now != NULL && i < count; i++)
		if ((d->wrong[i / 8] >> i % 8 & 1) != 0)
			correct_one(m, d, i);
	free(none);
	free(d->wrong);
	d->wrong = NULL;
}

int
maildir_scan(struct maildrop *m)
{
	struct maildir *d = m->of_store;
	struct inventory *old;
	int journal = maildrop_journal(m), result;

	if (journal == -1 && errno != ENOENT)
		return maildrop_fail(m, "journal");
	session_id(d->id);
	if (journal != -1) {
		result = maildir_recover(m, d, journal);
		close(journal);
		if (result == -1)
			return -1;
	}
	if (stamps_take(d, m->seen) == -1)
		return maildrop_fail(m, "stat");
	if (maildir_unchanged(m, d))
		return 0;
	d->trusted = UINT64_MAX;
	d->newest = 0;
	if (maildrop_cache(m) == NULL)
		return maildrop_fail(m, "cache");
	if ((old = cache_load(m->cache)) != NULL)
		result = maildir_scan_known(m, d, old);
	else
		result = scan_first(m, d);
	if (result == -1)
		return maildrop_fail(m, "scan");
	/* who may read it, or who has it, is no change of the directory: so that must not be known */
	for (int i = 0; i < PART_COUNT; i++)
		if (d->left_out[i])
			m->seen[i].mtime = m->seen[i].ctime = 0;
	m->kept->young = d->newest > trusted_until(m->seen);
	if (d->listing.skipped > 0)
		log_text(LOG_WARNING, "%s: %u entries of new/ and cur/ are not files and were left out", m->path, (unsigned)d->listing.skipped);
	/* most sessions never need it again */
	listing_free(&d->listing);
	return 0;
}
