/*
 * The inventory is built where it will be sent from: the rows lie in the memfd that becomes the catalogue, so
 * that a maildrop of a million messages is in memory once. What a row has besides (fingerprint or name) is 16
 * octets or 4 a message.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "inventory.h"

#define PAGE 4096
#define CHUNK (1u << 20)
#define SAMPLES 32
#define SAMPLE_MAX (4u << 20)		/* of larger messages but the last, */
#define SAMPLES_MAX (16u << 20)		/* only so many octets in all are read: of the others what is before and behind them */

bool
room_make(void **at, uint32_t *room, uint64_t want, size_t size)
{
	if (want <= *room)
		return true;
	uint64_t more = want < 64 ? 64 : want + want / 2;
	void *bigger = more > UINT32_MAX ? NULL : realloc(*at, more * size);
	if (bigger == NULL) {
		errno = ENOMEM;
		return false;
	}
	*at = bigger;
	*room = (uint32_t)more;
	return true;
}

static size_t
map_size(uint64_t rows, uint64_t uids)
{
	return sizeof(struct catalogue_header) + rows * sizeof(struct catalogue_row) + uids;
}

static void
map_set(struct inventory *inv, void *at, size_t size)
{
	inv->map = at;
	inv->mapped = size;
	inv->rows = (struct catalogue_row *)(inv->map + 1);
}

struct inventory *
inventory_make(uint32_t rows, uint64_t uids)
{
	struct inventory *inv = calloc(1, sizeof *inv);
	size_t size = map_size(rows, uids);

	if (inv == NULL)
		return NULL;
	if ((inv->memfd = sealed_create("catalogue")) != -1 && ftruncate(inv->memfd, (off_t)size) == 0) {
		void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, inv->memfd, 0);
		if (at != MAP_FAILED) {
			map_set(inv, at, size);
			inv->rows_room = rows;
			inv->uids = (char *)(inv->rows + rows);
			return inv;
		}
	}
	inventory_free(inv);
	return NULL;
}

struct inventory *
inventory_new(void)
{
	return inventory_make(64, 0);
}

/* A parent has no parent: no deeper than two. */
void
inventory_free(struct inventory *inv)	/* NOLINT(misc-no-recursion) */
{
	if (inv == NULL)
		return;
	if (inv->mapped > 0)
		munmap(inv->map, inv->mapped);
	if (inv->memfd != -1)
		close(inv->memfd);
	if (inv->uids_room > 0)
		free(inv->uids);
	inventory_free(inv->parent);
	free(inv->fingerprints);
	free(inv->names);
	free(inv->patterns);
	free(inv->blob);
	free(inv->kept);
	free(inv->table);
	free(inv);
}

uint32_t
inventory_count(const struct inventory *inv)
{
	return inv->count;
}

uint64_t
inventory_octets(const struct inventory *inv)
{
	return inv->octets;
}

const struct catalogue_row *
inventory_row(const struct inventory *inv, uint32_t index)
{
	return &inv->rows[index];
}

/*
 * Gives back the memory of whole pages in [from, to), whose content has been copied. The ids of a million messages are tens of
 * megabytes, and are never there twice. If the kernel will not, then they are.
 */
static void
pages_drop(char *from, char *to, int advice)
{
	uintptr_t start = ((uintptr_t)from + PAGE - 1) & ~(uintptr_t)(PAGE - 1), end = (uintptr_t)to & ~(uintptr_t)(PAGE - 1);

	if (end > start)
		(void)madvise((void *)start, end - start, advice);
}

/* From behind the rows to the heap, bit by bit. */
static void
uids_move(struct inventory *inv, char *to)
{
	for (uint64_t done = 0, n; done < inv->uids_length; done += n) {
		n = inv->uids_length - done < CHUNK ? inv->uids_length - done : CHUNK;
		memcpy(to + done, inv->uids + done, n);
		if (inv->parent == NULL)
			pages_drop(inv->uids + done, inv->uids + done + n, MADV_REMOVE);
	}
}

/* Ids on the heap, with room for more of them. */
static bool
uids_room(struct inventory *inv, size_t more)
{
	uint64_t want = inv->uids_length + more;

	if (want > UINT32_MAX) {
		errno = E2BIG;
		return false;
	}
	if (want <= inv->uids_room)
		return true;
	uint64_t room = want < 4096 ? 4096 : want + want / 2;
	char *at = inv->uids_room > 0 ? realloc(inv->uids, room) : malloc(room);
	if (at == NULL)
		return false;
	if (inv->uids_room == 0)
		uids_move(inv, at);
	inv->uids = at;
	inv->uids_room = room;
	return true;
}

