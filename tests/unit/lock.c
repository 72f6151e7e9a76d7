/*
 * Whose dotlock is left behind, and how long the delivery locks are waited for. The clocks and the waiting are ours, the parent's answers
 * are stubs; everything else is the real thing, in a directory of its own.
 * links: spoold/lock.c lib/conf.c lib/log.c lib/messages.c lib/system.c
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"

#include "../../spoold/ask.h"
#include "../../spoold/lock.h"

#define LOCK "box.lock"

static char directory[] = "/tmp/postern-lock-XXXXXX";
static int root, box;
static int64_t up_s = 1000000;		/* since boot */
static int64_t waited_ms;
static int longest_ms;

int ask_privileged(uint32_t what) { (void)what; return EPERM; }
void ask_measured(uint32_t w, uint32_t r, int64_t ms, uint64_t c, uint64_t m) { (void)w; (void)r; (void)ms; (void)c; (void)m; }
int ask_file(uint32_t what) { (void)what; errno = EPERM; return -1; }
bool ask_has_locker(void) { return false; }
int ask_beside(uint32_t what) { (void)what; return EACCES; }
void ask_beside_last(uint32_t what) { (void)what; }
int ask_beside_file(uint32_t what) { (void)what; errno = EACCES; return -1; }

/* libc's, but for how long the host has been up, and for the time that was waited. */
int
clock_gettime(clockid_t clock, struct timespec *t)
{
	if (syscall(SYS_clock_gettime, clock, t) == -1)
		return -1;
	if (clock == CLOCK_BOOTTIME)
		*t = (struct timespec){ .tv_sec = (time_t)up_s };
	if (clock == CLOCK_MONOTONIC)
		*t = (struct timespec){ .tv_sec = 1000 + waited_ms / 1000, .tv_nsec = waited_ms % 1000 * 1000000 };
	return 0;
}

int
poll(struct pollfd *fds, nfds_t count, int timeout)
{
	(void)fds;
	assert_int_equal(count, 0);
	waited_ms += timeout;
	longest_ms = timeout > longest_ms ? timeout : longest_ms;
	return 0;
}

/* The pid of nobody. */
static pid_t
dead(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	return pid;
}

/* A dotlock that somebody has left there, so old. */
static void
put(const char *content, int64_t age_s)
{
	struct timespec times[2];
	int fd;

	unlinkat(root, LOCK, 0);
	fd = openat(root, LOCK, O_WRONLY | O_CREAT | O_EXCL, 0644);
	assert_true(fd != -1);
	assert_int_equal(write(fd, content, strlen(content)), strlen(content));
	times[0] = times[1] = (struct timespec){ .tv_sec = time(NULL) - (time_t)age_s };
	assert_int_equal(futimens(fd, times), 0);
	close(fd);
}

static void
put_pid(pid_t pid, const char *behind, int64_t age_s)
{
	char content[64];

	snprintf(content, sizeof content, "%ld%s", (long)pid, behind);
	put(content, age_s);
}

static int
make(void)
{
	struct stat made;
	int error = dotlock_make(root, LOCK, getpid(), &made);

	if (error == 0)
		dotlock_remove(root, LOCK, made.st_dev, made.st_ino);
	return error;
}

/* Another program's: old, and its holder not alive; or older than the boot. */
static void
test_of_another(void **state)
{
	static const char *const silent[] = { "", "0", "0\n" };

	(void)state;
	for (size_t i = 0; i < sizeof silent / sizeof silent[0]; i++) {
		put(silent[i], 0);
		assert_int_equal(make(), EEXIST);
		put(silent[i], DOTLOCK_STALE_S - 60);
		assert_int_equal(make(), EEXIST);
		put(silent[i], DOTLOCK_STALE_S + 60);
		assert_int_equal(make(), 0);
	}
	put_pid(getpid(), "\n", DOTLOCK_STALE_S + 60);
	assert_int_equal(make(), EEXIST);
	put_pid(dead(), "\n", DOTLOCK_STALE_S - 60);
	assert_int_equal(make(), EEXIST);
	put_pid(dead(), "", DOTLOCK_STALE_S + 60);
	assert_int_equal(make(), 0);
}

