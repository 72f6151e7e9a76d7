/* A table with chains, made once for the most that there can be. */
#include "crowd.h"

#include <string.h>

#include "system.h"

struct group {
	char network[ADDRESS_SIZE];
	uint32_t count;
	uint32_t next;		/* in its chain, or of those that are free */
};

static struct {
	struct group *groups;
	uint32_t *chains;	/* the first of each */
	uint32_t mask;
	uint32_t free;
} crowd;

int
crowd_start(size_t most)
{
	uint32_t chains = 16;

	while (chains < most)
		chains *= 2;
	crowd.groups = memory_unforked(most * sizeof *crowd.groups);
	crowd.chains = memory_unforked(chains * sizeof *crowd.chains);
	if (crowd.groups == NULL || crowd.chains == NULL)
		return -1;
	memset(crowd.chains, 0xff, chains * sizeof *crowd.chains);
	crowd.mask = chains - 1;
	for (uint32_t i = 0; i < most; i++)
		crowd.groups[i].next = i + 1 < most ? i + 1 : CROWD_NONE;
	return 0;
}

static uint32_t *
chain_of(const char *network)
{
	uint32_t hash = 2166136261u;

	for (; *network != '\0'; network++)
		hash = (hash ^ (unsigned char)*network) * 16777619u;
	return &crowd.chains[(hash ^ hash >> 16) & crowd.mask];
}

static uint32_t
find(const char *network)
{
	uint32_t at = *chain_of(network);

	while (at != CROWD_NONE && strcmp(crowd.groups[at].network, network) != 0)
		at = crowd.groups[at].next;
	return at;
}

size_t
crowd_count(const char *network)
{
	uint32_t at = find(network);

	return at != CROWD_NONE ? crowd.groups[at].count : 0;
}

uint32_t
crowd_join(const char *network)
{
	uint32_t at = network[0] != '\0' ? find(network) : CROWD_NONE;

	if (at == CROWD_NONE && network[0] != '\0' && crowd.free != CROWD_NONE) {
		uint32_t *chain = chain_of(network);
		at = crowd.free;
		crowd.free = crowd.groups[at].next;
		string_copy(crowd.groups[at].network, ADDRESS_SIZE, network);
		crowd.groups[at].next = *chain;
		*chain = at;
	}
	if (at != CROWD_NONE)
		crowd.groups[at].count++;
	return at;
}

void
crowd_leave(uint32_t handle)
{
	if (handle == CROWD_NONE || --crowd.groups[handle].count > 0)
		return;
	struct group *g = &crowd.groups[handle];
	uint32_t *at = chain_of(g->network);
	while (*at != handle)
		at = &crowd.groups[*at].next;
	*at = g->next;
	g->next = crowd.free;
	crowd.free = handle;
}
