/* Octets to and from the client, each wait with a deadline. */
#include "stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "system.h"
#include "tls.h"

static void
option(int fd, int level, int name, int value)
{
	(void)setsockopt(fd, level, name, &value, sizeof value);	/* not a TCP socket: nothing to set */
}

void
stream_options(int fd)
{
	option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
	option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 20);
	option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
	option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 120000);
}

void
stream_start(struct stream *s, int in, int out)
{
	*s = (struct stream){ .in = in, .out = out, .also = -1 };
}

/* How many milliseconds the next wait may last. */
static int
wait_limit(const struct stream *s)
{
	int64_t limit = s->idle_ms;

	if (s->behind > 0)
		limit -= s->behind / s->least;
	if (s->deadline != 0) {
		int64_t left = s->deadline - clock_ms();
		if (left < limit)
			limit = left;
	}
	return limit > 0 ? (int)limit : 0;
}

/* Waits for one direction. False when the time is over. */
static bool
stream_wait(struct stream *s, int fd, short events)
{
	struct pollfd p[2] = { { .fd = fd, .events = events }, { .fd = s->also, .events = s->also_speaks ? 0 : POLLIN } };
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

/* What an error of either direction means for the session. */
static const char *
failure(int error)
{
	return error == EPIPE || error == ECONNRESET || error == ETIMEDOUT ? "client-gone" : error == EPROTO ? "tls-error" : "io-error";
}

static void
log_failed(const char *reason)
{
	log_begin(LOG_INFO, "tls");
	log_string("result", "failed");
	log_string("reason", reason);
	log_end();
}

bool
stream_tls(struct stream *s, int keeper)
{
	short events;

	s->tls = tls_begin(s->in, s->out, keeper, s->deadline);
	if (s->tls == NULL)
		s->failed = "tls-unavailable";
	while (s->failed == NULL && tls_handshake(s->tls, &events) == -1) {
		if (errno == EAGAIN)
			stream_wait(s, events == POLLIN ? s->in : s->out, events);
		else if (errno != EINTR) {
			s->failed = errno == EPROTO ? "tls-failed" : failure(errno);
			if (errno == EPROTO)
				log_failed(tls_failure(s->tls));
		}
	}
	return s->failed == NULL;
}

bool
stream_has_input(const struct stream *s, int ms)
{
	struct pollfd p = { .fd = s->in, .events = POLLIN };
	int limit = wait_limit(s);

	return (s->tls != NULL && tls_has_input(s->tls)) || poll(&p, 1, ms < limit ? ms : limit) == 1;
}

size_t
stream_read(struct stream *s, char *buffer, size_t size)
{
	/* Mostly nothing has come yet, so that to read first would be in vain. */
	if (s->failed == NULL && s->behind == 0 && (s->tls == NULL || !tls_has_input(s->tls)))
		stream_wait(s, s->in, POLLIN);
	while (s->failed == NULL) {
		short events = POLLIN;
		ssize_t n = s->tls != NULL ? tls_read(s->tls, buffer, size, &events) : read(s->in, buffer, size);
		if (n > 0) {
			s->octets_in += (size_t)n;
			/* A client that drips octets does not push the deadline of the login away. */
			if (s->deadline != 0 && clock_ms() >= s->deadline)
				s->failed = "timeout";
			return (size_t)n;
		}
		if (n == 0)
			s->failed = "client-gone";
		else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			s->behind = 0;
			stream_wait(s, events == POLLIN ? s->in : s->out, events);
		} else if (errno != EINTR)
			s->failed = failure(errno);
	}
	return 0;
}

/* The client has something to take, and takes it when it likes. */
static void
wait_taken(struct stream *s, short events)
{
	int64_t begun = clock_ms();

	stream_wait(s, events == POLLIN ? s->in : s->out, events);
	s->behind += (clock_ms() - begun) * s->least;
}

static void
taken(struct stream *s, size_t n)
{
	s->octets_out += n;
	s->behind = s->behind > (int64_t)n * 1000 ? s->behind - (int64_t)n * 1000 : 0;
}

/* As write(2). */
static ssize_t
transmit(struct stream *s, const char *data, size_t length, bool more)
{
	if (more && !s->no_socket) {
		ssize_t n = send(s->out, data, length, MSG_NOSIGNAL | MSG_MORE);
		if (n >= 0 || errno != ENOTSOCK)
			return n;
		s->no_socket = true;
	}
	return write(s->out, data, length);
}

bool
stream_write(struct stream *s, const char *data, size_t length, bool more)
{
	while (length > 0 && s->failed == NULL) {
		short events = POLLOUT;
		ssize_t n = s->tls != NULL ? tls_write(s->tls, data, length, more, &events) : transmit(s, data, length, more);
		if (n >= 0) {
			taken(s, (size_t)n);
			data += n;
			length -= (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK)
			wait_taken(s, events);
		else if (errno != EINTR)
			s->failed = failure(errno);
	}
	return s->failed == NULL;
}
