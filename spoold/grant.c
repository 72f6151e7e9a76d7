/*
 * What runs as root in spoold, all of it:
 *
 *	in the parent, at start		asroot_directories	makes run-dir and state-dir, opens state-dir/journal and state-dir/cache
 *					asroot_leftovers	lists the journals there
 *	in the child, before its drop	asroot_resolve		getpwnam(3), maildrops.db
 *					asroot_drop		setgroups(2), setresgid(2), setresuid(2), and the proof that there is no way back
 *	in the parent, for a worker	asroot_privileged	MAILBOX.lock and the lock file in a spool directory that root owns, files under state-dir
 *					asroot_release		removes those of a worker that is gone
 *
 * Nothing here reads or writes a byte of mail. (sessions.c, the parent's loop, runs as root as well: it forks, signals
 * workers, and calls these.)
 */
#include "grant.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "accounts.h"
#include "catalogue.h"
#include "flag.h"
#include "lock.h"
#include "locked.h"
#include "log.h"
#include "privilege.h"
#include "system.h"

#define KEY_SIZE	(sizeof ((struct holding *)0)->key)
#define INODE_SIZE	(sizeof ((struct leftover *)0)->inode)

static int journals = -1, caches = -1;	/* state-dir/journal and state-dir/cache */

/* mkdir -p. */
static void
asroot_make(const char *path)
{
	char part[CONF_STRING];

	for (size_t n = 1; path[n - 1] != '\0'; n++) {
		if ((path[n] != '/' && path[n] != '\0') || n >= sizeof part)
			continue;
		memcpy(part, path, n);
		part[n] = '\0';
		if (mkdir(part, 0755) == -1 && errno != EEXIST && errno != EROFS && errno != EACCES)
			fatal("cannot make the directory %s: %s", part, strerror(errno));
	}
}

/* A directory that only we may write and read. */
static int
asroot_own(const char *state, const char *name)
{
	char path[CONF_STRING + 16];
	struct stat st;

	snprintf(path, sizeof path, "%s/%s", state, name);
	if (mkdir(path, 0700) == -1 && errno != EEXIST)
		fatal("cannot make the directory %s: %s", path, strerror(errno));
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd == -1 || fstat(fd, &st) == -1)
		fatal("cannot open the directory %s: %s", path, strerror(errno));
	if (st.st_uid != geteuid() || (st.st_mode & 077) != 0)
		fatal("%s must belong to the user that spoold runs as, and be closed to others (mode 0700)", path);
	return fd;
}

/* The name of this state-dir, made once, at random. */
static void
asroot_name(const char *state)
{
	char path[CONF_STRING + 16], name[33];
	unsigned char random[16];

	snprintf(path, sizeof path, "%s/journal.name", state);
	randombytes_buf(random, sizeof random);
	sodium_bin2hex(name, sizeof name, random, sizeof random);
	ssize_t n = symlink(name, path) == 0 || errno == EEXIST ? readlink(path, name, sizeof name - 1) : -1;
	if (n == -1)
		fatal("cannot make %s: %s", path, strerror(errno));
	name[n] = '\0';
	flag_name(name);
}

void
asroot_directories(const struct conf *c)
{
	mode_t before = umask(022);

	asroot_make(c->run_dir);
	asroot_make(c->state_dir);
	journals = asroot_own(c->state_dir, "journal");
	caches = asroot_own(c->state_dir, "cache");
	asroot_name(c->state_dir);
	umask(before);
}

bool
grant_name_sound(const char *user)
{
	if (user[0] == '\0' || user[0] == '.')
		return false;
	for (const unsigned char *p = (const unsigned char *)user; *p != '\0'; p++)
		if (*p < 0x20 || *p == 0x7f || *p == '/')
			return false;
	return true;
}

const char *
grant_expand(char *path, size_t size, const char *pattern, const char *user, const char *home)
{
	size_t used = 0;

	path[0] = '\0';
	if (strncmp(pattern, "~/", 2) == 0) {
		if (home[0] != '/' || strlen(home) >= size)
			return "there is no home directory for ~/";
		memcpy(path, home, used = strlen(home));
		pattern++;
	}
	for (; *pattern != '\0'; pattern++) {
		const char *put = pattern;
		size_t n = 1;
		if (*pattern == '%') {
			pattern++;
			if (*pattern != 'u' && *pattern != '%')
				return "%u and %% are all that may follow a %";
			put = *pattern == 'u' ? user : "%";
			n = strlen(put);
		}
		if (n >= size - used)
			return "it is too long";
		memcpy(path + used, put, n);
		used += n;
	}
	path[used] = '\0';
	return path[0] == '/' ? NULL : "it does not start with / or ~/";
}

