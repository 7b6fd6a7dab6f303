/* Bytes into a descriptor that may take fewer at a time than it is given: a file, a pipe. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Waits until all are taken. 0; -ENOSPC: it takes no more; -errno. */
int write_all(int fd, const void *data, size_t bytes);
/* The same in a file, from there on. */
int write_all_at(int fd, const void *data, size_t bytes, off_t at);
