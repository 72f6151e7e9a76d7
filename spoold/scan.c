/*
 * One pass over an mbox: separators, octets on the wire, and names.
 *
 * The file is looked at in windows that are mapped, which takes half the time of copying them. If a program that heeds
 * no lock cuts the file short meanwhile, or the disk fails, touching a window is a SIGBUS: it ends the scan like an
 * error of read(2). Nothing that allocates or locks runs while a window is touched.
 */
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#include "wire.h"

#define WINDOW		(2u << 20)
#define PAGE		4096u	/* or a part of one */
#define LOOK_AHEAD	4096u	/* a From_ line, and enough of what follows it; the head of a pseudo message */
#define LOOK_BACK	4u	/* an empty line and the line end before it */

struct cursor {
	const char *p, *end;
};

static bool
take_word(struct cursor *c, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (c->end - c->p >= 3 && memcmp(c->p, words[i], 3) == 0) {
			c->p += 3;
			return true;
		}
	return false;
}

static bool
take_day(struct cursor *c)
{
	static const char *const days[] = { "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun" };

	return take_word(c, days, 7);
}

static bool
take_month(struct cursor *c)
{
	static const char *const months[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };

	return take_word(c, months, 12);
}

static bool
take_blanks(struct cursor *c)
{
	const char *from = c->p;

	while (c->p < c->end && *c->p == ' ')
		c->p++;
	return c->p > from;
}

static bool
take_digits(struct cursor *c, size_t least, size_t most)
{
	size_t n = 0;

	while (n < most && c->p < c->end && *c->p >= '0' && *c->p <= '9') {
		c->p++;
		n++;
	}
	return n >= least;
}

static bool
take_time(struct cursor *c)
{
	if (!take_digits(c, 1, 2) || c->p == c->end || *c->p != ':')
		return false;
	c->p++;
	return take_digits(c, 2, 2);
}

/* "Fri Jul  8 12:08", as asctime(3) has it, or "Fri, 8 Jul 2011 12:08", as a Date: field has it. */
static bool
is_date(struct cursor c)
{
	if (!take_day(&c))
		return false;
	if (c.p < c.end && *c.p == ',') {
		c.p++;
		return take_blanks(&c) && take_digits(&c, 1, 2) && take_blanks(&c) && take_month(&c) && take_blanks(&c) &&
		    take_digits(&c, 2, 4) && take_blanks(&c) && take_time(&c);
	}
	return take_blanks(&c) && take_month(&c) && take_blanks(&c) && take_digits(&c, 1, 2) && take_blanks(&c) && take_time(&c);
}

static bool
has_date(const char *line, size_t length)
{
	for (size_t i = 4; i + 10 < length; i++)
		if (line[i] == ' ' && is_date((struct cursor){ line + i + 1, line + length }))
			return true;
	return false;
}

/* "Name:", or the ">From " that some agents put first. */
static bool
is_field(const char *line, size_t length)
{
	size_t n = 0;

	if (length >= 6 && memcmp(line, ">From ", 6) == 0)
		return true;
	while (n < length && line[n] > 0x20 && line[n] < 0x7f && line[n] != ':')
		n++;
	return n > 0 && n < length && line[n] == ':';
}

bool
mbox_is_from(const char *line, size_t length, const char *next, size_t next_length, bool after_blank)
{
	bool field = is_field(next, next_length);

	if (length > FROM_LINE_MAX || (!field && !after_blank))
		return false;
	while (length > 5 && (line[length - 1] == ' ' || line[length - 1] == '\t' || line[length - 1] == '\r'))
		length--;
	const char *blank = length > 5 ? memchr(line + 5, ' ', length - 5) : NULL;
	if (has_date(line, length))
		return true;
	if (blank == NULL)
		return field;
	return field && after_blank && memchr(line + 5, '@', (size_t)(blank - line) - 5) != NULL;
}

struct state {
	const struct scan *s;
	const char *buffer;	/* the window */
	off_t base;		/* where buffer[0] is in the file */
	size_t have;		/* octets in buffer */
	void *mapped;		/* the window, if it is mapped; else NULL */
	char *copy;		/* memory for one that cannot be mapped */
	bool last;		/* nothing is left to read */
	bool open;		/* in a message */
	size_t fed;		/* octets of buffer that have been counted */
	struct scan_found found;
	struct wire_count count;
};

/* For a filesystem that maps nothing. */
static int
window_read(struct state *t)
{
	size_t done = 0;

	if (t->copy == NULL && (t->copy = malloc(WINDOW)) == NULL)
		return -1;
	t->buffer = t->copy;
	while (done < t->have) {
		ssize_t n = pread(t->s->fd, t->copy + done, t->have - done, t->base + (off_t)done);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		if (n == 0) {
			errno = ESTALE;
			return -1;
		}
		done += (size_t)n;
	}
	return 0;
}

