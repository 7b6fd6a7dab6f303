/* Extents of ESX's space-efficient sparse kind, which its snapshots have on VMFS 6. */
#pragma once

#include "disk/disk_internal.h"

struct sesparse;

enum sesparse_kind { SESPARSE_SILENT, SESPARSE_ZERO, SESPARSE_DATA };
/* at: in the file, of data */
struct sesparse_run {
	enum sesparse_kind kind;
	uint64_t bytes, at;
};

/* 0; -ENOMEM; -EBADMSG, -ENOTSUP, -ENODATA or errors of the host: what is wrong in *ret_what. */
int sesparse_open(const struct disk_file *file, struct sesparse **ret, uint64_t *ret_bytes,
		  const char **ret_what);
/* What begins at an offset of the extent. -ENODATA: the file does not have it; -EBADMSG. */
int sesparse_find(const struct sesparse *sesparse, const struct disk_file *file, uint64_t offset,
		  uint64_t bytes, struct sesparse_run *ret);
void sesparse_close(struct sesparse *sesparse); /* NULL: nothing */
