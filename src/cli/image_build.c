/*
 * umbra image build: a disk that boots, from a folder or a tar of a root file system. The file
 * system is made in a file without a name, by umbra-builder, and is then copied into the image, so
 * that nothing is left of what was not finished.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helper_program.h"
#include "image_cli.h"

enum { LINK_BYTES = 32 };
#define DEFAULT_BYTES (8ull << 30)
#define LEAST_BYTES (16ull << 20)
#define MOST_BYTES (16ull << 40)

/* A file in the image's folder; how others find it is *ret_path. */
static int open_volume(const char *image, uint64_t bytes, int *ret_fd, char ret_path[LINK_BYTES])
{
	char *copy = strdup(image);
	const char *folder = copy ? dirname(copy) : ".";

	*ret_fd = open(folder, O_TMPFILE | O_RDWR, 0600);
	snprintf(ret_path, LINK_BYTES, "/proc/%d/fd/%d", getpid(), *ret_fd);
	if (*ret_fd >= 0 && !ftruncate(*ret_fd, (off_t)bytes)) {
		free(copy);
		return 0;
	}
	complain(EXIT_UNUSABLE, strerror(errno), folder, "name a folder with room for it");
	free(copy);
	return EXIT_UNUSABLE;
}

static int find_agent(const char *given, char path[PATH_MAX])
{
	if (given && !strcmp(given, "none")) {
		*path = 0;
		return 0;
	}
	if (given)
		return snprintf(path, PATH_MAX, "%s", given) < PATH_MAX
			       ? 0
			       : complain(EXIT_USAGE, "too long a path", given, "shorten it");
	return helper_program_find("umbra-agent", path, PATH_MAX)
		       ? complain(EXIT_UNUSABLE, "not beside this program", "umbra-agent",
				  "say --agent FILE, or --agent none")
		       : 0;
}

static int copy_volume(struct image_arguments *arguments, struct disk *from, const char *path)
{
	struct disk_error why;
	struct disk *to;
	int code = disk_cli_open_with(&arguments->disk, path, NULL, IMAGE_ACTION(ACTION_WRITE),
				      (struct disk_options){ .write = true, .direct = true }, &to);
	int error;

	if (code)
		return code;
	error = disk_copy(from, to, &(struct disk_job){ .step = NULL }, &why);
	if (error)
		code = making_refused(arguments->values[1], error, &why);
	else
		disk_access_note(to, "built",
				 json_pack("{s:s%}", "from", arguments->values[0],
					   strlen(arguments->values[0])));
	return disk_access_close(to, code);
}

/* What has no kernel boots only with --kernel, which root= would be missing in. */
static int must_boot(const char *tree, struct disk *volume)
{
	struct image_boot boot;
	int error = image_find_boot(volume, &boot);

	if (!error)
		image_free_boot(&boot);
	if (error == -ENOENT)
		return complain(EXIT_UNUSABLE, "no /boot/vmlinuz-VERSION, or no /sbin/init", tree,
				"install a kernel and an init in it");
	return error ? disk_access_failed(tree, error) : 0;
}

static int make_image(struct image_arguments *arguments, const char *volume)
{
	const char *image = arguments->values[1];
	const char *unfinished;
	struct disk_create what = { .format = DISK_VHDX };
	struct disk_error why;
	struct disk *from;
	int code = disk_cli_open(&arguments->disk, volume, "raw", ACTION_EXPORT, &from);
	int error;

	if (code)
		return code;
	code = must_boot(arguments->values[0], from);
	if (!code)
		code = making_begin(image, &unfinished);
	if (code)
		return disk_access_close(from, code);
	what.size_bytes = disk_size_bytes(from);
	what.logical_sector_bytes = disk_sector_bytes(from);
	error = disk_create(unfinished, &what, &why);
	code = error ? making_refused(image, error, &why)
		     : copy_volume(arguments, from, unfinished);
	return disk_access_close(from, making_end(image, code));
}

int image_verb_build(struct image_arguments *arguments)
{
	uint64_t bytes = DEFAULT_BYTES;
	char volume[LINK_BYTES];
	char agent[PATH_MAX];
	const char *words[] = { "fill", volume, arguments->values[0], agent, NULL };
	int code = 0;
	int fd;

	if (arguments->count != 2)
		return complain(EXIT_USAGE, "a tree and an image are needed", "build",
				"say umbra image build FOLDER-OR-TAR IMAGE.vhdx");
	if (arguments->size && (!parse_size(arguments->size, &bytes) || bytes < LEAST_BYTES ||
				bytes > MOST_BYTES || bytes % SECTOR_MAX_BYTES))
		return complain(EXIT_USAGE, "not a size from 16M to 16T", arguments->size,
				"say for example --size 4G");
	if (!access(arguments->values[1], F_OK))
		return disk_access_failed(arguments->values[1], -EEXIST);
	code = find_agent(arguments->agent, agent);
	if (!code)
		code = open_volume(arguments->values[1], bytes, &fd, volume);
	if (code)
		return code;
	code = helper_builder_run(words);
	if (!code)
		code = make_image(arguments, volume);
	close(fd);
	return code;
}
