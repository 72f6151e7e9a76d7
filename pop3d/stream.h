/* The connection with the client: octets in and out, each with a deadline. */
#ifndef POP3D_STREAM_H
#define POP3D_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tls;

struct stream {
	int in, out;		/* non-blocking; the same socket, or inetd's descriptors 0 and 1 */
	struct tls *tls;	/* what the octets go through; NULL: as they are */
	bool no_socket;		/* out is not one */
	int also;		/* wake up for this descriptor too while waiting for input; -1: none */
	bool also_speaks;	/* that it has something to say is no reason to wake up, only that it is gone */
	bool also_ready;	/* it has something to say, or is gone */
	int64_t deadline;	/* clock_ms() by which all must be over; 0: none */
	int idle_ms;		/* how long one wait may last */
	uint32_t least;		/* octets a second that the client must take while there are some for it; 0: any number */
	int64_t behind;		/* by how many thousandths of an octet it is: never more than `least` for idle_ms; none once it is its turn to speak */
	const char *failed;	/* why it came to an end: "client-gone", "timeout", "io-error"; NULL while it works */
	uint64_t octets_in, octets_out;
};

/* If it is a TCP socket: TCP_NODELAY, and what notices a dead peer in about two minutes. A connection inherits them from a listening socket. */
void stream_options(int fd);

/* Of two descriptors that are non-blocking and have their options. */
void stream_start(struct stream *s, int in, int out);

/*
 * Lets TLS begin, with the keeper's help: from now on all octets go through it. False if the handshake failed or the
 * time is over: s->failed says, and no octet may be sent any more.
 */
bool stream_tls(struct stream *s, int keeper);

/* Is there input that has not been read (or the end of it), or is there some within so many milliseconds, and before the time is over? */
bool stream_has_input(const struct stream *s, int ms);

/* Up to `size` octets, at least one. 0 if the client has closed or the time is over: s->failed says. */
size_t stream_read(struct stream *s, char *buffer, size_t size);

/*
 * Writes all of it. False if that cannot be done: s->failed says. `more`: at once more follows, and the last octets may wait for it. A client that takes less
 * than s->least over s->idle_ms has run out of time, even if it takes an octet now and then: so a reply takes no longer than idle_ms, and a second more for
 * each `least` octets of it.
 */
bool stream_write(struct stream *s, const char *data, size_t length, bool more);

#endif
