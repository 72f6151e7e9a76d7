/* authctl: the command line. What the commands do is in command_*.c. */
#include "advice.h"
#include "authctl.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "password.h"
#include "privilege.h"
#include "scram.h"
#include "system.h"
#include "wipe.h"

enum option_number { OPTION_MAILDROP = 256, OPTION_UID, OPTION_OPSLIMIT, OPTION_MEMLIMIT, OPTION_ITERATIONS, OPTION_EXPIRES, OPTION_FROM,
	OPTION_NO_DELETE, OPTION_REPLACE, OPTION_JSON, OPTION_SERVER_COPY,
	OPTION_SERVER, OPTION_DOMAIN, OPTION_SMTP_SERVER, OPTION_PORT, OPTION_STARTTLS, OPTION_AUTOCONFIG, OPTION_MOBILECONFIG, OPTION_DNS };
#define BIT(option) (1u << ((option) - OPTION_MAILDROP))
#define COST (BIT(OPTION_OPSLIMIT) | BIT(OPTION_MEMLIMIT) | BIT(OPTION_ITERATIONS))

static const struct option long_options[] = {
	{ "maildrop", required_argument, NULL, OPTION_MAILDROP },
	{ "uid", required_argument, NULL, OPTION_UID },
	{ "opslimit", required_argument, NULL, OPTION_OPSLIMIT },
	{ "memlimit", required_argument, NULL, OPTION_MEMLIMIT },
	{ "iterations", required_argument, NULL, OPTION_ITERATIONS },
	{ "expires", required_argument, NULL, OPTION_EXPIRES },
	{ "from", required_argument, NULL, OPTION_FROM },
	{ "no-delete", no_argument, NULL, OPTION_NO_DELETE },
	{ "replace", no_argument, NULL, OPTION_REPLACE },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "server-copy", required_argument, NULL, OPTION_SERVER_COPY },
	{ "server", required_argument, NULL, OPTION_SERVER },
	{ "domain", required_argument, NULL, OPTION_DOMAIN },
	{ "smtp-server", required_argument, NULL, OPTION_SMTP_SERVER },
	{ "port", required_argument, NULL, OPTION_PORT },
	{ "starttls", no_argument, NULL, OPTION_STARTTLS },
	{ "autoconfig", no_argument, NULL, OPTION_AUTOCONFIG },
	{ "mobileconfig", no_argument, NULL, OPTION_MOBILECONFIG },
	{ "dns", no_argument, NULL, OPTION_DNS },
	{ NULL, 0, NULL, 0 }
};

