/*
 * The configuration: defaults, every type of value at its limits, and what each error says.
 * "build/unit/conf keys" prints the table of keys, for the tests that compare it with the manual and the example.
 * links: lib/conf.c lib/system.c lib/log.c
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf.h"

static char path[] = "/tmp/postern-conf-XXXXXX";
static struct conf c;
static char error[1024];

static int
load(const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	error[0] = '\0';
	return conf_load(&c, path, false, error, sizeof error);
}

static void
assert_good(const char *text)
{
	if (load(text) == -1)
		fail_msg("refused: %s", error);
}

/* Refused, with all of the words in the error, which starts with FILE. */
static void
assert_bad(const char *text, const char *a, const char *b)
{
	assert_int_equal(load(text), -1);
	assert_int_equal(strncmp(error, path, strlen(path)), 0);
	if (strstr(error, a) == NULL || strstr(error, b) == NULL)
		fail_msg("\"%s\" says neither \"%s\" nor \"%s\"", error, a, b);
	assert_null(strchr(error, '\n'));
}

static void
defaults(void **state)
{
	(void)state;
	assert_good("");
	assert_string_equal(c.file, path);
	assert_string_equal(c.run_dir, "/run/postern");
	assert_string_equal(c.state_dir, "/var/lib/postern");
	assert_int_equal(c.log, LOG_TO_SYSLOG);
	assert_int_equal(c.log_level, LOG_INFO);
	assert_int_equal(c.sandbox, SANDBOX_REQUIRED);
	assert_int_equal(c.cleartext_login, CLEARTEXT_LOOPBACK);
	assert_int_equal(c.max_connections, 1000);
	assert_int_equal(c.max_per_address, 50);
	assert_int_equal(c.login_timeout, 60);
	assert_int_equal(c.idle_timeout, 600);
	assert_int_equal(c.prefork, 4);
	assert_int_equal(c.proxy_protocol_from.count, 0);
	assert_int_equal(c.certificate.count, 0);
	assert_int_equal(c.tls_minimum, 12);
	assert_string_equal(c.authd_user, "_postern-auth");
	assert_int_equal(c.stores.count, 2);
	assert_int_equal(c.stores.item[0], STORE_DB);
	assert_int_equal(c.stores.item[1], STORE_PAM);
	assert_string_equal(c.db, "/etc/postern/users.db");
	assert_string_equal(c.pam_service, "postern");
	assert_int_equal(c.cache_ttl, 300);
	assert_int_equal(c.throttle, 1);
	assert_int_equal(c.login_delay, 0);
	assert_int_equal(c.store, STORE_AUTO);
	assert_string_equal(c.mbox, "/var/mail/%u");
	assert_string_equal(c.maildir, "~/Maildir");
	assert_int_equal(c.mbox_locks.count, 2);
	assert_int_equal(c.min_uid, 1000);
	assert_string_equal(c.virtual_user, "");
	assert_int_equal(c.takeover, 0);
	assert_int_equal(c.server_copy, COPY_AS_CLIENT_SAYS);
	assert_string_equal(c.uidl_format, "postern");
}

static void
missing_file(void **state)
{
	(void)state;
	assert_int_equal(conf_load(&c, "/nonexistent/postern.conf", false, error, sizeof error), -1);
	assert_non_null(strstr(error, "/nonexistent/postern.conf"));
	assert_int_equal(conf_load(&c, "/nonexistent/postern.conf", true, error, sizeof error), 0);
	assert_int_equal(c.min_uid, 1000);
	assert_int_equal(conf_load(&c, "/", false, error, sizeof error), -1);
}

