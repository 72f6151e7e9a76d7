/*
 * The journal of an mbox UPDATE: plain use, journals that must not be acted on, faults by count, and power cuts.
 *
 * The real file is compiled in, with small buffers, so that a small mailbox takes many writes. Its system calls go
 * through the wraps below, which count them, let the Nth fail, and write down what was written, truncated and synced;
 * from that list every state is made that a disk may hold after a power cut (see "power" below), recovered, and
 * compared. JOURNAL_LONG=1 in the environment tries more of them.
 *
 * libs: -Wl,--wrap=pwrite,--wrap=pread,--wrap=fsync,--wrap=ftruncate,--wrap=ioctl,--wrap=sync_file_range,--wrap=malloc,--wrap=calloc
 * libs: -lxxhash
 */
#undef _FORTIFY_SOURCE		/* it would call pread under another name */
#define JOURNAL_BUFFER 4096
#define JOURNAL_CLONE 8192
#include "../../spoold/journal.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { MBOX, JOURNAL, FILES };
enum kind { WRITE, CUT, SYNC, SYNC_FAILED };

/* What was done, in order. */
struct op {
	int file;
	enum kind kind;
	off_t at;			/* CUT: the new size */
	off_t was;			/* CUT: the size before */
	size_t length;
	uint8_t *octets;
};
#define OPS_MAX 4096

static struct op ops[OPS_MAX];
static size_t ops_count;
static int fds[FILES] = { -1, -1 };
static bool recording;

/* Faults: the call number fault_at (from 1, of those in fault_mask) fails with fault_errno; fault_last says how many more do. */
enum { F_WRITE = 1, F_READ = 2, F_SYNC = 4, F_CUT = 8, F_MEMORY = 16, F_ALL = 31 };
static unsigned fault_mask;
static long fault_at, fault_times, fault_count;
static int fault_errno;
static bool fault_short;
static bool can_clone;

int __real_fsync(int);
int __real_ftruncate(int, off_t);
int __real_ioctl(int, unsigned long, void *);
int __real_sync_file_range(int, off_t, off_t, unsigned);
ssize_t __real_pread(int, void *, size_t, off_t);
ssize_t __real_pwrite(int, const void *, size_t, off_t);
void *__real_calloc(size_t, size_t);
void *__real_malloc(size_t);
int __wrap_fsync(int);
int __wrap_ftruncate(int, off_t);
int __wrap_ioctl(int, unsigned long, struct file_clone_range *);
int __wrap_sync_file_range(int, off_t, off_t, unsigned);
ssize_t __wrap_pread(int, void *, size_t, off_t);
ssize_t __wrap_pwrite(int, const void *, size_t, off_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_malloc(size_t);

static bool
fails(unsigned kind)
{
	if (fault_at == 0 || (fault_mask & kind) == 0)
		return false;
	fault_count++;
	if (fault_count < fault_at || fault_count >= fault_at + fault_times)
		return false;
	errno = fault_errno;
	return true;
}

static int
file_of(int fd)
{
	return fd == fds[MBOX] ? MBOX : fd == fds[JOURNAL] ? JOURNAL : -1;
}

static off_t
size_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_size;
}

/* What it takes on the disk. */
static off_t
blocks_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_blocks * 512;
}

static void
note(int file, enum kind kind, const void *octets, size_t length, off_t at, off_t was)
{
	struct op *o = &ops[ops_count];

	if (!recording || file == -1)
		return;
	assert_true(ops_count < OPS_MAX);
	ops_count++;
	*o = (struct op){ .file = file, .kind = kind, .at = at, .was = was, .length = length };
	if (length > 0) {
		o->octets = __real_malloc(length);
		memcpy(o->octets, octets, length);
	}
}

ssize_t
__wrap_pwrite(int fd, const void *octets, size_t length, off_t at)
{
	ssize_t n;

	if (fails(F_WRITE)) {
		if (!fault_short || length < 2)
			return -1;
		length /= 2;		/* short; the next one says why */
	}
	if ((n = __real_pwrite(fd, octets, length, at)) > 0)
		note(file_of(fd), WRITE, octets, (size_t)n, at, 0);
	return n;
}

ssize_t
__wrap_pread(int fd, void *octets, size_t length, off_t at)
{
	return fails(F_READ) ? -1 : __real_pread(fd, octets, length, at);
}

int
__wrap_fsync(int fd)
{
	if (fails(F_SYNC)) {
		note(file_of(fd), SYNC_FAILED, NULL, 0, 0, 0);
		return -1;
	}
	note(file_of(fd), SYNC, NULL, 0, 0, 0);
	return __real_fsync(fd);
}

int
__wrap_ftruncate(int fd, off_t size)
{
	if (fails(F_CUT))
		return -1;
	note(file_of(fd), CUT, NULL, 0, size, size_of(fd));
	return __real_ftruncate(fd, size);
}

int
__wrap_sync_file_range(int fd, off_t at, off_t length, unsigned flags)
{
	return __real_sync_file_range(fd, at, length, flags);
}

/* A file system that shares blocks, if can_clone. */
int
__wrap_ioctl(int fd, unsigned long request, struct file_clone_range *c)
{
	uint8_t *octets;

	assert_int_equal(request, FICLONERANGE);
	if (!can_clone) {
		errno = EOPNOTSUPP;
		return -1;
	}
	assert_int_equal(c->src_offset % 4096, 0);
	assert_int_equal(c->dest_offset % 4096, 0);
	assert_int_equal(c->src_length % 4096, 0);
	assert_true(c->src_length > 0);
	if (fails(F_WRITE))
		return -1;
	octets = __real_malloc(c->src_length);
	assert_int_equal(__real_pread((int)c->src_fd, octets, c->src_length, (off_t)c->src_offset), c->src_length);
	assert_int_equal(__real_pwrite(fd, octets, c->src_length, (off_t)c->dest_offset), c->src_length);
	note(file_of(fd), WRITE, octets, c->src_length, (off_t)c->dest_offset, 0);
	free(octets);
	return 0;
}

void *
__wrap_malloc(size_t size)
{
	return fails(F_MEMORY) ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t count, size_t size)
{
	return fails(F_MEMORY) ? NULL : __real_calloc(count, size);
}

/* ---- mailboxes */

#define MAIL_MAX	64
#define ROOM		((size_t)1 << 20)

/* A mailbox in memory, and its file. */
struct image {
	size_t size;
	uint8_t octets[ROOM];
};

/* One case: a mailbox, what is to go, what is to be there. */
struct scene {
	struct image before, after;
	struct range gone[MAIL_MAX];
	size_t count;
	size_t start[MAIL_MAX + 1];
	size_t messages;
};

static struct scene scene;

