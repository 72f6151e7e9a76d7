#include "grant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "privilege.h"
#include "system.h"

/* Asked, and not answered. Lives on without its login when that is gone. */
struct request {
	struct request *next;
	struct login *login;
	char session[SESSION_ID_SIZE];
};

static struct source spoold = { .fd = -1 };
static struct request *requests;
static bool is_away;	/* spoold, and it was said */
static char path[CONF_STRING + 16];

void
grant_start(const struct conf *c)
{
	if (conf_run_path(c, "spoold.sock", path, sizeof path) == -1)
		fatal("run-dir: %s", strerror(errno));
}

static void
answer(struct request *r, int fd, enum denial denial, const char *reason)
{
	struct login *l = r->login;

	free(r);
	if (l != NULL)
		login_opened(l, fd, denial, reason);
	else if (fd != -1)
		close(fd);
}

static void
spoold_gone(void)
{
	loop_close(&spoold);
	while (requests != NULL) {
		struct request *r = requests;
		struct login *l = r->login;
		requests = r->next;
		free(r);
		if (l != NULL)
			login_unanswered(l);
	}
}

static struct request *
request_take(const char *session)
{
	for (struct request **at = &requests; *at != NULL; at = &(*at)->next)
		if (strcmp((*at)->session, session) == 0) {
			struct request *r = *at;
			*at = r->next;
			return r;
		}
	return NULL;
}

/* What an administrator must mend, and what may pass by itself. */
static enum denial
denial_for(uint32_t failure)
{
	return failure == FAILURE_PERMISSION || failure == FAILURE_KIND || failure == FAILURE_USER ? DENIED_PERMANENT :
	    DENIED_TEMPORARY;
}

static void
on_spoold(struct source *s)
{
	static struct message m;
	int got = message_receive(s->fd, &m, SIDE_SPOOLD, SIDE_VERIFIER);
	struct request *r = NULL;

	if (got == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got == 1)
		r = request_take(m.header.type == MESSAGE_CHANNEL ? m.body.channel.session : m.body.refused.session);
	if (r == NULL) {
		if (got == 1)
			message_clear(&m);
		if (got != 0)
			log_text(LOG_WARNING, "spoold sent what was not asked for: its connection is closed");
		spoold_gone();
		return;
	}
	if (m.header.type == MESSAGE_CHANNEL) {
		answer(r, m.fds[0], DENIED_COUNT, NULL);
		m.fds[0] = -1;
	} else
		answer(r, -1, denial_for(m.body.refused.failure), "maildrop-refused");
}

/* Only root, or whoever runs authd as well, may hand out mail. */
static bool
is_trusted(int fd)
{
	struct ucred cred;
	socklen_t size = sizeof cred;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) == 0 && (cred.uid == 0 || cred.uid == geteuid()))
		return true;
	log_text(LOG_ERR, "%s is served by uid %u: neither root nor this process's own; not used", path, (unsigned)cred.uid);
	return false;
}

/* Not unix_connect(): this must not wait while spoold's backlog is full. */
static int
spoold_connect(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd;

	if (!string_copy(sa.sun_path, sizeof sa.sun_path, path))
		return errno = ENAMETOOLONG, -1;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return -1;
	spoold = (struct source){ fd, on_spoold };
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0 && is_trusted(fd) && loop_watch(&spoold) == 0)
		return 0;
	int saved = errno;
	spoold.fd = -1;
	close(fd);
	errno = saved;
	return -1;
}

static int
send_open(struct login *l, const char *session, const char *client)
{
	static struct message m;
	struct body_open *o = &m.body.open;

	message_start(&m, MESSAGE_OPEN);
	string_copy(o->session, sizeof o->session, session);
	string_copy(o->user, sizeof o->user, l->granted);
	string_copy(o->client, sizeof o->client, client);
	o->store = l->store;
	o->no_delete = l->no_delete;
	o->recent = l->recent;
	if (spoold.fd != -1 && message_send(spoold.fd, &m) == 0)
		return 0;
	if (spoold.fd != -1 && errno == EAGAIN)
		return -1;
	/* The connection is new, or the old one's spoold has been restarted: once more, on a fresh one. */
	spoold_gone();
	int result = spoold_connect();
	if (result == -1 && !is_away)
		log_text(LOG_WARNING, "spoold cannot be reached at %s: %s", path, strerror(errno));
	is_away = result == -1;
	return result == -1 ? -1 : message_send(spoold.fd, &m);
}

int
grant_ask(struct login *l, const char *session, const char *client)
{
	struct request *r = calloc(1, sizeof *r);

	if (r == NULL || send_open(l, session, client) == -1) {
		free(r);
		return -1;
	}
	r->login = l;
	string_copy(r->session, sizeof r->session, session);
	r->next = requests;
	requests = r;
	return 0;
}

void
grant_forget(const struct login *l)
{
	for (struct request *r = requests; r != NULL; r = r->next)
		if (r->login == l)
			r->login = NULL;
}

bool
grant_pending(const char *session)
{
	for (struct request *r = requests; r != NULL; r = r->next)
		if (strcmp(r->session, session) == 0)
			return true;
	return false;
}
