#include "sasl.h"

#include <gsasl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "bound.h"
#include "log.h"
#include "password.h"
#include "peer.h"
#include "system.h"
#include "vouch.h"

/* More than any mechanism needs. */
#define STEPS_MOST	6

/*
 * GNU SASL's name of the exchange, and whether it proves who the client is or yields a password. USER and PASS are no
 * exchange, and look like PLAIN's only word by the time they get here.
 */
static const struct exchange {
	const char *name;
	bool proves;
} exchanges[MECHANISM_COUNT] = {
	[MECHANISM_SCRAM_SHA_256_PLUS] = { "SCRAM-SHA-256-PLUS", true },
	[MECHANISM_SCRAM_SHA_256] = { "SCRAM-SHA-256", true },
	[MECHANISM_EXTERNAL] = { "EXTERNAL", true },
	[MECHANISM_CRAM_MD5] = { "CRAM-MD5", true },
	[MECHANISM_PLAIN] = { "PLAIN", false },
	[MECHANISM_LOGIN] = { "LOGIN", false },
	[MECHANISM_USER] = { "PLAIN", false },
};

static Gsasl *library;
static const struct conf *conf;

bool
sasl_name(char *to, const char *from)
{
	return from != NULL && name_prepare(to, from);
}

bool
sasl_take_name(struct login *l, char *to, const char *from)
{
	static const char prefix[] = "recent:";
	size_t n = sizeof prefix - 1;

	if (from == NULL || strncmp(from, prefix, n) != 0)
		return sasl_name(to, from);
	l->recent = true;
	return sasl_name(to, from + n);
}

static bool
take_names(Gsasl_session *session, struct login *l)
{
	const char *authzid = gsasl_property_fast(session, GSASL_AUTHZID);

	return sasl_take_name(l, l->user, gsasl_property_fast(session, GSASL_AUTHID)) &&
	    (authzid == NULL || sasl_take_name(l, l->authzid, authzid));
}

/* PLAIN and LOGIN ask us to validate: it is noted here and done later, since hashers and PAM take their time. */
static int
note_password(Gsasl_session *session, struct login *l)
{
	const char *password = gsasl_property_fast(session, GSASL_PASSWORD);

	if (!take_names(session, l) || password == NULL ||
	    !string_copy(l->secret->password, sizeof l->secret->password, password))
		return GSASL_AUTHENTICATION_ERROR;
	return GSASL_OK;
}

static int
set_base64(Gsasl_session *session, Gsasl_property property, const uint8_t *data, size_t length)
{
	char text[128];

	if (sodium_base64_ENCODED_LEN(length, sodium_base64_VARIANT_ORIGINAL) > sizeof text)
		return GSASL_MALLOC_ERROR;
	sodium_bin2base64(text, sizeof text, data, length, sodium_base64_VARIANT_ORIGINAL);
	int rc = gsasl_property_set(session, property, text);
	sodium_memzero(text, sizeof text);
	return rc;
}

/* SCRAM wants to know all there is of a user, once it has read who it is. */
static int
set_scram(Gsasl_session *session, struct login *l)
{
	struct store_scram *s = &l->secret->user.scram, known;
	char number[16];

	if (!take_names(session, l))
		return GSASL_AUTHENTICATION_ERROR;
	vouch_scram(l, &known);
	*s = known;
	snprintf(number, sizeof number, "%u", (unsigned)s->iterations);
	int rc = gsasl_property_set(session, GSASL_SCRAM_ITER, number);
	if (rc == GSASL_OK)
		rc = set_base64(session, GSASL_SCRAM_SALT, s->salt, s->salt_length);
	if (rc == GSASL_OK)
		rc = set_base64(session, GSASL_SCRAM_STOREDKEY, s->stored_key, sizeof s->stored_key);
	if (rc == GSASL_OK)
		rc = set_base64(session, GSASL_SCRAM_SERVERKEY, s->server_key, sizeof s->server_key);
	sodium_memzero(&known, sizeof known);
	return rc;
}