/* What is deleted; 'x' goes, '.' stays. Message i has size sizes[i % ...]; the last two are twins, and so are the first two. */
static const size_t small[] = { 700, 700, 90, 1500, 9, 3100, 40, 620 };
static const size_t large[] = { 9000, 9000, 300, 20000, 12, 4096, 8192, 15000, 33 };
static const size_t sparse[] = { 9000, 9000, 300, 13000, 12, 4096, 12288, 9000, 33 };	/* the large ones are zeros but for their ends */
static const size_t tiny[] = { 9, 9, 10, 11, 9 };
static const struct pattern {
	const char *name;
	const char *marks;
	const size_t *sizes;
	size_t sizes_count;
} patterns[] = {
	{ "first", "x.......", small, 8 },
	{ "first of twins, alone", "x.", small, 8 },
	{ "middle", "...x....", small, 8 },
	{ "a tiny one", "....x...", small, 8 },
	{ "all but the last", "xxxxxxx.", small, 8 },
	{ "last and another", ".x.....x", small, 8 },
	{ "alternate", "x.x.x.x.", small, 8 },
	{ "the other alternate", ".x.x.x.x", small, 8 },
	{ "first half", "xxxx....", small, 8 },
	{ "tiny mailbox", "x....", tiny, 5 },
	{ "tiny mailbox, alternate", ".x.x.", tiny, 5 },
	{ "large, first", "x........", large, 9 },
	{ "large, alternate", "x.x.x.x.x", large, 9 },
	{ "large, middle", "....x....", large, 9 },
	{ "large, many", "..xxx..x.", large, 9 },
	{ "none", "....", small, 8 },
	{ "last", ".......x", small, 8 },
	{ "all", "xxxxxxxx", small, 8 },
	{ "tail", "....xxxx", small, 8 },
	{ "large, tail", ".....xxxx", large, 9 },
	{ "sparse, first", "x........", sparse, 9 },
	{ "sparse, alternate", "x.x.x.x.x", sparse, 9 },
};
#define PATTERNS (sizeof(patterns) / sizeof(patterns[0]))

/* A message of exactly `size` octets; equal for equal arguments. */
static void
message(uint8_t *to, size_t size, unsigned which)
{
	size_t i;

	for (i = 0; i < size; i++)
		to[i] = (uint8_t)((i * 7 + which * 31 + i / 64) % 10 == 9 ? '\n' : 'a' + (i * 7 + which * 31 + i / 64) % 26);
	memcpy(to, "From x\n", size < 7 ? size : 7);
	if (size >= 9)
		memcpy(to + size - 2, "\n\n", 2);
}

static void
scene_make(const struct pattern *p)
{
	size_t i, n = strlen(p->marks), size;
	unsigned which;

	memset(&scene, 0, sizeof(scene));
	scene.messages = n;
	for (i = 0; i < n; i++) {
		size = p->sizes[i % p->sizes_count];
		which = i < 2 ? 0 : (unsigned)i;		/* the first two are twins */
		scene.start[i] = scene.before.size;
		message(scene.before.octets + scene.before.size, size, which);
		if (p->sizes == sparse && size > 5000)
			memset(scene.before.octets + scene.before.size + 100, 0, size - 200);
		if (p->marks[i] == '.') {
			memcpy(scene.after.octets + scene.after.size, scene.before.octets + scene.before.size, size);
			scene.after.size += size;
		} else if (scene.count > 0 && i > 0 && p->marks[i - 1] == 'x' && i % 3 != 0) {
			scene.gone[scene.count - 1].length += (off_t)size;	/* touching ranges come joined and apart */
		} else {
			scene.gone[scene.count++] = (struct range){ (off_t)scene.before.size, (off_t)size };
		}
		scene.before.size += size;
	}
	scene.start[n] = scene.before.size;
}

static void
file_fill(int file, const struct image *i)
{
	size_t at, n;

	assert_int_equal(__real_ftruncate(fds[file], 0), 0);
	assert_int_equal(__real_ftruncate(fds[file], (off_t)i->size), 0);
	for (at = 0; at < i->size; at += n) {		/* what is all zeros is a hole */
		n = i->size - at < 4096 ? i->size - at : 4096;
		if (!is_zeros(i->octets + at, n))
			assert_int_equal(__real_pwrite(fds[file], i->octets + at, n, (off_t)at), n);
	}
}

static void
file_take(int file, struct image *i)
{
	i->size = (size_t)size_of(fds[file]);
	assert_true(i->size <= ROOM);
	assert_int_equal(__real_pread(fds[file], i->octets, i->size, 0), i->size);
}

/* Does the mailbox hold this, and then exactly `more`? */
static bool
mbox_is(const struct image *i, const uint8_t *more, size_t length)
{
	static struct image is;

	file_take(MBOX, &is);
	return is.size == i->size + length && memcmp(is.octets, i->octets, i->size) == 0 &&
	    (length == 0 || memcmp(is.octets + i->size, more, length) == 0);
}

static void
files_reset(void)
{
	static const struct image empty;

	recording = false;
	fault_at = 0;
	file_fill(MBOX, &scene.before);
	file_fill(JOURNAL, &empty);
	while (ops_count > 0)
		free(ops[--ops_count].octets);
}

static bool
header_in_file(void)
{
	uint8_t octets[sizeof(struct header)];
	ssize_t n = __real_pread(fds[JOURNAL], octets, sizeof(octets), 0);

	assert_true(n >= 0);
	return !sodium_is_zero(octets, (size_t)n);
}

static bool
long_run(void)
{
	return getenv("JOURNAL_LONG") != NULL;
}

static int
setup(void **state)
{
	(void)state;
	assert_true(sodium_init() >= 0);
	fds[MBOX] = memfd_create("mbox", MFD_CLOEXEC);
	fds[JOURNAL] = memfd_create("journal", MFD_CLOEXEC);
	return fds[MBOX] == -1 || fds[JOURNAL] == -1 ? -1 : 0;
}

static bool promises;			/* the truncation is apart; and what moves nothing is journaled, too */
static bool promised;			/* and was, by the last apply */

static bool
moves(void)
{
	return journal_needed(scene.gone, scene.count, (off_t)scene.before.size);
}

/* Is there a journal to recover from? */
static bool
journaled(void)
{
	return moves() || (promises && scene.count > 0);
}

static enum journal_outcome
apply(void)
{
	enum journal_outcome outcome;

	promised = false;
	if (promises) {
		outcome = journal_promise(fds[MBOX], fds[JOURNAL], scene.gone, scene.count, (off_t)scene.before.size);
		promised = outcome == JOURNAL_PROMISED;
		return promised ? journal_keep(fds[MBOX], (off_t)scene.after.size) : outcome;
	}
	return journal_apply(fds[MBOX], fds[JOURNAL], scene.gone, scene.count, (off_t)scene.before.size);
}

static enum journal_state
recover(const char **why)
{
	return journal_recover(fds[MBOX], fds[JOURNAL], why);
}

/* ---- plain use */

static void
test_apply(void **state)
{
	const char *why;
	size_t i;

	(void)state;
	for (i = 0; i < 3 * PATTERNS; i++) {
		can_clone = i / PATTERNS == 1;
		promises = i / PATTERNS == 2;
		scene_make(&patterns[i % PATTERNS]);
		files_reset();
		assert_int_equal(apply(), JOURNAL_APPLIED);
		assert_true(mbox_is(&scene.after, NULL, 0));
		assert_int_equal(promised, promises && scene.count > 0);
		assert_int_equal(recover(&why), journaled() ? JOURNAL_DONE : JOURNAL_NOTHING);
		assert_true(mbox_is(&scene.after, NULL, 0));
	}
	can_clone = promises = false;
}

