/*
 * What a machine process says of its code becomes lines of a file, or it is rubbish: nothing but
 * lines, and no more of them than there is room for, whatever it says.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/record_ring.h"
#include "process/perf_map.h"

enum { CODES_MOST = (RING_RECORD_MAX_BYTES - 8) / sizeof(struct record_code), ROUNDS = 20000 };

static int failures;

static void check(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	failures += !good;
}

struct said { uint64_t lost; struct record_code code[CODES_MOST]; };

static struct record_code code_of(uint64_t hva, uint32_t bytes, const char *name)
{
	struct record_code code = { .hva = hva, .bytes = bytes };

	memcpy(code.name, name, strnlen(name, sizeof(code.name)));
	return code;
}

static bool take(struct perf_map *map, const struct said *said, unsigned count)
{
	return perf_map_take(map, (const uint8_t *)said,
			     (uint32_t)(sizeof(said->lost) + count * sizeof(said->code[0])));
}

static struct perf_map map_in_memory(uint64_t most_bytes)
{
	return (struct perf_map){ .is_wanted = true,
				  .fd = memfd_create("map", MFD_CLOEXEC),
				  .bytes_left = most_bytes };
}

static size_t read_map(const struct perf_map *map, char *text, size_t bytes)
{
	const ssize_t got = pread(map->fd, text, bytes - 1, 0);

	text[got > 0 ? got : 0] = 0;
	return strlen(text);
}

/* ---- what it takes and what not ---- */

static void lines(void)
{
	struct perf_map map = map_in_memory(PERF_MAP_MOST_BYTES);
	struct said said = { .lost = 3,
			     .code = { code_of(0x7f0000001000, 0x40, "do_idle"),
				       code_of(0x7f0000001040, 1, "guest_0xffff.A_z9") } };
	char text[256];

	check("two blocks are taken", take(&map, &said, 2));
	read_map(&map, text, sizeof(text));
	check("as two lines", !strcmp(text, "7f0000001000 40 do_idle\n"
					    "7f0000001040 1 guest_0xffff.A_z9\n"));
	check("none are taken, too", take(&map, &said, 0));
	check("what nobody was told of is counted", perf_map_missing(&map) == 3);
	close(map.fd);
}

static void refused(const char *what, struct record_code code)
{
	struct perf_map map = map_in_memory(PERF_MAP_MOST_BYTES);
	struct said said = { .code = { code_of(0x3000, 16, "good"), code } };
	char text[256];

	check(what, !take(&map, &said, 2) && !read_map(&map, text, sizeof(text)));
	close(map.fd);
}

static void rubbish(void)
{
	char endless[RECORD_CODE_NAME_BYTES + 1];
	struct perf_map map = map_in_memory(PERF_MAP_MOST_BYTES);
	const struct said said = { .lost = 0 };

	memset(endless, 'a', sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = 0;
	refused("a name without an end", code_of(0x2000, 16, endless));
	refused("no name", code_of(0x2000, 16, ""));
	refused("a second line in a name", code_of(0x2000, 16, "a\n3000 9 b"));
	refused("a blank in a name", code_of(0x2000, 16, "a b"));
	refused("a name that acts on a terminal", code_of(0x2000, 16, "\x1b[2J"));
	refused("a name that is not ASCII", code_of(0x2000, 16, "\xc3\xa4"));
	refused("a path", code_of(0x2000, 16, "../etc"));
	refused("no bytes", code_of(0x2000, 0, "a"));
	refused("code beyond the end of memory", code_of(UINT64_MAX - 8, 16, "a"));
	for (uint32_t bytes = 0; bytes < 8; bytes++)
		if (perf_map_take(&map, (const uint8_t *)&said, bytes))
			check("a record that is too short", false);
	check("a record that is cut off",
	      !perf_map_take(&map, (const uint8_t *)&said, 8 + sizeof(struct record_code) - 1));
	map.is_wanted = false;
	check("what nobody wanted", !take(&map, &said, 0));
	close(map.fd);
}

/* ---- how much ---- */

static void full(void)
{
	enum { MOST_BYTES = 100 };
	struct perf_map map = map_in_memory(MOST_BYTES);
	struct said said = { .lost = 0 };
	char text[2000];

	for (unsigned n = 0; n < CODES_MOST; n++)
		said.code[n] = code_of(0x3000 + n, 1, "aaaaaaaaaaaa");
	check("a full map takes what is said", take(&map, &said, 2) && take(&map, &said, 2));
	check("and again", take(&map, &said, CODES_MOST) && take(&map, &said, 1));
	check("whole lines are in it", read_map(&map, text, sizeof(text)) <= MOST_BYTES &&
					       text[strlen(text) - 1] == '\n');
	check("what is not is counted", perf_map_missing(&map) == 1 + CODES_MOST);
	said.lost = UINT64_MAX;
	check("no count goes round", take(&map, &said, 1) && perf_map_missing(&map) == UINT64_MAX);
	close(map.fd);
}

static void no_room(void)
{
	struct perf_map map = { .is_wanted = true,
				.fd = open("/dev/full", O_WRONLY | O_CLOEXEC),
				.bytes_left = PERF_MAP_MOST_BYTES };
	const struct said said = { .code = { code_of(0x3000, 16, "a") } };

	check("a host without room", take(&map, &said, 1) && take(&map, &said, 1) &&
					     perf_map_missing(&map) == 2);
	close(map.fd);
	map.fd = -1;
	check("no file", take(&map, &said, 1) && perf_map_missing(&map) == 3);
}

/* Any bytes: lines, and not more than there is room for. */
static void any_bytes(void)
{
	enum { MOST_BYTES = 200000 };
	struct perf_map map = map_in_memory(MOST_BYTES);
	static uint8_t data[RING_RECORD_MAX_BYTES];
	struct said *said = (struct said *)(void *)data;
	unsigned taken = 0;
	struct stat st;

	srandom(1);
	for (unsigned n = 0; n < ROUNDS; n++) {
		const uint32_t bytes = (uint32_t)random() % (3 * sizeof(said->code[0]));

		for (unsigned k = 0; k < 2; k++)
			said->code[k] = code_of((uint64_t)random(), 1 + (uint32_t)random(), "b.C");
		data[random() % (3 * (long)sizeof(said->code[0]))] = (uint8_t)random();
		taken += perf_map_take(&map, data, n % 2 ? 8 + sizeof(said->code[0]) : bytes);
	}
	check("some of any bytes is taken", taken > ROUNDS / 4 && taken < ROUNDS);
	check("never more than there is room for",
	      !fstat(map.fd, &st) && st.st_size <= MOST_BYTES && st.st_size > MOST_BYTES / 2);
	close(map.fd);
}

/* ---- the file ---- */

static void file(void)
{
	char path[64], target[] = "/tmp/umbra-perf-map-XXXXXX";
	const int other = mkstemp(target);
	struct perf_map map;
	struct stat st;

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	unlink(path);
	check("a link that lies there", other >= 0 && !symlink(target, path));
	check("is not followed", !perf_map_open(&map, getpid()) && !lstat(path, &st) &&
					 S_ISREG(st.st_mode) && st.st_uid == geteuid());
	check("and nobody else reads it", (st.st_mode & 0777) == 0600);
	close(map.fd);
	unlink(path);
	check("a folder that lies there", !mkdir(path, 0700));
	check("is no map", perf_map_open(&map, getpid()) < 0 && map.fd < 0 && map.is_wanted);
	rmdir(path);
	close(other);
	unlink(target);
}

int main(void)
{
	lines();
	rubbish();
	full();
	no_room();
	any_bytes();
	file();
	return failures != 0;
}
