/*
 * A PAGE section of a saved machine whose pages are packed (zstd): its version is 2.
 *
 *   section head  its checksum is of the payload as it is in the file
 *   u64 first frame  u32 pages  u32 checksum of the pages  u32 bytes of the frame  u32 zero
 *   a zstd frame that says how much it holds, zeros up to a multiple of 8
 *
 *   - All of it is hostile. What a frame becomes is decided by `pages`, of which there are few, and
 *     is written into room of just that size: neither is memory taken by what a frame says, nor is
 *     more unpacked than there is room for. It has to be one frame, and all of it.
 *   - What was unpacked is compared with its checksum before anybody uses it.
 *   - A section is packed only where it becomes smaller.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct packed_pages_head { uint64_t first; uint32_t pages, crc, bytes, zero; };
struct pages_packer;
struct pages_unpacker;

enum {
	PACKED_PAGES_MOST = 256,
	PACKED_WORD_BYTES = 8,
	PACKED_WORDS_MOST = UINT16_MAX, /* of a whole section, as the index says it */
};

/* NULL: no memory. Each for one thread at a time. */
struct pages_packer *pages_packer_make(void);
void pages_packer_free(struct pages_packer *packer);
struct pages_unpacker *pages_unpacker_make(void);
void pages_unpacker_free(struct pages_unpacker *unpacker);
/*
 * A section of so many pages, no more than PACKED_PAGES_MOST, with its head, in *ret until the next
 * call: how many bytes, a multiple of 8; 0: it is not smaller than it is without.
 */
size_t pages_packer_pack(struct pages_packer *packer, uint64_t first, const uint8_t *pages,
			 uint32_t count, const uint8_t **ret);
/*
 * The payload of one. 0, and *ret_pages are right until the next call; -EBADMSG: it is not what
 * it says; -ENOMEM.
 */
int pages_unpacker_unpack(struct pages_unpacker *unpacker, const uint8_t *payload, size_t bytes,
			  struct packed_pages_head *ret_head, const uint8_t **ret_pages);
