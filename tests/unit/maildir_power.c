/*
 * Power cuts in the UPDATE of a Maildir: what is renamed, removed, written to the journal and synced is written down; from that list every
 * state is made that the disk may hold behind any part of it, another session opens that, and the maildrop is as it was or as it was to be,
 * plus what was delivered. So it is, too, when the power goes once more in that session.
 *
 * Assumed of the file system: a name that was renamed is under one of its two names, whichever, until one of the two directories is synced;
 * names that were removed, and what was written and not synced, may be there or not, a write also in part; all in any order. What was synced
 * is there. A journal's name is on disk when it is handed over (spoold/grant.c syncs its directory), and that it was dropped may not be.
 *
 * And faults, by count: the first, second, third ... of these calls, or of those for memory, fails, or all from it on, until an UPDATE meets none; and
 * with another program that has renamed messages meanwhile, and an archive that has such names already.
 *
 * And what an UPDATE takes of memory, by message.
 *
 * links: spoold/archive.c spoold/mbox.c spoold/mbox_look.c spoold/mbox_update.c spoold/locked.c spoold/flag.c spoold/path.c spoold/maildir.c spoold/maildir_scan.c spoold/maildir_update.c spoold/listing.c spoold/intent.c spoold/maildrop.c spoold/view.c spoold/expire.c spoold/age.c spoold/scan.c spoold/lock.c spoold/journal.c
 * links: spoold/cache.c spoold/inventory.c spoold/uidl.c spoold/content.c spoold/oldids.c
 * links: lib/catalogue.c lib/conf.c lib/log.c lib/messages.c lib/system.c lib/wire.c
 * libs: -lnettle -lxxhash -Wl,--wrap=renameat2,--wrap=renameat,--wrap=unlinkat,--wrap=unlink,--wrap=fsync,--wrap=pwrite,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free
 */
#undef _FORTIFY_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "log.h"
#include "system.h"

#include "../ask_stub.h"
#include "../../spoold/maildrop.h"

#define MESSAGES	6
#define FILES_MAX	32
#define OPS_MAX		256
#define NAME		96

enum { DIRS = 4, JOURNAL = DIRS };
static const char *const dirs[DIRS] = { "new/", "cur/", "tmp/", ".Archive/cur/" };

enum kind { RENAME, UNLINK, SYNC, WRITE, DROP };
struct op {
	enum kind kind;
	int dir;			/* SYNC: of dirs, or JOURNAL */
	char from[NAME], to[NAME];
	off_t at;
	size_t length;
	uint8_t octets[1024];
};
enum fate { DONE, MISSING, HALF };

/* What a disk holds. */
struct world {
	char name[FILES_MAX][NAME];	/* empty: none */
	char text[FILES_MAX][16];
	bool journal;
	size_t length;
	uint8_t octets[2048];
};

static struct op ops[OPS_MAX];
static size_t count;
static bool recording;
static unsigned long cuts, faults;
static unsigned long most = 128;		/* states behind one operation that are tried: all, or so many of them. MAILDIR_LONG=1: more */
static unsigned nested = 20;		/* and of so many, in one the power goes in the recovery, too */
static char what[200];

/* The call that fails, and how; FAIL_SHORT: a write ends in its midst, and the next one has no room. */
#define FAIL_SHORT (-1)
static int fail_how;			/* an errno; 0: nothing does */
static unsigned long fail_at, calls;
static bool fail_on;			/* and all that follow */

static char directory[] = "/tmp/postern-power-XXXXXX";
static int root;
static struct conf conf;
static struct grant grant;
static struct maildrop m;
static struct kept kept;

int __real_renameat2(int, const char *, int, const char *, unsigned);
int __real_renameat(int, const char *, int, const char *);
int __real_unlinkat(int, const char *, int);
int __real_unlink(const char *);
ssize_t __real_pwrite(int, const void *, size_t, off_t);
void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
int __wrap_renameat2(int, const char *, int, const char *, unsigned);
int __wrap_renameat(int, const char *, int, const char *);
int __wrap_unlinkat(int, const char *, int);
int __wrap_unlink(const char *);
int __wrap_fsync(int);
ssize_t __wrap_pwrite(int, const void *, size_t, off_t);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
void __real_free(void *);
void __wrap_free(void *);

static bool
fails(void)
{
	if (fail_how == 0 || ++calls < fail_at || (calls > fail_at && !fail_on))
		return false;
	errno = fail_how == FAIL_SHORT ? ENOSPC : fail_how;
	return true;
}