static void
test_refused(void **state)
{
	struct range bad[2] = { { 10, 5 }, { 12, 5 } };
	off_t size;

	(void)state;
	scene_make(&patterns[0]);
	files_reset();
	size = (off_t)scene.before.size;
	assert_int_equal(journal_promise(fds[MBOX], fds[JOURNAL], scene.gone, 0, size), JOURNAL_APPLIED);
	assert_int_equal(journal_apply(fds[MBOX], fds[JOURNAL], bad, 2, size), JOURNAL_UNCHANGED);
	assert_int_equal(errno, EINVAL);
	bad[1] = (struct range){ 20, 0 };
	assert_int_equal(journal_apply(fds[MBOX], fds[JOURNAL], bad, 2, size), JOURNAL_UNCHANGED);
	bad[1] = (struct range){ 20, size };
	assert_int_equal(journal_apply(fds[MBOX], fds[JOURNAL], bad, 2, size), JOURNAL_UNCHANGED);
	bad[1] = (struct range){ 20, (off_t)(~(uint64_t)0 >> 1) };
	assert_int_equal(journal_apply(fds[MBOX], fds[JOURNAL], bad, 2, size), JOURNAL_UNCHANGED);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(journal_apply(fds[MBOX], fds[JOURNAL], scene.gone, scene.count, size - 1), JOURNAL_UNCHANGED);
	assert_int_equal(errno, ESTALE);
	assert_int_equal(journal_apply(fds[MBOX], -1, scene.gone, scene.count, size), JOURNAL_UNCHANGED);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(__real_pwrite(fds[JOURNAL], "x", 1, 0), 1);
	assert_int_equal(apply(), JOURNAL_UNCHANGED);
	assert_int_equal(errno, EEXIST);
	assert_true(mbox_is(&scene.before, NULL, 0));
	assert_int_equal(fcntl(fds[MBOX], F_SETFL, O_APPEND), 0);
	assert_int_equal(apply(), JOURNAL_UNCHANGED);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(fcntl(fds[MBOX], F_SETFL, 0), 0);
}

/* What is long and takes no room takes none in the journal, whether it is moved or put back. */
static void
test_sparse(void **state)
{
	static const char first[] = "From a\n\na\n\n", second[] = "From b\n\n", end[] = "\nend\n\n", third[] = "From c\n\nc\n\n";
	const off_t length = (off_t)64 << 20, size = (off_t)strlen(first) + (off_t)strlen(second) + length + (off_t)strlen(end) + (off_t)strlen(third);
	const struct range gone[] = { { 0, (off_t)strlen(first) }, { size - (off_t)strlen(third), (off_t)strlen(third) } };
	const char *why;
	char is[16];
	int way;

	(void)state;
	for (way = 0; way < 3; way++) {			/* applied; undone at once; undone by recovery */
		scene_make(&patterns[15]);
		files_reset();
		assert_int_equal(__real_ftruncate(fds[MBOX], 0), 0);
		assert_int_equal(__real_pwrite(fds[MBOX], first, strlen(first), 0), strlen(first));
		assert_int_equal(__real_pwrite(fds[MBOX], second, strlen(second), (off_t)strlen(first)), strlen(second));
		assert_int_equal(__real_pwrite(fds[MBOX], end, strlen(end), size - (off_t)strlen(third) - (off_t)strlen(end)), strlen(end));
		assert_int_equal(__real_pwrite(fds[MBOX], third, strlen(third), size - (off_t)strlen(third)), strlen(third));
		fault_mask = F_SYNC;
		fault_errno = EIO;
		fault_count = 0;
		fault_at = way == 0 ? 0 : 2;		/* of the mailbox, after MOVE */
		fault_times = way == 1 ? 1 : 1000;
		assert_int_equal(journal_apply(fds[MBOX], fds[JOURNAL], gone, 2, size),
		    way == 0 ? JOURNAL_APPLIED : way == 1 ? JOURNAL_UNCHANGED : JOURNAL_PENDING);
		fault_at = 0;
		assert_true(blocks_of(fds[JOURNAL]) < 256 << 10);
		if (way == 2)
			assert_int_equal(recover(&why), JOURNAL_NOTHING);
		assert_int_equal(size_of(fds[MBOX]), way == 0 ? size - gone[0].length - gone[1].length : size);
		assert_int_equal(__real_pread(fds[MBOX], is, strlen(end), size_of(fds[MBOX]) - (off_t)strlen(end) - (way == 0 ? 0 : (off_t)strlen(third))),
		    strlen(end));
		assert_memory_equal(is, end, strlen(end));
		assert_int_equal(__real_pread(fds[MBOX], is, strlen(second), way == 0 ? 0 : (off_t)strlen(first)), strlen(second));
		assert_memory_equal(is, second, strlen(second));
	}
}

/* What moves nothing needs no journal. */
static void
test_without_journal(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < PATTERNS; i++) {
		scene_make(&patterns[i]);
		if (moves())
			continue;
		files_reset();
		recording = true;
		assert_int_equal(journal_apply(fds[MBOX], -1, scene.gone, scene.count, (off_t)scene.before.size), JOURNAL_APPLIED);
		assert_true(mbox_is(&scene.after, NULL, 0));
		assert_true(ops_count <= 2);
	}
}

/* A note lies in a journal until it is dropped, whatever becomes of the UPDATE; one that is not whole is none. */
static void
test_note(void **state)
{
	struct journal_note n = { .archive = 7, .before = 4711 }, is;
	struct range *gone = NULL, other[2] = { { 0, 5 }, { 7, 5 } };
	size_t count, length, i;
	uint8_t octet;

	(void)state;
	for (i = 0; i < 2 * PATTERNS; i++) {
		promises = i >= PATTERNS;
		scene_make(&patterns[i % PATTERNS]);
		if (scene.count == 0)
			continue;
		for (int fails = 0; fails < 3; fails++) {
			files_reset();
			assert_int_equal(journal_noted(fds[JOURNAL], &is, &gone, &count), 0);
			assert_int_equal(journal_note(fds[JOURNAL], &n, scene.gone, scene.count), 0);
			assert_int_equal(journal_note(fds[JOURNAL], &n, scene.gone, scene.count), -1);
			assert_int_equal(errno, EEXIST);
			assert_int_equal(journal_apply(fds[MBOX], fds[JOURNAL], other, 2, (off_t)scene.before.size), JOURNAL_UNCHANGED);
			assert_int_equal(errno, EEXIST);
			/* the truncation fails, or the second sync */
			fault_mask = fails == 1 ? F_CUT : F_SYNC;
			fault_count = 0;
			fault_at = fails == 1 ? 1 : 2;
			fault_times = fails == 0 ? 0 : 1;
			fault_errno = EIO;
			enum journal_outcome outcome = apply();
			fault_at = 0;
			if (promises && fails == 1) {	/* promised, and then not done: so it will be */
				assert_int_equal(outcome, JOURNAL_PENDING);
				assert_int_equal(recover(NULL), JOURNAL_DONE);
				outcome = JOURNAL_APPLIED;
			}
			assert_int_equal(outcome, fails == 0 || (fails == 2 && !journaled()) || (fails == 1 && promises) ? JOURNAL_APPLIED : JOURNAL_UNCHANGED);
			assert_true(mbox_is(outcome == JOURNAL_APPLIED ? &scene.after : &scene.before, NULL, 0));
			assert_int_equal(recover(NULL), outcome == JOURNAL_APPLIED && journaled() ? JOURNAL_DONE : JOURNAL_NOTHING);
			assert_int_equal(journal_noted(fds[JOURNAL], &is, &gone, &count), 1);
			assert_true(is.archive == 7 && is.before == 4711 && count == scene.count);
			assert_memory_equal(gone, scene.gone, count * sizeof(*gone));
			free(gone);
		}
	}
	promises = false;
	scene_make(&patterns[6]);
	files_reset();
	assert_int_equal(journal_note(fds[JOURNAL], &n, scene.gone, scene.count), 0);
	length = (size_t)size_of(fds[JOURNAL]);
	for (i = AT_NOTE; i < length; i++) {
		if (i == AT_NOTE + sizeof(struct note))
			i = AT_TABLE;
		assert_int_equal(__real_pread(fds[JOURNAL], &octet, 1, (off_t)i), 1);
		octet ^= 1;
		assert_int_equal(__real_pwrite(fds[JOURNAL], &octet, 1, (off_t)i), 1);
		assert_int_equal(journal_noted(fds[JOURNAL], &is, &gone, &count), 0);
		if (i < AT_TABLE) {
			assert_int_equal(apply(), JOURNAL_UNCHANGED);
			assert_int_equal(errno, EEXIST);
		}
		octet ^= 1;
		assert_int_equal(__real_pwrite(fds[JOURNAL], &octet, 1, (off_t)i), 1);
	}
	assert_int_equal(__real_ftruncate(fds[JOURNAL], (off_t)length - 1), 0);
	assert_int_equal(journal_noted(fds[JOURNAL], &is, &gone, &count), 0);
	assert_true(mbox_is(&scene.before, NULL, 0));
}

