/*
 * umbra run: what the user wants becomes a plan and descriptors of what it needs; then this process
 * goes on as the machine's broker (process/mains.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "balance_join.h"
#include "cli.h"
#include "disk_cli.h"
#include "disk_option.h"
#include "fork_disks.h"
#include "fork_door.h"
#include "fork_nets.h"
#include "fork_ports.h"
#include "ipc/early.h"
#include "ipc/spawn.h"
#include "landing.h"
#include "memory_option.h"
#include "control/names.h"
#include "run_internal.h"
#include "saved_host.h"
#include "process/mains.h"
#include "process/plan.h"
#include "vm/machine.h"

enum { PAGE_BYTES = 4096 };

static bool parse_number(const char *text, unsigned long low, unsigned long high,
			 unsigned long *ret)
{
	char *end;

	*ret = strtoul(text, &end, 0);
	return end != text && !*end && *ret >= low && *ret <= high;
}

/* ---- what the processes are given ---- */

static int open_file(const char *path, int *ret)
{
	struct stat st;

	*ret = open(path, O_RDONLY | O_CLOEXEC);
	if (*ret < 0)
		return -errno;
	return fstat(*ret, &st) || !S_ISREG(st.st_mode) || !st.st_size ? -EINVAL : 0;
}

static int take_file(struct run *run, enum grant grant, const char *path, const char *remedy)
{
	int error = path ? open_file(path, &run->grants.fd[grant]) : 0;

	return error ? complain(EXIT_UNUSABLE, strerror(-error), path, remedy) : 0;
}

static int take_memory(struct run *run, enum grant grant, const char *name, const void *data,
		       size_t bytes)
{
	if (!bytes)
		return 0;
	run->grants.fd[grant] = spawn_seal(name, data, bytes);
	return run->grants.fd[grant] < 0 ? complain(EXIT_FAULT, strerror(-run->grants.fd[grant]),
						    name, "see umbra doctor")
					 : 0;
}

static int take_command_line(struct run *run, const char *before, const char *text)
{
	struct machine_plan *machine = &run->plan->machine;
	int length = snprintf(machine->command_line, sizeof(machine->command_line), "%s%s", before,
			      text);

	if (length < 0 || (size_t)length >= sizeof(machine->command_line))
		return complain(EXIT_USAGE, "too long a command line", "--append",
				"shorten --append");
	return 0;
}

/* may_lack: it need not have one. */
static int find_boot(const struct disk_choice *choice, const struct disk_search *search,
		     bool may_lack, struct image_boot *ret)
{
	const unsigned actions = IMAGE_ACTION(choice->read_only ? ACTION_READ : ACTION_WRITE) |
				 IMAGE_ACTION(ACTION_ATTACH);
	const struct disk_options options = { .write = !choice->read_only,
					      .direct = choice->direct };
	struct disk *disk;
	int code = disk_access_open(search, choice->path, choice->format, actions, options, &disk);
	int error;

	if (code)
		return code;
	error = image_find_boot(disk, ret);
	if (error && may_lack)
		return disk_access_close(disk, 0);
	if (error == -ENOENT)
		code = complain(EXIT_UNUSABLE, "no kernel in a root file system (ext, XFS, btrfs)",
				choice->path, "name one with --kernel, and --initrd");
	else if (error)
		code = disk_access_failed(choice->path, error);
	return disk_access_close(disk, code);
}

/* The kernel takes the first that it finds, which may be either. */
static int must_be_alone(const struct run *run, const struct disk_search *search,
			 const struct image_boot *boot)
{
	const struct disk_plan *disks = &run->plan->disks;
	const unsigned count = disks->count - seed_is_wanted(&run->seed); /* which is the last */
	int code = 0;

	for (unsigned n = 1; n < count && !code; n++) {
		struct image_boot other = { 0 };

		if (disks->disk[n].is_dvd)
			continue;
		code = find_boot(&disks->disk[n], search, true, &other);
		if (!code && !strcmp(other.root_uuid, boot->root_uuid))
			code = complain(EXIT_UNUSABLE, "a copy of the disk that boots",
					disks->disk[n].path,
					"give its file system another identifier (tune2fs -U)");
		image_free_boot(&other);
	}
	return code;
}

