/* What the keeper signs: a closed list, each at its exact length. */
#ifndef POSTERN_AUTHD_SIGN_H
#define POSTERN_AUTHD_SIGN_H

#include "keys.h"
#include "messages.h"

/*
 * Signs what *s asks for. NULL, with *out filled; or what is wrong with the question, which no pop3d asks that is
 * sound: then *out is empty. NULL and an empty *out: the library could not.
 */
const char *sign(const struct keys *k, const struct body_sign *s, struct body_signature *out);

/* Is this what a TLS server signs: RFC 8446 section 4.4.3, or RFC 8422 section 5.4 after the two randoms? */
bool sign_is_tls(const uint8_t *data, size_t length);

#endif