/* ---- journals that must not be acted on */

/* Brings the files to where a crash behind COMMIT and before MOVE would. */
static void
crash_committed(const struct pattern *p)
{
	static struct image journal;
	long at;

	scene_make(p);
	/* Everything fails from the first write behind the header on, which is found by trying. */
	for (at = 1;; at++) {
		files_reset();
		fault_mask = F_WRITE | F_CUT;
		fault_errno = EIO;
		fault_short = false;
		fault_count = 0;
		fault_times = 1000;
		fault_at = at;
		if (apply() == JOURNAL_PENDING) {
			file_take(JOURNAL, &journal);
			if (!sodium_is_zero(journal.octets, sizeof(struct header)))
				break;
		}
	}
	fault_at = 0;
	assert_true(mbox_is(&scene.before, NULL, 0));
}

/* And to where one behind SEAL would: *marked becomes the mailbox as it is then. */
static void
crash_sealed(const struct pattern *p, struct image *marked)
{
	scene_make(p);
	files_reset();
	assert_int_equal(journal_promise(fds[MBOX], fds[JOURNAL], scene.gone, scene.count, (off_t)scene.before.size), JOURNAL_PROMISED);
	file_take(MBOX, marked);
}

/* Every octet of the journal that is there, changed: nothing is done to the mailbox, or exactly the update, or all is undone. */
static void
damaged(const struct image *mbox)
{
	static struct image good, bad;
	enum journal_state s;
	size_t i, torn = 0;

	file_take(JOURNAL, &good);
	for (i = 0; i < good.size; i += i < sizeof(struct header) ? 1 : 37) {
		bad = good;
		bad.octets[i] ^= 0x10;
		file_fill(JOURNAL, &bad);
		file_fill(MBOX, mbox);
		s = recover(NULL);
		if (s == JOURNAL_DONE || s == JOURNAL_NOTHING) {
			assert_true(mbox_is(s == JOURNAL_DONE ? &scene.after : &scene.before, NULL, 0));
			assert_true(i >= sizeof(struct header) && i < AT_TABLE);
		} else {
			assert_true(s == JOURNAL_TORN || s == JOURNAL_FOREIGN);
			assert_true(mbox_is(mbox, NULL, 0));
			torn++;
		}
	}
	assert_true(torn > sizeof(struct header));
	for (i = 1; i < good.size; i += 101) {
		bad = good;
		bad.size = i;
		file_fill(JOURNAL, &bad);
		file_fill(MBOX, mbox);
		assert_int_equal(recover(NULL), JOURNAL_TORN);
		assert_true(mbox_is(mbox, NULL, 0));
	}
}

static void
test_damaged(void **state)
{
	static struct image marked;

	(void)state;
	crash_committed(&patterns[6]);
	damaged(&scene.before);
	crash_sealed(&patterns[6], &marked);
	damaged(&marked);
	crash_sealed(&patterns[17], &marked);
	damaged(&marked);
}

/* The mark, as the journal has it, goes over the mailbox as it is. */
static int
mark_now(void)
{
	struct update *u = update_new(fds[MBOX], fds[JOURNAL]);
	int result;

	assert_non_null(u);
	assert_int_equal(__real_pread(fds[JOURNAL], &u->h, sizeof(u->h), AT_HEADER), sizeof(u->h));
	u->size = (off_t)u->h.size;
	u->left = (off_t)u->h.left;
	result = mark(u, u->h.mark);
	update_free(u);
	return result;
}

static void
foreign(const struct pattern *p)
{
	static struct image good, bad;
	enum journal_state s;
	struct header h;
	const char *why;
	size_t i;
	int other;

	crash_committed(p);
	file_take(JOURNAL, &good);

	/* Another file, of the same content. */
	other = memfd_create("other", MFD_CLOEXEC);
	assert_int_equal(__real_pwrite(other, scene.before.octets, scene.before.size, 0), scene.before.size);
	assert_int_equal(journal_recover(other, fds[JOURNAL], &why), JOURNAL_FOREIGN);
	close(other);

	/* A copy that was made when the mark was there, which is in messages that stay. */
	file_fill(JOURNAL, &good);
	assert_int_equal(mark_now(), 0);
	file_take(MBOX, &bad);
	assert_false(mbox_is(&scene.before, NULL, 0));
	other = memfd_create("other", MFD_CLOEXEC);
	assert_int_equal(__real_pwrite(other, bad.octets, bad.size, 0), bad.size);
	assert_int_equal(journal_recover(other, fds[JOURNAL], &why), JOURNAL_FOREIGN);
	assert_string_equal(why, "the journal is of another file");
	assert_int_equal(__real_pread(other, bad.octets, bad.size, 0), bad.size);
	assert_memory_equal(bad.octets, scene.before.octets, bad.size);
	close(other);
	file_fill(MBOX, &scene.before);

	/* A later version, whole. */
	bad = good;
	memcpy(&h, bad.octets, sizeof(h));
	h.version++;
	digest_header(&h, h.digest);
	memcpy(bad.octets, &h, sizeof(h));
	file_fill(JOURNAL, &bad);
	assert_int_equal(recover(&why), JOURNAL_FOREIGN);
	assert_true(mbox_is(&scene.before, NULL, 0));
	file_fill(JOURNAL, &good);

	/* The mailbox was rewritten by another program: shorter, or changed in any place that counts. */
	assert_int_equal(__real_ftruncate(fds[MBOX], (off_t)scene.before.size - 1), 0);
	assert_int_equal(recover(&why), JOURNAL_FOREIGN);
	for (i = 0; i < scene.before.size; i++) {
		bad = scene.before;
		bad.octets[i] ^= 0x80;
		if (i >= scene.before.size - MARK_EDGE || (i >= scene.after.size && i < scene.after.size + MARK_EDGE))
			continue;			/* it may have become an octet of the mark */
		file_fill(MBOX, &bad);
		file_fill(JOURNAL, &good);
		s = recover(&why);
		assert_int_equal(s, i < scene.after.size ? JOURNAL_FOREIGN : JOURNAL_NOTHING);
		assert_true(mbox_is(&bad, NULL, 0));
	}
	file_fill(MBOX, &scene.before);
	file_fill(JOURNAL, &good);
	assert_int_equal(recover(&why), JOURNAL_NOTHING);
	assert_true(mbox_is(&scene.before, NULL, 0));
}

