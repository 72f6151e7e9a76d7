/*
 * SCRAM-SHA-256: the example of RFC 7677 section 3, and what does not fit.
 * links: authd/scram.c lib/log.c lib/system.c lib/conf.c
 * libs: -lgsasl -lnettle
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "../../authd/scram.h"

#define BARE	"n=user,r=rOprNGfwEbeRWgbNEkqO"
#define NONCE	"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define SALT	"W22ZaJ0SNY7soEsUEjb6gQ=="
#define MESSAGE	BARE ",r=" NONCE ",s=" SALT ",i=4096,c=biws,r=" NONCE
#define PROOF	"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define SIGNED	"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static size_t
decode(uint8_t *to, size_t size, const char *text)
{
	size_t length;

	assert_int_equal(sodium_base642bin(to, size, text, strlen(text), NULL, &length, NULL, sodium_base64_VARIANT_ORIGINAL), 0);
	return length;
}

static void
test_rfc_7677(void **state)
{
	struct store_scram s = { .iterations = 4096 };
	uint8_t proof[32], signature[32], due[32];

	(void)state;
	s.salt_length = (uint32_t)decode(s.salt, sizeof s.salt, SALT);
	assert_int_equal(scram_keys(&s, "pencil"), 0);
	assert_int_equal(decode(proof, sizeof proof, PROOF), 32);
	assert_int_equal(decode(due, sizeof due, SIGNED), 32);
	assert_true(scram_fits(&s, MESSAGE, strlen(MESSAGE), proof, signature));
	assert_memory_equal(signature, due, sizeof due);
}

/* Every bit of the proof, of the message and of the keys counts. */
static void
test_altered(void **state)
{
	struct store_scram s = { .iterations = 4096 };
	char message[] = MESSAGE;
	uint8_t proof[32], signature[32];

	(void)state;
	s.salt_length = (uint32_t)decode(s.salt, sizeof s.salt, SALT);
	assert_int_equal(scram_keys(&s, "pencil"), 0);
	decode(proof, sizeof proof, PROOF);
	for (size_t i = 0; i < sizeof proof * 8; i++) {
		proof[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_false(scram_fits(&s, message, strlen(message), proof, signature));
		proof[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t i = 0; i < strlen(message); i++) {
		message[i] ^= 1;
		assert_false(scram_fits(&s, message, strlen(MESSAGE), proof, signature));
		message[i] ^= 1;
	}
	s.stored_key[0] ^= 1;
	assert_false(scram_fits(&s, message, strlen(message), proof, signature));
	s.stored_key[0] ^= 1;
	assert_true(scram_fits(&s, message, strlen(message), proof, signature));
	assert_int_equal(scram_keys(&s, "Pencil"), 0);
	assert_false(scram_fits(&s, message, strlen(message), proof, signature));
}

/* Two verifiers of one password have nothing in common. */
static void
test_salts_differ(void **state)
{
	struct store_scram a, b;

	(void)state;
	assert_int_equal(scram_make(&a, "pencil", SCRAM_ITERATIONS_MIN), 0);
	assert_int_equal(scram_make(&b, "pencil", SCRAM_ITERATIONS_MIN), 0);
	assert_memory_not_equal(a.salt, b.salt, SCRAM_SALT);
	assert_memory_not_equal(a.stored_key, b.stored_key, 32);
	assert_memory_not_equal(a.server_key, b.server_key, 32);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc_7677),
		cmocka_unit_test(test_altered),
		cmocka_unit_test(test_salts_differ),
	};

	if (sodium_init() == -1)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
