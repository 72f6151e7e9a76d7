/*
 * Recovery from a journal that is not what was written: a real UPDATE is made, the mailbox put back as it was, and the journal changed as the
 * input says. What is not acted on leaves the mailbox alone; what is done is the whole UPDATE.
 * The input: how many messages, which go, then (position, position, value) of octets to change; a position past the end cuts the journal off.
 * links: spoold/journal.c lib/system.c lib/log.c lib/conf.c
 * libs: -lxxhash
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sodium.h>

#include "../../spoold/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char before[1 << 16], after[1 << 16];
static size_t before_length, after_length;
static struct range gone[64];

/* A mailbox, which of it goes, and what is left. */
static size_t
plan(unsigned messages, uint8_t which)
{
	size_t count = 0;

	before_length = after_length = 0;
	for (unsigned i = 0; i < messages; i++) {
		char text[512];
		int n = snprintf(text, sizeof text, "From a@b Sat Jan  3 01:05:34 1998\nSubject: %u\n\n%0*u\n\n", i, (int)(1 + i * 7 % 300), i);
		if (which >> (i % 8) & 1)
			gone[count++] = (struct range){ (off_t)before_length, n };
		else {
			memcpy(after + after_length, text, (size_t)n);
			after_length += (size_t)n;
		}
		memcpy(before + before_length, text, (size_t)n);
		before_length += (size_t)n;
	}
	return count;
}

static int
holds(int fd, const char *what, size_t length)
{
	static char is[1 << 16];

	return lseek(fd, 0, SEEK_END) == (off_t)length && pread(fd, is, sizeof is, 0) == (ssize_t)length && memcmp(is, what, length) == 0;
}

static void
spoil(int journal, const uint8_t *data, size_t size)
{
	off_t length = lseek(journal, 0, SEEK_END);

	for (size_t i = 0; i + 2 < size; i += 3) {
		off_t at = (off_t)((unsigned)data[i] << 8 | data[i + 1]);
		uint8_t octet;
		if (at >= length) {
			length = length > 0 ? at % length : 0;
			if (ftruncate(journal, length) == -1)
				abort();
		} else if (pread(journal, &octet, 1, at) == 1) {
			octet ^= data[i + 2];
			if (pwrite(journal, &octet, 1, at) != 1)
				abort();
		}
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *why;

	if (size < 3 || size > 4096 || sodium_init() == -1)
		return 0;
	size_t count = plan(1 + data[0] % 60, data[1]);
	int mbox = memfd_create("mbox", 0), journal = memfd_create("journal", 0);
	if (count == 0 || write(mbox, before, before_length) != (ssize_t)before_length ||
	    journal_apply(mbox, journal, gone, count, (off_t)before_length) != JOURNAL_APPLIED || !holds(mbox, after, after_length)) {
		if (count > 0)
			abort();
		goto out;
	}
	/* as if it had been cut off before the move (or never, by the third octet: then recovery has nothing to do) */
	if (data[2] % 2 == 0 && (ftruncate(mbox, 0) == -1 || pwrite(mbox, before, before_length, 0) != (ssize_t)before_length))
		abort();
	spoil(journal, data + 3, size - 3);
	switch (journal_recover(mbox, journal, &why)) {
	case JOURNAL_DONE:
		if (!holds(mbox, after, after_length))
			abort();
		break;
	default:
		if (!holds(mbox, before, before_length) && !(data[2] % 2 == 1 && holds(mbox, after, after_length)))
			abort();
	}
out:
	close(mbox);
	close(journal);
	return 0;
}
