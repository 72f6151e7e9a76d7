/*
 * The line reader: the first octet says how long a piece is that arrives at once, and whether the longer limit holds.
 * links: pop3d/line.c
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../pop3d/line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct lines l;
	char *line;

	if (size == 0)
		return 0;
	memset(&l, 0, sizeof l);
	size_t step = (data[0] & 0x7f) + 1u;
	bool sasl = data[0] & 0x80;
	for (size_t at = 1; at < size;) {
		enum line_result r = line_next(&l, sasl, &line);
		if (r == LINE_OK && strlen(line) > LINE_SASL)
			abort();
		if (r != LINE_MORE)
			continue;
		size_t room, n = step < size - at ? step : size - at;
		char *to = line_room(&l, &room);
		if (room == 0)
			abort();
		if (n > room)
			n = room;
		memcpy(to, data + at, n);
		line_added(&l, n);
		at += n;
	}
	return 0;
}
