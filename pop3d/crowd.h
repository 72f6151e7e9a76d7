/* How many connections there are of each network, for max-per-address. Costs the same however many there are. */
#ifndef POP3D_CROWD_H
#define POP3D_CROWD_H

#include <stddef.h>
#include <stdint.h>

#include "messages.h"

#define CROWD_NONE UINT32_MAX

/* For at most so many connections. -1 without memory. */
int crowd_start(size_t most);

size_t crowd_count(const char *network);

/* One more of this network: a handle for crowd_leave. CROWD_NONE for an empty name, which is not counted. */
uint32_t crowd_join(const char *network);

/* One of those less; CROWD_NONE is nothing. */
void crowd_leave(uint32_t handle);

#endif
