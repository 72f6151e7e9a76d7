/* pop3d: what happens in which order at start. See postern(7) for what it may do and what not. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ask.h"
#include "credentials.h"
#include "listener.h"
#include "log.h"
#include "sandbox.h"
#include "session.h"
#include "system.h"

static struct listener listeners[LISTENERS];
static unsigned listener_count;
static const char *wanted[LISTENERS];	/* -l and -s: bound after the configuration is read */
static bool implicit_tls;		/* -S: of the sockets that are passed */

static const char *
on_option(int option, const char *argument)
{
	if (option == 'S') {
		implicit_tls = true;
		return NULL;
	}
	if (listener_count == LISTENERS)
		return "at most 32 -l and -s are accepted";
	listeners[listener_count].implicit_tls = option == 's';
	wanted[listener_count++] = argument;
	return NULL;
}

static bool
is_listening(int fd)
{
	int on = 0;
	socklen_t size = sizeof on;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size) == 0 && on;
}

/*
 * The sockets that were passed: from systemd, or descriptor 0 from inetd. Fills listeners; returns the connection in nowait mode, else -1.
 * One that systemd calls pop3s (FileDescriptorName=) is for implicit TLS, as all are with -S.
 */
static int
sockets_inherited(void)
{
	char names[1024], *name = names;
	int count = activation_sockets(names, sizeof names);

	if (count == 0) {
		if (!is_listening(0))
			return 0;
		listeners[listener_count++] = (struct listener){ .fd = fcntl(0, F_DUPFD_CLOEXEC, 3), .implicit_tls = implicit_tls };
		return -1;
	}
	for (int i = 0; i < count && i < LISTENERS; i++) {
		const char *this = strsep(&name, ":");
		bool tls = implicit_tls || (this != NULL && strcmp(this, "pop3s") == 0);
		listeners[listener_count++] = (struct listener){ .fd = 3 + i, .implicit_tls = tls };
	}
	if (is_listening(3))
		return -1;
	implicit_tls = listeners[0].implicit_tls;
	return 3;
}

/* Implicit TLS without a certificate can serve nobody. */
static void
check_tls(const struct conf *c)
{
	bool wants = implicit_tls;

	for (unsigned i = 0; i < listener_count; i++)
		wants = wants || listeners[i].implicit_tls;
	if (wants && !credentials_configured(c))
		fatal("%s: [tls] certificate: none is set, and implicit TLS (-s, -S) needs one", c->file);
}

static void
nonblocking(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* In nowait mode: what a listener would have done for the connection. */
static void
serve_one(const struct conf *conf, int in)
{
	struct connection c = { .in = in, .out = in == 0 ? 1 : in, .keeper = -1, .listener = -1, .implicit_tls = implicit_tls };
	struct sockaddr_storage sa;
	socklen_t size = sizeof sa;

	if (getpeername(in, (struct sockaddr *)&sa, &size) == 0)
		address_of((struct sockaddr *)&sa, c.client, &c.client_port);
	size = sizeof sa;
	if (getsockname(in, (struct sockaddr *)&sa, &size) == 0)
		address_of((struct sockaddr *)&sa, c.local, &c.local_port);
	nonblocking(c.in);
	nonblocking(c.out);
	stream_options(c.out);
	c.authd = ask_connect(conf);
	if (credentials_configured(conf)) {
		credentials_prepare(conf);
		if ((c.keeper = credentials_connect(conf, false)) == -1)
			log_text(LOG_ERR, "authd's keeper cannot be reached: %s; no TLS until it runs", strerror(errno));
	}
	c.tls = c.keeper != -1;
	sandbox_enter(CELL_POP3D, conf, NULL, 0);
	session_run(conf, &c);
}

int
main(int argc, char **argv)
{
	static struct conf conf;
	struct options options;
	int connection = -1;

	mallopt(M_MXFAST, 0);	/* or each child would merge what the listener has freed, and fault in every page of that */
	descriptors_sane();
	log_start("pop3d");
	signal(SIGPIPE, SIG_IGN);
	options_parse(argc, argv, "pop3d [-StVh] [-c FILE] [-l ADDRESS:PORT]... [-s ADDRESS:PORT]...", "l:s:S", on_option, &options, &conf);
	if (listener_count == 0)
		connection = sockets_inherited();
	log_open(&conf, connection);
	if (geteuid() == 0)
		fatal("pop3d does not run as root: let systemd, inetd or setpriv give it the user %s", conf.pop3d_user);
	check_tls(&conf);
	sandbox_check(&conf);
	tzset();	/* now, as gmtime(3) and strftime(3) would open files for it in the cell */
	if (connection != -1) {
		serve_one(&conf, connection);
		return 0;
	}
	for (unsigned i = 0; i < listener_count && wanted[i] != NULL; i++) {
		const char *wrong = listener_bind(&listeners[i], wanted[i], listeners[i].implicit_tls);
		if (wrong != NULL)
			fatal("-%c %s: %s", listeners[i].implicit_tls ? 's' : 'l', wanted[i], wrong);
	}
	return listener_run(&conf, listeners, listener_count);
}
