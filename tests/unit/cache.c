/*
 * The inventory and its cache: what is stored is loaded, what is torn is not, and ids stay.
 * links: spoold/cache.c spoold/inventory.c spoold/content.c spoold/uidl.c spoold/oldids.c lib/catalogue.c
 * libs: -lxxhash -lnettle
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "../../spoold/cache.h"

#define CONTEXT 42

/* A file that nobody has a name for. */
static int
file_new(void)
{
	char path[] = "/tmp/postern-unit-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	assert_int_not_equal(fd, -1);
	unlink(path);
	return fd;
}

/* The same file, opened once more: a lock of its own. */
static int
again(int fd)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int other = open(path, O_RDWR | O_CLOEXEC);
	assert_int_not_equal(other, -1);
	return other;
}

static void
add(struct inventory *inv, const char *uid, const char *name, uint64_t offset, uint64_t length)
{
	struct inventory_message m = { .octets = length + 3, .offset = offset, .length = length, .uid = uid, .uid_length = strlen(uid),
	    .name = name, .name_length = name == NULL ? 0 : strlen(name) };

	memset(m.fingerprint, 0, sizeof m.fingerprint);
	strncpy((char *)m.fingerprint, uid, sizeof m.fingerprint);
	assert_int_equal(inventory_add(inv, &m), 0);
}

static void
expect_uid(struct inventory *inv, uint32_t index, const char *uid)
{
	struct inventory_message m;
	char text[UID_MAX + 1];

	assert_int_equal(inventory_get(inv, index, &m), 0);
	memcpy(text, m.uid, m.uid_length);
	text[m.uid_length] = '\0';
	assert_string_equal(text, uid);
}

static void
expect_name(struct inventory *inv, uint32_t index, const char *name)
{
	struct inventory_message m;

	assert_int_equal(inventory_get(inv, index, &m), 0);
	assert_int_equal(m.name_length, strlen(name));
	assert_string_equal(m.name, name);
	assert_true(inventory_is_named(inv, index, name, strlen(name)));
	assert_false(inventory_is_named(inv, index, name, strlen(name) - 1));
	assert_false(inventory_is_named(inv, index, "cur/other", 9));
}

static void
publish(struct inventory *inv)
{
	struct catalogue c;
	int fd = inventory_publish(inv);

	assert_int_not_equal(fd, -1);
	assert_int_equal(catalogue_map(&c, fd), 0);
	assert_int_equal(c.header->count, inventory_count(inv));
	assert_int_equal(c.header->octets, inventory_octets(inv));
	catalogue_unmap(&c);
	close(fd);
}

static const struct stamp stamps[2] = { { .device = 1, .inode = 2, .size = 3, .mtime = 4, .ctime = 5, .taken = 6 },
	{ .device = 7, .inode = 8 } };

static struct inventory *
three(bool maildir)
{
	struct inventory *inv = inventory_new();

	add(inv, "alpha", maildir ? "cur/alpha:2,S" : NULL, 50, 100);
	add(inv, "beta", maildir ? "new/beta" : NULL, 200, 10);
	add(inv, "gamma", maildir ? "cur/gamma:2,S" : NULL, 260, 7);
	return inv;
}

static void
store(int fd, struct inventory *inv, enum maildrop_kind kind)
{
	struct cache *c = cache_open(fd, kind, CONTEXT);

	assert_int_equal(cache_store(c, inv, stamps), 0);
	cache_close(c);
}

static struct inventory *
load(int fd, enum maildrop_kind kind, uint64_t context)
{
	struct cache *c = cache_open(fd, kind, context);
	struct inventory *inv = cache_load(c);

	cache_close(c);
	return inv;
}

