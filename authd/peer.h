/*
 * A connection of pop3d's to the verifier. What it may say, when, and how often, is a table in peer.c; whoever says
 * anything else is cut off.
 */
#ifndef POSTERN_AUTHD_PEER_H
#define POSTERN_AUTHD_PEER_H

#include "login.h"

#define PEER_FAILURES	10	/* the last of them ends the connection's right to ask */

enum peer_phase {
	PEER_NEW,		/* HELLO is to come */
	PEER_IDLE,		/* AUTH */
	PEER_EXCHANGE,		/* RESPOND */
	PEER_WORKING,		/* nothing: the verifier is at work */
	PEER_DONE		/* nothing any more */
};

#define PEER_ROWS	5	/* of the table */

struct peer {
	struct peer *next, *before;
	struct source source;
	struct timer timer;	/* how long it may stay without a login */
	enum peer_phase phase;
	uint32_t said[PEER_ROWS];	/* how often, a row of the table each */
	uint32_t failures;
	bool granted;		/* somebody has logged in */
	struct body_hello hello;
	char timestamp[128];	/* what APOP is asked about; empty: pop3d showed none */
	struct login login;
};

void peers_start(const struct conf *c);
/* Takes a connection that was accepted from a process that may ask; or closes it, if there are too many. */
void peer_add(int fd);
size_t peers_count(void);
/* Those that nobody has logged in by. */
size_t peers_waiting(void);

/*
 * What login.c tells the client through pop3d. Each may end the peer, and the login with it: nothing of it may be touched
 * after.
 */
void peer_challenge(struct login *l, const uint8_t *data, uint32_t length);
void peer_granted(struct login *l, int fd, const char *user, bool no_delete);
void peer_denied(struct login *l, enum denial denial, uint32_t seconds);

/* The timestamp of the greeting; empty if there was none. */
const char *peer_timestamp(const struct login *l);

/* The facts of the connection. */
const struct body_hello *peer_hello(const struct login *l);

#endif
