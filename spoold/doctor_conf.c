/* doctor: configuration, accounts, directories, sockets, users. */
#include "doctor.h"

#include <ctype.h>
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "advice.h"

struct advised {
	struct doctor *doctor;
	unsigned count;
};

static void
on_advice(const char *text, bool mistake, void *data)
{
	struct advised *a = data;

	a->count++;
	if (mistake)
		found(a->doctor, FINDING_FAILED, "configuration", "mend that line; postern.conf(5) has every key", "%s", text);
	else
		found(a->doctor, FINDING_WARNING, "configuration", "change it as the text says, unless you know why not", "%s", text);
}

void
doctor_configuration(struct doctor *d)
{
	struct advised advised = { .doctor = d };
	const struct advice a = { d->conf, on_advice, &advised };

	advice_give(&a);
	advice_virtual_user(&a);	/* the daemons' own have a step of their own */
	if (advised.count > 0)
		return;
	if (access(d->conf->file, F_OK) == 0)
		found(d, FINDING_OK, "configuration", NULL, "%s", d->conf->file);
	else
		found(d, FINDING_OK, "configuration", NULL, "%s is not there: all defaults hold", d->conf->file);
}

static void
check_account(struct doctor *d, const char *section, const char *name)
{
	char remedy[256];
	const struct passwd *pw = getpwnam(name);

	snprintf(remedy, sizeof remedy, "useradd --system --no-create-home --shell /usr/sbin/nologin %.100s", name);
	if (pw == NULL)
		found(d, FINDING_FAILED, "accounts", remedy, "[%s] user: there is no account %s", section, name);
	else if (pw->pw_uid == 0 || pw->pw_gid == 0)
		found(d, FINDING_FAILED, "accounts", "name an account of its own", "[%s] user: %s is root, or of its group", section, name);
	else
		found(d, FINDING_OK, "accounts", NULL, "[%s] user %s, uid %u", section, name, (unsigned)pw->pw_uid);
}

void
doctor_accounts(struct doctor *d)
{
	if (!d->root) {
		found(d, FINDING_OK, "accounts", NULL, "not root: all daemons are to run as uid %u", (unsigned)geteuid());
		return;
	}
	check_account(d, "pop3d", d->conf->pop3d_user);
	check_account(d, "authd", d->conf->authd_user);
}

static void
check_directory(struct doctor *d, const char *step, const char *path)
{
	char remedy[2 * CONF_STRING + 64];
	struct statvfs fs;
	struct stat st;

	snprintf(remedy, sizeof remedy, "chown %s %s && chmod go-w %s", d->root ? "root" : "the daemons' user", path, path);
	if (lstat(path, &st) == -1)
		found(d, errno == ENOENT ? FINDING_WARNING : FINDING_FAILED, step, "start authd and spoold, which make it", "%s: %s", path,
		    strerror(errno));
	else if (!S_ISDIR(st.st_mode))
		found(d, FINDING_FAILED, step, "move it away; the daemons make the directory", "%s is not a directory", path);
	else if (st.st_uid != 0 && st.st_uid != geteuid())
		found(d, FINDING_FAILED, step, remedy, "%s belongs to uid %u", path, (unsigned)st.st_uid);
	else if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		found(d, FINDING_FAILED, step, remedy, "%s may be written by others (mode %03o)", path, (unsigned)st.st_mode & 0777);
	else if (statvfs(path, &fs) == 0 && (fs.f_flag & ST_RDONLY) != 0)
		found(d, FINDING_FAILED, step, "remount it for writing", "%s is on a file system that is mounted read-only", path);
	else if (statvfs(path, &fs) == 0 && fs.f_blocks > 0 && fs.f_bavail < fs.f_blocks / 100)
		found(d, FINDING_WARNING, step, "make room: no journal, no UPDATE", "%s: less than 1 %% of its file system is free", path);
	else
		found(d, FINDING_OK, step, NULL, "%s", path);
}

