/* Bytes into a descriptor that may take fewer at a time than it is given: a file, a pipe. */
#pragma once

#include <stddef.h>

/* Waits until all are taken. 0; -ENOSPC: it takes no more; -errno. */
int write_all(int fd, const void *data, size_t bytes);
