/*
 * What a user's Maildir may hold: an older server's list of ids (the first octet says which one's), and file names.
 * links: spoold/oldids.c spoold/uidl.c spoold/content.c spoold/listing.c lib/system.c lib/log.c lib/conf.c lib/wire.c
 * libs: -lnettle -lxxhash
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "../../spoold/listing.h"
#include "../../spoold/oldids.h"
#include "../../spoold/uidl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char directory[] = "/tmp/postern-fuzz-XXXXXX";

static void
clean_up(void)
{
	char path[64];

	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s/%s", directory, i == 0 ? "dovecot-uidlist" : "courierpop3dsizelist");
		unlink(path);
	}
	rmdir(directory);
}

static void
name_one(const char *format, int at, const char *name, size_t length)
{
	struct uidl *u = uidl_open(format, MAILDROP_MAILDIR, at);
	struct uidl_id id;

	if (u == NULL)
		abort();
	if (uidl_wants_content(u)) {
		uidl_begin(u, "", 0);
		uidl_add(u, name, length);
	}
	uidl_name(u, name, length, &id);
	if (id.length < 1 || id.length > UID_MAX)
		abort();
	for (uint32_t i = 0; i < id.length; i++)
		if (id.text[i] < 0x21 || id.text[i] > 0x7e)
			abort();
	uidl_close(u);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const formats[] = { "postern", "dovecot", "courier" };
	static int at = -1;
	uint64_t value;

	if (size < 2 || size > 1 << 16 || sodium_init() == -1)
		return 0;
	if (at == -1) {
		if (mkdtemp(directory) == NULL || (at = open(directory, O_RDONLY | O_DIRECTORY)) == -1)
			abort();
		atexit(clean_up);
	}
	bool dovecot = data[0] % 2;
	const char *text = (const char *)data + 1;
	int fd = openat(at, dovecot ? "dovecot-uidlist" : "courierpop3dsizelist", O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd == -1 || write(fd, text, size - 1) != (ssize_t)size - 1)
		abort();
	close(fd);
	/* every word of it may be the name of a file */
	char name[300];
	for (size_t i = 0; i + 1 < size && i < 2000;) {
		size_t n = 0;
		while (i + n < size - 1 && text[i + n] > ' ' && text[i + n] != '/' && n < 250)
			n++;
		if (n > 0) {
			memcpy(name, text + i, n);
			name[n] = '\0';
			listing_number(name, listing_base(name, n), 'W', &value);
			for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++)
				if (uidl_check(formats[f]) == NULL)
					name_one(formats[f], at, name, n);
		}
		i += n + 1;
	}
	return 0;
}