static bool
rows_room(struct inventory *inv)
{
	if (inv->count < inv->rows_room)
		return true;
	uint32_t room = inv->rows_room < 64 ? 128 : inv->rows_room * 2;
	size_t size = map_size(room, 0);
	/* The ids may lie behind the rows yet: out of their way first, and their memory given back. */
	if (!uids_room(inv, 1) || ftruncate(inv->memfd, (off_t)map_size(inv->count, 0)) == -1 ||
	    ftruncate(inv->memfd, (off_t)size) == -1)
		return false;
	void *at = mremap(inv->map, inv->mapped, size, MREMAP_MAYMOVE);
	if (at == MAP_FAILED)
		return false;
	map_set(inv, at, size);
	inv->rows_room = room;
	return true;
}

/* The number of the pattern that `name` is with this id in it, made if need be; UINT32_MAX: it has to be kept whole. */
static uint32_t
pattern_of(struct inventory *inv, const char *name, size_t length, const char *uid, size_t uid_length)
{
	const char *slash = memchr(name, '/', length);
	size_t before = slash == NULL ? 0 : (size_t)(slash + 1 - name);
	struct pattern p = { 0 };

	if (before + uid_length > length || before > sizeof p.before || memcmp(name + before, uid, uid_length) != 0)
		return UINT32_MAX;
	const char *rest = name + before + uid_length;
	size_t after = length - before - uid_length;
	if (after > sizeof p.after || (after > 0 && *rest != ':'))
		return UINT32_MAX;
	memcpy(p.before, name, before);
	memcpy(p.after, rest, after);
	p.before_length = (uint8_t)before;
	p.after_length = (uint8_t)after;
	for (uint32_t i = inv->patterns_count; i-- > 0;)
		if (memcmp(&inv->patterns[i], &p, sizeof p) == 0)
			return i;
	void *patterns = inv->patterns;
	if (inv->patterns_count == PATTERNS_MAX || !room_make(&patterns, &inv->patterns_room, inv->patterns_count + 1, sizeof p))
		return UINT32_MAX;
	inv->patterns = patterns;
	inv->patterns[inv->patterns_count] = p;
	return inv->patterns_count++;
}

static bool
name_set(struct inventory *inv, uint32_t index, const char *name, size_t length, const char *uid, size_t uid_length)
{
	void *names = inv->names, *blob = inv->blob;
	uint16_t stored = (uint16_t)length;

	if (length >= sizeof inv->name) {
		errno = ENAMETOOLONG;
		return false;
	}
	if (!room_make(&names, &inv->names_room, (uint64_t)index + 1, sizeof *inv->names))
		return false;
	inv->names = names;
	uint32_t pattern = pattern_of(inv, name, length, uid, uid_length);
	if (pattern != UINT32_MAX) {
		inv->names[index] = pattern;
		return true;
	}
	if (inv->blob_length + sizeof stored + length >= NAME_WHOLE) {
		errno = E2BIG;
		return false;
	}
	if (!room_make(&blob, &inv->blob_room, inv->blob_length + sizeof stored + length, 1))
		return false;
	inv->blob = blob;
	memcpy(inv->blob + inv->blob_length, &stored, sizeof stored);
	memcpy(inv->blob + inv->blob_length + sizeof stored, name, length);
	inv->names[index] = NAME_WHOLE | inv->blob_length;
	inv->blob_length += (uint32_t)(sizeof stored + length);
	return true;
}

static bool
fingerprint_set(struct inventory *inv, uint32_t index, const uint8_t fingerprint[static FINGERPRINT_SIZE])
{
	void *at = inv->fingerprints;

	if (!room_make(&at, &inv->fingerprints_room, (uint64_t)index + 1, FINGERPRINT_SIZE))
		return false;
	inv->fingerprints = at;
	memcpy(inv->fingerprints[index], fingerprint, FINGERPRINT_SIZE);
	return true;
}

int
inventory_add(struct inventory *inv, const struct inventory_message *m)
{
	if (inv->published || inv->count >= MESSAGES_MAX || m->uid_length == 0 || m->uid_length > UID_MAX) {
		errno = inv->count >= MESSAGES_MAX ? E2BIG : EINVAL;
		return -1;
	}
	if (!rows_room(inv) || !uids_room(inv, m->uid_length))
		return -1;
	if (m->name != NULL ? !name_set(inv, inv->count, m->name, m->name_length, m->uid, m->uid_length) :
	    !fingerprint_set(inv, inv->count, m->fingerprint))
		return -1;
	memcpy(inv->uids + inv->uids_length, m->uid, m->uid_length);
	inv->rows[inv->count] = (struct catalogue_row){ .octets = m->octets, .offset = m->offset, .length = m->length,
	    .uid = (uint32_t)inv->uids_length, .uid_length = (uint32_t)m->uid_length };
	inv->uids_length += m->uid_length;
	inv->octets += m->octets;
	inv->count++;
	return 0;
}

