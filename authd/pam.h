/*
 * The PAM process: root's part of authd. A child a login runs the modules, so that one that hangs, crashes, prints or
 * forks harms its own login only.
 */
#ifndef POSTERN_AUTHD_PAM_H
#define POSTERN_AUTHD_PAM_H

#include "conf.h"
#include "messages.h"

#define PAM_CHILDREN	32	/* at a time; the verifier keeps what is beyond that waiting */
#define PAM_SECONDS	20	/* what an attempt may take */

/* Answers ATTEMPT with VERDICT on `channel` until that is closed. Never returns. */
_Noreturn void pam_run(const struct conf *c, int channel);

/*
 * The attempt itself, in this process: authentication, account and session phases. The PAM code; `user` (of USER_SIZE)
 * becomes PAM_USER. Used by the child, and by authctl test.
 */
int pam_try(const char *service, char *user, const char *password, const char *client);

/* What a PAM code means to the client: DENIED_COUNT if it is PAM_SUCCESS. */
enum denial pam_denial(int code);

#endif
