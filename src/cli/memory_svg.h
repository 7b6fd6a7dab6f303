/* What a balancer has kept of the last minutes, as a picture. */
#pragma once

#include <jansson.h>
#include <stdio.h>

/*
 * samples: of "history" (process/balancer.h), numbers in MiB. A panel for the host, and one for
 * each machine: assigned as an area, target, demand and what it occupies as lines.
 */
void memory_svg(FILE *file, const json_t *samples);
