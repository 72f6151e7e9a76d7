/*
 * The floor of `make bench`: a server that does nothing but send the bytes that a POP3 server must send. One process, one loop, no login, no
 * disk: MESSAGES messages of OCTETS octets each, made once, each in memory of its own. What a real server costs more is what it does.
 *
 *	floor PORT MESSAGES OCTETS [CERTIFICATE KEY]
 *
 * With a certificate and its key everything goes through TLS (OpenSSL), with a full handshake a connection.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define LINES	78	/* octets of a line of a message, its end included */

struct client {
	int fd;
	SSL *tls;
	bool greeted;
	size_t used;
	char line[8192];
	const char *pending;	/* not yet sent */
	size_t left;
};

static unsigned long messages;
static size_t octets;		/* of a message, without its end */
static char *retr, *list, *uidl;
static SSL_CTX *context;	/* NULL: in the clear */
static size_t retr_length, list_length, uidl_length;

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

/* The answer to one RETR. */
static void
message_make(char *at)
{
	at += sprintf(at, "+OK %zu octets\r\n", octets);
	for (size_t i = 0; i < octets; i++)
		at[i] = i % LINES == LINES - 2 ? '\r' : i % LINES == LINES - 1 ? '\n' : 'x';
	memcpy(at + octets - 2, "\r\n.\r\n", 5);
}

static void
answers_make(void)
{
	retr_length = (size_t)snprintf(NULL, 0, "+OK %zu octets\r\n", octets) + octets + 3;
	retr = malloc(messages * retr_length + 1);
	list = malloc(messages * 32 + 64);
	uidl = malloc(messages * 64 + 64);
	if (retr == NULL || list == NULL || uidl == NULL)
		die("memory");
	for (unsigned long m = 0; m < messages; m++)
		message_make(retr + m * retr_length);
	list_length = (size_t)sprintf(list, "+OK\r\n");
	uidl_length = (size_t)sprintf(uidl, "+OK\r\n");
	for (unsigned long i = 1; i <= messages; i++) {
		list_length += (size_t)sprintf(list + list_length, "%lu %zu\r\n", i, octets);
		uidl_length += (size_t)sprintf(uidl + uidl_length, "%lu %032lx\r\n", i, i);
	}
	list_length += (size_t)sprintf(list + list_length, ".\r\n");
	uidl_length += (size_t)sprintf(uidl + uidl_length, ".\r\n");
}

static ssize_t
transmit(struct client *c, const char *text, size_t length)
{
	return c->tls != NULL ? SSL_write(c->tls, text, length < INT_MAX ? (int)length : INT_MAX) : send(c->fd, text, length, MSG_NOSIGNAL);
}

/* 0: the client is gone; -1 with EAGAIN: there is nothing more now. */
static ssize_t
receive(struct client *c)
{
	if (c->tls == NULL)
		return recv(c->fd, c->line + c->used, sizeof c->line - c->used, 0);
	int n = SSL_read(c->tls, c->line + c->used, (int)(sizeof c->line - c->used));
	if (n > 0)
		return n;
	int error = SSL_get_error(c->tls, n);
	errno = EAGAIN;
	return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? -1 : 0;
}

/* Sends, and remembers what the socket did not take. */
static void
answer(struct client *c, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t n = transmit(c, text, length);
		if (n <= 0)
			break;
		text += n;
		length -= (size_t)n;
	}
	c->pending = text;
	c->left = length;
}

/* False: the session is over. */
static bool
obey(struct client *c, const char *line)
{
	char text[128];

	if (strncasecmp(line, "RETR", 4) == 0) {
		unsigned long m = strtoul(line + 4, NULL, 10);
		answer(c, retr + (m > 0 && m <= messages ? m - 1 : 0) * retr_length, retr_length);
	}
	else if (strncasecmp(line, "LIST", 4) == 0)
		answer(c, list, list_length);
	else if (strncasecmp(line, "UIDL", 4) == 0)
		answer(c, uidl, uidl_length);
	else if (strncasecmp(line, "STAT", 4) == 0)
		answer(c, text, (size_t)sprintf(text, "+OK %lu %zu\r\n", messages, octets * messages));
	else
		answer(c, "+OK\r\n", 5);
	return strncasecmp(line, "QUIT", 4) != 0;
}

/* Every whole line that is there, as long as the socket takes the answers. */
static bool
serve(struct client *c)
{
	size_t at = 0;
	char *lf;

	while (c->left == 0 && (lf = memchr(c->line + at, '\n', c->used - at)) != NULL) {
		const char *line = c->line + at;
		at = (size_t)(lf + 1 - c->line);
		if (!obey(c, line))
			return false;
	}
	memmove(c->line, c->line + at, c->used - at);
	c->used -= at;
	return true;
}

/* The handshake, if one is needed, then the greeting. */
static bool
greet(struct client *c)
{
	int n = c->tls != NULL ? SSL_accept(c->tls) : 1;

	if (n == 1) {
		answer(c, "+OK\r\n", 5);
		c->greeted = true;
		return true;
	}
	n = SSL_get_error(c->tls, n);
	return n == SSL_ERROR_WANT_READ || n == SSL_ERROR_WANT_WRITE;
}

static bool
ready(struct client *c, int epoll)
{
	bool waited = c->left > 0;

	if (!c->greeted)
		return greet(c);
	if (waited)
		answer(c, c->pending, c->left);
	if (!serve(c))
		return false;
	while (c->left == 0) {
		ssize_t n = receive(c);
		if (n == -1 && errno == EAGAIN)
			break;
		if (n <= 0)
			return false;
		c->used += (size_t)n;
		if (!serve(c))
			return false;
		if (c->tls == NULL || SSL_pending(c->tls) == 0)
			break;		/* whatever has come since is told of again */
	}
	if (waited != (c->left > 0)) {
		struct epoll_event e = { .events = c->left > 0 ? EPOLLOUT : EPOLLIN, .data.ptr = c };
		epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
	}
	return true;
}

static void
welcome(int listener, int epoll)
{
	int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *c = fd == -1 ? NULL : calloc(1, sizeof *c);

	if (c == NULL)
		return;
	c->fd = fd;
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
	if (context != NULL) {
		c->tls = SSL_new(context);
		if (c->tls == NULL || SSL_set_fd(c->tls, fd) != 1)
			die("TLS");
	} else
		greet(c);
}

static void
tls_prepare(const char *certificate, const char *key)
{
	context = SSL_CTX_new(TLS_server_method());
	if (context == NULL || SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
		die("certificate and key");
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(context, 0);
	SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

int
main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	struct epoll_event events[64], e = { .events = EPOLLIN };
	int on = 1, epoll = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (argc != 4 && argc != 6) {
		fputs("usage: floor PORT MESSAGES OCTETS [CERTIFICATE KEY]\n", stderr);
		return 2;
	}
	if (argc == 6)
		tls_prepare(argv[4], argv[5]);
	signal(SIGPIPE, SIG_IGN);
	at.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	messages = strtoul(argv[2], NULL, 10);
	octets = strtoul(argv[3], NULL, 10);
	answers_make();
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&at, sizeof at) == -1 || listen(listener, SOMAXCONN) == -1)
		die("listen");
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e);
	for (;;) {
		int n = epoll_wait(epoll, events, 64, -1);
		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;
			if (c == NULL)
				welcome(listener, epoll);
			else if (!ready(c, epoll)) {
				SSL_free(c->tls);
				close(c->fd);
				free(c);
			}
		}
	}
}
