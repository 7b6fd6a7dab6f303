/* See parcel.h. */
#include "parcel.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "lib/crc32c.h"

enum { PARCEL_VERSION = 4, ERRNO_MAX = 4095 };
static const char magic[8] = { 'U', 'M', 'B', 'R', 'A', 'W', 'I', 'R' };

struct head_on_wire {
	char magic[sizeof(magic)];
	uint32_t version, runs;
	uint8_t id[PARCEL_ID_BYTES];
	uint64_t bytes;
	char name[72];
	uint32_t files, zero;
};
_Static_assert(sizeof(struct head_on_wire) == PARCEL_HEAD_BYTES, "as it is sent");
_Static_assert(sizeof(struct parcel_piece) == PARCEL_PIECE_HEAD_BYTES, "as it is sent");

struct file_on_wire { uint64_t bytes; uint32_t format; uint16_t disk, level; };
_Static_assert(sizeof(struct file_on_wire) == PARCEL_FILE_BYTES, "as it is sent");

struct answer_on_wire {
	int32_t error;
	uint32_t zero;
	uint64_t have;
	char text[PARCEL_TEXT_BYTES];
};
_Static_assert(sizeof(struct answer_on_wire) == PARCEL_ANSWER_BYTES, "as it is sent");

uint32_t parcel_checksum(uint32_t crc, const void *data, size_t bytes)
{
	return crc32c(crc, data, bytes);
}

void parcel_put_head(const struct parcel_head *head, uint8_t to[PARCEL_HEAD_BYTES])
{
	struct head_on_wire wire = { .version = PARCEL_VERSION, .runs = head->runs,
				     .bytes = head->bytes, .files = head->files };

	memcpy(wire.magic, magic, sizeof(magic));
	memcpy(wire.id, head->id, sizeof(wire.id));
	memcpy(wire.name, head->name, strnlen(head->name, sizeof(head->name) - 1));
	memcpy(to, &wire, sizeof(wire));
}

/* A letter or digit, then those, '.', '_' and '-': nothing that a path or a terminal minds. */
static bool is_name(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";
	const size_t bytes = strlen(name);

	return bytes && strspn(name, allowed) == bytes && !strchr("._-", name[0]);
}

int parcel_take_head(const uint8_t from[PARCEL_HEAD_BYTES], struct parcel_head *ret)
{
	struct head_on_wire wire;

	memcpy(&wire, from, sizeof(wire));
	*ret = (struct parcel_head){ .bytes = wire.bytes, .runs = wire.runs,
				     .files = wire.files };
	if (memcmp(wire.magic, magic, sizeof(magic)) != 0)
		return -EBADMSG;
	if (wire.version != PARCEL_VERSION)
		return -ENOTSUP;
	if (wire.runs > 1 || !wire.bytes || wire.bytes > INT64_MAX || wire.zero ||
	    wire.files > PARCEL_FILES ||
	    !memchr(wire.name, 0, sizeof(ret->name)) || !is_name(wire.name))
		return -EBADMSG;
	memcpy(ret->id, wire.id, sizeof(ret->id));
	memcpy(ret->name, wire.name, sizeof(ret->name));
	return 0;
}

/* ---- files ---- */

/* Behind `before`, which is NULL for the first. */
static bool comes_next(const struct parcel_file *before, const struct parcel_file *file)
{
	if (file->disk >= PARCEL_DISKS || file->format >= PARCEL_FORMATS || !file->bytes)
		return false;
	if (!before || file->disk != before->disk)
		return !file->level && (!before || file->disk > before->disk);
	return file->level == before->level + 1;
}

int parcel_lay_out(struct parcel_space *space)
{
	uint64_t blocks = parcel_blocks(space->machine_bytes);

	assert(space->files <= PARCEL_FILES);
	space->bytes = space->machine_bytes;
	for (uint32_t n = 0; n < space->files; n++) {
		struct parcel_file *file = &space->file[n];

		if (!comes_next(n ? file - 1 : NULL, file))
			return -EBADMSG;
		if (file->bytes > PARCEL_MOST_BYTES)
			return -EFBIG;
		file->first = blocks;
		blocks += parcel_blocks(file->bytes);
		if (blocks > PARCEL_MOST_BYTES / PARCEL_PIECE_BYTES)
			return -EFBIG;
		space->bytes = blocks * PARCEL_PIECE_BYTES;
	}
	return 0;
}

void parcel_put_file(const struct parcel_file *file, uint8_t to[PARCEL_FILE_BYTES])
{
	const struct file_on_wire wire = { .bytes = file->bytes, .format = file->format,
					   .disk = file->disk, .level = file->level };

	memcpy(to, &wire, sizeof(wire));
}

int parcel_take_files(const struct parcel_head *head, const uint8_t *from,
		      struct parcel_space *ret)
{
	*ret = (struct parcel_space){ .machine_bytes = head->bytes, .files = head->files };
	for (uint32_t n = 0; n < head->files; n++) {
		struct file_on_wire wire;

		memcpy(&wire, from + n * sizeof(wire), sizeof(wire));
		ret->file[n] = (struct parcel_file){ .bytes = wire.bytes, .format = wire.format,
						     .disk = wire.disk, .level = wire.level };
	}
	return parcel_lay_out(ret);
}

const struct parcel_file *parcel_file_of(const struct parcel_space *space, uint64_t block)
{
	const struct parcel_file *found = NULL;

	for (uint32_t n = 0; n < space->files && space->file[n].first <= block; n++)
		found = &space->file[n];
	return found;
}

