/*
 * The verifier's event loop: descriptors and timers. Handlers never block. One event is served at a time, so whoever it
 * is for may free anything.
 */
#ifndef POSTERN_AUTHD_LOOP_H
#define POSTERN_AUTHD_LOOP_H

#include <stddef.h>
#include <stdint.h>

/* Embedded in what owns the descriptor. */
struct source {
	int fd;
	void (*on_ready)(struct source *s);	/* to be read, or closed by the other side */
};

struct timer {
	int64_t when;		/* clock_ms() */
	size_t place;		/* in the heap, from 1; 0: not set */
	void (*on_due)(struct timer *t);
};

#define owner_of(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

/* -1 with errno. */
int loop_start(void);
/* Watches s->fd, which it makes non-blocking. 0, or -1 with errno. */
int loop_watch(struct source *s);
/* Stops watching, closes s->fd and sets it to -1. Nothing if it is -1. */
void loop_close(struct source *s);

/* (Re)sets the timer. 0, or -1 with ENOMEM. */
int timer_set(struct timer *t, int64_t when);
void timer_clear(struct timer *t);

/* Serves one event, or waits for one. */
void loop_turn(void);

#endif
