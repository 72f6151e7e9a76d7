/*
 * Unique-ids (RFC 1939 section 7, UIDL): 1 to 70 of 0x21..0x7E, in whatever form `uidl-format` asks for.
 *
 * This gives the id that a message asks for; two messages may ask for the same one (byte-identical twins), and
 * inventory_publish() (cache.h) makes them differ.
 *
 *	struct uidl *u = uidl_open(conf->uidl_format, MAILDROP_MBOX, -1);
 *	for each message, in the order of the mailbox, the server's pseudo message too:
 *		uidl_begin(u, from_line, from_length);		("From someone date", without the line end)
 *		uidl_add(u, data, length);			(its bytes after the From_ line, in any number of pieces)
 *		uidl_end(u, &id);
 *	uidl_close(u);
 *
 * For a Maildir:	uidl_name(u, file name, length, &id), and only if uidl_wants_content(u): begin, add...,
 * then name instead of end.
 */
#ifndef POSTERN_UIDL_H
#define POSTERN_UIDL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "catalogue.h"

#define FINGERPRINT_SIZE 16

/*
 * What a message is known by. The fingerprint is a hash of its content: every byte of it but the header lines
 * that mail readers change in place (Status, X-Status, X-UID, X-Keywords, X-IMAP, X-IMAPbase, Content-Length,
 * Lines). Equal fingerprints and equal lengths: the same message, or a byte-identical twin. Not set (zero) for
 * a Maildir.
 */
struct uidl_id {
	char text[UID_MAX];	/* not NUL ended */
	uint32_t length;
	uint8_t fingerprint[FINGERPRINT_SIZE];
};

struct uidl;

/*
 * NULL if this text is a uidl-format; else what is wrong with it and what is accepted (static).
 */
const char *uidl_check(const char *format);

/*
 * Starts naming the messages of one maildrop. `directory` is the Maildir's (files that an older server left
 * there are read from it now: a dovecot-uidlist, courierpop3dsizelist, cyrus.index are small reads), or -1.
 * Call it before the sandbox closes openat. NULL with errno: ENOMEM, EINVAL (format).
 */
struct uidl *uidl_open(const char *format, enum maildrop_kind kind, int directory);
void uidl_close(struct uidl *u);

/* A number for this format: ids that were remembered under another one must not be used. */
uint64_t uidl_context(const struct uidl *u);

/* One message's content. */
void uidl_begin(struct uidl *u, const char *from_line, size_t length);
void uidl_add(struct uidl *u, const char *data, size_t length);
void uidl_end(struct uidl *u, struct uidl_id *id);

/* What follows is another file, from its start: what was read of one before is forgotten. */
void uidl_start(struct uidl *u);
/*
 * mbox: can the ids of messages depend on those before them? Then, to go on behind messages that are not read again: uidl_start(), the
 * file's first message, or as much of it as its header, and uidl_go_on(). In the end uidl_is_sure() says whether all that followed got the
 * id that it would have got if everything had been read.
 */
bool uidl_wants_head(const struct uidl *u);
void uidl_go_on(struct uidl *u);
bool uidl_is_sure(const struct uidl *u);

/* A Maildir's message by its file name (with or without ":2,flags"; no directory). */
bool uidl_wants_content(const struct uidl *u);
void uidl_name(struct uidl *u, const char *name, size_t length, struct uidl_id *id);

/* The fingerprint alone, for looking again: same cuts, no uidl needed. */
struct content_hash;
struct content_hash *content_new(void);		/* NULL: ENOMEM; reusable; free() it */
void content_begin(struct content_hash *h);
void content_add(struct content_hash *h, const char *data, size_t length);
void content_end(struct content_hash *h, uint8_t fingerprint[static FINGERPRINT_SIZE]);

#endif
