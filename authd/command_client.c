/*
 * authctl client-config: what a user types into a mail program, in the language of the locale; or what such a program reads by itself:
 * Thunderbird's autoconfig, an Apple configuration profile, the DNS records of RFC 6186.
 */
#include <errno.h>
#include <netdb.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnutls/x509.h>

#include "authctl.h"
#include "language.h"
#include "system.h"

#define NAME_ROOM 256

struct client {
	char server[NAME_ROOM], smtp[NAME_ROOM], domain[NAME_ROOM];
	char user[USER_SIZE], address[USER_SIZE + NAME_ROOM];
	unsigned port;
	bool tls, starttls;
};

static enum language spoken;

static const char *
say(const char *english)
{
	return language_text(spoken, english);
}

/* The locale's language, as its name says it: the locale need not be installed. */
static enum language
locale_language(void)
{
	static const char *const names[] = { "LC_ALL", "LC_MESSAGES", "LANG" };
	char tag[16];

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		const char *value = getenv(names[i]);
		if (value == NULL || value[0] == '\0')
			continue;
		snprintf(tag, sizeof tag, "%.*s", (int)strcspn(value, "_.@"), value);
		enum language l = language_find(tag);
		return l != LANGUAGE_COUNT ? l : LANGUAGE_ENGLISH;
	}
	return LANGUAGE_ENGLISH;
}

/* The first name of the first certificate that is one and no pattern. */
static bool
certificate_name(const struct conf *c, char *name, size_t size)
{
	gnutls_x509_crt_t crt = NULL;
	gnutls_datum_t pem = { NULL, 0 };
	unsigned critical;
	bool found = false;

	if (c->certificate.count == 0 || gnutls_load_file(c->certificate.path[0], &pem) != 0)
		return false;
	if (gnutls_x509_crt_init(&crt) == 0 && gnutls_x509_crt_import(crt, &pem, GNUTLS_X509_FMT_PEM) == 0)
		for (unsigned i = 0; i < 64 && !found; i++) {
			size_t n = size;
			int type = gnutls_x509_crt_get_subject_alt_name(crt, i, name, &n, &critical);
			if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
				break;
			found = type == GNUTLS_SAN_DNSNAME && n < size && name[0] != '*' && memchr(name, '\0', n) == NULL;
			name[found ? n : 0] = '\0';
		}
	if (crt != NULL)
		gnutls_x509_crt_deinit(crt);
	gnutls_free(pem.data);
	return found;
}

static void
host_name(char *name, size_t size)
{
	struct addrinfo hints = { .ai_flags = AI_CANONNAME }, *found = NULL;

	if (gethostname(name, size) == -1)
		string_copy(name, size, "localhost");
	name[size - 1] = '\0';
	if (strchr(name, '.') == NULL && getaddrinfo(name, NULL, &hints, &found) == 0 && found->ai_canonname != NULL)
		string_copy(name, size, found->ai_canonname);
	if (found != NULL)
		freeaddrinfo(found);
}

/* Letters, digits, '-' and '.': what may stand in each of the forms as it is. */
static bool
is_host(const char *name)
{
	return name[0] != '\0' && name[0] != '.' && strlen(name) < 254 &&
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") == strlen(name);
}

/* What --server and --domain do not say: the certificate, else the host; and the user's own domain, else the server's without its first label. */
static int
client_fill(const struct conf *c, const struct arguments *a, struct client *k)
{
	const char *at = strrchr(a->word[0], '@'), *dot;

	string_copy(k->user, sizeof k->user, a->word[0]);
	if (a->server != NULL)
		snprintf(k->server, sizeof k->server, "%s", a->server);
	else if (!certificate_name(c, k->server, sizeof k->server))
		host_name(k->server, sizeof k->server);
	dot = strchr(k->server, '.');
	snprintf(k->domain, sizeof k->domain, "%s", a->domain != NULL ? a->domain : at != NULL ? at + 1 :
	    dot != NULL && strchr(dot + 1, '.') != NULL ? dot + 1 : k->server);
	snprintf(k->smtp, sizeof k->smtp, "%s", a->smtp_server != NULL ? a->smtp_server : k->server);
	if (!is_host(k->server) || !is_host(k->domain) || !is_host(k->smtp))
		return complain("%s, %s, %s: one of these is not a host's name (--server, --domain, --smtp-server)", k->server, k->domain, k->smtp);
	snprintf(k->address, sizeof k->address, "%s%s%s", k->user, at != NULL ? "" : "@", at != NULL ? "" : k->domain);
	k->tls = c->certificate.count > 0 && !a->starttls;
	k->starttls = c->certificate.count > 0 && a->starttls;
	k->port = a->port > 0 ? (unsigned)a->port : k->tls ? 995 : 110;
	if (a->starttls && c->certificate.count == 0)
		return complain("--starttls: %s has no certificate", c->file);
	return 0;
}

