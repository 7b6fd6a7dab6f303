/*
 * See kallsyms.h. What scripts/kallsyms.c of Linux writes into the kernel's read-only data, each
 * part aligned to 8 bytes:
 *
 *   count        u32; in front of the names
 *   names        of each symbol its length (of one byte, or two with bit 7 of the first), then so
 *                many tokens; the first letter of the text is the symbol's type
 *   markers      u32 of each 256th symbol: where it begins in the names
 *   token table  256 texts, each ended by NUL
 *   token index  u16 of each: where it begins in the token table
 *   offsets      i32 of each symbol, by address
 *   base         what the offsets are relative to
 *
 * Until 6.3 offsets and base stood in front of the count, and in some kernels of that time three
 * bytes for each symbol, by name, between markers and token table. The digits are tokens of
 * themselves: that is what is looked for. Everything else is found from there, and each part is
 * checked by another.
 *
 *    - Every byte comes from guest_memory_read(), by a walk of the two levels that map the window;
 *      what it says may change at any time and be anything.
 *    - Every loop has a bound that does not come from the guest, and all of them together read so
 *      often, and so many bytes, and no more (struct kallsyms: reads_left, bytes_left).
 */
#include "kallsyms.h"

#include <stdio.h>
#include <string.h>

#include "lib/speculation.h"
#include "memory/memory.h"

enum { TEXT_BYTES = 512 };
enum {
	TABLE_ENTRIES = 512,
	ENTRY_BYTES = 8,
	ENTRY_PRESENT = 1,
	ENTRY_LARGE = 0x80,
	DIRECTORY_INDEX = 510, /* of the window, in the table above */
	KPTI_USER_BIT = 0x1000, /* of CR3, where user code has page tables of its own */
	PAGE_BYTES = GUEST_PAGE_BYTES,
	LARGE_BYTES = 2 << 20,
	CHUNK_BYTES = 8 << 10,
	SYMBOLS_A_MARKER = 256,
	SYMBOLS_MOST = 1 << 20,
	MARKERS_MOST = SYMBOLS_MOST / SYMBOLS_A_MARKER,
	LAST_NAMES_BYTES = 64 << 10, /* of the names behind the last marker */
	READS_MOST = 1 << 20,
	READ_BYTES_MOST = 256 << 20,
	SEQUENCE_BYTES = 3, /* of a symbol, in the list by name */
	NAMES_BYTES_MOST = SYMBOLS_A_MARKER * TEXT_BYTES,
	FIRST_DIGIT = '0',
	SAMPLES = 64
};
#define WINDOW 0xffffffff80000000ull
#define WINDOW_BYTES (1ull << 30)
#define FAR_BYTES (1ull << 20) /* from a symbol's begin: what is farther is none of it */
#define ADDRESS_MASK 0x000ffffffffff000ull

static const char digits[] = "0\0001\0002\0003\0004\0005\0006\0007\0008\0009";

/* ---- reading at addresses of the window ---- */

static bool entry_at(const struct guest_memory *memory, uint64_t table_gpa, unsigned index,
		     uint64_t *ret_entry)
{
	/* what is read again may be another, and is taken as such */
	guest_memory_begin();
	return !guest_memory_read(memory, table_gpa + (uint64_t)index * ENTRY_BYTES, ret_entry,
				  sizeof(*ret_entry)) &&
	       *ret_entry & ENTRY_PRESENT;
}

