/* What spoold's parent counts, for spoolctl metrics. Nothing is decided by it. */
#ifndef POSTERN_SPOOLD_FIGURES_H
#define POSTERN_SPOOLD_FIGURES_H

#include <stdbool.h>

#include "messages.h"

extern struct body_spool_figures figures;

void figures_start(void);

/* A worker says so of itself. */
void figures_measured(const struct body_measured *m);

/* A user's session is over, `milliseconds` after it was asked for. */
void figures_ended(int64_t milliseconds);

/*
 * A worker was given, or has given up, what enum privileged says; *found is the session's, false at first: there was
 * a journal of an earlier UPDATE. With PRIVILEGED_COUNT the worker is gone.
 */
void figures_privileged(bool *found, uint32_t what, bool done);

#endif
