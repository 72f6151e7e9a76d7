/* The files of a Maildir. */
#include "listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const prefixes[PART_COUNT] = { "new/", "cur/" };

size_t
listing_base(const char *file, size_t length)
{
	const char *colon = memchr(file, ':', length);

	return colon != NULL ? (size_t)(colon - file) : length;
}

bool
listing_number(const char *base, size_t length, char letter, uint64_t *value)
{
	for (size_t i = 0; i + 3 < length; i++) {
		uint64_t v = 0;
		size_t k = i + 3;
		if (base[i] != ',' || base[i + 1] != letter || base[i + 2] != '=')
			continue;
		for (; k < length && k < i + 21 && base[k] >= '0' && base[k] <= '9'; k++)
			v = v * 10 + (uint64_t)(base[k] - '0');
		if (k == i + 3 || (k < length && base[k] != ','))
			return false;
		*value = v;
		return true;
	}
	return false;
}

static uint64_t
digits(const char **p, const char *end)
{
	uint64_t v = 0;

	for (; *p < end && **p >= '0' && **p <= '9'; (*p)++)
		v = v < UINT64_MAX / 100 ? v * 10 + (uint64_t)(**p - '0') : v;
	return v;
}

/* "1733000000.M123456P7.host". */
void
listing_arrival(const char *base, size_t length, uint64_t *second, uint32_t *micro)
{
	const char *p = base, *end = base + length;

	*second = digits(&p, end);
	*micro = 0;
	if (p + 1 < end && p[0] == '.' && p[1] == 'M') {
		p += 2;
		*micro = (uint32_t)digits(&p, end);
	}
}

static void
arrival(const char *base, size_t length, struct listing_entry *e)
{
	listing_arrival(base, length, &e->second, &e->micro);
}

static int
room_for(struct listing *l, size_t length)
{
	if (l->count == l->room) {
		uint32_t room = l->room > 0 ? 2 * l->room : 256;
		struct listing_entry *more = reallocarray(l->entry, room, sizeof *more);
		if (more == NULL)
			return -1;
		l->entry = more;
		l->room = room;
	}
	if (l->names_room - l->names_length < length + 1) {
		size_t room = l->names_room > 0 ? 2 * l->names_room : 16384;
		char *more = room <= UINT32_MAX ? realloc(l->names, room) : NULL;
		if (more == NULL) {
			errno = ENOMEM;
			return -1;
		}
		l->names = more;
		l->names_room = room;
	}
	return 0;
}

int
listing_add(struct listing *l, const char *name, size_t length, uint32_t inode)
{
	if (room_for(l, length) == -1)
		return -1;
	struct listing_entry *e = &l->entry[l->count++];
	*e = (struct listing_entry){
		.name = (uint32_t)l->names_length, .length = (uint16_t)length, .part = name[0] == 'n' ? PART_NEW : PART_CUR,
		.inode = inode & 0xffffff,
		.base = (uint16_t)listing_base(name + PART_PREFIX, length - PART_PREFIX),
	};
	arrival(name + PART_PREFIX, e->base, e);
	memcpy(l->names + l->names_length, name, length);
	l->names[l->names_length + length] = '\0';
	l->names_length += length + 1;
	return 0;
}

uint32_t
listing_inode(uint64_t number)
{
	return (uint32_t)(number % ((1u << LISTING_INODE_BITS) - 1)) + 1;
}

