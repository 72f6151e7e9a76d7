/* The capability: asking spoold to open the maildrop of a user who has been verified. */
#ifndef POSTERN_AUTHD_GRANT_H
#define POSTERN_AUTHD_GRANT_H

#include <stdbool.h>

#include "login.h"

void grant_start(const struct conf *c);

/*
 * Asks for the maildrop of l->granted. Connects if there is no connection: spoold may have been restarted, and so may
 * authd. The answer comes by login_opened, later; -1 if there will be none since spoold cannot be reached.
 */
int grant_ask(struct login *l, const char *session, const char *client);
/* No answer is wanted any more: a descriptor that still comes is closed. */
void grant_forget(const struct login *l);

/* Is an answer for this session id still to come? Two sessions of one id could be taken for each other. */
bool grant_pending(const char *session);

#endif
