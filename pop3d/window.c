/* Looking at a file through a mapping. A page of it that is no longer there is SIGBUS, and is caught. */
#include "window.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define WINDOW_SIZE (2 * 1024 * 1024)	/* so much of a file is mapped at once */

static sigjmp_buf not_there;
static volatile sig_atomic_t looking;

/* It is delivered at the very load that failed, which is where window_form() looks. Elsewhere it ends the process. */
static void
on_bus_error(int number)
{
	if (looking)
		siglongjmp(not_there, 1);
	signal(number, SIG_DFL);
}

const char *
window_open(struct window *w, int fd, off_t from, uint64_t length, size_t *count)
{
	if (w->map == NULL || from < w->from || from >= w->from + (off_t)w->size) {
		struct sigaction bus = { .sa_handler = on_bus_error, .sa_flags = SA_NODEFER };
		off_t start = from - from % sysconf(_SC_PAGESIZE);
		uint64_t size = length + (uint64_t)(from - start);

		window_close(w);
		if (size > WINDOW_SIZE)
			size = WINDOW_SIZE;
		if (sigaction(SIGBUS, &bus, NULL) == -1)
			return NULL;
		void *map = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, start);
		if (map == MAP_FAILED)
			return NULL;
		*w = (struct window){ map, (size_t)size, start };
	}
	size_t left = w->size - (size_t)(from - w->from);
	*count = length < left ? (size_t)length : left;
	return w->map + (from - w->from);
}

size_t
window_form(struct wire_form *form, const char *data, size_t length, char *out)
{
	struct wire_form now = *form;

	if (sigsetjmp(not_there, 0) != 0) {
		looking = 0;
		return 0;
	}
	looking = 1;
	size_t made = wire_form_mapped(&now, data, length, out);
	looking = 0;
	if (made > 0)
		*form = now;
	return made;
}

void
window_close(struct window *w)
{
	if (w->map != NULL)
		munmap(w->map, w->size);
	w->map = NULL;
}
