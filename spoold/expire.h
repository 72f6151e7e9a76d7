/* [spoold] expire: mail that is too old goes with the next UPDATE, by the same way as what a client has deleted. */
#ifndef POSTERN_SPOOLD_EXPIRE_H
#define POSTERN_SPOOLD_EXPIRE_H

#include <stdint.h>

#include "maildrop.h"

/* What was marked for its age, to be logged once it is gone. */
struct expired {
	uint32_t count;
	struct expired_row {
		char uid[UID_MAX + 1];
		uint64_t octets;
	} *row;
};

/*
 * Adds MARK_DELETED for each message that was delivered longer than `expire` days ago and is not marked so already. Without
 * memory fewer are. The caller gives *e to expire_log or expire_forget.
 */
void expire_mark(struct maildrop *m, uint8_t *all, struct expired *e);
/* A line a message; frees. `whole`: all of them are gone. */
void expire_log(const struct maildrop *m, struct expired *e, bool whole);
void expire_forget(struct expired *e);

#endif
