/* Log lines: built in one buffer, escaped as they are built, sent in one write. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LINE 1000

static struct {
	const char *program;
	int fd;			/* stderr, or the syslog socket; -1: nowhere */
	bool syslog;
	bool journal;		/* stderr is read by a service manager that knows <N> */
	int level;
	char session[SESSION_ID_SIZE];
	char line[LINE + 1];
	size_t used;
	size_t head;		/* where the line for people starts: what is before is for syslog */
	bool wanted;
} state = { .program = "postern", .fd = 2, .level = LOG_INFO };

void
log_start(const char *program)
{
	state.program = program;
	state.fd = 2;
	state.syslog = false;
	state.journal = getenv("JOURNAL_STREAM") != NULL;
	state.level = LOG_INFO;
}

static int
syslog_connect(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd != -1 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == -1) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static bool
same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

void
log_open(const struct conf *c, int never)
{
	bool stderr_is_client = never != -1 && same_file(2, never);

	state.level = c->log_level;
	state.fd = stderr_is_client ? -1 : 2;
	state.syslog = false;
	if (c->log == LOG_TO_STDERR && !stderr_is_client)
		return;
	int fd = syslog_connect();
	if (fd == -1)
		return;		/* no syslog here: stderr is what is left */
	state.fd = fd;
	state.syslog = true;
}

int
log_descriptor(void)
{
	return state.syslog ? state.fd : -1;
}

void
log_level(int level)
{
	state.level = level;
}

void
log_session(const char *id)
{
	size_t n = id != NULL ? strnlen(id, sizeof state.session - 1) : 0;

	memcpy(state.session, id != NULL ? id : "", n);
	state.session[n] = '\0';
}

bool
log_wants(int level)
{
	return level <= state.level;
}

static void
put(const char *text, size_t n)
{
	if (n > LINE - state.used)
		n = LINE - state.used;
	memcpy(state.line + state.used, text, n);
	state.used += n;
}

/* By hand: printf(3) is a good part of what a line costs, and of the pages that a process of one session touches. */
static void
put_number(uint64_t n)
{
	char digits[20];
	size_t i = sizeof digits;

	do
		digits[--i] = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	put(digits + i, sizeof digits - i);
}

static bool
is_plain(unsigned char c)
{
	return c > 0x20 && c < 0x7f && c != '"' && c != '\\' && c != '=';
}

static void
put_value(const unsigned char *v, size_t n)
{
	bool plain = n > 0;

	for (size_t i = 0; i < n && plain; i++)
		plain = is_plain(v[i]);
	if (plain) {
		put((const char *)v, n);
		return;
	}
	put("\"", 1);
	for (size_t i = 0; i < n; i++) {
		char hex[8];
		if (is_plain(v[i]) || v[i] == ' ' || v[i] == '=')
			put((const char *)&v[i], 1);
		else {
			snprintf(hex, sizeof hex, "\\x%02x", v[i]);
			put(hex, 4);
		}
	}
	put("\"", 1);
}

void
log_begin(int level, const char *event)
{
	state.wanted = log_wants(level);
	state.used = 0;
	if (state.syslog || state.journal) {	/* the facility is mail, and the daemon that collects puts the time */
		put("<", 1);
		put_number((uint64_t)(state.syslog ? LOG_MAIL | level : level));
		put(">", 1);
	}
	put("postern-", 8);
	put(state.program, strlen(state.program));
	put("[", 1);
	put_number((uint64_t)getpid());
	put("]:", 2);
	if (state.session[0] != '\0')
		log_string("s", state.session);
	log_string("event", event);
}

void
log_bytes(const char *key, const void *value, size_t length)
{
	put(" ", 1);
	put(key, strlen(key));
	put("=", 1);
	put_value(value, length);
}

void
log_string(const char *key, const char *value)
{
	log_bytes(key, value, strlen(value));
}

void
log_number(const char *key, uint64_t value)
{
	put(" ", 1);
	put(key, strlen(key));
	put("=", 1);
	put_number(value);
}

void
log_end(void)
{
	if (!state.wanted || state.fd == -1)
		return;
	if (state.used == LINE)
		memcpy(state.line + LINE - 3, "...", 3);
	if (!state.syslog)
		state.line[state.used++] = '\n';
	ssize_t n;
	do
		n = write(state.fd, state.line, state.used);
	while (n == -1 && errno == EINTR);
}

static void __attribute__((format(printf, 2, 0)))
log_vtext(int level, const char *format, va_list ap)
{
	char text[LINE];
	int n = vsnprintf(text, sizeof text, format, ap);

	log_begin(level, level <= LOG_ERR ? "error" : level == LOG_WARNING ? "warning" : "note");
	log_bytes("text", text, n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
	log_end();
}

void
log_text(int level, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	log_vtext(level, format, ap);
	va_end(ap);
}

void
fatal(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	log_vtext(LOG_ERR, format, ap);
	va_end(ap);
	exit(1);
}
