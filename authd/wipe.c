/*
 * A heap that forgets. GNU SASL, libidn and PAM's friends copy what a client sends into memory of their own and free it
 * as it is; here everything that is freed is wiped first, whoever frees it. A process of authd frees little, so the
 * cost is not to be measured.
 */
#include "wipe.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* glibc's own, under the names it keeps for this purpose. */
extern void __libc_free(void *memory);

void
free(void *memory)
{
	if (memory == NULL)
		return;
	explicit_bzero(memory, malloc_usable_size(memory));
	__libc_free(memory);
}

/* glibc's may move without a free(3) that we would see. */
void *
realloc(void *memory, size_t size)
{
	void *moved;
	size_t old;

	if (memory == NULL)
		return malloc(size);
	if (size == 0) {
		free(memory);
		return NULL;
	}
	moved = malloc(size);
	if (moved == NULL)
		return NULL;
	old = malloc_usable_size(memory);
	memcpy(moved, memory, old < size ? old : size);
	free(memory);
	return moved;
}
#endif

bool
wipe_lock(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) == -1 || limit.rlim_cur != RLIM_INFINITY)
		return true;
	return mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0;
}

const int wipe_is_linked = 1;
