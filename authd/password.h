/* What every password and every name goes through, when it is set and when it is given. */
#ifndef POSTERN_AUTHD_PASSWORD_H
#define POSTERN_AUTHD_PASSWORD_H

#include <stdbool.h>

#include "messages.h"

/* Printable ASCII, which SASLprep leaves as it is: nearly all there is, and the library takes a tenth of a login for it. */
bool password_is_prepared(const char *text);

/*
 * SASLprep (RFC 4013), into `to` (of PASSWORD_SIZE), as of a query: characters younger than Unicode 3.2 stay as they are. So does all of
 * what cannot be prepared, so that a password in another encoding than UTF-8 fits what was made of it.
 */
void password_prepare(char *to, const char *from);

/* Has it a form that every client makes of it? One of SCRAM may refuse one that has not. */
bool password_has_form(const char *text);

/* The same for a user name, which stays as it is if it cannot be prepared. False if it does not fit. */
bool name_prepare(char to[static USER_SIZE], const char *from);

#endif