/* Kernel, initial file system and where the root is, from the disk itself. */
static int take_image(struct run *run)
{
	const char *append = run->options.append ? run->options.append : "console=ttyS0";
	struct image_boot boot = { 0 };
	struct disk_search search;
	char root[96];
	int code;

	disk_search_of_place(&run->plan->disks.place, &search);
	code = find_boot(&run->plan->disks.disk[0], &search, false, &boot);
	if (!code)
		code = must_be_alone(run, &search, &boot);
	if (!code) {
		snprintf(root, sizeof(root), "root=UUID=%s ", boot.root_uuid);
		if (boot.root_subvolume)
			snprintf(root, sizeof(root), "root=UUID=%s rootflags=subvolid=%lu ",
				 boot.root_uuid, boot.root_subvolume);
		code = take_command_line(run, root, append);
	}
	if (!code)
		code = take_memory(run, GRANT_KERNEL, "kernel", boot.kernel, boot.kernel_bytes);
	if (!code)
		code = take_memory(run, GRANT_INITRD, "initrd", boot.initrd, boot.initrd_bytes);
	image_free_boot(&boot);
	return code;
}

static int take_kernel(struct run *run)
{
	const struct run_options *options = &run->options;
	int code = take_command_line(run, "", options->append ? options->append : "console=ttyS0");

	if (!code)
		code = take_file(run, GRANT_KERNEL, options->kernel,
				 "name a readable kernel image");
	return code ? code
		    : take_file(run, GRANT_INITRD, options->initrd, "name a readable initrd");
}

static int take_sizes(struct machine_plan *machine, const struct run_options *options)
{
	const char *cpu_text = options->cpus ? options->cpus : "1";
	uint64_t most = (uint64_t)sysconf(_SC_PHYS_PAGES) * PAGE_BYTES;
	int code = memory_option_take(options->memory, options->memory_min, most, machine);
	unsigned long cpus;

	if (code)
		return code;
	if (!parse_number(cpu_text, 1, MACHINE_MAX_CPUS, &cpus))
		return complain(EXIT_USAGE, "not a number of processors from 1 to 16", cpu_text,
				"say for example --cpus 4");
	machine->cpus = (uint32_t)cpus;
	return 0;
}

/* Of a saved machine, too: it is this host's affair. */
static int take_overhead(struct machine_plan *machine, const struct run_options *options)
{
	machine->overhead_bytes = MACHINE_DEFAULT_OVERHEAD_BYTES;
	if (options->overhead && (!parse_size(options->overhead, &machine->overhead_bytes) ||
				  machine->overhead_bytes < MACHINE_LEAST_OVERHEAD_BYTES ||
				  machine->overhead_bytes > MACHINE_MOST_OVERHEAD_BYTES))
		return complain(EXIT_USAGE, "not a size from 64M to 2G", options->overhead,
				"say for example --overhead 256M");
	return 0;
}

struct left_out { const char *word; unsigned bit; };

/* What the text of --debug-mmu or --debug-code leaves out, by commas, and open=N. */
static int leave_out(struct machine_plan *machine, const char *text, const struct left_out *rows,
		     const char *remedy)
{
	while (text && *text) {
		size_t bytes = strcspn(text, ",");
		uint32_t before = machine->without;

		for (const struct left_out *row = rows; row->word; row++)
			if (bytes == strlen(row->word) && !memcmp(text, row->word, bytes))
				machine->without |= row->bit;
		if (rows->bit == MACHINE_WITHOUT_SPACES && !strncmp(text, "open=", strlen("open=")))
			machine->mmu_tables_left_open =
				(uint32_t)strtoul(text + strlen("open="), NULL, 10);
		else if (machine->without == before)
			return complain(EXIT_USAGE, "leaves out nothing, or something twice", text,
					remedy);
		text += bytes;
		text += *text == ',';
	}
	return 0;
}

