/* See packed_pages.h. */
#include "packed_pages.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "lib/crc32c.h"
#include "saved.h"

enum { LEVEL = 1, ROOM_BYTES = PACKED_PAGES_MOST * GUEST_PAGE_BYTES };
enum { HEADS_BYTES = SAVED_SECTION_HEAD_BYTES + sizeof(struct packed_pages_head) };
_Static_assert(sizeof(struct packed_pages_head) == 24, "as in the file");
_Static_assert((int)PACKED_WORD_BYTES == (int)SAVED_ALIGNMENT, "sections are whole words");

struct pages_packer { ZSTD_CCtx *zstd; uint8_t section[HEADS_BYTES + ROOM_BYTES]; };
struct pages_unpacker { ZSTD_DCtx *zstd; uint8_t pages[ROOM_BYTES]; };

struct pages_packer *pages_packer_make(void)
{
	struct pages_packer *packer = malloc(sizeof(*packer));

	if (!packer)
		return NULL;
	packer->zstd = ZSTD_createCCtx();
	if (packer->zstd)
		return packer;
	free(packer);
	return NULL;
}

void pages_packer_free(struct pages_packer *packer)
{
	if (!packer)
		return;
	ZSTD_freeCCtx(packer->zstd);
	free(packer);
}

struct pages_unpacker *pages_unpacker_make(void)
{
	struct pages_unpacker *unpacker = malloc(sizeof(*unpacker));

	if (!unpacker)
		return NULL;
	unpacker->zstd = ZSTD_createDCtx();
	if (unpacker->zstd)
		return unpacker;
	free(unpacker);
	return NULL;
}

void pages_unpacker_free(struct pages_unpacker *unpacker)
{
	if (!unpacker)
		return;
	ZSTD_freeDCtx(unpacker->zstd);
	free(unpacker);
}

/* The most that a frame of these may have: one word less than makes it as long as without. */
static size_t frame_room(uint32_t count)
{
	const size_t plain = SAVED_SECTION_HEAD_BYTES + sizeof(uint64_t) +
			     count * (size_t)GUEST_PAGE_BYTES;
	const size_t limit = (size_t)PACKED_WORDS_MOST * PACKED_WORD_BYTES;

	return (plain - PACKED_WORD_BYTES < limit ? plain - PACKED_WORD_BYTES : limit) -
	       HEADS_BYTES;
}

size_t pages_packer_pack(struct pages_packer *packer, uint64_t first, const uint8_t *pages,
			 uint32_t count, const uint8_t **ret)
{
	const size_t plain = count * (size_t)GUEST_PAGE_BYTES;
	uint8_t *frame = packer->section + HEADS_BYTES;
	struct packed_pages_head about = { .first = first, .pages = count };
	struct saved_section head = { .name = SECTION_PAGES, .version = SECTION_PACKED_VERSION };
	size_t got;

	assert(count && count <= PACKED_PAGES_MOST);
	got = ZSTD_compressCCtx(packer->zstd, frame, frame_room(count), pages, plain, LEVEL);
	if (ZSTD_isError(got))
		return 0;
	about.crc = crc32c(0, pages, plain);
	about.bytes = (uint32_t)got;
	head.bytes = sizeof(about) + got;
	head.crc = crc32c(crc32c(0, &about, sizeof(about)), frame, got);
	head.head_crc = crc32c(0, &head, offsetof(struct saved_section, head_crc));
	memcpy(packer->section, &head, sizeof(head));
	memcpy(packer->section + sizeof(head), &about, sizeof(about));
	memset(frame + got, 0, -got % SAVED_ALIGNMENT);
	*ret = packer->section;
	return HEADS_BYTES + got + -got % SAVED_ALIGNMENT;
}

/* One frame that is as long as this, and says that it holds just so much. */
static bool is_frame(const uint8_t *frame, size_t bytes, size_t plain)
{
	return ZSTD_findFrameCompressedSize(frame, bytes) == bytes &&
	       ZSTD_getFrameContentSize(frame, bytes) == plain;
}

int pages_unpacker_unpack(struct pages_unpacker *unpacker, const uint8_t *payload, size_t bytes,
			  struct packed_pages_head *ret_head, const uint8_t **ret_pages)
{
	const uint8_t *frame = payload + sizeof(*ret_head);
	size_t plain;
	size_t got;

	if (bytes < sizeof(*ret_head))
		return -EBADMSG;
	memcpy(ret_head, payload, sizeof(*ret_head));
	if (!ret_head->pages || ret_head->pages > PACKED_PAGES_MOST || ret_head->zero ||
	    ret_head->bytes != bytes - sizeof(*ret_head))
		return -EBADMSG;
	plain = ret_head->pages * (size_t)GUEST_PAGE_BYTES;
	if (!is_frame(frame, ret_head->bytes, plain))
		return -EBADMSG;
	got = ZSTD_decompressDCtx(unpacker->zstd, unpacker->pages, plain, frame, ret_head->bytes);
	if (ZSTD_isError(got) || got != plain ||
	    crc32c(0, unpacker->pages, plain) != ret_head->crc)
		return -EBADMSG;
	*ret_pages = unpacker->pages;
	return 0;
}
