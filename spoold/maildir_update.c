/*
 * The UPDATE of a Maildir.
 *
 * A message in new/ that was retrieved and not deleted moves to cur/ with ":2,": a mail reader has seen that it
 * exists, and nobody has said that a person read it. What was not retrieved stays in new/.
 *
 * Deleting one message is one unlink. Several are listed in a journal, which is synced; then they move to tmp/, where
 * no reader looks, and the directories are synced: now they are gone. The files themselves are removed after the
 * client has been answered. If a move fails, those before it are undone; if the process is killed, whoever opens the
 * maildrop next carries the list out. With server-copy = archive they move to the folder .Archive instead, and stay.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "ask.h"
#include "log.h"
#include "maildir.h"
#include "system.h"

#define TMP_STALE_S (36 * 3600)
#define ARCHIVE_TWINS 1000
#define DEFER_MS 1000		/* so long an UPDATE moves files before it answers */

/* Something that is done to a message's file. 0; 1: it is not there; -1 with errno. */
struct act {
	int (*on)(struct maildir *d, const char *name);
	bool dirty[PART_COUNT];		/* what it has changed */
	int64_t deadline;		/* clock_ms(); ETIME after it; 0: none */
	size_t reached;			/* with ETIME: all before this octet of the names is done */
};

static int
act_once(struct maildir *d, struct act *a, const char *name, struct intent *missing)
{
	int result = a->on(d, name);

	if (result == 0)
		a->dirty[name[0] == 'n' ? PART_NEW : PART_CUR] = true;
	if (result == 1)
		result = intent_add(missing, name, strlen(name));
	return result;
}

/*
 * Acts on every message of the list, wherever it is now. Those that are not where they were are looked for together,
 * so that a reader that renames all of them costs a listing and not one each; who is not in a listing that was made
 * after he was missed is gone. 0, or -1 with errno.
 */
static int
act_on_all(struct maildir *d, struct act *a, const struct intent *list)
{
	struct intent missing = { 0 }, next;
	int result = 0;

	uint32_t done = 0;
	for (const char *p = list->names; result == 0 && p < list->names + list->length; p += strlen(p) + 1) {
		result = act_once(d, a, p, &missing);
		if (result == 0 && a->deadline != 0 && ++done % 64 == 0 && clock_ms() > a->deadline) {
			/* who was not where he was is still to be looked for: then it begins anew */
			a->reached = missing.count == 0 ? (size_t)(p - list->names) + strlen(p) + 1 : 0;
			errno = ETIME;
			result = -1;
		}
	}
	for (int tries = 0; result == 0 && missing.count > 0; tries++) {
		next = missing;
		missing = (struct intent){ 0 };
		result = maildir_list(d);
		for (const char *p = next.names; result == 0 && p < next.names + next.length; p += strlen(p) + 1) {
			const struct listing_entry *e = listing_find(&d->listing, p + PART_PREFIX, listing_base(p + PART_PREFIX, strlen(p) - PART_PREFIX));
			if (e != NULL)
				result = act_once(d, a, listing_name(&d->listing, e), &missing);
		}
		int saved = errno;
		intent_free(&next);
		errno = saved;
		if (result == 0 && tries == 8) {
			errno = EAGAIN;
			result = -1;
		}
	}
	int saved = errno;
	intent_free(&missing);
	errno = saved;
	return result;
}

static int
act_remove(struct maildir *d, const char *name)
{
	/* some filesystems need room to remove, and find it at the second try */
	if (unlinkat(d->root, name, 0) == 0 || (errno != ENOENT && unlinkat(d->root, name, 0) == 0))
		return 0;
	return errno == ENOENT ? 1 : -1;
}

static int
sync_parts(const struct maildir *d, const struct act *a)
{
	if (d->archive != -1 && fsync(d->archive) == -1)
		return -1;
	for (int i = 0; i < PART_COUNT; i++)
		if (a->dirty[i] && d->part[i] != -1 && fsync(d->part[i]) == -1)
			return -1;
	return 0;
}

