/*
 * A file that is read as if it had been changed: what would be written to it stays in memory, and
 * the file itself is never touched. A log that was left in a file is replayed into one, where the
 * file may not be written or shall not be.
 *
 * 1. The ranges do not overlap, and are sorted by where they begin.
 * 2. At most OVERLAY_RANGES_MAX of them, and of OVERLAY_BYTES_MAX of data: -EFBIG.
 */
#pragma once

#include "file.h"

enum { OVERLAY_RANGES_MAX = 32768 };
#define OVERLAY_BYTES_MAX (64ull << 20)

/* Puts itself in the place of *file, which it takes over and closes with itself; on failure *file
 * stays as it was. Writing, zeroing and resizing is then one thread's, before others read. */
int file_overlay_begin(struct disk_file *file);
/* The file below an overlay, or the file itself. */
const struct disk_file *file_overlay_below(const struct disk_file *file);
