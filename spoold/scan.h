/*
 * The mbox format: where its messages begin and end.
 *
 * A line that starts with "From " begins a message (a From_ line) if it is the file's first, or
 *	- it carries a date ("Fri Jul  8 12:08:34", or "Fri, 8 Jul 2011 12:08"), and an empty line is before it or a header field after it; or
 *	- it has one word at most after "From " ("From -", "From 123@xxx"), and a header field is after it; or
 *	- its first word is an address, an empty line is before it and a header field after it.
 * One empty line before a From_ line or the end of the file belongs to the format, and not to the message. Lines end
 * in LF or CRLF. Content-Length is not believed. Empty lines at the head of the file are skipped.
 */
#ifndef POSTERN_SPOOLD_SCAN_H
#define POSTERN_SPOOLD_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "uidl.h"

#define FROM_LINE_MAX 1024	/* a longer line begins nothing */

struct scan_found {
	off_t start;		/* of its From_ line */
	off_t offset;		/* of its first byte after that */
	uint64_t length;
	uint64_t octets;	/* on the wire */
	bool pseudo;		/* a mail program's own, "FOLDER INTERNAL DATA": not mail */
	struct uidl_id id;	/* with scan.hash: only the fingerprint */
};

struct scan {
	int fd;
	off_t start, end;	/* start is 0, or where a message must begin that follows a known one */
	bool after_blank;	/* with start > 0: is there an empty line before it? */
	struct uidl *uidl;	/* names and fingerprints; or */
	struct content_hash *hash;	/* fingerprints only; or neither */
	int (*each)(const struct scan_found *f, void *data);	/* -1 with errno ends the scan */
	void *data;
};

/*
 * One pass over [start, end). 0, or -1 with errno: EPROTO (does not begin with a From_ line), ESTALE (shorter than
 * `end`), ENOMEM, EIO.
 */
int mbox_scan(const struct scan *s);

/* Does `line` (which starts with "From ") begin a message? `next` is what follows it, as far as it is known. */
bool mbox_is_from(const char *line, size_t length, const char *next, size_t next_length, bool after_blank);

#endif
