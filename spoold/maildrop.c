/* A maildrop as a session sees it. */
#include "maildrop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ask.h"
#include "expire.h"
#include "log.h"
#include "system.h"
#include "view.h"

#define KEPT_MOST	(16u << 20)	/* octets that a worker that lingers keeps at most */

static uint32_t
failure_of(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
	case EROFS:
		return FAILURE_PERMISSION;
	case EISDIR:
	case ENOTDIR:
	case ELOOP:
	case ENXIO:
		return FAILURE_KIND;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return FAILURE_FULL;
	default:
		return FAILURE_TEMPORARY;
	}
}

static int
failed(struct maildrop *m, uint32_t failure, const char *what, const char *reason)
{
	m->failure = failure;
	if (m->kept->again && !m->claimed)
		return -1;	/* another worker will look, and say what it finds */
	log_begin(failure == FAILURE_TEMPORARY ? LOG_ERR : LOG_WARNING, "failed");
	log_string("user", m->grant->user);
	if (m->path[0] != '\0')
		log_string("maildrop", m->path);
	if (what != NULL)
		log_string("at", what);
	log_string("reason", reason);
	log_end();
	return -1;
}

int
maildrop_fail(struct maildrop *m, const char *what)
{
	return failed(m, failure_of(errno), what, strerror(errno));
}

int
maildrop_fail_archive(struct maildrop *m)
{
	uint32_t failure = failure_of(errno);

	return failed(m, failure == FAILURE_PERMISSION || failure == FAILURE_KIND ? FAILURE_ARCHIVE : failure, "archive", strerror(errno));
}

int
maildrop_refuse(struct maildrop *m, uint32_t failure, const char *reason)
{
	return failed(m, failure, NULL, reason);
}

/* With the user's rights: a directory in the Maildir's place makes it one. */
const struct mailstore *
maildrop_choose(const struct grant *g)
{
	struct stat st;
	size_t n = strlen(g->maildir);

	if (g->kind == STORE_MBOX)
		return &store_mbox;
	if (g->kind == STORE_MAILDIR || (stat(g->maildir, &st) == 0 && S_ISDIR(st.st_mode)))
		return &store_maildir;
	return g->mbox[0] == '\0' || (strcmp(g->mbox, g->maildir) == 0 && g->maildir[n - 1] == '/') ? &store_maildir : &store_mbox;
}

int
maildrop_open(struct maildrop *m, const struct conf *c, const struct grant *g, bool rebuild, struct kept *k)
{
	*m = (struct maildrop){ .conf = c, .grant = g, .kept = k, .catalogue = -1, .cache_fd = -1, .reader = -1, .rebuild = rebuild };
	m->store = maildrop_choose(g);
	if (g->server_copy == COPY_MARK_READ && m->store->kind == MAILDROP_MBOX)
		log_text(LOG_WARNING, "server-copy = mark-read: nothing in this mbox is marked or removed; that is for a Maildir");
	string_copy(m->path, sizeof m->path, m->store->kind == MAILDROP_MBOX ? g->mbox : g->maildir);
	return m->store->open(m);
}

/* What the kernel calls it: one name, however it was reached. */
static void
canonical(struct maildrop *m, int fd)
{
	char link[64], path[PATH_SIZE];

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n <= 0 || n == (ssize_t)sizeof path - 1 || path[0] != '/')
		return;
	path[n] = '\0';
	string_copy(m->path, sizeof m->path, path);
}

/* When the file was made; 0 if that cannot be known. */
static int64_t
born_at(int fd)
{
	struct statx st;

	return statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &st) == 0 && (st.stx_mask & STATX_BTIME) != 0 ? st.stx_btime.tv_sec : 0;
}

int
maildrop_ready(struct maildrop *m, int fd, int directory, dev_t device, ino_t inode)
{
	canonical(m, fd);
	if (!m->kept->again)
		ask_maildrop(m->path, m->store->kind);
	else if (strcmp(m->path, m->kept->path) != 0 || m->store->kind != m->kept->kind)
		return 1;
	uint32_t left = ask_claim(device, inode, m->store->kind == MAILDROP_MBOX ? born_at(fd) : 0);
	m->journal = left != JOURNAL_NONE;
	/* then the parent has kept the session, for one that was not here when it was made */
	if (m->kept->again && m->journal)
		return 1;
	if (left == JOURNAL_OTHERS)
		return maildrop_refuse(m, FAILURE_TEMPORARY, "an UPDATE of it was cut off when it was another uid's, and is to be finished first");
	m->claimed = true;
	m->uidl = uidl_open(m->conf->uidl_format, m->store->kind, directory);
	if (m->uidl == NULL)
		return maildrop_fail(m, "unique-ids");
	if (m->rebuild)
		ask_privileged(PRIVILEGED_CACHE_DROP);
	return 0;
}

