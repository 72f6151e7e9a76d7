/*
 * Every message of the suite. Read this page to know who may say what to whom.
 *
 * All talk is over Unix SOCK_SEQPACKET: one packet is one message, and descriptors ride along. A packet is
 * a struct message_header, then exactly the body that the roster names; bodies have a fixed size, no pointers and no padding,
 * and their strings end inside their array. message_receive() yields only a message of a known type, for this
 * side, from that side, of exactly that size, with exactly that many descriptors, whose strings end.
 * Anything else is EPROTO, and costs the sender its conversation (never the receiver more than that).
 *
 * The sides:
 *   LISTENER  pop3d that accepts connections and hands them on        _postern
 *   POP3D     pop3d that has one connection                           _postern
 *   AUTHD     authd's parent: starts and supervises                   root
 *   VERIFIER  authd's verifier: the only one that pop3d can reach      _postern-auth
 *   HASHER    authd's hasher: Argon2id and crypt(3)                   _postern-auth
 *   KEEPER    authd's keeper of the TLS private keys                  _postern-auth
 *   PAM       authd's PAM process                                     root
 *   SPOOLD    spoold's parent                                         root
 *   WORKER    spoold's worker: one mailbox                            the mailbox owner
 *   TOOL      authctl and spoolctl                                    root
 */
#ifndef POSTERN_MESSAGES_H
#define POSTERN_MESSAGES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "histogram.h"

#define SESSION_ID_SIZE		17	/* 16 hex digits and the NUL */
#define USER_SIZE		256	/* a user name of at most 255 octets and the NUL */
#define PASSWORD_SIZE		1024
#define ADDRESS_SIZE		48	/* a numeric IPv6 address, with the NUL */
#define SASL_SIZE		9216	/* what 12,288 octets of base64 decode to (RFC 5034 section 4) */
#define LOGIN_SIZE		1024	/* an initial response that fits into LOGIN */
#define CHALLENGE_SIZE		2048
#define TEXT_SIZE		160
#define PATH_SIZE		1024

#define MESSAGE_MAX_FDS		8	/* the most that any message carries */

enum side {
	SIDE_LISTENER, SIDE_POP3D, SIDE_AUTHD, SIDE_VERIFIER, SIDE_HASHER, SIDE_KEEPER, SIDE_PAM, SIDE_SPOOLD,
	SIDE_WORKER, SIDE_TOOL
};

/* How a client means to prove who it is. Also the order in which AUTH lists the mechanisms, strongest first. */
enum mechanism {
	MECHANISM_SCRAM_SHA_256_PLUS, MECHANISM_SCRAM_SHA_256, MECHANISM_EXTERNAL, MECHANISM_CRAM_MD5,
	MECHANISM_PLAIN, MECHANISM_LOGIN,
	MECHANISM_USER,		/* USER and PASS: the data is "\0user\0password", as PLAIN has it */
	MECHANISM_APOP,		/* the data is "user digest" */
	MECHANISM_COUNT
};

enum store { STORE_DB, STORE_PAM, STORE_COUNT };

/* Why a login is refused; what the client may learn of it. */
enum denial {
	DENIED_CREDENTIALS,	/* -ERR [AUTH]: unknown, wrong, locked: one answer */
	DENIED_DELAY,		/* -ERR [LOGIN-DELAY]: this user logged in less than login-delay ago */
	DENIED_TEMPORARY,	/* -ERR [SYS/TEMP]: try again later */
	DENIED_PERMANENT,	/* -ERR [SYS/PERM]: an administrator must mend something */
	DENIED_MECHANISM,	/* -ERR: this mechanism is not offered here */
	DENIED_PROTOCOL,	/* -ERR: the exchange was malformed (bad data, too long, cancelled) */
	DENIED_COUNT
};

/* Why a maildrop cannot be opened, read or updated. */
enum failure {
	FAILURE_TEMPORARY,	/* [SYS/TEMP]: out of memory, I/O error, lock not to be had in time */
	FAILURE_PERMISSION,	/* [SYS/PERM]: the owner may not read or write it */
	FAILURE_KIND,		/* [SYS/PERM]: not a file or Maildir: a directory, FIFO, link or device in its place */
	FAILURE_USER,		/* [SYS/PERM]: no such account, uid 0 or under min-uid, no maildrop configured */
	FAILURE_FULL,		/* [SYS/TEMP]: disk full or over quota; mailbox as it was */
	FAILURE_CHANGED,	/* some marked messages were changed by another program and were left */
	FAILURE_VANISHED,	/* that message is no longer there */
	FAILURE_TAKEN,		/* a newer login took the maildrop over */
	FAILURE_ARCHIVE,	/* [SYS/PERM]: the owner may not write the archive, or it is no file or folder of his */
	FAILURE_COUNT
};

