/* umbra run: options, files and the terminal on this side; the machine in its own process (machine_process.c). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "process/broker.h"
#include "cli.h"
#include "disk_process.h"
#include "process/machine_main.h"
#include "names.h"
#include "terminal.h"

static const char run_help[] =
	"usage: umbra run --kernel FILE [--initrd FILE] [--append TEXT] [--memory SIZE] [--cpus N]\n"
	"                 [--console stdio|raw|none|FILE] [--debug-exit PORT] [--test-device] [--statistics]\n"
	"                 [--hv FEATURES] [--cpu-model MODEL[,+FEATURE][,-FEATURE]] [--mitigations guest|off] [--name NAME]\n"
	"                 [--memory-min SIZE] [--disk FILE[,format=FORMAT][,readonly][,direct]]... [--parents DIRECTORY]... [--override REASON]\n"
	"       umbra run [the same, without --kernel and --initrd] IMAGE[,format=FORMAT][,readonly][,direct]\n"
	"       umbra run --restore FILE [--console ...] [--statistics] [--name NAME]\n"
	"Boots a Linux kernel (bzImage) or a multiboot ELF image and gives its serial console. IMAGE is a disk, the first, that brings both in\n"
	"/boot of its root file system; --append then comes after root=.\n"
	"Ctrl-] q ends, Ctrl-] ? helps. With a multiboot image, --initrd is its module.\n"
	"Ends 0 when the guest powers off; 64 usage, 65 unusable file, 69 no engine, 70 fault in Umbra, 75 the guest crashed,\n"
	"78 a policy forbids it.\n"
	"--hv FEATURES chooses what of the Hyper-V interface is offered: default, all or none, then +NAME or -NAME, by commas.\n"
	"--cpu-model chooses the processor that the guest sees; umbra doctor lists them, docs/cpu-models.md has what they are.\n"
	"--mitigations guest has the guest's kernel defend itself against speculation as on vulnerable hardware, off as on a safe one;\n"
	"without it the guest is told what is true (docs/speculation.md).\n"
	"--memory-min SIZE has the guest's memory adjusted while it runs, to what it needs, between SIZE and --memory.\n"
	"--disk FILE is a disk of the guest's (vhdx, or raw, vhd, qcow2, vmdk), the first /dev/sda; --parents as with umbra disk.\n"
	"--name NAME: umbra ps, info, stop, kill and save find the machine by it.\n"
	"--restore FILE goes on from where umbra save left a machine, with its memory, processors and features.\n"
	"With --debug-exit, a guest's write of V to PORT ends with (V << 1 | 1) & 255. --test-device is for foreign test suites: docs/kvm-unit-tests.md.\n";

/* Options without a letter. */
enum { OPTION_CPU_MODEL = 256, OPTION_MITIGATIONS, OPTION_HOST_MASK };

struct run_options {
	const char *kernel, *initrd, *append, *memory, *cpus, *console, *debug_exit, *hv, *name, *restore, *memory_min, *cpu_model, *mitigations, *host_mask;
	bool statistics, test_device;
	struct disk_process disks;
	const char *image;
};

struct run {
	struct machine_options machine;
	struct terminal terminal;
	bool statistics;
	struct disk_process *disks;
};

static bool parse_number(const char *text, unsigned long low, unsigned long high, unsigned long *ret)
{
	char *end;

	*ret = strtoul(text, &end, 0);
	return end != text && !*end && *ret >= low && *ret <= high;
}

static int map_file(const char *path, struct boot_file *ret)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size == 0) {
		close(fd);
		return -EINVAL;
	}
	ret->data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	ret->bytes = (size_t)st.st_size;
	close(fd);
	return ret->data == MAP_FAILED ? -errno : 0;
}

static void print_help(void)
{
	const char *name;

	fputs(run_help, stdout);
	fputs("Hyper-V features:", stdout);
	for (unsigned n = 0; (name = machine_hv_feature(n)); n++)
		printf("%s%s", n % 10 ? " " : "\n  ", name);
	fputs("\n", stdout);
}

