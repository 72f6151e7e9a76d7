/* Where a message's octets are: in the mbox, or behind a descriptor of the worker's, asked for before the client does. */
#include <sys/stat.h>
#include <unistd.h>

#include "ask.h"
#include "place.h"
#include "session.h"

bool
place_mbox_unchanged(struct session *s)
{
	struct stat st;

	s->mbox_changed = s->mbox_changed || fstat(s->mbox, &st) == -1 || (uint64_t)st.st_size != s->ready.size ||
	    st.st_mtim.tv_sec != s->ready.mtime_sec || st.st_mtim.tv_nsec != s->ready.mtime_nsec;
	return !s->mbox_changed;
}

/* The worker's answer in *m; false if it has none to give: *failure says why. */
static bool
place_take(struct message *m, uint32_t number, struct place *p, uint32_t *failure)
{
	if (m->header.type != MESSAGE_MESSAGE) {
		*failure = m->header.type == MESSAGE_FAILED ? m->body.failed.failure : FAILURE_TEMPORARY;
		message_clear(m);
		return false;
	}
	*p = (struct place){ number, m->fds[0], true, (off_t)m->body.message.offset, m->body.message.length };
	return true;
}

/* The same for several. False if more came than were asked for. */
static bool
places_take(struct message *m, struct asked *a)
{
	const struct body_messages *b = &m->body.messages;

	if (a->left < FETCHED_TOGETHER) {
		message_clear(m);
		return false;
	}
	for (uint32_t i = 0; i < FETCHED_TOGETHER; i++)
		a->have[i] = (struct place){ a->next + i, m->fds[i], true, (off_t)b->offsets[i], b->lengths[i] };
	a->taken = 0;
	a->came = FETCHED_TOGETHER;
	return true;
}

/*
 * The answer for the next of those that were asked for ahead, in *p; if there is no such message, p->number is 0 and *failure says why. False if
 * the worker is gone, or, not to wait, has not answered yet.
 */
static bool
answer_next(struct session *s, bool wait, struct place *p, uint32_t *failure)
{
	struct asked *a = &s->asked;
	struct message *m = &s->message;

	p->number = 0;
	if (a->taken == a->came) {
		if (!(wait ? ask_fetched(s->worker, a->next, m) : ask_fetched_now(s->worker, a->next, m)))
			return false;
		if (m->header.type != MESSAGE_MESSAGES)
			place_take(m, a->next, p, failure);
		else if (!places_take(m, a))
			return false;
	}
	if (a->taken < a->came)
		*p = a->have[a->taken++];
	a->next++;
	a->left--;
	return true;
}

bool
place_forget(struct session *s, uint32_t until)
{
	struct place p;
	uint32_t failure;

	while (s->asked.left > 0 && s->asked.next < until) {
		if (!answer_next(s, true, &p, &failure)) {
			s->asked.left = 0;
			return false;
		}
		place_close(&p);
	}
	return true;
}

bool
place_fetch(struct session *s, uint32_t number, struct place *p, uint32_t *failure)
{
	struct message *m = &s->message;

	*failure = FAILURE_TEMPORARY;
	if (s->asked.left == 0 || number != s->asked.next)
		s->asked.most = 1;	/* not the one that was expected */
	if (!place_forget(s, number >= s->asked.next ? number : UINT32_MAX))
		return false;
	if (s->asked.left > 0) {
		if (!answer_next(s, true, p, failure))
			return false;
		if (p->number != 0)
			return true;
		/* It may have failed for a reason that is gone by now; and the answers to others come first. */
		if (*failure != FAILURE_TEMPORARY || !place_forget(s, UINT32_MAX))
			return false;
	}
	return ask_fetch(s->worker, number) && ask_fetched(s->worker, number, m) == 1 && place_take(m, number, p, failure);
}

bool
place_find(struct session *s, uint32_t number, struct place *p, uint32_t *failure)
{
	const struct catalogue_row *r = &s->catalogue.rows[number - 1];

	if (s->mbox == -1 || !place_mbox_unchanged(s))
		return place_fetch(s, number, p, failure);
	*p = (struct place){ number, s->mbox, false, (off_t)r->offset, r->length };
	return true;
}

bool
place_find_now(struct session *s, uint32_t number, struct place *p)
{
	const struct catalogue_row *r = &s->catalogue.rows[number - 1];
	uint32_t failure;

	if (s->mbox != -1 && !s->mbox_changed) {
		*p = (struct place){ number, s->mbox, false, (off_t)r->offset, r->length };
		return true;
	}
	return s->asked.left > 0 && s->asked.next == number && answer_next(s, false, p, &failure) && p->number != 0;
}

void
place_ask_ahead(struct session *s, uint32_t number)
{
	uint32_t have = s->asked.left, want = s->ready.count - number;

	if (s->mbox != -1)
		return;
	if (have == 0)
		s->asked.next = number + 1;
	if (want > s->asked.most)
		want = s->asked.most;
	if (have > s->asked.most / 2 || want <= have)
		return;
	if (ask_fetch_ahead(s->worker, s->asked.next + have, want - have))
		s->asked.left = want;
	if (s->asked.most < FETCH_AHEAD_MAX)
		s->asked.most *= 2;
}

void
place_close(struct place *p)
{
	if (p->number != 0 && p->own)
		close(p->fd);
	p->number = 0;
}
