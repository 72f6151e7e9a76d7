/* What spoold sees of a user's maildrop, and what locks the kernel has on it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "spoolctl.h"

#define LOOK_WAIT_MS	600000	/* a large mbox on a slow disk */

int
look_at(const struct conf *c, const char *user, struct body_shown *s)
{
	int control = talk_try(c, SPOOL_SHOW, user), session = -1, result = -1;
	struct message m;

	if (control == -1)
		return -1;
	int n = message_receive(control, &m, SIDE_SPOOLD, SIDE_TOOL);
	if (n == 1 && m.header.type == MESSAGE_SPOOL_CHANNEL)
		session = m.fds[0];
	else
		errno = n == 0 ? EACCES : EAGAIN;
	if (session != -1 && (n = message_wait(session, LOOK_WAIT_MS)) == 0)
		errno = ETIMEDOUT;
	if (session != -1 && n == 1) {
		errno = EIO;	/* it ended without a word */
		if (message_receive(session, &m, SIDE_WORKER, SIDE_TOOL) == 1 && m.header.type == MESSAGE_SHOWN) {
			*s = m.body.shown;
			result = 0;
		}
	}
	int saved = errno;
	if (session != -1)
		close(session);
	close(control);
	errno = saved;
	return result;
}

const char *
failure_text(uint32_t failure)
{
	static const char *const reasons[FAILURE_COUNT] = {
		[FAILURE_TEMPORARY] = "it cannot be opened now", [FAILURE_PERMISSION] = "its owner may not read it",
		[FAILURE_KIND] = "it is neither an mbox nor a Maildir", [FAILURE_USER] = "no such user, or a user who may have no maildrop here",
		[FAILURE_FULL] = "the disk is full", [FAILURE_CHANGED] = "it was changed", [FAILURE_VANISHED] = "it has gone",
		[FAILURE_TAKEN] = "a newer login took it over", [FAILURE_ARCHIVE] = "its archive may not be written, or is something else",
	};

	return failure < FAILURE_COUNT ? reasons[failure] : "?";
}

void
process_command(uint32_t pid, char *text, size_t size)
{
	char path[64];
	ssize_t n = 0;

	text[0] = '\0';
	snprintf(path, sizeof path, "/proc/%u/comm", (unsigned)pid);
	int fd = pid != 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd == -1)
		return;
	n = read(fd, text, size - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

size_t
locks_of(uint64_t device, uint64_t inode, struct held *locks, size_t most)
{
	FILE *f = fopen("/proc/locks", "re");
	char line[256];
	size_t count = 0;

	while (f != NULL && count < most && fgets(line, sizeof line, f) != NULL) {
		struct held *h = &locks[count];
		unsigned a, b;
		long pid;
		unsigned long long i;
		/* one that waits has "->" there, and is none */
		if (sscanf(line, "%*d: %15s %*s %7s %ld %x:%x:%llu", h->kind, h->access, &pid, &a, &b, &i) != 6 || i != inode ||
		    makedev(a, b) != (dev_t)device || strcmp(h->kind, "->") == 0)
			continue;
		h->pid = pid > 0 ? (uint32_t)pid : 0;
		process_command(h->pid, h->command, sizeof h->command);
		count++;
	}
	if (f != NULL)
		fclose(f);
	return count;
}
