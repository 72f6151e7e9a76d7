/*
 * How long a client may take over a reply. The clock is ours, and so is the socket: a buffer of which the client takes so many octets a second.
 * links: pop3d/stream.c lib/log.c
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../pop3d/stream.h"
#include "../../pop3d/tls.h"

#define SOCKET 1000		/* it is no descriptor */
#define KERNEL (64 * 1024)	/* octets that wait in the kernel; writable again once a third of it is free */
#define IDLE 600

int64_t clock_ms(void);

static int64_t now;		/* milliseconds */
static int64_t queued;		/* in the kernel, in thousandths of an octet */
static int64_t rate;		/* octets a second that the client takes */
static bool one_by_one;		/* and each makes the socket writable */

int64_t clock_ms(void) { return now; }
struct tls *tls_begin(int in, int out, int keeper, int64_t deadline) { (void)in; (void)out; (void)keeper; (void)deadline; return NULL; }
ssize_t tls_read(struct tls *t, void *b, size_t n, short *e) { (void)t; (void)b; (void)n; (void)e; return -1; }
bool tls_has_input(const struct tls *t) { (void)t; return false; }

ssize_t
tls_write(struct tls *t, const void *b, size_t n, bool more, short *e)
{
	(void)t;
	(void)b;
	(void)n;
	(void)more;
	(void)e;
	return -1;
}

int tls_handshake(struct tls *t, short *e) { (void)t; (void)e; return -1; }
const char *tls_failure(const struct tls *t) { (void)t; return ""; }

static int64_t
room(void)
{
	return KERNEL - (queued + 999) / 1000;
}

static void
pass(int64_t milliseconds)
{
	now += milliseconds;
	queued -= milliseconds * rate;
	if (queued < 0)
		queued = 0;
}

ssize_t
write(int fd, const void *data, size_t n)
{
	(void)data;
	assert_int_equal(fd, SOCKET);
	if (room() <= 0) {
		errno = EAGAIN;
		return -1;
	}
	if ((int64_t)n > room())
		n = (size_t)room();
	queued += (int64_t)n * 1000;
	return (ssize_t)n;
}

int
poll(struct pollfd *p, nfds_t n, int timeout)
{
	int64_t until = now + timeout, wanted = one_by_one ? 1 : KERNEL / 3;

	assert_int_equal(n, 1);
	assert_true(timeout >= 0);
	if (p->events == POLLIN)
		return 0;
	if (rate > 0 && room() < wanted) {
		int64_t takes = ((wanted - room()) * 1000 + rate - 1) / rate;
		pass(now + takes <= until ? takes : until - now);
	} else if (rate == 0)
		now = until;
	return (p->revents = room() >= wanted ? POLLOUT : 0) != 0;
}

/* Also what FORTIFY calls instead. */
int __poll_chk(struct pollfd *p, nfds_t n, int timeout, size_t size);
int
__poll_chk(struct pollfd *p, nfds_t n, int timeout, size_t size)
{
	(void)size;
	return poll(p, n, timeout);
}

/* So many octets to a client that takes so many a second. How many seconds that took, or -1: it was let go. */
static int64_t
reply(struct stream *s, int64_t octets, int64_t takes, uint32_t least)
{
	static const char data[65536];

	stream_start(s, SOCKET, SOCKET);
	s->idle_ms = IDLE * 1000;
	s->least = least;
	now = 1;
	queued = 0;
	rate = takes;
	for (int64_t left = octets; left > 0 && s->failed == NULL; left -= (int64_t)sizeof data)
		stream_write(s, data, left < (int64_t)sizeof data ? (size_t)left : sizeof data, false);
	if (s->failed == NULL)
		return now / 1000;
	assert_string_equal(s->failed, "timeout");
	return -1;
}

static void
test_slow_but_fast_enough(void **state)
{
	struct stream s;

	(void)state;
	one_by_one = false;
	/* hours, a piece in each idle timeout */
	assert_true(reply(&s, 2000000, 120, 100) > 4 * 3600);
	assert_true(reply(&s, 2000000, 1000000, 100) <= 2);
	assert_int_equal(s.octets_out, 2000000);
}

static void
test_too_slow(void **state)
{
	struct stream s;

	(void)state;
	for (int i = 0; i < 2; i++) {
		one_by_one = i == 1;
		for (int64_t takes = 1; takes < 90; takes += 14) {
			assert_int_equal(reply(&s, 2000000, takes, 100), -1);
			/* what is in the kernel counts as taken */
			assert_in_range(now / 1000, IDLE, IDLE + s.octets_out / 100 + 1);
		}
	}
}

static void
test_stopped(void **state)
{
	struct stream s;

	(void)state;
	assert_int_equal(reply(&s, 2000000, 0, 100), -1);
	assert_int_equal(now / 1000, IDLE);
	assert_int_equal(reply(&s, 2000000, 0, 0), -1);
	assert_int_equal(now / 1000, IDLE);
}

/* An octet now and then is enough only where that was asked for. */
static void
test_any_rate(void **state)
{
	struct stream s;

	(void)state;
	one_by_one = true;
	assert_true(reply(&s, 100000, 1, 0) > 9 * 3600);
	assert_int_equal(reply(&s, 100000, 1, 1000000), -1);
	one_by_one = false;
}

/* Who fell behind, and then has its turn to speak, begins anew. */
ssize_t
read(int fd, void *data, size_t n)
{
	(void)fd;
	(void)data;
	(void)n;
	errno = EAGAIN;
	return -1;
}

static void
test_each_reply_anew(void **state)
{
	char data[16];
	struct stream s;

	(void)state;
	assert_true(reply(&s, KERNEL + 1000, 50, 100) > 0);
	assert_true(s.behind > 0);
	assert_int_equal(stream_read(&s, data, sizeof data), 0);
	assert_int_equal(s.behind, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slow_but_fast_enough), cmocka_unit_test(test_too_slow), cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_any_rate), cmocka_unit_test(test_each_reply_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