static int take_left_out(struct machine_plan *machine, const struct run_options *options)
{
	static const struct left_out mmu[] = { { "spaces", MACHINE_WITHOUT_SPACES },
					       { "tables", MACHINE_WITHOUT_TABLES },
					       { "batches", MACHINE_WITHOUT_BATCHES },
					       { "sharing", MACHINE_WITHOUT_SHARING },
					       { NULL, 0 } };
	static const struct left_out code[] = { { "words", MACHINE_WITHOUT_WORDS },
						{ "shortcuts", MACHINE_WITHOUT_SHORTCUTS },
						{ "pages", MACHINE_WITHOUT_PAGES },
						{ "victims", MACHINE_WITHOUT_VICTIMS },
						{ "flags", MACHINE_WITHOUT_DEAD_FLAGS },
						{ "trims", MACHINE_WITHOUT_TRIMS },
						{ "uses", MACHINE_WITHOUT_USES },
						{ "slots", MACHINE_WITHOUT_SLOTS },
						{ "strips", MACHINE_WITHOUT_STRIPS },
						{ "indexes", MACHINE_WITHOUT_INDEXES },
						{ "traces", MACHINE_WITHOUT_TRACES },
						{ "waiting", MACHINE_WITHOUT_WAITING },
						{ NULL, 0 } };
	int error = leave_out(machine, options->debug_mmu, mmu,
			      "say spaces, tables, batches, sharing, or open=N");

	if (error)
		return error;
	machine->without |= options->debug_copies ? MACHINE_WITHOUT_TRUST : 0;
	return leave_out(machine, options->debug_code, code,
			 "say words, shortcuts, pages, victims, flags, trims, uses, slots, strips, "
			 "indexes, traces, waiting");
}

static int take_model(struct machine_plan *machine, const struct run_options *options)
{
	struct machine_options found = { .cpus = machine->cpus };
	enum cpu_mitigations mitigations = CPU_MITIGATIONS_TRUE;
	char reason[128];

	if (options->mitigations && !strcmp(options->mitigations, "guest"))
		mitigations = CPU_MITIGATIONS_GUEST;
	else if (options->mitigations && !strcmp(options->mitigations, "off"))
		mitigations = CPU_MITIGATIONS_OFF;
	else if (options->mitigations)
		return complain(EXIT_USAGE, "not a choice of mitigations", options->mitigations,
				"say guest or off, or leave it out");
	if (machine_choose_model(&found, options->cpu_model, mitigations, options->host_mask,
				 reason, sizeof(reason)))
		return complain(EXIT_NO_ENGINE, reason,
				options->cpu_model ? options->cpu_model
						   : "the default processor model",
				"see umbra doctor");
	machine->model = found.model;
	machine->host = found.host;
	return 0;
}

static int take_host(struct run *run)
{
	struct machine_options found = { 0 };
	struct machine_plan *machine = &run->plan->machine;
	char reason[128];

	if (run->host) {
		machine->host = *run->host;
		return 0;
	}
	if (machine_find_host(&found, run->options.host_mask, reason, sizeof(reason)))
		return complain(EXIT_USAGE, reason, "--host-mask", "see umbra doctor");
	machine->host = found.host;
	return 0;
}

static int take_time_limit(struct run *run)
{
	const char *text = run->options.time_limit;
	unsigned long seconds = 0;

	if (text && !parse_number(text, 1, UINT32_MAX, &seconds))
		return complain(EXIT_USAGE, "not a number of seconds", text,
				"say for example --time-limit 60");
	run->plan->machine.time_limit_s = (uint32_t)seconds;
	return 0;
}

/* A Linux kernel has drivers for a bus; a bare-metal image has one where it asks for it. */
static bool is_linux(int kernel)
{
	uint8_t head[BOOT_LINUX_HEAD_BYTES];

	return pread(kernel, head, sizeof(head), 0) == sizeof(head) &&
	       boot_is_linux((struct boot_file){ .data = head, .bytes = sizeof(head) });
}

static int take_bus(struct run *run)
{
	const struct run_options *options = &run->options;
	struct machine_plan *machine = &run->plan->machine;
	const bool is_needed = run->plan->disks.count || run->plan->nets.count ||
			       run->plan->shares.count || options->memory_min ||
			       options->display || memory_is_adjusted(machine);
	const bool is_possible = machine_hv_has_bus(machine->hv_features);

	if (is_needed && options->no_bus)
		return complain(EXIT_USAGE,
				"disks, networks, a screen and adjusted memory need the bus",
				"--no-bus", "leave it out");
	if (is_needed && !is_possible)
		return complain(
			EXIT_USAGE,
			"disks, networks, a screen and adjusted memory need "
			"the features synic, messages and events",
			"--hv", "leave them in");
	machine->has_bus = is_needed || (is_possible && !options->no_bus &&
					 is_linux(run->grants.fd[GRANT_KERNEL]));
	return 0;
}

