/* Reading certificates and keys, as root where root starts authd, and checking them. */
#include "keys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "catalogue.h"
#include "system.h"

#define FILE_MAX	(1024 * 1024)
#define CHAIN_MAX	16
#define AUTHORITIES_MAX	256
#define RSA_BITS_MIN	2048
#define RSA_BITS_MAX	8192		/* its signature is SIGNATURE_SIZE octets */
#define DAY		86400

/* One finding. */
static void __attribute__((format(printf, 4, 5)))
finding(struct findings *f, int level, const char *file, const char *format, ...)
{
	char text[1024];
	va_list ap;
	int n = snprintf(text, sizeof text, "%s: ", file);

	va_start(ap, format);
	vsnprintf(text + n, sizeof text - (size_t)n, format, ap);
	va_end(ap);
	f->mistakes += level == LOG_ERR;
	f->say(level, text);
}

/* A file in guarded memory, which sodium_free() wipes. NULL after saying why not. */
static char *
file_read(const char *path, gnutls_datum_t *data, struct stat *st, struct findings *f)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	char *text = NULL;

	if (fd == -1) {
		finding(f, LOG_ERR, path, "cannot be read: %s%s", strerror(errno),
		    errno == EACCES ? "; authd reads it as the user who starts it, which should be root" : "");
		return NULL;
	}
	if (fstat(fd, st) == -1 || !S_ISREG(st->st_mode))
		finding(f, LOG_ERR, path, "is not a file; accepted: a file in PEM form");
	else if (st->st_size == 0 || st->st_size > FILE_MAX)
		finding(f, LOG_ERR, path, "has %lld octets; accepted: a file in PEM form, of at most 1 MiB", (long long)st->st_size);
	else if ((text = sodium_malloc((size_t)st->st_size + 1)) == NULL)
		finding(f, LOG_ERR, path, "cannot be read: %s", strerror(ENOMEM));
	else if (read(fd, text, (size_t)st->st_size) != st->st_size) {
		finding(f, LOG_ERR, path, "cannot be read whole");
		sodium_free(text);
		text = NULL;
	} else {
		text[st->st_size] = '\0';
		*data = (gnutls_datum_t){ (unsigned char *)text, (unsigned)st->st_size };
	}
	close(fd);
	return text;
}

/* Who else can read or change the key? */
static void
key_check_file(const char *path, const struct stat *st, struct findings *f)
{
	if ((st->st_mode & S_IRWXO) != 0)
		finding(f, LOG_ERR, path, "every user of this host may %s the key (mode %04o): chmod 600 it, and have a new key made if "
		    "others log in here", (st->st_mode & S_IWOTH) ? "change" : "read", (unsigned)st->st_mode & 07777);
	else if ((st->st_mode & S_IWGRP) != 0)
		finding(f, LOG_ERR, path, "group %u may change the key (mode %04o): chmod 600 it", (unsigned)st->st_gid,
		    (unsigned)st->st_mode & 07777);
	else if ((st->st_mode & S_IRGRP) != 0)
		finding(f, LOG_WARNING, path, "group %u may read the key (mode %04o): chmod 600 it, unless that is meant",
		    (unsigned)st->st_gid, (unsigned)st->st_mode & 07777);
	if (st->st_uid != 0 && st->st_uid != geteuid())
		finding(f, LOG_WARNING, path, "the key belongs to uid %u, who may read and change it: chown it to root, unless that is meant",
		    (unsigned)st->st_uid);
}

