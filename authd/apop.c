#include "apop.h"

#include <nettle/md5.h>
#include <sodium.h>
#include <string.h>

#include "peer.h"
#include "sasl.h"
#include "vouch.h"

/* MD5 of the timestamp and the shared secret. MD5 is what the RFC has; the secret is random and good for nothing else. */
static void
digest_make(uint8_t digest[static MD5_DIGEST_SIZE], const char *timestamp, const char *secret)
{
	struct md5_ctx md5;

	md5_init(&md5);
	md5_update(&md5, strlen(timestamp), (const uint8_t *)timestamp);
	md5_update(&md5, strlen(secret), (const uint8_t *)secret);
	md5_digest(&md5, MD5_DIGEST_SIZE, digest);
	sodium_memzero(&md5, sizeof md5);
}

/* The digest is the last word: 32 hexadecimal digits. */
static int
split(struct login *l, const uint8_t *data, size_t length, uint8_t given[static MD5_DIGEST_SIZE])
{
	const char *text = (const char *)data;
	size_t made = 0, user;

	if (length < 2 * MD5_DIGEST_SIZE + 2 || length - 2 * MD5_DIGEST_SIZE - 1 >= USER_SIZE)
		return -1;
	user = length - 2 * MD5_DIGEST_SIZE - 1;
	if (text[user] != ' ' || memchr(text, '\0', length) != NULL ||
	    sodium_hex2bin(given, MD5_DIGEST_SIZE, text + user + 1, 2 * MD5_DIGEST_SIZE, NULL, &made, NULL) == -1 ||
	    made != MD5_DIGEST_SIZE)
		return -1;
	char name[USER_SIZE];
	memcpy(name, text, user);
	name[user] = '\0';
	return sasl_take_name(l, l->user, name) ? 0 : -1;
}

int
apop_check(struct login *l, const uint8_t *data, size_t length)
{
	uint8_t given[MD5_DIGEST_SIZE], due[MD5_DIGEST_SIZE];
	char secret[TOKEN_TEXT];

	if (split(l, data, length, given) == -1)
		return -1;
	vouch_secret(l, secret);
	digest_make(due, peer_timestamp(l), secret);
	l->next = sodium_memcmp(given, due, sizeof due) == 0 ? NEXT_PROVED : NEXT_WRONG;
	sodium_memzero(secret, sizeof secret);
	sodium_memzero(due, sizeof due);
	return 0;
}
