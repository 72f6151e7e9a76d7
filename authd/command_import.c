/*
 * authctl import: users of another server, with their hashes. What crypt(3) can read is taken as it is, and replaced by a
 * hash of our own when its user first logs in. Everything is read before anything is changed: a line that is not
 * understood stops it all.
 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "authctl.h"
#include "hash.h"
#include "password.h"
#include "system.h"

/* What a line says. */
struct entry {
	char name[USER_SIZE];
	char hash[STORE_HASH_SIZE];
	char plain[PASSWORD_SIZE];	/* instead of a hash, where the other server kept the password itself */
	bool locked;
	bool nobody;			/* no password could ever open it: left out */
	struct account account;
};

struct import {
	const struct conf *conf;
	const struct arguments *arguments;
	const struct format *format;
	struct store_edit edit;
	struct progress progress;
	int64_t size, octets;		/* of the file, 0 if that is not known; and read */
	unsigned long line, added, replaced, there, left_out, refused;
};

/* Takes a line apart. NULL, or what is wrong with it. */
struct format {
	const char *name;
	const char *(*parse)(struct entry *e, char *line);
};

/* The next field up to `end`, which is replaced by NUL; NULL after the last. */
static char *
field_next(char **at, char end)
{
	char *field = *at, *stop;

	if (field == NULL)
		return NULL;
	stop = strchr(field, end);
	*at = stop != NULL ? stop + 1 : NULL;
	if (stop != NULL)
		*stop = '\0';
	return field;
}

static const char *
take_hash(struct entry *e, const char *hash)
{
	/* "!" in front is how passwd -l locks; "*" and the like never were a password */
	if (hash[0] == '!' && hash[1] != '\0' && hash[1] != '!' && hash[1] != '*') {
		e->locked = true;
		hash++;
	}
	if (hash[0] == '\0' || hash[0] == '*' || hash[0] == '!' || strcmp(hash, "x") == 0) {
		e->nobody = true;
		return NULL;
	}
	if (!string_copy(e->hash, sizeof e->hash, hash))
		return "the hash is too long";
	return hash_known(hash) ? NULL : "a kind of hash that crypt(3) on this host cannot read";
}

static const char *
take_uid(struct entry *e, const char *text)
{
	uint64_t uid;

	if (text == NULL || text[0] == '\0')
		return NULL;
	if (number_parse(text, 0, UINT32_MAX - 1, &uid) != NULL)
		return "the uid is not a number";
	e->account.has_uid = uid != 0;
	e->account.uid = (uint32_t)uid;
	return NULL;
}

static const char *
take_name(struct entry *e, const char *name)
{
	if (name == NULL || !name_prepare(e->name, name) || store_name_check(e->name) != NULL)
		return "not a user name";
	return NULL;
}

/* name:hash:... , as in /etc/shadow. */
static const char *
parse_shadow(struct entry *e, char *line)
{
	const char *wrong = take_name(e, field_next(&line, ':'));
	const char *hash = field_next(&line, ':');

	if (wrong != NULL)
		return wrong;
	return hash != NULL ? take_hash(e, hash) : "no second field";
}

/* {SCHEME}hash. Dovecot's names for what crypt(3) makes are many; what counts is whether crypt(3) can read it. */
static const char *
take_scheme(struct entry *e, const char *password)
{
	static const char *const readable[] = { "CRYPT", "DES-CRYPT", "MD5-CRYPT", "SHA256-CRYPT", "SHA512-CRYPT", "BLF-CRYPT",
		"MD5", "ARGON2I", "ARGON2ID" };
	static const char *const plain[] = { "PLAIN", "CLEAR", "CLEARTEXT" };
	const char *end = password[0] == '{' ? strchr(password, '}') : NULL;

	if (end == NULL)
		return take_hash(e, password);
	size_t length = (size_t)(end - password - 1);
	for (size_t i = 0; i < sizeof readable / sizeof readable[0]; i++)
		if (strlen(readable[i]) == length && strncasecmp(readable[i], password + 1, length) == 0)
			return take_hash(e, end + 1);
	for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
		if (strlen(plain[i]) == length && strncasecmp(plain[i], password + 1, length) == 0)
			return string_copy(e->plain, sizeof e->plain, end + 1) && e->plain[0] != '\0' ? NULL : "the password is empty or too long";
	return "a scheme that is not accepted; accepted: those of crypt(3), ARGON2I, ARGON2ID, PLAIN";
}

