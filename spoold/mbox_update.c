/*
 * The UPDATE of an mbox: what is marked is found as it is now, perhaps archived, and cut out under a journal.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "archive.h"
#include "ask.h"
#include "flag.h"
#include "locked.h"
#include "mbox.h"

/* Of a mailbox so large the cache is written after the client has been answered. */
#define LATER_FROM (4 << 20)
/*
 * To cut off so much takes longer than to promise it in a journal, since the kernel gives back every page of it first: then the
 * client has its answer between the two. Of less it never sees a mailbox that is not yet cut.
 */
#ifndef PROMISE_FROM
#define PROMISE_FROM (16 << 20)
#endif

/* The ranges that are to go. */
struct cuts {
	struct range *range;
	size_t count;
};

/* Touching ranges become one. */
static void
cut_add(struct cuts *c, struct range r)
{
	struct range *last = c->count > 0 ? &c->range[c->count - 1] : NULL;

	if (last != NULL && last->start + last->length == r.start)
		last->length += r.length;
	else
		c->range[c->count++] = r;
}

static int
look_compare(const void *a, const void *b)
{
	const struct look *x = a, *y = b;
	int n = memcmp(x->fingerprint, y->fingerprint, FINGERPRINT_SIZE);

	return n != 0 ? n : (x->index > y->index) - (x->index < y->index);
}

/* What was scanned, as looks. */
static struct look *
looks_of(struct inventory *inv)
{
	uint32_t count = inventory_count(inv);
	struct look *l = calloc(count, sizeof *l);

	for (uint32_t i = 0; l != NULL && i < count; i++) {
		struct inventory_message im;
		if (inventory_get(inv, i, &im) == -1) {
			free(l);
			return NULL;
		}
		l[i].index = i;
		memcpy(l[i].fingerprint, im.fingerprint, FINGERPRINT_SIZE);
	}
	return l;
}

static uint32_t
group_end(const struct look *l, uint32_t from, uint32_t count)
{
	uint32_t i = from;

	while (i < count && memcmp(l[i].fingerprint, l[from].fingerprint, FINGERPRINT_SIZE) == 0)
		i++;
	return i;
}

/* Is there a marked message with a twin that is not marked? Then its place alone does not tell which of them it is. */
static bool
twins_apart(struct maildrop *m, const uint8_t *marks)
{
	uint32_t count = inventory_count(m->inventory);
	struct look *l = looks_of(m->inventory);
	bool apart = false;

	if (l == NULL)
		return true;
	qsort(l, count, sizeof *l, look_compare);
	for (uint32_t i = 1; !apart && i < count; i++)
		apart = ((marks[l[i].index] ^ marks[l[i - 1].index]) & MARK_DELETED) != 0 &&
		    memcmp(l[i].fingerprint, l[i - 1].fingerprint, FINGERPRINT_SIZE) == 0;
	free(l);
	return apart;
}

/*
 * Nobody has touched what was scanned: a run of marked messages goes from the From_ line of its first to the end of
 * its last. 1; 0: it does not look like that; -1 with errno.
 */
static int
cuts_trusted(struct maildrop *m, const struct mbox *b, const uint8_t *marks, off_t size, struct cuts *c)
{
	uint32_t count = inventory_count(m->inventory);
	int good = 1;

	for (uint32_t i = 0; i < count && good == 1; i++) {
		struct range first, last;
		if ((marks[i] & MARK_DELETED) == 0)
			continue;
		const struct catalogue_row *row = inventory_row(m->inventory, i);
		good = mbox_row_frame(b->fd, (off_t)row->offset, row->length, size, &first);
		uint32_t start = i;
		while (i + 1 < count && (marks[i + 1] & MARK_DELETED) != 0)
			i++;
		row = inventory_row(m->inventory, i);
		last = first;
		if (good == 1 && i > start)
			good = mbox_row_frame(b->fd, (off_t)row->offset, row->length, size, &last);
		if (good == 1)
			cut_add(c, (struct range){ first.start, last.start + last.length - first.start });
	}
	return good;
}

/*
 * Somebody has touched it: where the marked messages are, if all of them are where they were, by their content. 1; 0:
 * some are not; -1.
 */
