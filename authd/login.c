#include "login.h"

#include <sodium.h>
#include <string.h>
#include <unistd.h>

#include "grant.h"
#include "log.h"
#include "pam.h"
#include "password.h"
#include "peer.h"
#include "sasl.h"
#include "system.h"
#include "throttle.h"

/* How long hashers, PAM and spoold have together; pop3d waits a little longer. */
#define PATIENCE	45000

/* Milliseconds: see fail(). */
#define GRAIN		500

static const struct conf *conf;
static struct store_file users;
static struct secret *spare;	/* secrets not in use */

void
login_start(const struct conf *c, size_t room)
{
	struct secret *all = sodium_allocarray(room, sizeof *all);

	if (all == NULL)
		fatal("no locked memory for %zu logins at a time: raise the limit (LimitMEMLOCK=)", room);
	memset(all, 0, room * sizeof *all);
	for (size_t i = 0; i < room; i++) {
		all[i].next = spare;
		spare = &all[i];
	}
	conf = c;
	store_start(&users, c->db);
}

static struct secret *
secret_take(void)
{
	struct secret *s = spare;

	if (s != NULL) {
		spare = s->next;
		s->next = NULL;
	}
	return s;
}

static void
secret_give(struct secret *s)
{
	if (s == NULL)
		return;
	sodium_memzero(s, sizeof *s);
	s->next = spare;
	spare = s;
}

/* Ends the attempt's work; its name and stage stay for the log. */
static void
release(struct login *l)
{
	question_withdraw(&l->question);
	grant_forget(l);
	timer_clear(&l->timer);
	sasl_end(l);
	secret_give(l->secret);
	l->secret = NULL;
	/* SASLprep and the like leave the password in frames that are dead by now. */
	sodium_stackzero(8192);
}

void
login_abandon(struct login *l)
{
	release(l);
	l->stage = LOGIN_NONE;
}

/* The line a login: its keys are in authd(8), for fail2ban and for people. */
static void
log_attempt(const struct login *l, bool good)
{
	const struct body_hello *h = peer_hello(l);

	log_session(h->session);
	log_begin(LOG_INFO, "login");
	log_string("result", good ? "ok" : "fail");
	log_string("reason", l->reason);
	log_string("user", good ? l->granted : l->user);
	log_string("remote", h->client);
	log_string("mechanism", mechanism_name(l->mechanism));
	log_string("store", good || l->found ? store_name(l->store) : "none");
	log_string("tls", h->tls_version[0] != '\0' ? h->tls_version : "none");
	log_end();
	log_session(NULL);
}

static void
deny(struct login *l, enum denial denial, const char *reason)
{
	l->reason = reason;
	log_attempt(l, false);
	release(l);
	l->stage = LOGIN_NONE;
	peer_denied(l, denial, 0);
}

static void
grant(struct login *l)
{
	const struct body_hello *h = peer_hello(l);

	timer_clear(&l->timer);
	l->stage = LOGIN_OPENING;
	if (grant_ask(l, h->session, h->client) == -1) {
		deny(l, DENIED_TEMPORARY, "spoold-gone");
		return;
	}
	timer_set(&l->timer, clock_ms() + PATIENCE);
}

void
login_opened(struct login *l, int fd, enum denial denial, const char *reason)
{
	if (fd == -1) {
		deny(l, denial, reason);
		return;
	}
	log_attempt(l, true);
	release(l);
	l->stage = LOGIN_NONE;
	peer_granted(l, fd, l->granted, l->no_delete);
	close(fd);
}

static void
succeed(struct login *l, enum store store, const char *granted, const char *reason)
{
	if (l->locked) {
		deny(l, DENIED_CREDENTIALS, "locked");
		return;
	}
	string_copy(l->granted, sizeof l->granted, granted);
	l->store = store;
	l->reason = reason;
	l->found = true;
	if (l->charged)
		throttle_refund(peer_hello(l)->client, l->user);
	grant(l);
}

static void try_store(struct login *l);

/* No store has vouched for the user. What the client hears depends only on whether all of them could be asked. */
static void
answer_no(struct login *l)
{
	if (l->trouble)
		deny(l, DENIED_TEMPORARY, "store-unavailable");
	else
		deny(l, DENIED_CREDENTIALS, l->locked ? "locked" : l->found ? "wrong-password" : "unknown-user");
}

/*
 * How long PAM's modules take tells what they found, and nothing can be done about it in there: where PAM had a say the answer leaves at the next
 * half second.
 */
static void
fail(struct login *l)
{
	int64_t spent = clock_ms() - l->started;

	if (!conf_has(&conf->stores, STORE_PAM)) {
		answer_no(l);
		return;
	}
	l->stage = LOGIN_DENYING;
	timer_set(&l->timer, l->started + (spent / GRAIN + 1) * GRAIN);
}

static void
try_next(struct login *l, bool trouble)
{
	l->trouble = l->trouble || trouble;
	l->store_at++;
	try_store(l);
}

static void
on_answer(struct question *q, enum answer answer, const struct body_verdict *verdict)
{
	struct login *l = owner_of(q, struct login, question);
	bool pam = verdict != NULL || q->pam;

	/* The hash of an unknown user is a real one of a password that nobody has; still, it must not let anyone in. */
	if (answer != ANSWER_YES || (!pam && !l->found)) {
		if (pam && verdict != NULL && verdict->pam != 0)
			log_text(LOG_DEBUG, "PAM said %d", (int)verdict->pam);
		try_next(l, answer == ANSWER_UNKNOWN);
		return;
	}
	enum store store = pam ? STORE_PAM : STORE_DB;
	if (!l->locked)
		cache_put(l->tag[store]);
	succeed(l, store, pam ? verdict->user : l->user, "password");
}

