/*
 * Kills an UPDATE of an mbox before and after every one of its system calls, on real files, delivers mail (or not),
 * recovers, and sees that the mailbox is as it was or as it was to be, plus that mail; and, if it was promised, as it was to be. With -a,
 * large mailboxes too,
 * and recovery is killed before and after every one of its calls, more mail comes, and it is recovered again.
 *
 * usage: journal_crash [-a] DIRECTORY
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../spoold/journal.h"

#define MESSAGES 16

struct text {
	size_t size;
	char *octets;
};

static const struct pattern {
	const char *name;
	const char *marks;
	size_t factor;			/* the messages' sizes are multiplied */
} patterns[] = {
	{ "first", "x...............", 1 },
	{ "middle", ".......x........", 1 },
	{ "last", "...............x", 1 },
	{ "alternate", "x.x.x.x.x.x.x.x.", 1 },
	{ "all", "xxxxxxxxxxxxxxxx", 1 },
	{ "all but the last", "xxxxxxxxxxxxxxx.", 1 },
	{ "large, first", "x...............", 256 },
	{ "large, alternate", ".x.x.x.x.x.x.x.x", 256 },
};
enum { MAIL_NONE, MAIL_SHORT, MAIL_TWIN, MAIL_LONG, MAILS };

static struct text before, after, mail[MAILS];
static struct range gone[MESSAGES];
static size_t gone_count;
static int mbox = -1, journal = -1, told = -1;	/* a file, of some length once the client would have its answer */
static bool promises;			/* the truncation is apart, as of large mailboxes, and what moves nothing is journaled, too */
static unsigned long kills;
static char what[200];

static _Noreturn void
fail(const char *format, ...)
{
	va_list ap;

	(void)fprintf(stderr, "journal_crash: %s: ", what);
	va_start(ap, format);
	(void)vfprintf(stderr, format, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
	exit(1);
}

static void
text_add(struct text *t, const char *octets, size_t size)
{
	if ((t->octets = realloc(t->octets, t->size + size + 1)) == NULL)
		fail("out of memory");
	memcpy(t->octets + t->size, octets, size);
	t->size += size;
}

static void
text_message(struct text *t, size_t size, unsigned which)
{
	char *m = malloc(size);
	size_t i;

	for (i = 0; i < size; i++)
		m[i] = (char)(i % 64 == 63 ? '\n' : 'a' + (int)((i * 5 + i / 64 + which * 11) % 26));
	memcpy(m, "From x@y Sat Jan  3 01:05:34 1998\n", 34);
	m[size - 2] = m[size - 1] = '\n';
	text_add(t, m, size);
	free(m);
}

/* The mailbox before and after; the first two messages are twins, and so are the last two. */
static void
scene_make(const struct pattern *p)
{
	static const size_t sizes[MESSAGES] = { 900, 900, 80, 2500, 300, 4096, 100, 60, 5000, 700, 1234, 99, 3000, 50, 640, 640 };
	size_t i, start, size, doomed;

	before.size = after.size = 0;
	gone_count = 0;
	for (i = 0; i < MESSAGES; i++) {
		start = before.size;
		size = sizes[i] * p->factor;
		text_message(&before, size, i < 2 ? 0 : i > 13 ? 14 : (unsigned)i);
		if (p->marks[i] == '.')
			text_add(&after, before.octets + start, size);
		else
			gone[gone_count++] = (struct range){ (off_t)start, (off_t)size };
	}
	doomed = before.size - after.size;
	for (i = 0; i < MAILS; i++)
		mail[i].size = 0;
	text_message(&mail[MAIL_SHORT], 77, 50);
	text_add(&mail[MAIL_TWIN], before.octets + after.size, doomed);
	text_message(&mail[MAIL_LONG], doomed + 500, 51);
}

static void
file_put(int fd, const struct text *t)
{
	size_t done = 0;
	ssize_t n;

	if (ftruncate(fd, 0) == -1)
		fail("truncate: %s", strerror(errno));
	for (; done < t->size; done += (size_t)n)
		if ((n = pwrite(fd, t->octets + done, t->size - done, (off_t)done)) <= 0)
			fail("write: %s", strerror(errno));
}

static void
file_append(int fd, const struct text *t)
{
	struct stat st;

	if (fstat(fd, &st) == -1 || pwrite(fd, t->octets, t->size, st.st_size) != (ssize_t)t->size)
		fail("append: %s", strerror(errno));
}

/* Is the mailbox `t`, then these? */
static bool
mbox_is(const struct text *t, const struct text *one, const struct text *two)
{
	const struct text *all[3] = { t, one, two };
	size_t size = t->size + one->size + two->size, at = 0, i;
	struct stat st;
	char *is;
	bool same = true;

	if (fstat(mbox, &st) == -1 || (size_t)st.st_size != size)
		return false;
	is = malloc(size + 1);
	if (pread(mbox, is, size, 0) != (ssize_t)size)
		fail("read: %s", strerror(errno));
	for (i = 0; i < 3; at += all[i++]->size)
		same = same && memcmp(is + at, all[i]->octets != NULL ? all[i]->octets : is + at, all[i]->size) == 0;
	free(is);
	return same;
}

static int
child_apply(void)
{
	if (promises) {
		if (journal_promise(mbox, journal, gone, gone_count, (off_t)before.size) != JOURNAL_PROMISED || write(told, "", 1) != 1)
			return 1;
		return journal_keep(mbox, (off_t)after.size) == JOURNAL_APPLIED ? 0 : 1;
	}
	return journal_apply(mbox, journal, gone, gone_count, (off_t)before.size) == JOURNAL_APPLIED ? 0 : 1;
}

static int
child_recover(void)
{
	enum journal_state s = journal_recover(mbox, journal, NULL);

	return s == JOURNAL_DONE || s == JOURNAL_NOTHING ? 0 : 1;
}

/* Runs it in a child and kills that at its `stop`th entry to or return from a system call. False if it ended well before. */
static bool
killed_at(int (*run)(void), long stop)
{
	int status;
	long i;
	pid_t pid = fork();

	if (pid == -1)
		fail("fork: %s", strerror(errno));
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1)
			_exit(99);
		(void)raise(SIGSTOP);
		_exit(run());
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		fail("the child cannot be traced (%d)", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	(void)ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
	for (i = 0; i < stop; i++) {
		if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == -1 || waitpid(pid, &status, 0) != pid)
			fail("ptrace: %s", strerror(errno));
		if (WIFEXITED(status)) {
			if (WEXITSTATUS(status) != 0)
				fail("unkilled, it failed with %d", WEXITSTATUS(status));
			return false;
		}
		if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80))
			fail("unexpected stop %x", status);
	}
	(void)kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
		fail("it would not die");
	kills++;
	return true;
}

