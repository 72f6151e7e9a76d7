/*
 * The cells: what each kind of process may still do once it holds what it needs. One table, side by side, in sandbox.c.
 */
#ifndef POSTERN_SANDBOX_H
#define POSTERN_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "conf.h"

enum cell {
	CELL_LISTENER,		/* pop3d that accepts and forks */
	CELL_POP3D,		/* pop3d with one connection */
	CELL_SESSION,		/* the same after login: narrower */
	CELL_AUTHD,		/* authd's parent */
	CELL_VERIFIER,
	CELL_HASHER,
	CELL_KEEPER,
	CELL_PAM,		/* what forks PAM's children, and they: they run modules we do not know. Not confined to a list, but kept from one */
	CELL_SPOOLD,		/* spoold's parent */
	CELL_WORKER,
	CELL_LOCKER,		/* a worker's, in the directory of its mbox */
	CELL_COUNT
};

/* WRITE: make, change, rename and remove too. SOCKET: make and remove sockets. */
enum sandbox_right { SANDBOX_READ = 1, SANDBOX_WRITE = 2, SANDBOX_SOCKET = 4 };

/* What a cell may still reach by path (Landlock); a directory means all beneath it. */
struct sandbox_path {
	const char *path;	/* NULL: what fd is open on, which nobody can put something else in place of */
	int rights;
	int fd;
};

/*
 * Prepares the filter of a cell, so that children forked later enter it without building it again. May be left out.
 * -1 if it cannot be made (logged).
 */
int sandbox_prepare(enum cell cell);

/*
 * Root's, before it is given up, of a process that will open nothing more: run-dir/empty is its root directory from now on. Does nothing for others.
 */
void sandbox_empty_root(const struct conf *c);

/*
 * A system call of the listener's that its children may not make, errno and -1 as libc's has it. The listener's filter lets these pass only with a
 * random number in their sixth argument, which none of them has; and the page with that number is empty in every process that it forks
 * (MADV_WIPEONFORK). So its children inherit a filter that is theirs from their first instruction on, and none has to be loaded for a connection.
 * Anywhere else it is an ordinary system call.
 */
long sandbox_call(long number, long a, long b, long c, long d, long e);

/* fork(2) by such a call: nothing of libc's is told. The child is to call sandbox_enter(CELL_POP3D). -1 with errno. */
pid_t sandbox_fork(const struct conf *c);

/*
 * Enters: resource limits, capabilities, no_new_privs, Landlock, seccomp. Call it last, after all that the process needs is open and root is given up. With
 * sandbox = required what the kernel cannot do is fatal; with best-effort it is logged once at start; with off only core dumps and ptrace(2) are
 * prevented. A forbidden call kills the process; one that is built with -DSANDBOX_TRAP says first which it was.
 */
void sandbox_enter(enum cell cell, const struct conf *c, const struct sandbox_path *paths, size_t count);

/* Can this kernel do all that `required` asks? Logs what it cannot, once, at start; fatal if the mode is required. */
void sandbox_check(const struct conf *c);

/* After sandbox_check: is this program confined, and without anything missing? */
bool sandbox_whole(const struct conf *c);

#endif