static void
test_foreign(void **state)
{
	(void)state;
	foreign(&patterns[0]);
	foreign(&patterns[2]);
}

/* Not even a whole and well-summed header makes recovery read or write outside. */
static void
test_header_lies(void **state)
{
	static const uint64_t lies[] = { 0, 1, 4095, (uint64_t)1 << 32, (uint64_t)1 << 61, (uint64_t)1 << 63, ~(uint64_t)0 };
	static struct image good, bad;
	struct header h;
	const char *why;
	size_t i, j;
	enum journal_state s;

	(void)state;
	crash_committed(&patterns[6]);
	file_take(JOURNAL, &good);
	for (i = 0; i < 5; i++)
		for (j = 0; j < sizeof(lies) / sizeof(lies[0]); j++) {
			bad = good;
			memcpy(&h, bad.octets, sizeof(h));
			*(i == 0 ? &h.size : i == 1 ? &h.first : i == 2 ? &h.left : i == 3 ? &h.count : &h.end) = lies[j];
			digest_header(&h, h.digest);
			memcpy(bad.octets, &h, sizeof(h));
			file_fill(JOURNAL, &bad);
			file_fill(MBOX, &scene.before);
			s = recover(&why);
			assert_true(s == JOURNAL_TORN || s == JOURNAL_FOREIGN || (i == 1 && lies[j] == 0 && s == JOURNAL_NOTHING));
			assert_true(mbox_is(&scene.before, NULL, 0));
		}
}

/* ---- faults by count */

/* Does recovery find nothing, or (the header, too, was cut by the fault) something torn? All is left as it was found. */
static bool
never_committed(void)
{
	static struct image mbox, journal;
	enum journal_state s;
	const char *why;

	file_take(MBOX, &mbox);
	file_take(JOURNAL, &journal);
	s = recover(&why);
	if (s != JOURNAL_DONE) {
		assert_true(s == JOURNAL_NOTHING || s == JOURNAL_TORN);
		assert_true(mbox_is(&scene.before, NULL, 0));
	}
	file_fill(MBOX, &mbox);
	file_fill(JOURNAL, &journal);
	return s != JOURNAL_DONE;
}

/* One run of apply with the fault as set; returns whether it was met. */
static bool
fault_once(unsigned mask, long at, long times, int error, bool short_write)
{
	enum journal_outcome outcome;
	enum journal_state s;
	const char *why;
	bool met, before;

	files_reset();
	fault_mask = mask;
	fault_times = times;
	fault_errno = error;
	fault_short = short_write;
	fault_count = 0;
	fault_at = at;
	outcome = apply();
	met = fault_count >= at;
	if (outcome == JOURNAL_UNCHANGED) {
		assert_true(errno == error || errno == ENOMEM);
		assert_true(mbox_is(&scene.before, NULL, 0));
	} else if (outcome == JOURNAL_APPLIED) {
		assert_true(mbox_is(&scene.after, NULL, 0));
	} else {
		assert_int_equal(errno, error);
		/* A single fault is always undone, unless it is the very last sync. */
		assert_true(times > 1 || promised || mbox_is(&scene.after, NULL, 0));
	}
	fault_at = 0;
	before = outcome == JOURNAL_UNCHANGED || (journaled() && outcome == JOURNAL_PENDING && !promised && never_committed());
	assert_true(!before || outcome != JOURNAL_PENDING || times > 1);
	/* Recovery meets faults too, and is tried again. */
	for (at = 1; outcome == JOURNAL_PENDING; at++) {
		fault_at = at;
		fault_count = 0;
		fault_times = 1;
		fault_mask = F_ALL;
		s = recover(&why);
		if (fault_count < at) {
			if (!before || s != JOURNAL_TORN)
				assert_int_equal(s, journaled() && !before ? JOURNAL_DONE : JOURNAL_NOTHING);
			break;
		}
	}
	fault_at = 0;
	s = recover(&why);
	assert_true(s == JOURNAL_NOTHING || s == JOURNAL_DONE || (before && s == JOURNAL_TORN));
	assert_true(outcome != JOURNAL_UNCHANGED || s == JOURNAL_NOTHING);
	assert_true(mbox_is(before ? &scene.before : &scene.after, NULL, 0));
	return met;
}

static void
test_faults(void **state)
{
	static const int errors[] = { ENOSPC, EDQUOT, EIO, EFBIG, EROFS };
	static const unsigned masks[] = { F_ALL, F_WRITE, F_READ, F_SYNC, F_CUT, F_MEMORY };
	size_t i, e, m;
	long at, times;
	int short_write;

	(void)state;
	for (i = 0; i < 3 * PATTERNS; i++) {
		can_clone = i / PATTERNS == 1;
		promises = i / PATTERNS == 2;
		if (!long_run() && (can_clone || i % 3 != 0) && patterns[i % PATTERNS].sizes == large && i % PATTERNS != 12)
			continue;
		if (can_clone && patterns[i % PATTERNS].sizes != large)
			continue;
		scene_make(&patterns[i % PATTERNS]);
		if (promises && scene.count == 0)
			continue;
		for (m = 0; m < sizeof(masks) / sizeof(masks[0]); m++)
			for (times = 1; times < 10000; times = times == 1 ? 2 : times * 100)
				for (short_write = 0; short_write < 2; short_write++)
					for (e = 0; e < (m == 1 && times == 1 ? 5 : 1); e++) {
						int error = masks[m] == F_MEMORY ? ENOMEM : errors[m == 1 ? e : i % 5];

						for (at = 1; fault_once(masks[m], at, times, error, short_write); at++)
							continue;
					}
	}
	can_clone = promises = false;
}

/* ---- power cuts */

/*
 * What a disk may hold: of what was not yet synced to its file, each operation may be there, or not, or (a write)
 * only up to or only from some 512 boundary, or (a truncation) not, but with zeros from the new end to the end of the
 * block.
 */
enum fate { THERE, MISSING, HEAD, TAIL, ZEROED };
struct decision {
	enum fate rest;			/* of all others that were not synced */
	long one, two;			/* pending operations with a fate of their own, -1: none */
	enum fate fate;
	size_t torn;			/* HEAD, TAIL: where */
};

static struct image disk[FILES];
static size_t pending[OPS_MAX];
static size_t pending_count;
static bool dropped;			/* the caller has dropped the journal, as it was told */
static unsigned long cuts;		/* how many were tried */
static char what[256];			/* the one being tried, to be found again */

