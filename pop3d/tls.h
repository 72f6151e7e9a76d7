/*
 * TLS of the connection, by GnuTLS. The certificate chains come from authd's keeper (credentials.h), and so does the
 * one signature of a handshake: no private key is ever in this process, nor any file opened here. No session is
 * resumed: the keys of tickets would have to rest in a process that reads the network.
 */
#ifndef POP3D_TLS_H
#define POP3D_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "messages.h"

/* A connection's TLS. There is one a process. */
struct tls;

/*
 * Begins TLS on the descriptors; the keeper's conversation is for this handshake and stays the caller's. `deadline` is
 * clock_ms() by which the keeper must have signed. NULL if that cannot be (logged).
 */
struct tls *tls_begin(int in, int out, int keeper, int64_t deadline);

/*
 * As read(2) and write(2) on a non-blocking descriptor; after EAGAIN *events is what to poll for: POLLIN on in or
 * POLLOUT on out. tls_write writes one record at most; `more`: at once more follows it.
 */
ssize_t tls_read(struct tls *t, void *buffer, size_t size, short *events);
ssize_t tls_write(struct tls *t, const void *data, size_t length, bool more, short *events);

/* Is input at hand that poll(2) does not know of? */
bool tls_has_input(const struct tls *t);

/*
 * 0 when the handshake is done; else -1 with errno: EAGAIN as above, EINTR, or it has failed: ECONNRESET, or EPROTO
 * after an alert (tls_failure says why).
 */
int tls_handshake(struct tls *t, short *events);
const char *tls_failure(const struct tls *t);

/* After the handshake: the version, the channel binding and the client's certificate, for HELLO. */
void tls_hello(struct tls *t, struct body_hello *hello);

/* Says that nothing more follows (close-notify), without waiting. */
void tls_end(struct tls *t);

#endif
