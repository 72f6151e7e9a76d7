/* authctl: a function a command. Each returns the exit status: 0 done, 1 not (it has said why), 2 used wrongly. */
#ifndef POSTERN_AUTHD_AUTHCTL_H
#define POSTERN_AUTHD_AUTHCTL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "conf.h"
#include "hash.h"
#include "print.h"
#include "store.h"

/* What the command line says after the command. */
struct arguments {
	const char *word[3];		/* USER NAME, USER FINGERPRINT, or FORMAT FILE; USER as authd takes it */
	const char *typed;		/* word[0] as it was typed */
	struct account account;		/* --maildrop, --uid, --server-copy */
	bool account_given, uid_given, copy_given;
	struct hash_cost cost;		/* --opslimit, --memlimit */
	uint64_t iterations;		/* --iterations, of SCRAM */
	const char *expires, *from;	/* --expires, --from */
	bool no_delete;			/* --no-delete */
	bool replace;			/* --replace */
	bool json;			/* --json */
	/* client-config */
	const char *server, *domain, *smtp_server;
	uint64_t port;			/* 0: the usual one */
	bool starttls, autoconfig, mobileconfig, dns;
};

int command_add(const struct conf *c, const struct arguments *a);
int command_set(const struct conf *c, const struct arguments *a);
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
int command_client_config(const struct conf *c, const struct arguments *a);
int command_secret(const struct conf *c, const struct arguments *a);
int command_import(const struct conf *c, const struct arguments *a);
int command_test(const struct conf *c, const struct arguments *a);

#define TIME_TEXT	32
/* Seconds since 1970 as "2026-11-22T16:40Z"; NULL for 0. */
const char *time_text(char text[static TIME_TEXT], int64_t when);
void json_time(struct json *j, const char *key, int64_t when);	/* 0: null */

/* How far long work has come: on the standard error, if that is a terminal, five times a second. Begin with { 0 }. */
struct progress {
	int64_t shown;		/* when; 0: not yet; -1: nobody looks */
};
/* `of`: octets of the whole file; 0 if that is not known. */
void progress_show(struct progress *p, unsigned long done, int64_t octets, int64_t of);
/* What takes the line's place, "" for nothing; if there was one. */
void progress_say(const struct progress *p, const char *what);

/* Complains of a failed change: names the file and errno. */
int complain_store(const struct conf *c);
/* The same where nothing was to be changed. */
int complain_look(const struct conf *c);

/*
 * Opens the store for a change of one user who must be there: 0 with e begun, *u and *account his; or 1 after saying why,
 * and e closed.
 */
int begin_user(const struct conf *c, const char *name, struct store_edit *e, struct store_user *u, struct account *account);
/* Puts him back and commits. 0, or 1 after saying why; e is closed. */
int finish_user(const struct conf *c, const char *name, struct store_edit *e, const struct store_user *u,
    const struct account *account);
/* Can this password not be set? NULL, or what it has. */
const char *password_refused(const char *password);
/* Says for whom it will not work, if there are such. */
#define PASS_MOST	248	/* of a line of 255 with the command and its end (RFC 2449) */
void password_note(const char *who, const char *password);
/* Makes everything of a password: the slow hash and the SCRAM verifier. 0, or -1: NO_MEMORY. */
#define NO_MEMORY	"not enough memory (--memlimit)"
int set_password(struct store_user *u, const char *password, const struct arguments *a);
/* A reader's look at one: 1 there, 0 not, -1 after saying why. */
int look(const struct conf *c, const char *name, struct store_user *u, struct account *a);
/* Sees to it that unknown users cost what the users that are made now cost. 0, or -1 with errno. */
int update_meta(struct store_edit *e, const struct arguments *a);

/* Who may read what authctl writes: the group of [authd] user when root and the store is root's; else -1, the owner's own. */
gid_t store_group(const struct conf *c);

/*
 * A password, into guarded memory that the caller gives to sodium_free: from the terminal, without echo and, if `twice`,
 * a second time to be sure; if the standard input is no terminal, its first line. NULL after saying why. `what` is
 * "Password for demo".
 */
char *password_read(const char *what, bool twice);

#endif
