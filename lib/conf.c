/* The configuration: a table of keys, and one function a type of value. */
#include "conf.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "language.h"
#include "system.h"

enum type { TYPE_STRING, TYPE_ACCOUNT, TYPE_PATH, TYPE_PATTERN, TYPE_NUMBER, TYPE_CHOICE, TYPE_SET, TYPE_PATHS, TYPE_NETWORKS };

struct word {
	const char *word;
	int value;
};

struct key {
	const char *section, *name;
	enum type type;
	size_t offset;
	const char *preset;		/* the default, as it would be written */
	const struct word *words;	/* TYPE_CHOICE and TYPE_SET; the one without a word ends them */
	uint64_t min, max;		/* TYPE_NUMBER; TYPE_SET: how many words at the least; TYPE_PATH: octets at the most, 0: CONF_STRING */
	const char *accepted;		/* for errors and the manual */
};

static const struct word log_words[] = { { "syslog", LOG_TO_SYSLOG }, { "stderr", LOG_TO_STDERR }, { NULL, 0 } };
static const struct word level_words[] = { { "error", LOG_ERR }, { "warning", LOG_WARNING }, { "info", LOG_INFO },
	{ "debug", LOG_DEBUG }, { NULL, 0 } };
static const struct word sandbox_words[] = { { "required", SANDBOX_REQUIRED }, { "best-effort", SANDBOX_BEST_EFFORT },
	{ "off", SANDBOX_OFF }, { NULL, 0 } };
static const struct word cleartext_words[] = { { "loopback", CLEARTEXT_LOOPBACK }, { "never", CLEARTEXT_NEVER },
	{ "always", CLEARTEXT_ALWAYS }, { NULL, 0 } };
static const struct word bool_words[] = { { "yes", 1 }, { "no", 0 }, { "on", 1 }, { "off", 0 }, { NULL, 0 } };
static const struct word tls_words[] = { { "1.2", 12 }, { "1.3", 13 }, { NULL, 0 } };
static const struct word store_words[] = { { "db", STORE_DB }, { "pam", STORE_PAM }, { NULL, 0 } };
static const struct word kind_words[] = { { "auto", STORE_AUTO }, { "mbox", STORE_MBOX }, { "maildir", STORE_MAILDIR },
	{ NULL, 0 } };
static const struct word lock_words[] = { { "fcntl", LOCK_FCNTL }, { "dotlock", LOCK_DOTLOCK }, { "flock", LOCK_FLOCK },
	{ NULL, 0 } };
static const struct word copy_words[] = { { "as-client-says", COPY_AS_CLIENT_SAYS }, { "keep", COPY_KEEP },
	{ "mark-read", COPY_MARK_READ }, { "archive", COPY_ARCHIVE }, { "delete", COPY_DELETE }, { NULL, 0 } };
static const struct word language_words[] = { { "en", LANGUAGE_ENGLISH }, { "fr", LANGUAGE_FRENCH }, { NULL, 0 } };
static const struct word header_words[] = { { "send", UTF8_HEADERS_SEND }, { "refuse", UTF8_HEADERS_REFUSE }, { NULL, 0 } };
static const struct word mechanism_words[] = {
	{ "SCRAM-SHA-256-PLUS", MECHANISM_SCRAM_SHA_256_PLUS }, { "SCRAM-SHA-256", MECHANISM_SCRAM_SHA_256 },
	{ "EXTERNAL", MECHANISM_EXTERNAL }, { "CRAM-MD5", MECHANISM_CRAM_MD5 }, { "PLAIN", MECHANISM_PLAIN },
	{ "LOGIN", MECHANISM_LOGIN }, { "USER", MECHANISM_USER }, { "APOP", MECHANISM_APOP }, { NULL, 0 } };

