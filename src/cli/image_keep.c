/* umbra image keep, fetch, drop: files that an image carries. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_cli.h"
#include "image_cli.h"

static int read_all(const char *path, uint8_t **ret, size_t *ret_bytes)
{
	FILE *from = path ? fopen(path, "rb") : stdin;
	uint8_t *bytes = from ? malloc(IMAGE_KEPT_BYTES + 1) : NULL;
	int error = from ? 0 : -errno;

	if (from && !bytes)
		error = -ENOMEM;
	*ret_bytes = error ? 0 : fread(bytes, 1, IMAGE_KEPT_BYTES + 1, from);
	if (!error && (ferror(from) || *ret_bytes > IMAGE_KEPT_BYTES))
		error = ferror(from) ? -EIO : -EFBIG;
	if (path && from)
		fclose(from);
	*ret = bytes;
	return error;
}

int image_verb_keep(struct image_arguments *arguments)
{
	uint8_t *bytes;
	size_t count;
	struct disk *disk;
	int error;
	int code = arguments->count == 2
			   ? 0
			   : complain(EXIT_USAGE, "no name given", arguments->disk.file,
				      "say umbra image keep FILE NAME");

	if (code)
		return code;
	error = read_all(arguments->disk.from, &bytes, &count);
	if (error)
		code = image_failed(arguments->disk.from ? arguments->disk.from : "standard input",
				    error);
	else
		code = image_cli_open(arguments, ACTION_ANNOTATE, &disk);
	if (!code) {
		error = image_keep(disk, arguments->values[1], bytes, count);
		if (!error)
			error = image_add_history(disk, "umbra image", "kept",
						  json_pack("{s:s%}", "what", arguments->values[1],
							    strlen(arguments->values[1])));
		code = disk_access_close(disk,
					 error ? image_failed(arguments->values[1], error) : 0);
	}
	free(bytes);
	return code;
}

int image_verb_drop(struct image_arguments *arguments)
{
	struct disk *disk;
	int error;
	int code = arguments->count == 2
			   ? image_cli_open(arguments, ACTION_ANNOTATE, &disk)
			   : complain(EXIT_USAGE, "no name given", arguments->disk.file,
				      "say umbra image drop FILE NAME");

	if (code)
		return code;
	error = image_keep(disk, arguments->values[1], NULL, 0);
	return disk_access_close(disk, error ? image_failed(arguments->values[1], error) : 0);
}

int image_verb_fetch(struct image_arguments *arguments)
{
	uint8_t *bytes = NULL;
	size_t count = 0;
	struct disk *disk;
	int error;
	int code = arguments->count == 2
			   ? image_cli_open(arguments, ACTION_INSPECT, &disk)
			   : complain(EXIT_USAGE, "no name given", arguments->disk.file,
				      "say umbra image fetch FILE NAME");

	if (code)
		return code;
	error = image_fetch(disk, arguments->values[1], &bytes, &count);
	if (!error && (fwrite(bytes, 1, count, stdout) != count || fflush(stdout)))
		error = -EIO;
	free(bytes);
	if (error == -ENOENT)
		return disk_access_close(
			disk, complain(EXIT_UNUSABLE, "nothing is kept under this name",
				       arguments->values[1], "see umbra image get FILE kept"));
	return disk_access_close(disk, error ? image_failed(arguments->disk.file, error) : 0);
}
