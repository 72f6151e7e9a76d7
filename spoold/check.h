/* What postern.conf may say and spoold cannot do. */
#ifndef POSTERN_SPOOLD_CHECK_H
#define POSTERN_SPOOLD_CHECK_H

#include <stdbool.h>
#include <stddef.h>

#include "conf.h"

/* Is it something that spoold can do? If not, `text` says what is wrong, with file, section and key. */
bool check_conf(const struct conf *c, char *text, size_t size);

#endif