static void
ask(struct login *l, bool pam)
{
	struct question *q = &l->question;

	l->stage = LOGIN_ASKING;
	*q = (struct question){ .pam = pam, .hash = l->secret->hash, .user = l->user, .client = peer_hello(l)->client,
		.password = pam ? l->secret->password : l->secret->prepared, .on_answer = on_answer };
	if (question_ask(q) == -1)
		deny(l, DENIED_TEMPORARY, "busy");
}

/* What a hasher is asked about: the user's hash, or for want of one the store's own, which costs the same. False if there is no store at all. */
static bool
choose_hash(struct login *l)
{
	struct store_meta meta;

	if (l->found && l->secret->user.hash[0] != '\0') {
		memcpy(l->secret->hash, l->secret->user.hash, sizeof l->secret->hash);
		return true;
	}
	if (store_meta(&users, &meta) != 1)
		return false;
	memcpy(l->secret->hash, meta.hash, sizeof l->secret->hash);
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
	fail(l);
}

/* Has one of the stores said yes to this very password a short while ago? */
static bool
is_remembered(struct login *l)
{
	for (uint32_t i = 0; i < conf->stores.count; i++) {
		enum store store = conf->stores.item[i];
		bool db = store == STORE_DB;
		cache_tag(l->tag[store], store, db ? "" : conf->pam_service, l->user, db ? l->secret->user.digest : NULL,
		    l->secret->password);
		if ((!db || l->found) && !l->locked && cache_has(l->tag[store])) {
			succeed(l, store, l->user, "remembered");
			return true;
		}
	}
	return false;
}

static void
find_user(struct login *l)
{
	int found = conf_has(&conf->stores, STORE_DB) ? store_find(&users, l->user, &l->secret->user) : 0;

	l->found = found == 1;
	l->locked = l->found && l->secret->user.locked;
	if (found == -1) {
		log_text(LOG_ERR, "%s: cannot be read: %m", conf->db);
		l->trouble = true;
	}
}

static void
verify(struct login *l)
{
	l->started = clock_ms();
	timer_set(&l->timer, l->started + PATIENCE);
	find_user(l);
	password_prepare(l->secret->prepared, l->secret->password);
	if (is_remembered(l))
		return;
	l->store_at = 0;
	try_store(l);
}

static void
on_due(struct timer *t)
{
	struct login *l = owner_of(t, struct login, timer);

	if (l->stage == LOGIN_WAITING)
		verify(l);
	else if (l->stage == LOGIN_DENYING)
		answer_no(l);
	else
		deny(l, DENIED_TEMPORARY, "timeout");
}

/* Name and password are known. Names that no store may be asked about go on as a name that no store has. */
static void
password_known(struct login *l)
{
	sasl_end(l);
	if (l->authzid[0] != '\0' && strcmp(l->authzid, l->user) != 0) {
		deny(l, DENIED_CREDENTIALS, "authzid");
		return;
	}
	if (store_name_check(l->user) != NULL) {
		deny(l, DENIED_CREDENTIALS, "malformed-user");
		return;
	}
	int64_t wait = conf->throttle ? throttle_charge(peer_hello(l)->client, l->user) : 0;
	l->charged = conf->throttle != 0;
	if (wait == -1) {
		l->charged = false;
		deny(l, DENIED_TEMPORARY, "throttled");
		return;
	}
	l->stage = LOGIN_WAITING;
	if (wait > 0)
		timer_set(&l->timer, clock_ms() + wait);
	else
		verify(l);
}

static void
step(struct login *l, const uint8_t *data, size_t length)
{
	uint8_t out[CHALLENGE_SIZE];
	uint32_t out_length;

	switch (sasl_step(l, data, length, out, &out_length)) {
	case SASL_CHALLENGE:
		l->stage = LOGIN_EXCHANGE;
		peer_challenge(l, out, out_length);
		return;
	case SASL_PASSWORD:
		password_known(l);
		return;
	case SASL_WRONG:
		deny(l, DENIED_CREDENTIALS, "wrong-proof");
		return;
	case SASL_TROUBLE:
		deny(l, DENIED_TEMPORARY, "memory");
		return;
	default:
		deny(l, DENIED_PROTOCOL, "malformed");
	}
}

static bool
is_offered(const struct login *l)
{
	const struct body_hello *h = peer_hello(l);
	bool loopback = h->client[0] == '\0' || address_is_loopback(h->client);

	return sasl_knows(l->mechanism) &&
	    (conf_mechanisms(conf, h->tls_version[0] != '\0', loopback) & (1u << l->mechanism)) != 0;
}

void
login_begin(struct login *l, const struct body_auth *a)
{
	memset(l, 0, sizeof *l);
	l->timer.on_due = on_due;
	l->mechanism = a->mechanism;
	if (!is_offered(l)) {
		deny(l, DENIED_MECHANISM, "mechanism");
		return;
	}
	l->secret = secret_take();
	if (l->secret == NULL || sasl_begin(l) == -1) {
		deny(l, DENIED_TEMPORARY, "busy");
		return;
	}
	step(l, a->data, a->has_initial ? a->length : 0);
}

void
login_respond(struct login *l, const struct body_respond *r)
{
	if (r->cancelled)
		deny(l, DENIED_PROTOCOL, "cancelled");
	else
		step(l, r->data, r->length);
}
