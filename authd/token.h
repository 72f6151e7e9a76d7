/*
 * Random passwords that we make: app passwords, and the secrets of APOP and CRAM-MD5. 140 bits, in 7 groups of 4 for
 * typing. No guess reaches that, so an app password is kept as one fast keyed hash, and costs microseconds.
 */
#ifndef POSTERN_AUTHD_TOKEN_H
#define POSTERN_AUTHD_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "store.h"

#define TOKEN_PLAIN	29	/* 28 characters and the NUL */
#define TOKEN_TEXT	35	/* the same with a '-' after every fourth */

/* A fresh one, as it is shown: "abcd-efgh-...". */
void token_make(char text[static TOKEN_TEXT]);

/* What was typed, without '-' and blanks and in small letters; false if it cannot be one of ours. */
bool token_read(char plain[static TOKEN_PLAIN], const char *typed);

/* The hash of an app password of this user, under the store's key. */
void token_hash(uint8_t hash[static 32], const uint8_t key[static STORE_KEY_SIZE], const char *user, const char *plain);

/* Seals the text into u->secret, for this user only. */
void secret_seal(struct store_user *u, const uint8_t key[static STORE_KEY_SIZE], const char *user, const char *text);
/* 0 and the text, or -1 if there is none or it was not sealed by this key for this user. */
int secret_open(const struct store_user *u, const uint8_t key[static STORE_KEY_SIZE], const char *user, char text[static TOKEN_TEXT]);

#endif
