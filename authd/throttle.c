#include "throttle.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <string.h>

#include "messages.h"
#include "system.h"

/* Two tables of fixed size, each a bucket of four by keyed hash; the least troublesome of a full bucket makes room. */
#define BUCKETS		4096
#define WAYS		4

/*
 * Of a kind of key: how many failures are free, the first wait, the longest, and how long until one failure is forgotten.
 */
struct rule {
	uint32_t free;
	int64_t first, most;
	int64_t forget;
};

static const struct rule by_address = { 5, 500, 8000, 60000 };
static const struct rule by_user = { 8, 250, 2000, 60000 };

/* An address with this much waiting in line gets no further place. */
#define LINE_MOST	40000

struct entry {
	uint64_t key;		/* 0: free */
	uint32_t failures;
	int64_t seen;
	int64_t next;		/* by address: when the next in line may go */
};

static struct entry addresses[BUCKETS][WAYS], users[BUCKETS][WAYS];
static uint8_t hash_key[crypto_shorthash_KEYBYTES];

void
throttle_start(void)
{
	randombytes_buf(hash_key, sizeof hash_key);
}

static uint64_t
key_of(const void *what, size_t length)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint64_t key;

	crypto_shorthash(hash, what, length, hash_key);
	memcpy(&key, hash, sizeof key);
	return key != 0 ? key : 1;
}

static uint64_t
address_key(const char *address)
{
	uint8_t binary[16] = { 0 };

	if (inet_pton(AF_INET, address, binary) == 1)
		return key_of(binary, 4);
	if (inet_pton(AF_INET6, address, binary) == 1)
		return key_of(binary, 8);
	return 0;
}

static void
forget(struct entry *e, const struct rule *r, int64_t now)
{
	int64_t gone = (now - e->seen) / r->forget;

	if (gone <= 0)
		return;
	e->failures = gone >= (int64_t)e->failures ? 0 : e->failures - (uint32_t)gone;
	e->seen += gone * r->forget;
}

static struct entry *
find(struct entry (*table)[WAYS], uint64_t key, const struct rule *r, int64_t now)
{
	struct entry *bucket = table[key % BUCKETS], *least = &bucket[0];

	for (int i = 0; i < WAYS; i++) {
		if (bucket[i].key == key) {
			forget(&bucket[i], r, now);
			return &bucket[i];
		}
		if (bucket[i].key == 0 || (least->key != 0 && bucket[i].failures < least->failures))
			least = &bucket[i];
	}
	*least = (struct entry){ .key = key, .seen = now };
	return least;
}

static int64_t
wait_for(uint32_t failures, const struct rule *r)
{
	if (failures <= r->free)
		return 0;
	uint32_t steps = failures - r->free - 1;
	int64_t wait = steps >= 16 ? r->most : r->first << steps;
	return wait < r->most ? wait : r->most;
}

static int64_t
charge_address(const char *address, int64_t now)
{
	uint64_t key = address_key(address);

	if (key == 0)
		return 0;
	struct entry *e = find(addresses, key, &by_address, now);
	int64_t wait = wait_for(e->failures + 1, &by_address);
	int64_t start = e->next > now ? e->next : now;
	if (wait > 0 && start + wait - now > LINE_MOST)
		return -1;
	e->failures++;
	e->seen = now;
	if (wait == 0)
		return 0;
	e->next = start + wait;
	return e->next - now;
}

int64_t
throttle_charge(const char *address, const char *user)
{
	int64_t now = clock_ms(), wait = charge_address(address, now);

	if (wait == -1)
		return -1;
	struct entry *e = find(users, key_of(user, strlen(user)), &by_user, now);
	e->failures++;
	e->seen = now;
	int64_t other = wait_for(e->failures, &by_user);
	return wait > other ? wait : other;
}

void
throttle_refund(const char *address, const char *user)
{
	int64_t now = clock_ms();
	uint64_t key = address_key(address);

	if (key != 0) {
		struct entry *e = find(addresses, key, &by_address, now);
		if (e->failures > 0)
			e->failures--;
	}
	find(users, key_of(user, strlen(user)), &by_user, now)->failures = 0;
}
