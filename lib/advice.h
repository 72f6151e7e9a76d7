/*
 * What a configuration allows and a careful administrator would not. One place for all programs: each says so with -t, and
 * spoolctl doctor too.
 */
#ifndef POSTERN_ADVICE_H
#define POSTERN_ADVICE_H

#include "conf.h"

struct advice {
	const struct conf *conf;
	/* One line: "FILE:LINE: [section] key: warning: why". */
	void (*say)(const char *text, void *data);
	void *data;
};

/* Looks at files that the configuration names, which may not be there or readable; that is not a mistake here. */
void advice_give(const struct advice *a);

/* The same for accounts, by the name service: not for pop3d, which has none. */
void advice_accounts(const struct advice *a);

void advice_warn(const struct advice *a, const char *section, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