static bool
fails_memory(void)
{
	if (!fails())
		return false;
	errno = ENOMEM;
	return true;
}

/* What is had of it, and was at its most, in octets. */
static ptrdiff_t memory, memory_most;

static void *
counted(void *had)
{
	memory += (ptrdiff_t)malloc_usable_size(had);
	memory_most = memory > memory_most ? memory : memory_most;
	return had;
}

void *
__wrap_malloc(size_t size)
{
	return fails_memory() ? NULL : counted(__real_malloc(size));
}

void *
__wrap_calloc(size_t count_of, size_t size)
{
	return fails_memory() ? NULL : counted(__real_calloc(count_of, size));
}

void *
__wrap_realloc(void *old, size_t size)
{
	size_t before = malloc_usable_size(old);

	if (fails_memory())
		return NULL;
	memory -= (ptrdiff_t)before;
	return counted(__real_realloc(old, size));
}

void
__wrap_free(void *had)
{
	memory -= (ptrdiff_t)malloc_usable_size(had);
	__real_free(had);
}

static int
dir_of(const char *name)
{
	for (int i = 0; i < DIRS; i++)
		if (strncmp(name, dirs[i], strlen(dirs[i])) == 0)
			return i;
	return -1;
}

static bool
same_file(int fd, int at, const char *name)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && fstatat(at, name, &b, 0) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static struct op *
note(enum kind kind, const char *from, const char *to)
{
	struct op *o = &ops[count];

	assert_true(count < OPS_MAX);
	count++;
	memset(o, 0, sizeof *o);
	o->kind = kind;
	if (from != NULL)
		assert_true(string_copy(o->from, sizeof o->from, from));
	if (to != NULL)
		assert_true(string_copy(o->to, sizeof o->to, to));
	return o;
}

static int
renamed(int result, const char *from, const char *to)
{
	if (result == 0 && recording) {
		assert_true(dir_of(from) != -1 && dir_of(to) != -1);
		note(RENAME, from, to);
	}
	return result;
}

int
__wrap_renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
	return fails() ? -1 : renamed(__real_renameat2(a, from, b, to, flags), from, to);
}

int
__wrap_renameat(int a, const char *from, int b, const char *to)
{
	return fails() ? -1 : renamed(__real_renameat(a, from, b, to), from, to);
}

int
__wrap_unlinkat(int at, const char *name, int flags)
{
	int result = fails() ? -1 : __real_unlinkat(at, name, flags);

	if (result == 0 && recording && dir_of(name) != -1)
		note(UNLINK, name, NULL);
	return result;
}

/* The stub of the parent drops a journal so. */
int
__wrap_unlink(const char *path)
{
	int result = __real_unlink(path);

	if (result == 0 && recording && strcmp(path, journal_path) == 0)
		note(DROP, NULL, NULL);
	return result;
}

/* Nothing is synced in truth: it would take long. */
int
__wrap_fsync(int fd)
{
	if (recording && same_file(fd, AT_FDCWD, journal_path))
		note(SYNC, NULL, NULL)->dir = JOURNAL;
	for (int i = 0; recording && i < DIRS; i++)
		if (same_file(fd, root, dirs[i]))
			note(SYNC, NULL, NULL)->dir = i;
	return fails() ? -1 : 0;
}

ssize_t
__wrap_pwrite(int fd, const void *octets, size_t length, off_t at)
{
	bool failing = fails();
	ssize_t n = failing && (fail_how != FAIL_SHORT || length < 2) ? -1 : __real_pwrite(fd, octets, failing ? length / 2 : length, at);

	if (n > 0 && recording && same_file(fd, AT_FDCWD, journal_path)) {
		struct op *o = note(WRITE, NULL, NULL);
		assert_true((size_t)n <= sizeof o->octets);
		o->at = at;
		o->length = (size_t)n;
		memcpy(o->octets, octets, (size_t)n);
	}
	return n;
}

/* ---- worlds */

static void
world_add(struct world *w, const char *name, const char *text)
{
	for (int i = 0; i < FILES_MAX; i++)
		if (w->name[i][0] == '\0') {
			snprintf(w->name[i], NAME, "%s", name);
			snprintf(w->text[i], sizeof w->text[i], "%s", text);
			return;
		}
	fail();
}

static int
world_find(const struct world *w, const char *name)
{
	for (int i = 0; i < FILES_MAX; i++)
		if (strcmp(w->name[i], name) == 0)
			return i;
	return -1;
}