static int
refuse(const char *user, uint32_t *failure, uint32_t code, const char *why)
{
	log_begin(code == FAILURE_TEMPORARY ? LOG_ERR : LOG_WARNING, "refused");
	log_string("user", user);
	log_string("reason", why);
	log_end();
	*failure = code;
	return -1;
}

/* The account of a name, or of a number. 0, or -1 with *failure. */
static int
asroot_account(const struct passwd **pw, const char *user, const char *name, uid_t uid, uint32_t *failure)
{
	errno = 0;
	*pw = name != NULL ? getpwnam(name) : getpwuid(uid);
	if (*pw != NULL)
		return 0;
	if (errno == 0 || errno == ENOENT || errno == ESRCH)
		return refuse(user, failure, FAILURE_USER, name != NULL ? "no such account" : "no account has this uid");
	return refuse(user, failure, FAILURE_TEMPORARY, strerror(errno));
}

/* Unprivileged, all mail is our own user's. */
static int
own_account(const char *user, const struct account *a, struct grant *g, char *home, size_t size, uint32_t *failure)
{
	const struct passwd *pw = getpwuid(geteuid());
	const char *at = pw != NULL ? pw->pw_dir : getenv("HOME");

	if (a->has_uid && a->uid != geteuid())
		return refuse(user, failure, FAILURE_USER, "the mail of another uid, and spoold is not root");
	g->uid = geteuid();
	g->gid = getegid();
	string_copy(home, size, at != NULL ? at : "");
	return 0;
}

static int
asroot_identity(const struct conf *c, uint32_t store, const struct account *a, struct grant *g, char *home, size_t size,
    uint32_t *failure)
{
	const struct passwd *pw;
	char user[USER_SIZE];
	int found;

	string_copy(user, sizeof user, g->user);
	if (!privilege_is_root() && store == STORE_DB)
		return own_account(user, a, g, home, size, failure);
	if (store == STORE_DB && a->has_uid)
		found = asroot_account(&pw, user, NULL, a->uid, failure);
	else if (store == STORE_DB && c->virtual_user[0] != '\0')
		found = asroot_account(&pw, user, c->virtual_user, 0, failure);
	else
		found = asroot_account(&pw, user, user, 0, failure);
	if (found == -1)
		return -1;
	g->uid = pw->pw_uid;
	g->gid = pw->pw_gid;
	string_copy(home, size, pw->pw_dir);
	/* the name service may know the account under one spelling only: the mailbox goes by that */
	if (store == STORE_PAM && (!grant_name_sound(pw->pw_name) || !string_copy(g->user, sizeof g->user, pw->pw_name)))
		return refuse(user, failure, FAILURE_USER, "the name service gives it a name that cannot be part of a path");
	return 0;
}

/* What no configuration can allow. */
static int
identity_check(const struct conf *c, const struct grant *g, uint32_t *failure)
{
	if (!privilege_is_root())
		return g->uid == geteuid() ? 0 : refuse(g->user, failure, FAILURE_USER, "the mail of another uid, and spoold is not root");
	if (g->uid == 0 || g->gid == 0)
		return refuse(g->user, failure, FAILURE_USER, "uid 0 or gid 0");
	if (g->uid < c->min_uid)
		return refuse(g->user, failure, FAILURE_USER, "the uid is below min-uid");
	return 0;
}

/* Where the mail is: the record's path if it has one, else as configured. */
static int
grant_paths(const struct conf *c, const struct account *a, struct grant *g, const char *home, uint32_t *failure)
{
	const char *wrong = NULL;

	g->kind = a->kind;
	if (a->path[0] != '\0') {
		if (g->kind != STORE_MAILDIR)
			string_copy(g->mbox, sizeof g->mbox, a->path);
		if (g->kind != STORE_MBOX)
			string_copy(g->maildir, sizeof g->maildir, a->path);
		return 0;
	}
	if (g->kind != STORE_MAILDIR)
		wrong = grant_expand(g->mbox, sizeof g->mbox, c->mbox, g->user, home);
	if (wrong == NULL && g->kind != STORE_MBOX)
		wrong = grant_expand(g->maildir, sizeof g->maildir, c->maildir, g->user, home);
	return wrong == NULL ? 0 : refuse(g->user, failure, FAILURE_USER, wrong);
}

