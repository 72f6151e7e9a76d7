/*
 * The mbox store: where messages begin and end, and what an UPDATE removes when others have been at work. The parent's answers are
 * stubs here; everything else is the real thing, on files in a directory of its own.
 * links: spoold/archive.c spoold/mbox.c spoold/mbox_look.c spoold/mbox_update.c spoold/locked.c spoold/flag.c spoold/path.c spoold/maildir.c spoold/maildir_scan.c spoold/maildir_update.c spoold/listing.c spoold/intent.c spoold/maildrop.c spoold/view.c spoold/expire.c spoold/age.c spoold/scan.c spoold/lock.c spoold/journal.c
 * links: spoold/cache.c spoold/inventory.c spoold/uidl.c spoold/content.c spoold/oldids.c
 * links: lib/catalogue.c lib/conf.c lib/log.c lib/messages.c lib/system.c lib/wire.c
 * libs: -lnettle -lxxhash
 */
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
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "log.h"
#include "system.h"

#include "../ask_stub.h"
#include "../../spoold/maildrop.h"
#include "../../spoold/scan.h"

static char directory[] = "/tmp/postern-mbox-XXXXXX";
static char path[64];

static struct conf conf;
static struct grant grant;
static struct maildrop m;
static struct kept kept;

static int
set_up_all(void **state)
{
	char error[256];

	(void)state;
	if (sodium_init() == -1 || mkdtemp(directory) == NULL)
		return -1;
	snprintf(path, sizeof path, "%s/u", directory);
	snprintf(journal_path, sizeof journal_path, "%s/journal", directory);
	snprintf(cache_path, sizeof cache_path, "%s/cache", directory);
	if (conf_load(&conf, "/nonexistent", true, error, sizeof error) == -1)
		return -1;
	conf.log_level = LOG_EMERG;
	conf.log = LOG_TO_STDERR;
	log_open(&conf, -1);
	string_copy(grant.user, sizeof grant.user, "u");
	string_copy(grant.mbox, sizeof grant.mbox, path);
	grant.uid = geteuid();
	grant.kind = STORE_MBOX;
	return 0;
}

static int
tear_down_all(void **state)
{
	(void)state;
	return rmdir(directory);
}

static void
put(const char *text, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, text, length), length);
	close(fd);
}

static void
append(const char *text)
{
	int fd = open(path, O_WRONLY | O_APPEND, 0600);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void
assert_file(const char *text)
{
	static char have[65536];
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, have, sizeof have - 1);

	close(fd);
	have[n] = '\0';
	assert_string_equal(have, text);
}

static int
clean(void **state)
{
	char lock[80];

	(void)state;
	unlink(path);
	unlink(journal_path);
	unlink(cache_path);
	snprintf(lock, sizeof lock, "%s.lock", path);
	assert_int_equal(unlink(lock), -1);	/* none is ever left */
	no_journal = false;
	return 0;
}

static void
open_drop(void)
{
	assert_int_equal(maildrop_open(&m, &conf, &grant, false, &kept), 0);
	assert_int_equal(maildrop_scan(&m), 0);
	if (!m.missing)
		m.store->remember(&m);
}

static void
leave_drop(void)
{
	close(m.catalogue);
	maildrop_close(&m);
	inventory_free(kept.inventory);	/* for a worker that lingers; here each open is the first */
	kept = (struct kept){ 0 };
}

static void
close_drop(void)
{
	if (!m.missing)
		m.store->remember(&m);
	leave_drop();
}

/* An UPDATE that deletes those whose number is in the string. */
static int
update(const char *numbers, struct tally *t)
{
	int fd = sealed_create("marks");
	uint32_t count = maildrop_count(&m);
	uint8_t marks[64] = { 0 };

	for (; *numbers != '\0'; numbers++)
		marks[*numbers - '1'] = MARK_DELETED;
	assert_int_equal(write(fd, marks, count), count);
	assert_int_equal(sealed_finish(fd), 0);
	int result = maildrop_update(&m, fd, count, false, t);
	close(fd);
	return result;
}

