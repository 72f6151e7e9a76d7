/*
 * The TLS of a connection, from the first octet to the last: pop3d's side over a socket pair, its one question to the keeper answered with test keys by the
 * keeper's own sign(). The first four octets choose; the rest is, as the first of them has it, what a client sends, or what is changed in what a real
 * client (GnuTLS) sends: three octets a change, where and what.
 * links: pop3d/credentials.c authd/sign.c lib/catalogue.c lib/chains.c lib/conf.c lib/log.c lib/messages.c lib/system.c
 * libs: -lgnutls -lcrypto -Wl,--wrap=message_wait
 */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "../../authd/sign.h"
#include "../../pop3d/ask.h"
#include "../../pop3d/tls.c"
#include "catalogue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __real_message_wait(int fd, int milliseconds);
int __wrap_message_wait(int fd, int milliseconds);

#define PAIRS 2

enum { RAW = 1, SENDS_CERTIFICATE = 2, TWO_HANDSHAKES = 4, WRONG_CHAINS = 8 };
enum { HONEST, GARBAGE, EMPTY, CUT_OFF, UNTIMELY, NOTHING, KEEPER_WAYS };

static struct keys keys;
static gnutls_certificate_credentials_t client_credentials;
static int chains_fd;
static struct {
	int end;		/* the keeper's of its conversation */
	uint8_t way;
	unsigned asked;
} keeper;

/* Nothing is connected to: the conversations are there. */
int ask_reach(const struct conf *c, const char *name) { (void)c; (void)name; return -1; }

/* Keys and certificates. */

static void
pair_make(EVP_PKEY *key, uint32_t algorithm, uint32_t bits, const char *name)
{
	struct key_pair *p = &keys.pair[keys.count];
	gnutls_x509_privkey_t private;
	gnutls_x509_crt_t crt;
	gnutls_datum_t der, pem;
	BIO *text = BIO_new(BIO_s_mem());
	char *start;

	if (key == NULL || PEM_write_bio_PrivateKey(text, key, NULL, NULL, 0, NULL, NULL) != 1)
		abort();
	pem.size = (unsigned)BIO_get_mem_data(text, &start);
	pem.data = (unsigned char *)start;
	if (gnutls_x509_privkey_init(&private) < 0 || gnutls_x509_privkey_import2(private, &pem, GNUTLS_X509_FMT_PEM, NULL, 0) < 0 ||
	    gnutls_x509_crt_init(&crt) < 0 || gnutls_x509_crt_set_version(crt, 3) < 0 || gnutls_x509_crt_set_key(crt, private) < 0 ||
	    gnutls_x509_crt_set_serial(crt, "\1", 1) < 0 || gnutls_x509_crt_set_activation_time(crt, 0) < 0 ||
	    gnutls_x509_crt_set_expiration_time(crt, 4102444800) < 0 || gnutls_x509_crt_set_dn(crt, "CN=localhost", NULL) < 0 ||
	    gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, name, (unsigned)strlen(name), GNUTLS_FSAN_SET) < 0 ||
	    gnutls_x509_crt_sign2(crt, crt, private, GNUTLS_DIG_SHA256, 0) < 0 ||
	    gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_DER, &der) < 0)
		abort();
	p->key = key;
	p->algorithm = algorithm;
	p->bits = bits;
	memset(p->id, (int)(1 + keys.count++), sizeof p->id);
	struct chains_pair pair = { .algorithm = algorithm, .bits = bits };
	memcpy(pair.key, p->id, sizeof pair.key);
	if (!chains_add(chains_fd, CHAINS_PAIR, &pair, sizeof pair) || !chains_add(chains_fd, CHAINS_CERTIFICATE, der.data, der.size))
		abort();
	if (keys.count == PAIRS && (!chains_add(chains_fd, CHAINS_CLIENT_CA, der.data, der.size) ||
	    gnutls_certificate_set_x509_key(client_credentials, &crt, 1, private) < 0))
		abort();
	gnutls_free(der.data);
	gnutls_x509_crt_deinit(crt);
	gnutls_x509_privkey_deinit(private);
	BIO_free(text);
}

static void
prepare(void)
{
	static struct conf conf;
	char error[256];

	if (conf_load(&conf, "/nonexistent", true, error, sizeof error) == -1 && conf_load(&conf, CONF_PATH_DEFAULT, true, error, sizeof error) == -1)
		abort();
	conf.log = LOG_TO_STDERR;
	conf.log_level = 0;
	log_start("pop3d");
	log_open(&conf, -1);
	credentials_prepare(&conf);
	if (gnutls_certificate_allocate_credentials(&client_credentials) < 0 || (chains_fd = sealed_create("chains")) == -1)
		abort();
	/* the last one's certificate is the authority, too: authorities come last */
	pair_make(EVP_RSA_gen(2048), CHAINS_RSA, 2048, "*.localhost");
	pair_make(EVP_EC_gen("P-256"), CHAINS_ECDSA, 256, "localhost");
	if (sealed_finish(chains_fd) == -1)
		abort();
}

