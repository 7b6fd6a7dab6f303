/*
 * What of a guest's output reaches a terminal: sequences that pass and sequences that do not, every
 * byte in every state of the filter, and random bytes, whose output is read by a second parser that
 * knows the list and nothing else.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process/terminal_filter.h"

enum { BYTES = 4096, ROUNDS = 20000 };

static int failures;

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	failures += !good;
}

static size_t filter_all(const uint8_t *in, size_t bytes, size_t piece, uint8_t *out)
{
	struct terminal_filter filter = { 0 };
	size_t put = 0;

	for (size_t n = 0; n < bytes; n += piece)
		put += terminal_filter(&filter, in + n, bytes - n < piece ? bytes - n : piece,
				       out + put);
	return put;
}

/* ---- the list ---- */

static const struct { const char *in, *out;
} cases[] = {
	{ "plain\ttext\r\n\b\a", "plain\ttext\r\n\b\a" },
	{ "\303\244 \342\202\254 \360\237\230\200", "\303\244 \342\202\254 \360\237\230\200" },
	{ "\033[31;1mred\033[0m", "\033[31;1mred\033[0m" },
	{ "\033[38:5:1mx\033[2J\033[H\033[10;20H\033[K",
	  "\033[38:5:1mx\033[2J\033[H\033[10;20H\033[K" },
	{ "\033[?25l\033[?1049h\033[?1;7h\033[4h", "\033[?25l\033[?1049h\033[?1;7h\033[4h" },
	{ "\0337\0338\033D\033M\033=\033>\033(B\033(0\033)B",
	  "\0337\0338\033D\033M\033=\033>\033(B\033(0\033)B" },
	/* strings: titles, clipboard, colours, keys, hyperlinks */
	{ "a\033]0;title\007b", "ab" },
	{ "a\033]52;c;ZXZpbA==\033\\b", "ab" },
	{ "a\033]4;1;?\007b", "ab" },
	{ "a\033]8;;http://x\033\\b", "ab" },
	{ "a\033Pq#0\033\\b", "ab" },
	{ "a\033P$q\"p\033\\b", "ab" },
	{ "a\033_Gx\033\\b\033^y\033\\c\033Xz\033\\d", "abcd" },
	/* the same by C1 bytes, alone and in UTF-8 */
	{ "a\23552;c;ZXZpbA==\007b", "a52;c;ZXZpbA==\007b" },
	{ "a\302\23552;c;eA==\007b", "a52;c;eA==\007b" },
	{ "a\233?1003hb", "a?1003hb" },
	{ "a\220x\234b\236y\237z", "axbyz" },
	/* a C1 byte, or any other, inside a sequence */
	{ "a\033[31\23552;c;eA==\007mb", "a;eA==\007mb" },
	{ "a\033[\2331mb", "ab" },
	{ "a\033[31\177mb", "ab" },
	{ "a\033[3\0331mb", "amb" },
	{ "a\033[3\nmb", "ab" },
	{ "a\033[31\030mb\033[31\032mc", "ambmc" },
	/* reports, resets, windows, printer, mouse, paste, focus, keys */
	{ "a\033[6nb\033[cc\033[>cd\033[=ce\033[5nf\033[?6ng", "abcdefg" },
	{ "a\033[21tb\033[14tc\033[3;0;0td", "abcd" },
	{ "a\033[5ib\033[4ic\033[?5id", "abcd" },
	{ "a\033[?1000hb\033[?1002hc\033[?1003hd\033[?1006he\033[?1015hf\033[?9hg", "abcdefg" },
	{ "a\033[?2004hb\033[?1004hc\033[?25;1003hd\033[?1003;25he", "abcde" },
	{ "a\033[>4;2mb\033[>1uc\033[?1ud\033[=1;1ue", "abcde" },
	{ "a\033[!pb\033[?3hc\033[20hd\033[12le\033[2hf", "abcdef" },
	{ "a\033cb\033#8c\033 Fd\033%Ge\033*Bf\033nf\033Zg\033Nh", "abcdeffgh" },
	{ "a\033[\"qb\033[ qc\033[$pd\033['ze", "abcde" },
	{ "a\033[99999999999mb\033[1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17mc", "abc" },
	{ "a\033[9999999bb\033[20Ic\033[3gd", "abcd" },
	{ "a\033[1?25hb\033[??25hc\033[?Jd\033[?md", "abcdd" },
	{ "a\005b\016c\017d\021e\177f\013g\014h", "abcdefgh" },
	/* UTF-8 that is none */
	{ "a\300\200b\340\200\200c\355\240\200d\364\220\200\200e\377f\200g", "abcdefg" },
	{ "a\303\033[31mb\342\202\033[0mc", "a\033[31mb\033[0mc" },
};

static void listed(void)
{
	uint8_t out[BYTES];

	for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++)
		for (size_t piece = 1; piece < 4; piece++) {
			const char *in = cases[n].in;
			size_t bytes = filter_all((const uint8_t *)in, strlen(in), piece, out);

			if (bytes == strlen(cases[n].out) && !memcmp(out, cases[n].out, bytes))
				continue;
			printf("FAIL case %zu gave '%.*s'\n", n, (int)bytes, (const char *)out);
			failures++;
			break;
		}
	expect("what passes, and what does not", !failures);
}

/* ---- a second parser ---- */