/* The guest's memory at an address of the window, and how much of it goes on there. */
static bool translate(const struct kallsyms *kallsyms, uint64_t gva, uint64_t *ret_gpa,
		      uint64_t *ret_bytes)
{
	uint64_t offset = gva - WINDOW;
	uint64_t large_left = LARGE_BYTES - offset % LARGE_BYTES;
	uint64_t entry;

	*ret_bytes = large_left;
	if (offset >= WINDOW_BYTES || !entry_at(kallsyms->memory, kallsyms->directory_gpa,
						(unsigned)(offset / LARGE_BYTES), &entry))
		return false;
	if (entry & ENTRY_LARGE) {
		*ret_gpa = (entry & ADDRESS_MASK & ~(uint64_t)(LARGE_BYTES - 1)) +
			   offset % LARGE_BYTES;
		return true;
	}
	*ret_bytes = PAGE_BYTES - offset % PAGE_BYTES;
	if (!entry_at(kallsyms->memory, entry & ADDRESS_MASK,
		      (unsigned)(offset % LARGE_BYTES / PAGE_BYTES), &entry))
		return false;
	*ret_gpa = (entry & ADDRESS_MASK) + offset % PAGE_BYTES;
	return true;
}

static bool read_at(struct kallsyms *kallsyms, uint64_t gva, void *to, size_t bytes)
{
	if (!kallsyms->reads_left || kallsyms->bytes_left < bytes)
		return false;
	kallsyms->reads_left--;
	kallsyms->bytes_left -= (uint32_t)bytes;
	for (size_t done = 0; done < bytes;) {
		uint64_t gpa, left;
		size_t n;

		if (!translate(kallsyms, gva + done, &gpa, &left))
			return false;
		n = bytes - done < left ? bytes - done : (size_t)left;
		if (guest_memory_read(kallsyms->memory, gpa, (uint8_t *)to + done, n))
			return false;
		done += n;
	}
	return true;
}

static bool read_u32(struct kallsyms *kallsyms, uint64_t gva, uint32_t *ret)
{
	return read_at(kallsyms, gva, ret, sizeof(*ret));
}

static uint64_t align_8(uint64_t n) { return (n + 7) & ~7ull; }

/* The tables map the window with this root: of a kernel's, or of its user's beside that. */
static bool find_window(struct kallsyms *kallsyms, uint64_t cr3)
{
	uint64_t roots[2] = { cr3 & ADDRESS_MASK, cr3 & ADDRESS_MASK & ~(uint64_t)KPTI_USER_BIT };
	uint64_t entry;

	for (unsigned n = 0; n < 2; n++)
		if (entry_at(kallsyms->memory, roots[n], TABLE_ENTRIES - 1, &entry) &&
		    entry_at(kallsyms->memory, entry & ADDRESS_MASK, DIRECTORY_INDEX, &entry) &&
		    !(entry & ENTRY_LARGE)) {
			kallsyms->directory_gpa = entry & ADDRESS_MASK;
			return true;
		}
	return false;
}

/* ---- tokens ---- */

/*
 * If the digits of a token table are at gva: where the text of token 0 ends, and the earliest place
 * where it may begin, since nothing need separate it from what is in front.
 */
static bool find_token_0(struct kallsyms *kallsyms, uint64_t gva, uint64_t *ret_begin,
			 uint64_t *ret_end)
{
	char before[KALLSYMS_TOKEN_BYTES];
	size_t at = sizeof(before);

	if (!read_at(kallsyms, gva - sizeof(before), before, sizeof(before)))
		return false;
	for (unsigned n = 0; n < FIRST_DIGIT; n++) {
		if (at < 2 || before[--at])
			return false;
		*ret_end = gva - sizeof(before) + at;
		while (at && before[at - 1])
			at--;
	}
	*ret_begin = gva - sizeof(before) + at;
	return true;
}

/* The texts at gva, if the index behind them says the same; *ret_end: behind that. */
static bool take_tokens(struct kallsyms *kallsyms, uint64_t gva, uint64_t *ret_end)
{
	uint16_t index[KALLSYMS_TOKENS];
	size_t at = 0;

	if (gva % 8 || !read_at(kallsyms, gva, kallsyms->token_text, sizeof(kallsyms->token_text)))
		return false;
	kallsyms->token_text[sizeof(kallsyms->token_text) - 1] = 0;
	for (unsigned n = 0; n < KALLSYMS_TOKENS; n++) {
		kallsyms->token[n] = (uint16_t)at;
		at += strlen(kallsyms->token_text + at) + 1;
		if (at >= sizeof(kallsyms->token_text))
			return false;
	}
	*ret_end = align_8(gva + at) + sizeof(index);
	return read_at(kallsyms, align_8(gva + at), index, sizeof(index)) &&
	       !memcmp(index, kallsyms->token, sizeof(index));
}