/* The keeper. */

static void
keeper_answer(void)
{
	struct message m;

	if (message_receive(keeper.end, &m, SIDE_POP3D, SIDE_KEEPER) != 1)
		return;
	if (m.header.type != MESSAGE_SIGN)
		abort();
	struct body_sign asked = m.body.sign;
	keeper.asked++;
	message_start(&m, keeper.way == UNTIMELY ? MESSAGE_CHAINS : MESSAGE_SIGNATURE);
	if (keeper.way == UNTIMELY)
		m.fds[0] = dup(chains_fd);
	else if (keeper.way == HONEST && (sign(&keys, &asked, &m.body.signature) != NULL || m.body.signature.length == 0))
		abort();	/* what a real handshake asks for is on the list */
	else if (keeper.way == GARBAGE) {
		m.body.signature.length = SIGNATURE_SIZE;
		memset(m.body.signature.data, 0x30, SIGNATURE_SIZE);
	}
	if (keeper.way == CUT_OFF)
		shutdown(keeper.end, SHUT_RDWR);
	else if (keeper.way != NOTHING)
		message_send(keeper.end, &m);
	message_clear(&m);
}

/* The keeper answers before it is waited for. */
int
__wrap_message_wait(int fd, int milliseconds)
{
	if (__real_message_wait(keeper.end, 0) == 1)
		keeper_answer();
	return __real_message_wait(fd, milliseconds < 5 ? milliseconds : 5);
}

static void
keeper_begin(int pair[2], uint8_t way, bool wrong)
{
	struct message m;

	if (message_pair(pair) == -1)
		abort();
	keeper.end = pair[1];
	keeper.way = way % KEEPER_WAYS;
	keeper.asked = 0;
	message_start(&m, wrong ? MESSAGE_SIGNATURE : MESSAGE_CHAINS);
	if (!wrong) {
		m.body.chains.generation = 1;
		m.fds[0] = dup(chains_fd);
	}
	if (message_send(pair[1], &m) == -1)
		abort();
	message_clear(&m);
}

/* The client: what it sends goes through the changes. */

static struct {
	int fd;
	const uint8_t *change;
	size_t changes, sent;
} wire;

static ssize_t
wire_push(gnutls_transport_ptr_t p, const void *data, size_t length)
{
	static uint8_t copy[65536];

	(void)p;
	if (length > sizeof copy)
		length = sizeof copy;
	memcpy(copy, data, length);
	for (size_t i = 0; i < wire.changes; i++) {
		size_t at = (size_t)wire.change[3 * i] << 8 | wire.change[3 * i + 1];
		if (at >= wire.sent && at - wire.sent < length)
			copy[at - wire.sent] ^= wire.change[3 * i + 2];
	}
	ssize_t n = send(wire.fd, copy, length, MSG_NOSIGNAL);
	wire.sent += n > 0 ? (size_t)n : 0;
	return n;
}

static ssize_t
wire_pull(gnutls_transport_ptr_t p, void *data, size_t length)
{
	(void)p;
	return recv(wire.fd, data, length, 0);
}

static gnutls_session_t
client_begin(uint8_t kind, bool certificate)
{
	static const char *const priorities[] = { "NORMAL:-VERS-ALL:+VERS-TLS1.3", "NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:+VERS-TLS1.0:+VERS-TLS1.1",
		"NORMAL:-GROUP-ALL:+GROUP-SECP521R1", "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305", "NORMAL:-SIGN-ALL:+SIGN-RSA-PSS-RSAE-SHA256",
		"NORMAL:-KX-ALL:+RSA:-VERS-ALL:+VERS-TLS1.2", "NORMAL:%NO_EXTENSIONS:-VERS-ALL:+VERS-TLS1.2" };
	static const gnutls_datum_t protocols[] = { { (unsigned char *)(uintptr_t)"pop3", 4 }, { (unsigned char *)(uintptr_t)"h2", 2 } };
	static const char *const names[] = { "localhost", "mail.localhost", "elsewhere" };
	static gnutls_certificate_credentials_t none;
	gnutls_session_t s;

	if (none == NULL && gnutls_certificate_allocate_credentials(&none) < 0)
		abort();
	if (gnutls_init(&s, GNUTLS_CLIENT | GNUTLS_NONBLOCK) < 0 || gnutls_priority_set_direct(s, priorities[kind & 7], NULL) < 0 ||
	    gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, certificate ? client_credentials : none) < 0)
		abort();
	if (kind & 8)
		gnutls_alpn_set_protocols(s, &protocols[kind >> 4 & 1], 1, 0);
	if (kind >> 6 < 3)
		gnutls_server_name_set(s, GNUTLS_NAME_DNS, names[kind >> 6], strlen(names[kind >> 6]));
	gnutls_transport_set_push_function(s, wire_push);
	gnutls_transport_set_pull_function(s, wire_pull);
	return s;
}

