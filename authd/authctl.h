/* authctl: a function a command. Each returns the exit status: 0 done, 1 not (it has said why), 2 used wrongly. */
#ifndef POSTERN_AUTHD_AUTHCTL_H
#define POSTERN_AUTHD_AUTHCTL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "conf.h"
#include "hash.h"
#include "store.h"

/* What the command line says after the command. */
struct arguments {
	const char *word[3];		/* USER NAME, USER FINGERPRINT, or FORMAT FILE */
	struct account account;		/* --maildrop, --uid */
	bool account_given, uid_given;
	struct hash_cost cost;		/* --opslimit, --memlimit */
	uint64_t iterations;		/* --iterations, of SCRAM */
	const char *expires, *from;	/* --expires, --from */
	bool no_delete;			/* --no-delete */
	bool replace;			/* --replace */
};

int command_add(const struct conf *c, const struct arguments *a);
int command_passwd(const struct conf *c, const struct arguments *a);
int command_del(const struct conf *c, const struct arguments *a);
int command_lock(const struct conf *c, const struct arguments *a);
int command_unlock(const struct conf *c, const struct arguments *a);
int command_list(const struct conf *c, const struct arguments *a);
int command_app_add(const struct conf *c, const struct arguments *a);
int command_app_list(const struct conf *c, const struct arguments *a);
int command_app_del(const struct conf *c, const struct arguments *a);
int command_cert_add(const struct conf *c, const struct arguments *a);
int command_cert_list(const struct conf *c, const struct arguments *a);
int command_cert_del(const struct conf *c, const struct arguments *a);
int command_secret(const struct conf *c, const struct arguments *a);
int command_import(const struct conf *c, const struct arguments *a);
int command_test(const struct conf *c, const struct arguments *a);

/* "authctl: ..." on the standard error; returns 1. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for a failed change: names the file and errno. */
int complain_store(const struct conf *c);

/*
 * Opens the store for a change of one user who must be there: 0 with e begun, *u and *account his; or 1 after saying why,
 * and e closed.
 */
int begin_user(const struct conf *c, const char *name, struct store_edit *e, struct store_user *u, struct account *account);
/* Puts him back and commits. 0, or 1 after saying why; e is closed. */
int finish_user(const struct conf *c, const char *name, struct store_edit *e, const struct store_user *u,
    const struct account *account);
/* A reader's look at one: 1 there, 0 not, -1 after saying why. */
int look(const struct conf *c, const char *name, struct store_user *u, struct account *a);
/* Sees to it that unknown users cost what the users that are made now cost. 0, or -1 with errno. */
int update_meta(struct store_edit *e, const struct arguments *a);

/* Who may read what authctl writes: the group of [authd] user when root; else -1, the process's own. */
gid_t store_group(const struct conf *c);

/*
 * A password, into guarded memory that the caller gives to sodium_free: from the terminal, without echo and, if `twice`,
 * a second time to be sure; if the standard input is no terminal, its first line. NULL after saying why. `what` is
 * "Password for demo".
 */
char *password_read(const char *what, bool twice);

#endif
