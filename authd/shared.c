#include "shared.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"

#define PIECES	4

static struct {
	void *map;
	size_t size;
} pieces[PIECES];

void *
shared_make(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (size + page - 1) / page * page, i = 0;

	while (i < PIECES && pieces[i].map != NULL)
		i++;
	if (i == PIECES)
		fatal("too many pieces of shared memory");
	unsigned char *map = mmap(NULL, inner + 2 * page, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED || mprotect(map + page, inner, PROT_READ | PROT_WRITE) == -1)
		fatal("no memory to share between verifiers: %s", strerror(errno));
	madvise(map + page, inner, MADV_DONTDUMP);
	if (mlock(map + page, inner) == -1)
		log_text(LOG_DEBUG, "shared memory is not locked: %s", strerror(errno));	/* main.c says it aloud */
	pieces[i].map = map;
	pieces[i].size = inner + 2 * page;
	return map + page;
}

void
shared_drop(void)
{
	for (size_t i = 0; i < PIECES; i++) {
		if (pieces[i].map != NULL)
			munmap(pieces[i].map, pieces[i].size);
		pieces[i].map = NULL;
	}
}
