/*
 * The cells. The table says who may still make which system call; read it by column. Everything else kills the process.
 *
 * A filter is inherited, and a child can only add to it. So the listener's is at least what pop3d's children need, spoold's what
 * its workers need, authd's what its children need: the columns L, O and A are widened by those below them. What the listener may besides, it
 * may with a key that its children do not have (KEYED): their filter is the one that they are born with.
 */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"

#define L (1u << CELL_LISTENER)
#define P (1u << CELL_POP3D)
#define S (1u << CELL_SESSION)
#define A (1u << CELL_AUTHD)
#define V (1u << CELL_VERIFIER)
#define H (1u << CELL_HASHER)
#define K (1u << CELL_KEEPER)
#define O (1u << CELL_SPOOLD)
#define W (1u << CELL_WORKER)
#define B (1u << CELL_LOCKER)
#define ALL (L | P | S | A | V | H | K | O | W | B)

/* What a rule wants of an argument; see rule_add. */
enum when {
	ALWAYS, NOT_EXECUTABLE, UNIX_ONLY, CLONE_ONLY, FORK, TO_ITSELF, OWN_STATE, KEYED, KEYED_FORK, KEYED_UNIX, OWN_NAME, OWN_PROCESSORS, NO_PROCESSES, CLOSING
};

