/* The certificates that are served: asked of authd's keeper, as pop3d asks. All of it is public. */
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnutls/x509.h>

#include "chains.h"
#include "privilege.h"
#include "spoolctl.h"
#include "system.h"

#define KEEPER_MS 5000

/* The keeper knows pop3d's user by SO_PEERCRED: root is that user while it connects. */
static int
keeper_connect(const struct conf *c)
{
	const struct passwd *pw = privilege_is_root() ? getpwnam(c->pop3d_user) : NULL;

	if (pw != NULL && seteuid(pw->pw_uid) == -1)
		return -1;
	int fd = talk_connect(c, "keeper.sock"), saved = errno;
	if (pw != NULL && seteuid(0) == -1)
		die("cannot be root again");
	errno = saved;
	return fd;
}

static void
names_add(struct certificate *cert, const char *name, size_t length)
{
	size_t used = strlen(cert->names);

	if (used + length + 2 > sizeof cert->names || memchr(name, '\0', length) != NULL)
		return;
	if (used > 0)
		cert->names[used++] = ' ';
	memcpy(cert->names + used, name, length);
	cert->names[used + length] = '\0';
}

void
certificate_describe(struct certificate *cert)
{
	gnutls_x509_crt_t crt = cert->crt;
	unsigned char serial[20];
	size_t size = sizeof serial;
	char name[256];

	cert->begins = (int64_t)gnutls_x509_crt_get_activation_time(crt);
	cert->expires = (int64_t)gnutls_x509_crt_get_expiration_time(crt);
	if (gnutls_x509_crt_get_serial(crt, serial, &size) == 0)
		for (size_t i = 0; i < size; i++)
			snprintf(cert->serial + 2 * i, 3, "%02x", serial[i]);
	cert->names[0] = '\0';
	for (unsigned i = 0; i < 64; i++) {
		unsigned critical;
		size_t length = sizeof name;
		int type = gnutls_x509_crt_get_subject_alt_name(crt, i, name, &length, &critical);
		if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			break;
		if (type == GNUTLS_SAN_DNSNAME)
			names_add(cert, name, length);
	}
	size = sizeof name;
	if (cert->names[0] == '\0' && gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &size) == 0)
		names_add(cert, name, size);
}

/* The first certificate of every pair is the server's own. */
static size_t
chains_read(struct chains *chains, struct certificate *list, size_t most)
{
	struct chains_item item;
	bool own = false;
	size_t count = 0;

	while (chains_next(chains, &item)) {
		if (item.kind == CHAINS_CERTIFICATE && own && count < most) {
			gnutls_datum_t der = { (unsigned char *)(uintptr_t)item.data, item.length };
			gnutls_x509_crt_t crt;
			list[count] = (struct certificate){ 0 };
			if (gnutls_x509_crt_init(&crt) == 0 && gnutls_x509_crt_import(crt, &der, GNUTLS_X509_FMT_DER) == 0) {
				list[count].crt = crt;
				certificate_describe(&list[count++]);
			}
		}
		own = item.kind == CHAINS_PAIR;
	}
	return count;
}

int
certificates_served(const struct conf *c, struct certificate *list, size_t most)
{
	struct chains chains;
	struct message m;
	int fd = keeper_connect(c), result = -1;

	if (fd == -1)
		return -1;
	errno = ETIMEDOUT;
	if (message_wait(fd, KEEPER_MS) == 1) {
		int n = message_receive(fd, &m, SIDE_KEEPER, SIDE_POP3D);
		if (n == 0)
			errno = EACCES;
		if (n == 1 && m.header.type == MESSAGE_CHAINS && chains_map(&chains, m.fds[0]) == 0) {
			result = (int)chains_read(&chains, list, most);
			chains_unmap(&chains);
		}
		if (n == 1)
			message_clear(&m);
	}
	int saved = errno;
	close(fd);
	errno = saved;
	return result;
}

void
certificates_free(struct certificate *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (list[i].crt != NULL)
			gnutls_x509_crt_deinit(list[i].crt);
}