static int
cuts_in_place(struct maildrop *m, const struct mbox *b, const uint8_t *marks, off_t size, struct cuts *c)
{
	struct content_hash *h = content_new();
	uint32_t count = inventory_count(m->inventory);
	int good = h == NULL ? -1 : 1;
	/* where twins are marked apart, all of them must be where they were: so look at every message */
	bool all = twins_apart(m, marks);

	for (uint32_t i = 0; i < count && good == 1; i++) {
		struct inventory_message im;
		struct range r;
		bool marked = (marks[i] & MARK_DELETED) != 0;
		if (!marked && !all)
			continue;
		const struct catalogue_row *row = inventory_row(m->inventory, i);
		good = mbox_row_frame(b->fd, (off_t)row->offset, row->length, size, &r);
		if (good == 1)
			good = inventory_get(m->inventory, i, &im) == -1 ? -1 : mbox_row_holds(b, &im, h, -1);
		if (good == 1 && marked)
			cut_add(c, r);
	}
	free(h);
	return good;
}

/*
 * One content: `thens` of it were scanned, and `nows` of it are there now. While none is missing they are the same
 * ones in the same order. If some are missing, those may be the marked ones, and what is there one that was not: only
 * what must be a marked one goes. Returns how many marked ones are not found.
 */
static uint32_t
group_match(const struct look *then, uint32_t thens, const struct look *now, uint32_t nows, const uint8_t *marks, uint8_t *go)
{
	uint32_t marked = 0, missing = thens > nows ? thens - nows : 0;

	for (uint32_t i = 0; i < thens; i++) {
		bool is_marked = (marks[then[i].index] & MARK_DELETED) != 0;
		marked += is_marked;
		if (missing == 0)
			go[now[i].index] = is_marked;
	}
	if (missing == 0)
		return 0;
	for (uint32_t i = 0; i < nows && missing + i < marked; i++)
		go[now[i].index] = 1;
	return marked < missing ? marked : missing;
}

/*
 * Both sorted by content. go[] is set for what must go; *lost: marked ones that are not found; *strange: messages that
 * were not there.
 */
static void
looks_match(const struct look *then, uint32_t thens, const struct looks *now, const uint8_t *marks, uint8_t *go, uint32_t *lost,
    uint32_t *strange)
{
	uint32_t i = 0, k = 0;

	*lost = *strange = 0;
	while (i < thens || k < now->count) {
		int n = i == thens ? 1 : k == now->count ? -1 :
		    memcmp(then[i].fingerprint, now->look[k].fingerprint, FINGERPRINT_SIZE);
		uint32_t ie = n <= 0 ? group_end(then, i, thens) : i, ke = n >= 0 ? group_end(now->look, k, now->count) : k;
		*lost += group_match(then + i, ie - i, now->look + k, ke - k, marks, go);
		if (ke - k > ie - i)
			*strange += ke - k - (ie - i);
		i = ie;
		k = ke;
	}
}

/*
 * Another program has moved or changed messages: finds the marked ones by content. 0, or -1 with errno. *left: marked
 * ones that may still be there in another form. A marked one that is not found has been deleted by somebody else,
 * unless there is a message that was not there before: it may be that one, changed.
 */
static int
cuts_by_content(struct maildrop *m, const struct mbox *b, const uint8_t *marks, off_t size, struct cuts *c, uint32_t *left)
{
	struct looks now;
	struct look *then = looks_of(m->inventory);
	uint32_t count = inventory_count(m->inventory), lost, strange;
	uint8_t *go = NULL;
	int result = -1;

	*c = (struct cuts){ .range = c->range };
	if (then == NULL || mbox_look(b, size, &now) == -1) {
		free(then);
		return -1;
	}
	off_t *start = calloc((size_t)now.count + 1, sizeof *start);
	go = calloc((size_t)now.count + 1, 1);
	if (start == NULL || go == NULL)
		goto out;
	for (uint32_t i = 0; i < now.count; i++)
		start[i] = now.look[i].start;
	start[now.count] = size;
	qsort(then, count, sizeof *then, look_compare);
	if (now.count > 0)
		qsort(now.look, now.count, sizeof *now.look, look_compare);
	looks_match(then, count, &now, marks, go, &lost, &strange);
	for (uint32_t i = 0; i < now.count; i++)
		if (go[i] != 0)
			cut_add(c, (struct range){ start[i], start[i + 1] - start[i] });
	*left = lost < strange ? lost : strange;
	result = 0;
out:
	free(then);
	free(now.look);
	free(start);
	free(go);
	return result;
}

