#include "expire.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"

static bool
add(struct maildrop *m, uint32_t index, struct expired *e, uint32_t *room)
{
	struct inventory_message im;

	if (e->count == *room) {
		uint32_t more = *room > 0 ? 2 * *room : 64;
		struct expired_row *row = reallocarray(e->row, more, sizeof *row);
		if (row == NULL)
			return false;
		e->row = row;
		*room = more;
	}
	if (inventory_get(m->inventory, index, &im) == -1)
		return false;
	struct expired_row *r = &e->row[e->count];
	size_t n = im.uid_length <= UID_MAX ? im.uid_length : UID_MAX;
	memcpy(r->uid, im.uid, n);
	r->uid[n] = '\0';
	r->octets = im.octets;
	e->count++;
	return true;
}

void
expire_mark(struct maildrop *m, uint8_t *all, struct expired *e)
{
	int64_t than = (int64_t)time(NULL) - (int64_t)m->conf->expire * 86400;
	uint32_t room = 0;

	*e = (struct expired){ 0 };
	if (m->conf->expire == 0 || !m->expires || m->missing || m->readonly)
		return;
	for (uint32_t i = 0; i < maildrop_count(m); i++)
		if ((all[i] & MARK_DELETED) == 0 && m->store->older(m, i, than, true) && add(m, i, e, &room))
			all[i] |= MARK_DELETED;
}

void
expire_log(const struct maildrop *m, struct expired *e, bool whole)
{
	for (uint32_t i = 0; i < e->count; i++) {
		log_begin(LOG_INFO, "expired");
		log_string("user", m->grant->user);
		log_string("uid", e->row[i].uid);
		log_number("octets", e->row[i].octets);
		log_number("days", m->conf->expire);
		log_string("result", whole ? "removed" : "maybe");
		log_end();
	}
	expire_forget(e);
}

void
expire_forget(struct expired *e)
{
	free(e->row);
	*e = (struct expired){ 0 };
}