static void
disk_write(struct image *i, const uint8_t *octets, size_t length, size_t at)
{
	if (length == 0)
		return;
	assert_true(at + length <= ROOM);
	if (at > i->size)
		memset(i->octets + i->size, 0, at - i->size);
	memcpy(i->octets + at, octets, length);
	if (at + length > i->size)
		i->size = at + length;
}

/* An operation reaches the disk. *floor: a truncation behind which nothing but its block may change, because it did not. */
static void
disk_do(const struct op *o, enum fate fate, size_t torn, size_t *floor)
{
	struct image *i = &disk[o->file];
	size_t length = o->length, from = 0, block;

	if (o->kind == WRITE) {
		if (fate == MISSING)
			return;
		if (fate == HEAD)
			length = torn;
		else if (fate == TAIL)
			from = torn;
		block = (*floor + 4095) / 4096 * 4096;
		if (*floor != SIZE_MAX && (size_t)o->at >= *floor) {
			if ((size_t)o->at >= block || block > i->size)
				return;
			if ((size_t)o->at + length > block)
				length = block - (size_t)o->at;
			if (from > length)
				return;
		}
		disk_write(i, o->octets + from, length - from, (size_t)o->at + from);
	} else if (o->kind == CUT) {
		if (fate == MISSING || fate == ZEROED) {
			block = ((size_t)o->at + 4095) / 4096 * 4096;
			if (fate == ZEROED && (size_t)o->at < i->size)
				memset(i->octets + o->at, 0, (block < i->size ? block : i->size) - (size_t)o->at);
			*floor = (size_t)o->at;
			return;
		}
		if ((size_t)o->at > i->size)
			memset(i->octets + i->size, 0, (size_t)o->at - i->size);
		i->size = (size_t)o->at;
		*floor = SIZE_MAX;
	}
}

/* What a failed sync was to write may never be, whatever a later one says. */
static bool
is_pending(size_t op, size_t end)
{
	size_t i;

	if (ops[op].kind == SYNC || ops[op].kind == SYNC_FAILED)
		return false;
	for (i = op + 1; i < end; i++)
		if (ops[i].file == ops[op].file && (ops[i].kind == SYNC || ops[i].kind == SYNC_FAILED))
			return ops[i].kind == SYNC_FAILED;
	return true;
}

static void
pending_find(size_t end)
{
	size_t i;

	pending_count = 0;
	for (i = 0; i < end; i++)
		if (is_pending(i, end))
			pending[pending_count++] = i;
}

/* The disk after the power was cut behind the first `end` operations. */
static void
disk_make(size_t end, const struct decision *d)
{
	size_t i, p = 0, floor[FILES] = { SIZE_MAX, SIZE_MAX };
	enum fate fate;

	disk[MBOX].size = scene.before.size;
	memcpy(disk[MBOX].octets, scene.before.octets, scene.before.size);
	disk[JOURNAL].size = 0;
	for (i = 0; i < end; i++) {
		fate = THERE;
		if (p < pending_count && pending[p] == i) {
			fate = (long)p == d->one || (long)p == d->two ? d->fate : d->rest;
			p++;
		}
		disk_do(&ops[i], fate, d->torn, &floor[ops[i].file]);
	}
	if (dropped)
		disk[JOURNAL].size = 0;
}

/* What arrives between the crash and the recovery. */
static uint8_t mail[3 * ROOM / 4];

/* Of no length, short, exactly as long and the same as the doomed end, longer. */
static size_t
mail_of(int which)
{
	size_t doomed = scene.before.size - scene.after.size;

	switch (which) {
	case 0:
		return 0;
	case 1:
		message(mail, 77, 99);
		return 77;
	case 2:
		memcpy(mail, scene.before.octets + scene.after.size, doomed);
		return doomed;
	default:
		message(mail, doomed + 777, 98);
		return doomed + 777;
	}
}
#define MAILS 4

/* What was done, for whoever has to find out. */
static void
explain(void)
{
	size_t i;

	for (i = 0; i < ops_count; i++)
		print_message("%2zu %s %s %lld, %zu octets%s\n", i + 1, ops[i].file == MBOX ? "mbox   " : "journal",
		    ops[i].kind == WRITE ? "write" : ops[i].kind == CUT ? "cut  " : "sync ", (long long)ops[i].at, ops[i].length,
		    pending_count > 0 && i == pending[0] ? " (first pending)" : "");
}

enum expect { BEFORE = 1, AFTER = 2, EITHER = 3 };

/* Puts the disk into the files, appends, recovers, and looks. `loose`: mail that was itself not synced may be there in part. */
static void
cut_recover(enum expect expect, const uint8_t *earlier, size_t earlier_length, int which, bool loose)
{
	static struct image is;
	static uint8_t more[ROOM];
	enum journal_state s;
	const char *why;
	size_t length;
	bool before, after, begun;

	cuts++;
	file_fill(MBOX, &disk[MBOX]);
	file_fill(JOURNAL, &disk[JOURNAL]);
	if (earlier_length > 0)
		memcpy(more, earlier, earlier_length);
	length = mail_of(which);
	memcpy(more + earlier_length, mail, length);
	assert_int_equal(__real_pwrite(fds[MBOX], mail, length, (off_t)disk[MBOX].size), length);
	begun = header_in_file();
	s = recover(&why);
	if (s != JOURNAL_DONE && s != JOURNAL_NOTHING && !(s == JOURNAL_TORN && begun && (expect & BEFORE)))
	{
		explain();
		fail_msg("state %d: %s; %s", s, why, what);
	}
	length += earlier_length;
	file_take(MBOX, &is);
	if (loose) {
		before = is.size >= scene.before.size && memcmp(is.octets, scene.before.octets, scene.before.size) == 0;
		after = is.size >= scene.after.size && is.size <= scene.after.size + length + 2 * MARK_EDGE &&
		    memcmp(is.octets, scene.after.octets, scene.after.size) == 0;
	} else {
		before = mbox_is(&scene.before, more, length);
		after = mbox_is(&scene.after, more, length);
	}
	if (!(before && (expect & BEFORE)) && !(after && (expect & AFTER))) {
		explain();
		fail_msg("neither before nor after: state %d, %s; size %zu, before %zu, after %zu, appended %zu, expected %d; %s", s, why,
		    is.size, scene.before.size, scene.after.size, length, expect, what);
	}
	/* And once more: nothing is left to do. */
	if (s == JOURNAL_DONE) {
		assert_int_equal(recover(&why), JOURNAL_DONE);
		file_take(MBOX, &disk[MBOX]);
		assert_true(disk[MBOX].size == is.size && memcmp(disk[MBOX].octets, is.octets, is.size) == 0);
	}
}

