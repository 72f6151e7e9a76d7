/*
 * How ranges are taken out of a mailbox in place without ever being in danger.
 *
 * Words: `first` is the first octet that goes; what is kept behind it moves down. The mailbox has `size` octets
 * before and `left` after; [left, size) is the doomed end. The journal is a redo log of what moves and, in the same
 * octets, an undo log of what is overwritten.
 *
 *	SAVE		the journal gets the ranges, all of [first, left), and what is kept of [left, size)
 *	COMMIT		the header, with the sums of that; fsync. Until here the mailbox was not touched
 *	MOVE		what is kept goes to its place, from the journal
 *	MARK		random octets, known to the journal alone, go over both edges of the doomed end; fsync of it all
 *	SEAL		a slot in the journal says so; fsync. Until here all is undone after a crash; now it will be done
 *	TRUNCATE	to `left`; fsync. The caller drops the journal
 *
 * Of all this the truncation of a large mailbox takes longest, since the kernel gives back every page of what is cut off
 * before it returns (though everybody sees the new size at once). So journal_promise() ends behind SEAL, where the client may be
 * told that all is gone, and journal_keep() does the rest. That is how much is deleted at once, even where nothing moves: a
 * small tail is taken off by the one truncation, with no journal, and then answered.
 *
 * Why recovery is certain of what it sees, though anybody may have appended mail after the crash:
 *  - Not sealed: the mailbox was not truncated by us, because sealing is on disk before that, and nobody was told that anything
 *    is gone. So all is put back (UNDO): each octet of [first, left), and of what the mark is over, is what it was or what it was to
 *    be, whatever was torn, and both are in the journal. Nothing need be known of what else the doomed end holds.
 *  - Sealed: all is in its place and marked, on disk. If the mark's end is still there, it was not truncated; if not, it
 *    was, and whatever is behind `left` was appended. Size alone could not tell (what was appended may be as long as
 *    the doomed end), nor could the old content (it may be the twin of the mail that was appended), but new mail
 *    cannot contain the mark. It starts with 0xff, which is not how mail starts, so that even a mark that must be
 *    short, for want of room, is not taken for mail.
 *  - Mail that was appended to a mailbox sealed and not yet truncated has to move down with the rest, over octets that may be
 *    its own: so it is first saved and committed too (EXTEND): the journal then says the same as if it had been there
 *    from the start, and, of what is now the doomed end, the sum.
 *  - Where a program has rewritten the mailbox meanwhile, what it took out has moved the mark's end, or what is behind it, which may be
 *    mail that came since: it is not where the journal says, and nothing is acted on.
 * Every step may be repeated, and recovery may be killed at any of them. Nothing is acted on unless the sums, the
 * inode, what stands before `first` and every octet in question agree; somebody else's changes are never written over.
 *
 * Where a copy goes to an archive first, a NOTE says so before that, and where the archive ended: should the UPDATE not
 * come to pass, what was copied is taken back by whoever finds the note without a header.
 *
 * What is assumed of the file system: what was there before a successful fsync is there after a power cut, size
 * included; until then each write may have happened, or not, or in part (any octets of it), in any order. What an
 * fsync that failed was to write may never be, unless it is written again. A truncation that was not synced has
 * happened or not; if not, the octets from the new end to the end of their block may read as zeros, or as what was
 * appended there since. Other blocks are not touched. Octets of a file that nobody wrote do not change.
 *
 * The journal is in nobody's quota but the administrator's: what is all zeros takes no room there, whatever the length of the mailbox. That it is all
 * zeros is seen in the octets, and that nothing was there before by the journal's length: no file system is asked where its holes are.
 *
 * Deliverers may cut off what they had appended themselves, and die half-way in appending. tests/model/update.pml has
 * these steps under the same names.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sodium.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>
#endif

#include "journal.h"

#define JOURNAL_MAGIC	0x6c6e6a50u		/* "Pjnl" read in this machine's own order */
#define JOURNAL_VERSION	3u
#define BLOCK		4096			/* what a file system shares blocks by, and more than a disk tears */
#ifndef JOURNAL_BUFFER				/* the units make these small */
#define JOURNAL_BUFFER	(1 << 20)
#define JOURNAL_CLONE	(1 << 16)
#endif
#define BUFFER		((size_t)JOURNAL_BUFFER)
#define WRITEBACK	((off_t)8 << 20)	/* so much is written before the disk is told to begin */
#define MAPPED		((off_t)2 * JOURNAL_BUFFER)	/* so much of the journal is mapped at once */
#define CLONE_MIN	((off_t)JOURNAL_CLONE)	/* a piece so large is placed so that its blocks can be shared */
#define TABLE_ROWS	1024
#define SUM_KEY		randombytes_SEEDBYTES	/* 32 */
#define SUM_SIZE	16
#define MARK_EDGE	32
#define MARK_SURE	16			/* so many octets are not met by chance */
#define FRONT		BLOCK			/* of the mailbox's start, and before `first`, so much is known */

/* Two slots, in turn. The note is where nothing is being written while it is needed. */
enum layout { AT_HEADER = 0, AT_SLOT = BLOCK, AT_NOTE = AT_SLOT + BLOCK / 2, AT_TABLE = 3 * BLOCK };

enum phase { PHASE_COMMITTED = 1, PHASE_SEALED = 2 };

#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wpadded"

/* On disk, in this machine's byte order: a journal does not leave its machine. */
struct header {
	uint32_t magic;
	uint32_t version;
	uint64_t inode;
	uint64_t size;
	uint64_t first;
	uint64_t left;
	uint64_t count;					/* ranges in the table */
	uint64_t end;					/* of what is saved, in the journal */
	uint8_t key[SUM_KEY];
	uint8_t sum[SUM_SIZE];				/* of the journal from AT_TABLE to end */
	uint8_t mark[2 * MARK_EDGE];
	uint8_t under[2 * MARK_EDGE];			/* what the mark is written over */
	uint8_t front[32];				/* fingerprint of the mailbox before `first` */
	uint8_t digest[32];				/* of all above */
};

/* What happened since; the valid one with the higher turn counts, and turn 0 is the header alone. */
struct slot {
	uint64_t turn;
	uint64_t phase;
	uint64_t extra;					/* octets appended after the crash, saved behind `end` */
	uint8_t key[SUM_KEY];
	uint8_t sum[SUM_SIZE];				/* of these */
	uint8_t doomed[SUM_SIZE];			/* and of what is then the doomed end, between its edges */
	uint8_t under[2 * MARK_EDGE];			/* what the mark is written over then */
	uint8_t digest[32];				/* of the header's digest and all above */
};

/* What goes to an archive first. */
struct note {
	uint64_t archive;
	uint64_t before;
	uint64_t count;					/* ranges in the table */
	uint8_t digest[32];				/* of all above and the table */
};

#pragma GCC diagnostic pop

