/*
 * The Maildir store: which files are messages and in what order, what their names tell, and what an UPDATE does while others rename and
 * remove. The parent's answers are stubs; everything else is the real thing, in a directory of its own.
 * links: spoold/archive.c spoold/mbox.c spoold/mbox_look.c spoold/mbox_update.c spoold/locked.c spoold/flag.c spoold/path.c spoold/maildir.c spoold/maildir_scan.c spoold/maildir_update.c spoold/listing.c spoold/intent.c spoold/maildrop.c spoold/view.c spoold/expire.c spoold/age.c spoold/scan.c spoold/lock.c spoold/journal.c
 * links: spoold/cache.c spoold/inventory.c spoold/uidl.c spoold/content.c spoold/oldids.c
 * links: lib/catalogue.c lib/conf.c lib/log.c lib/messages.c lib/system.c lib/wire.c
 * libs: -lnettle -lxxhash
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "log.h"
#include "system.h"

#include "../ask_stub.h"
#include "../../spoold/intent.h"
#include "../../spoold/listing.h"
#include "../../spoold/maildrop.h"

static char directory[] = "/tmp/postern-maildir-XXXXXX";
static int root;

/* What a reading of cur/ does not give, if it is this one; and each, once there is one, is a time at which somebody renames there. */
static const char *hidden;
static unsigned hidden_in, reading;

struct dirent *
readdir(DIR *d)
{
	static struct dirent *(*really)(DIR *);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1600000000 } };
	struct stat st, cur;
	struct dirent *e;

	if (really == NULL)
		*(void **)&really = dlsym(RTLD_NEXT, "readdir");
	if (hidden == NULL || fstatat(root, "cur", &cur, 0) == -1 || fstat(dirfd(d), &st) == -1 || st.st_ino != cur.st_ino)
		return really(d);
	while ((e = really(d)) != NULL && reading + 1 == hidden_in && strcmp(e->d_name, hidden) == 0)
		continue;
	if (e == NULL) {
		times[1].tv_sec += ++reading;
		assert_int_equal(utimensat(root, "cur", times, 0), 0);
	}
	return e;
}

static const char *unreadable;

int test_openat(int directory, const char *name, int flags, ...) __asm__("openat");
int
test_openat(int at, const char *name, int flags, ...)
{
	static int (*really)(int, const char *, int, ...);
	va_list rest;

	if (really == NULL)
		*(void **)&really = dlsym(RTLD_NEXT, "openat");
	if (unreadable != NULL && strcmp(name, unreadable) == 0) {
		errno = EIO;
		return -1;
	}
	va_start(rest, flags);
	unsigned mode = (flags & O_CREAT) != 0 ? va_arg(rest, unsigned) : 0;
	va_end(rest);
	return really(at, name, flags, mode);
}

static struct conf conf;
static struct grant grant;
static struct maildrop m;
static struct kept kept;

static int
set_up_all(void **state)
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
	return 0;
}

static int
tear_down_all(void **state)
{
	(void)state;
	return rmdir(directory);
}

