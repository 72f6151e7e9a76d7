/* authctl add, set, passwd, del, lock, unlock, list. */
#include <errno.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "authctl.h"
#include "log.h"
#include "password.h"
#include "privilege.h"
#include "scram.h"
#include "system.h"

const char *
password_refused(const char *password)
{
	static char wrong[64];
	const unsigned char *p = (const unsigned char *)password;

	while (*p != '\0' && *p >= ' ' && *p != 0x7f)
		p++;
	if (*p == '\0')
		return NULL;
	snprintf(wrong, sizeof wrong, "has a control character in it%s (octet 0x%02x)", *p == '\t' ? ", a TAB" : *p == '\r' ? ", a CR" : "", *p);
	return wrong;
}

void
password_note(const char *who, const char *password)
{
	if (!password_has_form(password))
		complain("note: %s: SASLprep (RFC 4013) has no form for this password; it is taken as it is, and programs that log in with SCRAM may refuse it",
		    who);
	if (strlen(password) > PASS_MOST)
		complain("note: %s: the command PASS has room for %d octets: this password works by AUTH alone", who, PASS_MOST);
}

int
set_password(struct store_user *u, const char *password, const struct arguments *a)
{
	char *prepared = sodium_malloc(PASSWORD_SIZE);
	int result = -1;

	if (prepared != NULL) {
		password_prepare(prepared, password);
		if (hash_make(u->hash, sizeof u->hash, prepared, &a->cost) == 0)
			result = scram_make(&u->scram, prepared, (uint32_t)a->iterations);
	}
	sodium_free(prepared);
	return result;
}

/* Asks for a password and makes everything of it. */
static int
new_password(const struct arguments *a, struct store_user *u)
{
	char what[USER_SIZE + 32];

	snprintf(what, sizeof what, "New password for %s", a->word[0]);
	char *password = password_read(what, true);
	if (password == NULL)
		return 1;
	const char *refused = password_refused(password);
	int result = refused != NULL ? complain("the password %s; nothing was changed", refused) :
	    set_password(u, password, a) == 0 ? 0 : complain("the password could not be hashed: " NO_MEMORY);
	if (result == 0)
		password_note(a->word[0], password);
	sodium_free(password);
	return result;
}

/*
 * What unknown users cost is what the latest one costs. The salt key stays: salts that changed would tell who is not
 * there.
 */
int
update_meta(struct store_edit *e, const struct arguments *a)
{
	struct store_meta meta;
	char nobody[33];
	uint8_t random[16];
	int found = edit_meta(e, &meta);

	if (found == -1)
		return -1;
	if (found == 0) {
		memset(&meta, 0, sizeof meta);
		randombytes_buf(meta.salt_key, sizeof meta.salt_key);
	}
	meta.iterations = (uint32_t)a->iterations;
	randombytes_buf(random, sizeof random);
	sodium_bin2hex(nobody, sizeof nobody, random, sizeof random);
	if (hash_make(meta.hash, sizeof meta.hash, nobody, &a->cost) == -1)
		return errno = ENOMEM, -1;
	return edit_put_meta(e, &meta);
}

int
look(const struct conf *c, const char *name, struct store_user *u, struct account *a)
{
	struct store_file s;

	store_start(&s, c->db);
	int found = store_find(&s, name, u);
	store_end(&s);
	if (found == 1 && account_find(c->db, name, a) == -1)
		found = -1;
	if (found == -1)
		complain_look(c);
	return found;
}

/* A maildrop without an owner could never be opened: it is said now, and not at the first login. */
static void
warn_owner(const struct conf *c, const struct arguments *a)
{
	if (!a->uid_given && c->virtual_user[0] == '\0' && getpwnam(a->word[0]) == NULL)
		complain("note: there is no system account %s, no --uid and no virtual-user in %s: nobody owns this maildrop yet",
		    a->word[0], c->file);
}

