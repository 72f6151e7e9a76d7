/*
 * What a worker asks of spoold's parent and of its locker, one function a question. All of them block until the answer is there; a
 * parent that is gone ends the process.
 */
#ifndef POSTERN_SPOOLD_ASK_H
#define POSTERN_SPOOLD_ASK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "grant.h"

/* The parent's socket; once, before any question. */
void ask_open(int fd);

void ask_resolved(const struct grant *g);
void ask_maildrop(const char *path, uint32_t kind);

/* I have the lock of this file, which was made at `born` (0: not known). What an earlier UPDATE has left of a journal: enum journal_left. */
uint32_t ask_claim(dev_t device, ino_t inode, int64_t born);
/* Somebody else has. Returns whether it was told to end (try again); *since is 0 if not known. */
bool ask_since(dev_t device, ino_t inode, int64_t *since);

/* For the parent's counters. Waits for nothing. */
void ask_measured(uint32_t what, uint32_t result, int64_t milliseconds, uint64_t count, uint64_t more);
/* The session is over and nothing of it is open; `kept` octets remember the maildrop. No answer but the next session. */
void ask_idle(uint64_t kept);
/* The same, and what has not been measured yet: what the client was sent, and, if `opened`, how long it took to open. */
void ask_left(uint64_t kept, const struct body_leave *spent, bool opened, int64_t opened_ms);

/* 0 or an errno. */
int ask_privileged(uint32_t what);
/* A file, or -1 with errno. */
int ask_file(uint32_t what);

/* The locker's socket (locker.h): from now on what is beside the mbox is had of it. */
void ask_locker(int fd);
bool ask_has_locker(void);
/* Of the locker: 0 or an errno, EACCES if there is none; a file, or -1 with errno. */
int ask_beside(uint32_t what);
int ask_beside_file(uint32_t what);
/* The session is over: it need not keep the directory. It is not woken for that if it has not been asked for anything. */
void ask_beside_over(void);
/* Asked at the end of this process, which waits for no answer. */
void ask_beside_last(uint32_t what);

#endif