static int parse_run(int argc, char **argv, struct run_options *o)
{
	static const struct option longs[] = { { "kernel", 1, 0, 'k' }, { "initrd", 1, 0, 'i' }, { "append", 1, 0, 'a' }, { "memory", 1, 0, 'm' },
					       { "cpus", 1, 0, 'c' }, { "console", 1, 0, 'C' }, { "debug-exit", 1, 0, 'd' },
					       { "statistics", 0, 0, 's' }, { "test-device", 0, 0, 't' },
					       { "hv", 1, 0, 'H' }, { "name", 1, 0, 'n' }, { "restore", 1, 0, 'r' },
					       { "disk", 1, 0, 'D' }, { "parents", 1, 0, 'p' }, { "override", 1, 0, 'o' }, { "memory-min", 1, 0, 'M' },
					       { "cpu-model", 1, 0, OPTION_CPU_MODEL }, { "mitigations", 1, 0, OPTION_MITIGATIONS },
					       { "host-mask", 1, 0, OPTION_HOST_MASK }, { "help", 0, 0, 'h' }, { 0 } };
	int c, code;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
		switch (c) {
		case 'D':
			if ((code = disk_process_add(&o->disks, optarg)))
				return code;
			break;
		case 'p':
			if ((code = disk_process_add_parents(&o->disks, optarg)))
				return code;
			break;
		case 'M': o->memory_min = optarg; break;
		case 'o': o->disks.override = optarg; break;
		case 'k': o->kernel = optarg; break;
		case 'i': o->initrd = optarg; break;
		case 'a': o->append = optarg; break;
		case 'm': o->memory = optarg; break;
		case 'c': o->cpus = optarg; break;
		case 'C': o->console = optarg; break;
		case 'd': o->debug_exit = optarg; break;
		case 's': o->statistics = true; break;
		case 't': o->test_device = true; break;
		case 'H': o->hv = optarg; break;
		case 'n': o->name = optarg; break;
		case 'r': o->restore = optarg; break;
		case OPTION_CPU_MODEL: o->cpu_model = optarg; break;
		case OPTION_MITIGATIONS: o->mitigations = optarg; break;
		case OPTION_HOST_MASK: o->host_mask = optarg; break;
		case 'h': print_help(); exit(0);
		default: return EXIT_USAGE;
		}
	if (optind < argc) {
		o->image = argv[optind++];
		if ((code = disk_process_add_image(&o->disks, o->image)))
			return code;
	}
	if (optind < argc)
		return complain(EXIT_USAGE, "unexpected argument", argv[optind], "see umbra run --help");
	if (o->image && !o->restore && (o->kernel || o->initrd))
		return complain(EXIT_USAGE, "an image brings its kernel itself", o->image, "leave out --kernel and --initrd, or give the image with --disk");
	if (o->restore && (o->kernel || o->initrd || o->append || o->memory || o->cpus || o->debug_exit || o->test_device ||
			   o->hv || o->disks.count || o->memory_min ||
			   o->cpu_model || o->mitigations))
		return complain(EXIT_USAGE, "a saved machine brings these itself", "--restore",
				"leave out --kernel, --initrd, --append, --memory, --cpus, --debug-exit, --test-device, --hv, --cpu-model,"
				" --mitigations, --memory-min and --disk");
	if (!o->kernel && !o->restore && !o->image)
		return complain(EXIT_USAGE, "no kernel given", "run", "name one with --kernel FILE, a disk that has one, or a saved machine with --restore FILE");
	return 0;
}

static int open_console(struct run *r, const char *name)
{
	int fd = STDOUT_FILENO;

	if (!strcmp(name, "none"))
		fd = -1;
	else if (strcmp(name, "stdio") && strcmp(name, "raw"))
		fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	terminal_open(&r->terminal, fd, !strcmp(name, "stdio") && isatty(STDOUT_FILENO));
	if (fd < 0 && strcmp(name, "none"))
		return complain(EXIT_USAGE, strerror(errno), name, "use stdio, raw, none or a file that can be written");
	return 0;
}

static int take_file(const char *path, const char *remedy, struct boot_file *ret)
{
	int error = path ? map_file(path, ret) : 0;

	return error ? complain(EXIT_UNUSABLE, strerror(-error), path, remedy) : 0;
}

/* Kernel, initial file system and where the root is, from the disk itself. */
static int take_image(struct machine_options *m, struct run_options *o)
{
	struct image_boot boot;
	char *line;
	int code = disk_process_find_boot(&o->disks, &boot);

	if (code)
		return code;
	if (asprintf(&line, "root=UUID=%s %s", boot.root_uuid, m->command_line) < 0)
		return complain(EXIT_FAULT, strerror(ENOMEM), o->image, "see umbra doctor");
	m->command_line = line;
	m->kernel = (struct boot_file){ boot.kernel, boot.kernel_bytes };
	m->initrd = (struct boot_file){ boot.initrd, boot.initrd_bytes };
	return 0;
}

