/*
 * Asking the hashers and the PAM process. What does not fit at once waits in a queue that is bounded: a flood becomes
 * [SYS/TEMP], not swap. Whoever is suspect waits behind those who are not, and makes room for them.
 */
#ifndef POSTERN_AUTHD_WORKERS_H
#define POSTERN_AUTHD_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

#include "messages.h"

enum answer { ANSWER_NO, ANSWER_YES, ANSWER_UNKNOWN };	/* UNKNOWN: could not be tried */

/* Embedded in the attempt. What it points to must stay until the answer, or until question_withdraw. */
struct question {
	enum { QUESTION_NONE, QUESTION_QUEUED, QUESTION_ASKED } state;
	struct question *next;
	uint64_t ticket;
	bool pam;		/* of the PAM process; else of a hasher */
	bool suspect;		/* comes from where somebody may be guessing */
	const char *hash;	/* hasher */
	const char *password;
	const char *user, *client;	/* PAM */
	/* `verdict` is PAM's, NULL from a hasher. */
	void (*on_answer)(struct question *q, enum answer answer, const struct body_verdict *verdict);
	/*
	 * if set, a hasher is asked not whether the password fits, but for a hash of it at the cost of this one; empty if
	 * it failed
	 */
	void (*on_made)(struct question *q, const char *hash);
};

/* How many may wait in each queue. */
#define QUEUE_MOST	256

/* Asks. -1 if the queue is full: then there will be no answer. */
int question_ask(struct question *q);
/* No answer is wanted any more. Nothing if none was asked for. */
void question_withdraw(struct question *q);

/* A channel to a hasher or to PAM, from ATTACH. It is the callee's; a hasher's is added, PAM's replaces the old one. */
void workers_attach(uint32_t side, int fd);

#endif
