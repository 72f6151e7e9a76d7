/* The files of a Maildir: read, sorted by arrival, found by base name. */
#ifndef POSTERN_SPOOLD_LISTING_H
#define POSTERN_SPOOLD_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum maildir_part { PART_NEW, PART_CUR, PART_COUNT };

struct listing_entry {
	uint64_t second;	/* of arrival, as the name says it */
	uint32_t micro;
	uint32_t name;		/* where in names: "cur/FILE", NUL ended */
	uint16_t length;	/* of "cur/FILE" */
	uint16_t base;		/* of FILE up to ':' */
	uint32_t part : 8;	/* enum maildir_part */
	uint32_t inode : 24;	/* listing_inode() */
};

struct listing {
	struct listing_entry *entry;
	uint32_t count, room;
	char *names;
	size_t names_length, names_room;
	uint32_t skipped;	/* what is not a regular file */
	uint32_t twice;		/* how many listing_sort() has left out */
};
#define PART_PREFIX 4		/* strlen("cur/") */

/*
 * Calls `each` for the files of root's new/ or cur/, as the directory has them: "cur/FILE" (NUL ended, until it returns) and listing_inode(),
 * which is -1 with errno to end it. One that is missing has none; dot files are not mail. *skipped counts what is not a regular file. 0, or -1 with errno.
 */
int listing_each(int root, enum maildir_part part, uint32_t *skipped,
    int (*each)(void *data, const char *name, size_t length, uint32_t inode), void *data);
/* Adds the files of root's new/ or cur/; one that is missing has none. Dot files are not mail. 0, or -1 with errno. */
int listing_read(struct listing *l, int root, enum maildir_part part);
/* Adds one name, "cur/FILE". 0, or -1 with ENOMEM. */
int listing_add(struct listing *l, const char *name, size_t length, uint32_t inode);
/*
 * What is kept of an inode's number: another file under the same name nearly always differs in it. Never 0.
 */
#define LISTING_INODE_BITS 20
uint32_t listing_inode(uint64_t number);
/*
 * By arrival (second and microsecond in the name, then the name). A base name that is there twice is kept once, as it
 * is in cur/.
 */
void listing_sort(struct listing *l);
/* In the same order, with all that is there twice. */
void listing_order(struct listing *l);
/* Of a sorted listing; NULL: not there. */
const struct listing_entry *listing_find(const struct listing *l, const char *base, size_t length);
/* Have they one base name? */
bool listing_same(const struct listing *l, const struct listing_entry *a, const struct listing_entry *b);
const char *listing_name(const struct listing *l, const struct listing_entry *e);
/* Sorts e behind every message that was there before (`last` is "cur/FILE")? */
bool listing_after(const struct listing *l, const struct listing_entry *e, const char *last, size_t length);
void listing_free(struct listing *l);

/* Removes the regular files of a directory that nobody has touched for so long. `fd` is closed. */
void listing_clean(int fd, long seconds);

/* When a message arrived, as its base name says it: seconds, and microseconds or 0. */
void listing_arrival(const char *base, size_t length, uint64_t *second, uint32_t *micro);
/* The base name's length of FILE (no directory). */
size_t listing_base(const char *file, size_t length);
/* The number of a ",S=" or ",W=" in a base name. */
bool listing_number(const char *base, size_t length, char letter, uint64_t *value);

#endif