static const struct rule {
	const char *call;
	unsigned cells;
	enum when when;
} rules[] = {
	/* memory, time, ending: nothing that reaches outside the process */
	{ "brk", ALL, ALWAYS }, { "mmap", ALL, NOT_EXECUTABLE }, { "mprotect", ALL, NOT_EXECUTABLE },
	{ "munmap", ALL, ALWAYS }, { "mremap", ALL, ALWAYS }, { "madvise", ALL, ALWAYS }, { "futex", ALL, ALWAYS },
	{ "exit", ALL, ALWAYS }, { "exit_group", ALL, ALWAYS }, { "restart_syscall", ALL, ALWAYS },
	{ "rt_sigreturn", ALL, ALWAYS }, { "rt_sigprocmask", ALL, ALWAYS }, { "rt_sigaction", ALL, ALWAYS },
	{ "clock_gettime", ALL, ALWAYS }, { "gettimeofday", ALL, ALWAYS }, { "time", ALL, ALWAYS },
	{ "getrandom", ALL, ALWAYS }, { "getpid", ALL, ALWAYS }, { "gettid", ALL, ALWAYS }, { "getppid", ALL, ALWAYS },
	{ "getuid", ALL, ALWAYS }, { "geteuid", ALL, ALWAYS }, { "getgid", ALL, ALWAYS }, { "getegid", ALL, ALWAYS },
	{ "tgkill", ALL & ~(L | P | S), TO_ITSELF },	/* abort(3); the others end all the same */
	{ "sched_yield", ALL, ALWAYS }, { "getrlimit", ALL, ALWAYS }, { "clock_nanosleep", A | V | H | K | W, ALWAYS },

	/* what is open already */
	{ "read", ALL, ALWAYS }, { "write", ALL, ALWAYS }, { "writev", ALL, ALWAYS }, { "close", ALL, ALWAYS },
	{ "poll", ALL, ALWAYS }, { "ppoll", ALL, ALWAYS }, { "fcntl", ALL, ALWAYS }, { "fstat", ALL, ALWAYS },
	{ "newfstatat", ALL, ALWAYS },		/* fstat(3) is made of it: looks, opens nothing */
	{ "lseek", ALL, ALWAYS }, { "pread64", P | S | V | K | W, ALWAYS }, { "sendmsg", ALL, ALWAYS }, { "recvmsg", ALL, ALWAYS },
	{ "sendto", P | S | V | O | K, ALWAYS }, { "recvfrom", P | S | V | O | K, ALWAYS }, { "readv", P | S, ALWAYS },
	{ "sendfile", P | S, ALWAYS }, { "setsockopt", L, KEYED }, { "setsockopt", V | O, ALWAYS }, { "getsockopt", V | O | K, ALWAYS },
	{ "getsockname", L, KEYED }, { "shutdown", P | S | V, ALWAYS },
	{ "memfd_create", P | S | W | V | K, ALWAYS }, { "epoll_create1", A | V | K | O, ALWAYS },
	{ "epoll_ctl", A | V | K | O, ALWAYS }, { "epoll_wait", A | V | K | O, ALWAYS }, { "epoll_pwait", A | V | K | O, ALWAYS },
	{ "signalfd4", A | V | O, ALWAYS }, { "timerfd_create", A | V | K | O, ALWAYS }, { "timerfd_settime", A | V | K | O, ALWAYS },
	{ "epoll_ctl", L, KEYED }, { "epoll_wait", L, KEYED }, { "epoll_pwait", L, KEYED },
	{ "mlockall", A, ALWAYS }, { "mlock", A | V | H | K, ALWAYS }, { "munlock", A | V | H | K, ALWAYS },

	/* accepting, and reaching the suite's own sockets */
	{ "accept4", L, KEYED }, { "socket", L, KEYED_UNIX }, { "connect", L, KEYED }, { "socketpair", L, KEYED },
	{ "accept4", V | O | K, ALWAYS }, { "socket", A | V, UNIX_ONLY }, { "connect", V, ALWAYS }, { "socketpair", A | O, ALWAYS },
	{ "inotify_init1", A | K, ALWAYS }, { "inotify_add_watch", A | K, ALWAYS },

	/* making processes; entering a narrower cell; what a child of the listener's does first, and can do no harm with */
	{ "clone", L, KEYED_FORK }, { "wait4", L, KEYED }, { "kill", L, KEYED },
	{ "prctl", L, OWN_NAME }, { "prlimit64", L, NO_PROCESSES }, { "landlock_restrict_self", L, ALWAYS }, { "close_range", L, CLOSING },
	{ "sched_setaffinity", L, OWN_PROCESSORS }, { "getcpu", L, ALWAYS },
	{ "clone", A | O, FORK }, { "fork", A | O, ALWAYS },
	{ "set_robust_list", A | O, ALWAYS }, { "rseq", A | O, ALWAYS }, { "set_tid_address", A | O, ALWAYS },
	{ "wait4", A | O, ALWAYS }, { "rt_sigtimedwait", A, ALWAYS }, { "waitid", A | O, ALWAYS }, { "kill", A | O, ALWAYS },
	{ "prctl", A | O, OWN_STATE }, { "seccomp", A | O, ALWAYS },
	{ "landlock_create_ruleset", A | O, ALWAYS }, { "landlock_add_rule", A | O, ALWAYS },
	{ "landlock_restrict_self", A | O, ALWAYS }, { "prlimit64", ALL & ~(L | S | P), ALWAYS },
	{ "sched_getaffinity", L | A | V | O | W, ALWAYS },
	{ "close_range", A | O, ALWAYS }, { "dup", A | O, ALWAYS }, { "dup2", A | O, ALWAYS }, { "dup3", A | O, ALWAYS },
	{ "pipe2", A | O, ALWAYS }, { "umask", A | O | W, ALWAYS }, { "setpgid", A | O, ALWAYS },

	/* files: the listener reads its configuration again; where and what, Landlock says */
	{ "openat", L, KEYED }, { "openat", A | V | O | W | B, ALWAYS }, { "openat2", O | W | B, ALWAYS }, { "access", A | V | O | W | B, ALWAYS },
	{ "faccessat", A | V | O | W | B, ALWAYS }, { "faccessat2", A | V | O | W | B, ALWAYS }, { "stat", A | V | O | W, ALWAYS },
	{ "lstat", A | V | O | W, ALWAYS }, { "statx", A | V | O | W, ALWAYS }, { "readlink", A | V | O | W, ALWAYS },
	{ "readlinkat", O | W | B, ALWAYS }, { "getdents64", A | O | W, ALWAYS }, { "statfs", A | O | W, ALWAYS },
	{ "fstatfs", A | V | O | W | B, ALWAYS }, { "getcwd", A | V | O, ALWAYS }, { "chdir", A | O, ALWAYS }, { "fchdir", A | O, ALWAYS },
	{ "pwrite64", A | V | O | W | B, ALWAYS }, { "pwritev", O | W, ALWAYS }, { "preadv", O | W, ALWAYS }, { "ftruncate", A | V | O | W | B, ALWAYS },
	{ "fsync", A | V | O | W | B, ALWAYS }, { "fdatasync", A | V | O | W, ALWAYS }, { "fallocate", O | W, ALWAYS },
	{ "copy_file_range", O | W, ALWAYS }, { "sync_file_range", O | W, ALWAYS }, { "fadvise64", O | W, ALWAYS }, { "readahead", O | W, ALWAYS },
	{ "flock", A | O | W, ALWAYS }, { "rename", A | V | O | W, ALWAYS }, { "renameat", A | V | O | W, ALWAYS },
	{ "renameat2", A | V | O | W, ALWAYS }, { "unlink", A | V | O | W, ALWAYS }, { "unlinkat", A | V | O | W | B, ALWAYS },
	{ "fgetxattr", O | W, ALWAYS }, { "fsetxattr", O | W, ALWAYS }, { "fremovexattr", O | W, ALWAYS },	/* flag.c */
	{ "link", O | W, ALWAYS }, { "linkat", O | W | B, ALWAYS }, { "mkdir", A | O, ALWAYS }, { "mkdirat", A | O | W, ALWAYS },
	{ "symlinkat", O, ALWAYS }, { "setitimer", O, ALWAYS }, { "utimensat", O | W, ALWAYS }, { "ioctl", O, ALWAYS }, { "ioctl", W, CLONE_ONLY },

	/* root, before it is given up: spoold's children resolve a name (any NSS module) and become its owner */
	{ "socket", O, ALWAYS }, { "connect", O, ALWAYS }, { "bind", A | O, ALWAYS }, { "listen", A | O, ALWAYS },
	{ "connect", A, ALWAYS }, { "sendmmsg", O, ALWAYS }, { "recvmmsg", O, ALWAYS }, { "uname", A | O, ALWAYS },
	{ "sysinfo", A | V | O | W, ALWAYS }, { "chmod", A | O, ALWAYS }, { "fchmod", A | O, ALWAYS }, { "fchmodat", A | O, ALWAYS },
	{ "chown", A | O, ALWAYS }, { "fchown", A | O, ALWAYS }, { "fchownat", A | O, ALWAYS }, { "lchown", A | O, ALWAYS },
	{ "setuid", A | O, ALWAYS }, { "setgid", A | O, ALWAYS }, { "setreuid", A | O, ALWAYS }, { "setregid", A | O, ALWAYS },
	{ "setresuid", A | O, ALWAYS }, { "setresgid", A | O, ALWAYS }, { "setgroups", A | O, ALWAYS },
	{ "getgroups", A | O, ALWAYS }, { "getresuid", A | O, ALWAYS }, { "getresgid", A | O, ALWAYS },
	{ "capget", A | O, ALWAYS }, { "capset", A | O, ALWAYS }, { "chroot", A, ALWAYS }, { "pidfd_open", A | O, ALWAYS }, { "pidfd_send_signal", A | O, ALWAYS },
};
#define RULES (sizeof rules / sizeof rules[0])

