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
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "ask.h"
#include "intent.h"
#include "log.h"
#include "maildir.h"
#include "system.h"

#define TMP_STALE_S (36 * 3600)
#define ARCHIVE_TWINS 1000
#define HIDDEN_SIZE (sizeof HIDDEN + SESSION_ID_SIZE + 16)
#define TMP_PREFIX 4		/* strlen("tmp/") */
#define ELSEWHERE UINT32_MAX	/* the position of a message that is not where it was */
#define DEFER_MS 1000		/* so long an UPDATE moves files before it answers */

/*
 * Those messages that something is done to, one by one, by the names that they had when they were found: of the session's those with such a mark,
 * or what a journal lists. No list of them is made: of a million, it would be larger than all else that is known of them.
 */
struct chosen {
	struct inventory *of;		/* NULL: the journal's */
	const uint8_t *marks;
	uint8_t mask, mark;
	uint32_t next;
	struct intent *journal;
	uint32_t count;			/* so many have been given out; and with the NUL behind each, so many octets of names */
	uint64_t length;
	bool failed;
};

static struct chosen
chosen_marked(struct maildrop *m, const uint8_t *marks, uint8_t mask, uint8_t mark)
{
	return (struct chosen){ .of = m->inventory, .marks = marks, .mask = mask, .mark = mark };
}

static void
chosen_rewind(struct chosen *c)
{
	c->next = c->count = 0;
	c->length = 0;
	c->failed = false;
	if (c->of == NULL)
		intent_seek(c->journal, 0);
}

/* The next name, until the next call. NULL: that was all, or c->failed, with errno. */
static const char *
chosen_next(struct chosen *c)
{
	struct inventory_message im;
	const char *name = NULL;

	if (c->of == NULL) {
		c->failed = intent_next(c->journal, &name) == -1;
	} else {
		while (c->next < inventory_count(c->of) && (c->marks[c->next] & c->mask) != c->mark)
			c->next++;
		if (c->next < inventory_count(c->of)) {
			c->failed = inventory_get(c->of, c->next++, &im) == -1;
			name = c->failed ? NULL : im.name;
		}
	}
	if (name != NULL) {
		c->count++;
		c->length += strlen(name) + 1;
	}
	return name;
}

static int
names_add(struct names *n, const char *name)
{
	size_t length = strlen(name) + 1;

	if (n->room - n->length < length) {
		size_t room = n->room > 0 ? 2 * n->room : 4096;
		char *more = realloc(n->at, room);
		if (more == NULL)
			return -1;
		n->at = more;
		n->room = room;
	}
	memcpy(n->at + n->length, name, length);
	n->length += length;
	return 0;
}

static void
names_free(struct names *n)
{
	free(n->at);
	*n = (struct names){ 0 };
}

/* Something that is done to a message's file. 0; 1: it is not there; -1 with errno. */
struct act {
	int (*on)(struct maildir *d, const char *name);
	bool dirty[PART_COUNT];		/* what it has changed */
	int64_t deadline;		/* clock_ms(); ETIME after it; 0: none */
	uint64_t reached;		/* with ETIME: all before this octet of the names is done */
};

static int
act_once(struct maildir *d, struct act *a, const char *name, struct names *missing)
{
	int result = a->on(d, name);

	if (result == 0)
		a->dirty[name[0] == 'n' ? PART_NEW : PART_CUR] = true;
	if (result == 1)
		result = names_add(missing, name);
	return result;
}

static int
act_on_chosen(struct maildir *d, struct act *a, struct chosen *c, struct names *missing)
{
	const char *name;
	int result = 0;

	while (result == 0 && (name = chosen_next(c)) != NULL) {
		d->position = c->count - 1;
		result = act_once(d, a, name, missing);
		if (result == 0 && a->deadline != 0 && c->count % 64 == 0 && clock_ms() > a->deadline) {
			/* who was not where he was is still to be looked for: then it begins anew */
			a->reached = missing->length == 0 ? c->length : 0;
			errno = ETIME;
			result = -1;
		}
	}
	d->position = ELSEWHERE;
	return c->failed ? -1 : result;
}

/* On those that were missing, under the names that they have now. */
static int
act_on_missing(struct maildir *d, struct act *a, struct names *missing)
{
	struct names next = *missing;
	int result = maildir_list(d);

	*missing = (struct names){ 0 };
	for (const char *p = next.at; result == 0 && p < next.at + next.length; p += strlen(p) + 1) {
		const struct listing_entry *e = listing_find(&d->listing, p + PART_PREFIX, listing_base(p + PART_PREFIX, strlen(p) - PART_PREFIX));
		if (e != NULL)
			result = act_once(d, a, listing_name(&d->listing, e), missing);
	}
	int saved = errno;
	names_free(&next);
	errno = saved;
	return result;
}

