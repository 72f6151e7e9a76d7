/*
 * The cache's file: two slots, then data.
 *
 * Data is written once and not touched while a slot speaks of it. A slot names the pieces (segments) that make
 * up an inventory, with a checksum each, the stamps it was true for, and a generation; it has a checksum of its
 * own. A store writes its data where no valid slot has any, then the older slot; so whatever is interrupted
 * leaves the newer slot as it was. Nothing is synced: what a power cut tears does not match its checksum, and
 * the other slot, or a scan, is used.
 *
 * A lock (the kernel's, of this open file) keeps a second writer out: it works without a cache. All numbers are
 * in this host's byte order: a file from another kind of host has another magic number.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "inventory.h"

#define CACHE_MAGIC	0x504f535443414348u
#define CACHE_VERSION	1u
#define SEGMENTS_MAX	16
#define SLOT_SIZE	4096		/* what is set aside for one */
#define DATA_START	(2 * SLOT_SIZE)
#define CHECK_SIZE	16
#define NS		1000000000

/* In this order: rows, ids, fingerprints or (names, patterns, blob). */
struct segment {
	uint64_t offset;
	uint64_t uids_length;
	uint32_t count;
	uint32_t patterns;
	uint32_t blob_length;
	uint32_t fingerprints;		/* 0 or count */
	uint32_t names;			/* 0 or count */
	uint32_t zero;
	uint8_t check[CHECK_SIZE];
};

struct slot {
	uint64_t magic;
	uint32_t version;
	uint32_t kind;
	uint64_t generation;
	uint64_t context;
	struct stamp stamps[2];
	uint32_t segments_count;
	uint32_t inherited;		/* inventory_inherited() and 1; 0: of a version that did not say, so all are */
	struct segment segments[SEGMENTS_MAX];
	uint8_t check[CHECK_SIZE];
};
_Static_assert(sizeof(struct slot) <= SLOT_SIZE, "a slot does not fit");

struct cache {
	int fd;				/* -1: there is no cache */
	enum maildrop_kind kind;
	uint64_t context;
	struct slot slots[2];
	int current;			/* the slot that was loaded; -1: none */
	struct stamp none;
	struct inventory *loaded;	/* whose `stored` counts for the current slot; never dereferenced */
};

/* Filesystems whose times are another host's clock: how far that may be off. */
static int64_t
clock_doubt(int fd)
{
	static const uint32_t networks[] = { 0x6969 /* NFS */, 0x517b /* SMB */, 0xfe534d42 /* SMB2 */, 0xff534d42 /* CIFS */,
		0x65735546 /* FUSE */, 0x00c36400 /* Ceph */, 0x5346414f /* AFS */, 0x6b414653 /* kAFS */, 0x01021997 /* 9P */ };
	struct statfs fs;

	if (fstatfs(fd, &fs) == -1)
		return 600 * (int64_t)NS;
	for (size_t i = 0; i < sizeof networks / sizeof *networks; i++)
		if ((uint32_t)fs.f_type == networks[i])
			return 600 * (int64_t)NS;
	return 0;
}

int
stamp_take(struct stamp *s, int fd)
{
	struct stat st;
	struct timespec now;

	*s = (struct stamp){ 0 };
	/* The clock before the file: what is changed after this moment is newer than `taken`. */
	if (clock_gettime(CLOCK_REALTIME, &now) == -1 || fstat(fd, &st) == -1)
		return -1;
	s->device = st.st_dev;
	s->inode = st.st_ino;
	s->size = (uint64_t)st.st_size;
	s->mtime = (int64_t)st.st_mtim.tv_sec * NS + st.st_mtim.tv_nsec;
	s->ctime = (int64_t)st.st_ctim.tv_sec * NS + st.st_ctim.tv_nsec;
	s->taken = (int64_t)now.tv_sec * NS + now.tv_nsec - clock_doubt(fd);
	return 0;
}

/*
 * Racy: changed so shortly before it was looked at that a later change could have the same time. The kernel's
 * times step by up to 10 ms; a time without a fraction is likely from a filesystem that has only seconds, or
 * two.
 */
static bool
racy(int64_t changed, int64_t taken)
{
	int64_t step = changed % NS == 0 ? 2 * (int64_t)NS : NS / 20;

	return changed > taken - step;
}

