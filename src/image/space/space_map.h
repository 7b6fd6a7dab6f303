/*
 * What a file system says is free, against what its files lie in: a bit a block. A file system that
 * says of a block that it is free, and has something in it, is not believed at all.
 *
 * First everything that is free is said, then everything that is used. Both are of a hostile file
 * system: -EBADMSG for what is not within it, -EUCLEAN for what is used and free. `why` has the
 * first fault.
 */
#pragma once

#include "image/scan/scan_internal.h"

enum { SPACE_WHY_BYTES = 160 };

struct space_map {
	uint8_t *free; /* a bit a block, lowest first */
	uint64_t blocks, free_blocks;
	uint32_t block_bytes;
	char why[SPACE_WHY_BYTES];
};

/* Of `bytes` of blocks; -EFBIG: more than 2^32 of them. */
int space_begin(struct space_map *map, uint64_t blocks, uint32_t block_bytes);
void space_end(struct space_map *map);
int space_free(struct space_map *map, uint64_t block, uint64_t count);
int space_used(struct space_map *map, uint64_t block, uint64_t count);
bool space_is_free(const struct space_map *map, uint64_t block, uint64_t count);
/* Sets `why`, if nothing has, and returns `error`. */
int space_refuse(struct space_map *map, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Of a volume of that kind: begins the map, fills it, and compares it with everything that the
 * files, and the file system itself, lie in. 0, or -errno with map->why: the file system is not
 * clean, not sound, or of a kind that is not known here.
 */
int space_ext(const struct scan_volume *volume, struct space_map *map);
int space_xfs(const struct scan_volume *volume, struct space_map *map);
int space_ntfs(const struct scan_volume *volume, struct space_map *map);
