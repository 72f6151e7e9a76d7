#include "password.h"

#include <gsasl.h>
#include <sodium.h>
#include <string.h>

#include "system.h"

bool
password_is_prepared(const char *text)
{
	const unsigned char *at = (const unsigned char *)text;

	while (*at >= ' ' && *at < 0x7f)
		at++;
	return *at == '\0';
}

/* SASLprep with these flags. False, and nothing in `to`, if there is no such form, or none that fits. */
static bool
prepare(char *to, size_t size, const char *from, Gsasl_saslprep_flags flags)
{
	char *prepared = NULL;
	bool done = gsasl_saslprep(from, flags, &prepared, NULL) == GSASL_OK && prepared[0] != '\0' && string_copy(to, size, prepared);

	if (prepared != NULL)
		sodium_memzero(prepared, strlen(prepared));
	gsasl_free(prepared);
	return done;
}

bool
password_has_form(const char *text)
{
	char *scratch = sodium_malloc(PASSWORD_SIZE);
	bool has = password_is_prepared(text) || scratch == NULL || (prepare(scratch, PASSWORD_SIZE, text, 0) &&
	    prepare(scratch, PASSWORD_SIZE, text, GSASL_ALLOW_UNASSIGNED));

	sodium_free(scratch);
	return has;
}

void
password_prepare(char *to, const char *from)
{
	/* which of the two is the stricter has been the other way round in GNU SASL for long: whichever takes it */
	if (password_is_prepared(from) || (!prepare(to, PASSWORD_SIZE, from, 0) && !prepare(to, PASSWORD_SIZE, from, GSASL_ALLOW_UNASSIGNED)))
		string_copy(to, PASSWORD_SIZE, from);
}

bool
name_prepare(char to[static USER_SIZE], const char *from)
{
	char *prepared = NULL;
	bool fits;

	if (password_is_prepared(from))
		return string_copy(to, USER_SIZE, from);
	if (gsasl_saslprep(from, 0, &prepared, NULL) == GSASL_OK)
		fits = string_copy(to, USER_SIZE, prepared);
	else
		fits = string_copy(to, USER_SIZE, from);
	gsasl_free(prepared);
	return fits;
}
