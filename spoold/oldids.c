/*
 * Reading the lists of ids of other servers. They belong to the mailbox's owner: a line that makes no sense is
 * skipped, a file that makes none is as good as no file, and nothing in them leads further than to the text of
 * an id.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "oldids.h"

#define FILE_MAX (1u << 30)

struct entry {
	uint32_t base;		/* where in the text */
	uint32_t base_length;	/* 0: an empty slot */
	uint32_t line;		/* where its numbers and extensions are */
	uint32_t uid;
};

struct oldids {
	enum oldids_kind kind;
	int fd;			/* until it is read */
	char *text;
	size_t length;
	uint64_t validity;	/* dovecot: of all; courier: each line has its own */
	unsigned version;
	struct entry *slots;	/* open addressing, at most half full */
	size_t mask;
};

struct oldids *
oldids_open(int directory, enum oldids_kind kind)
{
	static const char *const names[] = { [OLDIDS_DOVECOT] = "dovecot-uidlist", [OLDIDS_COURIER] = "courierpop3dsizelist" };
	int fd = openat(directory, names[kind], O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct oldids *o = fd == -1 ? NULL : calloc(1, sizeof *o);

	if (o == NULL) {
		if (fd != -1)
			close(fd);
		return NULL;
	}
	o->kind = kind;
	o->fd = fd;
	return o;
}

void
oldids_close(struct oldids *o)
{
	if (o == NULL)
		return;
	if (o->fd != -1)
		close(o->fd);
	free(o->text);
	free(o->slots);
	free(o);
}

/* Digits at *at; moves behind them. */
static bool
number_at(const char **at, const char *end, uint64_t *value)
{
	const char *start = *at;

	for (*value = 0; *at < end && **at >= '0' && **at <= '9'; (*at)++)
		if (*value > UINT32_MAX)
			return false;
		else
			*value = *value * 10 + (uint64_t)(**at - '0');
	return *at > start;
}

static void
blanks_skip(const char **at, const char *end)
{
	while (*at < end && **at == ' ')
		(*at)++;
}

static const char *
word_end(const char *at, const char *end)
{
	const char *blank = memchr(at, ' ', (size_t)(end - at));
	return blank == NULL ? end : blank;
}

/* Dovecot: "1 VALIDITY NEXT" or "3 VVALIDITY NNEXT GGUID"; Courier: "/VERSION NEXT VALIDITY". */
static bool
head_read(struct oldids *o, const char *at, const char *end)
{
	uint64_t version, next;

	if (o->kind == OLDIDS_COURIER && (at == end || *at++ != '/'))
		return false;
	if (!number_at(&at, end, &version) || version > 3)
		return false;
	o->version = (unsigned)version;
	blanks_skip(&at, end);
	if (o->kind == OLDIDS_COURIER) {
		if (!number_at(&at, end, &next))
			return false;
		blanks_skip(&at, end);
		(void)number_at(&at, end, &o->validity);
		return true;
	}
	if (o->version < 3)
		return number_at(&at, end, &o->validity);
	for (; at < end; blanks_skip(&at, end)) {
		if (*at == 'V' && at++ && !number_at(&at, end, &o->validity))
			return false;
		at = word_end(at, end);
	}
	return o->validity > 0;
}

static size_t
base_length(const char *name, const char *end)
{
	const char *colon = memchr(name, ':', (size_t)(end - name));
	return (size_t)((colon == NULL ? end : colon) - name);
}

/* "UID [extensions] :FILE" or, in version 1, "UID FILE". */
static bool
dovecot_line(const struct oldids *o, const char *at, const char *end, struct entry *e)
{
	uint64_t uid;

	if (!number_at(&at, end, &uid) || uid == 0 || uid > UINT32_MAX)
		return false;
	blanks_skip(&at, end);
	e->uid = (uint32_t)uid;
	e->line = (uint32_t)(at - o->text);
	while (o->version == 3 && at < end && *at != ':') {
		at = word_end(at, end);
		blanks_skip(&at, end);
	}
	if (o->version == 3 && at++ >= end)
		return false;
	e->base = (uint32_t)(at - o->text);
	e->base_length = (uint32_t)base_length(at, end);
	return e->base_length > 0;
}

/* "FILE SIZE UID[:VALIDITY[:UTF8]]"; the file's name may have blanks. */
static bool
courier_line(const struct oldids *o, const char *at, const char *end, struct entry *e)
{
	const char *uid = memrchr(at, ' ', (size_t)(end - at));
	const char *size = uid == NULL ? NULL : memrchr(at, ' ', (size_t)(uid - at));
	uint64_t value;

	if (size == NULL)
		return false;
	e->base = (uint32_t)(at - o->text);
	e->base_length = (uint32_t)base_length(at, size);
	uid++;
	if (!number_at(&uid, end, &value) || value > UINT32_MAX)
		return false;
	e->uid = (uint32_t)value;
	e->line = (uint32_t)(uid - o->text);
	return e->base_length > 0;
}

static struct entry *
slot_of(const struct oldids *o, const char *base, size_t length)
{
	for (size_t i = XXH3_64bits(base, length) & o->mask;; i = (i + 1) & o->mask) {
		struct entry *e = &o->slots[i];
		if (e->base_length == 0 || (e->base_length == length && memcmp(o->text + e->base, base, length) == 0))
			return e;
	}
}

static bool
lines_read(struct oldids *o)
{
	const char *end = o->text + o->length, *at = memchr(o->text, '\n', o->length);
	size_t lines = 0, slots = 16;

	if (at == NULL || !head_read(o, o->text, at))
		return false;
	for (const char *nl = at; nl != NULL; nl = memchr(nl + 1, '\n', (size_t)(end - nl - 1)))
		lines++;
	while (slots < lines * 2)
		slots *= 2;
	if ((o->slots = calloc(slots, sizeof *o->slots)) == NULL)
		return false;
	o->mask = slots - 1;
	/* A line without its end is being written, or torn: not read. */
	for (const char *nl; (nl = memchr(at + 1, '\n', (size_t)(end - at - 1))) != NULL; at = nl) {
		struct entry e = { 0 };
		bool sound = o->kind == OLDIDS_DOVECOT ? dovecot_line(o, at + 1, nl, &e) : courier_line(o, at + 1, nl, &e);
		/* Later lines replace earlier ones, as Dovecot appends them. */
		if (sound)
			*slot_of(o, o->text + e.base, e.base_length) = e;
	}
	return true;
}

static bool
file_read(struct oldids *o)
{
	struct stat st;
	size_t got = 0;

	if (fstat(o->fd, &st) == -1 || !S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > FILE_MAX ||
	    (o->text = malloc((size_t)st.st_size)) == NULL)
		return false;
	while (got < (size_t)st.st_size) {
		ssize_t n = pread(o->fd, o->text + got, (size_t)st.st_size - got, (off_t)got);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	o->length = got;
	return got > 0;
}

/* A word of the line that begins with `key`. */
static struct oldids_text
extension(const struct oldids *o, const struct entry *e, char key)
{
	const char *at = o->text + e->line, *end = o->text + e->base;

	for (; at < end && *at != ':'; blanks_skip(&at, end)) {
		const char *stop = word_end(at, end);
		if (*at == key)
			return (struct oldids_text){ at + 1, (size_t)(stop - at - 1) };
		at = stop;
	}
	return (struct oldids_text){ NULL, 0 };
}

bool
oldids_find(struct oldids *o, const char *base, size_t length, struct oldid *id)
{
	if (o->fd != -1) {
		if (!file_read(o) || !lines_read(o)) {
			free(o->slots);
			o->slots = NULL;
		}
		close(o->fd);
		o->fd = -1;
	}
	if (o->slots == NULL || length == 0)
		return false;
	const struct entry *e = slot_of(o, base, length);
	if (e->base_length == 0)
		return false;
	*id = (struct oldid){ .uid = e->uid, .validity = o->validity };
	if (o->kind == OLDIDS_DOVECOT && o->version == 3) {
		id->saved = extension(o, e, 'P');
		id->guid = extension(o, e, 'G');
	} else if (o->kind == OLDIDS_COURIER) {
		/* Its own validity, which may differ from the file's; the first version had none. */
		const char *at = o->text + e->line;
		id->validity = 0;
		if (*at++ == ':' && !number_at(&at, o->text + o->length, &id->validity))
			id->validity = 0;
	}
	return true;
}
