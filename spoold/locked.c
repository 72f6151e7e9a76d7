/* What keeps the locks of a dead worker. */
#include "locked.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ask.h"
#include "lock.h"
#include "log.h"
#include "messages.h"
#include "system.h"

static struct message message;

void
locked_keep(int mbox)
{
	/* locks of another machine's are not ours to keep */
	if (!lock_is_local(mbox))
		return;
	int keep = ask_file(PRIVILEGED_KEEP);
	if (keep == -1)
		return;
	message_start(&message, MESSAGE_LOCKS);
	message.fds[0] = mbox;
	if (message_send(keep, &message) == -1)
		log_text(LOG_INFO, "the locks would not outlive this worker: %s", strerror(errno));
	close(keep);
}

/* A copy of what was sent, which stays there for the next who asks. */
static int
locked_look(int kept)
{
	return message_look(kept, &message, SIDE_WORKER, SIDE_WORKER) == 1 ? message.fds[0] : -1;
}

int
locked_find(int mbox)
{
	int kept = ask_file(PRIVILEGED_KEPT), fd = kept != -1 ? locked_look(kept) : -1, flags;
	struct stat is, was;

	if (kept != -1)
		close(kept);
	if (fd == -1)
		return -1;
	if (fstat(mbox, &is) == 0 && fstat(fd, &was) == 0 && is.st_dev == was.st_dev && is.st_ino == was.st_ino &&
	    (flags = fcntl(fd, F_GETFL)) != -1 && (flags & O_ACCMODE) == O_RDWR && (flags & O_APPEND) == 0)
		return fd;
	close(fd);
	return -1;
}

/* ---- the parent */

struct left {
	struct left *next;
	char *key;
	int kept;
};

static struct left *lefts;

int
locked_pair(int *kept, int *fd)
{
	int pair[2];

	if (message_pair(pair) == -1)
		return errno;
	if (*kept != -1)
		close(*kept);
	*kept = pair[0];
	*fd = pair[1];
	return 0;
}

void
locked_leave(const char *key, int kept)
{
	struct left *l;

	locked_forget(key);
	if ((l = calloc(1, sizeof *l)) == NULL || (l->key = strdup(key)) == NULL) {
		free(l);
		close(kept);
		return;
	}
	l->kept = kept;
	l->next = lefts;
	lefts = l;
}

int
locked_left(const char *key, int *fd)
{
	for (const struct left *l = lefts; l != NULL; l = l->next)
		if (strcmp(l->key, key) == 0) {
			*fd = fcntl(l->kept, F_DUPFD_CLOEXEC, 0);
			return *fd != -1 ? 0 : errno;
		}
	return ENOENT;
}

static void
left_free(struct left **at)
{
	struct left *l = *at;

	*at = l->next;
	close(l->kept);
	free(l->key);
	free(l);
}

void
locked_forget(const char *key)
{
	for (struct left **at = &lefts; *at != NULL; at = &(*at)->next)
		if (strcmp((*at)->key, key) == 0) {
			left_free(at);
			return;
		}
}

void
locked_sweep(bool (*needed)(const char *key))
{
	for (struct left **at = &lefts; *at != NULL;)
		if (needed((*at)->key))
			at = &(*at)->next;
		else
			left_free(at);
}
