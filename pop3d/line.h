/* Lines from the client (RFC 1939 section 3, RFC 2449 section 4, RFC 5034 section 4). */
#ifndef POP3D_LINE_H
#define POP3D_LINE_H

#include <stdbool.h>
#include <stddef.h>

#define LINE_COMMAND	255		/* octets of a command, its end included */
#define LINE_SASL	12288		/* octets of an AUTH command or an answer to a challenge, its end not included */

enum line_result {
	LINE_OK,	/* *line is the line without its end, NUL ended, until the next call */
	LINE_LONG,	/* it was longer than its limit, and has been skipped whole */
	LINE_NUL,	/* it has an octet 0 in it, and has been skipped */
	LINE_MORE	/* no whole line yet: call line_room and line_added */
};

/* What has arrived and is not yet used: pipelined input waits here, and the socket waits when it is full. */
struct lines {
	size_t start, end;	/* what is not yet used is [start, end) */
	size_t searched;	/* no LF in [start, searched) */
	bool skipping;		/* in the middle of a line that is too long, ... */
	size_t skipped;		/* ... of which so many octets were thrown away */
	char buffer[LINE_SASL + 2 + 2048];
};

/* Takes the next line. `sasl`: it answers a challenge, so that the longer limit holds (it does for AUTH commands always). */
enum line_result line_next(struct lines *l, bool sasl, char **line);

/* Where more octets may be read into, and how many. Never 0 after LINE_MORE. */
char *line_room(struct lines *l, size_t *size);
void line_added(struct lines *l, size_t count);

/* Overwrites every octet that has been used: it may have been a password. */
void line_wipe(struct lines *l);

/* Is something there that was not used yet? */
bool line_pending(const struct lines *l);

#endif