static const struct command {
	const char *name, *second;	/* "app", "add"; "" if it is one word */
	int words;
	uint32_t options;		/* which of them it takes */
	const char *usage;
	int (*run)(const struct conf *c, const struct arguments *a);
} commands[] = {
	{ "add", "", 1, BIT(OPTION_MAILDROP) | BIT(OPTION_UID) | BIT(OPTION_SERVER_COPY) | COST,
	    "add USER [--maildrop KIND:PATH] [--uid N] [--server-copy POLICY] [--opslimit N] [--memlimit KIB] [--iterations N]", command_add },
	{ "set", "", 1, BIT(OPTION_MAILDROP) | BIT(OPTION_UID) | BIT(OPTION_SERVER_COPY),
	    "set USER [--maildrop KIND:PATH] [--uid N] [--server-copy POLICY|default]", command_set },
	{ "passwd", "", 1, COST, "passwd USER [--opslimit N] [--memlimit KIB] [--iterations N]", command_passwd },
	{ "del", "", 1, 0, "del USER", command_del },
	{ "lock", "", 1, 0, "lock USER", command_lock },
	{ "unlock", "", 1, 0, "unlock USER", command_unlock },
	{ "list", "", 0, BIT(OPTION_JSON), "list [--json]", command_list },
	{ "test", "", 1, 0, "test USER", command_test },
	{ "app", "add", 2, BIT(OPTION_EXPIRES) | BIT(OPTION_FROM) | BIT(OPTION_NO_DELETE),
	    "app add USER NAME [--expires DATE|DAYSd] [--from NETWORK] [--no-delete]", command_app_add },
	{ "app", "list", 1, BIT(OPTION_JSON), "app list USER [--json]", command_app_list },
	{ "app", "del", 2, 0, "app del USER NAME", command_app_del },
	{ "cert", "add", 2, 0, "cert add USER FILE|FINGERPRINT", command_cert_add },
	{ "cert", "list", 1, BIT(OPTION_JSON), "cert list USER [--json]", command_cert_list },
	{ "cert", "del", 2, 0, "cert del USER FINGERPRINT", command_cert_del },
	{ "secret", "", 1, 0, "secret USER", command_secret },
	{ "client-config", "", 1, BIT(OPTION_SERVER) | BIT(OPTION_DOMAIN) | BIT(OPTION_SMTP_SERVER) | BIT(OPTION_PORT) | BIT(OPTION_STARTTLS) |
	    BIT(OPTION_AUTOCONFIG) | BIT(OPTION_MOBILECONFIG) | BIT(OPTION_DNS), "client-config USER [--autoconfig | --mobileconfig | --dns] "
	    "[--server HOST] [--domain DOMAIN] [--smtp-server HOST] [--port N] [--starttls]", command_client_config },
	{ "import", "", 2, BIT(OPTION_REPLACE) | COST,
	    "import FORMAT FILE [--replace] [--opslimit N] [--memlimit KIB] [--iterations N], where FORMAT is shadow, dovecot or courier", command_import },
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static const char usage[] = "authctl [-tVh] [-c FILE] COMMAND ...\n"
    "  add USER [--maildrop KIND:PATH] [--uid N] [--server-copy POLICY]\n"
    "  set USER [--maildrop KIND:PATH] [--uid N] [--server-copy POLICY|default]\n"
    "  passwd USER\n"
    "  del USER\n"
    "  lock USER\n"
    "  unlock USER\n"
    "  list [--json]\n"
    "  test USER\n"
    "  app add USER NAME [--expires DATE|DAYSd] [--from NETWORK] [--no-delete]\n"
    "  app list USER [--json]\n"
    "  app del USER NAME\n"
    "  cert add USER FILE|FINGERPRINT\n"
    "  cert list USER [--json]\n"
    "  cert del USER FINGERPRINT\n"
    "  secret USER\n"
    "  client-config USER [--autoconfig | --mobileconfig | --dns] [--server HOST] [--domain DOMAIN]\n"
    "  import shadow|dovecot|courier FILE [--replace]\n"
    "see authctl(8)";

/* Which of the two files is it that cannot be read? */
static void
broken_file(const struct conf *c, char *path, size_t size)
{
	struct store_file s;
	struct store_meta meta;
	struct account account;

	store_start(&s, c->db);
	bool bad = store_meta(&s, &meta) == -1;
	store_end(&s);
	sodium_memzero(&meta, sizeof meta);
	if (bad || account_find(c->db, "nobody", &account) != -1 || accounts_path(c->db, path, size) == -1)
		string_copy(path, size, c->db);
}

/* errno, and after it `more`. */
static int
complain_file(const struct conf *c, const char *more)
{
	char path[CONF_STRING + 16];
	int error = errno;

	/* what Berkeley DB says of a file that is none of its own, or no longer */
	if (error == EINVAL || error == EIO) {
		broken_file(c, path, sizeof path);
		return complain("%s: is damaged, or was never a store: put a copy of users.db, its key and maildrops.db back, or move it away and add or import "
		    "the users again%s", path, more);
	}
	if (error == ENOENT)
		return complain("%s: its directory does not exist%s", c->db, more);
	return complain("%s: %s%s", c->db, error == EPROTO ? "a record of another version" : strerror(error), more);
}

int
complain_store(const struct conf *c)
{
	return complain_file(c, "; nothing was changed");
}

int
complain_look(const struct conf *c)
{
	return complain_file(c, "");
}

gid_t
store_group(const struct conf *c)
{
	const struct passwd *pw;
	struct store_owner owner;

	if (!privilege_is_root() || (store_owner(c->db, &owner) == 0 && owner.other))
		return (gid_t)-1;
	pw = getpwnam(c->authd_user);
	if (pw == NULL)
		complain("there is no account %s: authd will not be able to read what root writes until it owns %s", c->authd_user,
		    c->db);
	return pw != NULL ? pw->pw_gid : (gid_t)-1;
}

static const char *
parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	static char wrong[128];
	const char *reason = number_parse(text, min, max, value);

	if (reason == NULL)
		return NULL;
	snprintf(wrong, sizeof wrong, "%s; accepted: a number from %llu to %llu", reason, (unsigned long long)min,
	    (unsigned long long)max);
	return wrong;
}

static const char *
parse_uid(struct arguments *a, const char *text)
{
	uint64_t uid;
	const char *wrong = parse_number(text, 1, UINT32_MAX - 1, &uid);

	if (wrong != NULL)
		return wrong;
	a->account.uid = (uint32_t)uid;
	a->account.has_uid = true;
	a->uid_given = true;
	return NULL;
}

static const char *
parse_copy(struct arguments *a, const char *text)
{
	a->copy_given = true;
	a->account.has_copy = strcmp(text, "default") != 0;
	if (!a->account.has_copy)
		return NULL;
	a->account.server_copy = server_copy_parse(text);
	return a->account.server_copy != -1 ? NULL :
	    "no such policy; accepted: as-client-says, keep, mark-read, archive, delete, default";
}

static const char *
parse_memory(struct arguments *a, const char *text)
{
	uint64_t kib;
	const char *wrong = parse_number(text, HASH_MEMORY_MIN / 1024, HASH_MEMORY_MAX / 1024, &kib);

	if (wrong == NULL)
		a->cost.memory = kib * 1024;
	return wrong;
}

