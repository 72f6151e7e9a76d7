/*
 * spoold: holds the mail. Boot order only; sessions.c is the parent's loop, grant.c what root is for, worker.c a
 * session.
 */
#include <fcntl.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <unistd.h>

#include "accounts.h"
#include "advice.h"
#include "check.h"
#include "front.h"
#include "grant.h"
#include "log.h"
#include "privilege.h"
#include "sandbox.h"
#include "sessions.h"
#include "system.h"

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

static bool
conf_test(const struct conf *c)
{
	char wrong[1024];
	bool sound = check_conf(c, wrong, sizeof wrong);

	if (!sound)
		fprintf(stderr, "%s\n", wrong);
	return sound;
}

int
main(int argc, char **argv)
{
	struct options options;
	char wrong[1024];

	mallopt(M_MXFAST, 0);	/* or each worker would merge what the parent has freed, and fault in every page of that */
	descriptors_sane();
	log_start("spoold");
	options_on_test(conf_test);
	options_on_advice(advice_accounts);
	options_parse(argc, argv, "spoold [-rtVh] [-c FILE]", "r", on_option, &options, &conf);
	if (sodium_init() == -1)
		fatal("libsodium cannot be used");
	if (!check_conf(&conf, wrong, sizeof wrong))
		fatal("%s", wrong);
	log_open(&conf, -1);
	int first = open("/dev/null", O_RDONLY | O_CLOEXEC);	/* log's descriptors are below, the parent's own above */
	if (restartable)
		front_stand(&conf);
	sandbox_check(&conf);
	say_what_is_off();
	load_name_service();
	asroot_directories(&conf);
	sessions_open(&conf, first);
	if (conf.sandbox != SANDBOX_OFF) {
		sandbox_prepare(CELL_WORKER);
		sandbox_prepare(CELL_LOCKER);
	}
	sandbox_enter(CELL_SPOOLD, &conf, NULL, 0);
	sessions_recover();
	sessions_settle();
	notify_manager("READY=1");
	log_text(LOG_NOTICE, "ready");
	sessions_serve();
	return 0;
}