/* ---- names ---- */

/* The length of the name at gva in tokens, and where they begin. */
static bool name_length(struct kallsyms *kallsyms, uint64_t gva, unsigned *ret_tokens,
			uint64_t *ret_first)
{
	uint8_t length[2];

	if (!read_at(kallsyms, gva, length, sizeof(length)))
		return false;
	*ret_tokens = length[0] & 0x80 ? (length[0] & 0x7fu) | (unsigned)length[1] << 7 : length[0];
	*ret_first = gva + 1 + (length[0] >> 7);
	return *ret_tokens;
}

/* Behind so many names; 0: they are none. */
static uint64_t skip_names(struct kallsyms *kallsyms, uint64_t gva, unsigned names)
{
	unsigned tokens;

	while (names--) {
		if (!name_length(kallsyms, gva, &tokens, &gva))
			return 0;
		gva += tokens;
	}
	return gva;
}

/* Without the type. */
static void take_name(struct kallsyms *kallsyms, uint64_t gva, char text[TEXT_BYTES])
{
	uint8_t token[TEXT_BYTES];
	size_t bytes = 0;
	unsigned tokens;

	text[0] = 0;
	if (!name_length(kallsyms, gva, &tokens, &gva))
		return;
	if (tokens > sizeof(token))
		tokens = sizeof(token);
	if (!read_at(kallsyms, gva, token, tokens))
		return;
	for (unsigned n = 0; n < tokens; n++) {
		size_t begin =
			speculation_bound(kallsyms->token[token[n]], sizeof(kallsyms->token_text));
		size_t length = strlen(kallsyms->token_text + begin);

		if (length > TEXT_BYTES - 1 - bytes)
			length = TEXT_BYTES - 1 - bytes;
		memcpy(text + bytes, kallsyms->token_text + begin, length);
		bytes += length;
	}
	text[bytes] = 0;
	if (bytes)
		memmove(text, text + 1, bytes);
}

/* ---- markers, count ---- */

/* How many there are in front of this address; *ret_last: what the last one says. */
static uint32_t find_markers(struct kallsyms *kallsyms, uint64_t end, uint32_t *ret_last)
{
	uint64_t at = end - sizeof(uint32_t);
	uint32_t count = 1;
	uint32_t value, before;

	if (!read_u32(kallsyms, at, &value))
		return 0;
	if (!value) { /* what aligns the table */
		at -= sizeof(uint32_t);
		if (!read_u32(kallsyms, at, &value))
			return 0;
	}
	*ret_last = value;
	for (; value; value = before, count++) {
		at -= sizeof(uint32_t);
		if (count == MARKERS_MOST || !read_u32(kallsyms, at, &before) || before >= value)
			return 0;
	}
	kallsyms->markers = at;
	return count;
}

/* The names end with the markers, and the first marker but one is where the names say. */
static bool names_are_at(struct kallsyms *kallsyms, uint64_t names, uint32_t markers, uint32_t last,
			 uint32_t count)
{
	uint32_t second = 0;
	uint64_t end = skip_names(kallsyms, names + last, count - (markers - 1) * SYMBOLS_A_MARKER);

	if (!end || align_8(end) != kallsyms->markers)
		return false;
	return markers < 2 || (read_u32(kallsyms, kallsyms->markers + sizeof(second), &second) &&
			       skip_names(kallsyms, names, SYMBOLS_A_MARKER) == names + second);
}

