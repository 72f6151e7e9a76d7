/*
 * What a session sees of a maildrop, if that is not all of it: for recent:USER the messages that were delivered in the
 * last days, with those that the policy has put into the archive meanwhile. Stores know nothing of it: their messages
 * are numbered as ever, and what a session says of its own is translated here.
 */
#ifndef POSTERN_SPOOLD_VIEW_H
#define POSTERN_SPOOLD_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "maildrop.h"

#define VIEW_DAYS 30

/* After the scan: makes m->view, and m->catalogue that of the view. 0, or -1 with errno. */
int view_make(struct maildrop *m);

uint32_t view_count(const struct view *v);
uint64_t view_octets(const struct view *v);

/* Message `index` of the view (from 0). As maildrop_fetch. */
int view_fetch(struct maildrop *m, uint32_t index, struct place *p);

/* Which of the maildrop's is message `index` of the view? False: it is in the archive. */
bool view_index(const struct view *v, uint32_t index, uint32_t *inner);

/* The marks of the view (view_count octets) as those of the maildrop (maildrop_count octets, all 0). What is in the archive stays there. */
void view_marks(const struct view *v, const uint8_t *marks, uint8_t *all);
/* How many messages of the view are marked as deleted in those of the maildrop. */
uint32_t view_deleted(const struct view *v, const uint8_t *all);

#endif
