/*
 * What a machine begins with is read by a process that has given up its rights, and not before: the
 * kernel lies in memory that cannot be accessed until machine_main() would have given them up.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vm/machine.h"

enum { FILE_BYTES = 64 << 10, MEMORY_BYTES = 64 << 20 };

static int failures;

static void expect(const char *what, bool good)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	failures += !good;
}

static void console(void *context, const uint8_t *data, size_t bytes)
{
	(void)context;
	(void)data;
	(void)bytes;
}

static uint8_t *make_file(const char *content)
{
	uint8_t *at = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);

	if (at == MAP_FAILED)
		exit(EXIT_FAILURE);
	memcpy(at, content, strlen(content));
	mprotect(at, FILE_BYTES, PROT_NONE);
	return at;
}

static struct machine *make_machine(uint8_t *kernel)
{
	struct machine_options options = {
		.memory_bytes = MEMORY_BYTES,
		.cpus = 1,
		.command_line = "",
		.kernel = { .data = kernel, .bytes = FILE_BYTES },
		.overhead_bytes = MACHINE_LEAST_OVERHEAD_BYTES,
		.console = console,
	};
	char text[256];
	const char *reason;
	int error;

	if (machine_choose_model(&options, NULL, CPU_MITIGATIONS_TRUE, NULL, text, sizeof(text)) ||
	    !machine_parse_hv("default", &options.hv_features, text, sizeof(text)))
		return NULL;
	return machine_create(&options, &error, &reason);
}

int main(void)
{
	uint8_t *kernel = make_file("neither a bzImage nor a multiboot image");
	struct machine *machine = make_machine(kernel);
	int error = 0;

	expect("a machine is made without a look at its kernel", machine != NULL);
	if (!machine)
		return EXIT_FAILURE;
	expect("and its threads are started", !machine_start_threads(machine));
	mprotect(kernel, FILE_BYTES, PROT_READ);
	machine_go(machine);
	expect("then one that is none is refused", machine_wait(machine) == MACHINE_REFUSED);
	expect("with a reason", machine_refusal(machine, &error) && error < 0);
	return failures != 0;
}