struct message_header {
	uint32_t magic;		/* MESSAGE_MAGIC: names the version of the roster as well */
	uint32_t type;
};
#define MESSAGE_MAGIC 0x504f5301u

#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wpadded"

/*
 * LISTENER hands one accepted connection to a pop3d forked ahead, which can reach nobody by itself. Descriptors: the connection, and a conversation
 * with the verifier that has just begun (else, with verifier 0, the connection once more, so that there are always two).
 */
struct body_connection {
	char client[ADDRESS_SIZE];	/* numeric; empty if the peer is not an Internet socket */
	char local[ADDRESS_SIZE];
	uint32_t client_port;
	uint32_t local_port;
	uint32_t verifier;		/* 0 or 1 */
	uint32_t implicit_tls;		/* 0 or 1 */
	uint32_t tls;			/* 0 or 1: REACH may be asked */
};

/* POP3D to LISTENER, once, before TLS begins: connect me to the keeper. Answered by REACHED with that conversation, or by the end of this one. */
struct body_reach {
	uint32_t zero;
};
struct body_reached {
	uint32_t zero;
};

/* POP3D to LISTENER: the proxy that connected speaks for this client, who counts for the limits. Answered by ADMITTED. */
struct body_proxied {
	char client[ADDRESS_SIZE];	/* numeric */
};
struct body_admitted {
	uint32_t allowed;		/* 0: too many connections of this client's */
};

/* What POP3D knows of its connection; sent before the first AUTH, and once more if STLS has changed it since then. */
struct body_hello {
	char session[SESSION_ID_SIZE];
	char client[ADDRESS_SIZE];	/* numeric; empty if the peer is not an Internet socket */
	char local[ADDRESS_SIZE];
	char tls_version[16];		/* "TLS1.3"; empty without TLS */
	char binding_type[32];		/* channel binding: "tls-unique" (RFC 5929), "tls-exporter" (RFC 9266); empty if none */
	char zero[3];
	uint32_t client_port;
	uint32_t local_port;
	uint32_t binding_length;
	uint8_t binding[64];
	uint32_t has_certificate;	/* 0 or 1: the client has shown one that client-ca vouches for */
	uint8_t certificate[32];	/* SHA-256 of it, and of its public key (which outlives a renewal) */
	uint8_t certificate_key[32];
	uint32_t end_point_length;	/* the binding tls-server-end-point, which there may be beside the other one */
	uint8_t end_point[64];
};

/* POP3D asks to log a user in. May be asked again after DENIED, or after BUSY or FAILED from the worker. */
struct body_auth {
	uint32_t mechanism;		/* enum mechanism */
	uint32_t has_initial;		/* 0 or 1: an empty initial response is not the same as none */
	uint32_t length;		/* of data */
	uint8_t data[SASL_SIZE];	/* the initial response, base64 decoded */
};

/*
 * HELLO and AUTH in one, where HELLO has not been said and the initial response is short: what nearly every login is.
 * No more is sent than a login takes, and the verifier wakes up once.
 */
struct body_login {
	struct body_hello hello;
	uint32_t mechanism;
	uint32_t has_initial;
	uint32_t length;
	uint8_t data[LOGIN_SIZE];
};

/* POP3D: the client's answer to the last CHALLENGE; VERIFIER: answers with CHALLENGE, GRANTED or DENIED. */
struct body_respond {
	uint32_t cancelled;		/* 0 or 1: the client sent "*" */
	uint32_t length;
	uint8_t data[SASL_SIZE];
};

struct body_challenge {
	uint32_t length;
	uint8_t data[CHALLENGE_SIZE];
};

/* VERIFIER: the user is who he says, and the descriptor is the worker's end of the session (READY follows on it). */
struct body_granted {
	char user[USER_SIZE];		/* the name after SASLprep and without any prefix: for the log */
	uint32_t no_delete;		/* 0 or 1: a read-only app password: DELE is refused */
};

struct body_denied {
	uint32_t denial;		/* enum denial */
	uint32_t seconds;		/* with DENIED_DELAY: how long to wait */
	uint32_t last;			/* 0 or 1: no further AUTH is answered on this connection */
};

/* VERIFIER asks SPOOLD to open the maildrop of a user it has verified. Answered at once by CHANNEL or REFUSED. */
struct body_open {
	char session[SESSION_ID_SIZE];
	char user[USER_SIZE];
	char client[ADDRESS_SIZE];
	char zero[3];
	uint32_t store;			/* enum store: which one vouched for the user */
	uint32_t no_delete;		/* 0 or 1 */
	uint32_t recent;		/* 0 or 1: the login name was recent:USER */
};

