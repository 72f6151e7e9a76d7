/* authctl app add, app list, app del, secret: random passwords that are made here, shown once, and not kept. */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "authctl.h"
#include "memory.h"
#include "system.h"
#include "token.h"

/* "2026-12-31" (to its end, UTC) or "90d" from now. NULL, or what is accepted. */
static const char *
parse_expires(const char *text, int64_t *expires)
{
	static const char accepted[] = "accepted: a date such as 2026-12-31, or a number of days such as 90d, in the future";
	struct tm day = { .tm_hour = 23, .tm_min = 59, .tm_sec = 59 };
	int64_t now = (int64_t)time(NULL);
	char digits[8];
	uint64_t days;
	size_t n = strlen(text);

	if (n >= 2 && n <= sizeof digits && text[n - 1] == 'd') {
		memcpy(digits, text, n - 1);
		digits[n - 1] = '\0';
		if (number_parse(digits, 1, 36500, &days) != NULL)
			return accepted;
		*expires = now + (int64_t)days * 86400;
		return NULL;
	}
	const char *end = strptime(text, "%Y-%m-%d", &day);
	if (end == NULL || *end != '\0')
		return accepted;
	struct tm real = day;
	*expires = (int64_t)timegm(&real);
	/* timegm makes the 3rd of March of the 31st of February */
	if (real.tm_mday != day.tm_mday || real.tm_mon != day.tm_mon)
		return "there is no such day";
	return *expires > now ? NULL : accepted;
}

/* What the options say, into *app. 0, or 2 after saying what is wrong. */
static int
app_fill(struct store_app *app, const struct arguments *a)
{
	struct conf_network n;
	const char *wrong;

	memset(app, 0, sizeof *app);
	if (store_name_check(a->word[1]) != NULL || !string_copy(app->name, sizeof app->name, a->word[1])) {
		complain("%s: not a name; accepted: 1 to 63 octets without blanks, '/' and ':'", a->word[1]);
		return 2;
	}
	if (a->expires != NULL && (wrong = parse_expires(a->expires, &app->expires)) != NULL) {
		complain("--expires: %s", wrong);
		return 2;
	}
	if (a->from != NULL && (!conf_network_parse(&n, a->from) || !string_copy(app->from, sizeof app->from, a->from))) {
		complain("--from: accepted: an address or a network such as 192.0.2.0/24 or 2001:db8::/32");
		return 2;
	}
	app->no_delete = a->no_delete;
	app->created = (int64_t)time(NULL);
	return 0;
}

static uint32_t
app_find(const struct store_user *u, const char *name)
{
	uint32_t i = 0;

	while (i < u->apps && strcmp(u->app[i].name, name) != 0)
		i++;
	return i;
}

/* The store's key, which is made with the first password that needs it. NULL after saying why. */
static uint8_t *
key_read(const struct conf *c)
{
	uint8_t *key = sodium_malloc(STORE_KEY_SIZE);

	if (key != NULL && store_key(c->db, store_group(c), true, key) == 1)
		return key;
	complain("%s.key: %s", c->db, strerror(errno));
	sodium_free(key);
	return NULL;
}

/* Why another one cannot be had; NULL if it can. */
static const char *
app_refused(const struct store_user *u, const char *name)
{
	if (app_find(u, name) < u->apps)
		return "there is an app password of this name already; delete it first";
	if (u->apps == STORE_APPS)
		return "has 16 app passwords already: delete one first";
	return NULL;
}

/*
 * What is shown this once is shown before it is in force: a password that nobody has seen opens nothing, and takes no older one's place.
 * The caller has made it a part of *u.
 */
static int
show_and_finish(const struct conf *c, const char *name, struct store_edit *e, const struct store_user *u, const struct account *account,
    const char *text)
{
	if (edit_put(e, name, u, account) == -1) {
		complain_store(c);
		edit_abandon(e);
		return 1;
	}
	printf("%s\n", text);
	if (print_flush() != 0) {
		edit_abandon(e);
		return complain("%s: the new password could not be shown; nothing was changed", name);
	}
	if (edit_commit(e, EDIT_ADDS) == 0)
		return 0;
	complain_store(c);
	return complain("%s: the password that was printed opens nothing", name);
}

