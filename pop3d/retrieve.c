/* RETR and TOP: a message from its descriptor to the client, in the wire form, in few large writes. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ask.h"
#include "log.h"
#include "session.h"
#include "wire.h"

#define CHUNK (64 * 1024)
#define REPLY_ROOM 1024
_Static_assert(REPLY_ROOM + WIRE_ROOM(CHUNK) <= OUTPUT_SIZE, "a reply and a chunk in the wire form fit the output");

/* Where a message's bytes are. */
struct place {
	int fd;
	bool own;		/* close it afterwards */
	off_t offset;
	uint64_t length;
};

/* Is the mailbox still as the worker scanned it? Then the catalogue's offsets hold. */
static bool
mbox_unchanged(const struct session *s)
{
	struct stat st;

	return fstat(s->mbox, &st) == 0 && (uint64_t)st.st_size == s->ready.size &&
	    st.st_mtim.tv_sec == s->ready.mtime_sec && st.st_mtim.tv_nsec == s->ready.mtime_nsec;
}

/* Asks the worker; what was asked for ahead is taken first. False if it is not to be had: *failure says why. */
static bool
fetch(struct session *s, uint32_t number, struct place *p, uint32_t *failure)
{
	struct message m;

	*failure = FAILURE_TEMPORARY;
	if (s->ahead != 0 && s->ahead != number) {
		if (ask_fetched(s->worker, s->ahead, &m) == 0)
			return false;
		message_clear(&m);
		s->ahead = 0;
	}
	if (s->ahead == 0 && !ask_fetch(s->worker, number))
		return false;
	s->ahead = 0;
	if (ask_fetched(s->worker, number, &m) == 0)
		return false;
	if (m.header.type == MESSAGE_FAILED) {
		*failure = m.body.failed.failure;
		message_clear(&m);
		return false;
	}
	*p = (struct place){ m.fds[0], true, (off_t)m.body.message.offset, m.body.message.length };
	return true;
}

/* A client that fetches one fetches the next: the worker can open it meanwhile. */
static void
fetch_ahead(struct session *s, uint32_t number)
{
	if (s->mbox == -1 && number < s->ready.count && (s->marks[number] & MARK_DELETED) == 0 &&
	    ask_fetch(s->worker, number + 1))
		s->ahead = number + 1;
}

static bool
place_find(struct session *s, uint32_t number, struct place *p, uint32_t *failure)
{
	const struct catalogue_row *r = &s->catalogue.rows[number - 1];

	if (s->mbox == -1 || !mbox_unchanged(s))
		return fetch(s, number, p, failure);
	*p = (struct place){ s->mbox, false, (off_t)r->offset, r->length };
	return true;
}

/*
 * Puts the message into the output, all but its end. False if it could not be read whole, or the client is gone: then
 * the connection ends without the closing dot.
 */
static bool
send_body(struct session *s, const struct place *p, struct wire_form *form, struct wire_top *top)
{
	static char chunk[CHUNK];
	uint64_t left = p->length;
	off_t at = p->offset;
	bool done = false;

	while (left > 0 && !done) {
		ssize_t n = pread(p->fd, chunk, left < CHUNK ? (size_t)left : CHUNK, at);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			log_text(LOG_ERR, "a message cannot be read whole: %s", n == 0 ? "it became shorter" : strerror(errno));
			return false;
		}
		size_t use = top != NULL ? wire_top(top, chunk, (size_t)n, &done) : (size_t)n;
		output_put(&s->output, wire_form(form, chunk, use, output_room(&s->output, WIRE_ROOM(use))));
		if (s->stream.failed != NULL)
			return false;
		at += n;
		left -= (uint64_t)n;
	}
	return true;
}

/* Do both hold the same octets, of which there are equally many? */
static bool
same_octets(const struct place *a, const struct place *b)
{
	static char one[CHUNK], other[CHUNK];

	for (uint64_t at = 0; at < a->length;) {
		size_t n = a->length - at < CHUNK ? (size_t)(a->length - at) : CHUNK;
		if (pread(a->fd, one, n, a->offset + (off_t)at) != (ssize_t)n ||
		    pread(b->fd, other, n, b->offset + (off_t)at) != (ssize_t)n || memcmp(one, other, n) != 0)
			return false;
		at += n;
	}
	return true;
}