/*
 * Nobody has touched the mailbox since it was looked at, but of what was inherited only samples were: takes the mark off each message
 * that is not what it was listed as. What the client has seen under that number may be another one's text, so neither of the two is
 * certainly meant. Returns how many those are, or -1 with errno.
 */
static int
inherited_unmark(struct maildrop *m, const struct mbox *b, uint8_t *marks)
{
	struct content_hash *h = content_new();
	uint32_t inherited = inventory_inherited(m->inventory);
	struct ahead *a = calloc(1, sizeof *a);
	int holds = h == NULL || a == NULL ? -1 : 1, others = 0;

	for (uint32_t i = 0; i < inherited && holds != -1; i++) {
		struct inventory_message im;
		if ((marks[i] & MARK_DELETED) == 0)
			continue;
		holds = inventory_get(m->inventory, i, &im) == -1 ? -1 : mbox_row_holds_next(b, &im, h, a);
		if (holds == 0) {
			marks[i] &= (uint8_t)~MARK_DELETED;
			others++;
		}
	}
	free(a);
	free(h);
	return holds == -1 ? -1 : others;
}

/*
 * What is to go. 1; 0: it was found by content, as what was known does not hold; -1 with errno. *left: marked ones that may still be
 * there.
 */
static int
cuts_find(struct maildrop *m, struct mbox *b, const uint8_t *marks, off_t size, bool same, struct cuts *c, uint32_t *left)
{
	uint32_t count = inventory_count(m->inventory);
	bool inherited = same && inventory_inherited(m->inventory) > 0;
	uint8_t *sure = inherited ? malloc(count) : NULL;
	int others = 0, good = -1;

	*left = 0;
	if (sure != NULL) {
		memcpy(sure, marks, count);
		others = inherited_unmark(m, b, sure);
		marks = sure;
	}
	if (others != -1 && (sure != NULL || !inherited)) {
		good = others > 0 ? 0 : same ? cuts_trusted(m, b, marks, size, c) : cuts_in_place(m, b, marks, size, c);
		if (good == 0) {
			mbox_doubt(m, b);
			good = cuts_by_content(m, b, marks, size, c, left);
			*left += (uint32_t)others;
		}
	}
	free(sure);
	return good;
}

/* The cuts are made: what the cache may know of the mailbox now. `same`: nobody else has touched it since it was looked at. */
static void
mbox_forget(struct maildrop *m, struct mbox *b, const uint8_t *marks, const struct cuts *c, bool same)
{
	uint64_t known = m->seen[0].size, shift = 0;
	uint32_t count = inventory_count(m->inventory);
	struct inventory *now = NULL;
	uint8_t *gone = calloc((size_t)count + 1, 1);

	b->changed = false;
	for (uint32_t i = 0; gone != NULL && i < count; i++)
		gone[i] = (marks[i] & MARK_DELETED) != 0;
	if (gone == NULL || stamp_take(&m->seen[0], b->fd) == -1 || (now = inventory_without(m->inventory, gone)) == NULL)
		goto out;
	m->inventory = now;
	b->changed = true;
	size_t cut = 0;
	for (uint32_t i = 0; i < inventory_count(now); i++) {
		const struct catalogue_row *row = inventory_row(now, i);
		while (cut < c->count && (uint64_t)c->range[cut].start < row->offset)
			shift += (uint64_t)c->range[cut++].length;
		struct inventory_message im = { .octets = row->octets, .offset = row->offset - shift, .length = row->length };
		if (shift > 0 && inventory_change(now, i, &im) == -1)
			b->changed = false;
	}
	/*
	 * What was delivered during the session is not in the inventory: the cache knows the mailbox as far as it was
	 * scanned.
	 */
	uint64_t old = known;
	for (size_t i = 0; i < c->count; i++) {
		uint64_t start = (uint64_t)c->range[i].start, end = start + (uint64_t)c->range[i].length;
		known -= start < old ? (end < old ? end : old) - start : 0;
	}
	if (m->seen[0].size > known || !same)
		m->seen[0].mtime = m->seen[0].ctime = 0;
	if (m->seen[0].size > known)
		m->seen[0].size = known;
	/* and what was not marked has not been read again */
	if (!same) {
		inventory_inherit(now);
		b->doubted = true;
	}
out:
	free(gone);
}

