/* RETR and TOP: a message from its descriptor to the client, in the wire form, in few large writes. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "log.h"
#include "session.h"
#include "system.h"
#include "window.h"

#define CHUNK (64 * 1024)
#define REPLY_ROOM 1024
#define LUCK_MAX 4	/* that many guesses may fail before none is made */
_Static_assert(REPLY_ROOM + WIRE_ROOM(CHUNK) <= OUTPUT_SIZE, "a reply and a chunk in the wire form fit the output");

/* How a message's octets become the answer. */
struct making {
	struct wire_form form;
	struct wire_top top;
	bool whole;		/* RETR, and not TOP */
	bool settled;		/* all was read, and that it was the message is known since */
	uint64_t done;		/* octets of it that were read */
	struct window window;	/* through which a large one is */
};

/* Puts what is to be seen of the next octets through the window into the output. Returns how many they were; 0: they are to be read. */
static size_t
make_seen(struct session *s, const struct place *p, struct making *m)
{
	size_t length;
	uint64_t left = p->length - m->done;

	if (!m->whole || (left < WINDOW_LEAST && m->window.map == NULL))
		return 0;
	const char *data = window_open(&m->window, p->fd, p->offset + (off_t)m->done, left, &length);
	if (data == NULL)
		return 0;
	if (length > CHUNK)
		length = CHUNK;
	size_t made = window_form(&m->form, data, length, output_room(&s->output, WIRE_ROOM(length)));
	output_put(&s->output, made);
	return made > 0 ? length : 0;
}

/* Puts the next octets into the output. Returns how many; 0 if the message is shorter than it was, -1 with errno. */
static ssize_t
make_some(struct session *s, const struct place *p, struct making *m, bool *over)
{
	static char chunk[CHUNK];
	uint64_t left = p->length - m->done;
	ssize_t n = (ssize_t)make_seen(s, p, m);

	if (n == 0) {
		do
			n = pread(p->fd, chunk, left < CHUNK ? (size_t)left : CHUNK, p->offset + (off_t)m->done);
		while (n == -1 && errno == EINTR);
		if (n <= 0)
			return n;
		size_t use = m->whole ? (size_t)n : wire_top(&m->top, chunk, (size_t)n, over);
		output_put(&s->output, wire_form(&m->form, chunk, use, output_room(&s->output, WIRE_ROOM(use))));
	}
	m->done += (uint64_t)n;
	return n;
}

/*
 * Puts the message into the output, all but its end. False if it could not be read whole, or the client is gone: then
 * the connection ends without the closing dot.
 */