/*
 * After the last octet: was it the message, and whole? If another program wrote to the mbox meanwhile (mostly it appended), the worker,
 * which knows the message by its content, gives a copy to compare with what stands where it was read.
 */
static bool
was_whole(struct session *s, uint32_t number, const struct place *p, const struct wire_form *form, bool whole)
{
	struct place copy;
	uint32_t failure;
	uint64_t octets = s->catalogue.rows[number - 1].octets;
	uint64_t sent = form->octets + (form->any && form->last != '\n' ? 2 : 0);

	if (s->mbox == -1) {
		if (whole && sent != octets)
			log_text(LOG_WARNING, "message %u has %llu octets, and its file's name or the cache said %llu", number,
			    (unsigned long long)sent, (unsigned long long)octets);
		return true;
	}
	if (whole && sent != octets)
		return false;
	if (p->own || mbox_unchanged(s))
		return true;
	if (!fetch(s, number, &copy, &failure))
		return false;
	bool same = copy.length == p->length && same_octets(p, &copy);
	close(copy.fd);
	return same;
}

static enum event
lost(struct session *s)
{
	s->output.used = 0;
	s->end = s->stream.failed != NULL ? s->stream.failed : "read-error";
	return EVENT_END;
}

/* Puts all of the answer into the output but its end. False if that is not what was promised. */
static bool
send_message(struct session *s, uint32_t number, const struct place *p, struct wire_form *form, const uint64_t *lines)
{
	struct wire_top top = { .lines = lines != NULL ? *lines : 0 };

	*form = (struct wire_form){ 0 };
	output_ok(&s->output, "%llu octets", (unsigned long long)s->catalogue.rows[number - 1].octets);
	bool good = send_body(s, p, form, lines != NULL ? &top : NULL) && was_whole(s, number, p, form, lines == NULL);
	if (p->own)
		close(p->fd);
	return good;
}

static enum event
refuse(struct session *s, uint32_t number, uint32_t failure)
{
	if (failure == FAILURE_VANISHED)
		output_err(&s->output, "message %u is no longer there: another program removed it", number);
	else
		output_err(&s->output, "[SYS/TEMP] message %u cannot be read", number);
	return EVENT_REFUSED;
}

enum event
retrieve(struct session *s, uint32_t number, const uint64_t *lines)
{
	struct place p;
	struct wire_form form;
	uint32_t failure;

	if (!place_find(s, number, &p, &failure))
		return refuse(s, number, failure);
	if (s->conf->utf8_headers == UTF8_HEADERS_REFUSE && !s->utf8 && header_needs_utf8(p.fd, p.offset, p.length)) {
		if (p.own)
			close(p.fd);
		output_err(&s->output, "[UTF8] message %u has UTF-8 in its header: log in after the command UTF8", number);
		return EVENT_REFUSED;
	}
	if (lines == NULL)
		fetch_ahead(s, number);
	/* what is before it in the buffer goes first if it must, so that a message of a chunk is in there whole */
	output_room(&s->output, REPLY_ROOM + WIRE_ROOM(p.length < CHUNK ? (size_t)p.length : CHUNK));
	size_t used = s->output.used;
	uint64_t octets_out = s->stream.octets_out;
	bool good = send_message(s, number, &p, &form, lines);
	/* Another program was at work on the mbox. Nothing of this has left yet, so it may be taken back. */
	if (!good && s->mbox != -1 && !p.own && s->stream.failed == NULL && s->stream.octets_out == octets_out) {
		s->output.used = used;
		if (!fetch(s, number, &p, &failure))
			return refuse(s, number, failure);
		good = send_message(s, number, &p, &form, lines);
	}
	if (!good)
		return lost(s);
	output_put(&s->output, wire_form_end(&form, output_room(&s->output, 0)));
	if (lines == NULL) {
		s->marks[number - 1] |= MARK_RETRIEVED;
		s->retrieved++;
	} else
		s->topped++;
	return EVENT_DONE;
}
