/*
 * The id a message asks for, in the form that uidl-format names. All forms of other servers are about ids that
 * those have given already: a message that they never saw, and any id that RFC 1939 would not allow, is known
 * by our own id instead.
 */
#include <ctype.h>
#include <errno.h>
#include <nettle/md5.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <xxhash.h>

#include "oldids.h"
#include "uidl.h"

#define ACCEPTED "accepted: postern, dovecot, courier, cyrus, qmail, popa3d, mailutils, or a format with %u %v %m %f %g"
#define PARTS_MAX 32
#define MODIFIERS_MAX 4
#define LINE_MAX_KEPT 131072		/* of one header line; popa3d's limit too */

enum scheme {
	SCHEME_POSTERN,
	SCHEME_TEMPLATE,	/* Dovecot's % forms */
	SCHEME_COURIER,
	SCHEME_POPA3D,
	SCHEME_X_UIDL		/* mailutils, Qpopper */
};

/* A piece of a template: a letter, or a variable and what is done to it. */
struct part {
	char letter;
	char variable;		/* u v m f g; 0: the letter */
	char modifiers[MODIFIERS_MAX + 1];	/* X U L R: done in this order */
	bool zeroes;
	int offset;
	unsigned width;		/* 0: all of it */
};

/* The names of whole formats, and what they stand for. */
static const struct named {
	const char *name;
	enum scheme scheme;
	const char *template;
} named[] = {
	{ "postern",		SCHEME_POSTERN,		NULL },
	{ "dovecot",		SCHEME_TEMPLATE,	"%08Xu%08Xv" },
	{ "cyrus",		SCHEME_TEMPLATE,	"%v.%u" },
	{ "popa3d",		SCHEME_POPA3D,		NULL },
	{ "qmail",		SCHEME_POSTERN,		NULL },	/* the file's base name, which is ours too */
	{ "qmail-pop3d",	SCHEME_POSTERN,		NULL },
	{ "courier",		SCHEME_COURIER,		NULL },
	{ "mailutils",		SCHEME_X_UIDL,		NULL },
};

/* Header fields that an id is made of. */
enum field {
	FIELD_OTHER, FIELD_DATE, FIELD_DELIVERED_TO, FIELD_MESSAGE_ID, FIELD_RECEIVED, FIELD_X_DELIVERY_ID, FIELD_X_UID,
	FIELD_X_IMAP, FIELD_X_UIDL
};
static const struct {
	const char *name;
	enum field field;
} fields[] = {
	{ "Date:", FIELD_DATE }, { "Delivered-To:", FIELD_DELIVERED_TO }, { "Message-ID:", FIELD_MESSAGE_ID },
	{ "Received:", FIELD_RECEIVED }, { "X-Delivery-ID:", FIELD_X_DELIVERY_ID }, { "X-UID:", FIELD_X_UID },
	{ "X-IMAP:", FIELD_X_IMAP }, { "X-IMAPbase:", FIELD_X_IMAP }, { "X-UIDL:", FIELD_X_UIDL },
};

struct uidl {
	enum maildrop_kind kind;
	enum scheme scheme;
	uint64_t context;
	struct part parts[PARTS_MAX];
	size_t count;
	struct content_hash *content;
	struct oldids *old;
	/* of the mailbox: X-IMAPbase of its first message, or X-IMAP of the pseudo message */
	uint64_t validity;
	uint64_t last_uid;
	uint64_t previous_uid;	/* that counted */
	bool goes_on;		/* behind messages that were not read, so that the previous one is not known */
	bool unsure;
	/* of the message at hand */
	bool reads_header;
	bool in_header;
	bool begun;		/* its content was given */
	bool first;
	bool has_received;
	enum field field;	/* of the last line: what a folded line belongs to */
	uint64_t uid;
	struct md5_ctx md5;
	char x_uidl[UID_MAX + 1];
	size_t x_uidl_length;
	char *line;
	size_t line_length;
	size_t line_room;
};

static const char *
modifiers_parse(const char *at, struct part *p)
{
	for (size_t i = 0; i < MODIFIERS_MAX && *at != '\0' && strchr("XULR", *at) != NULL; i++)
		p->modifiers[i] = *at++;
	return at;
}