/* CRAM-MD5's "password" is the secret that was made for it. */
static int
set_secret(Gsasl_session *session, struct login *l)
{
	char secret[TOKEN_TEXT];

	if (l->mechanism != MECHANISM_CRAM_MD5)
		return GSASL_NO_CALLBACK;
	if (!take_names(session, l))
		return GSASL_AUTHENTICATION_ERROR;
	vouch_secret(l, secret);
	int rc = gsasl_property_set(session, GSASL_PASSWORD, secret);
	sodium_memzero(secret, sizeof secret);
	return rc;
}

/* GNU SASL asks for the binding that the client has named, and does without when it is not that of this connection. */
static int
set_binding(Gsasl_session *session, const struct login *l, Gsasl_property property)
{
	const struct body_hello *h = peer_hello(l);
	const char *type = property == GSASL_CB_TLS_EXPORTER ? "tls-exporter" : "tls-unique";

	if (l->mechanism != MECHANISM_SCRAM_SHA_256_PLUS || strcmp(h->binding_type, type) != 0 || h->binding_length == 0)
		return GSASL_NO_CALLBACK;
	return set_base64(session, property, h->binding, h->binding_length);
}

/*
 * EXTERNAL: who the certificate belongs to. Whether the client asks for that one's mail is compared where it is for all
 * mechanisms.
 */
static int
check_certificate(Gsasl_session *session, struct login *l)
{
	const char *authzid = gsasl_property_fast(session, GSASL_AUTHZID);

	if (authzid != NULL && !sasl_take_name(l, l->authzid, authzid))
		return GSASL_AUTHENTICATION_ERROR;
	if (vouch_certificate(l, peer_hello(l)))
		return GSASL_OK;
	l->reason = "unknown-certificate";
	return GSASL_AUTHENTICATION_ERROR;
}

static int
on_property(Gsasl *ctx, Gsasl_session *session, Gsasl_property property)
{
	struct login *l = session != NULL ? gsasl_session_hook_get(session) : NULL;

	(void)ctx;
	if (l == NULL)
		return GSASL_NO_CALLBACK;
	switch (property) {
	case GSASL_VALIDATE_SIMPLE:
		return note_password(session, l);
	case GSASL_SCRAM_ITER:
	case GSASL_SCRAM_SALT:
	case GSASL_SCRAM_STOREDKEY:
	case GSASL_SCRAM_SERVERKEY:
		/* one look-up sets them all, and the library asks for none that is set */
		return set_scram(session, l);
	case GSASL_PASSWORD:
		return set_secret(session, l);
	case GSASL_VALIDATE_EXTERNAL:
		return check_certificate(session, l);
	case GSASL_CB_TLS_EXPORTER:
	case GSASL_CB_TLS_UNIQUE:
		return set_binding(session, l, property);
	default:
		return GSASL_NO_CALLBACK;
	}
}

void
sasl_start(const struct conf *c)
{
	int rc = gsasl_init(&library);

	if (rc != GSASL_OK)
		fatal("GNU SASL: %s", gsasl_strerror(rc));
	gsasl_callback_set(library, on_property);
	conf = c;
}

bool
sasl_knows(uint32_t mechanism)
{
	return mechanism < MECHANISM_COUNT && exchanges[mechanism].name != NULL;
}

int
sasl_begin(struct login *l)
{
	Gsasl_session *session = NULL;

	l->steps = 0;
	if (l->mechanism == MECHANISM_USER)
		return 0;
	if (gsasl_server_start(library, exchanges[l->mechanism].name, &session) != GSASL_OK)
		return -1;
	gsasl_session_hook_set(session, l);
	l->sasl = session;
	return 0;
}

static enum sasl_result
has_password(struct login *l)
{
	if (l->secret->password[0] != '\0')
		return SASL_PASSWORD;
	l->reason = "no-password";
	return SASL_WRONG;
}

