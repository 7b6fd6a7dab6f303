/* A machine without devices, for tests of the processor alone. */
#pragma once

#include <string.h>

#include "engine/engine.h"

static uint64_t port_read(void *c, uint16_t p, unsigned b)
{
	(void)c;
	(void)p;
	(void)b;
	return 0;
}
static void port_write(void *c, uint16_t p, unsigned b, uint64_t v)
{
	(void)c;
	(void)p;
	(void)b;
	(void)v;
}
static void mmio_read(void *c, uint64_t g, void *t, size_t b)
{
	(void)c;
	(void)g;
	memset(t, 0, b);
}
static void mmio_write(void *c, uint64_t g, const void *t, size_t b)
{
	(void)c;
	(void)g;
	(void)t;
	(void)b;
}
static int msr_read(void *c, uint32_t m, uint64_t *v)
{
	(void)c;
	(void)m;
	*v = 0;
	return 0;
}
static int msr_write(void *c, uint32_t m, uint64_t v)
{
	(void)c;
	(void)m;
	(void)v;
	return 0;
}
static void cpuid(void *c, uint32_t l, uint32_t s, uint32_t r[4])
{
	(void)c;
	(void)l;
	(void)s;
	memset(r, 0, 16);
}
static int interrupt(void *c) { (void)c; return -1; }
static void set_cr8(void *c, uint8_t v)
{
	(void)c;
	(void)v;
}
static uint8_t get_cr8(void *c) { (void)c; return 0; }
static enum engine_call hypercall(void *c, const struct engine_call_registers *r)
{
	(void)c;
	(void)r;
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