/* Calls that libc merely tries, and does without. */
static const struct {
	const char *call;
	int error;
} probes[] = {
	{ "clone3", ENOSYS },	/* fork and threads fall back to clone, whose flags can be seen */
};

/* What PAM's modules, which we do not know, have no business with: everything else they may. */
static const char *const never_pam[] = {
	"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "perf_event_open", "bpf", "userfaultfd", "io_uring_setup",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct",
	"iopl", "ioperm", "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "pivot_root", "open_by_handle_at",
};

static const char *const names[CELL_COUNT] = {
	"listener", "pop3d", "session", "authd", "verifier", "hasher", "keeper", "pam", "spoold", "worker", "locker"
};

/*
 * What is left of root. Every process has an empty bounding set, but for PAM's, whose modules may run a program; a cell that is not here has
 * no capability at all.
 */
#define CAP(name) (1ull << CAP_##name)
static const struct {
	enum cell cell;
	uint64_t keep;
} capabilities[] = {
	{ CELL_SPOOLD,
	    CAP(SETUID) | CAP(SETGID) |		/* a worker becomes the owner of its mailbox */
	    CAP(KILL) |				/* a worker, which is another user, is told to end */
	    CAP(DAC_READ_SEARCH) },		/* maildrops.db, what name service modules read, the way to a maildrop, the pid in a dotlock */
	/* Writing needs none: files are made only where root itself owns the directory. */
	{ CELL_AUTHD,
	    CAP(SETUID) | CAP(SETGID) |		/* verifier, hashers and keeper become [authd] user */
	    CAP(KILL) |				/* and are told to end */
	    CAP(SYS_CHROOT) |			/* hashers and keeper see an empty directory */
	    CAP(DAC_READ_SEARCH) },		/* the private keys, whoever owns them */
	{ CELL_PAM,	/* what a module of some site may need: all but what is about the kernel, the machine or its network */
	    CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(DAC_READ_SEARCH) | CAP(FOWNER) | CAP(FSETID) | CAP(KILL) | CAP(SETGID) | CAP(SETUID) |
	    CAP(SETPCAP) | CAP(SYS_CHROOT) | CAP(SYS_NICE) | CAP(SYS_RESOURCE) | CAP(SYS_ADMIN) | CAP(IPC_LOCK) | CAP(IPC_OWNER) |
	    CAP(NET_BIND_SERVICE) | CAP(AUDIT_WRITE) | CAP(AUDIT_CONTROL) | CAP(SETFCAP) },
};

