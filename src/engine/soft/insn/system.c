/*
 * What translated code leaves to C: privileged and system instructions, segment loads, far control
 * transfers, and forms too rare to translate. One instruction a call; state.rip is its address
 * until it has succeeded.
 */
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/translate.h"
#include "engine/soft/translate/translate_encoding.h"
#include "address.h"
#include "insn.h"

int insn_general_protection(struct step *step) { return soft_fail(step->fault, EXC_GP, true, 0); }

int insn_undefined(struct step *step) { return soft_fail(step->fault, EXC_UD, false, 0); }

static int cpuid(struct step *step)
{
	struct x86_state *state = step->state;
	uint32_t leaf = (uint32_t)state->gpr[0];
	uint32_t subleaf = (uint32_t)state->gpr[1];
	uint32_t registers[4];

	soft_outside(step->cpu);
	step->cpu->ops->cpuid(step->cpu->ops_context, leaf, subleaf, registers);
	soft_inside(step->cpu);
	state->gpr[0] = registers[0];
	state->gpr[3] = registers[1];
	state->gpr[1] = registers[2];
	state->gpr[2] = registers[3];
	return 0;
}

static int halt(struct step *step)
{
	if (step->state->cpl)
		return insn_general_protection(step);
	if (step->cpu->pending & PENDING_STEP_TRAP) /* the trap behind it ends the halt at once */
		return 0;
	soft_stop(step->cpu, ENGINE_EXIT_HALT);
	return 0;
}

/* A processor that waits for one that has no host processor now: let it have this one. */
static int pause_processor(struct step *step)
{
	enum { PAUSES_UNTIL_YIELD = 32 };

	if (!(++step->cpu->pauses % PAUSES_UNTIL_YIELD))
		give_way(&step->cpu->way);
	return 0;
}

static int hypercall(struct step *step)
{
	struct soft_cpu *cpu = step->cpu;
	const struct engine_call_registers registers = {
		.gpr = cpu->state.gpr,
		.protected_mode = cpu->state.cr0 & CR0_PE,
		.long_mode = x86_code_bits(&cpu->state) == 64,
	};
	enum engine_call call;

	if (step->state->cpl)
		return insn_undefined(step);
	soft_outside(cpu);
	call = cpu->ops->hypercall(cpu->ops_context, &registers);
	soft_inside(cpu);
	if (call == ENGINE_CALL_AGAIN)
		step->next = step->state->rip;
	return call == ENGINE_CALL_UNDEFINED ? insn_undefined(step) : 0;
}

static int moffs(struct step *step)
{
	unsigned bytes = step->insn->opcode & 1 ? step->insn->operand_bytes : 1;
	uint64_t a = insn_address(step);
	uint64_t value = 0;

	if (step->insn->opcode & 2)
		return soft_write(step->cpu, a, &step->state->gpr[0], bytes, 0, step->fault);
	if (soft_read(step->cpu, a, &value, bytes, ACCESS_READ, step->fault))
		return -EFAULT;
	insn_set_gpr(step, 0, value, bytes);
	return 0;
}

static int xlat(struct step *step)
{
	uint64_t offset = step->state->gpr[3] + (uint8_t)step->state->gpr[0];
	uint64_t gva = soft_linear_address(step->state, step->insn->segment, offset,
					   step->insn->address_bytes);
	uint64_t value = 0;

	if (soft_check_segment(step->cpu, step->insn->segment,
			       offset & soft_address_mask(step->insn->address_bytes), 1, false,
			       step->fault) ||
	    soft_read(step->cpu, gva, &value, 1, ACCESS_READ, step->fault))
		return -EFAULT;
	insn_set_gpr(step, 0, value, 1);
	return 0;
}

/* FF: INC and DEC are always translated. */
static int group_ff(struct step *step)
{
	enum { CALL_NEAR = 2, CALL_FAR = 3, JMP_NEAR = 4, JMP_FAR = 5, PUSH = 6 };
	unsigned bytes = insn_stack_bytes(step);
	uint64_t next;
	uint64_t value;

	if (step->insn->reg == CALL_FAR || step->insn->reg == JMP_FAR)
		return insn_far_indirect(step, step->insn->reg == CALL_FAR);
	if (insn_get_rm(step, bytes, &value))
		return -EFAULT;
	if (step->insn->reg == PUSH)
		return insn_push(step, value, bytes);
	next = step->next;
	step->next = value;
	if (!insn_may_go_on(step))
		return insn_general_protection(step);
	return step->insn->reg == CALL_NEAR ? insn_push(step, next, bytes) : 0;
}

