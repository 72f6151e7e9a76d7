/*
 * The line reader, cut at every boundary.
 * links: pop3d/line.c
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../pop3d/line.h"

/* Feeds `input` in pieces of `step` octets, and writes what comes out as "ok:text|long|nul|" into `out`. */
static void
feed(const char *input, size_t length, size_t step, bool sasl, char *out, size_t size)
{
	struct lines *l = calloc(1, sizeof *l);
	size_t used = 0, at = 0;

	assert_non_null(l);
	out[0] = '\0';
	for (;;) {
		char *line;
		enum line_result r = line_next(l, sasl, &line);
		if (r == LINE_MORE) {
			size_t room;
			if (at == length)
				break;
			char *to = line_room(l, &room);
			assert_true(room > 0);
			size_t n = step < length - at ? step : length - at;
			if (n > room)
				n = room;
			memcpy(to, input + at, n);
			line_added(l, n);
			at += n;
		} else if (r == LINE_OK)
			used += (size_t)snprintf(out + used, size - used, "ok:%.40s|", line);
		else
			used += (size_t)snprintf(out + used, size - used, "%s", r == LINE_LONG ? "long|" : "nul|");
	}
	free(l);
}

static void
expect(const char *input, size_t length, bool sasl, const char *wanted)
{
	char out[512];

	for (size_t step = 1; step <= length + 1; step += step < 8 ? 1 : length / 7 + 1) {
		feed(input, length, step, sasl, out, sizeof out);
		assert_string_equal(out, wanted);
	}
}

static void
test_endings(void **state)
{
	(void)state;
	expect("NOOP\r\nSTAT\nQUIT\r\n", 17, false, "ok:NOOP|ok:STAT|ok:QUIT|");
	expect("\r\n\n", 3, false, "ok:|ok:|");
	expect("a\rb\r\n", 5, false, "ok:a\rb|");
	expect("no end", 6, false, "");
	expect("a\0b\r\nc\r\n", 8, false, "nul|ok:c|");
}

/* A line of `length` octets of x before its end, then NOOP. */
static void
expect_length(size_t length, const char *ending, const char *start, bool sasl, bool accepted)
{
	size_t n = length + strlen(ending) + 6;
	char *input = malloc(n + 1), wanted[64];

	assert_non_null(input);
	memset(input, 'x', length);
	memcpy(input, start, strlen(start));
	sprintf(input + length, "%sNOOP\r\n", ending);
	if (accepted)
		snprintf(wanted, sizeof wanted, "ok:%.40s|ok:NOOP|", (input[length] = '\0', input));
	else
		strcpy(wanted, "long|ok:NOOP|");
	memcpy(input + length, ending, strlen(ending));
	expect(input, n, sasl, wanted);
	free(input);
}

static void
test_limits(void **state)
{
	(void)state;
	/* 255 octets, the end included */
	expect_length(253, "\r\n", "", false, true);
	expect_length(254, "\r\n", "", false, false);
	expect_length(254, "\n", "", false, true);
	expect_length(255, "\n", "", false, false);
	expect_length(100000, "\r\n", "", false, false);
	/* AUTH and the answers to challenges: 12,288, the end not included */
	expect_length(12288, "\r\n", "AUTH ", false, true);
	expect_length(12289, "\r\n", "auth ", false, false);
	expect_length(12288, "\r\n", " \tAuth\t", false, true);
	expect_length(300, "\r\n", "AUTHx", false, false);
	expect_length(300, "\r\n", " xAUTH ", false, false);
	expect_length(12288, "\r\n", "", true, true);
	expect_length(12288, "\n", "", true, true);
	expect_length(12289, "\r\n", "", true, false);
	expect_length(50000, "\n", "", true, false);
}

/* What was used, and what was moved away from, is gone from the buffer once wiped. */
static void
test_wiped(void **state)
{
	static struct lines l;
	static const char input[] = "NOOP\r\nPASS secret-of-demo";
	char *line;
	size_t room;

	(void)state;
	memcpy(line_room(&l, &room), input, sizeof input - 1);
	line_added(&l, sizeof input - 1);
	assert_int_equal(line_next(&l, false, &line), LINE_OK);
	assert_int_equal(line_next(&l, false, &line), LINE_MORE);
	memcpy(line_room(&l, &room), "\r\n", 2);
	line_added(&l, 2);
	assert_int_equal(line_next(&l, false, &line), LINE_OK);
	assert_string_equal(line, "PASS secret-of-demo");
	line_wipe(&l);
	assert_null(memmem(l.buffer, sizeof l.buffer, "secret", 6));
	assert_null(memmem(l.buffer, sizeof l.buffer, "demo", 4));
	assert_false(line_pending(&l));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_endings), cmocka_unit_test(test_limits), cmocka_unit_test(test_wiped),
	};

	return cmocka_run_group_tests_name("line", tests, NULL, NULL);
}
