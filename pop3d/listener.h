/* Wait mode: accepting connections and handing each to a process of its own, forked ahead of need. */
#ifndef POP3D_LISTENER_H
#define POP3D_LISTENER_H

#include <stdbool.h>

#include "conf.h"
#include "messages.h"

#define LISTENERS 32

struct listener {
	int fd;
	bool implicit_tls;
	/* listener_run fills in: */
	char address[ADDRESS_SIZE];
	uint32_t port;
	bool any;		/* all of the host's addresses: which it was must be asked of each connection */
};

/* A listening socket for "ADDRESS:PORT" ("[::]:110", "127.0.0.1:0", "*:110"), logged. NULL, or what is wrong. */
const char *listener_bind(struct listener *l, const char *where, bool implicit_tls);

/* Serves until SIGTERM; returns the exit status. Reloads the configuration on SIGHUP. */
int listener_run(struct conf *c, struct listener *listeners, unsigned count);

#endif
