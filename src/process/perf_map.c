/* See perf_map.h. */
#include "perf_map.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ipc/record_ring.h"

enum { LINE_BYTES = 16 + 1 + 8 + 1 + RECORD_CODE_NAME_BYTES + 1 };
enum { CODES_MOST = RING_RECORD_MAX_BYTES / sizeof(struct record_code) };

int perf_map_open(struct perf_map *map, pid_t pid)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_APPEND | O_CLOEXEC;
	char path[64];

	*map = (struct perf_map){ .is_wanted = true, .bytes_left = PERF_MAP_MOST_BYTES };
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", pid);
	unlink(path);
	map->fd = open(path, flags, 0600);
	return map->fd < 0 ? -errno : 0;
}

static bool is_name(const char *name)
{
	const size_t length = strnlen(name, RECORD_CODE_NAME_BYTES);

	return length && length < RECORD_CODE_NAME_BYTES &&
	       length == strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789_.");
}

static bool is_sound(const struct record_code *code)
{
	return code->bytes && code->hva <= UINT64_MAX - code->bytes && is_name(code->name);
}

/* All of it or nothing: half a line would be another one. */
static void write_lines(struct perf_map *map, const char *text, size_t bytes, unsigned count)
{
	if (map->fd < 0 || bytes > map->bytes_left) {
		map->bytes_left = 0;
		map->left_out += count;
		return;
	}
	map->bytes_left -= bytes;
	if (write(map->fd, text, bytes) != (ssize_t)bytes) {
		map->bytes_left = 0;
		map->left_out += count;
	}
}

bool perf_map_take(struct perf_map *map, const uint8_t *data, uint32_t bytes)
{
	char text[CODES_MOST * LINE_BYTES + 1];
	struct record_code code;
	const uint32_t head_bytes = sizeof(map->lost);
	unsigned count = 0;
	size_t used = 0;

	if (!map->is_wanted || bytes < head_bytes || (bytes - head_bytes) % sizeof(code))
		return false;
	assert(bytes <= RING_RECORD_MAX_BYTES);
	memcpy(&map->lost, data, head_bytes);
	for (uint32_t at = head_bytes; at < bytes; at += (uint32_t)sizeof(code), count++) {
		memcpy(&code, data + at, sizeof(code));
		if (!is_sound(&code))
			return false;
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%lx %x %s\n", code.hva,
					 code.bytes, code.name);
	}
	if (count)
		write_lines(map, text, used, count);
	return true;
}

uint64_t perf_map_missing(const struct perf_map *map)
{
	return map->lost > UINT64_MAX - map->left_out ? UINT64_MAX : map->lost + map->left_out;
}