/* All that may be on disk behind the first `end` operations, each with all that may have arrived. */
static void
cut_everywhere(size_t end, enum expect expect, const uint8_t *earlier, size_t length, bool loose, bool deep)
{
	struct decision d;
	size_t i, j, torn;
	int which, rest, last = deep ? MAILS : 2;

#define TRY do { \
	(void)snprintf(what, sizeof(what), "behind %zu of %zu, mail %d, rest %d, fate %d of %ld and %ld of %zu pending, torn %zu", \
	    end, ops_count, which, d.rest, d.fate, d.one, d.two, pending_count, d.torn); \
	disk_make(end, &d); cut_recover(expect, earlier, length, which, loose); \
} while (0)
	pending_find(end);
	for (which = 0; which < last; which++)
		for (rest = THERE; rest <= MISSING; rest++) {
			d = (struct decision){ .rest = (enum fate)rest, .one = -1, .two = -1 };
			TRY;
			d.fate = rest == THERE ? MISSING : THERE;
			for (i = 0; i < pending_count; i++) {
				d.one = (long)i;
				d.two = -1;
				TRY;
				for (j = i + 1; deep && j < pending_count && (which == 0 || long_run()); j++) {
					d.two = (long)j;
					TRY;
				}
			}
			d.two = -1;
			for (i = 0; i < pending_count; i++) {
				d.one = (long)i;
				if (ops[pending[i]].kind == CUT) {
					d.fate = ZEROED;
					TRY;
				}
				if (ops[pending[i]].kind != WRITE || which > 1)
					continue;
				for (torn = 512; torn < ops[pending[i]].length; torn += deep ? 512 : 2048) {
					d.torn = torn;
					d.fate = HEAD;
					TRY;
					d.fate = TAIL;
					TRY;
				}
			}
		}
#undef TRY
}

/* All is done, and the journal was dropped: no power cut may matter any more. */
static void
cut_dropped(enum expect expect, const uint8_t *earlier, size_t length)
{
	dropped = true;
	cut_everywhere(ops_count, expect, earlier, length, false, false);
	dropped = false;
}

/* Behind which operation the seal was synced, which decides. And where the writing of it began. */
static void
commit_find(size_t *written, size_t *synced)
{
	size_t i;

	*written = *synced = ops_count + 1;
	for (i = 0; i < ops_count; i++) {
		if (ops[i].file != JOURNAL)
			continue;
		if (ops[i].kind == WRITE && ops[i].at == AT_SLOT + BLOCK && *written > i)
			*written = i + 1;
		if (ops[i].kind == SYNC && *written <= i && *synced > i)
			*synced = i + 1;
	}
}

static enum expect
expect_at(size_t end, size_t written, size_t synced)
{
	if (!journaled())
		return EITHER;
	return end >= synced ? AFTER : end >= written ? EITHER : BEFORE;
}

static void
test_power(void **state)
{
	size_t i, end, written, synced;

	(void)state;
	cuts = 0;
	for (i = 0; i < 3 * PATTERNS; i++) {
		can_clone = i / PATTERNS == 1;
		promises = i / PATTERNS == 2;
		if (can_clone && patterns[i % PATTERNS].sizes != large)
			continue;
		if (patterns[i % PATTERNS].sizes == large && !long_run() && i % 2 == 0)
			continue;
		scene_make(&patterns[i % PATTERNS]);
		if (promises && scene.count == 0)
			continue;
		files_reset();
		recording = true;
		assert_int_equal(apply(), JOURNAL_APPLIED);
		recording = false;
		commit_find(&written, &synced);
		for (end = 0; end <= ops_count; end++) {
			/* A cut that takes only a tail off leaves nothing to recover by: the truncation is there, or not. */
			if (!journaled() && end > 0 && end < ops_count)
				continue;
			cut_everywhere(end, end == ops_count ? AFTER : expect_at(end, written, synced), NULL, 0, false,
			    patterns[i % PATTERNS].sizes != large || long_run());
		}
		cut_dropped(AFTER, NULL, 0);
	}
	can_clone = promises = false;
	print_message("%lu power cuts\n", cuts);
}

/* A deliverer's append, as an operation; synced or not. */
static void
deliver(size_t length, bool synced)
{
	off_t at = size_of(fds[MBOX]);

	recording = true;
	note(MBOX, WRITE, mail, length, at, 0);
	if (synced)
		note(MBOX, SYNC, NULL, 0, 0, 0);
	recording = false;
	assert_int_equal(__real_pwrite(fds[MBOX], mail, length, at), length);
}

/* Drops what was done behind the first `end`, and brings the files to where these left them. */
static void
rewind_to(size_t end)
{
	struct decision all = { .rest = THERE, .one = -1, .two = -1 };

	while (ops_count > end)
		free(ops[--ops_count].octets);
	pending_count = 0;
	disk_make(end, &all);
	file_fill(MBOX, &disk[MBOX]);
	file_fill(JOURNAL, &disk[JOURNAL]);
}

/* Killed at `end`; mail comes; recovery runs, and the power is cut anywhere in it; more mail comes. */
static void
cut_in_recovery(size_t end, int which, bool synced, enum expect expect)
{
	static uint8_t earlier[ROOM];
	enum expect inner;
	enum journal_state s;
	const char *why;
	size_t from, length, total;

	rewind_to(end);
	length = mail_of(which);
	memcpy(earlier, mail, length);
	if (length > 0)
		deliver(length, synced);
	from = ops_count;
	recording = true;
	s = recover(&why);
	recording = false;
	assert_true(s == JOURNAL_DONE || s == JOURNAL_NOTHING);
	/* What the header said when it was read counts from its sync on, which is the first thing that recovery does. */
	for (total = ops_count, end = from; end <= total; end++) {
		inner = s == JOURNAL_DONE && end > from ? AFTER : s == JOURNAL_NOTHING ? BEFORE : expect;
		cut_everywhere(end, inner, earlier, length, !synced && length > 0, false);
	}
	if (s == JOURNAL_DONE || promises)
		cut_dropped(s == JOURNAL_DONE ? AFTER : BEFORE, earlier, length);
}

static void
test_power_in_recovery(void **state)
{
	static const size_t chosen[] = { 0, 1, 3, 6, 9, 16, 17, 18 };
	size_t i, end, total, written, synced;
	int which, sync;

	(void)state;
	cuts = 0;
	promises = true;
	for (i = 0; i < (long_run() ? PATTERNS : sizeof(chosen) / sizeof(chosen[0])); i++) {
		scene_make(&patterns[long_run() ? i : chosen[i]]);
		if (!journaled() || patterns[long_run() ? i : chosen[i]].sizes == large)	/* these would take an hour */
			continue;
		files_reset();
		recording = true;
		assert_int_equal(apply(), JOURNAL_APPLIED);
		recording = false;
		commit_find(&written, &synced);
		total = ops_count;
		for (end = 1; end <= total; end++)
			for (which = 0; which < MAILS; which++)
				for (sync = 0; sync < (which == 0 ? 1 : 2); sync++) {
					files_reset();
					recording = true;
					assert_int_equal(apply(), JOURNAL_APPLIED);
					recording = false;
					cut_in_recovery(end, which, sync, expect_at(end, written, synced));
				}
	}
	promises = false;
	print_message("%lu power cuts\n", cuts);
}