static void
world_do(struct world *w, const struct op *o, enum fate fate)
{
	int i = o->from[0] != '\0' ? world_find(w, o->from) : -1;

	if (fate == MISSING)
		return;
	if (o->kind == RENAME && i != -1) {
		assert_int_equal(world_find(w, o->to), -1);
		snprintf(w->name[i], NAME, "%s", o->to);
	} else if (o->kind == UNLINK && i != -1) {
		w->name[i][0] = '\0';
	} else if (o->kind == DROP) {
		w->journal = false;
		w->length = 0;
	} else if (o->kind == WRITE) {
		size_t length = fate == HALF ? o->length / 2 : o->length;
		assert_true((size_t)o->at + length <= sizeof w->octets);
		w->journal = true;
		memcpy(w->octets + o->at, o->octets, length);
		w->length = (size_t)o->at + length > w->length ? (size_t)o->at + length : w->length;
	}
}

static void
write_file(int at, const char *name, const void *octets, size_t length)
{
	int fd = openat(at, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_not_equal(fd, -1);
	assert_int_equal(write(fd, octets, length), length);
	close(fd);
}

static void
each_file(void (*each)(const char *name, void *data), void *data)
{
	char name[NAME + 256];

	for (int i = 0; i < DIRS; i++) {
		int fd = openat(root, dirs[i], O_RDONLY | O_DIRECTORY);
		DIR *d = fdopendir(fd);
		const struct dirent *e;
		assert_non_null(d);
		while ((e = readdir(d)) != NULL)
			if (e->d_name[0] != '.') {
				snprintf(name, sizeof name, "%s%s", dirs[i], e->d_name);
				each(name, data);
			}
		closedir(d);
	}
}

static void
remove_one(const char *name, void *data)
{
	(void)data;
	assert_int_equal(__real_unlinkat(root, name, 0), 0);
}

static void
world_put(const struct world *w)
{
	each_file(remove_one, NULL);
	__real_unlink(journal_path);
	__real_unlink(cache_path);
	for (int i = 0; i < FILES_MAX; i++)
		if (w->name[i][0] != '\0')
			write_file(root, w->name[i], w->text[i], strlen(w->text[i]));
	if (w->journal)
		write_file(AT_FDCWD, journal_path, w->octets, w->length);
}

static void
take_one(const char *name, void *data)
{
	char text[16] = "";
	int fd = openat(root, name, O_RDONLY);

	assert_true(read(fd, text, sizeof text - 1) >= 0);
	close(fd);
	world_add(data, name, text);
}

static void
world_take(struct world *w)
{
	memset(w, 0, sizeof *w);
	each_file(take_one, w);
}

/* ---- sessions */

static void
drop_open(void)
{
	assert_int_equal(maildrop_open(&m, &conf, &grant, false, &kept), 0);
	assert_int_equal(maildrop_scan(&m), 0);
	m.store->remember(&m);
}

static void
drop_close(void)
{
	m.store->remember(&m);
	m.store->release(&m);
	m.store->close(&m);
	cache_close(m.cache);
	if (m.cache_fd != -1)
		close(m.cache_fd);
	if (m.catalogue != -1)
		close(m.catalogue);
	inventory_free(m.inventory);
	uidl_close(m.uidl);
}

static int
update(const char *marks_text, int how, struct tally *t)
{
	uint8_t marks[MESSAGES];
	int result, fd = sealed_create("marks");


	for (int i = 0; i < MESSAGES; i++)
		marks[i] = marks_text[i] == 'D' ? MARK_DELETED : marks_text[i] == 'R' ? MARK_RETRIEVED : 0;
	assert_int_equal(write(fd, marks, MESSAGES), MESSAGES);
	assert_int_equal(sealed_finish(fd), 0);
	calls = 0;
	fail_how = how;
	result = maildrop_update(&m, fd, MESSAGES, false, t);
	fail_how = 0;
	close(fd);
	return result;
}

/* ---- power cuts */

/* May this not be on the disk, if the power goes behind `end`? */
static bool
is_pending(size_t op, size_t end)
{
	const struct op *o = &ops[op];

	if (o->kind == SYNC)
		return false;
	for (size_t i = op + 1; i < end; i++)
		if (ops[i].kind == SYNC && (ops[i].dir == JOURNAL ? o->kind == WRITE :
		    (o->kind == RENAME || o->kind == UNLINK) && (ops[i].dir == dir_of(o->from) || (o->kind == RENAME && ops[i].dir == dir_of(o->to)))))
			return false;
	return true;
}

static void
say(const struct world *w)
{
	print_error("%s\n", what);
	for (int i = 0; i < FILES_MAX; i++)
		if (w->name[i][0] != '\0')
			print_error("  %s: %s\n", w->name[i], w->text[i]);
	for (size_t i = 0; i < count; i++)
		print_error("  op %zu: %d %s %s %d\n", i, (int)ops[i].kind, ops[i].from, ops[i].to, ops[i].dir);
}

/* As it was, or as it was to be; and then the archive has what is gone, and else nothing. */
static void
check(const char *marks, bool must_be_after)
{
	struct world w;
	int in[MESSAGES + 1] = { 0 }, archived[MESSAGES + 1] = { 0 };
	bool before = true, after = true;

	world_take(&w);
	for (int i = 0; i < FILES_MAX; i++) {
		int dir = w.name[i][0] != '\0' ? dir_of(w.name[i]) : 2;
		unsigned long which = strtoul(w.text[i], NULL, 10);
		if (w.text[i][0] == 'a')
			continue;			/* it was in the archive before */
		if (w.name[i][0] != '\0' && strncmp(w.name[i], "tmp/postern.", 12) == 0)
			before = after = false;		/* who opens it sweeps it */
		if (dir == 2)
			continue;
		assert_true(which <= MESSAGES);
		(dir == 3 ? archived : in)[which]++;
	}
	for (int i = 0; i < MESSAGES; i++) {
		/* what was retrieved goes to the archive as well */
		bool marked = marks[i] == 'D' || (marks[i] == 'R' && grant.server_copy == COPY_ARCHIVE);
		before = before && in[i] == 1 && archived[i] == 0;
		after = after && in[i] == !marked && archived[i] == (marked && grant.server_copy == COPY_ARCHIVE);
	}
	if (in[MESSAGES] != 1 || archived[MESSAGES] != 0 || !(after || (before && !must_be_after))) {
		say(&w);
		fail();
	}
}

static void cut_everywhere(const struct world *base, const char *marks, size_t told, bool again);

/* A session after the power cut: it recovers. */
static void
recover(const struct world *w, const char *marks, bool must_be_after, bool again)
{
	world_put(w);
	cuts++;
	if (again) {
		/* the power goes in it, too */
		struct op *saved = malloc(sizeof ops);
		size_t saved_count = count;
		assert_non_null(saved);
		memcpy(saved, ops, sizeof ops);
		count = 0;
		recording = true;
		drop_open();
		drop_close();
		recording = false;
		check(marks, must_be_after);
		cut_everywhere(w, marks, must_be_after ? 0 : SIZE_MAX, false);
		memcpy(ops, saved, sizeof ops);
		count = saved_count;
		free(saved);
		world_put(w);
	}
	drop_open();
	drop_close();
	check(marks, must_be_after);
}

/* What may have become of it. */
static unsigned long
fates(const struct op *o)
{
	return o->kind == WRITE ? 3 : 2;
}

/* One of the states behind `end`; `which` says of each that is pending what became of it. */
static void
cut_once(const struct world *base, const char *marks, size_t end, unsigned long which, bool must_be_after, bool again)
{
	struct world w = *base;

	for (size_t i = 0; i < end; i++) {
		enum fate fate = DONE;
		if (is_pending(i, end)) {
			fate = (enum fate)(which % fates(&ops[i]));
			which /= fates(&ops[i]);
		}
		world_do(&w, &ops[i], fate);
	}
	/* what came after the crash, unless it has come already */
	if (world_find(&w, "new/2000000000.M1P1.h") == -1 && world_find(&w, "cur/2000000000.M1P1.h:2,") == -1)
		world_add(&w, "new/2000000000.M1P1.h", "6");
	recover(&w, marks, must_be_after, again);
}

static void
cut_everywhere(const struct world *base, const char *marks, size_t told, bool again)
{
	static unsigned turn;

	for (size_t end = 0; end <= count; end++) {
		unsigned long states = 1;
		for (size_t i = 0; i < end && states < 1ul << 32; i++)
			states *= is_pending(i, end) ? fates(&ops[i]) : 1;
		unsigned long step = states / most + 1;
		for (unsigned long which = 0; which < states; which += step) {
			snprintf(what, sizeof what, "%s%s, %s, cut behind %zu of %zu, state %lu", marks, grant.server_copy == COPY_ARCHIVE ? ", archive" : "",
			    again ? "in the UPDATE" : "in the recovery", end, count, which);
			cut_once(base, marks, end, which, end >= told, again && turn++ % nested == 0);
		}
	}
}

static void
world_begin(struct world *w)
{
	char name[NAME], text[4];

	memset(w, 0, sizeof *w);
	for (int i = 0; i < MESSAGES; i++) {
		snprintf(name, sizeof name, i % 2 == 0 ? "new/%d.M1P1.h" : "cur/%d.M1P1.h:2,S", 1000000000 + i);
		snprintf(text, sizeof text, "%d", i);
		world_add(w, name, text);
	}
}

static void
update_and_cut(const char *marks, int server_copy)
{
	struct world base;
	struct tally t;

	world_begin(&base);
	grant.server_copy = server_copy;
	world_put(&base);
	drop_open();
	count = 0;
	recording = true;
	assert_int_equal(update(marks, 0, &t), 0);
	assert_false(t.deferred);
	size_t told = count;
	drop_close();
	recording = false;
	assert_true(count > 1);
	cut_everywhere(&base, marks, told, true);
}

static const char *const patterns[] = { "D-----", "--D---", "-----D", "D-D-D-", "DDDDDD", "DRDRDR", "RDRRRR", "-DD---" };

static void
test_power(void **state)
{
	(void)state;
	if (getenv("MAILDIR_LONG") != NULL) {
		most = 1024;
		nested = 8;
	}
	for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
		update_and_cut(patterns[i], COPY_AS_CLIENT_SAYS);
		update_and_cut(patterns[i], COPY_ARCHIVE);
	}
	print_message("%lu power cuts\n", cuts);
}

