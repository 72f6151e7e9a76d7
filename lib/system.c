/* Sockets, start-up and numbers: what more than one program asks of the system in the same way. */
#include "system.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "advice.h"
#include "log.h"

#ifndef VERSION
#define VERSION "0"
#endif

static _Noreturn void
usage_error(const char *usage, const char *what)
{
	fprintf(stderr, "%s\nusage: %s\n", what, usage);
	exit(2);
}

static bool (*on_test)(const struct conf *c);

void
options_on_test(bool (*check)(const struct conf *c))
{
	on_test = check;
}

static void (*on_advice)(const struct advice *a);

void
options_on_advice(void (*more)(const struct advice *a))
{
	on_advice = more;
}

static void
say_advice(const char *text, bool mistake, void *data)
{
	bool *sound = data;

	*sound = *sound && !mistake;
	fprintf(stderr, "%s\n", text);
}

void
options_parse(int argc, char **argv, const char *usage, const char *more,
    const char *(*on_option)(int option, const char *argument), struct options *o, struct conf *c)
{
	char letters[64], error[1024];
	int option;

	*o = (struct options){ .config = CONF_PATH_DEFAULT };
	const bool words = more[0] == '+';	/* the command and its own */

	snprintf(letters, sizeof letters, "%sc:tVh%s", words ? "+" : "", more + words);
	while ((option = getopt(argc, argv, letters)) != -1) {
		const char *wrong = NULL;
		switch (option) {
		case 'c':
			o->config = optarg;
			o->config_given = true;
			break;
		case 't':
			o->test = true;
			break;
		case 'V':
			printf("postern " VERSION "\n");
			exit(0);
		case 'h':
			printf("usage: %s\n", usage);
			exit(0);
		case '?':
			usage_error(usage, "");
		default:
			wrong = on_option(option, optarg);
		}
		if (wrong != NULL)
			usage_error(usage, wrong);
	}
	if (optind < argc && (!words || o->test)) {
		snprintf(error, sizeof error, "%.200s: %s", argv[optind], o->test ? "-t takes no word; the file to check is named with -c" :
		    "no word is accepted; a configuration is named with -c");
		usage_error(usage, error);
	}
	if (conf_load(c, o->config, !o->config_given, error, sizeof error) == -1) {
		fprintf(stderr, "%s\n", error);
		exit(1);
	}
	if (o->test) {
		bool sound = true;
		const struct advice advice = { c, say_advice, &sound };
		advice_give(&advice);
		if (on_advice != NULL)
			on_advice(&advice);
		if ((on_test != NULL && !on_test(c)) || !sound)
			exit(1);
		printf("%s: ok\n", o->config);
		exit(0);
	}
}

static int
unix_address(struct sockaddr_un *sa, const char *path)
{
	memset(sa, 0, sizeof *sa);
	sa->sun_family = AF_UNIX;
	if (string_copy(sa->sun_path, sizeof sa->sun_path, path))
		return 0;
	errno = ENAMETOOLONG;
	return -1;
}

int
unix_connect(const char *path)
{
	struct sockaddr_un sa;
	int fd;

	if (unix_address(&sa, path) == -1 || (fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) == -1)
		return -1;
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* A socket whose server is gone answers ECONNREFUSED: it may be replaced. */
static bool
is_stale(const char *path)
{
	int fd = unix_connect(path);

	if (fd != -1) {
		close(fd);
		return false;
	}
	return errno == ECONNREFUSED;
}

int
unix_listen(const char *path, mode_t mode, int backlog)
{
	struct sockaddr_un sa;
	struct stat st;
	int fd, saved;

	if (unix_address(&sa, path) == -1)
		return -1;
	if (lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode) || !is_stale(path)) {
			errno = EADDRINUSE;
			return -1;
		}
		unlink(path);
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return -1;
	if (bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0 && chmod(path, mode) == 0 && listen(fd, backlog) == 0)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

int
unix_accept(int fd, uid_t *uid, pid_t *pid)
{
	struct ucred cred;
	socklen_t size = sizeof cred;
	int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (peer == -1)
		return -1;
	if (getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &cred, &size) == -1) {
		close(peer);
		return -1;
	}
	*uid = cred.uid;
	*pid = cred.pid;
	return peer;
}

