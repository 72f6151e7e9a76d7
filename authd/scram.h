/* SCRAM-SHA-256 verifiers (RFC 5802, 7677): what the store keeps instead of the password. */
#ifndef POSTERN_AUTHD_SCRAM_H
#define POSTERN_AUTHD_SCRAM_H

#include "store.h"

/*
 * The client pays for these, once a login. They are also what a thief of users.db has to pay for a guess, where Argon2id
 * would cost him more: hence many more than the 4,096 of RFC 7677.
 */
#define SCRAM_ITERATIONS	100000
#define SCRAM_ITERATIONS_MIN	4096
#define SCRAM_ITERATIONS_MAX	10000000
#define SCRAM_SALT		16

/*
 * The keys for s->salt and s->iterations. The password went through password_prepare(); what SASLprep refuses is taken as it is here, too,
 * for clients that do likewise. 0, or -1.
 */
int scram_keys(struct store_scram *s, const char *password);

/*
 * Does the client's proof for this AuthMessage (RFC 5802 section 3) fit? `signature` is then what proves the server to
 * him.
 */
bool scram_fits(const struct store_scram *s, const char *message, size_t length, const uint8_t proof[static 32],
    uint8_t signature[static 32]);

/* A verifier with a fresh salt. 0, or -1. */
int scram_make(struct store_scram *s, const char *password, uint32_t iterations);

#endif
