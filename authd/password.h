/* What every password goes through, when it is set and when it is given. */
#ifndef POSTERN_AUTHD_PASSWORD_H
#define POSTERN_AUTHD_PASSWORD_H

#include "messages.h"

/*
 * SASLprep (RFC 4013), into `to` (of PASSWORD_SIZE). What cannot be prepared stays as it is, so that a password in
 * another encoding than UTF-8 still fits what was made of it.
 */
void password_prepare(char *to, const char *from);

#endif
