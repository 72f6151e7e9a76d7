/*
 * A file's octets where the page cache has them: what is large is looked at through a mapping, which saves a copy, and the memory is asked for
 * what comes next meanwhile. Another program may make the file shorter at any time: what is not certainly there is not taken from here.
 */
#ifndef POP3D_WINDOW_H
#define POP3D_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

#define WINDOW_LEAST (128 * 1024)	/* octets: for less, to map them costs more than to copy them */

/* Starts with {0}. Who opens it closes it. */
struct window {
	char *map;
	size_t size;
	off_t from;
};

/*
 * Where the file's octets from `from` on are to be seen, `length` of them or fewer: *count. The next call may close this. NULL: they are to be
 * read, for the file system or a security module does not let them be mapped.
 */
const char *window_open(struct window *w, int fd, off_t from, uint64_t length, size_t *count);

/*
 * wire_form() of what is seen through a window. Returns 0, with *form as it was, if some of it is no longer there, cannot be read, or has a NUL
 * in it, as what is seen behind the end of the file has. Then read(2) knows.
 */
size_t window_form(struct wire_form *form, const char *data, size_t length, char *out);

void window_close(struct window *w);

#endif
