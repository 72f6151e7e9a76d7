/*
 * Unique-ids. What is expected of other servers' forms was printed by those servers for these very messages:
 * popa3d 1.0.3, Dovecot 2.3.19.1, courier-pop 1.0.16 and mailutils 3.15, as Debian 12 has them.
 * links: spoold/content.c spoold/uidl.c spoold/oldids.c
 * libs: -lxxhash -lnettle
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../spoold/uidl.h"

static const struct {
	const char *popa3d;
	const char *md5;	/* Dovecot's %m */
	const char *text;
} known[] = {
	{ "fed9c3594b4c341c", "25dc6e9d39ca18859e8bdb1fff24296a",
	  "Received: from x by y; Mon, 1 Jan 2024 00:00:00 +0000\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-Id: <1@x>\nFrom: a@b\n"
	  "Subject: one\n\nbody one\n" },
	{ "c5fdbcb1a53c0c75", "8266a7a5f02b868fe43ffb3032f872be",
	  "Received: from x.example\n\tby y.example (Postfix) with ESMTP\n\tid ABC; Mon, 1 Jan 2024 00:00:00 +0000\n"
	  "Received: from z by x; Sun\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-ID: <2@x>\nFrom: a@b\nSubject: two\n\nbody two\n" },
	{ "23b0c038b328f30d", "c241ad6ad9699e6054445cb2cd874426",
	  "From: a@b\nDate: Tue, 2 Jan 2024 00:00:00 +0000\nMessage-Id: <3@x>\nSubject: no received\n\nbody\n" },
	{ "b7fe83ddf9892a37", "04597c3897dbcddc803ab8dacb262dd2",
	  "Message-Id: <4@x>\nDate: Tue, 2 Jan 2024 00:00:00 +0000\nReceived: from x by y\nDelivered-To: tester@example.org\n"
	  "X-Delivery-ID: abcdef\nSubject: order\n\nbody\n" },
	{ "67e9c7f81333e14a", "45ebc77cf6300ed5c18106b540ee9a1d",
	  "DELIVERED-TO:tester@example.org\nreceived:\tfrom x by y\n\tmore \nSubject: odd white\nDate:   Tue  \nStatus: RO\nX-UID: 17\n\nbody\n" },
	{ "d98c1dd404b2008f", "d41d8cd98f00b204e9800998ecf8427e", "Subject: nothing\nFrom: a@b\n\nbody\n" },
	{ "2fd2d08705b7e129", "d35b534315668f1c7c85b080c8c8717b",
	  "Delivered-To: one@a\nDelivered-To: two@b\nDate: folded\n\tdate\nMessage-Id:\n <folded@x>\nX-UIDL: abc123\"xyz\nSubject: f\n\nbody\n" },
	{ "15330364cc371033", "83a7b411a6d11f150cc662640fc2843a",
	  "Received: from x.example\n\tby y.example\nDate: after\nMessage-Id: <after@x>\nX-Delivery-ID: zzz\nReceived: second\n"
	  "Delivered-To: late@x\nSubject: g\n\nbody\nDate: in the body\nReceived: in the body\n" },
	{ "ab0ff4deb6f0ef99", "d41d8cd98f00b204e9800998ecf8427e",
	  "Received: \nReceived: from b by c\nDate: d\nSubject: empty received\n\nbody\n" },
};
#define KNOWN (sizeof known / sizeof *known)

static char *
text_of(const struct uidl_id *id)
{
	static char text[UID_MAX + 1];

	assert_in_range(id->length, 1, UID_MAX);
	memcpy(text, id->text, id->length);
	text[id->length] = '\0';
	for (const char *c = text; *c != '\0'; c++)
		assert_in_range(*c, 0x21, 0x7e);
	return text;
}

/* The id of a message given in pieces of `step` octets. */
static const char *
named(struct uidl *u, const char *message, size_t step, struct uidl_id *id)
{
	size_t length = strlen(message);

	uidl_begin(u, "From a@b Mon Jan  1 00:00:00 2024", 33);
	for (size_t at = 0; at < length; at += step)
		uidl_add(u, message + at, length - at < step ? length - at : step);
	uidl_end(u, id);
	return text_of(id);
}

