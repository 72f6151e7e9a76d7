#include "tls.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "credentials.h"
#include "log.h"
#include "system.h"

#define RECORD_MAX	16384

struct tls {
	gnutls_session_t session;
	int in, out;
	int error;			/* GnuTLS's, of the handshake */
	bool dead;			/* nothing more can be said */
	bool more;			/* what is written now may wait for what follows */
	bool no_socket;			/* out is not one */
	size_t start, end;		/* octets that were read and not yet taken, so that a record is one read(2) */
	char arrived[RECORD_MAX + 2048];
};
static struct tls connection;

static ssize_t
pull(gnutls_transport_ptr_t p, void *buffer, size_t size)
{
	struct tls *t = p;

	if (t->start == t->end) {
		ssize_t n = read(t->in, t->arrived, sizeof t->arrived);
		if (n <= 0) {
			if (n == -1)
				gnutls_transport_set_errno(t->session, errno);
			return n;
		}
		t->start = 0;
		t->end = (size_t)n;
	}
	if (size > t->end - t->start)
		size = t->end - t->start;
	memcpy(buffer, t->arrived + t->start, size);
	t->start += size;
	return (ssize_t)size;
}

static ssize_t
push(gnutls_transport_ptr_t p, const giovec_t *parts, int count)
{
	struct tls *t = p;
	struct msghdr packet = { .msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = (size_t)count };
	ssize_t n = t->no_socket ? -1 : sendmsg(t->out, &packet, MSG_NOSIGNAL | (t->more ? MSG_MORE : 0));

	t->no_socket = t->no_socket || (n == -1 && errno == ENOTSOCK);
	if (t->no_socket)
		n = writev(t->out, parts, count);
	if (n == -1)
		gnutls_transport_set_errno(t->session, errno);
	return n;
}

static int
pull_timeout(gnutls_transport_ptr_t p, unsigned milliseconds)
{
	struct tls *t = p;
	struct pollfd in = { .fd = t->in, .events = POLLIN };

	return t->start < t->end ? 1 : poll(&in, 1, milliseconds == GNUTLS_INDEFINITE_TIMEOUT ? -1 : (int)milliseconds);
}

/* A record that came may have been a password: its memory is not given back as it is. */
static void
wipe_and_free(void *memory)
{
	if (memory != NULL)
		explicit_bzero(memory, malloc_usable_size(memory));
	free(memory);
}

struct tls *
tls_begin(int in, int out, int keeper, int64_t deadline)
{
	static const gnutls_datum_t pop3 = { (unsigned char *)(uintptr_t)"pop3", 4 };
	struct tls *t = &connection;
	int error;

	int64_t left = deadline - clock_ms();
	if (keeper == -1 || credentials_receive(keeper, left < 1 ? 1 : (int)left) == -1) {
		log_text(LOG_ERR, "authd's keeper cannot be reached: no TLS");
		return NULL;
	}
	t->in = in;
	t->out = out;
	gnutls_free = wipe_and_free;
	gnutls_rnd_refresh();	/* this process was forked without GnuTLS hearing of it: what its siblings draw must not be the same */
	if ((error = gnutls_init(&t->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_NO_SIGNAL)) < 0 ||
	    (error = credentials_apply(t->session, keeper, deadline)) < 0 ||
	    (error = gnutls_alpn_set_protocols(t->session, &pop3, 1, GNUTLS_ALPN_MANDATORY)) < 0) {
		log_text(LOG_ERR, "no TLS: %s", gnutls_strerror(error));
		return NULL;
	}
	gnutls_transport_set_ptr(t->session, t);
	gnutls_transport_set_pull_function(t->session, pull);
	gnutls_transport_set_pull_timeout_function(t->session, pull_timeout);
	gnutls_transport_set_vec_push_function(t->session, push);
	return t;
}

/* GnuTLS's error as errno. */
static int
error_as_errno(struct tls *t, ssize_t error, short *events)
{
	if (error == GNUTLS_E_AGAIN) {
		*events = gnutls_record_get_direction(t->session) == 0 ? POLLIN : POLLOUT;
		return EAGAIN;
	}
	if (error == GNUTLS_E_INTERRUPTED)
		return EINTR;
	t->dead = true;
	if (error == GNUTLS_E_PUSH_ERROR || error == GNUTLS_E_PULL_ERROR || error == GNUTLS_E_PREMATURE_TERMINATION)
		return ECONNRESET;
	return EPROTO;
}

/*
 * After a record that is no data, such as a change of keys, GnuTLS wants to be called again; the next record may have
 * arrived with it.
 */
static bool
has_more(struct tls *t, ssize_t error)
{
	return error == GNUTLS_E_AGAIN && gnutls_record_get_direction(t->session) == 0 && t->start < t->end;
}

int
tls_handshake(struct tls *t, short *events)
{
	int error;

	do
		error = gnutls_handshake(t->session);
	while (has_more(t, error));
	if (error == 0)
		return 0;
	/* Even a warning ends it: no client needs to send any. */
	int reason = error_as_errno(t, error, events);
	if (reason == EPROTO)
		gnutls_alert_send_appropriate(t->session, error);
	t->error = error;
	errno = reason;
	return -1;
}