/* Copies the cuts to the archive. 0 with *before, and the archive is locked, or -1 with errno. */
static int
mbox_archive(struct mbox *b, const struct cuts *c, int journal, off_t *before)
{
	struct stat st;

	if (b->archive == -1 && (b->archive = mbox_archive_beside(b, true)) == -1)
		return -1;
	if (fstat(b->archive, &st) == -1 || archive_begin(b->archive, before) == -1)
		return -1;
	struct journal_note n = { .archive = st.st_ino, .before = *before };
	if (journal_note(journal, &n, c->range, c->count) == -1) {
		int saved = errno;
		archive_keep();
		errno = saved;
		return -1;
	}
	return archive_append(b->archive, b->fd, c->range, c->count, *before);
}

/* How much goes? */
static off_t
mbox_gone(const struct cuts *c)
{
	off_t gone = 0;

	for (size_t i = 0; i < c->count; i++)
		gone += c->range[i].length;
	return gone;
}

/* Under a journal if it needs one, as an archive does. Errno as journal_apply's. */
static enum journal_outcome
mbox_cut_journaled(struct mbox *b, const struct cuts *c, off_t size, bool archives, bool promises, int journal)
{
	off_t before = 0;

	if (archives && mbox_archive(b, c, journal, &before) == -1)	/* model: ARCHIVE */
		return JOURNAL_UNCHANGED;
	/* model: told, and with it the answer, after this and before TRUNCATE */
	enum journal_outcome outcome = promises && journal != -1 ?
	    journal_promise(b->fd, journal, c->range, c->count, size) : journal_apply(b->fd, journal, c->range, c->count, size);
	int saved = errno;
	if (archives && outcome == JOURNAL_UNCHANGED)
		archive_undo(b->archive, before);	/* model: UNARCHIVE */
	else if (archives)
		archive_keep();
	errno = saved;
	return outcome;
}

/* Takes the cuts out, or, if they are `all` that was marked, may promise to. 0, or -1. */
static int
mbox_cut(struct maildrop *m, struct mbox *b, const struct cuts *c, off_t size, bool all)
{
	bool archives = m->grant->server_copy == COPY_ARCHIVE, needed = archives || journal_needed(c->range, c->count, size);
	bool promises = all && mbox_gone(c) >= PROMISE_FROM;
	int journal = -1;

	/* a promise can be done without */
	if ((needed || promises) && (journal = ask_file(PRIVILEGED_JOURNAL_MAKE)) == -1 && needed)
		return maildrop_fail(m, "journal");
	if (journal != -1) {
		locked_keep(b->fd);
		flag_set(b->fd);
	}
	enum journal_outcome outcome = mbox_cut_journaled(b, c, size, archives, promises, journal);
	int saved = errno;
	bool of_before = outcome == JOURNAL_UNCHANGED && saved == EEXIST;	/* somebody's unfinished UPDATE */
	if (outcome == JOURNAL_UNCHANGED && !needed && journal != -1 && !of_before) {
		outcome = journal_apply(b->fd, -1, c->range, c->count, size);
		saved = errno;
	}
	bool in_force = outcome == JOURNAL_PENDING || outcome == JOURNAL_PROMISED;
	if (journal != -1 && !of_before && !in_force) {
		flag_clear(b->fd);
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
	}
	/* while we have it open, dropping it takes its name alone, and holds up neither the parent nor the client */
	b->journal = journal;
	if (outcome == JOURNAL_PROMISED)
		b->promised = size - mbox_gone(c);
	errno = saved;
	if (outcome == JOURNAL_APPLIED || outcome == JOURNAL_PROMISED)
		return 0;
	if (archives && b->archive == -1)
		return maildrop_fail_archive(m);
	return maildrop_fail(m, outcome == JOURNAL_PENDING ? "update, which is to be finished later" : "update");
}

