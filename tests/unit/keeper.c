/*
 * What the keeper signs, and the chains that it hands out.
 * links: authd/sign.c authd/keys.c lib/chains.c lib/catalogue.c lib/log.c lib/system.c lib/conf.c lib/messages.c
 * libs: -lgnutls -lcrypto
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <sodium.h>

#include "../../authd/keys.h"
#include "../../authd/sign.h"
#include "catalogue.h"
#include "chains.h"

static struct conf conf;
static gnutls_x509_crt_t certificate[CONF_PAIRS];
static char said[8192];

static void
say(int level, const char *text)
{
	size_t used = strlen(said);

	snprintf(said + used, sizeof said - used, "%d %s\n", level, text);
}

static void
file_write(const char *path, const gnutls_datum_t *data)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(data->data, 1, data->size, f), data->size);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, 0600), 0);
}

/* A key of that kind with a certificate that it signed itself, added to the configuration. */
static void
pair_make(const char *folder, gnutls_pk_algorithm_t algorithm, unsigned bits)
{
	uint32_t n = conf.certificate.count++;
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t crt;
	gnutls_datum_t out;
	gnutls_digest_algorithm_t digest = algorithm == GNUTLS_PK_EDDSA_ED25519 ? GNUTLS_DIG_SHA512 : GNUTLS_DIG_SHA256;

	conf.key.count++;
	snprintf(conf.certificate.path[n], CONF_STRING, "%s/%u.crt", folder, n);
	snprintf(conf.key.path[n], CONF_STRING, "%s/%u.key", folder, n);
	assert_int_equal(gnutls_x509_privkey_init(&key), 0);
	assert_int_equal(gnutls_x509_privkey_generate(key, algorithm, bits, 0), 0);
	assert_int_equal(gnutls_x509_crt_init(&crt), 0);
	assert_int_equal(gnutls_x509_crt_set_version(crt, 3), 0);
	assert_int_equal(gnutls_x509_crt_set_serial(crt, "\1", 1), 0);
	assert_int_equal(gnutls_x509_crt_set_activation_time(crt, time(NULL) - 60), 0);
	assert_int_equal(gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 100 * 86400), 0);
	assert_int_equal(gnutls_x509_crt_set_dn(crt, "CN=unit", NULL), 0);
	assert_int_equal(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, "mail.example.org", 16, 0), 0);
	assert_int_equal(gnutls_x509_crt_set_key(crt, key), 0);
	assert_int_equal(gnutls_x509_crt_sign2(crt, crt, key, digest, 0), 0);
	assert_int_equal(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &out), 0);
	file_write(conf.certificate.path[n], &out);
	gnutls_free(out.data);
	assert_int_equal(gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &out), 0);
	file_write(conf.key.path[n], &out);
	gnutls_free(out.data);
	certificate[n] = crt;
	gnutls_x509_privkey_deinit(key);
}

static struct keys keys;
static const uint32_t lengths[SIGN_SCHEME_COUNT] = { 32, 48, 64, 32, 48, 64, 32, 48, 64, 0 };
static const gnutls_sign_algorithm_t algorithms[SIGN_SCHEME_COUNT] = {
	GNUTLS_SIGN_RSA_PSS_RSAE_SHA256, GNUTLS_SIGN_RSA_PSS_RSAE_SHA384, GNUTLS_SIGN_RSA_PSS_RSAE_SHA512, GNUTLS_SIGN_RSA_SHA256,
	GNUTLS_SIGN_RSA_SHA384, GNUTLS_SIGN_RSA_SHA512, GNUTLS_SIGN_ECDSA_SHA256, GNUTLS_SIGN_ECDSA_SHA384, GNUTLS_SIGN_ECDSA_SHA512,
	GNUTLS_SIGN_EDDSA_ED25519,
};
static const uint32_t pair_of[SIGN_SCHEME_COUNT] = { 0, 0, 0, 0, 0, 0, 1, 2, 3, 4 };

