/*
 * What becomes a root file system: the entries of a folder, or of an archive (tar, however it is
 * compressed), by libarchive, into a volume.
 */
#pragma once

struct volume_writer;

enum { SOURCE_WHAT_BYTES = 512 };

/* 0 or -errno, and in *ret_what which entry, or what the archive's reader says. */
int tree_source_fill(const char *from, struct volume_writer *writer,
		     char ret_what[SOURCE_WHAT_BYTES]);