/* What is left in it is no new mail for having been moved: it was read after that, unless there was mail before that nobody had read. */
static void
mbox_times(const struct mbox *b)
{
	static const struct timespec read_now[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_OMIT } };

	if (!b->unread)
		(void)futimens(b->fd, read_now);
}

/* Under the delivery locks, for writing. */
static int
mbox_update_locked(struct maildrop *m, struct mbox *b, const uint8_t *marks, uint32_t marked, struct tally *t)
{
	struct cuts c = { .range = calloc(marked, sizeof *c.range) };
	struct stamp now;
	struct stat st;
	uint32_t left = 0;
	bool same = false, in_place = false;
	int good = -1;

	if (c.range == NULL || stamp_take(&now, b->fd) == -1 || fstat(b->fd, &st) == -1)
		goto out;
	b->unread = st.st_atim.tv_sec < st.st_mtim.tv_sec ||
	    (st.st_atim.tv_sec == st.st_mtim.tv_sec && st.st_atim.tv_nsec < st.st_mtim.tv_nsec);
	same = !b->replaced && stamp_compare(&m->seen[0], &now) == STAMP_SAME;
	good = cuts_find(m, b, marks, st.st_size, same, &c, &left);
	in_place = good == 1;
out:
	if (good == -1)
		maildrop_fail(m, "second look");
	else {
		good = c.count > 0 ? mbox_cut(m, b, &c, st.st_size, left == 0) : 0;
		if (good == 0) {
			t->left = left;
			t->deleted = marked - left;
			t->remain -= t->deleted;
			if (c.count > 0 && b->promised == -1)
				mbox_times(b);
			if (in_place)
				mbox_forget(m, b, marks, &c, same);
			t->deferred = st.st_size >= LATER_FROM || b->promised != -1;
			t->cuts = b->promised != -1;
			t->length = t->cuts ? (uint64_t)b->promised : 0;
		}
	}
	free(c.range);
	return good == -1 ? -1 : 0;
}

int
mbox_update(struct maildrop *m, const uint8_t *marks, struct tally *t)
{
	struct mbox *b = m->of_store;
	uint32_t marked = 0, count = inventory_count(m->inventory);

	for (uint32_t i = 0; i < count; i++)
		marked += (marks[i] & MARK_DELETED) != 0;
	if (marked == 0)
		return 0;
	t->left = marked;
	if (m->readonly)
		return maildrop_refuse(m, FAILURE_PERMISSION, "the mbox cannot be written");
	int gone = mbox_lock_current(m, b, true);
	if (gone == -1)
		return -1;
	if (gone == 1) {
		*t = (struct tally){ .deleted = marked };
		return 0;
	}
	int result = m->readonly ? maildrop_refuse(m, FAILURE_PERMISSION, "the mbox cannot be written") :
	    mbox_update_locked(m, b, marks, marked, t);
	if (b->promised == -1)
		delivery_lock_release(&b->delivery);
	if (result == 0 && t->left > 0)
		return maildrop_refuse(m, FAILURE_CHANGED, "another program changed some of the marked messages: they were left");
	return result;
}

/* model: TRUNCATE. What was promised, now that the client has its answer. */
void
mbox_complete(struct maildrop *m)
{
	struct mbox *b = m->of_store;
	struct stamp now;

	if (b->promised == -1)
		return;
	if (journal_keep(b->fd, b->promised) == JOURNAL_APPLIED) {
		flag_clear(b->fd);
		ask_privileged(PRIVILEGED_JOURNAL_DROP);
		mbox_times(b);
		b->changed = b->changed && stamp_take(&now, b->fd) == 0;
		if (b->changed && !b->doubted && now.size == m->seen[0].size)
			m->seen[0] = now;
	} else {
		maildrop_fail(m, "what was promised, which is to be finished later");
		b->changed = false;
	}
	delivery_lock_release(&b->delivery);
	b->promised = -1;
}
