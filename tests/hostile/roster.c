/*
 * The roster for programs that are not C: a line a message, NAME NUMBER OCTETS.
 * Built by tests/test_hostile.py from this and lib/messages.c.
 */
#include <stdio.h>

#include "messages.h"

int
main(void)
{
	for (uint32_t type = 0; type < MESSAGE_COUNT; type++)
		printf("%s %u %zu\n", message_name(type), (unsigned)type, message_size(type));
	return 0;
}