static int take_new(struct run *run)
{
	const struct run_options *options = &run->options;
	struct machine_plan *machine = &run->plan->machine;
	unsigned long port = 0;
	char bad[32];
	int code = take_sizes(machine, options);

	if (!code)
		code = take_model(machine, options);
	if (code)
		return code;
	if (options->debug_exit && !parse_number(options->debug_exit, 1, UINT16_MAX, &port))
		return complain(EXIT_USAGE, "not an I/O port", options->debug_exit,
				"say for example --debug-exit 0xf4");
	machine->debug_exit = (uint16_t)port;
	machine->test_device = options->test_device;
	machine->display = options->display;
	if (!machine_parse_hv(options->hv ? options->hv : "default", &machine->hv_features, bad,
			      sizeof(bad)))
		return complain(EXIT_USAGE, "not a feature of the Hyper-V interface", bad,
				"see umbra run --help");
	share_option_kinds(&run->plan->shares, machine->port);
	code = options->image ? take_image(run) : take_kernel(run);
	return code ? code : take_bus(run);
}

/* Its head; what is wrong with it the machine process says. */
static void read_saved(struct machine_plan *machine, struct machine_saved *ret, int fd)
{
	uint8_t head[MACHINE_SAVED_HEAD_BYTES];
	const struct boot_file file = { .data = head, .bytes = sizeof(head) };
	struct machine_saved saved;

	if (pread(fd, head, sizeof(head), 0) != sizeof(head) ||
	    machine_read_saved(&file, &saved) || saved.cpus > MACHINE_MAX_CPUS)
		return;
	machine->memory_bytes = machine->least_memory_bytes = saved.memory_bytes;
	machine->start_memory_bytes = saved.start_bytes;
	machine->cpus = saved.cpus;
	machine->has_bus = saved.has_bus;
	memcpy(machine->port, saved.port, sizeof(machine->port));
	*ret = saved;
}

/* By which who fills the file while it runs says what there is of it (vm/saved_blocks.h). */
static int take_pages_line(struct run *run)
{
	const char *number = run->options.pages_from;
	unsigned long fd;

	if (!number)
		return 0;
	if (!parse_number(number, grant_fd(GRANTS), INT32_MAX, &fd) ||
	    fcntl((int)fd, F_SETFD, FD_CLOEXEC))
		return complain(EXIT_USAGE, "not a descriptor", number,
				"it is umbra listen that says --pages-from");
	run->grants.fd[GRANT_PAGES] = (int)fd;
	return 0;
}

static int take_saved_ports(struct run *run, const uint8_t kind[SHARE_PORTS])
{
	struct share_plan *shares = &run->plan->shares;

	if (!shares->count || share_option_fits(shares, kind))
		return 0;
	shares->count = 0;
	if (run->ports_are_offered)
		return 0;
	return complain(EXIT_USAGE, "it has other ports than these", run->options.restore,
			"say --serve and --bind as it was started with, or none of them");
}

/* What it had of the host is made anew: its machine process finds the rest wanting. */
static int take_saved(struct run *run)
{
	struct plan *plan = run->plan;
	struct machine_saved saved = { .cards = 0 };
	int code = take_file(run, GRANT_SAVED, run->options.restore,
			     "name a file that umbra save has written");

	plan->restores = true;
	if (!code)
		code = take_pages_line(run);
	if (run->arrival && run->arrival->landing) {
		run->grants.fd[GRANT_EXTENTS] = run->arrival->landing->there;
		run->grants.fd[GRANT_EXTENT_BITS] = run->arrival->landing->memory;
	}
	if (!code)
		code = take_host(run);
	if (!code)
		read_saved(&plan->machine, &saved, run->grants.fd[GRANT_SAVED]);
	if (!code && plan->machine.has_bus) /* without one it has no disks, and nobody waits */
		disk_option_take_places(&plan->disks.place);
	if (!code && plan->machine.has_bus)
		code = saved_host_take(run->options.restore, run->grants.fd[GRANT_SAVED],
				       run->options.name, run->arrival, &run->nets, plan);
	run->has_layers = !code;
	if (!code && plan->nets.count != saved.cards)
		code = complain(EXIT_USAGE, "it was saved with another number of network cards",
				run->options.restore, "say --net once for each of them");
	return code ? code : take_saved_ports(run, saved.port);
}

