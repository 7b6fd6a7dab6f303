/* What formats share that name their parents as Windows does: UTF-16 text, and its paths as this
 * host has them. */
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "disk_internal.h"

static uint32_t unit(const uint8_t *at, bool big)
{
	return big ? (uint32_t)at[0] << 8 | at[1] : at[0] | (uint32_t)at[1] << 8;
}

char *parent_utf8(const uint8_t *from, size_t bytes, bool big)
{
	char *text = malloc(bytes / 2 * 3 + 1);
	char *to = text;

	for (size_t n = 0; text && n + 1 < bytes; n += 2) {
		uint32_t code_point = unit(from + n, big);

		if (code_point >= 0xd800 && code_point < 0xdc00 && n + 3 < bytes &&
		    (unit(from + n + 2, big) & 0xfc00) == 0xdc00) {
			code_point = 0x10000 + ((code_point & 0x3ff) << 10) +
				     (unit(from + n + 2, big) & 0x3ff);
			n += 2;
		} else if ((code_point & 0xf800) == 0xd800 || !code_point) {
			free(text);
			return NULL;
		}
		if (code_point < 0x80) {
			*to++ = (char)code_point;
		} else if (code_point < 0x800) {
			*to++ = (char)(0xc0 | code_point >> 6);
			*to++ = (char)(0x80 | (code_point & 63));
		} else if (code_point < 0x10000) {
			*to++ = (char)(0xe0 | code_point >> 12);
			*to++ = (char)(0x80 | (code_point >> 6 & 63));
			*to++ = (char)(0x80 | (code_point & 63));
		} else {
			*to++ = (char)(0xf0 | code_point >> 18);
			*to++ = (char)(0x80 | (code_point >> 12 & 63));
			*to++ = (char)(0x80 | (code_point >> 6 & 63));
			*to++ = (char)(0x80 | (code_point & 63));
		}
	}
	if (text)
		*to = 0;
	return text;
}

static void put_unit(uint8_t *to, uint32_t unit, bool big)
{
	to[big ? 0 : 1] = (uint8_t)(unit >> 8);
	to[big ? 1 : 0] = (uint8_t)unit;
}

/* How many bytes follow the first one of a character; -1: it is no first one. */
static int utf8_following(uint8_t first)
{
	if (first < 0x80)
		return 0;
	if ((first & 0xe0) == 0xc0)
		return 1;
	if ((first & 0xf0) == 0xe0)
		return 2;
	return (first & 0xf8) == 0xf0 ? 3 : -1;
}

int parent_utf16(const char *text, uint8_t *to, size_t room, bool big)
{
	const uint8_t *from = (const uint8_t *)text;
	size_t used = 0;

	while (*from) {
		int following = utf8_following(*from);
		uint32_t character;

		if (following < 0)
			return -EILSEQ;
		character = following ? *from & (0x3fu >> following) : *from;
		for (from++; following; following--, from++) {
			if ((*from & 0xc0) != 0x80)
				return -EILSEQ;
			character = character << 6 | (*from & 0x3f);
		}
		if (room - used < (character < 0x10000 ? 2 : 4))
			return -ENAMETOOLONG;
		if (character >= 0x10000) {
			put_unit(to + used, 0xd800 | (character - 0x10000) >> 10, big);
			used += 2;
			character = 0xdc00 | ((character - 0x10000) & 0x3ff);
		}
		put_unit(to + used, character, big);
		used += 2;
	}
	return (int)used;
}

char *parent_host_path(const char *child_path, const char *path, bool relative)
{
	char *copy = strdup(path);
	char *from = copy;
	char *child = strdup(child_path);
	char *result = NULL;

	for (char *character = copy; character && *character; character++)
		if (*character == '\\')
			*character = '/';
	if (from && !strncmp(from, "//?/", 4))
		from += 4;
	if (from && from[0] && from[1] == ':')
		from += 2;
	while (from && relative && from[0] == '.' &&
	       from[1] == '/') /* a long chain would gather them */
		from += 2;
	if (from && child && (!relative || asprintf(&result, "%s/%s", dirname(child), from) < 0))
		result = strdup(from);
	free(copy);
	free(child);
	return result;
}

char *parent_relative_path(const char *from, const char *to)
{
	size_t common = 0;
	char *path = strdup(".");
	char *next;

	for (size_t n = 0; from[n] == to[n] || (!from[n] && to[n] == '/'); n++) {
		if (to[n] == '/')
			common = n;
		if (!from[n] || !to[n])
			break;
	}
	for (const char *character = from + common;
	     path && (character = strchr(character, '/')) && character[1]; character++) {
		if (asprintf(&next, "%s/..", path) < 0)
			next = NULL;
		free(path);
		path = next;
	}
	if (!path || asprintf(&next, "%s%s", path, to + common) < 0)
		next = NULL;
	free(path);
	return next;
}
