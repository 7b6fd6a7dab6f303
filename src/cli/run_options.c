/*
 * The options of umbra run: what it says of them, and where each goes. What they mean for each
 * other beyond that is run.c's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_option.h"
#include "option.h"
#include "run_internal.h"
#include "vm/machine.h"

static const char run_help[] =
	"usage: umbra run --kernel FILE [--initrd FILE] [--append TEXT] [--memory SIZE|WORDS] "
	"[--cpus N]\n"
	"                 [--console stdio|raw|none|FILE] [--debug-exit PORT] [--test-device] "
	"[--statistics]\n"
	"                 [--time-limit SECONDS] [--perf-map] [--guest-forks COUNT[,PER-MINUTE]]\n"
	"                 [--hv FEATURES] [--cpu-model MODEL[,+FEATURE][,-FEATURE]] "
	"[--mitigations guest|off] [--name NAME]\n"
	"                 [--memory-min SIZE] [--overhead SIZE] [--no-bus] [--display] [--socket "
	"PATH] "
	"[--detach] "
	"[--user-data FILE] [--ssh-key FILE]... [--kvp KEY=VALUE]...\n"
	"                 "
	"[--disk FILE[,format=FORMAT][,readonly][,direct]]... [--dvd FILE]... "
	"[--parents DIRECTORY]... "
	"[--override REASON]\n"
	"                 "
	"[--net user[,host-loopback]|switch=NAME|tap=NAME|tap=fd:N|none[,mac=ADDRESS]]... "
	"[-p [ADDRESS:]PORT:GUEST[/udp]]...\n"
	"                 [--serve NAME[=packet|=disk]]...\n"
	"                 [--bind MACHINE/NAME[=packet|=disk]]...\n"
	"       umbra run [the same, without --kernel and --initrd] "
	"IMAGE[,format=FORMAT][,readonly][,direct]\n"
	"       umbra run --restore FILE [--console ...] [--statistics] [--name NAME] "
	"[--net ...]... [-p ...]... [--serve ...]... [--bind ...]...\n"
	"Boots a Linux kernel (bzImage) or a multiboot ELF image and gives its serial console. "
	"IMAGE is a disk, the first, that brings both in\n"
	"/boot of its root file system; --append then comes after root=.\n"
	"Ctrl-] q ends, Ctrl-] ? helps. With a multiboot image, --initrd is its module.\n"
	"Ends 0 when the guest powers off; "
	"64 usage, 65 unusable file, 69 no engine, 70 fault in Umbra, 75 the guest crashed,\n"
	"78 a policy forbids it.\n"
	"--hv FEATURES chooses what of the Hyper-V interface is offered: default, all or none, "
	"then +NAME or -NAME, by commas.\n"
	"--cpu-model chooses the processor that the guest sees; "
	"umbra doctor lists them, docs/cpu-models.md has what they are.\n"
	"--mitigations guest has the guest's kernel defend itself against speculation as on "
	"vulnerable hardware, off as on a safe one;\n"
	"without it the guest is told what is true (docs/speculation.md).\n"
	"--overhead SIZE limits what the machine process uses beside the guest's memory, "
	"from 64M to 2G; 384M when not given.\n"
	"--memory start=SIZE,min=SIZE,max=SIZE,buffer=N%,weight=N has the guest begin with start,\n"
	"and what it has adjusted while it runs, to what it needs and N% (20%), between min and "
	"max;\n"
	"weight (1 to 10000, 5000) says who gives way where the host has not enough "
	"(docs/memory.md).\n"
	"--memory-min SIZE is min= beside --memory SIZE.\n"
	"--no-bus leaves out the partition bus, by which a Linux guest is stopped, told the time "
	"and has disks and networks.\n"
	"--display gives it a screen, which umbra screenshot shows, for a guest with the driver "
	"hyperv_fb.\n"
	"--socket PATH is a socket of the host's: who writes CONNECT PORT there is connected to "
	"who listens at that port of AF_VSOCK\n"
	"in the guest, whose connections to the host (CID 2) find who listens at PATH_PORT.\n"
	"--detach returns once the machine runs, which needs a name; umbra console shows what it "
	"prints, umbra stop ends it.\n"
	"--console FILE keeps what the guest printed last in FILE: at most 64 MiB, "
	"of which the newer half stays when it is full.\n"
	"--disk FILE is a disk of the guest's (vhdx, or raw, vhd, qcow2, vmdk); "
	"--parents as with umbra disk.\n"
	"--dvd FILE is a drive that reads discs, with an ISO image in it (\"\": without a disc). "
	"umbra disk attach and detach change both while it runs.\n"
	"A guest's kernel may find two disks in either order, so name them by what they are: "
	"/dev/disk/by-uuid, or by-id, whose\n"
	"name is the same each time; the root that IMAGE boots from is named so.\n"
	"--user-data FILE is for cloud-init in the guest (NoCloud), --ssh-key FILE a public key "
	"whose owner may log in; cloud-init also\n"
	"installs umbra-agent, and both need a name.\n"
	"--kvp KEY=VALUE gives a guest that runs hv_kvp_daemon a value, in its pool 0; what it "
	"says of itself umbra info shows.\n"
	"--net user is a network without rights: "
	"the guest is 10.0.2.15 by DHCP and reaches what you reach, but not the host's loopback\n"
	"(with host-loopback it does, at 10.0.2.2); -p has a port of the host's lead to one of the "
	"guest's. --net tap=NAME is a tap,\n"
	"--net switch=NAME a switch between your machines.\n"
	"--serve NAME has the machine be one end of a channel to another machine of yours, --bind\n"
	"MACHINE/NAME the other, where your rules allow it (docs/sharing.md, umbra bus); =disk:\n"
	"the guest of the first serves a disk, which the other's finds at its own controller.\n"
	"--name NAME: umbra ps, info, stop, kill and save find the machine by it.\n"
	"--secrets says that the machine holds secrets: umbra fork refuses unless told.\n"
	"--guest-forks COUNT[,PER-MINUTE] lets its guest have it forked (umbra-guest fork, or a "
	"request of its kernel's): COUNT "
	"times in all, children's\n"
	"children with it, PER-MINUTE (10) in a minute. Without it that is refused.\n"
	"--restore FILE goes on from where umbra save left a machine, with its memory, "
	"processors and features,\n"
	"with its disks as they were, in files of its own, and in networks like those that it had, "
	"or in those of --net: without, none leads to services of the host.\n"
	"One that had ports joins anew with as many --serve and --bind of the same kinds;\n"
	"without, nobody is at them.\n"
	"With --debug-exit, a guest's write of V to PORT ends with (V << 1 | 1) & 255.\n"
	"--time-limit SECONDS: a guest that is not done then is ended with 124, and where "
	"it was is said.\n"
	"--debug-mmu spaces,tables,batches,sharing,open=N leaves such parts of shadow paging out, "
	"--debug-code\n"
	"words,shortcuts,pages,victims,flags,trims,uses,slots,strips,indexes,traces,waiting such "
	"parts of translated code: docs/engine.md.\n"
	"--debug-copies looks at every instruction again that a guest's was translated to; one "
	"that is wrong ends the machine.\n"
	"--perf-map writes /tmp/perf-PID.map, by which perf names translated code "
	"(docs/engine.md).\n"
	"--test-device is for foreign test suites: docs/kvm-unit-tests.md.\n";

/* Options without a letter. */
enum {
	OPTION_CPU_MODEL = 256,
	OPTION_MITIGATIONS,
	OPTION_HOST_MASK,
	OPTION_OVERHEAD,
	OPTION_DEBUG_MMU,
	OPTION_DEBUG_CODE,
	OPTION_DEBUG_COPIES,
	OPTION_PERF_MAP,
	OPTION_TIME_LIMIT,
	OPTION_PARENTS,
	OPTION_DVD,
	OPTION_SERVE,
	OPTION_BIND,
	OPTION_PAGES,
	OPTION_NO_BUS,
	OPTION_DISPLAY,
	OPTION_SOCKET,
	OPTION_DETACH,
	OPTION_SECRETS,
	OPTION_GUEST_FORKS,
	OPTION_USER_DATA,
	OPTION_KVP,
	OPTION_SSH_KEY
};

