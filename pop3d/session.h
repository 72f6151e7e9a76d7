/* A session: one connection, from greeting to QUIT, and all that pop3d knows of it. */
#ifndef POP3D_SESSION_H
#define POP3D_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "catalogue.h"
#include "conf.h"
#include "line.h"
#include "messages.h"
#include "output.h"
#include "place.h"
#include "stream.h"
#include "wire.h"

/* RFC 1939's states; UPDATE is not one in which a command can come. */
enum state { STATE_AUTHORIZATION, STATE_TRANSACTION };

/* What a handler tells the loop; the reply to the command is in the output already. */
enum event {
	EVENT_DONE,		/* a good command */
	EVENT_REFUSED,		/* a known command that could not be done; not nonsense */
	EVENT_NONSENSE,		/* not a command, or not its grammar: too much of it ends the session */
	EVENT_TRANSACTION,	/* logged in: the other table holds from now on */
	EVENT_END		/* nothing more is read; session->end says why */
};

#define PAGE 4096		/* what most processors have; the more is only room */
#define FEW_MARKS 128		/* for maildrops of fewer messages no marks are allocated, */
#define FEW_ROWS 3072		/* and a catalogue of at most so many octets need not be mapped */

struct session {
	const struct conf *conf;
	struct stream stream;
	struct body_hello hello;	/* id, addresses, TLS facts */
	bool hello_sent;
	bool tls;
	bool loopback;
	bool utf8;			/* the client has said UTF8 (RFC 6856) */
	uint32_t mechanisms;		/* offered on this connection as it is now: conf_mechanisms() */
	enum state state;
	unsigned nonsense;		/* lines of it in a row */
	int authd;			/* the verifier, or -1 */
	const struct connection *connection;
	int keeper;			/* from when TLS is wanted until it is active; or -1 */
	int64_t started;
	const char *end;		/* why the session is over, for the log */

	char user[USER_SIZE];		/* USER's, then the one who is logged in */

	/* TRANSACTION */
	int worker;			/* -1 before login */
	struct catalogue catalogue;
	struct body_ready ready;
	int mbox;			/* open for reading; -1 for a Maildir */
	bool no_delete;
	bool quit;			/* the worker has been asked for the end: it hears nothing more */
	unsigned char *marks;		/* enum mark, one a message */
	uint32_t deleted;
	uint64_t deleted_octets;
	bool mbox_changed;		/* another program was at work on it, after the scan */
	struct asked asked;		/* of the worker, ahead */
	struct ahead {			/* the next answer, made while the client is silent */
		struct place place;	/* of the message; number 0: nothing was made */
		struct place sent;	/* of one that was, to be closed when there is time; or number 0 */
		struct wire_form form;
		uint64_t done;		/* octets of it that are in the output (output_kept) */
	} ahead;
	uint32_t just, before;		/* the message that the last command retrieved, and the one before that; 0: it was another command */
	int luck;			/* how well it was guessed what is retrieved next; 0 or less: do not */
	uint32_t retrieved, topped, removed;	/* how many, for the log */
	unsigned char few_marks[FEW_MARKS];

	/*
	 * What is large comes last, and of each no more than the beginning is used in most sessions: each page that is touched costs, and is kept. With the
	 * first one of `message` on the one that is above, and that of `lines` beside the rows, they are three.
	 */
	struct message message;		/* what the verifier or the worker was asked, and then what it said */
	_Alignas(PAGE) unsigned char few_rows[FEW_ROWS];
	struct lines lines;
	_Alignas(PAGE) struct output output;
};

struct command {
	const char *name;
	/* `argument` is what follows the name and blanks; without trailing blanks, "" if there is nothing. */
	enum event (*handler)(struct session *s, char *argument);
	enum { ARGUMENT_NONE, ARGUMENT_SOME, ARGUMENT_MAYBE, ARGUMENT_RAW } argument;	/* RAW: after one blank, as it is */
	const char *usage;		/* for the error */
};

extern const struct command authorization_commands[], transaction_commands[];	/* ended by one without a name */

/* A connection, and what its process has for it. */
struct connection {
	int in, out;			/* non-blocking, with their options set (stream.h) */
	int authd;			/* the verifier, or -1 */
	int keeper;			/* or -1: `listener` is asked for it when TLS begins */
	int listener;			/* whom to ask for that, and to admit a client that a proxy speaks for; -1 in nowait mode */
	bool implicit_tls;
	bool tls;			/* STLS is offered */
	char client[ADDRESS_SIZE], local[ADDRESS_SIZE];
	uint32_t client_port, local_port;
};

/* Where the message can be put that brings the connection: a process for a session that does not come yet touches nothing else. */
struct message *session_room(void);

/* Speaks with the client until it is over, in a process that is in its cell. Never fails: what goes wrong is told to the client and the log. */
void session_run(const struct conf *c, const struct connection *connection);

/* For the handlers: the next line, which answers a challenge. False if the client is gone. */
bool session_answer(struct session *s, char **line, enum line_result *result);

/* Is the keeper there, so that TLS can begin? */
bool session_keeper(struct session *s);

/* TLS from now on, and what follows from it. False if it failed: then nothing more may be sent. */
bool session_tls(struct session *s);

/* CAPA, the same in both states but for what cannot be done again. */
enum event on_capa(struct session *s, char *argument);

/* LANG in both states, UTF8 in the first (RFC 6856). */
enum event on_lang(struct session *s, char *argument);
enum event on_utf8(struct session *s, char *argument);
/* Has the header of the message that is there an octet that is not ASCII? What cannot be read has none. */
bool header_needs_utf8(int fd, off_t offset, uint64_t length);

/* A message to the client, for RETR (lines NULL) and TOP. */
enum event retrieve(struct session *s, uint32_t number, const uint64_t *lines);
/* While there is nothing else to do: begins to make the answer that comes next. Nothing may be in the output; never waits. */
void retrieve_ahead(struct session *s);

#endif
