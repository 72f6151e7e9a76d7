/*
 * The archives.
 *
 * In a Maildir a message moves by one rename, which a file system's journal has whole or not at all; the archive's
 * directory is synced before those that the message left. An mbox's archive is appended to and synced, and only then
 * is the mailbox cut: a crash between the two leaves a message in both, and never in none. The journal says before the
 * first octet is appended where the archive ended, and whoever recovers takes back what the mailbox still has.
 */
#include "archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "listing.h"
#include "lock.h"

#define FOLDER ".Archive"

/* 1 if it was made, 0 if it was there, -1 with errno. */
static int
directory_make(int at, const char *name)
{
	if (mkdirat(at, name, 0700) == 0)
		return 1;
	return errno == EEXIST ? 0 : -1;
}

static int
directory_open(int at, const char *name)
{
	return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* What makes a directory a folder of a Maildir: its parts, and an empty file that says so. */
static int
folder_fill(int folder)
{
	static const char *const parts[] = { "tmp", "new", "cur" };
	int made = 0;

	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		int n = directory_make(folder, parts[i]);
		if (n == -1)
			return -1;
		made |= n;
	}
	if (made == 0)
		return 0;
	int fd = openat(folder, "maildirfolder", O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (fd == -1)
		return -1;
	close(fd);
	return fsync(folder);
}

int
archive_folder(int root)
{
	int made = directory_make(root, FOLDER), folder, cur = -1;

	if (made == -1 || (folder = directory_open(root, FOLDER)) == -1)
		return -1;
	if (folder_fill(folder) == 0 && (made == 0 || fsync(root) == 0))
		cur = directory_open(folder, "cur");
	int saved = errno;
	close(folder);
	errno = saved;
	return cur;
}

int
archive_look(int root)
{
	return directory_open(root, FOLDER);
}

int
archive_name(char to[static sizeof ARCHIVE_CUR + NAME_MAX], const char *name, unsigned again)
{
	const char *file = name + PART_PREFIX;
	size_t length = strlen(file), base = listing_base(file, length);
	char twin[16] = "";

	if (again > 0)
		snprintf(twin, sizeof twin, ".%u", again + 1);
	/* a name too long for flags can do without */
	const char *info = base < length ? file + base : length + strlen(twin) + 3 <= NAME_MAX ? ":2," : "";
	int n = snprintf(to, sizeof ARCHIVE_CUR + NAME_MAX, ARCHIVE_CUR "%.*s%s%s", (int)base, file, twin, info);
	if (n > 0 && (size_t)n < sizeof ARCHIVE_CUR + NAME_MAX)
		return 0;
	errno = ENAMETOOLONG;
	return -1;
}

int
archive_file(int directory, const char *name, bool makes)
{
	struct stat st;
	int how = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, fd = openat(directory, name, how), synced = 0;

	if (fd == -1 && errno == ENOENT && makes && (fd = openat(directory, name, how | O_CREAT | O_EXCL, 0600)) != -1) {
		int at = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		synced = at != -1 ? fsync(at) : -1;
		if (at != -1)
			close(at);
	}
	if (fd == -1)
		return -1;
	if (synced == -1 || fstat(fd, &st) == -1 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1) {
		close(fd);
		errno = EPERM;
		return -1;
	}
	return fd;
}

/* Those who read an archive lock it as they lock a mailbox; in a spool directory it can have no dotlock. */
static const struct conf_set kinds = { .count = 1, .item = { LOCK_FCNTL } };
static struct delivery_lock lock = { .kinds = &kinds, .directory = -1 };

/* What is appended to an archive, as it is written, or only gone through to see whether it is there. */
struct copy {
	int archive, mbox;
	off_t at;		/* in the archive */
	off_t end;		/* where the archive ends; -1: it is being written */
	char last[3];		/* what is before `at` */
	bool other;		/* what is there is something else */
};

/* Octets that never reached the disk are zeros. */
static bool
is_there(const char *there, const char *from, size_t length)
{
	if (memcmp(there, from, length) == 0)
		return true;
	for (size_t i = 0; i < length; i++)
		if (there[i] != from[i] && there[i] != '\0')
			return false;
	return true;
}

/* As far as the archive goes. */
static int
compare(struct copy *c, const char *from, size_t length)
{
	static char there[64 << 10];

	while (length > 0 && c->at < c->end && !c->other) {
		size_t want = length < sizeof there ? length : sizeof there;
		if (c->end - c->at < (off_t)want)
			want = (size_t)(c->end - c->at);
		ssize_t n = pread(c->archive, there, want, c->at);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? EIO : errno;
			return -1;
		}
		c->other = !is_there(there, from, (size_t)n);
		from += n;
		c->at += n;
		length -= (size_t)n;
	}
	c->at += (off_t)length;
	return 0;
}