/* By another program, after the session has begun. */
enum { RENAMED = 3 };
static const char *const renamed_from[RENAMED] = { "new/1000000000.M1P1.h", "cur/1000000001.M1P1.h:2,S", "new/1000000004.M1P1.h" };
static const char *const renamed_to[RENAMED] = { "cur/1000000000.M1P1.h:2,F", "cur/1000000001.M1P1.h:2,RS", "cur/1000000004.M1P1.h:2," };

/* An UPDATE in which something fails, if it comes to so many calls: false if it did not. What it says is so once the fault is over. */
static bool
update_and_fail(const char *marks, int server_copy, int how, bool others)
{
	struct world base;
	struct tally t;

	world_begin(&base);
	world_add(&base, "new/2000000000.M1P1.h", "6");
	grant.server_copy = server_copy;
	for (int i = 0; others && i < 4; i += 2)
		world_add(&base, i == 0 ? ".Archive/cur/1000000000.M1P1.h:2,F" : ".Archive/cur/1000000002.M1P1.h:2,", "a");
	world_put(&base);
	__real_unlinkat(root, "new/2000000000.M1P1.h", 0);
	drop_open();
	write_file(root, "new/2000000000.M1P1.h", "6", 1);
	for (size_t i = 0; others && i < RENAMED; i++)
		assert_int_equal(__real_renameat(root, renamed_from[i], root, renamed_to[i]), 0);
	bool told = update(marks, how, &t) == 0 && t.left == 0;
	if (t.deferred && fail_at % 2 == 0)
		m.store->complete(&m);	/* by the same worker; else by the next one */
	drop_close();
	/* what was put back is as the other program has left it */
	for (size_t i = 0; others && i < RENAMED; i++)
		assert_int_equal(faccessat(root, renamed_from[i], F_OK, 0), -1);
	bool met = calls >= fail_at;
	faults += met;
	drop_open();
	drop_close();
	check(marks, told);
	return met;
}

