/*
 * What authd counts, for spoolctl metrics: in memory that outlives a verifier (shared.h). Nothing is decided by it. The
 * verifier answers root, and whoever runs authd as well, on authd.ctl.
 */
#ifndef POSTERN_AUTHD_FIGURES_H
#define POSTERN_AUTHD_FIGURES_H

#include "conf.h"
#include "messages.h"

/* The parent's, before the first fork. */
void figures_make(void);

/* The verifier's: serves the socket `listener`, which it makes its own. -1 with errno. */
int figures_serve(const struct conf *c, int listener);
/* Another verifier serves it from now on. */
void figures_retire(void);

/* An attempt was answered; `denial` is DENIED_COUNT if it was granted. */
void figures_login(uint32_t mechanism, uint32_t denial, int64_t milliseconds);
/* One was not tried. */
void figures_throttled(void);

/* A connection has come. */
void figures_connection(void);
/* One is over that has not logged in; had it `tried`? */
void figures_unused(bool tried);

#endif
