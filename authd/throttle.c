#include "throttle.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "memory.h"
#include "messages.h"
#include "shared.h"
#include "system.h"

/* Two tables of fixed size, each a bucket of four by keyed hash; the least troublesome of a full bucket makes room. */
#define BUCKETS		4096
#define WAYS		4

/*
 * Of a kind of key: how many failures are free, the first wait, the longest, and how long until one failure is
 * forgotten.
 */
struct rule {
	uint32_t free;
	int64_t first, most;
	int64_t forget;
};

static const struct rule by_address = { 5, 500, 8000, 60000 };
static const struct rule by_user = { 8, 250, 2000, 60000 };

/* So many attempts at once are not taken for guesses before they are over. */
#define UNDER_WAY_FREE	64

/* An address with this much waiting in line gets no further place. */
#define LINE_MOST	40000

struct entry {
	uint64_t key;		/* 0: free */
	uint32_t failures;	/* those under way among them, ... */
	uint32_t under_way;	/* ... so many */
	int64_t seen;
	int64_t next;		/* by address: when the next in line may go */
};

static struct {
	struct entry addresses[BUCKETS][WAYS], users[BUCKETS][WAYS];
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	bool loaded;		/* the file has been read */
} *throttle;	/* shared memory */

static char file[CONF_STRING + 32];
static bool dirty;

void
throttle_make(void)
{
	throttle = shared_make(sizeof *throttle);
	randombytes_buf(throttle->hash_key, sizeof throttle->hash_key);
}

static uint64_t
key_of(const void *what, size_t length)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint64_t key;

	crypto_shorthash(hash, what, length, throttle->hash_key);
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

/* One more attempt begins: what it has to wait, by what is known to have failed. */
static int64_t
wait_of_next(const struct entry *e, const struct rule *r)
{
	uint32_t excused = e->under_way < UNDER_WAY_FREE ? e->under_way : UNDER_WAY_FREE;

	return wait_for(e->failures - (excused < e->failures ? excused : e->failures) + 1, r);
}

static void
entry_charge(struct entry *e, int64_t now)
{
	e->failures++;
	e->under_way++;
	e->seen = now;
}

static int64_t
charge_address(const char *address, int64_t now)
{
	uint64_t key = address_key(address);

	if (key == 0)
		return 0;
	struct entry *e = find(throttle->addresses, key, &by_address, now);
	int64_t wait = wait_of_next(e, &by_address);
	int64_t start = e->next > now ? e->next : now;
	if (wait > 0 && start + wait - now > LINE_MOST)
		return -1;
	entry_charge(e, now);
	if (wait == 0)
		return 0;
	e->next = start + wait;
	return e->next - now;
}

int64_t
throttle_charge(const char *address, const char *user)
{
	int64_t now = clock_ms(), wait = charge_address(address, now);

	dirty = true;
	if (wait == -1)
		return -1;
	struct entry *e = find(throttle->users, key_of(user, strlen(user)), &by_user, now);
	int64_t other = wait_of_next(e, &by_user);
	entry_charge(e, now);
	return wait > other ? wait : other;
}

bool
throttle_suspects(const char *address)
{
	uint64_t key = address_key(address);

	return key != 0 && find(throttle->addresses, key, &by_address, clock_ms())->failures > 1;
}

void
throttle_settle(const char *address, const char *user, enum outcome outcome)
{
	int64_t now = clock_ms();
	uint64_t key = address_key(address);

	dirty = true;
	if (key != 0) {
		struct entry *e = find(throttle->addresses, key, &by_address, now);
		e->under_way -= e->under_way > 0;
		e->failures -= outcome != OUTCOME_WRONG && e->failures > 0;
	}
	struct entry *e = find(throttle->users, key_of(user, strlen(user)), &by_user, now);
	e->under_way -= e->under_way > 0;
	if (outcome == OUTCOME_RIGHT)
		e->failures = e->under_way;
	else if (outcome == OUTCOME_NONE)
		e->failures -= e->failures > 0;
}

/*
 * The file: a head, then entries with times told from when it was written, by the clock on the wall, since the other
 * one begins anew with the machine. No name and no address is in it, only keyed hashes.
 */
#define FILE_MAGIC	0x504f5354u
#define FILE_ROWS	(2 * BUCKETS * WAYS)

struct row {
	uint64_t key;
	uint32_t user;		/* 0: an address */
	uint32_t failures;
	int64_t seen;		/* ms before the file was written */
	int64_t next;		/* ms after it */
};

struct head {
	uint32_t magic, rows;
	int64_t written;	/* seconds since 1970 */
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	uint8_t sum[crypto_generichash_BYTES];	/* of the rows, keyed with all of the above */
};

static void
sum_of(const struct head *h, const struct row *rows, uint8_t sum[static crypto_generichash_BYTES])
{
	crypto_generichash(sum, crypto_generichash_BYTES, (const uint8_t *)rows, h->rows * sizeof *rows, (const uint8_t *)h,
	    offsetof(struct head, sum));
}