enum stamp_verdict
stamp_compare(const struct stamp *then, const struct stamp *now)
{
	if (then->inode == 0 || then->device != now->device || then->inode != now->inode)
		return STAMP_CHANGED;
	if (then->size == now->size && then->mtime == now->mtime && then->ctime == now->ctime &&
	    !racy(then->mtime, then->taken) && !racy(then->ctime, then->taken))
		return STAMP_SAME;
	return now->size > then->size ? STAMP_GROWN : STAMP_CHANGED;
}

static bool
read_at(int fd, void *to, size_t length, uint64_t offset)
{
	char *at = to;

	while (length > 0) {
		ssize_t n = pread(fd, at, length, (off_t)offset);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += n;
		length -= (size_t)n;
		offset += (uint64_t)n;
	}
	return true;
}

static void
check_of(const void *data, size_t length, uint8_t check[static CHECK_SIZE])
{
	XXH128_canonical_t c;

	XXH128_canonicalFromHash(&c, XXH3_128bits(data, length));
	memcpy(check, c.digest, CHECK_SIZE);
}

static void
slot_check(const struct slot *s, uint8_t check[static CHECK_SIZE])
{
	check_of(s, offsetof(struct slot, check), check);
}

static uint64_t
segment_length(const struct segment *g)
{
	return (uint64_t)g->count * sizeof(struct catalogue_row) + g->uids_length + (uint64_t)g->fingerprints * FINGERPRINT_SIZE +
	    (uint64_t)g->names * sizeof(uint32_t) + (uint64_t)g->patterns * sizeof(struct pattern) + g->blob_length;
}

/* Is it a slot of ours, whole, and could its segments lie in a file of this size? */
static bool
slot_sound(const struct cache *c, const struct slot *s, uint64_t size)
{
	uint8_t check[CHECK_SIZE];
	uint64_t count = 0, uids = 0;

	slot_check(s, check);
	if (s->magic != CACHE_MAGIC || s->version != CACHE_VERSION || memcmp(check, s->check, CHECK_SIZE) != 0 ||
	    s->kind != c->kind || s->context != c->context || s->segments_count > SEGMENTS_MAX)
		return false;
	for (uint32_t i = 0; i < s->segments_count; i++) {
		const struct segment *g = &s->segments[i];
		count += g->count;
		uids += g->uids_length;
		if (g->uids_length > UINT32_MAX || g->offset < DATA_START || g->offset > size ||
		    segment_length(g) > size - g->offset || (g->fingerprints != 0 && g->fingerprints != g->count) ||
		    (g->names != 0 && g->names != g->count))
			return false;
	}
	return count <= MESSAGES_MAX && uids <= UINT32_MAX;
}

struct cache *
cache_open(int fd, enum maildrop_kind kind, uint64_t context)
{
	struct cache *c = calloc(1, sizeof *c);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct stat st;

	if (c == NULL)
		return NULL;
	c->fd = -1;
	c->kind = kind;
	c->context = context;
	c->current = -1;
	if (fd == -1 || fstat(fd, &st) == -1 || !S_ISREG(st.st_mode) || fcntl(fd, F_OFD_SETLK, &lock) == -1)
		return c;
	c->fd = fd;
	for (int i = 0; i < 2; i++)
		if (!read_at(fd, &c->slots[i], sizeof c->slots[i], (uint64_t)i * SLOT_SIZE) ||
		    !slot_sound(c, &c->slots[i], (uint64_t)st.st_size))
			c->slots[i] = (struct slot){ 0 };
	return c;
}

void
cache_close(struct cache *c)
{
	struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	if (c == NULL)
		return;
	if (c->fd != -1)
		(void)fcntl(c->fd, F_OFD_SETLK, &lock);
	free(c);
}

const struct stamp *
cache_stamp(const struct cache *c, unsigned which)
{
	return c->current == -1 || which > 1 ? &c->none : &c->slots[c->current].stamps[which];
}

/* Reads and checks a segment, piece by piece, each to where it belongs. */
struct reading {
	int fd;
	uint64_t at;
	XXH3_state_t *sum;
	bool failed;
};

static void
piece_read(struct reading *r, void *to, size_t length)
{
	if (r->failed || length == 0)
		return;
	r->failed = !read_at(r->fd, to, length, r->at);
	if (!r->failed)
		XXH3_128bits_update(r->sum, to, length);
	r->at += length;
}