static int
set_up(void **state)
{
	(void)state;
	assert_int_equal(mkdir(grant.maildir, 0700), 0);
	root = open(grant.maildir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(mkdirat(root, "new", 0700) | mkdirat(root, "cur", 0700) | mkdirat(root, "tmp", 0700), 0);
	keep_journal = false;
	return 0;
}

static void
empty(const char *part)
{
	int fd = openat(root, part, O_RDONLY | O_DIRECTORY);
	DIR *d = fdopendir(fd);
	const struct dirent *e;

	while ((e = readdir(d)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlinkat(fd, e->d_name, 0) == -1)
			unlinkat(fd, e->d_name, AT_REMOVEDIR);
	closedir(d);
	unlinkat(root, part, AT_REMOVEDIR);
}

static int
tear_down(void **state)
{
	(void)state;
	empty("new");
	empty("cur");
	empty("tmp");
	close(root);
	unlink(journal_path);
	unlink(cache_path);
	return rmdir(grant.maildir);
}

static void
put(const char *name, const char *text)
{
	int fd = openat(root, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_not_equal(fd, -1);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static bool
there(const char *name)
{
	return faccessat(root, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void
open_drop(void)
{
	assert_int_equal(maildrop_open(&m, &conf, &grant, false, &kept), 0);
	assert_int_equal(maildrop_scan(&m), 0);
	m.store->remember(&m);
}

static void
close_drop(void)
{
	m.store->remember(&m);
	close(m.catalogue);
	maildrop_close(&m);
	inventory_free(kept.inventory);	/* for a worker that lingers; here each open is the first */
	kept = (struct kept){ 0 };
}

static void
assert_names(const char *const *names)
{
	struct inventory_message im;
	uint32_t i = 0;

	for (; names[i] != NULL; i++) {
		assert_true(i < maildrop_count(&m));
		assert_int_equal(inventory_get(m.inventory, i, &im), 0);
		assert_int_equal(im.name_length, strlen(names[i]));
		assert_memory_equal(im.name, names[i], im.name_length);
	}
	assert_int_equal(maildrop_count(&m), i);
}
#define NAMES(...) assert_names((const char *const []){ __VA_ARGS__, NULL })

/* D deletes, R is retrieved, - is neither. */
static int
update(const char *what, struct tally *t)
{
	int fd = sealed_create("marks");
	uint8_t marks[16] = { 0 };
	uint32_t count = maildrop_count(&m);

	for (uint32_t i = 0; i < count; i++)
		marks[i] = what[i] == 'D' ? MARK_DELETED : what[i] == 'R' ? MARK_RETRIEVED : 0;
	assert_int_equal(write(fd, marks, count), count);
	assert_int_equal(sealed_finish(fd), 0);
	int result = maildrop_update(&m, fd, count, false, t);
	close(fd);
	return result;
}

static void
order_and_kinds(void **state)
{
	(void)state;
	put("new/1700000002.M5P1.h", "b\n");
	put("cur/1700000002.M40P1.h:2,S", "c\n");
	put("cur/999999999.P1.h:2,", "a\n");
	put("new/1700000003.a", "d\n");
	put("new/name", "z\n");
	put("new/.hidden", "x\n");
	put("tmp/1700000001.h", "x\n");
	assert_int_equal(symlinkat("/etc/passwd", root, "new/1700000001.link"), 0);
	assert_int_equal(mkfifoat(root, "cur/1700000001.fifo", 0600), 0);
	assert_int_equal(mkdirat(root, "cur/1700000001.directory", 0700), 0);
	for (int i = 0; i < 2; i++) {	/* the second time with a cache */
		open_drop();
		NAMES("new/name", "cur/999999999.P1.h:2,", "new/1700000002.M5P1.h", "cur/1700000002.M40P1.h:2,S", "new/1700000003.a");
		close_drop();
	}
}

/* Whatever order the directory has: each row keeps its own name, size and octets, and every third is in both directories. */
static void
first_of_many(void **state)
{
	char name[64], text[400];
	uint64_t octets = 0;

	(void)state;
	memset(text, 'x', sizeof text);
	for (unsigned i = 0; i < 300; i++) {
		unsigned number = i * 7919 % 300;	/* each once */
		memcpy(text + 20 + number, "\n", 2);
		if (number % 3 == 0) {
			snprintf(name, sizeof name, "new/%u.M%uP1.h", 1700000000 + number / 4, number);
			put(name, text);
		}
		snprintf(name, sizeof name, "cur/%u.M%uP1.h:2,%s", 1700000000 + number / 4, number, number % 2 == 0 ? "S" : "");
		put(name, text);
		memset(text + 20 + number, 'x', 2);
	}
	for (int again = 0; again < 2; again++, octets = 0) {
		open_drop();
		assert_int_equal(maildrop_count(&m), 300);
		for (unsigned i = 0; i < 300; i++) {
			struct inventory_message im;
			assert_int_equal(inventory_get(m.inventory, i, &im), 0);
			snprintf(name, sizeof name, "cur/%u.M%uP1.h:2,%s", 1700000000 + i / 4, i, i % 2 == 0 ? "S" : "");
			assert_string_equal(im.name, name);
			assert_int_equal(im.length, 21 + i);
			assert_int_equal(im.octets, 22 + i);
			octets += im.octets;
		}
		assert_int_equal(inventory_octets(m.inventory), octets);
		close_drop();
	}
}

/* A session without it would say that it has been deleted: there is none, and the log says which it is. What is known already is not read. */
static void
broken_disk(void **state)
{
	char line[512] = "";
	int log = memfd_create("log", MFD_CLOEXEC), was = dup(STDERR_FILENO);

	(void)state;
	put("cur/1.h:2,", "one\n");
	open_drop();
	close_drop();
	put("cur/2.h:2,", "two\n");
	unreadable = "cur/2.h:2,";
	conf.log_level = LOG_ERR;
	dup2(log, STDERR_FILENO);
	log_open(&conf, -1);
	assert_int_equal(maildrop_open(&m, &conf, &grant, false, &kept), 0);
	int result = maildrop_scan(&m);
	conf.log_level = LOG_EMERG;
	dup2(was, STDERR_FILENO);
	log_open(&conf, -1);
	assert_int_equal(result, -1);
	assert_int_equal(m.failure, FAILURE_TEMPORARY);
	assert_true(pread(log, line, sizeof line - 1, 0) > 0);
	assert_non_null(strstr(line, "cur/2.h:2, cannot be read"));
	assert_null(strstr(line, "left out"));
	maildrop_close(&m);
	kept = (struct kept){ 0 };
	close(log);
	close(was);
	unreadable = NULL;
	open_drop();
	NAMES("cur/1.h:2,", "cur/2.h:2,");
	close_drop();
	unreadable = "cur/1.h:2,";
	open_drop();
	NAMES("cur/1.h:2,", "cur/2.h:2,");
	unreadable = NULL;
	close_drop();
}

/* A file that is renamed while cur/ is read may be missed by that: a client is not told that it has gone. */
static void
renamed_all_the_time(void **state)
{
	(void)state;
	put("cur/1.h:2,", "one\n");
	put("cur/2.h:2,", "two\n");
	for (int again = 0; again < 2; again++) {	/* the second time with a cache */
		if (again)
			put("new/3.h", "three\n");
		hidden = "2.h:2,";
		hidden_in = 4;
		reading = 0;
		open_drop();
		hidden = NULL;
		assert_int_equal(reading, 4);
		if (again)
			NAMES("cur/1.h:2,", "cur/2.h:2,", "new/3.h");
		else
			NAMES("cur/1.h:2,", "cur/2.h:2,");
		close_drop();
	}
}

/* A message that is in both is one, and one that comes later is added. */
static void
moves_and_arrivals(void **state)
{
	(void)state;
	put("new/1700000001.h", "a\n");
	put("cur/1700000001.h:2,S", "a\n");
	put("cur/1700000002.h:2,S", "b\n");
	open_drop();
	NAMES("cur/1700000001.h:2,S", "cur/1700000002.h:2,S");
	close_drop();
	put("new/1700000003.h", "c\n");
	open_drop();
	NAMES("cur/1700000001.h:2,S", "cur/1700000002.h:2,S", "new/1700000003.h");
	close_drop();
	put("new/1700000000.h", "0\n");
	assert_int_equal(renameat(root, "new/1700000003.h", root, "cur/1700000003.h:2,F"), 0);
	open_drop();
	NAMES("new/1700000000.h", "cur/1700000001.h:2,S", "cur/1700000002.h:2,S", "cur/1700000003.h:2,F");
	close_drop();
}

static void
sizes(void **state)
{
	static const struct {
		const char *name, *text;
		uint64_t octets;
	} row[] = {
		{ "new/1.h", "a\nb\n", 6 }, { "new/2.h", "a\r\nb\r\n", 6 }, { "new/3.h", "a", 3 }, { "new/4.h", "", 0 },
		{ "cur/5.h,S=4,W=6:2,S", "a\nb\n", 6 },
		{ "cur/6.h,S=4,W=7:2,S", "a\nb\n", 7 },		/* believed: it is possible */
		{ "cur/7.h,S=5,W=7:2,S", "a\nb\n", 6 },		/* the size is wrong */
		{ "cur/8.h,W=7:2,S", "a\nb\n", 6 },		/* nothing to check it by */
		{ "cur/9.h,S=4,W=3:2,S", "a\nb\n", 6 },		/* impossible */
		{ "cur/10.h,S=4,W=11:2,S", "a\nb\n", 6 },
		{ "cur/11.h,S=4,W=99999999999999999999999:2,S", "a\nb\n", 6 },
		{ "cur/12.h,W=6,S=4:2,S", "a\nb\n", 6 },
	};
	size_t count = sizeof row / sizeof row[0];

	(void)state;
	for (size_t i = 0; i < count; i++)
		put(row[i].name, row[i].text);
	open_drop();
	assert_int_equal(maildrop_count(&m), count);
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(inventory_row(m.inventory, i)->octets, row[i].octets);
		assert_int_equal(inventory_row(m.inventory, i)->length, strlen(row[i].text));
	}
	close_drop();
}

static void
fetch_finds_again(void **state)
{
	struct place p;
	char have[8] = "";

	(void)state;
	put("new/1.h", "one\n");
	put("new/2.h", "two\n");
	put("new/3.h", "three\n");
	open_drop();
	assert_int_equal(renameat(root, "new/1.h", root, "cur/1.h:2,S"), 0);
	assert_int_equal(unlinkat(root, "new/2.h", 0), 0);
	put("new/3.h", "other than it was\n");
	assert_int_equal(maildrop_fetch(&m, 1, &p), 0);
	assert_int_equal(pread(p.fd, have, sizeof have, p.offset), 4);
	assert_string_equal(have, "one\n");
	close(p.fd);
	assert_int_equal(renameat(root, "cur/1.h:2,S", root, "cur/1.h:2,RS"), 0);
	assert_int_equal(maildrop_fetch(&m, 1, &p), 0);
	close(p.fd);
	for (uint32_t n = 2; n <= 5; n++) {
		assert_int_equal(maildrop_fetch(&m, n, &p), -1);
		assert_int_equal(m.failure, FAILURE_VANISHED);
	}
	assert_int_equal(maildrop_fetch(&m, 0, &p), -1);
	close_drop();
}

/* As one that came long ago. */
static void
put_old(const char *name, const char *text)
{
	static const struct timespec then[2] = { { .tv_sec = 1700000000 }, { .tv_sec = 1700000000 } };

	put(name, text);
	assert_int_equal(utimensat(root, name, then, 0), 0);
}

/* Until what changes now has another time than what was changed before. */
static void
time_goes_by(void)
{
	static const struct timespec most = { .tv_nsec = 60000000 };

	nanosleep(&most, NULL);
}

static void
assert_message(uint32_t index, uint64_t length, uint64_t octets)
{
	struct place p;

	assert_int_equal(inventory_row(m.inventory, index)->length, length);
	assert_int_equal(inventory_row(m.inventory, index)->octets, octets);
	assert_int_equal(maildrop_fetch(&m, index + 1, &p), 0);
	assert_int_equal(p.length, length);
	close(p.fd);
}

/* As close_drop, in a worker that has another session. */
static void
leave_drop(void)
{
	m.store->remember(&m);
	close(m.catalogue);
	maildrop_close(&m);
	kept.again = false;	/* the stub has a journal to look for, which one that lingers does not */
}

/* Other files under the names of those that are known; of one of them nothing differs that a directory tells. */
static void
replaced(void **state)
{
	(void)state;
	put_old("cur/1.h:2,", "one\n");
	put_old("cur/2.h:2,", "two\n");
	put_old("cur/3.h:2,", "three\n");
	open_drop();
	close_drop();
	put("tmp/x", "one, and more than there was\n");
	put("tmp/y", "\n\n\n\n");
	assert_int_equal(renameat(root, "tmp/x", root, "cur/1.h:2,"), 0);
	assert_int_equal(renameat(root, "tmp/y", root, "cur/2.h:2,"), 0);
	open_drop();
	assert_message(0, 29, 30);
	assert_message(1, 4, 8);
	assert_message(2, 6, 7);
	close_drop();
	/* all of it from a backup */
	assert_int_equal(renameat(root, "cur", root, "tmp/cur") | mkdirat(root, "cur", 0700), 0);
	put_old("cur/1.h:2,", "one\n");
	put_old("cur/2.h:2,", "two\n");
	put_old("cur/3.h:2,", "one, two, three\n");
	open_drop();
	assert_message(0, 4, 5);
	assert_message(1, 4, 5);
	assert_message(2, 16, 17);
	close_drop();
	empty("tmp/cur");
}

/* Seen when half of it was written to its place: the rest is seen, too, though no directory tells of it. */
static void
half_written(void **state)
{
	(void)state;
	for (int lingers = 0; lingers < 2; lingers++) {
		put_old("cur/1.h:2,", "one\n");
		put("cur/2.h:2,", "the first");
		time_goes_by();
		open_drop();
		assert_message(1, 9, 11);
		(lingers ? leave_drop : close_drop)();
		put("cur/2.h:2,", "the first\nand the rest\n");
		open_drop();
		assert_message(0, 4, 5);
		assert_message(1, 23, 25);
		close_drop();
		open_drop();
		assert_message(1, 23, 25);
		close_drop();
		assert_int_equal(unlinkat(root, "cur/1.h:2,", 0) | unlinkat(root, "cur/2.h:2,", 0), 0);
	}
}

/* What was written to long after it came is not noticed before it is wanted. It is right the next time. */
static void
grown_in_place(void **state)
{
	struct place p;
	struct tally t;

	(void)state;
	for (int updates = 0; updates < 2; updates++) {
		put_old("cur/1.h:2,", "one\n");
		put_old("cur/2.h,S=4,W=5:2,", "two\n");
		put_old("cur/3.h:2,", "three\n");
		time_goes_by();
		open_drop();
		close_drop();
		put("cur/1.h:2,", "one\nand more\n");
		put("cur/2.h,S=4,W=5:2,", "two\nand more\n");
		open_drop();
		for (uint32_t n = 1; n <= 2; n++) {
			assert_int_equal(maildrop_fetch(&m, n, &p), -1);
			assert_int_equal(m.failure, FAILURE_VANISHED);
		}
		assert_int_equal(renameat(root, "cur/2.h,S=4,W=5:2,", root, "cur/2.h,S=4,W=5:2,S"), 0);
		if (updates)
			assert_int_equal(update("--D", &t), 0);
		close_drop();
		open_drop();
		assert_message(0, 13, 15);
		assert_message(1, 13, 15);
		if (!updates)
			assert_message(2, 6, 7);
		close_drop();
		assert_int_equal(unlinkat(root, "cur/1.h:2,", 0) | unlinkat(root, "cur/2.h,S=4,W=5:2,S", 0), 0);
	}
}

/* The only file whose content this is; its unique-id. */
static void
uid_of(const char *text, char uid[static UID_MAX + 1])
{
	struct inventory_message im;
	struct place p;
	uint32_t found = 0;
	char have[64];

	for (uint32_t i = 0; i < maildrop_count(&m); i++) {
		assert_int_equal(maildrop_fetch(&m, i + 1, &p), 0);
		ssize_t n = pread(p.fd, have, sizeof have, p.offset);
		close(p.fd);
		if (n != (ssize_t)strlen(text) || memcmp(have, text, (size_t)n) != 0)
			continue;
		found++;
		assert_int_equal(inventory_get(m.inventory, i, &im), 0);
		snprintf(uid, UID_MAX + 1, "%.*s", (int)im.uid_length, im.uid);
	}
	assert_int_equal(found, 1);
}

/* Two files of one name: a copy goes, and what is another message has an id that stays its own when the other one has gone. */
static void
twins(void **state)
{
	char one[UID_MAX + 1], other[UID_MAX + 1], again[UID_MAX + 1];
	struct tally t;

	(void)state;
	put("new/1.h", "one\n");
	put("cur/1.h:2,S", "one\n");
	put("cur/2.h,S=4:2,", "two\n");
	put("cur/2.h,S=4:2,T", "the other\n");
	put("new/3.h", "three\n");
	open_drop();
	assert_int_equal(maildrop_count(&m), 4);
	assert_false(there("new/1.h"));
	assert_true(there("cur/1.h:2,S"));
	uid_of("two\n", one);
	uid_of("the other\n", other);
	assert_string_not_equal(one, other);
	struct inventory_message im;
	assert_int_equal(inventory_get(m.inventory, 1, &im), 0);
	assert_int_equal(update(im.uid_length == strlen(other) ? "-D--" : "--D-", &t), 0);
	close_drop();
	unlink(cache_path);
	open_drop();
	assert_int_equal(maildrop_count(&m), 3);
	uid_of("two\n", again);
	assert_string_equal(one, again);
	close_drop();
	/* which of them was there before is known */
	put("cur/3.h:2,S", "not three\n");
	open_drop();
	assert_int_equal(maildrop_count(&m), 4);
	uid_of("three\n", one);
	assert_string_equal(one, "3.h");
	uid_of("not three\n", other);
	assert_string_not_equal(other, "3.h");
	close_drop();
	/* one that a link was made of just now may be on its way */
	assert_int_equal(linkat(root, "new/3.h", root, "cur/3.h:2,F", 0), 0);
	open_drop();
	assert_int_equal(maildrop_count(&m), 4);
	assert_true(there("new/3.h") && there("cur/3.h:2,F"));
	close_drop();
}

static void
updates(void **state)
{
	struct tally t;

	(void)state;
	put("new/1.h", "one\n");
	put("new/2.h", "two\n");
	put("cur/3.h:2,F", "three\n");
	put("cur/4.h:2,", "four\n");
	put("new/5.h", "five\n");
	open_drop();
	assert_int_equal(renameat(root, "new/1.h", root, "cur/1.h:2,S"), 0);	/* found again */
	assert_int_equal(unlinkat(root, "cur/3.h:2,F", 0), 0);			/* gone already */
	put("new/6.h", "six\n");
	assert_int_equal(update("DRD-R", &t), 0);
	assert_int_equal(t.deleted, 2);
	assert_int_equal(t.left, 0);
	close_drop();
	assert_false(there("cur/1.h:2,S"));
	assert_true(there("cur/2.h:2,"));
	assert_true(there("cur/4.h:2,"));
	assert_true(there("cur/5.h:2,"));
	assert_true(there("new/6.h"));
	assert_int_equal(access(journal_path, F_OK), -1);
	open_drop();
	NAMES("cur/2.h:2,", "cur/4.h:2,", "cur/5.h:2,", "new/6.h");
	close_drop();
}

/* Cut off after the list was written: the next opening removes what is on it, wherever that is now, and nothing else. */
static void
recovery(void **state)
{
	struct tally t;

	(void)state;
	put("new/1.h", "one\n");
	put("new/2.h", "two\n");
	put("new/3.h", "three\n");
	open_drop();
	keep_journal = true;
	assert_int_equal(update("DD-", &t), 0);
	close_drop();
	keep_journal = false;
	put("cur/2.h:2,S", "two\n");
	put("new/4.h", "four\n");
	open_drop();
	NAMES("new/3.h", "new/4.h");
	close_drop();
	assert_int_equal(access(journal_path, F_OK), -1);
}

static uint32_t
in_tmp(void)
{
	int fd = openat(root, "tmp", O_RDONLY | O_DIRECTORY);
	DIR *d = fdopendir(fd);
	const struct dirent *e;
	uint32_t count = 0;

	while ((e = readdir(d)) != NULL)
		count += e->d_name[0] != '.';
	closedir(d);
	return count;
}

/* Killed after the answer, before the files in tmp/ are removed: whoever comes next does it, and leaves those of others. */
static void
left_in_tmp(void **state)
{
	struct tally t;

	(void)state;
	put("new/1.h", "one\n");
	put("new/2.h", "two\n");
	put("new/3.h", "three\n");
	put("tmp/4.h", "being delivered\n");
	open_drop();
	assert_int_equal(update("DD-", &t), 0);
	close_drop();
	assert_int_equal(in_tmp(), 3);
	put("new/1.h", "one\n");	/* from a backup */
	put("new/2.h", "two\n");
	open_drop();
	assert_int_equal(in_tmp(), 1);
	assert_int_equal(update("DD-", &t), 0);
	assert_int_equal(t.deleted, 2);
	m.store->sweep(&m);
	assert_int_equal(in_tmp(), 1);
	assert_true(there("tmp/4.h"));
	close_drop();
}

/* Who delivers makes the name in new/ by a link, and removes that in tmp/ after it. */
static void
still_in_tmp(void **state)
{
	struct tally t;

	(void)state;
	put("tmp/1.h", "one\n");
	put("new/2.h", "two\n");
	assert_int_equal(linkat(root, "tmp/1.h", root, "new/1.h", 0), 0);
	open_drop();
	assert_int_equal(update("DD", &t), 0);
	assert_int_equal(t.deleted, 2);
	assert_false(there("new/1.h"));
	assert_true(there("tmp/1.h"));
	m.store->sweep(&m);
	assert_int_equal(in_tmp(), 1);
	close_drop();
}

static void
journal_write(int fd, const char *const *names, uint32_t count)
{
	struct intent i = { .kind = INTENT_REMOVES, .count = count };

	for (uint32_t n = 0; n < count; n++)
		i.length += strlen(names[n]) + 1;
	assert_int_equal(ftruncate(fd, 0) | intent_begin(&i, fd, root), 0);
	for (uint32_t n = 0; n < count; n++)
		assert_int_equal(intent_add(&i, names[n], strlen(names[n])), 0);
	assert_int_equal(intent_end(&i), 0);
}

/* Whatever is not whole, or not of this Maildir, removes nothing. */
static void
journals(void **state)
{
	static const char *const two[] = { "new/1.h", "cur/2.h:2,S" }, *const elsewhere[] = { "cur/../../x" };
	char whole[512], torn[512];
	const char *name;
	struct intent back;
	int fd = open(journal_path, O_RDWR | O_CREAT, 0600);
	int other = open("/", O_RDONLY | O_DIRECTORY);
	ssize_t n;

	(void)state;
	journal_write(fd, two, 2);
	assert_int_equal(intent_read(&back, fd, root), INTENT_WHOLE);
	assert_int_equal(back.count, 2);
	for (int which = 0; which < 2; which++) {
		assert_int_equal(intent_next(&back, &name), 1);
		assert_string_equal(name, two[which]);
	}
	assert_int_equal(intent_next(&back, &name), 0);
	intent_seek(&back, strlen(two[0]) + 1);
	assert_int_equal(intent_next(&back, &name), 1);
	assert_string_equal(name, two[1]);
	assert_int_equal(intent_read(&back, fd, other), INTENT_FOREIGN);
	n = pread(fd, whole, sizeof whole, 0);
	for (ssize_t length = 0; length < n; length++) {
		assert_int_equal(ftruncate(fd, length), 0);
		assert_int_equal(intent_read(&back, fd, root), INTENT_NOTHING);
	}
	for (ssize_t at = 0; at < n; at++) {
		memcpy(torn, whole, (size_t)n);
		torn[at] ^= 1;
		assert_int_equal(pwrite(fd, torn, (size_t)n, 0), n);
		assert_int_not_equal(intent_read(&back, fd, root), INTENT_WHOLE);
	}
	/* names that lead elsewhere */
	journal_write(fd, elsewhere, 1);
	assert_int_equal(intent_read(&back, fd, root), INTENT_FOREIGN);
	close(fd);
	close(other);
}

/* Names of all lengths, more than are read at once; one that says how many it has, and has others, is never whole. */
static void
long_journals(void **state)
{
	struct intent i = { .kind = INTENT_ARCHIVES, .count = 2000 }, back;
	char names[2000][240];
	const char *name;
	int fd = open(journal_path, O_RDWR | O_CREAT, 0600);

	(void)state;
	for (uint32_t n = 0; n < i.count; n++)
		i.length += (uint64_t)snprintf(names[n], sizeof names[n], "cur/%u.%0*u", (unsigned)n, (int)(n * 7 % 220), 1u) + 1;
	for (int wrong = 0; wrong < 2; wrong++) {
		i.length += (uint64_t)wrong;
		assert_int_equal(ftruncate(fd, 0) | intent_begin(&i, fd, root), 0);
		for (uint32_t n = 0; n < i.count; n++)
			assert_int_equal(intent_add(&i, names[n], strlen(names[n])), 0);
		assert_int_equal(intent_end(&i), -wrong);
		assert_int_equal(intent_read(&back, fd, root), wrong ? INTENT_NOTHING : INTENT_WHOLE);
		for (uint32_t n = 0; n < i.count && !wrong; n++) {
			assert_int_equal(intent_next(&back, &name), 1);
			assert_string_equal(name, names[n]);
		}
		assert_true(wrong || (intent_next(&back, &name) == 0 && back.kind == INTENT_ARCHIVES));
	}
	close(fd);
}

static void
readonly(void **state)
{
	struct tally t;

	(void)state;
	if (geteuid() == 0)
		skip();		/* root may remove from a directory of any mode */
	put("cur/1.h:2,", "one\n");
	put("cur/2.h:2,", "two\n");
	open_drop();
	assert_int_equal(fchmodat(root, "cur", 0500, 0), 0);
	assert_int_equal(update("DD", &t), -1);
	assert_int_equal(m.failure, FAILURE_PERMISSION);
	assert_int_equal(t.left, 2);
	assert_int_equal(fchmodat(root, "cur", 0700, 0), 0);
	close_drop();
	assert_int_equal(access(journal_path, F_OK), -1);
	open_drop();
	assert_int_equal(maildrop_count(&m), 2);
	close_drop();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(order_and_kinds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(first_of_many, set_up, tear_down),
		cmocka_unit_test_setup_teardown(broken_disk, set_up, tear_down),
		cmocka_unit_test_setup_teardown(renamed_all_the_time, set_up, tear_down),
		cmocka_unit_test_setup_teardown(moves_and_arrivals, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sizes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(fetch_finds_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(replaced, set_up, tear_down),
		cmocka_unit_test_setup_teardown(half_written, set_up, tear_down),
		cmocka_unit_test_setup_teardown(grown_in_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(twins, set_up, tear_down),
		cmocka_unit_test_setup_teardown(updates, set_up, tear_down),
		cmocka_unit_test_setup_teardown(recovery, set_up, tear_down),
		cmocka_unit_test_setup_teardown(left_in_tmp, set_up, tear_down),
		cmocka_unit_test_setup_teardown(still_in_tmp, set_up, tear_down),
		cmocka_unit_test_setup_teardown(journals, set_up, tear_down),
		cmocka_unit_test_setup_teardown(long_journals, set_up, tear_down),
		cmocka_unit_test_setup_teardown(readonly, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
