/* The session lock and the delivery locks. */
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "ask.h"
#include "log.h"
#include "system.h"

/*
 * Not in linux/magic.h everywhere: filesystems whose flock(2) is, or may be, an fcntl(2) lock at the server, or of
 * this host only.
 */
#define MAGIC_SMB2	0xFE534D42
#define MAGIC_CIFS	0xFF534D42
#define MAGIC_LUSTRE	0x0BD00BD0
#define MAGIC_GPFS	0x47504653

bool
lock_is_local(int fd)
{
	static const unsigned long shared[] = { NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, MAGIC_SMB2, MAGIC_CIFS, 0x00c36400 /* Ceph */,
		FUSE_SUPER_MAGIC, V9FS_MAGIC, AFS_SUPER_MAGIC, CODA_SUPER_MAGIC, OCFS2_SUPER_MAGIC, MAGIC_LUSTRE, MAGIC_GPFS };
	struct statfs fs;

	if (fstatfs(fd, &fs) == -1)
		return true;
	for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++)
		if ((unsigned long)(uint32_t)fs.f_type == shared[i])
			return false;
	return true;
}

bool
lock_flock_is_ours(int fd, const struct conf *c, bool mbox)
{
	return !(mbox && conf_has(&c->mbox_locks, LOCK_FLOCK)) && lock_is_local(fd);
}

static void
on_alarm(int signal_number)
{
	(void)signal_number;
}

/*
 * Makes the next call that waits end with EINTR after a time, and again every second in case it had not begun; 0 ends
 * that.
 */
static void
alarm_in(int milliseconds)
{
	struct sigaction act = { .sa_handler = on_alarm };
	struct itimerval t = { .it_value = { milliseconds / 1000, milliseconds % 1000 * 1000 }, .it_interval = { 1, 0 } };

	if (milliseconds == 0)
		memset(&t, 0, sizeof t);
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &t, NULL);
}

/* flock, or an OFD lock of the whole file, for writing. 0, or -1 with errno. */
static int
lock_try(int fd, bool by_flock, bool wait)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (by_flock)
		return flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
	return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &whole);
}

static enum lock_result
lock_get(int fd, bool by_flock, int wait_ms)
{
	if (wait_ms > 0)
		alarm_in(wait_ms);
	int n = lock_try(fd, by_flock, wait_ms > 0), saved = errno;
	if (wait_ms > 0)
		alarm_in(0);
	if (n == 0)
		return LOCK_TAKEN;
	errno = saved;
	return saved == EWOULDBLOCK || saved == EACCES || saved == EINTR ? LOCK_HELD : LOCK_FAILED;
}

enum lock_result
session_lock_flock(struct session_lock *l, int fd, int wait_ms)
{
	enum lock_result r = lock_get(fd, true, wait_ms);

	if (r == LOCK_TAKEN)
		*l = (struct session_lock){ .fd = fd, .directory = -1 };
	return r;
}

/* Opens the lock file, ours or the parent's. -1 with errno. */
static int
lockfile_open(struct session_lock *l, int directory, const char *name, bool parent_may)
{
	int fd = openat(directory, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);

	l->by_parent = false;
	if (fd == -1 && errno == EACCES)
		fd = ask_beside_file(PRIVILEGED_LOCKFILE_OPEN);
	if (fd == -1 && errno == EACCES && parent_may) {
		l->by_parent = true;
		fd = ask_file(PRIVILEGED_LOCKFILE_OPEN);
	}
	return fd;
}

/* Who has an OFD lock the kernel does not tell: so it is in the file since when. What cannot be written is not known. */
static void
since_write(int fd)
{
	char text[32];
	int n = snprintf(text, sizeof text, "%lld\n", (long long)time(NULL));

	if (ftruncate(fd, 0) == -1 || pwrite(fd, text, (size_t)n, 0) != n)
		log_text(LOG_DEBUG, "the lock file does not say since when: %s", strerror(errno));
}

