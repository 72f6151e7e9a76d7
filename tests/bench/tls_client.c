/*
 * The client of `make bench BENCH=tls`: as client.c, over implicit TLS by OpenSSL. Every session is a full handshake; the certificate is not
 * verified (that would be the client's time), what the server signs is. One scenario, figures as one line of JSON.
 *
 *	poll    N sessions of handshake, login, STAT, QUIT by C clients at once; client i is user PREFIXi
 *	greet   the same without a login: handshake, the greeting, QUIT
 *	retr    one session: every message (or the first N), D of them asked for ahead
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX	1000
#define BUFFER		(256 * 1024)

static struct {
	const char *user, *password;
	uint16_t port;
	unsigned long count, clients, depth;
	bool greet;
} option = { .user = "user", .password = "password", .clients = 1, .depth = 1 };

static SSL_CTX *context;

static _Noreturn void __attribute__((format(printf, 1, 2)))
die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("bench tls client: ", stderr);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int
dial(bool nonblocking)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(option.port) };
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (nonblocking ? SOCK_NONBLOCK : 0), 0);

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd == -1 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == -1)
		die("socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&to, sizeof to) == -1 && errno != EINPROGRESS)
		die("connect: %s", strerror(errno));
	return fd;
}

static SSL *
tls_on(int fd)
{
	SSL *tls = SSL_new(context);

	if (tls == NULL || SSL_set_fd(tls, fd) != 1)
		die("no TLS");
	return tls;
}

/* Many sessions at once, each a small machine that sends its next command when the last is answered. */

enum step { STEP_CONNECT, STEP_GREETING, STEP_USER, STEP_PASS, STEP_STAT, STEP_QUIT, STEPS };

struct poller {
	int fd;
	SSL *tls;
	unsigned number;
	enum step step;
	double started;
	size_t used;
	char line[1024];
};

static struct {
	int epoll;
	unsigned long begun, done;
	double *took;		/* a session each */
} polling;

static void
poller_begin(struct poller *p)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = p };

	if (polling.begun == option.count)
		return;
	polling.begun++;
	p->step = STEP_CONNECT;
	p->used = 0;
	p->started = now();
	p->fd = dial(true);
	p->tls = tls_on(p->fd);
	if (epoll_ctl(polling.epoll, EPOLL_CTL_ADD, p->fd, &e) == -1)
		die("epoll: %s", strerror(errno));
}

static void
poller_answered(struct poller *p)
{
	char text[512];
	int n = 0;

	p->used = 0;
	switch (p->step++) {
	case STEP_GREETING:
		if (option.greet) {
			p->step = STEP_QUIT;
			n = snprintf(text, sizeof text, "QUIT\r\n");
			break;
		}
		n = snprintf(text, sizeof text, "USER %s%u\r\n", option.user, p->number);
		break;
	case STEP_USER:
		n = snprintf(text, sizeof text, "PASS %s\r\n", option.password);
		break;
	case STEP_PASS:
		n = snprintf(text, sizeof text, "STAT\r\n");
		break;
	case STEP_STAT:
		n = snprintf(text, sizeof text, "QUIT\r\n");
		break;
	default:
		SSL_free(p->tls);
		p->tls = NULL;
		close(p->fd);
		polling.took[polling.done++] = now() - p->started;
		poller_begin(p);
		return;
	}
	if (SSL_write(p->tls, text, n) != n)
		die("a command could not be sent");
}

/* True if there may be more to do without waiting. */
static bool
poller_step(struct poller *p)
{
	int n;

	if (p->step == STEP_CONNECT) {
		n = SSL_connect(p->tls);
		p->step += n == 1;
	} else {
		n = SSL_read(p->tls, p->line + p->used, (int)(sizeof p->line - 1 - p->used));
		p->used += n > 0 ? (size_t)n : 0;
	}
	if (n <= 0) {
		int error = SSL_get_error(p->tls, n);
		if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
			return false;
		die("%s%u, step %d: the server closed the connection", option.user, p->number, p->step);
	}
	if (p->used == 0 || p->line[p->used - 1] != '\n')
		return true;
	p->line[p->used] = '\0';
	if (strncmp(p->line, "+OK", 3) != 0)
		die("%s%u, step %d: %.200s", option.user, p->number, p->step, p->line);
	bool over = p->step == STEP_QUIT;
	poller_answered(p);
	return !over;
}

static void
scenario_poll(void)
{
	struct epoll_event events[64];
	struct poller *pollers = calloc(option.clients, sizeof *pollers);

	polling.took = calloc(option.count + 1, sizeof *polling.took);
	polling.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (pollers == NULL || polling.took == NULL || polling.epoll == -1)
		die("cannot start: %s", strerror(errno));
	double start = now();
	for (unsigned long i = 0; i < option.clients; i++) {
		pollers[i].number = (unsigned)i;
		poller_begin(&pollers[i]);
	}
	while (polling.done < option.count) {
		int n = epoll_wait(polling.epoll, events, 64, 60 * 1000);
		if (n == 0)
			die("no answer for a minute");
		for (int i = 0; i < n; i++)
			while (poller_step(events[i].data.ptr))
				continue;
	}
	printf("{\"sessions\": %lu, \"seconds\": %.6f}\n", polling.done, now() - start);
	free(polling.took);
	free(pollers);
}

static void
scenario_greet(void)
{
	option.greet = true;
	scenario_poll();
}

