/*
 * The cells: what each kind of process may still do once it holds what it needs. One table, side by side, in sandbox.c.
 */
#ifndef POSTERN_SANDBOX_H
#define POSTERN_SANDBOX_H

#include <stddef.h>

#include "conf.h"

enum cell {
	CELL_LISTENER,		/* pop3d that accepts and forks */
	CELL_POP3D,		/* pop3d with one connection */
	CELL_SESSION,		/* the same after login: narrower */
	CELL_AUTHD,		/* authd's parent */
	CELL_VERIFIER,
	CELL_HASHER,
	CELL_KEEPER,
	CELL_PAM,		/* the process that forks PAM's children; they run modules we do not know and have no list */
	CELL_SPOOLD,		/* spoold's parent */
	CELL_WORKER,
	CELL_COUNT
};

enum sandbox_right { SANDBOX_READ = 1, SANDBOX_WRITE = 2 };	/* WRITE: make, change, rename and remove too */

/* What a cell may still reach by path (Landlock); a directory means all beneath it. */
struct sandbox_path {
	const char *path;
	int rights;
};

/*
 * Prepares the filter of a cell, so that children forked later enter it without building it again. May be left out.
 * -1 if it cannot be made (logged).
 */
int sandbox_prepare(enum cell cell);

/*
 * Enters: resource limits, Landlock, no_new_privs, seccomp. Call it last, after all that the process needs is open. With sandbox = required what the kernel cannot
 * do is fatal; with best-effort it is logged once at start; with off nothing is done. A forbidden call kills the process (the
 * variable POSTERN_SANDBOX_TRAP of a test build prints its name first).
 */
void sandbox_enter(enum cell cell, const struct conf *c, const struct sandbox_path *paths, size_t count);

/* Can this kernel do all that `required` asks? Logs what it cannot, once, at start; fatal if the mode is required. */
void sandbox_check(const struct conf *c);

#endif