static bool
arrays_make(struct inventory *inv, const struct slot *s)
{
	uint64_t fingerprints = 0, names = 0, patterns = 0, blob = 0;
	void *f = NULL, *n = NULL, *p = NULL, *b = NULL;

	for (uint32_t i = 0; i < s->segments_count; i++) {
		fingerprints += s->segments[i].fingerprints;
		names += s->segments[i].names;
		patterns += s->segments[i].patterns;
		blob += s->segments[i].blob_length;
	}
	bool made = room_make(&f, &inv->fingerprints_room, fingerprints, FINGERPRINT_SIZE) &&
	    room_make(&n, &inv->names_room, names, sizeof *inv->names) &&
	    room_make(&p, &inv->patterns_room, patterns, sizeof *inv->patterns) &&
	    blob < NAME_WHOLE && room_make(&b, &inv->blob_room, blob, 1);
	inv->fingerprints = f;
	inv->names = n;
	inv->patterns = p;
	inv->blob = b;
	/* A message has one or the other. */
	return made && (fingerprints == 0 || names == 0) && patterns <= PATTERNS_MAX;
}

static bool
segment_read(struct inventory *inv, int fd, const struct segment *g, XXH3_state_t *sum)
{
	struct reading r = { .fd = fd, .at = g->offset, .sum = sum };
	XXH128_canonical_t check;

	XXH3_128bits_reset(sum);
	piece_read(&r, inv->rows + inv->count, g->count * sizeof *inv->rows);
	piece_read(&r, inv->uids + inv->uids_length, g->uids_length);
	piece_read(&r, inv->fingerprints == NULL ? NULL : inv->fingerprints[inv->count], (size_t)g->fingerprints * FINGERPRINT_SIZE);
	piece_read(&r, inv->names == NULL ? NULL : inv->names + inv->count, g->names * sizeof *inv->names);
	piece_read(&r, inv->patterns == NULL ? NULL : inv->patterns + inv->patterns_count, g->patterns * sizeof *inv->patterns);
	piece_read(&r, inv->blob == NULL ? NULL : inv->blob + inv->blob_length, g->blob_length);
	XXH128_canonicalFromHash(&check, XXH3_128bits_digest(sum));
	if (r.failed || memcmp(check.digest, g->check, CHECK_SIZE) != 0)
		return false;
	inv->count += g->count;
	inv->uids_length += g->uids_length;
	inv->patterns_count += g->patterns;
	inv->blob_length += g->blob_length;
	return true;
}

static bool
name_sound(const struct inventory *inv, uint32_t name)
{
	uint16_t length;

	if (!(name & NAME_WHOLE))
		return name < inv->patterns_count && inv->patterns[name].before_length <= sizeof inv->patterns->before &&
		    inv->patterns[name].after_length <= sizeof inv->patterns->after;
	name &= ~NAME_WHOLE;
	if (inv->blob_length < sizeof length || name > inv->blob_length - sizeof length)
		return false;
	memcpy(&length, inv->blob + name, sizeof length);
	return length < sizeof inv->name && length <= inv->blob_length - sizeof length - name;
}

/* Whatever the checksum says: nothing in it may lead outside. */
static bool
inventory_sound(struct inventory *inv)
{
	uint64_t octets = 0;

	for (uint32_t i = 0; i < inv->count; i++) {
		const struct catalogue_row *r = &inv->rows[i];
		if (r->uid_length == 0 || r->uid_length > UID_MAX || r->uid > inv->uids_length ||
		    r->uid_length > inv->uids_length - r->uid || r->offset > INT64_MAX || r->length > INT64_MAX - r->offset ||
		    __builtin_add_overflow(octets, r->octets, &octets) || (inv->names != NULL && !name_sound(inv, inv->names[i])))
			return false;
	}
	inv->octets = octets;
	return true;
}

static struct inventory *
slot_load(const struct cache *c, const struct slot *s)
{
	uint64_t count = 0, uids = 0;
	struct inventory *inv;
	XXH3_state_t *sum;

	for (uint32_t i = 0; i < s->segments_count; i++) {
		count += s->segments[i].count;
		uids += s->segments[i].uids_length;
	}
	if ((inv = inventory_make((uint32_t)count, uids)) == NULL)
		return NULL;
	sum = XXH3_createState();
	bool sound = sum != NULL && arrays_make(inv, s);
	for (uint32_t i = 0; sound && i < s->segments_count; i++)
		sound = segment_read(inv, c->fd, &s->segments[i], sum);
	XXH3_freeState(sum);
	if (!sound || !inventory_sound(inv)) {
		inventory_free(inv);
		return NULL;
	}
	inv->settled = inv->stored = inv->count;
	inv->inherited = s->inherited == 0 || s->inherited - 1 > inv->count ? inv->count : s->inherited - 1;
	inv->stored_uids = inv->uids_length;
	inv->stored_patterns = inv->patterns_count;
	inv->stored_blob = inv->blob_length;
	return inv;
}