static int take_console(struct run *run)
{
	static const char *const names[CONSOLE_KINDS] = {
		[CONSOLE_STDIO] = "stdio", [CONSOLE_RAW] = "raw", [CONSOLE_NONE] = "none"
	};
	const char *name = run->options.console;
	int *fd = &run->grants.fd[GRANT_CONSOLE];

	/* one that is detached has no terminal */
	if (run->options.detach && (!strcmp(name, "stdio") || !strcmp(name, "raw"))) {
		if (name_console_path(run->options.name, run->own_console,
				      sizeof(run->own_console)))
			return complain(EXIT_USAGE, "not a name", run->options.name,
					"see umbra run --help");
		name = run->own_console;
	}

	for (unsigned n = 0; n < CONSOLE_KINDS; n++)
		if (names[n] && !strcmp(name, names[n])) {
			run->plan->console = (enum console_kind)n;
			return 0;
		}
	run->plan->console = CONSOLE_FILE;
	run->console_path = name;
	*fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (*fd < 0 && errno == EACCES) /* a pipe, or what may only be written */
		*fd = open(name, O_WRONLY | O_CLOEXEC);
	return *fd < 0 ? complain(EXIT_USAGE, strerror(errno), name,
				  "use stdio, raw, none or a file that can be written")
		       : 0;
}

static int take_name(struct run *run)
{
	const char *name = run->options.name;
	int *fd = &run->grants.fd[GRANT_CONTROL];

	if (!name)
		return 0;
	*fd = name_listen(name);
	if (*fd >= 0)
		detach_forget(name);
	switch (*fd) {
	case -EINVAL:
		return complain(EXIT_USAGE, "not a name", name,
				"use up to 64 letters, digits, '.', '_' and '-'");
	case -EADDRINUSE:
		return complain(EXIT_USAGE, "a machine of that name runs", name,
				"take another name, or umbra stop it");
	case -EPERM:
		return complain(EXIT_USAGE, "the folder for machines' names is not yours alone",
				name, "set XDG_RUNTIME_DIR to a folder that is");
	default:
		return *fd < 0 ? complain(EXIT_USAGE, strerror(-*fd), name, "leave out --name") : 0;
	}
}

/* A machine with a name has a socket for its programs without being asked for one. */
static int take_socket(struct run *run)
{
	struct relay_plan *relay = &run->plan->relay;
	char path[PLAN_SOCKET_BYTES] = "";
	const char *given = run->options.socket;
	int error = 0;

	if (!run->plan->machine.has_bus || (!given && !run->options.name))
		return given ? complain(EXIT_USAGE, "there is no bus for it", "--socket",
					"leave it out, or --no-bus")
			     : 0;
	if (given && name_is_port_of_another(given))
		return complain(EXIT_USAGE, "another machine's guest could connect to it", given,
				"let the path not end with _ and a number");
	if (given)
		error = (size_t)snprintf(path, sizeof(path), "%s%s", strchr(given, '/') ? "" : "./",
					 given) < sizeof(path)
				? 0
				: -ENAMETOOLONG;
	else
		error = name_make_socket_place(run->options.name, path, sizeof(path));
	if (!error)
		run->grants.fd[GRANT_LISTENER] = name_listen_at(path);
	if (!error && run->grants.fd[GRANT_LISTENER] < 0)
		error = run->grants.fd[GRANT_LISTENER];
	if (!error && given && run->options.name)
		error = name_link_socket(run->options.name, path);
	if (!error)
		error = plan_set_relay(relay, path);
	if (error)
		return complain(EXIT_USAGE, strerror(-error), given ? given : run->options.name,
				"say --socket PATH, where nobody listens");
	return 0;
}

/* ---- the plan ---- */

static const char *source_of(const struct run *run)
{
	if (run->options.restore)
		return run->options.restore;
	return run->options.image ? run->plan->disks.disk[0].path : run->options.kernel;
}

