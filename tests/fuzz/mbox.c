/*
 * The mbox format and the UPDATE of it: what is found lies in order and is counted as the wire form counts it; and what is taken out, and nothing else, is
 * gone. The first octet says which messages go.
 * links: spoold/scan.c spoold/journal.c spoold/uidl.c spoold/content.c spoold/oldids.c lib/wire.c lib/system.c lib/log.c lib/conf.c
 * libs: -lnettle -lxxhash
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sodium.h>

#include "wire.h"

#include "../../spoold/journal.h"
#include "../../spoold/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST 4096

struct found {
	const uint8_t *data;
	size_t size;
	uint32_t count;
	off_t end;
	struct scan_found at[MOST];
};

static int
each(const struct scan_found *f, void *arg)
{
	struct found *all = arg;
	struct wire_count w = { 0 };

	if (f->start < all->end || f->offset < f->start + 5 || (uint64_t)f->offset + f->length > all->size ||
	    memcmp(all->data + f->start, "From ", 5) != 0 || f->id.length < 1 || f->id.length > UID_MAX)
		abort();
	wire_count(&w, (const char *)all->data + f->offset, f->length);
	if (wire_count_end(&w) != f->octets)
		abort();
	for (uint32_t i = 0; i < f->id.length; i++)
		if (f->id.text[i] < 0x21 || f->id.text[i] > 0x7e)
			abort();
	all->end = f->offset + (off_t)f->length;
	if (all->count < MOST)
		all->at[all->count++] = *f;
	return 0;
}

/* Takes some out, and compares with what must be left. */
static void
take_out(int fd, struct found *all, uint8_t which)
{
	static struct range gone[MOST];
	static uint8_t left[1 << 17], is[1 << 17];
	size_t count = 0, kept = 0, from = 0;
	int journal = memfd_create("journal", 0);

	for (uint32_t i = 0; i < all->count; i++) {
		off_t next = i + 1 < all->count ? all->at[i + 1].start : (off_t)all->size;
		if ((which >> (i % 8) & 1) == 0)
			continue;
		gone[count++] = (struct range){ all->at[i].start, next - all->at[i].start };
		memcpy(left + kept, all->data + from, (size_t)all->at[i].start - from);
		kept += (size_t)all->at[i].start - from;
		from = (size_t)next;
	}
	memcpy(left + kept, all->data + from, all->size - from);
	kept += all->size - from;
	if (count > 0 && journal_apply(fd, journal, gone, count, (off_t)all->size) != JOURNAL_APPLIED)
		abort();
	if (lseek(fd, 0, SEEK_END) != (off_t)kept || pread(fd, is, sizeof is, 0) != (ssize_t)kept || memcmp(left, is, kept) != 0)
		abort();
	close(journal);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct found all;
	struct uidl *u;

	if (size < 1 || size > 1 << 16 || sodium_init() == -1)
		return 0;
	int fd = memfd_create("mbox", 0);
	if (fd == -1 || write(fd, data + 1, size - 1) != (ssize_t)size - 1 || (u = uidl_open("postern", MAILDROP_MBOX, -1)) == NULL)
		abort();
	all = (struct found){ .data = data + 1, .size = size - 1 };
	struct scan s = { .fd = fd, .end = (off_t)size - 1, .uidl = u, .each = each, .data = &all };
	if (mbox_scan(&s) == 0 && all.count < MOST)
		take_out(fd, &all, data[0]);
	uidl_close(u);
	close(fd);
	return 0;
}
