/*
 * The keeper: the only process that has the TLS private keys. It hands the certificate chains to whoever pop3d is, and
 * answers SIGN: one signature a conversation, out of a closed list (sign.h). It reads no file and reaches nobody.
 */
#ifndef POSTERN_AUTHD_KEEPER_H
#define POSTERN_AUTHD_KEEPER_H

#include <sys/types.h>

#include "conf.h"
#include "keys.h"

/*
 * `listener` is keeper.sock, `control` the channel to the parent, which gets KEPT; when that is closed the keeper
 * accepts nobody any more, serves out those it has, and ends. `pop3d` is the uid whose processes may ask. The caller
 * has given up root; this confines itself, then never returns.
 */
_Noreturn void keeper_run(const struct conf *c, const struct keys *k, int listener, int control, uid_t pop3d);

#endif
