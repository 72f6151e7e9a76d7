#include "figures.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "peer.h"
#include "sandbox.h"
#include "shared.h"
#include "system.h"

static struct body_auth_figures *figures;
static const struct conf *conf;
static struct source listener = { .fd = -1 };

void
figures_make(void)
{
	figures = shared_make(sizeof *figures);
	figures->started = (int64_t)time(NULL);
}

void
figures_login(uint32_t mechanism, uint32_t denial, int64_t milliseconds)
{
	if (mechanism >= MECHANISM_COUNT || denial > DENIED_COUNT)
		return;
	count_add(&figures->logins[mechanism][denial], 1);
	histogram_add(&figures->login, milliseconds > 0 ? (uint64_t)milliseconds : 0);
}

void
figures_throttled(void)
{
	count_add(&figures->throttled, 1);
}

void
figures_connection(void)
{
	count_add(&figures->connections, 1);
}

void
figures_unused(bool tried)
{
	count_add(&figures->unused[tried], 1);
}

/* One question and its answer; then it may ask again, or is gone. */
static void
on_tool(struct source *s)
{
	static struct message m;
	int got = message_receive(s->fd, &m, SIDE_TOOL, SIDE_VERIFIER);

	if (got == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got == 1) {
		message_start(&m, MESSAGE_AUTH_FIGURES);
		m.body.auth_figures = *figures;
		m.body.auth_figures.waiting = peers_waiting();
		m.body.auth_figures.confinement.mode = (uint32_t)conf->sandbox;
		m.body.auth_figures.confinement.whole = sandbox_whole(conf);
		if (message_send(s->fd, &m) == 0)
			return;
	}
	loop_close(s);
	free(s);
}

static void
on_listener(struct source *s)
{
	uid_t uid;
	pid_t pid;
	int fd = unix_accept(s->fd, &uid, &pid);
	struct source *tool = fd != -1 && (uid == 0 || uid == geteuid()) ? calloc(1, sizeof *tool) : NULL;

	if (fd == -1)
		return;
	if (tool != NULL) {
		*tool = (struct source){ fd, on_tool };
		if (loop_watch(tool) == 0)
			return;
	}
	free(tool);
	close(fd);
}

int
figures_serve(const struct conf *c, int fd)
{
	conf = c;
	listener = (struct source){ fd, on_listener };
	return loop_watch(&listener);
}

void
figures_retire(void)
{
	loop_close(&listener);
}
