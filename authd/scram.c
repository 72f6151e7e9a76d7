#include "scram.h"

#include <gsasl.h>
#include <sodium.h>
#include <string.h>

int
scram_make(struct store_scram *s, const char *password, uint32_t iterations)
{
	char salted[GSASL_HASH_SHA256_SIZE], client_key[GSASL_HASH_SHA256_SIZE], server_key[GSASL_HASH_SHA256_SIZE],
	    stored_key[GSASL_HASH_SHA256_SIZE];

	memset(s, 0, sizeof *s);
	randombytes_buf(s->salt, SCRAM_SALT);
	int rc = gsasl_scram_secrets_from_password(GSASL_HASH_SHA256, password, iterations, (const char *)s->salt, SCRAM_SALT,
	    salted, client_key, server_key, stored_key);
	if (rc == GSASL_OK) {
		s->iterations = iterations;
		s->salt_length = SCRAM_SALT;
		memcpy(s->stored_key, stored_key, sizeof s->stored_key);
		memcpy(s->server_key, server_key, sizeof s->server_key);
	}
	/* The client's key opens the account as the password does; it is not kept. */
	sodium_memzero(salted, sizeof salted);
	sodium_memzero(client_key, sizeof client_key);
	sodium_memzero(server_key, sizeof server_key);
	sodium_memzero(stored_key, sizeof stored_key);
	return rc == GSASL_OK ? 0 : -1;
}