#define AT(field) offsetof(struct conf, field)
#define STRING(s, n, field, preset, accepted) { s, n, TYPE_STRING, AT(field), preset, NULL, 0, 0, accepted }
#define ACCOUNT(s, n, field, preset) { s, n, TYPE_ACCOUNT, AT(field), preset, NULL, 0, 0, "the name of an account that is not root" }
#define PATH(s, n, field, preset, accepted) { s, n, TYPE_PATH, AT(field), preset, NULL, 0, 0, accepted }
#define PATTERN(s, n, field, preset) { s, n, TYPE_PATTERN, AT(field), preset, NULL, 0, 0, \
	"an absolute path or one that starts with ~/, with %u for the user's name and %% for a %" }
#define NUMBER(s, n, field, preset, min, max, accepted) { s, n, TYPE_NUMBER, AT(field), preset, NULL, min, max, accepted }
#define CHOICE(s, n, field, preset, words, accepted) { s, n, TYPE_CHOICE, AT(field), preset, words, 0, 0, accepted }
#define SET(s, n, field, preset, words, least, accepted) { s, n, TYPE_SET, AT(field), preset, words, least, 0, accepted }

/* The longest name of a socket in run-dir must fit an address, too. */
#define RUN_DIR_MOST (sizeof ((struct sockaddr_un *)0)->sun_path - sizeof "/keeper.sock")
_Static_assert(RUN_DIR_MOST == 95, "what the row of run-dir says is accepted");