/* The name of a message's file, in inv->name or in the blob. */
static const char *
name_of(struct inventory *inv, uint32_t index, size_t *length)
{
	const struct catalogue_row *r = &inv->rows[index];
	uint32_t name = inv->names[index];

	if (name & NAME_WHOLE) {
		uint16_t stored;
		memcpy(&stored, inv->blob + (name & ~NAME_WHOLE), sizeof stored);
		*length = stored;
		return inv->blob + (name & ~NAME_WHOLE) + sizeof stored;
	}
	const struct pattern *p = &inv->patterns[name];
	memcpy(inv->name, p->before, p->before_length);
	memcpy(inv->name + p->before_length, inv->uids + r->uid, r->uid_length);
	memcpy(inv->name + p->before_length + r->uid_length, p->after, p->after_length);
	*length = (size_t)p->before_length + r->uid_length + p->after_length;
	inv->name[*length] = '\0';
	return inv->name;
}

int
inventory_get(struct inventory *inv, uint32_t index, struct inventory_message *m)
{
	if (index >= inv->count) {
		errno = EINVAL;
		return -1;
	}
	const struct catalogue_row *r = &inv->rows[index];
	*m = (struct inventory_message){ .octets = r->octets, .offset = r->offset, .length = r->length,
	    .uid = inv->uids + r->uid, .uid_length = r->uid_length };
	if (inv->names != NULL) {
		const char *name = name_of(inv, index, &m->name_length);
		if (name != inv->name) {
			memcpy(inv->name, name, m->name_length);
			inv->name[m->name_length] = '\0';
		}
		m->name = inv->name;
	} else if (inv->fingerprints != NULL)
		memcpy(m->fingerprint, inv->fingerprints[index], FINGERPRINT_SIZE);
	return 0;
}

/* The base name of a message's file: what it is found by. */
static const char *
base_of(struct inventory *inv, uint32_t index, size_t *length)
{
	const struct catalogue_row *r = &inv->rows[index];

	if (inv->names == NULL || !(inv->names[index] & NAME_WHOLE)) {
		*length = r->uid_length;
		return inv->uids + r->uid;
	}
	const char *name = name_of(inv, index, length);
	const char *slash = memchr(name, '/', *length);
	if (slash != NULL) {
		*length -= (size_t)(slash + 1 - name);
		name = slash + 1;
	}
	const char *colon = memchr(name, ':', *length);
	if (colon != NULL)
		*length = (size_t)(colon - name);
	return name;
}

#define ORDERED UINT32_MAX

void
inventory_reorder(struct inventory *inv, uint32_t *order, uint32_t count)
{
	/* along each circle of rows that take each other's places; a row is in one of them */
	for (uint32_t i = 0; i < inv->count; i++) {
		if (order[i] == ORDERED)
			continue;
		struct catalogue_row row = inv->rows[i];
		uint32_t name = inv->names != NULL ? inv->names[i] : 0, at = i;
		while (order[at] != i) {
			uint32_t from = order[at];
			inv->rows[at] = inv->rows[from];
			if (inv->names != NULL)
				inv->names[at] = inv->names[from];
			order[at] = ORDERED;
			at = from;
		}
		inv->rows[at] = row;
		if (inv->names != NULL)
			inv->names[at] = name;
		order[at] = ORDERED;
	}
	for (uint32_t i = count; i < inv->count; i++)
		inv->octets -= inv->rows[i].octets;
	inv->count = count;
	free(inv->table);
	inv->table = NULL;
	inv->tabled = 0;
}

/* A power of two of which `count` fills at most two thirds. */
static uint32_t
table_size(uint32_t count)
{
	uint32_t size = 64;

	while ((uint64_t)count * 3 > (uint64_t)size * 2)
		size *= 2;
	return size;
}

/*
 * A slot of a table is an index (24 bits) under 8 bits of the hash, which are never 0: so an empty slot is 0,
 * and hardly ever is a row looked at (two misses of the processor's cache) that is not the one.
 */
_Static_assert(MESSAGES_MAX <= 1u << 24, "an index has 24 bits");

static uint32_t
slot_tag(uint64_t hash)
{
	return (uint32_t)(hash >> 56 | 1) << 24;
}

static uint32_t
slot_index(uint32_t slot)
{
	return slot & 0xffffff;
}

