/*
 * A whole Maildir: whatever lies in it under whatever names, opened, listed, fetched and changed at QUIT, once without a cache and once with. What is
 * said of a message is what is in its file; what was not deleted is there afterwards, octet by octet, and what was is not.
 *
 * The first octet says which messages go. Then a file after the other: where (new, cur, tmp, the Maildir itself) and what it is (a file, most of the time),
 * the length of its name, the name, the length of what is in it, and that.
 * links: spoold/archive.c spoold/mbox.c spoold/mbox_look.c spoold/mbox_update.c spoold/locked.c spoold/flag.c spoold/path.c spoold/maildir.c spoold/maildir_scan.c spoold/maildir_update.c spoold/listing.c spoold/intent.c spoold/maildrop.c spoold/view.c spoold/expire.c spoold/age.c spoold/scan.c spoold/lock.c spoold/journal.c
 * links: spoold/cache.c spoold/inventory.c spoold/uidl.c spoold/content.c spoold/oldids.c
 * links: lib/catalogue.c lib/conf.c lib/log.c lib/messages.c lib/system.c lib/wire.c
 * libs: -lnettle -lxxhash
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "log.h"
#include "system.h"
#include "wire.h"

#include "../ask_stub.h"
#include "../../spoold/listing.h"
#include "../../spoold/maildrop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST		64
#define TEXT_MOST	256
static const char *const parts[] = { "new", "cur", "tmp", "." };

static char directory[] = "/tmp/postern-fuzz-maildir-XXXXXX";
static struct conf conf;
static struct grant grant;
static struct maildrop m;
static struct kept kept;
static char names[MOST][256];	/* of this input */
static int named;
static bool twins;		/* two have one base name, of which one counts (listing.h) */

/* What was in a message when it was fetched first. */
static struct {
	uint32_t length;
	char text[TEXT_MOST];
} was[MOST];

static void
forget(void)
{
	rmdir(directory);
}

static void
prepare(void)
{
	char error[256];

	if (sodium_init() == -1 || mkdtemp(directory) == NULL || (conf_load(&conf, "/nonexistent", true, error, sizeof error) == -1 &&
	    conf_load(&conf, CONF_PATH_DEFAULT, true, error, sizeof error) == -1))
		abort();
	snprintf(journal_path, sizeof journal_path, "%s/journal", directory);
	snprintf(cache_path, sizeof cache_path, "%s/cache", directory);
	snprintf(grant.maildir, sizeof grant.maildir, "%s/Maildir", directory);
	string_copy(grant.user, sizeof grant.user, "u");
	grant.uid = geteuid();
	grant.kind = STORE_MAILDIR;
	conf.log_level = 0;
	conf.log = LOG_TO_STDERR;
	log_open(&conf, -1);
	atexit(forget);
}

