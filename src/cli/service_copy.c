/*
 * See service_copy.h. The machine is asked on its control socket, piece by piece
 * (umbra-control(7)); where this process ends early the guest's daemon removes what it has.
 */
#include "service_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "talk.h"

/* A piece makes a line of 4 KiB, as the machine's lines are limited. */
enum { PIECE_BYTES = 3000, PIECE_TEXT_BYTES = 4 * PIECE_BYTES / 3 + 8, PATH_BYTES = 4096 };
enum { BUSY_TRIES = 150, BUSY_US = 100000 };

/* Released. */
static int ask(FILE *peer, json_t *question)
{
	char *text = question ? json_dumps(question, JSON_COMPACT) : NULL;
	const bool is_out = text && fprintf(peer, "%s\n", text) > 0 && !fflush(peer);
	const int error = text ? -ECONNRESET : -EINVAL;

	free(text);
	json_decref(question);
	return is_out ? talk_hear_end(peer) : error;
}

static int begin(FILE *peer, const char *folder, const char *name, off_t bytes)
{
	int error = -EBUSY;

	/* one that somebody has left is given up after a while */
	for (unsigned n = 0; n < BUSY_TRIES && error == -EBUSY; n++) {
		if (n)
			usleep(BUSY_US);
		error = ask(peer, json_pack("{s:i, s:s, s:s, s:s, s:I, s:i}", "id", 1, "do", "copy",
					    "folder", folder, "name", name, "bytes",
					    (json_int_t)bytes, "replaces", 1));
	}
	return error;
}

static int send_piece(FILE *peer, const uint8_t *data, size_t bytes)
{
	char text[PIECE_TEXT_BYTES];
	int error = -EBUSY;

	sodium_bin2base64(text, sizeof(text), data, bytes, sodium_base64_VARIANT_ORIGINAL);
	for (unsigned n = 0; n < BUSY_TRIES && error == -EBUSY; n++) {
		if (n)
			usleep(BUSY_US);
		error = ask(peer, json_pack("{s:i, s:s, s:s}", "id", 1, "do", "piece", "data",
					    text));
	}
	return error;
}

/* As many bytes as were promised. */
static int send_pieces(FILE *peer, int file, off_t left)
{
	uint8_t data[PIECE_BYTES];
	int error = 0;

	while (left && !error) {
		const ssize_t got = read(file, data,
					 left < PIECE_BYTES ? (size_t)left : sizeof(data));

		if (got <= 0)
			return got ? -errno : -EIO;
		error = send_piece(peer, data, (size_t)got);
		left -= got;
	}
	return error;
}

static int send_file(FILE *peer, int file, off_t bytes, const char *folder, const char *name)
{
	int error = begin(peer, folder, name, bytes);

	if (!error)
		error = send_pieces(peer, file, bytes);
	return error ? error : ask(peer, json_pack("{s:i, s:s}", "id", 1, "do", "finish"));
}

/* Where it goes: its folder with a slash at its end, and its name there. */
static int split_path(const char *path, const char *file, char folder[PATH_BYTES],
		      const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	const char *own = strrchr(file, '/');
	const size_t bytes = slash ? (size_t)(slash + 1 - path) : 0;

	if (!bytes || path[0] != '/' || bytes >= PATH_BYTES)
		return -EINVAL;
	memcpy(folder, path, bytes);
	folder[bytes] = 0;
	*ret_name = slash[1] ? slash + 1 : file;
	if (!slash[1] && own)
		*ret_name = own + 1;
	return 0;
}

static int complain_of(const char *machine, const char *path, int error)
{
	switch (error) {
	case -ENOTCONN:
		return complain(EXIT_UNUSABLE, "no hv_fcopy_daemon answers in it", machine,
				"start it there, or leave out --service");
	case -EINVAL:
		return complain(EXIT_UNUSABLE, "not a path that the service can take", path,
				"say an absolute one of up to 259 characters");
	case -EIO:
		return complain(EXIT_UNUSABLE, "the guest could not write it", path,
				"see what is there in the guest");
	case -ECONNRESET: case -ENOENT: case -EBUSY: return talk_failed(machine, error);
	default: return complain(EXIT_UNUSABLE, strerror(-error), path, "see umbra cp --help");
	}
}

int service_copy(const char *machine, const char *file, const char *path)
{
	char folder[PATH_BYTES];
	const char *name = NULL;
	struct stat st;
	int error = split_path(path, file, folder, &name);
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	FILE *peer = NULL;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return complain(EXIT_UNUSABLE, fd < 0 ? strerror(errno) : "not a file", file,
				"name a file");
	if (!error)
		peer = talk_to(machine, &error);
	if (!error)
		error = send_file(peer, fd, st.st_size, folder, name);
	if (peer)
		fclose(peer);
	close(fd);
	return error ? complain_of(machine, path, error) : 0;
}
