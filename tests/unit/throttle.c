/*
 * The throttle: when it begins, how long it makes wait, what it forgives, and what of it survives a restart. The clock
 * is the test's. links: authd/throttle.c authd/shared.c lib/log.c lib/conf.c
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "../../authd/memory.h"
#include "../../authd/shared.h"
#include "../../authd/throttle.h"
#include "../../lib/system.h"

static int64_t now = 1000000;
static char directory[64], path[80];
static struct conf conf;

/* What the real ones of other files would say. */
int64_t
clock_ms(void)
{
	return now;
}

bool
string_copy(char *to, size_t size, const char *from)
{
	return snprintf(to, size, "%s", from) < (int)size;
}

const char *
number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	(void)text;
	(void)min;
	(void)max;
	*value = 0;
	return NULL;
}

int
memory_directory(const struct conf *c, char *to, size_t size)
{
	(void)c;
	snprintf(to, size, "%s", directory);
	return 0;
}

/* A new authd: nothing is left but the file. */
static void
restart(void)
{
	shared_drop();
	throttle_make();
	throttle_start(&conf);
}

static int
setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/postern-throttle-XXXXXX");
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/throttle", directory);
	restart();
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(directory);
}

static int64_t
guess(const char *address, const char *user, int times)
{
	int64_t wait = 0;

	for (int i = 0; i < times; i++)
		if ((wait = throttle_charge(address, user)) != -1)
			throttle_settle(address, user, OUTCOME_WRONG);
	return wait;
}

static void
test_first_failures_are_free(void **state)
{
	char user[16];

	(void)state;
	for (int i = 0; i < 5; i++) {
		snprintf(user, sizeof user, "u%d", i);
		assert_int_equal(guess("192.0.2.1", user, 1), 0);
	}
	assert_int_equal(guess("192.0.2.1", "u5", 1), 500);
	/* in line behind that one, and twice as long */
	assert_int_equal(guess("192.0.2.1", "u6", 1), 1500);
	assert_int_equal(guess("192.0.2.2", "u6", 1), 0);
	assert_int_equal(guess("192.0.2.1", "x", 40), -1);
}

/* What nobody has looked at was no guess, and takes back nothing that was one. */
static void
test_not_looked_at(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++) {
		assert_int_equal(throttle_charge("192.0.2.40", "n"), 0);
		throttle_settle("192.0.2.40", "n", OUTCOME_NONE);
	}
	guess("192.0.2.40", "n", 5);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(throttle_charge("192.0.2.40", "n") > 0, 1);
		throttle_settle("192.0.2.40", "n", OUTCOME_NONE);
	}
	assert_true(guess("192.0.2.40", "n", 1) > 0);
}

static void
test_networks_of_ipv6_are_one(void **state)
{
	char address[48];

	(void)state;
	for (int i = 0; i < 6; i++) {
		snprintf(address, sizeof address, "2001:db8:0:1::%x", i + 1);
		guess(address, "a", 1);
	}
	assert_true(guess("2001:db8:0:1:ffff::1", "b", 1) > 0);
	assert_int_equal(guess("2001:db8:0:2::1", "c", 1), 0);
}

static void
test_users_wait_a_little(void **state)
{
	char address[48];
	int64_t wait = 0;

	(void)state;
	for (int i = 0; i < 100; i++) {
		snprintf(address, sizeof address, "198.51.100.%d", i);
		wait = guess(address, "v", 1);
	}
	assert_int_equal(wait, 2000);
}

static void
test_success_forgives(void **state)
{
	(void)state;
	guess("192.0.2.9", "w", 4);
	assert_int_equal(throttle_charge("192.0.2.9", "w"), 0);
	throttle_settle("192.0.2.9", "w", OUTCOME_RIGHT);
	/* of the address only the one attempt is forgiven: one's own account buys no guesses at others' */
	assert_int_equal(guess("192.0.2.9", "y", 1), 0);
	assert_true(guess("192.0.2.9", "z", 1) > 0);
}

/* Many people behind one address log in at once, rightly; or guess at once, and then wait. */
static void
test_many_under_way(void **state)
{
	char user[16];

	(void)state;
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 64; i++) {
			snprintf(user, sizeof user, "m%d", i);
			assert_int_equal(throttle_charge("192.0.2.20", user), 0);
		}
		for (int i = 0; i < 64; i++) {
			snprintf(user, sizeof user, "m%d", i);
			throttle_settle("192.0.2.20", user, round == 0 ? OUTCOME_RIGHT : OUTCOME_WRONG);
		}
	}
	assert_true(guess("192.0.2.20", "n", 1) >= 8000);
	for (int i = 0; i < 69; i++)
		assert_int_equal(throttle_charge("192.0.2.21", ""), 0);
	assert_true(throttle_charge("192.0.2.21", "") > 0);
}

static void
test_time_forgives(void **state)
{
	(void)state;
	guess("192.0.2.3", "t", 6);
	now += 6 * 60000;
	assert_int_equal(guess("192.0.2.3", "t", 5), 0);
}

static void
test_survives_a_restart(void **state)
{
	struct stat st;

	(void)state;
	guess("192.0.2.4", "r", 9);
	throttle_save();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	restart();
	assert_true(guess("192.0.2.4", "other", 1) > 0);
	assert_true(guess("192.0.2.5", "r", 1) > 0);
	assert_int_equal(guess("192.0.2.6", "s", 1), 0);
}

/* No file can make it forget the limits, or worse. */
static void
test_damaged_file_counts_for_nothing(void **state)
{
	struct stat st;

	(void)state;
	guess("192.0.2.7", "d", 9);
	throttle_save();
	assert_int_equal(stat(path, &st), 0);
	for (off_t i = 0; i < st.st_size; i++) {
		FILE *f = fopen(path, "r+");
		assert_non_null(f);
		fseek(f, i, SEEK_SET);
		int c = fgetc(f);
		fseek(f, i, SEEK_SET);
		fputc(c ^ 1, f);
		fclose(f);
		restart();
		assert_int_equal(guess("192.0.2.7", "d", 1), 0);
		f = fopen(path, "r+");
		assert_non_null(f);
		fseek(f, i, SEEK_SET);
		fputc(c, f);
		fclose(f);
	}
	for (off_t i = 0; i < st.st_size; i += 7) {
		assert_int_equal(truncate(path, st.st_size - 1 - i), 0);
		restart();
		assert_int_equal(guess("192.0.2.7", "d", 1), 0);
	}
}

/* However many fail, the file and the tables stay as small. */
static void
test_bounded(void **state)
{
	char address[48], user[32];
	struct stat st;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		snprintf(address, sizeof address, "10.%d.%d.%d", i >> 16, i >> 8 & 255, i & 255);
		snprintf(user, sizeof user, "user%d", i);
		guess(address, user, 1);
	}
	throttle_save();
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size > 500000 && st.st_size < 1100000);
	restart();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_first_failures_are_free, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_looked_at, setup, teardown),
		cmocka_unit_test_setup_teardown(test_networks_of_ipv6_are_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_users_wait_a_little, setup, teardown),
		cmocka_unit_test_setup_teardown(test_success_forgives, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_under_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_time_forgives, setup, teardown),
		cmocka_unit_test_setup_teardown(test_survives_a_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_file_counts_for_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
	};

	if (sodium_init() == -1)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
