/* A password from a person, who sees nothing of it, or from a script. */
#ifndef POSTERN_PROMPT_H
#define POSTERN_PROMPT_H

#include <stdbool.h>

#include "messages.h"

/* The next line of fd without its end, LF or CR LF, and nothing beyond it. NULL, or what is wrong with it: "is empty". */
const char *prompt_line(int fd, char line[static PASSWORD_SIZE]);

/*
 * The same after a question on a terminal, whose echo is off meanwhile. A signal that ends or stops the program takes its effect when the
 * echo is on again; who stopped it is asked once more.
 */
const char *prompt_terminal(int tty, const char *question, char line[static PASSWORD_SIZE]);

#endif
