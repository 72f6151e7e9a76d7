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
