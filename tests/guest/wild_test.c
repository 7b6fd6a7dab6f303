/*
 * Guests of random code (wild.c), many: each is a machine of its own, in a process of its own that
 * begins as a copy of this one, so that nothing but the machine has to be made. It must end in one
 * of the ways in which a machine ends: no signal, no assertion, no word of a sanitizer, not by the
 * engine's own last words.
 *
 * usage: wild_test GUEST COUNT SLICE [PROGRAMS ROUNDS]: seeds from COUNT * SLICE on; or, in this
 * process, one: wild_test GUEST @SEED [PROGRAMS ROUNDS]
 *
 * Left out on purpose: what surrounds a machine (broker, rings, lock-down); wild.sh has that.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vm/machine.h"

enum {
	PROGRAMS = 64,  /* at CPL 3, */
	ROUNDS = 24,    /* and rounds after them, of which many are at CPL 0 */
	DEBUG_EXIT_PORT = 0xf4,
	MEMORY_BYTES = 64 << 20,
	/* A guest that goes on for longer, or never will, is told to stop; */
	MOST_CPU_NS = 60000000,
	MOST_LOOKS = 300,
	LOOK_NS = 10000000,
	MOST_SECONDS = 60, /* and one that does not has hung its machine */
	SAID_BYTES = 4096,
	ENDED = 100,             /* + enum machine_end: the exit code of a copy */
};

struct options {
	struct boot_file guest;
	unsigned long programs, rounds;
	struct cpu_model model;
	struct cpu_host host;
};

enum { MEASURE_NS = 8000000 };
/* The host's rate, measured once: each machine would sleep for it. */
uint64_t __real_clock_measure_tsc_hz(const struct machine_moment *begun, uint64_t least_ns);
uint64_t __wrap_clock_measure_tsc_hz(const struct machine_moment *begun, uint64_t least_ns);
static uint64_t tsc_hz; /* of the host */

uint64_t __wrap_clock_measure_tsc_hz(const struct machine_moment *begun, uint64_t least_ns)
{
	return tsc_hz ? tsc_hz : (tsc_hz = __real_clock_measure_tsc_hz(begun, least_ns));
}

static bool is_stuck; /* of this copy's machine */

static void stuck(void *context, const char *text)
{
	(void)context;
	(void)text;
	__atomic_store_n(&is_stuck, true, __ATOMIC_RELEASE);
}

static bool has_used_its_time(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return used.tv_sec || used.tv_nsec > MOST_CPU_NS;
}

static void *stop_in_time(void *machine)
{
	const struct timespec pause = { .tv_nsec = LOOK_NS };

	for (unsigned n = 0; n < MOST_LOOKS; n++) {
		if (__atomic_load_n(&is_stuck, __ATOMIC_ACQUIRE) || has_used_its_time())
			break;
		nanosleep(&pause, NULL);
	}
	machine_stop(machine);
	return NULL;
}

static void console(void *context, const uint8_t *data, size_t bytes)
{
	(void)context;
	(void)data;
	(void)bytes;
}

/* In a copy: a machine's whole life. Standard error is looked at by the one it is a copy of. */
static void be_machine(const struct options *given, unsigned long seed)
{
	static char line[128], last_words[SAID_BYTES];
	struct machine_options options = {
		.memory_bytes = MEMORY_BYTES,
		.cpus = 1,
		.kernel = given->guest,
		.command_line = line,
		.model = given->model,
		.host = given->host,
		.overhead_bytes = MACHINE_LEAST_OVERHEAD_BYTES,
		.debug_exit = DEBUG_EXIT_PORT,
		.console = console,
		.stuck = stuck,
		.last_words = last_words,
		.last_words_bytes = sizeof(last_words),
	};
	char bad[64];
	const char *reason;
	struct machine *machine;
	pthread_t watch;
	int error;

	snprintf(line, sizeof(line), "%lu %lu %lu", seed, given->programs, given->rounds);
	machine_parse_hv("default", &options.hv_features, bad, sizeof(bad));
	machine = machine_create(&options, &error, &reason);
	if (!machine || machine_start_threads(machine) ||
	    pthread_create(&watch, NULL, stop_in_time, machine)) {
		fprintf(stderr, "the machine was not made: %s\n", reason);
		_exit(ENDED + MACHINE_FAILED);
	}
	machine_go(machine);
	_exit(ENDED + (int)machine_wait(machine));
}

