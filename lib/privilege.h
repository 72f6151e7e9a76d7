/* Giving up root, for good. */
#ifndef POSTERN_PRIVILEGE_H
#define POSTERN_PRIVILEGE_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Becomes uid and gid for good: supplementary groups are set to gid alone, real, effective and saved ids are set, capabilities fall with them, then it is
 * tried to get root back. Refuses uid 0 and gid 0. Works for a process that already is that user (then groups cannot be set and need not be). 0, or -1
 * with errno; after -1 the caller must exit.
 */
int privilege_drop(uid_t uid, gid_t gid);

/* The same for an account by name. Looks it up with getpwnam(3): before any sandbox. Logs what is wrong. */
int privilege_drop_to(const char *user);

/* Is this process root (effective uid 0)? */
bool privilege_is_root(void);

#endif
