/* See ask_data.h. */
#include "ask_data.h"

#include <errno.h>
#include <string.h>

#include "ipc/code_listing.h"
#include "ipc/record_ring.h"

static int digit_of(const char *digits, char letter)
{
	const char *at = letter ? strchr(digits, letter) : NULL;

	return at ? (int)(at - digits) : -EINVAL;
}

/* Two hexadecimal digits a byte, at least one byte. */
static int codes_of(const char *text, uint8_t *to, size_t room)
{
	static const char digits[] = "0123456789abcdef";
	const size_t bytes = strlen(text) / 2;

	if (strlen(text) % 2 || !bytes || bytes > room)
		return -EINVAL;
	for (size_t n = 0; n < bytes; n++) {
		const int high = digit_of(digits, text[2 * n]);
		const int low = digit_of(digits, text[2 * n + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		to[n] = (uint8_t)(high << 4 | low);
	}
	return (int)bytes;
}

/* With its padding, at least one byte. */
static int base64_of(const char *text, uint8_t *to, size_t room)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const size_t letters = strcspn(text, "=");
	const size_t padding = strlen(text) - letters;
	const size_t bytes = letters * 6 / 8;
	uint32_t bits = 0;

	if (strlen(text) % 4 || !bytes || bytes > room || padding > 2 ||
	    strspn(text + letters, "=") != padding)
		return -EINVAL;
	for (size_t n = 0, at = 0; n < letters; n++) {
		const int digit = digit_of(digits, text[n]);

		if (digit < 0)
			return -EINVAL;
		bits = bits << 6 | (uint32_t)digit;
		if (n % 4)
			to[at++] = (uint8_t)(bits >> (6 - 2 * (n % 4)));
	}
	return (int)bytes;
}

/* struct record_copy, folder and name: both there, the name without a slash. */
static int file_of(const char *folder, const char *name, uint64_t bytes, uint64_t replaces,
		  uint8_t *to, size_t room)
{
	const struct record_copy head = { .bytes = bytes, .replaces = replaces };
	const size_t folder_bytes = strlen(folder) + 1;
	const size_t name_bytes = strlen(name) + 1;

	if (!*folder || !*name || strchr(name, '/') ||
	    sizeof(head) + folder_bytes + name_bytes > room)
		return -EINVAL;
	memcpy(to, &head, sizeof(head));
	memcpy(to + sizeof(head), folder, folder_bytes);
	memcpy(to + sizeof(head) + folder_bytes, name, name_bytes);
	return (int)(sizeof(head) + folder_bytes + name_bytes);
}

/* Hexadecimal digits, with or without 0x. */
static bool address_of(const char *text, uint64_t *ret)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = strncmp(text, "0x", 2) ? text : text + 2;

	*ret = 0;
	if (!*at || strlen(at) > 2 * sizeof(*ret) || strspn(at, digits) != strlen(at))
		return false;
	for (; *at; at++)
		*ret = *ret << 4 | (uint64_t)digit_of(digits, *at);
	return true;
}

static int place_of(const char *at, const char *root, uint8_t *to)
{
	struct listing_wanted wanted = { .has_root = root != NULL };

	if (!address_of(at, &wanted.gva) || (root && !address_of(root, &wanted.root)))
		return -EINVAL;
	memcpy(to, &wanted, sizeof(wanted));
	return sizeof(wanted);
}

int ask_data(const struct control_request *request, struct control_ask *ask)
{
	const size_t room = sizeof(ask->data);

	switch ((enum control_wish)request->verb->number) {
	case WISH_TYPE:
		ask->kind = RECORD_TYPE;
		return codes_of(control_text(request, "codes"), ask->data, room);
	case WISH_LIST:
		ask->kind = RECORD_LIST;
		return place_of(control_text(request, "at"), control_text(request, "root"),
				ask->data);
	case WISH_COPY:
		ask->kind = RECORD_COPY_BEGIN;
		return file_of(control_text(request, "folder"), control_text(request, "name"),
			       control_number(request, "bytes"),
			       control_number(request, "replaces"), ask->data, room);
	case WISH_COPY_PIECE:
		ask->kind = RECORD_COPY_PIECE;
		return base64_of(control_text(request, "data"), ask->data, room);
	case WISH_COPY_END:
		ask->kind = RECORD_COPY_END;
		ask->data[0] = !control_number(request, "incomplete");
		return 1;
	default: ask->kind = RECORD_SHOW; return 0;
	}
}
