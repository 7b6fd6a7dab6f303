/*
 * A package in one file (OVA): a tar archive whose first file is the descriptor. libarchive reads
 * and writes it, and is loaded when it is needed.
 *
 * Of what is read: plain files with plain names, each once; none is larger than the archive itself.
 */
#pragma once

#include "ovf.h"

enum { PACKAGE_FILES_MAX = 1024 };

/* Where the content of one file goes: a text that is kept, or an open file; neither: it is passed
 * over. */
struct package_place {
	char *text; /* of `room` bytes */
	size_t room;
	int fd; /* -1: none */
	uint8_t sha1[SHA1_BYTES], sha256[SHA256_BYTES]; /* of what went there */
	uint64_t bytes;
	uint64_t at; /* where in the archive it is; 0: it is a file of its own */
};

/* Where a file goes: 0; other values end the walk and are returned. */
typedef int package_visit(void *context, const char *name, uint64_t bytes, unsigned number,
			  struct package_place *place);
/* After it is there. */
typedef int package_done(void *context, const char *name, const struct package_place *place);

/*
 * All files of an archive, from the descriptor's beginning on. -EBADMSG, -EPERM, -ENOTSUP with what
 * is wrong; -EFBIG: a text that is larger than its room; -ENOSYS: no libarchive; errors of the
 * host.
 */
int package_read(int fd, package_visit *visit, package_done *done, void *context,
		 struct ovf_error *error);

/* What goes into an archive: a text, or all of an open file from its beginning on. */
struct package_file {
	const char *name, *text;
	int fd;
	uint64_t bytes;
};
/* In this order. What is written is not synced. */
int package_write(int fd, const struct package_file *files, unsigned count,
		  struct ovf_error *error);
