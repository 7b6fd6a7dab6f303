/* See key_codes.h. */
#include "key_codes.h"

#include <string.h>

enum { SHIFT = 0x2a, CONTROL = 0x1d, ALT = 0x38, ESCAPE = 0x01, E0 = 0xe0, BREAK = 0x80 };

/* Keys in the order of their codes from a row's first on; what they are with shift is below. */
static const struct row { uint8_t first; const char *plain, *shifted; } rows[] = {
	{ 0x02, "1234567890-=", "!@#$%^&*()_+" },
	{ 0x10, "qwertyuiop[]", "QWERTYUIOP{}" },
	{ 0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~" },
	{ 0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?" },
	{ 0x39, " ", " " },
};

/* What terminals send for keys that are no characters. */
static const struct sequence { const char *text; uint8_t code; bool extended; } sequences[] = {
	{ "\033[A", 0x48, true },   { "\033[B", 0x50, true },   { "\033[C", 0x4d, true },
	{ "\033[D", 0x4b, true },   { "\033OA", 0x48, true },   { "\033OB", 0x50, true },
	{ "\033OC", 0x4d, true },   { "\033OD", 0x4b, true },   { "\033[H", 0x47, true },
	{ "\033[F", 0x4f, true },   { "\033[1~", 0x47, true },  { "\033[4~", 0x4f, true },
	{ "\033[2~", 0x52, true },  { "\033[3~", 0x53, true },  { "\033[5~", 0x49, true },
	{ "\033[6~", 0x51, true },  { "\033OP", 0x3b, false },  { "\033OQ", 0x3c, false },
	{ "\033OR", 0x3d, false },  { "\033OS", 0x3e, false },  { "\033[15~", 0x3f, false },
	{ "\033[17~", 0x40, false }, { "\033[18~", 0x41, false }, { "\033[19~", 0x42, false },
	{ "\033[20~", 0x43, false }, { "\033[21~", 0x44, false }, { "\033[23~", 0x57, false },
	{ "\033[24~", 0x58, false }, { "\r", 0x1c, false },      { "\n", 0x1c, false },
	{ "\t", 0x0f, false },      { "\177", 0x0e, false },    { "\b", 0x0e, false },
};

static size_t find_sequence(const uint8_t *text, size_t bytes, const struct sequence **ret)
{
	for (size_t n = 0; n < sizeof(sequences) / sizeof(sequences[0]); n++) {
		const size_t length = strlen(sequences[n].text);

		*ret = &sequences[n];
		if (length <= bytes && !memcmp(text, sequences[n].text, length))
			return length;
	}
	return 0;
}

/* 0: no key has this character. */
static uint8_t find_character(char character, bool *ret_shifted)
{
	for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]) && character; n++) {
		const char *plain = strchr(rows[n].plain, character);
		const char *shifted = strchr(rows[n].shifted, character);

		*ret_shifted = !plain;
		if (plain)
			return (uint8_t)(rows[n].first + (plain - rows[n].plain));
		if (shifted)
			return (uint8_t)(rows[n].first + (shifted - rows[n].shifted));
	}
	return 0;
}

/* Down and up, between those of a key that is held (0: none). */
static size_t press(uint8_t held, uint8_t code, uint8_t ret[KEY_CODES_BYTES])
{
	size_t used = 0;

	if (held)
		ret[used++] = held;
	ret[used++] = code;
	ret[used++] = code | BREAK;
	if (held)
		ret[used++] = held | BREAK;
	return used;
}

static size_t press_sequence(const struct sequence *sequence, uint8_t ret[KEY_CODES_BYTES])
{
	const uint8_t extended[4] = { E0, sequence->code, E0, sequence->code | BREAK };

	if (!sequence->extended)
		return press(0, sequence->code, ret);
	memcpy(ret, extended, sizeof(extended));
	return sizeof(extended);
}

/* Control and a letter, or a key that is a character. */
static size_t press_character(char character, uint8_t ret[KEY_CODES_BYTES])
{
	const bool is_control = character > 0 && character < ' ';
	bool is_shifted = false;
	const uint8_t code = find_character(
		is_control ? (char)(character + ('a' - 1)) : character, &is_shifted);

	if (!code)
		return 0;
	if (is_control)
		return press(CONTROL, code, ret);
	return press(is_shifted ? SHIFT : 0, code, ret);
}

size_t key_codes(const uint8_t *text, size_t bytes, uint8_t ret[KEY_CODES_BYTES], size_t *ret_bytes)
{
	const struct sequence *sequence;
	const size_t length = find_sequence(text, bytes, &sequence);

	*ret_bytes = 0;
	if (length) {
		*ret_bytes = press_sequence(sequence, ret);
		return length;
	}
	if (bytes > 1 && text[0] == '\033' && text[1] > ' ' && text[1] != '[' && text[1] != 'O') {
		bool is_shifted;
		const uint8_t code = find_character((char)text[1], &is_shifted);

		*ret_bytes = code ? press(ALT, code, ret) : 0;
		return code ? 2 : 0;
	}
	if (text[0] == '\033')
		*ret_bytes = press(0, ESCAPE, ret);
	else
		*ret_bytes = press_character((char)text[0], ret);
	return *ret_bytes ? 1 : 0;
}