static void print_help(void)
{
	const char *name;

	fputs(run_help, stdout);
	fputs("Hyper-V features:", stdout);
	for (unsigned n = 0; (name = machine_hv_feature(n)); n++)
		printf("%s%s", n % 10 ? " " : "\n  ", name);
	fputs("\n", stdout);
}

/* As the guest's daemon stores them: printable, and not longer than it takes. */
static int take_key(struct machine_plan *machine, const char *text)
{
	enum { KEY_BYTES = 255, VALUE_BYTES = 1023 };
	const size_t used = strlen(machine->given_keys);
	const size_t room = sizeof(machine->given_keys) - used;
	const char *middle = strchr(text, '=');
	const char *bad = text;

	while (*bad >= ' ' && *bad < 0x7f)
		bad++;
	if (*bad || !middle || middle == text || middle - text > KEY_BYTES ||
	    strlen(middle + 1) > VALUE_BYTES)
		return complain(EXIT_USAGE, "not KEY=VALUE in printable ASCII", text,
				"say for example --kvp role=web");
	if ((size_t)snprintf(machine->given_keys + used, room, "%s\n", text) >= room)
		return complain(EXIT_USAGE, "more than 8 KiB of keys", text, "leave some out");
	return 0;
}

static int take_option(struct run *run, int option, const char *value)
{
	struct run_options *options = &run->options;

	switch (option) {
	case 'D': return disk_option_add(&run->plan->disks, value);
	case OPTION_DVD: return disk_option_add_disc(&run->plan->disks, value);
	case OPTION_PARENTS: return disk_option_add_parents(&run->plan->disks, value);
	case 'o': return disk_option_set_override(&run->plan->disks, value);
	case 'M': options->memory_min = value; return 0;
	case 'k': options->kernel = value; return 0;
	case 'i': options->initrd = value; return 0;
	case 'a': options->append = value; return 0;
	case 'm': options->memory = value; return 0;
	case 'c': options->cpus = value; return 0;
	case 'C': options->console = value; return 0;
	case 'd': options->debug_exit = value; return 0;
	case 's': options->statistics = true; return 0;
	case 't': options->test_device = true; return 0;
	case 'H': options->hv = value; return 0;
	case 'n': options->name = value; return 0;
	case 'r': options->restore = value; return 0;
	case OPTION_KVP: return take_key(&run->plan->machine, value);
	case OPTION_USER_DATA: run->seed.user_data = value; return 0;
	case OPTION_SSH_KEY: return seed_option_add_key(&run->seed, value);
	case OPTION_SERVE: return share_option_serve(&run->plan->shares, value);
	case OPTION_PAGES: options->pages_from = value; return 0;
	case OPTION_BIND: return share_option_bind(&run->plan->shares, value);
	case 'N': return net_option_add(&run->nets, value);
	case 'P': return net_option_forward(&run->nets, value);
	case OPTION_CPU_MODEL: options->cpu_model = value; return 0;
	case OPTION_MITIGATIONS: options->mitigations = value; return 0;
	case OPTION_HOST_MASK: options->host_mask = value; return 0;
	case OPTION_OVERHEAD: options->overhead = value; return 0;
	case OPTION_DEBUG_MMU: options->debug_mmu = value; return 0;
	case OPTION_DETACH: options->detach = true; return 0;
	case OPTION_SOCKET: options->socket = value; return 0;
	case OPTION_NO_BUS: options->no_bus = true; return 0;
	case OPTION_DISPLAY: options->display = true; return 0;
	case OPTION_SECRETS: options->secrets = true; return 0;
	case OPTION_GUEST_FORKS: options->guest_forks = value; return 0;
	case OPTION_DEBUG_CODE: options->debug_code = value; return 0;
	case OPTION_DEBUG_COPIES: options->debug_copies = true; return 0;
	case OPTION_PERF_MAP: options->perf_map = true; return 0;
	case OPTION_TIME_LIMIT: options->time_limit = value; return 0;
	default: return EXIT_USAGE;
	}
}

