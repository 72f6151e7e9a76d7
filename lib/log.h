/*
 * Log lines, in key=value form. Every line that leaves the suite is made here: a value that is not made only of safe
 * characters is quoted, and whatever in it is not printable ASCII, a quote or a backslash becomes \xHH, so that nothing that a
 * client sent can forge a line or a key. At most 1,000 octets a line; what is longer is cut, and ends in "...".
 *
 *	postern-pop3d[123]: s=0011223344556677 event=login result=ok user=demo
 */
#ifndef POSTERN_LOG_H
#define POSTERN_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

#include "conf.h"

/* Before the configuration is known: to stderr, level info. `program` must stay; "pop3d". */
void log_start(const char *program);

/*
 * As the configuration says. Opens /dev/log now, so that it works in the sandbox. `never` is a descriptor (or -1) that
 * belongs to the client: if stderr is the same socket (inetd), nothing is ever written there.
 */
void log_open(const struct conf *c, int never);

/* Another log-level, from now on. */
void log_level(int level);

/* What lines are written to besides standard error, for one who closes all that is open; -1: nothing. */
int log_descriptor(void);

/* The session id that every line of this process carries from now on; NULL for none. Copied. */
void log_session(const char *id);

/* One line: log_begin, any number of keys, log_end. Not reentrant; not for signal handlers. `level` is syslog's LOG_ERR and so on. */
void log_begin(int level, const char *event);
void log_string(const char *key, const char *value);
void log_bytes(const char *key, const void *value, size_t length);
void log_number(const char *key, uint64_t value);
void log_end(void);

/* For the administrator: event=note text="...". */
void log_text(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same at LOG_ERR, then exits with status 1. Before "ready", or in a process that has one session only. */
_Noreturn void fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));

bool log_wants(int level);

#endif