/* His own policy, if he has one that users may have. */
static void
grant_policy(const struct conf *c, const struct account *a, struct grant *g)
{
	g->server_copy = c->server_copy;
	if (!a->has_copy || a->server_copy == c->server_copy)
		return;
	if (conf_has(&c->server_copy_choice, (uint32_t)a->server_copy))
		g->server_copy = a->server_copy;
	else
		log_text(LOG_WARNING, "%s has the policy %s, which is not in server-copy-choice: %s holds", g->user,
		    server_copy_name(a->server_copy), server_copy_name(c->server_copy));
}

int
asroot_resolve(const struct conf *c, const char *user, uint32_t store, struct grant *g, uint32_t *failure)
{
	struct account a = { .kind = c->store };
	char home[PATH_SIZE];

	*g = (struct grant){ 0 };
	if (!grant_name_sound(user) || !string_copy(g->user, sizeof g->user, user))
		return refuse(user, failure, FAILURE_USER, "a name that cannot be part of a path");
	if (store == STORE_DB) {
		int found = account_find(c->db, user, &a);
		if (found == -1)
			return refuse(user, failure, FAILURE_TEMPORARY, "maildrops.db cannot be read");
		if (found == 0 || a.policy_only)
			return refuse(user, failure, FAILURE_USER, "no such user in maildrops.db");
		if (a.kind == STORE_AUTO && a.path[0] == '\0')
			a.kind = c->store;
	}
	if (asroot_identity(c, store, &a, g, home, sizeof home, failure) == -1 || identity_check(c, g, failure) == -1)
		return -1;
	if (store == STORE_PAM) {
		struct account own;
		/* what would not be read might say that his mail is to be kept */
		if (account_find(c->db, g->user, &own) == -1)
			return refuse(user, failure, FAILURE_TEMPORARY, "maildrops.db cannot be read");
		grant_policy(c, &own, g);
	} else
		grant_policy(c, &a, g);
	g->shared = !privilege_is_root() || (store != STORE_PAM && !a.has_uid && c->virtual_user[0] != '\0');
	if (store == STORE_PAM || (privilege_is_root() && !a.has_uid && c->virtual_user[0] == '\0'))
		string_copy(g->home, sizeof g->home, home);
	return grant_paths(c, &a, g, home, failure);
}

int
asroot_drop(const struct grant *g)
{
	if (chdir("/") == -1)
		return -1;
	umask(022);	/* a dotlock is there to be read; nothing else of a worker's has a mode of its own choice */
	if (!privilege_is_root())
		return g->uid == geteuid() ? 0 : -1;
	if (privilege_drop(g->uid, g->gid) == 0)
		return 0;
	log_text(LOG_ERR, "cannot become uid %u, gid %u for good: %s", (unsigned)g->uid, (unsigned)g->gid, strerror(errno));
	return -1;
}

void
asroot_hold(struct holding *h, const char *path, uint32_t kind)
{
	unsigned char hash[16];
	char hex[2 * sizeof hash + 1];

	string_copy(h->path, sizeof h->path, path);
	h->kind = kind;
	crypto_generichash(hash, sizeof hash, (const unsigned char *)path, strlen(path), NULL, 0);
	sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
	/* The uid is part of the name, so that a worker can name only files of its own user, whatever path it tells. */
	snprintf(h->key, sizeof h->key, "%u-%s", (unsigned)h->uid, hex);
}

static void
file_name(char name[static NAME_MAX + 1], const struct holding *h, const char *suffix)
{
	snprintf(name, NAME_MAX + 1, "%s.%s", h->key, suffix);
}

/*
 * A third name says which journal an mbox with this device and inode has, whatever its path and its owner are by then. A device may have another
 * number after a boot: so this is beside the key, and not instead of it. False if there is no such name.
 */
static bool
inode_name(char name[static INODE_SIZE], const struct holding *h)
{
	snprintf(name, INODE_SIZE, "%llx-%llx.inode", (unsigned long long)h->device, (unsigned long long)h->inode);
	return h->known && h->kind == MAILDROP_MBOX;
}