/* SPOOLD: the descriptor is the session's socket; the worker speaks on its other end. */
struct body_channel {
	char session[SESSION_ID_SIZE];
};

struct body_refused {
	char session[SESSION_ID_SIZE];
	char zero[3];
	uint32_t failure;		/* enum failure */
};

/*
 * WORKER: the maildrop is open and locked. Descriptors: the catalogue (catalogue.h), and for an mbox the mailbox open
 * for reading (else the catalogue once more, so that there are always two).
 */
struct body_ready {
	uint64_t octets;		/* the sum of all sizes on the wire */
	uint32_t count;			/* messages */
	uint32_t kind;			/* enum maildrop_kind */
	int64_t mtime_sec;		/* mbox: the file as it was scanned; while it has not changed, offsets hold */
	int64_t mtime_nsec;
	uint64_t size;
	uint32_t expire;		/* days that a message stays at least (RFC 2449 section 6.7), for this user and login; EXPIRE_NEVER */
	uint32_t zero;
};
#define EXPIRE_NEVER UINT32_MAX

/* WORKER: another session has this maildrop. */
struct body_busy {
	int64_t since;			/* seconds since the epoch; 0 if not known */
};

/* WORKER: the maildrop cannot be opened, or (after FETCH) message number cannot be had. */
struct body_failed {
	uint32_t failure;		/* enum failure */
	uint32_t number;		/* 0: the maildrop itself */
};

/* POP3D wants message number's bytes; several may be asked for ahead, and are answered in order. FAILED for one does not end the session. */
struct body_fetch {
	uint32_t number;		/* from 1 */
};

/* POP3D: the same as count FETCHes, of message number and those after it. */
#define FETCH_AHEAD_MAX	16
struct body_fetch_ahead {
	uint32_t number;		/* from 1 */
	uint32_t count;			/* at most FETCH_AHEAD_MAX */
};

/* WORKER: the descriptor has the message at [offset, offset + length). */
struct body_message {
	uint32_t number;
	uint32_t zero;
	uint64_t offset;
	uint64_t length;
};

/* WORKER: so many MESSAGEs in one, of message number and those after it; in answer to FETCH_AHEAD alone. The descriptors are in that order. */
#define FETCHED_TOGETHER 8
struct body_messages {
	uint32_t number;
	uint32_t zero;
	uint64_t offsets[FETCHED_TOGETHER];
	uint64_t lengths[FETCHED_TOGETHER];
};

/* POP3D: message number, as it was handed over, was not as many octets on the wire as the catalogue says. Not answered; the next session has it right. */
struct body_differs {
	uint32_t number;
};

/* POP3D, after QUIT: the descriptor is a sealed memfd of count bytes, each a set of enum mark. */
struct body_update {
	uint32_t count;
};
enum mark { MARK_DELETED = 1, MARK_RETRIEVED = 2 };

/*
 * POP3D, after QUIT of a session that deleted and retrieved nothing: the maildrop is not needed any more. Answered by UPDATED, as UPDATE is; in
 * both cases the worker gives the session lock back BEFORE it answers, so that a client told +OK can log in again at once.
 */
struct body_release {
	uint32_t zero;
};

/* SPENT and RELEASE in one. */
struct body_leave {
	uint64_t octets;
	uint64_t messages;
};

/*
 * WORKER: exactly the marked messages are gone, durably. What a journal has made certain may be carried out after this, and then the session lock is
 * free when the worker closes the session, and else now.
 */
#define NO_CUT UINT64_MAX
struct body_updated {
	uint32_t deleted;
	uint32_t left;			/* how many remain in the maildrop, new ones included */
	uint64_t length;		/* an mbox is being cut off, and then so many octets long; NO_CUT: it is not */
};

/* WORKER: the UPDATE did not remove all that was marked; left of them are still there. Nothing else changed. */
struct body_update_failed {
	uint32_t failure;
	uint32_t left;
};

/* WORKER to SPOOLD: which maildrop it has; the parent answers CLAIMED. device and inode are of the locked file. */
struct body_claim {
	uint64_t device;
	uint64_t inode;
	int64_t born;			/* when the file was made, in seconds since the epoch; 0 if not known */
	uint32_t held;			/* 1: I have its session lock; 0: somebody else has, since when? */
	uint32_t zero;
};
struct body_claimed {
	int64_t since;			/* held 0: since when the other session has it; 0 if not known */
	uint32_t ended;			/* held 0: 1 if the other session was told to end (takeover): try again */
	uint32_t journal;		/* held 1: enum journal_left */
};
enum journal_left {
	JOURNAL_NONE,
	JOURNAL_OURS,			/* an earlier UPDATE may have left one: JOURNAL_FIND */
	JOURNAL_OTHERS,			/* one has, when the mbox was another uid's: it may not be served, and the parent has logged why */
	JOURNAL_LEFT_COUNT
};