static const struct key keys[] = {
	{ "postern", "run-dir", TYPE_PATH, AT(run_dir), "/run/postern", NULL, 0, RUN_DIR_MOST, "an absolute path of at most 95 characters" },
	PATH("postern", "state-dir", state_dir, "/var/lib/postern", "an absolute path"),
	CHOICE("postern", "log", log, "syslog", log_words, "syslog, stderr"),
	CHOICE("postern", "log-level", log_level, "info", level_words, "error, warning, info, debug"),
	CHOICE("postern", "sandbox", sandbox, "required", sandbox_words, "required, best-effort, off"),

	ACCOUNT("pop3d", "user", pop3d_user, "_postern"),
	CHOICE("pop3d", "cleartext-login", cleartext_login, "loopback", cleartext_words, "loopback, never, always"),
	NUMBER("pop3d", "max-connections", max_connections, "1000", 1, 100000, "a number from 1 to 100000"),
	NUMBER("pop3d", "max-per-address", max_per_address, "50", 1, 100000, "a number from 1 to 100000"),
	NUMBER("pop3d", "login-timeout", login_timeout, "60", 1, 3600, "seconds, from 1 to 3600"),
	NUMBER("pop3d", "idle-timeout", idle_timeout, "600", 1, 86400,
	    "seconds, from 1 to 86400 (RFC 1939 wants at least 600)"),
	NUMBER("pop3d", "minimum-rate", minimum_rate, "100", 0, 1000000, "octets a second, from 0 (any rate) to 1000000"),
	NUMBER("pop3d", "prefork", prefork, "4", 0, 1000, "a number from 0 to 1000"),
	{ "pop3d", "proxy-protocol-from", TYPE_NETWORKS, AT(proxy_protocol_from), "", NULL, 0, 0,
	    "addresses and networks such as 192.0.2.1 2001:db8::/32" },
	CHOICE("pop3d", "language", language, "en", language_words, "en, fr"),
	CHOICE("pop3d", "raw-headers", utf8_headers, "send", header_words, "send, refuse"),

	{ "tls", "certificate", TYPE_PATHS, AT(certificate), "", NULL, 0, 0, "absolute paths, as many as keys" },
	{ "tls", "key", TYPE_PATHS, AT(key), "", NULL, 0, 0, "absolute paths, as many as certificates" },
	CHOICE("tls", "minimum", tls_minimum, "1.2", tls_words, "1.2, 1.3"),
	PATH("tls", "client-ca", client_ca, "", "an absolute path, or nothing"),

	ACCOUNT("authd", "user", authd_user, "_postern-auth"),
	SET("authd", "stores", stores, "db pam", store_words, 1, "db, pam"),
	PATH("authd", "db", db, "/etc/postern/users.db", "an absolute path"),
	STRING("authd", "pam-service", pam_service, "postern", "the name of a file in /etc/pam.d"),
	SET("authd", "mechanisms", mechanisms, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 EXTERNAL PLAIN LOGIN USER", mechanism_words, 1,
	    "SCRAM-SHA-256-PLUS, SCRAM-SHA-256, EXTERNAL, CRAM-MD5, PLAIN, LOGIN, USER, APOP"),
	NUMBER("authd", "cache-ttl", cache_ttl, "300", 0, 86400, "seconds, from 0 (nothing is remembered) to 86400"),
	NUMBER("authd", "hashers", hashers, "0", 0, 64, "a number from 1 to 64, or 0 for the number of cores"),
	CHOICE("authd", "throttle", throttle, "on", bool_words, "on, off"),
	{ "authd", "throttle-exempt", TYPE_NETWORKS, AT(throttle_exempt), "", NULL, 0, 0,
	    "addresses and networks such as 192.0.2.1 2001:db8::/32" },
	NUMBER("authd", "login-delay", login_delay, "0", 0, 86400, "seconds, from 0 (none) to 86400"),

	CHOICE("spoold", "store", store, "auto", kind_words, "auto, mbox, maildir"),
	PATTERN("spoold", "mbox", mbox, "/var/mail/%u"),
	PATTERN("spoold", "maildir", maildir, "~/Maildir"),
	SET("spoold", "mbox-locks", mbox_locks, "fcntl dotlock", lock_words, 1, "fcntl, dotlock, flock"),
	NUMBER("spoold", "min-uid", min_uid, "1000", 1, UINT32_MAX - 1, "a number from 1 to 4294967294"),
	STRING("spoold", "virtual-user", virtual_user, "", "the name of an account, or nothing"),
	CHOICE("spoold", "takeover", takeover, "no", bool_words, "yes, no"),
	CHOICE("spoold", "server-copy", server_copy, "as-client-says", copy_words,
	    "as-client-says, keep, mark-read, archive, delete"),
	SET("spoold", "server-copy-choice", server_copy_choice, "as-client-says keep mark-read", copy_words, 0,
	    "as-client-says, keep, mark-read, archive, delete, or nothing"),
	NUMBER("spoold", "expire", expire, "0", 0, 36500, "days, from 1 to 36500, or 0 for never"),
	STRING("spoold", "uidl-format", uidl_format, "postern", "postern, dovecot, courier, cyrus, qmail, popa3d, mailutils, or a format with %"),
	NUMBER("spoold", "linger", linger, "600", 0, 600, "seconds, from 0 (no worker waits) to 600"),
	NUMBER("spoold", "linger-workers", linger_workers, "64", 0, 10000, "a number from 0 to 10000"),
};
#define KEYS (sizeof keys / sizeof keys[0])
_Static_assert(KEYS <= CONF_KEYS, "conf.h has no room for the lines of so many keys");

/* What a running program cannot take over: it was done once, and by what has since been given up. All other keys it can. */
static const struct {
	const char *section, *name;
	unsigned programs;		/* a bit for each enum conf_program */
} restarts[] = {
#define POP3D	(1u << PROGRAM_POP3D)
#define AUTHD	(1u << PROGRAM_AUTHD)
#define SPOOLD	(1u << PROGRAM_SPOOLD)
	{ "postern", "run-dir", POP3D | AUTHD | SPOOLD },
	{ "postern", "state-dir", AUTHD | SPOOLD },
	{ "postern", "log", POP3D | AUTHD | SPOOLD },
	{ "postern", "sandbox", POP3D | AUTHD | SPOOLD },
	{ "pop3d", "user", AUTHD },
	{ "pop3d", "max-connections", POP3D },
	{ "pop3d", "prefork", POP3D },
	{ "authd", "user", AUTHD | SPOOLD },
};
#define RESTARTS (sizeof restarts / sizeof restarts[0])

