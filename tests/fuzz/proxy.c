/*
 * The PROXY header.
 * links: pop3d/proxy.c pop3d/stream.c pop3d/tls.c pop3d/credentials.c lib/system.c lib/log.c lib/conf.c lib/messages.c lib/catalogue.c lib/chains.c
 * libs: -lgnutls
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../pop3d/ask.h"
#include "../../pop3d/proxy.h"

/* Nothing is connected to. */
int ask_reach(const struct conf *c, const char *name) { (void)c; (void)name; return -1; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy p;
	size_t more, have = 1;

	while (have <= size && proxy_parse(data, have, &p, &more) == PROXY_MORE) {
		if (more == 0)
			abort();
		have += more;
	}
	if (memchr(p.client, '\0', sizeof p.client) == NULL || memchr(p.local, '\0', sizeof p.local) == NULL)
		abort();
	return 0;
}