struct shape {
	const char *text;
	const char *messages[6];	/* as they are on disk */
};

#define F "From a@b Fri Jul  8 12:08:34 2011\n"
#define H "Subject: x\n"
static const struct shape shapes[] = {
	{ "", { NULL } },
	{ F H "\nbody\n\n", { H "\nbody\n" } },
	{ F H "\nbody\n", { H "\nbody\n" } },
	{ F H "\nbody", { H "\nbody" } },
	{ F H "\nbody\n\n\n\n", { H "\nbody\n\n\n" } },
	{ F H "\na\n\n" F H "\nb\n\n", { H "\na\n", H "\nb\n" } },
	/* no empty line before the From_ line */
	{ F H "\na\n" F H "\nb\n", { H "\na\n", H "\nb\n" } },
	{ "From - \n" H "\na\n--end--\nFrom - \n" H "\nb\n", { H "\na\n--end--\n", H "\nb\n" } },
	{ "From 1844@xxx\n" H "\na\n\nFrom 1845@xxx\n" H "\nb\n\n", { H "\na\n", H "\nb\n" } },
	/* no date, but an address, after an empty line and before a field */
	{ F H "\na\n\nFrom a@b some day\n" H "\nb\n\n", { H "\na\n", H "\nb\n" } },
	/* not From_ lines */
	{ F H "\nFrom here to there\nis far\n\n", { H "\nFrom here to there\nis far\n" } },
	{ F H "\na\n\nFrom here on: nothing\nNote: nothing\n\n", { H "\na\n\nFrom here on: nothing\nNote: nothing\n" } },
	{ F H "\na\nFrom a@b Fri Jul  8 12:08:34 2011\nno field\n\n", { H "\na\nFrom a@b Fri Jul  8 12:08:34 2011\nno field\n" } },
	{ F H "\n>From a@b Fri Jul  8 12:08:34 2011\n" H "\n", { H "\n>From a@b Fri Jul  8 12:08:34 2011\n" H } },
	{ F H "\nFrom\nFromage\n\n", { H "\nFrom\nFromage\n" } },
	/* headers only, empty messages */
	{ F H "\n", { H } },
	{ F H "\n\n", { H "\n" } },
	{ F H, { H } },
	{ F "\n", { "" } },
	{ F, { "" } },
	{ F "\n" F "\n" F H "\n", { "", "", H } },
	/* CRLF on disk */
	{ "From a@b Fri Jul  8 12:08:34 2011\r\nSubject: x\r\n\r\na\r\n\r\nFrom a@b Fri Jul  8 12:08:34 2011\r\nSubject: y\r\n\r\nb\r\n\r\n",
	  { "Subject: x\r\n\r\na\r\n", "Subject: y\r\n\r\nb\r\n" } },
	{ "From a@b Fri, 8 Jul 2011 12:08:34 +0200\n" H "\na\n\nFrom a@b Fri, 8 Jul 2011 12:08:34 +0200\n" H "\nb\n", { H "\na\n", H "\nb\n" } },
	{ "\n\n" F H "\na\n", { H "\na\n" } },
	{ F ">From a@b Fri Jul  8 12:08:34 2011\n" H "\na\n\n", { ">From a@b Fri Jul  8 12:08:34 2011\n" H "\na\n" } },
	/* the pseudo message */
	{ "From MAILER-DAEMON Fri Jul  8 12:08:34 2011\nFrom: Mail System Internal Data <MAILER-DAEMON@h>\n"
	  "Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1310152114 0000000001\nStatus: RO\n\nThis text\n\n"
	  F H "\na\n\n", { H "\na\n" } },
	{ F H "\na\n\n" F "Subject: FOLDER INTERNAL DATA\nX-IMAP: 1 1\n\nb\n\n", { H "\na\n", "Subject: FOLDER INTERNAL DATA\nX-IMAP: 1 1\n\nb\n" } },
};