static void
check(const struct text *one, const struct text *two, bool must_be_after)
{
	const char *why = "";
	enum journal_state s = journal_recover(mbox, journal, &why);
	bool was = mbox_is(&before, one, two), is = mbox_is(&after, one, two);

	if (s != JOURNAL_DONE && s != JOURNAL_NOTHING)
		fail("recovery: state %d, %s", s, why);
	if (s == JOURNAL_DONE ? !is : !was && !(is && !promises && gone_count > 0 && (size_t)gone[0].start >= after.size))
		fail("state %d (%s), and the mailbox is neither as before nor as after", s, why);
	if ((must_be_after || lseek(told, 0, SEEK_END) > 0) && !is)
		fail("the update is not done");
}

static void
start_over(void)
{
	static const struct text empty;

	file_put(mbox, &before);
	file_put(journal, &empty);
	file_put(told, &empty);
}

/* Killed at `stop`; then recovery is killed everywhere, with mail before and after it. */
static void
kill_recovery(long stop, int one)
{
	long again;
	int two;
	bool met = true;

	for (two = MAIL_NONE; two < MAILS; two += 2)
		for (again = 1, met = true; met; again++) {
			start_over();
			(void)killed_at(child_apply, stop);
			file_append(mbox, &mail[one]);
			met = killed_at(child_recover, again);
			file_append(mbox, &mail[two]);
			check(&mail[one], &mail[two], false);
		}
}

static void
kill_everywhere(const struct pattern *p, bool all)
{
	static const struct text empty;
	long stop;
	int one;
	bool met;

	scene_make(p);
	for (one = MAIL_NONE; one < MAILS; one++)
		for (stop = 1, met = true; met; stop++) {
			(void)snprintf(what, sizeof(what), "%s%s, mail %d, stop %ld", p->name, promises ? ", promised" : "", one, stop);
			start_over();
			met = killed_at(child_apply, stop);
			file_append(mbox, &mail[one]);
			check(&mail[one], &empty, !met);
			if (all && met && p->factor == 1 && one != MAIL_LONG)
				kill_recovery(stop, one);
		}
}

static int
file_open(const char *directory, const char *name)
{
	char path[1024];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	if ((fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) == -1)
		fail("%s: %s", path, strerror(errno));
	return fd;
}

int
main(int argc, char **argv)
{
	bool all = argc > 1 && strcmp(argv[1], "-a") == 0;
	size_t i;

	if (argc != 2 + all || sodium_init() < 0) {
		(void)fprintf(stderr, "usage: journal_crash [-a] DIRECTORY\n");
		return 2;
	}
	mbox = file_open(argv[1 + all], "mbox");
	journal = file_open(argv[1 + all], "journal");
	told = file_open(argv[1 + all], "told");
	for (i = 0; i < 2 * sizeof(patterns) / sizeof(patterns[0]); i++) {
		const struct pattern *p = &patterns[i / 2];

		promises = i % 2 == 1;
		if (all || p->factor == 1)
			kill_everywhere(p, all);
	}
	(void)printf("journal_crash: killed %lu times, nothing lost\n", kills);
	return 0;
}
