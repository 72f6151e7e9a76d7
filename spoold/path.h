/* The way to a maildrop, of which a user may have made a part. */
#ifndef POSTERN_SPOOLD_PATH_H
#define POSTERN_SPOOLD_PATH_H

#include <sys/types.h>

/*
 * Opens a directory (`flags`: O_PATH or O_RDONLY, and more) by its absolute path, for a maildrop of `uid`. A symbolic link on the way is followed
 * only where root made it and only above the first directory that is not root's: below, nothing that a user made leads anywhere else
 * (openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS). Every directory on the way to there, and the one that is opened, belongs to
 * root, to uid, or to an account of the system (below `min_uid`).
 *
 * -1 with errno, and *why says what is wrong if it is the path, else it is NULL.
 */
int path_open_directory(const char *path, uid_t uid, uid_t min_uid, int flags, const char **why);

#endif
