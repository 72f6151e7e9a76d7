#include "login.h"

#include <sodium.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "apop.h"
#include "figures.h"
#include "grant.h"
#include "log.h"
#include "memory.h"
#include "peer.h"
#include "sasl.h"
#include "system.h"
#include "throttle.h"
#include "vouch.h"

/* Milliseconds. How long spoold has; how long it may be away, since it is being restarted, and when it is looked for again. */
#define PATIENCE	30000
#define AWAY		5000
#define AGAIN		50

static const struct conf *conf;
static struct secret *spare;	/* secrets not in use */

void
login_start(const struct conf *c, size_t room)
{
	struct secret *all = sodium_allocarray(room, sizeof *all);

	if (all == NULL)
		fatal("no locked memory for %zu logins at a time: raise the limit (LimitMEMLOCK=)", room);
	for (size_t i = 0; all != NULL && i < room; i++) {
		memset(&all[i], 0, sizeof all[i]);
		all[i].next = spare;
		spare = &all[i];
	}
	conf = c;
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

static void
settle(struct login *l, enum outcome outcome)
{
	if (l->charged)
		throttle_settle(peer_hello(l)->client, l->user, outcome);
	l->charged = false;
}

/* Ends the attempt's work; what the log wants of it stays. */
static void
release(struct login *l)
{
	question_withdraw(&l->question);
	grant_forget(l);
	timer_clear(&l->timer);
	settle(l, OUTCOME_WRONG);	/* if it did not come to a good end */
	sasl_end(l);
	secret_give(l->secret);
	l->secret = NULL;
	l->stage = LOGIN_NONE;
	/* SASLprep and the like leave the password in frames that are dead by now. */
	sodium_stackzero(8192);
}

void
login_abandon(struct login *l)
{
	if (l->stage != LOGIN_NONE || l->secret != NULL)
		release(l);
}

/* The line a login: its keys are in authd(8), for fail2ban and for people. */
static void
log_attempt(const struct login *l, bool good)
{
	const struct body_hello *h = peer_hello(l);
	const char *user = l->granted[0] != '\0' ? l->granted : l->user;
	char certificate[2 * sizeof h->certificate + 1];

	log_session(h->session);
	log_begin(LOG_INFO, "login");
	log_string("result", good ? "ok" : "fail");
	log_string("reason", l->reason);
	/* each octet may become four: a name made long on purpose must not push the address out of the line */
	log_bytes("user", user, strnlen(user, 128));
	log_string("remote", h->client);
	log_string("mechanism", mechanism_name(l->mechanism));
	log_string("store", l->store < STORE_COUNT ? store_name(l->store) : "none");
	log_string("tls", h->tls_version[0] != '\0' ? h->tls_version : "none");
	if (l->app[0] != '\0')
		log_string("app", l->app);
	if (l->recent)
		log_string("view", "recent");
	if (l->mechanism == MECHANISM_EXTERNAL && h->has_certificate) {
		sodium_bin2hex(certificate, sizeof certificate, h->certificate, sizeof h->certificate);
		log_string("certificate", certificate);
	}
	log_end();
	log_session(NULL);
}

static void
deny_for(struct login *l, enum denial denial, const char *reason, uint32_t seconds)
{
	l->reason = reason;
	if (l->found && l->store == STORE_COUNT)
		l->store = STORE_DB;
	log_attempt(l, false);
	figures_login(l->mechanism, denial, clock_ms() - l->begun);
	/* our own trouble; but who seems to be making it is not let off */
	if (denial == DENIED_TEMPORARY && l->charged && !throttle_suspects(peer_hello(l)->client))
		settle(l, OUTCOME_NONE);
	release(l);
	peer_denied(l, denial, seconds);
}

static void
deny(struct login *l, enum denial denial, const char *reason)
{
	deny_for(l, denial, reason, 0);
}

void
login_trouble(struct login *l, const char *reason)
{
	deny(l, DENIED_TEMPORARY, reason);
}

/* No store has vouched for the user. What the client hears depends only on whether all of them could be asked. */
void
login_refused(struct login *l)
{
	if (l->trouble)
		deny(l, DENIED_TEMPORARY, "store-unavailable");
	else if (l->locked)
		deny(l, DENIED_CREDENTIALS, "locked");
	else if (l->found)
		deny(l, DENIED_CREDENTIALS, "wrong-password");
	else
		deny(l, DENIED_CREDENTIALS, l->reason != NULL ? l->reason : "unknown-user");
}

static void
note_login(const struct login *l)
{
	static const uint8_t none[STORE_DIGEST_SIZE];
	struct memory m;

	memory_find(l->granted, l->found ? l->secret->user.digest : none, &m);
	m.last = (int64_t)time(NULL);
	if (l->app[0] != '\0')
		m.used[l->app_at] = m.last;
	memory_put(l->granted, &m);
	sodium_memzero(&m, sizeof m);
}

/* LOGIN-DELAY (RFC 2449): seconds that this user still has to stay away. */
static uint32_t
too_soon(const struct login *l)
{
	static const uint8_t none[STORE_DIGEST_SIZE];
	int64_t now = (int64_t)time(NULL), delay = (int64_t)conf->login_delay;
	struct memory m;

	if (delay == 0)
		return 0;
	memory_find(l->granted, none, &m);
	/* a clock that was set back must not keep anybody out */
	return m.last > 0 && m.last <= now && m.last + delay > now ? (uint32_t)(m.last + delay - now) : 0;
}

static void
ask_maildrop(struct login *l)
{
	const struct body_hello *h = peer_hello(l);

	l->stage = LOGIN_OPENING;
	timer_clear(&l->timer);
	if (grant_ask(l, h->session, h->client) == -1)
		login_unanswered(l);
	else
		timer_set(&l->timer, clock_ms() + PATIENCE);
}

void
login_unanswered(struct login *l)
{
	int64_t now = clock_ms();

	if (l->away == 0)
		l->away = now + AWAY;
	if (now >= l->away)
		deny(l, DENIED_TEMPORARY, "spoold-gone");
	else {
		l->stage = LOGIN_REOPENING;
		timer_set(&l->timer, now + AGAIN);
	}
}

void
login_vouched(struct login *l, enum store store, const char *granted, const char *reason)
{
	uint32_t seconds;

	l->store = store;
	if (l->locked) {
		deny(l, DENIED_CREDENTIALS, "locked");
		return;
	}
	string_copy(l->granted, sizeof l->granted, granted);
	l->reason = reason;
	settle(l, OUTCOME_RIGHT);
	seconds = too_soon(l);
	if (seconds > 0)
		deny_for(l, DENIED_DELAY, "login-delay", seconds);
	else
		ask_maildrop(l);
}

void
login_opened(struct login *l, int fd, enum denial denial, const char *reason)
{
	if (fd == -1) {
		deny(l, denial, reason);
		return;
	}
	note_login(l);
	log_attempt(l, true);
	figures_login(l->mechanism, DENIED_COUNT, clock_ms() - l->begun);
	release(l);
	peer_granted(l, fd, l->granted, l->no_delete);
	close(fd);
}

/*
 * The client has proved who it is. The mechanism may have a last word, which the client acknowledges before it gets its
 * answer (RFC 5034 section 4).
 */
static void
proved(struct login *l)
{
	if (l->secret->challenge_length == 0) {
		login_vouched(l, STORE_DB, l->user, l->mechanism == MECHANISM_EXTERNAL ? "certificate" : "proof");
		return;
	}
	l->stage = LOGIN_CLOSING;
	peer_challenge(l, l->secret->challenge, l->secret->challenge_length);
}

/* What the exchange has come to is acted on. */
static void
proceed(struct login *l)
{
	switch (l->next) {
	case NEXT_CHALLENGE:
		l->stage = LOGIN_EXCHANGE;
		peer_challenge(l, l->secret->challenge, l->secret->challenge_length);
		return;
	case NEXT_PASSWORD:
		vouch_password(l);
		return;
	case NEXT_PROVED:
		proved(l);
		return;
	case NEXT_WRONG:
		deny(l, DENIED_CREDENTIALS, l->reason != NULL ? l->reason : l->locked ? "locked" : l->found ? "wrong-proof" :
		    "unknown-user");
	}
}

static void
on_due(struct timer *t)
{
	struct login *l = owner_of(t, struct login, timer);

	if (l->stage == LOGIN_WAITING)
		proceed(l);
	else if (l->stage == LOGIN_REOPENING)
		ask_maildrop(l);
	else if (l->stage == LOGIN_OPENING)
		deny(l, DENIED_TEMPORARY, "timeout");
	else
		vouch_due(l);
}

/*
 * From here on it is known who is meant. Every attempt passes once: the name is checked, the throttle has its say, and
 * then goes on what the exchange came to.
 */
static void
admit(struct login *l)
{
	int64_t wait = 0;

	l->admitted = true;
	if (l->next == NEXT_WRONG && l->user[0] == '\0') {
		deny(l, DENIED_CREDENTIALS, l->reason != NULL ? l->reason : "wrong-proof");
		return;
	}
	if (l->authzid[0] != '\0' && strcmp(l->authzid, l->user) != 0) {
		deny(l, DENIED_CREDENTIALS, "authzid");
		return;
	}
	/* goes the way of all unknown ones, at their price */
	l->nobody = store_name_check(l->user) != NULL;
	if (l->nobody)
		l->reason = "malformed-user";
	bool throttled = conf->throttle && !conf_in_networks(&conf->throttle_exempt, peer_hello(l)->client);
	if (throttled)
		wait = throttle_charge(peer_hello(l)->client, l->user);
	if (wait == -1) {
		figures_throttled();
		deny(l, DENIED_TEMPORARY, "throttled");
		return;
	}
	l->charged = throttled;
	l->stage = LOGIN_WAITING;
	if (wait == 0)
		proceed(l);
	else if (timer_set(&l->timer, clock_ms() + wait) == -1)
		deny(l, DENIED_TEMPORARY, "memory");
}

static void
come_to(struct login *l, enum login_next next)
{
	l->next = next;
	/* LOGIN asks for the name first; until it is given there is nobody to throttle */
	if (l->admitted || (next == NEXT_CHALLENGE && l->user[0] == '\0'))
		proceed(l);
	else
		admit(l);
}

static void
step(struct login *l, const uint8_t *data, size_t length)
{
	switch (sasl_step(l, data, length)) {
	case SASL_CHALLENGE:
		come_to(l, NEXT_CHALLENGE);
		return;
	case SASL_PASSWORD:
		sasl_end(l);
		come_to(l, NEXT_PASSWORD);
		return;
	case SASL_PROVED:
		come_to(l, NEXT_PROVED);
		return;
	case SASL_WRONG:
		come_to(l, NEXT_WRONG);
		return;
	case SASL_TROUBLE:
		deny(l, DENIED_TEMPORARY, "memory");
		return;
	default:
		deny(l, DENIED_PROTOCOL, "malformed");
	}
}

/* What the configuration offers on this connection, and of it what can succeed: pop3d shows it, this enforces it. */
static bool
is_offered(const struct login *l)
{
	const struct body_hello *h = peer_hello(l);
	bool loopback = h->client[0] == '\0' || address_is_loopback(h->client);
	bool tls = h->tls_version[0] != '\0';

	if ((conf_mechanisms(conf, tls, loopback) & (1u << l->mechanism)) == 0)
		return false;
	if (l->mechanism == MECHANISM_APOP)
		return peer_timestamp(l)[0] != '\0';
	if (l->mechanism == MECHANISM_SCRAM_SHA_256_PLUS && h->binding_length == 0 && h->end_point_length == 0)
		return false;
	if (l->mechanism == MECHANISM_EXTERNAL && !h->has_certificate)
		return false;
	return sasl_knows(l->mechanism);
}

/*
 * Of those that yield something, only EXTERNAL has a meaning for an empty response; and CRAM-MD5 begins with the
 * server's word. What the library would take for "not yet" is refused.
 */
static bool
is_out_of_form(const struct login *l, bool response, uint32_t length)
{
	if (l->mechanism == MECHANISM_EXTERNAL || l->mechanism == MECHANISM_APOP)
		return false;
	return response && (length == 0 || (l->mechanism == MECHANISM_CRAM_MD5 && l->stage == LOGIN_NONE));
}

/* GNU SASL's LOGIN asks for the name even if it was sent along. */
static void
skip_first_question(struct login *l, const uint8_t *initial, uint32_t length)
{
	if (l->mechanism == MECHANISM_LOGIN && initial != NULL && length > 0)
		sasl_step(l, (const uint8_t *)"", 0);
}

void
login_begin(struct login *l, uint32_t mechanism, const uint8_t *initial, uint32_t length)
{
	memset(l, 0, sizeof *l);
	l->timer.on_due = on_due;
	l->begun = clock_ms();
	l->mechanism = mechanism;
	l->store = STORE_COUNT;
	if (!is_offered(l)) {
		deny(l, DENIED_MECHANISM, "mechanism");
		return;
	}
	if (is_out_of_form(l, initial != NULL, length)) {
		deny(l, DENIED_PROTOCOL, "malformed");
		return;
	}
	l->secret = secret_take();
	if (l->secret == NULL) {
		deny(l, DENIED_TEMPORARY, "busy");
		return;
	}
	if (l->mechanism == MECHANISM_APOP) {
		if (apop_check(l, initial, length) == -1)
			deny(l, DENIED_PROTOCOL, "malformed");
		else
			come_to(l, l->next);
		return;
	}
	if (sasl_begin(l) == -1) {
		deny(l, DENIED_TEMPORARY, "memory");
		return;
	}
	skip_first_question(l, initial, length);
	step(l, initial, initial != NULL ? length : 0);
}

void
login_respond(struct login *l, const struct body_respond *r)
{
	if (r->cancelled)
		deny(l, DENIED_PROTOCOL, "cancelled");
	else if (l->stage != LOGIN_CLOSING && is_out_of_form(l, true, r->length))
		deny(l, DENIED_PROTOCOL, "malformed");
	else if (l->stage != LOGIN_CLOSING)
		step(l, r->data, r->length);
	else if (r->length > 0)
		deny(l, DENIED_PROTOCOL, "malformed");
	else
		login_vouched(l, STORE_DB, l->user, "proof");
}