const char *
tls_failure(const struct tls *t)
{
	if (t->error == GNUTLS_E_FATAL_ALERT_RECEIVED || t->error == GNUTLS_E_WARNING_ALERT_RECEIVED) {
		const char *name = gnutls_alert_get_name(gnutls_alert_get(t->session));
		return name != NULL ? name : "an alert";
	}
	return gnutls_strerror(t->error);
}

ssize_t
tls_read(struct tls *t, void *buffer, size_t size, short *events)
{
	if (t->dead) {
		errno = EPROTO;
		return -1;
	}
	ssize_t n;
	do
		n = gnutls_record_recv(t->session, buffer, size);
	while (has_more(t, n));
	if (n >= 0)
		return n;
	/* Whatever else it is (a wish to negotiate anew, an alert): the end. */
	int reason = error_as_errno(t, n, events);
	if (reason == EPROTO)
		gnutls_alert_send_appropriate(t->session, (int)n);
	errno = reason;
	return -1;
}

ssize_t
tls_write(struct tls *t, const void *data, size_t length, bool more, short *events)
{
	if (t->dead) {
		errno = EPROTO;
		return -1;
	}
	t->more = more || length > RECORD_MAX;
	ssize_t n = gnutls_record_send(t->session, data, length < RECORD_MAX ? length : RECORD_MAX);
	t->more = false;
	if (n >= 0)
		return n;
	errno = error_as_errno(t, n, events);
	return -1;
}

bool
tls_has_input(const struct tls *t)
{
	return t->start < t->end || gnutls_record_check_pending(t->session) > 0;
}

/* Copies one channel binding, if the connection has it; returns its length. */
static uint32_t
binding_take(struct tls *t, gnutls_channel_binding_t type, uint8_t *to, size_t size)
{
	gnutls_datum_t d = { NULL, 0 };
	uint32_t length = 0;

	if (gnutls_session_channel_binding(t->session, type, &d) == 0 && d.size <= size) {
		memcpy(to, d.data, d.size);
		length = d.size;
	}
	gnutls_free(d.data);
	return length;
}

/*
 * TLS 1.3 has tls-exporter. What tls-unique binds is this very connection only if the extended master secret was agreed
 * upon (RFC 7627); clients that cannot have either bind the server's certificate.
 */
static void
hello_binding(struct tls *t, bool tls13, struct body_hello *h)
{
	gnutls_channel_binding_t type = tls13 ? GNUTLS_CB_TLS_EXPORTER : GNUTLS_CB_TLS_UNIQUE;

	if (tls13 || gnutls_session_ext_master_secret_status(t->session))
		h->binding_length = binding_take(t, type, h->binding, sizeof h->binding);
	if (h->binding_length > 0)
		string_copy(h->binding_type, sizeof h->binding_type, tls13 ? "tls-exporter" : "tls-unique");
	h->end_point_length = binding_take(t, GNUTLS_CB_TLS_SERVER_END_POINT, h->end_point, sizeof h->end_point);
}

/* SHA-256 of the certificate, and of its public key. */
static bool
fingerprints(const gnutls_datum_t *der, struct body_hello *h)
{
	gnutls_x509_crt_t crt;
	size_t size = sizeof h->certificate_key;

	if (gnutls_x509_crt_init(&crt) < 0)
		return false;
	bool done = gnutls_x509_crt_import(crt, der, GNUTLS_X509_FMT_DER) == 0 &&
	    gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, h->certificate_key, &size) == 0 &&
	    gnutls_hash_fast(GNUTLS_DIG_SHA256, der->data, der->size, h->certificate) == 0;
	gnutls_x509_crt_deinit(crt);
	return done;
}

/* A certificate that client-ca does not vouch for is as good as none; the client may still log in otherwise. */
static void
hello_certificate(struct tls *t, struct body_hello *h)
{
	gnutls_typed_vdata_st purpose = { GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT, 0 };
	unsigned count = 0, status = 0;
	gnutls_datum_t text = { NULL, 0 };
	const gnutls_datum_t *list = credentials_ask_client() ? gnutls_certificate_get_peers(t->session, &count) : NULL;

	if (list == NULL || count == 0)
		return;
	int error = gnutls_certificate_verify_peers(t->session, &purpose, 1, &status);
	h->has_certificate = error == 0 && status == 0 && fingerprints(&list[0], h);
	if (h->has_certificate)
		return;
	gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
	log_begin(LOG_WARNING, "client-certificate");
	log_string("result", "refused");
	log_string("reason", error < 0 || text.data == NULL ? gnutls_strerror(error) : (const char *)text.data);
	log_end();
	gnutls_free(text.data);
}

void
tls_hello(struct tls *t, struct body_hello *h)
{
	gnutls_protocol_t version = gnutls_protocol_get_version(t->session);

	string_copy(h->tls_version, sizeof h->tls_version, gnutls_protocol_get_name(version));
	hello_binding(t, version >= GNUTLS_TLS1_3, h);
	hello_certificate(t, h);
}

void
tls_end(struct tls *t)
{
	if (!t->dead)
		gnutls_bye(t->session, GNUTLS_SHUT_WR);
	t->dead = true;
}
