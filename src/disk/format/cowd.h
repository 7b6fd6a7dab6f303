/* Extents of ESX's older sparse kind (VMFSSPARSE), which its snapshots have on VMFS 3 to 5. */
#pragma once

#include "disk/disk_internal.h"
#include "sparse_run.h"

#define COWD_MAGIC 0x44574f43u /* COWD */

struct cowd;

/* 0; -ENOMEM; -EBADMSG, -ENOTSUP, -ENODATA or errors of the host. The path stays the caller's. */
int cowd_open(const struct disk_file *file, const char *path, struct cowd **ret,
	      uint64_t *ret_bytes, struct disk_error *error);
/* What begins at an offset of the extent. -ENODATA: the file does not have it; -EBADMSG. `why` may
 * be NULL. */
int cowd_find(const struct cowd *cowd, const struct disk_file *file, uint64_t offset,
	      uint64_t bytes, struct sparse_run *ret, struct disk_error *why);
void cowd_close(struct cowd *cowd); /* NULL: nothing */
