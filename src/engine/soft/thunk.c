/*
 * Thunks: the few pieces of host code, written once at the start of the code cache, that lead from
 * translated code to C and back, into the code cache and out of it.
 */
#include <assert.h>

#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/emit.h"
#include "soft_internal.h"

/* the stack last: on_signal() */
static const uint8_t kept[] = { RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8, R9, R12, R13, RSP };

static struct host_mem gpr(uint8_t reg)
{
	return cpu_mem(offsetof(struct soft_cpu, state.gpr) + 8u * reg);
}

/* scratch: where r10 and r11 are; code uses temp itself, which a signal must leave alone. */
static void emit_resume(struct soft_engine *engine, struct emitter *emitter, size_t scratch)
{
	emit_load(emitter, R15, CPU(read_table));
	emit_load(emitter, R14, CPU(write_table));
	emit_load(emitter, R10, cpu_mem(scratch));
	emit_load(emitter, R11, cpu_mem(scratch + 8));
	for (unsigned n = 0; n < sizeof(kept); n++)
		emit_load(emitter, kept[n], gpr(kept[n]));
	engine->resume_jumps[engine->resume_jump_count++] =
		(uint64_t)(engine->code_run + (emitter->out - engine->code_write));
	emit_jmp_cpu(emitter, offsetof(struct soft_cpu, resume));
}

/* Host flags from a word like flags_word; rax goes to and comes from the other place. */
static void emit_flags_from(struct emitter *emitter, size_t word, size_t rax)
{
	emit_store(emitter, RAX, cpu_mem(rax));
	emit_rm(emitter, (struct host_op){ .opcode = 0xb7, .map = 1 }, RAX, cpu_mem(word));
	emit8(emitter, 0x04);
	emit8(emitter, 0x7f);
	emit8(emitter, 0x9e);
	emit_load(emitter, RAX, cpu_mem(rax));
}

static void emit_flags_to(struct emitter *emitter, size_t word, size_t rax)
{
	emit_store(emitter, RAX, cpu_mem(rax));
	emit8(emitter, 0x9f);
	emit_rr(emitter, (struct host_op){ .map = 1, .opcode = 0x90 }, 0, RAX);
	emit_rm(emitter, (struct host_op){ .opcode = 0x89, .pp = 1 }, RAX, cpu_mem(word));
	emit_load(emitter, RAX, cpu_mem(rax));
}

/*
 * Brings back the flags that a signal of the host's own interrupted, and goes on there. Everything
 * else is loaded.
 */
static void emit_refresh(struct soft_engine *engine, struct emitter *emitter)
{
	engine->refresh = engine->code_run + (emitter->out - engine->code_write);
	emit_flags_from(emitter, offsetof(struct soft_cpu, signal_word),
			offsetof(struct soft_cpu, signal_rax));
	emit_jmp_cpu(emitter, offsetof(struct soft_cpu, signal_pc));
	engine->reload = engine->code_run + (emitter->out - engine->code_write);
	emit_resume(engine, emitter, offsetof(struct soft_cpu, signal_scratch));
}

/* FLAGS: the host's, and the places that code uses, are afterwards what they were before. */
enum thunk_kind { THUNK_PLAIN, THUNK_FLAGS, THUNK_SIGNAL };

static size_t thunk_scratch(enum thunk_kind kind)
{
	switch (kind) {
	case THUNK_SIGNAL: return offsetof(struct soft_cpu, signal_scratch);
	case THUNK_FLAGS: return offsetof(struct soft_cpu, way_scratch);
	default: return offsetof(struct soft_cpu, temp);
	}
}

static void *emit_thunk(struct soft_engine *engine, struct emitter *emitter, void *function,
			enum thunk_kind kind)
{
	const size_t flags = offsetof(struct soft_cpu, way_flags);
	const size_t rax = offsetof(struct soft_cpu, way_rax);
	size_t scratch = thunk_scratch(kind);
	uint8_t *at = emitter->out;