static bool has_ended_well(int status)
{
	int end = WIFEXITED(status) ? WEXITSTATUS(status) - ENDED : -1;

	return end >= MACHINE_POWERED_OFF && end <= MACHINE_DEBUG_EXIT;
}

/* False, and said why: the machine ended as no machine may, or somebody said something. */
static bool run_one(const struct options *options, unsigned long seed, unsigned long ends[])
{
	int said = memfd_create("said", MFD_CLOEXEC);
	char text[SAID_BYTES] = "";
	int status = 0;
	pid_t copy = said < 0 ? -1 : fork();

	if (!copy) {
		alarm(MOST_SECONDS);
		if (dup2(said, STDERR_FILENO) == STDERR_FILENO)
			be_machine(options, seed);
		_exit(ENDED + MACHINE_FAILED);
	}
	if (copy < 0 || waitpid(copy, &status, 0) != copy) {
		perror("wild");
		exit(EXIT_FAILURE);
	}
	if (pread(said, text, sizeof(text) - 1, 0) < 0)
		perror("wild");
	close(said);
	if (has_ended_well(status) && !text[0]) {
		ends[WEXITSTATUS(status) - ENDED]++;
		return true;
	}
	printf("wild: seed %lu (%lu programs, %lu rounds): status %x\n%s\n", seed,
	       options->programs, options->rounds, (unsigned)status, text);
	fflush(stdout);
	return false;
}

static bool read_guest(const char *path, struct boot_file *ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return false;
	ret->bytes = (size_t)st.st_size;
	ret->data = mmap(NULL, ret->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return ret->data != MAP_FAILED;
}

static bool choose_model(struct options *options)
{
	struct machine_options machine = { .cpus = 1 };
	char reason[256];

	if (machine_choose_model(&machine, NULL, CPU_MITIGATIONS_TRUE, NULL, reason,
				 sizeof(reason))) {
		printf("wild: %s\n", reason);
		return false;
	}
	options->model = machine.model;
	options->host = machine.host;
	return true;
}

static unsigned long number(char **argv, int argc, int n, unsigned long otherwise)
{
	return n < argc ? strtoul(argv[n], NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
	bool one = argc > 2 && argv[2][0] == '@';
	unsigned long ends[MACHINE_REFUSED + 1] = { 0 };
	unsigned long bad = 0;
	unsigned long count;
	unsigned long first;
	struct options options = { 0 };
	int at = one ? 3 : 4;

	if (argc < 3 || !read_guest(argv[1], &options.guest) || !choose_model(&options)) {
		fprintf(stderr, "usage: wild_test GUEST COUNT SLICE [PROGRAMS ROUNDS]\n");
		return EXIT_FAILURE;
	}
	options.programs = number(argv, argc, at, PROGRAMS);
	options.rounds = number(argv, argc, at + 1, ROUNDS);
	__wrap_clock_measure_tsc_hz(&(struct machine_moment){ 0 }, MEASURE_NS);
	if (one)
		be_machine(&options, strtoul(argv[2] + 1, NULL, 0));
	count = number(argv, argc, 2, 1);
	first = count * number(argv, argc, 3, 1);
	for (unsigned long n = 0; n < count; n++)
		bad += !run_one(&options, first + n, ends);
	printf("%lu guests from seed %lu, %lu bad; ended by themselves %lu, crashed %lu, "
	       "reset %lu, powered off %lu, told to stop %lu\n",
	       count, first, bad, ends[MACHINE_DEBUG_EXIT], ends[MACHINE_CRASHED],
	       ends[MACHINE_RESET], ends[MACHINE_POWERED_OFF], ends[MACHINE_STOPPED]);
	return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
