/* doctor: where mail lies, and what an UPDATE has left. */
#include "doctor.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define STALE_S		600	/* a dotlock that is older was left behind: lock.h */
#define LONG_S		3600

/* The directory of mailboxes, if all of them lie in one: it must not let a user put something in another's place. */
void
doctor_spool(struct doctor *d)
{
	char path[CONF_STRING];
	struct stat st;

	snprintf(path, sizeof path, "%s", d->conf->mbox);
	char *slash = strrchr(path, '/');
	if (d->conf->store == STORE_MAILDIR || path[0] != '/' || strstr(path, "%u") == NULL || slash == path || strstr(path, "%u") < slash)
		return;
	*slash = '\0';
	if (stat(path, &st) == -1)
		found(d, FINDING_WARNING, "spool", "make it, or set [spoold] mbox", "%s: %s", path, strerror(errno));
	else if (!S_ISDIR(st.st_mode))
		found(d, FINDING_FAILED, "spool", "make it a directory, or set [spoold] mbox", "%s is not a directory", path);
	else if ((st.st_mode & S_IWOTH) != 0 && (st.st_mode & S_ISVTX) == 0)
		found(d, FINDING_FAILED, "spool", "chmod 2775 it, as Debian has it, or 1777", "%s: any user may remove another's mailbox (mode %04o)", path,
		    (unsigned)st.st_mode & 07777);
	else if (st.st_uid != 0 && st.st_uid >= d->conf->min_uid && d->root)
		found(d, FINDING_FAILED, "spool", "chown it to root", "%s belongs to uid %u, who may put anything in a mailbox's place", path,
		    (unsigned)st.st_uid);
	else
		found(d, FINDING_OK, "spool", NULL, "%s", path);
}

static bool
ends_in(const char *name, const char *suffix)
{
	size_t n = strlen(name), m = strlen(suffix);

	return n > m && strcmp(name + n - m, suffix) == 0;
}

void
doctor_journals(struct doctor *d)
{
	char path[CONF_STRING + 16], example[NAME_MAX + 1] = "";
	unsigned left = 0, aside = 0;
	const struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof path, "%s/journal", d->conf->state_dir);
	if ((dir = opendir(path)) == NULL) {
		if (errno != ENOENT)
			found(d, FINDING_FAILED, "journals", "run this as root, or as the user that runs spoold", "%s: %s", path, strerror(errno));
		return;
	}
	while ((e = readdir(dir)) != NULL) {
		bool is_aside = strstr(e->d_name, ".aside-") != NULL;
		left += ends_in(e->d_name, ".journal");
		aside += is_aside;
		if (is_aside)
			snprintf(example, sizeof example, "%s", e->d_name);
	}
	closedir(dir);
	if (aside > 0)
		found(d, FINDING_WARNING, "journals", "compare the maildrop with a backup; then move the file away",
		    "%u journals were not acted on, since they did not fit their maildrop: %s/%s", aside, path, example);
	if (left > 0)
		found(d, FINDING_WARNING, "journals", "spoolctl recover, and read spoold's log if one stays", "%u updates are unfinished", left);
	if (aside == 0 && left == 0)
		found(d, FINDING_OK, "journals", NULL, "none is left");
}

/* The mode, which root can see of any file: mail is its owner's alone. */
static void
check_mode(struct doctor *d, const struct body_shown *s)
{
	char remedy[PATH_SIZE + 64];
	struct stat st;

	if (lstat(s->path, &st) == -1)
		return;
	if (st.st_uid != s->uid && st.st_uid != 0) {
		snprintf(remedy, sizeof remedy, "chown%s %u %s", s->kind == MAILDROP_MAILDIR ? " -R" : "", (unsigned)s->uid, s->path);
		found(d, FINDING_FAILED, "maildrop", remedy, "%s belongs to uid %u, not to the user, %u", s->path, (unsigned)st.st_uid, (unsigned)s->uid);
	} else if ((st.st_mode & (S_IROTH | S_IWOTH)) != 0) {
		snprintf(remedy, sizeof remedy, "chmod o-rwx %s", s->path);
		found(d, FINDING_WARNING, "maildrop", remedy, "%s: every user may read or write it (mode %03o)", s->path, (unsigned)st.st_mode & 0777);
	}
}