struct parse {
	struct conf *conf;
	FILE *file;
	bool too_long;
	unsigned line;
	unsigned error_line;
	bool seen[KEYS];
	bool indented;		/* the line is */
	bool open;		/* and goes on with a key's value if it is: there has been one in this section */
	char error[768];	/* the first one: "[section] key: ..." */
};

static void *
field(struct conf *c, const struct key *k)
{
	return (char *)c + k->offset;
}

static const void *
field_const(const struct conf *c, const struct key *k)
{
	return (const char *)c + k->offset;
}

/* Each of these takes one value; NULL, or what is wrong with it. */

static const char *
set_string(struct conf *c, const struct key *k, const char *value)
{
	if (!string_copy(field(c, k), CONF_STRING, value))
		return "too long";
	return NULL;
}

/* Of a daemon's processes that are not to be root. */
static const char *
set_account(struct conf *c, const struct key *k, const char *value)
{
	if (value[0] == '\0')
		return "is empty";
	if (strcmp(value, "root") == 0)
		return "is root";
	return set_string(c, k, value);
}

static const char *
set_path(struct conf *c, const struct key *k, const char *value)
{
	if (value[0] != '/' && !(value[0] == '\0' && k->preset[0] == '\0'))
		return "not an absolute path";
	if (k->max > 0 && strlen(value) > k->max)
		return "too long for what lies in it";
	return set_string(c, k, value);
}

/* What spoold makes a path of for each user: grant_expand. */
static const char *
set_pattern(struct conf *c, const struct key *k, const char *value)
{
	if (value[0] != '/' && strncmp(value, "~/", 2) != 0)
		return "not a path";
	for (const char *at = value; (at = strchr(at, '%')) != NULL; at += 2)
		if (at[1] != 'u' && at[1] != '%')
			return "has a % that nothing stands for";
	return set_string(c, k, value);
}

static const char *
set_number(struct conf *c, const struct key *k, const char *value)
{
	return number_parse(value, k->min, k->max, field(c, k));
}

static const struct word *
word_find(const struct word *words, const char *word, size_t length)
{
	for (; words->word != NULL; words++)
		if (strlen(words->word) == length && strncasecmp(words->word, word, length) == 0)
			return words;
	return NULL;
}

static const char *
set_choice(struct conf *c, const struct key *k, const char *value)
{
	const struct word *w = word_find(k->words, value, strlen(value));

	if (w == NULL)
		return "not one of the accepted words";
	*(int *)field(c, k) = w->value;
	return NULL;
}

/* The next word of a list, blanks and commas between; NULL at the end. */
static const char *
word_next(const char **at, size_t *length)
{
	const char *word = *at + strspn(*at, " \t,");

	*length = strcspn(word, " \t,");
	*at = word + *length;
	return *length > 0 ? word : NULL;
}

static const char *
set_set(struct conf *c, const struct key *k, const char *value)
{
	struct conf_set *set = field(c, k);
	const char *word;
	size_t length;

	while ((word = word_next(&value, &length)) != NULL) {
		const struct word *w = word_find(k->words, word, length);
		if (w == NULL)
			return "has a word that is not accepted";
		if (conf_has(set, (uint32_t)w->value))
			return "has a word twice";
		set->item[set->count++] = (uint32_t)w->value;
	}
	return NULL;	/* more may follow; whether it is empty is seen at the end */
}

static const char *
set_paths(struct conf *c, const struct key *k, const char *value)
{
	struct conf_paths *paths = field(c, k);
	const char *word;
	size_t length;

	while ((word = word_next(&value, &length)) != NULL) {
		if (word[0] != '/')
			return "not an absolute path";
		if (length >= CONF_STRING)
			return "too long";
		if (paths->count == CONF_PAIRS)
			return "too many (16 at most)";
		memcpy(paths->path[paths->count], word, length);
		paths->path[paths->count++][length] = '\0';
	}
	return NULL;
}

