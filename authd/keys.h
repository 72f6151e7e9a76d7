/*
 * The certificates and their private keys: reading them, and finding every mistake that can be found before a client
 * does. Only the keeper, and authd -t, ever has a struct keys with something in it.
 */
#ifndef POSTERN_AUTHD_KEYS_H
#define POSTERN_AUTHD_KEYS_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "chains.h"
#include "conf.h"
#include "messages.h"

#define KEYS_NAMES_SIZE	384

struct key_pair {
	const char *file;		/* the certificate's, in the configuration */
	EVP_PKEY *key;
	uint8_t id[KEY_ID_SIZE];
	uint32_t algorithm;		/* enum chains_algorithm */
	uint32_t bits;
	time_t expires;
	char names[KEYS_NAMES_SIZE];	/* what it is for, blanks between */
};

struct keys {
	uint32_t count;
	struct key_pair pair[CONF_PAIRS];
	int chains;			/* the sealed memfd of CHAINS, or -1 */
	uint64_t generation;
};

/* Where a finding goes: a level of syslog's, and a line that names the file, what is wrong, and what to do. */
struct findings {
	void (*say)(int level, const char *text);
	unsigned mistakes;		/* those of level LOG_ERR */
};

/*
 * Loads and checks all pairs of the configuration and its client-ca. Everything that is wrong is said, not only the
 * first of it. With `dates` a certificate that has expired, or is not yet valid, is a mistake like any other; without,
 * it is said and served. 0, or -1 after a mistake: then there is nothing in *k.
 */
int keys_load(struct keys *k, const struct conf *c, bool dates, struct findings *f);

/* Says of every certificate that it has expired, or will within 30 days. */
void keys_say_expiry(const struct keys *k, struct findings *f);

/* "rsa-2048", "ecdsa-256", "ed25519". */
const char *keys_kind(const struct key_pair *p, char *text, size_t size);

#endif