/*
 * Limits of a process that cannot be needed by what it does; 0: none. Parents pass theirs on to children that may need more, so they have none of
 * `data` (but the listener, which needs no more than they), and as many descriptors as the system gives: each has one or more a connection. Nor may those who pass descriptors have few: the
 * kernel compares this limit with all that the whole uid has in flight (ETOOMANYREFS), so that a burst of sessions would fail.
 */
#define MANY UINT64_MAX
#define MIB (1ull << 20)
static const struct {
	uint64_t files;		/* RLIMIT_NOFILE */
	uint64_t data;		/* RLIMIT_DATA: private memory */
	bool alone;		/* RLIMIT_NPROC 0: makes no process, no thread */
} limits[CELL_COUNT] = {
	[CELL_LISTENER] = { MANY, 256 * MIB, false },		/* its children's as well */
	[CELL_POP3D] = { MANY, 256 * MIB, true },		/* 16 MiB of marks, TLS, buffers */
	[CELL_AUTHD] = { MANY, 0, false },
	[CELL_VERIFIER] = { MANY, 1024 * MIB, true },
	[CELL_HASHER] = { 32, 1088 * MIB, true },	/* the dearest hash that libsodium has a name for takes 1 GiB */
	[CELL_KEEPER] = { MANY, 256 * MIB, true },
	[CELL_SPOOLD] = { MANY, 0, false },
	[CELL_WORKER] = { MANY, 6144 * MIB, true },	/* 16,777,216 messages, the most there may be, twice */
	[CELL_LOCKER] = { 32, 6144 * MIB, true },	/* what its worker had when it forked; it takes nothing more */
};

/* A filter ready to load; made once, loaded by every child. */
static struct {
	struct sock_filter *code;
	unsigned short count;
} ready[CELL_COUNT];

static unsigned
widened(unsigned cells)
{
	if (cells & (P | S))
		cells |= L;
	if (cells & (V | H | K))
		cells |= A;
	if (cells & (W | B))
		cells |= O;
	return cells;
}

static const scmp_datum_t own_state[] = {
	PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE, PR_SET_PDEATHSIG, PR_SET_NAME, PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_CAP_AMBIENT,
};

/*
 * What the listener says in the sixth argument of a call that its children may not make. The page is not there in what is forked.
 */
static const uint64_t no_key;
static const uint64_t *key = &no_key;

static int
key_make(void)
{
	uint64_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED || madvise(page, 4096, MADV_WIPEONFORK) == -1 || getrandom(page, sizeof *page, 0) != sizeof *page ||
	    mprotect(page, 4096, PROT_READ) == -1)
		return -1;
	key = page;
	return 0;
}

/* The key is in a register from just before the call to just after it, and on no stack: what is forked starts there, too. */
long
sandbox_call(long number, long a, long b, long c, long d, long e)
{
	long result;

#if defined(__x86_64__)
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
	__asm__ volatile ("movq %[key], %%r9\n\tsyscall\n\txorl %%r9d, %%r9d" : "=a"(result) :
	    "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), [key] "m"(*key) : "rcx", "r11", "r9", "memory");
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d,
	    x4 __asm__("x4") = e;
	__asm__ volatile ("ldr x5, %[key]\n\tsvc #0\n\tmov x5, xzr" : "+r"(x0) :
	    "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), [key] "m"(*key) : "x5", "memory");
	result = x0;
#else
#error "how does a system call get its sixth argument here?"
#endif
	if (result < 0 && result > -4096) {
		errno = (int)-result;
		return -1;
	}
	return result;
}

/* One rule, with what it wants of the arguments. 0 or libseccomp's negative errno. */
static int
rule_add(scmp_filter_ctx ctx, int call, enum when when)
{
	switch (when) {
	case ALWAYS:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 0);
	case NOT_EXECUTABLE:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	case UNIX_ONLY:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	case CLONE_ONLY:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, SCMP_A1(SCMP_CMP_EQ, FICLONERANGE));
	case FORK:	/* no new namespaces: they would make a root of somebody */
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_MASKED_EQ,
		    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP, 0));
	case OWN_STATE:	/* libc's and ours: what a process may say of itself */
		for (size_t i = 0; i < sizeof own_state / sizeof own_state[0]; i++) {
			int error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_EQ, own_state[i]));
			if (error < 0)
				return error;
		}
		return 0;
	case KEYED:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, SCMP_A5(SCMP_CMP_EQ, *key));
	case KEYED_FORK:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 2, SCMP_A0(SCMP_CMP_EQ, SIGCHLD), SCMP_A5(SCMP_CMP_EQ, *key));
	case KEYED_UNIX:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 2, SCMP_A0(SCMP_CMP_EQ, AF_UNIX), SCMP_A5(SCMP_CMP_EQ, *key));
	case OWN_NAME:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	case OWN_PROCESSORS:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_EQ, 0));
	case NO_PROCESSES:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 3, SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A1(SCMP_CMP_EQ, RLIMIT_NPROC),
		    SCMP_A3(SCMP_CMP_EQ, 0));
	case CLOSING:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, SCMP_A2(SCMP_CMP_EQ, 0));
	case TO_ITSELF:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	}
	return -EINVAL;
}

