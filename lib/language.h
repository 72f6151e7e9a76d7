/*
 * The languages in which a program speaks to users (and not to logs, which stay English). Texts are English in the sources; po/fr.po has
 * their French, in UTF-8, and is made a table when the suite is built (po/texts.awk): nothing is read when it runs.
 */
#ifndef POSTERN_LANGUAGE_H
#define POSTERN_LANGUAGE_H

#include <stddef.h>

enum language { LANGUAGE_ENGLISH, LANGUAGE_FRENCH, LANGUAGE_COUNT };

/* "en"; and the language's own name for itself, in UTF-8. */
const char *language_tag(enum language l);
const char *language_name(enum language l);

/*
 * The language that a range means ("fr", "fr-CA", "FR"; RFC 4647 section 3.4); LANGUAGE_COUNT: none. "i-default" is English.
 */
enum language language_find(const char *range);

/* The text in that language, with the same conversions of printf(3) in the same order; the English one if it has no other. */
const char *language_text(enum language l, const char *english) __attribute__((format_arg(2)));

#endif