/* NULL, or what is wrong with the value of this option. */
static const char *
parse_option(struct arguments *a, int option, const char *value)
{
	switch (option) {
	case OPTION_MAILDROP:
		a->account_given = true;
		return account_parse(&a->account, value);
	case OPTION_UID:
		return parse_uid(a, value);
	case OPTION_OPSLIMIT:
		return parse_number(value, 1, 1000, &a->cost.operations);
	case OPTION_MEMLIMIT:
		return parse_memory(a, value);
	case OPTION_ITERATIONS:
		return parse_number(value, SCRAM_ITERATIONS_MIN, SCRAM_ITERATIONS_MAX, &a->iterations);
	case OPTION_EXPIRES:
		a->expires = value;
		return NULL;
	case OPTION_FROM:
		a->from = value;
		return NULL;
	case OPTION_NO_DELETE:
		a->no_delete = true;
		return NULL;
	case OPTION_SERVER:
		a->server = value;
		return NULL;
	case OPTION_DOMAIN:
		a->domain = value;
		return NULL;
	case OPTION_SMTP_SERVER:
		a->smtp_server = value;
		return NULL;
	case OPTION_PORT:
		return parse_number(value, 1, 65535, &a->port);
	case OPTION_STARTTLS:
		a->starttls = true;
		return NULL;
	case OPTION_AUTOCONFIG:
		a->autoconfig = true;
		return NULL;
	case OPTION_MOBILECONFIG:
		a->mobileconfig = true;
		return NULL;
	case OPTION_DNS:
		a->dns = true;
		return NULL;
	case OPTION_SERVER_COPY:
		return parse_copy(a, value);
	case OPTION_REPLACE:
		a->replace = true;
		return NULL;
	default:
		a->json = true;
		return NULL;
	}
}

static const char *
option_name(int option)
{
	for (const struct option *o = long_options; o->name != NULL; o++)
		if (o->val == option)
			return o->name;
	return "?";
}

static int
used_wrongly(const struct command *command)
{
	fprintf(stderr, "usage: authctl %s\n", command->usage);
	return 2;
}

/* Reads the options and words after the command, and runs it. */
static int
command_run(const struct conf *c, const struct command *command, int argc, char **argv)
{
	struct arguments a = { .cost = hash_cost_default, .iterations = SCRAM_ITERATIONS };
	int option, words = 0;
	char name[USER_SIZE];

	optind = 0;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (option == '?' || (command->options & BIT(option)) == 0) {
			if (option != '?')
				complain("--%s is not for this command", option_name(option));
			return used_wrongly(command);
		}
		const char *wrong = parse_option(&a, option, optarg);
		if (wrong != NULL) {
			complain("--%s: %s", option_name(option), wrong);
			return 2;
		}
	}
	for (; optind < argc && words < command->words; optind++)
		a.word[words++] = argv[optind];
	if (optind < argc || words < command->words)
		return used_wrongly(command);
	/* a name that is kept in another form than authd looks for would never be found */
	a.typed = a.word[0];
	if (words > 0 && command->run != command_import && name_prepare(name, a.typed))
		a.word[0] = name;
	return command->run(c, &a);
}

/*
 * -c and its kind may stand anywhere: they are brought to the front, where the parser that all programs share looks for
 * them.
 */
static void
options_first(int argc, char **argv)
{
	int front = 1;

	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		int take = strcmp(argv[i], "-c") == 0 && i + 1 < argc ? 2 :
		    argv[i][0] == '-' && argv[i][1] != '-' && argv[i][1] != '\0' ? 1 : 0;
		for (int j = 0; j < take; j++) {
			char *moved = argv[i + j];
			memmove(&argv[front + 1], &argv[front], (size_t)(i + j - front) * sizeof *argv);
			argv[front++] = moved;
		}
		i += take > 1 ? take - 1 : 0;
	}
}

static const char *
on_option(int option, const char *argument)
{
	(void)option;
	(void)argument;
	return "no such option";
}

static int
command_find(const struct conf *c, int argc, char **argv)
{
	for (size_t i = 0; argc > 0 && i < COMMANDS; i++) {
		bool two = commands[i].second[0] != '\0';
		if (strcmp(argv[0], commands[i].name) != 0 || (two && (argc < 2 || strcmp(argv[1], commands[i].second) != 0)))
			continue;
		return command_run(c, &commands[i], argc - two, argv + two);
	}
	if (argc > 0)
		complain("%s: no such command", argv[0]);
	fprintf(stderr, "usage: %s\n", usage);
	return 2;
}

int
main(int argc, char **argv)
{
	static struct conf conf;
	struct options options;
	struct rlimit none = { 0, 0 };

	print_start();
	log_start("authctl");
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	umask(077);
	if (sodium_init() == -1 || !wipe_is_linked)
		fatal("libsodium cannot be used");
	options_first(argc, argv);
	options_on_advice(advice_accounts);
	options_parse(argc, argv, usage, "+", on_option, &options, &conf);
	return command_find(&conf, argc - optind, argv + optind);
}
