/* How the tools print: what went wrong, names that others made, JSON. And what is a character of UTF-8. */
#ifndef POSTERN_PRINT_H
#define POSTERN_PRINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* How many octets the UTF-8 character at `p` has (RFC 3629: no surrogate, no longer form than needed); 0: it is none. */
size_t utf8_length(const unsigned char *p);
/* All of it is well-formed UTF-8. */
bool utf8_sound(const char *text);

/* Writes "PROGRAM: ..." to standard error, PROGRAM being the name by which this one was called. Returns 1. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, and ends the program with 1. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/*
 * First of all in a tool: descriptors 0, 1 and 2 are open from here on, so that no file that is opened takes the place of one. A standard
 * output that was closed takes nothing, and that is an error if something is printed. However the tool ends, what could not be written is
 * said, and its status is not 0.
 */
void print_start(void);
/* What was printed until now has gone where it should: 0, or 1 after saying why not. */
int print_flush(void);

/* What is not printable is shown as \xHH: names and paths are made by others. */
void print_safe(FILE *f, const char *text);

/*
 * JSON, one value after another; commas are put where they belong, and the values of an array that holds everything stand a line each.
 * `key` is NULL in an array. Begin with the file alone set.
 */
struct json {
	FILE *file;
	unsigned depth;
	bool more;
};
void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);
void json_string(struct json *j, const char *key, const char *value);	/* NULL: null */
void json_number(struct json *j, const char *key, int64_t value);
void json_bool(struct json *j, const char *key, bool value);
void json_null(struct json *j, const char *key);
void json_end(struct json *j);

#endif