static const char *
network_parse(struct conf_network *n, const char *word, size_t length)
{
	char text[64];
	uint64_t bits;

	if (length >= sizeof text)
		return "has something that is not an address";
	memcpy(text, word, length);
	text[length] = '\0';
	char *slash = strchr(text, '/');
	if (slash != NULL)
		*slash = '\0';
	n->family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
	unsigned max = n->family == AF_INET6 ? 128 : 32;
	if (inet_pton(n->family, text, n->address) != 1)
		return "has something that is not an address";
	bits = max;
	if (slash != NULL && number_parse(slash + 1, 0, max, &bits) != NULL)
		return "has a network whose prefix length is wrong";
	n->bits = (unsigned)bits;
	return NULL;
}

bool
conf_network_parse(struct conf_network *n, const char *text)
{
	memset(n, 0, sizeof *n);
	return network_parse(n, text, strlen(text)) == NULL;
}

static const char *
set_networks(struct conf *c, const struct key *k, const char *value)
{
	struct conf_networks *n = field(c, k);
	const char *word, *wrong;
	size_t length;

	while ((word = word_next(&value, &length)) != NULL) {
		if (n->count == CONF_NETWORKS)
			return "too many (32 at most)";
		if ((wrong = network_parse(&n->network[n->count], word, length)) != NULL)
			return wrong;
		n->count++;
	}
	return NULL;
}

static const char *(*const setters[])(struct conf *, const struct key *, const char *) = {
	[TYPE_STRING] = set_string, [TYPE_ACCOUNT] = set_account, [TYPE_PATH] = set_path, [TYPE_PATTERN] = set_pattern,
	[TYPE_NUMBER] = set_number, [TYPE_CHOICE] = set_choice, [TYPE_SET] = set_set, [TYPE_PATHS] = set_paths, [TYPE_NETWORKS] = set_networks,
};

/* The keys of a section into `out`, for the error about one that is unknown. */
static void
list_keys(const char *section, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < KEYS; i++)
		if (strcmp(keys[i].section, section) == 0 && used < size)
			used += (size_t)snprintf(out + used, size - used, "%s%s", used > 0 ? ", " : "", keys[i].name);
}

#define SECTIONS "[postern], [pop3d], [tls], [authd], [spoold]"

static void
error_unknown(struct parse *p, const char *section, const char *name)
{
	char list[512];

	list_keys(section, list, sizeof list);
	if (section[0] == '\0')
		snprintf(p->error, sizeof p->error, "%.60s: stands before any [section]; accepted: " SECTIONS, name);
	else if (list[0] == '\0')
		snprintf(p->error, sizeof p->error, "[%.60s]: unknown section; accepted: " SECTIONS, section);
	else
		snprintf(p->error, sizeof p->error, "[%.60s] %.60s: unknown key; accepted: %s", section, name, list);
}

static void
set_clear(struct conf_set *set)
{
	set->count = 0;
}

static uint32_t
set_count(const struct conf *c, const struct key *k)
{
	const struct conf_set *set = field_const(c, k);

	return set->count;
}

static bool
is_list(const struct key *k)
{
	return k->type == TYPE_SET || k->type == TYPE_PATHS || k->type == TYPE_NETWORKS;
}

/* What inih does in a key's first line alone. */
static void
comment_cut(char *value)
{
	for (char *at = value; (at = strchr(at, ';')) != NULL; at++)
		if (at > value && isspace((unsigned char)at[-1])) {
			*at = '\0';
			return;
		}
}

/* The value of a key's first line, or more of it. NULL, or what is wrong. */
static const char *
value_take(struct parse *p, size_t i, char *value, bool continued)
{
	const struct key *k = &keys[i];

	if (continued && !is_list(k))
		return "an indented line goes on with the key above it, which takes one value alone";
	if (continued)
		comment_cut(value);
	if (!continued && p->seen[i] && (!is_list(k) || k->type == TYPE_SET))
		return "given twice";
	if (!continued && k->type == TYPE_SET)
		set_clear(field(p->conf, k));	/* the default's words go */
	p->seen[i] = true;
	return setters[k->type](p->conf, k, value);
}

