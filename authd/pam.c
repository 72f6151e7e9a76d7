/*
 * What runs as root here: pam_run (forks, waits, kills), pam_try in the child (the modules). Nothing in this file
 * looks into a password; nothing reads what a client sent but the name, which the verifier has checked and is checked
 * again.
 */
#include "pam.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <security/pam_appl.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "store.h"
#include "system.h"
#include "wipe.h"

/* What the child writes into its pipe: one write, one read. */
struct outcome {
	int32_t pam;
	char user[USER_SIZE];
};

struct attempt {
	pid_t pid;		/* 0: free; the child leads a process group of its own */
	int pipe;		/* -1: answered, and waiting to be reaped */
	int64_t deadline;
	uint64_t ticket;
};

static struct attempt attempts[PAM_CHILDREN];
static volatile sig_atomic_t terminated;

static void
on_terminate(int signal)
{
	(void)signal;
	terminated = 1;
}

enum denial
pam_denial(int code)
{
	switch (code) {
	case PAM_SUCCESS:
		return DENIED_COUNT;
	case PAM_AUTH_ERR:
	case PAM_USER_UNKNOWN:
	case PAM_MAXTRIES:
	case PAM_PERM_DENIED:
	case PAM_CRED_INSUFFICIENT:
	case PAM_ACCT_EXPIRED:
	case PAM_NEW_AUTHTOK_REQD:
	case PAM_AUTHTOK_EXPIRED:
	case PAM_CRED_EXPIRED:
	case PAM_AUTHTOK_DISABLE_AGING:
	case PAM_CONV_ERR:	/* a prompt that cannot be answered: it may have come because the password was right */
		return DENIED_CREDENTIALS;
	default:
		return DENIED_TEMPORARY;
	}
}

static void
free_responses(struct pam_response *r, int count)
{
	for (int i = 0; i < count; i++)
		if (r[i].resp != NULL) {
			sodium_memzero(r[i].resp, strlen(r[i].resp));
			free(r[i].resp);
		}
	free(r);
}

/* What a mail program has to say: one password, once. */
struct conversation {
	const char *password;
	bool given;
	bool asked_more;
};

/*
 * The first prompt that is not echoed gets the password; whatever a module wants to tell is not for a mail program. To
 * give the password in answer to anything else would hand it to a module that asked for a code: any other prompt fails
 * the attempt.
 */
static int
converse(int count, const struct pam_message **messages, struct pam_response **responses, void *arg)
{
	struct conversation *c = arg;
	struct pam_response *r;

	if (count <= 0 || count > PAM_MAX_NUM_MSG || (r = calloc((size_t)count, sizeof *r)) == NULL)
		return PAM_CONV_ERR;
	for (int i = 0; i < count; i++) {
		int style = messages[i]->msg_style;
		if (style == PAM_TEXT_INFO || style == PAM_ERROR_MSG)
			continue;
		c->asked_more = c->asked_more || style != PAM_PROMPT_ECHO_OFF || c->given;
		if (c->asked_more || (r[i].resp = strdup(c->password)) == NULL) {
			free_responses(r, count);
			return PAM_CONV_ERR;
		}
		c->given = true;
	}
	*responses = r;
	return PAM_SUCCESS;
}

/* Delays are the verifier's affair: a module that asks for one would keep a child, and tell by it what was wrong. */
static void
no_delay(int status, unsigned microseconds, void *data)
{
	(void)status;
	(void)microseconds;
	(void)data;
}

/*
 * The four phases, one after the other until one says no. The mail session is not this process's: it is opened for the
 * record, and closed.
 */