static void
test_round(void **state)
{
	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		int fd = file_new();
		struct inventory *inv = three(kind);
		publish(inv);
		store(fd, inv, (enum maildrop_kind)kind);
		inventory_free(inv);
		struct cache *c = cache_open(fd, (enum maildrop_kind)kind, CONTEXT);
		assert_int_equal(cache_stamp(c, 0)->inode, 0);
		assert_non_null(inv = cache_load(c));
		assert_memory_equal(cache_stamp(c, 0), &stamps[0], sizeof stamps[0]);
		assert_memory_equal(cache_stamp(c, 1), &stamps[1], sizeof stamps[1]);
		publish(inv);
		assert_int_equal(inventory_count(inv), 3);
		assert_int_equal(inventory_octets(inv), 126);
		expect_uid(inv, 1, "beta");
		assert_int_equal(inventory_row(inv, 2)->offset, 260);
		if (kind == MAILDROP_MAILDIR) {
			expect_name(inv, 0, "cur/alpha:2,S");
			expect_name(inv, 1, "new/beta");
		}
		inventory_free(inv);
		cache_close(c);
		close(fd);
	}
}

static void
test_empty(void **state)
{
	(void)state;
	int fd = file_new();
	struct inventory *inv = inventory_new();
	publish(inv);
	store(fd, inv, MAILDROP_MBOX);
	inventory_free(inv);
	assert_non_null(inv = load(fd, MAILDROP_MBOX, CONTEXT));
	assert_int_equal(inventory_count(inv), 0);
	add(inv, "first", NULL, 10, 10);
	publish(inv);
	inventory_free(inv);
	close(fd);
}

/* Nothing of a file of another kind, format, version or of none at all is used. */
static void
test_foreign(void **state)
{
	(void)state;
	int fd = file_new();
	assert_null(load(fd, MAILDROP_MBOX, CONTEXT));
	struct inventory *inv = three(false);
	publish(inv);
	store(fd, inv, MAILDROP_MBOX);
	inventory_free(inv);
	assert_null(load(fd, MAILDROP_MAILDIR, CONTEXT));
	assert_null(load(fd, MAILDROP_MBOX, CONTEXT + 1));
	assert_null(load(-1, MAILDROP_MBOX, CONTEXT));
	/* a later version of ours, with the checksum that it would have */
	char slot[4096];
	XXH128_canonical_t check = { { 0 } };
	size_t at = 0;
	assert_int_equal(pread(fd, slot, sizeof slot, 0), sizeof slot);
	while (at + sizeof check <= sizeof slot && memcmp(&check, slot + at, sizeof check) != 0)
		XXH128_canonicalFromHash(&check, XXH3_128bits(slot, at += 8));
	assert_true(at + sizeof check <= sizeof slot);
	slot[8]++;
	XXH128_canonicalFromHash(&check, XXH3_128bits(slot, at));
	memcpy(slot + at, &check, sizeof check);
	assert_int_equal(pwrite(fd, slot, sizeof slot, 0), sizeof slot);
	assert_null(load(fd, MAILDROP_MBOX, CONTEXT));
	close(fd);
}

/*
 * Every bit of the file flipped, one at a time, and every length it may be cut to: what is loaded is what was
 * stored, or nothing.
 */
static void
test_torn(void **state)
{
	(void)state;
	char whole[20000];
	int fd = file_new();
	struct inventory *inv = three(true);
	publish(inv);
	store(fd, inv, MAILDROP_MAILDIR);
	inventory_free(inv);
	ssize_t size = pread(fd, whole, sizeof whole, 0);
	assert_in_range(size, 8193, sizeof whole - 1);
	unsigned refused = 0, kept = 0;
	for (ssize_t at = 0; at < size; at++) {
		char flipped = (char)(whole[at] ^ 1 << at % 8);
		assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
		if ((inv = load(fd, MAILDROP_MAILDIR, CONTEXT)) != NULL) {
			kept++;
			expect_uid(inv, 2, "gamma");
			expect_name(inv, 0, "cur/alpha:2,S");
			assert_int_equal(inventory_octets(inv), 126);
			inventory_free(inv);
		} else
			refused++;
		assert_int_equal(pwrite(fd, &whole[at], 1, at), 1);
	}
	/* All that is in use is guarded: the slot and the data, and not the unused remainder of the slots. */
	assert_true(refused > 3 * 32 + 14 + 100 && kept > 4096);
	for (ssize_t cut = size - 1; cut >= 0; cut -= cut > 8192 ? 1 : 97) {
		assert_int_equal(ftruncate(fd, cut), 0);
		assert_null(load(fd, MAILDROP_MAILDIR, CONTEXT));
	}
	close(fd);
}

