/* doctor: certificates, their keys, and the name by which clients know this host. */
#include "doctor.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <sodium.h>

#define DAY		86400
#define CHAIN_MOST	8
#define WARN_DAYS	21

/* The host's full name, or what there is of it. */
static void
host_name(char *name, size_t size)
{
	struct addrinfo hints = { .ai_flags = AI_CANONNAME, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *list = NULL;

	name[0] = '\0';
	if (gethostname(name, size) == -1)
		return;
	name[size - 1] = '\0';
	if (strchr(name, '.') == NULL && getaddrinfo(name, NULL, &hints, &list) == 0 && list->ai_canonname != NULL)
		snprintf(name, size, "%s", list->ai_canonname);
	if (list != NULL)
		freeaddrinfo(list);
}

static void
check_dates(struct doctor *d, const struct certificate *c)
{
	int64_t now = (int64_t)time(NULL);

	if (c->begins > now)
		found(d, FINDING_FAILED, "certificate", "wait, or set the clock", "%s is not valid before %lld days from now", c->file,
		    (long long)(c->begins - now + DAY - 1) / DAY);
	else if (c->expires <= now)
		found(d, FINDING_FAILED, "certificate", "renew it (certbot renew); authd sees the new file by itself", "%s expired %lld days ago",
		    c->file, (long long)(now - c->expires) / DAY);
	else if (c->expires - now < WARN_DAYS * DAY)
		found(d, FINDING_WARNING, "certificate", "renew it, and find out why that did not happen by itself", "%s expires in %lld days",
		    c->file, (long long)(c->expires - now) / DAY);
	else
		found(d, FINDING_OK, "certificate", NULL, "%s: %s; %lld days left", c->file, c->names, (long long)(c->expires - now) / DAY);
}

/* Each is the issuer of the one before, and the last one's is known here. */
static void
check_chain(struct doctor *d, const char *file, gnutls_x509_crt_t *chain, unsigned count)
{
	gnutls_x509_trust_list_t trust = NULL;
	unsigned status = 0;

	for (unsigned i = 0; i + 1 < count; i++)
		if (gnutls_x509_crt_check_issuer(chain[i], chain[i + 1]) == 0) {
			found(d, FINDING_FAILED, "chain", "put the server's own certificate first, then its issuer, then that one's (fullchain.pem)",
			    "%s: certificate %u is not issued by the one that follows", file, i + 1);
			return;
		}
	if (gnutls_x509_trust_list_init(&trust, 0) == 0 && gnutls_x509_trust_list_add_system_trust(trust, 0, 0) > 0 &&
	    gnutls_x509_trust_list_verify_crt(trust, chain, count, 0, &status, NULL) == 0 && (status & GNUTLS_CERT_SIGNER_NOT_FOUND) != 0)
		found(d, FINDING_WARNING, "chain", count == 1 && gnutls_x509_crt_check_issuer(chain[0], chain[0]) == 0 ?
		    "put the issuers' certificates behind it (fullchain.pem)" : "have it certified (certbot), or install your authority's on all clients",
		    "%s: no authority that this host knows vouches for it", file);
	else
		found(d, FINDING_OK, "chain", NULL, "%s: %u certificates", file, count);
	if (trust != NULL)
		gnutls_x509_trust_list_deinit(trust, 0);
}

static void
check_names(struct doctor *d, const struct certificate *c)
{
	char host[256];

	host_name(host, sizeof host);
	if (gnutls_x509_crt_check_hostname(c->crt, host) != 0)
		found(d, FINDING_OK, "names", NULL, "%s is for this host, %s", c->file, host);
	else
		found(d, FINDING_WARNING, "names", "have clients use a name of the certificate, or have one made for this one",
		    "%s is for %s, and this host is called %s", c->file, c->names[0] != '\0' ? c->names : "no name", host);
}

/* The names that clients are to use lead somewhere. */
static void
check_dns(struct doctor *d, const struct certificate *c)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *list = NULL;
	char name[256];

	snprintf(name, sizeof name, "%.*s", (int)strcspn(c->names, " "), c->names);
	if (name[0] == '\0' || name[0] == '*')
		return;
	int error = getaddrinfo(name, NULL, &hints, &list);
	if (error == 0)
		found(d, FINDING_OK, "dns", NULL, "%s has an address", name);
	else
		found(d, FINDING_WARNING, "dns", "give it an A or AAAA record", "%s, which the certificate is for: %s", name, gai_strerror(error));
	if (list != NULL)
		freeaddrinfo(list);
}

