/*
 * The journal of a Maildir UPDATE: a header, the names, and a hash of both at the end. It is synced before the first
 * unlink, so one whose hash does not fit has removed nothing.
 */
#include "intent.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
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

int
intent_add(struct intent *i, const char *name, size_t length)
{
	if (i->room - i->length < length + 1) {
		size_t room = i->room > 0 ? 2 * i->room : 4096;
		char *more = realloc(i->names, room);
		if (more == NULL)
			return -1;
		i->names = more;
		i->room = room;
	}
	memcpy(i->names + i->length, name, length);
	i->names[i->length + length] = '\0';
	i->length += length + 1;
	i->count++;
	return 0;
}

void
intent_free(struct intent *i)
{
	free(i->names);
	*i = (struct intent){ 0 };
}

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
hash_of(const struct intent_header *h, const char *names, uint8_t hash[static crypto_generichash_BYTES])
{
	crypto_generichash_state s;

	crypto_generichash_init(&s, NULL, 0, crypto_generichash_BYTES);
	crypto_generichash_update(&s, (const unsigned char *)h, sizeof *h);
	crypto_generichash_update(&s, (const unsigned char *)names, h->length);
	crypto_generichash_final(&s, hash, crypto_generichash_BYTES);
}

int
intent_write(const struct intent *i, int journal, int root)
{
	uint8_t hash[crypto_generichash_BYTES];
	struct stat st;

	if (fstat(root, &st) == -1)
		return -1;
	struct intent_header h = { INTENT_MAGIC, st.st_ino, i->length, i->kind == INTENT_ARCHIVES ? INTENT_ARCHIVES : INTENT_REMOVES, i->count };
	hash_of(&h, i->names, hash);
	if (write_at(journal, &h, sizeof h, 0) == -1 || write_at(journal, i->names, i->length, sizeof h) == -1 ||
	    write_at(journal, hash, sizeof hash, (off_t)(sizeof h + i->length)) == -1)
		return -1;
	return fsync(journal);
}

/* Every name is "new/FILE" or "cur/FILE": nothing that leads elsewhere. */
static int
names_sound(const struct intent *i)
{
	uint32_t count = 0;

	if (i->length == 0 || i->names[i->length - 1] != '\0')
		return 0;
	for (const char *p = i->names; p < i->names + i->length; p += strlen(p) + 1, count++)
		if ((strncmp(p, "new/", 4) != 0 && strncmp(p, "cur/", 4) != 0) || p[4] == '\0' || p[4] == '.' || strchr(p + 4, '/') != NULL)
			return 0;
	return count == i->count;
}

enum intent_state
intent_read(struct intent *i, int journal, int root)
{
	uint8_t hash[crypto_generichash_BYTES], told[crypto_generichash_BYTES];
	struct intent_header h;
	struct stat st, directory;

	*i = (struct intent){ 0 };
	if (fstat(journal, &st) == -1 || fstat(root, &directory) == -1)
		return INTENT_FAILED;
	if ((size_t)st.st_size < sizeof h + sizeof hash || (size_t)st.st_size > INTENT_MAX)
		return INTENT_NOTHING;
	if (read_at(journal, &h, sizeof h, 0) == -1)
		return INTENT_FAILED;
	if (h.magic != INTENT_MAGIC)
		return h.magic == 0 ? INTENT_NOTHING : INTENT_FOREIGN;
	if (h.kind != INTENT_REMOVES && h.kind != INTENT_ARCHIVES)
		return INTENT_FOREIGN;
	i->kind = (enum intent_kind)h.kind;
	if (h.length == 0 || h.length != (size_t)st.st_size - sizeof h - sizeof hash)
		return INTENT_NOTHING;
	i->names = malloc(h.length);
	if (i->names == NULL)
		return INTENT_FAILED;
	i->length = i->room = h.length;
	i->count = h.count;
	if (read_at(journal, i->names, h.length, sizeof h) == -1 ||
	    read_at(journal, told, sizeof told, (off_t)(sizeof h + h.length)) == -1)
		return INTENT_FAILED;
	hash_of(&h, i->names, hash);
	if (memcmp(hash, told, sizeof hash) != 0)
		return INTENT_NOTHING;
	return h.inode == directory.st_ino && names_sound(i) ? INTENT_WHOLE : INTENT_FOREIGN;
}