/*
 * WORKER to SPOOLD, which only the parent's rights allow, for the worker's own maildrop alone. Answered by DONE. Some of it is asked of the worker's locker,
 * which answers as the parent does: dotlock, lock file, and what the parent does for nobody.
 */
enum privileged {
	PRIVILEGED_DOTLOCK_MAKE,	/* MAILBOX.lock beside the mbox; error EEXIST while another holds it */
	PRIVILEGED_DOTLOCK_REMOVE,
	PRIVILEGED_JOURNAL_DROP,	/* the UPDATE is done and durable */
	PRIVILEGED_JOURNAL_SET_ASIDE,	/* not to be acted on: keep it under another name */
	PRIVILEGED_CACHE_DROP,
	/* These are answered by HANDED with the file, or by DONE with an error. */
	PRIVILEGED_JOURNAL_FIND,	/* the journal that an earlier UPDATE left; error ENOENT: none did */
	PRIVILEGED_JOURNAL_MAKE,	/* an empty one, its name durable */
	PRIVILEGED_CACHE_OPEN,		/* made if it was not there */
	PRIVILEGED_LOCKFILE_OPEN,	/* the session lock's file beside the mbox, made if it was not there */
	PRIVILEGED_LOCKFILE_REMOVE,
	PRIVILEGED_FINISHING,		/* the UPDATE is durable and answered, and still being carried out: who comes now is to wait */
	PRIVILEGED_RELEASED,		/* the session lock is given back; the worker only tidies up */
	/* The same files, for reading only: nothing is made, and nothing comes of it when the worker ends. */
	PRIVILEGED_JOURNAL_LOOK,
	PRIVILEGED_CACHE_LOOK,
	/* What one is sent through the socket of KEEP stays there, whatever becomes of who sent it, until the journal is dropped. */
	PRIVILEGED_KEEP,		/* HANDED: a socket to send LOCKS into */
	PRIVILEGED_KEPT,		/* HANDED: the socket that has what a dead worker sent; error ENOENT: none */
	/* Of the locker alone: with the worker's rights, the mbox and its archive as they have these names now. */
	PRIVILEGED_MAILBOX_OPEN,	/* for writing, too */
	PRIVILEGED_MAILBOX_LOOK,
	PRIVILEGED_ARCHIVE_OPEN,	/* made if it was not there */
	PRIVILEGED_ARCHIVE_FIND,
	PRIVILEGED_ARCHIVE_LOOK,
	PRIVILEGED_COUNT
};
struct body_privileged {
	uint32_t what;			/* enum privileged */
};
struct body_done {
	uint32_t what;
	int32_t error;			/* 0 or an errno */
};

/* SPOOLD: the file that PRIVILEGED asked for. */
struct body_handed {
	uint32_t what;
};

/*
 * WORKER to SPOOLD, its first message, sent while it is still root and has not touched the maildrop: whose rights it will have. What the
 * parent does for it later is bound to this.
 */
struct body_resolved {
	char user[USER_SIZE];
	char mbox[PATH_SIZE];		/* where an mbox would be, as configured: MAILBOX.lock is made beside it; empty if it is a Maildir */
	uint32_t uid;
	uint32_t gid;
};

/* WORKER to SPOOLD, once, before CLAIM: the maildrop's canonical path. With the uid it names the journal and the cache. */
struct body_maildrop {
	char path[PATH_SIZE];
	uint32_t kind;			/* enum maildrop_kind */
};

/* spoolctl asks SPOOLD on its control socket. Answered by SPOOL_SESSION (any number), SPOOL_CHANNEL (or not), then SPOOL_FINISHED. */
enum spool_command {
	SPOOL_WHO,			/* a SPOOL_SESSION for each */
	SPOOL_END,			/* argument: a session id. Ended without an UPDATE */
	SPOOL_OPEN,			/* argument: a user. SPOOL_CHANNEL: the tool takes POP3D's side of a session */
	SPOOL_REBUILD,			/* the same, after the cache has been dropped */
	SPOOL_RECOVER,			/* finish every UPDATE that was cut off; a SPOOL_PROGRESS after each */
	SPOOL_SHOW,			/* argument: a user. SPOOL_CHANNEL: the worker says SHOWN on it and ends */
	SPOOL_FIGURES,			/* SPOOL_FIGURES instead of SPOOL_FINISHED */
	SPOOL_EXPIRE,			/* as SPOOL_OPEN; RELEASE removes what has expired */
	SPOOL_COMMAND_COUNT
};
struct body_spool_command {
	char argument[USER_SIZE];
	uint32_t command;
};
struct body_spool_session {
	char session[SESSION_ID_SIZE];
	char user[USER_SIZE];
	char client[ADDRESS_SIZE];
	char path[PATH_SIZE];
	char zero[7];
	uint32_t uid;
	uint32_t pid;
	int64_t since;
};
struct body_spool_channel {
	char session[SESSION_ID_SIZE];
};
struct body_spool_finished {
	int32_t error;			/* 0 or an errno */
	uint32_t count;			/* SPOOL_RECOVER: journals found; SPOOL_WHO: sessions */
};