static void
values(void **state)
{
	(void)state;
	assert_good("# a comment\n; another\n\n[postern]\nrun-dir = /r ; told\n  \nlog = STDERR\nsandbox= Best-Effort\n");
	assert_string_equal(c.run_dir, "/r");
	assert_int_equal(c.log, LOG_TO_STDERR);
	assert_int_equal(c.sandbox, SANDBOX_BEST_EFFORT);
	assert_good("[spoold]\ntakeover = yes\nmin-uid = 4294967294\nmbox-locks = flock, dotlock fcntl\nmbox = ~/mbox\n");
	assert_int_equal(c.takeover, 1);
	assert_int_equal(c.min_uid, UINT32_MAX - 1);
	assert_int_equal(c.mbox_locks.count, 3);
	assert_int_equal(c.mbox_locks.item[0], LOCK_FLOCK);
	assert_int_equal(c.mbox_locks.item[2], LOCK_FCNTL);
	assert_string_equal(c.mbox, "~/mbox");
	assert_good("[tls]\ncertificate = /a /b\nkey = /c\nkey = /d\n");
	assert_int_equal(c.certificate.count, 2);
	assert_string_equal(c.key.path[1], "/d");
	assert_good("[authd]\nstores = pam\nmechanisms = plain\n");
	assert_int_equal(c.stores.count, 1);
	assert_true(conf_has(&c.stores, STORE_PAM));
	assert_false(conf_has(&c.stores, STORE_DB));
}

/* A list goes on in lines that are indented, and nothing else does. */
static void
lists_go_on(void **state)
{
	char place[64];

	(void)state;
	assert_good("[authd]\nmechanisms = PLAIN ; one\n  LOGIN, USER ; ] = [\n# a comment\n\n\tCRAM-MD5\nstores =\n    pam\n    db\n");
	assert_int_equal(c.mechanisms.count, 4);
	assert_int_equal(c.mechanisms.item[0], MECHANISM_PLAIN);
	assert_int_equal(c.mechanisms.item[2], MECHANISM_USER);
	assert_int_equal(c.mechanisms.item[3], MECHANISM_CRAM_MD5);
	assert_int_equal(c.stores.count, 2);
	assert_int_equal(c.stores.item[0], STORE_PAM);
	assert_int_equal(conf_line(&c, "authd", "stores"), 7);
	assert_good("[spoold]\nserver-copy-choice = keep\n delete\nmbox-locks = dotlock\n fcntl\n");
	assert_int_equal(c.server_copy_choice.count, 2);
	assert_int_equal(c.mbox_locks.count, 2);
	assert_good("[pop3d]\nproxy-protocol-from = 10.0.0.1\n 10.0.0.2 ; two\n[tls]\ncertificate = /a\n\t/b\nkey = /c /d\n");
	assert_int_equal(c.proxy_protocol_from.count, 2);
	assert_int_equal(c.certificate.count, 2);
	assert_good("[authd]\n  stores = db\n[authd]\n  throttle = off\n");	/* the first of a section goes on with nothing */
	assert_int_equal(c.throttle, 0);
	snprintf(place, sizeof place, "%s:3: ", path);
	assert_bad("[authd]\nmechanisms = PLAIN\nmechanisms = LOGIN\n", place, "given twice");
	assert_bad("[authd]\nmechanisms = PLAIN\n PLAIN\n", place, "twice");
	assert_bad("[authd]\ndb = /a\n stores = db\n", place, "[authd] db");
	assert_bad("[authd]\ndb = /a\n stores = db\n", "indented", "\"stores = db\"");
	assert_bad("[authd]\n\nstores =\n\n# nothing\n", place, "[authd] stores: \"\": is empty");
}

