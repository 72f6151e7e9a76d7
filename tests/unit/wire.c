/*
 * The wire form, against a naive one that looks at an octet at a time: every string of a small alphabet, cut at every place,
 * and the blocks and counters of the vectors.
 * links: lib/wire.c
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire.h"

#define ROOM 8192

/* The sent form without dot-stuffing, octet by octet. */
static size_t
naive_lines(const char *in, size_t n, char *out)
{
	size_t o = 0;

	for (size_t i = 0; i < n; i++) {
		if (in[i] == '\n' && (i == 0 || in[i - 1] != '\r'))
			out[o++] = '\r';
		out[o++] = in[i];
	}
	if (n > 0 && in[n - 1] != '\n') {
		out[o++] = '\r';
		out[o++] = '\n';
	}
	return o;
}

/* ... and with it, and the closing line. */
static size_t
naive_sent(const char *in, size_t n, char *out)
{
	static char lines[2 * ROOM];
	size_t length = naive_lines(in, n, lines), o = 0;

	for (size_t i = 0; i < length; i++) {
		if (lines[i] == '.' && (i == 0 || lines[i - 1] == '\n'))
			out[o++] = '.';
		out[o++] = lines[i];
	}
	memcpy(out + o, ".\r\n", 3);
	return o + 3;
}

/* Where TOP ends, in octets of the disk's form. */
static size_t
naive_top(const char *in, size_t n, uint64_t lines)
{
	size_t at = 0;
	int body = 0;

	while (at < n && !(body && lines == 0)) {
		const char *lf = memchr(in + at, '\n', n - at);
		size_t end = lf == NULL ? n : (size_t)(lf - in) + 1;
		size_t length = end - at - (lf != NULL);
		if (body)
			lines -= lf != NULL;
		else if (lf != NULL)
			body = length == 0 || (length == 1 && in[at] == '\r');
		at = end;
	}
	return at;
}

static void
check_cut_by(enum wire_way way, const char *in, size_t n, size_t cut, size_t cut2)
{
	static char out[3 * ROOM], want[3 * ROOM];
	struct wire_count count = { 0 };
	struct wire_form form = { 0 };
	size_t o = 0, expected = naive_sent(in, n, want), octets = naive_lines(in, n, out);
	const size_t from[] = { 0, cut, cut2 }, to[] = { cut, cut2, n };

	for (int i = 0; i < 3; i++) {
		size_t length = to[i] - from[i];
		/* no more is written than WIRE_ROOM promises */
		memset(out + o, 0x5a, WIRE_ROOM(length) + 1);
		size_t made = wire_form_by(way, &form, in + from[i], length, out + o);
		assert_true(made <= WIRE_ROOM(length));
		assert_int_equal(out[o + WIRE_ROOM(length)], 0x5a);
		o += made;
		wire_count(&count, in + from[i], length);
	}
	size_t closing = wire_form_end(&form, out + o);
	assert_true(closing <= 5);
	o += closing;
	assert_int_equal(o, expected);
	assert_memory_equal(out, want, o);
	assert_int_equal(wire_count_end(&count), octets);
	assert_int_equal(form.octets, octets);

	form = (struct wire_form){ 0 };
	o = wire_form_mapped_by(way, &form, in, n, out);
	if (memchr(in, '\0', n) != NULL)
		assert_int_equal(o, 0);
	else {
		o += wire_form_end(&form, out + o);
		assert_int_equal(o, expected);
		assert_memory_equal(out, want, o);
	}
}

/* In every way that this processor has; what is shorter than a block is a matter of lines for all. */
static void
check_cut(const char *in, size_t n, size_t cut, size_t cut2)
{
	for (enum wire_way way = n < 64 ? wire_way_best() : WIRE_LINES; way <= wire_way_best(); way++)
		check_cut_by(way, in, n, cut, cut2);
}

static void
check_top(const char *in, size_t n, size_t cut, uint64_t lines)
{
	struct wire_top top = { .lines = lines };
	bool done = false;
	size_t took = wire_top(&top, in, cut, &done);

	if (!done) {
		assert_int_equal(took, cut);
		took += wire_top(&top, in + cut, n - cut, &done);
	}
	assert_int_equal(took, naive_top(in, n, lines));
}

