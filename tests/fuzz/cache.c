/*
 * A cache that is not what was written. A real one is stored and changed as the input says, or (first octet odd) the input is the file. What is loaded in spite
 * of that can be used whole.
 * links: spoold/cache.c spoold/inventory.c spoold/uidl.c spoold/content.c spoold/oldids.c lib/catalogue.c lib/system.c lib/log.c lib/conf.c lib/wire.c
 * libs: -lnettle -lxxhash
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sodium.h>

#include "../../spoold/cache.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
store_some(int fd, enum maildrop_kind kind, unsigned count)
{
	struct cache *c = cache_open(fd, kind, 7);
	struct inventory *inv = inventory_new();
	struct stamp stamps[2] = { { 1, 2, 3, 4, 5, 6 }, { 1, 3, 4, 5, 6, 7 } };

	for (unsigned i = 0; i < count; i++) {
		char uid[32], name[64];
		struct inventory_message m = { .octets = 10 + i, .offset = i * 100, .length = 10 + i, .uid = uid, .name = NULL };
		m.uid_length = (size_t)snprintf(uid, sizeof uid, "id-%u", i);
		if (kind == MAILDROP_MAILDIR) {
			m.name_length = (size_t)snprintf(name, sizeof name, "%s/%u.M%u.host%s", i % 3 ? "cur" : "new", i, i, i % 2 ? ":2,S" : "");
			m.name = name;
		}
		if (inventory_add(inv, &m) == -1)
			abort();
	}
	int published = inventory_publish(inv);
	if (published == -1 || cache_store(c, inv, stamps) == -1)
		abort();
	close(published);
	inventory_free(inv);
	cache_close(c);
}

static void
use(struct inventory *inv, int mbox)
{
	struct inventory_message m;
	uint64_t octets = 0;

	for (uint32_t i = 0; i < inventory_count(inv); i++) {
		if (inventory_get(inv, i, &m) == -1)
			continue;
		octets += m.octets;
		for (size_t k = 0; k < m.uid_length; k++)
			if (m.uid[k] < 0x21 || m.uid[k] > 0x7e)
				abort();
		if (m.name != NULL && m.name_length > 4)
			inventory_find(inv, m.name + 4, m.name_length - 4);
	}
	(void)octets;
	inventory_holds(inv, mbox);
	int published = inventory_publish(inv);
	if (published != -1) {
		struct catalogue map;
		if (catalogue_map(&map, published) == -1)
			abort();	/* what a worker sends must be sound */
		catalogue_unmap(&map);
		close(published);
	}
	inventory_free(inv);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct inventory *inv;

	if (size < 3 || size > 1 << 16 || sodium_init() == -1)
		return 0;
	enum maildrop_kind kind = data[1] % 2 ? MAILDROP_MAILDIR : MAILDROP_MBOX;
	int fd = memfd_create("cache", 0);
	if (data[0] % 2) {
		if (write(fd, data + 2, size - 2) != (ssize_t)size - 2)
			abort();
	} else {
		store_some(fd, kind, data[2]);
		off_t length = lseek(fd, 0, SEEK_END);
		for (size_t i = 3; i + 2 < size; i += 3) {
			off_t at = (off_t)((unsigned)data[i] << 8 | data[i + 1]) % (length > 0 ? length : 1);
			if (pwrite(fd, data + i + 2, 1, at) != 1)
				abort();
		}
	}
	struct cache *c = cache_open(fd, kind, 7);
	if (c == NULL)
		abort();
	if ((inv = cache_load(c)) != NULL)
		use(inv, fd);
	cache_close(c);
	close(fd);
	return 0;
}
