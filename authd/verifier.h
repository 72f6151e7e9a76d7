/* The verifier: one process, one loop, that talks to pop3d, hashers, PAM and spoold, and waits for none of them. */
#ifndef POSTERN_AUTHD_VERIFIER_H
#define POSTERN_AUTHD_VERIFIER_H

#include "conf.h"

/*
 * `listener` is authd.sock, `tools` authd.ctl, `control` the channel to the parent; pop3d is the uid whose processes may ask. Confines
 * itself, then never returns.
 */
_Noreturn void verifier_run(const struct conf *c, int listener, int tools, int control, uid_t pop3d);

#endif
