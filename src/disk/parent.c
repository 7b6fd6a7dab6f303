/* What formats share that name their parents as Windows does: UTF-16 text, and its paths as this host has them. */
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "disk_internal.h"

static uint32_t unit(const uint8_t *at, bool big) { return big ? (uint32_t)at[0] << 8 | at[1] : at[0] | (uint32_t)at[1] << 8; }

char *parent_utf8(const uint8_t *from, size_t bytes, bool big)
{
	char *text = malloc(bytes / 2 * 3 + 1), *to = text;

	for (size_t n = 0; text && n + 1 < bytes; n += 2) {
		uint32_t c = unit(from + n, big);

		if (c >= 0xd800 && c < 0xdc00 && n + 3 < bytes && (unit(from + n + 2, big) & 0xfc00) == 0xdc00) {
			c = 0x10000 + ((c & 0x3ff) << 10) + (unit(from + n + 2, big) & 0x3ff);
			n += 2;
		} else if ((c & 0xf800) == 0xd800 || !c) {
			free(text);
			return NULL;
		}
		if (c < 0x80) {
			*to++ = (char)c;
		} else if (c < 0x800) {
			*to++ = (char)(0xc0 | c >> 6);
			*to++ = (char)(0x80 | (c & 63));
		} else if (c < 0x10000) {
			*to++ = (char)(0xe0 | c >> 12);
			*to++ = (char)(0x80 | (c >> 6 & 63));
			*to++ = (char)(0x80 | (c & 63));
		} else {
			*to++ = (char)(0xf0 | c >> 18);
			*to++ = (char)(0x80 | (c >> 12 & 63));
			*to++ = (char)(0x80 | (c >> 6 & 63));
			*to++ = (char)(0x80 | (c & 63));
		}
	}
	if (text)
		*to = 0;
	return text;
}

char *parent_host_path(const char *child_path, const char *path, bool relative)
{
	char *copy = strdup(path), *from = copy, *child = strdup(child_path), *result = NULL;

	for (char *c = copy; c && *c; c++)
		*c = *c == '\\' ? '/' : *c;
	if (from && !strncmp(from, "//?/", 4))
		from += 4;
	if (from && from[0] && from[1] == ':')
		from += 2;
	while (from && relative && from[0] == '.' && from[1] == '/') /* a long chain would gather them */
		from += 2;
	if (from && child && (!relative || asprintf(&result, "%s/%s", dirname(child), from) < 0))
		result = strdup(from);
	free(copy);
	free(child);
	return result;
}