/* After each of the recoveries that SPOOL_RECOVER began. */
struct body_spool_progress {
	uint32_t done;
	uint32_t total;
};

/* What a worker that SPOOL_SHOW started says: what is there now. It has taken no lock and changed nothing. */
enum shown_flag {
	SHOWN_MISSING = 1,		/* there is no maildrop: an empty one is served */
	SHOWN_READONLY = 2,		/* its owner may not write it */
	SHOWN_COUNTED = 4,		/* messages, octets and fresh hold */
	SHOWN_CACHE = 8, SHOWN_JOURNAL = 16, SHOWN_DOTLOCK = 32	/* there is one, as the fields of its name say */
};
struct body_shown {
	char user[USER_SIZE];
	char path[PATH_SIZE];		/* canonical if it is there, else as configured */
	uint32_t failure;		/* enum failure; FAILURE_COUNT: none, else only user and what is known before it hold */
	uint32_t flags;			/* enum shown_flag */
	uint32_t store;			/* enum store: which knows the user; STORE_COUNT: none */
	uint32_t uid;
	uint32_t kind;			/* enum maildrop_kind */
	uint32_t server_copy;		/* enum server_copy */
	uint32_t messages;
	uint32_t fresh;			/* Maildir: how many are in new/ */
	uint32_t dotlock_pid;		/* 0: it names none */
	uint32_t zero;
	uint64_t octets;		/* on the wire */
	uint64_t size;			/* mbox: of the file */
	int64_t changed;		/* when the mbox, or one of the Maildir's directories, was last changed */
	uint64_t device;		/* of what the session lock is on */
	uint64_t inode;
	uint64_t cache_size;
	int64_t cache_changed;
	uint64_t journal_size;
	int64_t journal_changed;
	int64_t dotlock_since;
};

/* POP3D to WORKER, once, before UPDATE, RELEASE or the end without them: what went over the wire. Not answered. */
struct body_spent {
	uint64_t octets;		/* sent to the client, since it connected */
	uint64_t messages;		/* retrieved */
};

/* WORKER to SPOOLD, for its counters alone: what was done, how it ended, and how long it took. Not answered. */
enum measured {
	MEASURED_OPEN,			/* result: enum opened */
	MEASURED_UPDATE,		/* result: 0 done, 1 failed; count: messages removed */
	MEASURED_LOCK,			/* the delivery locks had to be waited for. result: 0 had, 1 not */
	MEASURED_SPENT,			/* count: octets; more: messages */
	MEASURED_COUNT
};
enum opened { OPENED_READY, OPENED_BUSY, OPENED_FAILED, OPENED_COUNT };
struct body_measured {
	uint32_t what;
	uint32_t result;
	uint64_t milliseconds;
	uint64_t count;
	uint64_t more;
};

/* What a daemon can say of its own confinement. */
struct confinement {
	uint32_t mode;			/* enum sandbox_mode */
	uint32_t whole;			/* 1: the kernel can do all that is asked of it */
};

enum recovered { RECOVERED_FINISHED, RECOVERED_ASIDE, RECOVERED_UNFINISHED, RECOVERED_COUNT };

/* SPOOLD: what it has counted since it started. */
struct body_spool_figures {
	int64_t started;
	struct confinement confinement;
	uint64_t sessions;		/* that run */
	uint64_t recoveries_running;
	uint64_t sessions_ended;
	uint64_t workers_died;		/* by a signal */
	uint64_t refused;		/* sessions that could not be started */
	uint64_t takeovers;
	uint64_t opened[OPENED_COUNT];
	uint64_t updated[2];
	uint64_t locked[2];		/* delivery locks that were waited for: had, and not */
	uint64_t recovered[RECOVERED_COUNT];
	uint64_t messages_removed;
	uint64_t messages_sent;
	uint64_t octets_sent;
	struct histogram session;	/* from the login to the worker's end */
	struct histogram open;
	struct histogram update;
	struct histogram lock;
};

