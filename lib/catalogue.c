/* The catalogue and the sealed memory it travels in. */
#include "catalogue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SMALL (16 * 1024)	/* octets that are sooner copied than mapped */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

int
sealed_create(const char *name)
{
	return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

int
sealed_finish(int fd)
{
	return fcntl(fd, F_ADD_SEALS, SEALS);
}

bool
sealed_is(int fd, size_t size, size_t *actual)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals == -1 || (seals & SEALS) != SEALS || fstat(fd, &st) == -1 || st.st_size < 0)
		return false;
	if (actual != NULL)
		*actual = (size_t)st.st_size;
	return size == SIZE_MAX || (size_t)st.st_size == size;
}

/* Written so that the compiler makes vectors of it. */
static bool
octets_sound(const char *ids, size_t length)
{
	unsigned char bad = 0;

	for (size_t i = 0; i < length; i++)
		bad |= (unsigned char)((unsigned char)(ids[i] - 0x21) > 0x7e - 0x21);
	return bad == 0;
}

static bool
rows_sound(const struct catalogue *c)
{
	uint64_t octets = 0;
	/* There is nothing but ids: one look at all of them is a fraction of one at each. */
	bool all_sound = octets_sound(c->uids, c->header->uids_length);

	for (uint32_t i = 0; i < c->header->count; i++) {
		const struct catalogue_row *r = &c->rows[i];
		if (r->uid > c->header->uids_length || r->uid_length > c->header->uids_length - r->uid ||
		    r->uid_length == 0 || r->uid_length > UID_MAX || (!all_sound && !octets_sound(c->uids + r->uid, r->uid_length)))
			return false;
		if (__builtin_add_overflow(octets, r->octets, &octets) || r->offset > INT64_MAX ||
		    r->length > INT64_MAX - r->offset)
			return false;
	}
	return octets == c->header->octets;
}

static void *
mapping_of(int fd, size_t size)
{
	/* private: before Linux 6.7 nothing that is sealed against writing can be mapped shared, even for reading */
	void *at = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);

	return at != MAP_FAILED ? at : NULL;
}

/* In `room` if it fits. */
static void *
copy_of(int fd, size_t size, void *room, size_t most)
{
	void *at = size <= most ? room : malloc(size);

	if (at != NULL && pread(fd, at, size, 0) == (ssize_t)size)
		return at;
	if (at != room)
		free(at);
	return NULL;
}

int
catalogue_map(struct catalogue *c, int fd)
{
	return catalogue_read(c, fd, NULL, 0);
}

int
catalogue_read(struct catalogue *c, int fd, void *room, size_t most)
{
	size_t size;

	*c = (struct catalogue){ 0 };
	if (!sealed_is(fd, SIZE_MAX, &size) || size < sizeof(struct catalogue_header)) {
		errno = EPROTO;
		return -1;
	}
	void *at = size <= SMALL || size <= most ? copy_of(fd, size, room, most) : mapping_of(fd, size);
	if (at == NULL)
		return -1;
	const struct catalogue_header *h = at;
	*c = (struct catalogue){ .header = h, .mapped = size > SMALL && size > most ? size : 0,
		.copied = size <= SMALL && size > most };
	size_t rows = (size_t)h->count * sizeof(struct catalogue_row);
	if (h->magic == CATALOGUE_MAGIC && h->count <= MESSAGES_MAX && size - sizeof *h >= rows &&
	    h->uids_length == size - sizeof *h - rows) {
		c->rows = (const struct catalogue_row *)(h + 1);
		c->uids = (const char *)(c->rows + h->count);
		if (rows_sound(c))
			return 0;
	}
	catalogue_unmap(c);
	errno = EPROTO;
	return -1;
}

void
catalogue_unmap(struct catalogue *c)
{
	if (c->mapped > 0)
		munmap((void *)(uintptr_t)c->header, c->mapped);
	if (c->copied)
		free((void *)(uintptr_t)c->header);
	*c = (struct catalogue){ 0 };
}