/* *hash is what the base name's hash is; returns where it is, or the empty slot where it would be. */
static uint32_t *
find_slot(struct inventory *inv, const char *base, size_t length, uint64_t *hash)
{
	*hash = XXH3_64bits(base, length);
	for (uint32_t i = (uint32_t)*hash & inv->table_mask;; i = (i + 1) & inv->table_mask) {
		size_t other_length;
		if (inv->table[i] == 0)
			return &inv->table[i];
		if ((inv->table[i] & 0xff000000) != slot_tag(*hash))
			continue;
		const char *other = base_of(inv, slot_index(inv->table[i]), &other_length);
		if (other_length == length && memcmp(other, base, length) == 0)
			return &inv->table[i];
	}
}

uint32_t
inventory_find(struct inventory *inv, const char *base, size_t length)
{
	uint32_t size = table_size(inv->count);
	uint64_t hash;

	if (inv->table == NULL || size - 1 > inv->table_mask) {
		free(inv->table);
		inv->tabled = 0;
		if ((inv->table = calloc(size, sizeof *inv->table)) == NULL)
			return UINT32_MAX;
		inv->table_mask = size - 1;
	}
	for (; inv->tabled < inv->count; inv->tabled++) {
		size_t n;
		const char *at = base_of(inv, inv->tabled, &n);
		uint32_t *slot = find_slot(inv, at, n, &hash);
		if (*slot == 0)
			*slot = slot_tag(hash) | inv->tabled;
	}
	uint32_t slot = *find_slot(inv, base, length, &hash);
	return slot == 0 ? UINT32_MAX : slot_index(slot);
}

uint32_t
inventory_count_in(const struct inventory *inv, char first)
{
	uint32_t count = 0;

	for (uint32_t i = 0; inv->names != NULL && i < inv->count; i++) {
		uint32_t name = inv->names[i];
		const char *at = (name & NAME_WHOLE) != 0 ? inv->blob + (name & ~NAME_WHOLE) + sizeof(uint16_t) : inv->patterns[name].before;
		count += *at == first;
	}
	return count;
}

bool
inventory_is_named(struct inventory *inv, uint32_t index, const char *name, size_t length)
{
	const struct catalogue_row *r = &inv->rows[index];

	if (inv->names[index] & NAME_WHOLE) {
		size_t n;
		const char *at = name_of(inv, index, &n);
		return n == length && memcmp(at, name, n) == 0;
	}
	const struct pattern *p = &inv->patterns[inv->names[index]];
	return length == (size_t)p->before_length + r->uid_length + p->after_length &&
	    memcmp(name, p->before, p->before_length) == 0 &&
	    memcmp(name + p->before_length, inv->uids + r->uid, r->uid_length) == 0 &&
	    memcmp(name + length - p->after_length, p->after, p->after_length) == 0;
}

static bool
read_all(int fd, char *to, size_t length, uint64_t offset)
{
	while (length > 0) {
		ssize_t n = pread(fd, to, length, (off_t)offset);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		to += n;
		length -= (size_t)n;
		offset += (uint64_t)n;
	}
	return true;
}

/* Is a message that ends at `end`, and is not the last, followed by the From_ line of the next? */
static bool
still_ends(int fd, uint64_t end)
{
	char after[9];
	size_t at = 0;

	if (!read_all(fd, after, sizeof after, end))
		return false;
	while (at < sizeof after - 5 && (after[at] == '\r' || after[at] == '\n'))
		at++;
	return memcmp(after + at, "From ", 5) == 0;
}

/* Does message `index` lie where it was, at the start of a line, with the content that it had? *most: what may be read of large ones. */
static bool
still_there(struct inventory *inv, int fd, uint32_t index, struct content_hash *h, char *buffer, size_t size, uint64_t *most)
{
	const struct catalogue_row *r = &inv->rows[index];
	uint8_t fingerprint[FINGERPRINT_SIZE];
	char before;

	if (r->offset == 0 || !read_all(fd, &before, 1, r->offset - 1) || before != '\n')
		return false;
	if (index + 1 < inv->count && !still_ends(fd, r->offset + r->length))
		return false;
	if (index + 1 < inv->count && r->length > SAMPLE_MAX) {
		if (r->length > *most)
			return true;
		*most -= r->length;
	}
	content_begin(h);
	for (uint64_t done = 0; done < r->length;) {
		size_t n = r->length - done < size ? (size_t)(r->length - done) : size;
		if (!read_all(fd, buffer, n, r->offset + done))
			return false;
		content_add(h, buffer, n);
		done += n;
	}
	content_end(h, fingerprint);
	return memcmp(fingerprint, inv->fingerprints[index], FINGERPRINT_SIZE) == 0;
}

