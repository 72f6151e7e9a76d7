/*
 * Receipt of messages: whatever is not a whole message of the roster, for these sides, with its descriptors, is EPROTO and
 * leaves no descriptor open.
 * links: lib/messages.c
 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "catalogue.h"
#include "messages.h"

static const struct {
	const char *name;
	enum side from, to;
	int fds;
	size_t body;
} roster[] = {
#define ROW(name, from, to, fds, body) { #name, SIDE_##from, SIDE_##to, fds, sizeof(struct body_##body) },
	MESSAGE_ROSTER(ROW)
#undef ROW
};

static struct message out, in;
static int pair[2];
static int before;

static int
count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

static int
set_up(void **state)
{
	(void)state;
	before = count_descriptors();
	return message_pair(pair);
}

static int
tear_down(void **state)
{
	(void)state;
	message_clear(&in);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(count_descriptors(), before);	/* nothing that rode along is left */
	return 0;
}

/* Sends raw bytes with `count` descriptors of /dev/null. */
static void
send_raw(const void *bytes, size_t length, int count)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(16 * sizeof(int))];
	} control;
	int fds[16];
	struct iovec part = { (void *)(uintptr_t)bytes, length };
	struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };

	for (int i = 0; i < count; i++)
		assert_int_not_equal(fds[i] = open("/dev/null", O_RDONLY), -1);
	if (count > 0) {
		memset(&control, 0, sizeof control);
		packet.msg_control = &control;
		packet.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&packet);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)count * sizeof(int));
	}
	assert_int_equal(sendmsg(pair[0], &packet, 0), length);
	for (int i = 0; i < count; i++)
		close(fds[i]);
}

/* A whole, sound packet of `type` in one piece. */
static size_t
packet_of(uint32_t type, char *bytes)
{
	message_start(&out, type);
	if (type == MESSAGE_ATTACH)
		out.body.attach.side = SIDE_HASHER;
	memcpy(bytes, &out.header, sizeof out.header);
	memcpy(bytes + sizeof out.header, &out.body, roster[type].body);
	return sizeof out.header + roster[type].body;
}

static void
assert_refused(enum side from, enum side to)
{
	errno = 0;
	assert_int_equal(message_receive(pair[1], &in, from, to), -1);
	assert_int_equal(errno, EPROTO);
	for (int i = 0; i < MESSAGE_MAX_FDS; i++)
		assert_int_equal(in.fds[i], -1);
}

static char bytes[2 * sizeof(struct message)];

static void
every_message_arrives(void **state)
{
	(void)state;
	for (uint32_t t = 0; t < MESSAGE_COUNT; t++) {
		size_t n = packet_of(t, bytes);
		int fd = open("/dev/null", O_RDONLY);
		assert_int_equal(n, message_size(t));
		assert_string_equal(message_name(t), roster[t].name);
		for (int i = 0; i < roster[t].fds; i++)
			out.fds[i] = fd;
		assert_int_equal(message_send(pair[0], &out), 0);
		assert_int_equal(message_receive(pair[1], &in, roster[t].from, roster[t].to), 1);
		assert_int_equal(in.header.type, t);
		assert_memory_equal(&in.body, &out.body, roster[t].body);
		for (int i = 0; i < MESSAGE_MAX_FDS; i++) {
			assert_int_equal(in.fds[i] != -1, i < roster[t].fds);
			if (in.fds[i] != -1)
				assert_int_equal(fcntl(in.fds[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
		}
		message_clear(&in);
		close(fd);
	}
}

static void
short_and_long(void **state)
{
	(void)state;
	for (uint32_t t = 0; t < MESSAGE_COUNT; t++) {
		size_t n = packet_of(t, bytes);
		const size_t wrong[] = { 1, 3, 4, 7, sizeof out.header, n - 1, n + 1, n + 8, n + 4096 };
		for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
			if (wrong[i] == n)
				continue;
			send_raw(bytes, wrong[i], roster[t].fds);
			assert_refused(roster[t].from, roster[t].to);
		}
	}
}

/* Larger than any message: cut by the kernel, and seen as cut. */
static void
larger_than_any(void **state)
{
	size_t n = packet_of(MESSAGE_AUTH, bytes);

	(void)state;
	memset(bytes + n, 0, sizeof bytes - n);
	send_raw(bytes, sizeof bytes, 0);
	assert_refused(SIDE_POP3D, SIDE_VERIFIER);
}

static void
wrong_side(void **state)
{
	(void)state;
	for (uint32_t t = 0; t < MESSAGE_COUNT; t++)
		for (int from = SIDE_LISTENER; from <= SIDE_TOOL; from++)
			for (int to = SIDE_LISTENER; to <= SIDE_TOOL; to++) {
				if (from == (int)roster[t].from && to == (int)roster[t].to)
					continue;
				size_t n = packet_of(t, bytes);
				send_raw(bytes, n, roster[t].fds);
				assert_refused((enum side)from, (enum side)to);
			}
}

static void
wrong_number_of_descriptors(void **state)
{
	static const int counts[] = { 0, 1, 2, 3, 4, 5, 8, 16 };

	(void)state;
	for (uint32_t t = 0; t < MESSAGE_COUNT; t++)
		for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
			size_t n = packet_of(t, bytes);
			if (counts[i] == roster[t].fds)
				continue;
			send_raw(bytes, n, counts[i]);
			assert_refused(roster[t].from, roster[t].to);
		}
}

static void
unknown_type_and_magic(void **state)
{
	static const uint32_t types[] = { MESSAGE_COUNT, MESSAGE_COUNT + 1, 0x7fffffff, 0x80000000, UINT32_MAX };
	struct message_header *h = (struct message_header *)(void *)bytes;

	(void)state;
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
		size_t n = packet_of(MESSAGE_FETCH, bytes);
		h->type = types[i];
		send_raw(bytes, n, 0);
		assert_refused(SIDE_POP3D, SIDE_WORKER);
		assert_int_equal(message_size(types[i]), 0);
		assert_string_equal(message_name(types[i]), "?");
	}
	size_t n = packet_of(MESSAGE_FETCH, bytes);
	h->magic ^= 1;
	send_raw(bytes, n, 0);
	assert_refused(SIDE_POP3D, SIDE_WORKER);
}

