/*
 * umbra cp: a file into a machine, or out of it, by the machine's agent. What comes is written
 * beside its place and renamed once it is whole; how long it is the agent says first, and no more
 * is taken.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/write_all.h"
#include "agent_line.h"
#include "cli.h"
#include "option.h"
#include "service_copy.h"

static const char copy_help[] =
	"usage: umbra cp [--service] FILE NAME:PATH\n"
	"       umbra cp NAME:PATH FILE\n"
	"Copies a file, with its permissions, into the machine NAME or out of it. A folder as the "
	"target: under the file's own name there.\n"
	"It needs umbra-agent in the guest; with --service hv_fcopy_daemon instead, which stock "
	"guests have: into the machine alone,\n"
	"without permissions. Folders: tar -c DIR | umbra exec -T NAME -- tar -x.\n";

enum { PATH_BYTES = PATH_MAX, NAME_BYTES = 80, PERMISSIONS = 0777 };

static const char *last_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* ---- into the machine; 0 or -errno ---- */

static int say_put(struct agent_line *line, const struct stat *st, const char *path,
		   const char *name)
{
	const struct agent_file head = { .mode = st->st_mode & PERMISSIONS,
					 .bytes = (uint64_t)st->st_size };
	uint8_t data[AGENT_FRAME_BYTES];
	const size_t path_bytes = strlen(path) + 1;
	const size_t name_bytes = strlen(name) + 1;

	if (path_bytes > PATH_BYTES || name_bytes > PATH_BYTES)
		return -ENAMETOOLONG;
	memcpy(data, &head, sizeof(head));
	memcpy(data + sizeof(head), path, path_bytes);
	memcpy(data + sizeof(head) + path_bytes, name, name_bytes);
	return agent_say(line, AGENT_PUT, data, sizeof(head) + path_bytes + name_bytes);
}

static int say_data(struct agent_line *line, int file)
{
	uint8_t data[AGENT_FRAME_BYTES];
	ssize_t got;
	int error = 0;

	while (!error && (got = read(file, data, sizeof(data))) > 0)
		error = agent_say(line, AGENT_DATA, data, (size_t)got);
	if (!error && got < 0)
		error = -errno;
	return error ? error : agent_say(line, AGENT_DATA_END, "", 0);
}

/* *ret_there: what failed is in the guest. */
static int copy_in(struct agent_line *line, int file, const char *from, const char *path,
		   bool *ret_there)
{
	struct agent_said said = { .data = NULL };
	struct stat st;
	int error = fstat(file, &st) ? -errno : 0;

	if (!error && !S_ISREG(st.st_mode))
		error = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (!error)
		error = say_put(line, &st, path, last_name(from));
	if (!error)
		error = say_data(line, file);
	if (!error)
		error = agent_hear(line, &said);
	if (error < 0)
		return error;
	*ret_there = true;
	if (said.kind == AGENT_FAILED)
		return agent_failure(&said);
	return said.kind == AGENT_DONE ? 0 : -EPROTO;
}

/* ---- out of it; 0 or -errno ---- */

static int hear_data(struct agent_line *line, struct agent_said *said, int file, uint64_t left)
{
	int error;
	int got;

	while ((got = agent_hear(line, said)) > 0 && said->kind == AGENT_DATA) {
		if (said->bytes > left)
			return -EPROTO;
		error = write_all(file, said->data, said->bytes);
		if (error)
			return error;
		left -= said->bytes;
	}
	if (got < 0)
		return got;
	return said->kind == AGENT_DATA_END && !left ? 0 : -EPROTO;
}

static int hear_file(struct agent_line *line, const char *place, bool *ret_there)
{
	struct agent_said said = { .data = NULL };
	struct agent_file head;
	char partial[PATH_BYTES + 8];
	int error = agent_hear(line, &said);
	int file;

	if (error < 0)
		return error;
	*ret_there = said.kind == AGENT_FAILED;
	if (*ret_there)
		return agent_failure(&said);
	if (said.kind != AGENT_FILE || said.bytes != sizeof(head))
		return -EPROTO;
	memcpy(&head, said.data, sizeof(head));
	snprintf(partial, sizeof(partial), "%s.XXXXXX", place);
	file = mkostemp(partial, O_CLOEXEC);
	if (file < 0)
		return -errno;
	error = hear_data(line, &said, file, head.bytes);
	if (!error && (fchmod(file, head.mode & PERMISSIONS) || rename(partial, place)))
		error = -errno;
	if (error)
		unlink(partial);
	close(file);
	return error;
}