/* spoolctl asks VERIFIER on authd's control socket; answered by AUTH_FIGURES. */
struct body_auth_command {
	uint32_t zero;
};

/* VERIFIER: what it and those before it have counted since authd started. */
struct body_auth_figures {
	int64_t started;
	struct confinement confinement;
	uint64_t logins[MECHANISM_COUNT][DENIED_COUNT + 1];	/* by enum denial; DENIED_COUNT: granted */
	uint64_t throttled;		/* attempts that were not tried, for those before them */
	uint64_t connections;		/* pop3d's, one for each of a client's */
	uint64_t waiting;		/* of those, not logged in and not over; asked of this verifier alone */
	uint64_t unused[2];		/* over without a login: nobody tried; tried in vain */
	struct histogram login;		/* from AUTH to the answer, the client's own part of the exchange included */
};

/* VERIFIER to HASHER: does this password fit this hash (libsodium's string, or crypt(3)'s)? */
struct body_hash {
	uint64_t ticket;
	char hash[512];
	char password[PASSWORD_SIZE];
};
struct body_hashed {
	uint64_t ticket;
	uint32_t verdict;		/* 1 fits, 0 does not */
	uint32_t error;			/* 1: could not be tried (memory) */
};

/* VERIFIER to PAM: an attempt. PAM forks a child for it; VERDICT comes when that ends or its time is over. */
struct body_attempt {
	uint64_t ticket;
	char user[USER_SIZE];
	char password[PASSWORD_SIZE];
	char client[ADDRESS_SIZE];
};
struct body_verdict {
	uint64_t ticket;
	char user[USER_SIZE];		/* PAM_USER at the end: a module may have changed it */
	uint32_t denial;		/* DENIED_COUNT: granted; else enum denial */
	int32_t pam;			/* the PAM code, for the log */
};

/*
 * POP3D, before it greets, if APOP is configured: what to show as the timestamp of RFC 1939 section 7. Answered by BANNER. The verifier keeps what it
 * made, so that a pop3d that was taken over cannot choose it. May come before HELLO.
 */
struct body_greet {
	char session[SESSION_ID_SIZE];
};
struct body_banner {
	char timestamp[128];		/* "<...@...>", for the end of the greeting */
};

/* VERIFIER to HASHER: a hash of this password at the cost of that one, to take the place of one that was imported. */
struct body_make {
	uint64_t ticket;
	char like[512];
	char password[PASSWORD_SIZE];
};
struct body_made {
	uint64_t ticket;
	char hash[512];			/* empty: could not be made */
};

/* AUTHD to VERIFIER: here is the channel to a hasher or the PAM process that was (re)started. */
struct body_attach {
	uint32_t side;			/* SIDE_HASHER, SIDE_PAM, SIDE_KEEPER */
};

/*
 * KEEPER, as soon as POP3D is connected: the descriptor is the sealed memfd of the certificate chains (chains.h), all of it public. To one that
 * inherited the chains of the same generation it says nothing new.
 */
struct body_chains {
	uint64_t generation;		/* names the content */
};

/* The listener, to the keeper: I stay to hear of a change. The keeper closes the conversation when it no longer serves; connect again. */
struct body_follow {
	uint32_t zero;
};

/*
 * POP3D asks for the one signature of its handshake. What may be signed is a closed list; the length of the data is the scheme's own: a digest,
 * or for Ed25519, which takes no digest, what a TLS server signs, whose form the keeper checks.
 */
enum sign_scheme {
	SIGN_RSA_PSS_SHA256, SIGN_RSA_PSS_SHA384, SIGN_RSA_PSS_SHA512,
	SIGN_RSA_SHA256, SIGN_RSA_SHA384, SIGN_RSA_SHA512,	/* PKCS #1 v1.5 (TLS 1.2): the keeper makes the DigestInfo */
	SIGN_ECDSA_P256, SIGN_ECDSA_P384, SIGN_ECDSA_P521,	/* SHA-256, SHA-384, SHA-512 */
	SIGN_ED25519,
	SIGN_SCHEME_COUNT
};
#define SIGN_DATA_SIZE		204
#define SIGNATURE_SIZE		1024
#define KEY_ID_SIZE		32	/* SHA-256 of the public key (its SubjectPublicKeyInfo) */

struct body_sign {
	uint8_t key[KEY_ID_SIZE];
	uint32_t scheme;		/* enum sign_scheme */
	uint32_t length;		/* of data */
	uint8_t data[SIGN_DATA_SIZE];
};

struct body_signature {
	uint32_t length;
	uint8_t data[SIGNATURE_SIZE];
};