bool
inventory_holds(struct inventory *inv, int fd)
{
	const size_t size = 65536;
	struct content_hash *h = content_new();
	char *buffer = malloc(size);
	struct timespec now;
	uint64_t most = SAMPLES_MAX;
	bool holds = h != NULL && buffer != NULL && (inv->count == 0 || inv->fingerprints != NULL);

	/* Another sample each time: what one misses the next finds. */
	clock_gettime(CLOCK_REALTIME, &now);
	uint64_t random = XXH3_64bits(&now, sizeof now);
	for (uint32_t i = 0; holds && i < SAMPLES && i < inv->count; i++) {
		uint32_t index = i == 0 ? inv->count - 1 : i == 1 ? 0 : (uint32_t)(random % inv->count);
		holds = still_there(inv, fd, index, h, buffer, size, &most);
		random = random * 6364136223846793005u + 1442695040888963407u;
		random ^= random >> 29;
	}
	free(h);
	free(buffer);
	return holds;
}

void
inventory_inherit(struct inventory *inv)
{
	inv->inherited = inv->count;
}

uint32_t
inventory_inherited(const struct inventory *inv)
{
	return inv->inherited;
}

/* Gives a row another id. */
static bool
uid_set(struct inventory *inv, uint32_t index, const char *uid, size_t length)
{
	struct catalogue_row *r = &inv->rows[index];

	if (r->uid_length == length && memcmp(inv->uids + r->uid, uid, length) == 0)
		return true;
	/* The file's name was told by the id: it no longer is. */
	if (inv->names != NULL && !(inv->names[index] & NAME_WHOLE)) {
		size_t n;
		char name[sizeof inv->name];
		memcpy(name, name_of(inv, index, &n), sizeof name);
		if (!name_set(inv, index, name, n, uid, length))
			return false;
	}
	if (!uids_room(inv, length))
		return false;
	memcpy(inv->uids + inv->uids_length, uid, length);
	r->uid = (uint32_t)inv->uids_length;
	r->uid_length = (uint32_t)length;
	inv->uids_length += length;
	if (index < inv->stored)
		inv->stored = 0;
	return true;
}

/*
 * Where a fingerprint is in the table of `old`: the slot has the first row with it that is not taken yet.
 * TAKEN: all of them are.
 */
#define TAKEN 0x80000000u
static uint32_t *
fingerprint_slot(struct inventory *old, uint32_t *table, uint32_t mask, const uint8_t *fingerprint)
{
	uint32_t i;

	memcpy(&i, fingerprint, sizeof i);
	for (i &= mask;; i = (i + 1) & mask)
		if (table[i] == 0 || memcmp(old->fingerprints[(table[i] & ~TAKEN) - 1], fingerprint, FINGERPRINT_SIZE) == 0)
			return &table[i];
}

int
inventory_remember(struct inventory *inv, struct inventory *old)
{
	uint32_t size = table_size(old->count);
	uint32_t *table, *next;

	if (old->count == 0 || inv->count == 0 || old->fingerprints == NULL || inv->fingerprints == NULL)
		return 0;
	table = calloc(size, sizeof *table);
	next = calloc(old->count, sizeof *next);
	free(inv->kept);
	inv->kept = calloc((inv->count + 7) / 8, 1);
	int rc = table == NULL || next == NULL || inv->kept == NULL ? -1 : 0;
	/* From the end, so that twins are found in the order in which they lie. */
	for (uint32_t i = old->count; rc == 0 && i-- > 0;) {
		uint32_t *slot = fingerprint_slot(old, table, size - 1, old->fingerprints[i]);
		next[i] = *slot;
		*slot = i + 1;
	}
	for (uint32_t i = 0; rc == 0 && i < inv->count; i++) {
		uint32_t *slot = fingerprint_slot(old, table, size - 1, inv->fingerprints[i]);
		if (*slot == 0 || (*slot & TAKEN) != 0)
			continue;
		const struct catalogue_row *r = &old->rows[*slot - 1];
		if (!uid_set(inv, i, old->uids + r->uid, r->uid_length))
			rc = -1;
		inv->kept[i / 8] |= (uint8_t)(1u << i % 8);
		*slot = next[*slot - 1] != 0 ? next[*slot - 1] : *slot | TAKEN;
	}
	free(table);
	free(next);
	return rc;
}

/* How many twins of an id there have been: by a hash of it, as a mistake only costs a number. */
struct ordinals {
	struct ordinal {
		uint64_t id;
		uint32_t next;		/* 0: an empty slot */
	} *slots;
	uint32_t mask;
	uint32_t count;
};

