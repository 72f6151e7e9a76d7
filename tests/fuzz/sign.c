/*
 * SIGN as the keeper receives it from a pop3d that was taken over: whatever is signed is on the closed list, as written down here anew. The first
 * octet says which key is asked for, so that the fuzzer need not guess a hash; the rest is the message's body as it comes.
 * links: authd/sign.c lib/log.c lib/system.c lib/conf.c lib/messages.c lib/catalogue.c
 * libs: -lcrypto
 */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../authd/keys.h"
#include "../../authd/sign.h"
#include "chains.h"
#include "messages.h"

#define KEYS	4

static struct keys keys;

static void
key_make(uint32_t algorithm, uint32_t bits, EVP_PKEY *key)
{
	struct key_pair *p = &keys.pair[keys.count];

	if (key == NULL)
		abort();
	p->algorithm = algorithm;
	p->bits = bits;
	p->key = key;
	memset(p->id, (int)(1 + keys.count++), sizeof p->id);
}

/* May a key of that kind sign that much by that scheme, and what? */
static bool
listed(const struct key_pair *p, const struct body_sign *s)
{
	static const char text[] = "TLS 1.3, server CertificateVerify";
	static const uint8_t points[][3] = { { 23, 65, 0 }, { 24, 97, 0 }, { 25, 133, 0 }, { 29, 32, 0 } };

	switch (s->scheme) {
	case SIGN_RSA_PSS_SHA256: case SIGN_RSA_SHA256: return p->algorithm == CHAINS_RSA && s->length == 32;
	case SIGN_RSA_PSS_SHA384: case SIGN_RSA_SHA384: return p->algorithm == CHAINS_RSA && s->length == 48;
	case SIGN_RSA_PSS_SHA512: case SIGN_RSA_SHA512: return p->algorithm == CHAINS_RSA && s->length == 64;
	case SIGN_ECDSA_P256: return p->algorithm == CHAINS_ECDSA && p->bits == 256 && s->length == 32;
	case SIGN_ECDSA_P384: return p->algorithm == CHAINS_ECDSA && p->bits == 384 && s->length == 48;
	case SIGN_ECDSA_P521: return p->algorithm == CHAINS_ECDSA && p->bits == 521 && s->length == 64;
	case SIGN_ED25519: break;
	default: return false;
	}
	if (p->algorithm != CHAINS_ED25519)
		return false;
	if (s->length == 64 + sizeof text + 32 || s->length == 64 + sizeof text + 48) {
		bool blank = true;
		for (size_t i = 0; i < 64; i++)
			blank = blank && s->data[i] == ' ';
		if (blank && memcmp(s->data + 64, text, sizeof text) == 0)
			return true;
	}
	for (size_t i = 0; i < 4; i++)
		if (s->length == 68u + points[i][1] && memcmp(s->data + 64, (uint8_t[]){ 3, 0, points[i][0], points[i][1] }, 4) == 0)
			return true;
	return false;
}

/* As it comes over a socket: false if that receives it as no message. */
static bool
receive(struct message *m)
{
	int pair[2];

	if (message_pair(pair) == -1 || send(pair[0], m, message_size(MESSAGE_SIGN), 0) == -1)
		abort();
	bool sound = message_receive(pair[1], m, SIDE_POP3D, SIDE_KEEPER) == 1;
	close(pair[0]);
	close(pair[1]);
	return sound;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct body_signature out;
	struct message m;

	if (keys.count == 0) {
		key_make(CHAINS_RSA, 2048, EVP_RSA_gen(2048));
		key_make(CHAINS_ECDSA, 256, EVP_EC_gen("P-256"));
		key_make(CHAINS_ECDSA, 384, EVP_EC_gen("P-384"));
		key_make(CHAINS_ED25519, 0, EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"));
	}
	if (size < 1 || size > 1 + sizeof m.body.sign)
		return 0;
	message_start(&m, MESSAGE_SIGN);
	memcpy(&m.body.sign, data + 1, size - 1);
	memset(m.body.sign.key, data[0] % (KEYS + 2), sizeof m.body.sign.key);
	if (!receive(&m))
		return 0;
	const char *wrong = sign(&keys, &m.body.sign, &out);
	const struct key_pair *p = data[0] % (KEYS + 2) >= 1 && data[0] % (KEYS + 2) <= KEYS ? &keys.pair[data[0] % (KEYS + 2) - 1] : NULL;
	if ((wrong == NULL) != (p != NULL && listed(p, &m.body.sign)) || (wrong != NULL && out.length != 0) || out.length > sizeof out.data)
		abort();
	return 0;
}
