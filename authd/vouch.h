/* Whether a store vouches for a user: what the verifier looks up, remembers, and asks the hashers and PAM. */
#ifndef POSTERN_AUTHD_VOUCH_H
#define POSTERN_AUTHD_VOUCH_H

#include "login.h"
#include "token.h"

void vouch_start(const struct conf *c);

/* Does l->secret->password fit l->user? Answered, now or later, by login_vouched or login_refused. */
void vouch_password(struct login *l);

/* l's timer is due while a store is being asked. */
void vouch_due(struct login *l);

/*
 * The SCRAM verifier of l->user; for one who is not there, is locked, or has none, a stable invention that nothing
 * fits.
 */
void vouch_scram(struct login *l, struct store_scram *s);
/* Whose is the certificate that the client has shown? True with l->user set; he may be locked. */
bool vouch_certificate(struct login *l, const struct body_hello *h);
/* The same as vouch_scram with the secret of APOP and CRAM-MD5. */
void vouch_secret(struct login *l, char text[static TOKEN_TEXT]);

#endif