static struct ordinal *
ordinal_slot(struct ordinals *o, uint64_t id)
{
	for (uint32_t i = (uint32_t)id & o->mask;; i = (i + 1) & o->mask)
		if (o->slots[i].next == 0 || o->slots[i].id == id)
			return &o->slots[i];
}

static struct ordinal *
ordinal_of(struct ordinals *o, const char *uid, size_t length)
{
	if (o->slots == NULL || o->count * 2 > o->mask) {
		struct ordinals more = { .mask = o->slots == NULL ? 63 : o->mask * 2 + 1, .count = o->count };
		if ((more.slots = calloc((size_t)more.mask + 1, sizeof *more.slots)) == NULL)
			return NULL;
		for (uint32_t i = 0; o->slots != NULL && i <= o->mask; i++)
			if (o->slots[i].next != 0)
				*ordinal_slot(&more, o->slots[i].id) = o->slots[i];
		free(o->slots);
		*o = more;
	}
	uint64_t id = XXH3_64bits(uid, length);
	struct ordinal *slot = ordinal_slot(o, id);
	if (slot->next == 0) {
		*slot = (struct ordinal){ .id = id, .next = 2 };
		o->count++;
	}
	return slot;
}

/* The length of what an ordinal (".2" and up) was put behind, and the number; 0 if the id has none. */
static size_t
ordinal_parse(const char *uid, size_t length, uint32_t *number)
{
	size_t digits = 0;

	while (digits < length && uid[length - 1 - digits] >= '0' && uid[length - 1 - digits] <= '9')
		digits++;
	if (digits == 0 || digits > 7 || digits + 1 >= length || uid[length - 1 - digits] != '.' || uid[length - digits] == '0')
		return 0;
	*number = 0;
	for (size_t i = length - digits; i < length; i++)
		*number = *number * 10 + (uint32_t)(uid[i] - '0');
	return length - digits - 1;
}

/*
 * The ids that are given, as far as they matter: of those that were settled before, the ones that a new message
 * may be asking for. `wanted` is a bit for each hash that one does ask for, so that ten new messages in a
 * maildrop of 100,000 cost a look at each old id and no table of them.
 */
struct ids {
	uint32_t *table;
	uint32_t mask;
	uint64_t *wanted;	/* NULL: there is nothing old to choose from */
	uint32_t wanted_mask;
};

static bool
is_wanted(const struct ids *t, uint64_t hash)
{
	uint32_t bit = (uint32_t)(hash >> 32) & t->wanted_mask;

	return (t->wanted[bit / 64] >> bit % 64 & 1) != 0;
}

/* As find_slot(), by id. */
static uint32_t *
id_slot(const struct inventory *inv, struct ids *t, const char *uid, size_t length, uint64_t hash)
{
	for (uint32_t i = (uint32_t)hash & t->mask;; i = (i + 1) & t->mask) {
		if (t->table[i] == 0)
			return &t->table[i];
		if ((t->table[i] & 0xff000000) != slot_tag(hash))
			continue;
		const struct catalogue_row *r = &inv->rows[slot_index(t->table[i])];
		if (r->uid_length == length && memcmp(inv->uids + r->uid, uid, length) == 0)
			return &t->table[i];
	}
}

/* A row whose id was asked for: that id if it is free and never was a twin's, else the next number of it. */
static bool
row_settle(struct inventory *inv, struct ids *t, struct ordinals *o, uint32_t index)
{
	char uid[UID_MAX + 16];
	size_t length = inv->rows[index].uid_length;

	memcpy(uid, inv->uids + inv->rows[index].uid, length);
	uint64_t hash = XXH3_64bits(uid, length);
	uint32_t *slot = id_slot(inv, t, uid, length, hash);
	bool was_twin = o->slots != NULL && ordinal_slot(o, hash)->next != 0;
	if (*slot == 0 && !was_twin) {
		*slot = slot_tag(hash) | index;
		return true;
	}
	struct ordinal *n = ordinal_of(o, uid, length);
	if (n == NULL)
		return false;
	size_t base = length < UID_MAX - 8 ? length : UID_MAX - 8;
	do {
		length = base + (size_t)snprintf(uid + base, 16, ".%u", n->next++);
		hash = XXH3_64bits(uid, length);
		slot = id_slot(inv, t, uid, length, hash);
	} while (*slot != 0);
	*slot = slot_tag(hash) | index;
	return uid_set(inv, index, uid, length);
}

static bool
row_is_kept(const struct inventory *inv, uint32_t index)
{
	return index < inv->settled || (inv->kept != NULL && (inv->kept[index / 8] >> index % 8 & 1) != 0);
}

