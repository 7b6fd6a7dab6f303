/* A machine without devices, for tests of the processor alone. */
#pragma once

#include <string.h>

#include "engine/engine.h"
#include "x86/state.h"

static uint64_t port_read(void *context, uint16_t port, unsigned b)
{
	(void)context;
	(void)port;
	(void)b;
	return 0;
}
static void port_write(void *context, uint16_t port, unsigned b, uint64_t value)
{
	(void)context;
	(void)port;
	(void)b;
	(void)value;
}
static void mmio_read(void *context, uint64_t gpa, void *target, size_t b)
{
	(void)context;
	(void)gpa;
	memset(target, 0, b);
}
static void mmio_write(void *context, uint64_t gpa, const void *target, size_t b)
{
	(void)context;
	(void)gpa;
	(void)target;
	(void)b;
}
static int msr_read(void *context, uint32_t m, uint64_t *value)
{
	(void)context;
	(void)m;
	*value = 0;
	return 0;
}
static int msr_write(void *context, uint32_t m, uint64_t value)
{
	(void)context;
	(void)m;
	(void)value;
	return 0;
}
static void cpuid(void *context, uint32_t leaf, uint32_t subleaf, uint32_t registers[4])
{
	(void)context;
	(void)leaf;
	(void)subleaf;
	memset(registers, 0, 16);
}
static int interrupt(void *context) { (void)context; return -1; }
static void set_cr8(void *context, uint8_t value)
{
	(void)context;
	(void)value;
}
static uint8_t get_cr8(void *context) { (void)context; return 0; }
static enum engine_call hypercall(void *context, const struct engine_call_registers *registers)
{
	(void)context;
	(void)registers;
	return ENGINE_CALL_UNDEFINED;
}
static const struct engine_options engine_options = { .overhead_bytes =
							      ENGINE_DEFAULT_OVERHEAD_BYTES,
						      .cpus = 1 };
static const struct engine_ops ops = {
	.port_read = port_read,
	.port_write = port_write,
	.mmio_read = mmio_read,
	.mmio_write = mmio_write,
	.msr_read = msr_read,
	.msr_write = msr_write,
	.cpuid = cpuid,
	.interrupt = interrupt,
	.get_cr8 = get_cr8,
	.set_cr8 = set_cr8,
	.hypercall = hypercall,
};

enum { CR0_ET = 1 << 4, CR0_NE = 1 << 5, CR4_OSFXSR = 1 << 9, CR4_OSXMMEXCPT = 1 << 10 };

/* 64-bit mode with the page tables at `cr3`, code at level 0, and everything that XCR0 may have. */
static inline void begin_long_mode(struct x86_state *ret, uint64_t cr3)
{
	ret->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
	ret->cr3 = cr3;
	ret->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	ret->xcr0 = 7;
	ret->efer = EFER_LME | EFER_LMA;
	ret->segment[X86_CS].attributes = 0xa09b;
}

/* The same with flat segments, as a kernel has them. */
static inline void begin_flat_long_mode(struct x86_state *ret, uint64_t cr3)
{
	begin_long_mode(ret, cr3);
	ret->segment[X86_CS] =
		(struct x86_segment_state){ .selector = 8, .attributes = 0xa09b, .limit = ~0u };
	ret->segment[X86_SS] =
		(struct x86_segment_state){ .selector = 16, .attributes = 0xc093, .limit = ~0u };
}

/* The same at level 3. */
static inline void begin_user_long_mode(struct x86_state *ret, uint64_t cr3)
{
	begin_flat_long_mode(ret, cr3);
	ret->segment[X86_CS].selector = 0x1b;
	ret->segment[X86_CS].attributes = 0xa0fb;
	ret->segment[X86_SS].selector = 0x23;
	ret->segment[X86_SS].attributes = 0xc0f3;
	ret->cpl = 3;
}