/*
 * Beside the journal, a symbolic link that leads nowhere says whose it is: made in one step, and no worker can write
 * it.
 */
static int
asroot_owner_note(const struct holding *h)
{
	char name[NAME_MAX + 1], inode[INODE_SIZE], note[PATH_SIZE + INODE_SIZE + 32], there[sizeof note];

	file_name(name, h, "owner");
	bool known = inode_name(inode, h);
	snprintf(note, sizeof note, "%u %u %s%s%s", (unsigned)h->gid, (unsigned)h->kind, known ? inode : "", known ? " " : "", h->path);
	if (symlinkat(note, journals, name) == 0)
		return 0;
	if (errno != EEXIST)
		return errno;
	ssize_t n = readlinkat(journals, name, there, sizeof there);
	if (n == (ssize_t)strlen(note) && memcmp(there, note, (size_t)n) == 0)
		return 0;
	return unlinkat(journals, name, 0) == 0 && symlinkat(note, journals, name) == 0 ? 0 : errno;
}

/* The file under state-dir/journal that is said to be the journal of this mbox. */
static bool
asroot_inode_read(const struct holding *h, char file[static NAME_MAX + 1])
{
	char name[INODE_SIZE];
	ssize_t n = inode_name(name, h) ? readlinkat(journals, name, file, NAME_MAX) : -1;

	file[n > 0 ? n : 0] = '\0';
	return n > 0 && strchr(file, '/') == NULL;
}

/* One that is there was left: had it a journal, nobody could have opened this mbox. */
static int
asroot_inode_write(const char *name, const char *file)
{
	char there[NAME_MAX + 1];
	ssize_t n = readlinkat(journals, name, there, sizeof there);

	if (n == (ssize_t)strlen(file) && memcmp(there, file, (size_t)n) == 0)
		return 0;
	if (n != -1 && unlinkat(journals, name, 0) == -1)
		return errno;
	return symlinkat(file, journals, name) == 0 ? 0 : errno;
}

static int
asroot_inode_note(const struct holding *h)
{
	char name[INODE_SIZE], file[NAME_MAX + 1];

	file_name(file, h, "journal");
	return inode_name(name, h) ? asroot_inode_write(name, file) : 0;
}

