/*
 * The client of `make bench`: the same for every server, so that only the server differs. It speaks plain POP3 to 127.0.0.1, does one
 * scenario and prints its figures as one line of JSON. It keeps out of the way: nothing that it receives is copied or looked at beyond
 * what tells where an answer ends. Any answer that is not +OK ends it with status 1.
 *
 *	poll    N sessions of login, STAT, QUIT by C clients at once; client i is user PREFIXi, counted from B
 *	greet   the same without a login: the greeting and QUIT
 *	open    one session: until STAT is answered, then QUIT
 *	list    one session: LIST and UIDL of all
 *	retr    one session: every message (or the first N), D of them asked for ahead
 *	delete  one session: DELE of `first`, `alternate` or `all`, then QUIT
 *	hold    C sessions that stay open after STAT until standard input ends
 *	wait    C connections that have been greeted and stay so until standard input ends
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER		(1024 * 1024)
#define CLIENTS_MAX	5000
#define BATCH		200	/* DELE commands on their way at once */

static struct {
	const char *user, *password, *what;
	uint16_t port;
	unsigned long count, clients, depth, base;
	bool greet;
} option = { .user = "user", .password = "password", .what = "all", .count = 0, .clients = 1, .depth = 1 };

static _Noreturn void __attribute__((format(printf, 1, 2)))
die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("bench client: ", stderr);
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

/* One session with blocking calls. */
struct link {
	int fd;
	size_t start, end;	/* received and not yet used */
	uint64_t received;
	char buffer[BUFFER];
};
static struct link session;

static void
transmit(struct link *l, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t n = send(l->fd, data, length, MSG_NOSIGNAL);
		if (n == -1)
			die("send: %s", strerror(errno));
		data += n;
		length -= (size_t)n;
	}
}

static void __attribute__((format(printf, 2, 3)))
command(struct link *l, const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	int n = vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	transmit(l, text, (size_t)n);
}

static void
receive(struct link *l)
{
	if (l->start == l->end)
		l->start = l->end = 0;
	else if (l->end == BUFFER) {
		memmove(l->buffer, l->buffer + l->start, l->end - l->start);
		l->end -= l->start;
		l->start = 0;
	}
	ssize_t n = recv(l->fd, l->buffer + l->end, BUFFER - l->end, 0);
	if (n <= 0)
		die("the server closed the connection: %s", n == 0 ? "end of file" : strerror(errno));
	l->end += (size_t)n;
	l->received += (uint64_t)n;
}

/* The next line, which must be +OK. It stays in the buffer until the next call. */
static const char *
reply(struct link *l)
{
	char *lf;

	while ((lf = memchr(l->buffer + l->start, '\n', l->end - l->start)) == NULL)
		receive(l);
	char *line = l->buffer + l->start;
	*lf = '\0';
	l->start = (size_t)(lf + 1 - l->buffer);
	if (strncmp(line, "+OK", 3) != 0)
		die("%s: %.200s", option.user, line);
	return line;
}

/*
 * What follows the +OK of the only command that is unanswered, to its closing line: the server has nothing else to say, so that end is where what has
 * come ends, and nothing but the last five octets is looked at. Returns how many octets it had.
 */
static uint64_t
body_to_end(struct link *l)
{
	char tail[5] = "??\r\n";	/* the line end of +OK */
	size_t kept = 4;
	uint64_t total = 0;

	for (;;) {
		size_t n = l->end - l->start, take = n < 5 ? n : 5;
		total += n;
		memmove(tail, tail + (kept + take > 5 ? kept + take - 5 : 0), kept + take > 5 ? 5 - take : kept);
		kept = kept + take > 5 ? 5 : kept + take;
		memcpy(tail + kept - take, l->buffer + l->end - take, take);
		l->start = l->end;
		if (kept == 5 && memcmp(tail, "\r\n.\r\n", 5) == 0)
			return total;
		receive(l);
	}
}

/* The same with more answers behind it: looks for the end. */
static uint64_t
body_search(struct link *l)
{
	uint64_t total = 0;
	size_t searched = 0;
	bool first = true;

	for (;;) {
		size_t n = l->end - l->start;
		char *at = l->buffer + l->start;
		if (first && n >= 3) {
			if (memcmp(at, ".\r\n", 3) == 0) {
				l->start += 3;
				return 3;
			}
			first = false;
		}
		char *found = n > 4 ? memmem(at + searched, n - searched, "\r\n.\r\n", 5) : NULL;
		if (found != NULL) {
			total += (uint64_t)(found - at) + 5;
			l->start += (size_t)(found - at) + 5;
			return total;
		}
		/* all but what may be the start of the end is done with */
		if (n > 4 && !first) {
			total += n - 4;
			l->start += n - 4;
		}
		searched = 0;
		receive(l);
	}
}