/* Reads a file forward through a window. */
struct source {
	int fd;
	off_t at;
	size_t have;
	size_t room;
	uint8_t *octets;
};

/* Writes a file forward through a buffer. */
struct sink {
	int fd;
	off_t at;
	size_t have;
	uint8_t *octets;
	off_t begun;					/* the disk was told to write up to here */
	off_t shared_from, shared_to;			/* already there, by shared blocks */
	off_t fresh;					/* from here on nothing was written before, and zeros need not be */
	bool skipped;					/* some were not, perhaps at the end of the file */
	XXH3_state_t *sum;				/* of all that is put; may be NULL */
};

struct update {
	int mbox;
	int journal;
	bool no_clone;
	bool sparse;					/* the journal has zeros that were not written: some file systems make room for what is mapped */
	off_t noted;					/* so long the journal was with its note; 0: it had none */
	struct header h;
	struct slot s;
	off_t size, first, left;			/* as in the header, with what was appended counted in */
	struct range table[TABLE_ROWS];			/* a window of the ranges */
	uint64_t table_at;
	size_t table_have;
	struct source in;
	struct sink out;
	XXH3_state_t *sum;
	uint8_t secret[XXH3_SECRET_SIZE_MIN + 56];	/* of the sum, while it is made */
};

/* Goes through what is kept behind `first`, in order, and knows where each piece is in the journal. */
struct walk {
	uint64_t next;					/* range */
	off_t at;					/* mailbox */
	off_t place;					/* journal: where the next piece of [left, size) goes */
	off_t base;					/* journal: where [first, left) is */
};
struct piece {
	off_t from;					/* in the mailbox as it was */
	off_t place;					/* in the journal */
	off_t length;
};

/* The mark as it lies in a doomed end of some length. */
struct edges {
	off_t head, tail;				/* where in the mailbox */
	size_t head_length, tail_length;
};

/* ---- octets */