struct inventory *
cache_load(struct cache *c)
{
	int newer = c->slots[1].generation > c->slots[0].generation;

	for (int i = 0; c->fd != -1 && i < 2; i++) {
		int which = i == 0 ? newer : !newer;
		if (c->slots[which].generation == 0)
			continue;
		struct inventory *inv = slot_load(c, &c->slots[which]);
		if (inv != NULL) {
			c->current = which;
			c->loaded = inv;
			return inv;
		}
		c->slots[which] = (struct slot){ 0 };
	}
	return NULL;
}

/* Writing through a buffer, summing up what is written. */
struct writing {
	int fd;
	uint64_t at;
	XXH3_state_t *sum;
	size_t used;
	int error;
	char buffer[65536];
};

static void
buffer_flush(struct writing *w)
{
	const char *from = w->buffer;

	XXH3_128bits_update(w->sum, from, w->used);
	while (w->used > 0 && w->error == 0) {
		ssize_t n = pwrite(w->fd, from, w->used, (off_t)w->at);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			w->error = n == 0 ? ENOSPC : errno;
			break;
		}
		from += n;
		w->used -= (size_t)n;
		w->at += (uint64_t)n;
	}
	w->used = 0;
}

static void
piece_write(struct writing *w, const void *from, size_t length)
{
	const char *at = from;

	while (length > 0 && w->error == 0) {
		size_t n = sizeof w->buffer - w->used < length ? sizeof w->buffer - w->used : length;
		memcpy(w->buffer + w->used, at, n);
		w->used += n;
		at += n;
		length -= n;
		if (w->used == sizeof w->buffer)
			buffer_flush(w);
	}
}

/*
 * The rows from `first` on, with their ids one after the other from `uids` on: gaps that replaced ids and
 * removed messages left are closed.
 */
static void
rows_write(struct writing *w, const struct inventory *inv, uint32_t first, uint64_t uids)
{
	for (uint32_t i = first; i < inv->count; i++) {
		struct catalogue_row r = inv->rows[i];
		r.uid = (uint32_t)uids;
		uids += r.uid_length;
		piece_write(w, &r, sizeof r);
	}
	for (uint32_t i = first; i < inv->count; i++)
		piece_write(w, inv->uids + inv->rows[i].uid, inv->rows[i].uid_length);
}

/* What of `inv` is not stored yet, or with `first` 0 all of it. */
static struct segment
segment_of(const struct inventory *inv, uint32_t first)
{
	struct segment g = { .count = inv->count - first };

	for (uint32_t i = first; i < inv->count; i++)
		g.uids_length += inv->rows[i].uid_length;
	if (inv->fingerprints != NULL)
		g.fingerprints = g.count;
	if (inv->names != NULL) {
		g.names = g.count;
		g.patterns = inv->patterns_count - (first == 0 ? 0 : inv->stored_patterns);
		g.blob_length = inv->blob_length - (first == 0 ? 0 : inv->stored_blob);
	}
	return g;
}

static int
segment_write(int fd, const struct inventory *inv, uint32_t first, struct segment *g)
{
	struct writing *w = malloc(sizeof *w);
	XXH128_canonical_t check;

	if (w == NULL)
		return ENOMEM;
	w->fd = fd;
	w->at = g->offset;
	w->used = 0;
	w->error = 0;
	if ((w->sum = XXH3_createState()) == NULL) {
		free(w);
		return ENOMEM;
	}
	XXH3_128bits_reset(w->sum);
	rows_write(w, inv, first, first == 0 ? 0 : inv->stored_uids);
	if (g->fingerprints > 0)
		piece_write(w, inv->fingerprints[first], (size_t)g->fingerprints * FINGERPRINT_SIZE);
	if (g->names > 0) {
		piece_write(w, inv->names + first, g->names * sizeof *inv->names);
		if (g->patterns > 0)
			piece_write(w, inv->patterns + (inv->patterns_count - g->patterns), g->patterns * sizeof *inv->patterns);
		if (g->blob_length > 0)
			piece_write(w, inv->blob + (inv->blob_length - g->blob_length), g->blob_length);
	}
	buffer_flush(w);
	XXH128_canonicalFromHash(&check, XXH3_128bits_digest(w->sum));
	memcpy(g->check, check.digest, CHECK_SIZE);
	int error = w->error;
	XXH3_freeState(w->sum);
	free(w);
	return error;
}

