/*
 * Everything in spoold that is done with root's rights: resolving a user to a uid and a maildrop and giving root up
 * (in the child), and what the parent does for a worker beside its own maildrop. Unprivileged, the same code runs as
 * the one ordinary user.
 */
#ifndef POSTERN_SPOOLD_GRANT_H
#define POSTERN_SPOOLD_GRANT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "conf.h"
#include "messages.h"

/* What a worker is going to have. */
struct grant {
	char user[USER_SIZE];
	uid_t uid;
	gid_t gid;			/* the primary group; its only one */
	int kind;			/* enum store_kind; STORE_AUTO: found by looking, with the user's rights */
	char mbox[PATH_SIZE];		/* where it is if it is an mbox; empty if it cannot be one */
	char maildir[PATH_SIZE];
	char home[PATH_SIZE];		/* of the account, if that is this user's alone; else empty */
	int server_copy;		/* enum server_copy: his own, or the configured one */
	bool shared;			/* the uid may be other users', too */
};

/* run-dir and state-dir, made if they are missing, and what lies in state-dir opened for later. Fatal. */
void asroot_directories(const struct conf *c);

/*
 * Who `user` is and where the mail lies. Blocks on NSS and the disk; touches no maildrop. 0, or -1 with *failure, logged.
 */
int asroot_resolve(const struct conf *c, const char *user, uint32_t store, struct grant *g, uint32_t *failure);

/*
 * Becomes the user for good. Unprivileged: makes sure that it is the user. 0, or -1, logged; then the process must exit.
 */
int asroot_drop(const struct grant *g);

/* Expands %u, %% and a leading ~/. NULL, or what is wrong with it. */
const char *grant_expand(char *path, size_t size, const char *pattern, const char *user, const char *home);
/* Is this a name that may be part of a path? */
bool grant_name_sound(const char *user);

/* The parent's account of one worker. */
struct holding {
	bool resolved;			/* the worker has said whose rights it will have */
	uid_t uid;
	gid_t gid;
	uint32_t kind;			/* enum maildrop_kind */
	char mbox[PATH_SIZE];
	char path[PATH_SIZE];		/* canonical, as the worker says */
	char key[64];			/* UID-HASH: names its files under state-dir; empty until path is known */
	bool known;			/* of an mbox: what follows, as the worker said before it had read any of it */
	dev_t device;
	ino_t inode;
	bool journal;			/* a journal was made or found, and not dropped */
	bool aside;			/* one was set aside for this worker, which is all that a session can need */
	int kept;			/* locked.h's, of this worker; -1 */
	bool dotlock;			/* made by us and not yet removed */
	dev_t dotlock_device;
	ino_t dotlock_inode;
};

/* Sets path and key. */
void asroot_hold(struct holding *h, const char *path, uint32_t kind);
/* Does one enum privileged. 0 or an errno; *fd is the file if it asks for one, the caller's to close. */
int asroot_privileged(struct holding *h, uint32_t what, pid_t worker, int *fd);
/* What is answered to PRIVILEGED: HANDED with `fd`, which stays the caller's, or, if that is -1, DONE with `error`. */
void privileged_answer(struct message *m, uint32_t what, int error, int fd);
/*
 * What an earlier UPDATE has left of a journal for it: enum journal_left, JOURNAL_OTHERS logged. An mbox that was renamed has its
 * journal under another key: then it gets this one.
 */
uint32_t asroot_journal_left(struct holding *h, int64_t born);
/* May one have been left for what has been claimed, under whatever key? Changes nothing. */
bool asroot_journal_may_be(const struct holding *h);
/*
 * After the worker is gone: its dotlock, and what keeps its locks. Both stay if an UPDATE is unfinished: the recovery
 * takes them over.
 */
void asroot_release(struct holding *h);

/* A journal that was left, and who owns the maildrop. */
struct leftover {
	uid_t uid;
	gid_t gid;
	uint32_t kind;
	char inode[64];			/* the name that goes by the inode, beside the journal; empty: there is none */
	char path[PATH_SIZE];
};
/* Calls `each` for every journal under state-dir. Returns how many. */
uint32_t asroot_leftovers(void (*each)(const struct leftover *, void *), void *data);

#endif
