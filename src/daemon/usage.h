/* What a machine uses of the host, as /proc says it of its process and its broker. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

/*
 * description: the machine's own words (pid, process). Sets, where the host lets it be known,
 * "processor-ms" and "waited-ms" (that it could have run and did not: steal), "occupied", and with
 * `shares` "unique" and "shared", in bytes; for these all of its pages are looked at.
 */
void usage_measure(json_t *figures, const json_t *description, bool shares);
