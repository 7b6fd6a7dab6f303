/*
 * See keyboard_line.h. Keys go as a request each time that some are there; one that finds too many
 * waiting in the guest, or somebody else's question under way, is asked again.
 */
#include "keyboard_line.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cli.h"
#include "key_codes.h"
#include "talk.h"

enum { PIECE_BYTES = 64, LEAVES = 0x1d, TRIES = 600, PAUSE_US = 50000 };

/* 0; -errno of the last try. */
static int send_codes(FILE *peer, const uint8_t *codes, size_t bytes)
{
	char text[2 * PIECE_BYTES * KEY_CODES_BYTES + 1] = "";
	int error = -EAGAIN;

	for (size_t n = 0; n < bytes; n++)
		snprintf(text + 2 * n, 3, "%02x", codes[n]);
	for (unsigned n = 0; n < TRIES && (error == -EAGAIN || error == -EBUSY); n++) {
		if (n)
			usleep(PAUSE_US);
		if (fprintf(peer, "{\"id\":1,\"do\":\"type\",\"codes\":\"%s\"}\n", text) < 0 ||
		    fflush(peer))
			return -ECONNRESET;
		error = talk_hear_end(peer);
	}
	return error;
}

/* At most PIECE_BYTES of text; characters that no key has are left out. */
static int type_piece(FILE *peer, const uint8_t *text, size_t bytes)
{
	uint8_t codes[PIECE_BYTES * KEY_CODES_BYTES];
	size_t used = 0;

	while (bytes) {
		size_t key_bytes;
		const size_t taken = key_codes(text, bytes, codes + used, &key_bytes);

		used += key_bytes;
		text += taken ? taken : 1;
		bytes -= taken ? taken : 1;
	}
	return used ? send_codes(peer, codes, used) : 0;
}

static int type_text(FILE *peer, const char *text)
{
	size_t left = strlen(text);
	int error = 0;

	while (left && !error) {
		const size_t bytes = left < PIECE_BYTES ? left : PIECE_BYTES;

		error = type_piece(peer, (const uint8_t *)text, bytes);
		text += bytes;
		left -= bytes;
	}
	return error;
}

static int type_input(FILE *peer)
{
	uint8_t text[PIECE_BYTES];
	const bool is_terminal = isatty(STDIN_FILENO);
	ssize_t got = 1;
	int error = 0;

	while (!error && (got = read(STDIN_FILENO, text, sizeof(text))) > 0) {
		const uint8_t *end = is_terminal ? memchr(text, LEAVES, (size_t)got) : NULL;

		error = type_piece(peer, text, end ? (size_t)(end - text) : (size_t)got);
		if (end)
			return error;
	}
	return got < 0 ? -errno : error;
}

static int type_terminal(FILE *peer)
{
	struct termios before;
	struct termios raw;
	int error;

	if (tcgetattr(STDIN_FILENO, &before))
		return type_input(peer);
	raw = before;
	cfmakeraw(&raw);
	fprintf(stderr, "Keys go to the guest; Ctrl-] leaves.\n");
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	error = type_input(peer);
	tcsetattr(STDIN_FILENO, TCSANOW, &before);
	return error;
}

int keyboard_line(const char *machine, const char *text)
{
	int error;
	FILE *peer = talk_to(machine, &error);

	if (!error)
		error = text ? type_text(peer, text) : type_terminal(peer);
	if (peer)
		fclose(peer);
	if (error == -ENOTCONN)
		return complain(EXIT_UNUSABLE, "no driver of its guest has a keyboard", machine,
				"load hyperv_keyboard in it");
	return error ? talk_failed(machine, error) : 0;
}
