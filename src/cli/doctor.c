/*
 * umbra doctor: what this host offers, which engine would be taken and why, and what a bug report
 * needs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli.h"
#include "option.h"
#include "ipc/group.h"
#include "ipc/lockdown.h"
#include "version.h"
#include "vm/machine.h"

enum { TEXT_BYTES = 4096, LINE_BYTES = 128, BYTES_PER_MIB = 1 << 20 };

static const char doctor_help[] =
	"usage: umbra doctor [--cpu-model MODEL[,+FEATURE][,-FEATURE]] [--mitigations guest|off]\n"
	"Says what this host offers and which processor models it can run; "
	"with --cpu-model, what that one is. Ends 69 where the engine or\n"
	"the model cannot run here.\n";

struct doctor_options { const char *model, *mitigations, *host_mask; };

/* The first line of a file of the system's; "" where there is none. */
static const char *first_line(const char *path, char text[LINE_BYTES])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, LINE_BYTES - 1);

	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	return text;
}

static void print_limit(const char *name, int resource)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit))
		return;
	if (limit.rlim_cur == RLIM_INFINITY)
		printf(" %s unlimited", name);
	else
		printf(" %s %lu", name, (unsigned long)limit.rlim_cur);
}

/* What bounds the memory of a machine process. */
static void print_group(void)
{
	struct group_place place;
	int error = group_place_find(&place);
	const char *why;

	if (!error)
		error = group_look(&place);
	switch (error) {
	case 0: why = "each machine has its own, with a limit of memory"; break;
	case -ENOENT: why = "none of version 2 with a controller of memory here"; break;
	case -EACCES: why = "that of this process is not delegated to it"; break;
	case -EBUSY: why = "other processes are in that of this process"; break;
	default: why = strerror(-error);
	}
	printf("groups       %s%s\n", why,
	       error ? ": the engine's budget and RLIMIT_DATA hold alone" : "");
}

static void print_system(void)
{
	int landlock = lockdown_landlock_version();
	char text[LINE_BYTES];
	struct utsname host;

	printf("umbra        %s, commit %s\n", UMBRA_VERSION, umbra_commit);
	if (!uname(&host))
		printf("kernel       %s %s %s\n", host.sysname, host.release, host.version);
	printf("processors   %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
	printf("memory       %ld MiB",
	       sysconf(_SC_PHYS_PAGES) / (BYTES_PER_MIB / sysconf(_SC_PAGESIZE)));
	printf(", huge pages %s", first_line("/sys/kernel/mm/transparent_hugepage/enabled", text));
	printf(", overcommit %s", first_line("/proc/sys/vm/overcommit_memory", text));
	printf(", limit of the group %s\n",
	       first_line("/sys/fs/cgroup/memory.max", text)[0] ? text : "unknown");
	printf("limits      ");
	print_limit("address-space", RLIMIT_AS);
	print_limit("open-files", RLIMIT_NOFILE);
	print_limit("processes", RLIMIT_NPROC);
	printf("\n");
	if (!landlock)
		printf("landlock     not there: the lists of system calls and the namespaces keep "
		       "processes from files, but for the keeper, and disks while they are "
		       "opened\n");
	else
		printf("landlock     version %d%s\n", landlock,
		       landlock < 6 ? ": does not keep signals in (6 does); the lists of calls do"
				    : "");
	printf("namespaces   %s; %s\n",
	       first_line("/proc/sys/user/max_user_namespaces", text)[0] ? text : "none",
	       lockdown_has_namespaces() ? "each process of a machine has its own"
					 : "not permitted: the lists of system calls and Landlock "
					   "hold alone; net processes may look at files");
	print_group();
}

static bool print_engines(void)
{
	bool usable = __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("avx2");
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	const char *how = kvm >= 0 ? "is there" : "may not be opened";

	if (kvm < 0 && errno == ENOENT)
		how = "is not there";
	printf("engine       soft: %s\n",
	       usable ? "would be taken (x86-64-v3 host)" : "NOT usable: it needs BMI2 and AVX2");
	printf("engine       kvm: not built yet; /dev/kvm %s\n", how);
	if (kvm >= 0)
		close(kvm);
	return usable;
}

/* Which models run here; whether the default does. */
static bool print_models(const struct doctor_options *options)
{
	const char *name, *summary;
	bool runs_default = false;

	for (unsigned n = 0; (name = machine_model_name(n, &summary)); n++) {
		struct machine_options machine = { .cpus = 1 };
		char reason[LINE_BYTES];
		int error = machine_choose_model(&machine, name, CPU_MITIGATIONS_TRUE,
						 options->host_mask, reason, sizeof(reason));

		printf("model        %s%s: %s; %s\n", error ? name : machine.model.name,
		       n ? "" : " (default)", summary, error ? reason : "runs here");
		runs_default |= !n && !error;
	}
	return runs_default;
}

static int print_model(const struct doctor_options *options, struct machine_options *machine)
{
	enum cpu_mitigations mitigations = CPU_MITIGATIONS_TRUE;
	char text[TEXT_BYTES];

	if (options->mitigations)
		mitigations = strcmp(options->mitigations, "guest") ? CPU_MITIGATIONS_OFF
								    : CPU_MITIGATIONS_GUEST;
	if (machine_choose_model(machine, options->model, mitigations, options->host_mask, text,
				 sizeof(text)))
		return complain(EXIT_NO_ENGINE, text,
				options->model ? options->model : "the default processor model",
				"see umbra doctor");
	machine_describe_model(machine, text, sizeof(text));
	fputs(text, stdout);
	return 0;
}

static int parse_doctor(int argc, char **argv, struct doctor_options *options)
{
	static const struct option longs[] = { { "cpu-model", 1, 0, 'p' },
					       { "mitigations", 1, 0, 'm' },
					       { "host-mask", 1, 0, 'k' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	int option;

	while ((option = option_of_verb(argv[0], argc, argv, "", longs)) != -1)
		switch (option) {
		case 'p': options->model = optarg; break;
		case 'm': options->mitigations = optarg; break;
		case 'k': options->host_mask = optarg; break;
		case 'h': fputs(doctor_help, stdout); return -1;
		default: return EXIT_USAGE;
		}
	if (optind < argc)
		return complain(EXIT_USAGE, "unexpected argument", argv[optind],
				"see umbra doctor --help");
	if (options->mitigations && strcmp(options->mitigations, "guest") &&
	    strcmp(options->mitigations, "off"))
		return complain(EXIT_USAGE, "not a choice of mitigations", options->mitigations,
				"say guest or off, or leave it out");
	return 0;
}

int verb_doctor(int argc, char **argv)
{
	struct doctor_options options = { 0 };
	struct machine_options machine = { .cpus = 1 };
	char text[TEXT_BYTES];
	bool usable;
	int code = parse_doctor(argc, argv, &options);

	if (code)
		return code > 0 ? code : 0;
	if (options.model || options.mitigations)
		return print_model(&options, &machine);
	if (machine_find_host(&machine, options.host_mask, text, sizeof(text)))
		return complain(EXIT_USAGE, text, "--host-mask",
				"name features with '-' before them, by commas");
	print_system();
	machine_describe_host(&machine, text, sizeof(text));
	fputs(text, stdout);
	usable = print_engines();
	usable &= print_models(&options);
	return usable ? 0 : EXIT_NO_ENGINE;
}
