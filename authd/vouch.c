#include "vouch.h"

#include <errno.h>
#include <security/pam_appl.h>
#include <sodium.h>
#include <string.h>
#include <time.h>

#include "hash.h"
#include "log.h"
#include "memory.h"
#include "password.h"
#include "peer.h"
#include "system.h"
#include "throttle.h"

/* How long hashers and PAM have together; pop3d waits a little longer. */
#define PATIENCE	45000

/*
 * How long PAM's modules take tells what they found, and nothing can be done about it in there: its refusal is passed
 * on at the next whole second since it was asked.
 */
#define GRAIN		1000

static const struct conf *conf;
static struct store_file users;
static uint8_t *key;		/* the store's, as it was when it was last needed */

void
vouch_start(const struct conf *c)
{
	conf = c;
	store_start(&users, c->db);
	key = sodium_malloc(STORE_KEY_SIZE);
	if (key == NULL)
		fatal("no locked memory for a key: raise the limit (LimitMEMLOCK=)");
}

/*
 * Read whenever it is needed: authctl makes it with the first app password, maybe long after authd was started, and who removes it or puts
 * another in its place means that.
 */
static bool
have_key(struct login *l)
{
	int found = store_key(conf->db, (gid_t)-1, false, key);

	if (found == -1) {
		log_text(LOG_ERR, "%s.key: cannot be read: %s", conf->db, strerror(errno));
		l->trouble = true;
	}
	return found == 1;
}

static void
find_record(struct login *l, const char *user)
{
	int found = conf_has(&conf->stores, STORE_DB) ? store_find(&users, user, &l->secret->user) : 0;

	l->found = found == 1;
	l->locked = l->found && l->secret->user.locked;
	if (found == -1) {
		log_text(LOG_ERR, "%s: cannot be read: %s", conf->db, strerror(errno));
		l->trouble = true;
	}
}

static void
find_user(struct login *l)
{
	find_record(l, l->user);
}

/* From the store's own key, so that it is the same for the same name for as long as the store lives. */
static void
invent(void *out, size_t size, const char *user)
{
	struct store_meta meta;

	if (store_meta(&users, &meta) != 1)
		memset(&meta, 0, sizeof meta);
	crypto_generichash(out, size, (const uint8_t *)user, strlen(user), meta.salt_key, sizeof meta.salt_key);
	sodium_memzero(&meta, sizeof meta);
}

/* The invention is made for everyone, so that making it does not tell for whom it is used. */
void
vouch_scram(struct login *l, struct store_scram *s)
{
	struct store_meta meta;

	find_user(l);
	memset(s, 0, sizeof *s);
	s->iterations = store_meta(&users, &meta) == 1 ? meta.iterations : 4096;
	sodium_memzero(&meta, sizeof meta);
	s->salt_length = 16;
	invent(s->salt, s->salt_length, l->user);
	randombytes_buf(s->stored_key, sizeof s->stored_key);
	randombytes_buf(s->server_key, sizeof s->server_key);
	if (l->found && !l->locked && l->secret->user.scram.iterations > 0)
		*s = l->secret->user.scram;
}

void
vouch_secret(struct login *l, char text[static TOKEN_TEXT])
{
	find_user(l);
	token_make(text);
	if (l->found && !l->locked && have_key(l) && secret_open(&l->secret->user, key, l->user, text) == -1)
		token_make(text);
}

bool
vouch_certificate(struct login *l, const struct body_hello *h)
{
	const uint8_t *shown[2] = { h->certificate, h->certificate_key };
	const struct store_user *u = &l->secret->user;

	for (size_t i = 0; i < 2; i++) {
		if (store_find_certificate(&users, shown[i], l->user) != 1)
			continue;
		find_user(l);
		/* the user's record decides, not the index to it */
		for (uint32_t j = 0; l->found && j < u->certificates; j++)
			if (memcmp(u->certificate[j], shown[i], STORE_FINGERPRINT) == 0)
				return true;
	}
	l->user[0] = '\0';
	l->found = l->locked = false;
	return false;
}

static void try_store(struct login *l);

static void
try_next(struct login *l, bool trouble)
{
	l->trouble = l->trouble || trouble;
	l->store_at++;
	try_store(l);
}