/* The count stands in front of the names. */
static bool find_names(struct kallsyms *kallsyms, uint32_t markers, uint32_t last)
{
	uint64_t at = (kallsyms->markers - last) & ~7ull;

	for (uint64_t gone = 0; gone < LAST_NAMES_BYTES; gone += 8) {
		uint32_t count = 0;

		if (!read_u32(kallsyms, at - gone - 8, &count))
			return false;
		if (count <= (markers - 1) * SYMBOLS_A_MARKER || count > markers * SYMBOLS_A_MARKER)
			continue;
		if (names_are_at(kallsyms, at - gone, markers, last, count)) {
			kallsyms->names = at - gone;
			kallsyms->count = count;
			return true;
		}
	}
	return false;
}

static bool find_names_before(struct kallsyms *kallsyms, uint64_t end)
{
	uint32_t last;
	uint32_t markers = find_markers(kallsyms, end, &last);

	return markers && find_names(kallsyms, markers, last);
}

/*
 * The same with the list by name between markers and token table: its length says how many symbols
 * there are, and that where the markers begin, with 0 and the length of the first 256 names.
 */
static bool find_names_before_list(struct kallsyms *kallsyms, uint64_t tokens)
{
	for (uint64_t list = 8; list < (uint64_t)SYMBOLS_MOST * SEQUENCE_BYTES; list += 8) {
		uint32_t markers = (uint32_t)(list / SEQUENCE_BYTES + SYMBOLS_A_MARKER - 1) /
				   SYMBOLS_A_MARKER;
		uint64_t at = tokens - list - align_8((uint64_t)markers * sizeof(uint32_t));
		uint32_t first[2] = { 0 };
		uint32_t last;

		if (!read_at(kallsyms, at, first, sizeof(first)))
			return false;
		if (first[0] || !first[1] || first[1] > NAMES_BYTES_MOST)
			continue;
		kallsyms->markers = at;
		if (read_u32(kallsyms, at + (uint64_t)(markers - 1) * sizeof(last), &last) &&
		    find_names(kallsyms, markers, last))
			return true;
	}
	return false;
}

/* ---- addresses ---- */

static bool address_of(struct kallsyms *kallsyms, uint32_t n, uint64_t *ret)
{
	int32_t offset;

	if (!read_at(kallsyms, kallsyms->offsets + (uint64_t)n * sizeof(offset), &offset,
		     sizeof(offset)))
		return false;
	if (kallsyms->from_base)
		*ret = offset < 0 ? kallsyms->base - 1 - (uint64_t)(int64_t)offset
				  : (uint64_t)offset;
	else
		*ret = kallsyms->base + (uint32_t)offset;
	return true;
}

/* They ascend, and some are in the window. */
static bool addresses_are_good(struct kallsyms *kallsyms)
{
	uint64_t before = 0;
	uint64_t address = 0;

	for (unsigned n = 0; n <= SAMPLES; n++) {
		uint32_t symbol = (uint32_t)((uint64_t)(kallsyms->count - 1) * n / SAMPLES);

		if (!address_of(kallsyms, symbol, &address) || address < before)
			return false;
		before = address;
	}
	return address - WINDOW < WINDOW_BYTES;
}

static bool take_addresses(struct kallsyms *kallsyms, uint64_t offsets, uint64_t base_at)
{
	kallsyms->offsets = offsets;
	if (!read_at(kallsyms, base_at, &kallsyms->base, sizeof(kallsyms->base)) ||
	    kallsyms->base - WINDOW >= WINDOW_BYTES)
		return false;
	kallsyms->from_base = true;
	if (addresses_are_good(kallsyms))
		return true;
	kallsyms->from_base = false;
	return addresses_are_good(kallsyms);
}

static bool find_addresses(struct kallsyms *kallsyms, uint64_t behind_tokens)
{
	uint64_t bytes = align_8((uint64_t)kallsyms->count * sizeof(int32_t));
	uint64_t base_before = kallsyms->names - 16;

	return take_addresses(kallsyms, behind_tokens, behind_tokens + bytes) ||
	       take_addresses(kallsyms, base_before - bytes, base_before);
}

/* ---- */