/* Is it of a kind that the keeper signs with? */
static bool
key_check_kind(const char *path, gnutls_privkey_t key, struct key_pair *p, struct findings *f)
{
	unsigned bits = 0;
	int algorithm = gnutls_privkey_get_pk_algorithm(key, &bits);
	bool good;

	p->bits = bits;
	if (algorithm == GNUTLS_PK_RSA) {
		p->algorithm = CHAINS_RSA;
		good = bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX;
	} else if (algorithm == GNUTLS_PK_ECDSA) {
		p->algorithm = CHAINS_ECDSA;
		p->bits = bits = bits == 528 ? 521 : bits;	/* GnuTLS counts the octets of P-521 */
		good = bits == 256 || bits == 384 || bits == 521;
	} else {
		p->algorithm = CHAINS_ED25519;
		good = algorithm == GNUTLS_PK_EDDSA_ED25519;
	}
	if (!good)
		finding(f, LOG_ERR, path, "the key is %s of %u bits; accepted: RSA of %d to %d bits, ECDSA on P-256, P-384 or P-521, Ed25519",
		    gnutls_pk_algorithm_get_name((gnutls_pk_algorithm_t)algorithm), bits, RSA_BITS_MIN, RSA_BITS_MAX);
	return good;
}

static bool
key_id(gnutls_privkey_t key, struct key_pair *p)
{
	gnutls_pubkey_t public;
	size_t size = sizeof p->id;

	if (gnutls_pubkey_init(&public) < 0)
		return false;
	bool done = gnutls_pubkey_import_privkey(public, key, 0, 0) == 0 &&
	    gnutls_pubkey_get_key_id(public, GNUTLS_KEYID_USE_SHA256, p->id, &size) == 0 && size == sizeof p->id;
	gnutls_pubkey_deinit(public);
	return done;
}

/* Encrypted keys were refused before; nobody is asked for a passphrase whatever the file says. */
static int
no_passphrase(char *buffer, int size, int writing, void *userdata)
{
	(void)buffer;
	(void)size;
	(void)writing;
	(void)userdata;
	return -1;
}

/* The form in which the keeper uses the key: OpenSSL's, since RSA takes GnuTLS six times as long. */
static bool
key_take(const gnutls_datum_t *data, struct key_pair *p)
{
	BIO *bio = BIO_new_mem_buf(data->data, (int)data->size);

	if (bio == NULL)
		return false;
	p->key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	ERR_clear_error();
	return p->key != NULL;
}

/* Is it a sound key of a kind that is accepted? NULL, and *p has it; or what is wrong, "" if that was said. */
static const char *
key_check(const char *path, const gnutls_datum_t *data, gnutls_privkey_t key, struct key_pair *p, struct findings *f)
{
	int error = gnutls_privkey_import_x509_raw(key, data, GNUTLS_X509_FMT_PEM, NULL, 0);

	if (error == 0 && !key_check_kind(path, key, p, f))
		return "";
	if (error == 0)
		error = gnutls_privkey_verify_params(key);
	if (error < 0)
		return gnutls_strerror(error);
	return key_id(key, p) && key_take(data, p) ? NULL : "it cannot be used";
}

static bool
key_parse(const char *path, const gnutls_datum_t *data, struct key_pair *p, struct findings *f)
{
	const char *text = (const char *)data->data, *wrong = "no memory";
	gnutls_privkey_t key;

	if (strstr(text, "-----BEGIN ENCRYPTED PRIVATE KEY-----") != NULL || strstr(text, "Proc-Type: 4,ENCRYPTED") != NULL) {
		finding(f, LOG_ERR, path, "the key is encrypted, and nobody is there to type its passphrase: write it without one "
		    "(umask 077; openssl pkey -in %s -out NEW) and name the new file", path);
		return false;
	}
	if (strstr(text, "PRIVATE KEY-----") == NULL) {
		finding(f, LOG_ERR, path, "there is no private key in it; accepted: PEM, \"-----BEGIN PRIVATE KEY-----\" and the like");
		return false;
	}
	if (gnutls_privkey_init(&key) == 0) {
		wrong = key_check(path, data, key, p, f);
		gnutls_privkey_deinit(key);
	}
	if (wrong != NULL && wrong[0] != '\0')
		finding(f, LOG_ERR, path, "the key is damaged, or of a kind that is not known here (%s): copy it anew from where it was made",
		    wrong);
	return wrong == NULL;
}