/* 0F 01 with a register operand: the whole ModRM byte is the opcode. */
static int group_0f01_registers(struct step *step)
{
	enum {
		VMCALL = 0xc1,
		CLAC = 0xca,
		STAC = 0xcb,
		XGETBV = 0xd0,
		XSETBV = 0xd1,
		VMMCALL = 0xd9,
		SWAPGS = 0xf8,
		RDTSCP = 0xf9
	};

	switch (0xc0 | (step->insn->reg & 7) << 3 | (step->insn->rm & 7)) {
	case VMCALL: case VMMCALL: return hypercall(step);
	case CLAC: return insn_set_alignment_check(step, false);
	case STAC: return insn_set_alignment_check(step, true);
	case XGETBV: return insn_xgetbv(step);
	case XSETBV: return insn_xsetbv(step);
	case SWAPGS: return insn_swapgs(step);
	case RDTSCP: return insn_rdtscp(step);
	default: return insn_undefined(step);
	}
}

static int group_0f01(struct step *step)
{
	enum { SGDT, SIDT, LGDT, LIDT, SMSW, LMSW = 6, INVLPG = 7 };

	if (step->insn->reg == SMSW)
		return insn_smsw(step);
	if (step->insn->reg == LMSW)
		return insn_lmsw(step);
	if (step->insn->mod == 3)
		return group_0f01_registers(step);
	switch (step->insn->reg) {
	case SGDT: case SIDT: case LGDT: case LIDT: return insn_descriptor_tables(step);
	case INVLPG: return insn_invlpg(step);
	default: return insn_undefined(step);
	}
}

/* 0F AE: memory has save areas, registers are FS and GS. */
static int group_0fae(struct step *step)
{
	return step->insn->mod == 3 ? insn_fs_gs_base(step) : insn_save_area(step);
}

static int group_0fc7(struct step *step)
{
	enum { XSAVEC = 4 };

	return step->insn->reg == XSAVEC ? insn_save_area(step) : insn_undefined(step);
}

/* ---- rows of the opcode maps that differ by an argument alone ---- */

static int lds(struct step *step) { return insn_load_far_pointer(step, X86_DS); }
static int les(struct step *step) { return insn_load_far_pointer(step, X86_ES); }
static int lfs(struct step *step) { return insn_load_far_pointer(step, X86_FS); }
static int lgs(struct step *step) { return insn_load_far_pointer(step, X86_GS); }
static int lss(struct step *step) { return insn_load_far_pointer(step, X86_SS); }

static int push_segment(struct step *step, unsigned segment)
{
	return insn_push(step, step->state->segment[segment].selector, insn_stack_bytes(step));
}

static int push_fs(struct step *step) { return push_segment(step, X86_FS); }
static int push_gs(struct step *step) { return push_segment(step, X86_GS); }
static int pop_fs(struct step *step) { return insn_pop_segment(step, X86_FS); }
static int pop_gs(struct step *step) { return insn_pop_segment(step, X86_GS); }

static int call_far(struct step *step) { return insn_far_direct(step, true); }
static int jmp_far(struct step *step) { return insn_far_direct(step, false); }
static int int3(struct step *step) { return insn_software_interrupt(step, EXC_BP); }

static int rdmsr(struct step *step) { return insn_access_msr(step, false); }
static int wrmsr(struct step *step) { return insn_access_msr(step, true); }

static int cli(struct step *step) { return insn_set_interrupt_flag(step, false); }
static int sti(struct step *step) { return insn_set_interrupt_flag(step, true); }
static int cld(struct step *step) { return insn_set_direction(step, false); }
static int std(struct step *step) { return insn_set_direction(step, true); }

static int daa(struct step *step) { return insn_decimal_adjust(step, false); }
static int das(struct step *step) { return insn_decimal_adjust(step, true); }
static int aaa(struct step *step) { return insn_ascii_adjust(step, false); }
static int aas(struct step *step) { return insn_ascii_adjust(step, true); }

