/* Registers of the system in place: time, direction, FS and GS bases, reads of CR0 to CR4. */
#include "translate_internal.h"

static struct host_mem base_of(unsigned segment)
{
	return cpu_mem(offsetof(struct soft_cpu, state.segment) +
		       segment * sizeof(struct x86_segment_state) +
		       offsetof(struct x86_segment_state, base));
}

static const struct host_op rorx = {
	.kind = X86_KIND_VEX128, .map = 3, .pp = 3, .opcode = 0xf0, .w = true
};

/* The host's time in edx:eax becomes the guest's; no flag changes. */
static void add_offset(struct translation *t)
{
	emit_rr(out(t), rorx, RDX, RDX);
	emit8(out(t), 32);
	emit_load(out(t), R11, CPU(state.tsc_offset));
	emit_lea(out(t), RAX, (struct host_mem){ .base = RAX, .index = RDX });
	emit_lea(out(t), RAX, (struct host_mem){ .base = RAX, .index = R11 });
	emit_rr(out(t), rorx, RDX, RAX);
	emit8(out(t), 32);
	emit_rr(out(t), OP32(0x89), RDX, RDX);
	emit_rr(out(t), OP32(0x89), RAX, RAX);
}

void translate_read_time(struct translation *t)
{
	emit8(out(t), 0x0f);
	emit8(out(t), 0x31);
	add_offset(t);
}

/* The host's own, which waits for what is before it. */
void translate_read_time_and_processor(struct translation *t)
{
	emit8(out(t), 0x0f);
	emit8(out(t), 0x01);
	emit8(out(t), 0xf9);
	add_offset(t);
	emit_rm(out(t), OP32(0x8b), RCX, CPU(state.tsc_aux));
}

/* CLD, STD. */
void translate_set_direction(struct translation *t)
{
	bool set = t->at->insn.opcode & 1;

	translate_leave_flags(t);
	emit_rm(out(t), OP32(0x81), set ? 1 : 4, CPU(state.rflags));
	emit32(out(t), set ? FLAG_DF : ~(uint32_t)FLAG_DF);
}

/* A guest's register becomes r10, or what holds it already. */
static uint8_t load_register(struct translation *t, uint8_t reg)
{
	if (!displaced(reg))
		return reg;
	emit_load(out(t), R10, slot(reg));
	return R10;
}

static void store_register(struct translation *t, uint8_t reg, uint8_t from)
{
	if (displaced(reg))
		emit_store(out(t), from, slot(reg));
	else if (reg != from)
		emit_mov(out(t), reg, from);
}

static void write_base(struct translation *t, struct cold *c, unsigned segment)
{
	const struct x86_insn *i = &t->at->insn;
	uint8_t from = load_register(t, i->rm);

	if (i->rex_w) {
		emit_mov(out(t), R11, from);
		emit_rr(out(t), OP64(0xc1), 4, R11);
		emit8(out(t), 16);
		emit_rr(out(t), OP64(0xc1), 7, R11);
		emit8(out(t), 16);
		emit_rr(out(t), OP64(0x39), from, R11);
		translate_or_else(t, c, CC_NZ);
	} else {
		emit_rr(out(t), OP32(0x89), from, R11);
	}
	emit_store(out(t), R11, base_of(segment));
}

/* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE; without CR4.FSGSBASE C raises #UD. */
bool translate_fs_gs_base(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	unsigned segment = i->reg & 1 ? X86_GS : X86_FS;
	struct cold *c;

	if (t->code_bits != 64)
		return false;
	translate_leave_flags(t);
	c = translate_new_cold(t, COLD_SYSTEM);
	emit_rm(out(t), OP32(0xf7), 0, CPU(state.cr4));
	emit32(out(t), CR4_FSGSBASE);
	translate_or_else(t, c, CC_Z);
	if (i->reg & 2) {
		write_base(t, c, segment);
		return true;
	}
	emit_rm(out(t), i->rex_w ? OP64(0x8b) : OP32(0x8b), R10, base_of(segment));
	store_register(t, i->rm, R10);
	return true;
}

/* MOV from CR0, CR2, CR3, CR4 in 64-bit kernel code. */
bool translate_read_control(struct translation *t)
{
	const struct x86_insn *i = &t->at->insn;
	struct host_mem from;

	if (t->mode & MODE_USER || t->code_bits != 64)
		return false;
	switch (i->reg) {
	case 0: from = CPU(state.cr0); break;
	case 2: from = CPU(state.cr2); break;
	case 3: from = CPU(state.cr3); break;
	case 4: from = CPU(state.cr4); break;
	default: return false;
	}
	emit_load(out(t), R10, from);
	store_register(t, i->rm, R10);
	return true;
}
