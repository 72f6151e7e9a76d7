/*
 * SCRAM-SHA-256-PLUS with the channel binding tls-server-end-point (RFC 5802, 5929), which GNU SASL does not know: the
 * same exchange, bound to the server's certificate instead of to the connection.
 */
#ifndef POSTERN_AUTHD_BOUND_H
#define POSTERN_AUTHD_BOUND_H

#include "login.h"
#include "sasl.h"

/* Is this the first message of a client that binds in this way, on a connection that has such a binding? */
bool bound_is(const struct body_hello *h, const uint8_t *data, size_t length);

/* As sasl_step. */
enum sasl_result bound_step(struct login *l, const uint8_t *data, size_t length);

#endif