static void
empty(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	DIR *d = fdopendir(fd);
	const struct dirent *e;

	while (d != NULL && (e = readdir(d)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlinkat(fd, e->d_name, 0) == -1)
			empty(fd, e->d_name);
	closedir(d);
	unlinkat(at, name, AT_REMOVEDIR);
}

static void
name_remember(const char *name)
{
	size_t base = strcspn(name, ":/");

	for (int i = 0; i < named; i++)
		twins = twins || (strlen(names[i]) == base && strncmp(names[i], name, base) == 0);
	snprintf(names[named++], sizeof names[0], "%.*s", (int)base, name);
}

/* One file as the input has it; returns how much of the input that took. */
static size_t
put(int root, const uint8_t *data, size_t size)
{
	char name[256];
	size_t name_length = data[1] % 200u + 1, used = 2;
	int part = openat(root, parts[data[0] & 3], O_RDONLY | O_DIRECTORY);

	if (name_length > size - used)
		name_length = size - used;
	memcpy(name, data + used, name_length);
	name[name_length] = '\0';
	used += name_length;
	name_remember(name);
	for (char *c = name; *c != '\0'; c++)
		if (*c == '/')
			*c = ':';
	size_t length = used < size ? data[used++] : 0;
	if (length > size - used)
		length = size - used;
	switch (data[0] >> 4) {
	case 13: (void)!symlinkat("/etc/passwd", part, name); break;
	case 14: mkdirat(part, name, 0700); break;
	case 15: mkfifoat(part, name, 0600); break;
	default: {
		int fd = openat(part, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, data[0] & 8 ? 0400 : 0600);
		if (fd != -1 && (write(fd, data + used, length) != (ssize_t)length || close(fd) == -1))
			abort();
	}
	}
	close(part);
	return used + length;
}

static void
each_check(uint32_t number, bool again)
{
	char text[TEXT_MOST];
	struct wire_count w = { 0 };
	struct inventory_message im;
	struct place p;

	if (inventory_get(m.inventory, number - 1, &im) != 0 || maildrop_fetch(&m, number, &p) != 0)
		abort();	/* nobody else is here */
	if (p.length > sizeof text || pread(p.fd, text, p.length, p.offset) != (ssize_t)p.length)
		abort();
	close(p.fd);
	wire_count(&w, text, p.length);
	/* a name that tells its sizes is believed as far as it is possible */
	bool told = memmem(im.name, im.name_length, ",S=", 3) != NULL && memmem(im.name, im.name_length, ",W=", 3) != NULL;
	if (wire_count_end(&w) != im.octets && (!told || im.octets < p.length || im.octets > 2 * p.length + 2))
		abort();
	if (again && (was[number - 1].length != p.length || memcmp(was[number - 1].text, text, p.length) != 0))
		abort();
	was[number - 1].length = (uint32_t)p.length;
	memcpy(was[number - 1].text, text, p.length);
}

/* False: it is refused. */
static bool
drop_open(bool again)
{
	static uint32_t before;

	if (maildrop_open(&m, &conf, &grant, false, &kept) != 0)
		return false;
	if (maildrop_scan(&m) != 0)
		abort();
	m.store->remember(&m);
	if (maildrop_count(&m) > MOST || (again && maildrop_count(&m) != before))
		abort();
	before = maildrop_count(&m);
	for (uint32_t n = 1; n <= before; n++)
		each_check(n, again);
	return true;
}

static void
drop_close(void)
{
	m.store->remember(&m);
	m.store->release(&m);
	if (m.store->sweep != NULL)
		m.store->sweep(&m);
	maildrop_close(&m);
	inventory_free(kept.inventory);
	memset(&kept, 0, sizeof kept);
}

static void
delete(uint8_t which)
{
	uint8_t marks[MOST];
	uint32_t count = maildrop_count(&m), gone = 0;
	struct tally t;
	int fd = sealed_create("marks");

	for (uint32_t i = 0; i < count; i++)
		marks[i] = which >> i % 8 & 1 ? MARK_DELETED : i % 3 == 0 ? MARK_RETRIEVED : 0;
	if (write(fd, marks, count) != (ssize_t)count || sealed_finish(fd) == -1 || maildrop_update(&m, fd, count, false, &t) != 0)
		abort();
	if (t.deferred && m.store->complete != NULL)
		m.store->complete(&m);
	close(fd);
	for (uint32_t i = 0; i < count; i++)
		gone += (marks[i] & MARK_DELETED) != 0;
	if (t.deleted != gone || t.left != 0)
		abort();
	drop_close();
	if (!drop_open(false) || maildrop_count(&m) < count - gone || (!twins && maildrop_count(&m) != count - gone))
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;

	if (size < 3 || size > 16384)
		return 0;
	if (!ready)
		prepare();
	ready = true;
	int first = dup(0);
	close(first);
	if (mkdir(grant.maildir, 0700) == -1)
		abort();
	int root = open(grant.maildir, O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < 3; i++)
		mkdirat(root, parts[i], 0700);
	size_t at = 1;
	named = 0;
	twins = false;
	for (int i = 0; i < MOST && size - at >= 3; i++)
		at += put(root, data + at, size - at);
	if (drop_open(false)) {
		drop_close();
		if (!drop_open(true))
			abort();
		delete(data[0]);
		drop_close();
	}
	close_range((unsigned)first, ~0u, 0);
	empty(AT_FDCWD, grant.maildir);
	unlink(journal_path);
	unlink(cache_path);
	return 0;
}
