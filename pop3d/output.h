/*
 * Replies on their way to the client. They gather in one buffer, and leave when it is full or when the client's next command is not there yet, so
 * that a reply, or all the replies to pipelined commands, is one write.
 */
#ifndef POP3D_OUTPUT_H
#define POP3D_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "language.h"
#include "stream.h"

#define OUTPUT_SIZE (320 * 1024)	/* of what is on its way, before it leaves though more follows */
#define OUTPUT_AHEAD (640 * 1024)	/* of what is made ahead; with more, a processor's second cache no longer holds it and what it is made of */
#define OUTPUT_RECORD 16384	/* while more follows, what leaves is whole records of TLS */

struct output {
	struct stream *stream;
	size_t used;
	size_t kept;			/* what is in the buffer ahead of its being asked for, in place of what is used */
	bool ahead;			/* what is in the buffer was, or is being made ahead */
	size_t touched;			/* of the buffer, since it was last given back */
	enum language language;		/* of what people may read in a reply */
	char buffer[OUTPUT_AHEAD];
};

/*
 * "+OK text" or "-ERR text", and the line end; in the client's language if po/ has the format. A format that begins with %s has
 * another text of ours there.
 */
void output_ok(struct output *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
void output_err(struct output *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A line as it is. */
void output_line(struct output *o, const char *line);

/* One row of LIST or UIDL. */
void output_number_number(struct output *o, uint64_t a, uint64_t b);
void output_number_text(struct output *o, uint64_t a, const char *text, size_t length);

/*
 * What is put here from now on, up to OUTPUT_AHEAD octets, is made ahead of the command that it answers; there must be nothing else. Once it
 * is kept, it is not sent, and is gone as soon as anything else is put here.
 */
void output_ahead(struct output *o);
void output_keep(struct output *o);
/* It has been asked for. False if there is none any more. */
bool output_kept(struct output *o);

/* How much can be put here before something is sent. */
size_t output_left(const struct output *o);

/* Where `room` octets may be put (at most OUTPUT_SIZE), after sending what is in the way; then how many were. */
char *output_room(struct output *o, size_t room);
void output_put(struct output *o, size_t count);

/* What there is is not sent. */
void output_drop(struct output *o);

/* Sends what there is. False if the client is gone. */
bool output_flush(struct output *o);

/* Sends what can be sent of it now that more follows. */
void output_begin(struct output *o);

/* Has so much gone through that it is worth while to give memory back when the client is silent? Then so, and what was kept with it. */
bool output_is_large(const struct output *o);
void output_give_back(struct output *o);

#endif