static int check_options(const struct run_options *options, bool disks)
{
	bool is_described = options->kernel || options->initrd || options->append ||
			    options->memory || options->cpus || options->debug_exit ||
			    options->test_device || options->hv || disks || options->memory_min ||
			    options->cpu_model || options->mitigations || options->no_bus ||
			    options->display;

	if (options->image && !options->restore && (options->kernel || options->initrd))
		return complain(EXIT_USAGE, "an image brings its kernel itself", options->image,
				"leave out --kernel and --initrd, or give the image with --disk");
	if (options->restore && is_described)
		return complain(
			EXIT_USAGE, "a saved machine brings these itself", "--restore",
			"leave out --kernel, --initrd, --append, --memory, --cpus, --debug-exit, "
			"--test-device, --hv, --cpu-model,"
			" --mitigations, --memory-min, --no-bus, --display and --disk");
	if (!options->kernel && !options->restore && !options->image)
		return complain(
			EXIT_USAGE, "no kernel given", "run",
			"name one with --kernel FILE, a disk that has one, "
			"or a saved machine with --restore FILE");
	if (options->guest_forks && (!options->name || options->secrets))
		return options->secrets
			       ? complain(EXIT_USAGE,
					  "its guest does not have a machine with secrets forked",
					  "--guest-forks", "leave out one of the two")
			       : complain(EXIT_USAGE, "only a machine with a name is forked",
					  "--guest-forks", "add --name NAME");
	return 0;
}