#if defined(SANDBOX_PROBE)
#include "../tests/sandbox/probe.h"
#define ACT_DEFAULT (getenv("POSTERN_PROBE_TRAP") != NULL ? SCMP_ACT_TRAP : SCMP_ACT_KILL_PROCESS)
#elif defined(SANDBOX_TRAP)
#define ACT_DEFAULT SCMP_ACT_TRAP
static void
on_trap(int signal, siginfo_t *info, void *context)
{
	char text[128];
	char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, info->si_syscall);
	int n = snprintf(text, sizeof text, "sandbox: %s (%d) is forbidden here\n", name != NULL ? name : "?", info->si_syscall);

	(void)signal;
	(void)context;
	if (write(2, text, (size_t)n) == n)
		_exit(99);
	_exit(98);
}
#else
#define ACT_DEFAULT SCMP_ACT_KILL_PROCESS
#endif

/* Everything but a list. */
static int
filter_fill_pam(scmp_filter_ctx ctx)
{
	for (size_t i = 0; i < sizeof never_pam / sizeof never_pam[0]; i++) {
		int call = seccomp_syscall_resolve_name(never_pam[i]), error;
		if (call >= 0 && (error = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), call, 0)) < 0)
			return error;
	}
	return 0;
}

static int
filter_fill(scmp_filter_ctx ctx, enum cell cell)
{
	int error;

	if (cell == CELL_PAM)
		return filter_fill_pam(ctx);
	for (size_t i = 0; i < RULES; i++) {
		if ((widened(rules[i].cells) & (1u << cell)) == 0)
			continue;
		int call = seccomp_syscall_resolve_name(rules[i].call);
		if (call < 0)
			continue;	/* this architecture does not have it */
		/* widened: what a child's argument rule allows, its parent's must */
		enum when when = rules[i].when == TO_ITSELF && (cell == CELL_AUTHD || cell == CELL_SPOOLD) ?
		    ALWAYS : rules[i].when;
		if ((error = rule_add(ctx, call, when)) < 0 && error != -EEXIST)
			return error;
	}
	for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++) {
		int call = seccomp_syscall_resolve_name(probes[i].call);
		if (call >= 0 && (error = seccomp_rule_add(ctx, SCMP_ACT_ERRNO((uint32_t)probes[i].error), call, 0)) < 0)
			return error;
	}
	return 0;
}