static int
phases(pam_handle_t *h)
{
	int code = pam_authenticate(h, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);

	if (code == PAM_SUCCESS) {
		code = pam_acct_mgmt(h, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
		/* pam_nologin and others say so of an account whose password was right */
		if (code == PAM_AUTH_ERR)
			code = PAM_PERM_DENIED;
	}
	if (code == PAM_SUCCESS)
		code = pam_setcred(h, PAM_ESTABLISH_CRED | PAM_SILENT);
	if (code == PAM_SUCCESS) {
		code = pam_open_session(h, PAM_SILENT);
		if (code == PAM_SUCCESS)
			pam_close_session(h, PAM_SILENT);
		pam_setcred(h, PAM_DELETE_CRED | PAM_SILENT);
	}
	return code;
}

int
pam_try(const char *service, char *user, const char *password, const char *client)
{
	struct conversation talk = { password, false, false };
	union { void (*in)(int, unsigned, void *); const void *out; } delay = { .in = no_delay };
	struct pam_conv conversation = { converse, &talk };
	const void *name = NULL;
	pam_handle_t *h = NULL;
	int code = pam_start(service, user, &conversation, &h);

	if (code != PAM_SUCCESS)
		return code;
	pam_set_item(h, PAM_FAIL_DELAY, delay.out);
	pam_set_item(h, PAM_TTY, "pop3");
	if (client[0] != '\0')
		pam_set_item(h, PAM_RHOST, client);
	code = phases(h);
	if (code == PAM_SUCCESS && (pam_get_item(h, PAM_USER, &name) != PAM_SUCCESS || name == NULL ||
	    store_name_check(name) != NULL))
		code = PAM_SYSTEM_ERR;
	if (code == PAM_SUCCESS)
		string_copy(user, USER_SIZE, name);
	else if (talk.asked_more)
		code = PAM_CONV_ERR;	/* whatever the modules made of it */
	pam_end(h, code);
	return code;
}

/* The child. A module may print and fork as it likes: nothing of it reaches anybody. */
static _Noreturn void
child(const struct conf *c, struct message *m, int out)
{
	struct outcome o = { 0 };
	int null = open("/dev/null", O_RDWR);

	setsid();
	wipe_lock();
	if (null == -1 || dup2(null, 0) == -1 || dup2(null, 1) == -1 || dup2(null, 2) == -1)
		_exit(1);
	string_copy(o.user, sizeof o.user, m->body.attempt.user);
	o.pam = pam_try(c->pam_service, o.user, m->body.attempt.password, m->body.attempt.client);
	message_clear(m);
	_exit(write(out, &o, sizeof o) == sizeof o ? 0 : 1);
}

static void
verdict(int channel, uint64_t ticket, enum denial denial, const struct outcome *o)
{
	struct message *m = calloc(1, sizeof *m);

	if (m == NULL)
		return;		/* the verifier's own deadline ends the attempt */
	message_start(m, MESSAGE_VERDICT);
	m->body.verdict.ticket = ticket;
	m->body.verdict.denial = denial;
	m->body.verdict.pam = o->pam;
	memcpy(m->body.verdict.user, o->user, sizeof o->user);
	if (message_send(channel, m) == -1)
		log_text(LOG_WARNING, "a PAM verdict could not be delivered: %s", strerror(errno));
	free(m);
}

static void
no_verdict(int channel, uint64_t ticket, const char *why)
{
	static const struct outcome none = { .pam = PAM_SYSTEM_ERR };

	log_text(LOG_WARNING, "PAM gave no verdict: %s", why);
	verdict(channel, ticket, DENIED_TEMPORARY, &none);
}

static struct attempt *
attempt_free(void)
{
	for (size_t i = 0; i < PAM_CHILDREN; i++)
		if (attempts[i].pid == 0)
			return &attempts[i];
	return NULL;
}

static void
attempt_start(const struct conf *c, int channel, struct message *m)
{
	struct attempt *a = attempt_free();
	uint64_t ticket = m->body.attempt.ticket;
	int ends[2];

	if (a == NULL || store_name_check(m->body.attempt.user) != NULL || pipe2(ends, O_CLOEXEC) == -1) {
		no_verdict(channel, ticket, a == NULL ? "too many attempts at once" : "the attempt could not be started");
		return;
	}
	pid_t pid = fork_named("authd: pam try");
	if (pid == 0) {
		close(channel);
		close(ends[0]);
		child(c, m, ends[1]);
	}
	close(ends[1]);
	if (pid == -1) {
		close(ends[0]);
		no_verdict(channel, ticket, "no process");
		return;
	}
	*a = (struct attempt){ pid, ends[0], clock_ms() + PAM_SECONDS * 1000, ticket };
}

/*
 * Whatever is left of an attempt goes: the child, and what a module forked (unless that has left the group, as a daemon
 * may).
 */
static void
attempt_end(struct attempt *a)
{
	close(a->pipe);
	a->pipe = -1;
	if (kill(-a->pid, SIGKILL) == -1)
		kill(a->pid, SIGKILL);
}

static void
attempt_answered(int channel, struct attempt *a)
{
	struct outcome o;
	ssize_t n = read(a->pipe, &o, sizeof o);

	if (n == sizeof o && o.pam == PAM_CONV_ERR)
		log_text(LOG_WARNING, "PAM asked for more than one password: see authd(8) on second factors");
	if (n == sizeof o && memchr(o.user, '\0', sizeof o.user) != NULL)
		verdict(channel, a->ticket, pam_denial(o.pam), &o);
	else
		no_verdict(channel, a->ticket, "a module ended the process");
	attempt_end(a);
}

static void
attempts_expire(int channel)
{
	int64_t now = clock_ms();

	for (size_t i = 0; i < PAM_CHILDREN; i++)
		if (attempts[i].pid != 0 && attempts[i].pipe != -1 && now >= attempts[i].deadline) {
			no_verdict(channel, attempts[i].ticket, "a module took too long");
			attempt_end(&attempts[i]);
		}
}

/* Only those that were ended are waited for: until then the number of a child must not go to another process. */
static void
attempts_reap(void)
{
	for (size_t i = 0; i < PAM_CHILDREN; i++)
		if (attempts[i].pid != 0 && attempts[i].pipe == -1 && waitpid(attempts[i].pid, NULL, WNOHANG) != 0)
			attempts[i].pid = 0;
}

static size_t
poll_list(int channel, struct pollfd polls[static PAM_CHILDREN + 1], struct attempt *whose[static PAM_CHILDREN + 1])
{
	size_t n = 1;

	polls[0] = (struct pollfd){ .fd = channel, .events = POLLIN };
	for (size_t i = 0; i < PAM_CHILDREN; i++)
		if (attempts[i].pid != 0 && attempts[i].pipe != -1) {
			whose[n] = &attempts[i];
			polls[n++] = (struct pollfd){ .fd = attempts[i].pipe, .events = POLLIN };
		}
	return n;
}

/* How long to sleep: a moment if a child that was ended is still to be reaped, a second if a deadline may pass. */
static int
patience(void)
{
	int milliseconds = -1;

	for (size_t i = 0; i < PAM_CHILDREN; i++)
		if (attempts[i].pid != 0 && attempts[i].pipe == -1)
			return 20;
		else if (attempts[i].pid != 0)
			milliseconds = 1000;
	return milliseconds;
}

/* Nothing of an attempt outlives its process. */
static _Noreturn void
stop(void)
{
	for (size_t i = 0; i < PAM_CHILDREN; i++)
		if (attempts[i].pid != 0 && attempts[i].pipe != -1)
			attempt_end(&attempts[i]);
	_exit(0);
}

static void
on_channel(const struct conf *c, int channel)
{
	static struct message m;
	int got = message_receive(channel, &m, SIDE_VERIFIER, SIDE_PAM);

	if (got == 1)
		attempt_start(c, channel, &m);
	message_clear(&m);
	if (got == 0 || (got == -1 && errno != EINTR && errno != EAGAIN))
		stop();
}

void
pam_run(const struct conf *c, int channel)
{
	struct pollfd polls[PAM_CHILDREN + 1];
	struct attempt *whose[PAM_CHILDREN + 1];
	struct sigaction action = { .sa_handler = on_terminate };	/* without SA_RESTART: it must wake the poll */

	sigaction(SIGTERM, &action, NULL);
	for (;;) {
		size_t n = poll_list(channel, polls, whose);
		if (poll(polls, n, patience()) == -1) {
			if (errno != EINTR)
				fatal("poll: %s", strerror(errno));
			n = 0;		/* nothing was looked at */
		}
		if (terminated)
			stop();
		for (size_t i = 1; i < n; i++)
			if (polls[i].revents != 0)
				attempt_answered(channel, whose[i]);
		if (n > 0 && polls[0].revents != 0)
			on_channel(c, channel);
		attempts_expire(channel);
		attempts_reap();
	}
}
