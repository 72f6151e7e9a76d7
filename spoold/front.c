/* What a service manager sees as spoold, so that it can be started anew while sessions run. */
#include "front.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "sandbox.h"
#include "system.h"

static int to_front = -1;	/* the child's end */

static void
catch_signals(sigset_t *set)
{
	static const int caught[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGABRT, SIGCHLD };

	sigemptyset(set);
	for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++)
		sigaddset(set, caught[i]);
	sigprocmask(SIG_BLOCK, set, NULL);
}

static void
child_ended(pid_t child)
{
	int status;

	if (waitpid(child, &status, WNOHANG) != child)
		return;
	if (WIFSIGNALED(status))
		log_text(LOG_ERR, "spoold's parent (pid %ld) was killed by signal %d", (long)child, WTERMSIG(status));
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static void
on_signal(int signals, pid_t child)
{
	struct signalfd_siginfo info;

	if (read(signals, &info, sizeof info) != (ssize_t)sizeof info)
		return;
	if (info.ssi_signo == SIGCHLD)
		child_ended(child);
	else if (info.ssi_signo == SIGABRT)	/* the watchdog's: the child does not turn its loop any more */
		kill(child, SIGKILL);
	else
		kill(child, (int)info.ssi_signo);
}

static _Noreturn void
front_run(const struct conf *c, int from_child, int signals, pid_t child)
{
	struct pollfd p[] = { { .fd = signals, .events = POLLIN }, { .fd = from_child, .events = POLLIN } };
	char word;

	process_name("spoold-front");
	sandbox_enter(CELL_SPOOLD, c, NULL, 0);
	for (;;) {
		if (poll(p, 2, -1) == -1 && errno != EINTR)
			fatal("poll: %s", strerror(errno));
		if (p[1].revents != 0) {
			if (read(from_child, &word, 1) == 1)
				exit(0);
			p[1].fd = -1;	/* it is dying: SIGCHLD says how */
		}
		if (p[0].revents != 0)
			on_signal(signals, child);
	}
}

/* The front's pid is what the service manager's variables name; from here on this process is meant. */
static void
take_over_watchdog(pid_t front)
{
	const char *watched = getenv("WATCHDOG_PID");
	char pid[16];

	snprintf(pid, sizeof pid, "%ld", (long)front);
	if (watched == NULL || strcmp(watched, pid) != 0)
		return;
	snprintf(pid, sizeof pid, "%ld", (long)getpid());
	setenv("WATCHDOG_PID", pid, 1);
}

void
front_stand(const struct conf *c)
{
	int pair[2], signals;
	pid_t front = getpid();
	sigset_t set;

	catch_signals(&set);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals == -1 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == -1)
		fatal("cannot stand before spoold: %s", strerror(errno));
	pid_t child = fork_named("spoold");
	if (child == -1)
		fatal("cannot fork: %s", strerror(errno));
	if (child > 0) {
		close(pair[1]);
		front_run(c, pair[0], signals, child);
	}
	prctl(PR_SET_PDEATHSIG, 0);
	signal(SIGABRT, SIG_DFL);
	close(signals);
	close(pair[0]);
	to_front = pair[1];
	take_over_watchdog(front);
}

int
front_descriptor(void)
{
	return to_front;
}

void
front_release(void)
{
	unsetenv("NOTIFY_SOCKET");
	if (to_front != -1 && send(to_front, "x", 1, MSG_NOSIGNAL) == -1)
		log_text(LOG_DEBUG, "the front is gone already");
}
