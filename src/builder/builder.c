/*
 * umbra-builder: what `umbra image build` and the seeds of `umbra run` are made by, a program of
 * its own.
 *
 *   umbra-builder fill VOLUME TREE [AGENT]        VOLUME: a file of the size that it shall have
 *   umbra-builder seed FILE NAME DATA AGENT [KEY]...  FILE: there, and empty; "" or -: without
 *
 * Ends 0; 65: what it was given cannot be used, and one line says why. It reads what the user has
 * chosen, and runs as he: archives are read by libarchive, in this process alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent_install.h"
#include "lib/plain_text.h"
#include "seed.h"
#include "tree_source.h"
#include "volume_writer.h"

enum { ENDS_USAGE = 64, ENDS_UNUSABLE = 65, DATA_BYTES = 1 << 20 };

static int complain(const char *where, const char *what, const char *remedy)
{
	plain_line(stderr, "umbra: %s: %s; %s", where, what, remedy);
	return ENDS_UNUSABLE;
}

/* ---- a root file system ---- */

/* mke2fs(8), which is in /sbin for those whose PATH has none. */
static int make_volume(const char *volume)
{
	static char name[] = "mke2fs";
	char *const arguments[] = { name, (char[]){ "-q" }, (char[]){ "-F" }, (char[]){ "-t" },
				    (char[]){ "ext4" }, (char *)(uintptr_t)volume, NULL };
	char *const environment[] = { (char[]){ "MKE2FS_SKIP_PROGRESS=1" }, NULL };
	int status = -1;
	pid_t child;

	if (posix_spawn(&child, "/sbin/mke2fs", NULL, NULL, arguments, environment))
		return complain("/sbin/mke2fs", "not there", "install e2fsprogs");
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && !WEXITSTATUS(status)
		       ? 0
		       : complain(volume, "no file system could be made",
				  "name another size, or see the lines above");
}

static int open_given(const char *path, int *ret)
{
	*ret = *path && strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	return *path && strcmp(path, "-") && *ret < 0
		       ? complain(path, strerror(errno), "name a file that can be read")
		       : 0;
}

static int fill_volume(const char *volume, const char *tree, int agent)
{
	struct volume_writer *writer;
	char what[SOURCE_WHAT_BYTES];
	const char *where = what;
	int error = volume_writer_open(volume, &writer);
	int closed;

	if (error)
		return complain(volume, strerror(-error), "try again");
	error = tree_source_fill(tree, writer, what);
	if (!error && agent >= 0)
		error = agent_install(writer, agent);
	if (!error)
		error = root_install(writer);
	closed = volume_writer_close(writer);
	error = error ? error : closed;
	if (error == -ENOSPC)
		return complain(tree, "it does not fit", "say a larger --size");
	if (!*what)
		where = tree;
	return error ? complain(where, strerror(-error),
				"name a folder or a tar of a root file system")
		     : 0;
}

static int build_root(int argc, char **argv)
{
	int agent;
	int code = open_given(argc > 4 ? argv[4] : "", &agent);

	if (!code)
		code = make_volume(argv[2]);
	return code ? code : fill_volume(argv[2], argv[3], agent);
}

/* ---- a seed ---- */

static int read_data(const char *path, struct seed *seed)
{
	char *data = malloc(DATA_BYTES);
	size_t used = 0;
	ssize_t got = 1;
	int fd;
	int code = data ? open_given(path, &fd) : ENDS_UNUSABLE;

	seed->user_data = data;
	if (code || fd < 0)
		return code;
	while (used < DATA_BYTES && (got = read(fd, data + used, DATA_BYTES - used)) > 0)
		used += (size_t)got;
	close(fd);
	seed->user_data_bytes = used;
	if (got < 0)
		return complain(path, strerror(errno), "name a file that can be read");
	return used < DATA_BYTES ? 0 : complain(path, "longer than 1 MiB", "shorten it");
}

/* argv: FILE NAME DATA AGENT KEY..., as getopt leaves them. */
static int make_seed(char **argv)
{
	struct seed seed = { .name = *argv[3] ? argv[3] : NULL,
			     .ssh_keys = (const char *const *)argv + 6 };
	int fd = open(argv[2], O_WRONLY | O_CLOEXEC);
	int code = fd < 0 ? complain(argv[2], strerror(errno), "try again")
			  : read_data(argv[4], &seed);
	int error;

	if (!code)
		code = open_given(argv[5], &seed.agent_fd);
	if (code)
		return code;
	error = seed_write(fd, &seed);
	if (error == -EINVAL)
		return complain("--ssh-key", "not a key of one line",
				"name a file of public keys, NAME.pub");
	return error ? complain(argv[2], strerror(-error), "make room there") : 0;
}

int main(int argc, char **argv)
{
	if (sodium_init() < 0)
		return ENDS_UNUSABLE;
	if (argc >= 4 && !strcmp(argv[1], "fill"))
		return build_root(argc, argv);
	if (argc >= 6 && !strcmp(argv[1], "seed"))
		return make_seed(argv);
	fprintf(stderr, "umbra-builder: umbra runs it; see umbra image --help\n");
	return ENDS_USAGE;
}