static uint64_t
octets_of(const char *text)
{
	struct wire_like { uint64_t n; char last; } w = { 0, 0 };
	size_t length = strlen(text);

	for (size_t i = 0; i < length; i++) {
		w.n += 1 + (text[i] == '\n' && w.last != '\r');
		w.last = text[i];
	}
	return w.n + (length > 0 && w.last != '\n' ? 2 : 0);
}

/* Opened twice: the second time from the cache. */
static void
shapes_are_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * sizeof shapes / sizeof shapes[0]; i++) {
		const struct shape *s = &shapes[i / 2];
		uint32_t count = 0;
		if (i % 2 == 0) {
			unlink(cache_path);
			put(s->text, strlen(s->text));
		}
		open_drop();
		while (count < 6 && s->messages[count] != NULL)
			count++;
		if (maildrop_count(&m) != count)
			fail_msg("shape %zu: %u messages, not %u", i / 2, maildrop_count(&m), count);
		for (uint32_t n = 0; n < count; n++) {
			const struct catalogue_row *row = inventory_row(m.inventory, n);
			const char *want = s->messages[n];
			char have[512];
			if (row->length != strlen(want) || pread(m.reader, have, row->length, (off_t)row->offset) != (ssize_t)row->length ||
			    memcmp(have, want, row->length) != 0)
				fail_msg("shape %zu: message %u is %.*s", i / 2, n + 1, (int)row->length, have);
			assert_int_equal(row->octets, octets_of(want));
		}
		close_drop();
	}
}

/* Every boundary of the buffer: a From_ line that is cut anywhere is still found. */
static void
boundaries(void **state)
{
	enum { BUFFER_SIZE = 256 << 10 };
	static char text[BUFFER_SIZE + 8192];
	static const char tail[] = "\n\n" F H "\nb\n\n";

	(void)state;
	for (int shift = -80; shift < 8; shift++) {
		size_t length = (size_t)(BUFFER_SIZE + shift);
		memset(text, 'x', sizeof text);
		memcpy(text, F H "\n", strlen(F H "\n"));
		memcpy(text + length, tail, sizeof tail - 1);
		put(text, length + sizeof tail - 1);
		unlink(cache_path);
		open_drop();
		assert_int_equal(maildrop_count(&m), 2);
		assert_int_equal(inventory_row(m.inventory, 0)->length, length + 1 - strlen(F));
		assert_int_equal(inventory_row(m.inventory, 1)->length, strlen(H "\nb\n"));
		close_drop();
	}
}

static void
not_an_mbox(void **state)
{
	(void)state;
	put("hello\n", 6);
	assert_int_equal(maildrop_open(&m, &conf, &grant, false, &kept), 0);
	assert_int_equal(maildrop_scan(&m), -1);
	assert_int_equal(m.failure, FAILURE_KIND);
	leave_drop();
	assert_file("hello\n");
}

#define A F "Subject: a\n\na\n\n"
#define B F "Subject: b\n\nb\n\n"
#define C F "Subject: c\n\nc\n\n"
#define D F "Subject: d\n\nd\n\n"
#define P "From MAILER-DAEMON Fri Jul  8 12:08:34 2011\nSubject: FOLDER INTERNAL DATA\nX-IMAP: 1 2\n\nx\n\n"