/* Never over another file. 0, or -1 with errno. */
static int
rename_free(int root, const char *from, const char *to)
{
	struct stat st;

	if (renameat2(root, from, root, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL)
		return -1;
	/* a filesystem that does not know NOREPLACE */
	if (fstatat(root, to, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		errno = EEXIST;
		return -1;
	}
	return renameat(root, from, root, to);
}

/* Moves a message, which is accounted for before: there may be no memory for that afterwards. 0, or -1 with errno. */
static int
move_counted(struct maildir *d, const char *name, const char *to)
{
	size_t length = d->moved.length, length_as = d->moved_as.length;
	uint32_t count = d->moved.count, count_as = d->moved_as.count;

	if ((d->decided || intent_add(&d->moved, name, strlen(name)) == 0) && intent_add(&d->moved_as, to, strlen(to)) == 0 &&
	    rename_free(d->root, name, to) == 0)
		return 0;
	d->moved.length = length;
	d->moved_as.length = length_as;
	d->moved.count = count;
	d->moved_as.count = count_as;
	return -1;
}

/*
 * Moves a message to tmp/, under a name of our own: by its own it may still be there, if who delivers it has linked it
 * to new/ just now.
 */
static int
act_hide(struct maildir *d, const char *name)
{
	char to[sizeof HIDDEN + SESSION_ID_SIZE + 16];

	snprintf(to, sizeof to, HIDDEN "%s.%u", d->id, (unsigned)d->hidden++);
	if (move_counted(d, name, to) == 0)
		return 0;
	return errno == ENOENT ? 1 : -1;
}

/* Moves a message to the archive. A name that is taken there is another message's. */
static int
act_archive(struct maildir *d, const char *name)
{
	char to[sizeof ARCHIVE_CUR + NAME_MAX];
	int result = -1;

	errno = EEXIST;
	for (unsigned again = 0; result == -1 && errno == EEXIST && again < ARCHIVE_TWINS; again++)
		if (archive_name(to, name, again) == -1 || (result = move_counted(d, name, to)) == -1)
			continue;
	if (result == 0)
		return 0;
	return errno == ENOENT ? 1 : -1;
}

/* How messages go: to the archive; else to tmp/, or, if there is none, at once. */
static int
(*way_out(const struct maildir *d))(struct maildir *, const char *)
{
	if (d->archive != -1)
		return act_archive;
	return faccessat(d->root, "tmp", F_OK, AT_SYMLINK_NOFOLLOW) == 0 ? act_hide : act_remove;
}

/* Carries out what an UPDATE that was cut off had begun. */
static int
intent_carry_out(struct maildir *d, const struct intent *i)
{
	struct act a = { .dirty = { true, true } };

	if (i->kind == INTENT_ARCHIVES && (d->archive = archive_folder(d->root)) == -1)
		return -1;
	a.on = way_out(d);
	if (act_on_all(d, &a, i) == -1 || sync_parts(d, &a) == -1)
		return -1;
	const struct intent *to = &d->moved_as;
	for (const char *p = to->names; d->archive == -1 && p < to->names + to->length; p += strlen(p) + 1)
		if (intent_add(&d->left, p, strlen(p)) == -1)
			return -1;
	return 0;
}

/* From here on it is this session's own UPDATE that is kept account of. */
static void
intent_carried_out(struct maildir *d)
{
	if (d->archive != -1)
		close(d->archive);
	d->archive = -1;
	intent_free(&d->moved);
	intent_free(&d->moved_as);
}

int
maildir_recover(struct maildrop *m, struct maildir *d, int journal)
{
	struct intent i;
	enum intent_state state = intent_read(&i, journal, d->root);
	int result = state == INTENT_WHOLE ? intent_carry_out(d, &i) : state == INTENT_FAILED ? -1 : 0, saved = errno;

	intent_carried_out(d);
	log_begin(state == INTENT_FOREIGN || result == -1 ? LOG_ERR : LOG_NOTICE, "recover");
	log_string("user", m->grant->user);
	log_string("maildrop", m->path);
	log_string("result", result == -1 ? "failed" : state == INTENT_FOREIGN ? "foreign" : state == INTENT_WHOLE ? "finished" : "nothing");
	if (state == INTENT_WHOLE)
		log_number("messages", i.count);
	log_end();
	intent_free(&i);
	errno = saved;
	if (result == -1)
		return maildrop_fail(m, "recover");
	int error = ask_privileged(state == INTENT_FOREIGN ? PRIVILEGED_JOURNAL_SET_ASIDE : PRIVILEGED_JOURNAL_DROP);
	if (error == 0)
		return 0;
	errno = error;
	return maildrop_fail(m, "journal");
}

/* Everything that is marked, by the names it had when it was scanned. 0, or -1 with errno. */
static int
marked_names(struct maildrop *m, const uint8_t *marks, struct intent *list)
{
	struct inventory_message im;

	for (uint32_t i = 0; i < maildrop_count(m); i++)
		if ((marks[i] & MARK_DELETED) != 0 &&
		    (inventory_get(m->inventory, i, &im) == -1 || intent_add(list, im.name, im.name_length) == -1))
			return -1;
	return 0;
}

/* Puts back what was moved. False: not all could be. */
static bool
unhide(struct maildir *d)
{
	const char *as = d->moved_as.names;
	bool all = true;

	for (const char *p = d->moved.names; d->moved.count > 0 && p < d->moved.names + d->moved.length;
	    p += strlen(p) + 1, as += strlen(as) + 1)
		if (rename_free(d->root, as, p) == -1)
			all = false;
	intent_free(&d->moved);
	intent_free(&d->moved_as);
	return all;
}

/* All of the list goes, or none. 0, or -1 with errno; *decided: there is no way back, by time or because not all could be put back. */
static int
hide_all(struct maildir *d, struct act *a, const struct intent *list, bool *decided)
{
	a->on = way_out(d);
	int result = act_on_all(d, a, list);
	if (result == 0)
		result = sync_parts(d, a);
	*decided = result == -1 && errno == ETIME;
	if (result == -1 && !*decided) {
		int saved = errno;
		*decided = !unhide(d) || (a->on == act_remove && (a->dirty[PART_NEW] || a->dirty[PART_CUR]));
		errno = saved;
	}
	return result;
}

/* Several messages, under a journal. 0, or -1 with errno, and then t->left of them are still there. */
static int
remove_several(struct maildrop *m, struct maildir *d, const uint8_t *marks, struct tally *t, struct act *a)
{
	struct intent list = { .kind = d->archive != -1 ? INTENT_ARCHIVES : INTENT_REMOVES };
	bool decided = false;
	int journal = -1, result = marked_names(m, marks, &list);

	if (result == 0 && (journal = ask_file(PRIVILEGED_JOURNAL_MAKE)) == -1)
		result = -1;
	/* here it is decided */
	if (result == 0)
		result = intent_write(&list, journal, d->root);
	a->deadline = clock_ms() + DEFER_MS;
	if (result == 0 && (result = hide_all(d, a, &list, &decided)) == -1 && decided) {
		/* It is durable already, and the client has waited long enough; or a half of it would be left. */
		d->deferred = list;
		d->reached = a->reached;
		d->journal = journal;
		a->dirty[PART_NEW] = a->dirty[PART_CUR] = true;
		t->deferred = true;
		t->deleted = t->left;
		t->left = 0;
		return 0;
	}
	int saved = errno;
	intent_free(&list);
	if (journal != -1) {
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
		close(journal);
	}
	t->deleted = result == 0 ? t->left : 0;
	t->left -= t->deleted;
	errno = saved;
	return result;
}

/* The rest of that. If it cannot be done now, the journal stays and the next opening does it. */
void
maildir_complete(struct maildrop *m)
{
	struct maildir *d = m->of_store;
	struct act a = { .on = way_out(d) };
	struct intent rest = { .names = d->deferred.names + d->reached, .length = d->deferred.length - d->reached };
	int result;

	d->decided = true;
	intent_free(&d->moved);
	/* where it begins anew, what was moved before the time was over is not where it was, and so counts as gone */
	result = act_on_all(d, &a, &rest);
	a.dirty[PART_NEW] = a.dirty[PART_CUR] = true;
	if (result == 0)
		result = sync_parts(d, &a);
	if (result == 0)
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
	else
		log_text(LOG_ERR, "the UPDATE is decided and not carried out yet: %s", strerror(errno));
	close(d->journal);
	intent_free(&d->deferred);
}

/* One message: it goes, or it does not. */
static int
remove_one(struct maildrop *m, struct maildir *d, const uint8_t *marks, struct tally *t, struct act *a)
{
	struct intent list = { 0 };
	int result = marked_names(m, marks, &list);

	a->on = d->archive != -1 ? act_archive : act_remove;
	if (result == 0)
		result = act_on_all(d, a, &list);
	/* gone, but not known to be on disk, is not said to be gone */
	if (result == 0)
		result = sync_parts(d, a);
	int saved = errno;
	intent_free(&list);
	if (result == -1)
		unhide(d);
	errno = saved;
	t->deleted = result == 0;
	t->left = result != 0;
	return result;
}

/* "new/FILE" becomes "cur/FILE:2,". 0, or -1 if it stays. */
static int
move_to_cur(const struct maildir *d, const char *name, size_t length, char *to, size_t size)
{
	const char *file = name + PART_PREFIX;
	bool has_info = listing_base(file, length - PART_PREFIX) < length - PART_PREFIX;
	int n = snprintf(to, size, "cur/%.*s%s", (int)(length - PART_PREFIX), file, has_info ? "" : ":2,");

	if (n < 0 || (size_t)n >= size || (size_t)n > PART_PREFIX + NAME_MAX)
		return -1;
	return rename_free(d->root, name, to);
}

/*
 * Moves what was retrieved, and gives the cache what the maildrop is now. Names only: nothing here can fail an UPDATE.
 * The directories that were changed have no stamp: others may have delivered since they were listed, so the next
 * session lists them again.
 */
static void
settle(struct maildrop *m, struct maildir *d, const uint8_t *marks, struct act *a)
{
	uint32_t count = maildrop_count(m), next = 0;
	uint8_t *gone = calloc((size_t)count + 1, 1), *read_ones = calloc((size_t)count + 1, 1);
	struct inventory *now = NULL;
	char to[PART_PREFIX + NAME_MAX + 1];

	for (uint32_t i = 0; gone != NULL && read_ones != NULL && i < count; i++) {
		gone[i] = (marks[i] & MARK_DELETED) != 0;
		read_ones[next] = (marks[i] & (MARK_DELETED | MARK_RETRIEVED)) == MARK_RETRIEVED;
		next += gone[i] == 0;
	}
	d->changed = false;
	if (gone != NULL && read_ones != NULL && (now = inventory_without(m->inventory, gone)) != NULL) {
		m->inventory = now;
		d->changed = true;
	}
	for (uint32_t i = 0; now != NULL && i < next; i++) {
		struct inventory_message im;
		if (read_ones[i] == 0 || inventory_get(now, i, &im) == -1 || im.name[0] != 'n' ||
		    move_to_cur(d, im.name, im.name_length, to, sizeof to) == -1)
			continue;
		im.name = to;
		im.name_length = strlen(to);
		a->dirty[PART_NEW] = a->dirty[PART_CUR] = true;
		if (inventory_change(now, i, &im) == -1)
			d->changed = false;
	}
	for (int i = 0; i < PART_COUNT; i++)
		if (a->dirty[i])
			m->seen[i] = (struct stamp){ 0 };
	free(gone);
	free(read_ones);
}

/*
 * The name in cur/ that says that a person has read it: 'S' among the flags, which are in order. 1; 0: it says so
 * already, or cannot.
 */
static int
name_read(char to[static PART_PREFIX + NAME_MAX + 1], const char *name)
{
	const char *file = name + PART_PREFIX, *info = strchr(file, ':');
	size_t room = PART_PREFIX + NAME_MAX + 1;

	if (info != NULL && strncmp(info, ":2,", 3) != 0)
		return 0;
	const char *flags = info != NULL ? info + 3 : "";
	if (strchr(flags, 'S') != NULL)
		return 0;
	size_t before = strspn(flags, "ABCDEFGHIJKLMNOPQR"), base = info != NULL ? (size_t)(info - file) : strlen(file);
	int n = snprintf(to, room, "cur/%.*s:2,%.*sS%s", (int)base, file, (int)before, flags, flags + before);
	return n > 0 && (size_t)n < room;
}

static int
act_read(struct maildir *d, const char *name)
{
	char to[PART_PREFIX + NAME_MAX + 1];

	if (name_read(to, name) == 0 || rename_free(d->root, name, to) == 0)
		return 0;
	return errno == ENOENT ? 1 : -1;
}

/* Nobody asked for it in this session: what cannot be marked is logged, and next time is another. */
static void
mark_read(struct maildrop *m, struct maildir *d, const uint8_t *marks)
{
	struct act a = { .on = act_read };
	struct intent list = { 0 };
	struct inventory_message im;
	int result = 0;

	for (uint32_t i = 0; result == 0 && i < maildrop_count(m); i++)
		if ((marks[i] & (MARK_RETRIEVED | MARK_DELETED)) == MARK_RETRIEVED)
			result = inventory_get(m->inventory, i, &im) == 0 ? intent_add(&list, im.name, im.name_length) : -1;
	if (result == 0)
		result = act_on_all(d, &a, &list);
	if (a.dirty[PART_NEW] || a.dirty[PART_CUR])
		a.dirty[PART_CUR] = true;
	if (result == 0)
		result = sync_parts(d, &a);
	if (result == -1)
		log_text(LOG_WARNING, "%s: not all that was retrieved could be marked as read: %s", m->path, strerror(errno));
	intent_free(&list);
}

int
maildir_update(struct maildrop *m, const uint8_t *marks, struct tally *t)
{
	struct maildir *d = m->of_store;
	struct act a = { .on = act_remove };
	int result = 0;

	if (m->grant->server_copy == COPY_MARK_READ)
		mark_read(m, d, marks);
	for (uint32_t i = 0; i < maildrop_count(m); i++)
		t->left += (marks[i] & MARK_DELETED) != 0;
	if (t->left == 0 && m->grant->server_copy == COPY_MARK_READ)
		return 0;	/* what has expired goes all the same */
	if (t->left > 0 && m->grant->server_copy == COPY_ARCHIVE && (d->archive = archive_folder(d->root)) == -1)
		return maildrop_fail(m, "archive");
	if (t->left == 1)
		result = remove_one(m, d, marks, t, &a);
	else if (t->left > 1)
		result = remove_several(m, d, marks, t, &a);
	t->remain -= t->deleted;
	if (result == 0) {
		settle(m, d, marks, &a);
		return 0;
	}
	d->changed = false;
	return maildrop_fail(m, "update");
}

/* Removes the files of a list. */
static void
sweep_list(const struct maildir *d, struct intent *list)
{
	for (const char *p = list->names; list->count > 0 && p < list->names + list->length; p += strlen(p) + 1)
		unlinkat(d->root, p, 0);
	intent_free(list);
}

bool
maildir_untidy(const struct maildrop *m)
{
	const struct maildir *d = m->of_store;

	return d->archive == -1 && d->moved_as.count > 0;
}

/*
 * After the answer: removes the files that were moved to tmp/, and what anybody else has left there for 36 hours, as
 * every reader of a Maildir may.
 */
void
maildir_sweep(struct maildrop *m)
{
	struct maildir *d = m->of_store;
	int fd;

	sweep_list(d, &d->moved_as);
	fd = openat(d->root, "tmp", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd == -1)
		return;
	listing_clean(fd, TMP_STALE_S);
}

void
maildir_remember(struct maildrop *m)
{
	struct maildir *d = m->of_store;

	sweep_list(d, &d->left);
	if (d->changed && (maildrop_cache(m) == NULL || cache_store(m->cache, m->inventory, m->seen) == -1))
		log_text(LOG_INFO, "the cache could not be written: %s", strerror(errno));
	d->changed = false;
}