/* 1: a regular file; 0: something else; -1: it has gone. */
static int
is_file(int directory, const struct dirent *d)
{
	struct stat st;

	if (d->d_type != DT_UNKNOWN)
		return d->d_type == DT_REG;
	if (fstatat(directory, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return -1;
	return S_ISREG(st.st_mode);
}

static int
read_entries(DIR *d, const char *prefix, uint32_t *skipped, int (*each)(void *, const char *, size_t, uint32_t), void *data)
{
	char name[PART_PREFIX + NAME_MAX + 1];
	const struct dirent *e;

	memcpy(name, prefix, PART_PREFIX);
	for (errno = 0; (e = readdir(d)) != NULL; errno = 0) {
		if (e->d_name[0] == '.')
			continue;
		size_t n = strlen(e->d_name);
		int file = is_file(dirfd(d), e);
		if (file == 0)
			++*skipped;
		if (file != 1)
			continue;
		memcpy(name + PART_PREFIX, e->d_name, n + 1);
		if (each(data, name, PART_PREFIX + n, listing_inode(e->d_ino)) == -1)
			return -1;
	}
	return errno == 0 ? 0 : -1;
}

int
listing_each(int root, enum maildir_part part, uint32_t *skipped,
    int (*each)(void *data, const char *name, size_t length, uint32_t inode), void *data)
{
	int fd = openat(root, part == PART_NEW ? "new" : "cur", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd == -1)
		return errno == ENOENT ? 0 : -1;
	DIR *d = fdopendir(fd);
	if (d == NULL) {
		close(fd);
		return -1;
	}
	int result = read_entries(d, prefixes[part], skipped, each, data), saved = errno;
	closedir(d);
	errno = saved;
	return result;
}

static int
each_add(void *data, const char *name, size_t length, uint32_t inode)
{
	return listing_add(data, name, length, inode);
}

int
listing_read(struct listing *l, int root, enum maildir_part part)
{
	return listing_each(root, part, &l->skipped, each_add, l);
}

void
listing_clean(int fd, long seconds)
{
	DIR *d = fdopendir(fd);
	const struct dirent *e;
	time_t then = time(NULL) - seconds;

	if (d == NULL) {
		close(fd);
		return;
	}
	while ((e = readdir(d)) != NULL) {
		struct stat st;
		if (e->d_name[0] != '.' && fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
		    st.st_mtime < then && st.st_atime < then && st.st_ctime < then)
			unlinkat(fd, e->d_name, 0);
	}
	closedir(d);
}

/* Both with their base names at hand. */
static int
compare(const struct listing_entry *a, const char *x, const struct listing_entry *b, const char *y)
{
	if (a->second != b->second)
		return a->second < b->second ? -1 : 1;
	if (a->micro != b->micro)
		return a->micro < b->micro ? -1 : 1;
	int n = memcmp(x, y, a->base < b->base ? a->base : b->base);
	return n != 0 ? n : (a->base > b->base) - (a->base < b->base);
}

static int
compare_sort(const void *a, const void *b, void *names)
{
	const struct listing_entry *x = a, *y = b;
	const char *all = names;
	int n = compare(x, all + x->name + PART_PREFIX, y, all + y->name + PART_PREFIX);

	return n != 0 ? n : (int)x->part - (int)y->part;
}

void
listing_order(struct listing *l)
{
	if (l->count > 0)
		qsort_r(l->entry, l->count, sizeof *l->entry, compare_sort, l->names);
}

void
listing_sort(struct listing *l)
{
	uint32_t kept = 0;

	listing_order(l);
	for (uint32_t i = 0; i < l->count; i++) {
		if (i + 1 == l->count || !listing_same(l, &l->entry[i], &l->entry[i + 1]))
			l->entry[kept++] = l->entry[i];
	}
	l->twice = l->count - kept;
	l->count = kept;
}

bool
listing_same(const struct listing *l, const struct listing_entry *a, const struct listing_entry *b)
{
	return compare(a, l->names + a->name + PART_PREFIX, b, l->names + b->name + PART_PREFIX) == 0;
}

const struct listing_entry *
listing_find(const struct listing *l, const char *base, size_t length)
{
	struct listing_entry key = { .base = (uint16_t)length };
	uint32_t low = 0, high = l->count;

	arrival(base, length, &key);
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct listing_entry *e = &l->entry[middle];
		int n = compare(&key, base, e, l->names + e->name + PART_PREFIX);
		if (n == 0)
			return e;
		if (n < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

const char *
listing_name(const struct listing *l, const struct listing_entry *e)
{
	return l->names + e->name;
}

bool
listing_after(const struct listing *l, const struct listing_entry *e, const char *last, size_t length)
{
	struct listing_entry key = { .base = (uint16_t)listing_base(last + PART_PREFIX, length - PART_PREFIX) };

	arrival(last + PART_PREFIX, key.base, &key);
	return compare(e, l->names + e->name + PART_PREFIX, &key, last + PART_PREFIX) > 0;
}

void
listing_free(struct listing *l)
{
	free(l->entry);
	free(l->names);
	*l = (struct listing){ 0 };
}