static uint32_t
rows_add(struct row *rows, uint32_t n, struct entry (*table)[WAYS], const struct rule *r, bool user, int64_t now)
{
	for (size_t i = 0; i < BUCKETS; i++)
		for (size_t j = 0; j < WAYS; j++) {
			struct entry e = table[i][j];
			forget(&e, r, now);
			if (e.key != 0 && (e.failures > 0 || e.next > now))
				rows[n++] = (struct row){ e.key, user, e.failures, now - e.seen,
				    e.next > now ? e.next - now : 0 };
		}
	return n;
}

static int
write_all(int fd, const void *data, size_t length)
{
	const char *at = data;

	while (length > 0) {
		ssize_t n = write(fd, at, length);
		if (n == -1 && errno != EINTR)
			return -1;
		if (n > 0) {
			at += n;
			length -= (size_t)n;
		}
	}
	return 0;
}

/* A new file takes the old one's name whole. */
static int
file_write(const struct head *h, const struct row *rows)
{
	char fresh[sizeof file + 8];

	snprintf(fresh, sizeof fresh, "%s.new", file);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd == -1)
		return -1;
	int result = write_all(fd, h, sizeof *h) == -1 ? -1 : write_all(fd, rows, h->rows * sizeof *rows);
	int saved = errno;
	close(fd);
	errno = saved;
	return result == -1 ? -1 : rename(fresh, file);
}

void
throttle_save(void)
{
	struct head h = { .magic = FILE_MAGIC, .written = (int64_t)time(NULL) };
	int64_t now = clock_ms();

	if (!dirty || file[0] == '\0')
		return;
	struct row *rows = calloc(FILE_ROWS, sizeof *rows);
	if (rows == NULL)
		return;
	h.rows = rows_add(rows, 0, throttle->addresses, &by_address, false, now);
	h.rows = rows_add(rows, h.rows, throttle->users, &by_user, true, now);
	memcpy(h.hash_key, throttle->hash_key, sizeof h.hash_key);
	sum_of(&h, rows, h.sum);
	if (file_write(&h, rows) == -1)
		log_text(LOG_WARNING, "%s: %s; after a restart guessing starts afresh", file, strerror(errno));
	else
		dirty = false;
	free(rows);
}

static void
rows_take(const struct head *h, const struct row *rows)
{
	int64_t now = clock_ms(), gone = ((int64_t)time(NULL) - h->written) * 1000;

	/* a clock that was set back: as if no time had passed */
	if (gone < 0)
		gone = 0;
	memcpy(throttle->hash_key, h->hash_key, sizeof throttle->hash_key);
	for (uint32_t i = 0; i < h->rows; i++) {
		const struct row *row = &rows[i];
		const struct rule *r = row->user ? &by_user : &by_address;
		struct entry *e = find(row->user ? throttle->users : throttle->addresses, row->key, r, now);
		*e = (struct entry){ row->key, row->failures, 0, now - row->seen - gone,
		    row->next > gone ? now + row->next - gone : 0 };
		forget(e, r, now);
	}
}

/* Reads the rows behind a head that is in order, and takes them if they are, too. */
static bool
rows_read(int fd, const struct head *h, struct row *rows)
{
	uint8_t sum[crypto_generichash_BYTES];
	size_t size = h->rows * sizeof *rows;

	if (read(fd, rows, size) != (ssize_t)size)
		return false;
	sum_of(h, rows, sum);
	for (uint32_t i = 0; i < h->rows; i++)
		if (rows[i].key == 0 || rows[i].user > 1 || rows[i].seen < 0 || rows[i].seen > INT32_MAX || rows[i].next < 0 ||
		    rows[i].next > LINE_MOST)
			return false;
	return memcmp(sum, h->sum, sizeof sum) == 0;
}

static void
file_read(void)
{
	struct head h;
	struct row *rows = NULL;
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd == -1) {
		if (errno != ENOENT)
			log_text(LOG_WARNING, "%s: %s; guessing starts afresh", file, strerror(errno));
		return;
	}
	if (read(fd, &h, sizeof h) == sizeof h && h.magic == FILE_MAGIC && h.rows <= FILE_ROWS &&
	    (rows = calloc(h.rows + 1, sizeof *rows)) != NULL && rows_read(fd, &h, rows))
		rows_take(&h, rows);
	else
		log_text(LOG_WARNING, "%s: damaged; guessing starts afresh", file);
	free(rows);
	close(fd);
}

void
throttle_start(const struct conf *c)
{
	char directory[CONF_STRING + 16];

	if (memory_directory(c, directory, sizeof directory) == -1)
		return;
	snprintf(file, sizeof file, "%s/throttle", directory);
	if (!throttle->loaded)
		file_read();
	throttle->loaded = true;
}