/* inih's handler: 1 for a good line, 0 for a bad one, whose number ini_parse_stream returns. */
static int
on_key(void *user, const char *section, const char *name, const char *value)
{
	struct parse *p = user;
	bool continued = p->open && p->indented;
	char text[CONF_STRING];
	size_t i;

	p->open = true;
	if (p->error[0] != '\0')
		return 1;	/* the first error is the one that is told */
	for (i = 0; i < KEYS; i++)
		if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
			break;
	p->error_line = p->line;
	if (i == KEYS) {
		error_unknown(p, section, name);
		return 0;
	}
	if (p->conf->line[i] == 0)
		p->conf->line[i] = p->line;
	string_copy(text, sizeof text, value);
	const char *wrong = value_take(p, i, text, continued);
	if (wrong == NULL)
		return 1;
	snprintf(p->error, sizeof p->error, "[%s] %s: \"%.200s\": %s; accepted: %s", section, name, value, wrong,
	    keys[i].accepted);
	return 0;
}

/* inih goes on with the section before, whose keys are then said to be wrong. */
static void
section_check(struct parse *p, const char *line)
{
	if (p->error[0] != '\0' || strchr(line, ']') != NULL)
		return;
	p->error_line = p->line;
	snprintf(p->error, sizeof p->error, "\"%.*s\": a section without its ]; accepted: " SECTIONS, (int)strcspn(line, "\r\n"), line);
}

/* inih's reader. A line that does not fit its buffer would go on as the next one: an error instead. */
static char *
read_line(char *line, int size, void *stream)
{
	struct parse *p = stream;

	if (p->too_long || fgets(line, size, p->file) == NULL)
		return NULL;
	p->line++;
	size_t n = strlen(line);
	if (n == (size_t)size - 1 && line[n - 1] != '\n') {
		p->too_long = true;
		return NULL;
	}
	p->indented = isspace((unsigned char)line[0]);
	if (line[strspn(line, " \t\v\f\r")] == '[' && !(p->indented && p->open)) {
		p->open = false;
		section_check(p, line);
	}
	return line;
}

static void
conf_presets(struct conf *c)
{
	memset(c, 0, sizeof *c);
	for (size_t i = 0; i < KEYS; i++)
		setters[keys[i].type](c, &keys[i], keys[i].preset);
}

struct whole {
	const struct conf *conf;
	char *error;
	size_t size;
};

/* The error about a key, with the line in which it stands, if it does. False. */
__attribute__((format(printf, 4, 5)))
static bool
whole_wrong(const struct whole *w, const char *section, const char *name, const char *format, ...)
{
	char wrong[512], place[CONF_PLACE];
	va_list ap;

	va_start(ap, format);
	vsnprintf(wrong, sizeof wrong, format, ap);
	va_end(ap);
	snprintf(w->error, w->size, "%s: %s", conf_place(w->conf, section, name, place, sizeof place), wrong);
	return false;
}

/* What one line alone cannot tell. False, with the error, if something is wrong. */
static bool
conf_whole(const struct whole *w)
{
	const struct conf *c = w->conf;

	for (size_t i = 0; i < KEYS; i++)
		if (keys[i].type == TYPE_SET && set_count(c, &keys[i]) < keys[i].min)
			return whole_wrong(w, keys[i].section, keys[i].name, "\"\": is empty; accepted: %s", keys[i].accepted);
	if (c->certificate.count != c->key.count)
		return whole_wrong(w, "tls", c->certificate.count > c->key.count ? "certificate" : "key",
		    "certificate names %u files and key %u; accepted: pairs, as many of one as of the other", (unsigned)c->certificate.count,
		    (unsigned)c->key.count);
	if (conf_has(&c->mechanisms, MECHANISM_APOP) && !conf_has(&c->stores, STORE_DB))
		return whole_wrong(w, "authd", "mechanisms", "APOP needs the store db; accepted: APOP with db among stores");
	if (c->server_copy == COPY_MARK_READ && c->store == STORE_MBOX)
		return whole_wrong(w, "spoold", "server-copy", "an mbox has no mark that could be set without moving mail; accepted with "
		    "store = mbox: as-client-says, keep, archive, delete");
	return true;
}

