#include "credentials.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "ask.h"
#include "chains.h"
#include "log.h"
#include "system.h"

/* A configuration without TLS does not pay for the library's start; credentials_prepare() makes it. */
GNUTLS_SKIP_GLOBAL_INIT

#define CHAIN_MAX	16

/*
 * What is accepted: ephemeral ECDH and authenticated ciphers alone, and of signatures what the keeper makes. No RSA key
 * exchange: it would ask the keeper to decrypt. Nothing of the system's own policy file is asked for, so that a
 * connection does not depend on a file.
 */
static const char priority_text[] = "NORMAL:-VERS-ALL%s:+VERS-TLS1.3:-KX-ALL:+ECDHE-ECDSA:+ECDHE-RSA:-CIPHER-ALL:+AES-128-GCM:"
    "+CHACHA20-POLY1305:+AES-256-GCM:-MAC-ALL:+AEAD:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:+GROUP-SECP521R1:-SIGN-ALL:"
    "+SIGN-EDDSA-ED25519:+SIGN-ECDSA-SECP256R1-SHA256:+SIGN-ECDSA-SECP384R1-SHA384:+SIGN-ECDSA-SECP521R1-SHA512:+SIGN-ECDSA-SHA256:"
    "+SIGN-ECDSA-SHA384:+SIGN-ECDSA-SHA512:+SIGN-RSA-PSS-RSAE-SHA256:+SIGN-RSA-PSS-RSAE-SHA384:+SIGN-RSA-PSS-RSAE-SHA512:"
    "+SIGN-RSA-SHA256:+SIGN-RSA-SHA384:+SIGN-RSA-SHA512:%%SERVER_PRECEDENCE";

/* One of the pairs: GnuTLS asks it to sign, and it asks the keeper. */
struct remote_key {
	struct chains_pair pair;
};

#define NAMES_MAX	256
#define EVERY_PAIR	UINT32_MAX

/* A name of a pair's certificate, for SNI. */
struct name {
	char text[256];
	uint32_t pair;		/* a bit */
};

/* The credentials, made once, and used by all children forked afterwards. */
static struct {
	bool known;
	uint64_t generation;
	gnutls_certificate_credentials_t credentials;
	struct chains map;		/* what they were made of */
	bool asks_certificate;		/* client-ca is set */
	struct name name[NAMES_MAX];
	uint32_t names;
	bool wildcards;			/* there are several pairs, and one has a name with a star */
} chains;

static struct {
	bool ready;
	int minimum;
	gnutls_priority_t priority;
} prepared;

bool
credentials_configured(const struct conf *c)
{
	return c->certificate.count > 0;
}

void
credentials_prepare(const struct conf *c)
{
	char text[sizeof priority_text + 32];
	const char *at;
	int error;

	if (!prepared.ready && (error = gnutls_global_init()) < 0)
		fatal("GnuTLS cannot be used: %s", gnutls_strerror(error));
	if (prepared.ready && prepared.minimum == c->tls_minimum)
		return;
	if (prepared.ready)
		gnutls_priority_deinit(prepared.priority);
	snprintf(text, sizeof text, priority_text, c->tls_minimum <= 12 ? ":+VERS-TLS1.2" : "");
	if ((error = gnutls_priority_init(&prepared.priority, text, &at)) < 0)
		fatal("GnuTLS does not know what is asked of it, at \"%.40s\": %s", at, gnutls_strerror(error));
	prepared.ready = true;
	prepared.minimum = c->tls_minimum;
}

