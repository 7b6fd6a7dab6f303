/*
 * The file of a saved machine: what its machine process has said (vm/saved.h), and what its user
 * knows of the host beside it: which disks and networks it had.
 *
 *   0             the machine      as its process has said it
 *   zeros         up to a multiple of a page
 *   the host part JSON, at most SAVED_HOST_BYTES
 *   end - 32      u8 magic[8] "UMBRAHST"  u32 version  u32 checksum of the host part
 *                 u64 bytes of the machine  u64 bytes of the host part
 *
 *   - Of a machine without a bus there is no host part: such files are as they were. Whether there
 *     is a bus its broker says; a file whose head says anything else is none.
 *   - The machine process maps the machine alone: it learns no names of files.
 *   - The host part is found from the end of the file, which umbra save has written: nothing that a
 *     machine process says is taken for one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SAVED_HOST_BYTES = 256 << 10 };

struct saved_file {
	uint64_t machine_bytes;
	uint64_t host_at, host_bytes; /* 0: none */
	uint32_t host_crc;
};

/* 0; -EBADMSG; -ENOTSUP: its host part is of a version that is not known; -errno. */
int saved_file_look(int fd, struct saved_file *ret);
/* The host part with a NUL behind it, to be freed; NULL with 0: there is none. As above. */
int saved_file_read_host(int fd, char **ret_text);
/* What has to come behind machine_bytes, to be freed; NULL: no memory. text: the host part. */
uint8_t *saved_file_host_part(uint64_t machine_bytes, const char *text, size_t *ret_bytes);
