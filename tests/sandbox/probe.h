/*
 * Part of a test build of lib/sandbox.c (-DSANDBOX_PROBE): each process, once it is in its cell, does what the file CONFIGURATION.probe says:
 * lines of CELL ACTION ARGUMENT. What came of it is logged as event=probe; a process that is killed has logged event=probing before. With
 * POSTERN_PROBE_TRAP in its environment a forbidden call is not made, result=SIGSYS is logged, and the process goes on to the next line.
 */
#include <sched.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/un.h>
#include <ucontext.h>

static struct {
	char cell[16], action[32], argument[CONF_STRING];
} probes_wanted[64];
static size_t probes_count;

static volatile sig_atomic_t probe_inside, probe_trapped;

static void
on_probe_trap(int signal_number, siginfo_t *info, void *context)
{
	char text[128];

	(void)signal_number;
	if (!probe_inside) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, info->si_syscall);
		int n = snprintf(text, sizeof text, "sandbox: %s (%d) is forbidden here\n", name != NULL ? name : "?", info->si_syscall);
		_exit(write(2, text, (size_t)n) == n ? 99 : 98);
	}
	probe_trapped = 1;
	/* what the call returns that was not made */
#if defined(__x86_64__)
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = -ENOSYS;
#elif defined(__aarch64__)
	((ucontext_t *)context)->uc_mcontext.regs[0] = (unsigned long long)-ENOSYS;
#else
#error "how does a system call return here?"
#endif
}

/*
 * Read before the cell is entered; a pop3d process reads once for its session, too. CELL_COUNT: one that is about to change its root directory
 * reads for good.
 */
static void
probe_read(const struct conf *c, enum cell cell)
{
	static bool done;
	char path[CONF_STRING + 16], line[2 * CONF_STRING];

	struct sigaction trap = { .sa_sigaction = on_probe_trap, .sa_flags = SA_SIGINFO };

	if (done || cell == CELL_SESSION)
		return;
	done = cell == CELL_COUNT;
	if (getenv("POSTERN_PROBE_TRAP") != NULL)
		sigaction(SIGSYS, &trap, NULL);
	probes_count = 0;
	snprintf(path, sizeof path, "%s.probe", c->file);
	/* the listener, for what it is about to fork */
	int fd = (int)sandbox_call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0);
	FILE *f = fd != -1 ? fdopen(fd, "r") : NULL;
	while (f != NULL && probes_count < 64 && fgets(line, sizeof line, f) != NULL) {
		probes_wanted[probes_count].argument[0] = '\0';
		if (sscanf(line, "%15s %31s %511s", probes_wanted[probes_count].cell, probes_wanted[probes_count].action,
		    probes_wanted[probes_count].argument) >= 2)
			probes_count++;
	}
	if (f != NULL)
		fclose(f);
}

static int
probe_connect(int family, int type, const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(9) };
	int fd = socket(family, type, 0), result;

	strncpy(sa.sun_path, path, sizeof sa.sun_path - 1);
	if (fd == -1)
		return -1;
	result = family == AF_UNIX ? connect(fd, (struct sockaddr *)&sa, sizeof sa) : connect(fd, (struct sockaddr *)&in, sizeof in);
	int saved = errno;
	close(fd);
	errno = saved;
	return result;
}