/* What is there, what becomes of it during the session, what is deleted, what must be there then, and how many were left (-1: all is well). */
static const struct session {
	const char *before, *meanwhile, *delete, *after;
	int left;
} sessions[] = {
	{ A B C, NULL, "1", B C, -1 },
	{ A B C, NULL, "2", A C, -1 },
	{ A B C, NULL, "3", A B, -1 },
	{ A B C, NULL, "13", B, -1 },
	{ A B C, NULL, "123", "", -1 },
	{ P A B, NULL, "12", P, -1 },
	{ P A B, NULL, "1", P B, -1 },
	{ A F "Subject: b\n\nno end", NULL, "2", A, -1 },
	{ A F "Subject: b\n\nno end", NULL, "1", F "Subject: b\n\nno end", -1 },
	/* grown */
	{ A B, A B C, "1", B C, -1 },
	{ A B, A B C, "2", A C, -1 },
	{ A B, A B C, "12", C, -1 },
	{ A F "Subject: b\n\nno end", A F "Subject: b\n\nno end\n\n" C, "2", A C, -1 },
	/* others have deleted */
	{ A B C, B C, "2", C, -1 },
	{ A B C, B C, "1", B C, -1 },
	{ A B C, "", "2", "", -1 },
	{ A B C, C, "12", C, -1 },
	/* a reader has set Status, which is not content */
	{ A B C, F "Subject: a\nStatus: RO\n\na\n\n" B C, "1", B C, -1 },
	{ A B C, F "Subject: a\nStatus: RO\n\na\n\n" B C, "3", F "Subject: a\nStatus: RO\n\na\n\n" B, -1 },
	/* and the order is another */
	{ A B C, C B A, "1", C B, -1 },
	{ A B C, C D B A, "13", D B, -1 },
	/* the marked one has been changed: it stays */
	{ A B C, A F "Subject: b\n\nother\n\n" C, "2", A F "Subject: b\n\nother\n\n" C, 1 },
	{ A B C, A F "Subject: b\n\nother\n\n" C, "23", A F "Subject: b\n\nother\n\n", 1 },
	/* byte-identical twins */
	{ A A B, NULL, "1", A B, -1 },
	{ A A B, A B A, "12", B, -1 },
	{ A A B, A B, "1", A B, -1 },	/* the one that is gone may be the marked one */
	{ A A B, A B, "12", B, -1 },
	{ A A B, C A B, "1", C A B, 1 },
	/* no mbox any more */
	{ A B, "junk\n", "1", "junk\n", 2 },
};

static void
updates(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof sessions / sizeof sessions[0]; i++) {
		const struct session *s = &sessions[i];
		struct tally t;
		unlink(cache_path);
		put(s->before, strlen(s->before));
		open_drop();
		if (s->meanwhile != NULL)
			put(s->meanwhile, strlen(s->meanwhile));
		int result = update(s->delete, &t);
		if ((result == 0) != (s->left == -1))
			fail_msg("session %zu: %d", i, result);
		if (s->left == 1)
			assert_int_equal(t.left, 1);
		close_drop();
		assert_file(s->after);
		/* and what the cache remembers is what is there */
		if (s->left != 2) {
			open_drop();
			uint32_t count = maildrop_count(&m);
			close_drop();
			unlink(cache_path);
			open_drop();
			assert_int_equal(maildrop_count(&m), count);
			close_drop();
		}
	}
}

/* The file is another one, of the same name: an agent or a reader that renames. */
static void
replaced(void **state)
{
	char other[80];
	struct tally t;

	(void)state;
	put(A B C, strlen(A B C));
	open_drop();
	snprintf(other, sizeof other, "%s.other", path);
	int fd = open(other, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, B A D, strlen(B A D)), strlen(B A D));
	close(fd);
	assert_int_equal(rename(other, path), 0);
	struct place p;
	assert_int_equal(maildrop_fetch(&m, 1, &p), 0);
	char have[64] = "";
	assert_int_equal(pread(p.fd, have, p.length, p.offset), p.length);
	assert_string_equal(have, "Subject: a\n\na\n");
	close(p.fd);
	assert_int_equal(maildrop_fetch(&m, 3, &p), -1);
	assert_int_equal(m.failure, FAILURE_VANISHED);
	assert_int_equal(update("1", &t), 0);
	close_drop();
	assert_file(B D);
	/* the name is gone */
	open_drop();
	unlink(path);
	assert_int_equal(update("1", &t), 0);
	assert_int_equal(t.deleted, 1);
	close_drop();
	assert_int_equal(access(path, F_OK), -1);
}

/* Without a journal nothing is moved, and nothing is lost. */
static void
no_room(void **state)
{
	struct tally t;

	(void)state;
	put(A B C, strlen(A B C));
	open_drop();
	no_journal = true;
	assert_int_equal(update("1", &t), -1);
	assert_int_equal(m.failure, FAILURE_FULL);
	assert_int_equal(t.left, 1);
	close_drop();
	assert_file(A B C);
	open_drop();
	assert_int_equal(update("3", &t), 0);	/* a tail needs none */
	close_drop();
	assert_file(A B);
}

