/* Registers of the system in place: time, direction, FS and GS bases, reads of CR0 to CR4. */
#include "translate_internal.h"

static struct host_mem base_of(unsigned segment)
{
	return cpu_mem(offsetof(struct soft_cpu, state.segment) +
		       segment * sizeof(struct x86_segment_state) +
		       offsetof(struct x86_segment_state, base));
}

static const struct host_op rorx = {
	.kind = X86_KIND_VEX128, .map = 3, .pp = 3, .opcode = 0xf0, .rex_w = true
};

/* The host's time in edx:eax becomes the guest's; no flag changes. */
static void add_offset(struct translation *translation)
{
	emit_rr(out(translation), rorx, RDX, RDX);
	emit8(out(translation), 32);
	emit_load(out(translation), R11, CPU(state.tsc_offset));
	emit_lea(out(translation), RAX, (struct host_mem){ .base = RAX, .index = RDX });
	emit_lea(out(translation), RAX, (struct host_mem){ .base = RAX, .index = R11 });
	emit_rr(out(translation), rorx, RDX, RAX);
	emit8(out(translation), 32);
	emit_rr(out(translation), OP32(0x89), RDX, RDX);
	emit_rr(out(translation), OP32(0x89), RAX, RAX);
}

void translate_read_time(struct translation *translation)
{
	emit8(out(translation), 0x0f);
	emit8(out(translation), 0x31);
	add_offset(translation);
}

/* The host's own, which waits for what is before it. */
void translate_read_time_and_processor(struct translation *translation)
{
	emit8(out(translation), 0x0f);
	emit8(out(translation), 0x01);
	emit8(out(translation), 0xf9);
	add_offset(translation);
	emit_rm(out(translation), OP32(0x8b), RCX, CPU(state.tsc_aux));
}

/* CLD, STD. */
void translate_set_direction(struct translation *translation)
{
	bool set = translation->at->insn.opcode & 1;

	translate_leave_flags(translation);
	emit_rm(out(translation), OP32(0x81), set ? 1 : 4, CPU(state.rflags));
	emit32(out(translation), set ? FLAG_DF : ~(uint32_t)FLAG_DF);
}

/* A guest's register becomes r10, or what holds it already. */
static uint8_t load_register(struct translation *translation, uint8_t reg)
{
	if (!displaced(reg))
		return reg;
	emit_load(out(translation), R10, slot(reg));
	return R10;
}

static void store_register(struct translation *translation, uint8_t reg, uint8_t from)
{
	if (displaced(reg))
		emit_store(out(translation), from, slot(reg));
	else if (reg != from)
		emit_mov(out(translation), reg, from);
}

static void write_base(struct translation *translation, struct cold *cold, unsigned segment)
{
	const struct x86_insn *insn = &translation->at->insn;
	uint8_t from = load_register(translation, insn->rm);

	if (insn->rex_w) {
		emit_mov(out(translation), R11, from);
		emit_rr(out(translation), OP64(0xc1), 4, R11);
		emit8(out(translation), 16);
		emit_rr(out(translation), OP64(0xc1), 7, R11);
		emit8(out(translation), 16);
		emit_rr(out(translation), OP64(0x39), from, R11);
		translate_or_else(translation, cold, CC_NZ);
	} else {
		emit_rr(out(translation), OP32(0x89), from, R11);
	}
	emit_store(out(translation), R11, base_of(segment));
}

/* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE; without CR4.FSGSBASE C raises #UD. */
bool translate_fs_gs_base(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	unsigned segment = insn->reg & 1 ? X86_GS : X86_FS;
	struct cold *cold;

	if (translation->code_bits != 64)
		return false;
	translate_leave_flags(translation);
	cold = translate_new_cold(translation, COLD_SYSTEM);
	emit_rm(out(translation), OP32(0xf7), 0, CPU(state.cr4));
	emit32(out(translation), CR4_FSGSBASE);
	translate_or_else(translation, cold, CC_Z);
	if (insn->reg & 2) {
		write_base(translation, cold, segment);
		return true;
	}
	emit_rm(out(translation), insn->rex_w ? OP64(0x8b) : OP32(0x8b), R10, base_of(segment));
	store_register(translation, insn->rm, R10);
	return true;
}

/* MOV from CR0, CR2, CR3, CR4 in 64-bit kernel code. */
bool translate_read_control(struct translation *translation)
{
	const struct x86_insn *insn = &translation->at->insn;
	struct host_mem from;

	if (translation->mode & MODE_USER || translation->code_bits != 64)
		return false;
	switch (insn->reg) {
	case 0: from = CPU(state.cr0); break;
	case 2: from = CPU(state.cr2); break;
	case 3: from = CPU(state.cr3); break;
	case 4: from = CPU(state.cr4); break;
	default: return false;
	}
	emit_load(out(translation), R10, from);
	store_register(translation, insn->rm, R10);
	return true;
}
