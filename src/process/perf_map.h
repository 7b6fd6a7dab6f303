/*
 * The file by which perf(1) names translated code: /tmp/perf-PID.map of a machine process, as the
 * host counts processes, a line "address bytes name" for each block, in hexadecimal. It stays when
 * the machine has ended, since perf report reads it then.
 *
 * The machine process says what there is, and may lie: what is written are lines of two numbers and
 * a name of [A-Za-z0-9_.], so many bytes and no more. Nobody who reads it may believe more of it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { PERF_MAP_MOST_BYTES = 64 << 20 };

/* fd -1: nothing is written. left_out: of what was told; lost: what nobody was told of. */
struct perf_map { bool is_wanted; int fd; uint64_t bytes_left, left_out, lost; };

/*
 * While files can be opened: a new file, which only this user reads; one that was there is of a
 * process that is gone. 0 or -errno, and nothing is written.
 */
int perf_map_open(struct perf_map *map, pid_t pid);
/* What RECORD_CODE brings. False: rubbish, or nobody wanted it. */
bool perf_map_take(struct perf_map *map, const uint8_t *data, uint32_t bytes);
/* How many blocks are not in it. */
uint64_t perf_map_missing(const struct perf_map *map);