static void
test_faults(void **state)
{
	static const int hows[] = { EIO, ENOSPC, EDQUOT, EROFS, FAIL_SHORT };

	(void)state;
	for (size_t i = 0; i < sizeof patterns / sizeof patterns[0] * 2; i++)
		for (size_t h = 0; h < sizeof hows / sizeof hows[0] * 2 + 2; h++) {
			bool met = true, others = h / 2 == sizeof hows / sizeof hows[0];
			int how = others ? EIO : hows[h / 2];
			for (fail_at = 1; met; fail_at++) {
				int copy = i % 2 == 0 ? COPY_AS_CLIENT_SAYS : COPY_ARCHIVE;
				fail_on = h % 2 == 1;
				snprintf(what, sizeof what, "%s%s%s, call %lu%s fails, %d", patterns[i / 2], copy == COPY_ARCHIVE ? ", archive" : "",
				    others ? ", renamed" : "", fail_at, fail_on ? " and all that follow" : "", how);
				met = update_and_fail(patterns[i / 2], copy, how, others);
			}
			assert_true(fail_at > 3);
		}
	print_message("%lu faults\n", faults);
}

enum { FEW = 50, MANY = 2000 };
#define A_MESSAGE 16		/* octets of memory that an UPDATE may take for each, beside rows that are copied (inventory_without) */

