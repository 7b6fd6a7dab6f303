/*
 * umbra save: a machine that runs into a file (vm/saved.h, vm/saved_file.h), its disks into layers,
 * so that what is beneath stays as it was at that moment.
 *
 *   peer        machine says all that it is, and stands still; its disks go on in layers
 *   here        what is beneath is frozen, and becomes part of the file
 *   file        is on disk, and has its name
 *   peer        goes on, or with --stop ends
 *
 *  1. Whatever goes wrong before the file has its name, the machine goes on, and nothing is left
 *     of the file. A disk may go on in a layer then: it loses nothing by that.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "fork_disks.h"
#include "option.h"
#include "vm/saved_file.h"
#include "save_machine.h"
#include "save_pack.h"
#include "saved_host.h"
#include "talk.h"
#include "vm/machine.h"

enum {
	PATH_BYTES = 1 << 12,
	ERRNO_MAX = 4095,
	BUSY_PAUSE_MS = 20,
	BUSY_TRIES = 500,
	MEMORY_TIMES = 5,
	OTHER_BYTES = 64 << 20
};

static const char save_help[] =
	"usage: umbra save [--stop] [--replace] [--compress] [--disks FOLDER] NAME FILE\n"
	"Writes the whole machine to FILE, from which umbra run --restore FILE goes on. The\n"
	"machine runs meanwhile, but for some milliseconds at the end, and goes on; "
	"with --stop it\n"
	"ends, once FILE is safely on disk. "
	"FILE must not be there yet, unless --replace is given.\n"
	"With --compress memory is packed (zstd): FILE is smaller, older Umbras do not read it.\n"
	"Disks that are written (VHDX) are frozen as they were then, and belong to FILE; NAME\n"
	"goes on in files of its own, DISK.NAME.vhdx, in FOLDER or beside the disk.\n";

struct save_request {
	const char *name, *file;
	const char *folder; /* where its disks go on; NULL: beside them */
	bool stop, replace, compress;
};

struct save {
	const struct save_request *request;
	FILE *peer;
	json_t *machine; /* what it says of itself */
	struct fork_disks disks;
};

/* ---- the file ---- */

/*
 * Into a file beside the one that is asked for, which takes its name when everything is in it and
 * on disk.
 */
struct target { const char *path; char partial[PATH_BYTES], folder[PATH_BYTES]; FILE *file; };

static const char *partial_file; /* the handler of a signal has to find it */

static void on_signal(int number)
{
	if (partial_file)
		unlink(partial_file);
	_exit(128 + number);
}

static int target_open(struct target *target, const char *path)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
	const char *slash = strrchr(path, '/');
	int fd;

	target->path = path;
	snprintf(target->folder, sizeof(target->folder), "%.*s",
		 slash ? (int)(slash - path + 1) : 2, slash ? path : "./");
	if (snprintf(target->partial, sizeof(target->partial), "%s.XXXXXX", path) >=
	    (int)sizeof(target->partial))
		return -ENAMETOOLONG;
	for (unsigned n = 0; n < 3; n++)
		signal(numbers[n], on_signal);
	fd = mkstemp(target->partial); /* mode 0600: it holds whatever the guest's memory held */
	partial_file = fd < 0 ? NULL : target->partial;
	target->file = fd < 0 ? NULL : fdopen(fd, "w");
	return target->file ? 0 : -errno;
}

