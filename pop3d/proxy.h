/*
 * The PROXY protocol, versions 1 and 2, from proxies that the configuration names: who the client behind them is. The text of the protocol is HAProxy's
 * doc/proxy-protocol.txt.
 */
#ifndef POP3D_PROXY_H
#define POP3D_PROXY_H

#include <stddef.h>
#include <stdint.h>

#include "messages.h"
#include "stream.h"

#define PROXY_MAX 1024	/* octets of a header, its TLVs included; a longer one is malformed here */

struct proxy {
	char client[ADDRESS_SIZE], local[ADDRESS_SIZE];	/* empty: a connection of the proxy's own (LOCAL, UNKNOWN) */
	uint32_t client_port, local_port;
};

enum proxy_result { PROXY_OK, PROXY_MORE, PROXY_BAD };

/*
 * Parses the first `length` octets of a connection. PROXY_MORE: so many further octets (*more, at least 1) are certainly of the header. Never
 * asks for an octet that follows it.
 */
enum proxy_result proxy_parse(const unsigned char *data, size_t length, struct proxy *p, size_t *more);

/* Reads the header off the connection and not an octet more. NULL, or why there is none. */
const char *proxy_read(struct stream *s, struct proxy *p);

#endif