void
doctor_directories(struct doctor *d)
{
	check_directory(d, "run-dir", d->conf->run_dir);
	check_directory(d, "state-dir", d->conf->state_dir);
}

/* A daemon's socket. True if somebody serves it. */
static bool
check_socket(struct doctor *d, const char *daemon, const char *name)
{
	char path[CONF_STRING + 32], remedy[256];
	struct stat st;

	snprintf(remedy, sizeof remedy, "systemctl start postern-%s, and read its log if it ends at once", daemon);
	if (conf_run_path(d->conf, name, path, sizeof path) == -1 || lstat(path, &st) == -1) {
		found(d, FINDING_FAILED, daemon, remedy, "does not run: there is no %s/%s", d->conf->run_dir, name);
		return false;
	}
	if (st.st_uid != 0 && st.st_uid != geteuid()) {
		found(d, FINDING_FAILED, daemon, "find out who made it; remove it and restart the daemon", "%s belongs to uid %u", path,
		    (unsigned)st.st_uid);
		return false;
	}
	int fd = talk_connect(d->conf, name);
	if (fd == -1) {
		found(d, FINDING_FAILED, daemon, remedy, "does not answer at %s: %s", path, strerror(errno));
		return false;
	}
	close(fd);
	return true;
}

void
doctor_daemons(struct doctor *d)
{
	size_t count;

	if (check_socket(d, "spoold", "spoold.sock") && check_socket(d, "spoold", "spoold.ctl")) {
		struct body_spool_session *list = talk_sessions(d->conf, &count);
		if (list != NULL)
			found(d, FINDING_OK, "spoold", NULL, "answers; %zu sessions", count);
		else
			found(d, FINDING_FAILED, "spoold", "run this as root, or as the user that runs spoold", "does not answer: %s", strerror(errno));
		free(list);
	}
	if (check_socket(d, "authd", "authd.sock") && check_socket(d, "authd", "authd.ctl"))
		found(d, FINDING_OK, "authd", NULL, "answers");
}

/* Can this account read a file of this owner, group and mode? */
static bool
may_read(const char *account, const struct stat *st)
{
	const struct passwd *pw = getpwnam(account);

	if (pw == NULL)
		return true;	/* another step says so */
	if (st->st_uid == pw->pw_uid)
		return (st->st_mode & S_IRUSR) != 0;
	return (st->st_mode & (st->st_gid == pw->pw_gid ? S_IRGRP : S_IROTH)) != 0;
}

static void
check_users_file(struct doctor *d, const char *path, bool secret)
{
	char remedy[3 * CONF_STRING + 96];
	struct stat st;

	if (stat(path, &st) == -1) {
		found(d, errno == ENOENT ? FINDING_WARNING : FINDING_FAILED, "users", "authctl add USER makes it, or leave db out of [authd] stores",
		    "%s: %s", path, strerror(errno));
		return;
	}
	snprintf(remedy, sizeof remedy, "chown root:%s %s && chmod 640 %s", d->conf->authd_user, path, path);
	if (S_ISDIR(st.st_mode))
		found(d, FINDING_FAILED, "users", "name a file in it as [authd] db, such as /etc/postern/users.db", "%s is a directory", path);
	else if (!S_ISREG(st.st_mode))
		found(d, FINDING_FAILED, "users", "move it away and run authctl add USER", "%s is not a file", path);
	else if (secret && (st.st_mode & (S_IROTH | S_IWOTH)) != 0)
		found(d, FINDING_FAILED, "users", remedy, "%s: every user may read the password hashes (mode %03o)", path,
		    (unsigned)st.st_mode & 0777);
	else if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		found(d, FINDING_FAILED, "users", remedy, "%s may be written by others (mode %03o)", path, (unsigned)st.st_mode & 0777);
	else if (secret && d->root && !may_read(d->conf->authd_user, &st))
		found(d, FINDING_FAILED, "users", remedy, "%s: authd, as %s, may not read it", path, d->conf->authd_user);
	else
		found(d, FINDING_OK, "users", NULL, "%s", path);
}

