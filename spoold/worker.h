/* One worker: one maildrop, one session, under its owner's uid. */
#ifndef POSTERN_SPOOLD_WORKER_H
#define POSTERN_SPOOLD_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "conf.h"
#include "grant.h"
#include "messages.h"

enum job_kind {
	JOB_SESSION,		/* POP3D's, or spoolctl's in its place */
	JOB_REBUILD,		/* the same after the cache has been dropped */
	JOB_RECOVER,		/* finish the UPDATE that a journal holds, and end */
	JOB_SHOW		/* look what is there, say so, and end */
};

struct job {
	enum job_kind kind;
	int session;		/* the session's socket; -1 for JOB_RECOVER */
	int parent;		/* to spoold's parent */
	char id[SESSION_ID_SIZE];
	char user[USER_SIZE];
	uint32_t store;		/* enum store; STORE_COUNT: whichever knows the user */
	bool no_delete;
	int64_t linger_ms;	/* so long it waits for the next session; 0: it ends with this one */
	bool expires;		/* its end removes what is too old */
	bool recent;		/* only the messages of the last days, whatever became of them since */
	struct leftover leftover;	/* JOB_RECOVER */
};

#define LINGER_LIFE_MS	(10 * 60 * 1000)	/* how old a worker is for its last session at most: then the name service is asked anew */

/* All of a worker's life, from root to its end. */
_Noreturn void worker_run(const struct conf *c, const struct job *j);

#endif
