#include "hash.h"

#include <crypt.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "log.h"
#include "messages.h"

/* What a hasher has besides, by far. */
#define HASHER_ROOM	(64ul * 1024 * 1024)

const struct hash_cost hash_cost_default = {
	crypto_pwhash_argon2id_OPSLIMIT_INTERACTIVE, crypto_pwhash_argon2id_MEMLIMIT_INTERACTIVE,
};

int
hash_make(char *hash, size_t size, const char *password, const struct hash_cost *cost)
{
	char made[crypto_pwhash_argon2id_STRBYTES];

	if (crypto_pwhash_argon2id_str(made, password, strlen(password), cost->operations, (size_t)cost->memory) == -1 ||
	    strlen(made) >= size)
		return -1;
	memcpy(hash, made, strlen(made) + 1);
	sodium_memzero(made, sizeof made);
	return 0;
}

static int
argon_fits(const char *hash, const char *password)
{
	/* libsodium says -1 for a wrong password and for memory that is not to be had; only errno tells them apart. */
	errno = 0;
	if (crypto_pwhash_str_verify(hash, password, strlen(password)) == 0)
		return 1;
	return errno == ENOMEM ? -1 : 0;
}

/* crypt(3) keeps the password in its data: that is wiped, and too large for a stack. */
static int
crypt_fits(const char *hash, const char *password)
{
	struct crypt_data *data = calloc(1, sizeof *data);
	int fits = -1;

	if (data == NULL)
		return -1;
	const char *made = crypt_r(password, hash, data);
	if (made != NULL)
		fits = made[0] != '*' && strlen(made) == strlen(hash) && sodium_memcmp(made, hash, strlen(hash)) == 0;
	else
		fits = errno == ENOMEM ? -1 : 0;
	sodium_memzero(data, sizeof *data);
	free(data);
	return fits;
}

static bool
is_argon(const char *hash)
{
	return strncmp(hash, "$argon2", 7) == 0;
}

int
hash_fits(const char *hash, const char *password)
{
	return is_argon(hash) ? argon_fits(hash, password) : crypt_fits(hash, password);
}

bool
hash_known(const char *hash)
{
	if (is_argon(hash)) {
		const char *memory = strstr(hash, "$m=");
		return memory != NULL && strtoul(memory + 3, NULL, 10) <= HASH_MEMORY_MAX / 1024 && strlen(hash) < crypto_pwhash_STRBYTES;
	}
	int known = crypt_checksalt(hash);
	return known == CRYPT_SALT_OK || known == CRYPT_SALT_METHOD_LEGACY || known == CRYPT_SALT_TOO_CHEAP;
}

bool
hash_is_foreign(const char *hash)
{
	return strncmp(hash, "$argon2id$", 10) != 0;
}

int
hash_cost_of(const char *hash, struct hash_cost *cost)
{
	unsigned memory, operations;

	/* only authctl writes these, through libsodium: the numbers are in their ranges */
	if (sscanf(hash, "$argon2id$v=19$m=%u,t=%u,", &memory, &operations) != 2)
		return -1;
	cost->memory = (uint64_t)memory * 1024;
	cost->operations = operations;
	return 0;
}

void
hash_limit(void)
{
	/* what a sanitizer keeps beside the program counts, too */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	const struct rlimit most = { HASH_MEMORY_MAX + HASHER_ROOM, HASH_MEMORY_MAX + HASHER_ROOM };

	if (setrlimit(RLIMIT_DATA, &most) == -1)
		log_text(LOG_WARNING, "the memory of a hasher is not limited: %s", strerror(errno));
#endif
}

static void
answer_make(struct message *m, struct message *reply)
{
	struct hash_cost cost;

	message_start(reply, MESSAGE_MADE);
	reply->body.made.ticket = m->body.make.ticket;
	if (hash_cost_of(m->body.make.like, &cost) == -1 ||
	    hash_make(reply->body.made.hash, sizeof reply->body.made.hash, m->body.make.password, &cost) == -1)
		reply->body.made.hash[0] = '\0';
	message_clear(m);
}

static void
answer_hash(struct message *m, struct message *reply)
{
	int fits = hash_fits(m->body.hash.hash, m->body.hash.password);

	message_start(reply, MESSAGE_HASHED);
	reply->body.hashed.ticket = m->body.hash.ticket;
	reply->body.hashed.verdict = fits == 1;
	reply->body.hashed.error = fits == -1;
	message_clear(m);
}

void
hasher_run(int channel)
{
	static struct message m, reply;

	while (message_receive(channel, &m, SIDE_VERIFIER, SIDE_HASHER) == 1) {
		if (m.header.type == MESSAGE_MAKE)
			answer_make(&m, &reply);
		else
			answer_hash(&m, &reply);
		/* What the hash left in dead frames goes before the next wait. */
		sodium_stackzero(16384);
		if (message_send(channel, &reply) == -1)
			break;
	}
	_exit(0);
}
