/*
 * The descriptor of a package that holds one machine's disks (OVF 1.1, DSP0243), and its manifest.
 *
 * Both are hostile: no document types, and so no entities; names of files are plain names beside
 * the descriptor; texts, files and disks have limits. Of a machine its name and disks are taken,
 * and nothing of its hardware.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sums.h"

enum { OVF_BYTES_MAX = 4 << 20, OVF_DISKS_MAX = 64, OVF_NAME_BYTES = 256 };

/* What of a package is wrong. */
enum ovf_part {
	OVF_NOTHING, /* the host: a library is not there, or no memory */
	OVF_XML,
	OVF_FILE,
	OVF_DISK,
	OVF_MACHINE,
	OVF_MANIFEST_LINE,
	OVF_ARCHIVE,
	OVF_ARCHIVE_FILE,
	OVF_ARCHIVE_CONTENT
};
struct ovf_error {
	char text[400]; /* what was found */
	enum ovf_part part;
	uint64_t offset; /* of it, in the text or the archive, and within that */
};

struct ovf_disk {
	char file[OVF_NAME_BYTES]; /* plain; empty: the disk is empty */
	uint64_t file_bytes; /* as is said; 0: nothing is said */
	uint64_t size_bytes;
	char format[OVF_NAME_BYTES]; /* a URL, as it is said */
};

struct ovf {
	char name[OVF_NAME_BYTES];
	struct ovf_disk disk[OVF_DISKS_MAX];
	unsigned disks;
};

/* 0; -EBADMSG, -ENOTSUP with what is wrong, and where; -ENOMEM; -ENOSYS: no libexpat. */
int ovf_read(const char *text, size_t bytes, struct ovf *ret, struct ovf_error *error);
/* To be freed; NULL: no memory. Files and sizes of all disks are there. */
char *ovf_text(const struct ovf *ovf);
/* Whether a name is one of a file beside the descriptor: no path, not hidden, nothing that steers a
 * terminal. */
bool ovf_is_plain(const char *name);

/* ---- the manifest ---- */

struct ovf_sum {
	char file[OVF_NAME_BYTES];
	uint8_t digest[SHA256_BYTES];
	bool is_sha1;
};
struct ovf_manifest {
	struct ovf_sum sum[2 * OVF_DISKS_MAX];
	unsigned sums;
};

/* -EBADMSG, -ENOTSUP: a line that is none, or another kind of digest. */
int ovf_manifest_read(const char *text, size_t bytes, struct ovf_manifest *ret,
		      struct ovf_error *error);
/* NULL: the manifest has none of this file. */
const struct ovf_sum *ovf_manifest_of(const struct ovf_manifest *manifest, const char *file);
