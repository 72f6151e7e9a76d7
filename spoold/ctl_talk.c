/* The control sockets of spoold and authd, as spoolctl uses them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "spoolctl.h"
#include "system.h"

int
talk_connect(const struct conf *c, const char *name)
{
	char path[CONF_STRING + 32];

	return conf_run_path(c, name, path, sizeof path) == 0 ? unix_connect(path) : -1;
}

int
talk_try(const struct conf *c, uint32_t command, const char *argument)
{
	struct message m;
	int control;

	message_start(&m, MESSAGE_SPOOL_COMMAND);
	m.body.spool_command.command = command;
	if (!string_copy(m.body.spool_command.argument, sizeof m.body.spool_command.argument, argument))
		return errno = E2BIG, -1;
	if ((control = talk_connect(c, "spoold.ctl")) == -1)
		return -1;
	if (message_send(control, &m) == 0)
		return control;
	int saved = errno;
	close(control);
	errno = saved;
	return -1;
}

int
talk_ask(const struct conf *c, uint32_t command, const char *argument)
{
	int control = talk_try(c, command, argument);

	if (control == -1 && errno == E2BIG)
		die("that is too long");
	if (control == -1)
		die("cannot reach spoold at %s/spoold.ctl: %s", c->run_dir, strerror(errno));
	return control;
}

void
talk_answer(int control, struct message *m)
{
	int n = message_receive(control, m, SIDE_SPOOLD, SIDE_TOOL);

	if (n == 0)
		die("spoold closed the conversation (only root, or the user that it runs as, may ask)");
	if (n == -1)
		die("spoold's answer: %s", strerror(errno));
}

struct body_spool_session *
talk_sessions(const struct conf *c, size_t *count)
{
	struct body_spool_session *list = malloc(sizeof *list), *more;
	struct message m;
	int n, control = list != NULL ? talk_try(c, SPOOL_WHO, "") : -1;
	size_t room = 1;

	*count = 0;
	if (control == -1)
		goto fail;
	while ((n = message_receive(control, &m, SIDE_SPOOLD, SIDE_TOOL)) == 1 && m.header.type == MESSAGE_SPOOL_SESSION) {
		if (*count == room) {
			room *= 2;	/* of sessions that spoold bounds */
			if ((more = realloc(list, room * sizeof *list)) == NULL)
				goto fail;
			list = more;
		}
		list[(*count)++] = m.body.spool_session;
	}
	if (n == 0)
		errno = EACCES;
	else if (n == 1 && m.header.type == MESSAGE_SPOOL_FINISHED && m.body.spool_finished.error == 0) {
		close(control);
		return list;
	} else if (n == 1)
		errno = EAGAIN;
fail:
	n = errno;
	if (control != -1)
		close(control);
	free(list);
	errno = n;
	return NULL;
}
