/*
 * What the server shows of itself: certificate chains, which come from authd's keeper, and keys, which stay there and
 * are asked for a signature.
 */
#ifndef POP3D_CREDENTIALS_H
#define POP3D_CREDENTIALS_H

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdint.h>

#include "conf.h"

/* Has the configuration certificates? */
bool credentials_configured(const struct conf *c);

/*
 * What is the same for all connections: the library, the list of what is accepted. Opens files: before the cell. May be
 * called again after a reload. Fatal if the library does not know what is wanted of it.
 */
void credentials_prepare(const struct conf *c);

/*
 * A conversation with the keeper, in which it says CHAINS without being asked; -1 with errno. The listener also
 * follows: it hears of a change.
 */
int credentials_connect(const struct conf *c, bool follow);

/*
 * Receives CHAINS, waiting at most `milliseconds`, and makes them those that are used if they are not already, in this
 * process and its later children. 1 if they are new, 0 if they were known; -1 if the keeper is gone or has sent nothing
 * sound (logged): then close the conversation.
 */
int credentials_receive(int keeper, int milliseconds);

/*
 * Gives a session what was prepared and received. Its handshake asks `keeper` for the signature, which must be there by
 * `deadline` (clock_ms()). 0, or GnuTLS's error.
 */
int credentials_apply(gnutls_session_t session, int keeper, int64_t deadline);

/* Is there a client-ca, so that clients are asked for a certificate? */
bool credentials_ask_client(void);

#endif