/*
 * WORKER to SPOOLD, instead of ending: the session is over, its lock is free, and nothing of it is open any more. I wait a while for the next
 * session of the same user, or for the end of this conversation.
 */
struct body_idle {
	uint64_t kept;			/* octets of memory in which it remembers the maildrop as it was */
};

/* MEASURED (MEASURED_SPENT) and IDLE in one; and MEASURED (MEASURED_OPEN, OPENED_READY) of a session so short that it was not told by itself. */
struct body_left {
	uint64_t kept;
	uint64_t octets;
	uint64_t messages;
	uint64_t opened_ms;
	uint32_t opened;		/* 1: opened_ms is to be counted */
	uint32_t zero;
};

/*
 * WORKER + the mbox, locked, as PRIVILEGED_KEEP has it: to whichever worker recovers it, if this one is killed; the parent, whose
 * sockets they are, reads nothing.
 */
struct body_locks {
	uint32_t zero;
};

/*
 * SPOOLD to an idle WORKER: the descriptor is the next session's socket. It begins as every session does; the CLAIM says that it has been taken. A worker
 * that cannot take it ends without one, and SPOOLD forks another, as it does for one that has died.
 */
struct body_reopen {
	char session[SESSION_ID_SIZE];
	char zero[3];
	uint32_t no_delete;		/* 0 or 1 */
};

/* KEEPER to AUTHD's parent, once: the keys are loaded and I serve. One that cannot load them says why in the log and ends. */
struct body_kept {
	uint32_t pairs;
};

#pragma GCC diagnostic pop

/*
 * The roster: name, from, to, descriptors, body. Order is the number on the wire: add at the end.
 */
#define MESSAGE_ROSTER(M) \
	M(CONNECTION,	LISTENER,	POP3D,		2, connection) \
	M(HELLO,	POP3D,		VERIFIER,	0, hello) \
	M(AUTH,		POP3D,		VERIFIER,	0, auth) \
	M(RESPOND,	POP3D,		VERIFIER,	0, respond) \
	M(CHALLENGE,	VERIFIER,	POP3D,		0, challenge) \
	M(GRANTED,	VERIFIER,	POP3D,		1, granted) \
	M(DENIED,	VERIFIER,	POP3D,		0, denied) \
	M(OPEN,		VERIFIER,	SPOOLD,		0, open) \
	M(CHANNEL,	SPOOLD,		VERIFIER,	1, channel) \
	M(REFUSED,	SPOOLD,		VERIFIER,	0, refused) \
	M(READY,	WORKER,		POP3D,		2, ready) \
	M(BUSY,		WORKER,		POP3D,		0, busy) \
	M(FAILED,	WORKER,		POP3D,		0, failed) \
	M(FETCH,	POP3D,		WORKER,		0, fetch) \
	M(MESSAGE,	WORKER,		POP3D,		1, message) \
	M(UPDATE,	POP3D,		WORKER,		1, update) \
	M(RELEASE,	POP3D,		WORKER,		0, release) \
	M(UPDATED,	WORKER,		POP3D,		0, updated) \
	M(UPDATE_FAILED, WORKER,	POP3D,		0, update_failed) \
	M(CLAIM,	WORKER,		SPOOLD,		0, claim) \
	M(CLAIMED,	SPOOLD,		WORKER,		0, claimed) \
	M(PRIVILEGED,	WORKER,		SPOOLD,		0, privileged) \
	M(DONE,		SPOOLD,		WORKER,		0, done) \
	M(HASH,		VERIFIER,	HASHER,		0, hash) \
	M(HASHED,	HASHER,		VERIFIER,	0, hashed) \
	M(ATTEMPT,	VERIFIER,	PAM,		0, attempt) \
	M(VERDICT,	PAM,		VERIFIER,	0, verdict) \
	M(ATTACH,	AUTHD,		VERIFIER,	1, attach) \
	M(HANDED,	SPOOLD,		WORKER,		1, handed) \
	M(RESOLVED,	WORKER,		SPOOLD,		0, resolved) \
	M(MAILDROP,	WORKER,		SPOOLD,		0, maildrop) \
	M(SPOOL_COMMAND, TOOL,		SPOOLD,		0, spool_command) \
	M(SPOOL_SESSION, SPOOLD,	TOOL,		0, spool_session) \
	M(SPOOL_CHANNEL, SPOOLD,	TOOL,		1, spool_channel) \
	M(SPOOL_FINISHED, SPOOLD,	TOOL,		0, spool_finished) \
	M(PROXIED,	POP3D,		LISTENER,	0, proxied) \
	M(ADMITTED,	LISTENER,	POP3D,		0, admitted) \
	M(GREET,	POP3D,		VERIFIER,	0, greet) \
	M(BANNER,	VERIFIER,	POP3D,		0, banner) \
	M(MAKE,		VERIFIER,	HASHER,		0, make) \
	M(MADE,		HASHER,		VERIFIER,	0, made) \
	M(CHAINS,	KEEPER,		POP3D,		1, chains) \
	M(FOLLOW,	POP3D,		KEEPER,		0, follow) \
	M(SIGN,		POP3D,		KEEPER,		0, sign) \
	M(SIGNATURE,	KEEPER,		POP3D,		0, signature) \
	M(KEPT,		KEEPER,		AUTHD,		0, kept) \
	M(SPOOL_PROGRESS, SPOOLD,	TOOL,		0, spool_progress) \
	M(SHOWN,	WORKER,		TOOL,		0, shown) \
	M(SPENT,	POP3D,		WORKER,		0, spent) \
	M(MEASURED,	WORKER,		SPOOLD,		0, measured) \
	M(SPOOL_FIGURES, SPOOLD,	TOOL,		0, spool_figures) \
	M(AUTH_COMMAND,	TOOL,		VERIFIER,	0, auth_command) \
	M(AUTH_FIGURES,	VERIFIER,	TOOL,		0, auth_figures) \
	M(IDLE,		WORKER,		SPOOLD,		0, idle) \
	M(REOPEN,	SPOOLD,		WORKER,		1, reopen) \
	M(REACH,	POP3D,		LISTENER,	0, reach) \
	M(REACHED,	LISTENER,	POP3D,		1, reached) \
	M(LOGIN,	POP3D,		VERIFIER,	0, login) \
	M(LEAVE,	POP3D,		WORKER,		0, leave) \
	M(LEFT,		WORKER,		SPOOLD,		0, left) \
	M(FETCH_AHEAD,	POP3D,		WORKER,		0, fetch_ahead) \
	M(LOCKS,	WORKER,		WORKER,		1, locks) \
	M(MESSAGES,	WORKER,		POP3D,		FETCHED_TOGETHER, messages) \
	M(DIFFERS,	POP3D,		WORKER,		0, differs)