/* Takes the program that libseccomp wrote into fd. */
static int
filter_take(enum cell cell, int fd)
{
	struct stat st;

	if (fstat(fd, &st) == -1 || st.st_size <= 0 || (size_t)st.st_size / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return -1;
	struct sock_filter *code = malloc((size_t)st.st_size);
	if (code == NULL || pread(fd, code, (size_t)st.st_size, 0) != st.st_size) {
		free(code);
		return -1;
	}
	ready[cell].code = code;
	ready[cell].count = (unsigned short)((size_t)st.st_size / sizeof *code);
	return 0;
}

static bool no_filters;		/* the kernel has none, and best-effort goes on without: sandbox_check */

/* The library writes a filter to a file, and does not say so if a limit on files cuts it off. */
static bool
filter_whole(enum cell cell, int fd)
{
	struct rlimit files;
	struct stat st;

	if (getrlimit(RLIMIT_FSIZE, &files) == -1 || fstat(fd, &st) == -1 || (rlim_t)st.st_size < files.rlim_cur)
		return true;
	log_text(LOG_ERR, "the system call filter of %s cannot be made: files may have no more than %llu octets here; "
	    "raise that limit (RLIMIT_FSIZE, ulimit -f, LimitFSIZE=)", names[cell], (unsigned long long)files.rlim_cur);
	errno = EFBIG;
	return false;
}

int
sandbox_prepare(enum cell cell)
{
	if (ready[cell].code != NULL || no_filters)
		return 0;
	scmp_filter_ctx ctx = seccomp_init(cell == CELL_PAM ? SCMP_ACT_ALLOW : ACT_DEFAULT);
	int fd = memfd_create("filter", MFD_CLOEXEC), result = -1;

	if (ctx != NULL && fd != -1 && seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2) == 0 &&
	    filter_fill(ctx, cell) == 0 && seccomp_export_bpf(ctx, fd) == 0 && filter_whole(cell, fd))
		result = filter_take(cell, fd);
	if (result == -1)
		log_text(LOG_ERR, "the system call filter of %s cannot be made", names[cell]);
	if (ctx != NULL)
		seccomp_release(ctx);
	if (fd != -1)
		close(fd);
	return result;
}

/* Landlock, by the numbers of its newest interface: the headers of a distribution may be older than its kernel. */

struct ruleset {
	uint64_t fs, net, scoped;
};
struct beneath {
	uint64_t allowed;
	int32_t parent;
} __attribute__((packed));

#define FS_EXECUTE	(1ull << 0)
#define FS_WRITE_FILE	(1ull << 1)
#define FS_READ_FILE	(1ull << 2)
#define FS_READ_DIR	(1ull << 3)
#define FS_REMOVE_FILE	(1ull << 5)
#define FS_MAKE_DIR	(1ull << 7)
#define FS_MAKE_REG	(1ull << 8)
#define FS_MAKE_SOCK	(1ull << 9)
#define FS_REFER	(1ull << 13)	/* version 2 */
#define FS_TRUNCATE	(1ull << 14)	/* 3 */
#define SCOPE_ABSTRACT	(1ull << 0)	/* 6: sockets without a path, outside this process and its children */
#define SCOPE_SIGNAL	(1ull << 1)	/* signals to the same */
#define FS_FILE		(FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE)

static int
landlock_version(void)
{
	return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
}

static struct ruleset
landlock_handled(enum cell cell, int version)
{
	struct ruleset r = { .fs = (1ull << 13) - 1 };

	if (version >= 2)
		r.fs |= FS_REFER;
	if (version >= 3)
		r.fs |= FS_TRUNCATE;
	if (version >= 4)
		r.net = 3;	/* TCP bind and connect */
	if (version >= 5)
		r.fs |= 1ull << 15;	/* ioctl on devices */
	/* The parents: the service manager may listen on an abstract socket, and authd's first children were there before. */
	if (version >= 6)
		r.scoped = cell == CELL_AUTHD ? 0 : cell == CELL_LISTENER ? SCOPE_SIGNAL : SCOPE_ABSTRACT | SCOPE_SIGNAL;
	return r;
}

static int
landlock_allow(int ruleset, const struct ruleset *handled, const struct sandbox_path *path)
{
	struct beneath b = { .parent = path->path != NULL ? open(path->path, O_PATH | O_CLOEXEC) : path->fd };
	struct stat st;

	if (b.parent == -1)
		return errno == ENOENT ? 0 : -1;	/* what is not there cannot be reached either */
	if (path->rights & SANDBOX_READ)
		b.allowed |= FS_READ_FILE | FS_READ_DIR;
	if (path->rights & SANDBOX_WRITE)
		b.allowed |= FS_WRITE_FILE | FS_TRUNCATE | FS_REMOVE_FILE | FS_MAKE_REG | FS_MAKE_DIR | FS_REFER;
	if (path->rights & SANDBOX_SOCKET)
		b.allowed |= FS_MAKE_SOCK | FS_REMOVE_FILE;
	int result = fstat(b.parent, &st);
	if (result == 0) {
		b.allowed &= handled->fs & (S_ISDIR(st.st_mode) ? ~0ull : FS_FILE);
		result = (int)syscall(SYS_landlock_add_rule, ruleset, 1, &b, 0);
	}
	if (path->path != NULL)
		close(b.parent);
	return result;
}

