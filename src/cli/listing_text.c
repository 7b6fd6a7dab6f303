/*
 * See listing_text.h. A piece is what one guest instruction was made to, as far as it lies in one
 * place: some have two, behind a strip's loop or of a group. Before the first is the entry, behind
 * the last are ways out.
 *
 * Bytes are the guest's and the machine's: nothing is done with them but to print them. Words for
 * them are Zydis's, where it is installed; it is loaded by who needs it and by no other process.
 */
#include "listing_text.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "instruction_text.h"

enum { HEX_BYTES = 2 * LISTING_HOST_BYTES + 1, LINE_BYTES = 12, NO_GUEST = -1 };

/* Of the host's code; guest: in the guest's bytes, or NO_GUEST; from_gva: as in a map. */
struct piece { unsigned begin, end; int guest, from_gva; const char *kind; };

/* How long the guest instruction at this offset is: up to where the next one begins. */
static unsigned guest_length(const struct listing *listing, unsigned guest)
{
	unsigned end = listing->head.guest_bytes;

	for (unsigned n = 0; n < listing->head.maps; n++)
		if (listing->map[n].guest > guest && listing->map[n].guest < end)
			end = listing->map[n].guest;
	return end - guest;
}

/* The n-th; false: there are not so many. */
static bool find_piece(const struct listing *listing, unsigned n, struct piece *ret)
{
	const struct listing_head *head = &listing->head;
	const unsigned first = head->maps ? listing->map[0].host : head->hot_end;

	*ret = (struct piece){ .end = first, .guest = NO_GUEST, .kind = "entry" };
	if (!n)
		return true;
	if (n <= head->maps) {
		*ret = (struct piece){ .begin = listing->map[n - 1].host,
				       .end = n < head->maps ? listing->map[n].host : head->hot_end,
				       .guest = listing->map[n - 1].guest,
				       .from_gva = listing->map[n - 1].from_gva,
				       .kind = "instruction" };
		return true;
	}
	*ret = (struct piece){ .begin = head->hot_end,
			       .end = head->host_bytes,
			       .guest = NO_GUEST,
			       .kind = "ways out" };
	return n == head->maps + 1u;
}

static unsigned piece_bytes(const struct piece *piece)
{
	return piece->end > piece->begin ? piece->end - piece->begin : 0;
}

/* Some instructions need no host code; others have one. */
static bool is_there(const struct piece *piece)
{
	return piece->guest != NO_GUEST || piece_bytes(piece);
}

/* ---- text ---- */

static void print_bytes(const uint8_t *bytes, unsigned count, unsigned offset)
{
	for (unsigned n = 0; n < count; n++) {
		if (n % LINE_BYTES == 0)
			printf("%s%6x  ", n ? "\n" : "", offset + n);
		printf("%02x ", bytes[n]);
	}
	puts("");
}

static void print_instruction(const uint8_t *bytes, unsigned count, unsigned offset,
			      const char *words)
{
	printf("%6x  ", offset);
	for (unsigned n = 0; n < LINE_BYTES || n < count; n++)
		if (n < count)
			printf("%02x ", bytes[n]);
		else
			printf("   ");
	printf(" %s\n", words);
}

/* Up to what is no instruction: data of an exit. */
static void print_host(const struct listing *listing, const struct piece *piece, bool has_words)
{
	char words[INSTRUCTION_TEXT_BYTES];
	unsigned at = piece->begin;

	while (has_words && at < piece->end) {
		const unsigned bytes = instruction_text(listing->host + at, piece->end - at, 64, at,
							words);

		if (!bytes)
			break;
		print_instruction(listing->host + at, bytes, at, words);
		at += bytes;
	}
	if (at < piece->end)
		print_bytes(listing->host + at, piece->end - at, at);
}

static void print_guest(const struct listing *listing, const struct piece *piece, bool has_words)
{
	const unsigned guest = (unsigned)piece->guest;
	char words[INSTRUCTION_TEXT_BYTES] = "";
	const unsigned bytes = guest_length(listing, guest);
	const uint64_t at = listing->head.gva + (uint64_t)(int64_t)piece->from_gva;

	printf("%lx  ", at);
	for (unsigned n = 0; n < bytes; n++)
		printf("%02x ", listing->guest[guest + n]);
	if (has_words)
		instruction_text(listing->guest + guest, bytes, listing->head.code_bits, at, words);
	printf(" %s\n", words);
}

static void print_head(const struct listing_head *head)
{
	if (head->is_part)
		printf("cold part: %u bytes\n", head->host_bytes);
	else
		printf("block %lx, gpa %lx, %u bits, %s: %u instructions of %u bytes, "
		       "%u hot bytes, %u of ways out, %u links\n",
		       head->gva, head->gpa, head->code_bits, head->is_user ? "user" : "kernel",
		       head->insns, head->guest_bytes, head->hot_end,
		       head->host_bytes - head->hot_end, head->links);
}

void listing_print(const struct listing *listing, bool has_words)
{
	struct piece piece;

	print_head(&listing->head);
	for (unsigned n = 0; find_piece(listing, n, &piece); n++) {
		if (!is_there(&piece))
			continue;
		if (piece.guest == NO_GUEST)
			puts(piece.kind);
		else
			print_guest(listing, &piece, has_words);
		print_host(listing, &piece, has_words);
	}
}

/* ---- JSON ---- */

static json_t *hexadecimal(const uint8_t *bytes, unsigned count)
{
	static const char digits[] = "0123456789abcdef";
	char text[HEX_BYTES];

	assert(2 * count < sizeof(text));
	for (unsigned n = 0; n < count; n++) {
		text[2 * n] = digits[bytes[n] >> 4];
		text[2 * n + 1] = digits[bytes[n] & 15];
	}
	text[2 * count] = 0;
	return json_string(text);
}

static json_t *address(uint64_t value)
{
	char text[20];

	snprintf(text, sizeof(text), "0x%lx", value);
	return json_string(text);
}

static json_t *describe_piece(const struct listing *listing, const struct piece *piece)
{
	json_t *object = json_pack("{s:s, s:i, s:o}", "kind", piece->kind, "host-offset",
				   (int)piece->begin, "host",
				   hexadecimal(listing->host + piece->begin, piece_bytes(piece)));

	if (piece->guest == NO_GUEST)
		return object;
	json_object_set_new(object, "guest-offset", json_integer(piece->from_gva));
	json_object_set_new(object, "guest",
			    hexadecimal(listing->guest + piece->guest,
					guest_length(listing, (unsigned)piece->guest)));
	return object;
}

json_t *listing_describe(const struct listing *listing)
{
	const struct listing_head *head = &listing->head;
	json_t *code = json_array();
	struct piece piece;

	for (unsigned n = 0; find_piece(listing, n, &piece); n++)
		if (is_there(&piece))
			json_array_append_new(code, describe_piece(listing, &piece));
	return json_pack("{s:o, s:o, s:i, s:b, s:b, s:i, s:i, s:i, s:i, s:i, s:o}", "gva",
			 address(head->gva), "gpa", address(head->gpa), "bits", head->code_bits,
			 "user", head->is_user, "cold", head->is_part, "instructions", head->insns,
			 "guest-bytes", head->guest_bytes, "hot-bytes", head->hot_end,
			 "way-out-bytes", head->host_bytes - head->hot_end, "links", head->links,
			 "code", code);
}