struct stat_answer {
	unsigned long messages;
	unsigned long long octets;
};

static struct stat_answer
login(struct link *l, const char *user)
{
	struct stat_answer a;

	l->fd = dial(false);
	l->start = l->end = 0;
	reply(l);
	command(l, "USER %s\r\n", user);
	reply(l);
	command(l, "PASS %s\r\n", option.password);
	reply(l);
	command(l, "STAT\r\n");
	if (sscanf(reply(l), "+OK %lu %llu", &a.messages, &a.octets) != 2)
		die("STAT was not answered with two numbers");
	return a;
}

/* Returns the seconds until the answer. */
static double
quit(struct link *l)
{
	double start = now();

	command(l, "QUIT\r\n");
	reply(l);
	double took = now() - start;
	close(l->fd);
	return took;
}

static void
scenario_open(void)
{
	double start = now();
	struct stat_answer a = login(&session, option.user);
	double opened = now() - start;

	printf("{\"messages\": %lu, \"octets\": %llu, \"open\": %.6f, \"quit\": %.6f}\n", a.messages, a.octets, opened, quit(&session));
}

static void
scenario_list(void)
{
	double start = now();
	struct stat_answer a = login(&session, option.user);
	double opened = now();
	command(&session, "LIST\r\n");
	reply(&session);
	uint64_t octets = body_to_end(&session);
	double listed = now();
	command(&session, "UIDL\r\n");
	reply(&session);
	octets += body_to_end(&session);
	double identified = now();

	printf("{\"messages\": %lu, \"bytes\": %llu, \"open\": %.6f, \"list\": %.6f, \"uidl\": %.6f, \"quit\": %.6f}\n", a.messages,
	    (unsigned long long)octets, opened - start, listed - opened, identified - listed, quit(&session));
}

/* Asks ahead, many commands in one write, when half of what was asked for has come. Returns how many have been asked for. */
static unsigned long
ask(struct link *l, unsigned long asked, unsigned long got, unsigned long count)
{
	char text[24000];
	size_t used = 0;

	if (asked - got > option.depth / 2)
		return asked;
	for (; asked < count && asked < got + option.depth; asked++)
		used += (size_t)snprintf(text + used, sizeof text - used, "RETR %lu\r\n", asked + 1);
	transmit(l, text, used);
	return asked;
}

static uint64_t
retr_all(struct link *l, unsigned long count)
{
	uint64_t octets = 0;
	unsigned long asked = 0;

	for (unsigned long n = 1; n <= count; n++) {
		asked = ask(l, asked, n - 1, count);
		reply(l);
		octets += option.depth == 1 ? body_to_end(l) : body_search(l);
	}
	return octets;
}

static void
scenario_retr(void)
{
	double start = now();
	struct stat_answer a = login(&session, option.user);
	unsigned long count = option.count > 0 && option.count < a.messages ? option.count : a.messages;
	double opened = now();
	uint64_t octets = retr_all(&session, count);
	double done = now();

	printf("{\"messages\": %lu, \"bytes\": %llu, \"open\": %.6f, \"seconds\": %.6f, \"quit\": %.6f}\n", count,
	    (unsigned long long)octets, opened - start, done - opened, quit(&session));
}

static unsigned long
dele(struct link *l, unsigned long messages, unsigned long step)
{
	char text[BATCH * 24];
	unsigned long deleted = 0;

	for (unsigned long n = 1; n <= messages;) {
		size_t used = 0;
		unsigned long some = 0;
		for (; n <= messages && some < BATCH; n += step, some++)
			used += (size_t)snprintf(text + used, sizeof text - used, "DELE %lu\r\n", n);
		transmit(l, text, used);
		deleted += some;
		while (some-- > 0)
			reply(l);
	}
	return deleted;
}

static void
scenario_delete(void)
{
	double start = now();
	struct stat_answer a = login(&session, option.user);
	double opened = now();
	unsigned long step = strcmp(option.what, "first") == 0 ? a.messages : strcmp(option.what, "alternate") == 0 ? 2 : 1;
	unsigned long deleted = dele(&session, a.messages, step);
	double marked = now();

	printf("{\"messages\": %lu, \"deleted\": %lu, \"open\": %.6f, \"dele\": %.6f, \"quit\": %.6f}\n", a.messages, deleted,
	    opened - start, marked - opened, quit(&session));
}

static void
until_told(void)
{
	char scrap[64];

	printf("{\"held\": %lu}\n", option.clients);
	fflush(stdout);
	while (read(0, scrap, sizeof scrap) > 0)
		continue;
}

static void
scenario_hold(void)
{
	char user[256];

	for (unsigned long i = 0; i < option.clients; i++) {
		snprintf(user, sizeof user, "%s%lu", option.user, option.base + i);
		login(&session, user);		/* its descriptor stays open */
	}
	until_told();
}

