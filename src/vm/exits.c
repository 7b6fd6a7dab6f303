/*
 * What a processor leaves translated code for: how often, by kind, and, while somebody asks, each
 * single one as a record (ipc/trace_ring.h). What is done then is vcpu.c's.
 *
 *   engine --engine_ops--> here: exit_begin(), vcpu_asked, exit_end()
 *
 * Counters are always on: each is written by one thread, and read by any. While nobody traces a
 * record costs one branch on words that are there anyway.
 */
#include "machine_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { VALUE_BYTES = 8, TYPE_BYTES = 4 };

/* ---- one exit ---- */

struct exit exit_begin(struct vcpu *vcpu, enum trace_kind kind)
{
	struct exit exit = { .vcpu = vcpu, .kind = kind };

	assert(kind < TRACE_KINDS);
	__atomic_store_n(&vcpu->exits[kind], vcpu->exits[kind] + 1, __ATOMIC_RELAXED);
	if (trace_wants(&vcpu->machine->trace, kind))
		exit.begin_ns = clock_monotonic_ns();
	return exit;
}

static void put(const struct exit *exit, uint64_t first, uint64_t second)
{
	const uint64_t took_ns = clock_monotonic_ns() - exit->begin_ns;
	const struct trace_record record = {
		.ns = exit->begin_ns,
		.word = { first, second },
		.took_ns = took_ns < UINT32_MAX ? (uint32_t)took_ns : UINT32_MAX,
		.kind = (uint16_t)exit->kind,
		.processor = (uint16_t)exit->vcpu->index,
	};

	trace_put(&exit->vcpu->machine->trace, &record);
}

void exit_end(const struct exit *exit, uint64_t first, uint64_t second)
{
	if (__builtin_expect(exit->begin_ns != 0, 0))
		put(exit, first, second);
}

void exit_bus_message(struct machine *machine, enum trace_kind kind, const void *payload,
		      size_t bytes)
{
	struct trace_record record = { .word = { 0, bytes },
				       .kind = (uint16_t)kind,
				       .processor = TRACE_NO_PROCESSOR };
	uint32_t type = 0;

	if (!trace_wants(&machine->trace, kind))
		return;
	if (bytes >= TYPE_BYTES)
		memcpy(&type, payload, TYPE_BYTES);
	record.word[0] = type;
	record.ns = clock_monotonic_ns();
	trace_put(&machine->trace, &record);
}

/* ---- what the engine asks ---- */

static uint64_t first_bytes(const void *from, size_t bytes)
{
	uint64_t value = 0;

	memcpy(&value, from, bytes < VALUE_BYTES ? bytes : VALUE_BYTES);
	return value;
}

static uint64_t on_port_read(void *context, uint16_t port, unsigned bytes)
{
	const struct exit exit = exit_begin(context, TRACE_PORT_READ);
	const uint64_t value = vcpu_asked.port_read(context, port, bytes);

	exit_end(&exit, port, value);
	return value;
}

static void on_port_write(void *context, uint16_t port, unsigned bytes, uint64_t value)
{
	const struct exit exit = exit_begin(context, TRACE_PORT_WRITE);

	vcpu_asked.port_write(context, port, bytes, value);
	exit_end(&exit, port, value);
}

static void on_mmio_read(void *context, uint64_t gpa, void *to, size_t bytes)
{
	const struct exit exit = exit_begin(context, TRACE_MMIO_READ);

	vcpu_asked.mmio_read(context, gpa, to, bytes);
	exit_end(&exit, gpa, first_bytes(to, bytes));
}

static void on_mmio_write(void *context, uint64_t gpa, const void *from, size_t bytes)
{
	const struct exit exit = exit_begin(context, TRACE_MMIO_WRITE);

	vcpu_asked.mmio_write(context, gpa, from, bytes);
	exit_end(&exit, gpa, first_bytes(from, bytes));
}

static int on_msr_read(void *context, uint32_t msr, uint64_t *ret)
{
	const struct exit exit = exit_begin(context, TRACE_MSR_READ);
	const int error = vcpu_asked.msr_read(context, msr, ret);

	exit_end(&exit, msr, error ? 0 : *ret);
	return error;
}

