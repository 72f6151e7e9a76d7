/* The wire form: octets counted, and what is sent made. See wire.h for what it is. */
#include "wire.h"

#include <string.h>
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#define FEW 512		/* octets: so many are copied at once */
#define FAR 2048	/* and what is so many further is asked for */

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

#if defined(__x86_64__) && defined(__GNUC__)
#define BLOCK 64
#define FORM_TARGET __attribute__((target("avx2,bmi,popcnt")))
#define WIDE_FORM (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("popcnt"))

/* Which octets of a block are this one? */
FORM_TARGET static inline uint64_t
octets_like(__m256i low, __m256i high, char which)
{
	__m256i like = _mm256_set1_epi8(which);

	return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, like)) |
	    (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, like)) << 32;
}

FORM_TARGET static inline void
block_copy(char *to, const char *from)
{
	__m256i low = _mm256_loadu_si256((const __m256i *)from), high = _mm256_loadu_si256((const __m256i *)(from + BLOCK / 2));

	_mm256_storeu_si256((__m256i *)to, low);
	_mm256_storeu_si256((__m256i *)(to + BLOCK / 2), high);
}

/* So many octets of data, `last` the last of them, were made into so many, those of dot-stuffing not counted. Returns how many they were. */
static size_t
blocks_end(struct wire_form *w, char last, size_t length, size_t octets)
{
	if (length > 0) {
		w->any = true;
		w->last = last;
		w->octets += octets;
	}
	return length;
}

/*
 * The whole blocks of data but the last, which is read beyond: how many octets that is. Before which octets of a block something is to be put is a bit each. The
 * block is stored as it is, then the octet that the first of them needs, and what stands from there on once more behind that. Most blocks have one
 * such place or none, and for both it is the same without a branch: with none, what is put in and stored again is beyond the block, where the next one is
 * stored over it.
 */
FORM_TARGET static size_t
form_blocks(struct wire_form *w, const char *data, size_t length, char *out, size_t *made)
{
	const char *p = data, *end = data + length;
	uint64_t after_lf = !w->any || w->last == '\n', after_cr = w->any && w->last == '\r', stuffed = 0;
	char *o = out;

	for (; end - p >= 2 * BLOCK; p += BLOCK, o += BLOCK) {
		__m256i low = _mm256_loadu_si256((const __m256i *)p), high = _mm256_loadu_si256((const __m256i *)(p + BLOCK / 2));
		uint64_t lf = octets_like(low, high, '\n'), cr = octets_like(low, high, '\r');
		uint64_t dots = octets_like(low, high, '.') & (lf << 1 | after_lf);
		uint64_t places = (lf & ~(cr << 1 | after_cr)) | dots;
		after_lf = lf >> (BLOCK - 1);
		after_cr = cr >> (BLOCK - 1);
		stuffed += (uint64_t)_mm_popcnt_u64(dots);
		_mm256_storeu_si256((__m256i *)o, low);
		_mm256_storeu_si256((__m256i *)(o + BLOCK / 2), high);
		do {
			size_t at = _tzcnt_u64(places);		/* 64 if there is none */
			o[at] = p[at] == '\n' ? '\r' : '.';
			o += places != 0;
			block_copy(o + at, p + at);
			places &= places - 1;
		} while (places != 0);
	}
	*made = (size_t)(o - out);
	return blocks_end(w, p > data ? p[-1] : 0, (size_t)(p - data), *made - stuffed);
}

#define WIDEST_TARGET __attribute__((target("avx512f,avx512bw,avx512vbmi2,bmi,bmi2,popcnt")))
#define WIDEST_FORM (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi2") && WIDE_FORM && __builtin_cpu_supports("bmi2"))

/*
 * Half a block: each of its octets has a place for what may be put in before it, and what stays empty is left out. `to` has room for a whole
 * block. Returns where the next octet goes.
 */
WIDEST_TARGET static inline char *
form_half(char *to, __m256i half, uint32_t places, uint32_t dots)
{
	__m512i put = _mm512_mask_blend_epi16(dots, _mm512_set1_epi16('\r'), _mm512_set1_epi16('.'));
	__m512i pairs = _mm512_or_si512(_mm512_slli_epi16(_mm512_cvtepu8_epi16(half), 8), put);
	uint64_t kept = _pdep_u64(places, 0x5555555555555555) | 0xaaaaaaaaaaaaaaaa;

	_mm512_storeu_si512(to, _mm512_maskz_compress_epi8(kept, pairs));
	return to + BLOCK / 2 + _mm_popcnt_u64(places);
}

/*
 * form_blocks() where octets of a register can be moved apart, for all whole blocks. With one place the block is stored an octet later, then
 * moved apart over that, of which its last octet stays; with none that one is where the next block begins. Each octet is loaded once, and
 * what is FAR from it is asked for. *nul: or was there a NUL?
 */
