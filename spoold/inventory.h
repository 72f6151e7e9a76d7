/* What an inventory is made of: for inventory.c and cache.c alone. The calls are in cache.h. */
#ifndef POSTERN_INVENTORY_H
#define POSTERN_INVENTORY_H

#include "cache.h"

#define PATTERNS_MAX 4096
#define NAME_WHOLE 0x80000000u		/* in names: an offset in the blob, not a number of a pattern */

/* A Maildir's file is "before" (its directory and "/"), the message's id, "after" (":2,flags"): few patterns do for all. */
struct pattern {
	char before[8];
	char after[54];
	uint8_t before_length;
	uint8_t after_length;
};

struct inventory {
	uint32_t count;
	uint64_t octets;
	/* header and rows, and once it is loaded or published the ids as well: the catalogue as it will be sent */
	int memfd;			/* -1: anonymous memory */
	struct catalogue_header *map;
	size_t mapped;
	struct catalogue_row *rows;
	uint32_t rows_room;
	char *uids;			/* in map, in the parent's map, or on the heap */
	uint64_t uids_length;
	uint64_t uids_room;		/* 0: not on the heap */
	bool published;
	struct inventory *parent;	/* of inventory_without(): has the ids */
	/* mbox */
	uint8_t (*fingerprints)[FINGERPRINT_SIZE];
	uint32_t fingerprints_room;
	uint32_t inherited;		/* the first so many are known from the cache and samples: they were not read since */
	/* Maildir */
	uint32_t *names;
	uint32_t names_room;
	struct pattern *patterns;
	uint32_t patterns_count;
	uint32_t patterns_room;
	char *blob;			/* 16 bits of length, then the name; for those that fit no pattern */
	uint32_t blob_length;
	uint32_t blob_room;
	char name[300];			/* what inventory_get() last made */
	/* how much of it the cache has just so (rows, and what they refer to) */
	uint32_t stored;
	uint32_t stored_patterns;
	uint32_t stored_blob;
	uint64_t stored_uids;
	/* ids */
	uint32_t settled;		/* the first so many differ from each other */
	uint8_t *kept;			/* a bit a row: its id was remembered, not asked for; NULL: none */
	uint32_t *table;		/* of inventory_find() */
	uint32_t table_mask;
	uint32_t tabled;		/* the first so many are in it */
};

/* An empty inventory whose memory has room for so many rows and, behind them, so many octets of ids. NULL with errno. */
struct inventory *inventory_make(uint32_t rows, uint64_t uids);
/* `*at` has room for `want` things of `size`, growing by doubling; *room is how many fit now. */
bool room_make(void **at, uint32_t *room, uint64_t want, size_t size);
/* Drops patterns and names of the blob that no message has any more. */
void names_compact(struct inventory *inv);

#endif
