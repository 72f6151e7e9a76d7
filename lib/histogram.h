/* Durations, counted in buckets as OpenMetrics has them: what the daemons' parents keep and spoolctl(8) prints. */
#ifndef POSTERN_HISTOGRAM_H
#define POSTERN_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BUCKETS 16

struct histogram {
	uint64_t bucket[HISTOGRAM_BUCKETS];	/* how many took so long, and longer than the bucket before; the last has no bound */
	uint64_t milliseconds;			/* the sum */
};

/* The bounds of all buckets but the last, in milliseconds. */
extern const uint64_t histogram_bounds[HISTOGRAM_BUCKETS - 1];

/* Two processes may count at once, in memory that they share. */
void histogram_add(struct histogram *h, uint64_t milliseconds);

/* The same for a number that stands alone. */
void count_add(uint64_t *count, uint64_t more);

#endif