/* The power was cut: the name is on disk, the content may not be, and the pid may be somebody else's by now. */
static void
test_older_than_boot(void **state)
{
	(void)state;
	up_s = 20;
	put("", 60);
	assert_int_equal(make(), 0);
	put_pid(getpid(), "\npostern\n", 21);
	assert_int_equal(make(), 0);
	put_pid(getpid(), "\n", 60);
	assert_int_equal(make(), 0);
	put("", 19);
	assert_int_equal(make(), EEXIST);
	put_pid(getpid(), "\n", 19);
	assert_int_equal(make(), EEXIST);
	up_s = 1000000;
}

/* A worker's own: who has the session lock now knows that there is none. */
static void
test_of_a_worker(void **state)
{
	(void)state;
	put_pid(dead(), "\npostern\n", 0);
	assert_int_equal(make(), 0);
	put_pid(getpid(), "\npostern\n", 0);	/* of a mailbox that is being replaced, maybe */
	assert_int_equal(make(), EEXIST);
	put_pid(getpid(), "\npostern\n", 10);	/* somebody else has its pid now */
	assert_int_equal(make(), 0);
}

static struct delivery_lock
delivery(const struct conf_set *kinds)
{
	waited_ms = longest_ms = 0;
	return (struct delivery_lock){ .kinds = kinds, .directory = root, .dotlock = LOCK };
}

static const struct conf_set both = { 2, { LOCK_FCNTL, LOCK_DOTLOCK } };

/* Who asks rarely while others come one after the other never has it. */
static void
test_waits_in_short_steps(void **state)
{
	struct delivery_lock l = delivery(&both);

	(void)state;
	put("0", 0);
	assert_int_equal(delivery_lock_take(&l, box, true), -1);
	assert_int_equal(errno, ETIMEDOUT);
	assert_in_range(waited_ms, DELIVERY_WAIT_MS, DELIVERY_WAIT_MS + 1000);
	assert_in_range(longest_ms, 10, 100);
	assert_int_equal(faccessat(root, LOCK, F_OK, 0), 0);
	unlinkat(root, LOCK, 0);
}

/* Who has the one lock waits for the other, which is a dead worker's: he gets it. */
static void
test_yields_a_dead_workers(void **state)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct delivery_lock l = delivery(&both);
	int other = openat(root, "box", O_RDWR | O_CLOEXEC);

	(void)state;
	assert_int_equal(fcntl(other, F_OFD_SETLK, &whole), 0);
	put_pid(dead(), "\npostern\n", 0);
	assert_int_equal(delivery_lock_take(&l, box, true), -1);
	assert_int_equal(errno, ETIMEDOUT);
	assert_int_equal(faccessat(root, LOCK, F_OK, 0), -1);
	put("0", 0);		/* and nobody else's goes */
	assert_int_equal(delivery_lock_take(&l, box, true), -1);
	assert_int_equal(unlinkat(root, LOCK, 0), 0);
	close(other);
	assert_int_equal(delivery_lock_take(&l, box, true), 0);
	assert_int_equal(faccessat(root, LOCK, F_OK, 0), 0);
	delivery_lock_release(&l);
	assert_int_equal(faccessat(root, LOCK, F_OK, 0), -1);
}

/* A worker whose parent has gone ends where it stands. */
static void
test_goes_with_its_maker(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		static struct delivery_lock l;
		l = delivery(&both);
		int taken = delivery_lock_take(&l, box, true);
		int there = faccessat(root, LOCK, F_OK, 0);
		exit(taken == 0 && there == 0 ? 7 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	assert_int_equal(faccessat(root, LOCK, F_OK, 0), -1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_of_another), cmocka_unit_test(test_older_than_boot), cmocka_unit_test(test_of_a_worker),
		cmocka_unit_test(test_waits_in_short_steps), cmocka_unit_test(test_yields_a_dead_workers),
		cmocka_unit_test(test_goes_with_its_maker),
	};

	if (mkdtemp(directory) == NULL || (root = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return 1;
	box = openat(root, "box", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlinkat(root, "box", 0);
	unlinkat(root, LOCK, 0);
	rmdir(directory);
	return failed;
}
