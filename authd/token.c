#include "token.h"

#include <sodium.h>
#include <string.h>

/* 32 characters that are not taken for each other: no l, o, 0, 1. */
static const char alphabet[] = "abcdefghijkmnpqrstuvwxyz23456789";
_Static_assert(sizeof alphabet == 33, "a character is 5 bits");

void
token_make(char text[static TOKEN_TEXT])
{
	uint8_t random[TOKEN_PLAIN - 1];
	char *at = text;

	randombytes_buf(random, sizeof random);
	for (size_t i = 0; i < sizeof random; i++) {
		if (i > 0 && i % 4 == 0)
			*at++ = '-';
		*at++ = alphabet[random[i] % 32];
	}
	*at = '\0';
	sodium_memzero(random, sizeof random);
}

bool
token_read(char plain[static TOKEN_PLAIN], const char *typed)
{
	size_t n = 0;

	for (; *typed != '\0'; typed++) {
		char c = *typed >= 'A' && *typed <= 'Z' ? (char)(*typed - 'A' + 'a') : *typed;
		if (c == '-' || c == ' ')
			continue;
		if (n == TOKEN_PLAIN - 1 || strchr(alphabet, c) == NULL)
			return false;
		plain[n++] = c;
	}
	plain[n] = '\0';
	return n == TOKEN_PLAIN - 1;
}

/* A key of its own for each purpose and user. */
static void
derive(uint8_t out[static 32], const uint8_t *key, const char *purpose, const char *user)
{
	crypto_generichash_state h;

	crypto_generichash_init(&h, key, STORE_KEY_SIZE, 32);
	crypto_generichash_update(&h, (const uint8_t *)purpose, strlen(purpose) + 1);
	crypto_generichash_update(&h, (const uint8_t *)user, strlen(user) + 1);
	crypto_generichash_final(&h, out, 32);
	sodium_memzero(&h, sizeof h);
}

void
token_hash(uint8_t hash[static 32], const uint8_t key[static STORE_KEY_SIZE], const char *user, const char *plain)
{
	uint8_t own[32];

	derive(own, key, "app password", user);
	crypto_generichash(hash, 32, (const uint8_t *)plain, strlen(plain), own, sizeof own);
	sodium_memzero(own, sizeof own);
}

void
secret_seal(struct store_user *u, const uint8_t key[static STORE_KEY_SIZE], const char *user, const char *text)
{
	uint8_t own[32];

	_Static_assert(crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES + TOKEN_TEXT <= STORE_SECRET_MAX, "a secret fits");
	derive(own, key, "secret", user);
	randombytes_buf(u->secret, crypto_secretbox_NONCEBYTES);
	crypto_secretbox_easy(u->secret + crypto_secretbox_NONCEBYTES, (const uint8_t *)text, TOKEN_TEXT, u->secret, own);
	u->secret_length = crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES + TOKEN_TEXT;
	sodium_memzero(own, sizeof own);
}

int
secret_open(const struct store_user *u, const uint8_t key[static STORE_KEY_SIZE], const char *user, char text[static TOKEN_TEXT])
{
	uint8_t own[32];
	int result;

	if (u->secret_length != crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES + TOKEN_TEXT)
		return -1;
	derive(own, key, "secret", user);
	result = crypto_secretbox_open_easy((uint8_t *)text, u->secret + crypto_secretbox_NONCEBYTES,
	    crypto_secretbox_MACBYTES + TOKEN_TEXT, u->secret, own);
	sodium_memzero(own, sizeof own);
	return result == 0 && text[TOKEN_TEXT - 1] == '\0' ? 0 : -1;
}