static int on_msr_write(void *context, uint32_t msr, uint64_t value)
{
	const struct exit exit = exit_begin(context, TRACE_MSR_WRITE);
	const int error = vcpu_asked.msr_write(context, msr, value);

	exit_end(&exit, msr, value);
	return error;
}

static void on_cpuid(void *context, uint32_t leaf, uint32_t subleaf, uint32_t registers[4])
{
	const struct exit exit = exit_begin(context, TRACE_CPUID);

	vcpu_asked.cpuid(context, leaf, subleaf, registers);
	exit_end(&exit, leaf, subleaf);
}

/* Counted when there was one. */
static int on_interrupt(void *context)
{
	const int vector = vcpu_asked.interrupt(context);
	struct exit exit;

	if (vector < 0)
		return vector;
	exit = exit_begin(context, TRACE_INTERRUPT);
	exit_end(&exit, (uint64_t)vector, 0);
	return vector;
}

static uint8_t on_get_cr8(void *context)
{
	const struct exit exit = exit_begin(context, TRACE_PRIORITY_READ);
	const uint8_t value = vcpu_asked.get_cr8(context);

	exit_end(&exit, value, 0);
	return value;
}

static void on_set_cr8(void *context, uint8_t value)
{
	const struct exit exit = exit_begin(context, TRACE_PRIORITY_WRITE);

	vcpu_asked.set_cr8(context, value);
	exit_end(&exit, value, 0);
}

/* As hv/hypercall.c finds them; what the registers are called is in engine.h. */
static uint64_t control_word(const struct engine_call_registers *registers)
{
	const uint64_t *gpr = registers->gpr;

	return registers->long_mode ? gpr[1] : gpr[2] << 32 | (uint32_t)gpr[0];
}

static uint64_t result_word(const struct engine_call_registers *registers)
{
	const uint64_t *gpr = registers->gpr;

	return registers->long_mode ? gpr[0] : gpr[2] << 32 | (uint32_t)gpr[0];
}

/* One that is executed again is one more. */
static enum engine_call on_hypercall(void *context, const struct engine_call_registers *registers)
{
	const struct exit exit = exit_begin(context, TRACE_HYPERCALL);
	const uint64_t control = control_word(registers);
	const enum engine_call call = vcpu_asked.hypercall(context, registers);

	exit_end(&exit, control, call == ENGINE_CALL_DONE ? result_word(registers) : 0);
	return call;
}

const struct engine_ops exits_engine_ops = {
	.port_read = on_port_read, .port_write = on_port_write, .mmio_read = on_mmio_read,
	.mmio_write = on_mmio_write,
	.msr_read = on_msr_read, .msr_write = on_msr_write, .cpuid = on_cpuid,
	.interrupt = on_interrupt, .get_cr8 = on_get_cr8, .set_cr8 = on_set_cr8,
	.hypercall = on_hypercall,
};

/* ---- the machine's ---- */

void machine_trace(struct machine *machine, uint32_t wanted)
{
	trace_want(&machine->trace, wanted);
}

static uint64_t sum_of(const struct machine *machine, unsigned kind)
{
	uint64_t sum = 0;

	for (unsigned n = 0; n < machine->options.cpus; n++)
		sum += __atomic_load_n(&machine->vcpus[n].exits[kind], __ATOMIC_RELAXED);
	return sum;
}

size_t exits_statistics(const struct machine *machine, char *text, size_t bytes)
{
	size_t used = 0;

	for (unsigned kind = 0; kind < TRACE_BUS_IN; kind++) {
		const struct trace_name *name = trace_kind(kind);

		if (name && used < bytes)
			used += (size_t)snprintf(text + used, bytes - used, "%s%s %lu",
						 used ? ", " : "exits: ", name->kind,
						 sum_of(machine, kind));
	}
	if (used < bytes)
		used += (size_t)snprintf(text + used, bytes - used, ", %s %lu\n",
					 trace_kind(TRACE_INTERRUPT)->kind,
					 sum_of(machine, TRACE_INTERRUPT));
	return used < bytes ? used : bytes - 1;
}