/*
 * Acts on every message of these, wherever it is now. Those that are not where they were are looked for together,
 * so that a reader that renames all of them costs a listing and not one each; who is not in a listing that was made
 * after he was missed is gone. 0, or -1 with errno.
 */
static int
act_on_all(struct maildir *d, struct act *a, struct chosen *c)
{
	struct names missing = { 0 };
	int result = act_on_chosen(d, a, c, &missing);

	for (int tries = 0; result == 0 && missing.length > 0; tries++) {
		result = act_on_missing(d, a, &missing);
		if (result == 0 && tries == 8) {
			errno = EAGAIN;
			result = -1;
		}
	}
	int saved = errno;
	names_free(&missing);
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

int
maildir_rename(int root, const char *from, const char *to)
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

/* From here on what is moved can be put back; `moved` has a bit for each message, none of them set. */
static void
way_back_begin(struct maildir *d, uint8_t *moved)
{
	d->back = (struct way_back){ .moved = moved, .first = d->hidden };
}

static void
way_back_end(struct maildir *d)
{
	names_free(&d->back.odd);
	names_free(&d->back.odd_as);
	d->back = (struct way_back){ 0 };
}

/* In tmp/ messages have numbers. */
static void
hidden_name(char to[static HIDDEN_SIZE], const struct maildir *d, uint32_t number)
{
	snprintf(to, HIDDEN_SIZE, HIDDEN "%s.%u", d->id, (unsigned)number);
}

/*
 * Moves a message. One that has the name it was found by, and goes where such a one goes, needs a bit to be put back; `odd` ones need both names, which
 * are kept before: there may be no memory for that afterwards. 0, or -1 with errno.
 */
static int
move_counted(struct maildir *d, const char *name, const char *to, bool odd)
{
	struct way_back *b = &d->back;
	size_t length = b->odd.length, length_as = b->odd_as.length;

	odd = odd || d->position == ELSEWHERE;
	if ((b->moved == NULL || !odd || (names_add(&b->odd, name) == 0 && names_add(&b->odd_as, to) == 0)) &&
	    maildir_rename(d->root, name, to) == 0) {
		if (b->moved != NULL && !odd)
			b->moved[d->position / 8] |= (uint8_t)(1u << d->position % 8);
		return 0;
	}
	b->odd.length = length;
	b->odd_as.length = length_as;
	return -1;
}

/*
 * Moves a message to tmp/, under a name of our own: by its own it may still be there, if who delivers it has linked it
 * to new/ just now.
 */
static int
act_hide(struct maildir *d, const char *name)
{
	char to[HIDDEN_SIZE];

	hidden_name(to, d, d->hidden++);
	if (move_counted(d, name, to, false) == 0)
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
		if (archive_name(to, name, again) == -1 || (result = move_counted(d, name, to, again > 0)) == -1)
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
intent_carry_out(struct maildir *d, struct intent *i)
{
	struct act a = { .dirty = { true, true } };
	struct chosen all = { .journal = i };

	if (i->kind == INTENT_ARCHIVES && (d->archive = archive_folder(d->root)) == -1)
		return -1;
	a.on = way_out(d);
	return act_on_all(d, &a, &all) == -1 ? -1 : sync_parts(d, &a);
}

int
maildir_recover(struct maildrop *m, struct maildir *d, int journal)
{
	struct intent i;
	enum intent_state state = intent_read(&i, journal, d->root);
	int result = state == INTENT_WHOLE ? intent_carry_out(d, &i) : state == INTENT_FAILED ? -1 : 0, saved = errno;

	/* from here on it is this session's own UPDATE that is kept account of */
	if (d->archive != -1)
		close(d->archive);
	d->archive = -1;
	d->swept = d->hidden;
	log_begin(state == INTENT_FOREIGN || result == -1 ? LOG_ERR : LOG_NOTICE, "recover");
	log_string("user", m->grant->user);
	log_string("maildrop", m->path);
	log_string("result", result == -1 ? "failed" : state == INTENT_FOREIGN ? "foreign" : state == INTENT_WHOLE ? "finished" : "nothing");
	if (state == INTENT_WHOLE)
		log_number("messages", i.count);
	log_end();
	errno = saved;
	if (result == -1)
		return maildrop_fail(m, "recover");
	int error = ask_privileged(state == INTENT_FOREIGN ? PRIVILEGED_JOURNAL_SET_ASIDE : PRIVILEGED_JOURNAL_DROP);
	if (error == 0)
		return 0;
	errno = error;
	return maildrop_fail(m, "journal");
}

/* Writes the journal of all that is chosen. 0, or -1 with errno. */
static int
chosen_write(struct chosen *c, enum intent_kind kind, int journal, int root)
{
	struct intent i = { .kind = kind };
	const char *name;

	while (chosen_next(c) != NULL)
		continue;
	i.length = c->length;
	i.count = c->count;
	if (c->failed || intent_begin(&i, journal, root) == -1)
		return -1;
	chosen_rewind(c);
	while ((name = chosen_next(c)) != NULL)
		if (intent_add(&i, name, strlen(name)) == -1)
			return -1;
	if (c->failed)
		return -1;
	chosen_rewind(c);
	return intent_end(&i);
}

/* The name by which a message was moved that has the name it was found by. */
static int
moved_name(char to[static sizeof ARCHIVE_CUR + NAME_MAX], const struct maildir *d, const char *name, uint32_t position)
{
	if (d->archive != -1)
		return archive_name(to, name, 0);
	hidden_name(to, d, d->back.first + position);
	return 0;
}

/* Puts back what was moved. False: not all could be. */
static bool
unhide(struct maildir *d, struct chosen *c)
{
	const struct way_back *b = &d->back;
	char as[sizeof ARCHIVE_CUR + NAME_MAX];
	const char *name, *odd = b->odd.at, *odd_as = b->odd_as.at;
	bool all = true;

	chosen_rewind(c);
	while (b->moved != NULL && (name = chosen_next(c)) != NULL) {
		uint32_t at = c->count - 1;
		if ((b->moved[at / 8] >> at % 8 & 1) != 0 && (moved_name(as, d, name, at) == -1 || maildir_rename(d->root, as, name) == -1))
			all = false;
	}
	for (; odd_as != NULL && odd < b->odd.at + b->odd.length; odd += strlen(odd) + 1, odd_as += strlen(odd_as) + 1)
		if (maildir_rename(d->root, odd_as, odd) == -1)
			all = false;
	way_back_end(d);
	return all && !c->failed;
}

/* All of these go, or none. 0, or -1 with errno; *decided: there is no way back, by time or because not all could be put back. */
static int
hide_all(struct maildir *d, struct act *a, struct chosen *c, uint32_t count, bool *decided)
{
	a->on = way_out(d);
	uint8_t *moved = calloc((size_t)count / 8 + 1, 1);
	way_back_begin(d, moved);
	int result = moved != NULL ? act_on_all(d, a, c) : -1;
	if (result == 0)
		result = sync_parts(d, a);
	*decided = result == -1 && errno == ETIME;
	if (result == -1 && !*decided) {
		int saved = errno;
		*decided = !unhide(d, c) || (a->on == act_remove && (a->dirty[PART_NEW] || a->dirty[PART_CUR]));
		if (!*decided)
			d->swept = d->hidden;
		errno = saved;
	}
	way_back_end(d);
	free(moved);
	return result;
}

/* Several messages, under a journal. 0, or -1 with errno, and then t->left of them are still there. */
static int
remove_several(struct maildrop *m, struct maildir *d, const uint8_t *marks, struct tally *t, struct act *a)
{
	struct chosen c = chosen_marked(m, marks, MARK_DELETED, MARK_DELETED);
	bool decided = false;
	int result = 0, journal = ask_file(PRIVILEGED_JOURNAL_MAKE);

	/* here it is decided */
	if (journal == -1 || chosen_write(&c, d->archive != -1 ? INTENT_ARCHIVES : INTENT_REMOVES, journal, d->root) == -1)
		result = -1;
	a->deadline = clock_ms() + DEFER_MS;
	if (result == 0 && (result = hide_all(d, a, &c, t->left, &decided)) == -1 && decided) {
		/* It is durable already, and the client has waited long enough; or a half of it would be left. */
		d->reached = a->reached;
		d->journal = journal;
		a->dirty[PART_NEW] = a->dirty[PART_CUR] = true;
		t->deferred = true;
		t->deleted = t->left;
		t->left = 0;
		return 0;
	}
	int saved = errno;
	if (journal != -1) {
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
		close(journal);
	}
	t->deleted = result == 0 ? t->left : 0;
	t->left -= t->deleted;
	errno = saved;
	return result;
}

/* What the journal of this session's UPDATE has from there on. */
static int
carry_on(struct maildir *d)
{
	struct act a = { .on = way_out(d) };
	struct intent i;
	struct chosen rest = { .journal = &i };
	enum intent_state state = intent_read(&i, d->journal, d->root);

	if (state != INTENT_WHOLE) {
		errno = state == INTENT_FAILED ? errno : EBADMSG;
		return -1;
	}
	intent_seek(&i, d->reached);
	/* where it begins anew, what was moved before the time was over is not where it was, and so counts as gone */
	if (act_on_all(d, &a, &rest) == -1)
		return -1;
	a.dirty[PART_NEW] = a.dirty[PART_CUR] = true;
	return sync_parts(d, &a);
}

/* The rest of that. If it cannot be done now, the journal stays and the next opening does it. */
void
maildir_complete(struct maildrop *m)
{
	struct maildir *d = m->of_store;

	if (carry_on(d) == 0)
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
	else
		log_text(LOG_ERR, "the UPDATE is decided and not carried out yet: %s", strerror(errno));
	close(d->journal);
}

/* One message: it goes, or it does not. */
static int
remove_one(struct maildrop *m, struct maildir *d, const uint8_t *marks, struct tally *t, struct act *a)
{
	struct chosen c = chosen_marked(m, marks, MARK_DELETED, MARK_DELETED);
	uint8_t moved = 0;
	int result;

	a->on = d->archive != -1 ? act_archive : act_remove;
	way_back_begin(d, &moved);
	result = act_on_all(d, a, &c);
	/* gone, but not known to be on disk, is not said to be gone */
	if (result == 0)
		result = sync_parts(d, a);
	int saved = errno;
	if (result == -1)
		unhide(d, &c);
	way_back_end(d);
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
	return maildir_rename(d->root, name, to);
}

/*
 * Moves what was retrieved, and gives the cache what the maildrop is now. Names only: nothing here can fail an UPDATE.
 * The directories that were changed have no stamp: others may have delivered since they were listed, so the next
 * session lists them again.
 */
static void
settle(struct maildrop *m, struct maildir *d, const uint8_t *marks, struct act *a)
{
	maildir_correct(m, d);
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
			m->seen[i].mtime = m->seen[i].ctime = 0;
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

	if (name_read(to, name) == 0 || maildir_rename(d->root, name, to) == 0)
		return 0;
	return errno == ENOENT ? 1 : -1;
}

/* Nobody asked for it in this session: what cannot be marked is logged, and next time is another. */
static void
mark_read(struct maildrop *m, struct maildir *d, const uint8_t *marks)
{
	struct act a = { .on = act_read };
	struct chosen c = chosen_marked(m, marks, MARK_RETRIEVED | MARK_DELETED, MARK_RETRIEVED);
	int result = act_on_all(d, &a, &c);

	if (a.dirty[PART_NEW] || a.dirty[PART_CUR])
		a.dirty[PART_CUR] = true;
	if (result == 0)
		result = sync_parts(d, &a);
	if (result == -1)
		log_text(LOG_WARNING, "%s: not all that was retrieved could be marked as read: %s", m->path, strerror(errno));
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
		return maildrop_fail_archive(m);
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

/*
 * What workers that were killed between the move and the removal have left in tmp/, and what recovery has moved there just now: it has been decided.
 * Once the client has been told what is there. What cannot be listed now is another time.
 */
static void
sweep_left(const struct maildir *d)
{
	int fd = openat(d->root, "tmp", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *tmp = fd != -1 ? fdopendir(fd) : NULL;
	const struct dirent *e;

	while (tmp != NULL && (e = readdir(tmp)) != NULL)
		if (strncmp(e->d_name, &HIDDEN[TMP_PREFIX], sizeof HIDDEN - 1 - TMP_PREFIX) == 0)
			unlinkat(fd, e->d_name, 0);
	if (tmp != NULL)
		closedir(tmp);
	else if (fd != -1)
		close(fd);
}

bool
maildir_untidy(const struct maildrop *m)
{
	const struct maildir *d = m->of_store;

	return d->swept != d->hidden;
}

/*
 * After the answer: removes the files that were moved to tmp/, and what anybody else has left there for 36 hours, as
 * every reader of a Maildir may.
 */
void
maildir_sweep(struct maildrop *m)
{
	struct maildir *d = m->of_store;
	char name[HIDDEN_SIZE];
	int fd;

	for (; d->swept != d->hidden; d->swept++) {
		hidden_name(name, d, d->swept);
		unlinkat(d->root, name, 0);
	}
	fd = openat(d->root, "tmp", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd == -1)
		return;
	listing_clean(fd, TMP_STALE_S);
}

void
maildir_remember(struct maildrop *m)
{
	struct maildir *d = m->of_store;

	if (!d->looked)
		sweep_left(d);
	d->looked = true;
	maildir_correct(m, d);
	if (d->changed && (maildrop_cache(m) == NULL || cache_store(m->cache, m->inventory, m->seen) == -1))
		log_text(LOG_INFO, "the cache could not be written: %s", strerror(errno));
	d->changed = false;
}