static enum sasl_result
result_of(int rc, struct login *l)
{
	switch (rc) {
	case GSASL_NEEDS_MORE:
		return SASL_CHALLENGE;
	case GSASL_OK:
		return exchanges[l->mechanism].proves ? SASL_PROVED : has_password(l);
	case GSASL_AUTHENTICATION_ERROR:
		return SASL_WRONG;
	case GSASL_MALLOC_ERROR:
	case GSASL_CRYPTO_ERROR:
		return SASL_TROUBLE;
	default:
		return SASL_MALFORMED;
	}
}

/*
 * A client that could bind to the TLS connection but says that this server cannot ("y", RFC 5802 section 6) was shown
 * another list of mechanisms than ours.
 */
static bool
is_downgraded(const struct login *l, const uint8_t *data)
{
	const struct body_hello *h = peer_hello(l);

	return l->mechanism == MECHANISM_SCRAM_SHA_256 && data[0] == 'y' && h->binding_length + h->end_point_length > 0 &&
	    conf_has(&conf->mechanisms, MECHANISM_SCRAM_SHA_256_PLUS);
}

static enum sasl_result
library_step(struct login *l, const uint8_t *data, size_t length)
{
	char *made = NULL;
	size_t made_length = 0;
	int rc = gsasl_step(l->sasl, (const char *)data, length, &made, &made_length);
	enum sasl_result result = result_of(rc, l);

	if (made_length > sizeof l->secret->challenge)
		result = SASL_MALFORMED;
	else if (made_length > 0) {
		memcpy(l->secret->challenge, made, made_length);
		l->secret->challenge_length = (uint32_t)made_length;
	}
	gsasl_free(made);
	return result;
}

/*
 * PLAIN (RFC 4616) by hand, for USER and PASS, and where the library gives up because SASLprep refuses a name or a
 * password: nobody has such a name, but that must not be told sooner than anything else; and a password in an old
 * encoding is a password.
 */
static enum sasl_result
plain_step(struct login *l, const uint8_t *data, size_t length)
{
	const char *authzid = (const char *)data;
	const char *user = length > 0 ? memchr(data, '\0', length) : NULL, *password = NULL;

	if (user != NULL) {
		user++;
		password = memchr(user, '\0', length - (size_t)(user - authzid));
	}
	if (password == NULL || password++ == user)
		return SASL_MALFORMED;
	size_t n = length - (size_t)(password - authzid);
	if (n >= PASSWORD_SIZE || memchr(password, '\0', n) != NULL)
		return SASL_MALFORMED;
	memcpy(l->secret->password, password, n);
	l->secret->password[n] = '\0';
	return sasl_take_name(l, l->user, user) && sasl_take_name(l, l->authzid, authzid) ? has_password(l) : SASL_WRONG;
}

enum sasl_result
sasl_step(struct login *l, const uint8_t *data, size_t length)
{
	bool first = !l->spoken && length > 0;

	l->secret->challenge_length = 0;
	if (++l->steps > STEPS_MOST)
		return SASL_MALFORMED;
	l->spoken = l->spoken || first;
	if (first && is_downgraded(l, data)) {
		l->reason = "downgraded";
		return SASL_WRONG;
	}
	if (first && l->mechanism == MECHANISM_SCRAM_SHA_256_PLUS)
		l->bound = bound_is(peer_hello(l), data, length);
	if (l->bound)
		return bound_step(l, data, length);
	if (l->mechanism == MECHANISM_USER)
		return plain_step(l, data, length);
	enum sasl_result result = library_step(l, data, length);
	return l->mechanism == MECHANISM_PLAIN && result == SASL_MALFORMED ? plain_step(l, data, length) : result;
}

void
sasl_end(struct login *l)
{
	if (l->sasl != NULL)
		gsasl_finish(l->sasl);
	l->sasl = NULL;
}