static int
asroot_journal_find(struct holding *h, int *fd)
{
	char name[NAME_MAX + 1];

	file_name(name, h, "journal");
	*fd = openat(journals, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (*fd == -1)
		return errno;
	h->journal = true;
	return 0;
}

static int
asroot_journal_make(struct holding *h, int *fd)
{
	char name[NAME_MAX + 1];
	int error = asroot_owner_note(h);

	if (error == 0)
		error = asroot_inode_note(h);
	if (error != 0)
		return error;
	file_name(name, h, "journal");
	*fd = openat(journals, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (*fd == -1)
		return errno;
	h->journal = true;
	return fsync(journals) == 0 ? 0 : errno;
}

/* What the note beside a journal says. */
static bool
asroot_owner_read(const char *key, struct leftover *l)
{
	char name[NAME_MAX + 1], note[PATH_SIZE + INODE_SIZE + 32];
	unsigned uid, gid, kind;
	int at = 0, end = 0;

	snprintf(name, sizeof name, "%.63s.owner", key);
	ssize_t n = readlinkat(journals, name, note, sizeof note - 1);
	if (n <= 0 || sscanf(key, "%u-", &uid) != 1)
		return false;
	note[n] = '\0';
	if (sscanf(note, "%u %u %n", &gid, &kind, &at) != 2 || at == 0 || kind >= MAILDROP_COUNT)
		return false;
	l->inode[0] = '\0';
	if (note[at] != '/' && sscanf(note + at, "%63[^/ ] %n", l->inode, &end) == 1)
		at += end;
	if (note[at] != '/')
		return false;
	l->uid = uid;
	l->gid = gid;
	l->kind = kind;
	return string_copy(l->path, sizeof l->path, note + at);
}

/*
 * The journal has this name no more; if it is kept as `aside`, whoever opens the mbox that it was made for still finds it: that one may
 * have another path by now, where this path has another file.
 */
static void
asroot_journal_gone(struct holding *h, const char *aside)
{
	char name[NAME_MAX + 1], ours[INODE_SIZE];
	struct leftover was;

	if (asroot_owner_read(h->key, &was) && was.inode[0] != '\0') {
		if (aside == NULL || (inode_name(ours, h) && strcmp(ours, was.inode) == 0))
			unlinkat(journals, was.inode, 0);
		else if (asroot_inode_write(was.inode, aside) != 0)
			log_text(LOG_ERR, "journal/%s under state-dir cannot be written", was.inode);
	}
	file_name(name, h, "owner");
	unlinkat(journals, name, 0);
	h->journal = false;
	if (h->kept != -1)
		close(h->kept);
	h->kept = -1;
	locked_forget(h->key);
}

static int
asroot_journal_drop(struct holding *h)
{
	char name[NAME_MAX + 1];

	file_name(name, h, "journal");
	if (unlinkat(journals, name, 0) == -1 && errno != ENOENT)
		return errno;
	asroot_journal_gone(h, NULL);
	return 0;
}

static int
asroot_journal_set_aside(struct holding *h)
{
	char name[NAME_MAX + 1], aside[NAME_MAX + 1];

	file_name(name, h, "journal");
	if (h->aside)
		return EPERM;
	/* two in one second are not to be one */
	snprintf(aside, sizeof aside, "%s.aside-%lld-%08lx", h->key, (long long)time(NULL), (unsigned long)randombytes_random());
	if (renameat(journals, name, journals, aside) == -1)
		return errno;
	log_text(LOG_ERR, "the journal of %s was not acted on and is kept as journal/%s under state-dir", h->path, aside);
	asroot_journal_gone(h, aside);
	h->aside = true;
	return 0;
}

/* Is there a file of this name beside the journals, or can that not be known? */
static bool
asroot_journal_is(const char *file, struct stat *st)
{
	*st = (struct stat){ 0 };
	return fstatat(journals, file, st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

bool
asroot_journal_may_be(const struct holding *h)
{
	char file[NAME_MAX + 1];
	struct stat st;

	file_name(file, h, "journal");
	return h->key[0] == '\0' || asroot_journal_is(file, &st) || (asroot_inode_read(h, file) && asroot_journal_is(file, &st));
}

static void
key_of(char key[static KEY_SIZE], const char *file)
{
	snprintf(key, KEY_SIZE, "%.*s", (int)strcspn(file, "."), file);
}

/* The mbox has been renamed since: its journal gets the name that goes with its path now. 0 or an errno. */
static int
asroot_journal_rename(struct holding *h, const char *from)
{
	char key[KEY_SIZE], name[NAME_MAX + 1];
	int error = asroot_owner_note(h);

	if (error != 0)
		return error;
	file_name(name, h, "journal");
	if (renameat(journals, from, journals, name) == -1)
		return errno;
	log_text(LOG_NOTICE, "%s: its journal was made when it had another path: journal/%s under state-dir, now journal/%s", h->path, from, name);
	error = asroot_inode_note(h);
	key_of(key, from);
	snprintf(name, sizeof name, "%s.owner", key);
	if (strstr(from, ".aside-") == NULL && strcmp(key, h->key) != 0)
		unlinkat(journals, name, 0);
	return fsync(journals) == 0 ? error : errno;
}

#define BORN_LATER_S 600	/* than a journal was written; clocks may differ by so much */

uint32_t
asroot_journal_left(struct holding *h, int64_t born)
{
	char file[NAME_MAX + 1], key[KEY_SIZE];
	struct leftover was;
	struct stat st;
	unsigned uid;

	file_name(file, h, "journal");
	if (h->key[0] == '\0' || asroot_journal_is(file, &st))
		return JOURNAL_OURS;
	/* a file that was made later has the inode of one that is gone */
	if (!asroot_inode_read(h, file) || !asroot_journal_is(file, &st) || (st.st_mtime != 0 && born > st.st_mtime + BORN_LATER_S))
		return JOURNAL_NONE;
	if (sscanf(file, "%u-", &uid) == 1 && uid == h->uid && asroot_journal_rename(h, file) == 0)
		return JOURNAL_OURS;
	key_of(key, file);
	bool known = asroot_owner_read(key, &was);
	log_text(LOG_ERR, "%s is not served: an UPDATE of it was cut off when it was %s of uid %.*s (journal/%s under state-dir). "
	    "Give it that owner and path again, run spoolctl recover, and then make it what it is to be", h->path,
	    known ? was.path : "another file", (int)strcspn(key, "-"), key, file);
	return JOURNAL_OTHERS;
}

static int
asroot_cache(struct holding *h, bool drop, int *fd)
{
	char name[NAME_MAX + 1];

	file_name(name, h, "cache");
	if (drop)
		return unlinkat(caches, name, 0) == 0 || errno == ENOENT ? 0 : errno;
	*fd = openat(caches, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return *fd != -1 ? 0 : errno;
}

/* The journal or the cache as it is, for reading only. */
static int
asroot_look(const struct holding *h, uint32_t what, int *fd)
{
	char name[NAME_MAX + 1];
	bool journal = what == PRIVILEGED_JOURNAL_LOOK;

	file_name(name, h, journal ? "journal" : "cache");
	*fd = openat(journal ? journals : caches, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return *fd != -1 ? 0 : errno;
}

/*
 * The directory of the mbox, in which we may make a file with root's rights: only if no user can have made any part of
 * its path, so that nobody can lead us elsewhere. -1 with errno. *name is the mbox's own.
 */
static int
asroot_spool(const struct holding *h, const char **name)
{
	char part[PATH_SIZE];
	struct stat st;
	const char *slash = strrchr(h->mbox, '/');

	if (!privilege_is_root() || slash == NULL || slash == h->mbox || slash[1] == '\0') {
		errno = EACCES;
		return -1;
	}
	*name = slash + 1;
	for (const char *end = strchr(h->mbox + 1, '/'); end != NULL; end = strchr(end + 1, '/')) {
		memcpy(part, h->mbox, (size_t)(end - h->mbox));
		part[end - h->mbox] = '\0';
		if (lstat(part, &st) == -1)
			return -1;
		if (st.st_uid != 0) {
			errno = EACCES;
			return -1;
		}
	}
	return open(part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int
asroot_dotlock_make(struct holding *h, pid_t worker)
{
	char name[NAME_MAX + 1];
	const char *mailbox;
	struct stat made;
	int directory = asroot_spool(h, &mailbox), error = errno;

	if (directory == -1)
		return error;
	if (snprintf(name, sizeof name, "%s.lock", mailbox) >= (int)sizeof name)
		error = ENAMETOOLONG;
	else
		error = dotlock_make(directory, name, worker, &made);
	close(directory);
	if (error != 0)
		return error;
	h->dotlock = true;
	h->dotlock_device = made.st_dev;
	h->dotlock_inode = made.st_ino;
	return 0;
}

static int
asroot_dotlock_remove(struct holding *h)
{
	char name[NAME_MAX + 1];
	const char *mailbox;
	int directory;

	if (!h->dotlock)
		return ENOENT;
	h->dotlock = false;
	directory = asroot_spool(h, &mailbox);
	if (directory == -1)
		return errno;
	snprintf(name, sizeof name, "%s.lock", mailbox);
	dotlock_remove(directory, name, h->dotlock_device, h->dotlock_inode);
	close(directory);
	return 0;
}

static int
asroot_lockfile(struct holding *h, bool remove_it, int *fd)
{
	char name[NAME_MAX + 1];
	const char *mailbox;
	int error = 0, directory = asroot_spool(h, &mailbox);

	if (directory == -1)
		return errno;
	if (snprintf(name, sizeof name, ".%s.postern-lock", mailbox) >= (int)sizeof name)
		error = ENAMETOOLONG;
	else if (remove_it) {
		/*
		 * the worker holds the lock of it, or says so: the file is its own user's alone, and nobody else's
		 * lock depends on it
		 */
		if (unlinkat(directory, name, 0) == -1)
			error = errno;
	} else {
		*fd = openat(directory, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
		if (*fd == -1)
			error = errno;
	}
	close(directory);
	return error;
}

int
asroot_privileged(struct holding *h, uint32_t what, pid_t worker, int *fd)
{
	int error = EPERM;

	*fd = -1;
	if (!h->resolved)
		return EPERM;
	if (what == PRIVILEGED_DOTLOCK_MAKE)
		return h->dotlock ? EEXIST : asroot_dotlock_make(h, worker);
	if (what == PRIVILEGED_DOTLOCK_REMOVE)
		return asroot_dotlock_remove(h);
	if (what == PRIVILEGED_LOCKFILE_OPEN)
		error = asroot_lockfile(h, false, fd);
	else if (what == PRIVILEGED_LOCKFILE_REMOVE)
		error = asroot_lockfile(h, true, fd);
	else if (h->key[0] == '\0')
		error = EPERM;
	else if (what == PRIVILEGED_JOURNAL_FIND)
		error = asroot_journal_find(h, fd);
	else if (what == PRIVILEGED_JOURNAL_MAKE)
		error = asroot_journal_make(h, fd);
	else if (what == PRIVILEGED_JOURNAL_DROP)
		error = asroot_journal_drop(h);
	else if (what == PRIVILEGED_JOURNAL_SET_ASIDE)
		error = asroot_journal_set_aside(h);
	else if (what == PRIVILEGED_JOURNAL_LOOK || what == PRIVILEGED_CACHE_LOOK)
		error = asroot_look(h, what, fd);
	else if (what == PRIVILEGED_KEEP)
		error = locked_pair(&h->kept, fd);
	else if (what == PRIVILEGED_KEPT)
		error = locked_left(h->key, fd);
	else if (what == PRIVILEGED_CACHE_OPEN || what == PRIVILEGED_CACHE_DROP)
		error = asroot_cache(h, what == PRIVILEGED_CACHE_DROP, fd);
	if (error != 0 && *fd != -1) {
		close(*fd);
		*fd = -1;
	}
	return error;
}

void
privileged_answer(struct message *m, uint32_t what, int error, int fd)
{
	message_start(m, fd != -1 ? MESSAGE_HANDED : MESSAGE_DONE);
	if (fd != -1) {
		m->body.handed.what = what;
		m->fds[0] = fd;
	} else {
		m->body.done.what = what;
		m->body.done.error = error;
	}
}

void
asroot_release(struct holding *h)
{
	if (h->journal && h->kept != -1)
		locked_leave(h->key, h->kept);
	else if (h->kept != -1)
		close(h->kept);
	h->kept = -1;
	/* with an UPDATE unfinished it still keeps deliverers off: the recovery finds its holder dead, and takes it over */
	if (h->dotlock && !h->journal)
		asroot_dotlock_remove(h);
}

#define OWNER_STALE_S 3600

/* A note without a journal was left between the one and the other. Another spoold may be about to make the journal to a young one. */
static void
asroot_tidy(const char *note)
{
	size_t n = strlen(note), key = n > 6 ? n - 6 : 0;
	char file[NAME_MAX + 1];
	struct stat st;
	ssize_t length;

	if (strcmp(note + key, ".owner") == 0)
		snprintf(file, sizeof file, "%.*s.journal", (int)(key < KEY_SIZE ? key : KEY_SIZE), note);
	else if (strcmp(note + key, ".inode") == 0 && (length = readlinkat(journals, note, file, sizeof file - 1)) > 0)
		file[length] = '\0';
	else
		return;
	if (fstatat(journals, note, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_mtime <= time(NULL) - OWNER_STALE_S && !asroot_journal_is(file, &st))
		unlinkat(journals, note, 0);
}

uint32_t
asroot_leftovers(void (*each)(const struct leftover *, void *), void *data)
{
	int fd = openat(journals, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd != -1 ? fdopendir(fd) : NULL;
	const struct dirent *e;
	uint32_t count = 0;

	if (d == NULL) {
		log_text(LOG_ERR, "cannot list the journals under state-dir: %s", strerror(errno));
		if (fd != -1)
			close(fd);
		return 0;
	}
	while ((e = readdir(d)) != NULL) {
		char key[KEY_SIZE];
		struct leftover l;
		size_t n = strlen(e->d_name);
		asroot_tidy(e->d_name);
		if (n < 9 || n - 8 >= sizeof key || strcmp(e->d_name + n - 8, ".journal") != 0)
			continue;
		memcpy(key, e->d_name, n - 8);
		key[n - 8] = '\0';
		count++;
		if (asroot_owner_read(key, &l))
			each(&l, data);
		else
			log_text(LOG_ERR, "journal/%s under state-dir: it is not known whose it is; left alone", e->d_name);
	}
	closedir(d);
	return count;
}