/* Unique-ids: the same over sessions, deletions and a lost cache; twins differ, and keep what they have. */
static void
ids(void **state)
{
	struct inventory_message im;
	struct tally t;
	char first[3][UID_MAX + 1];

	(void)state;
	put(A B A, strlen(A B A));
	open_drop();
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(inventory_get(m.inventory, i, &im), 0);
		snprintf(first[i], sizeof first[i], "%.*s", (int)im.uid_length, im.uid);
	}
	assert_string_not_equal(first[0], first[2]);
	assert_int_equal(update("1", &t), 0);
	close_drop();
	append(C);
	open_drop();
	assert_int_equal(maildrop_count(&m), 3);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(inventory_get(m.inventory, i, &im), 0);
		assert_int_equal(im.uid_length, strlen(first[i + 1]));
		assert_memory_equal(im.uid, first[i + 1], im.uid_length);
	}
	close_drop();
}

/* What is there now is taken for what was looked at: as if the samples had missed a change. */
static void
pass_for_seen(void)
{
	int fd = open(path, O_RDONLY);

	assert_int_equal(stamp_take(&m.seen[0], fd), 0);
	m.seen[0].taken += 1000000000;	/* and long enough ago */
	close(fd);
}

static void
assert_uid(uint32_t index, const char *uid)
{
	struct inventory_message im;

	assert_int_equal(inventory_get(m.inventory, index, &im), 0);
	assert_int_equal(im.uid_length, strlen(uid));
	assert_memory_equal(im.uid, uid, im.uid_length);
}

static void
uid_copy(uint32_t index, char *to)
{
	struct inventory_message im;

	assert_int_equal(inventory_get(m.inventory, index, &im), 0);
	snprintf(to, UID_MAX + 1, "%.*s", (int)im.uid_length, im.uid);
}

/* The mailbox has grown, and besides two messages have changed places: neither goes for the other, and the next session has them right. */
static void
inherited(void **state)
{
	struct tally t;
	char a[UID_MAX + 1], c[UID_MAX + 1];

	(void)state;
	put(A B C, strlen(A B C));
	open_drop();
	assert_int_equal(inventory_inherited(m.inventory), 0);
	uid_copy(0, a);
	uid_copy(2, c);
	close_drop();
	append(D);
	open_drop();
	assert_int_equal(inventory_inherited(m.inventory), 3);
	put(C B A D, strlen(C B A D));
	pass_for_seen();
	assert_int_equal(update("14", &t), -1);
	assert_int_equal(m.failure, FAILURE_CHANGED);
	assert_int_equal(t.left, 1);
	assert_int_equal(t.deleted, 1);
	close_drop();
	assert_file(C B A);
	open_drop();
	assert_int_equal(inventory_inherited(m.inventory), 0);
	assert_uid(0, c);
	assert_uid(2, a);
	assert_int_equal(update("3", &t), 0);
	close_drop();
	assert_file(C B);
}

/* The same with what holds, and with what was read since: they go. The cache keeps what was not read. */
static void
inherited_holds(void **state)
{
	struct tally t;

	(void)state;
	put(A B C, strlen(A B C));
	open_drop();
	close_drop();
	append(D);
	open_drop();
	pass_for_seen();
	assert_int_equal(update("14", &t), 0);
	assert_int_equal(inventory_inherited(m.inventory), 2);
	close_drop();
	assert_file(B C);
	append(A D);
	open_drop();
	assert_int_equal(maildrop_count(&m), 4);
	assert_int_equal(inventory_inherited(m.inventory), 2);
	pass_for_seen();
	assert_int_equal(update("234", &t), 0);
	close_drop();
	assert_file(B);
}