/* "%[offset.]width[modifiers]v", as Dovecot 2.3 has it. NULL if it is none. */
static const char *
short_parse(const char *at, struct part *p)
{
	char *end;
	long number;

	p->zeroes = *at == '0';
	if (*at == '-' || isdigit((unsigned char)*at)) {
		number = strtol(at, &end, 10);
		if (*end == '.') {
			p->offset = (int)(number < -UID_MAX ? -UID_MAX : number > UID_MAX ? UID_MAX : number);
			at = end + 1;
			p->zeroes = *at == '0';
			number = isdigit((unsigned char)*at) ? strtol(at, &end, 10) : 0;
			if (number == 0)
				end = (char *)(uintptr_t)at;
		}
		if (number < -999 || number > 999)
			return NULL;
		p->width = (unsigned)labs(number);
		at = end;
	}
	at = modifiers_parse(at, p);
	if (*at == '\0' || strchr("uvmfg", *at) == NULL)
		return NULL;
	p->variable = *at;
	return at + 1;
}

/* "%{name}" and "%{name | hex(8)}", as Dovecot 2.4 has it. */
static const char *
long_parse(const char *at, struct part *p)
{
	static const struct { const char *name; char variable; } names[] = {
		{ "uidvalidity", 'v' }, { "uid", 'u' }, { "md5", 'm' }, { "filename", 'f' }, { "guid", 'g' },
	};

	at = modifiers_parse(at + strspn(at, " "), p);
	for (size_t i = 0; i < sizeof names / sizeof *names && p->variable == 0; i++)
		if (strncmp(at, names[i].name, strlen(names[i].name)) == 0) {
			p->variable = names[i].variable;
			at += strlen(names[i].name);
		}
	at += strspn(at, " ");
	if (*at == '|') {
		at += 1 + strspn(at + 1, " ");
		int used = 0;
		if (sscanf(at, "hex(%2u)%n", &p->width, &used) != 1 || used == 0 || p->width > 99)
			return NULL;
		at += used;
		p->modifiers[0] = 'X';
		p->zeroes = true;
		at += strspn(at, " ");
	}
	return p->variable != 0 && *at == '}' ? at + 1 : NULL;
}

/* How many parts, or 0: not a template that names a message by something of its own. */
static size_t
template_parse(const char *at, struct part *parts)
{
	size_t n = 0;
	bool own = false;

	while (*at != '\0') {
		struct part p = { .letter = *at };
		if (n == PARTS_MAX)
			return 0;
		if (*at++ == '%') {
			if (*at == '%')
				at++;
			else if ((at = *at == '{' ? long_parse(at + 1, &p) : short_parse(at, &p)) == NULL)
				return 0;
		} else if (p.letter < 0x21 || p.letter > 0x7e)
			return 0;
		own |= p.variable != 0 && p.variable != 'v';
		parts[n++] = p;
	}
	return own ? n : 0;
}

static const struct named *
named_find(const char *format)
{
	for (size_t i = 0; i < sizeof named / sizeof *named; i++)
		if (strcmp(format, named[i].name) == 0)
			return &named[i];
	return NULL;
}

const char *
uidl_check(const char *format)
{
	struct part parts[PARTS_MAX];

	if (named_find(format) != NULL)
		return NULL;
	if (strchr(format, '%') == NULL)
		return "unknown format; " ACCEPTED;
	return template_parse(format, parts) > 0 ? NULL : "not a format, or it has nothing of the message's own; " ACCEPTED;
}

static bool
template_has(const struct uidl *u, const char *variables)
{
	for (size_t i = 0; i < u->count; i++)
		if (u->parts[i].variable != 0 && strchr(variables, u->parts[i].variable) != NULL)
			return true;
	return false;
}

