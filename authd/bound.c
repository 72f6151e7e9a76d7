#include "bound.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "peer.h"
#include "scram.h"
#include "system.h"
#include "vouch.h"

#define BASE64	sodium_base64_VARIANT_ORIGINAL
#define TYPE	"p=tls-server-end-point,"

bool
bound_is(const struct body_hello *h, const uint8_t *data, size_t length)
{
	return h->end_point_length > 0 && length >= strlen(TYPE) && memcmp(data, TYPE, strlen(TYPE)) == 0;
}

/* Copies up to the next comma or the end, past which *at is then. False if it does not fit. */
static bool
take_field(const char **at, char *to, size_t size)
{
	size_t n = strcspn(*at, ",");

	if (n >= size)
		return false;
	memcpy(to, *at, n);
	to[n] = '\0';
	*at += n;
	if (**at == ',')
		++*at;
	return true;
}

/* A saslname, in place: "=2C" is a comma and "=3D" is "="; nothing else may follow "=". */
static bool
unescape(char *name)
{
	char *to = name;

	for (const char *from = name; *from != '\0'; from++) {
		*to++ = *from;
		if (*from != '=')
			continue;
		if (strncmp(from, "=2C", 3) == 0)
			to[-1] = ',';
		else if (strncmp(from, "=3D", 3) != 0)
			return false;
		from += 2;
	}
	*to = '\0';
	return true;
}

/* "a=NAME", "n=NAME" into a name of a user. */
static bool
take_name(struct login *l, char *to, char *field, char letter)
{
	return field[0] == letter && field[1] == '=' && unescape(field + 2) && sasl_take_name(l, to, field + 2);
}

/* The client's first message: the header, who it is, its nonce. */
static enum sasl_result
read_first(struct login *l, const char *text)
{
	struct bound *b = &l->secret->bound;
	char field[sizeof b->header];
	const char *at = text + strlen(TYPE), *bare;

	if (!take_field(&at, field, sizeof field) || (field[0] != '\0' && !take_name(l, l->authzid, field, 'a')))
		return SASL_MALFORMED;
	bare = at;
	if ((size_t)(bare - text) >= sizeof b->header || bare[-1] != ',' || !string_copy(b->bare, sizeof b->bare, bare))
		return SASL_MALFORMED;
	memcpy(b->header, text, (size_t)(bare - text));
	b->header[bare - text] = '\0';
	if (!take_field(&at, field, sizeof field) || !take_name(l, l->user, field, 'n'))
		return SASL_MALFORMED;
	/* room for what is added to it; no extension that must be understood is known */
	if (!take_field(&at, field, sizeof field) || strncmp(field, "r=", 2) != 0 || field[2] == '\0' || strlen(field) > 256)
		return SASL_MALFORMED;
	string_copy(b->nonce, sizeof b->nonce, field + 2);
	return SASL_CHALLENGE;
}

static enum sasl_result
answer_first(struct login *l)
{
	struct store_scram *s = &l->secret->user.scram, known;
	struct bound *b = &l->secret->bound;
	uint8_t random[18];
	char salt[sodium_base64_ENCODED_LEN(STORE_SALT_MAX, BASE64)];
	size_t n = strlen(b->nonce);

	vouch_scram(l, &known);
	*s = known;
	sodium_memzero(&known, sizeof known);
	randombytes_buf(random, sizeof random);
	sodium_bin2base64(b->nonce + n, sizeof b->nonce - n, random, sizeof random, BASE64);
	sodium_bin2base64(salt, sizeof salt, s->salt, s->salt_length, BASE64);
	snprintf(b->first, sizeof b->first, "r=%s,s=%s,i=%u", b->nonce, salt, (unsigned)s->iterations);
	l->secret->challenge_length = (uint32_t)strlen(b->first);
	memcpy(l->secret->challenge, b->first, l->secret->challenge_length);
	return SASL_CHALLENGE;
}

static bool
decode(const char *text, uint8_t *out, size_t size, size_t *length)
{
	const char *end = NULL;

	return sodium_base642bin(out, size, text, strlen(text), NULL, length, &end, BASE64) == 0 && *end == '\0';
}

/* "c=": the header once more, and what the client takes for the binding. */
static bool
is_bound(const struct login *l, const char *field)
{
	const struct body_hello *h = peer_hello(l);
	const char *header = l->secret->bound.header;
	uint8_t given[sizeof l->secret->bound.header + sizeof h->end_point];
	size_t length, n = strlen(header);

	return strncmp(field, "c=", 2) == 0 && decode(field + 2, given, sizeof given, &length) &&
	    length == n + h->end_point_length && memcmp(given, header, n) == 0 && memcmp(given + n, h->end_point, h->end_point_length) == 0;
}

static enum sasl_result
check_proof(struct login *l, const char *text, size_t length, const char *proof64)
{
	struct secret *s = l->secret;
	char message[sizeof s->bound.bare + sizeof s->bound.first + 2048];
	uint8_t proof[32], signature[32];
	size_t got;

	if (!decode(proof64, proof, sizeof proof, &got) || got != sizeof proof || length > 2000)
		return SASL_MALFORMED;
	int n = snprintf(message, sizeof message, "%s,%s,%.*s", s->bound.bare, s->bound.first, (int)length, text);
	bool fits = scram_fits(&s->user.scram, message, (size_t)n, proof, signature);
	sodium_memzero(proof, sizeof proof);
	if (!fits)
		return SASL_WRONG;
	char *to = (char *)s->challenge;
	memcpy(to, "v=", 2);
	sodium_bin2base64(to + 2, sizeof s->challenge - 2, signature, sizeof signature, BASE64);
	s->challenge_length = (uint32_t)strlen(to);
	return SASL_PROVED;
}

/* The client's final message: the binding, the nonce, extensions that are ignored, the proof. */
static enum sasl_result
read_final(struct login *l, const char *text)
{
	const struct bound *b = &l->secret->bound;
	char field[1024];
	const char *at = text, *proof = strstr(text, ",p=");

	if (proof == NULL || strchr(proof + 1, ',') != NULL || !take_field(&at, field, sizeof field))
		return SASL_MALFORMED;
	if (!is_bound(l, field))
		return SASL_WRONG;
	if (!take_field(&at, field, sizeof field))
		return SASL_MALFORMED;
	if (strncmp(field, "r=", 2) != 0 || strcmp(field + 2, b->nonce) != 0)
		return SASL_WRONG;
	return check_proof(l, text, (size_t)(proof - text), proof + 3);
}

enum sasl_result
bound_step(struct login *l, const uint8_t *data, size_t length)
{
	char text[2048];
	enum sasl_result result;

	if (length >= sizeof text || memchr(data, '\0', length) != NULL)
		return SASL_MALFORMED;
	memcpy(text, data, length);
	text[length] = '\0';
	if (l->secret->bound.first[0] != '\0')
		return read_final(l, text);
	result = read_first(l, text);
	return result == SASL_CHALLENGE ? answer_first(l) : result;
}