/* The new user into the store, unless somebody else has put him there while the password was typed. */
static int
put_new(const struct conf *c, const struct arguments *a, const struct store_user *u)
{
	static struct store_user other;
	struct account account = a->account, before;
	struct store_edit e;

	if (edit_begin(&e, c->db, store_group(c), EDIT_CACHE) == -1)
		return complain_store(c);
	int found = edit_find(&e, a->word[0], &other);
	sodium_memzero(&other, sizeof other);
	/* he may have been an account of the host until now, with a policy */
	if (found == 0 && !a->copy_given && edit_find_account(&e, a->word[0], &before) == 1) {
		account.has_copy = before.has_copy;
		account.server_copy = before.server_copy;
	}
	if (found == 0 && update_meta(&e, a) == 0 && edit_put(&e, a->word[0], u, &account) == 0)
		return edit_commit(&e, EDIT_ADDS) == 0 ? 0 : complain_store(c);
	found == 1 ? complain("%s: is there already", a->word[0]) : complain_store(c);
	edit_abandon(&e);
	return 1;
}

/* What spoold would not do is not written down. */
static int
check_copy(const struct conf *c, const struct arguments *a)
{
	if (!a->account.has_copy || a->account.server_copy == c->server_copy ||
	    conf_has(&c->server_copy_choice, (uint32_t)a->account.server_copy))
		return 0;
	return complain("--server-copy: %s is not among server-copy-choice in %s: put it there first",
	    server_copy_name(a->account.server_copy), c->file);
}

int
command_add(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	const char *wrong = store_name_check(a->word[0]);

	if (wrong != NULL)
		return complain("%s: not a user name; %s", a->word[0], wrong);
	if (check_copy(c, a) != 0)
		return 1;
	int found = look(c, a->word[0], &u, &account);
	if (found != 0)
		return found == 1 ? complain("%s: is there already; use passwd, or del first", a->word[0]) : 1;
	memset(&u, 0, sizeof u);
	int result = new_password(a, &u);
	if (result == 0)
		result = put_new(c, a, &u);
	sodium_memzero(&u, sizeof u);
	if (result == 0 && strcmp(a->word[0], a->typed) != 0)
		complain("note: the name is kept as every login has it after SASLprep (RFC 4013): %s", a->word[0]);
	if (result == 0)
		warn_owner(c, a);
	return result;
}

int
begin_user(const struct conf *c, const char *name, struct store_edit *e, struct store_user *u, struct account *account)
{
	int found;

	if (edit_begin(e, c->db, store_group(c), EDIT_CACHE) == -1)
		return complain_store(c);
	found = edit_find(e, name, u);
	if (found == 1) {
		int kept = edit_find_account(e, name, account);
		if (kept == 1)
			return 0;
		/* a user of a store that was restored by halves: the maildrop is as the configuration has it */
		memset(account, 0, sizeof *account);
		if (kept == 0)
			return 0;
		found = -1;
	}
	if (found == 0)
		complain("%s: no such user in %s", name, c->db);
	else
		complain_store(c);
	edit_abandon(e);
	return 1;
}

int
finish_user(const struct conf *c, const char *name, struct store_edit *e, const struct store_user *u,
    const struct account *account)
{
	if (edit_put(e, name, u, account) == 0)
		return edit_commit(e, EDIT_ADDS) == 0 ? 0 : complain_store(c);
	complain_store(c);
	edit_abandon(e);
	return 1;
}

/* An account of the host, whose policy is all that is kept of him; without one nothing is. */
static int
set_policy(const struct conf *c, const struct arguments *a)
{
	struct account account = { .policy_only = true, .has_copy = true, .server_copy = a->account.server_copy };
	struct store_edit e;

	if (getpwnam(a->word[0]) == NULL || !conf_has(&c->stores, STORE_PAM))
		return complain("%s: no such user in %s, and no account of this host that can log in", a->word[0], c->db);
	if (a->account_given || a->uid_given)
		return complain("%s: an account of this host, whose mail is where %s says; only --server-copy can be set", a->word[0], c->file);
	if (edit_begin(&e, c->db, store_group(c), EDIT_CACHE) == -1)
		return complain_store(c);
	if ((a->account.has_copy ? edit_put_account(&e, a->word[0], &account) : edit_remove(&e, a->word[0])) == 0)
		return edit_commit(&e, EDIT_ADDS) == 0 ? 0 : complain_store(c);
	complain_store(c);
	edit_abandon(&e);
	return 1;
}