/* A hasher has made the hash that takes an imported one's place; or could not, and the next login tries again. */
static void
on_made(struct question *q, const char *hash)
{
	struct login *l = owner_of(q, struct login, question);
	struct memory m;

	if (hash[0] != '\0') {
		memory_find(l->user, l->secret->user.digest, &m);
		string_copy(m.hash, sizeof m.hash, hash);
		memory_put(l->user, &m);
		sodium_memzero(&m, sizeof m);
	}
	login_vouched(l, STORE_DB, l->user, "password");
}

/* Asks for a hash of our own; false if that is not to be. */
static bool
upgrade(struct login *l)
{
	struct store_meta meta;
	bool known = store_meta(&users, &meta) == 1;

	if (!known || !hash_is_foreign(l->secret->hash))
		return false;
	string_copy(l->secret->hash, sizeof l->secret->hash, meta.hash);
	l->question = (struct question){ .hash = l->secret->hash, .password = l->secret->prepared, .on_made = on_made };
	return question_ask(&l->question) == 0;
}

/* A line for the log out of PAM's many words. */
static const char *
pam_reason(int code)
{
	switch (code) {
	case PAM_USER_UNKNOWN:
		return "unknown-user";
	case PAM_ACCT_EXPIRED:
	case PAM_NEW_AUTHTOK_REQD:
	case PAM_AUTHTOK_EXPIRED:
	case PAM_CRED_EXPIRED:
		return "expired";
	case PAM_PERM_DENIED:
		return "denied";
	case PAM_CONV_ERR:
		return "second-prompt";
	default:
		return "wrong-password";
	}
}

/*
 * May whom PAM has said yes to come in? Modules may give the user another name: then that one's record says whether he is locked, and the answer
 * is not remembered, for what is remembered is of the name that was typed.
 */
static bool
pam_may(struct login *l, const char *granted)
{
	if (l->nobody || l->locked)
		return false;
	if (strcmp(granted, l->user) == 0)
		cache_put(l->tag[STORE_PAM]);
	else
		find_record(l, granted);
	return !l->locked && !l->trouble;
}

static void
on_pam(struct login *l, enum answer answer, const struct body_verdict *verdict)
{
	int64_t spent = clock_ms() - l->asked;

	if (answer == ANSWER_YES && pam_may(l, verdict->user)) {
		login_vouched(l, STORE_PAM, verdict->user, "password");
		return;
	}
	l->trouble = l->trouble || answer == ANSWER_UNKNOWN;
	if (verdict != NULL && !l->found && !l->nobody) {
		l->reason = pam_reason(verdict->pam);
		l->store = STORE_PAM;
	}
	l->stage = LOGIN_HOLDING;
	timer_set(&l->timer, l->asked + (spent / GRAIN + 1) * GRAIN);
}

static void ask(struct login *l, bool pam);

/*
 * An imported hash did not let him in. The right password would have cost one of our own as well (upgrade), and so does
 * one for a user who is not there: now this attempt does. False if it need not.
 */
static bool
even_out(struct login *l)
{
	struct store_meta meta;

	if (l->unhashed || !hash_is_foreign(l->secret->hash) || store_meta(&users, &meta) != 1)
		return false;
	string_copy(l->secret->hash, sizeof l->secret->hash, meta.hash);
	sodium_memzero(&meta, sizeof meta);
	l->unhashed = true;
	ask(l, false);
	return true;
}

static void
on_hash(struct login *l, enum answer answer)
{
	/*
	 * The hash of an unknown user is a real one of a password that nobody has; still, it must not let anyone in.
	 * That the password of a locked one is right is nobody's business.
	 */
	if (answer != ANSWER_YES || !l->found || l->unhashed || l->locked) {
		if (answer == ANSWER_UNKNOWN || !even_out(l))
			try_next(l, answer == ANSWER_UNKNOWN);
		return;
	}
	cache_put(l->tag[STORE_DB]);
	if (!upgrade(l))
		login_vouched(l, STORE_DB, l->user, "password");
}

static void
on_answer(struct question *q, enum answer answer, const struct body_verdict *verdict)
{
	struct login *l = owner_of(q, struct login, question);

	if (q->pam)
		on_pam(l, answer, verdict);
	else
		on_hash(l, answer);
}

void
vouch_due(struct login *l)
{
	if (l->stage != LOGIN_HOLDING) {
		login_trouble(l, "timeout");
		return;
	}
	timer_set(&l->timer, clock_ms() + PATIENCE);
	try_next(l, false);
}

