/*
 * The wire form, made and counted in pieces, against itself made and counted at once, and undone.
 * links: lib/wire.c
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The sent form in pieces of `step`. */
static size_t
form(const char *data, size_t size, size_t step, char *out, uint64_t *octets)
{
	struct wire_form w = { 0 };
	struct wire_count c = { 0 };
	size_t used = 0;

	for (size_t at = 0; at < size; at += step) {
		size_t n = step < size - at ? step : size - at;
		used += wire_form(&w, data + at, n, out + used);
		wire_count(&c, data + at, n);
	}
	used += wire_form_end(&w, out + used);
	*octets = wire_count_end(&c);
	if (w.octets != *octets)
		abort();
	return used;
}

/* What a client makes of it: every line begins after CRLF or LF; a dot in front is taken away, a dot alone ends. Octets without the end. */
static uint64_t
client_octets(const char *sent, size_t length)
{
	uint64_t octets = 0;

	for (size_t at = 0; at < length;) {
		const char *lf = memchr(sent + at, '\n', length - at);
		if (lf == NULL)
			abort();
		size_t n = (size_t)(lf + 1 - sent) - at;
		if (n == 3 && memcmp(sent + at, ".\r\n", 3) == 0) {
			if (at + n != length)
				abort();	/* the end came too early */
			return octets;
		}
		if (n < 2 || lf[-1] != '\r')
			abort();
		octets += n - (sent[at] == '.');
		at += n;
	}
	abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t octets, again;

	if (size < 1 || size > 65536)
		return 0;
	const char *text = (const char *)data + 1;
	char *out = malloc(WIRE_ROOM(size) * 2), *out2 = malloc(WIRE_ROOM(size) * 2);
	if (out == NULL || out2 == NULL)
		abort();
	size_t n = form(text, size - 1, size, out, &octets), n2 = form(text, size - 1, data[0] + 1u, out2, &again);
	if (n != n2 || octets != again || memcmp(out, out2, n) != 0 || client_octets(out, n) != octets)
		abort();
	free(out);
	free(out2);
	return 0;
}