struct uidl *
uidl_open(const char *format, enum maildrop_kind kind, int directory)
{
	const struct named *n = named_find(format);
	struct uidl *u;

	if (uidl_check(format) != NULL) {
		errno = EINVAL;
		return NULL;
	}
	if ((u = calloc(1, sizeof *u)) == NULL || (u->content = content_new()) == NULL) {
		uidl_close(u);
		errno = ENOMEM;
		return NULL;
	}
	u->kind = kind;
	uidl_start(u);
	u->scheme = n != NULL ? n->scheme : SCHEME_TEMPLATE;
	const char *template = n != NULL ? n->template : format;
	if (u->scheme == SCHEME_TEMPLATE)
		u->count = template_parse(template, u->parts);
	/* Two names for one thing are one context, so that a change from one to the other forgets nothing. */
	u->context = XXH3_64bits(template, template == NULL ? 0 : strlen(template)) ^ u->scheme;
	if (kind == MAILDROP_MAILDIR && directory != -1 && u->scheme == SCHEME_TEMPLATE && template_has(u, "uvg"))
		u->old = oldids_open(directory, OLDIDS_DOVECOT);
	if (kind == MAILDROP_MAILDIR && directory != -1 && u->scheme == SCHEME_COURIER)
		u->old = oldids_open(directory, OLDIDS_COURIER);
	u->reads_header = u->scheme == SCHEME_X_UIDL || u->scheme == SCHEME_POPA3D || template_has(u, "m") ||
	    (kind == MAILDROP_MBOX && u->scheme == SCHEME_TEMPLATE);
	return u;
}

void
uidl_close(struct uidl *u)
{
	if (u == NULL)
		return;
	oldids_close(u->old);
	free(u->content);
	free(u->line);
	free(u);
}

uint64_t
uidl_context(const struct uidl *u)
{
	return u->context;
}

bool
uidl_wants_content(const struct uidl *u)
{
	return u->kind == MAILDROP_MAILDIR && u->reads_header;
}

void
uidl_start(struct uidl *u)
{
	u->first = true;
	u->validity = u->last_uid = u->previous_uid = 0;
	u->goes_on = u->unsure = false;
}

bool
uidl_wants_head(const struct uidl *u)
{
	return u->kind == MAILDROP_MBOX && u->scheme == SCHEME_TEMPLATE && template_has(u, "uv");
}

void
uidl_go_on(struct uidl *u)
{
	u->goes_on = true;
	/* a header that has no end yet may go on to say something of the mailbox */
	u->unsure = u->in_header && uidl_wants_head(u);
}

bool
uidl_is_sure(const struct uidl *u)
{
	return !u->unsure;
}

void
uidl_begin(struct uidl *u, const char *from_line, size_t length)
{
	(void)from_line;
	(void)length;
	content_begin(u->content);
	u->begun = true;
	u->in_header = u->reads_header;
	u->has_received = false;
	u->field = FIELD_OTHER;
	u->uid = 0;
	u->x_uidl_length = 0;
	u->line_length = 0;
	if (u->reads_header)
		md5_init(&u->md5);
}

static void
hash_value(struct uidl *u, const char *value, size_t length)
{
	md5_update(&u->md5, length, (const uint8_t *)value);
}

/*
 * What popa3d hashes, and Dovecot after it: what the local delivery made, which is Delivered-To, X-Delivery-ID
 * and the first Received; and the sender's Date and Message-ID only above or without a Received. popa3d takes
 * the whole line, Dovecot its value (of a folded line: all of it).
 */
static void
field_hash(struct uidl *u, const char *line, size_t length, size_t value)
{
	bool counts = u->field == FIELD_DELIVERED_TO || u->field == FIELD_X_DELIVERY_ID || (!u->has_received &&
	    (u->field == FIELD_DATE || u->field == FIELD_MESSAGE_ID || u->field == FIELD_RECEIVED));

	if (!counts)
		return;
	if (u->scheme == SCHEME_POPA3D) {
		hash_value(u, line, length);
		hash_value(u, "\n", 1);
		return;
	}
	if (length > 0 && line[length - 1] == '\r')
		length--;
	hash_value(u, line + value, length - value);
}

static uint64_t
number_of(const char *value, size_t length, size_t *used)
{
	uint64_t number = 0;
	size_t i = 0;

	for (; i < length && isdigit((unsigned char)value[i]) && number <= UINT32_MAX; i++)
		number = number * 10 + (uint64_t)(value[i] - '0');
	if (used != NULL)
		*used = i;
	return number > UINT32_MAX ? 0 : number;
}

/* "VALIDITY LAST-UID keywords": of the whole mailbox, and only at its head. */
static void
base_read(struct uidl *u, const char *value, size_t length)
{
	size_t used;

	if (!u->first || u->validity != 0)
		return;
	u->validity = number_of(value, length, &used);
	while (used < length && value[used] == ' ')
		used++;
	u->last_uid = number_of(value + used, length - used, NULL);
}

