/* spoolctl doctor: the order of the steps, and how they are told. */
#include "doctor.h"

#include <stdarg.h>
#include <string.h>

#include "privilege.h"

static const char *const words[FINDING_COUNT] = { "ok", "warning", "failed" };

void
found(struct doctor *d, enum finding f, const char *step, const char *remedy, const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	d->count[f]++;
	if (d->json != NULL) {
		json_open(d->json, NULL, '{');
		json_string(d->json, "step", step);
		json_string(d->json, "result", words[f]);
		json_string(d->json, "text", text);
		json_string(d->json, "remedy", remedy);
		json_close(d->json, '}');
		return;
	}
	printf("%-8s %-14s ", words[f], step);
	print_safe(stdout, text);
	putchar('\n');
	if (remedy != NULL) {
		printf("%-23s do: ", "");
		print_safe(stdout, remedy);
		putchar('\n');
	}
	fflush(stdout);
}

static void
begin(struct doctor *d)
{
	if (d->json == NULL)
		return;
	json_open(d->json, NULL, '{');
	json_open(d->json, "steps", '[');
}

/* What was found, in numbers. Returns the exit status. */
static int
end(struct doctor *d)
{
	if (d->json != NULL) {
		json_close(d->json, ']');
		for (int i = 0; i < FINDING_COUNT; i++)
			json_number(d->json, words[i], d->count[i]);
		json_close(d->json, '}');
		json_end(d->json);
	} else
		printf("%u ok, %u warnings, %u failed\n", d->count[FINDING_OK], d->count[FINDING_WARNING], d->count[FINDING_FAILED]);
	return d->count[FINDING_FAILED] > 0 ? 2 : d->count[FINDING_WARNING] > 0 ? 1 : 0;
}

int
command_doctor(const struct conf *c, const struct arguments *a)
{
	static void (*const steps[])(struct doctor *d) = {
		doctor_configuration, doctor_accounts, doctor_directories, doctor_sandbox, doctor_clock, doctor_log, doctor_daemons, doctor_users,
		doctor_pam, doctor_certificates, doctor_spool, doctor_journals, doctor_fail2ban, doctor_maildrop, doctor_wire,
	};
	struct json j = { .file = stdout };
	struct doctor d = { .conf = c, .root = privilege_is_root(), .json = a->json ? &j : NULL,
		.user = a->words > 0 ? a->word[0] : NULL, .connect = a->connect };

	begin(&d);
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
		steps[i](&d);
	return end(&d);
}

int
doctor_cannot_begin(const char *error, bool json)
{
	struct json j = { .file = stdout };
	struct doctor d = { .json = json ? &j : NULL };

	begin(&d);
	found(&d, FINDING_FAILED, "configuration", "mend that line; postern.conf(5) has every key", "%s", error);
	return end(&d);
}
