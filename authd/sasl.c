#include "sasl.h"

#include <gsasl.h>
#include <sodium.h>
#include <string.h>

#include "log.h"
#include "system.h"

/* More than any mechanism needs. */
#define STEPS_MOST	6

/* GNU SASL's name of the exchange. USER and PASS are PLAIN's by the time they get here. */
static const char *const exchanges[MECHANISM_COUNT] = {
	[MECHANISM_PLAIN] = "PLAIN",
	[MECHANISM_LOGIN] = "LOGIN",
	[MECHANISM_USER] = "PLAIN",
};

static Gsasl *library;

static bool
take(char *to, size_t size, const char *from)
{
	return from != NULL && string_copy(to, size, from);
}

/* PLAIN and LOGIN ask us to validate: it is noted here and done later, since hashers and PAM take their time. */
static int
note_password(Gsasl_session *session, struct login *l)
{
	const char *authzid = gsasl_property_fast(session, GSASL_AUTHZID);

	if (!take(l->user, sizeof l->user, gsasl_property_fast(session, GSASL_AUTHID)) ||
	    !take(l->secret->password, sizeof l->secret->password, gsasl_property_fast(session, GSASL_PASSWORD)) ||
	    (authzid != NULL && !take(l->authzid, sizeof l->authzid, authzid)))
		return GSASL_AUTHENTICATION_ERROR;
	return GSASL_OK;
}

static int
on_property(Gsasl *ctx, Gsasl_session *session, Gsasl_property property)
{
	struct login *l = session != NULL ? gsasl_session_hook_get(session) : NULL;

	(void)ctx;
	if (l != NULL && property == GSASL_VALIDATE_SIMPLE)
		return note_password(session, l);
	return GSASL_NO_CALLBACK;
}

void
sasl_start(void)
{
	int rc = gsasl_init(&library);

	if (rc != GSASL_OK)
		fatal("GNU SASL: %s", gsasl_strerror(rc));
	gsasl_callback_set(library, on_property);
}

bool
sasl_knows(uint32_t mechanism)
{
	return mechanism < MECHANISM_COUNT && exchanges[mechanism] != NULL;
}

int
sasl_begin(struct login *l)
{
	Gsasl_session *session = NULL;

	if (gsasl_server_start(library, exchanges[l->mechanism], &session) != GSASL_OK)
		return -1;
	gsasl_session_hook_set(session, l);
	l->sasl = session;
	l->steps = 0;
	return 0;
}

static enum sasl_result
result_of(int rc, const struct login *l)
{
	switch (rc) {
	case GSASL_NEEDS_MORE:
		return SASL_CHALLENGE;
	case GSASL_OK:
		return l->secret->password[0] != '\0' ? SASL_PASSWORD : SASL_WRONG;
	case GSASL_AUTHENTICATION_ERROR:
		return SASL_WRONG;
	case GSASL_MALLOC_ERROR:
	case GSASL_CRYPTO_ERROR:
		return SASL_TROUBLE;
	default:
		return SASL_MALFORMED;
	}
}

enum sasl_result
sasl_step(struct login *l, const uint8_t *data, size_t length, uint8_t *out, uint32_t *out_length)
{
	char *made = NULL;
	size_t made_length = 0;

	*out_length = 0;
	if (++l->steps > STEPS_MOST)
		return SASL_MALFORMED;
	int rc = gsasl_step(l->sasl, (const char *)data, length, &made, &made_length);
	enum sasl_result result = result_of(rc, l);
	if (made != NULL && made_length <= CHALLENGE_SIZE) {
		memcpy(out, made, made_length);
		*out_length = (uint32_t)made_length;
	} else if (made_length > CHALLENGE_SIZE)
		result = SASL_MALFORMED;
	gsasl_free(made);
	return result;
}

void
sasl_end(struct login *l)
{
	if (l->sasl != NULL)
		gsasl_finish(l->sasl);
	l->sasl = NULL;
}
