/*
 * A message of an mbox found again, that others may have moved: for FETCH, for its age, and for an UPDATE's second look. And what is in the archive.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "age.h"
#include "archive.h"
#include "ask.h"
#include "log.h"
#include "mbox.h"
#include "system.h"

static int
look_one(const struct scan_found *f, void *data)
{
	struct looks *l = data;

	if (f->pseudo)
		return 0;
	if (l->count == l->room) {
		uint32_t room = l->room > 0 ? 2 * l->room : 64;
		struct look *more = reallocarray(l->look, room, sizeof *more);
		if (more == NULL)
			return -1;
		l->look = more;
		l->room = room;
	}
	l->look[l->count] = (struct look){ .index = l->count, .start = f->start, .offset = f->offset, .length = f->length, .octets = f->octets };
	memcpy(l->look[l->count++].fingerprint, f->id.fingerprint, FINGERPRINT_SIZE);
	return 0;
}

int
mbox_look(const struct mbox *b, off_t size, struct looks *l)
{
	struct scan s = { .fd = b->fd, .end = size, .each = look_one, .data = l };

	*l = (struct looks){ 0 };
	if ((s.hash = content_new()) == NULL)
		return -1;
	int result = mbox_scan(&s), saved = errno;
	free(s.hash);
	errno = saved;
	return result;
}

static ssize_t
read_at(int fd, char *to, size_t length, off_t at)
{
	size_t done = 0;

	while (done < length) {
		ssize_t n = pread(fd, to + done, length - done, at + (off_t)done);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int
mbox_row_holds(const struct mbox *b, const struct inventory_message *im, struct content_hash *h, int copy)
{
	static char buffer[64 << 10];
	uint8_t fingerprint[FINGERPRINT_SIZE];

	content_begin(h);
	for (uint64_t done = 0; done < im->length;) {
		size_t want = im->length - done < sizeof buffer ? (size_t)(im->length - done) : sizeof buffer;
		ssize_t n = read_at(b->fd, buffer, want, (off_t)(im->offset + done));
		if (n == -1)
			return -1;
		if ((size_t)n < want)
			return 0;
		content_add(h, buffer, want);
		if (copy != -1 && write(copy, buffer, want) != (ssize_t)want)
			return -1;
		done += want;
	}
	content_end(h, fingerprint);
	return memcmp(fingerprint, im->fingerprint, sizeof fingerprint) == 0;
}

/* Reads from `at` on: `want` octets, or as much as there is room for if that goes on behind what was read before. */
static ssize_t
ahead_read(int fd, struct ahead *a, off_t at, uint64_t want)
{
	off_t end = a->at + (off_t)a->have;
	bool goes_on = a->have > 0 && at >= end && at < end + FROM_LINE_MAX;
	ssize_t n = read_at(fd, a->buffer, goes_on || want > sizeof a->buffer ? sizeof a->buffer : (size_t)want, at);

	a->at = at;
	a->have = n > 0 ? (size_t)n : 0;
	return n;
}

int
mbox_row_holds_next(const struct mbox *b, const struct inventory_message *im, struct content_hash *h, struct ahead *a)
{
	uint8_t fingerprint[FINGERPRINT_SIZE];

	content_begin(h);
	for (uint64_t done = 0; done < im->length;) {
		off_t at = (off_t)(im->offset + done);
		if (at < a->at || at >= a->at + (off_t)a->have) {
			ssize_t n = ahead_read(b->fd, a, at, im->length - done);
			if (n <= 0)
				return (int)n;
		}
		size_t from = (size_t)(at - a->at), use = a->have - from;
		if (use > im->length - done)
			use = (size_t)(im->length - done);
		content_add(h, a->buffer + from, use);
		done += use;
	}
	content_end(h, fingerprint);
	return memcmp(fingerprint, im->fingerprint, sizeof fingerprint) == 0;
}