static void
field_read(struct uidl *u, enum field field, const char *value, size_t length)
{
	switch (field) {
	case FIELD_X_UID:
		u->uid = number_of(value, length, NULL);
		break;
	case FIELD_X_IMAP:
		base_read(u, value, length);
		break;
	case FIELD_X_UIDL:
		while (length > 0 && isspace((unsigned char)value[length - 1]))
			length--;
		if (u->x_uidl_length == 0 && length < sizeof u->x_uidl) {
			memcpy(u->x_uidl, value, length);
			u->x_uidl_length = length;
		}
		break;
	default:
		break;
	}
}

static enum field
field_of(const char *line, size_t length, size_t *value)
{
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		size_t n = strlen(fields[i].name);
		if (length >= n && strncasecmp(line, fields[i].name, n) == 0) {
			for (*value = n; *value < length && (line[*value] == ' ' || line[*value] == '\t');)
				(*value)++;
			return fields[i].field;
		}
	}
	return FIELD_OTHER;
}

/* One line of the header, without its LF. */
static void
header_line(struct uidl *u, const char *line, size_t length)
{
	size_t text = length > 0 && line[length - 1] == '\r' ? length - 1 : length, value = 0;

	if (text == 0) {
		u->in_header = false;
		return;
	}
	if (*line != ' ' && *line != '\t') {
		/* Only now is it known that the Received line has no more to it. */
		u->has_received |= u->field == FIELD_RECEIVED;
		u->field = field_of(line, text, &value);
		field_read(u, u->field, line + value, text - value);
	}
	field_hash(u, line, length, value);
}

static void
line_keep(struct uidl *u, const char *data, size_t length)
{
	size_t room = LINE_MAX_KEPT - u->line_length;

	length = length < room ? length : room;
	if (u->line_length + length > u->line_room) {
		char *more = realloc(u->line, u->line_length + length + 512);
		if (more == NULL)
			return;
		u->line = more;
		u->line_room = u->line_length + length + 512;
	}
	memcpy(u->line + u->line_length, data, length);
	u->line_length += length;
}

static void
header_read(struct uidl *u, const char *data, size_t length)
{
	while (u->in_header && length > 0) {
		const char *nl = memchr(data, '\n', length);
		size_t n = nl == NULL ? length : (size_t)(nl - data);
		if (nl == NULL || u->line_length > 0)
			line_keep(u, data, n);
		if (nl == NULL)
			return;
		if (u->line_length > 0)
			header_line(u, u->line, u->line_length);
		else
			header_line(u, data, n < LINE_MAX_KEPT ? n : LINE_MAX_KEPT);
		u->line_length = 0;
		data = nl + 1;
		length -= n + 1;
	}
}

void
uidl_add(struct uidl *u, const char *data, size_t length)
{
	/* A Maildir's messages are known by name, so only what the format reads of them is looked at. */
	if (u->kind == MAILDROP_MBOX)
		content_add(u->content, data, length);
	if (u->in_header)
		header_read(u, data, length);
}

/* Sets the id if it is one that may be sent. */
static bool
id_set(struct uidl_id *id, const char *text, size_t length)
{
	if (length == 0 || length > UID_MAX)
		return false;
	for (size_t i = 0; i < length; i++)
		if (text[i] < 0x21 || text[i] > 0x7e)
			return false;
	memcpy(id->text, text, length);
	id->length = (uint32_t)length;
	return true;
}

/*
 * 16 octets as 22 of A-Z a-z 0-9 - and _ (RFC 4648 section 5). Nothing secret, so not libsodium's, which takes
 * ten times as long.
 */
static void
id_set_hash(struct uidl_id *id, const uint8_t hash[static FINGERPRINT_SIZE])
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint32_t bits = 0;
	unsigned have = 0;

	id->length = 0;
	for (size_t i = 0; i < FINGERPRINT_SIZE; i++) {
		bits = bits << 8 | hash[i];
		for (have += 8; have >= 6; have -= 6)
			id->text[id->length++] = digits[bits >> (have - 6) & 63];
	}
	id->text[id->length++] = digits[bits << (6 - have) & 63];
}

