/*
 * The queue in front of the hashers: its order, its limit, and who makes room for whom. The test is the hasher.
 * links: authd/workers.c authd/loop.c lib/messages.c lib/log.c lib/conf.c lib/system.c
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "../../authd/loop.h"
#include "../../authd/workers.h"

#define MANY	(QUEUE_MOST + 8)

static struct question questions[MANY];
static char names[MANY][16];
static int refused;		/* of those that were asked: could not be tried */

static void
on_answer(struct question *q, enum answer answer, const struct body_verdict *verdict)
{
	(void)q;
	(void)verdict;
	refused += answer == ANSWER_UNKNOWN;
}

/* Asks question i, whose password is its number. */
static int
ask(int i, bool suspect)
{
	snprintf(names[i], sizeof names[i], "%d", i);
	questions[i] = (struct question){ .hash = "$6$x", .password = names[i], .suspect = suspect, .on_answer = on_answer };
	return question_ask(&questions[i]);
}

/* What the hasher is asked now; -1 if nothing. */
static int
asked(int hasher)
{
	static struct message m, reply;
	int number = -1;

	if (message_wait(hasher, 0) != 1)
		return -1;
	assert_int_equal(message_receive(hasher, &m, SIDE_VERIFIER, SIDE_HASHER), 1);
	sscanf(m.body.hash.password, "%d", &number);
	message_start(&reply, MESSAGE_HASHED);
	reply.body.hashed.ticket = m.body.hash.ticket;
	assert_int_equal(message_send(hasher, &reply), 0);
	loop_turn();
	return number;
}

/* Attaches a hasher, reads what waits in its order, and takes it away. */
static void
assert_order(const int *order, size_t count)
{
	int pair[2];

	assert_int_equal(message_pair(pair), 0);
	workers_attach(SIDE_HASHER, pair[0]);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(asked(pair[1]), order[i]);
	assert_int_equal(asked(pair[1]), -1);
	close(pair[1]);
	loop_turn();
}

static void
test_suspects_wait_behind(void **state)
{
	(void)state;
	for (int round = 0; round < 2; round++) {	/* the second time in a queue that was emptied */
		assert_int_equal(ask(0, true), 0);
		assert_int_equal(ask(1, false), 0);
		assert_int_equal(ask(2, true), 0);
		assert_int_equal(ask(3, false), 0);
		assert_order((const int[]){ 1, 3, 0, 2 }, 4);
	}
	assert_int_equal(ask(0, true), 0);
	assert_order((const int[]){ 0 }, 1);
	assert_int_equal(ask(1, true), 0);
	assert_order((const int[]){ 1 }, 1);
}

static void
test_withdrawn(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(ask(i, i % 2 == 0), 0);
	question_withdraw(&questions[2]);	/* the last */
	question_withdraw(&questions[1]);	/* the first */
	assert_int_equal(ask(4, true), 0);
	assert_order((const int[]){ 3, 0, 4 }, 3);
}

static void
test_full(void **state)
{
	static int order[QUEUE_MOST];

	(void)state;
	refused = 0;
	for (int i = 0; i < QUEUE_MOST; i++)
		assert_int_equal(ask(i, true), 0);
	assert_int_equal(ask(QUEUE_MOST, true), -1);
	assert_int_equal(refused, 0);
	assert_int_equal(ask(QUEUE_MOST + 1, false), 0);
	assert_int_equal(refused, 1);
	assert_int_equal(questions[QUEUE_MOST - 1].state, QUESTION_NONE);
	order[0] = QUEUE_MOST + 1;
	for (int i = 1; i < QUEUE_MOST; i++)
		order[i] = i - 1;
	assert_order(order, QUEUE_MOST);
	/* full of those who are not suspect: nobody makes room */
	for (int i = 0; i < QUEUE_MOST; i++)
		assert_int_equal(ask(i, false), 0);
	assert_int_equal(ask(QUEUE_MOST, false), -1);
	for (int i = 0; i < QUEUE_MOST; i++)
		question_withdraw(&questions[i]);
	assert_order(order, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_suspects_wait_behind),
		cmocka_unit_test(test_withdrawn),
		cmocka_unit_test(test_full),
	};

	if (sodium_init() == -1 || loop_start() == -1)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
