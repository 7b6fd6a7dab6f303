/* One virtual machine: memory, a processor, platform devices; from boot to its end. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../boot/linux.h"

struct machine;

enum machine_end { MACHINE_POWERED_OFF, MACHINE_STOPPED, MACHINE_CRASHED, MACHINE_RESET };

struct machine_options {
	uint64_t memory_bytes;
	unsigned cpus;
	struct boot_file kernel, initrd;
	const char *command_line;
	/* Called on the processor's thread with what the guest prints. */
	void (*console)(void *context, const uint8_t *data, size_t bytes);
	void *context;
};

/* NULL with *ret_reason when it cannot be made; *ret_error is the negative errno. */
struct machine *machine_create(const struct machine_options *options, int *ret_error, const char **ret_reason);
void machine_destroy(struct machine *machine);
/* Runs on the calling thread until the end. */
enum machine_end machine_run(struct machine *machine);
/* From any thread: input for the console; how much was taken. */
size_t machine_input(struct machine *machine, const uint8_t *data, size_t bytes);
/* From any thread or signal handler. */
void machine_stop(struct machine *machine);
/* What the guest said of its crash; NULL if nothing. */
const char *machine_crash_text(const struct machine *machine);
void machine_print_statistics(struct machine *machine);