/* INVD and WBINVD: there is no cache to be written back. */
static int flush_caches(struct step *step)
{
	return step->state->cpl ? insn_general_protection(step) : 0;
}

/* ---- the opcode maps; what has no row is undefined ---- */

typedef int insn_function(struct step *step);
enum { OPCODES = 256 };

static insn_function *const one_byte_map[OPCODES] = {
	[0x06] = insn_push_pop, /* PUSH ES */
	[0x07] = insn_push_pop, /* POP ES */
	[0x0e] = insn_push_pop, /* PUSH CS */
	[0x16] = insn_push_pop, /* PUSH SS */
	[0x17] = insn_push_pop, /* POP SS */
	[0x1e] = insn_push_pop, /* PUSH DS */
	[0x1f] = insn_push_pop, /* POP DS */
	[0x50 ... 0x5f] = insn_push_pop, /* of a register */
	[0x60] = insn_push_pop, /* PUSHA */
	[0x61] = insn_push_pop, /* POPA */
	[0x68] = insn_push_pop, /* PUSH of a word */
	[0x6a] = insn_push_pop, /* PUSH of a byte */
	[0x8c] = insn_mov_from_segment,
	[0x8e] = insn_mov_to_segment,
	[0x8f] = insn_push_pop, /* POP into memory */
	[0x90] = pause_processor,
	[0x9a] = call_far,
	[0x9c] = insn_push_pop_flags, /* PUSHF */
	[0x9d] = insn_push_pop_flags, /* POPF */
	[0xa0 ... 0xa3] = moffs,
	[0xc8] = insn_enter,
	[0xca] = insn_far_return, /* and pops parameters */
	[0xcb] = insn_far_return,
	[0xcc] = int3,
	[0xcd] = insn_interrupt,
	[0xcf] = insn_iret,
	[0xd7] = xlat,
	[0xd9] = insn_x87_environment,
	[0xdd] = insn_x87_environment,
	[0xe4 ... 0xe7] = insn_port, /* at a constant */
	[0xea] = jmp_far,
	[0xec ... 0xef] = insn_port, /* at DX */
	[0xf1] = insn_icebp,
	[0xf4] = halt,
	[0xfa] = cli,
	[0xfb] = sti,
	[0xfc] = cld,
	[0xfd] = std,
	[0xff] = group_ff,
};

/* Of 16- and 32-bit code alone. */
static insn_function *const legacy_map[OPCODES] = {
	[0x27] = daa,
	[0x2f] = das,
	[0x37] = aaa,
	[0x3f] = aas,
	[0x62] = insn_bound,
	[0x63] = insn_arpl,
	[0xc4] = les,
	[0xc5] = lds,
	[0xce] = insn_into,
	[0xd4] = insn_aam,
	[0xd5] = insn_aad,
	[0xd6] = insn_salc,
};

/* Behind 0F. */
static insn_function *const two_byte_map[OPCODES] = {
	[0x00] = insn_system_segments,
	[0x01] = group_0f01,
	[0x02] = insn_lar_lsl, /* LAR */
	[0x03] = insn_lar_lsl, /* LSL */
	[0x05] = insn_syscall,
	[0x06] = insn_clts,
	[0x07] = insn_sysret,
	[0x08] = flush_caches, /* INVD */
	[0x09] = flush_caches, /* WBINVD */
	[0x20 ... 0x23] = insn_mov_control,
	[0x30] = wrmsr,
	[0x32] = rdmsr,
	[0x33] = insn_rdpmc,
	[0x34] = insn_sysenter,
	[0x35] = insn_sysexit,
	[0xa0] = push_fs,
	[0xa1] = pop_fs,
	[0xa2] = cpuid,
	[0xa8] = push_gs,
	[0xa9] = pop_gs,
	[0xae] = group_0fae,
	[0xb2] = lss,
	[0xb4] = lfs,
	[0xb5] = lgs,
	[0xc7] = group_0fc7,
};

static int one_byte(struct step *step)
{
	const uint8_t opcode = step->insn->opcode;
	insn_function *run = one_byte_map[opcode];

	if (!run && x86_code_bits(step->state) != 64)
		run = legacy_map[opcode];
	return run ? run(step) : insn_undefined(step);
}