/* An empty packet reads as the end, unless something rides on it; both end the conversation. */
static void
empty_packet(void **state)
{
	(void)state;
	send_raw(bytes, 0, 0);
	assert_int_equal(message_receive(pair[1], &in, SIDE_POP3D, SIDE_WORKER), 0);
	send_raw(bytes, 0, 1);
	assert_refused(SIDE_POP3D, SIDE_WORKER);
}

static void
peer_gone(void **state)
{
	(void)state;
	assert_int_equal(shutdown(pair[0], SHUT_WR), 0);
	assert_int_equal(message_receive(pair[1], &in, SIDE_POP3D, SIDE_WORKER), 0);
	assert_int_equal(shutdown(pair[1], SHUT_RDWR), 0);
	message_start(&out, MESSAGE_FETCH);
	assert_int_equal(message_send(pair[0], &out), -1);	/* and no SIGPIPE */
	assert_int_equal(errno, EPIPE);
}

static void
nothing_there(void **state)
{
	(void)state;
	assert_int_equal(message_wait(pair[1], 0), 0);
	assert_int_equal(fcntl(pair[1], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(message_receive(pair[1], &in, SIDE_POP3D, SIDE_WORKER), -1);
	assert_int_equal(errno, EAGAIN);
	message_start(&out, MESSAGE_FETCH);
	assert_int_equal(message_send(pair[0], &out), 0);
	assert_int_equal(message_wait(pair[1], 1000), 1);
}

#define STRING(type, body, field) { MESSAGE_##type, offsetof(struct body_##body, field), sizeof((struct body_##body *)0)->field }

/* A string that does not end in its place. */
static void
strings_end(void **state)
{
	static const struct {
		uint32_t type;
		size_t offset, size;
	} strings[] = {
		STRING(HELLO, hello, session), STRING(HELLO, hello, client), STRING(HELLO, hello, local),
		STRING(HELLO, hello, tls_version), STRING(HELLO, hello, binding_type), STRING(GRANTED, granted, user),
		STRING(OPEN, open, session), STRING(OPEN, open, user), STRING(OPEN, open, client),
		STRING(CHANNEL, channel, session), STRING(REFUSED, refused, session), STRING(HASH, hash, hash),
		STRING(HASH, hash, password), STRING(ATTEMPT, attempt, user), STRING(ATTEMPT, attempt, password),
		STRING(ATTEMPT, attempt, client), STRING(VERDICT, verdict, user), STRING(RESOLVED, resolved, user),
		STRING(RESOLVED, resolved, mbox), STRING(MAILDROP, maildrop, path), STRING(SPOOL_COMMAND, spool_command, argument),
		STRING(SPOOL_SESSION, spool_session, session), STRING(SPOOL_SESSION, spool_session, user),
		STRING(SPOOL_SESSION, spool_session, client), STRING(SPOOL_SESSION, spool_session, path),
		STRING(SPOOL_CHANNEL, spool_channel, session), STRING(PROXIED, proxied, client), STRING(GREET, greet, session),
		STRING(BANNER, banner, timestamp), STRING(MAKE, make, like), STRING(MAKE, make, password), STRING(MADE, made, hash),
	};

	(void)state;
	for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
		uint32_t t = strings[i].type;
		size_t n = packet_of(t, bytes);
		char *at = bytes + sizeof out.header + strings[i].offset;
		memset(at, 'x', strings[i].size);
		send_raw(bytes, n, roster[t].fds);
		assert_refused(roster[t].from, roster[t].to);
		at[strings[i].size - 1] = '\0';	/* the longest that fits */
		send_raw(bytes, n, roster[t].fds);
		assert_int_equal(message_receive(pair[1], &in, roster[t].from, roster[t].to), 1);
		message_clear(&in);
	}
}

#define NUMBER(type, body, field, most) { MESSAGE_##type, offsetof(struct body_##body, field), most }

/* Lengths, enumerations and flags: the largest good one passes, one more does not. */
static void
numbers_stay_inside(void **state)
{
	static const struct {
		uint32_t type;
		size_t offset;
		uint32_t most;
	} numbers[] = {
		NUMBER(HELLO, hello, binding_length, 64), NUMBER(HELLO, hello, end_point_length, 64), NUMBER(AUTH, auth, mechanism, MECHANISM_COUNT - 1),
		NUMBER(AUTH, auth, has_initial, 1), NUMBER(AUTH, auth, length, SASL_SIZE),
		NUMBER(RESPOND, respond, cancelled, 1), NUMBER(RESPOND, respond, length, SASL_SIZE),
		NUMBER(CHALLENGE, challenge, length, CHALLENGE_SIZE), NUMBER(GRANTED, granted, no_delete, 1),
		NUMBER(DENIED, denied, denial, DENIED_COUNT - 1), NUMBER(DENIED, denied, last, 1),
		NUMBER(OPEN, open, store, STORE_COUNT - 1), NUMBER(OPEN, open, no_delete, 1),
		NUMBER(REFUSED, refused, failure, FAILURE_COUNT - 1), NUMBER(FAILED, failed, failure, FAILURE_COUNT - 1),
		NUMBER(UPDATE_FAILED, update_failed, failure, FAILURE_COUNT - 1), NUMBER(CLAIM, claim, held, 1),
		NUMBER(CLAIMED, claimed, ended, 1), NUMBER(CLAIMED, claimed, journal, JOURNAL_LEFT_COUNT - 1),
		NUMBER(PRIVILEGED, privileged, what, PRIVILEGED_COUNT - 1),
		NUMBER(DONE, done, what, PRIVILEGED_COUNT - 1), NUMBER(HASHED, hashed, verdict, 1),
		NUMBER(HASHED, hashed, error, 1), NUMBER(VERDICT, verdict, denial, DENIED_COUNT),
		NUMBER(HANDED, handed, what, PRIVILEGED_COUNT - 1), NUMBER(MAILDROP, maildrop, kind, MAILDROP_COUNT - 1),
		NUMBER(SPOOL_COMMAND, spool_command, command, SPOOL_COMMAND_COUNT - 1), NUMBER(ADMITTED, admitted, allowed, 1),
	};

	(void)state;
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
		uint32_t t = numbers[i].type, good = numbers[i].most, bad[] = { good + 1, INT32_MAX, UINT32_MAX };
		size_t n = packet_of(t, bytes);
		char *at = bytes + sizeof out.header + numbers[i].offset;
		for (int k = 0; k < 3; k++) {
			memcpy(at, &bad[k], sizeof bad[k]);
			send_raw(bytes, n, roster[t].fds);
			assert_refused(roster[t].from, roster[t].to);
		}
		memcpy(at, &good, sizeof good);
		send_raw(bytes, n, roster[t].fds);
		assert_int_equal(message_receive(pair[1], &in, roster[t].from, roster[t].to), 1);
		message_clear(&in);
	}
}

