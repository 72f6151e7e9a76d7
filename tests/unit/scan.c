/*
 * One pass over an mbox: messages that lie across the windows in which it is looked at, and a file that is cut short
 * meanwhile.
 * links: spoold/scan.c spoold/uidl.c spoold/content.c spoold/oldids.c lib/wire.c
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
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "../../spoold/scan.h"

#define WINDOW (2 << 20)	/* as in scan.c */

static const char from[] = "From a@b Sat Jan  3 01:05:34 1998\n", head[] = "Subject: x\n\n";

struct seen {
	int count, cut;		/* cut: the file to empty at the first message */
	off_t start[8], offset[8];
	uint64_t length[8], octets[8];
};

static int
each(const struct scan_found *f, void *data)
{
	struct seen *s = data;

	if (s->cut != -1)
		assert_int_equal(ftruncate(s->cut, 0), 0);
	assert_true(s->count < 8);
	s->start[s->count] = f->start;
	s->offset[s->count] = f->offset;
	s->length[s->count] = f->length;
	s->octets[s->count++] = f->octets;
	return 0;
}

static int
file_of(const char *text, size_t length)
{
	char name[] = "/tmp/postern-scan-XXXXXX";
	int fd = mkstemp(name);

	assert_true(fd != -1);
	unlink(name);
	assert_int_equal(write(fd, text, length), (ssize_t)length);
	return fd;
}

/* A message whose body is filled up so that what follows the blank line after it starts at `end`. */
static char *
message(char *p, const char *end)
{
	memcpy(p, from, sizeof from - 1);
	p += sizeof from - 1;
	memcpy(p, head, sizeof head - 1);
	p += sizeof head - 1;
	while (p < end - 1) {
		size_t n = (size_t)(end - 1 - p);
		if (n > 77)
			n = n - 77 < 2 ? 70 : 77;
		memset(p, 'y', n - 1);
		p[n - 1] = '\n';
		p += n;
	}
	*p++ = '\n';
	return p;
}

static void
boundaries(void **state)
{
	size_t size = 2 * WINDOW + 8192;
	char *text = malloc(size);

	(void)state;
	assert_non_null(text);
	for (int second = -90; second <= 90; second++) {
		for (int third = 0; third <= 1; third++) {
			struct seen s = { .cut = -1 };
			size_t a = (size_t)(WINDOW + second), b = third ? a + 200 : 2 * WINDOW - 4096u + (size_t)(second + 90) % 60;
			char *p = message(text, text + a);
			p = message(p, text + b);
			p = message(p, text + size);
			int fd = file_of(text, size);
			struct scan scan = { .fd = fd, .end = (off_t)size, .uidl = uidl_open("postern", MAILDROP_MBOX, -1), .each = each, .data = &s };
			assert_int_equal(mbox_scan(&scan), 0);
			assert_int_equal(s.count, 3);
			assert_int_equal(s.start[1], a);
			assert_int_equal(s.start[2], b);
			for (int i = 0; i < 3; i++) {
				size_t end = i == 0 ? a : i == 1 ? b : size, lines = 0;
				assert_int_equal(s.offset[i], s.start[i] + (off_t)sizeof from - 1);
				assert_int_equal((size_t)s.offset[i] + s.length[i], end - 1);
				for (size_t k = (size_t)s.offset[i]; k < end - 1; k++)
					lines += text[k] == '\n';
				assert_int_equal(s.octets[i], s.length[i] + lines);
			}
			/* and from the second on, as a mailbox that has grown is scanned */
			struct seen tail = { .cut = -1 };
			scan = (struct scan){ .fd = fd, .start = (off_t)a, .end = (off_t)size, .after_blank = true, .uidl = scan.uidl, .each = each, .data = &tail };
			assert_int_equal(mbox_scan(&scan), 0);
			assert_int_equal(tail.count, 2);
			assert_int_equal(tail.start[0], a);
			assert_int_equal(tail.octets[1], s.octets[2]);
			uidl_close(scan.uidl);
			close(fd);
		}
	}
	free(text);
}

/* Another program, which heeds no lock, empties the file: an error, and no signal. */
static void
cut_short(void **state)
{
	size_t size = WINDOW + 100000;
	char *text = malloc(size);

	(void)state;
	assert_non_null(text);
	message(message(text, text + 300), text + size);
	struct seen s = { .cut = file_of(text, size) };
	struct scan scan = { .fd = s.cut, .end = (off_t)size, .uidl = uidl_open("postern", MAILDROP_MBOX, -1), .each = each, .data = &s };
	assert_int_equal(mbox_scan(&scan), -1);
	assert_int_equal(errno, ESTALE);
	assert_int_equal(s.count, 1);
	/* and the next is as good as before */
	assert_int_equal(pwrite(s.cut, text, size, 0), (ssize_t)size);
	int fd = s.cut;
	s = (struct seen){ .cut = -1 };
	assert_int_equal(mbox_scan(&scan), 0);
	assert_int_equal(s.count, 2);
	uidl_close(scan.uidl);
	close(fd);
	free(text);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = { cmocka_unit_test(boundaries), cmocka_unit_test(cut_short) };

	return sodium_init() == -1 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