static size_t skip_text(const uint8_t *text, size_t left)
{
	static const struct {
		uint8_t low, high, second_low, second_high;
		size_t bytes;
	} forms[] = {
		{ .low = 0xc2, .high = 0xc2, .second_low = 0xa0, .second_high = 0xbf, .bytes = 2 },
		{ .low = 0xc3, .high = 0xdf, .second_low = 0x80, .second_high = 0xbf, .bytes = 2 },
		{ .low = 0xe0, .high = 0xe0, .second_low = 0xa0, .second_high = 0xbf, .bytes = 3 },
		{ .low = 0xe1, .high = 0xec, .second_low = 0x80, .second_high = 0xbf, .bytes = 3 },
		{ .low = 0xed, .high = 0xed, .second_low = 0x80, .second_high = 0x9f, .bytes = 3 },
		{ .low = 0xee, .high = 0xef, .second_low = 0x80, .second_high = 0xbf, .bytes = 3 },
		{ .low = 0xf0, .high = 0xf0, .second_low = 0x90, .second_high = 0xbf, .bytes = 4 },
		{ .low = 0xf1, .high = 0xf3, .second_low = 0x80, .second_high = 0xbf, .bytes = 4 },
		{ .low = 0xf4, .high = 0xf4, .second_low = 0x80, .second_high = 0x8f, .bytes = 4 },
	};

	if ((text[0] >= 0x20 && text[0] < 0x7f) || (text[0] >= 7 && text[0] <= 10) ||
	    text[0] == '\r')
		return 1;
	for (size_t n = 0; n < sizeof(forms) / sizeof(forms[0]); n++) {
		if (text[0] < forms[n].low || text[0] > forms[n].high || left < forms[n].bytes)
			continue;
		if (text[1] < forms[n].second_low || text[1] > forms[n].second_high)
			return 0;
		for (size_t k = 2; k < forms[n].bytes; k++)
			if ((text[k] & 0xc0) != 0x80)
				return 0;
		return forms[n].bytes;
	}
	return 0;
}

static size_t skip_control(const uint8_t *text, size_t left)
{
	size_t at = 2;
	bool is_private = left > 2 && text[2] == '?';

	at += is_private;
	while (at < left && text[at] && strchr("0123456789;:", text[at]))
		at++;
	if (at >= left || !text[at] ||
	    !strchr(is_private ? "hl" : "ABCDEFGHJKLMPSTXdfhlmrsu@", text[at]))
		return 0;
	if (is_private || text[at] == 'h' || text[at] == 'l')
		for (size_t k = is_private ? 3 : 2; k < at;) {
			unsigned long mode = strtoul((const char *)text + k, NULL, 10);
			const unsigned long good[] = { 1, 6, 7, 12, 25, 47, 1047, 1048, 1049 };
			bool is_good = !is_private && mode == 4;

			for (size_t n = 0; is_private && n < sizeof(good) / sizeof(good[0]); n++)
				is_good |= mode == good[n];
			if (!is_good)
				return 0;
			k += strcspn((const char *)text + k, ";:hl") + 1;
		}
	return at + 1;
}

static size_t skip_token(const uint8_t *text, size_t left)
{
	if (text[0] != 0x1b)
		return skip_text(text, left);
	if (left > 1 && text[1] == '[')
		return skip_control(text, left);
	if (left > 1 && text[1] && strchr("78DEM=>", text[1]))
		return 2;
	return left > 2 && (text[1] == '(' || text[1] == ')') && (text[2] == 'B' || text[2] == '0')
		       ? 3
		       : 0;
}

static bool is_clean(const uint8_t *text, size_t bytes)
{
	for (size_t at = 0; at < bytes;) {
		size_t n = skip_token(text + at, bytes - at);

		if (!n)
			return false;
		at += n;
	}
	return true;
}

static void every_byte_in_every_state(void)
{
	static const char *const before[] = {
		"",       "\033",  "\033[",    "\033[?",  "\033[3",       "\033[3;",
		"\033[>", "\033(", "\033%",    "\033]0;", "\033]0;\033",  "\033P",
		"\303",   "\342",  "\342\202", "\360",    "\360\237\230", "\033[?1003"
	};
	uint8_t in[64], out[256];
	bool good = true;

	for (size_t n = 0; n < sizeof(before) / sizeof(before[0]); n++)
		for (unsigned byte = 0; byte < 65536; byte++) {
			size_t bytes = strlen(before[n]);

			memcpy(in, before[n], bytes);
			in[bytes++] = (uint8_t)byte;
			in[bytes++] = (uint8_t)(byte >> 8);
			memcpy(in + bytes, "h\007m", 3);
			good &= is_clean(out, filter_all(in, bytes + 3, bytes + 3, out));
		}
	expect("every two bytes in every state", good);
}

static void random_bytes(void)
{
	static const char likely[] =
		"\033\033\033\033[[[?;]P0123456789hlmHJnct\233\235\302\303\200\r\n\007\\>!$ ";
	static uint8_t in[BYTES], out[2 * BYTES];
	unsigned seed = 1;
	bool good = true;
	size_t passed = 0;

	for (unsigned round = 0; round < ROUNDS && good; round++) {
		size_t bytes;

		for (size_t n = 0; n < BYTES; n++) {
			seed = seed * 1103515245 + 12345;
			in[n] = round % 4 ? (uint8_t)likely[(seed >> 16) % (sizeof(likely) - 1)]
					  : (uint8_t)(seed >> 16);
		}
		bytes = filter_all(in, BYTES, 1 + round % 700, out);
		out[bytes] = 0;
		passed += bytes;
		good = is_clean(out, bytes);
	}
	expect("80 million random bytes", good && passed > BYTES);
}

int main(void)
{
	listed();
	every_byte_in_every_state();
	random_bytes();
	return failures != 0;
}