static bool take_all(struct kallsyms *kallsyms, uint64_t digits_gva)
{
	uint64_t begin, end, behind;

	if (!find_token_0(kallsyms, digits_gva, &begin, &end))
		return false;
	for (begin = align_8(begin); begin < end; begin += 8)
		if (take_tokens(kallsyms, begin, &behind))
			return (find_names_before(kallsyms, begin) ||
				find_names_before_list(kallsyms, begin)) &&
			       find_addresses(kallsyms, behind);
	return false;
}

static bool look_in(struct kallsyms *kallsyms, uint64_t gva, const uint8_t *chunk, size_t bytes)
{
	const uint8_t *end = chunk + bytes;
	const uint8_t *at = chunk;

	while ((at = memmem(at, (size_t)(end - at), digits, sizeof(digits)))) {
		if (take_all(kallsyms, gva + (uint64_t)(at - chunk)))
			return true;
		at++;
	}
	return false;
}

/* As many pages as there are, up to a chunk and the page behind it. */
static size_t read_chunk(struct kallsyms *kallsyms, uint64_t gva, uint8_t *to)
{
	size_t bytes = 0;

	while (bytes < CHUNK_BYTES + PAGE_BYTES &&
	       read_at(kallsyms, gva + bytes, to + bytes, PAGE_BYTES))
		bytes += PAGE_BYTES;
	return bytes;
}

void kallsyms_go_on(struct kallsyms *kallsyms)
{
	kallsyms->reads_left = READS_MOST;
	kallsyms->bytes_left = READ_BYTES_MOST;
}

bool kallsyms_find(struct kallsyms *kallsyms, const struct guest_memory *memory, uint64_t cr3)
{
	uint8_t chunk[CHUNK_BYTES + PAGE_BYTES];

	memset(kallsyms, 0, sizeof(*kallsyms));
	kallsyms->memory = memory;
	kallsyms_go_on(kallsyms);
	if (!find_window(kallsyms, cr3))
		return false;
	for (uint64_t at = WINDOW; at - WINDOW < WINDOW_BYTES && kallsyms->reads_left &&
				   kallsyms->bytes_left >= PAGE_BYTES;) {
		uint64_t gpa, left;

		if (!translate(kallsyms, at, &gpa, &left)) {
			at += left;
			continue;
		}
		if (look_in(kallsyms, at, chunk, read_chunk(kallsyms, at, chunk)))
			return true;
		at += CHUNK_BYTES;
	}
	return false;
}

bool kallsyms_may_name(uint64_t gva) { return gva - WINDOW < WINDOW_BYTES; }

/* Guests' names go to a terminal and into files. */
static bool is_name(const char *text)
{
	return *text && text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					  "0123456789_.$")] == 0;
}

/* The last symbol at or below the address. */
static uint32_t search(struct kallsyms *kallsyms, uint64_t gva)
{
	uint32_t low = 0;
	uint32_t high = kallsyms->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		uint64_t address;

		if (!address_of(kallsyms, middle, &address))
			return kallsyms->count;
		if (address <= gva)
			low = middle + 1;
		else
			high = middle;
	}
	return low - 1;
}

void kallsyms_name(struct kallsyms *kallsyms, uint64_t gva, char ret[KALLSYMS_NAME_BYTES])
{
	uint32_t n = search(kallsyms, gva);
	char text[TEXT_BYTES];
	uint64_t begin, at;
	uint32_t marker;

	ret[0] = 0;
	if (n >= kallsyms->count || !address_of(kallsyms, n, &begin) || gva - begin >= FAR_BYTES ||
	    !read_u32(kallsyms,
		      kallsyms->markers + (uint64_t)(n / SYMBOLS_A_MARKER) * sizeof(marker),
		      &marker))
		return;
	at = skip_names(kallsyms, kallsyms->names + marker, n % SYMBOLS_A_MARKER);
	if (!at)
		return;
	take_name(kallsyms, at, text);
	if (is_name(text))
		snprintf(ret, KALLSYMS_NAME_BYTES, "%.*s+%#lx",
			 KALLSYMS_NAME_BYTES - (int)sizeof("+0x12345"), text, gva - begin);
}