/* What an UPDATE takes that removes all of so many messages, or every second one. */
static ptrdiff_t
memory_of(int of, bool all, int server_copy)
{
	static const struct world empty;
	uint8_t marks[MANY];
	char name[NAME];
	struct tally t;
	int fd = sealed_create("marks");

	world_put(&empty);
	grant.server_copy = server_copy;
	for (int i = 0; i < of; i++) {
		snprintf(name, sizeof name, "cur/%d.M%dP12345.mail.example.org,S=1,W=1:2,S", 1000000000 + i, i);
		write_file(root, name, "7", 1);
		marks[i] = all || i % 2 == 0 ? MARK_DELETED : 0;
	}
	assert_int_equal(write(fd, marks, (size_t)of), of);
	assert_int_equal(sealed_finish(fd), 0);
	drop_open();
	ptrdiff_t before = memory_most = memory;
	assert_int_equal(maildrop_update(&m, fd, (uint32_t)of, false, &t), 0);
	assert_int_equal(t.deleted, all ? of : of / 2);
	if (t.deferred)
		m.store->complete(&m);
	m.store->remember(&m);
	if (m.store->untidy(&m))
		m.store->sweep(&m);
	ptrdiff_t most_now = memory_most - before;
	close(fd);
	drop_close();
	return most_now;
}

/* No list of names is made. */
static void
test_memory(void **state)
{
	(void)state;
	for (int way = 0; way < 4; way++) {
		int copy = way / 2 == 0 ? COPY_AS_CLIENT_SAYS : COPY_ARCHIVE;
		ptrdiff_t grown = memory_of(MANY, way % 2 == 0, copy) - memory_of(FEW, way % 2 == 0, copy);
		print_message("%s, %s: %.1f octets a message\n", way % 2 == 0 ? "all" : "every second", way / 2 == 0 ? "deleted" : "archived",
		    (double)grown / (MANY - FEW));
		assert_true(grown < A_MESSAGE * (MANY - FEW));
	}
}

static int
set_up(void **state)
{
	char error[256];

	(void)state;
	if (sodium_init() == -1 || mkdtemp(directory) == NULL || conf_load(&conf, "/nonexistent", true, error, sizeof error) == -1)
		return -1;
	snprintf(journal_path, sizeof journal_path, "%s/journal", directory);
	snprintf(cache_path, sizeof cache_path, "%s/cache", directory);
	snprintf(grant.maildir, sizeof grant.maildir, "%s/Maildir", directory);
	string_copy(grant.user, sizeof grant.user, "u");
	grant.uid = geteuid();
	grant.kind = STORE_MAILDIR;
	conf.log_level = LOG_EMERG;
	conf.log = LOG_TO_STDERR;
	log_open(&conf, -1);
	if (mkdir(grant.maildir, 0700) == -1 || (root = open(grant.maildir, O_RDONLY | O_DIRECTORY)) == -1)
		return -1;
	mkdirat(root, ".Archive", 0700);
	mkdirat(root, ".Archive/new", 0700);
	mkdirat(root, ".Archive/tmp", 0700);
	write_file(root, ".Archive/maildirfolder", "", 0);
	for (int i = 0; i < DIRS; i++)
		if (mkdirat(root, dirs[i], 0700) == -1)
			return -1;
	return 0;
}

static int
tear_down(void **state)
{
	static const char *const made[] = { ".Archive/cur", ".Archive/new", ".Archive/tmp", ".Archive", "new", "cur", "tmp" };

	(void)state;
	each_file(remove_one, NULL);
	__real_unlink(journal_path);
	__real_unlink(cache_path);
	__real_unlinkat(root, ".Archive/maildirfolder", 0);
	for (size_t i = 0; i < sizeof made / sizeof made[0]; i++)
		__real_unlinkat(root, made[i], AT_REMOVEDIR);
	close(root);
	return rmdir(grant.maildir) | rmdir(directory);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_memory),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
