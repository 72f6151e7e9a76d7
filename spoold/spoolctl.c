/* spoolctl: the command line. What the commands do is in ctl_*.c and doctor*.c. */
#include <getopt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "advice.h"
#include "log.h"
#include "spoolctl.h"
#include "system.h"

enum option_number { OPTION_JSON = 256, OPTION_HTTP, OPTION_OUTPUT, OPTION_CONNECT, OPTION_WATCH };
#define BIT(option) (1u << ((option) - OPTION_JSON))

static const struct option long_options[] = {
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "http", no_argument, NULL, OPTION_HTTP },
	{ "output", required_argument, NULL, OPTION_OUTPUT },
	{ "connect", required_argument, NULL, OPTION_CONNECT },
	{ "watch", no_argument, NULL, OPTION_WATCH },
	{ NULL, 0, NULL, 0 }
};

static const struct command {
	const char *name;
	int least, most;		/* words */
	uint32_t options;		/* which of them it takes */
	const char *usage;
	int (*run)(const struct conf *c, const struct arguments *a);
} commands[] = {
	{ "who", 0, 0, BIT(OPTION_JSON) | BIT(OPTION_WATCH), "who [-w] [--json]", command_who },
	{ "end", 1, 1, 0, "end SESSION", command_end },
	{ "show", 1, 1, BIT(OPTION_JSON), "show USER [--json]", command_show },
	{ "rebuild", 1, 100000, 0, "rebuild USER...", command_rebuild },
	{ "recover", 0, 0, 0, "recover", command_recover },
	{ "expire", 1, 100000, 0, "expire USER...", command_expire },
	{ "uidl-diff", 2, 2, BIT(OPTION_JSON), "uidl-diff USER FILE [--json]", command_uidl_diff },
	{ "metrics", 0, 0, BIT(OPTION_HTTP) | BIT(OPTION_OUTPUT), "metrics [--http | --output FILE]", command_metrics },
	{ "doctor", 0, 1, BIT(OPTION_JSON) | BIT(OPTION_CONNECT), "doctor [USER] [--connect ADDRESS:PORT] [--json]", command_doctor },
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static const char usage[] = "spoolctl [-tVh] [-c FILE] COMMAND ...\n"
    "  who [-w] [--json]\n"
    "  end SESSION\n"
    "  show USER [--json]\n"
    "  rebuild USER...\n"
    "  recover\n"
    "  expire USER...\n"
    "  uidl-diff USER FILE [--json]\n"
    "  metrics [--http | --output FILE]\n"
    "  doctor [USER] [--connect ADDRESS:PORT] [--json]\n"
    "see spoolctl(8)";

static int
used_wrongly(const struct command *command)
{
	fprintf(stderr, "usage: spoolctl %s\n", command->usage);
	return 2;
}

static void
option_take(struct arguments *a, int option, const char *value)
{
	if (option == OPTION_JSON)
		a->json = true;
	else if (option == OPTION_WATCH)
		a->watch = true;
	else if (option == OPTION_HTTP)
		a->http = true;
	else if (option == OPTION_OUTPUT)
		a->output = value;
	else
		a->connect = value;
}

/* Reads the options and words after the command, and runs it. */
static int
command_run(const struct conf *c, const struct command *command, int argc, char **argv)
{
	struct arguments a = { 0 };
	int option;

	optind = 0;
	while ((option = getopt_long(argc, argv, "w", long_options, NULL)) != -1) {
		if (option == 'w')
			option = OPTION_WATCH;
		if (option == '?' || (command->options & BIT(option)) == 0) {
			if (option != '?')
				complain("%s: that option is not for this command", command->name);
			return used_wrongly(command);
		}
		option_take(&a, option, optarg);
	}
	a.word = argv + optind;
	a.words = argc - optind;
	if (a.words < command->least || a.words > command->most || (a.http && a.output != NULL))
		return used_wrongly(command);
	return command->run(c, &a);
}

/* Options that all programs have may stand behind the command, too: they are brought to the front, where their parser looks for them. */
static void
options_first(int argc, char **argv)
{
	int front = 1;

	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		int take = strcmp(argv[i], "-c") == 0 && i + 1 < argc ? 2 :
		    argv[i][0] == '-' && argv[i][1] != '\0' && strchr("ctVh", argv[i][1]) != NULL ? 1 : 0;
		for (int j = 0; j < take; j++) {
			char *moved = argv[i + j];
			memmove(&argv[front + 1], &argv[front], (size_t)(i + j - front) * sizeof *argv);
			argv[front++] = moved;
		}
		i += take > 1 ? take - 1 : 0;
	}
}

/* With a broken configuration the others can do nothing; the doctor names it like any other trouble. */
static void
doctor_first(int argc, char **argv)
{
	static struct conf conf;
	const char *path = CONF_PATH_DEFAULT;
	char error[1024];
	bool json = false, doctor = false, given = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-c") == 0 && i + 1 < argc) {
			path = argv[++i];
			given = true;
		} else if (argv[i][0] == '-' && argv[i][1] != '-')
			return;
		else
			break;
	}
	for (int i = 1; i < argc; i++) {
		doctor = doctor || (strcmp(argv[i], "doctor") == 0 && (i == 1 || (i == 3 && given)));
		json = json || strcmp(argv[i], "--json") == 0;
	}
	if (doctor && conf_load(&conf, path, !given, error, sizeof error) == -1)
		exit(doctor_cannot_begin(error, json));
}

static const char *
on_option(int option, const char *argument)
{
	(void)option;
	(void)argument;
	return "no such option";
}

static _Noreturn void
usage_exit(const char *wrong)
{
	complain("%.60s: no such command; accepted: who, end, show, rebuild, recover, expire, uidl-diff, metrics, doctor", wrong);
	fprintf(stderr, "usage: %s\n", usage);
	exit(2);
}

int
main(int argc, char **argv)
{
	static struct conf conf;
	struct options options;

	print_start();
	if (sodium_init() == -1)
		fatal("libsodium cannot be used");
	log_start("spoolctl");
	options_first(argc, argv);
	doctor_first(argc, argv);
	options_on_advice(advice_accounts);
	options_parse(argc, argv, usage, "+", on_option, &options, &conf);
	argc -= optind;
	argv += optind;
	if (argc == 0) {
		fprintf(stderr, "spoolctl: no command\nusage: %s\n", usage);
		return 2;
	}
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(commands[i].name, argv[0]) == 0)
			return command_run(&conf, &commands[i], argc, argv);
	usage_exit(argv[0]);
}
