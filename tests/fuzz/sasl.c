/*
 * The mechanisms: the first octet says which; then messages, each after its length in two octets. An octet 1 in one stands for the nonce of the
 * server's last word, so that an exchange can get to its end.
 * links: authd/sasl.c authd/bound.c authd/scram.c authd/apop.c authd/password.c lib/system.c lib/log.c lib/conf.c
 * libs: -lgsasl -lnettle
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "log.h"
#include "system.h"

#include "../../authd/apop.h"
#include "../../authd/login.h"
#include "../../authd/peer.h"
#include "../../authd/sasl.h"
#include "../../authd/vouch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct body_hello hello;

const struct body_hello *peer_hello(const struct login *l) { (void)l; return &hello; }
const char *peer_timestamp(const struct login *l) { (void)l; return "<1.2@postern>"; }
bool vouch_certificate(struct login *l, const struct body_hello *h) { (void)h; return string_copy(l->user, sizeof l->user, "user"); }

void
vouch_scram(struct login *l, struct store_scram *s)
{
	(void)l;
	memset(s, 7, sizeof *s);
	s->iterations = 4096;
	s->salt_length = 16;
}

void
vouch_secret(struct login *l, char secret[static TOKEN_TEXT])
{
	(void)l;
	string_copy(secret, TOKEN_TEXT, "tanstaaftanstaaf");
}

static size_t
fill_in(const struct login *l, const uint8_t *from, size_t length, uint8_t *to, size_t room)
{
	const uint8_t *said = l->secret->challenge;
	size_t n = l->secret->challenge_length, start = 0, end, used = 0;

	while (start + 2 < n && memcmp(said + start, "r=", 2) != 0)
		start++;
	for (end = start; end < n && said[end] != ','; end++)
		;
	for (size_t i = 0; i < length && used < room; i++) {
		if (from[i] != 1) {
			to[used++] = from[i];
			continue;
		}
		for (size_t k = start + 2; k < end && used < room; k++)
			to[used++] = said[k];
	}
	return used;
}

static void
exchange(struct login *l, const uint8_t *data, size_t size)
{
	static uint8_t filled[SASL_SIZE];
	enum sasl_result result = SASL_CHALLENGE;

	if (sasl_begin(l) == -1)
		abort();
	while (result == SASL_CHALLENGE && size >= 2) {
		size_t n = (size_t)(data[0] << 8 | data[1]);
		data += 2;
		size -= 2;
		n = n < size ? n : size;
		size_t length = fill_in(l, data, n, filled, sizeof filled);
		/* just so large that one octet too far is seen */
		uint8_t *exact = malloc(length > 0 ? length : 1);
		if (exact == NULL)
			abort();
		memcpy(exact, filled, length);
		result = sasl_step(l, exact, length);
		free(exact);
		data += n;
		size -= n;
	}
	if (l->secret->challenge_length > sizeof l->secret->challenge || memchr(l->user, 0, sizeof l->user) == NULL ||
	    memchr(l->authzid, 0, sizeof l->authzid) == NULL || memchr(l->secret->password, 0, sizeof l->secret->password) == NULL)
		abort();
	/* nobody knows what 7 7 7 is the key of */
	if (result == SASL_PROVED && l->mechanism != MECHANISM_EXTERNAL && l->mechanism != MECHANISM_CRAM_MD5)
		abort();
	sasl_end(l);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conf conf;
	static struct login l;
	static struct secret secret;
	char error[256];

	if (size < 2 || size > 1 << 15 || sodium_init() == -1)
		return 0;
	if (conf.mechanisms.count == 0) {
		if (conf_load(&conf, CONF_PATH_DEFAULT, true, error, sizeof error) == -1)
			abort();
		for (uint32_t m = 0; m < MECHANISM_COUNT; m++)
			conf.mechanisms.item[m] = m;
		conf.mechanisms.count = MECHANISM_COUNT;
		conf.log_level = 0;
		conf.log = LOG_TO_STDERR;
		log_start("authd");
		log_open(&conf, -1);
		sasl_start(&conf);
		string_copy(hello.binding_type, sizeof hello.binding_type, "tls-exporter");
		hello.binding_length = 32;
		hello.end_point_length = 32;
	}
	memset(&l, 0, sizeof l);
	memset(&secret, 0, sizeof secret);
	l.secret = &secret;
	l.mechanism = data[0] % MECHANISM_COUNT;
	if (l.mechanism == MECHANISM_APOP)
		apop_check(&l, data + 1, size - 1);
	else if (sasl_knows(l.mechanism))
		exchange(&l, data + 1, size - 1);
	return 0;
}