int
command_app_add(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	struct store_edit e;
	struct store_app app;
	char text[TOKEN_TEXT], plain[TOKEN_PLAIN];
	int result = app_fill(&app, a);

	if (result != 0 || begin_user(c, a->word[0], &e, &u, &account) != 0)
		return result != 0 ? result : 1;
	const char *refused = app_refused(&u, app.name);
	uint8_t *key = refused == NULL ? key_read(c) : NULL;
	if (key == NULL) {
		if (refused != NULL)
			complain("%s: %s", a->word[0], refused);
		edit_abandon(&e);
		return 1;
	}
	token_make(text);
	token_read(plain, text);
	token_hash(app.hash, key, a->word[0], plain);
	sodium_free(key);
	u.app[u.apps++] = app;
	result = show_and_finish(c, a->word[0], &e, &u, &account, text);
	sodium_memzero(text, sizeof text);
	sodium_memzero(plain, sizeof plain);
	sodium_memzero(&u, sizeof u);
	return result;
}

static void
print_date(int64_t when, const char *none)
{
	char text[TIME_TEXT];

	printf("\t%s", time_text(text, when) != NULL ? text : none);
}

/* A line each: name, made, expires, from, what it may, last used; a tab between. */
static void
print_app(const struct store_app *app, int64_t used)
{
	printf("%s", app->name);
	print_date(app->created, "-");
	print_date(app->expires, "never");
	printf("\t%s\t%s", app->from[0] != '\0' ? app->from : "anywhere", app->no_delete ? "no-delete" : "all");
	print_date(used, "-");
	printf("\n");
}

static void
json_app(struct json *j, const struct store_app *app, int64_t used)
{
	json_open(j, NULL, '{');
	json_string(j, "name", app->name);
	json_time(j, "created", app->created);
	json_time(j, "expires", app->expires);
	json_string(j, "from", app->from[0] != '\0' ? app->from : NULL);
	json_bool(j, "no_delete", app->no_delete);
	json_time(j, "used", used);
	json_close(j, '}');
}

int
command_app_list(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	struct memory m;
	struct json j = { .file = stdout };
	int found = look(c, a->word[0], &u, &account);

	if (found != 1)
		return found == 0 ? complain("%s: no such user in %s", a->word[0], c->db) : 1;
	memset(&m, 0, sizeof m);
	if (memory_open(c) == 0)
		memory_find(a->word[0], u.digest, &m);
	if (a->json)
		json_open(&j, NULL, '[');
	for (uint32_t i = 0; i < u.apps; i++)
		if (a->json)
			json_app(&j, &u.app[i], m.used[i]);
		else
			print_app(&u.app[i], m.used[i]);
	if (a->json) {
		json_close(&j, ']');
		json_end(&j);
	}
	memory_end();
	sodium_memzero(&u, sizeof u);
	sodium_memzero(&m, sizeof m);
	return 0;
}

int
command_app_del(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	struct store_edit e;

	if (begin_user(c, a->word[0], &e, &u, &account) != 0)
		return 1;
	uint32_t i = app_find(&u, a->word[1]);
	if (i == u.apps) {
		edit_abandon(&e);
		return complain("%s: has no app password of this name: %s", a->word[0], a->word[1]);
	}
	memmove(&u.app[i], &u.app[i + 1], (u.apps - i - 1) * sizeof u.app[0]);
	u.apps--;
	int result = finish_user(c, a->word[0], &e, &u, &account);
	sodium_memzero(&u, sizeof u);
	return result;
}

int
command_secret(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	struct store_edit e;
	char text[TOKEN_TEXT];

	if (begin_user(c, a->word[0], &e, &u, &account) != 0)
		return 1;
	uint8_t *key = key_read(c);
	if (key == NULL) {
		edit_abandon(&e);
		return 1;
	}
	token_make(text);
	secret_seal(&u, key, a->word[0], text);
	sodium_free(key);
	int result = show_and_finish(c, a->word[0], &e, &u, &account, text);
	sodium_memzero(text, sizeof text);
	sodium_memzero(&u, sizeof u);
	return result;
}