static int64_t
since_read(int fd)
{
	char text[32];
	uint64_t since = 0;
	ssize_t n = pread(fd, text, sizeof text - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return number_parse(text, 1, INT64_MAX, &since) == NULL ? (int64_t)since : 0;
}

enum lock_result
session_lock_file(struct session_lock *l, int directory, const char *name, bool parent_may, int wait_ms)
{
	struct session_lock next = { .directory = directory };

	if (!string_copy(next.name, sizeof next.name, name)) {
		errno = ENAMETOOLONG;
		return LOCK_FAILED;
	}
	for (;;) {
		struct stat st;
		next.fd = lockfile_open(&next, directory, name, parent_may);
		if (next.fd == -1)
			return LOCK_FAILED;
		enum lock_result r = lock_get(next.fd, false, wait_ms);
		/* Who had it may have removed it before letting go: then this is the lock of nothing. */
		if (r == LOCK_TAKEN && fstat(next.fd, &st) == 0 && st.st_nlink > 0) {
			since_write(next.fd);
			*l = next;
			return r;
		}
		int saved = errno;
		if (r == LOCK_HELD)
			l->since = since_read(next.fd);
		close(next.fd);
		errno = saved;
		if (r != LOCK_TAKEN)
			return r;
	}
}

void
session_lock_release(struct session_lock *l)
{
	if (l->fd == -1)
		return;
	if (l->by_parent)
		ask_privileged(PRIVILEGED_LOCKFILE_REMOVE);
	else if (l->directory != -1 && unlinkat(l->directory, l->name, 0) == -1 && errno == EACCES)
		ask_beside(PRIVILEGED_LOCKFILE_REMOVE);
	close(l->fd);
	l->fd = -1;
}

#define DOTLOCK_MARK "\npostern\n"	/* behind the pid: what one of our own workers has made */
#define DOTLOCK_OURS_S 2		/* and held for so long, with somebody else having the session lock: left behind */

/* Made before this host was booted, on a disk of its own: then nobody is alive who can have made it. */
static bool
before_boot(int directory, const struct stat *st)
{
	struct timespec now, up;

	if (!lock_is_local(directory) || clock_gettime(CLOCK_REALTIME, &now) == -1 || clock_gettime(CLOCK_BOOTTIME, &up) == -1)
		return false;
	int64_t boot = (int64_t)(now.tv_sec - up.tv_sec) * 1000000000 + now.tv_nsec - up.tv_nsec;
	return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec < boot;
}

/* Asked of /proc: a worker in its cell may signal nobody, not even with nothing. */
static bool
is_alive(uint64_t pid)
{
	char process[32];

	snprintf(process, sizeof process, "/proc/%lu", (unsigned long)pid);
	return access(process, F_OK) == 0 || errno != ENOENT;
}

/*
 * Is a dotlock left behind? Its content is the holder's pid, or 0, or nothing (so it is, too, where the power was cut
 * before the content was on disk). Another program's must be old, and that program not alive.
 *
 * One of our own workers holds the session lock as long as it works under a dotlock, and now we have that: so its
 * dotlock is nobody's. Who seems to be alive has got the pid of one that died; or it is the worker of a mailbox of this
 * name that was replaced, which finds that out and lets go at once.
 */
static bool
dotlock_is_stale(int directory, const char *name, struct stat *st, bool *ours)
{
	char text[32] = "";
	uint64_t pid = 0;
	int fd;

	*ours = false;
	if (fstatat(directory, name, st, AT_SYMLINK_NOFOLLOW) == -1 || !S_ISREG(st->st_mode))
		return false;
	if (before_boot(directory, st))
		return true;
	fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd != -1) {
		ssize_t n = read(fd, text, sizeof text - 1);
		text[n > 0 ? n : 0] = '\0';
		close(fd);
	}
	size_t digits = strspn(text, "0123456789");
	*ours = strcmp(text + digits, DOTLOCK_MARK) == 0;
	time_t age = time(NULL) - st->st_mtime;
	text[digits] = '\0';
	if (number_parse(text, 1, INT32_MAX, &pid) != NULL)
		return age >= DOTLOCK_STALE_S;	/* it does not say who: then age decides */
	if (*ours)
		return age >= DOTLOCK_OURS_S || !is_alive(pid);
	return age >= DOTLOCK_STALE_S && !is_alive(pid);
}

static bool
pid_write(int fd, pid_t pid)
{
	char text[32];
	int n = snprintf(text, sizeof text, "%ld" DOTLOCK_MARK, (long)pid);

	return pwrite(fd, text, (size_t)n, 0) == n && ftruncate(fd, n) == 0;
}

/*
 * What a dead worker has left becomes this one's as it lies there: so nobody gets in between. Only a file of our own
 * making, as its owner says, is written to.
 */