/* A store that is cut short at any write leaves what was stored before. */
static void
test_interrupted(void **state)
{
	(void)state;
	char before[40000], after[40000];
	int fd = file_new();
	struct inventory *inv = three(false);
	publish(inv);
	store(fd, inv, MAILDROP_MBOX);
	inventory_free(inv);
	ssize_t had = pread(fd, before, sizeof before, 0);
	/* the next: one more message (appended), and then all but the first (written anew) */
	for (int round = 0; round < 2; round++) {
		struct cache *c = cache_open(fd, MAILDROP_MBOX, CONTEXT);
		assert_non_null(inv = cache_load(c));
		if (round == 0)
			add(inv, "delta", NULL, 300, 20);
		publish(inv);
		uint8_t gone[4] = { 1 };
		if (round == 1)
			inv = inventory_without(inv, gone);
		assert_int_equal(cache_store(c, inv, stamps), 0);
		cache_close(c);
		inventory_free(inv);
		ssize_t has = pread(fd, after, sizeof after, 0);
		assert_true(has > 8192 && had > 8192);
		uint32_t old_count = round == 0 ? 3 : 4, new_count = round == 0 ? 4 : 3;
		/* Every prefix of the changed bytes, data first and the slot last, as they are written. */
		for (ssize_t cut = 8192; cut <= has; cut += 7) {
			assert_int_equal(ftruncate(fd, 0), 0);
			assert_int_equal(pwrite(fd, before, (size_t)had, 0), had);
			assert_int_equal(pwrite(fd, after + 8192, (size_t)(cut - 8192), 8192), cut - 8192);
			assert_non_null(inv = load(fd, MAILDROP_MBOX, CONTEXT));
			assert_int_equal(inventory_count(inv), old_count);
			expect_uid(inv, 0, "alpha");
			inventory_free(inv);
		}
		for (ssize_t cut = 0; cut <= 8192; cut += 64) {
			assert_int_equal(ftruncate(fd, 0), 0);
			assert_int_equal(pwrite(fd, after, (size_t)has, 0), has);
			assert_int_equal(pwrite(fd, before + cut, (size_t)(8192 - cut), cut), 8192 - cut);
			inv = load(fd, MAILDROP_MBOX, CONTEXT);
			if (inv != NULL) {
				uint32_t count = inventory_count(inv);
				assert_true(count == old_count || count == new_count);
			}
			inventory_free(inv);
		}
		memcpy(before, after, sizeof before);
		had = has;
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(pwrite(fd, after, (size_t)has, 0), has);
	}
	close(fd);
}

/* Appending over and over: all is there each time, and the file does not grow without end. */
static void
test_grown(void **state)
{
	(void)state;
	int fd = file_new();
	struct inventory *inv = inventory_new();
	struct stat st;
	char uid[32];

	publish(inv);
	store(fd, inv, MAILDROP_MBOX);
	inventory_free(inv);
	for (unsigned i = 0; i < 300; i++) {
		struct cache *c = cache_open(fd, MAILDROP_MBOX, CONTEXT);
		assert_non_null(inv = cache_load(c));
		assert_int_equal(inventory_count(inv), i);
		snprintf(uid, sizeof uid, "message-%u", i);
		add(inv, uid, NULL, 100 + i * 10, 9);
		publish(inv);
		for (unsigned j = 0; j <= i; j += 37) {
			snprintf(uid, sizeof uid, "message-%u", j);
			expect_uid(inv, j, uid);
		}
		assert_int_equal(cache_store(c, inv, stamps), 0);
		cache_close(c);
		inventory_free(inv);
		/* appended: what was there is not written again */
		if (i == 2)
			assert_true(fstat(fd, &st) == 0 && st.st_size > 8192 + 2 * 4096);
	}
	assert_int_equal(fstat(fd, &st), 0);
	assert_in_range(st.st_size, 300 * 60, 3 * (8192 + 300 * 70) + 16 * 4096);
	close(fd);
}

