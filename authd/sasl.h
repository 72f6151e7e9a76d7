/*
 * The mechanisms' exchanges, which GNU SASL runs. What they yield is a name and a password to be verified, or that the
 * client has proved who it is.
 */
#ifndef POSTERN_AUTHD_SASL_H
#define POSTERN_AUTHD_SASL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "login.h"

enum sasl_result {
	SASL_CHALLENGE,		/* l->secret->challenge is to be sent, and the client's answer given to sasl_step */
	SASL_PASSWORD,		/* l->user, l->authzid and l->secret->password are set: verify them */
	SASL_PROVED,		/* the client has proved to be l->user; the challenge, if there is one, is the mechanism's last word */
	SASL_WRONG,		/* it has not: for the client the same as a wrong password */
	SASL_MALFORMED,		/* what it sent is not this mechanism's */
	SASL_TROUBLE		/* memory */
};

/* Fatal if the library cannot be had. */
void sasl_start(const struct conf *c);

/* Is there an exchange of ours for this mechanism? */
bool sasl_knows(uint32_t mechanism);

/* Begins the exchange of l->mechanism. 0, or -1. */
int sasl_begin(struct login *l);

/* Gives the client's data; NULL if it sent none, which is not the same as an empty response. */
enum sasl_result sasl_step(struct login *l, const uint8_t *data, size_t length);

/*
 * SASLprep, into `to` (of USER_SIZE); what cannot be prepared stays as it is, and will be nobody's name. False if it is
 * too long.
 */
bool sasl_name(char *to, const char *from);
/*
 * The same for a name of l: "recent:USER" is USER, who wants to see the mail of the last days. No user's name has a
 * colon in it.
 */
bool sasl_take_name(struct login *l, char *to, const char *from);

/* Ends the exchange; nothing if there is none. */
void sasl_end(struct login *l);

#endif
