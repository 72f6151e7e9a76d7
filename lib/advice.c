/* What a configuration allows and a careful administrator would not: one function a section, a line a finding. */
#include "advice.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

__attribute__((format(printf, 5, 0)))
static void
advice_say(const struct advice *a, const char *section, const char *key, bool mistake, const char *format, va_list ap)
{
	char text[1536], why[640], place[CONF_PLACE];

	vsnprintf(why, sizeof why, format, ap);
	snprintf(text, sizeof text, "%s: %s%s", conf_place(a->conf, section, key, place, sizeof place), mistake ? "" : "warning: ", why);
	a->say(text, mistake, a->data);
}

void
advice_warn(const struct advice *a, const char *section, const char *key, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	advice_say(a, section, key, false, format, ap);
	va_end(ap);
}

void
advice_wrong(const struct advice *a, const char *section, const char *key, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	advice_say(a, section, key, true, format, ap);
	va_end(ap);
}

static bool
has_everybody(const struct conf_networks *n)
{
	for (uint32_t i = 0; i < n->count; i++)
		if (n->network[i].bits == 0)
			return true;
	return false;
}

/* Can others than its owner put something in this directory? One that is not there is judged by what is above it. */
static bool
is_public_directory(const char *path)
{
	char part[CONF_STRING];
	struct stat st;

	snprintf(part, sizeof part, "%s", path);
	while (stat(part, &st) == -1) {
		char *slash = strrchr(part, '/');
		if (slash == NULL || slash == part)
			return false;
		*slash = '\0';
	}
	return S_ISDIR(st.st_mode) && (st.st_mode & S_IWOTH) != 0;
}

static void
advise_postern(const struct advice *a)
{
	const struct conf *c = a->conf;

	if (c->sandbox == SANDBOX_OFF)
		advice_warn(a, "postern", "sandbox", "off: no process is confined, and whoever breaks into one may do all that its user may; wiser: required");
	if (c->sandbox == SANDBOX_BEST_EFFORT)
		advice_warn(a, "postern", "sandbox", "best-effort: a kernel without Landlock or seccomp is noticed only in the log; wiser: required");
	if (c->log_level < LOG_INFO)
		advice_warn(a, "postern", "log-level", "logins and sessions are not logged: nobody sees who tried to guess, and fail2ban has nothing "
		    "to read; wiser: info");
	if (is_public_directory(c->run_dir))
		advice_warn(a, "postern", "run-dir", "%s: any user may make files there, in the sockets' place; wiser: /run/postern", c->run_dir);
	if (is_public_directory(c->state_dir))
		advice_warn(a, "postern", "state-dir", "%s: any user may make files there; wiser: /var/lib/postern", c->state_dir);
}

static void
advise_pop3d(const struct advice *a)
{
	const struct conf *c = a->conf;
	unsigned long long connections = c->max_connections;

	if (c->cleartext_login == CLEARTEXT_ALWAYS)
		advice_warn(a, "pop3d", "cleartext-login", "always: passwords go over the network for everybody on the way to read; wiser: loopback, and a "
		    "certificate in [tls]");
	if (c->cleartext_login == CLEARTEXT_NEVER && c->certificate.count == 0)
		advice_warn(a, "pop3d", "cleartext-login", "never: without a [tls] certificate nobody can log in with a password");
	if (c->login_timeout > 300)
		advice_warn(a, "pop3d", "login-timeout", "%llu seconds: so long may anybody who has not logged in keep a connection from others; wiser: 60",
		    (unsigned long long)c->login_timeout);
	if (c->idle_timeout < 600)
		advice_warn(a, "pop3d", "idle-timeout", "%llu seconds: RFC 1939 wants at least 600, and clients that rely on it lose what they marked",
		    (unsigned long long)c->idle_timeout);
	if (c->prefork > c->max_connections)
		advice_warn(a, "pop3d", "prefork", "%llu: more than max-connections (%llu) can never be of use", (unsigned long long)c->prefork, connections);
	if (c->max_per_address >= c->max_connections && c->max_connections > 1)
		advice_warn(a, "pop3d", "max-per-address", "%llu: one address can take all of max-connections (%llu)",
		    (unsigned long long)c->max_per_address, connections);
	if (has_everybody(&c->proxy_protocol_from))
		advice_warn(a, "pop3d", "proxy-protocol-from", "a network of all addresses: any client can claim to be any other");
	if (strcmp(c->pop3d_user, c->authd_user) == 0)
		advice_warn(a, "pop3d", "user", "the same account as [authd] user: whoever breaks into pop3d can reach what authd holds");
}

