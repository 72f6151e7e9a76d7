#include "password.h"

#include <gsasl.h>
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

void
password_prepare(char *to, const char *from)
{
	char *prepared = NULL;

	if (password_is_prepared(from)) {
		string_copy(to, PASSWORD_SIZE, from);
		return;
	}
	if (gsasl_saslprep(from, 0, &prepared, NULL) != GSASL_OK || prepared[0] == '\0' ||
	    !string_copy(to, PASSWORD_SIZE, prepared))
		string_copy(to, PASSWORD_SIZE, from);
	gsasl_free(prepared);
}