/* Ids of several megabytes, loaded, added to and published: they are moved bit by bit, and all arrive. */
static void
test_large(void **state)
{
	(void)state;
	int fd = file_new();
	struct inventory *inv = inventory_new();
	char uid[80];

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 30000; i++) {
			snprintf(uid, sizeof uid, "%u-%u-an-id-of-sixty-or-more-octets-as-a-long-host-name-makes-it", round, i);
			add(inv, uid, NULL, 100 + i, 9);
		}
		publish(inv);
		for (unsigned i = 0; i < 30000 * (round + 1); i++) {
			snprintf(uid, sizeof uid, "%u-%u-an-id-of-sixty-or-more-octets-as-a-long-host-name-makes-it", i / 30000, i % 30000);
			expect_uid(inv, i, uid);
		}
		store(fd, inv, MAILDROP_MBOX);
		inventory_free(inv);
		assert_non_null(inv = load(fd, MAILDROP_MBOX, CONTEXT));
	}
	inventory_free(inv);
	close(fd);
}

/* Shrunk, by UPDATE: offsets move, names change, ids stay. */
static void
test_shrunk(void **state)
{
	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		int fd = file_new();
		struct inventory *inv = three(kind);
		const uint8_t gone[3] = { 0, 1, 0 };
		publish(inv);
		assert_non_null(inv = inventory_without(inv, gone));
		assert_int_equal(inventory_count(inv), 2);
		assert_int_equal(inventory_octets(inv), 113);
		struct inventory_message m = { .octets = 12, .offset = 210, .length = 7 };
		if (kind == MAILDROP_MAILDIR) {
			m.name = "cur/gamma:2,RS";
			m.name_length = strlen(m.name);
		}
		assert_int_equal(inventory_change(inv, 1, &m), 0);
		assert_int_equal(inventory_octets(inv), 115);
		store(fd, inv, (enum maildrop_kind)kind);
		inventory_free(inv);
		assert_non_null(inv = load(fd, (enum maildrop_kind)kind, CONTEXT));
		expect_uid(inv, 0, "alpha");
		expect_uid(inv, 1, "gamma");
		assert_int_equal(inventory_row(inv, 1)->offset, 210);
		if (kind == MAILDROP_MAILDIR)
			expect_name(inv, 1, "cur/gamma:2,RS");
		publish(inv);
		inventory_free(inv);
		close(fd);
	}
}

/* Two at once: the second has no cache, and does no harm to the first's. */
static void
test_two_writers(void **state)
{
	(void)state;
	int fd = file_new(), other = again(fd);
	struct inventory *inv = three(false);
	publish(inv);
	store(fd, inv, MAILDROP_MBOX);
	struct cache *first = cache_open(fd, MAILDROP_MBOX, CONTEXT);
	struct cache *second = cache_open(other, MAILDROP_MBOX, CONTEXT);
	assert_null(cache_load(second));
	assert_int_equal(cache_store(second, inv, stamps), -1);
	struct inventory *found = cache_load(first);
	assert_non_null(found);
	inventory_free(found);
	cache_close(first);
	cache_close(second);
	second = cache_open(other, MAILDROP_MBOX, CONTEXT);
	found = cache_load(second);
	assert_non_null(found);
	inventory_free(found);
	cache_close(second);
	inventory_free(inv);
	close(other);
	close(fd);
}

