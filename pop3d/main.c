/* pop3d: what happens in which order at start. See postern(7) for what it may do and what not. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "listener.h"
#include "log.h"
#include "privilege.h"
#include "sandbox.h"
#include "session.h"
#include "system.h"

static struct listener listeners[LISTENERS];
static unsigned listener_count;
static const char *wanted[LISTENERS];	/* -l: bound after the configuration is read */

static const char *
on_option(int option, const char *argument)
{
	(void)option;
	if (listener_count == LISTENERS)
		return "at most 32 -l are accepted";
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

/* The sockets that were passed: from systemd, or descriptor 0 from inetd. Fills listeners; returns the connection in nowait mode, else -1. */
static int
sockets_inherited(void)
{
	int count = activation_sockets(NULL, 0);

	if (count == 0) {
		if (!is_listening(0))
			return 0;
		listeners[listener_count++].fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
		return -1;
	}
	if (!is_listening(3))
		return 3;
	for (int i = 0; i < count && i < LISTENERS; i++)
		listeners[listener_count++].fd = 3 + i;
	return -1;
}

int
main(int argc, char **argv)
{
	static struct conf conf;
	struct options options;
	int connection = -1;

	descriptors_sane();
	log_start("pop3d");
	signal(SIGPIPE, SIG_IGN);
	options_parse(argc, argv, "pop3d [-tVh] [-c FILE] [-l ADDRESS:PORT]...", "l:", on_option, &options, &conf);
	if (listener_count == 0)
		connection = sockets_inherited();
	log_open(&conf, connection);
	if (privilege_is_root())
		fatal("pop3d does not run as root: let systemd, inetd or setpriv give it the user %s", conf.pop3d_user);
	sandbox_check(&conf);
	tzset();	/* now, as gmtime(3) and strftime(3) would open files for it in the cell */
	if (connection != -1) {
		session_run(&conf, connection, connection == 0 ? 1 : connection, false, -1);
		return 0;
	}
	for (unsigned i = 0; i < listener_count && wanted[i] != NULL; i++) {
		const char *wrong = listener_bind(&listeners[i], wanted[i], false);
		if (wrong != NULL)
			fatal("-l %s: %s", wanted[i], wrong);
	}
	return listener_run(&conf, listeners, listener_count);
}
