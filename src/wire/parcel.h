/*
 * What is said when a machine goes to another place: a saved machine (vm/saved_file.h) in pieces,
 * over a connection that keeps them secret and whole (wire_main.c).
 *
 *   sender                              receiver
 *   head: id, bytes, name; files  -->   of the machine's disks, for who wants them
 *                                 <--   answer; and a bit for each block that is there already, or
 *                                       is not wanted
 *   piece: a block, its checksum  -->   what the machine begins with, in any order
 *   ...                           <--   word: a block has come
 *   piece: begin                  -->   the machine begins; what it misses it asks for
 *                                 <--   word: an answer, which follows: 0, it runs; or why not
 *                                 <--   word: a block is wanted
 *   piece: that block             -->   before the others; and so on, until all of it is there
 *                                 <--   word: a part of a block is wanted, of the machine's
 *   piece: that part              -->   and soon the block, whole
 *                                 <--   word: it is whole
 *   piece: heard                  -->   nobody is waited for any more
 *   piece: lives                  -->   and
 *                                 <--   word: it lives; of who has said nothing else for a while
 *
 *   - Who says nothing at all for longer than PARCEL_SILENCE_S is taken for lost, however well his
 *     host's kernel answers for him: his connection ends, and is waited for as any that is lost.
 *   - A connection may end at any moment: the next one of the same id goes on where that was.
 *   - Both sides are hostile to each other: lengths, places and checksums are checked before they
 *     are used, and nothing is believed that is larger than what was said at first.
 *   - Blocks of files are numbered behind those of the machine, each file's from a block on; of all
 *     of them the last is sent whole, with zeros behind the end. One of zeros has no bytes.
 *   - What a file is called there its receiver says: no name of the sender's is known to him.
 *   - A page is brought into the machine that runs only when it is what its checksum in the file
 *     says (vm/saved_pages.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PARCEL_ID_BYTES = 16,
	PARCEL_NAME_BYTES = 65, /* with the NUL */
	PARCEL_TEXT_BYTES = 240,
	PARCEL_PIECE_BYTES = 64 << 10, /* a block */
	PARCEL_GRAIN_BYTES = 2 << 10, /* of which parts of blocks are */
	PARCEL_HEAD_BYTES = 120,
	PARCEL_FILE_BYTES = 16,
	PARCEL_FILES = 64,
	PARCEL_DISKS = 16,
	PARCEL_PIECE_HEAD_BYTES = 16,
	PARCEL_ANSWER_BYTES = 256,
	PARCEL_WORD_BYTES = 16,
	PARCEL_SILENCE_S = 20,
	PARCEL_LIVES_S = 5, /* so often it is said */
};

struct parcel_head {
	uint8_t id[PARCEL_ID_BYTES];
	uint64_t bytes;
	char name[PARCEL_NAME_BYTES]; /* of the machine that it becomes */
	bool runs; /* it has begun there, and this goes on */
	uint32_t files; /* which follow */
};

/*
 * A file of a disk's chain: the disk's number, how far beneath it the file lies (0: it is what the
 * machine has, or goes on above), and its format. first: the block that it begins with.
 */
enum parcel_format {
	PARCEL_VHDX,
	PARCEL_RAW,
	PARCEL_VHD,
	PARCEL_OTHER,
	PARCEL_KEPT, /* by its policy: it is not sent */
	PARCEL_FORMATS
};
struct parcel_file { uint64_t bytes, first; uint32_t format; uint16_t disk, level; };
/* bytes: of all that is sent, in whole blocks where there are files. */
struct parcel_space { uint64_t machine_bytes, bytes; uint32_t files;
		      struct parcel_file file[PARCEL_FILES]; };
/* More is a lie: a bit for each block lies in memory. */
#define PARCEL_MOST_BYTES (16ull << 40)

/*
 * at: of a block or a part of one, which is some grains, or one of those below, which have no
 * bytes. bytes 0: a block of zeros.
 */
struct parcel_piece { uint64_t at; uint32_t bytes, crc; };
#define PARCEL_BEGIN (~0ull)
#define PARCEL_HEARD (~0ull - 1)
#define PARCEL_LIVES (~0ull - 2)

enum parcel_word_kind {
	PARCEL_GOT,
	PARCEL_WANT,
	PARCEL_ANSWERS,
	PARCEL_WHOLE,
	PARCEL_STAYS, /* it lives */
	PARCEL_WANT_PART,
	PARCEL_WORDS
};
/* Of a part: its first grain, and how many, all of one block; of others grains is 0. */
struct parcel_word { uint32_t kind, grains; uint64_t block; };

/* error: 0 or -errno; have: blocks that are there; text: one printable line, or "". */
struct parcel_answer { int32_t error; uint64_t have; char text[PARCEL_TEXT_BYTES]; };

/* CRC-32C of bytes that follow those of `crc`; 0: none do. */
uint32_t parcel_checksum(uint32_t crc, const void *data, size_t bytes);
void parcel_put_head(const struct parcel_head *head, uint8_t to[PARCEL_HEAD_BYTES]);
/* 0; -EBADMSG; -ENOTSUP: of another version. */
int parcel_take_head(const uint8_t from[PARCEL_HEAD_BYTES], struct parcel_head *ret);
void parcel_put_piece(const struct parcel_piece *piece, uint8_t to[PARCEL_PIECE_HEAD_BYTES]);
/*
 * Files, of which format, disk, level and bytes are known, find their places behind the machine: 0;
 * -EFBIG; -EBADMSG: they are not in the order of their disks and levels, or one is empty.
 */
int parcel_lay_out(struct parcel_space *space);
void parcel_put_file(const struct parcel_file *file, uint8_t to[PARCEL_FILE_BYTES]);
/* All that a head has said of: 0, -EFBIG or -EBADMSG. */
int parcel_take_files(const struct parcel_head *head, const uint8_t *from,
		      struct parcel_space *ret);
/* Which file has this block; NULL: it is the machine's. */
const struct parcel_file *parcel_file_of(const struct parcel_space *space, uint64_t block);
/* So many bytes of it are the machine's, with zeros up to a whole block where files follow. */
uint64_t parcel_machine_span(const struct parcel_space *space);
/* How much of that block is the file's, or the machine's: less than all of it at an end. */
uint32_t parcel_used_bytes(const struct parcel_space *space, uint64_t block);
/* Of a parcel of so many bytes: a block of it, a part of one, or a mark. 0 or -EBADMSG. */
int parcel_take_piece(const uint8_t from[PARCEL_PIECE_HEAD_BYTES], uint64_t bytes,
		      struct parcel_piece *ret);
/* Whether it is not all of its block; of no mark. */
bool parcel_is_part(const struct parcel_piece *piece, uint64_t bytes);
static inline uint64_t parcel_blocks(uint64_t bytes)
{
	return bytes / PARCEL_PIECE_BYTES + (bytes % PARCEL_PIECE_BYTES != 0);
}
uint32_t parcel_block_bytes(uint64_t bytes, uint64_t block);
void parcel_put_word(const struct parcel_word *word, uint8_t to[PARCEL_WORD_BYTES]);
/* 0 or -EBADMSG. */
int parcel_take_word(const uint8_t from[PARCEL_WORD_BYTES], uint64_t bytes,
		     struct parcel_word *ret);
void parcel_put_answer(const struct parcel_answer *answer, uint8_t to[PARCEL_ANSWER_BYTES]);
/* About a parcel of so many bytes. 0 or -EBADMSG; what is not printable is '.'. */
int parcel_take_answer(const uint8_t from[PARCEL_ANSWER_BYTES], uint64_t bytes,
		       struct parcel_answer *ret);
