/*
 * umbra disk attach, detach and resize --machine: disks of a machine that runs. What may be opened
 * is found out here, as the user, as for every disk: its policies, its parents and where they may
 * lie. Then each file of the chain is opened once more, and the machine's broker gets them all: its
 * processes can open none. What is in them is looked at anew there (process/disk_change.h).
 *
 * Left out: VMDK, which names further files; devices; the host's cache is not passed by (direct).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/names.h"
#include "disk_cli.h"
#include "disk_option.h"
#include "say.h"
#include "talk.h"

enum { LINE_BYTES = 16384, FILES_MOST = 16 };

/* A chain as it is passed on, the disk itself first. */
struct chain_files { unsigned count; char *path[FILES_MOST]; enum disk_format format[FILES_MOST]; };

/* ---- a connection ---- */

static int refused(const char *machine, const json_t *answer)
{
	const int error = (int)json_integer_value(json_object_get(answer, "errno"));

	switch (error) {
	case ENOSPC:
		return complain(EXIT_UNUSABLE, "no place for another disk", machine,
				"detach one: a machine takes 4 more than it began with");
	case EOPNOTSUPP:
		return complain(EXIT_UNUSABLE, "it takes no disk of that kind while it runs",
				machine,
				"start it with a disk or --dvd; convert a vmdk or a device with "
				"umbra disk convert");
	case ENODEV:
		return complain(EXIT_UNUSABLE, "no such disk", machine, "see umbra info");
	case EBUSY:
		return complain(EXIT_UNUSABLE, "busy, or kept in its drive by the guest", machine,
				"unmount it in the guest, or try again");
	case EROFS:
		return complain(EXIT_UNUSABLE, "a disk that is only read", machine,
				"attach it for writing");
	default:
		return complain(EXIT_UNUSABLE, error ? strerror(error) : "it is gone", machine,
				"see umbra info");
	}
}

/* 0 and the number that was answered, or the exit code. */
static int hear(FILE *peer, const char *machine, json_int_t *ret_number)
{
	json_t *answer = talk_hear(peer);
	int code = 0;

	if (!json_is_true(json_object_get(answer, "ok")))
		code = refused(machine, answer);
	*ret_number = json_integer_value(json_object_get(answer, "disk"));
	json_decref(answer);
	return code;
}

/* The question is released. */
static int ask(FILE *peer, const char *machine, json_t *question, const int *files, size_t count,
	       json_int_t *ret_number)
{
	char *text = json_dumps(question, JSON_COMPACT);
	char line[LINE_BYTES];
	int error = text ? 0 : -EINVAL;

	snprintf(line, sizeof(line), "%s\n", text ? text : "");
	free(text);
	json_decref(question);
	if (!error)
		error = say_line(fileno(peer), line, files, count);
	return error ? talk_failed(machine, error) : hear(peer, machine, ret_number);
}

static int print_number(const struct arguments *arguments, json_int_t number)
{
	if (arguments->json)
		printf("{\"disk\": %lld}\n", (long long)number);
	else
		printf("disk %lld\n", (long long)number);
	return 0;
}

/* ---- attach ---- */

static void chain_free(struct chain_files *chain)
{
	while (chain->count)
		free(chain->path[--chain->count]);
}

/* As the policies allow; what is learned of it is closed again. */
static int look_at_chain(const struct arguments *arguments, const struct disk_choice *choice,
			 struct chain_files *ret)
{
	const unsigned actions = IMAGE_ACTION(choice->read_only ? ACTION_READ : ACTION_WRITE) |
				 IMAGE_ACTION(ACTION_ATTACH);
	struct disk *disk;
	int code = disk_cli_open_with(arguments, choice->path, disk_format_name(choice->format),
				      actions,
				      (struct disk_options){ .write = !choice->read_only }, &disk);

	if (code)
		return code;
	for (const struct disk *at = disk; at && !code; at = disk_parent(at)) {
		if (ret->count == FILES_MOST) {
			code = complain(EXIT_UNUSABLE, "more than 16 files in its chain",
					choice->path, "shorten it with umbra disk stream");
			break;
		}
		ret->format[ret->count] = disk_format_of(at);
		ret->path[ret->count] = realpath(disk_path(at), NULL);
		if (!ret->path[ret->count++])
			code = disk_access_failed(disk_path(at), -errno);
	}
	return disk_access_close(disk, code);
}

