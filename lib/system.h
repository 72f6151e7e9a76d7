/* What the suite asks of the system in the same way in more than one program: sockets, start-up, numbers. */
#ifndef POSTERN_SYSTEM_H
#define POSTERN_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "conf.h"

/* The command line that all daemons share: -c FILE, -t, -V, -h, and what `more` adds (getopt's form). */
struct options {
	const char *config;	/* -c, or the default */
	bool config_given;
	bool test;		/* -t */
};

/*
 * Parses -c -t -V -h and hands every other option of `more` to `on_option` (which returns NULL, or what is wrong). With a + at its start it stops at
 * the first word, from optind on, which is the caller's; without, and with -t, a word is a mistake. Prints usage and exits 2 on a mistake, exits 0 after -V and -h. Loads the configuration into *c: on an error prints it and exits 1; with -t prints "FILE: ok" and exits 0.
 */
void options_parse(int argc, char **argv, const char *usage, const char *more,
    const char *(*on_option)(int option, const char *argument), struct options *o, struct conf *c);

/* What -t is to advise besides. Before options_parse. */
struct advice;
void options_on_advice(void (*more)(const struct advice *a));

/* What -t is to check besides: `check` says on standard error what is wrong, and is false after a mistake. Before options_parse. */
void options_on_test(bool (*check)(const struct conf *c));

/*
 * A listening SOCK_SEQPACKET socket at `path`, close-on-exec and non-blocking. A socket left by a process that is gone is replaced;
 * one that is served is EADDRINUSE. -1 with errno.
 */
int unix_listen(const char *path, mode_t mode, int backlog);
/* Connected to `path`, close-on-exec. -1 with errno. */
int unix_connect(const char *path);
/* Accepts, close-on-exec and non-blocking; *uid and *pid are the peer's as the kernel knows them. -1 with errno. */
int unix_accept(int fd, uid_t *uid, pid_t *pid);

/*
 * Sockets passed by systemd (LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES): how many, from descriptor 3; made close-on-exec, and the
 * variables are removed. `names` (may be NULL) gets a copy of LISTEN_FDNAMES or "". 0 if there are none.
 */
int activation_sockets(char *names, size_t size);

/* Tells a service manager (NOTIFY_SOCKET): "READY=1", "STOPPING=1". Nothing happens without one. */
void notify_manager(const char *message);
/* Opens already what it needs for that, for one who may make no socket later. */
void notify_prepare(void);

/*
 * The service manager's watchdog (WATCHDOG_USEC and WATCHDOG_PID): tells it "WATCHDOG=1" when half of its time has passed since the last call that did.
 * Called in each turn of a parent's loop; the milliseconds until the next one is due, -1 if nobody watches: fit for poll(2).
 */
int watchdog_feed(void);

/* Makes sure that descriptors 0, 1 and 2 are open (/dev/null), and closes all from `first` on. */
void descriptors_sane(void);
void descriptors_close_from(int first);

/* 16 random hex digits. */
void session_id(char id[static SESSION_ID_SIZE]);

/* Milliseconds of CLOCK_MONOTONIC. */
int64_t clock_ms(void);

/*
 * The one parser of numbers from outside: decimal digits only, no sign, no blanks, from min to max. NULL and *value, or the reason ("not a
 * number", "too small", "too large").
 */
const char *number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *value);

/* Copies with an end always; false if it did not fit (then `to` holds what did). */
bool string_copy(char *to, size_t size, const char *from);

/* Is this numeric address (as getnameinfo prints it) 127/8, ::1 or ::ffff:127/104? */
bool address_is_loopback(const char *address);

/* The numeric address and port of a socket address; "" and 0 for one that is not Internet. */
struct sockaddr;
void address_of(const struct sockaddr *sa, char address[static ADDRESS_SIZE], uint32_t *port);

/* Sorts what has been freed. Before a fork: else the child's first allocation does, and faults in a page for every piece. */
void heap_tidy(void);

/*
 * Zeroed memory that children do not get: it is not copied, and neither side pays for pages that the other changes. For
 * what is kept as long as the process runs. NULL with errno.
 */
void *memory_unforked(size_t size);

/* Forks; in the child the parent's death is a SIGTERM, signal handlers and mask are reset. `name` shows in ps(1). -1 with errno. */
pid_t fork_named(const char *name);

/* Sets what ps(1) shows as the process's name (15 characters). */
void process_name(const char *name);

/*
 * From here to processor_leave() this process stays on the processor on which it is: one that has run nowhere else has nothing to be flushed there when its memory
 * goes, for which processors wait for each other. Only for what is short. Nothing happens where there is but one.
 */
void processor_stay(void);
/* Runs wherever it might before, if it stayed. */
void processor_leave(void);

#endif