static int
write_all(int fd, const void *from, size_t length, off_t at)
{
	const uint8_t *p = from;
	ssize_t n;

	while (length > 0) {
		n = pwrite(fd, p, length, at);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == 0)
			errno = EIO;
		if (n <= 0)
			return -1;
		p += n;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

/* As many as there are up to `length`. -1 with errno. */
static ssize_t
read_some(int fd, void *to, size_t length, off_t at)
{
	size_t have = 0;
	ssize_t n;

	while (have < length) {
		n = pread(fd, (uint8_t *)to + have, length - have, at + (off_t)have);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		if (n == 0)
			break;
		have += (size_t)n;
	}
	return (ssize_t)have;
}

static int
read_all(int fd, void *to, size_t length, off_t at)
{
	ssize_t n = read_some(fd, to, length, at);

	if (n == -1)
		return -1;
	if ((size_t)n != length) {
		errno = EIO;		/* shorter than it must be, and nobody else may shorten it now */
		return -1;
	}
	return 0;
}

static int
sync_file(int fd)
{
	int r;

	do
		r = fsync(fd);
	while (r == -1 && errno == EINTR);
	return r;
}

static int
truncate_file(int fd, off_t size)
{
	int r;

	do
		r = ftruncate(fd, size);
	while (r == -1 && errno == EINTR);
	return r;
}

static void
source_start(struct source *s, int fd)
{
	s->fd = fd;
	s->at = 0;
	s->have = 0;
}

/* The octets at `at`: *length is how many are wanted, becomes how many are there (at least one). NULL with errno. */
static const uint8_t *
source_at(struct source *s, off_t at, size_t *length)
{
	ssize_t n;

	if (at < s->at || at >= s->at + (off_t)s->have) {
		s->have = 0;
		n = read_some(s->fd, s->octets, s->room, at);
		if (n == 0)
			errno = EIO;
		if (n <= 0)
			return NULL;
		s->at = at;
		s->have = (size_t)n;
	}
	if (*length > s->have - (size_t)(at - s->at))
		*length = s->have - (size_t)(at - s->at);
	return s->octets + (at - s->at);
}

static void
sink_start(struct sink *s, int fd, off_t at, XXH3_state_t *sum)
{
	s->fd = fd;
	s->at = s->begun = at;
	s->have = 0;
	s->shared_from = s->shared_to = 0;
	s->fresh = INT64_MAX;
	s->skipped = false;
	s->sum = sum;
}

/* The same for the journal. 0, or -1. */
static int
sink_start_journal(struct sink *s, int fd, off_t at, XXH3_state_t *sum)
{
	struct stat st;

	sink_start(s, fd, at, sum);
	if (fstat(fd, &st) == -1)
		return -1;
	s->fresh = st.st_size;
	return 0;
}

static bool
is_zeros(const uint8_t *octets, size_t length)
{
	return octets[0] == 0 && memcmp(octets, octets + 1, length - 1) == 0;
}

/* By whole blocks: those that are all zeros are skipped where nothing was before. */
static int
sink_write_apart(struct sink *s, const uint8_t *octets, size_t length)
{
	size_t n, run;
	bool zero;

	while (length > 0) {
		zero = false;
		for (run = 0; run < length; run += n) {
			n = BLOCK - (size_t)((s->at + (off_t)run) % BLOCK);
			if (n > length - run)
				n = length - run;
			bool is = n == BLOCK && is_zeros(octets + run, n);
			if (run == 0)
				zero = is;
			else if (is != zero)
				break;
		}
		if (zero && s->at >= s->fresh)
			s->skipped = true;
		else if (write_all(s->fd, octets, run, s->at) == -1)
			return -1;
		s->at += (off_t)run;
		octets += run;
		length -= run;
	}
	return 0;
}

static int
sink_write(struct sink *s, const uint8_t *octets, size_t length)
{
	bool shared = s->at >= s->shared_from && s->at + (off_t)length <= s->shared_to;

	if (s->sum != NULL)
		(void)XXH3_128bits_update(s->sum, octets, length);
	if (!shared && s->at + (off_t)length > s->fresh) {
		if (sink_write_apart(s, octets, length) == -1)
			return -1;
	} else {
		if (!shared && write_all(s->fd, octets, length, s->at) == -1)
			return -1;
		s->at += (off_t)length;
	}
	if (s->at - s->begun >= WRITEBACK) {
		/* Only so that the disk works while we do; fsync is what counts, so it may fail. */
		(void)sync_file_range(s->fd, s->begun, s->at - s->begun, SYNC_FILE_RANGE_WRITE);
		s->begun = s->at;
	}
	return 0;
}

static int
sink_flush(struct sink *s)
{
	size_t have = s->have;

	s->have = 0;
	return have == 0 ? 0 : sink_write(s, s->octets, have);
}

static int
sink_put(struct sink *s, const uint8_t *octets, size_t length)
{
	size_t n;

	if (s->have == 0 && length >= BUFFER / 2)
		return sink_write(s, octets, length);
	while (length > 0) {
		n = BUFFER - s->have < length ? BUFFER - s->have : length;
		memcpy(s->octets + s->have, octets, n);
		s->have += n;
		octets += n;
		length -= n;
		if (s->have == BUFFER && sink_flush(s) == -1)
			return -1;
	}
	return 0;
}

/* All is put, and the file is as long as that. */
static int
sink_end(struct sink *s)
{
	struct stat st;

	if (sink_flush(s) == -1)
		return -1;
	if (!s->skipped)
		return 0;
	if (fstat(s->fd, &st) == -1)
		return -1;
	return st.st_size < s->at ? truncate_file(s->fd, s->at) : 0;
}

/*
 * What was torn does not match its sum. It need not withstand one who looks for what would match: the key is random,
 * and nobody sees it before the power is cut. One that withstands (Poly1305) took a third of an UPDATE's time.
 */
static XXH3_state_t *
sum_start(struct update *u, const uint8_t key[static SUM_KEY])
{
	randombytes_buf_deterministic(u->secret, sizeof(u->secret), key);
	(void)XXH3_128bits_reset_withSecret(u->sum, u->secret, sizeof(u->secret));
	return u->sum;
}

static void
sum_end(const struct update *u, uint8_t sum[static SUM_SIZE])
{
	XXH128_canonical_t c;

	XXH128_canonicalFromHash(&c, XXH3_128bits_digest(u->sum));
	memcpy(sum, c.digest, SUM_SIZE);
}

/* [from, from + length) of the source goes to where the sink is. */
static int
carry(struct update *u, off_t from, off_t length)
{
	const uint8_t *octets;
	size_t n;

	while (length > 0) {
		n = length < (off_t)BUFFER ? (size_t)length : BUFFER;
		if ((octets = source_at(&u->in, from, &n)) == NULL || sink_put(&u->out, octets, n) == -1)
			return -1;
		from += (off_t)n;
		length -= (off_t)n;
	}
	return 0;
}

/*
 * The same of a whole run, from a mapping of it: the kernel copies from page to page, and not by way of us. Only the
 * kernel looks at the mapping, so an octet that cannot be read is an error (EFAULT) and no signal.
 */
static int
carry_mapped(struct update *u, off_t from, off_t length)
{
	if (u->sparse)
		return carry(u, from, length);
	if (sink_flush(&u->out) == -1)
		return -1;
	while (length > 0) {
		size_t skip = (size_t)(from % BLOCK), n = length < MAPPED ? (size_t)length : (size_t)MAPPED;
		uint8_t *at = mmap(NULL, skip + n, PROT_READ, MAP_SHARED | MAP_POPULATE, u->in.fd, from - (off_t)skip);
		if (at == MAP_FAILED)
			return carry(u, from, length);
		int result = sink_write(&u->out, at + skip, n), saved = errno;
		munmap(at, skip + n);
		errno = saved;
		if (result == -1)
			return -1;
		from += (off_t)n;
		length -= (off_t)n;
	}
	return 0;
}

/* ---- the plan: what is kept, and where it is in the journal */

/* The first place from `at` on that lies in its block as `like` does. */
static off_t
congruent(off_t at, off_t like)
{
	return at + ((like - at) % BLOCK + BLOCK) % BLOCK;
}

static void
walk_start(const struct update *u, struct walk *w)
{
	w->next = 0;
	w->at = u->first;
	w->base = congruent(AT_TABLE + (off_t)(u->h.count * sizeof(struct range)), u->first);
	w->place = w->base + ((off_t)u->h.left - u->first);
}

static const struct range *
range_at(struct update *u, uint64_t i)
{
	uint64_t rows;

	if (i < u->table_at || i >= u->table_at + u->table_have) {
		rows = u->h.count - i < TABLE_ROWS ? u->h.count - i : TABLE_ROWS;
		u->table_have = 0;
		if (read_all(u->journal, u->table, rows * sizeof(u->table[0]),
		    AT_TABLE + (off_t)(i * sizeof(u->table[0]))) == -1)
			return NULL;
		u->table_at = i;
		u->table_have = rows;
	}
	return &u->table[i - u->table_at];
}

/* The next piece that is kept, cut where [left, size) begins. 1, 0 at the end, -1 with errno. */
static int
walk_next(struct update *u, struct walk *w, struct piece *p)
{
	off_t left = (off_t)u->h.left, end;
	const struct range *r;

	for (;; w->next++) {
		if (w->next == u->h.count) {
			end = (off_t)u->h.size;
			if (w->at == end)
				return 0;
			break;
		}
		if ((r = range_at(u, w->next)) == NULL)
			return -1;
		end = r->start;
		if (w->at < end)
			break;
		w->at = r->start + r->length;
	}
	if (w->at < left && end > left)
		end = left;
	p->from = w->at;
	p->length = end - w->at;
	if (p->from < left) {
		p->place = w->base + (p->from - u->first);
	} else {
		p->place = p->length >= CLONE_MIN ? congruent(w->place, p->from) : w->place;
		w->place = p->place + p->length;
	}
	w->at = end;
	return 1;
}

/* Are the ranges in order, apart or touching, inside, and do they leave what the header says? */
static bool
table_sound(struct update *u)
{
	off_t at = u->first, gone = 0;
	const struct range *r;
	uint64_t i;

	for (i = 0; i < u->h.count; i++) {
		if ((r = range_at(u, i)) == NULL || r->start < at || r->length <= 0 || r->start >= u->size ||
		    r->length > u->size - r->start || (i == 0 && r->start != u->first))
			return false;
		at = r->start + r->length;
		gone += r->length;
	}
	return u->size - gone == u->left;
}

static void
edges_of(const struct update *u, struct edges *e)
{
	off_t doomed = u->size - u->left;

	e->head = u->left;
	e->head_length = doomed < MARK_EDGE ? (size_t)doomed : MARK_EDGE;
	doomed -= (off_t)e->head_length;
	e->tail_length = doomed < MARK_EDGE ? (size_t)doomed : MARK_EDGE;
	e->tail = u->size - (off_t)e->tail_length;
}

/* What is at the edges now. */
static int
edges_read(struct update *u, uint8_t octets[static 2 * MARK_EDGE])
{
	struct edges e;

	edges_of(u, &e);
	if (read_all(u->mbox, octets, e.head_length, e.head) == -1)
		return -1;
	return read_all(u->mbox, octets + MARK_EDGE, e.tail_length, e.tail);
}

/* Fingerprint of what stands before `first` and is not touched. */
static int
front_of(struct update *u, uint8_t front[static 32])
{
	crypto_generichash_state state;
	off_t head = u->first < FRONT ? u->first : FRONT;
	off_t tail = u->first - head < FRONT ? u->first - head : FRONT;

	(void)crypto_generichash_init(&state, NULL, 0, 32);
	if (read_all(u->mbox, u->in.octets, (size_t)head, 0) == -1)
		return -1;
	(void)crypto_generichash_update(&state, u->in.octets, (size_t)head);
	if (read_all(u->mbox, u->in.octets, (size_t)tail, u->first - tail) == -1)
		return -1;
	(void)crypto_generichash_update(&state, u->in.octets, (size_t)tail);
	(void)crypto_generichash_final(&state, front, 32);
	return 0;
}

static void
digest_header(const struct header *h, uint8_t digest[static 32])
{
	(void)crypto_generichash(digest, 32, (const uint8_t *)h, offsetof(struct header, digest), NULL, 0);
}

static void
digest_slot(const struct update *u, const struct slot *s, uint8_t digest[static 32])
{
	(void)crypto_generichash(digest, 32, (const uint8_t *)s, offsetof(struct slot, digest), u->h.digest, 32);
}

/* ---- SAVE and COMMIT */

/* Shares what it can of a piece's blocks with the journal, where the file system does that. */
static void
save_shared(struct update *u, off_t from, off_t place, off_t length)
{
	struct file_clone_range c = { .src_fd = u->mbox };
	off_t skip = congruent(from, 0) - from;

	if (u->no_clone || length < CLONE_MIN || place != congruent(place, from))
		return;
	length = (length - skip) / BLOCK * BLOCK;
	c.src_offset = (uint64_t)(from + skip);
	c.src_length = (uint64_t)length;
	c.dest_offset = (uint64_t)(place + skip);
	if (ioctl(u->journal, FICLONERANGE, &c) == -1) {
		u->no_clone = true;
		return;
	}
	u->out.shared_from = place + skip;
	u->out.shared_to = place + skip + length;
}

/* A piece of the mailbox goes to its place in the journal; what is skipped on the way there counts as zeros. */
static int
save_piece(struct update *u, off_t from, off_t place, off_t length)
{
	static const uint8_t zeros[BLOCK];
	off_t skip;

	if (sink_put(&u->out, zeros, (size_t)(place - u->out.at - (off_t)u->out.have)) == -1)
		return -1;
	if (length < CLONE_MIN)
		return carry(u, from, length);
	if (sink_flush(&u->out) == -1)
		return -1;
	save_shared(u, from, place, length);
	/* Whole blocks from here on, so that what is shared is passed over whole. */
	skip = congruent(from, 0) - from;
	if (carry(u, from, skip) == -1 || sink_flush(&u->out) == -1 || carry(u, from + skip, length - skip) == -1)
		return -1;
	return 0;
}

/* model: SAVE */
static int
save(struct update *u, const struct range *gone)
{
	struct walk w;
	struct piece p;
	int r;

	if (sink_start_journal(&u->out, u->journal, AT_TABLE, sum_start(u, u->h.key)) == -1 ||
	    sink_put(&u->out, (const uint8_t *)gone, u->h.count * sizeof(*gone)) == -1 || sink_flush(&u->out) == -1)
		return -1;
	walk_start(u, &w);
	source_start(&u->in, u->mbox);
	if (save_piece(u, u->first, w.base, u->left - u->first) == -1)
		return -1;
	while ((r = walk_next(u, &w, &p)) == 1)
		if (p.from >= u->left && save_piece(u, p.from, p.place, p.length) == -1)
			return -1;
	if (r == -1 || sink_end(&u->out) == -1)
		return -1;
	u->sparse = u->out.skipped;
	u->h.end = (uint64_t)w.place;
	sum_end(u, u->h.sum);
	return 0;
}

/* What the header says beside sizes and sums. */
static int
describe(struct update *u, ino_t inode, uint64_t count)
{
	u->h.magic = JOURNAL_MAGIC;
	u->h.version = JOURNAL_VERSION;
	u->h.inode = inode;
	u->h.size = (uint64_t)u->size;
	u->h.first = (uint64_t)u->first;
	u->h.left = (uint64_t)u->left;
	u->h.count = count;
	randombytes_buf(u->h.key, sizeof(u->h.key));
	randombytes_buf(u->h.mark, sizeof(u->h.mark));
	u->h.mark[0] = 0xff;
	if (edges_read(u, u->h.under) == -1)
		return -1;
	return front_of(u, u->h.front);
}

/* model: COMMIT */
static int
commit(struct update *u)
{
	digest_header(&u->h, u->h.digest);
	if (write_all(u->journal, &u->h, sizeof(u->h), AT_HEADER) == -1)
		return -1;
	return sync_file(u->journal);
}

/* ---- MOVE, MARK, SEAL, TRUNCATE */

/* The next turn of the slots, on disk. */
static int
turn(struct update *u, enum phase phase)
{
	struct slot s = u->s;

	s.turn++;
	s.phase = phase;
	digest_slot(u, &s, s.digest);
	u->s = s;		/* even if this fails it may be there, so the next one must count more */
	if (write_all(u->journal, &s, sizeof(s), AT_SLOT + (off_t)(s.turn % 2) * BLOCK) == -1)
		return -1;
	return sync_file(u->journal);
}

static int
mark(struct update *u, const uint8_t octets[static 2 * MARK_EDGE])
{
	struct edges e;

	edges_of(u, &e);
	if (write_all(u->mbox, octets, e.head_length, e.head) == -1)
		return -1;
	return write_all(u->mbox, octets + MARK_EDGE, e.tail_length, e.tail);
}

/* model: MOVE, then MARK */
static int
move(struct update *u)
{
	struct walk w;
	struct piece p;
	int r;

	walk_start(u, &w);
	source_start(&u->in, u->journal);
	sink_start(&u->out, u->mbox, u->first, NULL);
	while ((r = walk_next(u, &w, &p)) == 1)
		if ((p.length >= CLONE_MIN ? carry_mapped(u, p.place, p.length) : carry(u, p.place, p.length)) == -1)
			return -1;
	if (r == -1 || carry(u, (off_t)u->h.end, (off_t)u->s.extra) == -1 || sink_flush(&u->out) == -1)
		return -1;
	if (mark(u, u->h.mark) == -1)
		return -1;
	return sync_file(u->mbox);
}

/* model: UNDO. The mailbox is as it was before the move, on disk. Only before TRUNCATE, and never after EXTEND. */
static int
undo(struct update *u)
{
	struct walk w;

	if (u->s.phase == PHASE_SEALED && turn(u, PHASE_COMMITTED) == -1)
		return -1;
	walk_start(u, &w);
	source_start(&u->in, u->journal);
	sink_start(&u->out, u->mbox, u->first, NULL);
	if (carry(u, w.base, u->left - u->first) == -1 || sink_flush(&u->out) == -1 || mark(u, u->h.under) == -1)
		return -1;
	return sync_file(u->mbox);
}

/* model: ERASE. The journal holds nothing but its note, on disk. */
static int
erase(const struct update *u)
{
	static const struct header none;

	if ((u->noted > 0 || truncate_file(u->journal, 0) == -1) && write_all(u->journal, &none, sizeof(none), AT_HEADER) == -1)
		return -1;
	return sync_file(u->journal);
}

/* ---- apply */

static void
update_free(struct update *u)
{
	int saved = errno;

	if (u == NULL)
		return;
	free(u->in.octets);
	free(u->out.octets);
	(void)XXH3_freeState(u->sum);
	free(u);
	errno = saved;
}

/* Buffers; NULL with errno. */
static struct update *
update_new(int mbox, int journal)
{
	struct update *u;

	if ((u = calloc(1, sizeof(*u))) == NULL)
		return NULL;
	u->mbox = mbox;
	u->journal = journal;
	u->s.phase = PHASE_COMMITTED;
	u->in.room = BUFFER;
	u->in.octets = malloc(BUFFER);
	u->out.octets = malloc(BUFFER);
	u->sum = XXH3_createState();
	if (u->in.octets != NULL && u->out.octets != NULL && u->sum != NULL)
		return u;
	update_free(u);
	errno = ENOMEM;
	return NULL;
}

/* How many octets remain; -1 with EINVAL if the ranges are not what journal_apply asks for. */
static off_t
ranges_leave(const struct range *gone, size_t count, off_t size)
{
	off_t at = 0, left = size;
	size_t i;

	for (i = 0; i < count; i++) {
		if (gone[i].start < at || gone[i].length <= 0 || gone[i].start >= size ||
		    gone[i].length > size - gone[i].start) {
			errno = EINVAL;
			return -1;
		}
		at = gone[i].start + gone[i].length;
		left -= gone[i].length;
	}
	return left;
}

bool
journal_needed(const struct range *gone, size_t count, off_t size)
{
	off_t left = ranges_leave(gone, count, size);

	return left != -1 && count > 0 && left > gone[0].start;
}

/* After a failure behind COMMIT: back to the start, or, if that fails too, left to recovery. */
static enum journal_outcome
retreat(struct update *u, bool moved)
{
	int saved = errno;
	enum journal_outcome outcome = JOURNAL_UNCHANGED;

	if ((moved && undo(u) == -1) || erase(u) == -1)
		outcome = JOURNAL_PENDING;
	errno = saved;
	return outcome;
}

/*
 * The first octet that is moved over is written as it is. Where this fails (a filesystem that is read-only by now, a quota)
 * nothing has been touched, and nothing need be undone, which could not be either.
 */
static int
try_writing(const struct update *u)
{
	uint8_t octet;

	return read_all(u->mbox, &octet, 1, u->first) == -1 ? -1 : write_all(u->mbox, &octet, 1, u->first);
}

/* All but TRUNCATE, which can then be left to recovery. */
static enum journal_outcome
promise(struct update *u, const struct range *gone, size_t count, ino_t inode)
{
	if (describe(u, inode, count) == -1 || save(u, gone) == -1) {
		int saved = errno;

		(void)truncate_file(u->journal, u->noted);	/* gives the room back; there is no header */
		errno = saved;
		return JOURNAL_UNCHANGED;
	}
	if (commit(u) == -1 || try_writing(u) == -1)
		return retreat(u, false);
	if (move(u) == -1)
		return retreat(u, true);
	return turn(u, PHASE_SEALED) == -1 ? retreat(u, true) : JOURNAL_PROMISED;	/* model: SEAL */
}

static enum journal_outcome
apply_moving(struct update *u, const struct range *gone, size_t count, ino_t inode)
{
	enum journal_outcome outcome = promise(u, gone, count, inode);

	if (outcome != JOURNAL_PROMISED)
		return outcome;
	if (truncate_file(u->mbox, u->left) == -1)	/* model: TRUNCATE */
		return retreat(u, true);
	return sync_file(u->mbox) == -1 ? JOURNAL_PENDING : JOURNAL_APPLIED;
}

/* A tail, or all of it. */
static enum journal_outcome
apply_cut(int mbox, off_t left)
{
	if (truncate_file(mbox, left) == -1)
		return JOURNAL_UNCHANGED;
	return sync_file(mbox) == -1 ? JOURNAL_PENDING : JOURNAL_APPLIED;
}

/* ---- the note */

static void
digest_note(const struct note *n, const struct range *gone, uint8_t digest[static 32])
{
	crypto_generichash_state s;

	(void)crypto_generichash_init(&s, NULL, 0, 32);
	(void)crypto_generichash_update(&s, (const uint8_t *)n, offsetof(struct note, digest));
	(void)crypto_generichash_update(&s, (const uint8_t *)gone, n->count * sizeof(*gone));
	(void)crypto_generichash_final(&s, digest, 32);
}

/* model: NOTE */
int
journal_note(int journal, const struct journal_note *to, const struct range *gone, size_t count)
{
	struct note n = { .archive = to->archive, .before = (uint64_t)to->before, .count = count };
	struct stat st;

	if (fstat(journal, &st) == -1)
		return -1;
	if (st.st_size != 0) {
		errno = EEXIST;
		return -1;
	}
	digest_note(&n, gone, n.digest);
	if (write_all(journal, &n, sizeof(n), AT_NOTE) == -1 || write_all(journal, gone, count * sizeof(*gone), AT_TABLE) == -1)
		return -1;
	return sync_file(journal);
}

int
journal_noted(int journal, struct journal_note *to, struct range **gone, size_t *count)
{
	struct note n;
	struct range *table = NULL;
	uint8_t digest[32];
	struct stat st;
	ssize_t have;
	int r = 0;

	if (fstat(journal, &st) == -1 || (have = read_some(journal, &n, sizeof(n), AT_NOTE)) == -1)
		return -1;
	if ((size_t)have < sizeof(n) || n.count == 0 || st.st_size < AT_TABLE ||
	    n.count > (uint64_t)(st.st_size - AT_TABLE) / sizeof(*table))
		return 0;
	if ((table = malloc(n.count * sizeof(*table))) == NULL || read_all(journal, table, n.count * sizeof(*table), AT_TABLE) == -1)
		r = -1;
	if (r == 0) {
		digest_note(&n, table, digest);
		r = memcmp(digest, n.digest, sizeof(digest)) == 0;
	}
	if (r != 1) {
		free(table);
		return r;
	}
	*to = (struct journal_note){ .archive = (ino_t)n.archive, .before = (off_t)n.before };
	*gone = table;
	*count = (size_t)n.count;
	return 1;
}

/* Has it a note of just these, and nothing else? Then *noted is its length, or 0 if it is empty. -1 with errno. */
static int
only_noted(int journal, const struct range *gone, size_t count, off_t *noted)
{
	struct stat st;
	uint8_t digest[32];
	struct header h;
	struct note n;
	off_t length = AT_TABLE + (off_t)(count * sizeof(*gone));

	*noted = 0;
	if (fstat(journal, &st) == -1)
		return -1;
	if (st.st_size == 0)
		return 0;
	if (st.st_size == length) {
		if (read_all(journal, &h, sizeof(h), AT_HEADER) == -1 || read_all(journal, &n, sizeof(n), AT_NOTE) == -1)
			return -1;
		if (n.count == count && sodium_is_zero((const uint8_t *)&h, sizeof(h))) {
			digest_note(&n, gone, digest);
			*noted = memcmp(digest, n.digest, sizeof(digest)) == 0 ? length : 0;
		}
	}
	if (*noted > 0)
		return 0;
	errno = EEXIST;
	return -1;
}

/* 0 if all is as journal_apply asks; -1 with errno. */
static int
apply_check(int mbox, off_t size, struct stat *st)
{
	int flags;

	if (fstat(mbox, st) == -1 || (flags = fcntl(mbox, F_GETFL)) == -1)
		return -1;
	errno = !S_ISREG(st->st_mode) || (flags & O_APPEND) != 0 ? EINVAL : st->st_size != size ? ESTALE : 0;
	return errno != 0 ? -1 : 0;
}

/* In a journal, by `how`. */
static enum journal_outcome
apply_journaled(int mbox, int journal, const struct range *gone, size_t count, const struct stat *st, off_t noted,
    enum journal_outcome (*how)(struct update *u, const struct range *gone, size_t count, ino_t inode))
{
	struct update *u = update_new(mbox, journal);
	enum journal_outcome outcome;

	if (u == NULL)
		return JOURNAL_UNCHANGED;
	u->noted = noted;
	u->size = st->st_size;
	u->first = gone[0].start;
	u->left = ranges_leave(gone, count, st->st_size);
	outcome = how(u, gone, count, st->st_ino);
	update_free(u);
	return outcome;
}

enum journal_outcome
journal_apply(int mbox, int journal, const struct range *gone, size_t count, off_t size)
{
	struct stat st;
	off_t left, noted = 0;

	if ((left = ranges_leave(gone, count, size)) == -1 || apply_check(mbox, size, &st) == -1 ||
	    (journal != -1 && only_noted(journal, gone, count, &noted) == -1))
		return JOURNAL_UNCHANGED;
	if (count == 0)
		return JOURNAL_APPLIED;
	if (left == gone[0].start)
		return apply_cut(mbox, left);
	if (journal == -1) {
		errno = ENOENT;
		return JOURNAL_UNCHANGED;
	}
	return apply_journaled(mbox, journal, gone, count, &st, noted, apply_moving);
}

enum journal_outcome
journal_promise(int mbox, int journal, const struct range *gone, size_t count, off_t size)
{
	struct stat st;
	off_t noted;

	if (ranges_leave(gone, count, size) == -1 || apply_check(mbox, size, &st) == -1 || only_noted(journal, gone, count, &noted) == -1)
		return JOURNAL_UNCHANGED;
	return count == 0 ? JOURNAL_APPLIED : apply_journaled(mbox, journal, gone, count, &st, noted, promise);
}

enum journal_outcome
journal_keep(int mbox, off_t left)
{
	return truncate_file(mbox, left) == -1 || sync_file(mbox) == -1 ? JOURNAL_PENDING : JOURNAL_APPLIED;
}

/* ---- recovery: what is there */

/* The sum of [from, to) of a file. 1, 0 if it is shorter, -1 with errno. */
static int
sum_of(struct update *u, int fd, off_t from, off_t to, const uint8_t *key, uint8_t is[static SUM_SIZE])
{
	XXH3_state_t *sum = sum_start(u, key);
	ssize_t n;

	for (; from < to; from += n) {
		n = to - from < (off_t)BUFFER ? (ssize_t)(to - from) : (ssize_t)BUFFER;
		if ((n = read_some(fd, u->in.octets, (size_t)n, from)) == -1)
			return -1;
		if (n == 0) {
			errno = EIO;
			return 0;
		}
		(void)XXH3_128bits_update(sum, u->in.octets, (size_t)n);
	}
	sum_end(u, is);
	return 1;
}

/* 1 as expected, 0 not, -1 with errno. */
static int
sum_is(struct update *u, int fd, off_t from, off_t to, const uint8_t *key, const uint8_t *expected)
{
	uint8_t is[SUM_SIZE];
	int r = sum_of(u, fd, from, to, key, is);

	return r == 1 ? memcmp(is, expected, sizeof(is)) == 0 : r;
}

/* Reads the header: 1 if there is one to look at further; else 0 and *state. */
static int
load_header(struct update *u, enum journal_state *state, const char **why)
{
	uint8_t digest[32];
	ssize_t n;

	if ((n = read_some(u->journal, &u->h, sizeof(u->h), AT_HEADER)) == -1) {
		*state = JOURNAL_FAILED;
		*why = "the journal cannot be read";
		return 0;
	}
	if (sodium_is_zero((const uint8_t *)&u->h, (size_t)n)) {
		*state = JOURNAL_NOTHING;
		*why = n == 0 ? "the journal is empty" : "the update was never committed";
		return 0;
	}
	digest_header(&u->h, digest);
	*state = JOURNAL_TORN;
	*why = "the journal's header is damaged";
	if ((size_t)n < sizeof(u->h) || u->h.magic != JOURNAL_MAGIC)
		return 0;
	if (u->h.version != JOURNAL_VERSION) {
		*state = JOURNAL_FOREIGN;
		*why = "the journal is of another version";
		return 0;
	}
	return memcmp(digest, u->h.digest, sizeof(digest)) == 0;
}

/* Could these numbers be true? They are under the digest; but nothing is computed from what was not looked at. */
static bool
header_sound(const struct header *h, off_t length)
{
	uint64_t most = (uint64_t)1 << 62;

	return h->size < most && h->first <= h->left && h->left < h->size && h->count > 0 && h->count <= h->size &&
	    h->count <= (uint64_t)length / sizeof(struct range) && h->end > h->left - h->first &&
	    h->end >= AT_TABLE + h->count * sizeof(struct range) && h->end <= (uint64_t)length;
}

/* The slot that counts. 1, 0 if what it says was appended is damaged, -1 with errno. */
static int
load_slot(struct update *u, off_t length)
{
	struct slot s;
	uint8_t digest[32];
	int i;

	for (i = 0; i < 2; i++) {
		if (read_some(u->journal, &s, sizeof(s), AT_SLOT + i * BLOCK) != (ssize_t)sizeof(s))
			return -1;
		digest_slot(u, &s, digest);
		if (memcmp(digest, s.digest, sizeof(digest)) == 0 && s.turn % 2 == (uint64_t)i && s.turn > u->s.turn)
			u->s = s;
	}
	if (u->s.phase != PHASE_COMMITTED && u->s.phase != PHASE_SEALED)
		return 0;
	if (u->s.extra == 0)
		return 1;
	if (u->s.extra > (uint64_t)length - u->h.end)
		return 0;
	return sum_is(u, u->journal, (off_t)u->h.end, (off_t)(u->h.end + u->s.extra), u->s.key, u->s.sum);
}

static const uint8_t *
under_of(const struct update *u)
{
	return u->s.extra > 0 ? u->s.under : u->h.under;
}

/* Do these octets of the mailbox equal those of the mark? */
static int
mark_at(struct update *u, off_t at, const uint8_t *octets, size_t length)
{
	uint8_t is[2 * MARK_EDGE];

	if (read_all(u->mbox, is, length, at) == -1)
		return -1;
	return memcmp(is, octets, length) == 0;
}

/* Is this part of the mark, which no mail has in it, where it was put? */
static bool
is_marked(struct update *u, off_t size, off_t at, const uint8_t *octets, size_t length)
{
	return length >= MARK_SURE && size >= at + (off_t)length && mark_at(u, at, octets, length) == 1;
}

/*
 * Another program has been there, and nothing is acted on. But a message that stays after all begins as it did: else
 * nobody could read a mailbox whose first one that is.
 */
static enum journal_state
leave_alone(struct update *u, off_t size, const char **why)
{
	const uint8_t *under = under_of(u);
	struct edges e;
	int r = 0;

	edges_of(u, &e);
	if (is_marked(u, size, e.head, u->h.mark, e.head_length))
		r = write_all(u->mbox, under, e.head_length, e.head);
	if (r == 0 && is_marked(u, size, e.tail, u->h.mark + MARK_EDGE, e.tail_length))
		r = write_all(u->mbox, under + MARK_EDGE, e.tail_length, e.tail);
	*why = "the mailbox cannot be written";
	if (r == -1 || sync_file(u->mbox) == -1)
		return JOURNAL_FAILED;
	*why = "the mailbox was changed by another program since";
	return JOURNAL_FOREIGN;
}

/* Reads all that the journal says. JOURNAL_DONE if it is whole and of this mailbox. */
static enum journal_state
load(struct update *u, const struct stat *mbox, const char **why)
{
	enum journal_state state;
	struct stat st;
	int r;

	/* What is in memory alone is not acted on: the mailbox could get ahead of its journal, or that of new mail. */
	if (sync_file(u->journal) == -1 || sync_file(u->mbox) == -1 || fstat(u->journal, &st) == -1) {
		*why = "the journal or the mailbox cannot be synced";
		return JOURNAL_FAILED;
	}
	if (load_header(u, &state, why) == 0)
		return state;
	*why = "the journal is damaged";
	if (!header_sound(&u->h, st.st_size))
		return JOURNAL_TORN;
	u->first = (off_t)u->h.first;
	u->size = (off_t)u->h.size;
	u->left = (off_t)u->h.left;
	r = sum_is(u, u->journal, AT_TABLE, (off_t)u->h.end, u->h.key, u->h.sum);
	if (r == 1 && !table_sound(u))
		r = 0;
	if (r == 1)
		r = load_slot(u, st.st_size);
	if (r != 1)
		return r == 0 ? JOURNAL_TORN : JOURNAL_FAILED;
	u->size += (off_t)u->s.extra;
	u->left += (off_t)u->s.extra;
	if ((ino_t)u->h.inode == mbox->st_ino)
		return JOURNAL_DONE;
	/* it may be a copy of the one that it is of, mark and all */
	state = leave_alone(u, mbox->st_size, why);
	if (state == JOURNAL_FOREIGN)
		*why = "the journal is of another file";
	return state;
}

/* Is each octet one of the two that it may be? */
static bool
either(const uint8_t *is, const uint8_t *a, const uint8_t *b, size_t length)
{
	size_t i;

	if (memcmp(is, a, length) == 0 || memcmp(is, b, length) == 0)
		return true;
	for (i = 0; i < length; i++)
		if (is[i] != a[i] && is[i] != b[i])
			return false;
	return true;
}

/* The windows that comparing needs: the mailbox, what is to be there, what was there. */
struct compare {
	struct source *is;
	struct source new;
	struct source old;
	bool old_too;
	off_t at;		/* mailbox: how far it is looked at */
};

/* `length` octets of the mailbox against the journal at `new`, or at `old`. 1, 0 if they are neither, -1 with errno. */
static int
compare_piece(struct compare *c, off_t new, off_t old, off_t length)
{
	const uint8_t *is, *to, *was;
	size_t n;

	while (length > 0) {
		n = length < (off_t)BUFFER ? (size_t)length : BUFFER;
		if ((is = source_at(c->is, c->at, &n)) == NULL || (to = source_at(&c->new, new, &n)) == NULL)
			return -1;
		was = to;
		if (c->old_too && (was = source_at(&c->old, old, &n)) == NULL)
			return -1;
		if (!either(is, to, was, n))
			return 0;
		c->at += (off_t)n;
		new += (off_t)n;
		old += (off_t)n;
		length -= (off_t)n;
	}
	return 1;
}

static void
compare_start(struct update *u, struct compare *c, bool old_too)
{
	source_start(&u->in, u->mbox);
	c->is = &u->in;
	c->old_too = old_too;
	c->new.octets = u->out.octets;
	c->new.room = c->old.room = BUFFER / 2;
	c->old.octets = u->out.octets + BUFFER / 2;
	source_start(&c->new, u->journal);
	source_start(&c->old, u->journal);
	c->at = u->first;
}

/* Are [first, left) what they are to be, or (old_too) octet by octet what they were? */
static int
moved_agrees(struct update *u, bool old_too)
{
	struct compare c;
	struct walk w;
	struct piece p;
	int r, same;

	compare_start(u, &c, old_too);
	walk_start(u, &w);
	while ((r = walk_next(u, &w, &p)) == 1)
		if ((same = compare_piece(&c, p.place, w.base + (c.at - u->first), p.length)) != 1)
			return same;
	if (r == -1 || old_too)		/* what was appended is not looked at in between: earlier marks may be in it */
		return r == -1 ? -1 : 1;
	return compare_piece(&c, (off_t)u->h.end, 0, (off_t)u->s.extra);
}

/* Is the mark, or what it is written over, or octet by octet either of them, at the edges? */
static int
edges_agree(struct update *u)
{
	const uint8_t *under = under_of(u);
	uint8_t is[2 * MARK_EDGE];
	struct edges e;

	edges_of(u, &e);
	if (edges_read(u, is) == -1)
		return -1;
	return either(is, u->h.mark, under, e.head_length) &&
	    either(is + MARK_EDGE, u->h.mark + MARK_EDGE, under + MARK_EDGE, e.tail_length);
}

/* model: agree(). Is the mailbox what this journal, in its phase, can have left of it? 1, 0, -1 with errno. */
static int
mailbox_agrees(struct update *u)
{
	bool sealed = u->s.phase == PHASE_SEALED;
	uint8_t front[32];
	int r;

	if (front_of(u, front) == -1)
		return -1;
	if (memcmp(front, u->h.front, sizeof(front)) != 0)
		return 0;
	if ((r = moved_agrees(u, !sealed)) != 1)
		return r;
	/* Once sealed, the doomed end may have been truncated and come back in part. */
	if (sealed || (r = edges_agree(u)) != 1 || u->s.extra == 0)
		return r;
	return sum_is(u, u->mbox, u->left + MARK_EDGE, u->size - MARK_EDGE, u->s.key, u->s.doomed);
}

/*
 * A truncation that a power cut undid may have left zeros from `left` to the end of the block: does the doomed end
 * begin with zeros, and is the mark, or nothing, all that is behind them? New mail does not begin with zeros.
 */
static int
zeros_then_mark(struct update *u, const struct edges *e)
{
	const uint8_t *octets, *expected;
	off_t at = e->head, start;
	size_t n, i = 0;

	source_start(&u->in, u->mbox);
	for (; at < u->size; at += (off_t)i) {
		n = u->size - at < (off_t)BUFFER ? (size_t)(u->size - at) : BUFFER;
		if ((octets = source_at(&u->in, at, &n)) == NULL)
			return -1;
		for (i = 0; i < n && octets[i] == 0; i++)
			continue;
		if (i < n) {
			at += (off_t)i;
			break;
		}
	}
	if (at == e->head)
		return 0;
	if (at == u->size)
		return 1;
	start = u->size - e->head <= 2 * MARK_EDGE ? e->head : e->tail;
	expected = start == e->head ? u->h.mark : u->h.mark + MARK_EDGE;
	return at < start ? 0 : mark_at(u, at, expected + (at - start), (size_t)(u->size - at));
}

/*
 * Sealed: is the doomed end still there? 1, 0, -1 with errno. Its last octets speak for it: a truncation that was undone
 * may have changed the first ones, and a program that rewrote the mailbox has moved the last ones.
 */
static int
doomed_is_there(struct update *u, off_t size)
{
	struct edges e;
	int r;

	if (size < u->size)
		return 0;
	edges_of(u, &e);
	if (e.tail_length < MARK_SURE)
		r = mark_at(u, e.head, u->h.mark, e.head_length);
	else
		r = mark_at(u, e.tail, u->h.mark + MARK_EDGE, e.tail_length);
	return r != 0 ? r : zeros_then_mark(u, &e);
}

/* ---- recovery: what is done */

/* model: EXTEND. What was appended is committed as if it had always been there. */
static int
extend(struct update *u, off_t size)
{
	off_t place = (off_t)u->h.end + (off_t)u->s.extra, end;

	source_start(&u->in, u->mbox);
	if (sink_start_journal(&u->out, u->journal, place, NULL) == -1 || carry(u, u->size, size - u->size) == -1 || sink_end(&u->out) == -1 || sync_file(u->journal) == -1)
		return -1;
	randombytes_buf(u->s.key, sizeof(u->s.key));
	u->s.extra = (uint64_t)(size - (off_t)u->h.size);
	u->size = size;
	u->left = (off_t)(u->h.left + u->s.extra);
	end = (off_t)(u->h.end + u->s.extra);
	if (edges_read(u, u->s.under) == -1 || sum_of(u, u->journal, (off_t)u->h.end, end, u->s.key, u->s.sum) != 1 ||
	    sum_of(u, u->mbox, u->left + MARK_EDGE, u->size - MARK_EDGE, u->s.key, u->s.doomed) != 1)
		return -1;
	return turn(u, PHASE_COMMITTED);
}

/*
 * What was written when the disk had errors may be in memory alone, though a later fsync finds nothing to do: so what
 * is going to be relied on is written once more. The first turn is only taken when all that was saved is known to be
 * on disk.
 */
static int
say_again(struct update *u)
{
	source_start(&u->in, u->journal);
	sink_start(&u->out, u->journal, AT_TABLE, NULL);
	if (u->s.turn == 0 && (carry(u, AT_TABLE, (off_t)u->h.end - AT_TABLE) == -1 || sink_flush(&u->out) == -1))
		return -1;
	if (commit(u) == -1)
		return -1;
	return turn(u, (enum phase)u->s.phase);
}

/* From a committed journal to the end. 0, or -1 with errno. */
static int
redo(struct update *u, off_t size)
{
	if (say_again(u) == -1 || (size > u->size && extend(u, size) == -1))
		return -1;
	if (u->s.phase == PHASE_COMMITTED && (move(u) == -1 || turn(u, PHASE_SEALED) == -1))
		return -1;
	if (truncate_file(u->mbox, u->left) == -1)
		return -1;
	return sync_file(u->mbox);
}

/*
 * model: UNDO, ERASE. It was not sealed, so nobody was told that anything is gone, and all is put back; what the doomed end
 * holds need not be known for that. The note stays in the journal.
 */
static enum journal_state
abandon(struct update *u, const char **why)
{
	u->noted = AT_NOTE;
	*why = "the mailbox cannot be written";
	/* a seal that was taken back may be on disk, and in memory alone that it was (say_again) */
	if ((u->s.turn > 0 && turn(u, PHASE_COMMITTED) == -1) || undo(u) == -1 || erase(u) == -1)
		return JOURNAL_FAILED;
	*why = "the update had not come so far that it was answered";
	return JOURNAL_NOTHING;
}

/* Finishes what a sound journal says of a mailbox of `size` octets. */
static enum journal_state
finish(struct update *u, off_t size, const char **why)
{
	int there = 1, agrees;
	struct edges e;

	*why = "the mailbox cannot be read";
	if (u->s.phase == PHASE_SEALED && (there = doomed_is_there(u, size)) == -1)
		return JOURNAL_FAILED;
	agrees = size < (there ? u->size : u->left) ? 0 : mailbox_agrees(u);
	if (agrees == 1 && !there) {		/* truncated, or rewritten */
		edges_of(u, &e);
		agrees = !is_marked(u, size, e.head, u->h.mark, e.head_length);
	}
	if (agrees == -1)
		return JOURNAL_FAILED;
	if (agrees == 0)
		return leave_alone(u, size, why);
	if (u->s.phase == PHASE_COMMITTED && u->s.extra == 0)
		return abandon(u, why);
	*why = "the mailbox cannot be written";
	/* Truncated already: to where it ends once more, lest a truncation whose sync had failed is in memory alone. */
	if (there ? redo(u, size) == -1 : truncate_file(u->mbox, size) == -1 || sync_file(u->mbox) == -1)
		return JOURNAL_FAILED;
	*why = there ? "an interrupted update was finished" : "an interrupted update was complete";
	return JOURNAL_DONE;
}

enum journal_state
journal_recover(int mbox, int journal, const char **why)
{
	const char *unused;
	enum journal_state state;
	struct update *u;
	struct stat st;

	if (why == NULL)
		why = &unused;
	*why = "the mailbox cannot be read";
	if (fstat(mbox, &st) == -1)
		return JOURNAL_FAILED;
	*why = "out of memory";
	if ((u = update_new(mbox, journal)) == NULL)
		return JOURNAL_FAILED;
	if ((state = load(u, &st, why)) == JOURNAL_DONE)
		state = finish(u, st.st_size, why);
	update_free(u);
	return state;
}