static bool
key_load(const char *path, struct key_pair *p, struct findings *f)
{
	gnutls_datum_t data;
	struct stat st;
	char *text = file_read(path, &data, &st, f);

	if (text == NULL)
		return false;
	key_check_file(path, &st, f);
	bool good = key_parse(path, &data, p, f);
	sodium_free(text);
	return good;
}

static bool
certificate_is_for(gnutls_x509_crt_t crt, const struct key_pair *p)
{
	uint8_t id[KEY_ID_SIZE];
	size_t size = sizeof id;

	return gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, id, &size) == 0 && size == sizeof id &&
	    memcmp(id, p->id, sizeof id) == 0;
}

/* The server's own first, then each one's issuer. */
static void
chain_check(const char *path, const char *key_path, gnutls_x509_crt_t *crt, unsigned count, const struct key_pair *p, struct findings *f)
{
	unsigned own = 0;

	while (own < count && !certificate_is_for(crt[own], p))
		own++;
	if (own == count) {
		finding(f, LOG_ERR, path, "the key in %s is not this certificate's: name the key that the certificate was requested with",
		    key_path);
		return;
	}
	if (own > 0) {
		finding(f, LOG_ERR, path, "the chain is out of order: the server's own certificate is number %u in the file; it comes first, "
		    "and after each certificate its issuer", own + 1);
		return;
	}
	for (unsigned i = 0; i + 1 < count; i++)
		if (gnutls_x509_crt_check_issuer(crt[i], crt[i + 1]) != 1) {
			finding(f, LOG_ERR, path, "the chain is out of order: certificate %u in the file is not the issuer of certificate %u; "
			    "the server's own comes first, after each certificate its issuer, and no other", i + 2, i + 1);
			return;
		}
}

static void
date_text(time_t when, char text[static 16])
{
	struct tm tm;

	if (gmtime_r(&when, &tm) == NULL || strftime(text, 16, "%Y-%m-%d", &tm) == 0)
		memcpy(text, "?", 2);
}

static void
dates_check(const char *path, gnutls_x509_crt_t *crt, unsigned count, bool dates, struct findings *f)
{
	time_t now = time(NULL);
	char when[16];

	for (unsigned i = 0; i < count; i++) {
		time_t from = gnutls_x509_crt_get_activation_time(crt[i]), until = gnutls_x509_crt_get_expiration_time(crt[i]);
		if (from > now) {
			date_text(from, when);
			finding(f, dates ? LOG_ERR : LOG_WARNING, path, "certificate %u is not valid before %s, and clients refuse it: "
			    "set this host's clock, or wait", i + 1, when);
		}
		if (until <= now && dates) {
			date_text(until, when);
			finding(f, LOG_ERR, path, "certificate %u expired on %s, and clients refuse it: renew it", i + 1, when);
		}
	}
}

/* "example.org", or an address as text. False if this alternative name is neither. */
static bool
name_text(int type, const char *data, size_t size, char *text, size_t room)
{
	if (type == GNUTLS_SAN_DNSNAME && size > 0 && size < room) {
		memcpy(text, data, size);
		text[size] = '\0';
		return true;
	}
	if (type == GNUTLS_SAN_IPADDRESS)
		return inet_ntop(size == 4 ? AF_INET : AF_INET6, data, text, (socklen_t)room) != NULL;
	return false;
}

static void
names_check(const char *path, gnutls_x509_crt_t crt, struct key_pair *p, struct findings *f)
{
	size_t used = 0;

	for (unsigned i = 0;; i++) {
		char data[256], text[256];
		size_t size = sizeof data;
		int type = gnutls_x509_crt_get_subject_alt_name(crt, i, data, &size, NULL);
		if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			break;
		if (type < 0 || !name_text(type, data, size, text, sizeof text))
			continue;
		if (used + strlen(text) + 2 < sizeof p->names)
			used += (size_t)snprintf(p->names + used, sizeof p->names - used, "%s%s", used > 0 ? " " : "", text);
	}
	if (used == 0)
		finding(f, LOG_WARNING, path, "the certificate is for no name (it has no subjectAltName), and clients refuse it: "
		    "have one made that names this host as clients know it");
}