/* All strings of up to seven octets of CR, LF, dot, NUL and a letter, cut in two at every place. */
static void
every_short_string(void **state)
{
	static const char alphabet[] = { '\r', '\n', '.', 'a', '\0' };
	char in[7];

	(void)state;
	for (size_t n = 0; n <= sizeof in; n++) {
		size_t many = 1;
		for (size_t i = 0; i < n; i++)
			many *= sizeof alphabet;
		for (size_t k = 0; k < many; k++) {
			for (size_t i = 0, rest = k; i < n; i++, rest /= sizeof alphabet)
				in[i] = alphabet[rest % sizeof alphabet];
			for (size_t cut = 0; cut <= n; cut++) {
				check_cut(in, n, cut, n);
				for (uint64_t lines = 0; lines < 3; lines++)
					check_top(in, n, cut, lines);
			}
		}
	}
}

/* Lengths about the blocks of 255 that the counting uses, all octets of one kind, and mixed. */
static void
blocks(void **state)
{
	static char in[1100];

	(void)state;
	for (size_t n = 1; n <= sizeof in; n += n > 240 && n < 270 ? 1 : n > 500 && n < 520 ? 1 : 13) {
		memset(in, '\n', n);
		check_cut(in, n, n / 2, n);
		check_cut(in, n, 1, n - 1 > 1 ? n - 1 : 1);
		memset(in, '.', n);
		check_cut(in, n, n / 3, n / 2 > n / 3 ? n / 2 : n / 3);
		for (size_t i = 0; i < n; i++)
			in[i] = i % 2 ? '\n' : '\r';
		check_cut(in, n, n / 2, n);
		in[0] = '\n';
		check_cut(in, n, n / 2, n);
	}
}

/* As many line ends as fill the counters of eight bits several times over, with a few that do not count. */
static void
long_runs(void **state)
{
	static char in[64 * 255 * 2 + 200];

	(void)state;
	for (size_t n = 64 * 255 - 70; n <= sizeof in; n += n % 64 == 0 ? 64 * 37 + 1 : 1) {
		struct wire_count count = { 0 };
		memset(in, '\n', n);
		in[n / 3] = in[n / 2] = '\r';
		wire_count(&count, in, n);
		assert_int_equal(wire_count_end(&count), n + (n - 2) - 2);
	}
}

