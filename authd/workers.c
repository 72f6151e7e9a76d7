#include "workers.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "pam.h"

#define HASHERS_MOST	64

struct queue {
	struct question *first, *last;
	uint32_t length;
};

/* A hasher has one question at a time. `asked` is NULL also while it works on one that was withdrawn. */
struct hasher {
	struct source source;	/* fd -1: free */
	bool busy;
	struct question *asked;
};

/* What PAM is at work on; a withdrawn one keeps its place until the verdict comes. */
struct pam_place {
	uint64_t ticket;	/* 0: free */
	struct question *asked;
};

static struct queue hash_queue, pam_queue;
static struct hasher hashers[HASHERS_MOST];
static size_t hashers_used;
static struct source pam = { .fd = -1 };
static struct pam_place places[PAM_CHILDREN];
static uint64_t last_ticket;

/* Behind those that came before; but whoever is not suspect goes before all who are. */
static void
queue_put(struct queue *queue, struct question *q)
{
	struct question *before = q->suspect ? queue->last : NULL;

	if (!q->suspect)
		for (struct question *at = queue->first; at != NULL && !at->suspect; at = at->next)
			before = at;
	q->state = QUESTION_QUEUED;
	q->next = before != NULL ? before->next : queue->first;
	if (before != NULL)
		before->next = q;
	else
		queue->first = q;
	if (q->next == NULL)
		queue->last = q;
	queue->length++;
}

/* Takes the first one out. */
static void
queue_take(struct queue *queue)
{
	struct question *q = queue->first;

	queue->first = q->next;
	if (queue->first == NULL)
		queue->last = NULL;
	queue->length--;
	q->next = NULL;
}

static void
queue_remove(struct queue *queue, struct question *gone)
{
	struct question *before = NULL, *q = queue->first;

	while (q != NULL && q != gone) {
		before = q;
		q = q->next;
	}
	if (q == NULL)
		return;
	if (before == NULL)
		queue->first = q->next;
	else
		before->next = q->next;
	if (queue->last == q)
		queue->last = before;
	queue->length--;
}

static void
answered(struct question *q, enum answer answer, const struct body_verdict *verdict)
{
	q->state = QUESTION_NONE;
	if (q->on_made != NULL)
		q->on_made(q, "");
	else
		q->on_answer(q, answer, verdict);
}

/*
 * What a login costs, without what it is about: "$argon2id$v=19$m=65536,t=2,p=1", "$6". Two logins that cost the same
 * look the same.
 */
static void
log_work(const char *who, const char *hash)
{
	size_t fields = strncmp(hash, "$argon2", 7) == 0 ? 3 : 1, length = 0;

	if (!log_wants(LOG_DEBUG))
		return;
	if (hash[0] == '$')
		for (; hash[length] != '\0' && (hash[length] != '$' || fields-- > 0); length++)
			continue;
	log_begin(LOG_DEBUG, "work");
	log_string("of", who);
	log_bytes("cost", hash, length);
	log_end();
}

static int
send_hash(struct hasher *h, const struct question *q)
{
	static struct message m;
	int result = -1;

	if (q->on_made != NULL) {
		message_start(&m, MESSAGE_MAKE);
		m.body.make.ticket = q->ticket;
		memcpy(m.body.make.like, q->hash, strnlen(q->hash, sizeof m.body.make.like - 1));
		memcpy(m.body.make.password, q->password, strnlen(q->password, sizeof m.body.make.password - 1));
	} else {
		message_start(&m, MESSAGE_HASH);
		m.body.hash.ticket = q->ticket;
		memcpy(m.body.hash.hash, q->hash, strnlen(q->hash, sizeof m.body.hash.hash - 1));
		memcpy(m.body.hash.password, q->password, strnlen(q->password, sizeof m.body.hash.password - 1));
	}
	result = message_send(h->source.fd, &m);
	message_clear(&m);
	if (result == 0)
		log_work("hasher", q->hash);
	return result;
}

static void hasher_gone(struct hasher *h);

/* Gives waiting questions to idle hashers. */
static void
serve_hashers(void)
{
	for (size_t i = 0; i < hashers_used && hash_queue.first != NULL; i++) {
		struct hasher *h = &hashers[i];
		if (h->source.fd == -1 || h->busy)
			continue;
		struct question *q = hash_queue.first;
		if (send_hash(h, q) == -1) {
			hasher_gone(h);		/* what waits goes on waiting for another */
			continue;
		}
		queue_take(&hash_queue);
		q->state = QUESTION_ASKED;
		h->asked = q;
		h->busy = true;
	}
}

static int
send_attempt(const struct question *q)
{
	static struct message m;
	struct body_attempt *a = &m.body.attempt;

	message_start(&m, MESSAGE_ATTEMPT);
	a->ticket = q->ticket;
	memcpy(a->user, q->user, strnlen(q->user, sizeof a->user - 1));
	memcpy(a->password, q->password, strnlen(q->password, sizeof a->password - 1));
	memcpy(a->client, q->client, strnlen(q->client, sizeof a->client - 1));
	int result = message_send(pam.fd, &m);
	message_clear(&m);
	if (result == 0)
		log_work("pam", "");
	return result;
}

static void pam_gone(void);