/* A full disk: the store fails, what was stored stays. */
static void
test_full(void **state)
{
	(void)state;
	int fd = file_new();
	struct inventory *inv = three(false);
	struct rlimit was, small = { 8192 + 300, 8192 + 300 };
	publish(inv);
	store(fd, inv, MAILDROP_MBOX);
	inventory_free(inv);
	inv = inventory_new();
	for (unsigned i = 0; i < 1000; i++) {
		char uid[16];
		snprintf(uid, sizeof uid, "m%u", i);
		add(inv, uid, NULL, 100 + i, 1);
	}
	publish(inv);
	struct cache *c = cache_open(fd, MAILDROP_MBOX, CONTEXT);
	struct inventory *found = cache_load(c);
	inventory_free(found);
	getrlimit(RLIMIT_FSIZE, &was);
	small.rlim_max = was.rlim_max;
	setrlimit(RLIMIT_FSIZE, &small);
	assert_int_equal(cache_store(c, inv, stamps), -1);
	assert_int_equal(errno, EFBIG);
	setrlimit(RLIMIT_FSIZE, &was);
	cache_close(c);
	inventory_free(inv);
	assert_non_null(inv = load(fd, MAILDROP_MBOX, CONTEXT));
	assert_int_equal(inventory_count(inv), 3);
	inventory_free(inv);
	close(fd);
}

static void
test_twins(void **state)
{
	(void)state;
	int fd = file_new();
	struct inventory *inv = inventory_new();
	for (unsigned i = 0; i < 3; i++)
		add(inv, "same", NULL, 100 + i * 20, 9);
	add(inv, "other", NULL, 200, 9);
	publish(inv);
	expect_uid(inv, 0, "same");
	expect_uid(inv, 1, "same.2");
	expect_uid(inv, 2, "same.3");
	/* the first is deleted, and a fourth arrives: nobody's id is given again */
	const uint8_t gone[4] = { 1 };
	inv = inventory_without(inv, gone);
	store(fd, inv, MAILDROP_MBOX);
	inventory_free(inv);
	assert_non_null(inv = load(fd, MAILDROP_MBOX, CONTEXT));
	add(inv, "same", NULL, 300, 9);
	add(inv, "same", NULL, 320, 9);
	publish(inv);
	expect_uid(inv, 0, "same.2");
	expect_uid(inv, 1, "same.3");
	expect_uid(inv, 3, "same.4");
	expect_uid(inv, 4, "same.5");
	/* rewritten by another program, in another order: known by content */
	struct inventory *scanned = inventory_new();
	add(scanned, "new", NULL, 10, 9);
	add(scanned, "same", NULL, 30, 9);
	add(scanned, "other", NULL, 50, 9);
	add(scanned, "same", NULL, 70, 9);
	assert_int_equal(inventory_remember(scanned, inv), 0);
	publish(scanned);
	expect_uid(scanned, 0, "new");
	expect_uid(scanned, 1, "same.2");
	expect_uid(scanned, 2, "other");
	expect_uid(scanned, 3, "same.3");
	inventory_free(scanned);
	inventory_free(inv);
	close(fd);
}

/* Ids at their longest, and very many twins: still unique, still legal, and not in quadratic time. */
static void
test_many_twins(void **state)
{
	(void)state;
	struct inventory *inv = inventory_new();
	char longest[UID_MAX + 1];

	memset(longest, 'x', UID_MAX);
	longest[UID_MAX] = '\0';
	clock_t start = clock();
	for (unsigned i = 0; i < 50000; i++)
		add(inv, longest, NULL, 100 + i, 1);
	publish(inv);
	assert_true(clock() - start < 5 * CLOCKS_PER_SEC);
	assert_int_equal(inventory_row(inv, 0)->uid_length, UID_MAX);
	assert_in_range(inventory_row(inv, 49999)->uid_length, 1, UID_MAX);
	/* all differ: each is found as itself */
	for (unsigned i = 0; i < 50000; i++) {
		struct inventory_message m;
		inventory_get(inv, i, &m);
		assert_int_equal(inventory_find(inv, m.uid, m.uid_length), i);
	}
	inventory_free(inv);
}

