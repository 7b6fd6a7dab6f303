/* See plain_text.h. */
#include "plain_text.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>

/* By how many bytes a character has: its first byte, and the least that is not said shorter. */
static const struct { uint8_t mark, mask; uint32_t least; } lengths[] = {
	[2] = { 0xc0, 0xe0, 0xa0 }, [3] = { 0xe0, 0xf0, 0x800 }, [4] = { 0xf0, 0xf8, 0x10000 }
};
enum { LENGTHS = sizeof(lengths) / sizeof(lengths[0]), LAST = 0x10ffff };
enum { SURROGATES = 0xd800, BEHIND_SURROGATES = 0xe000 };

static unsigned length_of(uint8_t first)
{
	for (unsigned length = 2; length < LENGTHS; length++)
		if ((first & lengths[length].mask) == lengths[length].mark)
			return length;
	return 0;
}

unsigned plain_character(const char *text)
{
	const uint8_t *bytes = (const uint8_t *)text;
	const unsigned length = length_of(bytes[0]);
	uint32_t character;

	if (bytes[0] < 0x80)
		return bytes[0] >= ' ' && bytes[0] < 0x7f;
	if (!length)
		return 0;
	character = bytes[0] & (uint8_t)~lengths[length].mask;
	for (unsigned n = 1; n < length; n++) {
		if ((bytes[n] & 0xc0) != 0x80) /* also where the text ends */
			return 0;
		character = character << 6 | (bytes[n] & 0x3f);
	}
	if (character < lengths[length].least || character > LAST ||
	    (character >= SURROGATES && character < BEHIND_SURROGATES))
		return 0;
	return length;
}

void plain_text(char *text)
{
	while (*text) {
		const unsigned bytes = plain_character(text);

		if (!bytes)
			*text = '?';
		text += bytes ? bytes : 1;
	}
}

void plain_put(FILE *to, const char *text)
{
	while (text && *text) {
		const unsigned bytes = plain_character(text);

		if (bytes)
			fwrite(text, 1, bytes, to);
		else
			putc('?', to);
		text += bytes ? bytes : 1;
	}
}

void plain_line(FILE *to, const char *format, ...)
{
	char line[PLAIN_LINE_BYTES];
	va_list arguments;
	int bytes;

	va_start(arguments, format);
	bytes = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	assert(bytes >= 0);
	plain_text(line);
	fprintf(to, "%s\n", line);
}
