/*
 * The wire form of a message: one place that counts octets and one that makes what is sent (RFC 1939 section 3, RFC 5322).
 *
 * Lines end in CRLF whatever the disk has: an LF without a CR before it gets one. A CR alone is not a line end and is left as it is, as is every other octet,
 * NUL included. A last line without an end gets CRLF. An empty message has no octets. Octets are counted before dot-stuffing.
 */
#ifndef POSTERN_WIRE_H
#define POSTERN_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Counting, in any number of pieces, cut anywhere. Start with {0}. */
struct wire_count {
	uint64_t octets;	/* so far, without the end that a last line may lack */
	char last;		/* the last octet seen */
	bool any;		/* was there one? */
};
void wire_count(struct wire_count *c, const char *data, size_t length);
/* The figure for LIST, once all has been given. */
uint64_t wire_count_end(const struct wire_count *c);

/* Making the sent form: CRLF line ends and dot-stuffing. Start with {0}. */
struct wire_form {
	uint64_t octets;	/* made so far, before dot-stuffing: what LIST must have said at the end */
	char last;
	bool any;
};
/* `out` needs room for WIRE_ROOM(length) octets. Returns how many were written. */
#define WIRE_ROOM(length) (2 * (length) + 16)
size_t wire_form(struct wire_form *w, const char *data, size_t length, char *out);
/* The same in one of the ways to do it, none better than what this processor can do. */
enum wire_way { WIRE_LINES, WIRE_WIDE, WIRE_WIDEST };
enum wire_way wire_way_best(void);
size_t wire_form_by(enum wire_way way, struct wire_form *w, const char *data, size_t length, char *out);
/*
 * The same of what is seen of a file through a mapping, which mostly is in no processor's cache, and which others may change meanwhile: each octet
 * is looked at once, so that what is made has its line ends and dots whatever they do. Returns 0 if there is a NUL in it, as is seen behind the
 * end of a file that has become shorter; then *w means nothing, and `out` neither.
 */
size_t wire_form_mapped(struct wire_form *w, const char *data, size_t length, char *out);
size_t wire_form_mapped_by(enum wire_way way, struct wire_form *w, const char *data, size_t length, char *out);
/* The end of the last line if it lacks one, and ".\r\n". At most 5 octets. */
size_t wire_form_end(struct wire_form *w, char *out);

/* Where TOP stops: the header, the blank line, and `lines` lines of the body. Start with {.lines = n}. */
struct wire_top {
	uint64_t lines;
	bool body;		/* past the blank line */
	bool begun;		/* something of the current line was seen in an earlier piece... */
	bool only_cr;		/* ... and it was one CR */
};
/* How many octets of `data` belong to TOP's answer; less than `length`, or 0 with lines left at 0, means that it ends there. */
size_t wire_top(struct wire_top *t, const char *data, size_t length, bool *done);

#endif
