/*
 * A machine as a stream of bytes, and back (docs/saved-state.md): save.c writes, restore.c reads,
 * and what is here is of both.
 *
 *   head        128 bytes: what has to be known to make a machine that can take the rest
 *   sections    { name, version, bytes, crc } payload, zeros up to a multiple of 8
 *               MACH, then in any order PAGE (any number) and one for each unit that has an
 *               archive; END is the last; before it INDX says where each PAGE lies, so that
 *               pages can be read one by one, by somebody else, while the machine runs
 *               (saved_pages.h, process/pager_main.c)
 *   host part   of whoever has asked for it (vm/saved_file.h): not looked at here
 *
 *   - Memory is written while the machine runs, pages that change again, until few do. What is
 *     left, and everything that is not memory, is written while it stands still. Of a page the last
 *     one counts.
 *   - It is read by a process that has no rights any more, before the first instruction. Everything
 *     in it is checked, and what is refused has changed nothing outside of a machine that never
 *     runs.
 *   - A version that is not known is refused, never guessed (-ENOTSUP).
 *   - Time stands still while a machine is saved: TSC, reference time and timers go on where they
 *     were. The clock of the day does not.
 *   - Nothing of the host is in it: no addresses, descriptors or names.
 */
#pragma once

#include "machine_internal.h"

struct archive;

enum {
	SAVED_HEAD_BYTES = MACHINE_SAVED_HEAD_BYTES,
	SAVED_SECTION_HEAD_BYTES = 24,
	SAVED_ALIGNMENT = 8
};
enum {
	SECTION_MACHINE = UNIT_SECTION('M', 'A', 'C', 'H'),
	SECTION_PAGES = UNIT_SECTION('P', 'A', 'G', 'E'),
	SECTION_CODE = UNIT_SECTION('C', 'O', 'D', 'E'),
	SECTION_INDEX = UNIT_SECTION('I', 'N', 'D', 'X'),
	SECTION_END = UNIT_SECTION('E', 'N', 'D', ' '),
	SECTION_CPU = UNIT_SECTION('C', 'P', 'U', ' '),
	SECTION_CHIPSET = UNIT_SECTION('C', 'H', 'I', 'P'),
	SECTION_BUS = UNIT_SECTION('B', 'U', 'S', ' '),
	SECTION_NETWORK = UNIT_SECTION('N', 'E', 'T', ' '),
	SECTION_STORAGE = UNIT_SECTION('S', 'T', 'O', 'R'),
	SECTION_VERSION = 1, /* of every section but these */
	/* with processor models, and their registers in the processors' parts */
	SECTION_MACHINE_VERSION = 2,
	/* with TSC_ADJUST, the entries of PAE paging, and the xAPIC's identifier */
	SECTION_CPU_VERSION = 2,
	/* the generation id, and its event */
	SECTION_CHIPSET_VERSION = 2,
	/* drives that read discs, and what the guest is told once; 3: sub-channels */
	SECTION_STORAGE_VERSION = 3,
	/* sub-channels */
	SECTION_BUS_VERSION = 2,
	SECTION_NETWORK_VERSION = 2,
	/* where the parts and the index begin */
	SECTION_END_VERSION = 2,
	/* PAGE, packed (packed_pages.h), and INDX of a file with such: cli/save_pack.h */
	SECTION_PACKED_VERSION = 2,
};

static inline uint32_t saved_section_version(uint32_t name)
{
	switch (name) {
	case SECTION_MACHINE: return SECTION_MACHINE_VERSION;
	case SECTION_CPU: return SECTION_CPU_VERSION;
	case SECTION_CHIPSET: return SECTION_CHIPSET_VERSION;
	case SECTION_STORAGE: return SECTION_STORAGE_VERSION;
	case SECTION_BUS: return SECTION_BUS_VERSION;
	case SECTION_NETWORK: return SECTION_NETWORK_VERSION;
	case SECTION_END: return SECTION_END_VERSION;
	default: return SECTION_VERSION;
	}
}

/* Whether what is of this version can be read. */
static inline bool saved_section_is_known(uint32_t name, uint32_t version)
{
	const bool may_be_packed = name == SECTION_PAGES || name == SECTION_INDEX;
	uint32_t oldest = name == SECTION_MACHINE ? SECTION_MACHINE_VERSION : SECTION_VERSION;
	uint32_t newest =
		may_be_packed ? (uint32_t)SECTION_PACKED_VERSION : saved_section_version(name);

	return version >= oldest && version <= newest;
}

struct saved_head {
	uint64_t memory_bytes, features, tsc_hz;
	uint32_t cpus;
	uint16_t debug_exit;
	/* of version 2: there is a bus, with so many network cards on it, and what the guest had of
	 * its memory when it began */
	bool has_bus;
	uint16_t cards;
	uint64_t start_bytes;
	bool display; /* likewise; where it was left out there is none */
	uint8_t port[SHARE_PORTS]; /* likewise: share_port_kind() of each, the first ones */
};

struct saved_section { uint32_t name, version; uint64_t bytes; uint32_t crc, head_crc; };
_Static_assert(sizeof(struct saved_section) == SAVED_SECTION_HEAD_BYTES, "as in the file");

/* END's payload; of version 1 the first number alone. index_at 0: there is no index. */
struct saved_end { uint64_t sections, sections_before, parts_at, index_at, zero; };

/* ---- save.c ---- */

void saved_head_archive(struct archive *archive, struct saved_head *head);
/* What belongs to no unit. tsc: the host's, at the moment for which now_100ns is right. */
void saved_machine_archive(struct archive *archive, struct machine *machine, uint64_t *now_100ns,
			   uint64_t *tsc);
uint64_t saved_frames(const struct machine *machine);

/* ---- restore.c ---- */

/* What the machine has to be. 0, or -EBADMSG or -ENOTSUP with *ret_reason. */
int saved_read_head(const struct boot_file *file, struct saved_head *ret, const char **ret_reason);
/* Whether a machine that was told of one rate can run at the other. */
int saved_check_rate(uint64_t saved_hz, uint64_t host_hz, const char **ret_reason);
/*
 * options.saved, behind its head, into a machine made as the head says. Before any processor runs,
 * without the lock. As saved_read_head().
 */
int restore_machine(struct machine *machine, const char **ret_reason);