	if (kind == THUNK_FLAGS)
		emit_flags_to(emitter, flags, rax);
	for (unsigned n = 0; n < sizeof(kept); n++)
		if (kind != THUNK_SIGNAL || kept[n] != RSP)
			emit_store(emitter, kept[n], gpr(kept[n]));
	emit_store(emitter, R10, cpu_mem(scratch));
	emit_store(emitter, R11, cpu_mem(scratch + 8));
	emit_load(emitter, RSP, CPU(host_rsp));
	emit_load(emitter, RDI, CPU(self));
	emit_mov(emitter, RSI, R10);
	emit_mov(emitter, RDX, R11);
	emit_constant(emitter, RAX, (uint64_t)function);
	emit_rr(emitter, OP32(0xff), 2, RAX);
	emit_store(emitter, RAX, CPU(resume));
	if (kind == THUNK_FLAGS)
		emit_flags_from(emitter, flags, rax);
	emit_resume(engine, emitter, scratch);
	return engine->code_run + (at - engine->code_write);
}

static void *system_thunk(struct soft_cpu *cpu, uint64_t unused, const struct x86_insn *insn)
{
	struct x86_insn copy = *insn;

	(void)unused;
	return soft_system(cpu, &copy);
}

static void *chain_thunk(struct soft_cpu *cpu, const uint8_t *home, const uint8_t *link)
{
	return soft_chain(cpu, soft_block_of(cpu->engine, (uint64_t)link), cpu->temp[2] & 1, home,
			  link);
}

static void *miss_thunk(struct soft_cpu *cpu) { return soft_go_on(cpu); }

/*
 * The thunks are the same for every processor; each keeps their addresses where its code finds
 * them.
 */
void soft_make_thunks(struct soft_engine *engine, struct soft_cpu *cpu)
{
	static const uint8_t saved[] = { RBX, RBP, R12, R13, R14, R15 };
	struct emitter emitter = { engine->code_write };
	uint8_t *at;

	cpu->thunk_memory = emit_thunk(engine, &emitter, (void *)soft_memory, THUNK_PLAIN);
	cpu->thunk_commit = emit_thunk(engine, &emitter, (void *)soft_commit, THUNK_PLAIN);
	cpu->thunk_system = emit_thunk(engine, &emitter, (void *)system_thunk, THUNK_PLAIN);
	cpu->thunk_chain = emit_thunk(engine, &emitter, (void *)chain_thunk, THUNK_PLAIN);
	cpu->thunk_miss = emit_thunk(engine, &emitter, (void *)miss_thunk, THUNK_PLAIN);
	cpu->thunk_indirect = emit_thunk(engine, &emitter, (void *)soft_indirect_miss, THUNK_PLAIN);
	cpu->thunk_floating = emit_thunk(engine, &emitter, (void *)soft_floating_miss, THUNK_PLAIN);
	engine->dead_floating =
		emit_thunk(engine, &emitter, (void *)soft_dead_floating, THUNK_PLAIN);
	cpu->thunk_way_out = emit_thunk(engine, &emitter, (void *)soft_way_out, THUNK_FLAGS);
	cpu->thunk_site = engine->code_run + (emitter.out - engine->code_write);
	soft_emit_site_thunk(&emitter);
	cpu->thunk_slot = emit_thunk(engine, &emitter, (void *)soft_slot_miss, THUNK_FLAGS);
	engine->signal = emit_thunk(engine, &emitter, (void *)soft_signal, THUNK_SIGNAL);
	emit_refresh(engine, &emitter);
	at = emitter.out;
	for (unsigned n = 0; n < sizeof(saved); n++) {
		emit_prefixes(&emitter, OP32(0), false, 0, NO_REG, saved[n]);
		emit8(&emitter, 0x50 | (saved[n] & 7));
	}
	emit_lea(&emitter, RSP, mem(RSP, -8));
	emit_store(&emitter, RSP, CPU(host_rsp));
	emit_store(&emitter, RSI, CPU(resume));
	emit_resume(engine, &emitter, offsetof(struct soft_cpu, temp));
	engine->enter = engine->code_run + (at - engine->code_write);
	at = emitter.out;
	emit_load(&emitter, RSP, CPU(host_rsp));
	emit_lea(&emitter, RSP, mem(RSP, 8));
	for (unsigned n = sizeof(saved); n-- > 0;) {
		emit_prefixes(&emitter, OP32(0), false, 0, NO_REG, saved[n]);
		emit8(&emitter, 0x58 | (saved[n] & 7));
	}
	emit8(&emitter, 0xc3);
	engine->leave = engine->code_run + (at - engine->code_write);
	assert(emitter.out <= engine->code_write + CODE_SLOT_STUBS);
}