static const char *
mbox_id(const char *format, const char *message)
{
	struct uidl *u = uidl_open(format, MAILDROP_MBOX, -1);
	struct uidl_id id;

	assert_non_null(u);
	const char *text = named(u, message, SIZE_MAX / 2, &id);
	uidl_close(u);
	return text;
}

static void
test_formats(void **state)
{
	(void)state;
	static const char *const good[] = { "postern", "dovecot", "courier", "cyrus", "qmail", "qmail-pop3d", "popa3d", "mailutils",
		"%08Xu%08Xv", "%v.%u", "%f", "%g", "%m", "UID%u-%v", "%u%%", "%-4.4v.%u", "%{uid}", "%{uidvalidity | hex(8)}%{uid|hex(8)}" };
	static const char *const bad[] = { "", "uidl", "Postern", "%", "%v", "%u ", "%z", "%08", "plain%%", "%{}", "%{uid", "%{uid|md5}", "%1000u",
		"%u\xc3\xa4", "%XULRXu" };

	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_null(uidl_check(good[i]));
		struct uidl *u = uidl_open(good[i], MAILDROP_MBOX, -1);
		assert_non_null(u);
		uidl_close(u);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_non_null(uidl_check(bad[i]));
		assert_null(uidl_open(bad[i], MAILDROP_MBOX, -1));
	}
}

/*
 * The definition, worked out with xxhsum and a SipHash written in Python: it is in people's mail programs, so
 * it never changes.
 */
static void
test_definition(void **state)
{
	(void)state;
	assert_string_equal(mbox_id("postern", "Subject: one\nFrom: a@b\n\nbody one\n"), "KKFWDUeR9KHy65ukwSmeWw");
}

/* What mail programs change in place changes no id. */
static void
test_in_place(void **state)
{
	(void)state;
	static const char *const same[] = {
		"Status: O\nSubject: one\nFrom: a@b\n\nbody one\n",
		"Subject: one\nStatus: RO\nX-Status: A\nFrom: a@b\nX-Keywords:                 \nX-UID: 12         \n\nbody one\n",
		"X-IMAPbase: 1795356796 0000000011\n\tfolded keywords\nX-IMAP: 1 2\nSubject: one\nFrom: a@b\nContent-Length: 9\nLines: 1\n\nbody one\n",
		"Subject: one\nX-Mozilla-Status: 0001\nX-Mozilla-Status2: 00000000\nX-Mozilla-Keys:\nX-UIDL: 33\nFrom: a@b\n\nbody one\n",
		"sTATUS: R\r\nSubject: one\nFrom: a@b\nx-uid:\n 7\n\t8\n\nbody one\n",
	};
	static const char *const other[] = {
		"Subject: one\nFrom: a@b\n\nbody onE\n", "Subject: two\nFrom: a@b\n\nbody one\n", "Subject: one\nFrom: a@b\n\nbody one\n\n",
		"Subject: one\nFrom: a@b\n\nStatus: O\nbody one\n", "Subject: one\nFrom: a@b\nStatuses: O\n\nbody one\n",
		"Subject: one\nFrom: a@b\nX-Statu: O\n\nbody one\n", "Subject: one\nFrom: a@b\nStatus O\n\nbody one\n",
		"Subject: one\r\nFrom: a@b\r\n\r\nbody one\r\n", "Subject: one\nFrom: a@b\n\nbody one", "", "\n", "S", "Status: O\n",
	};

	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		assert_string_equal(mbox_id("postern", same[i]), "KKFWDUeR9KHy65ukwSmeWw");
	for (size_t i = 0; i < sizeof other / sizeof *other; i++)
		assert_string_not_equal(mbox_id("postern", other[i]), "KKFWDUeR9KHy65ukwSmeWw");
	char empty[UID_MAX + 1];
	strcpy(empty, mbox_id("postern", ""));
	assert_string_equal(mbox_id("postern", "Status: O\n"), empty);
	assert_string_equal(mbox_id("postern", "Status: O"), empty);
	assert_string_not_equal(mbox_id("postern", "S"), empty);
}

