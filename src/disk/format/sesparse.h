/* Extents of ESX's space-efficient sparse kind, which its snapshots have on VMFS 6. */
#pragma once

#include "disk/disk_internal.h"
#include "sparse_run.h"

struct sesparse;

/* 0; -ENOMEM; -EBADMSG, -ENOTSUP, -ENODATA or errors of the host. The path stays the caller's. */
int sesparse_open(const struct disk_file *file, const char *path, struct sesparse **ret,
		  uint64_t *ret_bytes, struct disk_error *error);
/* What begins at an offset of the extent. -ENODATA: the file does not have it; -EBADMSG. `why` may
 * be NULL. */
int sesparse_find(const struct sesparse *sesparse, const struct disk_file *file, uint64_t offset,
		  uint64_t bytes, struct sparse_run *ret, struct disk_error *why);
void sesparse_close(struct sesparse *sesparse); /* NULL: nothing */
