/* Octets to and from the client, each wait with a deadline. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "system.h"

static void
option(int fd, int level, int name, int value)
{
	(void)setsockopt(fd, level, name, &value, sizeof value);	/* not a TCP socket: nothing to set */
}

void
stream_start(struct stream *s, int in, int out)
{
	*s = (struct stream){ .in = in, .out = out, .also = -1 };
	fcntl(in, F_SETFL, fcntl(in, F_GETFL) | O_NONBLOCK);
	fcntl(out, F_SETFL, fcntl(out, F_GETFL) | O_NONBLOCK);
	option(out, IPPROTO_TCP, TCP_NODELAY, 1);
	option(out, SOL_SOCKET, SO_KEEPALIVE, 1);
	option(out, IPPROTO_TCP, TCP_KEEPIDLE, 60);
	option(out, IPPROTO_TCP, TCP_KEEPINTVL, 20);
	option(out, IPPROTO_TCP, TCP_KEEPCNT, 3);
	option(out, IPPROTO_TCP, TCP_USER_TIMEOUT, 120000);
}

/* How many milliseconds the next wait may last. */
static int
wait_limit(const struct stream *s)
{
	int limit = s->idle_ms;

	if (s->deadline != 0) {
		int64_t left = s->deadline - clock_ms();
		if (left < 0)
			left = 0;
		if (left < limit)
			limit = (int)left;
	}
	return limit;
}

/* Waits for one direction. False when the time is over. */
static bool
stream_wait(struct stream *s, int fd, short events)
{
	struct pollfd p[2] = { { .fd = fd, .events = events }, { .fd = s->also, .events = POLLIN } };
	nfds_t count = events == POLLIN && s->also != -1 && !s->also_ready ? 2 : 1;

	for (;;) {
		int n = poll(p, count, wait_limit(s));
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			s->failed = n == 0 ? "timeout" : "io-error";
			return false;
		}
		if (count == 2 && p[1].revents != 0) {
			s->also_ready = true;
			count = 1;
		}
		if (p[0].revents != 0)
			return true;
	}
}

size_t
stream_read(struct stream *s, char *buffer, size_t size)
{
	while (s->failed == NULL) {
		ssize_t n = read(s->in, buffer, size);
		if (n > 0) {
			s->octets_in += (size_t)n;
			/* A client that drips octets does not push the deadline of the login away. */
			if (s->deadline != 0 && clock_ms() >= s->deadline)
				s->failed = "timeout";
			return (size_t)n;
		}
		if (n == 0)
			s->failed = "client-gone";
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			stream_wait(s, s->in, POLLIN);
		else if (errno != EINTR)
			s->failed = errno == ECONNRESET || errno == ETIMEDOUT ? "client-gone" : "io-error";
	}
	return 0;
}

bool
stream_write(struct stream *s, const char *data, size_t length)
{
	while (length > 0 && s->failed == NULL) {
		ssize_t n = write(s->out, data, length);
		if (n >= 0) {
			s->octets_out += (size_t)n;
			data += n;
			length -= (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK)
			stream_wait(s, s->out, POLLOUT);
		else if (errno != EINTR)
			s->failed = errno == EPIPE || errno == ECONNRESET || errno == ETIMEDOUT ? "client-gone" : "io-error";
	}
	return s->failed == NULL;
}