/* However the message comes in pieces, every form says the same. */
static void
test_pieces(void **state)
{
	(void)state;
	static const char *const formats[] = { "postern", "popa3d", "%m", "mailutils", "dovecot" };
	struct content_hash *h = content_new();

	for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
		for (size_t i = 0; i < KNOWN; i++) {
			char whole[UID_MAX + 1];
			struct uidl_id first, id;
			struct uidl *u = uidl_open(formats[f], MAILDROP_MBOX, -1);
			strcpy(whole, named(u, known[i].text, SIZE_MAX / 2, &first));
			for (size_t step = 1; step < 80; step++) {
				assert_string_equal(named(u, known[i].text, step, &id), whole);
				assert_memory_equal(id.fingerprint, first.fingerprint, FINGERPRINT_SIZE);
			}
			uint8_t fingerprint[FINGERPRINT_SIZE];
			content_begin(h);
			content_add(h, known[i].text, strlen(known[i].text));
			content_end(h, fingerprint);
			assert_memory_equal(fingerprint, first.fingerprint, FINGERPRINT_SIZE);
			uidl_close(u);
		}
	free(h);
}

static void
test_sums(void **state)
{
	(void)state;
	for (size_t i = 0; i < KNOWN; i++) {
		assert_string_equal(mbox_id("popa3d", known[i].text), known[i].popa3d);
		assert_string_equal(mbox_id("%m", known[i].text), known[i].md5);
		assert_string_equal(mbox_id("%g", known[i].text), known[i].md5);
		struct uidl *u = uidl_open("popa3d", MAILDROP_MAILDIR, -1);
		struct uidl_id id;
		assert_true(uidl_wants_content(u));
		uidl_begin(u, "", 0);
		uidl_add(u, known[i].text, strlen(known[i].text));
		uidl_name(u, "1.2.3:2,S", 9, &id);
		assert_string_equal(text_of(&id), known[i].popa3d);
		uidl_close(u);
	}
	/* a line as long as they come */
	char *longest = malloc(200000);
	strcpy(longest, "Date: ");
	memset(longest + 6, 'x', 3000);
	strcpy(longest + 3006, "\nMessage-Id: <long@x>\nSubject: long line\n\nbody\n");
	assert_string_equal(mbox_id("popa3d", longest), "4cb09ce3cd2155a3");
	assert_string_equal(mbox_id("%m", longest), "e543e321f1b0d1b5dd549193f742fa6d");
	memset(longest, 'x', 199999);
	longest[199999] = '\0';
	mbox_id("popa3d", longest);
	free(longest);
}

