/*
 * Thunks: the few pieces of host code, written once at the start of the code cache, that lead from
 * translated code to C and back, into the code cache and out of it.
 */
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
static void emit_resume(struct soft_engine *engine, struct emitter *e, size_t scratch)
{
	emit_load(e, R15, CPU(read_table));
	emit_load(e, R14, CPU(write_table));
	emit_load(e, R10, cpu_mem(scratch));
	emit_load(e, R11, cpu_mem(scratch + 8));
	for (unsigned n = 0; n < sizeof(kept); n++)
		emit_load(e, kept[n], gpr(kept[n]));
	engine->resume_jumps[engine->resume_jump_count++] =
		(uint64_t)(engine->code_run + (e->out - engine->code_write));
	emit_jmp_cpu(e, offsetof(struct soft_cpu, resume));
}

/*
 * Brings back the flags that a signal of the host's own interrupted, and goes on there. Everything
 * else is loaded.
 */
static void emit_refresh(struct soft_engine *engine, struct emitter *e)
{
	engine->refresh = engine->code_run + (e->out - engine->code_write);
	emit_store(e, RAX, CPU(signal_rax));
	emit_rm(e, (struct host_op){ .opcode = 0xb7, .map = 1 }, RAX, CPU(signal_word));
	emit8(e, 0x04);
	emit8(e, 0x7f);
	emit8(e, 0x9e);
	emit_load(e, RAX, CPU(signal_rax));
	emit_jmp_cpu(e, offsetof(struct soft_cpu, signal_pc));
	engine->reload = engine->code_run + (e->out - engine->code_write);
	emit_resume(engine, e, offsetof(struct soft_cpu, signal_scratch));
}

static void *emit_thunk(struct soft_engine *engine, struct emitter *e, void *function,
			bool is_signal)
{
	uint8_t *at = e->out;
	size_t scratch = is_signal ? offsetof(struct soft_cpu, signal_scratch)
				   : offsetof(struct soft_cpu, temp);

	for (unsigned n = 0; n < sizeof(kept); n++)
		if (!is_signal || kept[n] != RSP)
			emit_store(e, kept[n], gpr(kept[n]));
	emit_store(e, R10, cpu_mem(scratch));
	emit_store(e, R11, cpu_mem(scratch + 8));
	emit_load(e, RSP, CPU(host_rsp));
	emit_load(e, RDI, CPU(self));
	emit_mov(e, RSI, R10);
	emit_mov(e, RDX, R11);
	emit_constant(e, RAX, (uint64_t)function);
	emit_rr(e, OP32(0xff), 2, RAX);
	emit_store(e, RAX, CPU(resume));
	emit_resume(engine, e, scratch);
	return engine->code_run + (at - engine->code_write);
}

static void *system_thunk(struct soft_cpu *cpu, uint64_t unused, const struct x86_insn *insn)
{
	struct x86_insn copy = *insn;

	(void)unused;
	return soft_system(cpu, &copy);
}

static void *miss_thunk(struct soft_cpu *cpu) { return soft_dispatch(cpu); }

/*
 * The thunks are the same for every processor; each keeps their addresses where its code finds
 * them.
 */
void soft_make_thunks(struct soft_engine *engine, struct soft_cpu *cpu)
{
	static const uint8_t saved[] = { RBX, RBP, R12, R13, R14, R15 };
	struct emitter e = { engine->code_write + engine->code_used };
	uint8_t *at;

	cpu->thunk_memory = emit_thunk(engine, &e, (void *)soft_memory, false);
	cpu->thunk_commit = emit_thunk(engine, &e, (void *)soft_commit, false);
	cpu->thunk_system = emit_thunk(engine, &e, (void *)system_thunk, false);
	cpu->thunk_chain = emit_thunk(engine, &e, (void *)soft_chain, false);
	cpu->thunk_miss = emit_thunk(engine, &e, (void *)miss_thunk, false);
	cpu->thunk_indirect = emit_thunk(engine, &e, (void *)soft_indirect_miss, false);
	engine->signal = emit_thunk(engine, &e, (void *)soft_signal, true);
	emit_refresh(engine, &e);
	at = e.out;
	for (unsigned n = 0; n < sizeof(saved); n++) {
		emit_prefixes(&e, OP32(0), false, 0, NO_REG, saved[n]);
		emit8(&e, 0x50 | (saved[n] & 7));
	}
	emit_lea(&e, RSP, mem(RSP, -8));
	emit_store(&e, RSP, CPU(host_rsp));
	emit_store(&e, RSI, CPU(resume));
	emit_resume(engine, &e, offsetof(struct soft_cpu, temp));
	engine->enter = engine->code_run + (at - engine->code_write);
	at = e.out;
	emit_load(&e, RSP, CPU(host_rsp));
	emit_lea(&e, RSP, mem(RSP, 8));
	for (unsigned n = sizeof(saved); n-- > 0;) {
		emit_prefixes(&e, OP32(0), false, 0, NO_REG, saved[n]);
		emit8(&e, 0x58 | (saved[n] & 7));
	}
	emit8(&e, 0xc3);
	engine->leave = engine->code_run + (at - engine->code_write);
	engine->code_used = engine->thunks_end = (size_t)(e.out - engine->code_write);
}
