/*
 * Kills a running process at one of its system calls.
 *
 * usage: killer [-n] STOP|@NAME PID [PID...] Attaches to the first PID, says "ready", and counts its entries to and returns from
 * system calls (so each call counts twice, and the one it sleeps in when it is attached to once or twice). At number
 * STOP it kills, before anything more of it happens, every PID named, with SIGKILL, and says "killed COUNT entry
 * CALL" or "killed COUNT exit". With @NAME that is where it first makes this system call. If the process ends before, it says "ended COUNT". With -n the first is not killed: it
 * stands still until standard input ends, and then goes on.
 */
#include <errno.h>
#include <limits.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* Which call it stands at the entry of; -1: it does not. */
static long
entered(pid_t pid)
{
	struct __ptrace_syscall_info info;

	memset(&info, 0, sizeof(info));
	if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY)
		return (long)info.entry.nr;
	return -1;
}

static void
say_killed(pid_t pid, long count)
{
	long call = entered(pid);

	if (call != -1)
		(void)printf("killed %ld entry %ld\n", count, call);
	else
		(void)printf("killed %ld exit\n", count);
}

/* Counts until it is time, or until `call`; returns whether the process still lives. */
static int
count_to(pid_t pid, long stop, long call, long *count)
{
	int status, signal_number;

	for (*count = 0;;) {
		if (waitpid(pid, &status, __WALL) != pid || WIFEXITED(status) || WIFSIGNALED(status))
			return 0;
		signal_number = 0;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			if (++*count >= stop || (call != -1 && entered(pid) == call))
				return 1;
		} else if (status >> 16 == 0) {
			signal_number = WSTOPSIG(status);	/* a signal of its own: it shall have it */
		}
		if (ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(long)signal_number) == -1 && errno == ESRCH)
			continue;
	}
}

int
main(int argc, char **argv)
{
	bool lets_go = argc > 1 && strcmp(argv[1], "-n") == 0;
	long stop = 0, call = -1, count;
	pid_t pid;
	int i;

	argc -= lets_go;
	argv += lets_go;

	if (argc > 1 && argv[1][0] == '@')
		stop = (call = seccomp_syscall_resolve_name(argv[1] + 1)) == __NR_SCMP_ERROR ? 0 : LONG_MAX;
	else if (argc > 1)
		stop = strtol(argv[1], NULL, 10);
	if (argc < 3 || stop <= 0 || (pid = (pid_t)strtol(argv[2], NULL, 10)) <= 0) {
		(void)fprintf(stderr, "usage: killer [-n] STOP|@NAME PID [PID...]\n");
		return 2;
	}
	if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)PTRACE_O_TRACESYSGOOD) == -1 || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == -1) {
		perror("killer: ptrace");
		return 3;
	}
	/* Said before the first wait: the process sleeps in a call, and what wakes it comes only now. */
	(void)printf("ready\n");
	(void)fflush(stdout);
	if (!count_to(pid, stop, call, &count)) {
		(void)printf("ended %ld\n", count);
		return 0;
	}
	say_killed(pid, count);
	for (i = 2 + lets_go; i < argc; i++)
		(void)kill((pid_t)strtol(argv[i], NULL, 10), SIGKILL);
	if (lets_go) {
		(void)fflush(stdout);
		while (getchar() != EOF)
			continue;
		return 0;		/* which ends the tracing, too */
	}
	(void)waitpid(pid, NULL, __WALL);
	return 0;
}