static void
window_close(struct state *t)
{
	if (t->mapped != NULL)
		munmap(t->mapped, t->have);
	t->mapped = NULL;
}

/* The window that has `at`, and what is behind it. */
static int
window_open(struct state *t, off_t at)
{
	window_close(t);
	t->base = at - at % PAGE;
	t->have = t->s->end - t->base < (off_t)WINDOW ? (size_t)(t->s->end - t->base) : WINDOW;
	t->last = t->base + (off_t)t->have == t->s->end;
	t->mapped = mmap(NULL, t->have, PROT_READ, MAP_SHARED | MAP_POPULATE, t->s->fd, t->base);
	if (t->mapped == MAP_FAILED) {
		t->mapped = NULL;
		return window_read(t);
	}
	t->buffer = t->mapped;
	return 0;
}

/* The message goes on to `upto` at least. */
static void
feed(struct state *t, size_t upto)
{
	if (!t->open || upto <= t->fed)
		return;
	wire_count(&t->count, t->buffer + t->fed, upto - t->fed);
	if (t->s->uidl != NULL)
		uidl_add(t->s->uidl, t->buffer + t->fed, upto - t->fed);
	else if (t->s->hash != NULL)
		content_add(t->s->hash, t->buffer + t->fed, upto - t->fed);
	t->fed = upto;
}

/* Drops what is before `from` but for LOOK_BACK, and goes on behind what is there. */
static int
advance(struct state *t, size_t *from)
{
	size_t keep = *from > LOOK_BACK ? *from - LOOK_BACK : 0;
	off_t before = t->base;

	feed(t, keep);
	if (window_open(t, before + (off_t)keep) == -1)
		return -1;
	size_t moved = (size_t)(t->base - before);
	t->fed -= t->fed < moved ? t->fed : moved;
	*from -= moved;
	return 0;
}

/*
 * How long is the empty line that ends at `at`, in the message that started at `content` (or before the buffer)? 0:
 * there is none.
 */
static size_t
blank_before(const struct state *t, size_t at)
{
	off_t first = t->found.offset - t->base;	/* may be negative */
	off_t p = (off_t)at;

	if (p - 1 < first || t->buffer[p - 1] != '\n')
		return 0;
	if (p - 1 == first || t->buffer[p - 2] == '\n')
		return 1;
	if (t->buffer[p - 2] == '\r' && (p - 2 == first || t->buffer[p - 3] == '\n'))
		return 2;
	return 0;
}

static int
message_end(struct state *t, size_t at)
{
	if (!t->open)
		return 0;
	size_t end = at - blank_before(t, at);
	feed(t, end);
	t->open = false;
	t->found.length = (uint64_t)(t->base + (off_t)end - t->found.offset);
	t->found.octets = wire_count_end(&t->count);
	if (t->s->uidl != NULL)
		uidl_end(t->s->uidl, &t->found.id);
	else if (t->s->hash != NULL)
		content_end(t->s->hash, t->found.id.fingerprint);
	return t->s->each(&t->found, t->s->data);
}

/* A header field of this name in [p, end), or NULL; *length is its value's. */
static const char *
field_find(const char *p, const char *end, const char *name, size_t *length)
{
	size_t n = strlen(name);

	while (p < end && *p != '\n' && *p != '\r') {
		const char *lf = memchr(p, '\n', (size_t)(end - p));
		if (lf == NULL)
			lf = end;
		if ((size_t)(lf - p) > n && p[n] == ':' && strncasecmp(p, name, n) == 0) {
			*length = (size_t)(lf - p) - n - 1;
			return p + n + 1;
		}
		p = lf < end ? lf + 1 : end;
	}
	return NULL;
}

/* Only the first message of a file is asked. */
static bool
is_pseudo(const char *line, size_t length, const char *head, const char *end)
{
	size_t n = 0, other;
	const char *subject = field_find(head, end, "Subject", &n);

	if (subject == NULL || memmem(subject, n, "FOLDER INTERNAL DATA", 20) == NULL)
		return false;
	return field_find(head, end, "X-IMAP", &other) != NULL || field_find(head, end, "X-IMAPbase", &other) != NULL ||
	    (length >= 18 && memcmp(line, "From MAILER-DAEMON", 18) == 0);
}

/* The From_ line at `at`. Returns where the message starts in the buffer. */
static size_t
message_begin(struct state *t, size_t at, size_t line, bool first)
{
	size_t content = at + line < t->have ? at + line + 1 : t->have;
	const char *text = t->buffer + at;
	size_t length = line > 0 && text[line - 1] == '\r' ? line - 1 : line;

	t->found = (struct scan_found){ .start = t->base + (off_t)at, .offset = t->base + (off_t)content };
	t->count = (struct wire_count){ 0 };
	t->open = true;
	t->fed = content;
	if (first)
		t->found.pseudo = is_pseudo(text, length, t->buffer + content, t->buffer + t->have);
	if (t->s->uidl != NULL)
		uidl_begin(t->s->uidl, text, length);
	else if (t->s->hash != NULL)
		content_begin(t->s->hash);
	return content;
}