int
mbox_row_frame(int fd, off_t offset, uint64_t length, off_t size, struct range *r)
{
	char before[FROM_LINE_MAX + 2], after[16];
	size_t n = offset < (off_t)sizeof before ? (size_t)offset : sizeof before, at = 0;
	off_t end = offset + (off_t)length;
	ssize_t got = read_at(fd, before, n, offset - (off_t)n);

	if (got == -1)
		return -1;
	if ((size_t)got < n || n < 5)
		return 0;
	/* a From_ line at the end of the file may lack its end */
	const char *lf = memrchr(before, '\n', n - 1);
	const char *line = lf != NULL ? lf + 1 : before;
	if ((lf == NULL && (off_t)n < offset) || before + n - line < 5 || memcmp(line, "From ", 5) != 0)
		return 0;
	r->start = offset - (off_t)(before + n - line);
	if (end > size || (got = read_at(fd, after, sizeof after, end)) == -1)
		return end > size ? 0 : -1;
	/* one empty line; a last line that had no end when it was scanned may have been given one since */
	for (int i = 0; i < 2 && end + (off_t)at < size; i++)
		if ((size_t)got > at && after[at] == '\n')
			at++;
		else if ((size_t)got > at + 1 && after[at] == '\r' && after[at + 1] == '\n')
			at += 2;
	if (end + (off_t)at > size)
		return 0;
	r->length = end + (off_t)at - r->start;
	if (end + (off_t)at == size)
		return 1;
	return (size_t)got >= at + 5 && memcmp(after + at, "From ", 5) == 0;
}

/* A message has changed places: where is it now? 1 with *at; 0: nowhere. */
static int
find_moved(struct mbox *b, off_t size, const struct inventory_message *im, struct look *at)
{
	struct looks l;
	int found = mbox_look(b, size, &l);

	for (uint32_t i = 0; found == 0 && i < l.count; i++)
		if (l.look[i].length == im->length && l.look[i].octets == im->octets &&
		    memcmp(l.look[i].fingerprint, im->fingerprint, FINGERPRINT_SIZE) == 0) {
			*at = l.look[i];
			found = 1;
		}
	int saved = errno;
	free(l.look);
	errno = saved;
	return found;
}

/*
 * Under the locks: the message as a sealed copy, which nobody can change while it is sent. 1; 0: it is not there any
 * more. *moved: it is not where it was.
 */
static int
fetch_copy(struct mbox *b, struct inventory_message im, int *copy, bool *moved)
{
	struct stat st;
	struct look at = { 0 };
	struct content_hash *h = content_new();
	int found = -1;

	*copy = h != NULL ? sealed_create("postern-message") : -1;
	if (*copy == -1 || fstat(b->fd, &st) == -1)
		goto out;
	found = mbox_row_holds(b, &im, h, *copy);
	*moved = found == 0;
	if (found == 0 && (found = find_moved(b, st.st_size, &im, &at)) == 1) {
		im.offset = (uint64_t)at.offset;
		if (ftruncate(*copy, 0) == -1 || lseek(*copy, 0, SEEK_SET) == -1)
			found = -1;
		else
			found = mbox_row_holds(b, &im, h, *copy);
	}
	if (found == 1 && sealed_finish(*copy) == -1)
		found = -1;
out:
	if (found != 1 && *copy != -1)
		close(*copy);
	free(h);
	return found;
}

int
mbox_fetch(struct maildrop *m, uint32_t index, struct place *p)
{
	struct mbox *b = m->of_store;
	struct inventory_message im;
	bool moved = false;
	int found;

	if (inventory_get(m->inventory, index, &im) == -1)
		return maildrop_fail(m, "inventory");
	found = mbox_lock_current(m, b, false);
	if (found == -1)
		return -1;
	if (found == 0) {
		found = fetch_copy(b, im, &p->fd, &moved);
		int saved = errno;
		if (moved)
			mbox_doubt(m, b);
		delivery_lock_release(&b->delivery);
		errno = saved;
		if (found == -1 && errno != EPROTO)
			return maildrop_fail(m, "fetch");
		if (found == 1) {
			p->offset = 0;
			p->length = im.length;
			return 0;
		}
	}
	m->failure = FAILURE_VANISHED;
	return -1;
}

