/* When an mbox's message was delivered: the date of its From_ line. */
#ifndef POSTERN_SPOOLD_AGE_H
#define POSTERN_SPOOLD_AGE_H

#include <stddef.h>
#include <stdint.h>

/*
 * The date of a From_ line ("From sender Sat Jan  3 01:05:34 1998", with or without seconds, weekday and zone, as
 * scan.h has it), in seconds since 1970; 0 if there is none that is whole. Without a zone in numbers the latest moment
 * that may be meant: that of the westernmost one, UTC-12.
 */
int64_t age_from_line(const char *line, size_t length);

#endif