static int
put(struct copy *c, const char *from, size_t length)
{
	for (size_t i = length > sizeof c->last ? length - sizeof c->last : 0; i < length; i++) {
		c->last[0] = c->last[1];
		c->last[1] = c->last[2];
		c->last[2] = from[i];
	}
	if (c->end != -1)
		return compare(c, from, length);
	while (length > 0) {
		ssize_t n = pwrite(c->archive, from, length, c->at);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? ENOSPC : errno;
			return -1;
		}
		from += n;
		c->at += n;
		length -= (size_t)n;
	}
	return 0;
}

static int
put_range(struct copy *c, struct range r)
{
	static char buffer[64 << 10];

	while (r.length > 0) {
		ssize_t n = pread(c->mbox, buffer, r.length < (off_t)sizeof buffer ? (size_t)r.length : sizeof buffer, r.start);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? ESTALE : errno;
			return -1;
		}
		if (put(c, buffer, (size_t)n) == -1)
			return -1;
		r.start += n;
		r.length -= n;
	}
	return 0;
}

/* An empty line is before every From_ line but the first. */
static int
end_message(struct copy *c)
{
	const char *last = c->last;

	if (c->at == 0)
		return 0;
	if (last[2] != '\n')
		return put(c, "\n\n", 2);
	if (c->at == 1 || last[1] == '\n' || (c->at > 2 && last[1] == '\r' && last[0] == '\n'))
		return 0;
	return put(c, "\n", 1);
}

static int
put_all(struct copy *c, const struct range *range, size_t count)
{
	size_t n = c->at < (off_t)sizeof c->last ? (size_t)c->at : sizeof c->last;

	if (n > 0 && pread(c->archive, c->last + sizeof c->last - n, n, c->at - (off_t)n) != (ssize_t)n)
		return -1;
	for (size_t i = 0; i < count; i++)
		if (end_message(c) == -1 || put_range(c, range[i]) == -1)
			return -1;
	return end_message(c);
}

int
archive_begin(int archive, off_t *before)
{
	struct stat st;

	if (delivery_lock_take(&lock, archive, true) == -1)
		return -1;
	if (fstat(archive, &st) == 0) {
		*before = st.st_size;
		return 0;
	}
	int saved = errno;
	archive_keep();
	errno = saved;
	return -1;
}

int
archive_append(int archive, int mbox, const struct range *range, size_t count, off_t before)
{
	struct copy c = { .archive = archive, .mbox = mbox, .at = before, .end = -1 };
	int result = put_all(&c, range, count);

	if (result == 0)
		result = fsync(archive);
	if (result == -1) {
		int saved = errno;
		archive_undo(archive, before);
		errno = saved;
	}
	return result;
}

/* What is in the archive and, as well, still in the mbox, and that alone, is taken back. */
int
archive_take_back(int archive, int mbox, const struct range *range, size_t count, off_t before)
{
	struct copy c = { .archive = archive, .mbox = mbox, .at = before };
	struct stat st;
	int result = 0;

	if (archive_begin(archive, &c.end) == -1)
		return -1;
	if (c.end > before && fstat(mbox, &st) == 0 && range[count - 1].start + range[count - 1].length <= st.st_size) {
		result = put_all(&c, range, count);
		if (result == 0 && !c.other && c.at >= c.end)
			result = ftruncate(archive, before) == 0 && fsync(archive) == 0 ? 1 : -1;
	}
	int saved = errno;
	archive_keep();
	errno = saved;
	return result;
}

void
archive_keep(void)
{
	delivery_lock_release(&lock);
}

void
archive_undo(int archive, off_t before)
{
	/* what cannot be taken back is in both: nothing is lost */
	if (ftruncate(archive, before) == 0)
		(void)fsync(archive);
	archive_keep();
}
