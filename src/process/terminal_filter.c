/* See terminal_filter.h. */
#include "terminal_filter.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "lib/check.h"

enum state {
	TEXT,
	UTF8,
	ESCAPE,
	CHARACTER_SET,
	CONTROL,
	CONTROL_DROPPED,
	ESCAPE_DROPPED,
	STRING,
	STRING_ESCAPE
};
enum { BEL = 7, CAN = 0x18, SUB = 0x1a, ESC = 0x1b, DEL = 0x7f };
/* A string without an end swallows no more than this. */
enum { STRING_MAX_BYTES = 8192, NUMBERS_MAX = 16, DIGITS_MAX = 4 };

static bool is_one_of(uint8_t byte, const char *list) { return byte && strchr(list, byte); }
static bool is_final(uint8_t byte) { return byte >= 0x40 && byte < DEL; }

static void token_begin(struct terminal_filter *filter, enum state state, uint8_t byte)
{
	filter->state = (int)state;
	filter->token[0] = byte;
	filter->used = 1;
}

static bool token_add(struct terminal_filter *filter, uint8_t byte)
{
	if (filter->used == sizeof(filter->token))
		return false;
	filter->token[filter->used++] = byte;
	return true;
}

static size_t token_put(struct terminal_filter *filter, uint8_t *out)
{
	memcpy(out, filter->token, filter->used);
	filter->state = TEXT;
	return filter->used;
}

/* ---- UTF-8 ---- */

static unsigned utf8_following(uint8_t lead)
{
	if (lead >= 0xc2 && lead < 0xe0)
		return 1;
	if (lead >= 0xe0 && lead < 0xf0)
		return 2;
	return lead >= 0xf0 && lead < 0xf5 ? 3 : 0;
}

/*
 * The second byte decides on all that is forbidden: C1 controls, overlong forms, surrogates, beyond
 * U+10FFFF.
 */
static bool utf8_second_is_good(uint8_t lead, uint8_t second)
{
	uint8_t low = 0x80;
	uint8_t high = 0xbf;

	if (lead == 0xc2 || lead == 0xe0)
		low = 0xa0;
	if (lead == 0xf0)
		low = 0x90;
	if (lead == 0xed)
		high = 0x9f;
	if (lead == 0xf4)
		high = 0x8f;
	return second >= low && second <= high;
}

/* False: the byte is none of the sequence, which is dropped. */
static bool utf8_take(struct terminal_filter *filter, uint8_t byte, uint8_t *out, size_t *ret_bytes)
{
	bool good = filter->used == 1 ? utf8_second_is_good(filter->token[0], byte)
				      : (byte & 0xc0) == 0x80;

	if (!good) {
		filter->state = TEXT;
		return false;
	}
	token_add(filter, byte);
	if (!--filter->left)
		*ret_bytes = token_put(filter, out);
	return true;
}

/* ---- control sequences ---- */

/* The numbers of a control sequence, by ';' or ':'; false: too many, or too long. */
static bool control_numbers(const uint8_t *text, size_t bytes, unsigned number[NUMBERS_MAX],
			    unsigned *ret_count)
{
	unsigned digits = 0;
	unsigned count = 1;

	number[0] = 0;
	for (size_t n = 0; n < bytes; n++) {
		if (text[n] == ';' || text[n] == ':') {
			if (count == NUMBERS_MAX)
				return false;
			number[count++] = 0;
			digits = 0;
			continue;
		}
		if (++digits > DIGITS_MAX)
			return false;
		number[count - 1] = number[count - 1] * 10 + text[n] - '0';
	}
	*ret_count = count;
	return true;
}

static bool is_private_mode(unsigned mode)
{
	static const unsigned modes[] = { 1, 6, 7, 12, 25, 47, 1047, 1048, 1049 };

	for (size_t n = 0; n < sizeof(modes) / sizeof(modes[0]); n++)
		if (modes[n] == mode)
			return true;
	return false;
}

/* ESC [ parameters final. */
static bool control_passes(const struct terminal_filter *filter)
{
	bool is_private = filter->used > 3 && filter->token[2] == '?';
	size_t begin = is_private ? 3 : 2;
	uint8_t final = filter->token[filter->used - 1];
	unsigned number[NUMBERS_MAX];
	unsigned count;

	if (!control_numbers(filter->token + begin, filter->used - 1 - begin, number, &count))
		return false;
	if (!is_private && final != 'h' && final != 'l')
		return is_one_of(final, "ABCDEFGHJKLMPSTXdfmrsu@");
	if (final != 'h' && final != 'l')
		return false;
	for (unsigned n = 0; n < count; n++)
		if (is_private ? !is_private_mode(number[n]) : number[n] != 4)
			return false;
	return true;
}