int
command_set(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	struct store_edit e;
	const char *wrong = store_name_check(a->word[0]);

	if (wrong != NULL)
		return complain("%s: not a user name; %s", a->word[0], wrong);
	if (!a->account_given && !a->uid_given && !a->copy_given) {
		complain("set: nothing to set; accepted: --maildrop, --uid, --server-copy");
		return 2;
	}
	if (check_copy(c, a) != 0)
		return 1;
	int found = look(c, a->word[0], &u, &account);
	sodium_memzero(&u, sizeof u);
	if (found == -1)
		return 1;
	if (found == 0)
		return set_policy(c, a);
	if (begin_user(c, a->word[0], &e, &u, &account) != 0)
		return 1;
	account.policy_only = false;
	if (a->account_given) {
		account.kind = a->account.kind;
		memcpy(account.path, a->account.path, sizeof account.path);
	}
	if (a->uid_given) {
		account.has_uid = true;
		account.uid = a->account.uid;
	}
	if (a->copy_given) {
		account.has_copy = a->account.has_copy;
		account.server_copy = a->account.server_copy;
	}
	int result = finish_user(c, a->word[0], &e, &u, &account);
	sodium_memzero(&u, sizeof u);
	return result;
}

int
command_passwd(const struct conf *c, const struct arguments *a)
{
	static struct store_user u, fresh;
	struct account account;
	struct store_edit e;
	int found = look(c, a->word[0], &u, &account);

	if (found != 1)
		return found == 0 ? complain("%s: no such user in %s", a->word[0], c->db) : 1;
	int result = new_password(a, &fresh);
	/* Looked at again under the lock: another authctl may have changed the user while this one was asking. */
	if (result == 0)
		result = begin_user(c, a->word[0], &e, &u, &account);
	if (result == 0) {
		memcpy(u.hash, fresh.hash, sizeof u.hash);
		u.scram = fresh.scram;
		if (update_meta(&e, a) == -1) {
			result = complain_store(c);
			edit_abandon(&e);
		} else
			result = finish_user(c, a->word[0], &e, &u, &account);
	}
	sodium_memzero(&u, sizeof u);
	sodium_memzero(&fresh, sizeof fresh);
	return result;
}

/* One whom an older authctl has kept in a form that no login has can still be removed, by that very form. */
static const char *
name_to_remove(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	bool kept = strcmp(a->word[0], a->typed) != 0 && look(c, a->typed, &u, &account) == 1;

	sodium_memzero(&u, sizeof u);
	return kept ? a->typed : a->word[0];
}

int
command_del(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	struct store_edit e;
	const char *name = name_to_remove(c, a);

	if (begin_user(c, name, &e, &u, &account) != 0)
		return 1;
	sodium_memzero(&u, sizeof u);
	if (edit_remove(&e, name) == 0)
		return edit_commit(&e, EDIT_REMOVES) == 0 ? 0 : complain_store(c);
	complain_store(c);
	edit_abandon(&e);
	return 1;
}

static int
set_locked(const struct conf *c, const struct arguments *a, bool locked)
{
	static struct store_user u;
	struct account account;
	struct store_edit e;

	if (begin_user(c, a->word[0], &e, &u, &account) != 0)
		return 1;
	u.locked = locked;
	int result = finish_user(c, a->word[0], &e, &u, &account);
	sodium_memzero(&u, sizeof u);
	return result;
}