/* The ruleset of a cell, which is still to be entered; -1 with errno. */
static int
landlock_make(enum cell cell, const struct sandbox_path *paths, size_t count)
{
	int version = landlock_version();

	if (version < 1)
		return -1;
	struct ruleset handled = landlock_handled(cell, version);
	size_t size = version >= 6 ? 24 : version >= 4 ? 16 : 8;
	int fd = (int)syscall(SYS_landlock_create_ruleset, &handled, size, 0), result = 0;
	if (fd == -1)
		return -1;
	for (size_t i = 0; i < count && result == 0; i++)
		result = landlock_allow(fd, &handled, &paths[i]);
	if (result == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static int
landlock_enter(enum cell cell, const struct sandbox_path *paths, size_t count)
{
	int fd = landlock_make(cell, paths, count), result;

	if (fd == -1)
		return -1;
	result = (int)syscall(SYS_landlock_restrict_self, fd, 0);
	close(fd);
	return result;
}

/* These reach by path what only their children's names and modules decide, so no list of paths can hold. */
static bool
needs_paths(enum cell cell)
{
	return cell == CELL_SPOOLD || cell == CELL_PAM;
}

static void
limit(int what, uint64_t most)
{
	struct rlimit r;

	if (getrlimit((__rlimit_resource_t)what, &r) == -1)
		return;
	if (most == MANY)
		r.rlim_cur = r.rlim_max;
	else if (r.rlim_max > most)
		r = (struct rlimit){ most, most };
	else if (r.rlim_cur > r.rlim_max)
		r.rlim_cur = r.rlim_max;
	setrlimit((__rlimit_resource_t)what, &r);
}

/* Where nothing is confined a sanitizer may be at work, which needs all the memory it can get. */
static void
limits_set(enum cell cell, bool confined)
{
	limit(RLIMIT_CORE, 0);
	prctl(PR_SET_DUMPABLE, 0);
	if (limits[cell].files == MANY || (confined && limits[cell].files > 0))
		limit(RLIMIT_NOFILE, limits[cell].files);
	if (confined && limits[cell].data > 0)
		limit(RLIMIT_DATA, limits[cell].data);
	if (confined && limits[cell].alone)
		limit(RLIMIT_NPROC, 0);
}

/* What this program could not have is said once, at its start, and not by each process. */
static bool said_landlock;

/* What could not be done: fatal, or said. */
static void
falls_short(const struct conf *c, const char *who, const char *what, bool *said)
{
	int saved = errno;

	if (c->sandbox == SANDBOX_REQUIRED)
		fatal("sandbox = required, and the %s cannot have %s: %s", who, what, strerror(saved));
	if (said == NULL || !*said)
		log_text(LOG_WARNING, "sandbox = best-effort: the %s runs without %s: %s", who, what, strerror(saved));
	if (said != NULL)
		*said = true;
}

/* None but `keep` (of those that it has), and none for a program that it might run. 0, or -1 with errno. */
static int
capabilities_keep(uint64_t keep, bool bounding)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &header, data) == -1)
		return -1;
	bool may = (data[0].effective & CAP(SETPCAP)) != 0;
	/* the kernel may know more of them than our headers do */
	for (int cap = 0; may && cap < 64 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if ((bounding || (keep >> cap & 1) == 0) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == -1)
			return -1;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == -1 && errno != EINVAL)
		return -1;
	for (int i = 0; i < 2; i++) {
		data[i].permitted &= (uint32_t)(keep >> 32 * i);
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	return (int)syscall(SYS_capset, &header, data);
}

static uint64_t
capabilities_of(enum cell cell)
{
	for (size_t i = 0; i < sizeof capabilities / sizeof capabilities[0]; i++)
		if (capabilities[i].cell == cell)
			return capabilities[i].keep;
	return 0;
}

void
sandbox_empty_root(const struct conf *c)
{
	char path[CONF_STRING + 16];
	struct stat st;

#ifdef SANDBOX_PROBE
	probe_read(c, CELL_COUNT);
#endif
	if (c->sandbox == SANDBOX_OFF || geteuid() != 0)
		return;
	if (conf_run_path(c, "empty", path, sizeof path) == 0 && (mkdir(path, 0555) == 0 || errno == EEXIST) &&
	    lstat(path, &st) == 0) {
		errno = EPERM;
		if (S_ISDIR(st.st_mode) && st.st_uid == 0 && (st.st_mode & 022) == 0 && chroot(path) == 0 && chdir("/") == 0)
			return;
	}
	falls_short(c, "hasher or keeper", "an empty root directory", NULL);
}