/* Which ids are asked for. */
static bool
wanted_mark(struct inventory *inv, struct ids *t, uint32_t new)
{
	uint32_t bits = table_size(new) * 64;

	if (new == inv->count)
		return true;
	if ((t->wanted = calloc(bits / 64, sizeof *t->wanted)) == NULL)
		return false;
	t->wanted_mask = bits - 1;
	for (uint32_t i = inv->settled; i < inv->count; i++)
		if (!row_is_kept(inv, i)) {
			const struct catalogue_row *r = &inv->rows[i];
			uint32_t bit = (uint32_t)(XXH3_64bits(inv->uids + r->uid, r->uid_length) >> 32) & t->wanted_mask;
			t->wanted[bit / 64] |= (uint64_t)1 << bit % 64;
		}
	return true;
}

/*
 * An id that was given before: into the table if somebody asks for it; and if it has an ordinal to an id that
 * somebody asks for, that number is used up.
 */
static bool
old_note(struct inventory *inv, struct ids *t, struct ordinals *o, uint32_t index)
{
	const struct catalogue_row *r = &inv->rows[index];
	const char *uid = inv->uids + r->uid;
	uint32_t number;

	uint64_t hash = XXH3_64bits(uid, r->uid_length);
	if (is_wanted(t, hash))
		*id_slot(inv, t, uid, r->uid_length, hash) = slot_tag(hash) | index;
	size_t base = ordinal_parse(uid, r->uid_length, &number);
	if (base == 0 || !is_wanted(t, XXH3_64bits(uid, base)))
		return true;
	struct ordinal *n = ordinal_of(o, uid, base);
	if (n != NULL && n->next <= number)
		n->next = number + 1;
	return n != NULL;
}

static bool
ids_settle(struct inventory *inv)
{
	struct ids t = { .mask = table_size(inv->count) - 1 };
	struct ordinals o = { 0 };
	uint32_t new = 0;

	for (uint32_t i = inv->settled; i < inv->count; i++)
		new += !row_is_kept(inv, i);
	if (new > 0) {
		free(inv->table);
		inv->table = NULL;
		t.table = calloc((size_t)t.mask + 1, sizeof *t.table);
	}
	bool done = new == 0 || (t.table != NULL && wanted_mark(inv, &t, new));
	for (uint32_t i = 0; done && t.wanted != NULL && i < inv->count; i++)
		done = !row_is_kept(inv, i) || old_note(inv, &t, &o, i);
	for (uint32_t i = inv->settled; done && new > 0 && i < inv->count; i++)
		done = row_is_kept(inv, i) || row_settle(inv, &t, &o, i);
	free(t.table);
	free(t.wanted);
	free(o.slots);
	free(inv->kept);
	inv->kept = NULL;
	inv->settled = inv->count;
	return done;
}

static bool
write_all(int fd, const char *from, size_t length, uint64_t offset)
{
	while (length > 0) {
		ssize_t n = pwrite(fd, from, length, (off_t)offset);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		from += n;
		length -= (size_t)n;
		offset += (uint64_t)n;
	}
	return true;
}

/* From the heap to behind the rows, bit by bit. */
static bool
uids_write(struct inventory *inv, uint64_t offset)
{
	for (uint64_t done = 0, n; done < inv->uids_length; done += n) {
		n = inv->uids_length - done < CHUNK ? inv->uids_length - done : CHUNK;
		if (!write_all(inv->memfd, inv->uids + done, n, offset + done))
			return false;
		if (inv->uids_room > 0)
			pages_drop(inv->uids + done, inv->uids + done + n, MADV_DONTNEED);
	}
	return true;
}

/* Puts the ids behind the rows, unless they are there, and seals it all. */
static bool
catalogue_seal(struct inventory *inv)
{
	size_t size = map_size(inv->count, inv->uids_length);
	size_t ids = size - inv->uids_length;

	*inv->map = (struct catalogue_header){ .magic = CATALOGUE_MAGIC, .count = inv->count, .octets = inv->octets,
	    .uids_length = inv->uids_length };
	bool inside = inv->uids_room == 0 && inv->uids == (char *)inv->map + ids;
	if (ftruncate(inv->memfd, (off_t)size) == -1 || (!inside && !uids_write(inv, ids)))
		return false;
	munmap(inv->map, inv->mapped);
	inv->mapped = 0;
	if (inv->uids_room > 0)
		free(inv->uids);
	inv->uids_room = 0;
	if (sealed_finish(inv->memfd) == -1)
		return false;
	/* Private: before Linux 6.7 a sealed memfd could not be mapped shared, not even for reading. */
	void *at = mmap(NULL, size, PROT_READ, MAP_PRIVATE, inv->memfd, 0);
	if (at == MAP_FAILED)
		return false;
	map_set(inv, at, size);
	inv->uids = (char *)(inv->rows + inv->count);
	return true;
}

