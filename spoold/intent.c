/*
 * The journal of a Maildir UPDATE: a header, the names, and a hash of both at the end. It is synced before the first
 * unlink, so one whose hash does not fit has removed nothing.
 */
#include "intent.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INTENT_MAGIC	0x31444d504e525453ull
#define INTENT_MAX	((size_t)1 << 32)

struct intent_header {
	uint64_t magic;
	uint64_t inode;		/* of the Maildir; device numbers do not survive a boot */
	uint64_t length;	/* of the names */
	uint32_t kind;		/* enum intent_kind; what else a later version means is not known here */
	uint32_t count;
};

static int
write_at(int fd, const void *from, size_t length, off_t at)
{
	const char *p = from;

	while (length > 0) {
		ssize_t n = pwrite(fd, p, length, at);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? ENOSPC : errno;
			return -1;
		}
		p += n;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

static int
read_at(int fd, void *to, size_t length, off_t at)
{
	char *p = to;

	while (length > 0) {
		ssize_t n = pread(fd, p, length, at);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? ENODATA : errno;
			return -1;
		}
		p += n;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

static void
hash_begin(struct intent *i, const struct intent_header *h)
{
	crypto_generichash_init(&i->hash, NULL, 0, crypto_generichash_BYTES);
	crypto_generichash_update(&i->hash, (const unsigned char *)h, sizeof *h);
}

int
intent_begin(struct intent *i, int journal, int root)
{
	struct stat st;

	if (fstat(root, &st) == -1)
		return -1;
	struct intent_header h = { INTENT_MAGIC, st.st_ino, i->length, i->kind, i->count };
	i->journal = journal;
	i->at = 0;
	i->used = i->held = 0;
	hash_begin(i, &h);
	return write_at(journal, &h, sizeof h, 0);
}

/* What is in the block. */
static int
block_write(struct intent *i)
{
	crypto_generichash_update(&i->hash, (const unsigned char *)i->block, i->held);
	if (write_at(i->journal, i->block, i->held, (off_t)(sizeof(struct intent_header) + i->at)) == -1)
		return -1;
	i->at += i->held;
	i->held = 0;
	return 0;
}

int
intent_add(struct intent *i, const char *name, size_t length)
{
	if (length + 1 > sizeof i->block) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (length + 1 > sizeof i->block - i->held && block_write(i) == -1)
		return -1;
	memcpy(i->block + i->held, name, length);
	i->block[i->held + length] = '\0';
	i->held += length + 1;
	return 0;
}

int
intent_end(struct intent *i)
{
	uint8_t hash[crypto_generichash_BYTES];

	if (block_write(i) == -1)
		return -1;
	if (i->at != i->length) {
		errno = EINVAL;
		return -1;
	}
	crypto_generichash_final(&i->hash, hash, sizeof hash);
	if (write_at(i->journal, hash, sizeof hash, (off_t)(sizeof(struct intent_header) + i->length)) == -1)
		return -1;
	return fsync(i->journal);
}

void
intent_seek(struct intent *i, uint64_t at)
{
	i->at = at;
	i->used = i->held = 0;
}

/* What of the block has not been given out goes to its front, and more comes behind it. */
static int
block_fill(struct intent *i)
{
	size_t rest = i->held - i->used;

	memmove(i->block, i->block + i->used, rest);
	i->used = 0;
	i->held = rest;
	size_t more = sizeof i->block - rest < i->length - i->at ? sizeof i->block - rest : (size_t)(i->length - i->at);
	if (read_at(i->journal, i->block + rest, more, (off_t)(sizeof(struct intent_header) + i->at)) == -1)
		return -1;
	i->held += more;
	i->at += more;
	return 0;
}

int
intent_next(struct intent *i, const char **name)
{
	if (memchr(i->block + i->used, '\0', i->held - i->used) == NULL && block_fill(i) == -1)
		return -1;
	if (i->held == 0)
		return 0;
	const char *end = memchr(i->block + i->used, '\0', i->held - i->used);
	if (end == NULL) {
		errno = EBADMSG;
		return -1;
	}
	*name = i->block + i->used;
	i->used = (size_t)(end + 1 - i->block);
	return 1;
}

/* Is the hash at the end that of all that is before it? 1, 0, or -1 with errno. */
static int
hash_fits(struct intent *i, const struct intent_header *h)
{
	uint8_t hash[crypto_generichash_BYTES], told[crypto_generichash_BYTES];

	hash_begin(i, h);
	for (intent_seek(i, 0); i->at < i->length; i->used = i->held) {
		if (block_fill(i) == -1)
			return -1;
		crypto_generichash_update(&i->hash, (const unsigned char *)i->block, i->held);
	}
	crypto_generichash_final(&i->hash, hash, sizeof hash);
	if (read_at(i->journal, told, sizeof told, (off_t)(sizeof *h + h->length)) == -1)
		return -1;
	return memcmp(hash, told, sizeof hash) == 0;
}

/* Every name is "new/FILE" or "cur/FILE": nothing that leads elsewhere. 1, 0, or -1 with errno. */
static int
names_sound(struct intent *i)
{
	const char *p;
	uint32_t count = 0;
	int more;

	for (intent_seek(i, 0); (more = intent_next(i, &p)) == 1; count++)
		if ((strncmp(p, "new/", 4) != 0 && strncmp(p, "cur/", 4) != 0) || p[4] == '\0' || p[4] == '.' || strchr(p + 4, '/') != NULL)
			return 0;
	if (more == -1)
		return errno == EBADMSG ? 0 : -1;
	intent_seek(i, 0);
	return count == i->count;
}

enum intent_state
intent_read(struct intent *i, int journal, int root)
{
	struct intent_header h;
	struct stat st, directory;
	int is;

	*i = (struct intent){ .journal = journal };
	if (fstat(journal, &st) == -1 || fstat(root, &directory) == -1)
		return INTENT_FAILED;
	if ((size_t)st.st_size < sizeof h + crypto_generichash_BYTES || (size_t)st.st_size > INTENT_MAX)
		return INTENT_NOTHING;
	if (read_at(journal, &h, sizeof h, 0) == -1)
		return INTENT_FAILED;
	if (h.magic != INTENT_MAGIC)
		return h.magic == 0 ? INTENT_NOTHING : INTENT_FOREIGN;
	if (h.kind != INTENT_REMOVES && h.kind != INTENT_ARCHIVES)
		return INTENT_FOREIGN;
	i->kind = (enum intent_kind)h.kind;
	if (h.length == 0 || h.length != (size_t)st.st_size - sizeof h - crypto_generichash_BYTES)
		return INTENT_NOTHING;
	i->length = h.length;
	i->count = h.count;
	if ((is = hash_fits(i, &h)) != 1)
		return is == 0 ? INTENT_NOTHING : INTENT_FAILED;
	if (h.inode != directory.st_ino)
		return INTENT_FOREIGN;
	is = names_sound(i);
	return is == 1 ? INTENT_WHOLE : is == 0 ? INTENT_FOREIGN : INTENT_FAILED;
}