static void
print_row(const char *what, const char *value)
{
	/* so that columns are even where octets are not letters */
	size_t letters = 0;
	for (const char *p = what; *p != '\0'; p++)
		letters += ((unsigned char)*p & 0xc0) != 0x80;
	printf("  %s%s%*s%s\n", what, spoken == LANGUAGE_FRENCH ? "\302\240:" : ":", (int)(letters < 28 ? 28 - letters : 1), "", value);
}

static void
print_settings(const struct client *k)
{
	char number[16], again[USER_SIZE + 8];

	snprintf(number, sizeof number, "%u", k->port);
	snprintf(again, sizeof again, "recent:%s", k->user);
	printf(say("Settings of a mail program for %s"), k->user);
	printf("\n\n");
	print_row(say("Type of account"), "POP3");
	print_row(say("Server"), k->server);
	print_row(say("Port"), number);
	print_row(say("Connection security"), k->tls ? "SSL/TLS" : k->starttls ? "STARTTLS" :
	    say("none: the password goes over the network in the clear"));
	print_row(say("Authentication"), say("normal password"));
	print_row(say("User name"), k->user);
	print_row(say("Password"), say("that of the account, or an app password made for this program"));
	printf("\n%s%s %s\n", say("To see the mail of the last 30 days once more, use this user name"), spoken == LANGUAGE_FRENCH ? "\302\240:" : ":", again);
}

static void
put_xml(const char *text)
{
	for (; *text != '\0'; text++)
		switch (*text) {
		case '&':
			fputs("&amp;", stdout);
			break;
		case '<':
			fputs("&lt;", stdout);
			break;
		case '>':
			fputs("&gt;", stdout);
			break;
		case '"':
			fputs("&quot;", stdout);
			break;
		default:
			putchar(*text);
		}
}

/* <tag>value</tag> after so many blanks. */
static void
put_element(int indent, const char *tag, const char *value)
{
	printf("%*s<%s>", indent, "", tag);
	put_xml(value);
	printf("</%s>\n", tag);
}

static void
put_text(int indent, const char *tag, const char *format, const char *value)
{
	char text[USER_SIZE + NAME_ROOM + 64];

	snprintf(text, sizeof text, format, value);
	put_element(indent, tag, text);
}

/* The placeholder that means the user name for all of the domain, if there is one. */
static const char *
placeholder(const struct client *k)
{
	size_t n = strlen(k->user);

	if (strcmp(k->user, k->address) == 0)
		return "%EMAILADDRESS%";
	return strncmp(k->address, k->user, n) == 0 && k->address[n] == '@' ? "%EMAILLOCALPART%" : k->user;
}

/* Thunderbird's config-v1.1.xml. */
static void
print_autoconfig(const struct client *k)
{
	char number[16];

	snprintf(number, sizeof number, "%u", k->port);
	printf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<clientConfig version=\"1.1\">\n  <emailProvider id=\"%s\">\n", k->domain);
	put_element(4, "domain", k->domain);
	put_text(4, "displayName", say("Mail of %s"), k->domain);
	put_element(4, "displayShortName", k->domain);
	printf("    <incomingServer type=\"pop3\">\n");
	put_element(6, "hostname", k->server);
	put_element(6, "port", number);
	put_element(6, "socketType", k->tls ? "SSL" : k->starttls ? "STARTTLS" : "plain");
	put_element(6, "username", placeholder(k));
	put_element(6, "authentication", "password-cleartext");
	printf("    </incomingServer>\n    <outgoingServer type=\"smtp\">\n");
	put_element(6, "hostname", k->smtp);
	put_element(6, "port", "587");
	put_element(6, "socketType", "STARTTLS");
	put_element(6, "username", placeholder(k));
	put_element(6, "authentication", "password-cleartext");
	printf("    </outgoingServer>\n  </emailProvider>\n</clientConfig>\n");
}