static void
scenario_wait(void)
{
	for (unsigned long i = 0; i < option.clients; i++) {
		session.fd = dial(false);
		session.start = session.end = 0;
		reply(&session);
	}
	until_told();
}

/* Poll: many sessions at once, each a small machine that sends its next command when the last is answered. */

enum step { STEP_GREETING, STEP_USER, STEP_PASS, STEP_STAT, STEP_QUIT, STEPS };

struct poller {
	int fd;
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
} poll_state;

static void
poller_begin(struct poller *p)
{
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = p };

	if (poll_state.begun == option.count)
		return;
	poll_state.begun++;
	p->step = STEP_GREETING;
	p->used = 0;
	p->started = now();
	p->fd = dial(true);
	if (epoll_ctl(poll_state.epoll, EPOLL_CTL_ADD, p->fd, &e) == -1)
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
		close(p->fd);
		poll_state.took[poll_state.done++] = now() - p->started;
		poller_begin(p);
		return;
	}
	if (send(p->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
		die("send: %s", strerror(errno));
}

static void
poller_ready(struct poller *p)
{
	ssize_t n = recv(p->fd, p->line + p->used, sizeof p->line - 1 - p->used, 0);

	if (n == -1 && errno == EAGAIN)
		return;
	if (n <= 0)
		die("%s%u, step %d: the server closed the connection: %s", option.user, p->number, p->step,
		    n == 0 ? "end of file" : strerror(errno));
	p->used += (size_t)n;
	if (p->line[p->used - 1] != '\n') {
		if (p->used == sizeof p->line - 1)
			die("a line is too long");
		return;
	}
	p->line[p->used] = '\0';
	if (strncmp(p->line, "+OK", 3) != 0)
		die("%s%u, step %d: %.200s", option.user, p->number, p->step, p->line);
	poller_answered(p);
}

static int
by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void
scenario_poll(void)
{
	struct epoll_event events[64];
	struct poller *pollers = calloc(option.clients, sizeof *pollers);

	poll_state.took = calloc(option.count + 1, sizeof *poll_state.took);
	poll_state.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (pollers == NULL || poll_state.took == NULL || poll_state.epoll == -1)
		die("cannot start: %s", strerror(errno));
	double start = now();
	for (unsigned long i = 0; i < option.clients; i++) {
		pollers[i].number = (unsigned)(option.base + i);
		poller_begin(&pollers[i]);
	}
	while (poll_state.done < option.count) {
		int n = epoll_wait(poll_state.epoll, events, 64, 60 * 1000);
		if (n == 0)
			die("no answer for a minute");
		for (int i = 0; i < n; i++)
			poller_ready(events[i].data.ptr);
	}
	double seconds = now() - start;
	qsort(poll_state.took, poll_state.done, sizeof *poll_state.took, by_size);
	printf("{\"sessions\": %lu, \"seconds\": %.6f, \"median\": %.6f, \"p99\": %.6f}\n", poll_state.done, seconds,
	    poll_state.took[poll_state.done / 2], poll_state.took[poll_state.done * 99 / 100]);
	free(poll_state.took);
	free(pollers);
}

static void
scenario_greet(void)
{
	option.greet = true;
	scenario_poll();
}

static const struct scenario {
	const char *name;
	void (*run)(void);
} scenarios[] = {
	{ "poll", scenario_poll }, { "greet", scenario_greet }, { "open", scenario_open }, { "list", scenario_list },
	{ "retr", scenario_retr }, { "delete", scenario_delete }, { "hold", scenario_hold },
	{ "wait", scenario_wait },
};

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
	struct rlimit files = { 65536, 65536 };
	int c;

	while ((c = getopt(argc, argv, "p:u:w:c:n:d:x:b:")) != -1)
		switch (c) {
		case 'p': option.port = (uint16_t)number(optarg, 65535); break;
		case 'u': option.user = optarg; break;
		case 'w': option.password = optarg; break;
		case 'c': option.clients = number(optarg, CLIENTS_MAX); break;
		case 'b': option.base = number(optarg, 1000000); break;
		case 'n': option.count = number(optarg, 1000000000); break;
		case 'd': option.depth = number(optarg, 1000); break;
		case 'x': option.what = optarg; break;
		default: die("usage: client -p PORT [-u USER] [-w PASSWORD] [-c CLIENTS] [-b BASE] [-n COUNT] [-d DEPTH] [-x first|alternate|all] SCENARIO");
		}
	if (optind != argc - 1 || option.port == 0)
		die("-p PORT and one scenario are accepted");
	(void)setrlimit(RLIMIT_NOFILE, &files);
	for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
		if (strcmp(scenarios[i].name, argv[optind]) == 0) {
			scenarios[i].run();
			return 0;
		}
	die("no such scenario: %s", argv[optind]);
}
