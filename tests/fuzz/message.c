/*
 * Receipt of messages by every side from every side: a packet and up to three descriptors; none may be left open, and what is yielded is sound.
 * links: lib/messages.c
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
packet_send(int to, const uint8_t *data, size_t size, size_t fds)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(3 * sizeof(int))];
	} control;
	struct iovec part = { (void *)(uintptr_t)data, size };
	struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };

	memset(&control, 0, sizeof control);
	if (fds > 0) {
		int all[3] = { to, to, to };
		packet.msg_control = &control;
		packet.msg_controllen = CMSG_SPACE(fds * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(fds * sizeof(int));
		memcpy(CMSG_DATA(&control.header), all, fds * sizeof(int));
	}
	if (sendmsg(to, &packet, 0) == -1)
		abort();
}

/* Which of the descriptors from `first` on are open, a bit each: what is received comes behind the pair. */
static unsigned
open_from(int first)
{
	unsigned open = 0;

	for (int i = 0; i < 16; i++)
		open |= (unsigned)(fcntl(first + i, F_GETFD) != -1) << i;
	return open;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct message m;
	static uint8_t packet[32768];
	int pair[2];

	if (size < 3 || size > 16384)
		return 0;
	size_t length = size - 3;
	memcpy(packet, data + 3, length);
	if (data[1] & 0x80) {	/* a packet of the size that its type has: the body is what is fuzzed */
		struct message_header h = { MESSAGE_MAGIC, data[2] };
		length = message_size(data[2]) > 0 ? message_size(data[2]) : 8;
		memset(packet, 0, length);
		memcpy(packet, &h, sizeof h);
		memcpy(packet + 8, data + 3, size - 3 < length - 8 ? size - 3 : length - 8);
	}
	unsigned before = open_from(3);
	if (message_pair(pair) == -1)
		return 0;	/* the machine has none to give */
	packet_send(pair[0], packet, length, data[0] & 3);
	int n = message_receive(pair[1], &m, data[0] >> 2 & 15, data[1] & 15);
	if (n == 1 && (message_size(m.header.type) != length || strcmp(message_name(m.header.type), "?") == 0))
		abort();
	if (n == 1)
		message_clear(&m);
	close(pair[0]);
	close(pair[1]);
	if (open_from(3) != before)
		abort();
	return 0;
}