/* What is known of the message under other servers' rules. */
struct facts {
	uint64_t uid;
	uint64_t validity;
	char md5[33];
	const char *file;
	size_t file_length;
	struct oldids_text guid;
};

/* One variable's text; its length, or 0 if it is not known. */
static size_t
variable_text(const struct part *p, const struct facts *f, char *to, size_t size)
{
	uint64_t number = p->variable == 'u' ? f->uid : f->validity;
	const char *text = f->md5;
	size_t length = strlen(f->md5);

	switch (p->variable) {
	case 'u':
	case 'v':
		if (f->uid == 0 || f->validity == 0)
			return 0;
		return (size_t)snprintf(to, size, "%llu", (unsigned long long)number);
	case 'g':
	case 'f':
		if (p->variable == 'g' && f->guid.length > 0) {
			text = f->guid.at;
			length = f->guid.length;
		} else if (f->file != NULL || p->variable == 'f') {
			text = f->file;
			length = f->file_length;
		}
	}
	if (length >= size || text == NULL)
		return 0;
	memcpy(to, text, length);
	return length;
}

static void
text_reverse(char *text, size_t length)
{
	for (size_t i = 0; i < length / 2; i++) {
		char c = text[i];
		text[i] = text[length - 1 - i];
		text[length - 1 - i] = c;
	}
}

/* Each in turn, on what the one before it left. Returns the text's new length. */
static size_t
text_modify(const struct part *p, char *text, size_t length, size_t size)
{
	for (const char *m = p->modifiers; *m != '\0'; m++) {
		text[length] = '\0';
		if (*m == 'X')
			length = (size_t)snprintf(text, size, "%llx", strtoull(text, NULL, 10));
		else if (*m == 'R')
			text_reverse(text, length);
		else
			for (size_t i = 0; i < length; i++)
				text[i] = (char)(*m == 'U' ? toupper((unsigned char)text[i]) : tolower((unsigned char)text[i]));
	}
	return length;
}

/*
 * The text from its offset, in its width: cut, or with zeroes before it and then never cut. Returns how much
 * was written, 0 if it does not fit.
 */
static size_t
text_place(const struct part *p, const char *text, size_t length, char *to, size_t room)
{
	size_t skip = p->offset >= 0 ? (size_t)p->offset : (size_t)-p->offset > length ? 0 : length - (size_t)-p->offset;
	size_t pad = 0;

	skip = skip < length ? skip : length;
	text += skip;
	length -= skip;
	if (p->zeroes && length < p->width)
		pad = p->width - length;
	else if (!p->zeroes && p->width > 0 && length > p->width)
		length = p->width;
	if (pad + length > room)
		return 0;
	memset(to, '0', pad);
	memcpy(to + pad, text, length);
	return pad + length;
}

static bool
template_fill(const struct uidl *u, const struct facts *f, struct uidl_id *id)
{
	char out[UID_MAX + 1], text[256];
	size_t used = 0;

	for (size_t i = 0; i < u->count; i++) {
		const struct part *p = &u->parts[i];
		if (used == UID_MAX)
			return false;
		if (p->variable == 0) {
			out[used++] = p->letter;
			continue;
		}
		size_t length = variable_text(p, f, text, sizeof text);
		if (length == 0)
			return false;
		length = text_modify(p, text, length, sizeof text);
		size_t n = text_place(p, text, length, out + used, UID_MAX - used);
		if (n == 0)
			return false;
		used += n;
	}
	return id_set(id, out, used);
}

static void
md5_text(struct uidl *u, struct facts *f)
{
	uint8_t digest[MD5_DIGEST_SIZE];

	md5_digest(&u->md5, sizeof digest, digest);
	sodium_bin2hex(f->md5, sizeof f->md5, digest, sizeof digest);
}

/* Half of the MD5, as popa3d prints it: two words, the bytes of each from the last to the first. */
static void
popa3d_fill(struct uidl *u, struct uidl_id *id)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t digest[MD5_DIGEST_SIZE];

	md5_digest(&u->md5, sizeof digest, digest);
	for (size_t i = 0; i < 8; i++) {
		uint8_t octet = digest[i ^ 3];
		id->text[2 * i] = digits[octet >> 4];
		id->text[2 * i + 1] = digits[octet & 15];
	}
	id->length = 16;
}