static void
filter_load(enum cell cell, const struct conf *c)
{
	if (no_filters)
		return;
	if (sandbox_prepare(cell) == -1) {
		falls_short(c, names[cell], "its system call filter", NULL);
		return;
	}
	struct sock_fprog program = { .len = ready[cell].count, .filter = ready[cell].code };
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0)
		return;
	/* Without no_new_privs, which a module's helper may not bear, it takes a root that has not been cut down itself. */
	if (cell == CELL_PAM && errno == EACCES)
		log_text(LOG_INFO, "the PAM process has no system call filter: that takes CAP_SYS_ADMIN");
	else
		falls_short(c, names[cell], "its system call filter", NULL);
}

/* What the listener has made ready for its children. */
static struct {
	bool ready;
	int ruleset;		/* Landlock's, of CELL_POP3D; -1: the kernel has none, and best-effort goes on without */
} birth = { .ruleset = -1 };

static void
birth_prepare(const struct conf *c)
{
	birth.ready = true;
	if (c->sandbox == SANDBOX_OFF)
		return;
	if (key_make() == -1)
		fatal("the listener's filter cannot be made: %s", strerror(errno));
	birth.ruleset = landlock_make(CELL_POP3D, NULL, 0);
}

/* The listener's child: limits, capabilities and filter it was born with; what is left of the listener's own is taken away. */
static void
birth_enter(const struct conf *c)
{
	const struct rlimit none = { 0, 0 };

	if (c->sandbox == SANDBOX_OFF)
		return;
	if (setrlimit(RLIMIT_NPROC, &none) == -1)
		fatal("a pop3d process cannot be kept from making others: %s", strerror(errno));
	if (birth.ruleset == -1 || syscall(SYS_landlock_restrict_self, birth.ruleset, 0) == -1)
		falls_short(c, names[CELL_POP3D], "Landlock", &said_landlock);
}

pid_t
sandbox_fork(const struct conf *c)
{
#ifdef SANDBOX_PROBE
	probe_read(c, CELL_POP3D);
#endif
	(void)c;
	return (pid_t)sandbox_call(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

void
sandbox_enter(enum cell cell, const struct conf *c, const struct sandbox_path *paths, size_t count)
{
	bool confined = c->sandbox != SANDBOX_OFF, born = birth.ready && cell == CELL_POP3D;

	/* authd must be able to fork PAM's process again: then it is as free as that. */
	if (cell == CELL_AUTHD && conf_has(&c->stores, STORE_PAM))
		cell = CELL_PAM;
#ifdef SANDBOX_PROBE
	if (!born)
		probe_read(c, cell);
#endif
	if (cell == CELL_LISTENER)
		birth_prepare(c);
	if (born)
		birth_enter(c);
	/* A session is in pop3d's cell already, in which there is nothing that it could lose. */
	else if (cell != CELL_SESSION) {
		limits_set(cell, confined);
		if (confined && capabilities_keep(capabilities_of(cell), cell != CELL_PAM) == -1)
			falls_short(c, names[cell], "only the capabilities it needs", NULL);
	}
	if (!confined)
		return;
	if (!born && cell != CELL_SESSION) {
#ifdef SANDBOX_TRAP
		struct sigaction trap = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
		sigaction(SIGSYS, &trap, NULL);
#endif
		if (cell != CELL_PAM && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
			falls_short(c, names[cell], "no_new_privs", NULL);
		if (!needs_paths(cell) && landlock_enter(cell, paths, count) == -1)
			falls_short(c, names[cell], "Landlock", &said_landlock);
		filter_load(cell, c);
	}
#ifdef SANDBOX_PROBE
	probe_run(cell);
#endif
}

void
sandbox_check(const struct conf *c)
{
	if (c->sandbox == SANDBOX_OFF) {
		log_text(LOG_WARNING, "sandbox = off: no process of this program is confined");
		return;
	}
	if (landlock_version() < 1)
		falls_short(c, "whole program", "Landlock", &said_landlock);
	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &(uint32_t){ SECCOMP_RET_KILL_PROCESS }) == -1)
		falls_short(c, "whole program", "system call filters", &no_filters);
}

bool
sandbox_whole(const struct conf *c)
{
	return c->sandbox != SANDBOX_OFF && !said_landlock && !no_filters;
}
