/*
 * What two hosts say to each other when a machine goes from one to the other: the first byte says
 * which of the messages it is.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "wire/parcel.h"
#include "wire/sealed.h"

enum { KINDS = 6, TOTAL = (1 << 20) + 1000 };
enum { OF_BLOCK = PARCEL_PIECE_BYTES / PARCEL_GRAIN_BYTES };

static void take_pieces(const uint8_t *data, size_t bytes)
{
	for (; bytes >= PARCEL_PIECE_HEAD_BYTES; bytes -= PARCEL_PIECE_HEAD_BYTES) {
		struct parcel_piece piece;

		if (parcel_take_piece(data, TOTAL, &piece))
			return;
		if (piece.at == PARCEL_BEGIN || piece.at == PARCEL_HEARD ||
		    piece.at == PARCEL_LIVES) {
			if (piece.bytes)
				abort();
		} else if (piece.at >= TOTAL || (!piece.bytes && piece.crc) ||
			   piece.at % PARCEL_GRAIN_BYTES || piece.bytes > TOTAL - piece.at ||
			   piece.at % PARCEL_PIECE_BYTES + piece.bytes > PARCEL_PIECE_BYTES) {
			abort();
		}
		data += PARCEL_PIECE_HEAD_BYTES;
	}
}

static void take_word(const uint8_t *data)
{
	struct parcel_word word;

	if (parcel_take_word(data, TOTAL, &word))
		return;
	if (word.kind == PARCEL_WANT_PART) {
		if (!word.grains || word.block * PARCEL_GRAIN_BYTES >= TOTAL ||
		    word.block / OF_BLOCK != (word.block + word.grains - 1) / OF_BLOCK)
			abort();
		return;
	}
	if (word.kind >= PARCEL_WORDS || word.block >= parcel_blocks(TOTAL) ||
	    !parcel_block_bytes(TOTAL, word.block))
		abort();
}

static void take_head(const uint8_t *data)
{
	uint8_t again[PARCEL_HEAD_BYTES];
	struct parcel_head head;

	if (parcel_take_head(data, &head))
		return;
	if (!head.bytes || !head.name[0] || strchr(head.name, '/') || head.name[0] == '.')
		abort();
	parcel_put_head(&head, again);
	if (parcel_take_head(again, &head))
		abort();
}

static void take_answer(const uint8_t *data)
{
	struct parcel_answer answer;

	if (parcel_take_answer(data, TOTAL, &answer))
		return;
	if (answer.have > TOTAL || answer.error > 0)
		abort();
	for (size_t n = 0; answer.text[n]; n++)
		if (answer.text[n] < ' ' || answer.text[n] >= 0x7f)
			abort();
}

/* Blocks of files lie one behind the other, none in two of them, and none behind the last. */
static void check_space(const struct parcel_space *space)
{
	uint64_t block = parcel_blocks(space->machine_bytes);

	for (uint32_t n = 0; n < space->files; n++) {
		const struct parcel_file *file = &space->file[n];
		const uint64_t last = file->first + parcel_blocks(file->bytes) - 1;

		if (file->first != block || file->disk >= PARCEL_DISKS ||
		    parcel_file_of(space, block) != file || parcel_file_of(space, last) != file ||
		    parcel_used_bytes(space, last) !=
			    parcel_block_bytes(file->bytes, last - file->first))
			abort();
		block = last + 1;
	}
	if (space->files ? space->bytes != block * PARCEL_PIECE_BYTES
			 : space->bytes != space->machine_bytes)
		abort();
}

static void take_files(const uint8_t *data, size_t bytes)
{
	const struct parcel_head head = { .bytes = TOTAL,
					  .files = bytes / PARCEL_FILE_BYTES < PARCEL_FILES
							   ? (uint32_t)(bytes / PARCEL_FILE_BYTES)
							   : PARCEL_FILES };
	struct parcel_space space;

	if (!parcel_take_files(&head, data, &space))
		check_space(&space);
}

/*
 * Of who has the key: with an even first byte as it is, with another one each part is sealed as a
 * record, of which kind and how long two bytes say.
 */