struct cache *
maildrop_cache(struct maildrop *m)
{
	if (m->cache != NULL)
		return m->cache;
	m->cache_fd = ask_file(PRIVILEGED_CACHE_OPEN);
	if (m->cache_fd == -1)
		log_text(LOG_WARNING, "no cache: %s", strerror(errno));
	m->cache = cache_open(m->cache_fd, m->store->kind, uidl_context(m->uidl));
	return m->cache;
}

bool
maildrop_unchanged(struct maildrop *m)
{
	struct kept *k = m->kept;
	int parts = m->store->kind == MAILDROP_MBOX ? 1 : 2;

	if (k->inventory == NULL || k->context != uidl_context(m->uidl))
		return false;
	for (int i = 0; i < parts; i++)
		if (stamp_compare(&k->seen[i], &m->seen[i]) != STAMP_SAME)
			return false;
	m->inventory = k->inventory;
	k->inventory = NULL;
	return true;
}

int
maildrop_journal(const struct maildrop *m)
{
	if (m->journal)
		return ask_file(PRIVILEGED_JOURNAL_FIND);
	errno = ENOENT;
	return -1;
}

bool
maildrop_may_linger(const struct maildrop *m)
{
	/* the archive may be outside the maildrop, where the cell does not reach */
	return !m->missing && !m->rebuild && m->grant->server_copy != COPY_ARCHIVE;
}

uint64_t
maildrop_close(struct maildrop *m)
{
	struct kept *k = m->kept;
	uint64_t octets = 0;

	k->again = true;
	k->kind = m->store->kind;
	string_copy(k->path, sizeof k->path, m->path);
	inventory_free(k->inventory);
	k->inventory = NULL;
	if (m->inventory != NULL && (octets = inventory_keep(m->inventory, KEPT_MOST)) > 0) {
		k->inventory = m->inventory;
		memcpy(k->seen, m->seen, sizeof k->seen);
		k->context = uidl_context(m->uidl);
	} else
		inventory_free(m->inventory);
	m->store->close(m);
	cache_close(m->cache);
	if (m->cache_fd != -1)
		close(m->cache_fd);
	uidl_close(m->uidl);
	return octets;
}

int
maildrop_scan(struct maildrop *m)
{
	if (m->missing)
		m->inventory = inventory_new();
	else if (m->store->scan(m) == -1)
		return -1;
	if (m->inventory == NULL || (m->catalogue = inventory_publish(m->inventory)) == -1)
		return maildrop_fail(m, "catalogue");
	if (m->recent && view_make(m) == -1)
		return maildrop_fail(m, "recent");
	return 0;
}

uint32_t
maildrop_count(const struct maildrop *m)
{
	return inventory_count(m->inventory);
}

uint32_t
maildrop_shown(const struct maildrop *m)
{
	return m->view != NULL ? view_count(m->view) : maildrop_count(m);
}

uint64_t
maildrop_octets(const struct maildrop *m)
{
	return m->view != NULL ? view_octets(m->view) : inventory_octets(m->inventory);
}

int
maildrop_fetch(struct maildrop *m, uint32_t number, struct place *p)
{
	if (number == 0 || number > maildrop_shown(m)) {
		m->failure = FAILURE_VANISHED;
		return -1;
	}
	if (m->view != NULL)
		return view_fetch(m, number - 1, p);
	return m->store->fetch(m, number - 1, p);
}

void
maildrop_doubt(struct maildrop *m, uint32_t number)
{
	uint32_t index = number - 1;

	if (number == 0 || number > maildrop_shown(m) || m->store->doubt == NULL)
		return;
	if (m->view == NULL || view_index(m->view, number - 1, &index))
		m->store->doubt(m, index);
}

