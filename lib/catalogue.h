/*
 * The catalogue: what a worker tells pop3d of a maildrop, in one sealed memfd. The number of a message is its
 * row, from 1, and never moves in a session.
 *
 *	struct catalogue_header
 *	struct catalogue_row	[count]
 *	unique-ids		uids_length octets, each 1 to 70 of 0x21..0x7E, not NUL ended
 */
#ifndef POSTERN_CATALOGUE_H
#define POSTERN_CATALOGUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CATALOGUE_MAGIC		0x504f5343u
#define UID_MAX			70		/* RFC 1939 section 7, UIDL */
#define MESSAGES_MAX		16777216u	/* in one maildrop; a larger one is refused with a reason */

enum maildrop_kind { MAILDROP_MBOX, MAILDROP_MAILDIR, MAILDROP_COUNT };

struct catalogue_header {
	uint32_t magic;
	uint32_t count;
	uint64_t octets;	/* the sum of the rows' octets */
	uint64_t uids_length;
};

struct catalogue_row {
	uint64_t octets;	/* on the wire, before dot-stuffing, after CRLF line endings: LIST's figure */
	uint64_t offset;	/* mbox: where the message's bytes start on disk (after its From_ line); Maildir: what the worker knows the file by */
	uint64_t length;	/* mbox: how many bytes on disk; Maildir: the file's size */
	uint32_t uid;		/* where its unique-id starts in the ids */
	uint32_t uid_length;
};

/* A catalogue that pop3d has mapped read-only. */
struct catalogue {
	const struct catalogue_header *header;
	const struct catalogue_row *rows;
	const char *uids;
	size_t mapped;		/* octets; 0 if nothing is mapped */
	bool copied;		/* small: the header is at the start of memory of its own */
};

/*
 * Maps the memfd and checks all of it: seals, sizes, that every id lies inside and is made of 0x21..0x7E, and the sum of octets. 0, or -1 with errno
 * (EPROTO: not a catalogue). fd stays open and the caller's.
 */
int catalogue_map(struct catalogue *c, int fd);

/* The same, but one of at most so many octets is copied to `room`, which is aligned for it and is left alone until it is unmapped. */
int catalogue_read(struct catalogue *c, int fd, void *room, size_t most);
void catalogue_unmap(struct catalogue *c);

/* Makes an empty memfd, not yet sealed, for a catalogue or marks. -1 with errno. */
int sealed_create(const char *name);
/* Seals it against any change. 0, or -1 with errno. */
int sealed_finish(int fd);
/* Is fd a memfd that nobody can change any more, of exactly `size` octets (or any, with SIZE_MAX)? */
bool sealed_is(int fd, size_t size, size_t *actual);

#endif
