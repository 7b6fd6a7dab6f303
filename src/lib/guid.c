/* See guid.h. */
#include "guid.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

struct guid guid_new(void)
{
	struct guid guid;

	if (getrandom(&guid, sizeof(guid), 0) != sizeof(guid))
		abort(); /* Linux gives 16 bytes whole once it gives any */
	guid.byte[7] = (guid.byte[7] & 0x0f) | 0x40;
	guid.byte[8] = (guid.byte[8] & 0x3f) | 0x80;
	return guid;
}

void guid_print(struct guid guid, char text[GUID_TEXT_BYTES])
{
	for (unsigned n = 0; n < 16; n++) {
		if (n == 4 || n == 6 || n == 8 || n == 10)
			*text++ = '-';
		text += sprintf(text, "%02x", guid.byte[order[n]]);
	}
}

static int digit(char character)
{
	if (character >= '0' && character <= '9')
		return character - '0';
	if (character >= 'a' && character <= 'f')
		return character - 'a' + 10;
	return character >= 'A' && character <= 'F' ? character - 'A' + 10 : -1;
}

bool guid_parse(const char *text, struct guid *ret)
{
	bool braces = *text == '{';

	text += braces;
	for (unsigned n = 0; n < 16; n++) {
		if ((n == 4 || n == 6 || n == 8 || n == 10) && *text++ != '-')
			return false;
		if (digit(text[0]) < 0 || digit(text[1]) < 0)
			return false;
		ret->byte[order[n]] = (uint8_t)(digit(text[0]) << 4 | digit(text[1]));
		text += 2;
	}
	return braces ? text[0] == '}' && !text[1] : !*text;
}