uint32_t parcel_used_bytes(const struct parcel_space *space, uint64_t block)
{
	const struct parcel_file *file = parcel_file_of(space, block);

	return file ? parcel_block_bytes(file->bytes, block - file->first)
		    : parcel_block_bytes(space->machine_bytes, block);
}

uint64_t parcel_machine_span(const struct parcel_space *space)
{
	return space->files ? parcel_blocks(space->machine_bytes) * PARCEL_PIECE_BYTES
			    : space->machine_bytes;
}

/* ---- pieces ---- */

void parcel_put_piece(const struct parcel_piece *piece, uint8_t to[PARCEL_PIECE_HEAD_BYTES])
{
	assert(piece->bytes <= PARCEL_PIECE_BYTES);
	memcpy(to, piece, sizeof(*piece));
}

uint32_t parcel_block_bytes(uint64_t bytes, uint64_t block)
{
	const uint64_t left = bytes - block * PARCEL_PIECE_BYTES;

	assert(block < parcel_blocks(bytes));
	return left < PARCEL_PIECE_BYTES ? (uint32_t)left : PARCEL_PIECE_BYTES;
}

bool parcel_is_part(const struct parcel_piece *piece, uint64_t bytes)
{
	const uint64_t block = piece->at / PARCEL_PIECE_BYTES;

	assert(piece->at < bytes);
	return piece->bytes && (piece->at % PARCEL_PIECE_BYTES ||
				piece->bytes != parcel_block_bytes(bytes, block));
}

/* Grains of one block; the last of them may be the parcel's end. */
static bool is_part(const struct parcel_piece *piece, uint64_t bytes)
{
	const uint64_t block = piece->at / PARCEL_PIECE_BYTES;
	const uint64_t in_block = piece->at % PARCEL_PIECE_BYTES;
	const uint32_t block_bytes = parcel_block_bytes(bytes, block);

	return piece->at % PARCEL_GRAIN_BYTES == 0 && piece->bytes <= block_bytes - in_block &&
	       (piece->bytes % PARCEL_GRAIN_BYTES == 0 || piece->at + piece->bytes == bytes);
}

int parcel_take_piece(const uint8_t from[PARCEL_PIECE_HEAD_BYTES], uint64_t bytes,
		      struct parcel_piece *ret)
{
	memcpy(ret, from, sizeof(*ret));
	if (ret->at == PARCEL_BEGIN || ret->at == PARCEL_HEARD || ret->at == PARCEL_LIVES)
		return ret->bytes ? -EBADMSG : 0;
	if (ret->at >= bytes)
		return -EBADMSG;
	if (!ret->bytes)
		return ret->crc || ret->at % PARCEL_PIECE_BYTES ? -EBADMSG : 0;
	return parcel_is_part(ret, bytes) && !is_part(ret, bytes) ? -EBADMSG : 0;
}

void parcel_put_word(const struct parcel_word *word, uint8_t to[PARCEL_WORD_BYTES])
{
	assert(word->kind < PARCEL_WORDS);
	memset(to, 0, PARCEL_WORD_BYTES);
	memcpy(to, &word->kind, sizeof(word->kind));
	memcpy(to + sizeof(word->kind), &word->grains, sizeof(word->grains));
	memcpy(to + sizeof(uint64_t), &word->block, sizeof(word->block));
}

/* Of one block, and none behind the parcel's end. */
static bool are_grains(const struct parcel_word *word, uint64_t bytes)
{
	const uint64_t grains = bytes / PARCEL_GRAIN_BYTES + (bytes % PARCEL_GRAIN_BYTES != 0);
	const uint64_t of_block = PARCEL_PIECE_BYTES / PARCEL_GRAIN_BYTES;

	return word->grains && word->block < grains && word->grains <= grains - word->block &&
	       word->block % of_block + word->grains <= of_block;
}

int parcel_take_word(const uint8_t from[PARCEL_WORD_BYTES], uint64_t bytes,
		     struct parcel_word *ret)
{
	memcpy(&ret->kind, from, sizeof(ret->kind));
	memcpy(&ret->grains, from + sizeof(ret->kind), sizeof(ret->grains));
	memcpy(&ret->block, from + sizeof(uint64_t), sizeof(ret->block));
	if (ret->kind == PARCEL_WANT_PART)
		return are_grains(ret, bytes) ? 0 : -EBADMSG;
	return ret->kind < PARCEL_WORDS && !ret->grains && ret->block < parcel_blocks(bytes)
		       ? 0
		       : -EBADMSG;
}

void parcel_put_answer(const struct parcel_answer *answer, uint8_t to[PARCEL_ANSWER_BYTES])
{
	struct answer_on_wire wire = { .error = answer->error, .have = answer->have };

	assert(answer->error <= 0);
	memcpy(wire.text, answer->text, strnlen(answer->text, sizeof(wire.text) - 1));
	memcpy(to, &wire, sizeof(wire));
}

int parcel_take_answer(const uint8_t from[PARCEL_ANSWER_BYTES], uint64_t bytes,
		       struct parcel_answer *ret)
{
	struct answer_on_wire wire;

	memcpy(&wire, from, sizeof(wire));
	*ret = (struct parcel_answer){ .error = wire.error, .have = wire.have };
	if (wire.zero || wire.error > 0 || wire.error < -ERRNO_MAX ||
	    wire.have > parcel_blocks(bytes) ||
	    !memchr(wire.text, 0, sizeof(wire.text)))
		return -EBADMSG;
	for (size_t n = 0; wire.text[n]; n++)
		ret->text[n] = wire.text[n] >= ' ' && wire.text[n] < 0x7f ? wire.text[n] : '.';
	return 0;
}