/* Killed, mail, recovery killed, mail, recovery killed, mail: at every write of each. */
static void
test_kill_again(void **state)
{
	static uint8_t earlier[ROOM];
	struct decision all = { .rest = THERE, .one = -1, .two = -1 };
	size_t first, second, total, total2, written, synced, length, i, mark2;
	const char *why;
	int which, next, p;
	enum expect expect;

	(void)state;
	cuts = 0;
	promises = true;
	for (p = 0; p < (long_run() ? (int)PATTERNS : 6); p++) {
		scene_make(&patterns[long_run() ? p : p < 3 ? p * 3 : p + 13]);		/* the last, all, and a tail */
		if (!journaled() || (long_run() && patterns[p].sizes == large))
			continue;
		files_reset();
		recording = true;
		assert_int_equal(apply(), JOURNAL_APPLIED);
		recording = false;
		commit_find(&written, &synced);
		total = ops_count;
		for (first = written; first <= total; first++)
			for (which = 0; which < MAILS; which++)
				for (next = 0; next < MAILS; next++) {
					files_reset();
					recording = true;
					assert_int_equal(apply(), JOURNAL_APPLIED);
					recording = false;
					rewind_to(first);
					length = mail_of(which);
					memcpy(earlier, mail, length);
					if (length > 0)
						deliver(length, true);
					mark2 = ops_count;
					recording = true;
					assert_int_equal(recover(&why), JOURNAL_DONE);
					recording = false;
					total2 = ops_count;
					expect = AFTER;
					for (second = mark2; second <= total2; second += long_run() ? 1 : 2) {
						pending_count = 0;
						disk_make(second, &all);
						for (i = 0; i < 3; i += 2)
							cut_recover(expect, earlier, length, next, false), disk_make(second, &all);
					}
				}
	}
	promises = false;
	print_message("%lu kills\n", cuts);
}

/*
 * Killed at `end`, and other programs have the mailbox before it is recovered: one takes [at, at + length) out of it, and mail comes
 * that makes it as long as it was, or longer, and may end as the one before it did. Whatever recovery takes of all this, that mail
 * is no part of it.
 */
static void
rewrite(size_t end, size_t at, size_t length, size_t more, bool alike)
{
	static struct image is;
	struct header h = { 0 };
	const char *why;

	rewind_to(end);
	file_take(MBOX, &is);
	assert_true(__real_pread(fds[JOURNAL], &h, sizeof(h), AT_HEADER) >= 0);
	if (at + length > is.size || (alike && memcmp(is.octets + is.size - MARK_EDGE, h.mark + MARK_EDGE, MARK_EDGE) == 0))
		return;				/* no mail has the mark in it */
	memmove(is.octets + at, is.octets + at + length, is.size - at - length);
	message(mail, length + more, 97);
	if (alike)
		memcpy(mail + length + more - 33, is.octets + is.size - length - 33, 33);
	memcpy(is.octets + is.size - length, mail, length + more);
	is.size += more;
	file_fill(MBOX, &is);
	recover(&why);
	file_take(MBOX, &is);
	cuts++;
	if (is.size < length + more || memcmp(is.octets + is.size - length - more, mail, length + more) != 0) {
		explain();
		fail_msg("mail is lost: behind %zu, %zu octets at %zu taken out, %zu put on; %s", end, length, at, more, why);
	}
}

static void
rewrite_everywhere(size_t end)
{
	static const size_t lengths[] = { 33, 90, 700, 1501 };
	size_t i, k, at[] = { 0, scene.start[1], (size_t)scene.gone[0].start, scene.after.size, scene.after.size + MARK_EDGE,
		scene.before.size - 700, scene.before.size - MARK_EDGE, scene.before.size - 90 };

	for (i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		for (k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
			rewrite(end, at[i], lengths[k], 0, false);
			rewrite(end, at[i], lengths[k], 0, true);
			rewrite(end, at[i], lengths[k], 300, false);
		}
}

/* What apply or (with mail that came first) a recovery does, once more from the start: rewind_to() has taken the rest of it away. */
static void
record(int which)
{
	const char *why;

	files_reset();
	recording = true;
	assert_int_equal(which == 0 ? apply() : journal_promise(fds[MBOX], fds[JOURNAL], scene.gone, scene.count, (off_t)scene.before.size),
	    which == 0 ? JOURNAL_APPLIED : JOURNAL_PROMISED);
	if (which != 0) {
		deliver(mail_of(which), true);
		recording = true;
		assert_int_equal(recover(&why), JOURNAL_DONE);
	}
	recording = false;
}

static void
test_rewritten(void **state)
{
	static const size_t chosen[] = { 0, 2, 5, 6, 7, 16, 17, 18 };
	size_t i, end, total;
	int which;

	(void)state;
	cuts = 0;
	promises = true;
	for (i = 0; i < sizeof(chosen) / sizeof(chosen[0]); i++)
		for (which = 0; which < MAILS; which += 1 + (which == 1)) {
			scene_make(&patterns[chosen[i]]);
			record(which);
			for (total = ops_count, end = 0; end < total; end++) {
				record(which);
				rewrite_everywhere(end);
			}
		}
	promises = false;
	print_message("%lu rewritten\n", cuts);
}

/* An apply that meets a fault and goes back, or cannot: cut anywhere in that, and in the recovery that follows. */
static bool
cut_in_retreat(unsigned mask, long at, long times, bool short_write)
{
	enum journal_outcome outcome;
	enum journal_state s;
	const char *why;
	size_t end, from;

	files_reset();
	recording = true;
	fault_mask = mask;
	fault_errno = EIO;
	fault_short = short_write;
	fault_times = times;
	fault_count = 0;
	fault_at = at;
	outcome = apply();
	fault_at = 0;
	from = ops_count;
	if (fault_count < at) {
		recording = false;
		return false;
	}
	if (outcome == JOURNAL_PENDING) {
		s = recover(&why);
		recording = false;
		assert_true(!promised || s == JOURNAL_DONE);
		for (end = from; end <= ops_count; end++)
			cut_everywhere(end, promised ? AFTER : EITHER, NULL, 0, false, false);
		if (s == JOURNAL_DONE || s == JOURNAL_NOTHING)
			cut_dropped(s == JOURNAL_DONE ? AFTER : BEFORE, NULL, 0);
		return true;
	}
	recording = false;
	for (end = 0; end <= from; end++)
		cut_everywhere(end, end == from ? outcome == JOURNAL_APPLIED ? AFTER : BEFORE : EITHER, NULL, 0, false, false);
	cut_dropped(outcome == JOURNAL_APPLIED ? AFTER : BEFORE, NULL, 0);
	return true;
}

static void
test_power_in_retreat(void **state)
{
	static const size_t chosen[] = { 0, 6, 9, 17, 18 };
	size_t i;
	long at;

	(void)state;
	cuts = 0;
	promises = true;
	for (i = 0; i < sizeof(chosen) / sizeof(chosen[0]); i++) {
		scene_make(&patterns[chosen[i]]);
		for (at = 1; cut_in_retreat(F_WRITE | F_SYNC | F_CUT, at, 1 + at % 2, at % 2 != 0); at++)
			continue;
		for (at = 1; cut_in_retreat(F_SYNC, at, 1, false); at++)
			continue;
		for (at = 1; cut_in_retreat(F_SYNC, at, 1000, false); at++)
			continue;
		for (at = 1; cut_in_retreat(F_SYNC | F_WRITE | F_CUT, at, 1000, false); at++)
			continue;
	}
	promises = false;
	print_message("%lu power cuts\n", cuts);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_apply),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_without_journal),
		cmocka_unit_test(test_note),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_header_lies),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_power),
		cmocka_unit_test(test_power_in_recovery),
		cmocka_unit_test(test_kill_again),
		cmocka_unit_test(test_power_in_retreat),
		cmocka_unit_test(test_rewritten),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
