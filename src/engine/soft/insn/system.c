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
		soft_yield();
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

/* Opcodes behind 0F. */
static int two_bytes(struct step *step)
{
	enum {
		GROUP_00 = 0x00,
		GROUP_01 = 0x01,
		LAR = 0x02,
		LSL = 0x03,
		SYSCALL = 0x05,
		CLTS = 0x06,
		SYSRET = 0x07,
		INVD = 0x08,
		WBINVD = 0x09,
		MOV_FROM_CR = 0x20,
		MOV_FROM_DR,
		MOV_TO_CR,
		MOV_TO_DR,
		WRMSR = 0x30,
		SYSENTER = 0x34,
		SYSEXIT = 0x35,
		LSS = 0xb2,
		LFS = 0xb4,
		LGS = 0xb5,
		RDMSR = 0x32,
		RDPMC = 0x33,
		PUSH_FS = 0xa0,
		POP_FS = 0xa1,
		CPUID = 0xa2,
		PUSH_GS = 0xa8,
		POP_GS = 0xa9,
		GROUP_AE = 0xae,
		GROUP_C7 = 0xc7,
		XSAVEC = 4,
	};
	struct x86_state *state = step->state;

	switch (step->insn->opcode) {
	case GROUP_00: return insn_system_segments(step);
	case GROUP_01: return group_0f01(step);
	case LAR: case LSL: return insn_lar_lsl(step);
	case SYSCALL: return insn_syscall(step);
	case SYSRET: return insn_sysret(step);
	case SYSENTER: return insn_sysenter(step);
	case SYSEXIT: return insn_sysexit(step);
	case LSS: return insn_load_far_pointer(step, X86_SS);
	case LFS: return insn_load_far_pointer(step, X86_FS);
	case LGS: return insn_load_far_pointer(step, X86_GS);
	case CLTS: return insn_clts(step);
	case INVD: case WBINVD: return state->cpl ? insn_general_protection(step) : 0;
	case MOV_FROM_CR:
	case MOV_FROM_DR:
	case MOV_TO_CR:
	case MOV_TO_DR: return insn_mov_control(step);
	case WRMSR: return insn_access_msr(step, true);
	case RDMSR: return insn_access_msr(step, false);
	case RDPMC: return insn_rdpmc(step);
	case CPUID: return cpuid(step);
	case PUSH_FS:
		return insn_push(step, state->segment[X86_FS].selector, insn_stack_bytes(step));
	case PUSH_GS:
		return insn_push(step, state->segment[X86_GS].selector, insn_stack_bytes(step));
	case POP_FS: return insn_pop_segment(step, X86_FS);
	case POP_GS: return insn_pop_segment(step, X86_GS);
	case GROUP_AE: return step->insn->mod == 3 ? insn_fs_gs_base(step) : insn_save_area(step);
	case GROUP_C7:
		return step->insn->reg == XSAVEC ? insn_save_area(step) : insn_undefined(step);
	default: return insn_undefined(step);
	}
}

/* Encodings of 16- and 32-bit code, and ENTER. */
static int legacy(struct step *step)
{
	enum {
		DAA = 0x27,
		DAS = 0x2f,
		AAA = 0x37,
		AAS = 0x3f,
		BOUND = 0x62,
		ARPL = 0x63,
		LES = 0xc4,
		LDS = 0xc5,
		ENTER = 0xc8,
		INTO = 0xce,
		AAM = 0xd4,
		AAD = 0xd5,
		SALC = 0xd6,
	};

	if (step->insn->opcode == ENTER)
		return insn_enter(step);
	if (x86_code_bits(step->state) == 64)
		return insn_undefined(step);
	switch (step->insn->opcode) {
	case DAA: case DAS: return insn_decimal_adjust(step, step->insn->opcode == DAS);
	case AAA: case AAS: return insn_ascii_adjust(step, step->insn->opcode == AAS);
	case BOUND: return insn_bound(step);
	case ARPL: return insn_arpl(step);
	case LES: return insn_load_far_pointer(step, X86_ES);
	case LDS: return insn_load_far_pointer(step, X86_DS);
	case INTO: return insn_into(step);
	case AAM: return insn_aam(step);
	case AAD: return insn_aad(step);
	case SALC: return insn_salc(step);
	default: return insn_undefined(step);
	}
}