/* userdb_mail=maildir:/srv/mail/u:INDEX=...: kind and path, if they are plain. */
static const char *
take_mail(struct entry *e, char *extra)
{
	char *word, *end;

	while ((word = field_next(&extra, ' ')) != NULL) {
		if (strncmp(word, "userdb_mail=", 12) != 0)
			continue;
		word += 12;
		end = strchr(word, ':');
		end = end != NULL ? strchr(end + 1, ':') : NULL;
		if (end != NULL)
			*end = '\0';
		if (strchr(word, '%') != NULL || account_parse(&e->account, word) != NULL)
			return "userdb_mail is not mbox:PATH or maildir:PATH with an absolute PATH";
	}
	return NULL;
}

/* user:{SCHEME}password:uid:gid:gecos:home:shell:extra fields. */
static const char *
parse_dovecot(struct entry *e, char *line)
{
	const char *wrong = take_name(e, field_next(&line, ':'));
	const char *password = field_next(&line, ':');
	const char *uid = field_next(&line, ':');

	if (wrong != NULL)
		return wrong;
	for (int i = 0; i < 4; i++)
		field_next(&line, ':');		/* gid, gecos, home, shell */
	if (password == NULL)
		return "no second field";
	if ((wrong = take_scheme(e, password)) == NULL && (wrong = take_uid(e, uid)) == NULL && line != NULL)
		wrong = take_mail(e, line);
	return wrong;
}

/* One name=value of a courier line. */
static const char *
take_courier(struct entry *e, char *word, bool *own)
{
	char *value = strchr(word, '=');

	if (value == NULL)
		return NULL;
	*value++ = '\0';
	if (strcmp(word, "uid") == 0)
		return take_uid(e, value);
	if (strcmp(word, "pop3pw") == 0 || (strcmp(word, "systempw") == 0 && !*own)) {
		*own = word[0] == 'p';
		e->nobody = e->locked = false;
		return take_hash(e, value);
	}
	if (strcmp(word, "mail") == 0) {
		e->account.kind = STORE_MAILDIR;
		return value[0] == '/' && string_copy(e->account.path, sizeof e->account.path, value) ? NULL :
		    "mail is not an absolute path";
	}
	return NULL;
}

/* user TAB uid=1000|gid=1000|home=/home/u|mail=/home/u/Maildir|systempw=HASH|pop3pw=HASH. */
static const char *
parse_courier(struct entry *e, char *line)
{
	const char *wrong = take_name(e, field_next(&line, '\t'));
	bool own = false;
	char *word;

	while (wrong == NULL && (word = field_next(&line, '|')) != NULL)
		wrong = take_courier(e, word, &own);
	if (wrong == NULL && e->hash[0] == '\0')
		e->nobody = true;
	return wrong;
}

static const struct format formats[] = {
	{ "shadow", parse_shadow }, { "dovecot", parse_dovecot }, { "courier", parse_courier },
};

/* A password that the other server kept readable is as good as one that was typed. */
static const char *
take_password(const struct import *im, const struct entry *e, struct store_user *u)
{
	string_copy(u->hash, sizeof u->hash, e->hash);
	memset(&u->scram, 0, sizeof u->scram);
	if (e->plain[0] != '\0' && set_password(u, e->plain, im->arguments) == -1)
		return "the password could not be hashed: " NO_MEMORY;
	return NULL;
}

/* One user's odd password keeps nobody else out. */
static bool
is_refused(struct import *im, const struct entry *e)
{
	const char *refused = password_refused(e->plain);

	if (refused == NULL)
		return false;
	progress_say(&im->progress, "");
	complain("%s:%lu: %s: the password %s; this user is left out", im->arguments->word[1], im->line, e->name, refused);
	im->refused++;
	return true;
}