static void
test_maildir_names(void **state)
{
	(void)state;
	int fd = file_new();
	struct inventory *inv = inventory_new();
	/* an id that is not the name: another server's; a twin; a name with no pattern */
	add(inv, "UID7-1234", "cur/1700000000.M1P2.host,S=5:2,S", 0, 5);
	add(inv, "base", "new/base", 0, 5);
	add(inv, "base", "cur/base:2,F", 0, 5);
	add(inv, "hashed", "cur/name with blanks:2,", 0, 5);
	publish(inv);
	expect_uid(inv, 2, "base.2");
	expect_name(inv, 2, "cur/base:2,F");
	store(fd, inv, MAILDROP_MAILDIR);
	inventory_free(inv);
	assert_non_null(inv = load(fd, MAILDROP_MAILDIR, CONTEXT));
	expect_name(inv, 0, "cur/1700000000.M1P2.host,S=5:2,S");
	expect_name(inv, 1, "new/base");
	expect_name(inv, 2, "cur/base:2,F");
	expect_name(inv, 3, "cur/name with blanks:2,");
	assert_int_equal(inventory_find(inv, "1700000000.M1P2.host,S=5", 24), 0);
	assert_int_equal(inventory_find(inv, "name with blanks", 16), 3);
	assert_int_equal(inventory_find(inv, "base", 4), 1);
	assert_int_equal(inventory_find(inv, "absent", 6), UINT32_MAX);
	add(inv, "late", "new/late", 0, 5);
	assert_int_equal(inventory_find(inv, "late", 4), 4);
	publish(inv);
	const uint8_t gone[5] = { 1, 0, 1, 0, 0 };
	inv = inventory_without(inv, gone);
	store(fd, inv, MAILDROP_MAILDIR);
	expect_name(inv, 1, "cur/name with blanks:2,");
	inventory_free(inv);
	assert_non_null(inv = load(fd, MAILDROP_MAILDIR, CONTEXT));
	assert_int_equal(inventory_count(inv), 3);
	expect_name(inv, 0, "new/base");
	expect_name(inv, 1, "cur/name with blanks:2,");
	expect_name(inv, 2, "new/late");
	inventory_free(inv);
	close(fd);
}

/* An mbox that grew is believed only if what was there is there. */
static void
test_holds(void **state)
{
	(void)state;
	int mbox = file_new();
	struct content_hash *h = content_new();
	struct inventory *inv = inventory_new();
	char text[200];
	off_t at = 0;

	for (unsigned i = 0; i < 20; i++) {
		struct inventory_message m = { .octets = 100, .uid = text, .uid_length = 3 };
		int n = snprintf(text, sizeof text, "u%02u From a@b Thu Jan  1 00:00:00 1970\nSubject: %u\nStatus: RO\n\nbody\n\n", i, i);
		assert_int_equal(pwrite(mbox, text + 4, (size_t)n - 4, at), n - 4);
		const char *start = strchr(text, '\n') + 1;
		m.offset = (uint64_t)(at + (start - text) - 4);
		m.length = (uint64_t)(text + n - 1 - start);
		content_begin(h);
		content_add(h, start, m.length);
		content_end(h, m.fingerprint);
		assert_int_equal(inventory_add(inv, &m), 0);
		at += n - 4;
	}
	assert_int_equal(pwrite(mbox, "From b@c Thu Jan  1 00:00:00 1970\n\nnew\n", 39, at), 39);
	assert_true(inventory_holds(inv, mbox));
	const struct catalogue_row *last = inventory_row(inv, 19);
	assert_int_equal(pwrite(mbox, "X", 1, (off_t)(last->offset + last->length - 2)), 1);
	assert_false(inventory_holds(inv, mbox));
	assert_int_equal(pwrite(mbox, "y", 1, (off_t)(last->offset + last->length - 2)), 1);
	assert_true(inventory_holds(inv, mbox));
	/* flags in place do not matter, a shifted message does, and so does one that is cut off */
	assert_int_equal(pwrite(mbox, "OR", 2, (off_t)last->offset + 20), 2);
	assert_true(inventory_holds(inv, mbox));
	assert_int_equal(pwrite(mbox, "x", 1, (off_t)last->offset - 1), 1);
	assert_false(inventory_holds(inv, mbox));
	assert_int_equal(ftruncate(mbox, (off_t)last->offset + 5), 0);
	assert_false(inventory_holds(inv, mbox));
	free(h);
	inventory_free(inv);
	close(mbox);
}

