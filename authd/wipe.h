/* Memory that keeps nothing. Linked into authd and authctl: free(3) and realloc(3) that wipe what they give back. */
#ifndef POSTERN_AUTHD_WIPE_H
#define POSTERN_AUTHD_WIPE_H

#include <stdbool.h>

extern const int wipe_is_linked;

/*
 * Locks all memory that this process has and will have, as it is touched, so that none reaches a swap device. Not where
 * there is a limit: a process that met it could not go on. False with errno if it should have worked.
 */
bool wipe_lock(void);

#endif
