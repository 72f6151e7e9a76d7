/* authctl test: what authd would say to a password, and which store says what. The rules are those of vouch.c. */
#include <errno.h>
#include <security/pam_appl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "authctl.h"
#include "pam.h"
#include "password.h"
#include "privilege.h"
#include "system.h"
#include "token.h"

struct test {
	const struct conf *conf;
	const char *name, *password;
	struct store_user user;		/* if he is in db */
	bool found;
	bool trouble;			/* somebody could not be asked: then authd lets nobody in */
};

/* The record of this one, if there is a store `db`. Whoever is locked there is locked everywhere. */
static void
find(struct test *t, const char *name)
{
	struct account account;
	int found = conf_has(&t->conf->stores, STORE_DB) ? look(t->conf, name, &t->user, &account) : 0;

	t->found = found == 1;
	t->trouble = t->trouble || found == -1;
}

static bool
is_locked(const struct test *t)
{
	return t->found && t->user.locked;
}

static const struct store_app *
app_of(const struct test *t, const uint8_t hash[static 32])
{
	const struct store_app *app = NULL;

	for (uint32_t i = 0; i < t->user.apps; i++)
		if (sodium_memcmp(t->user.app[i].hash, hash, 32) == 0)
			app = &t->user.app[i];
	return app;
}

/* The app password that it is; NULL if it is none. */
static const struct store_app *
find_app(struct test *t)
{
	const struct store_app *app = NULL;
	uint8_t *key = sodium_malloc(STORE_KEY_SIZE), hash[32];
	char plain[TOKEN_PLAIN];

	if (t->found && t->user.apps > 0 && token_read(plain, t->password)) {
		int had = key != NULL ? store_key(t->conf->db, (gid_t)-1, false, key) : -1;
		if (had == 1) {
			token_hash(hash, key, t->name, plain);
			app = app_of(t, hash);
		} else
			complain("%s.key: %s: app passwords cannot be tried", t->conf->db, strerror(had == 0 ? ENOENT : errno));
		t->trouble = t->trouble || had == -1;
	}
	sodium_memzero(plain, sizeof plain);
	sodium_free(key);
	return app;
}

/* Is it an app password that works? */
static bool
test_app(struct test *t)
{
	const struct store_app *app = find_app(t);
	char text[TIME_TEXT];

	if (app == NULL)
		return false;
	printf("db: the app password %s", app->name);
	if (app->expires != 0 && app->expires <= (int64_t)time(NULL)) {
		printf(" has expired: %s\n", time_text(text, app->expires));
		return false;
	}
	printf("%s%s%s\n", is_locked(t) ? " is right, but the user is locked" : " is right", app->from[0] != '\0' ? "; it works from nowhere but " : "",
	    app->from);
	return !is_locked(t);
}

static bool
test_db(struct test *t)
{
	char *prepared = sodium_malloc(PASSWORD_SIZE);
	int fits = -1;

	if (!t->found) {
		printf("db: %s\n", t->trouble ? "could not be asked" : "no such user");
		sodium_free(prepared);
		return false;
	}
	if (prepared != NULL) {
		password_prepare(prepared, t->password);
		fits = t->user.hash[0] == '\0' ? 0 : hash_fits(t->user.hash, prepared);
	}
	sodium_free(prepared);
	t->trouble = t->trouble || fits == -1;
	if (fits == 1 && t->user.locked)
		printf("db: the password is right, but %s is locked\n", t->name);
	else
		printf("db: %s\n", fits == 1 ? "the password is right" : fits == 0 ? "the password is wrong" :
		    "the password could not be tried: not enough memory");
	return fits == 1 && !t->user.locked;
}

/* Modules may give the user another name: then that one's record counts. */
static bool
test_pam(struct test *t)
{
	char user[USER_SIZE];

	if (!string_copy(user, sizeof user, t->name))
		return false;
	int code = pam_try(t->conf->pam_service, user, t->password, "");
	if (code != PAM_SUCCESS) {
		printf("pam: %s%s\n", pam_strerror(NULL, code), privilege_is_root() ? "" : " (not root: PAM may know only your own password)");
		t->trouble = t->trouble || pam_denial(code) != DENIED_CREDENTIALS;
		return false;
	}
	printf("pam: the password is right");
	bool renamed = strcmp(user, t->name) != 0;
	if (renamed) {
		printf(", and %s is ", t->name);
		print_safe(stdout, user);
	}
	if (renamed && !is_locked(t))
		find(t, user);
	if (is_locked(t)) {
		printf(", but ");
		print_safe(stdout, user);
		printf(" is locked in db");
	}
	printf("\n");
	return !is_locked(t);
}

int
command_test(const struct conf *c, const struct arguments *a)
{
	static struct test t;
	char what[USER_SIZE + 32];
	const char *wrong = store_name_check(a->word[0]);

	if (wrong != NULL)
		return complain("%s: not a user name; %s", a->word[0], wrong);
	snprintf(what, sizeof what, "Password of %s", a->word[0]);
	char *password = password_read(what, false);
	if (password == NULL)
		return 1;
	t = (struct test){ .conf = c, .name = a->word[0], .password = password };
	find(&t, t.name);
	bool good = test_app(&t);
	for (uint32_t i = 0; i < c->stores.count && !good; i++)
		good = c->stores.item[i] == STORE_DB ? test_db(&t) : test_pam(&t);
	good = good && !t.trouble;
	sodium_free(password);
	sodium_memzero(&t, sizeof t);
	printf("%s: %s\n", a->word[0], good ? "ok" : "refused");
	return good ? 0 : 1;
}