#define MESSAGE_ENUM(name, from, to, fds, body) MESSAGE_##name,
enum message_type { MESSAGE_ROSTER(MESSAGE_ENUM) MESSAGE_COUNT };
#undef MESSAGE_ENUM

#define MESSAGE_UNION(name, from, to, fds, body) struct body_##body body;
struct message {
	struct message_header header;
	/* what rode along; the receiver owns and closes them. -1 where there is none. */
	int fds[MESSAGE_MAX_FDS];
	pid_t pid;	/* the sender, as the kernel knows it, if the socket has SO_PASSCRED; else 0 */
	/* last, and the largest by far: of most messages no more than the first page of all this is ever written */
	union message_body { MESSAGE_ROSTER(MESSAGE_UNION) } body;
};
#undef MESSAGE_UNION

/* The name for logs, "HELLO"; "?" for a number that is not in the roster. */
const char *message_name(uint32_t type);

/* The size of a whole packet of this type; 0 if it is not in the roster. */
size_t message_size(uint32_t type);

/*
 * Empties *m and sets its type, with no descriptors. Call it before filling a message: no stale byte is ever sent.
 */
void message_start(struct message *m, enum message_type type);

/*
 * Sends *m with the descriptors of m->fds, which stay open and the caller's. Blocks if the socket does.
 * 0, or -1 with errno: EAGAIN (a non-blocking socket that is full), EPIPE, EPROTO (m is not what the roster says).
 */
int message_send(int fd, const struct message *m);

/*
 * Receives one message that `from` may send to `to`. Returns 1 with *m filled and its descriptors (close-on-exec) the
 * caller's; 0 if the peer has closed; -1 with errno EAGAIN, EINTR, or EPROTO if the packet is anything but a whole message of the
 * roster for these sides: then no descriptor is left open and the caller ends the conversation.
 */
int message_receive(int fd, struct message *m, enum side from, enum side to);

/* The same without waiting, whatever the socket does: -1 with EAGAIN if nothing is there. */
int message_receive_now(int fd, struct message *m, enum side from, enum side to);

/* The same, and it stays where it is for the next who looks; the descriptors are copies. */
int message_look(int fd, struct message *m, enum side from, enum side to);

/* Wipes everything in *m (it may have held a password) and closes descriptors that it still has. */
void message_clear(struct message *m);

/* A connected pair, close-on-exec. 0, or -1 with errno. */
int message_pair(int pair[2]);

/* Waits until a message is there to receive. 1, 0 after `milliseconds` (-1: no limit), -1 with errno. */
int message_wait(int fd, int milliseconds);

#endif
