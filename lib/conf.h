/*
 * The configuration: one INI file for the suite (postern.conf(5)). Every program reads all of it, so that a mistake
 * is told by whichever is started first. Each key is a row of a table in conf.c: its type, default, limits and the words
 * that an error says are accepted.
 */
#ifndef POSTERN_CONF_H
#define POSTERN_CONF_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "messages.h"

#define CONF_PATH_DEFAULT	"/etc/postern/postern.conf"
#define CONF_STRING		512	/* the longest value, with the NUL */
#define CONF_NETWORKS		32
#define CONF_PAIRS		16	/* certificate and key */
#define CONF_KEYS		64	/* no more than so many keys are there */

enum conf_program { PROGRAM_POP3D, PROGRAM_AUTHD, PROGRAM_SPOOLD, PROGRAM_COUNT };
enum log_to { LOG_TO_SYSLOG, LOG_TO_STDERR };
enum sandbox_mode { SANDBOX_REQUIRED, SANDBOX_BEST_EFFORT, SANDBOX_OFF };
enum cleartext_login { CLEARTEXT_LOOPBACK, CLEARTEXT_NEVER, CLEARTEXT_ALWAYS };
enum store_kind { STORE_AUTO, STORE_MBOX, STORE_MAILDIR };
enum server_copy { COPY_AS_CLIENT_SAYS, COPY_KEEP, COPY_MARK_READ, COPY_ARCHIVE, COPY_DELETE, COPY_COUNT };
enum utf8_headers { UTF8_HEADERS_SEND, UTF8_HEADERS_REFUSE };
enum mbox_lock { LOCK_FCNTL, LOCK_DOTLOCK, LOCK_FLOCK, LOCK_COUNT };

/* An ordered set of words out of a fixed list, as numbers. */
struct conf_set {
	uint32_t count;
	uint32_t item[16];
};

struct conf_network {
	int family;		/* AF_INET or AF_INET6 */
	uint8_t address[16];
	unsigned bits;
};

struct conf_networks {
	uint32_t count;
	struct conf_network network[CONF_NETWORKS];
};

struct conf_paths {
	uint32_t count;
	char path[CONF_PAIRS][CONF_STRING];
};

struct conf {
	char file[CONF_STRING];		/* where it was read from */
	unsigned line[CONF_KEYS];	/* where each key stands first; 0: not given. See conf_line */
	/* [postern] */
	char run_dir[CONF_STRING];
	char state_dir[CONF_STRING];
	int log;			/* enum log_to */
	int log_level;			/* syslog's LOG_ERR, LOG_WARNING, LOG_INFO or LOG_DEBUG */
	int sandbox;			/* enum sandbox_mode */
	/* [pop3d] */
	char pop3d_user[CONF_STRING];	/* whose processes authd answers, besides its own user when unprivileged */
	int cleartext_login;		/* enum cleartext_login */
	uint64_t max_connections;
	uint64_t max_per_address;	/* IPv4 by /32, IPv6 by /64 */
	uint64_t login_timeout;		/* seconds */
	uint64_t idle_timeout;		/* seconds */
	uint64_t minimum_rate;		/* octets a second; 0: any */
	uint64_t prefork;		/* processes waiting for a connection */
	struct conf_networks proxy_protocol_from;
	int language;			/* enum language: what LANG * means */
	int utf8_headers;		/* enum utf8_headers */
	/* [tls] */
	struct conf_paths certificate;
	struct conf_paths key;
	int tls_minimum;		/* 12 or 13 */
	char client_ca[CONF_STRING];
	/* [authd] */
	char authd_user[CONF_STRING];
	struct conf_set stores;		/* of enum store */
	char db[CONF_STRING];
	char pam_service[CONF_STRING];
	struct conf_set mechanisms;	/* of enum mechanism */
	uint64_t cache_ttl;		/* seconds; 0: nothing is remembered */
	uint64_t hashers;		/* 0: as many as cores */
	int throttle;			/* bool */
	struct conf_networks throttle_exempt;
	uint64_t login_delay;		/* seconds; 0: none */
	/* [spoold] */
	int store;			/* enum store_kind */
	char mbox[CONF_STRING];		/* %u the user's name; ~/ the home directory */
	char maildir[CONF_STRING];
	struct conf_set mbox_locks;	/* of enum mbox_lock, in the order in which they are taken */
	uint64_t min_uid;
	char virtual_user[CONF_STRING];	/* empty: none */
	int takeover;			/* bool */
	int server_copy;		/* enum server_copy */
	struct conf_set server_copy_choice;	/* of enum server_copy: what a user may have of his own */
	uint64_t expire;		/* days; 0: never */
	char uidl_format[CONF_STRING];
	uint64_t linger;		/* seconds that a worker waits for its user's next session; 0: none */
	uint64_t linger_workers;	/* how many may wait */
};

/*
 * Reads `path` into *c, defaults first. A file that is not there is an error, except CONF_PATH_DEFAULT with
 * `optional`. 0, or -1 after writing one line to `error` (of `size`): "FILE:LINE: [section] key: what is wrong; accepted: ...".
 */
int conf_load(struct conf *c, const char *path, bool optional, char *error, size_t size);

/* The line of the file in which this key stands; 0: it has its default. */
unsigned conf_line(const struct conf *c, const char *section, const char *name);

/* Where an error about a key is: "FILE:LINE: [section] key", or without the line if it has its default. Returns `place`, of `size`. */
#define CONF_PLACE	(CONF_STRING + 96)
const char *conf_place(const struct conf *c, const char *section, const char *name, char *place, size_t size);

/*
 * At a reload: what `program` can only take over at its next start stays in *fresh as it is in *running. `names` lists those that are to change:
 * "[postern] log, [pop3d] prefork"; empty if there are none.
 */
void conf_keep(struct conf *fresh, const struct conf *running, enum conf_program program, char *names, size_t size);

/* The same of a file that is open already, which is closed; or from -1 with errno, if it could not be opened. */
int conf_read(struct conf *c, const char *path, int fd, bool optional, char *error, size_t size);

bool conf_has(const struct conf_set *set, uint32_t item);

/* Does the numeric address (as in HELLO) lie in one of the networks? */
bool conf_in_networks(const struct conf_networks *n, const char *address);

/* One address or network, as the configuration has them. False if it is neither. */
bool conf_network_parse(struct conf_network *n, const char *text);

/* run_dir/NAME into `path`; -1 with ENAMETOOLONG if it does not fit. */
int conf_run_path(const struct conf *c, const char *name, char *path, size_t size);

/* What AUTH and CAPA may offer on this connection: a bit (1 << enum mechanism) each. pop3d prints it, authd enforces it. */
uint32_t conf_mechanisms(const struct conf *c, bool tls, bool loopback);

/* "PLAIN"; the name on the wire. */
const char *mechanism_name(uint32_t mechanism);

/* The words for `enum store` and others, as the configuration has them. */
const char *store_name(uint32_t store);

/* An enum server_copy as the configuration has it; and the other way, -1 if it is none. */
const char *server_copy_name(int server_copy);
int server_copy_parse(const char *word);

/* Prints every key with its default and what is accepted: what the test compares with the manual and the example. */
void conf_print_keys(void);

#endif