static int
prepare(void **state)
{
	static char folder[] = "/tmp/postern-keeper-XXXXXX";
	struct findings f = { say, 0 };

	(void)state;
	if (sodium_init() == -1 || mkdtemp(folder) == NULL)
		return -1;
	pair_make(folder, GNUTLS_PK_RSA, 2048);
	pair_make(folder, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1));
	pair_make(folder, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP384R1));
	pair_make(folder, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP521R1));
	pair_make(folder, GNUTLS_PK_EDDSA_ED25519, 256);
	if (keys_load(&keys, &conf, true, &f) == -1)
		fprintf(stderr, "%s", said);
	for (uint32_t i = 0; i < conf.certificate.count; i++) {
		unlink(conf.certificate.path[i]);
		unlink(conf.key.path[i]);
	}
	rmdir(folder);
	return f.mistakes == 0 && keys.count == 5 ? 0 : -1;
}

/* What each scheme is to sign; returns its length. */
static uint32_t
text_for(uint32_t scheme, uint8_t *data)
{
	static const char context[] = "TLS 1.3, server CertificateVerify";

	memset(data, ' ', SIGN_DATA_SIZE);
	if (lengths[scheme] != 0)
		return lengths[scheme];
	memcpy(data + 64, context, sizeof context);
	return 64 + sizeof context + 32;
}

static void
question(struct body_sign *s, uint32_t scheme)
{
	memset(s, 0, sizeof *s);
	memcpy(s->key, keys.pair[pair_of[scheme]].id, KEY_ID_SIZE);
	s->scheme = scheme;
	s->length = text_for(scheme, s->data);
}

/* Is it a signature of the data by that scheme? */
static bool
verifies(uint32_t scheme, const struct body_sign *s, const struct body_signature *made)
{
	gnutls_datum_t data = { (void *)(uintptr_t)s->data, s->length }, signature = { (void *)(uintptr_t)made->data, made->length };
	gnutls_pubkey_t public;

	assert_int_equal(gnutls_pubkey_init(&public), 0);
	assert_int_equal(gnutls_pubkey_import_x509(public, certificate[pair_of[scheme]], 0), 0);
	int error = lengths[scheme] != 0 ? gnutls_pubkey_verify_hash2(public, algorithms[scheme], 0, &data, &signature) :
	    gnutls_pubkey_verify_data2(public, algorithms[scheme], 0, &data, &signature);
	gnutls_pubkey_deinit(public);
	return error >= 0;
}

static void
signs_each_scheme(void **state)
{
	struct body_sign s;
	struct body_signature made;

	(void)state;
	for (uint32_t scheme = 0; scheme < SIGN_SCHEME_COUNT; scheme++) {
		question(&s, scheme);
		assert_null(sign(&keys, &s, &made));
		assert_true(made.length > 0 && verifies(scheme, &s, &made));
	}
}

static void
refuses_every_other_length(void **state)
{
	struct body_sign s;
	struct body_signature made;

	(void)state;
	for (uint32_t scheme = 0; scheme < SIGN_SCHEME_COUNT; scheme++) {
		question(&s, scheme);
		uint32_t good = s.length;
		for (s.length = 0; s.length <= SIGN_DATA_SIZE; s.length++) {
			if (s.length == good || (scheme == SIGN_ED25519 && s.length == good + 16))
				continue;
			assert_non_null(sign(&keys, &s, &made));
			assert_int_equal(made.length, 0);
		}
	}
}

static void
refuses_other_keys_and_schemes(void **state)
{
	struct body_sign s;
	struct body_signature made;

	(void)state;
	for (uint32_t scheme = 0; scheme < SIGN_SCHEME_COUNT; scheme++) {
		for (uint32_t pair = 0; pair < keys.count; pair++) {
			question(&s, scheme);
			memcpy(s.key, keys.pair[pair].id, KEY_ID_SIZE);
			assert_true((sign(&keys, &s, &made) == NULL) == (pair == pair_of[scheme]));
		}
		question(&s, scheme);
		s.key[KEY_ID_SIZE - 1] ^= 1;
		assert_non_null(sign(&keys, &s, &made));
		assert_int_equal(made.length, 0);
	}
}