/* After the handshake: a greeting, a command, new keys, the end. False if the client did not get the greeting. */
static bool
talk(struct tls *t, gnutls_session_t client, bool again)
{
	static char text[20000], got[20000];
	struct body_hello hello;
	short events;
	size_t sent = 0, received = 0;
	ssize_t n;

	memset(&hello, 0, sizeof hello);
	tls_hello(t, &hello);
	memset(text, 'x', sizeof text);
	for (int i = 0; i < 20 && received < sizeof text; i++) {
		if (sent < sizeof text && (n = tls_write(t, text + sent, sizeof text - sent, false, &events)) > 0)
			sent += (size_t)n;
		if ((n = gnutls_record_recv(client, got, sizeof got)) > 0)
			received += (size_t)n;
	}
	if (again && gnutls_protocol_get_version(client) == GNUTLS_TLS1_3)
		gnutls_session_key_update(client, GNUTLS_KU_PEER);
	else if (again)
		gnutls_handshake(client);
	gnutls_record_send(client, "CAPA\r\n", 6);
	n = tls_read(t, got, sizeof got, &events);
	if (wire.changes == 0 && !again && (n != 6 || memcmp(got, "CAPA\r\n", 6) != 0))
		abort();
	gnutls_bye(client, GNUTLS_SHUT_WR);
	tls_read(t, got, sizeof got, &events);
	tls_end(t);
	return received == sizeof text;
}

static void
with_client(struct tls *t, const uint8_t *plan)
{
	gnutls_session_t client = client_begin(plan[2], plan[0] & SENDS_CERTIFICATE);
	int theirs = GNUTLS_E_AGAIN, ours = -1;
	short events;

	for (int i = 0; i < 30 && ours == -1; i++) {
		if (theirs == GNUTLS_E_AGAIN || theirs == GNUTLS_E_INTERRUPTED)
			theirs = gnutls_handshake(client);
		errno = 0;
		ours = tls_handshake(t, &events);
		if (ours == -1 && errno != EAGAIN && errno != EINTR)
			break;
	}
	if (ours == -1 && errno == EPROTO && tls_failure(t) == NULL)
		abort();
	/* No handshake without exactly one signature, and that an honest one if the client agrees. */
	if ((ours == 0 && keeper.asked != 1) || keeper.asked > 1)
		abort();
	if (theirs == GNUTLS_E_AGAIN)
		theirs = gnutls_handshake(client);
	bool plain = (plan[2] & 7) < 2 && ((plan[2] & 8) == 0 || (plan[2] & 16) == 0) && keeper.way == HONEST && wire.changes == 0;
	if (plain && (ours != 0 || theirs != 0))
		abort();
	if (ours == 0 && !talk(t, client, plan[0] & TWO_HANDSHAKES) && plain)
		abort();
	gnutls_deinit(client);
}

static void
with_octets(struct tls *t, int client, const uint8_t *data, size_t size)
{
	char got[4096];
	short events;

	if (size > 0 && send(client, data, size, MSG_NOSIGNAL) == -1)
		abort();
	shutdown(client, SHUT_WR);
	int done;
	for (int i = 0; i < 30; i++)
		if ((done = tls_handshake(t, &events)) == 0 || (errno != EAGAIN && errno != EINTR))
			break;
	if (done == 0)
		abort();	/* nobody guesses a Finished */
	tls_read(t, got, sizeof got, &events);
	tls_end(t);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;
	int pair[2], line[2];

	if (size < 4 || size > 40000)
		return 0;
	if (!ready)
		prepare();
	ready = true;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, line) == -1)
		abort();
	keeper_begin(pair, data[1], data[0] & WRONG_CHAINS);
	connection = (struct tls){ .session = NULL };
	struct tls *t = tls_begin(line[0], line[0], pair[0], clock_ms() + 10000);
	if (t == NULL && (data[0] & WRONG_CHAINS) == 0)
		abort();
	wire.fd = line[1];
	wire.change = data + 4;
	wire.changes = (size - 4) / 3;
	wire.sent = 0;
	if (t != NULL && data[0] & RAW)
		with_octets(t, line[1], data + 4, size - 4);
	else if (t != NULL)
		with_client(t, data);
	if (t != NULL)
		gnutls_deinit(t->session);
	for (int i = 0; i < 2; i++) {
		close(pair[i]);
		close(line[i]);
	}
	return 0;
}