static int take_model(struct machine_options *m, const struct run_options *o)
{
	enum cpu_mitigations mitigations = CPU_MITIGATIONS_TRUE;
	char reason[128];

	if (o->mitigations && !strcmp(o->mitigations, "guest"))
		mitigations = CPU_MITIGATIONS_GUEST;
	else if (o->mitigations && !strcmp(o->mitigations, "off"))
		mitigations = CPU_MITIGATIONS_OFF;
	else if (o->mitigations)
		return complain(EXIT_USAGE, "not a choice of mitigations", o->mitigations, "say guest or off, or leave it out");
	if (machine_choose_model(m, o->cpu_model, mitigations, o->host_mask, reason, sizeof(reason)))
		return complain(EXIT_NO_ENGINE, reason, o->cpu_model ? o->cpu_model : "the default processor model", "see umbra doctor");
	return 0;
}

static int take_host(struct machine_options *m, const struct run_options *o)
{
	char reason[128];

	return machine_find_host(m, o->host_mask, reason, sizeof(reason)) ? complain(EXIT_USAGE, reason, "--host-mask", "see umbra doctor") : 0;
}

static int take_new(struct machine_options *m, struct run_options *o)
{
	const char *memory = o->memory ? o->memory : "512M", *cpu_text = o->cpus ? o->cpus : "1";
	unsigned long cpus, port = 0;
	char bad[32];
	int code;

	if (!parse_size(memory, &m->memory_bytes) || m->memory_bytes < 64 << 20 || m->memory_bytes & 4095 ||
	    m->memory_bytes > (uint64_t)sysconf(_SC_PHYS_PAGES) * 4096)
		return complain(EXIT_USAGE, "not a memory size from 64M to what the host has", memory, "say for example --memory 512M");
	if (!parse_number(cpu_text, 1, MACHINE_MAX_CPUS, &cpus))
		return complain(EXIT_USAGE, "not a number of processors from 1 to 16", cpu_text, "say for example --cpus 4");
	if (o->debug_exit && !parse_number(o->debug_exit, 1, 0xffff, &port))
		return complain(EXIT_USAGE, "not an I/O port", o->debug_exit, "say for example --debug-exit 0xf4");
	if (!machine_parse_hv(o->hv ? o->hv : "default", &m->hv_features, bad, sizeof(bad)))
		return complain(EXIT_USAGE, "not a feature of the Hyper-V interface", bad, "see umbra run --help");
	if (o->memory_min && (!parse_size(o->memory_min, &m->least_memory_bytes) || m->least_memory_bytes < 64 << 20 || m->least_memory_bytes > m->memory_bytes))
		return complain(EXIT_USAGE, "not a memory size from 64M to --memory", o->memory_min, "say for example --memory 2G --memory-min 512M");
	if ((o->disks.count || o->memory_min) && !machine_hv_has_bus(m->hv_features))
		return complain(EXIT_USAGE, "disks and --memory-min need the features synic, messages and events", "--hv", "leave them in");
	m->cpus = (unsigned)cpus;
	code = take_model(m, o);
	if (code)
		return code;
	m->debug_exit = (uint16_t)port;
	m->test_device = o->test_device;
	m->command_line = o->append ? o->append : "console=ttyS0";
	if (o->image)
		return take_image(m, o);
	code = take_file(o->kernel, "name a readable kernel image", &m->kernel);
	return code ? code : take_file(o->initrd, "name a readable initrd", &m->initrd);
}

static int take_name(const struct run_options *o, struct broker_options *broker)
{
	if (!o->name)
		return 0;
	broker->control_fd = name_listen(o->name);
	switch (broker->control_fd) {
	case -EINVAL: return complain(EXIT_USAGE, "not a name", o->name, "use up to 64 letters, digits, '.', '_' and '-'");
	case -EADDRINUSE: return complain(EXIT_USAGE, "a machine of that name runs", o->name, "take another name, or umbra stop it");
	case -EPERM: return complain(EXIT_USAGE, "the folder for machines' names is not yours alone", o->name, "set XDG_RUNTIME_DIR to a folder that is");
	default: return broker->control_fd < 0 ? complain(EXIT_USAGE, strerror(-broker->control_fd), o->name, "leave out --name") : 0;
	}
}

static int take_options(struct run *r, struct run_options *o, struct broker_options *broker)
{
	int code = o->restore ? take_file(o->restore, "name a file that umbra save has written", &r->machine.saved) : take_new(&r->machine, o);

	r->statistics = o->statistics;
	if (!code && o->restore)
		code = take_host(&r->machine, o);
	if (!code && o->restore) /* for umbra info; what is wrong with it the machine process says */
		machine_read_saved(&r->machine.saved, &r->machine.memory_bytes, &r->machine.cpus);
	if (!code)
		code = open_console(r, o->console);
	return code ? code : take_name(o, broker);
}

static int in_machine_process(struct broker_client *client, void *context)
{
	struct run *r = context;

	return machine_process(client, &r->machine, r->statistics);
}