/* Messages of all lengths, some longer than what is read at once: all of them are read, to the last octet. */
static void
inherited_lengths(void **state)
{
	static const size_t lengths[] = { 1, 200000, 3, 60000, 300000, 262144, 40, 900000, 262100, 2, 7 };
	enum { COUNT = sizeof lengths / sizeof *lengths };
	static char text[2500000];
	struct tally t;

	(void)state;
	for (int other = -1; other < COUNT; other++) {
		size_t used = 0, last[COUNT];
		for (size_t i = 0; i < COUNT; i++) {
			used += (size_t)sprintf(text + used, F "Subject: %zu\n\n", i);
			memset(text + used, 'a', lengths[i]);
			last[i] = used + lengths[i] - 1;
			used = last[i] + 1 + (size_t)sprintf(text + last[i] + 1, "\n\n");
		}
		unlink(cache_path);
		put(text, used);
		open_drop();
		close_drop();
		append(C);
		open_drop();
		assert_int_equal(inventory_inherited(m.inventory), COUNT);
		if (other >= 0) {
			int fd = open(path, O_WRONLY);
			assert_int_equal(pwrite(fd, "b", 1, (off_t)last[other]), 1);
			close(fd);
		}
		pass_for_seen();
		assert_int_equal(update("123456789:;", &t), other >= 0 ? -1 : 0);
		assert_int_equal(t.deleted, other >= 0 ? COUNT - 1 : COUNT);
		assert_int_equal(t.left, other >= 0 ? 1 : 0);
		close_drop();
		open_drop();
		assert_int_equal(maildrop_count(&m), other >= 0 ? 2 : 1);
		close_drop();
	}
}

/* A message that is not to be had: what is known does not hold, and is not kept. */
static void
fetch_doubts(void **state)
{
	static const char edited[] = F "Subject: b\n\n\n\n\n\n";
	struct place p;

	(void)state;
	put(A F "Subject: b\n\nbb\n\n" C, strlen(A F "Subject: b\n\nbb\n\n" C));
	open_drop();
	close_drop();
	append(D);
	assert_int_equal(maildrop_open(&m, &conf, &grant, false, &kept), 0);
	assert_int_equal(maildrop_scan(&m), 0);		/* not remembered before the end */
	int fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, edited, sizeof edited - 1, (off_t)strlen(A)), sizeof edited - 1);
	close(fd);
	pass_for_seen();
	assert_int_equal(maildrop_fetch(&m, 1, &p), 0);
	close(p.fd);
	assert_int_equal(maildrop_fetch(&m, 2, &p), -1);
	assert_int_equal(m.failure, FAILURE_VANISHED);
	close_drop();
	open_drop();
	assert_int_equal(inventory_row(m.inventory, 1)->octets, octets_of("Subject: b\n\n\n\n\n"));
	assert_int_equal(maildrop_fetch(&m, 2, &p), 0);
	close(p.fd);
	close_drop();
}

/* Two messages that are not marked change places during the session: that is not what the cache knows after the UPDATE. */
static void
touched_meanwhile(void **state)
{
	struct tally t;
	char b[UID_MAX + 1];

	(void)state;
	put(A B C, strlen(A B C));
	open_drop();
	uid_copy(1, b);
	put(A C B, strlen(A C B));
	assert_int_equal(update("1", &t), 0);
	m.seen[0].taken += 1000000000;
	close_drop();
	assert_file(C B);
	open_drop();
	assert_uid(1, b);
	close_drop();
}

struct growth {
	const char *before, *more;
};

/* What is found over a growth is what a scan of it all finds. */
static void
grown_is_found(const struct growth *grown, size_t count_of)
{
	for (size_t i = 0; i < count_of; i++) {
		char uids[2][8][UID_MAX + 1];
		uint32_t count[2];
		unlink(cache_path);
		put(grown[i].before, strlen(grown[i].before));
		open_drop();
		close_drop();
		append(grown[i].more);
		for (int by = 0; by < 2; by++) {
			open_drop();
			count[by] = maildrop_count(&m);
			for (uint32_t n = 0; n < count[by]; n++)
				uid_copy(n, uids[by][n]);
			close_drop();
			unlink(cache_path);
		}
		if (count[0] != count[1])
			fail_msg("growth %zu: %u messages from the cache, %u without", i, count[0], count[1]);
		for (uint32_t n = 0; n < count[0]; n++)
			assert_string_equal(uids[0][n], uids[1][n]);
	}
}