WIDEST_TARGET static size_t
form_blocks_widest(struct wire_form *w, const char *data, size_t length, char *out, size_t *made, bool *nul)
{
	const char *p = data, *end = data + length;
	uint64_t after_lf = !w->any || w->last == '\n', after_cr = w->any && w->last == '\r', stuffed = 0;
	const __m512i all_lf = _mm512_set1_epi8('\n'), all_cr = _mm512_set1_epi8('\r'), all_dots = _mm512_set1_epi8('.');
	__m512i least = all_dots;	/* of all octets at each place of a block */
	char *o = out;

	for (; end - p >= BLOCK; p += BLOCK) {
		_mm_prefetch(p + FAR, _MM_HINT_T0);
		__m512i block = _mm512_loadu_si512(p);
		least = _mm512_min_epu8(least, block);
		uint64_t lf = _mm512_cmpeq_epi8_mask(block, all_lf), cr = _mm512_cmpeq_epi8_mask(block, all_cr);
		uint64_t dots = _mm512_cmpeq_epi8_mask(block, all_dots) & (lf << 1 | after_lf);
		uint64_t places = (lf & ~(cr << 1 | after_cr)) | dots;
		after_lf = lf >> (BLOCK - 1);
		after_cr = cr >> (BLOCK - 1);
		stuffed += (uint64_t)_mm_popcnt_u64(dots);
		if ((places & (places - 1)) == 0) {
			_mm512_storeu_si512(o + 1, block);
			_mm512_storeu_si512(o, _mm512_mask_expand_epi8(dots != 0 ? all_dots : all_cr, ~places, block));
			o += BLOCK + (places != 0);
		} else {
			o = form_half(o, _mm512_castsi512_si256(block), (uint32_t)places, (uint32_t)dots);
			o = form_half(o, _mm512_extracti64x4_epi64(block, 1), (uint32_t)(places >> 32), (uint32_t)(dots >> 32));
		}
	}
	*nul = *nul || _mm512_testn_epi8_mask(least, least) != 0;
	*made = (size_t)(o - out);
	return blocks_end(w, after_lf ? '\n' : after_cr ? '\r' : ' ' /* any other */, (size_t)(p - data), *made - stuffed);
}
#endif

/* A line at a time. */
static size_t
form_lines(struct wire_form *w, const char *data, size_t length, char *out)
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

#if defined(__x86_64__) && defined(__GNUC__)
/* The same of fewer than a block. */
static size_t
form_few(struct wire_form *w, const char *data, size_t length, char *out, bool *nul)
{
	char few[BLOCK];

	memcpy(few, data, length);
	*nul = *nul || memchr(few, '\0', length) != NULL;
	return form_lines(w, few, length, out);
}

/* And of any number. From `first` on, a block is a line of the processor's cache. */
static size_t
form_widest(struct wire_form *w, const char *data, size_t length, char *out, bool *nul)
{
	size_t first = -(uintptr_t)data % BLOCK, blocks;

	if (first > length)
		first = length;
	size_t made = form_few(w, data, first, out, nul);
	size_t done = first + form_blocks_widest(w, data + first, length - first, out + made, &blocks, nul);
	made += blocks;
	return made + form_few(w, data + done, length - done, out + made, nul);
}

enum wire_way
wire_way_best(void)
{
	return WIDEST_FORM ? WIRE_WIDEST : WIDE_FORM ? WIRE_WIDE : WIRE_LINES;
}

/* *nul: the widest way found one. */
static size_t
form_by(enum wire_way way, struct wire_form *w, const char *data, size_t length, char *out, bool *nul)
{
	size_t done = 0, made = 0;

	if (way == WIRE_WIDEST)
		return form_widest(w, data, length, out, nul);
	if (way == WIRE_WIDE)
		done = form_blocks(w, data, length, out, &made);
	return made + form_lines(w, data + done, length - done, out + made);
}
#else
enum wire_way
wire_way_best(void)
{
	return WIRE_LINES;
}

static size_t
form_by(enum wire_way way, struct wire_form *w, const char *data, size_t length, char *out, bool *nul)
{
	(void)way;
	(void)nul;
	return form_lines(w, data, length, out);
}
#endif

size_t
wire_form_by(enum wire_way way, struct wire_form *w, const char *data, size_t length, char *out)
{
	bool nul = false;

	return form_by(way, w, data, length, out, &nul);
}

size_t
wire_form(struct wire_form *w, const char *data, size_t length, char *out)
{
	return wire_form_by(wire_way_best(), w, data, length, out);
}

/* What is some cache lines further is asked for meanwhile: a processor does so by itself, but not beyond the page. */
static void
copy_ahead(char *to, const char *from, size_t length)
{
	for (size_t i = 0; i < length; i += FEW) {
		size_t n = length - i < FEW ? length - i : FEW;
		for (size_t k = 0; k < n; k += 64)
			__builtin_prefetch(from + i + FAR + k);
		memcpy(to + i, from + i, n);
	}
}

size_t
wire_form_mapped_by(enum wire_way way, struct wire_form *w, const char *data, size_t length, char *out)
{
	char some[8192];
	char *o = out;
	bool nul = false;

	if (way == WIRE_WIDEST) {
		size_t made = form_by(way, w, data, length, out, &nul);
		return nul ? 0 : made;
	}
	for (size_t i = 0; i < length; i += sizeof some) {
		size_t n = length - i < sizeof some ? length - i : sizeof some;
		copy_ahead(some, data + i, n);
		if (memchr(some, '\0', n) != NULL)
			return 0;
		o += form_by(way, w, some, n, o, &nul);
	}
	return (size_t)(o - out);
}

size_t
wire_form_mapped(struct wire_form *w, const char *data, size_t length, char *out)
{
	return wire_form_mapped_by(wire_way_best(), w, data, length, out);
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