static int
probe_memory(int first, int then)
{
	void *at = mmap(NULL, 4096, first, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return -1;
	return then == 0 ? 0 : mprotect(at, 4096, then);
}

/* A file or directory that the argument names, in several ways. */
static int
probe_file(const char *action, const char *path)
{
	struct stat st;

	if (strcmp(action, "read") == 0)
		return open(path, O_RDONLY | O_CLOEXEC);
	if (strcmp(action, "write") == 0)
		return open(path, O_WRONLY | O_CLOEXEC);
	if (strcmp(action, "create") == 0)
		return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (strcmp(action, "remove") == 0)
		return unlink(path);
	return strcmp(action, "stat") == 0 ? stat(path, &st) : -2;
}

static int
probe_process(const char *action, const char *argument)
{
	char *const nothing[] = { NULL };
	cpu_set_t first = { { 1 } };

	if (strcmp(action, "affinity") == 0)
		return sched_setaffinity(getppid(), sizeof first, &first);
	if (strcmp(action, "ptrace") == 0)
		return (int)ptrace(PTRACE_ATTACH, argument[0] != '\0' ? atoi(argument) : getppid(), NULL, NULL);
	if (strcmp(action, "kill") == 0)
		return kill(argument[0] != '\0' ? atoi(argument) : getppid(), 0);
	if (strcmp(action, "execve") == 0)
		return execve("/bin/true", nothing, nothing);
	if (strcmp(action, "setuid") == 0)
		return setresuid(0, 0, 0);
	if (strcmp(action, "unshare") == 0)
		return unshare(CLONE_NEWUSER);
	if (strcmp(action, "chroot") == 0)
		return chroot("/");
	if (strcmp(action, "prctl") == 0)
		return prctl(PR_SET_SECCOMP, 0, 0, 0, 0);
	if (strcmp(action, "dumpable") == 0)
		return prctl(PR_GET_DUMPABLE) == 0 ? errno = EPERM, -1 : 0;
	if (strcmp(action, "mount") == 0)
		return mount("none", "/tmp", "tmpfs", 0, "");
	if (strcmp(action, "fork") != 0)
		return -2;
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	return pid;
}

/* A worker that was taken over: everything it may say to spoold's parent, and what it may not, so many times. */
static int
probe_babble(int count)
{
	static struct message m, reply;
	uint32_t number = 12345;

	for (int i = 0; i < count; i++)
		for (int fd = 3; fd < 32; fd++) {
			struct pollfd p = { .fd = fd, .events = POLLIN };
			static const enum message_type types[] = { MESSAGE_RESOLVED, MESSAGE_MAILDROP, MESSAGE_CLAIM, MESSAGE_PRIVILEGED, MESSAGE_PRIVILEGED,
				MESSAGE_PRIVILEGED };
			number = number * 1103515245 + 12345;
			message_start(&m, types[number / 65536 % 6]);
			if (m.header.type == MESSAGE_RESOLVED)
				memcpy(m.body.resolved.mbox, "/etc/passwd", 12);	/* uid 0, if it were believed */
			else if (m.header.type == MESSAGE_MAILDROP)
				memcpy(m.body.maildrop.path, "/var/mail/bob", 14);
			else if (m.header.type == MESSAGE_CLAIM)
				m.body.claim.inode = number, m.body.claim.held = number / 131072 % 2;
			else
				m.body.privileged.what = number / 1048576 % PRIVILEGED_COUNT;
			if (message_send(fd, &m) == -1)
				continue;
			/* the parent answers most of it, and a full socket would only slow this down */
			while (poll(&p, 1, 0) == 1 && message_receive(fd, &reply, SIDE_SPOOLD, SIDE_WORKER) == 1)
				message_clear(&reply);
		}
	return 0;
}

static int
probe_do(const char *action, const char *argument)
{
	int result = probe_file(action, argument);

	if (result == -2)
		result = probe_process(action, argument);
	if (result != -2)
		return result;
	if (strcmp(action, "connect") == 0)
		return probe_connect(AF_UNIX, SOCK_SEQPACKET, argument);
	if (strcmp(action, "inet") == 0)
		return probe_connect(AF_INET, SOCK_STREAM, "");
	if (strcmp(action, "keyed") == 0)
		return (int)sandbox_call(SYS_socket, AF_UNIX, SOCK_SEQPACKET, 0, 0, 0);
	if (strcmp(action, "mmap") == 0)
		return probe_memory(PROT_READ | PROT_WRITE | PROT_EXEC, 0);
	if (strcmp(action, "mprotect") == 0)
		return probe_memory(PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC);
	if (strcmp(action, "babble") == 0)
		return probe_babble(atoi(argument));
	if (strcmp(action, "call") == 0)
		return (int)syscall(seccomp_syscall_resolve_name(argument), 0, 0, 0, 0, 0, 0);
	errno = ENOEXEC;	/* the test is wrong */
	return -1;
}

static void
probe_run(enum cell cell)
{
	for (size_t i = 0; i < probes_count; i++) {
		const char *result = "";
		if (strcmp(probes_wanted[i].cell, names[cell]) != 0)
			continue;
		for (int done = 0; done < 2; done++) {
			if (done == 1) {
				probe_inside = 1;
				probe_trapped = 0;
				int n = probe_do(probes_wanted[i].action, probes_wanted[i].argument), error = errno;
				probe_inside = 0;
				result = probe_trapped ? "SIGSYS" : n == -1 ? strerrorname_np(error) : "done";
			}
			log_begin(LOG_NOTICE, done == 0 ? "probing" : "probe");
			log_string("cell", names[cell]);
			log_string("action", probes_wanted[i].action);
			log_string("argument", probes_wanted[i].argument);
			if (done == 1)
				log_string("result", result);
			log_end();
		}
	}
}
