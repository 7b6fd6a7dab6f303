/*
 * A guest without devices in 4 MiB or more, in 64-bit mode at level 0 or 3, for tests that look
 * into the engine: each page stands at its own address, in large pages.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/soft/code/code.h"
#include "no_devices.h"

enum { PAGE = 1 << 12, TABLES = 0x10000, HLT = 0xf4 };

static uint8_t *ram;
static struct guest_memory memory;
static int failures;

static inline void expect(bool holds, const char *what)
{
	printf("%s: %s\n", holds ? "ok" : "FAIL", what);
	failures += !holds;
}

static inline void make_tables(size_t bytes)
{
	enum { LARGE_PRESENT = 0x87, LARGE_SHIFT = 21, PRESENT = 7 };
	uint64_t *tables = (uint64_t *)(void *)(ram + TABLES);
	const unsigned entries = PAGE / sizeof(*tables);

	tables[0] = (TABLES + PAGE) | PRESENT;
	tables[entries] = (TABLES + 2 * PAGE) | PRESENT;
	for (unsigned n = 0; n < bytes >> LARGE_SHIFT; n++)
		tables[2 * entries + n] = (uint64_t)n << LARGE_SHIFT | LARGE_PRESENT;
}

/* Zeros, with its page tables. */
static inline void make_ram(size_t bytes)
{
	ram = mmap(NULL, guest_memory_footprint_bytes(bytes), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		abort();
	guest_memory_init(&memory, ram, bytes, bytes);
	make_tables(bytes);
}

struct guest {
	struct engine *engine;
	struct engine_cpu *cpu;
};

static inline struct guest begin_with(const struct engine_options *options)
{
	struct guest guest = { .engine = engine_create(&memory, options) };

	guest.cpu = guest.engine ? engine_cpu_create(guest.engine, &ops, NULL) : NULL;
	if (!guest.cpu || engine_prepare_thread(guest.cpu))
		abort();
	return guest;
}

static inline struct guest begin(uint64_t overhead_bytes, unsigned without)
{
	return begin_with(&(struct engine_options){
		.overhead_bytes = overhead_bytes, .cpus = 1, .without = without });
}

/* From there on, in 64-bit code, until it halts. */
static inline void run_flat(struct guest guest, uint64_t code_gva, uint64_t stack_gva)
{
	struct engine_state state = { .nmi_pending = false };

	begin_flat_long_mode(&state.x86, TABLES);
	state.x86.rip = code_gva;
	state.x86.rflags = 2;
	state.x86.gpr[4] = stack_gva;
	engine_set(guest.cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
	if (engine_run(guest.cpu) != ENGINE_EXIT_HALT)
		abort();
}

static inline void end(struct guest guest)
{
	engine_cpu_destroy(guest.cpu);
	engine_destroy(guest.engine);
}
