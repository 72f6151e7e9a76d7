/* doctor: a real connection, and with a user's password a real login, as a client would. */
#include "doctor.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gnutls/gnutls.h>
#include <sodium.h>

#include "prompt.h"
#include "system.h"

#define ANSWER_MS	45000	/* a throttled login, or delivery locks, may take long */
#define GREETING_MS	10000
#define TLS_PORT	"995"
#define PLAIN_PORT	"110"

struct wire {
	int fd;
	gnutls_session_t tls;		/* NULL: in the clear */
	gnutls_certificate_credentials_t credentials;
	char buffer[4096];
	size_t used;
};

static int
wire_connect(const char *host, const char *port)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *list = NULL;
	struct timeval patience = { .tv_sec = ANSWER_MS / 1000 };
	int fd = -1;

	if (getaddrinfo(host, port, &hints, &list) != 0) {
		errno = EADDRNOTAVAIL;
		return -1;
	}
	for (const struct addrinfo *a = list; a != NULL && fd == -1; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd != -1) {
			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
			setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
		}
		if (fd != -1 && connect(fd, a->ai_addr, a->ai_addrlen) == -1) {
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(list);
	return fd;
}

/* NULL, or what is wrong. Whose certificate it is was looked at before: this is about TLS as such. */
static const char *
wire_tls(struct wire *w)
{
	int error;

	if (gnutls_certificate_allocate_credentials(&w->credentials) != 0 || gnutls_init(&w->tls, GNUTLS_CLIENT) != 0)
		return "out of memory";
	gnutls_set_default_priority(w->tls);
	gnutls_credentials_set(w->tls, GNUTLS_CRD_CERTIFICATE, w->credentials);
	gnutls_transport_set_int(w->tls, w->fd);
	gnutls_handshake_set_timeout(w->tls, GREETING_MS);
	do
		error = gnutls_handshake(w->tls);
	while (error < 0 && gnutls_error_is_fatal(error) == 0);
	return error < 0 ? gnutls_strerror(error) : NULL;
}

static void
wire_close(struct wire *w)
{
	if (w->tls != NULL)
		gnutls_deinit(w->tls);
	if (w->credentials != NULL)
		gnutls_certificate_free_credentials(w->credentials);
	if (w->fd != -1)
		close(w->fd);
	sodium_memzero(w, sizeof *w);
	w->fd = -1;
}

static ssize_t
wire_read(struct wire *w, char *to, size_t size)
{
	return w->tls != NULL ? gnutls_record_recv(w->tls, to, size) : recv(w->fd, to, size, 0);
}

static bool
wire_write(struct wire *w, const char *text, size_t size)
{
	ssize_t n = w->tls != NULL ? gnutls_record_send(w->tls, text, size) : send(w->fd, text, size, MSG_NOSIGNAL);

	return n == (ssize_t)size;
}

/* One line without its end into `line`; false if there is none. */
static bool
wire_line(struct wire *w, char *line, size_t size)
{
	char *end;

	while ((end = memchr(w->buffer, '\n', w->used)) == NULL) {
		ssize_t n = w->used < sizeof w->buffer ? wire_read(w, w->buffer + w->used, sizeof w->buffer - w->used) : 0;
		if (n <= 0)
			return false;
		w->used += (size_t)n;
	}
	size_t length = (size_t)(end - w->buffer), copy = length < size - 1 ? length : size - 1;
	memcpy(line, w->buffer, copy);
	line[copy] = '\0';
	line[strcspn(line, "\r")] = '\0';
	memmove(w->buffer, end + 1, w->used - length - 1);
	w->used -= length + 1;
	return true;
}

static bool
wire_command(struct wire *w, const char *name, const char *argument, char *line, size_t size)
{
	char text[PASSWORD_SIZE + 32];
	int n = snprintf(text, sizeof text, "%s%s%s\r\n", name, argument[0] != '\0' ? " " : "", argument);
	bool sent = n > 0 && (size_t)n < sizeof text && wire_write(w, text, (size_t)n);

	sodium_memzero(text, sizeof text);
	return sent && wire_line(w, line, size);
}

/* Does CAPA name this? */
static bool
wire_can(struct wire *w, const char *capability)
{
	char line[512];
	bool can = false;

	if (!wire_command(w, "CAPA", "", line, sizeof line) || line[0] != '+')
		return false;
	while (wire_line(w, line, sizeof line) && strcmp(line, ".") != 0)
		can = can || strcmp(line, capability) == 0;
	return can;
}