/* Does authd serve what is in the file? */
static void
check_served(struct doctor *d, const struct certificate *c, const struct certificate *served, int count)
{
	for (int i = 0; i < count; i++)
		if (gnutls_x509_crt_equals(c->crt, served[i].crt) != 0) {
			found(d, FINDING_OK, "served", NULL, "authd serves %s", c->file);
			return;
		}
	if (count >= 0)
		found(d, FINDING_WARNING, "served", "systemctl reload postern-authd, and read its log", "authd serves another certificate than %s", c->file);
	else
		found(d, FINDING_FAILED, "served", "start authd, or read in its log why it has no keeper", "authd's keeper does not answer: %s",
		    strerror(errno));
}

static bool
keys_match(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key)
{
	unsigned char a[64], b[64];
	size_t x = sizeof a, y = sizeof b;

	return gnutls_x509_crt_get_key_id(crt, 0, a, &x) == 0 && gnutls_x509_privkey_get_key_id(key, 0, b, &y) == 0 && x == y &&
	    memcmp(a, b, x) == 0;
}

/* Who may read the key, and whether it is the certificate's. */
static void
check_key(struct doctor *d, const char *file, gnutls_x509_crt_t crt)
{
	gnutls_datum_t data = { 0 };
	gnutls_x509_privkey_t key = NULL;
	char remedy[CONF_STRING + 64];
	struct stat st;
	int error;

	snprintf(remedy, sizeof remedy, "chmod 600 %.500s; and if others have read it, a new key", file);
	if (stat(file, &st) == -1 || gnutls_load_file(file, &data) != 0) {
		found(d, FINDING_FAILED, "key", "[tls] key must name a file that root may read", "%s: %s", file, strerror(errno));
		return;
	}
	gnutls_x509_privkey_init(&key);
	error = gnutls_x509_privkey_import(key, &data, GNUTLS_X509_FMT_PEM);
	if ((st.st_mode & S_IROTH) != 0)
		found(d, FINDING_FAILED, "key", remedy, "%s: every user may read it (mode %03o)", file, (unsigned)st.st_mode & 0777);
	else if (error != 0)
		found(d, FINDING_FAILED, "key", "a private key in PEM form, without a passphrase", "%s: %s", file, gnutls_strerror(error));
	else if (crt != NULL && !keys_match(crt, key))
		found(d, FINDING_FAILED, "key", "keys stand in the order of their certificates", "%s is not the key of its certificate", file);
	else if ((st.st_mode & (S_IRGRP | S_IWGRP | S_IWOTH)) != 0)
		found(d, FINDING_WARNING, "key", remedy, "%s: others than its owner may read or write it (mode %03o)", file,
		    (unsigned)st.st_mode & 0777);
	else
		found(d, FINDING_OK, "key", NULL, "%s", file);
	gnutls_x509_privkey_deinit(key);
	sodium_memzero(data.data, data.size);
	gnutls_free(data.data);
}

static void
check_pair(struct doctor *d, uint32_t i, const struct certificate *served, int count)
{
	struct certificate c = { 0 };
	gnutls_x509_crt_t chain[CHAIN_MOST];
	unsigned length = CHAIN_MOST;
	gnutls_datum_t data = { 0 };

	snprintf(c.file, sizeof c.file, "%s", d->conf->certificate.path[i]);
	int error = gnutls_load_file(c.file, &data);
	if (error != 0) {
		found(d, FINDING_FAILED, "certificate", "[tls] certificate must name a file that is there", "%s: %s", c.file, strerror(errno));
		return;
	}
	error = gnutls_x509_crt_list_import(chain, &length, &data, GNUTLS_X509_FMT_PEM, 0);
	gnutls_free(data.data);
	if (error <= 0) {
		found(d, FINDING_FAILED, "certificate", "a certificate chain in PEM form", "%s: %s", c.file, gnutls_strerror(error));
		return;
	}
	c.crt = chain[0];
	certificate_describe(&c);
	check_dates(d, &c);
	check_chain(d, c.file, chain, (unsigned)error);
	check_key(d, d->conf->key.path[i], chain[0]);
	check_names(d, &c);
	check_dns(d, &c);
	check_served(d, &c, served, count);
	for (int j = 0; j < error; j++)
		gnutls_x509_crt_deinit(chain[j]);
}

void
doctor_certificates(struct doctor *d)
{
	struct certificate served[CONF_PAIRS];

	if (d->conf->certificate.count == 0) {
		found(d, FINDING_WARNING, "certificate", "set [tls] certificate and key", "none is set: no TLS, and no passwords but from this host");
		return;
	}
	int count = certificates_served(d->conf, served, CONF_PAIRS);
	for (uint32_t i = 0; i < d->conf->certificate.count && i < d->conf->key.count; i++)
		check_pair(d, i, served, count);
	certificates_free(served, count > 0 ? (size_t)count : 0);
}