static const struct option run_longs[] = {
	{ "kernel", 1, 0, 'k' },
	{ "initrd", 1, 0, 'i' },
	{ "append", 1, 0, 'a' },
	{ "memory", 1, 0, 'm' },
	{ "cpus", 1, 0, 'c' },
	{ "console", 1, 0, 'C' },
	{ "debug-exit", 1, 0, 'd' },
	{ "time-limit", 1, 0, OPTION_TIME_LIMIT },
	{ "statistics", 0, 0, 's' },
	{ "test-device", 0, 0, 't' },
	{ "hv", 1, 0, 'H' },
	{ "name", 1, 0, 'n' },
	{ "restore", 1, 0, 'r' },
	{ "disk", 1, 0, 'D' },
	{ "dvd", 1, 0, OPTION_DVD },
	{ "parents", 1, 0, OPTION_PARENTS },
	{ "override", 1, 0, 'o' },
	{ "memory-min", 1, 0, 'M' },
	{ "detach", 0, 0, OPTION_DETACH },
	{ "socket", 1, 0, OPTION_SOCKET },
	{ "user-data", 1, 0, OPTION_USER_DATA },
	{ "kvp", 1, 0, OPTION_KVP },
	{ "ssh-key", 1, 0, OPTION_SSH_KEY },
	{ "no-bus", 0, 0, OPTION_NO_BUS },
	{ "display", 0, 0, OPTION_DISPLAY },
	{ "secrets", 0, 0, OPTION_SECRETS },
	{ "guest-forks", 1, 0, OPTION_GUEST_FORKS },
	{ "overhead", 1, 0, OPTION_OVERHEAD },
	{ "debug-mmu", 1, 0, OPTION_DEBUG_MMU },
	{ "serve", 1, 0, OPTION_SERVE },
	{ "bind", 1, 0, OPTION_BIND },
	{ "pages-from", 1, 0, OPTION_PAGES }, /* of umbra listen's alone */
	{ "debug-code", 1, 0, OPTION_DEBUG_CODE },
	{ "debug-copies", 0, 0, OPTION_DEBUG_COPIES },
	{ "perf-map", 0, 0, OPTION_PERF_MAP },
	{ "net", 1, 0, 'N' },
	{ "publish", 1, 0, 'P' },
	{ "cpu-model", 1, 0, OPTION_CPU_MODEL },
	{ "mitigations", 1, 0, OPTION_MITIGATIONS },
	{ "host-mask", 1, 0, OPTION_HOST_MASK },
	{ "help", 0, 0, 'h' },
	{ 0 },
};

int run_parse(struct run *run, int argc, char **argv)
{
	int code = 0;
	int option;

	while (!code && (option = option_of_verb(argv[0], argc, argv, "p:", run_longs)) != -1) {
		if (option == 'h') {
			print_help();
			exit(0);
		}
		code = take_option(run, option == 'p' ? 'P' : option, optarg);
	}
	if (!code && optind < argc) {
		run->options.image = argv[optind++];
		code = disk_option_add_first(&run->plan->disks, run->options.image);
	}
	if (code)
		return code;
	if (optind < argc)
		return complain(EXIT_USAGE, "unexpected argument", argv[optind],
				"see umbra run --help");
	return check_options(&run->options,
			     run->plan->disks.count || seed_is_wanted(&run->seed));
}
