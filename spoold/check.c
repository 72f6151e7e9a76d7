#include "check.h"

#include <stdio.h>

#include "uidl.h"

bool
check_conf(const struct conf *c, char *text, size_t size)
{
	const char *wrong = uidl_check(c->uidl_format);
	char place[CONF_PLACE];

	if (wrong != NULL)
		snprintf(text, size, "%s: \"%.200s\": %s", conf_place(c, "spoold", "uidl-format", place, sizeof place), c->uidl_format, wrong);
	return wrong == NULL;
}