static bool
make_body(struct session *s, const struct place *p, struct making *m)
{
	bool over = false;

	while (m->done < p->length && !over && s->stream.failed == NULL) {
		ssize_t n = make_some(s, p, m, &over);
		if (n <= 0) {
			log_text(LOG_ERR, "a message cannot be read whole: %s", n == 0 ? "it became shorter" : strerror(errno));
			return false;
		}
	}
	return s->stream.failed == NULL;
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
was_whole(struct session *s, uint32_t number, const struct place *p, const struct making *m)
{
	const struct wire_form *form = &m->form;
	struct place copy;
	uint32_t failure;
	uint64_t octets = s->catalogue.rows[number - 1].octets;
	uint64_t sent = form->octets + (form->any && form->last != '\n' ? 2 : 0);

	if (s->mbox == -1) {
		if (m->whole && sent != octets) {
			log_text(LOG_WARNING, "message %u has %llu octets, and its file's name or the cache said %llu", number,
			    (unsigned long long)sent, (unsigned long long)octets);
			ask_differs(s->worker, number);
		}
		return true;
	}
	if (m->whole && sent != octets)
		return false;
	if (p->own || m->settled || place_mbox_unchanged(s))
		return true;
	if (!place_fetch(s, number, &copy, &failure))
		return false;
	bool same = copy.length == p->length && same_octets(p, &copy);
	place_close(&copy);
	return same;
}

static enum event
lost(struct session *s)
{
	output_drop(&s->output);
	s->end = s->stream.failed != NULL ? s->stream.failed : "read-error";
	return EVENT_END;
}

static void
making_start(struct session *s, uint32_t number, struct making *m, const uint64_t *lines)
{
	*m = (struct making){ .whole = lines == NULL, .top.lines = lines != NULL ? *lines : 0 };
	output_ok(&s->output, "%llu octets", (unsigned long long)s->catalogue.rows[number - 1].octets);
}

/* Puts the rest of the answer into the output, all but its end. False if that is not what was promised. */
static bool
make_rest(struct session *s, struct place *p, struct making *m)
{
	bool good = make_body(s, p, m) && was_whole(s, p->number, p, m);

	window_close(&m->window);
	if (m->settled) {	/* the answer is ready: it goes first */
		place_close(&s->ahead.sent);
		s->ahead.sent = *p;
	} else
		place_close(p);
	return good;
}

/*
 * Is there a guess to be made of what the client wants next, and is it any use? The header of one that may not have UTF-8 in it is looked
 * at when it is asked for.
 */
static bool
may_guess(const struct session *s, uint32_t number)
{
	return s->luck > 0 && number <= s->ready.count && (s->marks[number - 1] & MARK_DELETED) == 0 && s->stream.failed == NULL &&
	    s->ahead.place.number != number && (s->utf8 || s->conf->utf8_headers != UTF8_HEADERS_REFUSE);
}

void
retrieve_ahead(struct session *s)
{
	struct making m;
	uint32_t number = s->just + 1;
	bool over = false;

	place_close(&s->ahead.sent);
	place_ask_ahead(s, s->just);
	if (!may_guess(s, number))
		return;
	place_close(&s->ahead.place);
	if (!place_find_now(s, number, &s->ahead.place))
		return;
	output_ahead(&s->output);
	making_start(s, number, &m, NULL);
	ssize_t n = 1;
	while (n > 0 && m.done < s->ahead.place.length && output_left(&s->output) >= WIRE_ROOM(CHUNK))
		n = make_some(s, &s->ahead.place, &m, &over);
	window_close(&m.window);
	if (n <= 0) {
		place_close(&s->ahead.place);	/* once more, when it is asked for */
		output_drop(&s->output);
		return;
	}
	s->ahead.form = m.form;
	s->ahead.done = m.done;
	output_keep(&s->output);
}

/*
 * What was made ahead, if this is what the client asks for. An mbox may have been changed since: what has been read of it is good only if it
 * has not, and else the worker knows.
 */
static bool
take_ahead(struct session *s, uint32_t number, struct place *p, struct making *m)
{
	bool good = s->ahead.place.number == number && (s->ahead.place.own || place_mbox_unchanged(s)) && output_kept(&s->output);

	if (good) {
		*p = s->ahead.place;
		*m = (struct making){ .whole = true, .form = s->ahead.form, .done = s->ahead.done, .settled = s->ahead.done == p->length };
		s->ahead.place.number = 0;
		s->luck = LUCK_MAX;
		if (m->done < p->length)	/* the client can begin with this while the rest is made */
			output_begin(&s->output);
	} else if (s->ahead.place.number != 0)
		s->luck--;
	else if (s->before != 0 && s->before == number - 1)
		s->luck++;
	return good;
}

/* The place that was found ahead, or another. */
static bool
find(struct session *s, uint32_t number, struct place *p, uint32_t *failure)
{
	*p = s->ahead.place;
	s->ahead.place.number = 0;
	if (p->number == number && p->own)
		return true;
	place_close(p);
	return place_find(s, number, p, failure);
}

static enum event
refuse(struct session *s, uint32_t number, uint32_t failure)
{
	if (failure == FAILURE_VANISHED)
		output_err(&s->output, "message %u is no longer there: another program removed or changed it", number);
	else
		output_err(&s->output, "[SYS/TEMP] message %u cannot be read", number);
	return EVENT_REFUSED;
}

/* The message that is to be sent. False if it is not to be had, and why was said. */
static bool
begin(struct session *s, uint32_t number, struct place *p)
{
	uint32_t failure;

	if (!find(s, number, p, &failure)) {
		refuse(s, number, failure);
		return false;
	}
	if (s->conf->utf8_headers == UTF8_HEADERS_REFUSE && !s->utf8 && header_needs_utf8(p->fd, p->offset, p->length)) {
		place_close(p);
		output_err(&s->output, "[UTF8] message %u has UTF-8 in its header: log in after the command UTF8", number);
		return false;
	}
	/* what is before it in the buffer goes first if it must, so that a message of a chunk is in there whole */
	output_room(&s->output, REPLY_ROOM + WIRE_ROOM(p->length < CHUNK ? (size_t)p->length : CHUNK));
	return true;
}

enum event
retrieve(struct session *s, uint32_t number, const uint64_t *lines)
{
	struct place p;
	struct making m;
	uint32_t failure;

	processor_leave();
	uint64_t octets_out = s->stream.octets_out;
	size_t used = 0;
	bool made = lines == NULL && take_ahead(s, number, &p, &m);	/* it may have sent some */

	if (!made) {
		if (!begin(s, number, &p))
			return EVENT_REFUSED;
		octets_out = s->stream.octets_out;
		used = s->output.used;
		making_start(s, number, &m, lines);
	}
	if (lines == NULL && !m.settled)	/* else retrieve_ahead() asks */
		place_ask_ahead(s, number);
	bool own = p.own, good = make_rest(s, &p, &m);
	/* Another program was at work on the mbox. Nothing of this has left yet, so it may be taken back. */
	if (!good && s->mbox != -1 && !own && s->stream.failed == NULL && s->stream.octets_out == octets_out) {
		s->output.used = used;
		if (!place_fetch(s, number, &p, &failure))
			return refuse(s, number, failure);
		making_start(s, number, &m, lines);
		good = make_rest(s, &p, &m);
	}
	if (!good)
		return lost(s);
	output_put(&s->output, wire_form_end(&m.form, output_room(&s->output, 0)));
	if (lines == NULL) {
		s->marks[number - 1] |= MARK_RETRIEVED;
		s->just = number;
		s->retrieved++;
	} else
		s->topped++;
	return EVENT_DONE;
}
