/* The verifier: one process, one loop, that talks to pop3d, hashers, PAM and spoold, and waits for none of them. */
#ifndef POSTERN_AUTHD_VERIFIER_H
#define POSTERN_AUTHD_VERIFIER_H

#include "conf.h"

/*
 * `listen_fd` is authd.sock, `tools_fd` authd.ctl, `control_fd` the channel to the parent; pop3d is the uid whose processes may ask. Confines
 * itself, then never returns.
 */
_Noreturn void verifier_run(const struct conf *c, int listen_fd, int tools_fd, int control_fd, uid_t pop3d);

#endif
