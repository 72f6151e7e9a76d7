/*
 * What a configuration allows and a careful administrator would not, and what cannot work on this host. One place for all
 * programs: each says so with -t, and spoolctl doctor too.
 */
#ifndef POSTERN_ADVICE_H
#define POSTERN_ADVICE_H

#include "conf.h"

struct advice {
	const struct conf *conf;
	/* One line: "FILE:LINE: [section] key: warning: why"; or without that word, what makes -t fail. */
	void (*say)(const char *text, bool mistake, void *data);
	void *data;
};

/* Looks at files that the configuration names, which may not be there or readable; that is not a mistake here. */
void advice_give(const struct advice *a);

/*
 * The same for accounts, by the name service: not for pop3d, which has none. As root: the daemons' own accounts, unless they are
 * the installation's and still to be made; and always virtual-user.
 */
void advice_accounts(const struct advice *a);
void advice_virtual_user(const struct advice *a);
/* As root: the installation's accounts, where they are missing. */
void advice_installed(const struct advice *a);

void advice_warn(const struct advice *a, const char *section, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void advice_wrong(const struct advice *a, const char *section, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
