/* A worker that only looks, for spoolctl show: takes no lock, finishes nothing, writes nothing. */
#ifndef POSTERN_SPOOLD_LOOK_H
#define POSTERN_SPOOLD_LOOK_H

#include "worker.h"

/* All of its life, from root to its end. Says SHOWN on j->session. */
_Noreturn void look_run(const struct conf *c, const struct job *j);

#endif