/* Is there a From_ line at `at`, which is a line's start? *line is its length. */
static bool
from_at(const struct state *t, size_t at, bool first, size_t *line)
{
	const char *text = t->buffer + at, *lf;
	size_t room = t->have - at;

	if (room < 5 || memcmp(text, "From ", 5) != 0)
		return false;
	lf = memchr(text, '\n', room);
	*line = lf != NULL ? (size_t)(lf - text) : room;
	if (first && t->s->start == 0)
		return *line <= FROM_LINE_MAX;
	size_t next = lf != NULL ? *line + 1 : room;
	bool blank = first ? t->s->after_blank : blank_before(t, at) > 0;
	return mbox_is_from(text, lf != NULL && *line > 0 && lf[-1] == '\r' ? *line - 1 : *line, text + next, room - next, blank);
}

static size_t
skip_empty_lines(const struct state *t)
{
	size_t at = 0;

	while (at < t->have && (t->buffer[at] == '\n' || (t->buffer[at] == '\r' && at + 1 < t->have && t->buffer[at + 1] == '\n')))
		at++;
	return at;
}

#define BLOCK 128
/*
 * The first "\nFrom ", or NULL. Whether a block may have one is work for vectors, and few blocks do: a third of the
 * time that memmem takes.
 */
static inline __attribute__((always_inline)) const char *
from_find_by(const char *p, size_t length)
{
	for (; length >= BLOCK + 5; p += BLOCK, length -= BLOCK) {
		unsigned char any = 0;
		for (size_t i = 0; i < BLOCK; i++)
			any |= (unsigned char)((p[i + 1] == 'F') & (p[i + 5] == ' '));
		for (size_t i = 0; any != 0 && i < BLOCK; i++)
			if (p[i] == '\n' && memcmp(p + i + 1, "From ", 5) == 0)
				return p + i;
	}
	return memmem(p, length, "\nFrom ", 6);
}

/* As wire.c has it. */
#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) static const char *
from_find_wide(const char *p, size_t length)
{
	return from_find_by(p, length);
}
#define WIDE __builtin_cpu_supports("avx2")
#else
#define from_find_wide from_find_by
#define WIDE false
#endif

static const char *
from_find(const char *p, size_t length)
{
	return WIDE ? from_find_wide(p, length) : from_find_by(p, length);
}

static int
scan_on(struct state *t, size_t at)
{
	for (;;) {
		const char *hit = at + 6 <= t->have ? from_find(t->buffer + at, t->have - at) : NULL;
		size_t line, from = hit != NULL ? (size_t)(hit - t->buffer) + 1 : t->have;
		if (!t->last && t->have - from < LOOK_AHEAD) {
			/* the hit may be cut, or what follows it */
			size_t next = hit != NULL || t->have < 6 ? from : t->have - 5;
			if (advance(t, &next) == -1)
				return -1;
			at = next > 0 ? next - 1 : 0;
			continue;
		}
		if (hit == NULL)
			return message_end(t, t->have);
		at = from;
		if (!from_at(t, from, false, &line))
			continue;
		if (message_end(t, from) == -1)
			return -1;
		at = message_begin(t, from, line, false) - 1;
	}
}

static int
scan_from(struct state *t)
{
	size_t line, at = (size_t)(t->s->start - t->base);

	if (t->s->start == 0)
		at = skip_empty_lines(t);
	if (at == t->have && t->last)
		return 0;
	if (!from_at(t, at, true, &line)) {
		errno = EPROTO;
		return -1;
	}
	at = message_begin(t, at, line, t->s->start == 0);
	return scan_on(t, at > 0 ? at - 1 : 0);
}

static sigjmp_buf cut_short;

static void
on_bus(int signal_number)
{
	(void)signal_number;
	siglongjmp(cut_short, 1);
}

int
mbox_scan(const struct scan *s)
{
	struct sigaction act = { .sa_handler = on_bus }, before;
	volatile int result = -1;

	if (s->start >= s->end)
		return 0;
	/* not on the stack, where what is changed after sigsetjmp may not be found again */
	struct state *const t = calloc(1, sizeof *t);
	if (t == NULL)
		return -1;
	t->s = s;
	sigaction(SIGBUS, &act, &before);
	if (sigsetjmp(cut_short, 1) != 0)
		errno = ESTALE;
	else if (window_open(t, s->start) == 0)
		result = scan_from(t);
	int saved = errno;
	sigaction(SIGBUS, &before, NULL);
	window_close(t);
	free(t->copy);
	free(t);
	errno = saved;
	return result;
}
