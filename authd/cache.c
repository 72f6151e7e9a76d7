#include "cache.h"

#include <sodium.h>
#include <string.h>

#include "shared.h"
#include "store.h"
#include "system.h"

#define BUCKETS	4096
#define WAYS	4

struct entry {
	uint8_t tag[CACHE_TAG_SIZE];
	int64_t until;		/* 0: free */
};

static struct {
	struct entry table[BUCKETS][WAYS];
	uint8_t key[crypto_generichash_KEYBYTES];
} *cache;	/* shared memory */
static int64_t lifetime;	/* milliseconds */

void
cache_make(void)
{
	cache = shared_make(sizeof *cache);
	randombytes_buf(cache->key, sizeof cache->key);
}

void
cache_start(uint64_t ttl)
{
	lifetime = (int64_t)ttl * 1000;
}

/* Every part with its NUL, so that no two different sets of parts look alike. */
static void
add_string(crypto_generichash_state *h, const char *string)
{
	crypto_generichash_update(h, (const uint8_t *)string, strlen(string) + 1);
}

void
cache_tag(uint8_t tag[static CACHE_TAG_SIZE], uint32_t store, const char *service, const char *user,
    const uint8_t *digest, const char *client, const char *password)
{
	static const uint8_t none[STORE_DIGEST_SIZE];
	crypto_generichash_state h;

	crypto_generichash_init(&h, cache->key, sizeof cache->key, CACHE_TAG_SIZE);
	crypto_generichash_update(&h, (const uint8_t *)&store, sizeof store);
	crypto_generichash_update(&h, digest != NULL ? digest : none, STORE_DIGEST_SIZE);
	add_string(&h, service);
	add_string(&h, user);
	add_string(&h, client);
	add_string(&h, password);
	crypto_generichash_final(&h, tag, CACHE_TAG_SIZE);
	sodium_memzero(&h, sizeof h);
}

static struct entry *
bucket_of(const uint8_t *tag)
{
	return cache->table[(tag[0] | tag[1] << 8) % BUCKETS];
}

bool
cache_has(const uint8_t tag[static CACHE_TAG_SIZE])
{
	struct entry *bucket = bucket_of(tag);
	int64_t now = clock_ms();

	for (int i = 0; i < WAYS; i++)
		/* a shorter lifetime, after a reload, is meant for what is there already, too */
		if (bucket[i].until > now && bucket[i].until <= now + lifetime &&
		    sodium_memcmp(bucket[i].tag, tag, CACHE_TAG_SIZE) == 0)
			return true;
	return false;
}

void
cache_put(const uint8_t tag[static CACHE_TAG_SIZE])
{
	struct entry *bucket = bucket_of(tag), *oldest = &bucket[0];

	if (lifetime == 0)
		return;
	for (int i = 0; i < WAYS; i++) {
		if (bucket[i].until != 0 && sodium_memcmp(bucket[i].tag, tag, CACHE_TAG_SIZE) == 0) {
			oldest = &bucket[i];
			break;
		}
		if (bucket[i].until < oldest->until)
			oldest = &bucket[i];
	}
	memcpy(oldest->tag, tag, CACHE_TAG_SIZE);
	oldest->until = clock_ms() + lifetime;
}