/* Also what one line alone does not tell names a line and one key. */
static void
errors_of_the_whole(void **state)
{
	char place[64], text[512] = "[postern]\n\nrun-dir = /";

	(void)state;
	snprintf(place, sizeof place, "%s:3: ", path);
	assert_bad("[tls]\n\ncertificate = /a\n", place, "[tls] certificate: ");
	assert_bad("[tls]\ncertificate = /a\nkey = /b\nkey = /c\n", place, "[tls] key: ");
	assert_bad("[tls]\n\nkey = /b\n", place, "[tls] key: ");
	assert_bad("[authd]\nstores = pam\nmechanisms = APOP\n", place, "[authd] mechanisms: ");
	assert_bad("[spoold]\nstore = mbox\nserver-copy = mark-read\n", place, "[spoold] server-copy: ");
	memset(text + strlen(text), 'x', 300);
	assert_bad(text, place, "198");
	memcpy(text, "[x]\nx=1\n#x", 11);	/* an earlier mistake is told first */
	assert_bad(text, ":2: ", "[x]: unknown section");
	assert_bad("\n\n[pop3d\nprefork = 1\n", place, "\"[pop3d\": a section without its ]");
	assert_bad("[authd]\ndb = /x\n [pop3d\n", place, "[authd] db");
	assert_bad("[authd]\ngarbage\nx = 1\n", ":2: ", "not understood");
	assert_bad("[authd]\nx = 1\ngarbage\n", ":2: ", "[authd] x: unknown key");
}

static void
errors_name_the_place(void **state)
{
	char place[64];

	(void)state;
	snprintf(place, sizeof place, "%s:3: ", path);
	assert_bad("[pop3d]\n\nprefork = many\n", place, "[pop3d] prefork");
	assert_bad("[pop3d]\n\nprefork = many\n", "not a number", "a number from 0 to 1000");
	assert_bad("[pop3d]\n\npreforks = 1\n", place, "unknown key");
	assert_bad("[pop3d]\n\npreforks = 1\n", "preforks", "login-timeout");
	assert_bad("[pop3d]\n\nmin-uid = 1\n", "unknown key", "[pop3d] min-uid");
	assert_bad("#\n[pop3]\nprefork = 1\n", "unknown section", "[pop3d]");
	assert_bad("prefork = 1\n", ":1: ", "before any [section]");
	assert_bad("[pop3d]\n\nprefork\n", place, "not understood");
	assert_bad("[pop3d]\nprefork = 1\nprefork = 2\n", place, "given twice");
	/* the first of two mistakes */
	assert_bad("[pop3d]\n\nprefork = x\n[spoold]\nstore = y\n", place, "prefork");
}

static void
numbers(void **state)
{
	(void)state;
	assert_good("[pop3d]\nlogin-timeout = 1\n");
	assert_good("[pop3d]\nlogin-timeout = 3600\n");
	assert_int_equal(c.login_timeout, 3600);
	assert_bad("[pop3d]\nlogin-timeout = 0\n", "too small", "from 1 to 3600");
	assert_bad("[pop3d]\nlogin-timeout = 3601\n", "too large", "from 1 to 3600");
	assert_bad("[pop3d]\nlogin-timeout = -1\n", "not a number", "seconds");
	assert_bad("[pop3d]\nlogin-timeout = +1\n", "not a number", "seconds");
	assert_bad("[pop3d]\nlogin-timeout = 0x10\n", "not a number", "seconds");
	assert_bad("[pop3d]\nlogin-timeout = 1s\n", "not a number", "seconds");
	assert_bad("[pop3d]\nlogin-timeout =\n", "not a number", "seconds");
	assert_bad("[pop3d]\nlogin-timeout = 18446744073709551617\n", "too large", "seconds");
	assert_bad("[pop3d]\nlogin-timeout = 99999999999999999999999999\n", "too large", "seconds");
	assert_bad("[spoold]\nmin-uid = 0\n", "too small", "1 to 4294967294");
}

static void
words(void **state)
{
	(void)state;
	assert_bad("[postern]\nlog = file\n", "\"file\"", "accepted: syslog, stderr");
	assert_bad("[postern]\nsandbox = on\n", "not one of the accepted words", "best-effort");
	assert_bad("[postern]\nsandbox = requir\n", "not one of the accepted words", "best-effort");
	assert_bad("[spoold]\nstore = mbox maildir\n", "not one of the accepted words", "auto, mbox, maildir");
	assert_bad("[spoold]\nmbox-locks = fcntl lockf\n", "word that is not accepted", "fcntl, dotlock, flock");
	assert_bad("[spoold]\nmbox-locks = fcntl fcntl\n", "twice", "fcntl, dotlock, flock");
	assert_bad("[spoold]\nmbox-locks =\n", "empty", "fcntl, dotlock, flock");
	assert_bad("[authd]\nmechanisms = PLAIN DIGEST-MD5\n", "not accepted", "SCRAM-SHA-256");
	assert_bad("[authd]\nmechanisms = APOP\nstores = pam\n", "APOP", "db");
	assert_bad("[tls]\nminimum = 1.1\n", "not one of the accepted words", "1.2, 1.3");
}