/*
 * What server-copy makes of what the client did. A message that it retrieved or deleted is done with, for all policies
 * but as-client-says. One who may not delete takes nothing out of a maildrop.
 */
static uint8_t
mark_for(int server_copy, uint8_t mark, bool no_delete)
{
	if (server_copy == COPY_AS_CLIENT_SAYS || mark == 0)
		return mark;
	if (server_copy == COPY_MARK_READ)
		return MARK_RETRIEVED;
	if (server_copy == COPY_KEEP || no_delete)
		return mark & MARK_RETRIEVED;
	return MARK_DELETED;
}

/* As the client made them, or a copy by the policy, in `count` octets of memory that are the caller's to unmap. */
static uint8_t *
marks_map(const struct maildrop *m, int marks, uint32_t count, bool no_delete)
{
	uint8_t *set = mmap(NULL, count, PROT_READ | PROT_WRITE, MAP_PRIVATE, marks, 0);

	for (uint32_t i = 0; set != MAP_FAILED && m->grant->server_copy != COPY_AS_CLIENT_SAYS && i < count; i++)
		if (set[i] != 0)
			set[i] = mark_for(m->grant->server_copy, set[i], no_delete);
	return set;
}

/*
 * `all` is what is to become of every message of the maildrop; what has expired comes to it. If that is all there is to
 * remove, nobody waits for it: it may fail.
 */
static int
update_all(struct maildrop *m, uint8_t *all, bool no_delete, struct tally *t)
{
	uint32_t shown = maildrop_shown(m);
	struct expired e = { 0 };
	uint8_t asked = 0;
	int result = 0;

	for (uint32_t i = 0; i < maildrop_count(m); i++)
		asked |= all[i];
	if (no_delete && (asked & MARK_DELETED) != 0)
		return maildrop_refuse(m, FAILURE_PERMISSION, "this login may not delete");
	if (!no_delete)
		expire_mark(m, all, &e);
	if (asked != 0 || e.count > 0)
		result = m->store->update(m, all, t);
	if (m->view != NULL)
		t->remain = shown - (result == 0 ? view_deleted(m->view, all) : 0);
	if (result == 0) {
		t->expired = e.count < t->deleted ? e.count : t->deleted;
		t->deleted -= t->expired;
	}
	if (result == 0 || t->deleted > 0)
		expire_log(m, &e, result == 0);
	if (result == -1 && e.count > 0 && (asked & MARK_DELETED) == 0) {
		*t = (struct tally){ .remain = shown };
		result = 0;
	}
	expire_forget(&e);
	return result;
}

/*
 * The order of an UPDATE: marks that nobody can change any more, then the store, which makes it durable; only
 * then is it told.
 */
int
maildrop_update(struct maildrop *m, int marks, uint32_t count, bool no_delete, struct tally *t)
{
	uint8_t *set, *all;
	int result;

	*t = (struct tally){ .remain = maildrop_shown(m) };
	if (count != maildrop_shown(m) || !sealed_is(marks, count, NULL)) {
		errno = EPROTO;
		return maildrop_fail(m, "marks");
	}
	if (count == 0)
		return 0;
	set = marks_map(m, marks, count, no_delete);
	if (set == MAP_FAILED)
		return maildrop_fail(m, "marks");
	if (m->view == NULL)
		result = update_all(m, set, no_delete, t);
	else if ((all = calloc((size_t)maildrop_count(m) + 1, 1)) == NULL)
		result = maildrop_fail(m, "marks");
	else {
		view_marks(m->view, set, all);
		result = update_all(m, all, no_delete, t);
		free(all);
	}
	munmap(set, count);
	return result;
}

void
maildrop_expire(struct maildrop *m, bool no_delete, struct tally *t)
{
	uint8_t *all;

	*t = (struct tally){ .remain = maildrop_shown(m) };
	if (m->conf->expire == 0 || !m->expires || no_delete || (all = calloc((size_t)maildrop_count(m) + 1, 1)) == NULL)
		return;
	(void)update_all(m, all, false, t);
	free(all);
}

uint32_t
maildrop_stays(const struct maildrop *m, bool no_delete)
{
	int copy = m->grant->server_copy;

	if (!no_delete && (copy == COPY_ARCHIVE || copy == COPY_DELETE))
		return 0;
	return m->conf->expire > 0 ? (uint32_t)m->conf->expire : EXPIRE_NEVER;
}