static int two_bytes(struct step *step)
{
	insn_function *run = two_byte_map[step->insn->opcode];

	return run ? run(step) : insn_undefined(step);
}

/* Limits of segments and alignment (insn/limit.c), for whose sake code of this mode comes here. */
static bool is_mode_checked(struct soft_cpu *cpu, const struct x86_insn *insn)
{
	bool has_operand = x86_insn_has_memory(insn) || insn->encoding.immediate == X86_IMM_MOFFS;

	return has_operand &&
	       (x86_code_bits(&cpu->state) != 64 || soft_checks_alignment(&cpu->state));
}

static bool needs_check(struct soft_cpu *cpu, const struct x86_insn *insn)
{
	return is_mode_checked(cpu, insn) ||
	       (x86_insn_has_memory(insn) && insn->segment == X86_SS);
}

/* Copied instructions come here for their check alone; what cannot be copied is #UD. */
static bool is_copied(struct soft_cpu *cpu, const struct x86_insn *insn)
{
	struct host_encoding unused;
	bool is_data = insn->encoding.class == X86_CLASS_DATA ||
		       insn->encoding.class == X86_CLASS_BIT_STRING;

	if (!is_data || x86_insn_is_masked(insn) || !is_mode_checked(cpu, insn))
		return false;
	return !(insn->kind && soft_mode(cpu) & MODE_AVX_OFF) && soft_host_encoding(insn, &unused);
}

static void *execute_checked(struct soft_cpu *cpu)
{
	soft_begin_anew(cpu);
	cpu->pending |= PENDING_CHECKED;
	cpu->checked_rip = cpu->state.rip;
	return soft_dispatch(cpu);
}

static bool is_near_transfer(const struct x86_insn *insn)
{
	switch (insn->encoding.class) {
	case X86_CLASS_JCC:
	case X86_CLASS_JMP:
	case X86_CLASS_CALL:
	case X86_CLASS_RET:
	case X86_CLASS_LEAVE:
	case X86_CLASS_LOOP: return true;
	default: return false;
	}
}

void *soft_system(struct soft_cpu *cpu, const struct x86_insn *insn)
{
	enum { INVPCID = 0x82 };
	struct fault fault = { 0 };
	struct step step = { .cpu = cpu,
			     .state = &cpu->state,
			     .insn = insn,
			     .next = cpu->state.rip + insn->length,
			     .fault = &fault };
	int error;

	cpu->systems++;
	if (x86_code_bits(&cpu->state) != 64)
		step.next = (uint32_t)step.next;
	if (cpu->state.cr0 & (CR0_TS | CR0_EM) && x86_insn_is(insn, X86_ENC_FPU)) {
		bool x87 = !insn->kind && insn->map == 0;

		error = x87 || !(cpu->state.cr0 & CR0_EM) ? soft_fail(&fault, EXC_NM, false, 0)
							  : insn_undefined(&step);
	} else if (needs_check(cpu, insn) && insn_check_operand(&step)) {
		error = -EFAULT;
	} else if (is_copied(cpu, insn)) {
		return execute_checked(cpu);
	} else if (is_near_transfer(insn)) {
		error = insn_near_transfer(&step);
	} else if (insn->encoding.class == X86_CLASS_SCATTERED || x86_insn_is_masked(insn)) {
		error = insn->kind && soft_mode(cpu) & MODE_AVX_OFF
				? insn_undefined(&step)
				: soft_scattered(cpu, insn, &fault);
	} else if (insn->encoding.class == X86_CLASS_STRING) {
		error = soft_string(cpu, insn, &fault);
		/* an event in the middle: the instruction is executed again */
		if (error == -EAGAIN)
			return soft_dispatch(cpu);
	} else if (!insn->kind && insn->map == 0) {
		error = one_byte(&step);
	} else if (!insn->kind && insn->map == 1) {
		error = two_bytes(&step);
	} else if (!insn->kind && insn->map == 2 && insn->opcode == INVPCID) {
		error = insn_invpcid(&step);
	} else {
		error = insn_undefined(&step);
	}
	if (error)
		return soft_raise(cpu, &fault);
	cpu->state.rip = step.next;
	return soft_go_on(cpu);
}
