/* The certificate chains, written by the keeper and read by pop3d. */
#include "chains.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "catalogue.h"

#define CHAINS_MAX	(4u * 1024 * 1024)

static size_t
padded(uint32_t length)
{
	return ((size_t)length + 3) & ~(size_t)3;
}

bool
chains_add(int fd, uint32_t kind, const void *data, uint32_t length)
{
	static const char zero[4];
	struct chains_head head = { kind, length };
	struct iovec parts[3] = {
		{ &head, sizeof head },
		{ (void *)(uintptr_t)data, length },
		{ (void *)(uintptr_t)zero, padded(length) - length },
	};

	return writev(fd, parts, 3) == (ssize_t)(sizeof head + padded(length));
}

bool
chains_next(struct chains *c, struct chains_item *item)
{
	struct chains_head head;

	if (c->size - c->at < sizeof head)
		return false;
	memcpy(&head, c->map + c->at, sizeof head);
	if (padded(head.length) > c->size - c->at - sizeof head)
		return false;
	*item = (struct chains_item){ head.kind, head.length, c->map + c->at + sizeof head };
	c->at += sizeof head + padded(head.length);
	return true;
}

/* A pair before its certificates, authorities after them all, nothing left over. */
static bool
chains_sound(struct chains c)
{
	struct chains_item i;
	uint32_t before = CHAINS_KINDS;
	struct chains_pair pair;

	while (chains_next(&c, &i)) {
		if (i.kind >= CHAINS_KINDS || (i.kind == CHAINS_CERTIFICATE && before == CHAINS_CLIENT_CA) ||
		    (before == CHAINS_KINDS && i.kind != CHAINS_PAIR) || (before == CHAINS_PAIR && i.kind != CHAINS_CERTIFICATE))
			return false;
		if (i.kind == CHAINS_PAIR) {
			if (i.length != sizeof pair || before == CHAINS_CLIENT_CA)
				return false;
			memcpy(&pair, i.data, sizeof pair);
			if (pair.algorithm >= CHAINS_ALGORITHMS)
				return false;
		}
		before = i.kind;
	}
	return c.at == c.size && before != CHAINS_KINDS && before != CHAINS_PAIR;
}

int
chains_map(struct chains *c, int fd)
{
	size_t size;

	*c = (struct chains){ 0 };
	if (!sealed_is(fd, SIZE_MAX, &size) || size == 0 || size > CHAINS_MAX) {
		errno = EPROTO;
		return -1;
	}
	void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return -1;
	*c = (struct chains){ .map = map, .size = size };
	if (chains_sound(*c))
		return 0;
	chains_unmap(c);
	errno = EPROTO;
	return -1;
}

void
chains_unmap(struct chains *c)
{
	if (c->size > 0)
		munmap((void *)(uintptr_t)c->map, c->size);
	*c = (struct chains){ 0 };
}