static void
paths(void **state)
{
	char text[1024] = "[postern]\nrun-dir = /";

	(void)state;
	assert_bad("[postern]\nrun-dir = run\n", "not an absolute path", "an absolute path");
	assert_bad("[postern]\nrun-dir =\n", "not an absolute path", "an absolute path");
	assert_bad("[spoold]\nmbox = mail/%u\n", "mbox", "starts with ~/");
	assert_bad("[spoold]\nmbox = mail/%u\n", "not a path", ":2: [spoold] mbox: ");
	assert_bad("[spoold]\nmbox =\n", "not a path", ":2: [spoold] mbox: ");
	assert_bad("[spoold]\nmaildir = ~u/M\n", "not a path", ":2: [spoold] maildir: ");
	assert_bad("[spoold]\nmbox = /var/mail/%d/%u\n", ":2: [spoold] mbox: ", "%u for the user's name and %% for a %");
	assert_bad("[spoold]\nmaildir = ~/%n\n", ":2: [spoold] maildir: ", "%u for the user's name and %% for a %");
	assert_bad("[spoold]\nmbox = /mail/%%%\n", ":2: [spoold] mbox: ", "%u for the user's name");
	assert_good("[spoold]\nmbox = /mail/%%d/%u%%\nmaildir = ~/%u/%u\n");
	assert_bad("[tls]\ncertificate = a.pem\nkey = /k\n", "not an absolute path", "certificate");
	assert_bad("[tls]\ncertificate = /a.pem\n", "pairs", "[tls] certificate: ");
	memset(text + strlen(text), 'x', 900);
	assert_bad(text, "too long", "198");
	assert_good("[tls]\nclient-ca =\n");
	/* keeper.sock in it has to fit the address of a socket */
	memset(text, 0, sizeof text);
	snprintf(text, sizeof text, "[postern]\nrun-dir = /%094d\n", 0);
	assert_good(text);
	snprintf(text, sizeof text, "[postern]\nrun-dir = /%095d\n", 0);
	assert_bad(text, ":2: [postern] run-dir: ", "at most 95 characters");
	snprintf(text, sizeof text, "[postern]\nstate-dir = /%095d\n", 0);
	assert_good(text);
}

static void
accounts(void **state)
{
	(void)state;
	assert_good("[authd]\nuser = a\n[pop3d]\nuser = b\n");
	assert_string_equal(c.authd_user, "a");
	assert_bad("[authd]\nuser =\n", ":2: [authd] user: \"\": is empty", "an account that is not root");
	assert_bad("[pop3d]\nuser =\n", ":2: [pop3d] user: \"\": is empty", "an account that is not root");
	assert_bad("[authd]\nuser = root\n", ":2: [authd] user: \"root\": is root", "an account that is not root");
	assert_bad("[pop3d]\nuser = root\n", ":2: [pop3d] user: \"root\": is root", "an account that is not root");
	assert_good("[spoold]\nvirtual-user =\n");
}