/* How much of it was not read since the mailbox grew is remembered, and goes down with what is removed. */
static void
test_inherited(void **state)
{
	(void)state;
	int fd = file_new();
	struct inventory *inv = three(false);

	publish(inv);
	store(fd, inv, MAILDROP_MBOX);
	inventory_free(inv);
	assert_non_null(inv = load(fd, MAILDROP_MBOX, CONTEXT));
	assert_int_equal(inventory_inherited(inv), 0);
	inventory_inherit(inv);
	add(inv, "delta", NULL, 300, 7);
	publish(inv);
	store(fd, inv, MAILDROP_MBOX);
	inventory_free(inv);
	assert_non_null(inv = load(fd, MAILDROP_MBOX, CONTEXT));
	assert_int_equal(inventory_count(inv), 4);
	assert_int_equal(inventory_inherited(inv), 3);
	publish(inv);
	const uint8_t gone[4] = { 0, 1, 0, 1 };
	inv = inventory_without(inv, gone);
	assert_int_equal(inventory_inherited(inv), 2);
	store(fd, inv, MAILDROP_MBOX);
	inventory_free(inv);
	assert_non_null(inv = load(fd, MAILDROP_MBOX, CONTEXT));
	assert_int_equal(inventory_inherited(inv), 2);
	inventory_free(inv);
	close(fd);
}

/* Two large messages of one length have changed places. */
static void
test_holds_large(void **state)
{
	(void)state;
	enum { SIZE = 5 << 20 };
	static const char from[] = "From a@b Thu Jan  1 00:00:00 1970\n", uids[] = "abc";
	int mbox = file_new();
	struct content_hash *h = content_new();
	struct inventory *inv = inventory_new();
	char *text = malloc(SIZE);
	off_t at = 0;

	for (int i = 0; i < 5; i++) {
		size_t size = i < 2 ? SIZE : 100;
		struct inventory_message m = { .octets = size, .uid = &uids[i % 3], .uid_length = 1, .length = size };
		memset(text, 'a' + i, size);
		text[size - 1] = '\n';
		assert_int_equal(pwrite(mbox, from, sizeof from - 1, at), sizeof from - 1);
		at += (off_t)sizeof from - 1;
		m.offset = (uint64_t)at;
		assert_int_equal(pwrite(mbox, text, size, at), size);
		at += (off_t)size;
		content_begin(h);
		content_add(h, text, size);
		content_end(h, m.fingerprint);
		assert_int_equal(inventory_add(inv, &m), 0);
	}
	assert_int_equal(pwrite(mbox, from, sizeof from - 1, at), sizeof from - 1);
	assert_true(inventory_holds(inv, mbox));
	for (uint32_t i = 0; i < 2; i++) {
		memset(text, 'b' - (int)i, SIZE);
		text[SIZE - 1] = '\n';
		assert_int_equal(pwrite(mbox, text, SIZE, (off_t)inventory_row(inv, i)->offset), SIZE);
	}
	assert_false(inventory_holds(inv, mbox));
	free(text);
	free(h);
	inventory_free(inv);
	close(mbox);
}

