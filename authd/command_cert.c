/*
 * authctl cert add, cert list, cert del: whose client certificate it is. The certificate itself is not kept, only its
 * fingerprint.
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "authctl.h"

#define FILE_MOST	(1024 * 1024)
#define BEGIN		"-----BEGIN CERTIFICATE-----"
#define END		"-----END CERTIFICATE-----"

/* 64 hexadecimal digits, with colons or without, as "openssl x509 -fingerprint -sha256" prints them. */
static bool
fingerprint_parse(uint8_t fingerprint[static STORE_FINGERPRINT], const char *text)
{
	size_t length;
	const char *end;

	return sodium_hex2bin(fingerprint, STORE_FINGERPRINT, text, strlen(text), ":", &length, &end) == 0 && *end == '\0' &&
	    length == STORE_FINGERPRINT;
}

static void
fingerprint_print(char text[static 2 * STORE_FINGERPRINT + 1], const uint8_t *fingerprint)
{
	sodium_bin2hex(text, 2 * STORE_FINGERPRINT + 1, fingerprint, STORE_FINGERPRINT);
}

/* Is this one DER item and nothing else? */
static bool
is_der(const uint8_t *data, size_t length)
{
	size_t content = 0, octets;

	if (length < 4 || data[0] != 0x30 || (data[1] & 0x80) == 0 || (octets = data[1] & 0x7f) > 3 || length < 2 + octets)
		return false;
	for (size_t i = 0; i < octets; i++)
		content = content << 8 | data[2 + i];
	return content == length - 2 - octets;
}

/*
 * The first certificate of a PEM file, which in a chain is the client's own, or the one of a DER file. `text` ends with
 * a NUL.
 */
static bool
certificate_hash(uint8_t fingerprint[static STORE_FINGERPRINT], char *text, size_t length)
{
	char *begin = strstr(text, BEGIN), *end = begin != NULL ? strstr(begin, END) : NULL;
	uint8_t *der = (uint8_t *)text;

	if (end != NULL) {
		begin += strlen(BEGIN);
		/* decoded in place: it never grows */
		if (sodium_base642bin(der, length, begin, (size_t)(end - begin), " \t\r\n", &length, NULL,
		    sodium_base64_VARIANT_ORIGINAL) != 0)
			return false;
	}
	if (!is_der(der, length))
		return false;
	crypto_hash_sha256(fingerprint, der, length);
	return true;
}

static int
fingerprint_read(uint8_t fingerprint[static STORE_FINGERPRINT], const char *path)
{
	int result = 0;
	size_t length = 0;
	ssize_t n = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = calloc(1, FILE_MOST + 1);

	if (fd == -1 || text == NULL)
		result = complain("%s: %s; accepted: a file, or a SHA-256 fingerprint of 64 hexadecimal digits", path,
		    strerror(errno));
	while (result == 0 && text != NULL && length < FILE_MOST && (n = read(fd, text + length, FILE_MOST - length)) > 0)
		length += (size_t)n;
	if (result == 0 && n == -1)
		result = complain("%s: %s", path, strerror(errno));
	else if (result == 0 && text != NULL && !certificate_hash(fingerprint, text, length))
		result = complain("%s: no certificate in it; accepted: a file with an X.509 certificate in PEM or DER", path);
	if (text != NULL)
		sodium_memzero(text, FILE_MOST);	/* it may have been a key */
	free(text);
	if (fd != -1)
		close(fd);
	return result;
}

static uint32_t
certificate_find(const struct store_user *u, const uint8_t fingerprint[static STORE_FINGERPRINT])
{
	uint32_t i = 0;

	while (i < u->certificates && memcmp(u->certificate[i], fingerprint, STORE_FINGERPRINT) != 0)
		i++;
	return i;
}

/* A certificate is one user's. NULL, or why it cannot be this one's. */
static const char *
refused(struct store_edit *e, const struct store_user *u, const uint8_t fingerprint[static STORE_FINGERPRINT])
{
	static struct store_user other;
	static char why[USER_SIZE + 64];
	char owner[USER_SIZE];

	if (certificate_find(u, fingerprint) < u->certificates)
		return "has this certificate already";
	if (u->certificates == STORE_CERTIFICATES)
		return "has 8 certificates already: delete one first";
	if (edit_find_certificate(e, fingerprint, owner) == 1 && edit_find(e, owner, &other) == 1 &&
	    certificate_find(&other, fingerprint) < other.certificates)
		snprintf(why, sizeof why, "this certificate is the one of %s", owner);
	sodium_memzero(&other, sizeof other);
	return why[0] != '\0' ? why : NULL;
}

int
command_cert_add(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	struct store_edit e;
	uint8_t fingerprint[STORE_FINGERPRINT];
	char text[2 * STORE_FINGERPRINT + 1];

	if (!fingerprint_parse(fingerprint, a->word[1]) && fingerprint_read(fingerprint, a->word[1]) != 0)
		return 1;
	if (begin_user(c, a->word[0], &e, &u, &account) != 0)
		return 1;
	const char *why = refused(&e, &u, fingerprint);
	if (why != NULL || edit_put_certificate(&e, fingerprint, a->word[0]) == -1) {
		why != NULL ? complain("%s: %s", a->word[0], why) : complain_store(c);
		edit_abandon(&e);
		return 1;
	}
	memcpy(u.certificate[u.certificates++], fingerprint, STORE_FINGERPRINT);
	int result = finish_user(c, a->word[0], &e, &u, &account);
	sodium_memzero(&u, sizeof u);
	fingerprint_print(text, fingerprint);
	if (result == 0)
		printf("%s\n", text);
	return result;
}

int
command_cert_list(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	char text[2 * STORE_FINGERPRINT + 1];
	struct json j = { .file = stdout };
	int found = look(c, a->word[0], &u, &account);

	if (found != 1)
		return found == 0 ? complain("%s: no such user in %s", a->word[0], c->db) : 1;
	if (a->json)
		json_open(&j, NULL, '[');
	for (uint32_t i = 0; i < u.certificates; i++) {
		fingerprint_print(text, u.certificate[i]);
		if (a->json)
			json_string(&j, NULL, text);
		else
			printf("%s\n", text);
	}
	if (a->json) {
		json_close(&j, ']');
		json_end(&j);
	}
	sodium_memzero(&u, sizeof u);
	return 0;
}

int
command_cert_del(const struct conf *c, const struct arguments *a)
{
	static struct store_user u;
	struct account account;
	struct store_edit e;
	uint8_t fingerprint[STORE_FINGERPRINT];

	if (!fingerprint_parse(fingerprint, a->word[1])) {
		complain("%s: not a fingerprint; accepted: 64 hexadecimal digits, as cert list prints them", a->word[1]);
		return 2;
	}
	if (begin_user(c, a->word[0], &e, &u, &account) != 0)
		return 1;
	uint32_t i = certificate_find(&u, fingerprint);
	if (i == u.certificates || edit_remove_certificate(&e, fingerprint) == -1) {
		i == u.certificates ? complain("%s: has no such certificate", a->word[0]) : complain_store(c);
		edit_abandon(&e);
		return 1;
	}
	memmove(u.certificate[i], u.certificate[i + 1], (u.certificates - i - 1) * sizeof u.certificate[0]);
	u.certificates--;
	int result = finish_user(c, a->word[0], &e, &u, &account);
	sodium_memzero(&u, sizeof u);
	return result;
}