/* One session with blocking calls. */

static struct {
	SSL *tls;
	size_t start, end;	/* received and not yet used */
	char buffer[BUFFER];
} session;

static void
command(const char *text)
{
	if (SSL_write(session.tls, text, (int)strlen(text)) != (int)strlen(text))
		die("a command could not be sent");
}

static void
receive(void)
{
	if (session.end == BUFFER || session.start == session.end) {
		memmove(session.buffer, session.buffer + session.start, session.end - session.start);
		session.end -= session.start;
		session.start = 0;
	}
	int n = SSL_read(session.tls, session.buffer + session.end, (int)(BUFFER - session.end));
	if (n <= 0)
		die("the server closed the connection");
	session.end += (size_t)n;
}

/* The next line, which must be +OK. It stays in the buffer until the next call. */
static const char *
reply(void)
{
	char *lf;

	while ((lf = memchr(session.buffer + session.start, '\n', session.end - session.start)) == NULL)
		receive();
	char *line = session.buffer + session.start;
	*lf = '\0';
	session.start = (size_t)(lf + 1 - session.buffer);
	if (strncmp(line, "+OK", 3) != 0)
		die("%.200s", line);
	return line;
}

/* To the end of an answer, where nothing else is on its way: only the last octets are looked at. Returns how many octets it had. */
static uint64_t
body_to_end(void)
{
	uint64_t octets = 0;

	for (;;) {
		size_t n = session.end - session.start;
		if (n >= 5 && memcmp(session.buffer + session.end - 5, "\r\n.\r\n", 5) == 0) {
			session.start = session.end;
			return octets + n;
		}
		if (n > 8) {
			octets += n - 8;
			session.start += n - 8;
		}
		receive();
	}
}

/* The same with more answers behind it: looks for the end. */
static uint64_t
body_search(void)
{
	uint64_t octets = 0;

	for (;;) {
		size_t n = session.end - session.start;
		char *at = session.buffer + session.start, *found = memmem(at, n, "\r\n.\r\n", 5);
		if (found != NULL) {
			session.start += (size_t)(found - at) + 5;
			return octets + (size_t)(found - at) + 5;
		}
		if (n > 4) {
			octets += n - 4;
			session.start += n - 4;
		}
		receive();
	}
}

static void __attribute__((format(printf, 1, 2)))
say(const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	command(text);
}

static unsigned long
login(void)
{
	unsigned long messages;

	session.tls = tls_on(dial(false));
	if (SSL_connect(session.tls) != 1)
		die("no handshake");
	reply();
	say("USER %s\r\n", option.user);
	reply();
	say("PASS %s\r\n", option.password);
	reply();
	say("STAT\r\n");
	if (sscanf(reply(), "+OK %lu", &messages) != 1)
		die("STAT was not answered with a number");
	return messages;
}

/* Asks ahead, many commands in one record, when half of what was asked for has come. Returns how many have been asked for. */
static unsigned long
ask(unsigned long asked, unsigned long got, unsigned long count)
{
	char text[24000];
	size_t used = 0;

	if (asked - got > option.depth / 2)
		return asked;
	for (; asked < count && asked < got + option.depth; asked++)
		used += (size_t)snprintf(text + used, sizeof text - used, "RETR %lu\r\n", asked + 1);
	if (used > 0)
		command(text);
	return asked;
}

static void
scenario_retr(void)
{
	unsigned long messages = login(), asked = 0;
	unsigned long count = option.count > 0 && option.count < messages ? option.count : messages;
	uint64_t octets = 0;

	double start = now();
	for (unsigned long n = 1; n <= count; n++) {
		asked = ask(asked, n - 1, count);
		reply();
		octets += option.depth == 1 ? body_to_end() : body_search();
	}
	double took = now() - start;
	say("QUIT\r\n");
	reply();
	printf("{\"messages\": %lu, \"bytes\": %llu, \"seconds\": %.6f, \"cipher\": \"%s\"}\n", count, (unsigned long long)octets, took,
	    SSL_get_cipher(session.tls));
}

static unsigned long
number(const char *text, unsigned long max)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*text == '\0' || *end != '\0' || n < 1 || n > max)
		die("%s: a number from 1 to %lu is accepted", text, max);
	return n;
}

int
main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} scenarios[] = { { "poll", scenario_poll }, { "greet", scenario_greet }, { "retr", scenario_retr } };
	int c;

	while ((c = getopt(argc, argv, "p:u:w:c:n:d:")) != -1)
		switch (c) {
		case 'p': option.port = (uint16_t)number(optarg, 65535); break;
		case 'u': option.user = optarg; break;
		case 'w': option.password = optarg; break;
		case 'c': option.clients = number(optarg, CLIENTS_MAX); break;
		case 'n': option.count = number(optarg, 1000000000); break;
		case 'd': option.depth = number(optarg, 1000); break;
		default: die("usage: tls_client -p PORT [-u USER] [-w PASSWORD] [-c CLIENTS] [-n COUNT] [-d DEPTH] SCENARIO");
		}
	if (optind != argc - 1 || option.port == 0)
		die("-p PORT and one scenario are accepted");
	if ((context = SSL_CTX_new(TLS_client_method())) == NULL)
		die("no TLS");
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
		if (strcmp(scenarios[i].name, argv[optind]) == 0) {
			scenarios[i].run();
			return 0;
		}
	die("no such scenario: %s", argv[optind]);
}
