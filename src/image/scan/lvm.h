/*
 * LVM2: which volumes lie on a disk, and where. Only what is plain: linear, on this disk alone.
 *
 *   label (sector 0 to 3) -> head of the physical volume -> metadata area: text in a ring
 *
 * Source: the format as lvm2 writes it (its format_text and config syntax).
 */
#pragma once

#include "scan_internal.h"

enum { LVM_VOLUMES = 256, LVM_SEGMENTS = 4096, LVM_NAME_BYTES = 128 };

struct lvm_volume {
	char name[LVM_NAME_BYTES]; /* of the volume alone */
	char refused[64];          /* "": it can be read; else the kind that is not looked into */
	uint64_t bytes;
	struct scan_segment *segment;
	unsigned segments;
};
struct lvm { struct lvm_volume *volume; unsigned volumes; bool has_snapshots; };

/*
 * What the text says of the physical volume at `volume`. Segments are of the disk, in the order of
 * the logical volume, within the physical volume, and over each other nowhere. -EBADMSG: unsound;
 * -ENOMEM. To be released in any case.
 */
int lvm_read(const struct scan_volume *volume, struct lvm *ret);
void lvm_release(struct lvm *lvm);