static void
usage_check(const char *path, gnutls_x509_crt_t crt, struct findings *f)
{
	unsigned usage, critical;
	char purpose[128];
	bool any = false, server = false;

	if (gnutls_x509_crt_get_key_usage(crt, &usage, &critical) == 0 && (usage & GNUTLS_KEY_DIGITAL_SIGNATURE) == 0)
		finding(f, LOG_ERR, path, "the certificate's keyUsage has no digitalSignature, without which no TLS session is possible: "
		    "have one made for a TLS server");
	for (unsigned i = 0;; i++) {
		size_t size = sizeof purpose;
		if (gnutls_x509_crt_get_key_purpose_oid(crt, i, purpose, &size, &critical) < 0)
			break;
		any = true;
		server = server || strcmp(purpose, GNUTLS_KP_TLS_WWW_SERVER) == 0 || strcmp(purpose, GNUTLS_KP_ANY) == 0;
	}
	if (any && !server)
		finding(f, LOG_WARNING, path, "the certificate's extendedKeyUsage has no serverAuth, and clients refuse it: "
		    "have one made for a TLS server");
}

/* A file's certificates; 0 after saying why there are none. */
static unsigned
certificates_load(const char *path, unsigned most, gnutls_x509_crt_t **list, struct findings *f)
{
	gnutls_datum_t data;
	struct stat st;
	unsigned count = 0;
	char *text = file_read(path, &data, &st, f);

	if (text == NULL)
		return 0;
	int error = gnutls_x509_crt_list_import2(list, &count, &data, GNUTLS_X509_FMT_PEM, 0);
	sodium_free(text);
	if (error < 0) {
		finding(f, LOG_ERR, path, "there is no sound certificate in it (%s); accepted: PEM, \"-----BEGIN CERTIFICATE-----\"",
		    gnutls_strerror(error));
		return 0;
	}
	if (count > most) {
		finding(f, LOG_ERR, path, "there are %u certificates in it; accepted: at most %u", count, most);
		for (unsigned i = 0; i < count; i++)
			gnutls_x509_crt_deinit((*list)[i]);
		gnutls_free(*list);
		return 0;
	}
	return count;
}

static bool
chains_put(struct keys *k, crypto_generichash_state *hash, uint32_t kind, const void *data, size_t length)
{
	crypto_generichash_update(hash, (const unsigned char *)&kind, sizeof kind);
	crypto_generichash_update(hash, data, length);
	return chains_add(k->chains, kind, data, (uint32_t)length);
}

/* Writes the certificates down for pop3d, and frees them. */
static bool
certificates_put(struct keys *k, crypto_generichash_state *hash, uint32_t kind, gnutls_x509_crt_t *list, unsigned count)
{
	bool good = true;

	for (unsigned i = 0; i < count; i++) {
		gnutls_datum_t der = { NULL, 0 };
		good = good && gnutls_x509_crt_export2(list[i], GNUTLS_X509_FMT_DER, &der) == 0 &&
		    chains_put(k, hash, kind, der.data, der.size);
		gnutls_free(der.data);
		gnutls_x509_crt_deinit(list[i]);
	}
	gnutls_free(list);
	return good;
}

