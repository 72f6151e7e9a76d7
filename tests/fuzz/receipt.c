/*
 * Receipt of messages by one side (RECEIVER), as it comes: a whole conversation of packets, from any side that may speak to it, or may not. What is yielded
 * is of the roster, for this side and from that one, with exactly its descriptors, its strings ended; after anything else the conversation is over.
 *
 * Of a packet: the sender, how many descriptors, its type, how long it is (as its type has it, or as said), and what is in it.
 * links: lib/messages.c
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
	enum side from, to;
	int fds;
	size_t size;
} roster[] = {
#define ROW(name, from, to, fds, body) { SIDE_##from, SIDE_##to, fds, sizeof(struct body_##body) },
	MESSAGE_ROSTER(ROW)
#undef ROW
};

static uint8_t packet[32768];

/* Makes one packet of the input; returns what it took of it. */
static size_t
packet_make(const uint8_t *data, size_t size, size_t *length)
{
	uint32_t type = data[1];
	struct message_header h = { MESSAGE_MAGIC, type };
	size_t said = (size_t)data[2] << 8 | data[3], given = said < size - 4 ? said : size - 4;

	memset(packet, 0, sizeof packet);
	if (data[0] & 0x80) {	/* octets as they are */
		memcpy(packet, data + 4, given);
		*length = given;
		return 4 + given;
	}
	*length = type < MESSAGE_COUNT ? sizeof h + roster[type].size : 64;
	memcpy(packet, &h, sizeof h);
	if (given > *length - sizeof h)
		given = *length - sizeof h;
	memcpy(packet + sizeof h, data + 4, given);
	return 4 + given;
}

/* False if the machine has no room for it now: others have sockets, and descriptors in flight, too. */
static bool
packet_send(int to, size_t length, size_t fds)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(3 * sizeof(int))];
	} control;
	struct iovec part = { packet, length };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };

	memset(&control, 0, sizeof control);
	if (fds > 0) {
		int all[3] = { to, to, to };
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(fds * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(fds * sizeof(int));
		memcpy(CMSG_DATA(&control.header), all, fds * sizeof(int));
	}
	if (sendmsg(to, &m, MSG_DONTWAIT) != -1)
		return true;
	if (errno != ETOOMANYREFS && errno != ENOBUFS && errno != ENOMEM)
		abort();
	return false;
}

/* Is what was yielded what was sent, and may it be? */
static void
sound(const struct message *m, enum side from, size_t length, size_t fds)
{
	uint32_t type = m->header.type;

	if (type >= MESSAGE_COUNT || roster[type].from != from || roster[type].to != RECEIVER || sizeof m->header + roster[type].size != length ||
	    (size_t)roster[type].fds != fds || memcmp(&m->body, packet + sizeof m->header, roster[type].size) != 0)
		abort();
	for (int i = 0; i < MESSAGE_MAX_FDS; i++)
		if ((m->fds[i] != -1) != (i < roster[type].fds))
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
	int pair[2];

	if (size < 4 || size > 16384)
		return 0;
	unsigned before = open_from(3);
	if (message_pair(pair) == -1)
		return 0;	/* nor for that */
	for (int n = 1; n == 1 && size >= 4;) {
		enum side from = data[0] & 15;
		size_t fds = data[0] >> 4 & 3, length, used = packet_make(data, size, &length);
		data += used;
		size -= used;
		if (!packet_send(pair[0], length, fds))
			break;
		n = message_receive(pair[1], &m, from, RECEIVER);
		if (n == 1) {
			sound(&m, from, length, fds);
			message_clear(&m);
		}
	}
	close(pair[0]);
	close(pair[1]);
	if (open_from(3) != before)
		abort();
	return 0;
}
