#include "password.h"

#include <gsasl.h>
#include <string.h>

#include "system.h"

void
password_prepare(char *to, const char *from)
{
	char *prepared = NULL;

	if (gsasl_saslprep(from, 0, &prepared, NULL) != GSASL_OK || prepared[0] == '\0' ||
	    !string_copy(to, PASSWORD_SIZE, prepared))
		string_copy(to, PASSWORD_SIZE, from);
	gsasl_free(prepared);
}