static bool
dotlock_adopt(int directory, const char *name, pid_t pid, const struct stat *old)
{
	struct stat is, there;
	int fd = openat(directory, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool adopted = fd != -1 && fstat(fd, &is) == 0 && is.st_dev == old->st_dev && is.st_ino == old->st_ino &&
	    is.st_uid == geteuid() && is.st_nlink == 1 && pid_write(fd, pid) &&
	    fstatat(directory, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_dev == is.st_dev && there.st_ino == is.st_ino;

	if (fd != -1)
		close(fd);
	return adopted;
}

/* A new file that holds the pid. 0 with *made, or an errno. */
static int
pid_file(int directory, const char *name, pid_t pid, struct stat *made)
{
	/* O_EXCL is atomic on NFS from version 3 on. The mode lets others read who has it. */
	int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (fd == -1)
		return errno;
	/* A disk too full for the pid has room for the name, and the name is the lock. */
	if (!pid_write(fd, pid))
		log_text(LOG_DEBUG, "the dotlock %s holds no pid: %s", name, strerror(errno));
	int error = fstat(fd, made) == 0 ? 0 : errno;
	close(fd);
	return error;
}

static bool
dotlock_before(char before[static NAME_MAX + 1], const char *name)
{
	return snprintf(before, NAME_MAX + 1, ".%s.postern", name) <= NAME_MAX;
}

/*
 * The lock appears with the pid in it: one that is killed in between must not leave a lock that tells nobody's name.
 * What that leaves has a name that the next one uses again, since only who has the session lock is here.
 */
static int
dotlock_create(int directory, const char *name, pid_t pid, struct stat *made)
{
	char before[NAME_MAX + 1];
	struct stat st;
	int error;

	if (!dotlock_before(before, name))
		return pid_file(directory, name, pid, made);
	unlinkat(directory, before, 0);
	if ((error = pid_file(directory, before, pid, made)) != 0)
		return error == EEXIST ? pid_file(directory, name, pid, made) : error;
	error = linkat(directory, before, directory, name, 0) == 0 ? 0 : errno;
	/* the answer of an NFS server may be lost, and that to its repetition be EEXIST */
	if (error != 0 && fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == made->st_dev && st.st_ino == made->st_ino)
		error = 0;
	unlinkat(directory, before, 0);
	/* a filesystem without links */
	if (error == EPERM || error == EOPNOTSUPP || error == ENOSYS || error == EMLINK)
		return pid_file(directory, name, pid, made);
	return error;
}

int
dotlock_make(int directory, const char *name, pid_t pid, struct stat *made)
{
	struct stat old, again;
	bool ours;
	int error = dotlock_create(directory, name, pid, made);

	if (error != EEXIST || !dotlock_is_stale(directory, name, &old, &ours))
		return error;
	if (ours && dotlock_adopt(directory, name, pid, &old)) {
		*made = old;
		log_text(LOG_NOTICE, "took over the dotlock %s of a worker that is dead", name);
		return 0;
	}
	if (fstatat(directory, name, &again, AT_SYMLINK_NOFOLLOW) == 0 && again.st_dev == old.st_dev && again.st_ino == old.st_ino &&
	    unlinkat(directory, name, 0) == 0)
		log_text(LOG_WARNING, "removed the dotlock %s, %lld s old: its holder is not alive", name,
		    (long long)(time(NULL) - old.st_mtime));
	return dotlock_create(directory, name, pid, made);
}

bool
dotlock_is_there(int directory, const char *name)
{
	char before[NAME_MAX + 1];
	struct stat st;

	return fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ||
	    (dotlock_before(before, name) && fstatat(directory, before, &st, AT_SYMLINK_NOFOLLOW) == 0);
}

void
dotlock_remove(int directory, const char *name, dev_t device, ino_t inode)
{
	struct stat st;

	if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == device && st.st_ino == inode)
		unlinkat(directory, name, 0);
}

static int
delivery_fcntl(int fd, short type)
{
	/*
	 * OFD: closing another descriptor of the mailbox must not drop it, as it would a process's fcntl lock. They
	 * exclude each other.
	 */
	struct flock whole = { .l_type = type, .l_whence = SEEK_SET };

	return fcntl(fd, F_OFD_SETLK, &whole) == 0 ? 0 : errno == EACCES ? EAGAIN : errno;
}

static struct delivery_lock *has_dotlock;	/* made by this process or its locker; and it may have to end */

/* At the end of a process that could not say goodbye: what it made itself goes with it. */
static void
dotlock_abandon(void)
{
	if (has_dotlock != NULL && has_dotlock->dotlock_by == BY_LOCKER)
		ask_beside_last(PRIVILEGED_DOTLOCK_REMOVE);
	else if (has_dotlock != NULL)
		dotlock_remove(has_dotlock->directory, has_dotlock->dotlock, has_dotlock->dotlock_made.st_dev, has_dotlock->dotlock_made.st_ino);
	has_dotlock = NULL;
}

static int
delivery_dotlock(struct delivery_lock *l)
{
	static bool watched;
	int error;

	if (ask_has_locker()) {
		l->dotlock_by = BY_LOCKER;
		error = ask_beside(PRIVILEGED_DOTLOCK_MAKE);
	} else {
		l->dotlock_by = BY_WORKER;
		error = dotlock_make(l->directory, l->dotlock, getpid(), &l->dotlock_made);
	}
	if (error == 0) {
		has_dotlock = l;
		watched = watched || atexit(dotlock_abandon) == 0;
	}
	if (error == EACCES || error == EPERM) {
		l->dotlock_by = BY_PARENT;
		error = ask_privileged(PRIVILEGED_DOTLOCK_MAKE);
	}
	/*
	 * Where it cannot be made at all nobody is kept out by one: the other locks have to do. On a full disk they do
	 * for reading: one who is over quota must be able to see the mail.
	 */
	bool full = (error == ENOSPC || error == EDQUOT) && !l->exclusive;
	if ((error == EROFS || error == EACCES || error == EPERM || full) && l->kinds->count > 1) {
		if (!l->told)
			log_text(LOG_WARNING, "%s cannot be made (%s): going on with the other mbox-locks", l->dotlock, strerror(error));
		l->told = true;
		return -1;
	}
	return error == EEXIST ? EAGAIN : error;
}

/* One lock, without waiting. 0, EAGAIN or another errno; -1: there is no such lock here. */
static int
delivery_try(struct delivery_lock *l, uint32_t kind)
{
	switch (kind) {
	case LOCK_FCNTL:
		return delivery_fcntl(l->fd, l->exclusive ? F_WRLCK : F_RDLCK);
	case LOCK_FLOCK:
		return flock(l->fd, (l->exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0 ? 0 : errno;
	default:
		return delivery_dotlock(l);
	}
}

void
delivery_lock_release(struct delivery_lock *l)
{
	/* the other way round */
	for (uint32_t i = l->kinds->count; i-- > 0;) {
		uint32_t kind = l->kinds->item[i];
		if ((l->held & 1u << kind) == 0)
			continue;
		if (kind == LOCK_FCNTL)
			delivery_fcntl(l->fd, F_UNLCK);
		else if (kind == LOCK_FLOCK)
			flock(l->fd, LOCK_UN);
		else if (l->dotlock_by == BY_PARENT)
			ask_privileged(PRIVILEGED_DOTLOCK_REMOVE);
		else if (l->dotlock_by == BY_LOCKER) {
			has_dotlock = NULL;
			ask_beside(PRIVILEGED_DOTLOCK_REMOVE);
		} else
			dotlock_abandon();
	}
	l->held = 0;
}

/* All of them without waiting. 0, or an errno, and then none is held. */
static int
delivery_try_all(struct delivery_lock *l)
{
	for (uint32_t i = 0; i < l->kinds->count; i++) {
		uint32_t kind = l->kinds->item[i];
		int error = delivery_try(l, kind);
		if (error > 0) {
			delivery_lock_release(l);
			return error;
		}
		if (error == 0)
			l->held |= 1u << kind;
	}
	return 0;
}

/*
 * Somebody has another of the locks, and has had it for long. If he waits for the dotlock meanwhile, and that is a dead
 * worker's, we would wait for him as he for us: it is taken over and given back.
 */
static void
delivery_yield(struct delivery_lock *l)
{
	for (uint32_t i = 0; i < l->kinds->count; i++)
		if (l->kinds->item[i] == LOCK_DOTLOCK && delivery_dotlock(l) == 0)
			l->held = 1u << LOCK_DOTLOCK;
	delivery_lock_release(l);
}

int
delivery_lock_take(struct delivery_lock *l, int fd, bool exclusive)
{
	int64_t begun = clock_ms();
	bool yielded = false;
	int error, pause = 5;

	l->fd = fd;
	l->exclusive = exclusive;
	l->held = 0;
	/*
	 * Never one lock while waiting for another: an agent that takes them in another order would wait for us as we
	 * for it. No event tells that a dotlock has gone, so it is tried again after a time that is not the same for
	 * everybody, and that does not grow so much that deliverers, one after the other, would keep us out.
	 */
	while ((error = delivery_try_all(l)) == EAGAIN && clock_ms() < begun + DELIVERY_WAIT_MS) {
		uint8_t jitter = 0;
		if (!yielded && clock_ms() > begun + DELIVERY_YIELD_MS) {
			delivery_yield(l);
			yielded = true;
		}
		if (getrandom(&jitter, sizeof jitter, GRND_NONBLOCK) != sizeof jitter)
			jitter = 128;
		poll(NULL, 0, pause + pause * jitter / 256);
		if (pause < 40)
			pause *= 2;
	}
	if (pause > 5 || error == EAGAIN)
		ask_measured(MEASURED_LOCK, error != 0, clock_ms() - begun, 0, 0);
	if (error == 0)
		return 0;
	errno = error == EAGAIN ? ETIMEDOUT : error;
	return -1;
}

pid_t
lock_holder(dev_t device, ino_t inode)
{
	char line[256];
	pid_t found = 0;
	FILE *f = fopen("/proc/locks", "re");

	if (f == NULL)
		return 0;
	while (found == 0 && fgets(line, sizeof line, f) != NULL) {
		long pid;
		unsigned a, b;
		unsigned long long i;
		if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%llu", &pid, &a, &b, &i) == 4 && pid > 0 && i == inode &&
		    makedev(a, b) == device)
			found = (pid_t)pid;
	}
	fclose(f);
	return found;
}
