/* See arrival_refusal.h. What was said is looked for, and never passed on. */
#include "arrival_refusal.h"

#include <stddef.h>
#include <string.h>

#include "cli.h"

static const char *const kinds[] = {
	"it is damaged, or no saved machine",
	"a version that this Umbra does not know",
	"a part that this Umbra does not know",
	"a feature of the Hyper-V interface that this Umbra does not know",
	"without processor models",
	"the processor of this host lacks what it has been offered",
	"the time stamp counter of this host runs at another rate",
	"it has more memory than this host",
	"the host has not enough memory for it",
	"the host has not enough memory",
	"it has other devices than this machine was given",
	"it was saved with another number of network cards",
	"a machine of that name runs",
	"it is not what it was when the machine was saved",
	"it is of another format than was said",
	"what arrives is not the disk that was announced",
	"a disk is not where one is permitted",
	"it is on a network that is not permitted",
	"what it says of its disks is wrong",
	"the connection to where its memory comes from was lost",
	"its memory is damaged",
	"No such file or directory",
	"Permission denied",
	"No space left on device",
	"the software engine needs BMI2 and AVX2",
};

/* Of disks: the rows of refusals.h, without what was found in which file. */
static const struct disk_kind { const char *structure, *expected, *said; } disk_kinds[] = {
#define REFUSAL(name, code, place, structure, expected, remedy)                                    \
	{ ": " structure, "; expected: " expected ";",                                             \
	  "a disk: " structure "; expected: " expected },
#include "disk/refusals.h"
#undef REFUSAL
};

static const char *disk_refusal(const char *said)
{
	for (size_t n = 0; n < sizeof(disk_kinds) / sizeof(disk_kinds[0]); n++)
		if (strstr(said, disk_kinds[n].structure) && strstr(said, disk_kinds[n].expected))
			return disk_kinds[n].said;
	return NULL;
}

const char *arrival_refusal(const char *said, int code)
{
	const char *of_disk = disk_refusal(said);

	if (of_disk)
		return of_disk;
	for (size_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++)
		if (strstr(said, kinds[n]))
			return kinds[n];
	switch (code) {
	case EXIT_POLICY: return "a policy there forbids it";
	case EXIT_NO_ENGINE: return "that host cannot run it";
	case EXIT_USAGE: case EXIT_UNUSABLE: return "what it needs is not there";
	default: return "that host failed";
	}
}