int
command_lock(const struct conf *c, const struct arguments *a)
{
	return set_locked(c, a, true);
}

int
command_unlock(const struct conf *c, const struct arguments *a)
{
	return set_locked(c, a, false);
}

struct listing {
	bool as_json;
	struct json json;
};

/* A line a user: name, state, maildrop, uid, what else he has; a tab between. */
static void
print_user(const char *name, const struct store_user *u, const char *maildrop, const struct account *account)
{
	char uid[16] = "-", copy[48] = "";

	if (account->has_uid)
		snprintf(uid, sizeof uid, "%u", (unsigned)account->uid);
	if (account->has_copy)
		snprintf(copy, sizeof copy, ",server-copy=%s", server_copy_name(account->server_copy));
	printf("%s\t%s\t%s\t%s\t%s%s%sapps=%u,certs=%u%s\n", name, u->locked ? "locked" : "open", maildrop, uid,
	    u->hash[0] == '\0' ? "" : hash_is_foreign(u->hash) ? "password=imported," : "password,",
	    u->scram.iterations > 0 ? "scram," : "", u->secret_length > 0 ? "secret," : "", (unsigned)u->apps,
	    (unsigned)u->certificates, copy);
}

static void
json_user(struct json *j, const char *name, const struct store_user *u, const char *maildrop, const struct account *account)
{
	json_open(j, NULL, '{');
	json_string(j, "user", name);
	json_bool(j, "locked", u->locked);
	json_string(j, "maildrop", maildrop);
	if (account->has_uid)
		json_number(j, "uid", account->uid);
	else
		json_null(j, "uid");
	json_string(j, "password", u->hash[0] == '\0' ? NULL : hash_is_foreign(u->hash) ? "imported" : "own");
	json_bool(j, "scram", u->scram.iterations > 0);
	json_bool(j, "secret", u->secret_length > 0);
	json_number(j, "apps", u->apps);
	json_number(j, "certificates", u->certificates);
	json_string(j, "server-copy", account->has_copy ? server_copy_name(account->server_copy) : NULL);
	json_close(j, '}');
}

static int
on_user(const char *name, const struct store_user *u, const struct account *account, void *arg)
{
	static const struct account none;
	struct listing *l = arg;
	char maildrop[PATH_SIZE + 16];

	if (account != NULL)
		account_print(account, maildrop, sizeof maildrop);
	if (l->as_json)
		json_user(&l->json, name, u, account != NULL ? maildrop : NULL, account != NULL ? account : &none);
	else
		print_user(name, u, account != NULL ? maildrop : "none", account != NULL ? account : &none);
	return 0;
}

/* An account of the host that has a policy of its own. */
static int
on_policy(const char *name, const struct account *a, void *arg)
{
	struct listing *l = arg;

	if (!l->as_json)
		printf("%s\taccount\t-\t-\tserver-copy=%s\n", name, server_copy_name(a->server_copy));
	else {
		json_open(&l->json, NULL, '{');
		json_string(&l->json, "user", name);
		json_bool(&l->json, "account", true);
		json_string(&l->json, "server-copy", server_copy_name(a->server_copy));
		json_close(&l->json, '}');
	}
	return 0;
}

int
command_list(const struct conf *c, const struct arguments *a)
{
	struct listing l = { .as_json = a->json, .json.file = stdout };

	if (access(c->db, F_OK) == -1 && errno == ENOENT && conf_has(&c->stores, STORE_DB)) {
		struct store_owner owner;
		if (store_owner(c->db, &owner) == -1)
			return complain_look(c);
		complain("note: there is no %s yet; authctl add and authctl import make it", c->db);
	}
	if (a->json)
		json_open(&l.json, NULL, '[');
	if (store_each(c->db, on_user, &l) == -1 || store_each_policy(c->db, on_policy, &l) == -1)
		return complain_look(c);
	if (a->json) {
		json_close(&l.json, ']');
		json_end(&l.json);
	}
	return 0;
}