/* Whether there is room for it: a machine whose disks and networks nobody knows is not forked. */
static bool describe_devices(struct run *run, const json_t *description)
{
	json_t *whole = json_copy((json_t *)(uintptr_t)description);
	char *text = NULL;
	bool good;

	if (!fork_disks_describe(&run->plan->disks, whole) &&
	    !fork_ports_describe(run->plan->machine.port, whole) &&
	    !fork_nets_describe(&run->plan->nets, &run->plan->relay, whole))
		text = json_dumps(whole, JSON_COMPACT);
	good = text &&
	       !plan_set_text(run->plan->description, sizeof(run->plan->description), text);
	json_decref(whole);
	free(text);
	return good;
}

/* What umbra info prints. */
static int describe(struct run *run)
{
	const struct machine_plan *machine = &run->plan->machine;
	json_t *json = json_pack(
		"{s:s, s:i, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:i, s:i, s:b}", "name",
		run->options.name, "pid", (int)run->broker, "cpus", (json_int_t)machine->cpus,
		"memory", (json_int_t)machine->memory_bytes, "overhead",
		(json_int_t)machine->overhead_bytes, "from", source_of(run), "started",
		(json_int_t)time(NULL), "memory-start", (json_int_t)machine->start_memory_bytes,
		"memory-min", (json_int_t)machine->least_memory_bytes, "memory-buffer",
		(int)machine->memory_buffer_percent, "memory-weight", (int)machine->memory_weight,
		"bus", machine->has_bus);
	char *console = run->console_path ? realpath(run->console_path, NULL) : NULL;
	char *text;
	int error;

	if (console)
		json_object_set_new(json, "console", json_string(console));
	free(console);
	if (run->options.secrets)
		json_object_set_new(json, "secrets", json_true());
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	error = text ? plan_set_text(run->plan->description, sizeof(run->plan->description), text)
			 : -EINVAL;

	run->plan->machine.forks = !error && describe_devices(run, json);
	json_decref(json);
	free(text);
	return error;
}

static int make_plan(struct run *run)
{
	int code;

	if (!run->options.restore)
		disk_option_take_places(&run->plan->disks.place);
	run->plan->nets.count = net_options_count(&run->nets);
	run->plan->machine.statistics = run->options.statistics;
	run->plan->machine.perf_map = run->options.perf_map;
	run->plan->machine.guest_forks = run->options.guest_forks;
	code = seed_option_plan(&run->seed, run->options.name, &run->plan->disks);
	if (!code)
		code = run->options.restore ? take_saved(run) : take_new(run);
	if (!code)
		code = take_time_limit(run);
	if (!code)
		code = take_overhead(&run->plan->machine, &run->options);
	if (!code)
		code = take_left_out(&run->plan->machine, &run->options);
	if (!code)
		code = take_console(run);
	if (!code)
		code = take_name(run);
	if (!code)
		code = seed_option_write(&run->seed, run->options.name);
	if (!code)
		code = net_option_take(&run->nets, run->options.name, &run->plan->nets,
				       &run->grants);
	if (!code)
		code = take_socket(run);
	if (!code)
		code = share_option_take(&run->plan->shares, run->options.name);
	if (code)
		return code;
	if (plan_set_text(run->plan->source, sizeof(run->plan->source), source_of(run)) ||
	    (run->options.name && describe(run)))
		return complain(EXIT_USAGE, "too long a path, or not UTF-8", source_of(run),
				"name another one");
	return 0;
}

/* Without one its memory follows what its own guest needs, and not what others do. */
static void join_balancer(const struct run *run)
{
	int error = balance_join(run->options.name, run->broker);

	if (error)
		complain(0, strerror(-error), "the balancer", "the machine goes on without it");
}

/* Who forks it when its guest asks. 0 or the exit code. */
static int open_fork_door(const struct run *run)
{
	const struct relay_plan *relay = &run->plan->relay;
	char socket[PLAN_SOCKET_BYTES + RELAY_NAME_BYTES] = "";
	struct fork_door_limits limits;
	int code = fork_door_parse(run->options.guest_forks, &limits);
	int error;

	if (relay->name[0])
		snprintf(socket, sizeof(socket), "%s%s", relay->folder, relay->name);
	error = code ? 0 : fork_door_begin(run->options.name, socket, limits, run->broker);

	return error ? complain(EXIT_FAULT, strerror(-error), "--guest-forks", "see umbra doctor")
		     : code;
}