static int one_byte(struct step *step)
{
	enum {
		PUSH_ES = 0x06,
		POP_ES = 0x07,
		PUSH_CS = 0x0e,
		PUSH_SS = 0x16,
		POP_SS = 0x17,
		PUSH_DS = 0x1e,
		POP_DS = 0x1f,
		PUSH_REGISTER = 0x50,
		POP_LAST_REGISTER = 0x5f,
		PUSHA = 0x60,
		POPA = 0x61,
		PUSH_WORD = 0x68,
		PUSH_BYTE = 0x6a,
		MOV_FROM_SEGMENT = 0x8c,
		MOV_TO_SEGMENT = 0x8e,
		POP_MEMORY = 0x8f,
		PAUSE = 0x90,
		CALL_FAR = 0x9a,
		PUSHF = 0x9c,
		POPF = 0x9d,
		MOV_OFFSET = 0xa0,
		MOV_OFFSET_LAST = 0xa3,
		RETF_POPPING = 0xca,
		RETF = 0xcb,
		INT3 = 0xcc,
		INT = 0xcd,
		IRET = 0xcf,
		XLAT = 0xd7,
		IN_IMMEDIATE = 0xe4,
		OUT_IMMEDIATE_LAST = 0xe7,
		JMP_FAR = 0xea,
		IN_DX = 0xec,
		OUT_DX_LAST = 0xef,
		INT1 = 0xf1,
		HLT = 0xf4,
		CLI = 0xfa,
		STI = 0xfb,
		CLD = 0xfc,
		STD = 0xfd,
		X87_D9 = 0xd9,
		X87_DD = 0xdd,
		GROUP_FF = 0xff,
	};

	switch (step->insn->opcode) {
	case PUSH_ES:
	case POP_ES:
	case PUSH_CS:
	case PUSH_SS:
	case POP_SS:
	case PUSH_DS:
	case POP_DS:
	case PUSH_REGISTER ... POP_LAST_REGISTER:
	case PUSHA:
	case POPA:
	case PUSH_WORD:
	case PUSH_BYTE:
	case POP_MEMORY: return insn_push_pop(step);
	case MOV_FROM_SEGMENT: return insn_mov_from_segment(step);
	case MOV_TO_SEGMENT: return insn_mov_to_segment(step);
	case PAUSE: return pause_processor(step);
	case PUSHF: case POPF: return insn_push_pop_flags(step);
	case MOV_OFFSET ... MOV_OFFSET_LAST: return moffs(step);
	case CALL_FAR: case JMP_FAR: return insn_far_direct(step, step->insn->opcode == CALL_FAR);
	case RETF: case RETF_POPPING: return insn_far_return(step);
	case INT3: return insn_software_interrupt(step, EXC_BP);
	case INT: return insn_interrupt(step);
	case INT1: return insn_icebp(step);
	case IRET: return insn_iret(step);
	case XLAT: return xlat(step);
	case IN_IMMEDIATE ... OUT_IMMEDIATE_LAST:
	case IN_DX ... OUT_DX_LAST: return insn_port(step);
	case HLT: return halt(step);
	case CLI: return insn_set_interrupt_flag(step, false);
	case STI: return insn_set_interrupt_flag(step, true);
	case CLD: return insn_set_direction(step, false);
	case STD: return insn_set_direction(step, true);
	case X87_D9: case X87_DD: return insn_x87_environment(step);
	case GROUP_FF: return group_ff(step);
	default: return legacy(step);
	}
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
