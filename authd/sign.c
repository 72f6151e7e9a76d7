/* The one use of the private keys. */
#include "sign.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>
#include <syslog.h>

#include "log.h"

static const struct scheme {
	uint32_t algorithm;		/* enum chains_algorithm */
	uint32_t bits;			/* of the curve; 0: any */
	uint32_t length;		/* of the digest; 0: sign_is_tls() */
	int padding;			/* of RSA; 0: another algorithm */
	const EVP_MD *(*digest)(void);
} schemes[SIGN_SCHEME_COUNT] = {
	[SIGN_RSA_PSS_SHA256] = { CHAINS_RSA, 0, 32, RSA_PKCS1_PSS_PADDING, EVP_sha256 },
	[SIGN_RSA_PSS_SHA384] = { CHAINS_RSA, 0, 48, RSA_PKCS1_PSS_PADDING, EVP_sha384 },
	[SIGN_RSA_PSS_SHA512] = { CHAINS_RSA, 0, 64, RSA_PKCS1_PSS_PADDING, EVP_sha512 },
	[SIGN_RSA_SHA256] = { CHAINS_RSA, 0, 32, RSA_PKCS1_PADDING, EVP_sha256 },
	[SIGN_RSA_SHA384] = { CHAINS_RSA, 0, 48, RSA_PKCS1_PADDING, EVP_sha384 },
	[SIGN_RSA_SHA512] = { CHAINS_RSA, 0, 64, RSA_PKCS1_PADDING, EVP_sha512 },
	[SIGN_ECDSA_P256] = { CHAINS_ECDSA, 256, 32, 0, EVP_sha256 },
	[SIGN_ECDSA_P384] = { CHAINS_ECDSA, 384, 48, 0, EVP_sha384 },
	[SIGN_ECDSA_P521] = { CHAINS_ECDSA, 521, 64, 0, EVP_sha512 },
	[SIGN_ED25519] = { CHAINS_ED25519, 0, 0, 0, NULL },
};

#define RANDOMS		64	/* the client's and the server's (TLS 1.2); as many blanks (TLS 1.3) */

/* TLS 1.3: blanks, the context with its NUL, and the hash of the handshake. */
static bool
is_tls13(const uint8_t *data, size_t length)
{
	static const char context[] = "TLS 1.3, server CertificateVerify";

	if (length != RANDOMS + sizeof context + 32 && length != RANDOMS + sizeof context + 48)
		return false;
	for (size_t i = 0; i < RANDOMS; i++)
		if (data[i] != ' ')
			return false;
	return memcmp(data + RANDOMS, context, sizeof context) == 0;
}

/* TLS 1.2: the randoms, then the server's ECDH parameters: a named curve and a point on it. */
static bool
is_tls12(const uint8_t *data, size_t length)
{
	static const struct {
		uint8_t curve, point;
	} curves[] = { { 23, 65 }, { 24, 97 }, { 25, 133 }, { 29, 32 } };
	const uint8_t *p = data + RANDOMS;

	if (length < RANDOMS + 4 || p[0] != 3 || p[1] != 0)
		return false;
	for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++)
		if (p[2] == curves[i].curve)
			return p[3] == curves[i].point && length == RANDOMS + 4u + p[3];
	return false;
}

bool
sign_is_tls(const uint8_t *data, size_t length)
{
	return is_tls13(data, length) || is_tls12(data, length);
}

static const struct key_pair *
pair_find(const struct keys *k, const uint8_t *id)
{
	for (uint32_t i = 0; i < k->count; i++)
		if (memcmp(k->pair[i].id, id, KEY_ID_SIZE) == 0)
			return &k->pair[i];
	return NULL;
}

/*
 * Of a digest. OpenSSL puts the DigestInfo before it, or makes PSS of it, and does neither without knowing which digest
 * it is.
 */
static bool
sign_digest(EVP_PKEY *key, const struct scheme *scheme, const struct body_sign *s, uint8_t *out, size_t *size)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	bool done = ctx != NULL && EVP_PKEY_sign_init(ctx) == 1 &&
	    (scheme->padding == 0 || EVP_PKEY_CTX_set_rsa_padding(ctx, scheme->padding) == 1) &&
	    EVP_PKEY_CTX_set_signature_md(ctx, scheme->digest()) == 1 &&
	    (scheme->padding != RSA_PKCS1_PSS_PADDING || EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1) &&
	    EVP_PKEY_sign(ctx, out, size, s->data, s->length) == 1;

	EVP_PKEY_CTX_free(ctx);
	return done;
}

/* Of a text: Ed25519. */
static bool
sign_text(EVP_PKEY *key, const struct body_sign *s, uint8_t *out, size_t *size)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool done = ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
	    EVP_DigestSign(ctx, out, size, s->data, s->length) == 1;

	EVP_MD_CTX_free(ctx);
	return done;
}

const char *
sign(const struct keys *k, const struct body_sign *s, struct body_signature *out)
{
	const struct key_pair *p = pair_find(k, s->key);
	const struct scheme *scheme = &schemes[s->scheme];
	size_t size = sizeof out->data;

	memset(out, 0, sizeof *out);
	if (p == NULL)
		return "a signature by a key that is not here";
	if (p->algorithm != scheme->algorithm || (scheme->bits != 0 && p->bits != scheme->bits))
		return "a signature by a scheme that is not the key's";
	if (scheme->length != 0 ? s->length != scheme->length : !sign_is_tls(s->data, s->length))
		return "a signature of what no TLS server signs";
	if (scheme->length != 0 ? sign_digest(p->key, scheme, s, out->data, &size) : sign_text(p->key, s, out->data, &size))
		out->length = (uint32_t)size;
	else
		log_text(LOG_ERR, "the key of %s cannot sign: %s", p->file, ERR_reason_error_string(ERR_peek_last_error()));
	ERR_clear_error();
	return NULL;
}