int
credentials_connect(const struct conf *c, bool follow)
{
	struct message m;
	int fd = ask_reach(c, "keeper.sock");

	if (fd == -1 || !follow)
		return fd;
	message_start(&m, MESSAGE_FOLLOW);
	if (message_send(fd, &m) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* Signing. */

static struct {
	int keeper;
	int64_t deadline;
} signer = { .keeper = -1 };

/*
 * The digest at the end of what GnuTLS gives: for PKCS #1 v1.5 it has put the DigestInfo before it, which the keeper
 * makes by itself.
 */
static bool
digest_take(const gnutls_datum_t *given, gnutls_sign_algorithm_t algorithm, size_t length, struct body_sign *s)
{
	size_t prefix = algorithm == GNUTLS_SIGN_RSA_RAW ? 19 : 0;

	if (given->size != prefix + length || length > sizeof s->data)
		return false;
	memcpy(s->data, given->data + prefix, length);
	s->length = (uint32_t)length;
	return true;
}

static bool
scheme_find(const struct chains_pair *pair, gnutls_sign_algorithm_t algorithm, const gnutls_datum_t *given, struct body_sign *s)
{
	static const size_t lengths[3] = { 32, 48, 64 };
	uint32_t first;

	if (pair->algorithm == CHAINS_ECDSA)
		first = SIGN_ECDSA_P256;
	else
		first = algorithm == GNUTLS_SIGN_RSA_RAW ? SIGN_RSA_SHA256 : SIGN_RSA_PSS_SHA256;
	for (uint32_t i = 0; i < 3; i++)
		if (digest_take(given, algorithm, lengths[i], s)) {
			s->scheme = first + i;
			return true;
		}
	return false;
}

/* Asks the keeper and waits for it. */
static int
signature_get(struct message *m, gnutls_datum_t *signature)
{
	int64_t left = signer.deadline - clock_ms();

	if (message_send(signer.keeper, m) == -1 || message_wait(signer.keeper, left < 1 ? 1 : (int)left) != 1 ||
	    message_receive(signer.keeper, m, SIDE_KEEPER, SIDE_POP3D) != 1) {
		log_text(LOG_ERR, "the keeper does not sign");
		return GNUTLS_E_PK_SIGN_FAILED;
	}
	if (m->header.type != MESSAGE_SIGNATURE || m->body.signature.length == 0) {
		log_text(LOG_ERR, "the keeper answers %s and no signature", message_name(m->header.type));
		message_clear(m);
		return GNUTLS_E_PK_SIGN_FAILED;
	}
	signature->size = m->body.signature.length;
	signature->data = gnutls_malloc(signature->size);
	if (signature->data == NULL)
		return GNUTLS_E_MEMORY_ERROR;
	memcpy(signature->data, m->body.signature.data, signature->size);
	return 0;
}

static int
sign_hash(gnutls_privkey_t key, gnutls_sign_algorithm_t algorithm, void *userdata, unsigned flags, const gnutls_datum_t *hash,
    gnutls_datum_t *signature)
{
	const struct remote_key *k = userdata;
	struct message m;

	(void)key;
	(void)flags;
	message_start(&m, MESSAGE_SIGN);
	memcpy(m.body.sign.key, k->pair.key, KEY_ID_SIZE);
	if (k->pair.algorithm == CHAINS_ED25519 || !scheme_find(&k->pair, algorithm, hash, &m.body.sign))
		return GNUTLS_E_UNSUPPORTED_SIGNATURE_ALGORITHM;
	return signature_get(&m, signature);
}

/* Ed25519 takes no digest: GnuTLS asks with the whole text for it, and for nothing else. */
static int
sign_data(gnutls_privkey_t key, gnutls_sign_algorithm_t algorithm, void *userdata, unsigned flags, const gnutls_datum_t *data,
    gnutls_datum_t *signature)
{
	const struct remote_key *k = userdata;
	struct message m;

	(void)key;
	(void)algorithm;
	(void)flags;
	if (k->pair.algorithm != CHAINS_ED25519 || data->size > SIGN_DATA_SIZE)
		return GNUTLS_E_UNSUPPORTED_SIGNATURE_ALGORITHM;
	message_start(&m, MESSAGE_SIGN);
	memcpy(m.body.sign.key, k->pair.key, KEY_ID_SIZE);
	m.body.sign.scheme = SIGN_ED25519;
	m.body.sign.length = data->size;
	memcpy(m.body.sign.data, data->data, data->size);
	return signature_get(&m, signature);
}

/* May the key sign so? Of the curves each has its own digest, as in TLS 1.3. */
static bool
can_sign(const struct chains_pair *p, gnutls_sign_algorithm_t a)
{
	switch (a) {
	case GNUTLS_SIGN_RSA_SHA256: case GNUTLS_SIGN_RSA_SHA384: case GNUTLS_SIGN_RSA_SHA512:
	case GNUTLS_SIGN_RSA_PSS_RSAE_SHA256: case GNUTLS_SIGN_RSA_PSS_RSAE_SHA384: case GNUTLS_SIGN_RSA_PSS_RSAE_SHA512:
		return p->algorithm == CHAINS_RSA;
	case GNUTLS_SIGN_ECDSA_SHA256: case GNUTLS_SIGN_ECDSA_SECP256R1_SHA256:
		return p->algorithm == CHAINS_ECDSA && p->bits == 256;
	case GNUTLS_SIGN_ECDSA_SHA384: case GNUTLS_SIGN_ECDSA_SECP384R1_SHA384:
		return p->algorithm == CHAINS_ECDSA && p->bits == 384;
	case GNUTLS_SIGN_ECDSA_SHA512: case GNUTLS_SIGN_ECDSA_SECP521R1_SHA512:
		return p->algorithm == CHAINS_ECDSA && p->bits == 521;
	case GNUTLS_SIGN_EDDSA_ED25519:
		return p->algorithm == CHAINS_ED25519;
	default:
		return false;
	}
}

static int
key_info(gnutls_privkey_t key, unsigned flags, void *userdata)
{
	static const int algorithms[CHAINS_ALGORITHMS] = { GNUTLS_PK_RSA, GNUTLS_PK_ECDSA, GNUTLS_PK_EDDSA_ED25519 };
	const struct remote_key *k = userdata;

	(void)key;
	if (flags & GNUTLS_PRIVKEY_INFO_PK_ALGO)
		return algorithms[k->pair.algorithm];
	if (flags & GNUTLS_PRIVKEY_INFO_PK_ALGO_BITS)
		return (int)k->pair.bits;
	if (flags & GNUTLS_PRIVKEY_INFO_HAVE_SIGN_ALGO)
		return can_sign(&k->pair, GNUTLS_FLAGS_TO_SIGN_ALGO(flags));
	return -1;
}

static void
key_free(gnutls_privkey_t key, void *userdata)
{
	(void)key;
	free(userdata);
}

/* The chains. */

/* Adds a pair to the credentials, which own the certificates and the key from then on. */
static int
pair_add(gnutls_certificate_credentials_t credentials, const struct chains_pair *pair, gnutls_pcert_st *list, unsigned count)
{
	struct remote_key *k = calloc(1, sizeof *k);
	gnutls_privkey_t key;
	int error;

	if (k == NULL || gnutls_privkey_init(&key) < 0) {
		free(k);
		return GNUTLS_E_MEMORY_ERROR;
	}
	k->pair = *pair;
	if ((error = gnutls_privkey_import_ext4(key, k, sign_data, sign_hash, NULL, key_free, key_info, 0)) < 0)
		free(k);
	else
		error = gnutls_certificate_set_key(credentials, NULL, 0, list, (int)count, key);
	if (error < 0)
		gnutls_privkey_deinit(key);
	return error;
}

static int
authority_add(gnutls_certificate_credentials_t credentials, const struct chains_item *i)
{
	gnutls_datum_t der = { (unsigned char *)(uintptr_t)i->data, i->length };
	int n = gnutls_certificate_set_x509_trust_mem(credentials, &der, GNUTLS_X509_FMT_DER);

	return n < 0 ? n : 0;
}

/*
 * A pair's certificates, up to the next item that is none: *i is that, and *more whether there is one. Added only if it
 * is `wanted`.
 */
static int
pair_take(gnutls_certificate_credentials_t credentials, struct chains *c, struct chains_item *i, bool *more, bool wanted)
{
	static gnutls_pcert_st list[CHAIN_MAX];
	struct chains_pair pair;
	unsigned count = 0;
	int error = 0;

	memcpy(&pair, i->data, sizeof pair);
	while ((*more = chains_next(c, i)) && i->kind == CHAINS_CERTIFICATE) {
		gnutls_datum_t der = { (unsigned char *)(uintptr_t)i->data, i->length };
		if (!wanted)
			continue;
		if (error == 0 && (count == CHAIN_MAX ||
		    (error = gnutls_pcert_import_x509_raw(&list[count], &der, GNUTLS_X509_FMT_DER, 0)) < 0))
			error = error < 0 ? error : GNUTLS_E_CERTIFICATE_LIST_UNSORTED;
		else if (error == 0)
			count++;
	}
	if (error == 0 && wanted)
		error = pair_add(credentials, &pair, list, count);
	if (error < 0)
		while (count > 0)
			gnutls_pcert_deinit(&list[--count]);
	return error;
}

/* Credentials of those pairs (a bit each), and all authorities. A GnuTLS error, or 0 and *made. */
static int
credentials_make(struct chains c, uint32_t pairs, gnutls_certificate_credentials_t *made, bool *asks)
{
	struct chains_item i;
	int error = gnutls_certificate_allocate_credentials(made);

	if (error < 0)
		return error;
	/* Whether key and certificate fit was checked by the keeper; here it would cost a signature. */
	gnutls_certificate_set_flags(*made, GNUTLS_CERTIFICATE_SKIP_KEY_CERT_MATCH);
	*asks = false;
	bool more = chains_next(&c, &i);
	for (uint32_t bit = 1; more && error >= 0;) {
		if (i.kind == CHAINS_PAIR) {
			error = pair_take(*made, &c, &i, &more, (pairs & bit) != 0);
			bit <<= 1;
			continue;
		}
		error = authority_add(*made, &i);
		*asks = true;
		more = chains_next(&c, &i);
	}
	if (error < 0)
		gnutls_certificate_free_credentials(*made);
	return error;
}

/* The names of a pair's own certificate. */
static void
names_take(const struct chains_item *i, uint32_t pair)
{
	gnutls_datum_t der = { (unsigned char *)(uintptr_t)i->data, i->length };
	gnutls_x509_crt_t crt;
	int type = 0;

	if (gnutls_x509_crt_init(&crt) < 0)
		return;
	if (gnutls_x509_crt_import(crt, &der, GNUTLS_X509_FMT_DER) < 0)
		type = GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE;
	for (unsigned n = 0; type != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE && chains.names < NAMES_MAX; n++) {
		struct name *name = &chains.name[chains.names];
		size_t size = sizeof name->text - 1;
		type = gnutls_x509_crt_get_subject_alt_name(crt, n, name->text, &size, NULL);
		if (type != GNUTLS_SAN_DNSNAME)
			continue;
		name->text[size] = '\0';
		name->pair = pair;
		chains.names++;
	}
	gnutls_x509_crt_deinit(crt);
}

static void
names_find(struct chains c)
{
	struct chains_item i;
	uint32_t bit = 0;
	bool stars = false, first = false;

	chains.names = 0;
	while (chains_next(&c, &i)) {
		if (i.kind == CHAINS_PAIR)
			bit = bit == 0 ? 1 : bit << 1;
		else if (i.kind == CHAINS_CERTIFICATE && first)
			names_take(&i, bit);
		first = i.kind == CHAINS_PAIR;
	}
	for (uint32_t n = 0; n < chains.names; n++)
		stars = stars || strncmp(chains.name[n].text, "*.", 2) == 0;
	chains.wildcards = stars && bit > 1;
}

/* New credentials in place of the old ones. */
static bool
chains_use(int fd, uint64_t generation)
{
	gnutls_certificate_credentials_t fresh;
	struct chains c;
	bool asks;
	int error;

	if (chains_map(&c, fd) == -1) {
		log_text(LOG_ERR, "the keeper's chains cannot be used: %s", strerror(errno));
		return false;
	}
	if ((error = credentials_make(c, EVERY_PAIR, &fresh, &asks)) < 0) {
		log_text(LOG_ERR, "the keeper's chains cannot be used: %s", gnutls_strerror(error));
		chains_unmap(&c);
		return false;
	}
	if (chains.known)
		gnutls_certificate_free_credentials(chains.credentials);
	chains_unmap(&chains.map);
	chains.map = c;
	chains.credentials = fresh;
	chains.generation = generation;
	chains.asks_certificate = asks;
	chains.known = true;
	names_find(c);
	return true;
}

int
credentials_receive(int keeper, int milliseconds)
{
	struct message m;
	int result = 0;

	if (message_wait(keeper, milliseconds) != 1 || message_receive(keeper, &m, SIDE_KEEPER, SIDE_POP3D) != 1)
		return -1;
	if (m.header.type != MESSAGE_CHAINS) {
		log_text(LOG_ERR, "untimely %s", message_name(m.header.type));
		result = -1;
	} else if (!chains.known || chains.generation != m.body.chains.generation)
		result = chains_use(m.fds[0], m.body.chains.generation) ? 1 : -1;
	message_clear(&m);
	return result;
}

/* Is `wanted` a label under the name "*.rest"? */
static bool
under_star(const char *name, const char *wanted)
{
	const char *dot = strchr(wanted, '.');

	return strncmp(name, "*.", 2) == 0 && dot != NULL && dot != wanted && strcasecmp(name + 1, dot) == 0;
}

/*
 * SNI. GnuTLS finds by itself the pair whose certificate has the very name, and the first pair if none has. Between
 * these come those with a star: they get credentials of their own, of which it chooses by the kind of key that the
 * client takes.
 */
static int
on_client_hello(gnutls_session_t session)
{
	static gnutls_certificate_credentials_t chosen;
	char wanted[256];
	size_t size = sizeof wanted;
	unsigned type;
	uint32_t pairs = 0;
	bool asks;

	if (chosen != NULL || gnutls_server_name_get(session, wanted, &size, &type, 0) < 0 || type != GNUTLS_NAME_DNS)
		return 0;
	for (uint32_t i = 0; i < chains.names; i++) {
		if (strcasecmp(chains.name[i].text, wanted) == 0)
			return 0;
		if (under_star(chains.name[i].text, wanted))
			pairs |= chains.name[i].pair;
	}
	if (pairs == 0)
		return 0;
	int error = credentials_make(chains.map, pairs, &chosen, &asks);
	return error < 0 ? error : gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, chosen);
}

int
credentials_apply(gnutls_session_t session, int keeper, int64_t deadline)
{
	int error;

	signer.keeper = keeper;
	signer.deadline = deadline;
	if ((error = gnutls_priority_set(session, prepared.priority)) < 0 ||
	    (error = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, chains.credentials)) < 0)
		return error;
	if (chains.wildcards)
		gnutls_handshake_set_post_client_hello_function(session, on_client_hello);
	if (chains.asks_certificate)
		gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
	return 0;
}

bool
credentials_ask_client(void)
{
	return chains.asks_certificate;
}
