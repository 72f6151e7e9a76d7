/* What pop3d asks of the others: one function a question. After a question that failed the conversation is over, and its descriptor closed. */
#ifndef POP3D_ASK_H
#define POP3D_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf.h"
#include "messages.h"

#define BANNER_SIZE sizeof(((struct body_banner *)NULL)->timestamp)

/* Connected to one of the suite's sockets in run-dir, as long as the cell allows it; -1 with errno. Waits a second if it must. */
int ask_reach(const struct conf *c, const char *name);

/* Connects to authd's verifier; -1 if it is not there (logged). */
int ask_connect(const struct conf *c);

/* Has the listener connect this process to authd's keeper. -1 if that cannot be. */
int ask_keeper(int listener);

/*
 * The timestamp for the end of the greeting, where APOP is configured (RFC 1939 section 7): the verifier makes it and remembers it. "" if it does not
 * answer in time. The conversation goes on.
 */
void ask_banner(int authd, const char *session, char timestamp[static BANNER_SIZE]);

enum ask_login { ASK_CHALLENGE, ASK_GRANTED, ASK_DENIED, ASK_GONE };

/*
 * Begins a login, or goes on with one; waits for the answer, at most `milliseconds`. The data is copied and the copy wiped. After ASK_CHALLENGE, ASK_GRANTED and ASK_DENIED *answer is
 * the message (the session's descriptor with GRANTED, the caller's); after ASK_GONE close the conversation. With `hello` the verifier is told first what pop3d knows of
 * its connection.
 */
enum ask_login ask_auth(int authd, const struct body_hello *hello, enum mechanism mechanism, const void *data, size_t length, int milliseconds,
    struct message *answer);
enum ask_login ask_respond(int authd, bool cancelled, const void *data, size_t length, int milliseconds, struct message *answer);

/* Tells the listener which client a proxy speaks for: may it have one more connection? */
bool ask_admitted(int listener, const char *client);

/* Waits for what the worker says first: 1 and READY, BUSY or FAILED in *answer; 0 if the worker is gone. */
int ask_opened(int worker, struct message *answer);

/* Asks for a message's bytes without waiting. False if the worker is gone. */
bool ask_fetch(int worker, uint32_t number);
/* The same for count messages, at most FETCH_AHEAD_MAX. */
bool ask_fetch_ahead(int worker, uint32_t number, uint32_t count);
/* The answer to the oldest of these: MESSAGE, MESSAGES from there on, or FAILED in *answer, for that number; 0 if the worker is gone. */
int ask_fetched(int worker, uint32_t number, struct message *answer);
/* The same if it is there already; 0 as well if it is not. */
int ask_fetched_now(int worker, uint32_t number, struct message *answer);

/* This message was not what the catalogue says of it. */
void ask_differs(int worker, uint32_t number);

/* For the counters alone: what was sent to the client, and how many messages. Before ask_update, or at an end without it. */
void ask_spent(int worker, uint64_t octets, uint64_t messages);

/* LEAVE, which tells the same as ask_spent: nothing is marked. UPDATED or UPDATE_FAILED in *answer; 0 if the worker is gone. */
int ask_leave(int worker, uint64_t octets, uint64_t messages, struct message *answer);
/* UPDATE with the marks (count octets). The same comes of it. */
int ask_update(int worker, const unsigned char *marks, uint32_t count, struct message *answer);

#endif