static void
serve_pam(void)
{
	for (size_t i = 0; i < PAM_CHILDREN && pam_queue.first != NULL && pam.fd != -1; i++) {
		if (places[i].ticket != 0)
			continue;
		struct question *q = pam_queue.first;
		if (send_attempt(q) == -1) {
			pam_gone();
			return;
		}
		queue_take(&pam_queue);
		q->state = QUESTION_ASKED;
		places[i] = (struct pam_place){ q->ticket, q };
	}
}

/* The last of those who wait is told to come again, if it is suspect. */
static bool
make_room(struct queue *queue)
{
	struct question *last = queue->last;

	if (last == NULL || !last->suspect)
		return false;
	queue_remove(queue, last);
	answered(last, ANSWER_UNKNOWN, NULL);
	return true;
}

int
question_ask(struct question *q)
{
	struct queue *queue = q->pam ? &pam_queue : &hash_queue;

	if (queue->length >= QUEUE_MOST && (q->suspect || !make_room(queue)))
		return -1;
	q->ticket = ++last_ticket;
	queue_put(queue, q);
	if (q->pam)
		serve_pam();
	else
		serve_hashers();
	return 0;
}

static void
forget_asked(const struct question *q)
{
	for (size_t i = 0; i < hashers_used; i++)
		if (hashers[i].asked == q)
			hashers[i].asked = NULL;
	for (size_t i = 0; i < PAM_CHILDREN; i++)
		if (places[i].asked == q)
			places[i].asked = NULL;
}

void
question_withdraw(struct question *q)
{
	if (q->state == QUESTION_QUEUED)
		queue_remove(q->pam ? &pam_queue : &hash_queue, q);
	else if (q->state == QUESTION_ASKED)
		forget_asked(q);
	q->state = QUESTION_NONE;
}

static void
hasher_gone(struct hasher *h)
{
	struct question *q = h->asked;

	loop_close(&h->source);
	h->asked = NULL;
	h->busy = false;
	if (q != NULL)
		answered(q, ANSWER_UNKNOWN, NULL);
}

/* Is this what the hasher was asked? */
static bool
is_answer(const struct hasher *h, const struct message *m)
{
	bool made = m->header.type == MESSAGE_MADE;
	uint64_t ticket = made ? m->body.made.ticket : m->body.hashed.ticket;

	return h->busy && (h->asked == NULL || (h->asked->ticket == ticket && made == (h->asked->on_made != NULL)));
}

static void
deliver(struct question *q, const struct message *m)
{
	if (m->header.type == MESSAGE_MADE) {
		q->state = QUESTION_NONE;
		q->on_made(q, m->body.made.hash);
	} else
		answered(q, m->body.hashed.error ? ANSWER_UNKNOWN : m->body.hashed.verdict ? ANSWER_YES : ANSWER_NO, NULL);
}

static void
on_hasher(struct source *s)
{
	struct hasher *h = owner_of(s, struct hasher, source);
	static struct message m;
	int got = message_receive(s->fd, &m, SIDE_HASHER, SIDE_VERIFIER);

	if (got == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got != 1 || !is_answer(h, &m)) {
		hasher_gone(h);
		return;
	}
	struct question *q = h->asked;
	h->asked = NULL;
	h->busy = false;
	if (q != NULL)
		deliver(q, &m);
	message_clear(&m);
	serve_hashers();
}

static void
pam_gone(void)
{
	loop_close(&pam);
	for (size_t i = 0; i < PAM_CHILDREN; i++) {
		struct question *q = places[i].asked;
		places[i] = (struct pam_place){ 0, NULL };
		if (q != NULL)
			answered(q, ANSWER_UNKNOWN, NULL);
	}
}

static void
on_verdict(const struct body_verdict *v)
{
	for (size_t i = 0; i < PAM_CHILDREN; i++) {
		if (v->ticket == 0 || places[i].ticket != v->ticket)
			continue;
		struct question *q = places[i].asked;
		places[i] = (struct pam_place){ 0, NULL };
		if (q != NULL)
			answered(q, v->denial == DENIED_COUNT ? ANSWER_YES :
			    v->denial == DENIED_CREDENTIALS ? ANSWER_NO : ANSWER_UNKNOWN, v);
		return;
	}
}

static void
on_pam(struct source *s)
{
	static struct message m;
	int got = message_receive(s->fd, &m, SIDE_PAM, SIDE_VERIFIER);

	if (got == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got != 1) {
		pam_gone();
		return;
	}
	on_verdict(&m.body.verdict);
	serve_pam();
}

static void
attach_hasher(int fd)
{
	size_t i = 0;

	while (i < hashers_used && hashers[i].source.fd != -1)
		i++;
	if (i == HASHERS_MOST) {
		close(fd);
		return;
	}
	if (i == hashers_used)
		hashers_used++;
	hashers[i] = (struct hasher){ .source = { fd, on_hasher } };
	if (loop_watch(&hashers[i].source) == -1)
		hasher_gone(&hashers[i]);
	serve_hashers();
}

void
workers_attach(uint32_t side, int fd)
{
	if (side == SIDE_HASHER) {
		attach_hasher(fd);
		return;
	}
	if (side != SIDE_PAM) {
		close(fd);
		return;
	}
	pam_gone();
	pam = (struct source){ fd, on_pam };
	if (loop_watch(&pam) == -1)
		pam_gone();
	serve_pam();
}
