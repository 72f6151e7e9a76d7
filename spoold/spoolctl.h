/* spoolctl: what its files share. */
#ifndef POSTERN_SPOOLD_SPOOLCTL_H
#define POSTERN_SPOOLD_SPOOLCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "catalogue.h"
#include "conf.h"
#include "messages.h"
#include "print.h"

/* A command's words and options. */
struct arguments {
	char **word;			/* those after the command */
	int words;
	bool json;			/* --json */
	bool watch;			/* -w */
	bool http;			/* --http */
	const char *output;		/* --output; NULL: standard output */
	const char *connect;		/* --connect; NULL: where pop3d is found to listen */
};

/* Each returns the exit status. */
int command_who(const struct conf *c, const struct arguments *a);
int command_end(const struct conf *c, const struct arguments *a);
int command_show(const struct conf *c, const struct arguments *a);
int command_expire(const struct conf *c, const struct arguments *a);
int command_rebuild(const struct conf *c, const struct arguments *a);
int command_recover(const struct conf *c, const struct arguments *a);
int command_uidl_diff(const struct conf *c, const struct arguments *a);
int command_metrics(const struct conf *c, const struct arguments *a);
int command_doctor(const struct conf *c, const struct arguments *a);
/* The configuration cannot even be read. */
int doctor_cannot_begin(const char *error, bool json);

/* ctl_talk.c: the control sockets. */

/* A conversation on run-dir/NAME; -1 with errno. */
int talk_connect(const struct conf *c, const char *name);
/* Puts a question to spoold in a conversation of its own, which is the caller's to close. Ends the program if that cannot be. */
int talk_ask(const struct conf *c, uint32_t command, const char *argument);
/* The same, but -1 with errno (E2BIG: too long an argument). */
int talk_try(const struct conf *c, uint32_t command, const char *argument);
/* spoold's next message. Ends the program if there is none. */
void talk_answer(int control, struct message *m);
/* All sessions that there are, the caller's to free; NULL with errno. */
struct body_spool_session *talk_sessions(const struct conf *c, size_t *count);

/* ctl_print.c: values on a terminal and in JSON. */

/* "2026-01-31T12:00:00+0100"; "-" for 0. */
const char *print_time(int64_t when, char *text, size_t size);
#define TIME_SIZE 40
/* null for 0. */
void json_time(struct json *j, const char *key, int64_t when);
void json_session(struct json *j, const char *key, const struct body_spool_session *s);

/* "3 of 40", on a terminal alone; done == total wipes it. */
void progress_show(const char *what, uint32_t done, uint32_t total);

/* ctl_look.c: what there is of a user's maildrop. */

/* Asks spoold to look. 0, or -1 with errno; what it found is in *s. */
int look_at(const struct conf *c, const char *user, struct body_shown *s);
const char *failure_text(uint32_t failure);

/* A lock that the kernel has on a file. */
struct held {
	char kind[16];			/* FLOCK, POSIX, OFDLCK */
	char access[8];			/* READ, WRITE */
	uint32_t pid;			/* 0: of another pid namespace, or nobody's own (OFDLCK) */
	char command[32];		/* of that process; "" if it is not known */
};
/* At most `most` of those on this inode. Returns how many. */
size_t locks_of(uint64_t device, uint64_t inode, struct held *locks, size_t most);
/* The name of a process, "" if there is none. */
void process_command(uint32_t pid, char *text, size_t size);

/* ctl_certificate.c: the certificates that are served, or would be. */
struct certificate {
	char file[CONF_STRING];		/* empty: the keeper told it */
	char names[512];		/* subjectAltName's DNS names, or the common name; blanks between */
	char serial[48];		/* hexadecimal */
	int64_t begins, expires;
	void *crt;			/* gnutls_x509_crt_t; the caller's to give to certificate_free */
};
/* Those that authd's keeper serves now. Returns how many, -1 with errno if it cannot be asked. */
int certificates_served(const struct conf *c, struct certificate *list, size_t most);
void certificates_free(struct certificate *list, size_t count);
/* From one that gnutls has read. */
void certificate_describe(struct certificate *list);

#endif
