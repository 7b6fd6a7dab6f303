/* libext2fs's view of a volume: it reads through the disk, and cannot write. */
#pragma once

#include <ext2fs/ext2fs.h>

#include "scan_internal.h"

/* flags: EXT2_FLAG_* beside those that are always needed. The volume stays the caller's until
 * ext2fs_free(). False: it cannot be opened. */
bool ext_volume_open(const struct scan_volume *volume, int flags, ext2_filsys *ret);