int
conf_load(struct conf *c, const char *path, bool optional, char *error, size_t size)
{
	return conf_read(c, path, open(path, O_RDONLY | O_CLOEXEC), optional, error, size);
}

int
conf_read(struct conf *c, const char *path, int fd, bool optional, char *error, size_t size)
{
	struct parse p = { .conf = c };

	conf_presets(c);
	string_copy(c->file, sizeof c->file, path);
	if (fd == -1 && optional && errno == ENOENT)
		return 0;
	p.file = fd != -1 ? fdopen(fd, "r") : NULL;
	if (p.file == NULL) {
		snprintf(error, size, "%s: cannot be read: %s", path, strerror(errno));
		if (fd != -1)
			close(fd);
		return -1;
	}
	int line = ini_parse_stream(read_line, &p, on_key, &p);
	bool failed = ferror(p.file) != 0;
	fclose(p.file);
	const struct whole whole = { c, error, size };
	if (failed)
		snprintf(error, size, "%s: cannot be read: %s", path, strerror(EIO));
	else if (p.error[0] != '\0' && (line == 0 || (unsigned)line >= p.error_line))
		snprintf(error, size, "%s:%u: %s", path, p.error_line, p.error);
	else if (line != 0)
		snprintf(error, size, "%s:%d: not understood; accepted: [section], key = value, or # and a comment", path, line);
	else if (p.too_long)
		snprintf(error, size, "%s:%u: the line is too long; accepted: at most 198 characters (a list goes on in an indented next line)",
		    path, p.line);
	else if (conf_whole(&whole))
		return 0;
	return -1;
}

bool
conf_has(const struct conf_set *set, uint32_t item)
{
	for (uint32_t i = 0; i < set->count; i++)
		if (set->item[i] == item)
			return true;
	return false;
}

static bool
bits_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	if (memcmp(a, b, whole) != 0)
		return false;
	return rest == 0 || ((a[whole] ^ b[whole]) & (0xff << (8 - rest)) & 0xff) == 0;
}

bool
conf_in_networks(const struct conf_networks *n, const char *address)
{
	uint8_t a[16];
	int family = strchr(address, ':') != NULL ? AF_INET6 : AF_INET;

	if (inet_pton(family, address, a) != 1)
		return false;
	for (uint32_t i = 0; i < n->count; i++)
		if (n->network[i].family == family && bits_equal(n->network[i].address, a, n->network[i].bits))
			return true;
	return false;
}

int
conf_run_path(const struct conf *c, const char *name, char *path, size_t size)
{
	int n = snprintf(path, size, "%s/%s", c->run_dir, name);

	if (n < 0 || (size_t)n >= size) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return 0;
}

/* A mechanism that shows the password, or makes it guessable, to whoever listens. */
#define SHOWS_PASSWORD ((1u << MECHANISM_PLAIN) | (1u << MECHANISM_LOGIN) | (1u << MECHANISM_USER))

/* What needs the TLS connection under it, and what needs the user's own record. */
#define NEEDS_TLS	((1u << MECHANISM_SCRAM_SHA_256_PLUS) | (1u << MECHANISM_EXTERNAL))
#define NEEDS_DB	((1u << MECHANISM_SCRAM_SHA_256_PLUS) | (1u << MECHANISM_SCRAM_SHA_256) | (1u << MECHANISM_CRAM_MD5) | \
	(1u << MECHANISM_EXTERNAL) | (1u << MECHANISM_APOP))

uint32_t
conf_mechanisms(const struct conf *c, bool tls, bool loopback)
{
	uint32_t offered = 0;

	for (uint32_t i = 0; i < c->mechanisms.count; i++)
		offered |= 1u << c->mechanisms.item[i];
	if (!tls && c->cleartext_login != CLEARTEXT_ALWAYS && !(c->cleartext_login == CLEARTEXT_LOOPBACK && loopback))
		offered &= ~SHOWS_PASSWORD;
	if (!tls)
		offered &= ~NEEDS_TLS;
	if (!conf_has(&c->stores, STORE_DB))
		offered &= ~NEEDS_DB;
	return offered;
}