static const char *
remedy_for(uint32_t failure)
{
	switch (failure) {
	case FAILURE_PERMISSION:
		return "chown it to the user, and make every directory on the way to it passable";
	case FAILURE_KIND:
		return "move away what stands there, or set the user's maildrop (authctl add --maildrop)";
	case FAILURE_USER:
		return "authctl add USER, an account with a uid from min-uid on, or virtual-user";
	default:
		return "read spoold's log";
	}
}

static void
check_locks(struct doctor *d, const struct body_shown *s)
{
	struct held locks[8];
	char when[TIME_SIZE], who[64] = "nobody that lives", remedy[PATH_SIZE + 64];
	size_t count = s->inode != 0 ? locks_of(s->device, s->inode, locks, 8) : 0, sessions = 0;
	int64_t age = (int64_t)time(NULL) - s->dotlock_since;
	bool alive = false;

	if (s->flags & SHOWN_DOTLOCK) {
		char command[32];
		process_command(s->dotlock_pid, command, sizeof command);
		alive = command[0] != '\0';
		if (alive)
			snprintf(who, sizeof who, "process %u (%s)", (unsigned)s->dotlock_pid, command);
		snprintf(remedy, sizeof remedy, "make sure that nothing delivers, and rm %s.lock", s->path);
		found(d, FINDING_WARNING, "locks", age > STALE_S || !alive ? remedy : "wait: it is delivering", "%s.lock is there since %s, of %s", s->path,
		    print_time(s->dotlock_since, when, sizeof when), who);
	}
	for (size_t i = 0; i < count; i++) {
		bool ours = strncmp(locks[i].command, "worker", 6) == 0 || strncmp(locks[i].command, "spoold", 6) == 0;
		sessions += ours;
		if (!ours)
			found(d, FINDING_WARNING, "locks", "wait for that program, or end it: logins get [IN-USE] or wait", "%s: %s lock of process %u (%s)", s->path,
			    locks[i].kind, (unsigned)locks[i].pid, locks[i].command[0] != '\0' ? locks[i].command : "not known");
	}
	if (sessions > 0)
		found(d, FINDING_OK, "locks", NULL, "a session has it: see spoolctl show %s", s->user);
	else if (count == 0 && (s->flags & SHOWN_DOTLOCK) == 0)
		found(d, FINDING_OK, "locks", NULL, "none");
}

/* What spoold sees, with the user's own rights. */
void
doctor_maildrop(struct doctor *d)
{
	struct body_shown s;

	if (d->user == NULL)
		return;
	if (look_at(d->conf, d->user, &s) == -1) {
		found(d, FINDING_FAILED, "maildrop", "start spoold", "spoold cannot look: %s", strerror(errno));
		return;
	}
	if (s.store == STORE_COUNT) {
		found(d, FINDING_FAILED, "maildrop", remedy_for(s.failure), "%s: %s", d->user, failure_text(s.failure));
		return;
	}
	if (d->root)
		check_mode(d, &s);
	if (s.failure != FAILURE_COUNT)
		found(d, FINDING_FAILED, "maildrop", remedy_for(s.failure), "%s: %s", s.path, failure_text(s.failure));
	else if (s.flags & SHOWN_MISSING)
		found(d, FINDING_WARNING, "maildrop", "deliver a message, or see where the delivery agent puts them", "%s is not there: the user has no mail",
		    s.path);
	else if (s.flags & SHOWN_READONLY)
		found(d, FINDING_WARNING, "maildrop", "chmod u+w it", "%s: its owner may not write it, so nothing can be deleted", s.path);
	else
		found(d, FINDING_OK, "maildrop", NULL, "%s: %u messages, %llu octets", s.path, (unsigned)s.messages, (unsigned long long)s.octets);
	if (s.flags & SHOWN_JOURNAL)
		found(d, FINDING_WARNING, "journals", "spoolctl recover", "an update of %s was cut off", s.path);
	check_locks(d, &s);
	if ((s.flags & (SHOWN_CACHE | SHOWN_MISSING)) == 0)
		found(d, FINDING_OK, "cache", NULL, "none yet: the next login makes it");
	else if (s.flags & SHOWN_CACHE)
		found(d, FINDING_OK, "cache", NULL, "%llu octets", (unsigned long long)s.cache_size);
}
