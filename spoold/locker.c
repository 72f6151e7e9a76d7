#include "locker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "ask.h"
#include "lock.h"
#include "log.h"
#include "messages.h"
#include "path.h"
#include "sandbox.h"
#include "system.h"

static struct {
	const struct conf *conf;
	const struct grant *grant;
	int directory;			/* -1 while nothing is open */
	dev_t device;			/* which it is */
	ino_t inode;
	pid_t worker;			/* whose pid is in the dotlock */
	bool locked;
	struct stat dotlock;		/* then */
} us = { .directory = -1 };

/* Is it the one that it was? */
static bool
is_ours(int directory)
{
	struct stat st;

	return fstat(directory, &st) == 0 && st.st_dev == us.device && st.st_ino == us.inode;
}

/* Again, after it was closed. 0 or an errno. */
static int
directory_open(void)
{
	char path[PATH_SIZE];
	const char *wrong;

	string_copy(path, sizeof path, us.grant->mbox);
	char *slash = strrchr(path, '/');
	slash[slash == path] = '\0';
	us.directory = path_open_directory(path, us.grant->uid, (uid_t)us.conf->min_uid, O_PATH, &wrong);
	if (us.directory == -1)
		return errno;
	if (is_ours(us.directory))
		return 0;
	close(us.directory);
	us.directory = -1;
	return ESTALE;
}

static int
open_beside(const char *name, int flags)
{
	return openat(us.directory, name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
}

static int
dotlock(const char *name, bool make)
{
	int error = 0;

	if (make == us.locked)
		return make ? EEXIST : ENOENT;
	if (make)
		error = dotlock_make(us.directory, name, us.worker, &us.dotlock);
	else
		dotlock_remove(us.directory, name, us.dotlock.st_dev, us.dotlock.st_ino);
	us.locked = make && error == 0;
	return error;
}

/* What may be asked, and the name that it is about. */
static const struct {
	enum privileged what;
	const char *name;
} table[] = {
	{ PRIVILEGED_DOTLOCK_MAKE, "%s.lock" }, { PRIVILEGED_DOTLOCK_REMOVE, "%s.lock" },
	{ PRIVILEGED_LOCKFILE_OPEN, LOCKFILE_NAME }, { PRIVILEGED_LOCKFILE_REMOVE, LOCKFILE_NAME },
	{ PRIVILEGED_ARCHIVE_OPEN, ARCHIVE_NAME }, { PRIVILEGED_ARCHIVE_FIND, ARCHIVE_NAME }, { PRIVILEGED_ARCHIVE_LOOK, ARCHIVE_NAME },
	{ PRIVILEGED_MAILBOX_OPEN, "%s" }, { PRIVILEGED_MAILBOX_LOOK, "%s" },
};

/* 0 or an errno; *fd is the file if it asks for one. */
static int
serve(enum privileged what, int *fd)
{
	char name[NAME_MAX + 1];
	size_t i = 0;
	int error;

	if (what == PRIVILEGED_RELEASED) {
		close(us.directory);
		us.directory = -1;
		return 0;
	}
	while (i < sizeof table / sizeof table[0] && table[i].what != what)
		i++;
	if (i == sizeof table / sizeof table[0])
		return EPERM;
	if (snprintf(name, sizeof name, table[i].name, strrchr(us.grant->mbox, '/') + 1) >= (int)sizeof name)
		return ENAMETOOLONG;
	if (us.directory == -1 && (error = directory_open()) != 0)
		return error;
	switch (what) {
	case PRIVILEGED_DOTLOCK_MAKE:
	case PRIVILEGED_DOTLOCK_REMOVE:
		return dotlock(name, what == PRIVILEGED_DOTLOCK_MAKE);
	case PRIVILEGED_LOCKFILE_REMOVE:
		return unlinkat(us.directory, name, 0) == 0 ? 0 : errno;
	case PRIVILEGED_LOCKFILE_OPEN:
		*fd = open_beside(name, O_RDWR | O_CREAT);
		break;
	case PRIVILEGED_ARCHIVE_OPEN:
	case PRIVILEGED_ARCHIVE_FIND:
		*fd = archive_file(us.directory, name, what == PRIVILEGED_ARCHIVE_OPEN);
		break;
	case PRIVILEGED_MAILBOX_OPEN:
		*fd = open_beside(name, O_RDWR);
		break;
	default:
		*fd = open_beside(name, O_RDONLY);
	}
	return *fd != -1 ? 0 : errno;
}

/* Until the worker has gone: what it still says then is heard first. */
static _Noreturn void
run(int worker)
{
	struct message in, out;

	while (message_receive(worker, &in, SIDE_WORKER, SIDE_SPOOLD) == 1 && in.header.type == MESSAGE_PRIVILEGED) {
		uint32_t what = in.body.privileged.what;
		int fd = -1, error = serve(what, &fd);
		privileged_answer(&out, what, error, fd);
		(void)message_send(worker, &out);
		if (fd != -1)
			close(fd);
	}
	_exit(0);
}

static int
compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* The worker's session, its mailbox and its locks are not the locker's. */
static void
close_others(int worker)
{
	int keep[] = { 2, log_descriptor(), us.directory, worker };
	unsigned next = 0;

	qsort(keep, sizeof keep / sizeof keep[0], sizeof keep[0], compare);
	for (size_t i = 0; i < sizeof keep / sizeof keep[0]; i++) {
		if (keep[i] < 0)
			continue;
		if ((unsigned)keep[i] > next)
			close_range(next, (unsigned)keep[i] - 1, 0);
		next = (unsigned)keep[i] + 1;
	}
	close_range(next, ~0u, 0);
}

/* Its worker decides when it ends, and tells it by its own end. */
static void
signals_ignore(void)
{
	static const int ignored[] = { SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGXFSZ, SIGUSR1 };

	for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
		signal(ignored[i], SIG_IGN);
}

int
locker_start(const struct conf *c, const struct grant *g, int directory)
{
	const struct sandbox_path path = { .fd = directory, .rights = SANDBOX_READ | SANDBOX_WRITE };
	struct stat st;
	int pair[2];

	if (fstat(directory, &st) == -1 || message_pair(pair) == -1)
		return -1;
	us.conf = c;
	us.grant = g;
	us.directory = directory;
	us.device = st.st_dev;
	us.inode = st.st_ino;
	us.worker = getpid();
	pid_t pid = fork_named("locker");
	if (pid == 0) {
		signals_ignore();
		log_session(NULL);
		close_others(pair[1]);
		sandbox_enter(CELL_LOCKER, c, &path, 1);
		run(pair[1]);
	}
	close(pair[1]);
	if (pid == -1) {
		close(pair[0]);
		return -1;
	}
	ask_locker(pair[0]);
	return 0;
}

bool
locker_is_in(int directory)
{
	return !ask_has_locker() || is_ours(directory);
}