const char *
mechanism_name(uint32_t mechanism)
{
	for (const struct word *w = mechanism_words; w->word != NULL; w++)
		if ((uint32_t)w->value == mechanism)
			return w->word;
	return "?";
}

const char *
store_name(uint32_t store)
{
	return store == STORE_DB ? "db" : store == STORE_PAM ? "pam" : "?";
}

const char *
server_copy_name(int server_copy)
{
	for (const struct word *w = copy_words; w->word != NULL; w++)
		if (w->value == server_copy)
			return w->word;
	return "?";
}

int
server_copy_parse(const char *word)
{
	const struct word *w = word_find(copy_words, word, strlen(word));

	return w != NULL ? w->value : -1;
}

static const struct key *
key_find(const char *section, const char *name)
{
	for (size_t i = 0; i < KEYS; i++)
		if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

unsigned
conf_line(const struct conf *c, const char *section, const char *name)
{
	const struct key *k = key_find(section, name);

	return k != NULL ? c->line[k - keys] : 0;
}

const char *
conf_place(const struct conf *c, const char *section, const char *name, char *place, size_t size)
{
	unsigned line = conf_line(c, section, name);

	if (line > 0)
		snprintf(place, size, "%s:%u: [%s] %s", c->file, line, section, name);
	else
		snprintf(place, size, "%s: [%s] %s", c->file, section, name);
	return place;
}

static bool
is_text(const struct key *k)
{
	return k->type == TYPE_STRING || k->type == TYPE_ACCOUNT || k->type == TYPE_PATH || k->type == TYPE_PATTERN;
}

/* The octets of a value in struct conf; a string's only up to its end. */
static bool
value_equal(const struct key *k, const struct conf *a, const struct conf *b)
{
	const char *x = (const char *)a + k->offset, *y = (const char *)b + k->offset;

	if (is_text(k))
		return strcmp(x, y) == 0;
	return memcmp(x, y, k->type == TYPE_NUMBER ? sizeof(uint64_t) : sizeof(int)) == 0;
}

static void
value_copy(const struct key *k, struct conf *to, const struct conf *from)
{
	memcpy(field(to, k), (const char *)from + k->offset, is_text(k) ? CONF_STRING :
	    k->type == TYPE_NUMBER ? sizeof(uint64_t) : sizeof(int));
}

void
conf_keep(struct conf *fresh, const struct conf *running, enum conf_program program, char *names, size_t size)
{
	size_t used = 0;

	names[0] = '\0';
	for (size_t i = 0; i < RESTARTS; i++) {
		const struct key *k = key_find(restarts[i].section, restarts[i].name);
		if (k == NULL || (restarts[i].programs & 1u << program) == 0 || value_equal(k, fresh, running))
			continue;
		value_copy(k, fresh, running);
		if (used < size)
			used += (size_t)snprintf(names + used, size - used, "%s[%s] %s", used > 0 ? ", " : "", k->section, k->name);
	}
}

/* Section, key, default, what is accepted, and what has to be restarted after a change. */
void
conf_print_keys(void)
{
	static const char *const programs[] = { [PROGRAM_POP3D] = "pop3d", [PROGRAM_AUTHD] = "authd", [PROGRAM_SPOOLD] = "spoold" };

	for (size_t i = 0; i < KEYS; i++) {
		printf("%s\t%s\t%s\t%s\t", keys[i].section, keys[i].name, keys[i].preset, keys[i].accepted);
		for (size_t j = 0; j < RESTARTS; j++)
			for (unsigned p = 0; p < PROGRAM_COUNT && key_find(restarts[j].section, restarts[j].name) == &keys[i]; p++)
				if (restarts[j].programs & 1u << p)
					printf("%s%s", (restarts[j].programs & ((1u << p) - 1)) != 0 ? " " : "", programs[p]);
		printf("\n");
	}
}