/* One file, with what lies beside it; *count descriptors. */
static int open_file(const char *path, bool write, int files[2], size_t *count)
{
	char *side;

	files[0] = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (files[0] < 0)
		return disk_access_failed(path, -errno);
	*count = 1;
	if (asprintf(&side, "%s.umbra", path) < 0)
		return 0;
	files[1] = open(side, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	*count += files[1] >= 0;
	free(side);
	return 0;
}

static int pass_on(FILE *peer, const char *machine, const struct chain_files *chain, unsigned n,
		   bool write)
{
	json_int_t unused;
	size_t count = 0;
	int files[2];
	int code = open_file(chain->path[n], write, files, &count);

	if (!code)
		code = ask(peer, machine,
			   json_pack("{s:i, s:s, s:s, s:s, s:i}", "id", 1, "do", "chain", "file",
				     chain->path[n], "format", disk_format_name(chain->format[n]),
				     "side", count > 1),
			   files, count, &unused);
	while (count)
		close(files[--count]);
	return code;
}

static int attach(struct arguments *arguments, const struct disk_choice *choice, FILE *peer)
{
	struct chain_files chain = { 0 };
	json_int_t number;
	int code = choice->path[0] ? look_at_chain(arguments, choice, &chain) : 0;

	for (unsigned n = chain.count; n-- > 0 && !code;)
		code = pass_on(peer, arguments->file, &chain, n, !n && !choice->read_only);
	chain_free(&chain);
	if (!code)
		code = ask(peer, arguments->file,
			   json_pack("{s:i, s:s, s:i, s:i}", "id", 1, "do", "attach", "readonly",
				     choice->read_only, "dvd", choice->is_dvd),
			   NULL, 0, &number);
	return code ? code : print_number(arguments, number);
}

int verb_disk_attach(struct arguments *arguments)
{
	struct disk_plan *plan;
	FILE *peer;
	int error;
	int code;

	if (!arguments->file || !arguments->other)
		return complain(EXIT_USAGE, "no machine and file given", "attach",
				"say umbra disk attach NAME FILE");
	plan = calloc(1, sizeof(*plan));
	code = plan ? disk_option_add(plan, arguments->other)
		    : complain(EXIT_FAULT, strerror(ENOMEM), "attach", "see umbra doctor");
	if (!code && plan->disk[0].direct)
		code = complain(EXIT_USAGE, "not of a disk that comes while its machine runs",
				"direct", "leave it out");
	peer = code ? NULL : talk_to(arguments->file, &error);
	if (!code)
		code = peer ? attach(arguments, &plan->disk[0], peer)
			    : talk_failed(arguments->file, error);
	if (peer)
		fclose(peer);
	free(plan);
	return code;
}

/* ---- detach, resize ---- */

/* By its number, or by the file that it is in. False: there is none. */
static bool find_disk(const json_t *disks, const char *text, json_int_t *ret)
{
	char *end;
	char *path;
	size_t n;

	*ret = strtol(text, &end, 10);
	if (end != text && !*end)
		return *ret >= 0 && json_is_object(json_array_get(disks, (size_t)*ret));
	path = realpath(text, NULL);
	for (n = 0; path && n < json_array_size(disks); n++) {
		const char *file =
			json_string_value(json_object_get(json_array_get(disks, n), "file"));

		if (file && !strcmp(file, path))
			break;
	}
	*ret = (json_int_t)n;
	free(path);
	return path && n < json_array_size(disks);
}

static int no_such_disk(const char *machine, const char *disk)
{
	char what[LINE_BYTES];
	char remedy[LINE_BYTES];

	snprintf(what, sizeof(what), "no disk of the machine %s is that", machine);
	snprintf(remedy, sizeof(remedy), "umbra info %s lists them", machine);
	return complain(EXIT_UNUSABLE, what, disk, remedy);
}

/* The question gets its number, and is released. */
static int ask_about(const struct arguments *arguments, const char *machine, const char *disk,
		     json_t *question)
{
	json_t *info = NULL;
	json_int_t number;
	int error;
	FILE *peer = talk_to(machine, &error);
	int code = peer ? 0 : talk_failed(machine, error);

	if (!code)
		info = talk_describe(peer);
	if (!code && !find_disk(json_object_get(info, "disks"), disk, &number))
		code = no_such_disk(machine, disk);
	if (!code) {
		json_object_set_new(question, "disk", json_integer(number));
		code = ask(peer, machine, json_incref(question), NULL, 0, &number);
	}
	json_decref(question);
	json_decref(info);
	if (peer)
		fclose(peer);
	return code ? code : print_number(arguments, number);
}

int verb_disk_detach(struct arguments *arguments)
{
	if (!arguments->file || !arguments->other)
		return complain(EXIT_USAGE, "no machine and disk given", "detach",
				"say umbra disk detach NAME DISK");
	return ask_about(arguments, arguments->file, arguments->other,
			 json_pack("{s:i, s:s}", "id", 1, "do", "detach"));
}

int verb_disk_resize_running(struct arguments *arguments)
{
	if (!arguments->file || !arguments->has_size)
		return complain(EXIT_USAGE, "no disk and size given", "resize",
				"say umbra disk resize DISK --machine NAME --size S");
	return ask_about(arguments, arguments->machine, arguments->file,
			 json_pack("{s:i, s:s, s:I}", "id", 1, "do", "grow", "size",
				   (json_int_t)arguments->size));
}