void
doctor_users(struct doctor *d)
{
	char path[CONF_STRING + 16];
	const char *slash = strrchr(d->conf->db, '/');

	if (!conf_has(&d->conf->stores, STORE_DB))
		return;
	check_users_file(d, d->conf->db, true);
	snprintf(path, sizeof path, "%.*s/maildrops.db", (int)(slash - d->conf->db), d->conf->db);
	if (access(d->conf->db, F_OK) == 0)
		check_users_file(d, path, false);
}

/* Is a module of this name in one of the directories that Debian's PAM and others use? */
static bool
module_is_there(const char *name)
{
	static const char *const where[] = { "/lib/security", "/lib64/security", "/usr/lib/security", "/usr/lib64/security",
		"/lib/x86_64-linux-gnu/security", "/usr/lib/x86_64-linux-gnu/security", "/usr/lib/aarch64-linux-gnu/security",
		"/usr/lib/arm-linux-gnueabihf/security", "/usr/lib/i386-linux-gnu/security", "/usr/lib/riscv64-linux-gnu/security" };
	char path[512];

	if (name[0] == '/')
		return access(name, F_OK) == 0;
	for (size_t i = 0; i < sizeof where / sizeof where[0]; i++) {
		snprintf(path, sizeof path, "%s/%.100s", where[i], name);
		if (access(path, F_OK) == 0)
			return true;
	}
	return false;
}

/* "[success=1 default=ignore]" may have blanks in it. */
static char *
after_control(char *at)
{
	at += strspn(at, " \t");
	at += *at == '[' ? strcspn(at, "]") + 1 : strcspn(at, " \t");
	return at + strspn(at, " \t");
}

/* One file of /etc/pam.d, and those that it includes. What kinds of lines there are is added to *kinds. False after a finding. */
static bool	/* NOLINTNEXTLINE(misc-no-recursion): as deep as depth allows */
check_pam_file(struct doctor *d, const char *name, unsigned *kinds, int depth)
{
	char path[256], line[1024];
	FILE *f;
	bool sound = true;

	snprintf(path, sizeof path, "%s%.200s", name[0] == '/' ? "" : "/etc/pam.d/", name);
	if ((f = fopen(path, "re")) == NULL) {
		found(d, FINDING_FAILED, "pam", "install etc/pam/postern there, or set pam-service", "%s: %s", path, strerror(errno));
		return false;
	}
	while (sound && fgets(line, sizeof line, f) != NULL) {
		char *at = line + strspn(line, " \t-");
		line[strcspn(line, "#\n")] = '\0';
		if (*at == '@' && strncmp(at, "@include", 8) == 0) {
			at += 8 + strspn(at + 8, " \t");
			at[strcspn(at, " \t")] = '\0';
			sound = depth > 8 || check_pam_file(d, at, kinds, depth + 1);
			continue;
		}
		*kinds |= strncmp(at, "auth", 4) == 0 ? 1 : strncmp(at, "account", 7) == 0 ? 2 : 0;
		if (!isalpha((unsigned char)*at))
			continue;
		char *module = after_control(at + strcspn(at, " \t"));
		module[strcspn(module, " \t")] = '\0';
		if (strstr(module, ".so") != NULL && !module_is_there(module) && line[0] != '-') {
			found(d, FINDING_FAILED, "pam", "install the package that has it, or take the line out", "%s: the module %s is not there", path,
			    module);
			sound = false;
		}
	}
	fclose(f);
	return sound;
}

void
doctor_pam(struct doctor *d)
{
	unsigned kinds = 0;

	if (!conf_has(&d->conf->stores, STORE_PAM) || !check_pam_file(d, d->conf->pam_service, &kinds, 0))
		return;
	if (kinds != 3)
		found(d, FINDING_FAILED, "pam", "compare it with etc/pam/postern", "/etc/pam.d/%s has no line for %s", d->conf->pam_service,
		    (kinds & 1) == 0 ? "auth" : "account");
	else
		found(d, FINDING_OK, "pam", NULL, "/etc/pam.d/%s", d->conf->pam_service);
}
