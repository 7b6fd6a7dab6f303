/*
 * What others have made is text on a terminal, and nothing else: characters that are plain and that
 * are not, every single byte, and a line, which stays one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/plain_text.h"

static int failures;

static void becomes(const char *text, const char *want)
{
	char own[64];
	char *line = NULL;
	size_t bytes = 0;
	FILE *to = open_memstream(&line, &bytes);

	snprintf(own, sizeof(own), "%s", text);
	plain_text(own);
	plain_put(to, text);
	plain_line(to, "%s", text);
	fclose(to);
	if (strcmp(own, want) || strncmp(line, want, strlen(want)) ||
	    strncmp(line + strlen(want), want, strlen(want)) ||
	    strcmp(line + 2 * strlen(want), "\n")) {
		printf("not ok: '%s', then '%s', not '%s'\n", own, line, want);
		failures++;
	}
	free(line);
}

/* A terminal that knows no UTF-8 takes bytes from 0x80 to 0x9f for what acts. */
static void single_bytes(void)
{
	for (unsigned byte = 1; byte < 256; byte++) {
		const char text[] = { 'a', (char)byte, 'b', 0 };
		const char plain[] = { 'a', byte >= ' ' && byte < 0x7f ? (char)byte : '?', 'b', 0 };

		becomes(text, plain);
	}
}

static void cut_off(void)
{
	static char text[2 * PLAIN_LINE_BYTES];
	char *line = NULL;
	size_t bytes = 0;
	FILE *to = open_memstream(&line, &bytes);

	memset(text, 'x', sizeof(text) - 1);
	plain_line(to, "%s", text);
	fclose(to);
	if (bytes != PLAIN_LINE_BYTES || line[bytes - 1] != '\n') {
		printf("not ok: a line of %zu bytes\n", bytes);
		failures++;
	}
	free(line);
}

int main(void)
{
	becomes("", "");
	becomes("disk.vhdx", "disk.vhdx");
	becomes("\x1b[2Jdisk\r\n\t", "?[2Jdisk???");
	becomes("\x1b]0;title\x07", "?]0;title?");
	becomes("gr\xc3\xbc\xc3\x9f \xe6\xbc\xa2 \xf0\x9f\x98\x80",
		"gr\xc3\xbc\xc3\x9f \xe6\xbc\xa2 \xf0\x9f\x98\x80");
	becomes("\xc2\x9b" "2J", "??2J");
	becomes("\xc2\xa0", "\xc2\xa0");
	becomes("\xc0\x9b \xe0\x82\x9b \xf0\x80\x82\x9b", "?? ??? ????"); /* said longer */
	becomes("\xed\xa0\x80 \xf4\x90\x80\x80 \xf8\x80", "??? ???? ??");
	becomes("\xe6\xbc", "??");
	becomes("\xe6\xbc\x1b[2J", "???[2J");
	single_bytes();
	cut_off();
	return failures != 0;
}