static int in_disk_process(const struct broker_helper *helper, void *context) { return disk_process(helper, ((struct run *)context)->disks); }

static void on_console(void *context, const uint8_t *data, size_t bytes) { terminal_write(&((struct run *)context)->terminal, data, bytes); }
static bool on_key(void *context, uint8_t byte, bool *ret_stop) { return terminal_key(&((struct run *)context)->terminal, byte, ret_stop); }
static void on_started(void *context) { terminal_make_raw(&((struct run *)context)->terminal); }

/* The first line of a text that is not ours. */
static void print_foreign(const char *before, const char *text) { fprintf(stderr, "%s%.*s\n", before, (int)strcspn(text, "\n"), text); }

/* The line of the guest's log that says why; its first line when none does. */
static void print_crash(const char *text)
{
	const char *line = strstr(text, "Kernel panic");

	print_foreign("umbra: the guest crashed: ", text[0] ? line ? line : text : "triple fault");
}

static const char *source(const struct run_options *o) { return o->restore ? o->restore : o->image ? o->disks.disk[0].path : o->kernel; }

/* What umbra info prints. */
static char *describe(const struct run_options *o, const struct run *r)
{
	json_t *j = json_pack("{s:s, s:i, s:I, s:I, s:s, s:I}", "name", o->name, "pid", (int)getpid(), "cpus", (json_int_t)r->machine.cpus, "memory",
			      (json_int_t)r->machine.memory_bytes, "from", source(o), "started", (json_int_t)time(NULL));
	char *text = json_dumps(j, JSON_COMPACT);

	json_decref(j);
	return text;
}

static int refusal(struct broker_end *end, const char *kernel, bool restore)
{
	end->text[strcspn(end->text, "\n")] = 0;
	if (restore)
		return complain(EXIT_UNUSABLE, end->text, kernel, end->code == -ENOTSUP ? "restore it where it was saved" : "save the machine again");
	return complain(end->code == -E2BIG ? EXIT_USAGE : EXIT_UNUSABLE, end->text, kernel,
			end->code == -ENOMEM ? "give another --memory" : end->code == -E2BIG ? "shorten --append" : "name a bzImage or a multiboot image");
}

static int end_code(struct broker_end *end, const char *kernel, bool restore)
{
	if (end->outcome == BROKER_HELPER_ENDED || end->helper_status)
		return disk_process_code(end->helper_status);
	switch (end->outcome) {
	case BROKER_STOPPED: return 0;
	case BROKER_REFUSED: return refusal(end, kernel, restore);
	case BROKER_MACHINE_DIED:
		fprintf(stderr, "umbra: the machine process ended on a fault of its own (status %#x), please report it", (unsigned)end->wait_status);
		print_foreign(": ", end->text);
		return EXIT_FAULT;
	case BROKER_RUBBISH: return complain(EXIT_FAULT, "the machine process broke the protocol", "broker", "please report it");
	default: break;
	}
	switch (end->code) {
	case MACHINE_POWERED_OFF: case MACHINE_RESET: case MACHINE_STOPPED: return 0;
	case MACHINE_DEBUG_EXIT: return end->debug_exit_code & 0xff;
	case MACHINE_CRASHED: print_crash(end->text); return EXIT_GUEST_CRASHED;
	default: return complain(EXIT_FAULT, "the host refused what the machine needs", kernel, "see umbra doctor");
	}
}

int verb_run(int argc, char **argv)
{
	struct run_options o = { .console = "stdio" };
	struct run r = { 0 };
	struct broker_options broker = { .machine = in_machine_process, .console = on_console, .key = on_key, .started = on_started, .context = &r,
					 .input_fd = STDIN_FILENO, .control_fd = -1 };
	static struct broker_end end;
	char *description;
	int code = parse_run(argc, argv, &o), error;

	if (!code)
		code = take_options(&r, &o, &broker);
	if (code)
		return code;
	if (!__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("avx2"))
		return complain(EXIT_NO_ENGINE, "the software engine needs BMI2 and AVX2", "this host's processor", "see umbra doctor");
	code = o.disks.count || o.memory_min ? disk_process_prepare(&o.disks, &r.machine.disks) : 0;
	if (code)
		return code;
	r.disks = &o.disks;
	broker.helper = o.disks.count ? in_disk_process : NULL;
	signal(SIGPIPE, SIG_IGN);
	description = o.name ? describe(&o, &r) : NULL;
	broker.description = description;
	error = broker_run(&broker, &end);
	free(description);
	terminal_restore();
	if (error)
		return complain(EXIT_FAULT, strerror(-error), "starting the machine process", "see umbra doctor");
	fputs(end.statistics, stderr);
	return end_code(&end, source(&o), o.restore);
}
