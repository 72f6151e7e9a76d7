/* Passwords from people and from scripts: never on a command line, never in a stdio buffer. */
#include "prompt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* What ends or stops a program that asks; each is put off until the terminal is as it was. */
static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGALRM, SIGPIPE };
#define SIGNALS (sizeof signals / sizeof signals[0])
static struct sigaction actions[SIGNALS];
static sigset_t mask_before;
static volatile sig_atomic_t caught;

static void
on_signal(int signal)
{
	caught = signal;
}

/* From here they only come while read_line() waits. One that is ignored stays so. */
static void
signals_hold(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t held;

	caught = 0;
	sigemptyset(&held);
	for (size_t i = 0; i < SIGNALS; i++)
		sigaddset(&held, signals[i]);
	sigprocmask(SIG_BLOCK, &held, &mask_before);
	for (size_t i = 0; i < SIGNALS; i++)
		if (sigaction(signals[i], NULL, &actions[i]) == 0 && actions[i].sa_handler != SIG_IGN)
			sigaction(signals[i], &action, NULL);
}

/* As before. Returns the one that came, 0 if there was none; another that comes now takes its effect. */
static int
signals_release(void)
{
	for (size_t i = 0; i < SIGNALS; i++)
		sigaction(signals[i], &actions[i], NULL);
	sigprocmask(SIG_SETMASK, &mask_before, NULL);
	return caught;
}

/* Waits until there is something to read, and lets the signals in meanwhile. False if one came. */
static bool
await(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	while (caught == 0 && ppoll(&p, 1, NULL, &mask_before) == -1 && errno == EINTR)
		;
	return caught == 0;
}

/* One line without its end, CR LF or LF; `asked`: on a terminal. Octet by octet: what follows belongs to whoever reads next. NULL, or what is wrong. */
static const char *
read_line(int fd, bool asked, char line[static PASSWORD_SIZE])
{
	size_t n = 0;
	ssize_t got;
	char c = '\0';

	while ((got = asked && !await(fd) ? 0 : read(fd, &c, 1)) == 1 && c != '\n') {
		if (c == '\0')
			return "has a NUL in it";
		if (n == PASSWORD_SIZE - 1)
			return "is too long; accepted: at most 1023 octets";
		line[n++] = c;
	}
	if (got == -1)
		return strerror(errno);
	/* of a file with the line ends of another system */
	if (n > 0 && line[n - 1] == '\r')
		n--;
	line[n] = '\0';
	return n == 0 ? "is empty" : NULL;
}

static void
say(int fd, const char *text)
{
	/* a terminal that does not take it will not take the password either */
	if (write(fd, text, strlen(text)) == -1)
		return;
}

const char *
prompt_line(int fd, char line[static PASSWORD_SIZE])
{
	return read_line(fd, false, line);
}

const char *
prompt_terminal(int tty, const char *question, char line[static PASSWORD_SIZE])
{
	struct termios before, silent;
	const char *wrong;
	int signal;

	do {
		if (tcgetattr(tty, &before) == -1)
			return strerror(errno);
		silent = before;
		silent.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
		signals_hold();
		tcsetattr(tty, TCSAFLUSH, &silent);
		say(tty, question);
		wrong = read_line(tty, true, line);
		say(tty, "\n");
		tcsetattr(tty, TCSAFLUSH, &before);
		signal = signals_release();
		if (signal != 0)
			raise(signal);
		/* who stopped it comes back to the question; from the others there is no coming back, unless they are handled */
	} while (signal == SIGTSTP);
	return signal != 0 ? "was not given: a signal came" : wrong;
}
