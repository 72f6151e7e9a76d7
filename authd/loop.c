#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "log.h"
#include "system.h"

static int epoll = -1;

/* A heap by time; heap[0] is not used, so that a place of 0 means "not set". */
static struct timer **heap;
static size_t heap_used, heap_room;

int
loop_start(void)
{
	epoll = epoll_create1(EPOLL_CLOEXEC);
	return epoll == -1 ? -1 : 0;
}

int
loop_watch(struct source *s)
{
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = s };
	int flags = fcntl(s->fd, F_GETFL);

	if (flags == -1 || ((flags & O_NONBLOCK) == 0 && fcntl(s->fd, F_SETFL, flags | O_NONBLOCK) == -1))
		return -1;
	return epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &e);
}

void
loop_close(struct source *s)
{
	if (s->fd == -1)
		return;
	/* Closing alone is not enough: a process forked meanwhile may still hold the description. */
	epoll_ctl(epoll, EPOLL_CTL_DEL, s->fd, NULL);
	close(s->fd);
	s->fd = -1;
}

static void
place(struct timer *t, size_t at)
{
	heap[at] = t;
	t->place = at;
}

static void
sift_up(struct timer *t, size_t at)
{
	for (; at > 1 && heap[at / 2]->when > t->when; at /= 2)
		place(heap[at / 2], at);
	place(t, at);
}

static void
sift_down(struct timer *t, size_t at)
{
	size_t child;

	for (; (child = 2 * at) <= heap_used; at = child) {
		if (child < heap_used && heap[child + 1]->when < heap[child]->when)
			child++;
		if (heap[child]->when >= t->when)
			break;
		place(heap[child], at);
	}
	place(t, at);
}

int
timer_set(struct timer *t, int64_t when)
{
	timer_clear(t);
	if (heap_used + 1 >= heap_room) {
		size_t room = heap_room == 0 ? 256 : 2 * heap_room;
		struct timer **more = reallocarray(heap, room, sizeof(struct timer *));
		if (more == NULL)
			return -1;
		heap = more;
		heap_room = room;
	}
	t->when = when;
	sift_up(t, ++heap_used);
	return 0;
}

void
timer_clear(struct timer *t)
{
	size_t at = t->place;

	if (at == 0)
		return;
	t->place = 0;
	struct timer *last = heap[heap_used--];
	if (last == t)
		return;
	if (at > 1 && heap[at / 2]->when > last->when)
		sift_up(last, at);
	else
		sift_down(last, at);
}

static int
patience(void)
{
	if (heap_used == 0)
		return -1;
	int64_t left = heap[1]->when - clock_ms();
	return left <= 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

void
loop_turn(void)
{
	struct epoll_event e;
	int n = epoll_wait(epoll, &e, 1, patience());

	if (n == -1 && errno != EINTR)
		fatal("epoll_wait: %s", strerror(errno));
	if (n == 1) {
		struct source *s = e.data.ptr;
		s->on_ready(s);
	}
	if (heap_used > 0 && heap[1]->when <= clock_ms()) {
		struct timer *t = heap[1];
		timer_clear(t);
		t->on_due(t);
	}
}
