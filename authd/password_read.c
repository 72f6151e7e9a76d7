/* Passwords that authctl is given: on the terminal, twice when they are set, or as a line of its standard input. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "authctl.h"
#include "prompt.h"

static const char *
ask(int tty, const char *what, const char *after, char *line)
{
	char question[USER_SIZE + 64];

	snprintf(question, sizeof question, "%s%s", what, after);
	return prompt_terminal(tty, question, line);
}

static const char *
read_twice(int tty, const char *what, char *line)
{
	char *again = sodium_malloc(PASSWORD_SIZE);

	if (again == NULL)
		return "cannot be kept: no locked memory";
	const char *wrong = ask(tty, what, ", again: ", again);
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
		wrong = prompt_line(0, line);
	else {
		wrong = ask(tty, what, ": ", line);
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
