/*
 * RETR of a message in an mbox that another program changes in that moment. The worker's answers and the connection are stubs, and so is
 * pread(2): in both of the latter the other program is at work.
 * links: pop3d/retrieve.c pop3d/place.c pop3d/window.c pop3d/output.c pop3d/language.c lib/language.c lib/wire.c lib/catalogue.c lib/conf.c lib/log.c lib/messages.c lib/system.c
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../pop3d/ask.h"
#include "../../pop3d/session.h"

#define LINE "0123456789abcde\n"
#define AT 40		/* where the message is */

static struct session s;
static struct catalogue_row row[2];	/* the second is the first once more */
static unsigned char mark[2];
static char message[1600000], *sent;
static size_t length, sent_length;
static off_t shift;		/* the other program's, before the next read of the mbox, or when something is sent */
static off_t cut;		/* so long it makes the file in which the message is, then */
static int opened;		/* that file */
static bool vanished;
static int copies;

static void fill(off_t at);

static void
other_program(void)
{
	off_t by = shift;

	shift = 0;
	if (by != 0)
		fill(AT + by);
	if (cut != 0)
		assert_int_equal(ftruncate(opened, cut), 0);
	cut = 0;
}

bool
stream_write(struct stream *stream, const char *data, size_t n, bool more)
{
	(void)more;
	other_program();
	sent = realloc(sent, sent_length + n + 1);
	memcpy(sent + sent_length, data, n);
	sent[sent_length += n] = '\0';
	stream->octets_out += n;
	return true;
}

void ask_differs(int worker, uint32_t number) { (void)worker; (void)number; }
bool ask_fetch(int worker, uint32_t number) { (void)worker; (void)number; return true; }
bool ask_fetch_ahead(int worker, uint32_t number, uint32_t count) { (void)worker; (void)number; (void)count; return true; }
int ask_fetched_now(int worker, uint32_t number, struct message *answer) { return ask_fetched(worker, number, answer); }

int
ask_fetched(int worker, uint32_t number, struct message *answer)
{
	(void)worker;
	message_start(answer, vanished ? MESSAGE_FAILED : MESSAGE_MESSAGE);
	if (vanished) {
		answer->body.failed.failure = FAILURE_VANISHED;
		return 1;
	}
	int fd = memfd_create("copy", 0);
	assert_int_equal(write(fd, message, length), length);
	answer->body.message.number = number;
	answer->body.message.length = length;
	answer->fds[0] = fd;
	if (s.mbox == -1)
		opened = fd;
	copies++;
	return 1;
}

static void
fill(off_t at)
{
	struct timespec times[2] = { { .tv_sec = 1000 + at }, { .tv_sec = 1000 + at } };

	for (off_t i = 0; i < at; i++)
		assert_int_equal(pwrite(s.mbox, i == at - 1 ? "\n" : "F", 1, i), 1);
	assert_int_equal(pwrite(s.mbox, message, length, at), length);
	assert_int_equal(futimens(s.mbox, times), 0);
}

ssize_t
pread(int fd, void *to, size_t n, off_t at)
{
	if (fd == opened)
		other_program();
	return syscall(SYS_pread64, fd, to, n, at);
}

/* An mbox with one message of so many lines. */
static void
start(size_t lines)
{
	static struct catalogue_header header = { .count = 2 };
	struct stat st;

	static const struct conf conf;

	memset(&s, 0, sizeof s);
	s.conf = &conf;
	length = lines * (sizeof LINE - 1);
	for (size_t i = 0; i < lines; i++)
		memcpy(message + i * (sizeof LINE - 1), LINE, sizeof LINE - 1);
	snprintf(message, 16, "%-15zu", lines);
	message[15] = '\n';
	s.output.stream = &s.stream;
	s.worker = 100;
	s.mbox = memfd_create("mbox", 0);
	assert_int_equal(ftruncate(s.mbox, (off_t)length + 1000), 0);
	opened = s.mbox;
	fill(AT);
	assert_int_equal(fstat(s.mbox, &st), 0);
	s.ready = (struct body_ready){ .size = (uint64_t)st.st_size, .mtime_sec = st.st_mtim.tv_sec, .mtime_nsec = st.st_mtim.tv_nsec, .count = 2 };
	row[0] = row[1] = (struct catalogue_row){ .octets = length + lines, .offset = AT, .length = length };
	s.catalogue.header = &header;
	s.catalogue.rows = row;
	s.luck = s.asked.most = 1;
	s.marks = mark;
	free(sent);
	sent = calloc(1, 1);
	sent_length = 0;
	shift = cut = 0;
	vanished = false;
	copies = 0;
}

static void
assert_sent_whole(void)
{
	char *at = strstr(sent, "\r\n");

	assert_int_equal(strncmp(sent, "+OK ", 4), 0);
	assert_non_null(at);
	at += 2;
	for (size_t i = 0; i < length; i++) {
		if (message[i] == '\n')
			assert_int_equal(*at++, '\r');
		assert_int_equal(*at++, message[i]);
	}
	assert_string_equal(at, ".\r\n");
	close(s.mbox);
}

static void
test_untouched(void **state)
{
	(void)state;
	start(100);
	assert_int_equal(retrieve(&s, 1, NULL), EVENT_DONE);
	output_flush(&s.output);
	assert_sent_whole();
	assert_int_equal(copies, 0);
}