static void
ask(struct login *l, bool pam)
{
	struct question *q = &l->question;

	l->stage = LOGIN_ASKING;
	l->asked = clock_ms();
	/* a name that PAM must not see costs what another unknown one does */
	*q = (struct question){ .pam = pam, .hash = l->secret->hash, .user = l->nobody ? "no-such-user" : l->user,
		.client = peer_hello(l)->client, .suspect = l->charged && throttle_suspects(peer_hello(l)->client),
		.password = pam ? l->secret->password : l->secret->prepared, .on_answer = on_answer };
	if (question_ask(q) == -1)
		login_trouble(l, "busy");
}

/*
 * What a hasher is asked about: the user's hash, or the one that took its place when he last logged in; for want of
 * either the store's own, which costs the same. False if there is no store at all.
 */
static bool
choose_hash(struct login *l)
{
	char *hash = l->secret->hash;
	struct store_meta meta;
	struct memory m;

	hash[0] = '\0';
	if (l->found && l->secret->user.hash[0] != '\0') {
		string_copy(hash, STORE_HASH_SIZE, l->secret->user.hash);
		if (hash_is_foreign(hash)) {
			memory_find(l->user, l->secret->user.digest, &m);
			if (m.hash[0] != '\0')
				string_copy(hash, STORE_HASH_SIZE, m.hash);
			sodium_memzero(&m, sizeof m);
		}
		return true;
	}
	if (store_meta(&users, &meta) != 1)
		return false;
	/* a user without a password is nobody's to log in as with one */
	l->unhashed = l->found;
	string_copy(hash, STORE_HASH_SIZE, meta.hash);
	sodium_memzero(&meta, sizeof meta);
	return true;
}

static void
try_store(struct login *l)
{
	while (l->store_at < conf->stores.count) {
		if (conf->stores.item[l->store_at] == STORE_PAM) {
			ask(l, true);
			return;
		}
		if (choose_hash(l)) {
			ask(l, false);
			return;
		}
		l->store_at++;
	}
	login_refused(l);
}

/* Has one of the stores said yes to this very password a short while ago? */
static bool
is_remembered(struct login *l)
{
	for (uint32_t i = 0; i < conf->stores.count; i++) {
		enum store store = conf->stores.item[i];
		bool db = store == STORE_DB;
		cache_tag(l->tag[store], store, db ? "" : conf->pam_service, l->user, db ? l->secret->user.digest : NULL,
		    db ? "" : peer_hello(l)->client, l->secret->password);
		if ((!db || l->found) && !l->locked && cache_has(l->tag[store])) {
			login_vouched(l, store, l->user, "remembered");
			return true;
		}
	}
	return false;
}

/* An app password works until it expires, and only from its network; otherwise it is a wrong one. */
static bool
app_may(const struct store_app *a, const char *client)
{
	struct conf_networks from = { .count = 1 };

	if (a->expires != 0 && a->expires <= (int64_t)time(NULL))
		return false;
	return a->from[0] == '\0' || (conf_network_parse(&from.network[0], a->from) && conf_in_networks(&from, client));
}

static bool
is_app_password(struct login *l)
{
	const struct store_user *u = &l->secret->user;
	char plain[TOKEN_PLAIN];
	uint8_t hash[32];
	uint32_t which = STORE_APPS;

	if (!l->found || l->locked || u->apps == 0 || !token_read(plain, l->secret->password))
		return false;
	if (!have_key(l)) {
		sodium_memzero(plain, sizeof plain);
		return false;
	}
	token_hash(hash, key, l->user, plain);
	for (uint32_t i = 0; i < u->apps; i++)
		if (sodium_memcmp(u->app[i].hash, hash, sizeof hash) == 0)
			which = i;
	sodium_memzero(plain, sizeof plain);
	sodium_memzero(hash, sizeof hash);
	if (which == STORE_APPS || !app_may(&u->app[which], peer_hello(l)->client))
		return false;
	l->no_delete = u->app[which].no_delete;
	string_copy(l->app, sizeof l->app, u->app[which].name);
	l->app_at = which;
	login_vouched(l, STORE_DB, l->user, "app-password");
	return true;
}

void
vouch_password(struct login *l)
{
	l->stage = LOGIN_ASKING;
	timer_set(&l->timer, clock_ms() + PATIENCE);
	find_user(l);
	password_prepare(l->secret->prepared, l->secret->password);
	if (is_app_password(l) || is_remembered(l))
		return;
	l->store_at = 0;
	try_store(l);
}