/* Dovecot's modifiers, on uid 3 and validity 1795356796 and the third message's sum. */
static void
test_templates(void **state)
{
	(void)state;
	static const struct { const char *format, *id; } cases[] = {
		{ "%08Xu%08Xv", "000000036b02f87c" }, { "dovecot", "000000036b02f87c" }, { "%u.%v", "3.1795356796" }, { "cyrus", "1795356796.3" },
		{ "%5u-%v", "3-1795356796" }, { "%2.4v-%u", "9535-3" }, { "%-4.4v.%u", "6796.3" },
		{ "%03u%g", "003c241ad6ad9699e6054445cb2cd874426" }, { "%8m%u", "c241ad6a3" }, { "%Xv.%Xu", "6b02f87c.3" },
		{ "%RXv.%u", "19fd57da3.3" }, { "%UXv.%u", "6b02f87c.3" }, { "%XUv.%u", "6B02F87C.3" }, { "%-3v.%u", "179.3" },
		{ "%02v.%u", "1795356796.3" }, { "%20Rm%u", "624478dc2bc5444506e93" }, { "%0v.%u", "1795356796.3" },
		{ "%99m", "c241ad6ad9699e6054445cb2cd874426" }, { "%10.5m", "699e6" }, { "%-5.02m", "74426" }, { "%u%%%v", "3%1795356796" },
		{ "a%u", "a3" }, { "%{uidvalidity}.%{uid}", "1795356796.3" }, { "%{uid | hex(8)}%{uidvalidity | hex(8)}", "000000036b02f87c" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct uidl *u = uidl_open(cases[i].format, MAILDROP_MBOX, -1);
		struct uidl_id id;
		char third[400];
		named(u, "Subject: 1\nX-IMAPbase: 1795356796 0000000011\nX-UID: 1     \n\n1\n", 100, &id);
		named(u, "Subject: 2\nX-UID: 2\n\n2\n", 100, &id);
		snprintf(third, sizeof third, "X-UID: 3         \n%s", known[2].text);
		assert_string_equal(named(u, third, 100, &id), cases[i].id);
		uidl_close(u);
	}
}

/* X-UID counts only as Dovecot counts it; all else falls back to our own id. */
static void
test_uids(void **state)
{
	(void)state;
	struct uidl *u = uidl_open("%v.%u", MAILDROP_MBOX, -1);
	struct uidl_id id;
	const char *own = mbox_id("postern", "Subject: x\n\nx\n");

	char expected[UID_MAX + 1];
	strcpy(expected, own);
	/* the pseudo message is the first */
	named(u, "Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 99 0000000020\nStatus: RO\n\n", 100, &id);
	assert_string_equal(named(u, "Subject: x\nX-UID: 5\n\nx\n", 3, &id), "99.5");
	assert_string_equal(named(u, "Subject: x\nX-UID: 5\n\nx\n", 3, &id), expected);
	assert_string_equal(named(u, "Subject: x\nX-UID: 4\n\nx\n", 3, &id), expected);
	assert_string_equal(named(u, "Subject: x\nX-UID: 21\n\nx\n", 3, &id), expected);
	assert_string_equal(named(u, "Subject: x\nX-UID: 99999999999999999999999999\n\nx\n", 3, &id), expected);
	assert_string_equal(named(u, "Subject: x\nX-UID: -1\nX-IMAPbase: 7 30\n\nx\n", 3, &id), expected);
	assert_string_equal(named(u, "Subject: x\nX-UID: 20\n\nx\n", 3, &id), "99.20");
	assert_string_equal(named(u, "Subject: x\n\nx\n", 3, &id), expected);
	uidl_close(u);
	/* the mailbox's validity is told at its head or nowhere */
	u = uidl_open("%v.%u", MAILDROP_MBOX, -1);
	named(u, "Subject: y\n\ny\n", 3, &id);
	assert_string_equal(named(u, "Subject: x\nX-IMAPbase: 7 30\nX-UID: 5\n\nx\n", 3, &id), expected);
	uidl_close(u);
}

static void
test_x_uidl(void **state)
{
	(void)state;
	assert_string_equal(mbox_id("mailutils", known[6].text), "abc123\"xyz");
	assert_string_equal(mbox_id("mailutils", "X-UIDL: 4769c0e2b6b7b945640b68506e3ff243.1795356966.1\nSubject: x\n\nx\n"),
	    "4769c0e2b6b7b945640b68506e3ff243.1795356966.1");
	char none[UID_MAX + 1];
	strcpy(none, mbox_id("mailutils", "Subject: x\n\nx\n"));
	assert_string_equal(mbox_id("postern", "Subject: x\n\nx\n"), none);
	assert_string_equal(mbox_id("mailutils", "X-UIDL: two words\nSubject: x\n\nx\n"), none);
	assert_string_equal(mbox_id("mailutils", "X-UIDL:\nSubject: x\n\nx\n"), none);
	assert_string_equal(mbox_id("mailutils",
	    "X-UIDL: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\nSubject: x\n\nx\n"), none);
}

/* A Maildir with a file of another server's in it. */
static int
maildir_with(const char *file, const char *text, char path[static 32])
{
	strcpy(path, "/tmp/postern-unit-XXXXXX");
	assert_non_null(mkdtemp(path));
	int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (file != NULL) {
		int fd = openat(directory, file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		assert_int_equal(write(fd, text, strlen(text)), strlen(text));
		close(fd);
	}
	return directory;
}

static void
maildir_remove(int directory, const char *path)
{
	unlinkat(directory, "dovecot-uidlist", 0);
	unlinkat(directory, "courierpop3dsizelist", 0);
	rmdir(path);
	close(directory);
}

struct expected {
	const char *format, *name, *id;
};

static void
expect_names(const char *file, const char *text, const struct expected *cases, size_t count)
{
	char path[32];
	int directory = maildir_with(file, text, path);

	for (size_t i = 0; i < count; i++) {
		struct uidl *u = uidl_open(cases[i].format, MAILDROP_MAILDIR, directory);
		struct uidl_id id;
		uidl_name(u, cases[i].name, strlen(cases[i].name), &id);
		assert_string_equal(text_of(&id), cases[i].id);
		uidl_close(u);
	}
	maildir_remove(directory, path);
}
#define LONG "longlonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglong"

static void
test_names(void **state)
{
	(void)state;
	static const struct expected cases[] = {
		{ "postern", "1700000001.M1P1.host:2,S", "1700000001.M1P1.host" },
		{ "postern", "1700000001.M1P1.host", "1700000001.M1P1.host" },
		{ "qmail", "1700000004.12345.host:2,", "1700000004.12345.host" },
		{ "postern", "1700000002.M2.host,S=216:2,", "1700000002.M2.host,S=216" },
		{ "postern", "1700000009.M9P9." LONG ":2,S", "u8TX6nQm1uG6a7wAOr9k3w" },
		{ "postern", "1700000009.M9P9." LONG ":2,", "u8TX6nQm1uG6a7wAOr9k3w" },
		{ "%f", "1.2.3:2,", "1.2.3" }, { "%g", "1.2.3:2,", "1.2.3" }, { "%Uf", "a.b:2,", "A.B" },
		{ "dovecot", "1.2.3:2,", "1.2.3" }, { "courier", "1.2.3", "1.2.3" }, { "cyrus", "1.2.3", "1.2.3" },
		{ "mailutils", "1.2.3", "1.2.3" }, { "popa3d", "1.2.3", "1.2.3" },
	};
	struct uidl *u = uidl_open("postern", MAILDROP_MAILDIR, -1);
	struct uidl_id id, other;

	expect_names(NULL, NULL, cases, sizeof cases / sizeof *cases);
	assert_false(uidl_wants_content(u));
	/* what cannot be sent is hashed, and differs where it differs */
	uidl_name(u, "name with blanks", 16, &id);
	assert_int_equal(id.length, 22);
	uidl_name(u, "name with blankS", 16, &other);
	assert_memory_not_equal(id.text, other.text, 22);
	uidl_name(u, ":2,S", 4, &id);
	text_of(&id);
	uidl_close(u);
}

static void
test_dovecot_uidlist(void **state)
{
	(void)state;
	static const char list[] = "3 V1795356889 N10 Gbc953118d9f8026b6632000083ecc375\n"
	    "1 W39 Px1-1795356889 :odd+name'x.host\n"
	    "2 W151 :1700000001.M1P1.host\n"
	    "3 G0123456789abcdef W227 S216 :1700000002.M2P2V00F.host,S=216\n"
	    "9 :1700000009.M9P9." LONG "\n"
	    "nonsense\n12\n13 \n14 :\n15 W1 P\n"
	    "16 Pwith\tblank :seven\n"
	    "17 :1700000001.M1P1.hostess\n"
	    "4294967296 :too.large\n"
	    "18 :torn.line";
	static const struct expected cases[] = {
		{ "%08Xu%08Xv", "1700000001.M1P1.host:2,S", "000000026b02f8d9" },
		{ "%v.%u", "1700000002.M2P2V00F.host,S=216:2,", "1795356889.3" },
		{ "cyrus", "1700000009.M9P9." LONG ":2,RS", "1795356889.9" },
		{ "%v.%u", "odd+name'x.host:2,F", "x1-1795356889" }, { "%g", "odd+name'x.host:2,F", "x1-1795356889" },
		{ "%g", "1700000002.M2P2V00F.host,S=216:2,", "0123456789abcdef" },
		{ "%g", "1700000001.M1P1.host", "1700000001.M1P1.host" },
		{ "%v.%u", "seven", "1795356889.16" }, { "%v.%u", "1700000001.M1P1.hostess", "1795356889.17" },
		{ "%v.%u", "too.large", "too.large" }, { "%v.%u", "torn.line", "torn.line" }, { "%v.%u", "absent", "absent" },
		{ "courier", "seven", "seven" }, { "postern", "seven", "seven" },
	};
	static const struct expected first[] = { { "%v.%u", "1.2.3:2,S", "1234567.5" }, { "%v.%u", "1.2.4", "1.2.4" } };
	static const struct expected none[] = { { "%v.%u", "1.2.3:2,S", "1.2.3" } };

	expect_names("dovecot-uidlist", list, cases, sizeof cases / sizeof *cases);
	expect_names("dovecot-uidlist", "1 1234567 8\n5 1.2.3:2,\n", first, 2);
	expect_names("dovecot-uidlist", "7 V1234567 N8\n5 :1.2.3\n", none, 1);
	expect_names("dovecot-uidlist", "3 N8\n5 :1.2.3\n", none, 1);
	expect_names("dovecot-uidlist", "", none, 1);
	expect_names("dovecot-uidlist", "no line end", none, 1);
	expect_names("dovecot-uidlist", "\n\n\n", none, 1);
}

static void
test_courier_list(void **state)
{
	(void)state;
	static const char list[] = "/3 10 1795356912\n"
	    "1700000001.M1P1.host:2,S 151 2:1795356912:0\n"
	    "name with blanks:2,S 151 3:1795356912:1\n"
	    "nonsense\nmore nonsense\n 1 2:3\n";
	static const struct expected cases[] = {
		{ "courier", "1700000001.M1P1.host:2,RS", "UID2-1795356912" }, { "courier", "name with blanks:2,", "UID3-1795356912" },
		{ "courier", "1700000004.12345.host", "1700000004.12345.host" }, { "dovecot", "1700000001.M1P1.host", "1700000001.M1P1.host" },
	};
	static const char older[] = "/2 10 1795356912\n"
	    "odd+name'x.host:2,F 39 0:0\n"
	    "1700000001.M1P1.host:2,S 151 2:0\n"
	    "1700000002.M2P2V00F.host,S=216:2, 227 3:1795356912\n"
	    "1700000003.M3P3.host:2, 100 4:17\n";
	static const struct expected older_cases[] = {
		{ "courier", "odd+name'x.host:2,F", "odd+2Bname+27x.host" }, { "courier", "1700000001.M1P1.host:2,S", "UID2" },
		{ "courier", "1700000002.M2P2V00F.host,S=216:2,", "UID3-1795356912" }, { "courier", "1700000003.M3P3.host:2,", "UID4-17" },
	};

	expect_names("courierpop3dsizelist", list, cases, 4);
	expect_names("courierpop3dsizelist", older, older_cases, 4);
}

/* Formats that mean the same are one context, and others are not. */
static void
test_context(void **state)
{
	(void)state;
	static const char *const formats[] = { "postern", "qmail", "dovecot", "%08Xu%08Xv", "cyrus", "courier", "popa3d", "%m", "mailutils" };
	uint64_t context[9];

	for (size_t i = 0; i < 9; i++) {
		struct uidl *u = uidl_open(formats[i], MAILDROP_MAILDIR, -1);
		context[i] = uidl_context(u);
		uidl_close(u);
	}
	for (size_t i = 0; i < 9; i++)
		for (size_t j = 0; j < i; j++)
			assert_int_equal(context[i] == context[j], i == j + 1 && (i == 1 || i == 3));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats), cmocka_unit_test(test_definition), cmocka_unit_test(test_in_place),
		cmocka_unit_test(test_pieces), cmocka_unit_test(test_sums), cmocka_unit_test(test_templates), cmocka_unit_test(test_uids),
		cmocka_unit_test(test_x_uidl), cmocka_unit_test(test_names), cmocka_unit_test(test_dovecot_uidlist),
		cmocka_unit_test(test_courier_list), cmocka_unit_test(test_context),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