/* The date of the From_ line that ends where the message starts; 0 if it is not known. -1 with errno. */
static int64_t
row_delivered(int fd, off_t offset)
{
	char before[FROM_LINE_MAX + 2];
	size_t n = offset < (off_t)sizeof before ? (size_t)offset : sizeof before;
	ssize_t got = read_at(fd, before, n, offset - (off_t)n);

	if (got == -1)
		return -1;
	if ((size_t)got < n || n < 6 || before[n - 1] != '\n')
		return 0;
	const char *lf = memrchr(before, '\n', n - 1), *line = lf != NULL ? lf + 1 : before;
	if ((lf == NULL && (off_t)n < offset) || before + n - line < 6 || memcmp(line, "From ", 5) != 0)
		return 0;
	return age_from_line(line + 5, (size_t)(before + n - 1 - line) - 5);
}

/*
 * By the date of the From_ line, and never of the header. The file may have been changed since it was scanned: before
 * something is removed the message must be found at that From_ line.
 */
bool
mbox_older(struct maildrop *m, uint32_t index, int64_t than, bool surely)
{
	struct mbox *b = m->of_store;
	const struct catalogue_row *row = inventory_row(m->inventory, index);
	struct inventory_message im;
	int64_t when = row_delivered(b->fd, (off_t)row->offset);

	if (when <= 0 || when >= than)
		return false;
	if (!surely)
		return true;
	struct content_hash *h = content_new();
	bool holds = h != NULL && inventory_get(m->inventory, index, &im) == 0 && mbox_row_holds(b, &im, h, -1) == 1;
	free(h);
	return holds;
}

/* The archive for reading: beside the mbox, or the one in the home. The caller's to close, unless it is b->archive. */
static int
archived_open(const struct mbox *b)
{
	char name[sizeof b->name + 16];
	struct stat st;

	if (b->archive != -1)
		return b->archive;
	if (snprintf(name, sizeof name, ARCHIVE_NAME, b->name) >= NAME_MAX)
		return errno = ENOENT, -1;
	int fd = openat(b->directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd == -1 && errno == EACCES)
		fd = ask_beside_file(PRIVILEGED_ARCHIVE_LOOK);
	if (fd == -1 || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && st.st_nlink == 1))
		return fd;
	close(fd);
	return errno = ENOENT, -1;
}

static void
archived_close(const struct mbox *b, int fd)
{
	int saved = errno;

	if (fd != -1 && fd != b->archive)
		close(fd);
	errno = saved;
}

struct gather_archive {
	struct gather gather;
	int fd;
	int64_t than;
};

static int
gather_recent(const struct scan_found *f, void *data)
{
	struct gather_archive *g = data;
	int64_t when = row_delivered(g->fd, f->offset);

	if (when == -1)
		return -1;
	return when != 0 && when < g->than ? 0 : mbox_gather(f, &g->gather);
}

int
mbox_archived(struct maildrop *m, int64_t than, struct inventory *to)
{
	const struct mbox *b = m->of_store;
	struct gather_archive g = { { to }, archived_open(b), than };
	struct scan s = { .fd = g.fd, .uidl = m->uidl, .each = gather_recent, .data = &g };
	struct stat st;

	if (g.fd == -1)
		return errno == ENOENT ? 0 : -1;
	int result = fstat(g.fd, &st);
	s.end = st.st_size;
	uidl_start(m->uidl);
	if (result == 0 && s.end > 0 && (result = mbox_scan(&s)) == -1 && errno == EPROTO) {
		log_text(LOG_WARNING, "the archive of %s is not an mbox: it is not shown", m->path);
		result = 0;
	}
	archived_close(b, g.fd);
	return result;
}

int
mbox_archived_fetch(struct maildrop *m, const struct inventory_message *im, struct place *p)
{
	const struct mbox *b = m->of_store;
	struct mbox archive = { .fd = archived_open(b) };
	bool moved;
	int found = archive.fd != -1 ? fetch_copy(&archive, *im, &p->fd, &moved) : 0;

	archived_close(b, archive.fd);
	if (found == -1 && errno != EPROTO)
		return maildrop_fail(m, "archive");
	p->offset = 0;
	p->length = im->length;
	m->failure = FAILURE_VANISHED;
	return found == 1 ? 0 : -1;
}
