/* The PROXY protocol's header, and nothing of what follows it. */
#include "proxy.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>

#include "system.h"

#define V1_MAX 107	/* octets, the end included */

static const unsigned char signature[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

static uint32_t
two_octets(const unsigned char *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

/* The next word of a version 1 line, one blank between; NULL if there is none. */
static char *
word_take(char **at)
{
	char *word = *at, *blank;

	if (word == NULL || *word == '\0' || *word == ' ')
		return NULL;
	blank = strchr(word, ' ');
	if (blank != NULL)
		*blank++ = '\0';
	*at = blank;
	return word;
}

static bool
address_take(char **at, int family, char address[static ADDRESS_SIZE])
{
	unsigned char octets[16];
	char *word = word_take(at);

	/* printed anew, so that one address has one spelling for limits and logs */
	return word != NULL && inet_pton(family, word, octets) == 1 && inet_ntop(family, octets, address, ADDRESS_SIZE) != NULL;
}

static bool
port_take(char **at, uint32_t *port)
{
	uint64_t n;
	char *word = word_take(at);

	if (word == NULL || number_parse(word, 0, 65535, &n) != NULL)
		return false;
	*port = (uint32_t)n;
	return true;
}

/* "PROXY TCP4 192.0.2.1 198.51.100.1 56324 110", without its end. */
static enum proxy_result
parse_line(char *line, struct proxy *p)
{
	char *at = line + 6, *family = word_take(&at);

	if (family != NULL && strcmp(family, "UNKNOWN") == 0)
		return PROXY_OK;
	if (family == NULL || (strcmp(family, "TCP4") != 0 && strcmp(family, "TCP6") != 0))
		return PROXY_BAD;
	int number = family[3] == '4' ? AF_INET : AF_INET6;
	if (address_take(&at, number, p->client) && address_take(&at, number, p->local) && port_take(&at, &p->client_port) &&
	    port_take(&at, &p->local_port) && at == NULL)
		return PROXY_OK;
	return PROXY_BAD;
}

static enum proxy_result
parse_v1(const unsigned char *data, size_t length, struct proxy *p, size_t *more)
{
	char line[V1_MAX + 1];
	const unsigned char *lf = memchr(data, '\n', length);

	if (lf == NULL) {
		*more = 1;
		return length < V1_MAX ? PROXY_MORE : PROXY_BAD;
	}
	size_t n = (size_t)(lf - data);
	if (n + 1 != length || n < 1 || data[n - 1] != '\r' || n + 1 > V1_MAX || memchr(data, '\0', n) != NULL)
		return PROXY_BAD;
	memcpy(line, data, n - 1);
	line[n - 1] = '\0';
	return parse_line(line, p);
}

static enum proxy_result
parse_v2(const unsigned char *data, size_t length, struct proxy *p, size_t *more)
{
	if (length < 16) {
		*more = 16 - length;
		return PROXY_MORE;
	}
	size_t body = two_octets(data + 14), whole = 16 + body;
	unsigned command = data[12], family = data[13];
	if ((command != 0x20 && command != 0x21) || whole > PROXY_MAX)
		return PROXY_BAD;
	if (length < whole) {
		*more = whole - length;
		return PROXY_MORE;
	}
	if (command == 0x20 || family == 0x00)
		return PROXY_OK;	/* LOCAL, or an address family that the proxy does not tell */
	size_t size = family == 0x11 ? 4 : family == 0x21 ? 16 : 0;
	int number = family == 0x11 ? AF_INET : AF_INET6;
	if (size == 0 || body < 2 * size + 4 || length != whole)
		return PROXY_BAD;
	inet_ntop(number, data + 16, p->client, sizeof p->client);
	inet_ntop(number, data + 16 + size, p->local, sizeof p->local);
	p->client_port = two_octets(data + 16 + 2 * size);
	p->local_port = two_octets(data + 18 + 2 * size);
	return PROXY_OK;
}

enum proxy_result
proxy_parse(const unsigned char *data, size_t length, struct proxy *p, size_t *more)
{
	size_t same = length < sizeof signature ? length : sizeof signature;

	*p = (struct proxy){ 0 };
	if (memcmp(data, signature, same) == 0) {
		if (length >= sizeof signature)
			return parse_v2(data, length, p, more);
		*more = sizeof signature - length;
		return PROXY_MORE;
	}
	if (memcmp(data, "PROXY ", length < 6 ? length : 6) != 0)
		return PROXY_BAD;
	if (length >= 6)
		return parse_v1(data, length, p, more);
	*more = 6 - length;
	return PROXY_MORE;
}

const char *
proxy_read(struct stream *s, struct proxy *p)
{
	unsigned char header[PROXY_MAX];
	size_t length = 0, more = 1;
	enum proxy_result r;

	do {
		size_t n = stream_read(s, (char *)header + length, more);
		if (n == 0)
			return s->failed;
		length += n;
		r = proxy_parse(header, length, p, &more);
	} while (r == PROXY_MORE && length + more <= sizeof header);
	return r == PROXY_OK ? NULL : "malformed-proxy-header";
}