static uint32_t
next_random(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

static void
random_strings(void **state)
{
	static const char alphabet[] = "\r\n\n.ab\0\xff";
	static char in[2000];
	uint32_t seed = 1;

	(void)state;
	for (int round = 0; round < 2000; round++) {
		size_t n = next_random(&seed) % sizeof in;
		for (size_t i = 0; i < n; i++)
			in[i] = alphabet[next_random(&seed) % 8];
		size_t a = n ? next_random(&seed) % n : 0, b = a + (n - a ? next_random(&seed) % (n - a) : 0);
		check_cut(in, n, a, b);
		check_top(in, n, a, next_random(&seed) % 50);
	}
}

/* Lines of up to so many octets, as mail has them: most blocks have one line end or none. */
static void
random_lines(void **state)
{
	static char in[2000];
	uint32_t seed = 2;

	(void)state;
	for (int round = 0; round < 2000; round++) {
		size_t n = next_random(&seed) % sizeof in, most = 1 + next_random(&seed) % 150, left = 0;
		for (size_t i = 0; i < n; i++, left--) {
			if (left == 0)
				left = 1 + next_random(&seed) % most;
			in[i] = left > 1 ? "aaaaaaa.\r"[next_random(&seed) % 9] : '\n';
		}
		size_t a = n ? next_random(&seed) % n : 0, b = a + (n - a ? next_random(&seed) % (n - a) : 0);
		check_cut(in, n, a, b);
	}
}

/* The pieces of one octet each: no state is lost between calls. */
static void
octet_by_octet(void **state)
{
	static const char in[] = "a: b\r\n\n.\n..\r\r\n\r\n.x\r";
	char out[200], want[200];
	struct wire_form form = { 0 };
	struct wire_count count = { 0 };
	size_t o = 0;

	(void)state;
	for (size_t i = 0; i < sizeof in - 1; i++) {
		o += wire_form(&form, in + i, 1, out + o);
		wire_count(&count, in + i, 1);
		wire_count(&count, in, 0);
	}
	o += wire_form_end(&form, out + o);
	assert_int_equal(o, naive_sent(in, sizeof in - 1, want));
	assert_memory_equal(out, want, o);
	assert_int_equal(wire_count_end(&count), form.octets);
}

static void
known_forms(void **state)
{
	static const struct {
		const char *disk, *wire;
		size_t octets;
	} known[] = {
		{ "", ".\r\n", 0 },
		{ "a", "a\r\n.\r\n", 3 },
		{ "a\n", "a\r\n.\r\n", 3 },
		{ "a\r\n", "a\r\n.\r\n", 3 },
		{ "\n", "\r\n.\r\n", 2 },
		{ ".", "..\r\n.\r\n", 3 },
		{ ".\n", "..\r\n.\r\n", 3 },
		{ "a\rb\n", "a\rb\r\n.\r\n", 5 },
		{ "a\r", "a\r\r\n.\r\n", 4 },
		{ "a\n.b\n", "a\r\n..b\r\n.\r\n", 7 },
		{ "a\r.b\n", "a\r.b\r\n.\r\n", 6 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		char out[64];
		struct wire_form form = { 0 };
		size_t n = wire_form(&form, known[i].disk, strlen(known[i].disk), out);
		n += wire_form_end(&form, out + n);
		assert_int_equal(n, strlen(known[i].wire));
		assert_memory_equal(out, known[i].wire, n);
		assert_int_equal(form.octets, known[i].octets);
	}
}

/* TOP of a message without a blank line is all of it; "TOP 1 0" ends with the blank line; a number beyond any file is the whole. */
static void
top_ends(void **state)
{
	static const char in[] = "a: b\nc: d\n\none\ntwo\n";
	bool done;

	(void)state;
	struct wire_top top = { .lines = 0 };
	assert_int_equal(wire_top(&top, in, sizeof in - 1, &done), strlen("a: b\nc: d\n\n"));
	assert_true(done);
	top = (struct wire_top){ .lines = 1 };
	assert_int_equal(wire_top(&top, in, sizeof in - 1, &done), strlen("a: b\nc: d\n\none\n"));
	assert_true(done);
	top = (struct wire_top){ .lines = UINT64_MAX };
	assert_int_equal(wire_top(&top, in, sizeof in - 1, &done), sizeof in - 1);
	assert_false(done);
	top = (struct wire_top){ .lines = 0 };
	assert_int_equal(wire_top(&top, "a: b\nc", 6, &done), 6);
	assert_false(done);
}

/* Wherever a NUL is in what is seen of a file, and wherever that begins. */
static void
nul_is_told(void **state)
{
	static char in[9000], out[WIRE_ROOM(sizeof in)];

	(void)state;
	memset(in, 'a', sizeof in);
	for (enum wire_way way = WIRE_LINES; way <= wire_way_best(); way++)
		for (size_t from = 0; from < 64; from += 21)
			for (size_t at = from; at < sizeof in; at++) {
				struct wire_form form = { 0 };
				in[at] = '\0';
				assert_int_equal(wire_form_mapped_by(way, &form, in + from, sizeof in - from, out), 0);
				in[at] = 'a';
			}
}

/* Another program makes line ends of what is no line end, and takes them back, all the time: the last octet of each block, and one of the rest. */
static volatile char shared[32 * 64 + 32];
static volatile int enough;	/* of bool, UBSan makes gcc look once */

static void *
scribble(void *arg)
{
	(void)arg;
	while (!enough)
		for (size_t i = 15; i < sizeof shared; i += i % 64 == 15 ? 48 : 16)
			shared[i] = shared[i] == '\n' ? 'a' : '\n';
	return NULL;
}

static void
changed_meanwhile(void **state)
{
	static char out[WIRE_ROOM(sizeof shared)];
	pthread_t other;

	(void)state;
	for (size_t i = 0; i < sizeof shared; i++)
		shared[i] = i % 64 == 30 ? '\n' : i % 64 == 0 ? '.' : 'a';
	enough = 0;
	assert_int_equal(pthread_create(&other, NULL, scribble, NULL), 0);
	for (enum wire_way way = WIRE_LINES; way <= wire_way_best(); way++)
		for (int turn = 0; turn < 20000; turn++) {
			struct wire_form form = { 0 };
			size_t made = wire_form_mapped_by(way, &form, (const char *)(uintptr_t)shared, sizeof shared, out), stuffed = 0;
			for (size_t i = 0; i < made; i++) {
				assert_true(out[i] != '\n' || (i > 0 && out[i - 1] == '\r'));
				if (out[i] == '.' && (i == 0 || out[i - 1] == '\n')) {
					stuffed++;
					assert_true(i + 1 < made && out[++i] == '.');
				}
			}
			assert_int_equal(form.octets, made - stuffed);
		}
	enough = 1;
	pthread_join(other, NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_forms),
		cmocka_unit_test(octet_by_octet),
		cmocka_unit_test(every_short_string),
		cmocka_unit_test(blocks),
		cmocka_unit_test(long_runs),
		cmocka_unit_test(random_strings),
		cmocka_unit_test(random_lines),
		cmocka_unit_test(nul_is_told),
		cmocka_unit_test(changed_meanwhile),
		cmocka_unit_test(top_ends),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