static void
networks(void **state)
{
	(void)state;
	assert_good("[pop3d]\nproxy-protocol-from = 192.0.2.0/24, 2001:db8::/33 10.0.0.1\n");
	assert_int_equal(c.proxy_protocol_from.count, 3);
	assert_true(conf_in_networks(&c.proxy_protocol_from, "192.0.2.255"));
	assert_false(conf_in_networks(&c.proxy_protocol_from, "192.0.3.0"));
	assert_true(conf_in_networks(&c.proxy_protocol_from, "10.0.0.1"));
	assert_false(conf_in_networks(&c.proxy_protocol_from, "10.0.0.2"));
	assert_true(conf_in_networks(&c.proxy_protocol_from, "2001:db8:7fff::1"));
	assert_false(conf_in_networks(&c.proxy_protocol_from, "2001:db8:8000::1"));
	assert_false(conf_in_networks(&c.proxy_protocol_from, ""));
	assert_false(conf_in_networks(&c.proxy_protocol_from, "localhost"));
	assert_good("[pop3d]\nproxy-protocol-from = 0.0.0.0/0\n");
	assert_true(conf_in_networks(&c.proxy_protocol_from, "255.1.2.3"));
	assert_false(conf_in_networks(&c.proxy_protocol_from, "::1"));
	assert_bad("[pop3d]\nproxy-protocol-from = 192.0.2.0/33\n", "prefix length", "192.0.2.1");
	assert_bad("[pop3d]\nproxy-protocol-from = ::/129\n", "prefix length", "192.0.2.1");
	assert_bad("[pop3d]\nproxy-protocol-from = 192.0.2\n", "not an address", "192.0.2.1");
	assert_bad("[pop3d]\nproxy-protocol-from = example.org\n", "not an address", "192.0.2.1");
}

/* Which mechanisms are offered: passwords in the clear only where the configuration lets them. */
static void
mechanisms(void **state)
{
	const uint32_t passwords = 1u << MECHANISM_PLAIN | 1u << MECHANISM_LOGIN | 1u << MECHANISM_USER;

	(void)state;
	assert_good("");
	assert_int_equal(conf_mechanisms(&c, false, true) & passwords, passwords);
	assert_int_equal(conf_mechanisms(&c, false, false) & passwords, 0);
	assert_int_equal(conf_mechanisms(&c, true, false) & passwords, passwords);
	assert_good("[pop3d]\ncleartext-login = never\n");
	assert_int_equal(conf_mechanisms(&c, false, true) & passwords, 0);
	assert_int_equal(conf_mechanisms(&c, true, true) & passwords, passwords);
	assert_good("[pop3d]\ncleartext-login = always\n[authd]\nmechanisms = PLAIN\n");
	assert_int_equal(conf_mechanisms(&c, false, false) & passwords, 1u << MECHANISM_PLAIN);
	assert_string_equal(mechanism_name(MECHANISM_PLAIN), "PLAIN");
	assert_string_equal(store_name(STORE_PAM), "pam");
}

static void
run_path(void **state)
{
	char at[32];

	(void)state;
	assert_good("[postern]\nrun-dir = /run/p\n");
	assert_int_equal(conf_run_path(&c, "authd.sock", at, sizeof at), 0);
	assert_string_equal(at, "/run/p/authd.sock");
	assert_int_equal(conf_run_path(&c, "authd.sock", at, strlen("/run/p/authd.sock")), -1);
	assert_int_equal(conf_run_path(&c, "authd.sock", at, strlen("/run/p/authd.sock") + 1), 0);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults), cmocka_unit_test(missing_file), cmocka_unit_test(values),
		cmocka_unit_test(lists_go_on), cmocka_unit_test(errors_of_the_whole),
		cmocka_unit_test(errors_name_the_place), cmocka_unit_test(numbers), cmocka_unit_test(words),
		cmocka_unit_test(paths), cmocka_unit_test(accounts), cmocka_unit_test(networks), cmocka_unit_test(mechanisms), cmocka_unit_test(run_path),
	};

	if (argc == 2 && strcmp(argv[1], "keys") == 0) {
		conf_print_keys();
		return 0;
	}
	int fd = mkstemp(path);
	if (fd == -1)
		return 1;
	close(fd);
	int failed = cmocka_run_group_tests_name("conf", tests, NULL, NULL);
	unlink(path);
	return failed;
}
