/*
 * The certificate chains: what authd's keeper tells pop3d of the certificates it has the keys of, in one sealed memfd.
 * All of it is public. It is a row of items: a pair, its certificates from the server's own upwards, the next pair, and
 * so on; then the authorities that vouch for clients.
 */
#ifndef POSTERN_CHAINS_H
#define POSTERN_CHAINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "messages.h"

enum chains_kind { CHAINS_PAIR, CHAINS_CERTIFICATE, CHAINS_CLIENT_CA, CHAINS_KINDS };
enum chains_algorithm { CHAINS_RSA, CHAINS_ECDSA, CHAINS_ED25519, CHAINS_ALGORITHMS };

/* Before every item; the next one starts `length`, made a multiple of 4, after it. */
struct chains_head {
	uint32_t kind;		/* enum chains_kind */
	uint32_t length;
};

/* The item CHAINS_PAIR. The others are a certificate each, in DER. */
struct chains_pair {
	uint8_t key[KEY_ID_SIZE];
	uint32_t algorithm;	/* enum chains_algorithm */
	uint32_t bits;		/* RSA: of the modulus; ECDSA: 256, 384 or 521 */
};

struct chains_item {
	uint32_t kind;
	uint32_t length;
	const uint8_t *data;	/* in the mapped memory */
};

/* A writer's, of `fd` (sealed_create); false with errno. */
bool chains_add(int fd, uint32_t kind, const void *data, uint32_t length);

/* A reader's. */
struct chains {
	const uint8_t *map;
	size_t size, at;
};

/*
 * Maps a sealed memfd whose items all lie inside, each of a known kind. 0, or -1 with errno (EPROTO: it is none). fd
 * stays the caller's.
 */
int chains_map(struct chains *c, int fd);
/* The next item; false at the end. */
bool chains_next(struct chains *c, struct chains_item *item);
void chains_unmap(struct chains *c);

#endif
