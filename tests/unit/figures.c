/*
 * What spoold's parent counts: which bucket a duration falls into, and what became of a journal.
 *
 * links: spoold/figures.c lib/histogram.c
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../spoold/figures.h"

static int
set_up(void **state)
{
	(void)state;
	memset(&figures, 0, sizeof figures);
	return 0;
}

static void
buckets_are_bounded_from_above(void **state)
{
	struct histogram h = { 0 };
	uint64_t all = 0;

	(void)state;
	histogram_add(&h, 0);
	histogram_add(&h, 1);
	histogram_add(&h, 2);
	histogram_add(&h, histogram_bounds[HISTOGRAM_BUCKETS - 2]);
	histogram_add(&h, histogram_bounds[HISTOGRAM_BUCKETS - 2] + 1);
	histogram_add(&h, UINT64_MAX / 2);
	assert_int_equal(h.bucket[0], 2);
	assert_int_equal(h.bucket[1], 1);
	assert_int_equal(h.bucket[HISTOGRAM_BUCKETS - 2], 1);
	assert_int_equal(h.bucket[HISTOGRAM_BUCKETS - 1], 2);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		all += h.bucket[i];
	assert_int_equal(all, 6);
	for (int i = 1; i < HISTOGRAM_BUCKETS - 1; i++)
		assert_true(histogram_bounds[i] > histogram_bounds[i - 1]);
}

static void
a_journal_ends_in_one_way(void **state)
{
	bool found = false;

	(void)state;
	figures_privileged(&found, PRIVILEGED_JOURNAL_FIND, false);	/* there is none */
	figures_privileged(&found, PRIVILEGED_JOURNAL_MAKE, true);
	figures_privileged(&found, PRIVILEGED_JOURNAL_DROP, true);	/* this session's own */
	figures_privileged(&found, PRIVILEGED_COUNT, false);
	for (int i = 0; i < RECOVERED_COUNT; i++)
		assert_int_equal(figures.recovered[i], 0);
	figures_privileged(&found, PRIVILEGED_JOURNAL_FIND, true);
	figures_privileged(&found, PRIVILEGED_JOURNAL_DROP, false);	/* the disk would not */
	figures_privileged(&found, PRIVILEGED_JOURNAL_DROP, true);
	figures_privileged(&found, PRIVILEGED_COUNT, false);
	figures_privileged(&found, PRIVILEGED_JOURNAL_FIND, true);
	figures_privileged(&found, PRIVILEGED_JOURNAL_SET_ASIDE, true);
	figures_privileged(&found, PRIVILEGED_JOURNAL_FIND, true);
	figures_privileged(&found, PRIVILEGED_COUNT, true);
	assert_int_equal(figures.recovered[RECOVERED_FINISHED], 1);
	assert_int_equal(figures.recovered[RECOVERED_ASIDE], 1);
	assert_int_equal(figures.recovered[RECOVERED_UNFINISHED], 1);
}

static void
only_what_was_opened_has_a_duration(void **state)
{
	struct body_measured m = { .what = MEASURED_OPEN, .result = OPENED_BUSY, .milliseconds = 3 };

	(void)state;
	figures_measured(&m);
	m.result = OPENED_READY;
	figures_measured(&m);
	assert_int_equal(figures.opened[OPENED_BUSY], 1);
	assert_int_equal(figures.opened[OPENED_READY], 1);
	assert_int_equal(figures.open.milliseconds, 3);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(buckets_are_bounded_from_above, set_up),
		cmocka_unit_test_setup(a_journal_ends_in_one_way, set_up),
		cmocka_unit_test_setup(only_what_was_opened_has_a_duration, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
