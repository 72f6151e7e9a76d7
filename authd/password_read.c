/* Passwords from people and from scripts: never on a command line, never in a stdio buffer. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "authctl.h"
#include "messages.h"

/* One line without its end, CR LF or LF. Octet by octet: what follows belongs to whoever reads next. NULL, or what is wrong. */
static const char *
read_line(int fd, char *line)
{
	size_t n = 0;
	ssize_t got;
	char c = '\0';

	while ((got = read(fd, &c, 1)) == 1 && c != '\n') {
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

/* Asks on the terminal with the echo off; signals wait meanwhile, so that it never stays off. */
static const char *
read_terminal(int tty, const char *what, const char *after, char *line)
{
	struct termios before, silent;
	sigset_t held, old;

	if (tcgetattr(tty, &before) == -1)
		return strerror(errno);
	silent = before;
	silent.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	sigemptyset(&held);
	sigaddset(&held, SIGINT);
	sigaddset(&held, SIGTSTP);
	sigaddset(&held, SIGQUIT);
	sigprocmask(SIG_BLOCK, &held, &old);
	tcsetattr(tty, TCSAFLUSH, &silent);
	say(tty, what);
	say(tty, after);
	const char *wrong = read_line(tty, line);
	say(tty, "\n");
	tcsetattr(tty, TCSAFLUSH, &before);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return wrong;
}

static const char *
read_twice(int tty, const char *what, char *line)
{
	char *again = sodium_malloc(PASSWORD_SIZE);

	if (again == NULL)
		return "cannot be kept: no locked memory";
	const char *wrong = read_terminal(tty, what, ", again: ", again);
	if (wrong == NULL && strcmp(line, again) != 0)
		wrong = "was not the same twice";
	sodium_free(again);
	return wrong;
}

char *
password_read(const char *what, bool twice)
{
	char *line = sodium_malloc(PASSWORD_SIZE);
	const char *wrong;

	if (line == NULL) {
		complain("no locked memory for a password");
		return NULL;
	}
	int tty = isatty(0) ? open("/dev/tty", O_RDWR | O_CLOEXEC) : -1;
	if (tty == -1)
		wrong = read_line(0, line);
	else {
		wrong = read_terminal(tty, what, ": ", line);
		if (wrong == NULL && twice)
			wrong = read_twice(tty, what, line);
		close(tty);
	}
	if (wrong == NULL)
		return line;
	complain("the password %s", wrong);
	sodium_free(line);
	return NULL;
}