static size_t control_take(struct terminal_filter *filter, uint8_t byte, uint8_t *out)
{
	bool is_parameter = (byte >= '0' && byte <= ';') || (byte == '?' && filter->used == 2);

	if (is_final(byte)) {
		if (token_add(filter, byte) && control_passes(filter))
			return token_put(filter, out);
		filter->state = TEXT;
	} else if (!is_parameter || !token_add(filter, byte)) {
		filter->state = CONTROL_DROPPED;
	}
	return 0;
}

/* ---- one byte ---- */

static size_t text_take(struct terminal_filter *filter, uint8_t byte, uint8_t *out)
{
	filter->left = utf8_following(byte);
	if (filter->left) {
		token_begin(filter, UTF8, byte);
		return 0;
	}
	if ((byte < 0x20 || byte >= DEL) && !is_one_of(byte, "\a\b\t\n\r"))
		return 0;
	*out = byte;
	return 1;
}

static size_t escape_take(struct terminal_filter *filter, uint8_t byte, uint8_t *out)
{
	token_add(filter, byte);
	filter->string_bytes = 0;
	filter->state = TEXT;
	if (is_one_of(byte, "78DEM=>"))
		return token_put(filter, out);
	if (byte == '[')
		filter->state = CONTROL;
	else if (is_one_of(byte, "]P_^X"))
		filter->state = STRING;
	else if (is_one_of(byte, "()"))
		filter->state = CHARACTER_SET;
	else if (byte >= 0x20 && byte < 0x30)
		filter->state = ESCAPE_DROPPED;
	return 0;
}

static size_t character_set_take(struct terminal_filter *filter, uint8_t byte, uint8_t *out)
{
	if (is_one_of(byte, "B0")) {
		token_add(filter, byte);
		return token_put(filter, out);
	}
	filter->state = byte >= 0x20 && byte < 0x30 ? ESCAPE_DROPPED : TEXT;
	return 0;
}

static void string_take(struct terminal_filter *filter, uint8_t byte)
{
	bool ends = byte == BEL || (filter->state == STRING_ESCAPE && byte == '\\') ||
		    ++filter->string_bytes > STRING_MAX_BYTES;

	filter->state = byte == ESC ? STRING_ESCAPE : STRING;
	if (ends)
		filter->state = TEXT;
}

static size_t filter_take(struct terminal_filter *filter, uint8_t byte, uint8_t *out)
{
	size_t put = 0;

	if (filter->state == UTF8 && utf8_take(filter, byte, out, &put))
		return put;
	if (byte == CAN || byte == SUB) {
		filter->state = TEXT;
		return 0;
	}
	if (byte == ESC && filter->state != STRING && filter->state != STRING_ESCAPE) {
		token_begin(filter, ESCAPE, byte);
		return 0;
	}
	switch ((enum state)filter->state) {
	case ESCAPE: return escape_take(filter, byte, out);
	case CHARACTER_SET: return character_set_take(filter, byte, out);
	case CONTROL: return control_take(filter, byte, out);
	case CONTROL_DROPPED:
		if (is_final(byte))
			filter->state = TEXT;
		return 0;
	case ESCAPE_DROPPED:
		if (byte >= 0x30 && byte < DEL)
			filter->state = TEXT;
		return 0;
	case STRING:
	case STRING_ESCAPE: string_take(filter, byte); return 0;
	default: return text_take(filter, byte, out);
	}
}

void check_terminal_filter(const struct terminal_filter *filter)
{
	const uint8_t *token = filter->token;

	assert(filter->state >= TEXT && filter->state <= STRING_ESCAPE);
	assert(filter->used <= sizeof(filter->token));
	assert(filter->string_bytes <= STRING_MAX_BYTES + 1);
	if (filter->state == UTF8)
		assert(filter->left && filter->used + filter->left ==
						1u + utf8_following(token[0]));
	if (filter->state == ESCAPE)
		assert(filter->used == 1 && token[0] == ESC);
	if (filter->state == CHARACTER_SET)
		assert(filter->used == 2 && is_one_of(token[1], "()"));
	if (filter->state == CONTROL)
		assert(filter->used >= 2 && token[0] == ESC && token[1] == '[');
}

size_t terminal_filter(struct terminal_filter *filter, const uint8_t *in, size_t bytes,
		       uint8_t *out)
{
	size_t put = 0;

	assert(filter->used <= sizeof(filter->token));
	for (size_t n = 0; n < bytes; n++)
		put += filter_take(filter, in[n], out + put);
	assert(put <= bytes + sizeof(filter->token));
	CHECK(check_terminal_filter(filter));
	return put;
}
