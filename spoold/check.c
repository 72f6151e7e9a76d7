#include "check.h"

#include <stdio.h>

#include "uidl.h"

bool
check_conf(const struct conf *c, char *text, size_t size)
{
	const char *wrong = uidl_check(c->uidl_format), *key = "uidl-format";

	if (wrong == NULL && c->server_copy == COPY_MARK_READ && c->store == STORE_MBOX) {
		key = "server-copy";
		wrong = "an mbox has no mark that could be set without moving mail; accepted with store = mbox: as-client-says, keep, "
		    "archive, delete";
	}
	if (wrong != NULL)
		snprintf(text, size, "%s: [spoold] %s: %s", c->file, key, wrong);
	return wrong == NULL;
}
