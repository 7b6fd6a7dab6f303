/*
 * A seed for cloud-init: a small disk that its NoCloud source finds by its label, an ISO 9660 file
 * system with what the guest is told at its first boot, and umbra-agent, which it installs.
 */
#pragma once

#include <stddef.h>

struct seed {
	const char *name;                         /* the guest's host name; NULL: its own */
	const void *user_data;                    /* NULL: none */
	size_t user_data_bytes;
	const char *const *ssh_keys;              /* each a line; NULL at the end */
	int agent_fd;                             /* -1: without */
};

/* Into a file that is open for writing, and empty. 0 or -errno; -EINVAL: a key of two lines. */
int seed_write(int fd, const struct seed *seed);