/*
 * Where it is to be: in a folder under its own name, where a link leads to. What is there and no
 * file is not replaced by one. 0 or -errno.
 */
static int find_place(const char *to, const char *path, char place[PATH_MAX])
{
	char given[PATH_MAX];
	struct stat st;
	bool is_folder = !stat(to, &st) && S_ISDIR(st.st_mode);
	int bytes = is_folder ? snprintf(given, sizeof(given), "%s/%s", to, last_name(path))
			      : snprintf(given, sizeof(given), "%s", to);

	if (bytes >= (int)sizeof(given))
		return -ENAMETOOLONG;
	if (lstat(given, &st)) {
		memcpy(place, given, (size_t)bytes + 1);
		return 0;
	}
	if (!realpath(given, place) || stat(place, &st))
		return -errno;
	return S_ISREG(st.st_mode) ? 0 : -EINVAL;
}

static int copy_out(struct agent_line *line, const char *path, const char *to, bool *ret_there)
{
	char place[PATH_MAX];
	int error = find_place(to, path, place);

	if (!error)
		error = agent_say(line, AGENT_GET, path, strlen(path) + 1);
	return error ? error : hear_file(line, place, ret_there);
}

/* ---- the verb ---- */

/* NAME:PATH: the machine's name ends, and its path is returned; NULL: a file of the host's. */
static char *split(char *text)
{
	char *colon = strchr(text, ':');
	char *slash = strchr(text, '/');

	if (!colon || (slash && slash < colon))
		return NULL;
	*colon = 0;
	return colon + 1;
}

/* machine: whose path it is; NULL: the host's. */
static int complain_of(const char *machine, const char *path, int error)
{
	char where[PATH_BYTES + NAME_BYTES];

	snprintf(where, sizeof(where), "%s%s%s", machine ? machine : "", machine ? ":" : "", path);
	switch (error) {
	case -EISDIR:
		return complain(EXIT_UNUSABLE, strerror(EISDIR), where,
				"send tar -c through umbra exec -T NAME -- tar -x");
	case -EINVAL:
		return complain(EXIT_UNUSABLE, "it is no regular file", where,
				"name a file, or read and write it by umbra exec");
	case -ENOENT:
		return complain(EXIT_UNUSABLE, strerror(ENOENT), where,
				"name a file that is there, or a place in a folder that is");
	case -ENOSPC: case -EDQUOT:
		return complain(EXIT_UNUSABLE, strerror(-error), where, "make room there");
	default: return complain(EXIT_UNUSABLE, strerror(-error), where, "see umbra cp --help");
	}
}

static int copy(const char *machine, char *from, char *from_path, char *to, char *to_path)
{
	static struct agent_line line;
	int file = from_path ? -1 : open(from, O_RDONLY | O_CLOEXEC);
	const char *here = from_path ? to : from;
	const char *in_guest = from_path ? from_path : to_path;
	bool there = false;
	int error;

	if (!from_path && file < 0)
		return complain_of(NULL, from, -errno);
	error = agent_connect(machine, 0, &line);
	if (error)
		return agent_complain(machine, error);
	error = from_path ? copy_out(&line, from_path, to, &there)
			  : copy_in(&line, file, from, to_path, &there);
	agent_close(&line);
	if (error == -EPIPE || error == -EPROTO || error == -ECONNRESET)
		return agent_complain(machine, error);
	if (!error)
		return 0;
	return complain_of(there ? machine : NULL, there ? in_guest : here, error);
}

int verb_copy(int argc, char **argv)
{
	static const struct option longs[] = { { "help", 0, 0, 'h' },
					       { "service", 0, 0, 's' },
					       { 0 } };
	char *from_path;
	char *to_path;
	bool by_service = false;
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "h", longs)) != -1)
		switch (option) {
		case 's': by_service = true; break;
		case 'h': fputs(copy_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	if (argc - optind != 2)
		return complain(EXIT_USAGE, "wrong number of arguments", "cp",
				"see umbra cp --help");
	from_path = split(argv[optind]);
	to_path = split(argv[optind + 1]);
	if (!from_path == !to_path)
		return complain(EXIT_USAGE, "one of both is in a machine", argv[optind],
				"say umbra cp FILE NAME:PATH, or NAME:PATH FILE");
	if (by_service)
		return from_path ? complain(EXIT_USAGE, "the service copies into machines alone",
					    argv[optind], "leave out --service")
				 : service_copy(argv[optind + 1], argv[optind], to_path);
	return copy(from_path ? argv[optind] : argv[optind + 1], argv[optind], from_path,
		    argv[optind + 1], to_path);
}