int
inventory_publish(struct inventory *inv)
{
	if (!inv->published && (!ids_settle(inv) || !catalogue_seal(inv)))
		return -1;
	inv->published = true;
	return fcntl(inv->memfd, F_DUPFD_CLOEXEC, 3);
}

uint64_t
inventory_keep(struct inventory *inv, uint64_t most)
{
	if (!inv->published)
		return 0;
	free(inv->table);
	inv->table = NULL;
	inv->tabled = 0;
	uint64_t octets = sizeof *inv + inv->mapped + (uint64_t)inv->fingerprints_room * FINGERPRINT_SIZE +
	    (uint64_t)inv->names_room * sizeof *inv->names + (uint64_t)inv->patterns_room * sizeof *inv->patterns + inv->blob_room;
	return octets <= most ? octets : 0;
}

struct inventory *
inventory_without(struct inventory *inv, const uint8_t *gone)
{
	struct inventory *left = calloc(1, sizeof *left);
	size_t size = map_size(inv->count, 0);
	void *at = left == NULL ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED) {
		free(left);
		errno = ENOMEM;
		return NULL;
	}
	/* All but the rows is taken over; the ids stay where pop3d reads them too. */
	*left = *inv;
	left->parent = inv;
	left->memfd = -1;
	left->published = false;
	left->count = left->stored = left->tabled = left->inherited = 0;
	left->octets = 0;
	left->uids_room = 0;
	left->table = NULL;
	inv->fingerprints = NULL;
	inv->names = NULL;
	inv->patterns = NULL;
	inv->blob = NULL;
	map_set(left, at, size);
	left->rows_room = inv->count;
	for (uint32_t i = 0; i < inv->count; i++) {
		if (gone[i] != 0)
			continue;
		left->rows[left->count] = inv->rows[i];
		if (left->fingerprints != NULL)
			memmove(left->fingerprints[left->count], left->fingerprints[i], FINGERPRINT_SIZE);
		if (left->names != NULL)
			left->names[left->count] = left->names[i];
		left->octets += inv->rows[i].octets;
		left->inherited += i < inv->inherited;
		left->count++;
	}
	left->settled = left->count;
	return left;
}

static void
blob_compact(struct inventory *inv)
{
	uint32_t length = 0;
	char *blob = malloc(inv->blob_length);

	for (uint32_t i = 0; blob != NULL && i < inv->count; i++) {
		uint16_t n;
		if (!(inv->names[i] & NAME_WHOLE))
			continue;
		const char *from = inv->blob + (inv->names[i] & ~NAME_WHOLE);
		memcpy(&n, from, sizeof n);
		memcpy(blob + length, from, sizeof n + n);
		inv->names[i] = NAME_WHOLE | length;
		length += (uint32_t)sizeof n + n;
	}
	if (blob == NULL)
		return;
	free(inv->blob);
	inv->blob = blob;
	inv->blob_room = inv->blob_length;
	inv->blob_length = length;
}

void
names_compact(struct inventory *inv)
{
	uint32_t number[PATTERNS_MAX], left = 0;

	if (inv->names == NULL)
		return;
	memset(number, 0, sizeof number);
	for (uint32_t i = 0; i < inv->count; i++)
		if (!(inv->names[i] & NAME_WHOLE))
			number[inv->names[i]] = 1;
	for (uint32_t i = 0; i < inv->patterns_count; i++)
		if (number[i] != 0) {
			inv->patterns[left] = inv->patterns[i];
			number[i] = left++;
		}
	inv->patterns_count = left;
	for (uint32_t i = 0; i < inv->count; i++)
		if (!(inv->names[i] & NAME_WHOLE))
			inv->names[i] = number[inv->names[i]];
	if (inv->blob_length > 0)
		blob_compact(inv);
	inv->stored = 0;
}

int
inventory_change(struct inventory *inv, uint32_t index, const struct inventory_message *m)
{
	if (index >= inv->count || inv->published) {
		errno = EINVAL;
		return -1;
	}
	struct catalogue_row *r = &inv->rows[index];
	if (m->name != NULL && !name_set(inv, index, m->name, m->name_length, inv->uids + r->uid, r->uid_length))
		return -1;
	inv->octets += m->octets - r->octets;
	r->octets = m->octets;
	r->offset = m->offset;
	r->length = m->length;
	if (index < inv->stored)
		inv->stored = 0;
	return 0;
}
