/*
 * spoold: holds the mail. Boot order only; sessions.c is the parent's loop, grant.c what root is for, worker.c a
 * session.
 */
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <unistd.h>

#include "accounts.h"
#include "front.h"
#include "grant.h"
#include "log.h"
#include "privilege.h"
#include "sandbox.h"
#include "sessions.h"
#include "system.h"
#include "uidl.h"

static struct conf conf;
static bool restartable;	/* -r */

static const char *
on_option(int option, const char *argument)
{
	(void)option;
	(void)argument;
	restartable = true;
	return NULL;
}

/*
 * Name service modules are loaded by the first lookup, and in the sandbox no code can be: so all of them are needed
 * now. What Berkeley DB calls is bound by the first lookup, too: here once, and not in every worker.
 */
static void
load_name_service(void)
{
	struct account account;

	(void)account_find(conf.db, "postern-no-such-user", &account);
	(void)getpwnam("postern-no-such-user");
	(void)getpwuid((uid_t)-2);
	endpwent();
}

static void
say_what_is_off(void)
{
	if (!privilege_is_root())
		log_text(LOG_WARNING, "not root: all mailboxes are uid %u's own, and its workers are not kept apart from each other", (unsigned)geteuid());
}

/* What postern.conf may say and this program cannot do. NULL, or what is wrong, and *key where. */
static const char *
conf_wrong(const struct conf *c, const char **key)
{
	const char *wrong = uidl_check(c->uidl_format);

	*key = wrong != NULL ? "uidl-format" : "server-copy";
	if (wrong == NULL && c->server_copy == COPY_MARK_READ && c->store == STORE_MBOX)
		wrong = "an mbox has no mark that could be set without moving mail; accepted with store = mbox: as-client-says, keep, "
		    "archive, delete";
	return wrong;
}

static bool
conf_test(const struct conf *c)
{
	const char *key, *wrong = conf_wrong(c, &key);

	if (wrong != NULL)
		fprintf(stderr, "%s: [spoold] %s: %s\n", c->file, key, wrong);
	return wrong == NULL;
}

int
main(int argc, char **argv)
{
	struct options options;
	const char *key, *wrong;

	descriptors_sane();
	log_start("spoold");
	options_on_test(conf_test);
	options_parse(argc, argv, "spoold [-rtVh] [-c FILE]", "r", on_option, &options, &conf);
	if (sodium_init() == -1)
		fatal("libsodium cannot be used");
	if ((wrong = conf_wrong(&conf, &key)) != NULL)
		fatal("%s: [spoold] %s: %s", conf.file, key, wrong);
	log_open(&conf, -1);
	int first = open("/dev/null", O_RDONLY | O_CLOEXEC);	/* log's descriptors are below, the parent's own above */
	if (restartable)
		front_stand(&conf);
	sandbox_check(&conf);
	say_what_is_off();
	load_name_service();
	asroot_directories(&conf);
	sessions_open(&conf, first);
	sandbox_prepare(CELL_WORKER);
	sandbox_enter(CELL_SPOOLD, &conf, NULL, 0);
	sessions_recover();
	notify_manager("READY=1");
	log_text(LOG_NOTICE, "ready");
	sessions_serve();
	return 0;
}
