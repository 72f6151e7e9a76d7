/*
 * The archives.
 *
 * In a Maildir a message moves by one rename, which a file system's journal has whole or not at all; the archive's
 * directory is synced before those that the message left. An mbox's archive is appended to and synced, and only then
 * is the mailbox cut: a crash between the two leaves a message in both, and never in none.
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
archive_file(int directory, const char *name)
{
	struct stat st;
	int how = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, fd = openat(directory, name, how), synced = 0;

	if (fd == -1 && errno == ENOENT && (fd = openat(directory, name, how | O_CREAT | O_EXCL, 0600)) != -1) {
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

static int
put(int fd, const char *from, size_t length, off_t *at)
{
	while (length > 0) {
		ssize_t n = pwrite(fd, from, length, *at);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? ENOSPC : errno;
			return -1;
		}
		from += n;
		*at += n;
		length -= (size_t)n;
	}
	return 0;
}

static int
copy(int to, off_t *at, int from, struct range r)
{
	static char buffer[64 << 10];

	while (r.length > 0) {
		ssize_t n = pread(from, buffer, r.length < (off_t)sizeof buffer ? (size_t)r.length : sizeof buffer, r.start);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? ESTALE : errno;
			return -1;
		}
		if (put(to, buffer, (size_t)n, at) == -1)
			return -1;
		r.start += n;
		r.length -= n;
	}
	return 0;
}

/* An empty line is before every From_ line but the first. */
static int
end_message(int fd, off_t *at)
{
	char last[3];
	size_t n = *at < (off_t)sizeof last ? (size_t)*at : sizeof last;

	if (n == 0)
		return 0;
	if (pread(fd, last, n, *at - (off_t)n) != (ssize_t)n)
		return -1;
	if (last[n - 1] != '\n')
		return put(fd, "\n\n", 2, at);
	if (n == 1 || last[n - 2] == '\n' || (n == 3 && last[1] == '\r' && last[0] == '\n'))
		return 0;
	return put(fd, "\n", 1, at);
}

int
archive_append(int archive, int mbox, const struct range *range, size_t count, off_t *before)
{
	struct stat st;
	int result = 0;

	if (delivery_lock_take(&lock, archive, true) == -1)
		return -1;
	if (fstat(archive, &st) == -1) {
		archive_keep();
		return -1;
	}
	*before = st.st_size;
	off_t at = st.st_size;
	for (size_t i = 0; result == 0 && i < count; i++)
		if (end_message(archive, &at) == -1 || copy(archive, &at, mbox, range[i]) == -1)
			result = -1;
	if (result == 0)
		result = end_message(archive, &at);
	if (result == 0)
		result = fsync(archive);
	if (result == -1) {
		int saved = errno;
		archive_undo(archive, *before);
		errno = saved;
	}
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
