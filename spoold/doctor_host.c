/* doctor: what the kernel and the host can do. */
#include "doctor.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BUILT_SINCE 1704067200	/* 2024: no clock that is right says less */

void
doctor_sandbox(struct doctor *d)
{
	long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
	uint32_t action = SECCOMP_RET_KILL_PROCESS;
	bool seccomp = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
	enum finding worst = d->conf->sandbox == SANDBOX_REQUIRED ? FINDING_FAILED : FINDING_WARNING;

	if (d->conf->sandbox == SANDBOX_OFF)
		found(d, FINDING_WARNING, "sandbox", "set sandbox = required in [postern]", "sandbox = off: no process is confined");
	else if (landlock < 1)
		found(d, worst, "sandbox", "boot with lsm=landlock,..., or set sandbox = best-effort", "this kernel has no Landlock: %s",
		    strerror(errno));
	else if (!seccomp)
		found(d, worst, "sandbox", "use a kernel with CONFIG_SECCOMP_FILTER, or set sandbox = best-effort",
		    "this kernel has no system call filters");
	else
		found(d, FINDING_OK, "sandbox", NULL, "Landlock version %ld and system call filters", landlock);
}

/* Certificates and SCRAM's clients do not mind seconds; a clock that nobody sets goes wrong by more. */
void
doctor_clock(struct doctor *d)
{
	struct timex t = { 0 };
	time_t now = time(NULL);
	int state;

	if (now < BUILT_SINCE) {
		found(d, FINDING_FAILED, "clock", "set it, and start systemd-timesyncd or another NTP client",
		    "the clock says %lld, which is long ago: certificates are not yet valid", (long long)now);
		return;
	}
	state = adjtimex(&t);
	if (state == -1 || (t.status & STA_UNSYNC) != 0)
		found(d, FINDING_WARNING, "clock", "timedatectl set-ntp true, unless something else sets it",
		    "the kernel does not know of anything that keeps the clock right");
	else
		found(d, FINDING_OK, "clock", NULL, "kept right to %ld ms", (long)(t.esterror / 1000));
}

void
doctor_log(struct doctor *d)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	int fd;

	if (d->conf->log == LOG_TO_STDERR) {
		found(d, FINDING_OK, "log", NULL, "standard error, which the service manager keeps");
		return;
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd != -1 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
		found(d, FINDING_OK, "log", NULL, "syslog at /dev/log");
	else
		found(d, FINDING_WARNING, "log", "start systemd-journald or a syslog daemon, or set log = stderr",
		    "log = syslog, but /dev/log does not answer (%s): lines go to standard error", strerror(errno));
	if (fd != -1)
		close(fd);
}

static bool
file_mentions(const char *path, const char *word)
{
	FILE *f = fopen(path, "re");
	char line[512];
	bool yes = false;

	while (f != NULL && !yes && fgets(line, sizeof line, f) != NULL)
		yes = strstr(line, word) != NULL;
	if (f != NULL)
		fclose(f);
	return yes;
}

/* Only where it is installed: the throttle is there without it. */
void
doctor_fail2ban(struct doctor *d)
{
	struct stat st;

	if (stat("/etc/fail2ban", &st) == -1)
		return;
	if (stat("/etc/fail2ban/filter.d/postern.conf", &st) == -1)
		found(d, FINDING_WARNING, "fail2ban", "copy Postern's filter.conf to /etc/fail2ban/filter.d/postern.conf, and jail.conf to jail.d",
		    "fail2ban is installed and has no filter for Postern");
	else if (stat("/etc/fail2ban/jail.d/postern.conf", &st) == -1 && !file_mentions("/etc/fail2ban/jail.local", "postern"))
		found(d, FINDING_WARNING, "fail2ban", "copy Postern's jail.conf to /etc/fail2ban/jail.d/postern.conf",
		    "fail2ban has a filter for Postern, and no jail that uses it");
	else if (d->conf->log_level < 6)
		found(d, FINDING_WARNING, "fail2ban", "set log-level = info in [postern]", "fail2ban reads lines that this log-level leaves out");
	else
		found(d, FINDING_OK, "fail2ban", NULL, "filter and jail are there");
}