/* Always the same for the same account, so that a profile that is installed again replaces the old one. */
static void
put_uuid(const struct client *k, const char *what)
{
	crypto_generichash_state state;
	unsigned char h[16];

	crypto_generichash_init(&state, NULL, 0, sizeof h);
	crypto_generichash_update(&state, (const unsigned char *)k->address, strlen(k->address) + 1);
	crypto_generichash_update(&state, (const unsigned char *)k->server, strlen(k->server) + 1);
	crypto_generichash_update(&state, (const unsigned char *)what, strlen(what));
	crypto_generichash_final(&state, h, sizeof h);
	h[6] = (unsigned char)((h[6] & 0x0f) | 0x80);
	h[8] = (unsigned char)((h[8] & 0x3f) | 0x80);
	printf("<key>PayloadUUID</key><string>");
	for (size_t i = 0; i < sizeof h; i++)
		printf("%s%02X", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", h[i]);
	printf("</string>\n");
}

static void
put_key(const char *key, const char *value)
{
	printf("<key>%s</key><string>", key);
	put_xml(value);
	printf("</string>\n");
}

static void
put_payload(const struct client *k, const char *type, const char *part)
{
	char id[2 * NAME_ROOM + 32];

	put_key("PayloadType", type);
	snprintf(id, sizeof id, "%s.postern.%s", k->domain, part);
	put_key("PayloadIdentifier", id);
	put_uuid(k, part);
	printf("<key>PayloadVersion</key><integer>1</integer>\n");
}

static void
print_mobileconfig(const struct client *k)
{
	char text[USER_SIZE + 2 * NAME_ROOM];

	printf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" "
	    "\"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n<dict>\n<key>PayloadContent</key>\n<array>\n<dict>\n");
	put_payload(k, "com.apple.mail.managed", "mail");
	snprintf(text, sizeof text, say("Mail of %s"), k->domain);
	put_key("PayloadDisplayName", text);
	put_key("EmailAccountDescription", text);
	put_key("EmailAccountType", "EmailTypePOP");
	put_key("EmailAddress", k->address);
	put_key("IncomingMailServerAuthentication", "EmailAuthPassword");
	put_key("IncomingMailServerHostName", k->server);
	printf("<key>IncomingMailServerPortNumber</key><integer>%u</integer>\n", k->port);
	printf("<key>IncomingMailServerUseSSL</key><%s/>\n", k->tls || k->starttls ? "true" : "false");
	put_key("IncomingMailServerUsername", k->user);
	put_key("OutgoingMailServerAuthentication", "EmailAuthPassword");
	put_key("OutgoingMailServerHostName", k->smtp);
	printf("<key>OutgoingMailServerPortNumber</key><integer>587</integer>\n<key>OutgoingMailServerUseSSL</key><true/>\n");
	put_key("OutgoingMailServerUsername", k->user);
	printf("<key>OutgoingPasswordSameAsIncomingPassword</key><true/>\n</dict>\n</array>\n");
	put_payload(k, "Configuration", "profile");
	snprintf(text, sizeof text, say("Mail settings for %s"), k->address);
	put_key("PayloadDisplayName", text);
	printf("</dict>\n</plist>\n");
}

/* RFC 6186; a target of "." says that there is no such service. */
static void
print_dns(const struct client *k)
{
	if (k->tls)
		printf("_pop3s._tcp.%s. IN SRV 0 1 %u %s.\n", k->domain, k->port, k->server);
	else
		printf("_pop3s._tcp.%s. IN SRV 0 0 0 .\n", k->domain);
	if (k->starttls)
		printf("_pop3._tcp.%s. IN SRV 0 1 %u %s.\n", k->domain, k->port, k->server);
	else
		printf("_pop3._tcp.%s. IN SRV 0 0 0 .\n", k->domain);
	printf("_submission._tcp.%s. IN SRV 0 1 587 %s.\n", k->domain, k->smtp);
}

/* A typing mistake is not to be sent to a user. */
static int
check_user(const struct conf *c, const char *name)
{
	static struct store_user u;
	struct account account;
	const char *wrong = store_name_check(name);
	int found = wrong != NULL ? 0 : conf_has(&c->stores, STORE_DB) ? look(c, name, &u, &account) : 0;

	sodium_memzero(&u, sizeof u);
	if (wrong != NULL)
		return complain("%s: not a user name; %s", name, wrong);
	if (found == 0 && (!conf_has(&c->stores, STORE_PAM) || getpwnam(name) == NULL))
		return complain("%s: no such user", name);
	return found == -1 ? 1 : 0;
}

int
command_client_config(const struct conf *c, const struct arguments *a)
{
	struct client k = { .port = 0 };

	if (a->autoconfig + a->mobileconfig + a->dns > 1)
		return complain("client-config: one of --autoconfig, --mobileconfig and --dns is accepted"), 2;
	spoken = locale_language();
	if (check_user(c, a->word[0]) != 0 || client_fill(c, a, &k) != 0)
		return 1;
	if (!k.tls && !k.starttls && c->cleartext_login != CLEARTEXT_ALWAYS)
		complain("note: %s has no certificate, and cleartext-login = %s: pop3d refuses passwords that come like this%s", c->file,
		    c->cleartext_login == CLEARTEXT_NEVER ? "never" : "loopback",
		    c->cleartext_login == CLEARTEXT_NEVER ? "" : " from any other host");
	if (a->autoconfig)
		print_autoconfig(&k);
	else if (a->mobileconfig)
		print_mobileconfig(&k);
	else if (a->dns)
		print_dns(&k);
	else
		print_settings(&k);
	return 0;
}