/* 0 once the file is there for good. */
static int target_finish(struct target *target, bool replace)
{
	int folder = open(target->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = folder < 0 ? -errno : 0;

	if (!error && (fflush(target->file) || fsync(fileno(target->file))))
		error = -errno;
	if (!error && renameat2(AT_FDCWD, target->partial, AT_FDCWD, target->path,
				replace ? 0 : RENAME_NOREPLACE))
		error = -errno;
	if (!error)
		partial_file = NULL;
	if (!error && fsync(folder))
		error = -errno;
	if (folder >= 0)
		close(folder);
	fclose(target->file);
	target->file = NULL;
	return error;
}

static void target_drop(struct target *target)
{
	if (target->file)
		fclose(target->file);
	unlink(target->partial);
}

/* Where what the machine says goes. */
struct sink { FILE *file; struct save_pack *pack; /* NULL: as it is */ };

static int write_to(void *context, const void *data, size_t bytes)
{
	return fwrite(data, 1, bytes, context) == bytes ? 0 : -errno;
}

static int sink_take(const struct sink *sink, const void *data, size_t bytes)
{
	return sink->pack ? save_pack_take(sink->pack, data, bytes)
			  : write_to(sink->file, data, bytes);
}

static int copy(FILE *peer, const struct sink *to, size_t bytes)
{
	char data[8192];
	int error = 0;

	for (size_t n; bytes && !error; bytes -= n) {
		n = bytes < sizeof(data) ? bytes : sizeof(data);
		if (fread(data, 1, n, peer) != n)
			return -ECONNRESET;
		error = sink_take(to, data, n);
	}
	return error;
}

/* ---- what the machine says ---- */

/*
 * The machine process is taken for lost: what it says may not fill the disk. Every page once, then
 * what was written meanwhile, which at least halves each time, then the rest: at most four times
 * the memory. 0: it does not say what it has.
 */
uint64_t save_most_bytes(const json_t *machine)
{
	json_int_t memory = json_integer_value(json_object_get(machine, "memory"));

	return memory <= 0 ? 0 : (uint64_t)memory * MEMORY_TIMES + OTHER_BYTES;
}

/*
 * One line of a save. 1: more follows; 0: the machine stands still, and everything is in the file.
 */
static int receive_piece(FILE *peer, const struct sink *to, uint64_t *left)
{
	json_t *line = talk_hear(peer);
	json_t *bytes = json_object_get(line, "data");
	json_int_t number = json_integer_value(json_object_get(line, "errno"));
	json_int_t count = json_integer_value(bytes);
	bool is_end = json_is_true(json_object_get(line, "ok"));
	bool is_there = line;
	bool has_data = json_is_integer(bytes) && count >= 0;

	json_decref(line);
	if (is_end || !is_there)
		return is_end ? 0 : -ECONNRESET;
	if (!has_data)
		return number > 0 && number <= ERRNO_MAX ? -(int)number : -EPROTO;
	if ((uint64_t)count > *left)
		return -EFBIG;
	*left -= (uint64_t)count;
	return copy(peer, to, (size_t)count) ?: 1;
}

/* While another save is under way, also one whose peer is gone, this waits. */
static int receive(FILE *peer, const json_t *machine, const struct sink *to)
{
	const struct timespec pause = { 0, BUSY_PAUSE_MS * 1000000 };
	uint64_t left = save_most_bytes(machine);
	unsigned busy = 0;
	int got = 1;

	if (!left || !talk_ask(peer, "save"))
		return -ECONNRESET;
	while (got > 0) {
		got = receive_piece(peer, to, &left);
		if (got != -EBUSY || busy++ == BUSY_TRIES)
			continue;
		nanosleep(&pause, NULL);
		got = talk_ask(peer, "save") ? 1 : -ECONNRESET;
	}
	return got;
}

/* Into the file, packed where that was asked for. */
static int receive_into(struct save *save, FILE *file)
{
	struct sink sink = { .file = file };
	int error;

	if (save->request->compress) {
		sink.pack = save_pack_make(write_to, file);
		if (!sink.pack)
			return -ENOMEM;
	}
	error = receive(save->peer, save->machine, &sink);
	if (!error && sink.pack)
		error = save_pack_end(sink.pack);
	save_pack_free(sink.pack);
	return error;
}

static const char *save_remedy(int error)
{
	switch (error) {
	case -EEXIST: return "say --replace, or name another file";
	case -ECANCELED: case -ECONNRESET: return "it ended meanwhile";
	case -EOPNOTSUPP: return "with --test-device it cannot be saved";
	case -ENODEV: return "its disks cannot go on in another file: see umbra info";
	case -EBUSY: return "it is being saved already: wait";
	case -ETIMEDOUT: return "it does not answer: umbra kill ends it";
	case -EINPROGRESS: return "what its disks had is not durable yet: it goes on, try later";
	case -ETIME: return "its disks do not answer: it stands until they do, or umbra kill";
	case -EPROTO: return "do not trust it: end it with umbra kill";
	default: return "name a file where it can be written";
	}
}

/* ---- its disks ---- */

static int send_layers(struct save *save)
{
	int error = 0;

	for (unsigned n = 0; n < save->disks.count && !error; n++) {
		if (save->disks.disk[n].choice.read_only)
			continue;
		error = fork_disks_send_layer(&save->disks, n, fileno(save->peer));
		error = error ? error : talk_hear_end(save->peer);
	}
	return error;
}

/* Where nothing came of it: of the layers those that no disk goes on in. */
static void drop_layers(struct save *save)
{
	json_t *now = save->disks.count ? talk_describe(save->peer) : NULL;

	fork_disks_drop_layers(&save->disks, now);
	json_decref(now);
}

/*
 * Whether the machine that the file says of has a bus is what its broker says: the file is a
 * machine process's, which may be lost, and a restore believes it. 0 or the exit code.
 */
static int check_head(const char *path, bool has_bus)
{
	uint8_t head[MACHINE_SAVED_HEAD_BYTES];
	const struct boot_file file = { .data = head, .bytes = sizeof(head) };
	struct machine_saved saved;
	FILE *from = fopen(path, "re");
	bool is_read = from && fread(head, 1, sizeof(head), from) == sizeof(head);

	if (from)
		fclose(from);
	if (is_read && !machine_read_saved(&file, &saved) && saved.has_bus == has_bus)
		return 0;
	return complain(EXIT_UNUSABLE, "what its machine process says is not this machine", path,
			"do not trust it: end it with umbra kill");
}

static int write_host_part(FILE *to, const char *text)
{
	off_t at = ftello(to);
	size_t bytes = 0;
	uint8_t *part = at > 0 ? saved_file_host_part((uint64_t)at, text, &bytes) : NULL;
	int error = part && fwrite(part, 1, bytes, to) == bytes ? 0 : -EIO;

	free(part);
	return error;
}

/* What the machine has said is there: the host's side of it comes behind. 0 or the exit code. */
static int add_host_part(struct save *save, struct target *target)
{
	const bool has_bus = json_is_true(json_object_get(save->machine, "bus"));
	char *text = NULL;
	int error = fflush(target->file) ? -errno : 0;
	int code = error ? 0 : check_head(target->partial, has_bus);

	if (!error && !code && has_bus) {
		code = fork_disks_freeze(&save->disks);
		if (!code)
			code = saved_host_text(&save->disks, save->machine, &text);
		if (!code)
			error = write_host_part(target->file, text);
	}
	free(text);
	return error ? complain(EXIT_UNUSABLE, strerror(-error), save->request->file,
				"name a file where it can be written")
		     : code;
}

/* ---- the verb ---- */

/* Nobody listens in its place: it has not only closed the line, and goes on. */
static bool is_gone(const char *name)
{
	const struct timespec pause = { 0, BUSY_PAUSE_MS * 1000000 };
	int error = 0;

	for (unsigned n = 0; n < BUSY_TRIES && !error; n++) {
		FILE *peer = talk_to(name, &error);

		if (!peer)
			break;
		fclose(peer);
		nanosleep(&pause, NULL);
	}
	return error == -ENOENT || error == -ECONNREFUSED;
}

int save_stop_machine(const char *name, FILE *peer)
{
	bool is_told = talk_ask(peer, "stop") && !talk_hear_end(peer);

	/* the second time it may be gone */
	if (is_told && talk_ask(peer, "stop"))
		talk_hear_out(peer);
	if (!is_told || !is_gone(name))
		return complain(EXIT_UNUSABLE, "it is saved, but has not ended", name,
				"end it with umbra kill: it writes into files of its own");
	return 0;
}

/* Its layers are needed for as long as it may go on. 0 or the exit code. */
static int stop_machine(struct save *save)
{
	const int code = save_stop_machine(save->request->name, save->peer);

	if (!code)
		fork_disks_remove_layers(&save->disks);
	return code;
}

/* It stands still no longer than the file needs, but where it is to end. */
static int let_go(struct save *save)
{
	if (save->request->stop)
		return 0;
	return talk_ask(save->peer, "resume") ? talk_hear_end(save->peer) : -ECONNRESET;
}

/* 0 or -errno; *ret_code: the exit code, when it was said already. */
static int write_file(struct save *save, struct target *target, int *ret_code)
{
	const struct save_request *request = save->request;
	int error = target_open(target, request->file);

	if (!error)
		error = send_layers(save);
	if (!error)
		error = receive_into(save, target->file);
	if (!error)
		*ret_code = add_host_part(save, target);
	if (!error && !*ret_code)
		error = let_go(save);
	if (!error && !*ret_code)
		error = target_finish(target, request->replace);
	if (!error && !*ret_code && request->stop) /* only now that nothing can be lost */
		*ret_code = stop_machine(save);
	return error;
}

static int save_all(struct save *save)
{
	const struct save_request *request = save->request;
	struct target target = { 0 };
	int code = 0;
	int error;

	if (!request->replace && !access(request->file, F_OK))
		return complain(EXIT_UNUSABLE, strerror(EEXIST), request->file,
				save_remedy(-EEXIST));
	code = fork_disks_learn(&save->disks, request->name, save->machine);
	if (!code)
		code = fork_disks_make_layers(&save->disks, request->name);
	error = code ? 0 : write_file(save, &target, &code);
	if (!error && !code)
		return 0;
	drop_layers(save);
	if (target.partial[0])
		target_drop(&target);
	if (code)
		return code;
	return complain(EXIT_UNUSABLE,
			error == -ECONNRESET ? "the machine went away" : strerror(-error),
			request->file, save_remedy(error));
}

static int save_machine(const struct save_request *request)
{
	struct save *save = calloc(1, sizeof(*save));
	int error = 0;
	int code = 0;

	if (!save)
		return complain(EXIT_FAULT, strerror(ENOMEM), "save", "see umbra doctor");
	signal(SIGPIPE, SIG_IGN); /* a machine that goes away: then what is left is put in order */
	save->request = request;
	save->disks.folder = request->folder;
	save->peer = talk_to(request->name, &error);
	if (!save->peer)
		code = talk_failed(request->name, error);
	if (!code) {
		save->machine = talk_describe(save->peer);
		code = save->machine ? save_all(save) : talk_failed(request->name, -ECONNRESET);
		json_decref(save->machine);
		fclose(save->peer);
	}
	free(save);
	return code;
}

static int parse(struct save_request *request, int argc, char **argv)
{
	static const struct option longs[] = { { "stop", 0, 0, 's' },
					       { "replace", 0, 0, 'r' },
					       { "compress", 0, 0, 'c' },
					       { "disks", 1, 0, 'd' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "", longs)) != -1)
		switch (option) {
		case 's': request->stop = true; break;
		case 'r': request->replace = true; break;
		case 'c': request->compress = true; break;
		case 'd': request->folder = optarg; break;
		case 'h': fputs(save_help, stdout); exit(0);
		default: return EXIT_USAGE;
		}
	if (argc - optind != 2)
		return complain(EXIT_USAGE, "wrong number of arguments", argv[0],
				"see umbra save --help");
	request->name = argv[optind];
	request->file = argv[optind + 1];
	return 0;
}

int verb_save(int argc, char **argv)
{
	struct save_request request = { .name = NULL };
	int code = parse(&request, argc, argv);

	return code ? code : save_machine(&request);
}
