/* The wire form: octets counted, and what is sent made. See wire.h for what it is. */
#include "wire.h"

#include <string.h>

/*
 * How many LF in data have no CR before them; `last` is the octet before data. Written so that the compiler makes vectors
 * of it: as many counters as fit some vectors, each of eight bits, emptied before any can overflow.
 */
#define LANES 64
static inline __attribute__((always_inline)) size_t
bare_lf_by(const char *data, size_t length, char last)
{
	size_t total = data[0] == '\n' && last != '\r';
	size_t i = 1;

	while (length - i >= LANES) {
		unsigned char some[LANES] = { 0 };
		for (int turn = 0; turn < 255 && length - i >= LANES; turn++, i += LANES)
			for (size_t k = 0; k < LANES; k++)
				some[k] = (unsigned char)(some[k] + ((data[i + k] == '\n') & (data[i + k - 1] != '\r')));
		for (size_t k = 0; k < LANES; k++)
			total += some[k];
	}
	for (; i < length; i++)
		total += (data[i] == '\n') & (data[i - 1] != '\r');
	return total;
}

/* The same for what every x86 has, and for those with wider registers: half the time. */
#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) static size_t
bare_lf_wide(const char *data, size_t length, char last)
{
	return bare_lf_by(data, length, last);
}
#define WIDE __builtin_cpu_supports("avx2")
#else
#define bare_lf_wide bare_lf_by
#define WIDE false
#endif

static size_t
bare_lf(const char *data, size_t length, char last)
{
	return WIDE ? bare_lf_wide(data, length, last) : bare_lf_by(data, length, last);
}

void
wire_count(struct wire_count *c, const char *data, size_t length)
{
	if (length == 0)
		return;
	c->octets += length + bare_lf(data, length, c->last);
	c->last = data[length - 1];
	c->any = true;
}

uint64_t
wire_count_end(const struct wire_count *c)
{
	return c->octets + (c->any && c->last != '\n' ? 2 : 0);
}

size_t
wire_form(struct wire_form *w, const char *data, size_t length, char *out)
{
	char *o = out;
	const char *p = data, *end = data + length;
	size_t stuffed = 0;

	while (p < end) {
		if (*p == '.' && (!w->any || w->last == '\n')) {
			*o++ = '.';
			stuffed++;
		}
		const char *lf = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((lf != NULL ? lf : end) - p);
		memcpy(o, p, n);
		o += n;
		char before = n > 0 ? p[n - 1] : w->last;
		w->any = true;
		if (lf == NULL) {
			w->last = before;
			break;
		}
		if (before != '\r')
			*o++ = '\r';
		*o++ = '\n';
		w->last = '\n';
		p = lf + 1;
	}
	w->octets += (size_t)(o - out) - stuffed;
	return (size_t)(o - out);
}

size_t
wire_form_end(struct wire_form *w, char *out)
{
	char *o = out;

	if (w->any && w->last != '\n') {
		memcpy(o, "\r\n", 2);
		o += 2;
		w->octets += 2;
		w->last = '\n';
	}
	memcpy(o, ".\r\n", 3);
	return (size_t)(o + 3 - out);
}

/* Is the line that ends here, after what was seen before of it, an empty one? */
static bool
line_is_empty(const struct wire_top *t, const char *line, size_t n)
{
	if (t->begun)
		return t->only_cr && n == 0;
	return n == 0 || (n == 1 && line[0] == '\r');
}

size_t
wire_top(struct wire_top *t, const char *data, size_t length, bool *done)
{
	const char *p = data, *end = data + length;

	*done = t->body && t->lines == 0;
	while (!*done && p < end) {
		const char *lf = memchr(p, '\n', (size_t)(end - p));
		if (lf == NULL) {
			t->only_cr = !t->begun && end - p == 1 && *p == '\r';
			t->begun = true;
			p = end;
			break;
		}
		if (t->body)
			t->lines--;
		else
			t->body = line_is_empty(t, p, (size_t)(lf - p));
		t->begun = t->only_cr = false;
		p = lf + 1;
		*done = t->body && t->lines == 0;
	}
	return (size_t)(p - data);
}
