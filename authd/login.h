/*
 * One attempt to log in: from the mechanism's first octet to the verdict. The order is fixed:
 *
 *	exchange (SASL) -> wait (throttle) -> stores, in the configured order -> login-delay -> OPEN at spoold -> GRANTED
 *
 * A user who is not there goes the same way at the same cost as one whose password is wrong, through every store, and is
 * answered alike.
 */
#ifndef POSTERN_AUTHD_LOGIN_H
#define POSTERN_AUTHD_LOGIN_H

#include <stdbool.h>
#include <stdint.h>

#include "cache.h"
#include "loop.h"
#include "messages.h"
#include "store.h"
#include "workers.h"

struct Gsasl_session;

enum login_stage {
	LOGIN_NONE,		/* no attempt is under way */
	LOGIN_EXCHANGE,		/* the client is to answer a challenge */
	LOGIN_CLOSING,		/* the mechanism has succeeded, and the client is to acknowledge its last word */
	LOGIN_WAITING,		/* by the throttle, before anything comes of it */
	LOGIN_ASKING,		/* a hasher or PAM */
	LOGIN_HOLDING,		/* PAM's no, until it may be acted on */
	LOGIN_OPENING,		/* spoold is to open the maildrop */
	LOGIN_REOPENING		/* and is to be asked again, since it was not there */
};

/* What the exchange came to, and is to be acted on once the throttle lets it. */
enum login_next { NEXT_CHALLENGE, NEXT_PASSWORD, NEXT_PROVED, NEXT_WRONG };

/* What the exchange with the binding tls-server-end-point has said so far (bound.c). */
struct bound {
	char header[512];		/* GS2's */
	char bare[512];			/* the client's first message without it */
	char first[704];		/* the server's */
	char nonce[512];
};

/* What must not outlive the attempt: in guarded memory, wiped when the attempt ends. */
struct secret {
	char password[PASSWORD_SIZE];
	char prepared[PASSWORD_SIZE];	/* the same after SASLprep, which is what users.db has a hash of */
	char hash[STORE_HASH_SIZE];	/* what a hasher is asked about */
	uint8_t challenge[CHALLENGE_SIZE];	/* the mechanism's next word */
	uint32_t challenge_length;
	struct store_user user;
	struct bound bound;
	struct secret *next;		/* of those not in use */
};

struct login {
	enum login_stage stage;
	uint32_t mechanism;
	struct Gsasl_session *sasl;
	uint32_t steps;
	bool spoken;			/* the client has said something in the exchange */
	bool bound;			/* by tls-server-end-point: bound.c runs it */
	enum login_next next;
	bool admitted;			/* past the throttle */
	struct secret *secret;
	struct timer timer;
	struct question question;
	int64_t begun;
	int64_t away;			/* spoold was not there: until when it is looked for */
	int64_t asked;			/* when the question was put */
	uint32_t store_at;		/* which of the configured stores is being tried */
	bool nobody;			/* no user can have this name: none has it, whatever a store says */
	bool found, locked;		/* in users.db */
	bool unhashed;			/* there, but without a password */
	bool trouble;			/* a store could not be asked */
	bool charged;			/* the throttle counts it as a failure until it is settled */
	bool no_delete;
	bool recent;			/* the name was given as recent:USER */
	uint32_t store;			/* which vouched for the user */
	const char *reason;		/* for the log */
	char app[STORE_APP_NAME];	/* which app password it was; empty: none */
	uint32_t app_at;		/* its place in the record */
	char user[USER_SIZE];		/* as the client gave it, after SASLprep and without "recent:" */
	char granted[USER_SIZE];	/* as the store has it */
	char authzid[USER_SIZE];
	uint8_t tag[STORE_COUNT][CACHE_TAG_SIZE];
};

/* Makes room for so many attempts at a time. Fatal if it is not to be had. Before the sandbox. */
void login_start(const struct conf *c, size_t room);

/* An attempt by an offered mechanism; `initial` is NULL if there is no initial response, which an empty one is not. */
void login_begin(struct login *l, uint32_t mechanism, const uint8_t *initial, uint32_t length);
void login_respond(struct login *l, const struct body_respond *r);
/* The peer is gone, or has lost the right to an answer: nothing more is said or kept. */
void login_abandon(struct login *l);

/*
 * What vouch.c finds: a store vouches for the user, whom it knows as `granted`; none does; it could not be found out.
 */
void login_vouched(struct login *l, enum store store, const char *granted, const char *reason);
void login_refused(struct login *l);
void login_trouble(struct login *l, const char *reason);

/* spoold's answer: the session's descriptor, which becomes the callee's, or -1 and why not. */
void login_opened(struct login *l, int fd, enum denial denial, const char *reason);
/* spoold is not there, or went before it answered: it may be being restarted, and is asked again for a while. */
void login_unanswered(struct login *l);

#endif
