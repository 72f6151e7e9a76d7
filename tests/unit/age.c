/*
 * The dates of From_ lines.
 * links: spoold/age.c
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "../../spoold/age.h"

#define AT	883789534	/* 1998-01-03 01:05:34 UTC */
#define LATEST	(AT + 12 * 3600)

static const struct {
	const char *line;
	int64_t when;
} lines[] = {
	{ "a@example.org Sat Jan  3 01:05:34 1998", LATEST },
	{ "a@example.org  Sat Jan 3 01:05:34 1998\r", LATEST },
	{ "a Sat Jan 03 01:05:34 1998", LATEST },
	{ "Sat Jan  3 01:05:34 1998", LATEST },
	{ "a Sat Jan  3 01:05 1998", LATEST - 34 },
	{ "a Sat Jan  3 01:05:34 EST 1998", LATEST },
	{ "a Sat Jan  3 01:05:34 1998 +0000", AT },
	{ "a Sat Jan  3 01:05:34 1998 +0100", AT - 3600 },
	{ "a Sat Jan  3 01:05:34 -0330 1998", AT + 3 * 3600 + 1800 },
	{ "a Sat, 3 Jan 1998 01:05:34 +0100", AT - 3600 },
	{ "a Sat, 3 Jan 1998 01:05:34 +0100 (CET)", AT - 3600 },
	{ "Jan Feb 2 Sat Jan  3 01:05:34 1998", LATEST },
	{ "a Thu Feb 29 00:00:00 2024 +0000", 1709164800 },
	{ "a Sat Jan  3 01:05:34 98", 0 },
	{ "a Sat Jan  3 1998", 0 },
	{ "a Sat Jan 32 01:05:34 1998", 0 },
	{ "a Thu Feb 29 00:00:00 2023", 0 },
	{ "a Sat Jan  3 25:05:34 1998", 0 },
	{ "a Sat Jan  3 01-05-34 1998", 0 },
	{ "a Sat Foo  3 01:05:34 1998", 0 },
	{ "a", 0 }, { "-", 0 }, { "", 0 },
};

static void
test_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
		assert_int_equal(age_from_line(lines[i].line, strlen(lines[i].line)), lines[i].when);
	assert_int_equal(age_from_line("a\0 Sat Jan  3 01:05:34 1998", 27), LATEST);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_lines) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