/* A connection up to its greeting, and TLS if there is any. True if it can go on. */
static bool
wire_begin(struct doctor *d, struct wire *w, const char *host, const char *port)
{
	bool implicit = strcmp(port, TLS_PORT) == 0;
	const char *wrong = NULL;
	char line[512];

	if ((w->fd = wire_connect(host, port)) == -1) {
		found(d, FINDING_FAILED, "wire", "systemctl start pop3s.socket pop3.socket, or name where it listens with --connect",
		    "nobody listens at %s port %s: %s", host, port, strerror(errno));
		return false;
	}
	if (implicit)
		wrong = wire_tls(w);
	if (wrong == NULL && !wire_line(w, line, sizeof line))
		wrong = "the connection was closed without a greeting";
	else if (wrong == NULL && strncmp(line, "+OK", 3) != 0)
		wrong = line;
	if (wrong == NULL && !implicit && wire_can(w, "STLS")) {
		if (!wire_command(w, "STLS", "", line, sizeof line) || strncmp(line, "+OK", 3) != 0)
			wrong = "STLS is refused";
		else
			wrong = wire_tls(w);
	}
	if (wrong != NULL) {
		found(d, FINDING_FAILED, "wire", "read pop3d's and authd's logs", "%s port %s: %s", host, port, wrong);
		return false;
	}
	found(d, FINDING_OK, "wire", NULL, "pop3d greets at %s port %s, %s", host, port, w->tls != NULL ?
	    gnutls_protocol_get_name(gnutls_protocol_get_version(w->tls)) : "without TLS");
	return true;
}

/* Without an echo if it is typed. False if there is none. */
static bool
password_read(char password[static PASSWORD_SIZE])
{
	const char *wrong = isatty(STDIN_FILENO) ? prompt_terminal(STDIN_FILENO, "Password (empty: no login is tried): ", password) :
	    prompt_line(STDIN_FILENO, password);

	return wrong == NULL;
}

static const char *
remedy_for(const char *answer)
{
	if (strstr(answer, "[AUTH]") != NULL)
		return "authctl test USER tells which part is wrong; authd's log has the reason";
	if (strstr(answer, "[IN-USE]") != NULL)
		return "wait for the other session, or spoolctl end it";
	if (strstr(answer, "[LOGIN-DELAY]") != NULL)
		return "wait: login-delay is set";
	if (strstr(answer, "[SYS/") != NULL)
		return "read authd's and spoold's logs: the reason is in the line of this attempt";
	return "see [pop3d] cleartext-login and [authd] mechanisms; authd's log has the reason";
}

static void
login(struct doctor *d, struct wire *w, const char *password)
{
	char line[512] = "";
	bool good = wire_command(w, "USER", d->user, line, sizeof line) && line[0] == '+' &&
	    wire_command(w, "PASS", password, line, sizeof line) && line[0] == '+';

	if (good && wire_command(w, "STAT", "", line, sizeof line) && strncmp(line, "+OK", 3) == 0) {
		found(d, FINDING_OK, "login", NULL, "%s: STAT says %s", d->user, line + 4);
		(void)wire_command(w, "QUIT", "", line, sizeof line);
	} else
		found(d, FINDING_FAILED, "login", remedy_for(line), "%s: %s", d->user, line[0] != '\0' ? line : "the connection was closed");
}

static void
login_try(struct doctor *d, struct wire *w)
{
	char *password = d->user != NULL ? sodium_malloc(PASSWORD_SIZE) : NULL, line[512];

	if (password != NULL && strpbrk(d->user, "\r\n") == NULL && password_read(password))
		login(d, w, password);
	else {
		(void)wire_command(w, "QUIT", "", line, sizeof line);
		if (d->user != NULL)
			found(d, FINDING_OK, "login", NULL, "not tried: no password was given");
	}
	if (password != NULL)
		sodium_free(password);
}

void
doctor_wire(struct doctor *d)
{
	static struct wire w = { .fd = -1 };
	char host[256] = "localhost", *colon;
	const char *port = d->conf->certificate.count > 0 ? TLS_PORT : PLAIN_PORT;

	if (d->connect != NULL) {
		snprintf(host, sizeof host, "%s", d->connect);
		if ((colon = strrchr(host, ':')) == NULL) {
			found(d, FINDING_FAILED, "wire", "--connect ADDRESS:PORT", "--connect %s: no port", d->connect);
			return;
		}
		*colon = '\0';
		port = d->connect + (colon + 1 - host);
		if (host[0] == '[' && colon[-1] == ']') {	/* [::1]:110 */
			colon[-1] = '\0';
			memmove(host, host + 1, strlen(host));
		}
	}
	if (wire_begin(d, &w, host, port))
		login_try(d, &w);
	wire_close(&w);
}