int
activation_sockets(char *names, size_t size)
{
	const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID"), *given = getenv("LISTEN_FDNAMES");
	uint64_t count = 0, owner = 0;

	if (names != NULL)
		string_copy(names, size, given != NULL ? given : "");
	if (fds == NULL || pid == NULL || number_parse(fds, 0, 64, &count) != NULL ||
	    number_parse(pid, 1, INT32_MAX, &owner) != NULL || (pid_t)owner != getpid())
		count = 0;
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDNAMES");
	for (int fd = 3; fd < 3 + (int)count; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	return (int)count;
}

static int notify_socket = -1;

void
notify_prepare(void)
{
	if (getenv("NOTIFY_SOCKET") != NULL && notify_socket == -1)
		notify_socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

void
notify_manager(const char *message)
{
	struct sockaddr_un sa;
	const char *path = getenv("NOTIFY_SOCKET");

	if (path == NULL || (path[0] != '/' && path[0] != '@') || unix_address(&sa, path) == -1)
		return;
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (sa.sun_path[0] == '@')
		sa.sun_path[0] = '\0';
	int fd = notify_socket != -1 ? notify_socket : socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return;
	if (sendto(fd, message, strlen(message), MSG_NOSIGNAL, (struct sockaddr *)&sa, length) == -1)
		log_text(LOG_WARNING, "cannot tell the service manager %s: %s", message, strerror(errno));
	if (fd != notify_socket)
		close(fd);
}

int
watchdog_feed(void)
{
	static int64_t due;
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t every = 0, watched = 0;

	if (usec == NULL || getenv("NOTIFY_SOCKET") == NULL || number_parse(usec, 2000, UINT32_MAX * UINT64_C(1000), &every) != NULL)
		return -1;
	if (pid != NULL && (number_parse(pid, 1, INT32_MAX, &watched) != NULL || (pid_t)watched != getpid()))
		return -1;
	int64_t now = clock_ms(), half = (int64_t)(every / 2000);
	if (now >= due) {
		notify_manager("WATCHDOG=1");
		due = now + half;
	}
	return (int)(due - now < half ? due - now : half);
}

void
descriptors_sane(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

void
descriptors_close_from(int first)
{
	close_range((unsigned)first, ~0u, 0);
}

void
session_id(char id[static SESSION_ID_SIZE])
{
	uint64_t random = 0;

	if (getrandom(&random, sizeof random, 0) != sizeof random)
		fatal("no random numbers: %s", strerror(errno));
	for (int i = 0; i < SESSION_ID_SIZE - 1; i++, random >>= 4)
		id[i] = "0123456789abcdef"[random & 15];
	id[SESSION_ID_SIZE - 1] = '\0';
}

int64_t
clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const char *
number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	uint64_t v = 0;

	if (*text == '\0')
		return "not a number";
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return "not a number";
		if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v) || v > max)
			return "too large";
	}
	if (v < min)
		return "too small";
	*value = v;
	return NULL;
}

bool
string_copy(char *to, size_t size, const char *from)
{
	size_t n = strlen(from);
	bool fits = n < size;

	if (!fits)
		n = size - 1;
	memcpy(to, from, n);
	to[n] = '\0';
	return fits;
}

bool
address_is_loopback(const char *address)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, address, &four) == 1)
		return ntohl(four.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, address, &six) != 1)
		return false;
	return IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
}

void
address_of(const struct sockaddr *sa, char address[static ADDRESS_SIZE], uint32_t *port)
{
	address[0] = '\0';
	*port = 0;
	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
		inet_ntop(AF_INET, &in->sin_addr, address, ADDRESS_SIZE);
		*port = ntohs(in->sin_port);
	} else if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
		/* an IPv4 client of a dual-stack socket is an IPv4 client */
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
			inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], address, ADDRESS_SIZE);
		else
			inet_ntop(AF_INET6, &in6->sin6_addr, address, ADDRESS_SIZE);
		*port = ntohs(in6->sin6_port);
	}
}

void
process_name(const char *name)
{
	prctl(PR_SET_NAME, name);
}

static struct {
	cpu_set_t all;
	bool stays;
} processors;

void
processor_stay(void)
{
	int here = sched_getcpu();
	cpu_set_t one;

	if (here == -1 || sched_getaffinity(0, sizeof processors.all, &processors.all) == -1 || CPU_COUNT(&processors.all) < 2)
		return;
	CPU_ZERO(&one);
	CPU_SET((size_t)here, &one);
	processors.stays = sched_setaffinity(0, sizeof one, &one) == 0;
}

void
processor_leave(void)
{
	if (processors.stays)
		(void)sched_setaffinity(0, sizeof processors.all, &processors.all);
	processors.stays = false;
}

static void
signals_reset(void)
{
	static const int used[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGALRM, SIGUSR1, SIGUSR2 };
	sigset_t none;

	for (size_t i = 0; i < sizeof used / sizeof used[0]; i++)
		signal(used[i], SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

void
heap_tidy(void)
{
	void *volatile more = malloc(1 << 16);	/* than any piece has; volatile, or the pair would be compiled away */

	free(more);
}

void *
memory_unforked(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	(void)madvise(at, size, MADV_DONTFORK);		/* it would work without */
	return at;
}

pid_t
fork_named(const char *name)
{
	pid_t parent = getpid(), pid = fork();

	if (pid != 0)
		return pid;
	signals_reset();
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);	/* it died before the line above */
	process_name(name);
	return 0;
}