/* What would be refused is not sent either. */
static void
unsound_is_not_sent(void **state)
{
	(void)state;
	message_start(&out, MESSAGE_GRANTED);	/* without its descriptor */
	assert_int_equal(message_send(pair[0], &out), -1);
	assert_int_equal(errno, EPROTO);
	message_start(&out, MESSAGE_FETCH);
	out.fds[0] = pair[0];			/* with one too many */
	assert_int_equal(message_send(pair[0], &out), -1);
	assert_int_equal(errno, EPROTO);
	message_start(&out, MESSAGE_AUTH);
	out.body.auth.length = SASL_SIZE + 1;
	assert_int_equal(message_send(pair[0], &out), -1);
	assert_int_equal(errno, EPROTO);
	assert_int_equal(message_wait(pair[1], 0), 0);
}

static void
clear_wipes(void **state)
{
	(void)state;
	message_start(&out, MESSAGE_HASH);
	strcpy(out.body.hash.password, "secret");
	assert_int_equal(message_send(pair[0], &out), 0);
	assert_int_equal(message_receive(pair[1], &in, SIDE_VERIFIER, SIDE_HASHER), 1);
	assert_string_equal(in.body.hash.password, "secret");
	message_clear(&in);
	assert_string_equal(in.body.hash.password, "");
	message_clear(&out);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_message_arrives), TEST(short_and_long), TEST(larger_than_any), TEST(wrong_side),
		TEST(wrong_number_of_descriptors), TEST(unknown_type_and_magic), TEST(empty_packet), TEST(peer_gone),
		TEST(nothing_there), TEST(strings_end), TEST(numbers_stay_inside), TEST(unsound_is_not_sent), TEST(clear_wipes),
	};

	return cmocka_run_group_tests_name("messages", tests, NULL, NULL);
}
