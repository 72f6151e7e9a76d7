/* Linked into authd and authctl: free(3) and realloc(3) that wipe what they give back. */
#ifndef POSTERN_AUTHD_WIPE_H
#define POSTERN_AUTHD_WIPE_H

extern const int wipe_is_linked;

#endif