int run_prepare(struct run *run)
{
	int code = make_plan(run);

	if (code)
		return code;
	if (!__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("avx2"))
		return complain(EXIT_NO_ENGINE, "the software engine needs BMI2 and AVX2",
				"this host's processor", "see umbra doctor");
	if (run->options.name && memory_is_balanced(run->options.memory, &run->plan->machine))
		join_balancer(run);
	if (run->options.guest_forks)
		code = open_fork_door(run);
	if (code)
		return code;
	run->grants.fd[GRANT_PROGRAM] = spawn_open_program();
	return 0;
}

void run_remove_layers(const struct run *run)
{
	const struct disk_plan *disks = &run->plan->disks;

	for (uint32_t n = 0; n < disks->count && run->has_layers; n++)
		if (!disks->disk[n].read_only && disks->disk[n].path[0])
			unlink(disks->disk[n].path);
}

static void begin_role(struct run *run, enum role role, const struct grants *grants,
		       enum grant line, int32_t *ret_pid)
{
	struct early early;

	if (early_begin(role, grants, &early))
		return; /* its broker begins it, as it does when it was not begun */
	run->grants.fd[line] = early.line;
	*ret_pid = early.process.pid;
	close(early.process.pidfd);
}

/*
 * Whom a machine that goes on from a file needs in any case begins while the file is looked at, and
 * this program becomes the broker (ipc/early.h). They end with this process.
 */
static void begin_early(struct run *run)
{
	struct grants grants;

	grants_clear(&grants);
	grants.fd[GRANT_PROGRAM] = spawn_open_program();
	grants.errors = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (grants.fd[GRANT_PROGRAM] >= 0 && grants.errors >= 0) {
		begin_role(run, ROLE_MACHINE, &grants, GRANT_EARLY_MACHINE,
			   &run->plan->early_machine);
		begin_role(run, ROLE_PAGER, &grants, GRANT_EARLY_PAGER, &run->plan->early_pager);
	}
	close(grants.fd[GRANT_PROGRAM]);
	close(grants.errors);
}

/*
 * In broker_main(): anew; or, of a machine that goes on from a file, with the memory that it has,
 * so that nobody waits until this program is loaded once more. `called`: where its arguments lie.
 * The exit code.
 */
static int become_broker(struct run *run, char *called)
{
	int error;

	if (!run->options.restore) {
		run->grants.fd[GRANT_PLAN] = plan_seal(run->plan, ROLE_BROKER);
		error = spawn_become(ROLE_BROKER, &run->grants);
	} else {
		error = spawn_go_on(ROLE_BROKER, &run->grants);
		if (!error) {
			spawn_call_self(called, ROLE_BROKER);
			return broker_main_here(run->plan);
		}
	}
	/* a number that is beyond the limit is EINVAL */
	if (error == -EINVAL || error == -EMFILE)
		return complain(EXIT_UNUSABLE, strerror(EMFILE), "starting the broker",
				"permit more, ulimit -n 1024");
	return complain(EXIT_FAULT, strerror(-error), "starting the broker", "see umbra doctor");
}

int verb_run(int argc, char **argv)
{
	struct run run = { .options = { .console = "stdio" }, .plan = plan_new() };
	int code = run.plan ? run_parse(&run, argc, argv)
			  : complain(EXIT_FAULT, strerror(ENOMEM), "run", "see umbra doctor");

	grants_clear(&run.grants);
	if (!code && run.options.detach) {
		if (!run.options.name)
			return complain(EXIT_USAGE, "it needs a name", "--detach",
					"add --name NAME");
		if (!detach_begin(run.options.name, &run.detach, &code))
			return code;
	}
	run.broker = getpid();
	if (!code && run.options.restore)
		begin_early(&run);
	if (!code)
		code = run_prepare(&run);
	if (!code && run.options.detach)
		code = detach_finish(&run.detach);
	if (code && run.plan)
		run_remove_layers(&run);
	if (code)
		return code;
	return become_broker(&run, argv[-1]);
}
