/*
 * The PROXY header: what is one, what is not, and that no octet behind it is ever asked for.
 * links: pop3d/proxy.c pop3d/stream.c lib/system.c lib/log.c lib/conf.c
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "../../pop3d/proxy.h"

/* Gives what is asked for, octet by octet of what there is. The octets used, or 0 if it is bad. */
static size_t
run(const void *data, size_t length, struct proxy *p)
{
	size_t have = 1, more = 0;
	enum proxy_result r;

	while ((r = proxy_parse(data, have, p, &more)) == PROXY_MORE) {
		assert_true(more > 0);
		have += more;
		if (have > length)
			return 0;
	}
	return r == PROXY_OK ? have : 0;
}

static void
good(const void *data, size_t length, const char *client, unsigned port)
{
	struct proxy p;
	char longer[PROXY_MAX + 64];

	memcpy(longer, data, length);
	memset(longer + length, 'x', 32);
	assert_int_equal(run(longer, length + 32, &p), length);
	assert_string_equal(p.client, client);
	assert_int_equal(p.client_port, port);
}

static void
bad(const void *data, size_t length)
{
	struct proxy p;

	assert_int_equal(run(data, length, &p), 0);
}

#define GOOD(text, client, port) good(text, sizeof(text) - 1, client, port)
#define BAD(text) bad(text, sizeof(text) - 1)
#define V2 "\r\n\r\n\0\r\nQUIT\n"

static void
test_version_1(void **state)
{
	(void)state;
	GOOD("PROXY TCP4 192.0.2.1 198.51.100.1 56324 110\r\n", "192.0.2.1", 56324);
	GOOD("PROXY TCP6 2001:DB8::0001 ::1 1 995\r\n", "2001:db8::1", 1);
	GOOD("PROXY UNKNOWN\r\n", "", 0);
	GOOD("PROXY UNKNOWN ffff::1 what ever\r\n", "", 0);
	BAD("PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n");
	BAD("PROXY TCP4 192.0.2.1 198.51.100.1 56324 110 \r\n");
	BAD("PROXY TCP4 192.0.2.1 198.51.100.1 56324 110 x\r\n");
	BAD("PROXY TCP4 192.0.2.1 198.51.100.1 65536 110\r\n");
	BAD("PROXY TCP4 192.0.2.256 198.51.100.1 1 110\r\n");
	BAD("PROXY TCP4 2001:db8::1 ::1 1 110\r\n");
	BAD("PROXY TCP4  192.0.2.1 198.51.100.1 1 110\r\n");
	BAD("PROXY TCP4 192.0.2.1 198.51.100.1 1 110\n");
	BAD("PROXY TCP4 192.0.2.1 198.51.100.1 -1 110\r\n");
	BAD("PROXY\r\n");
	BAD("PROXY \r\n");
	BAD("CAPA\r\n");
	BAD("PROXY TCP4 192.0.2.1 1\0.51.100.1 1 110\r\n");
	BAD("PROXY UNKNOWN xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n");
}

static void
test_version_2(void **state)
{
	(void)state;
	GOOD(V2 "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\1\x12\x34\0\x6e", "192.0.2.1", 0x1234);
	GOOD(V2 "\x21\x11\0\x0f\xc0\0\2\1\xc6\x33\x64\1\x12\x34\0\x6e\3\0\0", "192.0.2.1", 0x1234);
	GOOD(V2 "\x21\x21\0\x24\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\1\3\xe3", "2001:db8::1", 1);
	GOOD(V2 "\x20\0\0\0", "", 0);
	GOOD(V2 "\x20\0\0\3abc", "", 0);
	GOOD(V2 "\x21\0\0\0", "", 0);
	BAD(V2 "\x22\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\1\x12\x34\0\x6e");
	BAD(V2 "\x11\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\1\x12\x34\0\x6e");
	BAD(V2 "\x21\x12\0\x0c\xc0\0\2\1\xc6\x33\x64\1\x12\x34\0\x6e");
	BAD(V2 "\x21\x11\0\x0b\xc0\0\2\1\xc6\x33\x64\1\x12\x34\0");
	BAD(V2 "\x21\x11\xff\xff");
	BAD("\r\n\r\n\0\r\nQUIX\n\x20\0\0\0");
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_version_1), cmocka_unit_test(test_version_2) };

	return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