/* Of a user who is there already only password, state, uid and maildrop are replaced. */
static const char *
put_entry(struct import *im, struct entry *e)
{
	static struct store_user u;
	int found = edit_find(&im->edit, e->name, &u);

	if (found == -1)
		return strerror(errno);
	if (found == 1 && !im->arguments->replace) {
		im->there++;
		return NULL;
	}
	if (found == 0)
		memset(&u, 0, sizeof u);
	const char *wrong = take_password(im, e, &u);
	u.locked = e->locked;
	struct account before;
	if (wrong == NULL && found == 1 && edit_find_account(&im->edit, e->name, &before) == 1) {
		e->account.has_copy = before.has_copy;
		e->account.server_copy = before.server_copy;
	}
	if (wrong == NULL && edit_put(&im->edit, e->name, &u, &e->account) == -1)
		wrong = strerror(errno);
	if (wrong == NULL)
		found == 1 ? im->replaced++ : im->added++;
	if (wrong == NULL && e->plain[0] != '\0')
		password_note(e->name, e->plain);
	sodium_memzero(&u, sizeof u);
	return wrong;
}

static const char *
take_line(struct import *im, char *line)
{
	static struct entry e;
	const char *wrong;

	line[strcspn(line, "\r\n")] = '\0';
	if (line[0] == '\0' || line[0] == '#')
		return NULL;
	memset(&e, 0, sizeof e);
	wrong = im->format->parse(&e, line);
	if (wrong == NULL && e.nobody)
		im->left_out++;
	else if (wrong == NULL && !is_refused(im, &e))
		wrong = put_entry(im, &e);
	sodium_memzero(&e, sizeof e);
	return wrong;
}

static int
read_all(struct import *im, FILE *file)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t length;
	const char *wrong = NULL;

	while (wrong == NULL && (length = getline(&line, &room, file)) != -1) {
		im->line++;
		im->octets += length;
		progress_show(&im->progress, im->line, im->octets, im->size);
		wrong = strlen(line) != (size_t)length ? "has a NUL in it" : take_line(im, line);
	}
	free(line);
	if (wrong == NULL && ferror(file))
		wrong = strerror(errno);
	progress_say(&im->progress, wrong == NULL ? "writing" : "");
	if (wrong != NULL)
		complain("%s:%lu: %s; nothing was imported", im->arguments->word[1], im->line, wrong);
	return wrong == NULL ? 0 : 1;
}

static int
import_run(struct import *im, FILE *file)
{
	if (edit_begin(&im->edit, im->conf->db, store_group(im->conf), EDIT_CACHE_IMPORT) == -1)
		return complain_store(im->conf);
	if (read_all(im, file) != 0) {
		edit_abandon(&im->edit);
		return 1;
	}
	if (update_meta(&im->edit, im->arguments) == -1) {
		progress_say(&im->progress, "");
		complain_store(im->conf);
		edit_abandon(&im->edit);
		return 1;
	}
	int committed = edit_commit(&im->edit, EDIT_ADDS);
	progress_say(&im->progress, "");
	if (committed == -1)
		return complain_store(im->conf);
	printf("added %lu, replaced %lu, there already %lu, without a password %lu", im->added, im->replaced, im->there, im->left_out);
	if (im->refused > 0)
		printf(", refused %lu", im->refused);
	printf("\n");
	return im->refused == 0 ? 0 : 1;
}

int
command_import(const struct conf *c, const struct arguments *a)
{
	static char buffer[65536];
	struct import im = { .conf = c, .arguments = a };
	struct stat st;

	for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
		if (strcmp(a->word[0], formats[i].name) == 0)
			im.format = &formats[i];
	if (im.format == NULL) {
		complain("%s: not a format; accepted: shadow, dovecot, courier", a->word[0]);
		return 2;
	}
	FILE *file = fopen(a->word[1], "re");
	if (file == NULL)
		return complain("%s: %s", a->word[1], strerror(errno));
	im.size = fstat(fileno(file), &st) == 0 ? st.st_size : 0;
	/* hashes pass through this buffer: it is ours to wipe */
	setvbuf(file, buffer, _IOFBF, sizeof buffer);
	int result = import_run(&im, file);
	fclose(file);
	sodium_memzero(buffer, sizeof buffer);
	return result;
}