static uint64_t
aligned(uint64_t offset)
{
	return (offset + 4095) / 4096 * 4096;
}

/*
 * Where `length` octets can go without touching what a slot speaks of: behind it all; or, for a whole
 * inventory, at the start if there is room. (What is appended does not take that room, so that it grows back to
 * the start time and again.)
 */
static uint64_t
place_find(const struct cache *c, uint64_t length, bool whole)
{
	uint64_t lowest = UINT64_MAX, end = DATA_START;

	for (int i = 0; i < 2; i++)
		for (uint32_t j = 0; c->slots[i].generation != 0 && j < c->slots[i].segments_count; j++) {
			const struct segment *g = &c->slots[i].segments[j];
			lowest = g->offset < lowest ? g->offset : lowest;
			end = g->offset + segment_length(g) > end ? g->offset + segment_length(g) : end;
		}
	return lowest == UINT64_MAX || (whole && DATA_START + length <= lowest) ? DATA_START : aligned(end);
}

/* Cuts off what lies behind the last thing that a slot speaks of. */
static void
tail_cut(const struct cache *c)
{
	uint64_t end = DATA_START;
	struct stat st;

	for (int i = 0; i < 2; i++)
		for (uint32_t j = 0; c->slots[i].generation != 0 && j < c->slots[i].segments_count; j++) {
			const struct segment *g = &c->slots[i].segments[j];
			end = g->offset + segment_length(g) > end ? g->offset + segment_length(g) : end;
		}
	if (fstat(c->fd, &st) == 0 && (uint64_t)st.st_size > end)
		(void)!ftruncate(c->fd, (off_t)end);
}

static bool
slot_write(struct cache *c, int which, struct slot *s)
{
	slot_check(s, s->check);
	ssize_t n = pwrite(c->fd, s, sizeof *s, (off_t)which * SLOT_SIZE);
	if (n == (ssize_t)sizeof *s) {
		c->slots[which] = *s;
		c->current = which;
		return true;
	}
	if (n >= 0)
		errno = ENOSPC;
	/* Whatever is there now, its checksum tells. */
	c->slots[which] = (struct slot){ 0 };
	return false;
}

static bool
slot_wipe(struct cache *c, int which)
{
	c->slots[which] = (struct slot){ 0 };
	return pwrite(c->fd, &c->slots[which], sizeof c->slots[which], (off_t)which * SLOT_SIZE) ==
	    (ssize_t)sizeof c->slots[which];
}

int
cache_store(struct cache *c, struct inventory *inv, const struct stamp stamps[static 2])
{
	uint32_t first = 0;
	int error = 0;

	if (c->fd == -1) {
		errno = ENOLCK;
		return -1;
	}
	int which = c->current == 0 ? 1 : 0;
	struct slot s = { .magic = CACHE_MAGIC, .version = CACHE_VERSION, .kind = c->kind, .context = c->context,
	    .inherited = inv->inherited + 1 };
	/*
	 * Appended to only if the file has what this inventory was loaded from; once the slots are full all is
	 * written anew, as one.
	 */
	if (c->current != -1 && inv == c->loaded && inv->stored > 0 && c->slots[c->current].segments_count < SEGMENTS_MAX) {
		memcpy(s.segments, c->slots[c->current].segments, sizeof s.segments);
		s.segments_count = c->slots[c->current].segments_count;
		first = inv->stored;
	} else
		names_compact(inv);
	s.generation = (c->slots[0].generation > c->slots[1].generation ? c->slots[0].generation : c->slots[1].generation) + 1;
	memcpy(s.stamps, stamps, sizeof s.stamps);
	/* What is not built upon may be written over, and then it must not be found: it goes first. */
	for (int i = 0; i < 2; i++)
		if (i != c->current && !slot_wipe(c, i))
			return -1;
	if (inv->count > first) {
		struct segment g = segment_of(inv, first);
		g.offset = place_find(c, segment_length(&g), first == 0);
		error = segment_write(c->fd, inv, first, &g);
		s.segments[s.segments_count++] = g;
	}
	if (error != 0 || !slot_write(c, which, &s)) {
		errno = error != 0 ? error : errno;
		return -1;
	}
	c->loaded = NULL;
	tail_cut(c);
	return 0;
}
