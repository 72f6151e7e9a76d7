/* Counting durations. */
#include "histogram.h"

const uint64_t histogram_bounds[HISTOGRAM_BUCKETS - 1] = {
	1, 5, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 600000, 3600000,
};

void
count_add(uint64_t *count, uint64_t more)
{
	__atomic_fetch_add(count, more, __ATOMIC_RELAXED);
}

void
histogram_add(struct histogram *h, uint64_t milliseconds)
{
	unsigned i = 0;

	while (i < HISTOGRAM_BUCKETS - 1 && milliseconds > histogram_bounds[i])
		i++;
	count_add(&h->bucket[i], 1);
	count_add(&h->milliseconds, milliseconds);
}
