#include "language.h"

#include <string.h>
#include <strings.h>

static const struct {
	const char *tag, *name;
} languages[LANGUAGE_COUNT] = {
	[LANGUAGE_ENGLISH] = { "en", "English" },
	[LANGUAGE_FRENCH] = { "fr", "Fran\303\247ais" },
};

static const struct text {
	const char *english, *other;
} french[] = {
#include <texts_fr.h>
};

const char *
language_tag(enum language l)
{
	return languages[l].tag;
}

const char *
language_name(enum language l)
{
	return languages[l].name;
}

enum language
language_find(const char *range)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	size_t n = strspn(range, letters);

	if (strcasecmp(range, "i-default") == 0)
		return LANGUAGE_ENGLISH;
	for (const char *part = range + n; *part != '\0'; part += 1 + strspn(part + 1, letters))
		if (*part != '-')
			return LANGUAGE_COUNT;
	for (int l = 0; l < LANGUAGE_COUNT; l++)
		if (strlen(languages[l].tag) == n && strncasecmp(languages[l].tag, range, n) == 0)
			return (enum language)l;
	return LANGUAGE_COUNT;
}

const char *
language_text(enum language l, const char *english)
{
	if (l == LANGUAGE_FRENCH)
		for (size_t i = 0; i < sizeof french / sizeof french[0]; i++)
			if (strcmp(french[i].english, english) == 0)
				return french[i].other;
	return english;
}