/* What is appended to a line that has no end yet. */
static void
unfinished_lines(void **state)
{
	static const struct growth grown[] = {
		{ A F "Subject: b\n\nno end", C }, { A F "Subject: b\n\nno end", "\n\n" C }, { A F "Subject: b\n\nno end", "\n" C },
		{ A F "Subject: b", ": b\n\nb\n\n" C }, { A "From a@b Fri Jul  8", " 12:08:34 2011\n" H "\nb\n\n" C },
		{ A F, H "\nb\n\n" C }, { A, C }, { A "From -\n", H "\nb\n" }, { A "\n", C }, { A "x\n", C }, { A "x\n", "\n" C },
	};

	(void)state;
	grown_is_found(grown, sizeof grown / sizeof *grown);
}

/* Dovecot's ids: what a delivered message says of the mailbox, or of its own number there, counts no more than in a scan of it all. */
static void
forged_numbers(void **state)
{
#define X(base, uid, name) F base uid "Subject: " name "\n\nx\n\n"
	static const struct growth grown[] = {
		{ A B, X("X-IMAPbase: 99 1000\n", "X-UID: 5\n", "f") }, { A B, X("", "X-UID: 5\n", "f") },
		{ X("X-IMAPbase: 7 9\n", "X-UID: 1\n", "a") X("", "X-UID: 4\n", "b"), X("", "X-UID: 5\n", "c") C },
		{ X("X-IMAPbase: 7 9\n", "X-UID: 1\n", "a") X("", "X-UID: 4\n", "b"), X("", "X-UID: 3\n", "c") X("", "X-UID: 9\n", "d") },
		{ X("X-IMAPbase: 7 9\n", "X-UID: 1\n", "a"), X("X-IMAPbase: 8 99\n", "X-UID: 10\n", "c") C },
		{ P X("", "X-UID: 1\n", "a"), X("", "X-UID: 2\n", "c") }, { P, X("", "X-UID: 2\n", "c") X("", "X-UID: 3\n", "d") },
	};

	(void)state;
	string_copy(conf.uidl_format, sizeof conf.uidl_format, "dovecot");
	grown_is_found(grown, sizeof grown / sizeof *grown);
	string_copy(conf.uidl_format, sizeof conf.uidl_format, "postern");
}

static void
sealed_marks_only(void **state)
{
	struct tally t;
	int fd = sealed_create("marks");

	(void)state;
	put(A B, strlen(A B));
	open_drop();
	assert_int_equal(write(fd, "\1\1", 2), 2);
	assert_int_equal(maildrop_update(&m, fd, 2, false, &t), -1);	/* not sealed */
	assert_int_equal(sealed_finish(fd), 0);
	assert_int_equal(maildrop_update(&m, fd, 1, false, &t), -1);	/* not of this maildrop */
	assert_int_equal(maildrop_update(&m, fd, 2, true, &t), -1);	/* a login that may not delete */
	assert_int_equal(m.failure, FAILURE_PERMISSION);
	close(fd);
	close_drop();
	assert_file(A B);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(shapes_are_read, clean), cmocka_unit_test_teardown(boundaries, clean),
		cmocka_unit_test_teardown(not_an_mbox, clean), cmocka_unit_test_teardown(updates, clean),
		cmocka_unit_test_teardown(replaced, clean), cmocka_unit_test_teardown(no_room, clean),
		cmocka_unit_test_teardown(inherited, clean), cmocka_unit_test_teardown(inherited_holds, clean),
		cmocka_unit_test_teardown(inherited_lengths, clean),
		cmocka_unit_test_teardown(fetch_doubts, clean), cmocka_unit_test_teardown(touched_meanwhile, clean),
		cmocka_unit_test_teardown(unfinished_lines, clean), cmocka_unit_test_teardown(forged_numbers, clean),
		cmocka_unit_test_teardown(ids, clean), cmocka_unit_test_teardown(sealed_marks_only, clean),
	};

	return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
