#include "path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "messages.h"
#include "system.h"

#define LINKS_MOST 16

static const char link_of_a_user[] = "a symbolic link that root has not made is on the way to the maildrop";
static const char owner_is_another[] = "a directory on the way to the maildrop belongs to another user";

struct way {
	uid_t uid, min_uid;
	int at;			/* where we are; O_PATH */
	bool users;		/* and that is not root's: no link is followed from here on */
	unsigned links;
	char rest[PATH_SIZE];	/* what is still to go; "" at the end */
	const char *why;
};

static int
wrong(struct way *w, int error, const char *why)
{
	w->why = why;
	errno = error;
	return -1;
}

static bool
owner_is_good(const struct way *w, const struct stat *st)
{
	return st->st_uid == 0 || st->st_uid == w->uid || st->st_uid < w->min_uid;
}

static int
go_where(struct way *w, int fd, const struct stat *st)
{
	if (w->at != -1)
		close(w->at);
	w->at = fd;
	if (!S_ISDIR(st->st_mode))
		return wrong(w, ENOTDIR, "something on the way to the maildrop is not a directory");
	if (!owner_is_good(w, st))
		return wrong(w, EPERM, owner_is_another);
	w->users = w->users || st->st_uid != 0;
	return 0;
}

static int
go_to(struct way *w, int fd)
{
	struct stat st;

	if (fd == -1)
		return -1;
	if (fstat(fd, &st) == 0)
		return go_where(w, fd, &st);
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* What the link names comes before the rest. */
static int
follow(struct way *w, int link)
{
	char to[sizeof w->rest];
	ssize_t n = readlinkat(link, "", to, sizeof to);

	if (n <= 0 || ++w->links > LINKS_MOST)
		return wrong(w, ELOOP, "too many symbolic links on the way to the maildrop");
	size_t rest = strlen(w->rest);
	if ((size_t)n + 1 + rest >= sizeof w->rest)
		return wrong(w, ENAMETOOLONG, "the way to the maildrop is too long");
	memmove(w->rest + n + 1, w->rest, rest + 1);
	memcpy(w->rest, to, (size_t)n);
	w->rest[n] = '/';
	return to[0] == '/' ? go_to(w, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)) : 0;
}

/* The next name of the rest; "" if there is none. */
static void
name_take(struct way *w, char name[static PATH_SIZE])
{
	size_t skip = strspn(w->rest, "/"), n = strcspn(w->rest + skip, "/");

	memcpy(name, w->rest + skip, n);
	name[n] = '\0';
	memmove(w->rest, w->rest + skip + n, strlen(w->rest + skip + n) + 1);
}

static int
step(struct way *w, const char *name)
{
	struct stat st;
	int fd = openat(w->at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd == -1)
		return -1;
	bool known = fstat(fd, &st) == 0;
	if (known && !S_ISLNK(st.st_mode))
		return go_where(w, fd, &st);
	int result = !known ? -1 : w->users || st.st_uid != 0 ? wrong(w, ELOOP, link_of_a_user) : follow(w, fd), saved = errno;
	close(fd);
	errno = saved;
	return result;
}

/* All of the rest at once, where users have a say. 1: this kernel cannot. */
static int
leap(struct way *w)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	const char *rest = w->rest + strspn(w->rest, "/");

	if (rest[0] == '\0')
		return 0;
	int fd = (int)syscall(SYS_openat2, w->at, rest, &how, sizeof how);
	if (fd == -1 && errno == ENOSYS)
		return 1;
	if (fd == -1 && (errno == ELOOP || errno == EXDEV))
		return wrong(w, ELOOP, link_of_a_user);
	w->rest[0] = '\0';
	return go_to(w, fd);
}

static int
walk(struct way *w)
{
	char name[PATH_SIZE];
	int left = 1;

	if (go_to(w, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)) == -1)
		return -1;
	for (;;) {
		if (w->users && left == 1 && (left = leap(w)) != 1)
			return left;
		left = w->users ? 2 : 1;	/* 2: one name after the other, on a kernel before 5.6 */
		name_take(w, name);
		if (name[0] == '\0')
			return 0;
		if (step(w, name) == -1)
			return -1;
	}
}

int
path_open_directory(const char *path, uid_t uid, uid_t min_uid, int flags, const char **why)
{
	struct way w = { .uid = uid, .min_uid = min_uid, .at = -1 };
	int fd = -1;

	*why = NULL;
	if (path[0] != '/' || !string_copy(w.rest, sizeof w.rest, path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	/* opened again by what it is, for what it is wanted: the way led here, whatever is there by now */
	if (walk(&w) == 0)
		fd = openat(w.at, ".", flags | O_DIRECTORY | O_CLOEXEC);
	int saved = errno;
	if (w.at != -1)
		close(w.at);
	*why = w.why;
	errno = saved;
	return fd;
}
