/* APOP (RFC 1939 section 7), which is no SASL mechanism. */
#ifndef POSTERN_AUTHD_APOP_H
#define POSTERN_AUTHD_APOP_H

#include "login.h"

/* Takes "user digest", sets l->user and l->next to NEXT_PROVED or NEXT_WRONG. 0, or -1 if it is not of this form. */
int apop_check(struct login *l, const uint8_t *data, size_t length);

#endif
