#include "check.h"

#include <stdio.h>

#include "uidl.h"

bool
check_conf(const struct conf *c, char *text, size_t size)
{
	const char *wrong = uidl_check(c->uidl_format);
	unsigned line = conf_line(c, "spoold", "uidl-format");
	char place[16] = "";

	if (line > 0)
		snprintf(place, sizeof place, "%u:", line);
	if (wrong != NULL)
		snprintf(text, size, "%s:%s [spoold] uidl-format: \"%.200s\": %s", c->file, place, c->uidl_format, wrong);
	return wrong == NULL;
}