/* Dovecot counts a message's X-UID only if it rises and lies within what the mailbox says it has given. */
static void
uid_settle(struct uidl *u, struct facts *f)
{
	u->first = false;
	if (u->uid <= u->previous_uid || u->uid > u->last_uid)
		return;
	u->unsure |= u->goes_on;
	u->previous_uid = u->uid;
	f->uid = u->uid;
	f->validity = u->validity;
}

void
uidl_end(struct uidl *u, struct uidl_id *id)
{
	struct facts f = { 0 };
	bool named_by_old = false;

	*id = (struct uidl_id){ 0 };
	if (u->in_header && u->line_length > 0)
		header_line(u, u->line, u->line_length);
	content_end(u->content, id->fingerprint);
	uid_settle(u, &f);
	if (u->scheme == SCHEME_TEMPLATE) {
		md5_text(u, &f);
		named_by_old = template_fill(u, &f, id);
	} else if (u->scheme == SCHEME_X_UIDL)
		named_by_old = id_set(id, u->x_uidl, u->x_uidl_length);
	else if (u->scheme == SCHEME_POPA3D) {
		popa3d_fill(u, id);
		named_by_old = true;
	}
	if (!named_by_old)
		id_set_hash(id, id->fingerprint);
	u->begun = false;
}

/* The name is not one that may be sent, or too long: a hash of it. */
static void
id_set_name(struct uidl_id *id, const char *base, size_t length)
{
	uint8_t hash[FINGERPRINT_SIZE];

	if (id_set(id, base, length))
		return;
	crypto_generichash(hash, sizeof hash, (const unsigned char *)base, length, NULL, 0);
	id_set_hash(id, hash);
}

/* "UIDn-validity", "UIDn", or for the oldest the file's name with what Courier would not send as +XX. */
static bool
courier_fill(const struct oldid *old, const char *base, size_t length, struct uidl_id *id)
{
	char text[UID_MAX + 4];
	size_t used = 0;

	if (old->uid != 0) {
		int n = snprintf(text, sizeof text, old->validity != 0 ? "UID%llu-%llu" : "UID%llu", (unsigned long long)old->uid,
		    (unsigned long long)old->validity);
		return id_set(id, text, (size_t)n);
	}
	for (size_t i = 0; i < length && used <= UID_MAX; i++) {
		unsigned char c = (unsigned char)base[i];
		if (c < 0x21 || c > 0x7e || c == '\'' || c == '"' || c == '+')
			used += (size_t)snprintf(text + used, 4, "+%02X", c);
		else
			text[used++] = (char)c;
	}
	return id_set(id, text, used);
}

static bool
old_name(struct uidl *u, const char *base, size_t length, struct uidl_id *id)
{
	struct facts f = { .file = base, .file_length = length };
	struct oldid old = { 0 };
	bool known = u->old != NULL && oldids_find(u->old, base, length, &old);

	if (u->scheme == SCHEME_COURIER)
		return known && courier_fill(&old, base, length, id);
	if (u->scheme == SCHEME_X_UIDL)
		return u->begun && id_set(id, u->x_uidl, u->x_uidl_length);
	if (u->scheme == SCHEME_POPA3D && u->begun) {
		popa3d_fill(u, id);
		return true;
	}
	if (u->scheme != SCHEME_TEMPLATE)
		return false;
	/* An id that Dovecot itself has imported or saved goes before its format. */
	if (id_set(id, old.saved.at, old.saved.length))
		return true;
	f.uid = old.uid;
	f.validity = old.validity;
	f.guid = old.guid;
	if (u->begun && template_has(u, "m"))
		md5_text(u, &f);
	return template_fill(u, &f, id);
}

void
uidl_name(struct uidl *u, const char *name, size_t length, struct uidl_id *id)
{
	const char *colon = memchr(name, ':', length);
	size_t base = colon == NULL ? length : (size_t)(colon - name);

	*id = (struct uidl_id){ 0 };
	if (u->begun && u->in_header && u->line_length > 0)
		header_line(u, u->line, u->line_length);
	if (!old_name(u, name, base, id))
		id_set_name(id, name, base);
	u->begun = false;
}