static void
knows_what_a_server_signs(void **state)
{
	static const struct {
		uint8_t curve, point;
	} curves[] = { { 23, 65 }, { 24, 97 }, { 25, 133 }, { 29, 32 } };
	uint8_t data[SIGN_DATA_SIZE];

	(void)state;
	uint32_t length = text_for(SIGN_ED25519, data);
	assert_true(sign_is_tls(data, length) && sign_is_tls(data, length + 16));
	for (uint32_t i = 0; i < 98; i++) {	/* each octet of the form counts */
		data[i] ^= 1;
		assert_false(sign_is_tls(data, length));
		data[i] ^= 1;
	}
	for (size_t c = 0; c < sizeof curves / sizeof curves[0]; c++) {
		randombytes_buf(data, sizeof data);
		memcpy(data + 64, (uint8_t[4]){ 3, 0, curves[c].curve, curves[c].point }, 4);
		length = 68u + curves[c].point;
		assert_true(sign_is_tls(data, length));
		assert_false(sign_is_tls(data, length - 1) || sign_is_tls(data, length + 1));
		for (uint32_t i = 64; i < 68; i++) {
			data[i] ^= 0x40;
			assert_false(sign_is_tls(data, length));
			data[i] ^= 0x40;
		}
	}
	for (length = 0; length < SIGN_DATA_SIZE; length++) {	/* such as a certificate to be signed */
		memset(data, 0x30, sizeof data);
		assert_false(sign_is_tls(data, length));
	}
}

static void
chains_tell_all_pairs(void **state)
{
	struct chains c;
	struct chains_item i;
	uint32_t pairs = 0, certificates = 0;

	(void)state;
	assert_int_equal(chains_map(&c, keys.chains), 0);
	while (chains_next(&c, &i)) {
		struct chains_pair pair;
		certificates += i.kind == CHAINS_CERTIFICATE;
		if (i.kind != CHAINS_PAIR)
			continue;
		memcpy(&pair, i.data, sizeof pair);
		assert_memory_equal(pair.key, keys.pair[pairs].id, KEY_ID_SIZE);
		pairs++;
	}
	assert_int_equal(pairs, 5);
	assert_int_equal(certificates, 5);
	chains_unmap(&c);
}

/* Any octet of it changed, or its end cut off: never more than EPROTO, or other certificates. */
static void
chains_bear_anything(void **state)
{
	struct chains c;
	struct chains_item item;
	size_t size;

	(void)state;
	assert_int_equal(chains_map(&c, keys.chains), 0);
	size = c.size;
	uint8_t *copy = malloc(size);
	assert_non_null(copy);
	memcpy(copy, c.map, size);
	chains_unmap(&c);
	for (unsigned round = 0; round < 4000; round++) {
		int fd = sealed_create("unit");
		size_t part = round % 4 == 0 ? randombytes_uniform((uint32_t)size) : size;
		size_t at = randombytes_uniform(round % 2 == 0 ? 64 : (uint32_t)size);
		uint8_t kept = copy[at];
		copy[at] = (uint8_t)randombytes_random();
		assert_int_equal(write(fd, copy, part), part);
		copy[at] = kept;
		assert_int_equal(chains_map(&c, fd), -1);	/* not sealed */
		assert_int_equal(sealed_finish(fd), 0);
		if (chains_map(&c, fd) == 0) {
			while (chains_next(&c, &item))
				assert_true(item.data >= c.map && item.data + item.length <= c.map + c.size);
			chains_unmap(&c);
		}
		close(fd);
	}
	free(copy);
}

static void
tells_of_expiry(void **state)
{
	struct findings f = { say, 0 };
	time_t kept = keys.pair[0].expires;
	static const struct {
		long days;
		const char *text;
	} cases[] = { { 31, "" }, { 29, "expires in 29 days" }, { 6, "expires in 6 days" }, { -1, "expired on" } };

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		said[0] = '\0';
		keys.pair[0].expires = time(NULL) + cases[i].days * 86400 + 3600;
		keys_say_expiry(&keys, &f);
		assert_non_null(strstr(said, cases[i].text));
		assert_true((said[0] == '\0') == (cases[i].text[0] == '\0'));
	}
	keys.pair[0].expires = kept;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signs_each_scheme),
		cmocka_unit_test(refuses_every_other_length),
		cmocka_unit_test(refuses_other_keys_and_schemes),
		cmocka_unit_test(knows_what_a_server_signs),
		cmocka_unit_test(chains_tell_all_pairs),
		cmocka_unit_test(chains_bear_anything),
		cmocka_unit_test(tells_of_expiry),
	};

	return cmocka_run_group_tests(tests, prepare, NULL);
}