/* A file, readable by everybody? One that is not to be seen from here is not told. */
static bool
is_readable_by_all(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IROTH) != 0;
}

static void
advise_tls(const struct advice *a)
{
	const struct conf *c = a->conf;

	for (uint32_t i = 0; i < c->key.count; i++)
		if (is_readable_by_all(c->key.path[i]))
			advice_warn(a, "tls", "key", "%s: every user may read it; do: chmod 600, and have a new key certified", c->key.path[i]);
	if (c->client_ca[0] != '\0' && !conf_has(&c->mechanisms, MECHANISM_EXTERNAL))
		advice_warn(a, "tls", "client-ca", "clients are asked for certificates, but [authd] mechanisms has no EXTERNAL");
}

/* Nothing makes a store of it, and each login would be told to come again later. */
static bool
is_no_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

static void
advise_authd(const struct advice *a)
{
	const struct conf *c = a->conf;
	char pam[CONF_STRING + 16];

	if (!c->throttle)
		advice_warn(a, "authd", "throttle", "off: whoever guesses passwords is not slowed down; wiser: on, and throttle-exempt for a webmail");
	if (has_everybody(&c->throttle_exempt))
		advice_warn(a, "authd", "throttle-exempt", "a network of all addresses: whoever guesses passwords is not slowed down");
	if (c->cache_ttl > 3600)
		advice_warn(a, "authd", "cache-ttl", "%llu seconds: so long is a password of store pam still taken after it was changed; wiser: 300",
		    (unsigned long long)c->cache_ttl);
	if (conf_has(&c->mechanisms, MECHANISM_CRAM_MD5) || conf_has(&c->mechanisms, MECHANISM_APOP))
		advice_warn(a, "authd", "mechanisms", "CRAM-MD5 and APOP rest on MD5 and keep a secret that could be used as it is; wiser: SCRAM-SHA-256");
	if (conf_has(&c->stores, STORE_DB) && is_no_file(c->db))
		advice_wrong(a, "authd", "db", "\"%s\": is a directory, or no file; accepted: the path of a file, which authctl makes", c->db);
	if (is_readable_by_all(c->db))
		advice_warn(a, "authd", "db", "%s: every user may read the password hashes; do: chmod 640, group %s", c->db, c->authd_user);
	snprintf(pam, sizeof pam, "/etc/pam.d/%s", c->pam_service);
	/* the default is made by the installation, and a check before that is no mistake */
	if (conf_line(c, "authd", "pam-service") > 0 && conf_has(&c->stores, STORE_PAM) && access("/etc/pam.d", F_OK) == 0 && access(pam, F_OK) == -1)
		advice_warn(a, "authd", "pam-service", "%s is not there: PAM goes by /etc/pam.d/other, which lets nobody in", pam);
}

/* Has every user a path of his own? */
static bool
is_of_each(const char *pattern)
{
	for (const char *at = pattern; (at = strchr(at, '%')) != NULL; at += 2)
		if (at[1] == 'u')
			return true;
	return strncmp(pattern, "~/", 2) == 0;
}

static void
advise_spoold(const struct advice *a)
{
	const struct conf *c = a->conf;

	if (c->mbox_locks.count == 1 && c->store != STORE_MAILDIR)
		advice_warn(a, "spoold", "mbox-locks", "one lock alone does not keep out programs that take another; wiser: fcntl dotlock, as Debian's policy "
		    "has it, or all that the delivery agent takes");
	if (c->min_uid < 100)
		advice_warn(a, "spoold", "min-uid", "%llu: the mail of system accounts can be fetched; wiser: 1000", (unsigned long long)c->min_uid);
	if (c->store != STORE_MAILDIR && !is_of_each(c->mbox))
		advice_warn(a, "spoold", "mbox", "%s: without %%u or ~/ all users have the same mbox", c->mbox);
	if (c->store != STORE_MBOX && !is_of_each(c->maildir))
		advice_warn(a, "spoold", "maildir", "%s: without %%u or ~/ all users have the same Maildir", c->maildir);
}

void
advice_give(const struct advice *a)
{
	advise_postern(a);
	advise_pop3d(a);
	advise_tls(a);
	advise_authd(a);
	advise_spoold(a);
}