static size_t seal_parts(const uint8_t *data, size_t bytes, uint8_t *to)
{
	const struct record_keys keys = { .number = 0 };
	struct record_way way;
	size_t used = 0;

	record_begin(&way, &keys);
	while (bytes >= 2 && used < 4 * RECORD_DATA_BYTES) {
		const size_t left = bytes - 2;
		const size_t part = data[1] < left ? data[1] : left;

		record_seal(&way, (enum record_kind)data[0], data + 2, part, to + used);
		used += part + RECORD_MORE_BYTES;
		data += 2 + part;
		bytes = left - part;
	}
	return used;
}

static void take_records(const uint8_t *data, size_t bytes)
{
	static uint8_t room[5 * RECORD_DATA_BYTES];
	const struct wire_keys keys = { .from.number = 0 };
	struct wire_sealed *sealed = wire_sealed_make(&keys);
	uint8_t byte;
	int ends[2];

	if (!bytes || !sealed || socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) {
		free(sealed);
		return;
	}
	if (data[0] & 1) {
		bytes = seal_parts(data + 1, bytes - 1, room);
		data = room;
	}
	wire_send(ends[0], data, bytes < sizeof(room) ? bytes : sizeof(room));
	shutdown(ends[0], SHUT_WR);
	while (wire_sealed_receive(sealed, ends[1], &byte, 1))
		check_wire_sealed(sealed);
	check_wire_sealed(sealed);
	close(ends[0]);
	close(ends[1]);
	free(sealed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint8_t *exact = malloc(bytes);

	if (!bytes || !exact) {
		free(exact);
		return 0;
	}
	memcpy(exact, data + 1, bytes - 1);
	if (data[0] % KINDS == 0)
		take_pieces(exact, bytes - 1);
	else if (data[0] % KINDS == 1 && bytes - 1 >= PARCEL_HEAD_BYTES)
		take_head(exact);
	else if (data[0] % KINDS == 2 && bytes - 1 >= PARCEL_ANSWER_BYTES)
		take_answer(exact);
	else if (data[0] % KINDS == 3 && bytes - 1 >= PARCEL_WORD_BYTES)
		take_word(exact);
	else if (data[0] % KINDS == 4)
		take_files(exact, bytes - 1);
	else if (data[0] % KINDS == 5)
		take_records(exact, bytes - 1);
	free(exact);
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	const struct parcel_head head = { .id = "0123456789abcde",
					  .bytes = TOTAL,
					  .name = "one-2" };
	const struct parcel_answer answer = { .error = -5, .have = 1000, .text = "it is so" };
	const struct parcel_word word = { .kind = PARCEL_WANT, .block = 3 };
	struct parcel_piece piece = { .bytes = PARCEL_PIECE_BYTES };
	struct parcel_file file = { .bytes = 3 << 20, .format = PARCEL_VHDX };

	data[0] = (uint8_t)(n % KINDS);
	if (n % KINDS == 1)
		parcel_put_head(&head, data + 1);
	if (n % KINDS == 2)
		parcel_put_answer(&answer, data + 1);
	if (n % KINDS == 3) {
		parcel_put_word(&word, data + 1);
		return 1 + PARCEL_WORD_BYTES;
	}
	if (n % KINDS == 4) {
		for (unsigned k = 0; k < 3; k++, file.disk = k / 2, file.level = k % 2)
			parcel_put_file(&file, data + 1 + k * PARCEL_FILE_BYTES);
		return 1 + 3 * PARCEL_FILE_BYTES;
	}
	if (n % KINDS == 5) {
		memcpy(data + 1, "\1\27\4data\27\1x\25\2\1", 14);
		return 1 + 14;
	}
	if (n % KINDS == 1)
		return 1 + PARCEL_HEAD_BYTES;
	if (n % KINDS == 2)
		return 1 + PARCEL_ANSWER_BYTES;
	for (unsigned k = 0; k < 4; k++, piece.at += piece.bytes)
		parcel_put_piece(&piece, data + 1 + k * PARCEL_PIECE_HEAD_BYTES);
	return 1 + 4 * PARCEL_PIECE_HEAD_BYTES;
}