static void
test_stamps(void **state)
{
	(void)state;
	const int64_t s = 1000000000;
	struct stamp then = { .device = 1, .inode = 2, .size = 100, .mtime = 50 * s + 7, .ctime = 50 * s + 7, .taken = 60 * s }, now = then;
	const struct stamp none = { 0 };

	assert_int_equal(stamp_compare(&then, &now), STAMP_SAME);
	assert_int_equal(stamp_compare(&none, &none), STAMP_CHANGED);
	now.size = 101;
	assert_int_equal(stamp_compare(&then, &now), STAMP_GROWN);
	now.size = 99;
	assert_int_equal(stamp_compare(&then, &now), STAMP_CHANGED);
	now = then;
	now.mtime++;
	assert_int_equal(stamp_compare(&then, &now), STAMP_CHANGED);
	now = then;
	now.ctime++;
	assert_int_equal(stamp_compare(&then, &now), STAMP_CHANGED);
	now = then;
	now.inode++;
	now.size++;
	assert_int_equal(stamp_compare(&then, &now), STAMP_CHANGED);
	now = then;
	now.device++;
	assert_int_equal(stamp_compare(&then, &now), STAMP_CHANGED);
	/* racy: it was changed in the moment in which it was looked at */
	now = then;
	then.taken = then.mtime + 5000000;
	assert_int_equal(stamp_compare(&then, &now), STAMP_CHANGED);
	then.taken = then.mtime - 5 * s;
	assert_int_equal(stamp_compare(&then, &now), STAMP_CHANGED);
	then.taken = then.mtime + s / 10;
	assert_int_equal(stamp_compare(&then, &now), STAMP_SAME);
	/* times in whole seconds: the filesystem has no finer ones */
	then.mtime = then.ctime = now.mtime = now.ctime = 50 * s;
	then.taken = 51 * s;
	assert_int_equal(stamp_compare(&then, &now), STAMP_CHANGED);
	then.taken = 53 * s;
	assert_int_equal(stamp_compare(&then, &now), STAMP_SAME);
}

/* A directory as it really is: a file in it changes the stamp, and a stamp of the same moment is not trusted. */
static void
test_stamp_taken(void **state)
{
	(void)state;
	char path[] = "/tmp/postern-unit-XXXXXX", file[64];
	assert_non_null(mkdtemp(path));
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stamp before, after;
	const struct timespec old[2] = { { 1700000000, 123 }, { 1700000000, 123 } };

	assert_int_equal(stamp_take(&before, fd), 0);
	assert_int_equal(stamp_compare(&before, &before), STAMP_CHANGED);
	assert_int_equal(futimens(fd, old), 0);
	assert_int_equal(stamp_take(&before, fd), 0);
	before.ctime = before.mtime;	/* which nobody can set back */
	after = before;
	assert_int_equal(stamp_compare(&before, &after), STAMP_SAME);
	snprintf(file, sizeof file, "%s/file", path);
	close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(stamp_take(&after, fd), 0);
	assert_int_not_equal(stamp_compare(&before, &after), STAMP_SAME);
	unlink(file);
	rmdir(path);
	close(fd);
	assert_int_equal(stamp_take(&after, fd), -1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round), cmocka_unit_test(test_empty), cmocka_unit_test(test_foreign), cmocka_unit_test(test_torn),
		cmocka_unit_test(test_interrupted), cmocka_unit_test(test_grown), cmocka_unit_test(test_large), cmocka_unit_test(test_shrunk),
		cmocka_unit_test(test_two_writers), cmocka_unit_test(test_full), cmocka_unit_test(test_twins),
		cmocka_unit_test(test_many_twins), cmocka_unit_test(test_maildir_names), cmocka_unit_test(test_holds), cmocka_unit_test(test_holds_large),
		cmocka_unit_test(test_inherited),
		cmocka_unit_test(test_stamps), cmocka_unit_test(test_stamp_taken),
	};

	/* a write beyond the limit is an error here, not a signal */
	signal(SIGXFSZ, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
