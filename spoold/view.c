#include "view.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

struct view {
	struct inventory *inventory;	/* what is shown: first the archive's, then the maildrop's */
	uint32_t archived;
	uint32_t *inner;		/* of the others: which one of the maildrop it is */
};

static int
view_fill(struct maildrop *m, struct view *v, int64_t since)
{
	struct inventory_message im;

	if (m->grant->server_copy == COPY_ARCHIVE && m->store->archived(m, since, v->inventory) == -1)
		return -1;
	v->archived = inventory_count(v->inventory);
	for (uint32_t i = 0; i < maildrop_count(m); i++) {
		if (m->store->older(m, i, since, false))
			continue;
		if (inventory_get(m->inventory, i, &im) == -1 || inventory_add(v->inventory, &im) == -1)
			return -1;
		v->inner[inventory_count(v->inventory) - 1 - v->archived] = i;
	}
	return 0;
}

int
view_make(struct maildrop *m)
{
	static struct view view;	/* a worker that makes one has one session */
	struct view *v = &view;
	int64_t since = (int64_t)time(NULL) - (int64_t)VIEW_DAYS * 86400;

	/* what a failure leaves here goes with the process, at once */
	v->inventory = inventory_new();
	v->inner = calloc((size_t)maildrop_count(m) + 1, sizeof *v->inner);
	if (v->inventory == NULL || v->inner == NULL)
		return -1;
	/* a maildrop that is not there has no store's things, and an archive without a maildrop is not looked for */
	if (!m->missing && view_fill(m, v, since) == -1)
		return -1;
	int catalogue = inventory_publish(v->inventory);
	if (catalogue == -1)
		return -1;
	close(m->catalogue);
	m->catalogue = catalogue;
	m->view = v;
	return 0;
}

uint32_t
view_count(const struct view *v)
{
	return inventory_count(v->inventory);
}

uint64_t
view_octets(const struct view *v)
{
	return inventory_octets(v->inventory);
}

bool
view_index(const struct view *v, uint32_t index, uint32_t *inner)
{
	if (index < v->archived)
		return false;
	*inner = v->inner[index - v->archived];
	return true;
}

int
view_fetch(struct maildrop *m, uint32_t index, struct place *p)
{
	const struct view *v = m->view;
	struct inventory_message im;
	uint32_t inner;

	if (view_index(v, index, &inner))
		return m->store->fetch(m, inner, p);
	if (inventory_get(v->inventory, index, &im) == -1)
		return maildrop_fail(m, "inventory");
	return m->store->archived_fetch(m, &im, p);
}

void
view_marks(const struct view *v, const uint8_t *marks, uint8_t *all)
{
	for (uint32_t i = v->archived; i < view_count(v); i++)
		all[v->inner[i - v->archived]] = marks[i];
}

uint32_t
view_deleted(const struct view *v, const uint8_t *all)
{
	uint32_t count = 0;

	for (uint32_t i = v->archived; i < view_count(v); i++)
		count += (all[v->inner[i - v->archived]] & MARK_DELETED) != 0;
	return count;
}