/* It has moved before it was read: what was read is not sent, the worker's copy is. */
static void
test_moved(void **state)
{
	(void)state;
	for (off_t by = -10; by <= 10; by += 5) {
		start(100);
		shift = by;
		assert_int_equal(retrieve(&s, 1, NULL), EVENT_DONE);
		output_flush(&s.output);
		assert_sent_whole();
	}
}

static void
test_gone(void **state)
{
	(void)state;
	start(100);
	shift = 7;
	vanished = true;
	assert_int_equal(retrieve(&s, 1, NULL), EVENT_REFUSED);
	output_flush(&s.output);
	assert_int_equal(strncmp(sent, "-ERR message 1 ", 15), 0);
	assert_null(strstr(sent, "+OK"));
	close(s.mbox);
}

/* Some of it is with the client already: there is no clean end. */
static void
test_moved_while_sent(void **state)
{
	(void)state;
	start(20000);
	shift = 7;
	assert_int_equal(retrieve(&s, 1, NULL), EVENT_END);
	output_flush(&s.output);
	assert_string_equal(s.end, "read-error");
	assert_null(strstr(sent, "\r\n.\r\n"));
	close(s.mbox);
}

/* The same, and with a file of its own, when it becomes shorter: by an octet, or by pages that were to be seen. */
static void
test_shorter_while_sent(void **state)
{
	static const size_t by[] = { 1, 4096, 100000, 1000000 };

	(void)state;
	for (size_t i = 0; i < 2 * sizeof by / sizeof by[0]; i++) {
		start(100000);
		cut = (off_t)(length - by[i / 2]);
		if (i % 2 == 0)
			cut += AT;
		else {
			close(s.mbox);
			s.mbox = -1;
		}
		assert_int_equal(retrieve(&s, 1, NULL), EVENT_END);
		output_flush(&s.output);
		assert_string_equal(s.end, "read-error");
		assert_null(strstr(sent, "\r\n.\r\n"));
		assert_int_equal(cut, 0);
		close(s.mbox);
	}
}

/* The first is sent; nothing more is said, and the next is made. */
static void
start_ahead(size_t lines)
{
	start(lines);
	assert_int_equal(retrieve(&s, 1, NULL), EVENT_DONE);
	output_flush(&s.output);
	sent_length = 0;
	sent[0] = '\0';
	retrieve_ahead(&s);
	assert_int_equal(s.output.used, 0);
	assert_int_not_equal(s.output.kept, 0);
	assert_int_equal(sent_length, 0);
}

/* Lines of messages that are made ahead whole, and one that is not. */
static const size_t sizes[] = { 1, 100, 10000, 20000, 100000 };

static void
test_ahead(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		start_ahead(sizes[i]);
		assert_int_equal(retrieve(&s, 2, NULL), EVENT_DONE);
		output_flush(&s.output);
		assert_sent_whole();
		assert_int_equal(copies, 0);
	}
}

/* Another program moves it after it was made. What was not yet read is not looked for where it was, nor is what was read trusted. */
static void
test_ahead_moved(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		start_ahead(sizes[i]);
		fill(AT + 7);
		assert_int_equal(retrieve(&s, 2, NULL), EVENT_DONE);
		output_flush(&s.output);
		assert_sent_whole();
		assert_int_equal(copies, 1);
	}
}

/* It is moved, or removed, when a part of it has left, be the rest ever so small: there is no clean end, nor another answer. */
static void
test_ahead_moved_while_sent(void **state)
{
	static const size_t lines[] = { 37000, 39000, 41000, 100000 };

	(void)state;
	for (size_t i = 0; i < 2 * sizeof lines / sizeof lines[0]; i++) {
		start_ahead(lines[i / 2]);
		shift = 7;
		vanished = i % 2 == 1;
		assert_int_equal(retrieve(&s, 2, NULL), EVENT_END);
		output_flush(&s.output);
		assert_string_equal(s.end, "read-error");
		assert_int_not_equal(sent_length, 0);
		assert_null(strstr(sent, "\r\n.\r\n"));
		assert_null(strstr(sent, "-ERR"));
		assert_null(strstr(sent + 3, "+OK"));
		close(s.mbox);
	}
}

/* What was made is given back with the memory it is in: the message is made again. */
static void
test_given_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		start_ahead(sizes[i]);
		assert_int_equal(output_is_large(&s.output), sizes[i] >= 10000);
		if (output_is_large(&s.output))
			output_give_back(&s.output);
		assert_false(output_is_large(&s.output));
		assert_int_equal(retrieve(&s, 2, NULL), EVENT_DONE);
		output_flush(&s.output);
		assert_sent_whole();
	}
}

/* The client wants something else first: its answer is there, once, and so is the message. */
static void
test_ahead_in_vain(void **state)
{
	static const char other[] = "+OK other\r\n";

	(void)state;
	start_ahead(100);
	output_ok(&s.output, "other");
	assert_int_equal(retrieve(&s, 2, NULL), EVENT_DONE);
	output_flush(&s.output);
	assert_int_equal(strncmp(sent, other, strlen(other)), 0);
	memmove(sent, sent + strlen(other), sent_length + 1 - strlen(other));
	assert_sent_whole();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_untouched), cmocka_unit_test(test_moved), cmocka_unit_test(test_gone),
		cmocka_unit_test(test_moved_while_sent), cmocka_unit_test(test_shorter_while_sent), cmocka_unit_test(test_ahead), cmocka_unit_test(test_ahead_moved),
		cmocka_unit_test(test_ahead_moved_while_sent), cmocka_unit_test(test_given_back),
		cmocka_unit_test(test_ahead_in_vain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