static void
pair_load(struct keys *k, const char *path, const char *key_path, bool dates, crypto_generichash_state *hash, struct findings *f)
{
	struct key_pair *p = &k->pair[k->count++];
	struct chains_pair row;
	gnutls_x509_crt_t *list;
	bool have_key = key_load(key_path, p, f);
	unsigned count = certificates_load(path, CHAIN_MAX, &list, f);

	p->file = path;
	if (count == 0)
		return;
	p->expires = gnutls_x509_crt_get_expiration_time(list[0]);
	if (have_key)
		chain_check(path, key_path, list, count, p, f);
	dates_check(path, list, count, dates, f);
	names_check(path, list[0], p, f);
	usage_check(path, list[0], f);
	memset(&row, 0, sizeof row);
	memcpy(row.key, p->id, sizeof row.key);
	row.algorithm = p->algorithm;
	row.bits = p->bits;
	bool put = chains_put(k, hash, CHAINS_PAIR, &row, sizeof row);
	if (!certificates_put(k, hash, CHAINS_CERTIFICATE, list, count) || !put)
		finding(f, LOG_ERR, path, "cannot be passed on: %s", strerror(errno));
}

static void
client_ca_load(struct keys *k, const char *path, crypto_generichash_state *hash, struct findings *f)
{
	gnutls_x509_crt_t *list;
	unsigned count = certificates_load(path, AUTHORITIES_MAX, &list, f), critical;

	if (count == 0)
		return;
	for (unsigned i = 0; i < count; i++)
		if (gnutls_x509_crt_get_ca_status(list[i], &critical) != 1)
			finding(f, LOG_WARNING, path, "certificate %u is not an authority's, and vouches for no client", i + 1);
	if (!certificates_put(k, hash, CHAINS_CLIENT_CA, list, count))
		finding(f, LOG_ERR, path, "cannot be passed on: %s", strerror(errno));
}

static void
keys_drop(struct keys *k)
{
	for (uint32_t i = 0; i < k->count; i++)
		if (k->pair[i].key != NULL)
			EVP_PKEY_free(k->pair[i].key);
	if (k->chains != -1)
		close(k->chains);
	*k = (struct keys){ .chains = -1 };
}

int
keys_load(struct keys *k, const struct conf *c, bool dates, struct findings *f)
{
	crypto_generichash_state hash;

	*k = (struct keys){ .chains = sealed_create("chains") };
	crypto_generichash_init(&hash, NULL, 0, crypto_generichash_BYTES);
	for (uint32_t i = 0; i < c->certificate.count; i++)
		pair_load(k, c->certificate.path[i], c->key.path[i], dates, &hash, f);
	if (c->client_ca[0] != '\0')
		client_ca_load(k, c->client_ca, &hash, f);
	if (f->mistakes == 0 && sealed_finish(k->chains) == 0) {
		uint8_t digest[crypto_generichash_BYTES];
		crypto_generichash_final(&hash, digest, sizeof digest);
		memcpy(&k->generation, digest, sizeof k->generation);
		return 0;
	}
	if (f->mistakes == 0)
		finding(f, LOG_ERR, c->file, "the certificates cannot be passed on: %s", strerror(errno));
	keys_drop(k);
	return -1;
}

void
keys_say_expiry(const struct keys *k, struct findings *f)
{
	time_t now = time(NULL);
	char when[16];

	for (uint32_t i = 0; i < k->count; i++) {
		const struct key_pair *p = &k->pair[i];
		long days = (long)((p->expires - now) / DAY);
		date_text(p->expires, when);
		if (p->expires <= now)
			finding(f, LOG_ERR, p->file, "the certificate expired on %s, and clients refuse it: renew it", when);
		else if (days < 30)
			finding(f, days < 7 ? LOG_ERR : LOG_WARNING, p->file, "the certificate expires in %ld days, on %s: renew it", days, when);
	}
}

const char *
keys_kind(const struct key_pair *p, char *text, size_t size)
{
	if (p->algorithm == CHAINS_ED25519)
		snprintf(text, size, "ed25519");
	else
		snprintf(text, size, "%s-%u", p->algorithm == CHAINS_RSA ? "rsa" : "ecdsa", p->bits);
	return text;
}
