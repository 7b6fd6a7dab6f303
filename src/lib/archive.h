/*
 * State as bytes and back: one function of an object names its members in order, for both
 * directions.
 *
 *   - Numbers are little-endian and as wide as their type; nothing is aligned or padded.
 *   - What is loaded is hostile: no read passes the end, and every value goes through
 *     archive_check() before it is used.
 *   - The first error stays. After it loads leave their targets alone and saves write nothing, so
 *     that callers may look once, at the end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct archive {
	bool loading;
	uint8_t *data; /* of a load never written */
	size_t used, bytes;
	/*
	 * of the section that is loaded; 0 where it is written, and where a test loads a part by
	 * itself: so ask for the older ones, `version == 1`, never for the newer ones
	 */
	uint32_t version;
	/*
	 * 0; -EBADMSG: not what a save writes; -ENOBUFS: a save has no room; or what archive_fail()
	 * was given
	 */
	int error;
	const char *reason; /* a text of archive_fail() that outlives the archive; NULL */
};

struct archive archive_save_to(void *data, size_t bytes);
struct archive archive_load_from(const void *data, size_t bytes);
void archive_bytes(struct archive *archive, void *value, size_t bytes);
void archive_u8(struct archive *archive, uint8_t *value);
void archive_u16(struct archive *archive, uint16_t *value);
void archive_u32(struct archive *archive, uint32_t *value);
void archive_u64(struct archive *archive, uint64_t *value);
void archive_bool(struct archive *archive, bool *value);
void archive_u32s(struct archive *archive, uint32_t *values, size_t count);
void archive_u64s(struct archive *archive, uint64_t *values, size_t count);
/*
 * While loading, a condition that does not hold is -EBADMSG. Whether there is no error until here.
 */
bool archive_check(struct archive *archive, bool condition);
void archive_fail(struct archive *archive, int error, const char *reason);
/* A load has to be at the end of its bytes. */
bool archive_check_end(struct archive *archive);
