#include "scram.h"

#include <gsasl.h>
#include <nettle/pbkdf2.h>
#include <sodium.h>
#include <string.h>

int
scram_keys(struct store_scram *s, const char *password)
{
	char salted[GSASL_HASH_SHA256_SIZE], client_key[GSASL_HASH_SHA256_SIZE], server_key[GSASL_HASH_SHA256_SIZE],
	    stored_key[GSASL_HASH_SHA256_SIZE];

	/* GNU SASL's own would prepare the password once more, and refuse some */
	pbkdf2_hmac_sha256(strlen(password), (const uint8_t *)password, s->iterations, s->salt_length, s->salt, sizeof salted, (uint8_t *)salted);
	int rc = gsasl_scram_secrets_from_salted_password(GSASL_HASH_SHA256, salted, client_key, server_key, stored_key);
	if (rc == GSASL_OK) {
		memcpy(s->server_key, server_key, sizeof s->server_key);
		memcpy(s->stored_key, stored_key, sizeof s->stored_key);
	}
	/* The client's key opens the account as the password does; it is not kept. */
	sodium_memzero(salted, sizeof salted);
	sodium_memzero(client_key, sizeof client_key);
	sodium_memzero(server_key, sizeof server_key);
	sodium_memzero(stored_key, sizeof stored_key);
	return rc == GSASL_OK ? 0 : -1;
}

int
scram_make(struct store_scram *s, const char *password, uint32_t iterations)
{
	memset(s, 0, sizeof *s);
	s->iterations = iterations;
	s->salt_length = SCRAM_SALT;
	randombytes_buf(s->salt, SCRAM_SALT);
	if (scram_keys(s, password) == 0)
		return 0;
	sodium_memzero(s, sizeof *s);
	return -1;
}

static void
hmac(uint8_t out[static 32], const uint8_t key[static 32], const char *message, size_t length)
{
	crypto_auth_hmacsha256_state state;

	crypto_auth_hmacsha256_init(&state, key, 32);
	crypto_auth_hmacsha256_update(&state, (const uint8_t *)message, length);
	crypto_auth_hmacsha256_final(&state, out);
	sodium_memzero(&state, sizeof state);
}

bool
scram_fits(const struct store_scram *s, const char *message, size_t length, const uint8_t proof[static 32],
    uint8_t signature[static 32])
{
	uint8_t client_key[32], made[32];

	hmac(client_key, s->stored_key, message, length);
	for (size_t i = 0; i < sizeof client_key; i++)
		client_key[i] ^= proof[i];
	crypto_hash_sha256(made, client_key, sizeof client_key);
	hmac(signature, s->server_key, message, length);
	bool fits = sodium_memcmp(made, s->stored_key, sizeof made) == 0;
	sodium_memzero(client_key, sizeof client_key);
	return fits;
}
