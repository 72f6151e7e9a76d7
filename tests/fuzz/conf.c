/*
 * The configuration: whatever the file holds, there is a configuration or one line of error.
 * links: lib/conf.c lib/system.c lib/log.c
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conf c;
	char path[64], error[1024] = "";
	int fd = memfd_create("conf", 0);

	if (fd == -1 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (conf_load(&c, path, false, error, sizeof error) == -1 && (error[0] == '\0' || strchr(error, '\n') != NULL))
		abort();
	close(fd);
	return 0;
}
