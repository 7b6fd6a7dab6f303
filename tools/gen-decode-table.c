/*
 * Makes src/x86/decode_table.c: the attributes of every instruction encoding that Umbra offers to
 * guests, asked of Zydis one encoding at a time. Run by `make decode-table` when the offered set
 * changes; the result is committed, so that a build and a running engine need no decoder library.
 *
 * A row is (kind, map, prefix, opcode). Its 72 variants are modrm.reg x {memory, register 0..7};
 * rows whose variants agree are stored once, those that differ by (reg, memory/register) as 16
 * numbers, the rest as 72. See src/x86/decode_internal.h for the fields, and for what a new
 * instruction needs.
 *
 * What Zydis does not know of an instruction stands in `classes` and the lists behind it.
 */
#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/decode_internal.h"

enum {
	VARIANTS = 72,
	FOLDED = 16,
	MAX_VARIANT_NUMBERS = 16384,
	MAX_ENCODINGS = 4096,
	REGISTER_FORM = 0xc0
};

/* Which table is asked about: x86_rows_not_64 is that of 32-bit code. */
struct place {
	bool not_64;
	int kind, map, pp, opcode;
};

static ZydisDecoder decoder_64, decoder_32;
static struct x86_encoding encodings[MAX_ENCODINGS];
static size_t encoding_count = 1; /* 0: not an instruction */
static uint16_t variants[MAX_VARIANT_NUMBERS];
static size_t variant_count;

/* Extensions that guests may use, in Zydis's names; an instruction of any other is none. */
static const char *const offered[] = {
	"ADOX_ADCX",   "AES",        "AMD3DNOW_PREFETCH",
	"AVX",         "AVX2",       "AVX2GATHER",
	"AVXAES",      "BASE",       "BMI1",
	"BMI2",        "CLFLUSHOPT", "CLFSH",
	"F16C",        "FMA",        "INVPCID",
	"LONGMODE",    "LZCNT",      "MMX",
	"MOVBE",       "PAUSE",      "PCLMULQDQ",
	"PREFETCHWT1", "RDRAND",     "RDSEED",
	"RDTSCP",      "RDWRFSGS",   "SHA",
	"SMAP",        "SSE",        "SSE2",
	"SSE3",        "SSE4",       "SSSE3",
	"X87",         "XSAVE",      "XSAVEC",
	"XSAVEOPT",
};

/* By mnemonic; every other instruction has the class of its category. */
static const struct { ZydisMnemonic mnemonic; enum x86_class class;
} classes[] = {
	{ ZYDIS_MNEMONIC_LEA, X86_CLASS_LEA },
	{ ZYDIS_MNEMONIC_LEAVE, X86_CLASS_LEAVE },
	{ ZYDIS_MNEMONIC_PUSHFQ, X86_CLASS_PUSHF },
	{ ZYDIS_MNEMONIC_POPFQ, X86_CLASS_POPF },
	{ ZYDIS_MNEMONIC_CLI, X86_CLASS_CLI },
	{ ZYDIS_MNEMONIC_STI, X86_CLASS_STI },
	{ ZYDIS_MNEMONIC_CLAC, X86_CLASS_CLAC },
	{ ZYDIS_MNEMONIC_STAC, X86_CLASS_STAC },
	{ ZYDIS_MNEMONIC_SWAPGS, X86_CLASS_SWAPGS },
	{ ZYDIS_MNEMONIC_RDTSC, X86_CLASS_RDTSC },
	{ ZYDIS_MNEMONIC_RDTSCP, X86_CLASS_RDTSCP },
	{ ZYDIS_MNEMONIC_CLD, X86_CLASS_DIRECTION },
	{ ZYDIS_MNEMONIC_STD, X86_CLASS_DIRECTION },
	{ ZYDIS_MNEMONIC_RDFSBASE, X86_CLASS_FS_GS_BASE },
	{ ZYDIS_MNEMONIC_RDGSBASE, X86_CLASS_FS_GS_BASE },
	{ ZYDIS_MNEMONIC_WRFSBASE, X86_CLASS_FS_GS_BASE },
	{ ZYDIS_MNEMONIC_WRGSBASE, X86_CLASS_FS_GS_BASE },
	{ ZYDIS_MNEMONIC_SYSCALL, X86_CLASS_SYSCALL },
	{ ZYDIS_MNEMONIC_SYSRET, X86_CLASS_SYSRET },
	{ ZYDIS_MNEMONIC_IRETQ, X86_CLASS_IRET },
	{ ZYDIS_MNEMONIC_MASKMOVQ, X86_CLASS_SCATTERED },
	{ ZYDIS_MNEMONIC_MASKMOVDQU, X86_CLASS_SCATTERED },
	{ ZYDIS_MNEMONIC_VMASKMOVDQU, X86_CLASS_SCATTERED },
	{ ZYDIS_MNEMONIC_LAHF, X86_CLASS_DATA },
	{ ZYDIS_MNEMONIC_SAHF, X86_CLASS_DATA },
	{ ZYDIS_MNEMONIC_CLC, X86_CLASS_DATA },
	{ ZYDIS_MNEMONIC_STC, X86_CLASS_DATA },
	{ ZYDIS_MNEMONIC_CMC, X86_CLASS_DATA },
	{ ZYDIS_MNEMONIC_LFENCE, X86_CLASS_DATA },
	{ ZYDIS_MNEMONIC_MFENCE, X86_CLASS_DATA },
	{ ZYDIS_MNEMONIC_SFENCE, X86_CLASS_DATA },
	{ ZYDIS_MNEMONIC_CLFLUSH, X86_CLASS_DATA },
	{ ZYDIS_MNEMONIC_FNSTENV,
	  X86_CLASS_SYSTEM }, /* these four and XSAVE store host addresses */
	{ ZYDIS_MNEMONIC_FNSAVE, X86_CLASS_SYSTEM },
	{ ZYDIS_MNEMONIC_FXSAVE, X86_CLASS_SYSTEM },
	{ ZYDIS_MNEMONIC_FXSAVE64, X86_CLASS_SYSTEM },
	{ ZYDIS_MNEMONIC_FXRSTOR, X86_CLASS_SYSTEM },
	{ ZYDIS_MNEMONIC_FXRSTOR64, X86_CLASS_SYSTEM },
};

/* Categories of data instructions; what is in none of these is left to C. */
static const ZydisInstructionCategory data_categories[] = {
	ZYDIS_CATEGORY_ADOX_ADCX,  ZYDIS_CATEGORY_AES,       ZYDIS_CATEGORY_AVX,
	ZYDIS_CATEGORY_AVX2,       ZYDIS_CATEGORY_BINARY,    ZYDIS_CATEGORY_BITBYTE,
	ZYDIS_CATEGORY_BMI1,       ZYDIS_CATEGORY_BMI2,      ZYDIS_CATEGORY_BROADCAST,
	ZYDIS_CATEGORY_CLFLUSHOPT, ZYDIS_CATEGORY_CMOV,      ZYDIS_CATEGORY_CONVERT,
	ZYDIS_CATEGORY_DATAXFER,   ZYDIS_CATEGORY_FCMOV,     ZYDIS_CATEGORY_LOGICAL,
	ZYDIS_CATEGORY_LOGICAL_FP, ZYDIS_CATEGORY_LZCNT,     ZYDIS_CATEGORY_MMX,
	ZYDIS_CATEGORY_NOP,        ZYDIS_CATEGORY_PCLMULQDQ, ZYDIS_CATEGORY_RDRAND,
	ZYDIS_CATEGORY_RDSEED,     ZYDIS_CATEGORY_ROTATE,    ZYDIS_CATEGORY_SEMAPHORE,
	ZYDIS_CATEGORY_SETCC,      ZYDIS_CATEGORY_SHA,       ZYDIS_CATEGORY_SHIFT,
	ZYDIS_CATEGORY_SSE,        ZYDIS_CATEGORY_STTNI,     ZYDIS_CATEGORY_VFMA,
	ZYDIS_CATEGORY_X87_ALU,
};

/*
 * Data instructions that are not plain though their operands would allow it: locked, masked, or
 * with effects of their own.
 */
static const ZydisMnemonic not_plain[] = {
	ZYDIS_MNEMONIC_XCHG,       ZYDIS_MNEMONIC_XADD,       ZYDIS_MNEMONIC_VMASKMOVPS,
	ZYDIS_MNEMONIC_VMASKMOVPD, ZYDIS_MNEMONIC_VPMASKMOVD, ZYDIS_MNEMONIC_VPMASKMOVQ,
	ZYDIS_MNEMONIC_LDMXCSR,    ZYDIS_MNEMONIC_STMXCSR,    ZYDIS_MNEMONIC_VLDMXCSR,
	ZYDIS_MNEMONIC_VSTMXCSR,   ZYDIS_MNEMONIC_CLFLUSH,    ZYDIS_MNEMONIC_CLFLUSHOPT,
	ZYDIS_MNEMONIC_LFENCE,     ZYDIS_MNEMONIC_MFENCE,     ZYDIS_MNEMONIC_SFENCE,
	ZYDIS_MNEMONIC_NOP,        ZYDIS_MNEMONIC_EMMS,       ZYDIS_MNEMONIC_RDRAND,
	ZYDIS_MNEMONIC_RDSEED,
};

/*
 * Flags that the manuals call undefined and that every known processor writes nevertheless: AF
 * behind logic and shifts, OF behind shifts by more than one. All other undefined flags may stay as
 * they were: ROL and ROR by an immediate above 1 leave OF on Intel Emerald Rapids, which Zen
 * writes.
 */
static const struct { ZydisMnemonic mnemonic; uint8_t flags;
} always_written[] = {
	{ ZYDIS_MNEMONIC_AND, X86_AF },
	{ ZYDIS_MNEMONIC_OR, X86_AF },
	{ ZYDIS_MNEMONIC_XOR, X86_AF },
	{ ZYDIS_MNEMONIC_TEST, X86_AF },
	{ ZYDIS_MNEMONIC_SHL, X86_AF | X86_OF },
	{ ZYDIS_MNEMONIC_SHR, X86_AF | X86_OF },
	{ ZYDIS_MNEMONIC_SAR, X86_AF | X86_OF },
	{ ZYDIS_MNEMONIC_SBB, X86_AF }, /* which the manuals define */
};

/* With a 16-bit operand and a count above 16 the manuals call every flag undefined. */
static const ZydisMnemonic all_undefined[] = { ZYDIS_MNEMONIC_SHLD, ZYDIS_MNEMONIC_SHRD };

/* FPU state by extension, but for these. */
static const char *const fpu_extensions[] = {
	"X87",  "MMX",       "SSE",   "SSE2",   "SSE3",     "SSSE3",  "SSE4",
	"AES",  "PCLMULQDQ", "SHA",   "AVX",    "AVX2",     "AVXAES", "AVX2GATHER",
	"F16C", "FMA",       "XSAVE", "XSAVEC", "XSAVEOPT",
};
static const ZydisMnemonic no_fpu[] = {
	ZYDIS_MNEMONIC_CRC32,      ZYDIS_MNEMONIC_POPCNT,     ZYDIS_MNEMONIC_LFENCE,
	ZYDIS_MNEMONIC_MFENCE,     ZYDIS_MNEMONIC_SFENCE,     ZYDIS_MNEMONIC_MOVNTI,
	ZYDIS_MNEMONIC_XGETBV,     ZYDIS_MNEMONIC_XSETBV,     ZYDIS_MNEMONIC_PREFETCHNTA,
	ZYDIS_MNEMONIC_PREFETCHT0, ZYDIS_MNEMONIC_PREFETCHT1, ZYDIS_MNEMONIC_PREFETCHT2,
};

static const struct {
	ZydisMnemonic mnemonic;
	enum x86_operation operation;
} operations[] = {
	{ ZYDIS_MNEMONIC_ADD, X86_OPERATION_ADD },
	{ ZYDIS_MNEMONIC_SUB, X86_OPERATION_SUB },
	{ ZYDIS_MNEMONIC_INC, X86_OPERATION_INC },
	{ ZYDIS_MNEMONIC_DEC, X86_OPERATION_DEC },
	{ ZYDIS_MNEMONIC_XCHG, X86_OPERATION_EXCHANGE },
	{ ZYDIS_MNEMONIC_VMASKMOVPS, X86_OPERATION_MASKED },
	{ ZYDIS_MNEMONIC_VMASKMOVPD, X86_OPERATION_MASKED },
	{ ZYDIS_MNEMONIC_VPMASKMOVD, X86_OPERATION_MASKED },
	{ ZYDIS_MNEMONIC_VPMASKMOVQ, X86_OPERATION_MASKED },
	{ ZYDIS_MNEMONIC_CLFLUSH, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_CLFLUSHOPT, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_EMMS, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_FLDCW, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_FLDENV, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_FNCLEX, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_FNINIT, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_FNSTCW, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_FRSTOR, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_FWAIT, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_LDMXCSR, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_STMXCSR, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_VLDMXCSR, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_VSTMXCSR, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_RDRAND, X86_OPERATION_ENVIRONMENT },
	{ ZYDIS_MNEMONIC_RDSEED, X86_OPERATION_ENVIRONMENT },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool is_one_of(ZydisMnemonic mnemonic, const ZydisMnemonic *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (list[i] == mnemonic)
			return true;
	return false;
}

static bool is_hint(const ZydisDecodedInstruction *insn)
{
	return insn->opcode_map == ZYDIS_OPCODE_MAP_0F &&
	       (insn->opcode == 0x0d ||
		(insn->opcode >= 0x18 && insn->opcode <= 0x1f)); /* ENDBR64 without CET, too */
}

static bool is_offered(const ZydisDecodedInstruction *insn)
{
	const char *name = ZydisISAExtGetString(insn->meta.isa_ext);

	if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F &&
	    (insn->opcode == 0x0d || insn->opcode == 0x1e))
		return true; /* PREFETCHW is filed under 3DNow!, ENDBR64 under CET */
	if (insn->mnemonic == ZYDIS_MNEMONIC_VMCALL || insn->mnemonic == ZYDIS_MNEMONIC_VMMCALL)
		return true; /* hypercalls, filed under VT-x and SVM */
	for (size_t i = 0; i < COUNT(offered); i++)
		if (!strcmp(name, offered[i]))
			return true;
	return false;
}

static uint8_t flag_mask(ZydisAccessedFlagsMask flags)
{
	unsigned mask = 0;

	mask |= flags & ZYDIS_CPUFLAG_CF ? X86_CF : 0;
	mask |= flags & ZYDIS_CPUFLAG_PF ? X86_PF : 0;
	mask |= flags & ZYDIS_CPUFLAG_AF ? X86_AF : 0;
	mask |= flags & ZYDIS_CPUFLAG_ZF ? X86_ZF : 0;
	mask |= flags & ZYDIS_CPUFLAG_SF ? X86_SF : 0;
	mask |= flags & ZYDIS_CPUFLAG_OF ? X86_OF : 0;
	return (uint8_t)mask;
}

/* ---- one instruction as Zydis sees it ---- */

static bool is_gpr(const ZydisDecodedOperand *op)
{
	if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	switch (ZydisRegisterGetClass(op->reg.value)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return true;
	default:
		return false;
	}
}

static const unsigned reads = ZYDIS_OPERAND_ACTION_MASK_READ;
static const unsigned writes = ZYDIS_OPERAND_ACTION_MASK_WRITE;

static void take_memory(struct x86_encoding *encoding, const ZydisDecodedInstruction *insn,
			const ZydisDecodedOperand *op, int width)
{
	bool line = insn->mnemonic == ZYDIS_MNEMONIC_CLFLUSH ||
		    insn->mnemonic == ZYDIS_MNEMONIC_CLFLUSHOPT;

	encoding->mem_bytes[width] = op->size / 8 > 255 ? 255 : (uint8_t)(op->size / 8);
	if (line)
		encoding->mem_bytes[width] =
			1; /* it flushes the line of one byte, and faults for that alone */
	if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		encoding->attributes |= X86_ENC_ADDRESS_ONLY;
	if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
		encoding->attributes |= X86_ENC_VSIB;
	encoding->attributes |= (op->actions & reads ? X86_ENC_MEM_READ : 0) |
				(op->actions & writes ? X86_ENC_MEM_WRITE : 0);
}

static void take_operand(struct x86_encoding *encoding, const ZydisDecodedOperand *op,
			 bool may_not_write)
{
	bool byte = op->size == 8;
	bool conditional = may_not_write || op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE;
	bool read = op->actions & reads || (op->actions & writes && conditional);
	bool write = op->actions & writes;

	switch (op->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		encoding->attributes |= X86_ENC_REG_GPR | (byte ? X86_ENC_REG8 : 0) |
					(read ? X86_ENC_REG_READ : 0) |
					(write ? X86_ENC_REG_WRITE : 0);
		break;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		encoding->attributes |=
			(byte ? X86_ENC_RM8 : 0) | (read ? X86_ENC_RM_READ : 0) |
			(write ? X86_ENC_RM_WRITE : 0) |
			(op->encoding == ZYDIS_OPERAND_ENCODING_OPCODE ? X86_ENC_OPCODE_GPR
								       : X86_ENC_RM_GPR);
		break;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		encoding->attributes |= X86_ENC_VVVV_GPR | (read ? X86_ENC_VVVV_READ : 0) |
					(write ? X86_ENC_VVVV_WRITE : 0);
		break;
	default:
		if (op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
		    ZydisRegisterGetId(op->reg.value) == 0)
			encoding->attributes |=
				X86_ENC_ACCUMULATOR | (write ? X86_ENC_ACCUMULATOR_WRITE : 0);
	}
}

static enum x86_operation operation_of(const ZydisDecodedInstruction *insn)
{
	for (size_t i = 0; i < COUNT(operations); i++)
		if (operations[i].mnemonic == insn->mnemonic)
			return operations[i].operation;
	return X86_OPERATION_OTHER;
}

/* PUSH, POP, CALL, RET and the like. */
static bool is_on_stack(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
	       op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
	       ZydisRegisterGetId(op->mem.base) == 4;
}

static bool writes_hidden_gpr(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
	for (int i = 0; i < insn->operand_count; i++)
		if (is_gpr(&ops[i]) && ops[i].encoding == ZYDIS_OPERAND_ENCODING_NONE &&
		    ops[i].actions & writes &&
		    (ops[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ||
		     ZydisRegisterGetId(ops[i].reg.value)))
			return true;
	return false;
}

static bool has_operand(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops,
			ZydisOperandEncoding encoding)
{
	for (int i = 0; i < insn->operand_count; i++)
		if (ops[i].encoding == encoding)
			return true;
	return false;
}

static bool names_system_register(const ZydisDecodedInstruction *insn,
				  const ZydisDecodedOperand *ops)
{
	for (int i = 0; i < insn->operand_count_visible; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
			switch (ZydisRegisterGetClass(ops[i].reg.value)) {
			case ZYDIS_REGCLASS_SEGMENT:
			case ZYDIS_REGCLASS_CONTROL:
			case ZYDIS_REGCLASS_DEBUG:
			case ZYDIS_REGCLASS_TEST:
				return true;
			default:
				break;
			}
	return false;
}

static enum x86_class branch_class(const ZydisDecodedInstruction *insn,
				   const ZydisDecodedOperand *ops)
{
	bool relative = ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && insn->raw.imm[0].is_relative;

	if (insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return X86_CLASS_SYSTEM;
	switch (insn->mnemonic) {
	case ZYDIS_MNEMONIC_CALL: return relative ? X86_CLASS_CALL : X86_CLASS_CALL_INDIRECT;
	case ZYDIS_MNEMONIC_JMP: return relative ? X86_CLASS_JMP : X86_CLASS_JMP_INDIRECT;
	case ZYDIS_MNEMONIC_RET: return X86_CLASS_RET;
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ: return X86_CLASS_LOOP;
	default:
		return insn->meta.category == ZYDIS_CATEGORY_COND_BR ? X86_CLASS_JCC
								     : X86_CLASS_SYSTEM;
	}
}

static enum x86_class stack_class(const ZydisDecodedInstruction *insn,
				  const ZydisDecodedOperand *ops)
{
	bool push = insn->mnemonic == ZYDIS_MNEMONIC_PUSH;
	bool pop = insn->mnemonic == ZYDIS_MNEMONIC_POP;

	if (push && ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return X86_CLASS_PUSH_IMMEDIATE;
	if (push && ops[0].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
		return X86_CLASS_PUSH_RM;
	if (ops[0].encoding != ZYDIS_OPERAND_ENCODING_OPCODE)
		return X86_CLASS_SYSTEM;
	if (push)
		return X86_CLASS_PUSH;
	return pop ? X86_CLASS_POP : X86_CLASS_SYSTEM;
}

static enum x86_class class_of(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
	for (size_t i = 0; i < COUNT(classes); i++)
		if (classes[i].mnemonic == insn->mnemonic)
			return classes[i].class;
	if (is_hint(insn))
		return X86_CLASS_HINT;
	if (insn->mnemonic == ZYDIS_MNEMONIC_MOV &&
	    ZydisRegisterGetClass(ops[1].reg.value) == ZYDIS_REGCLASS_CONTROL)
		return X86_CLASS_READ_CONTROL;
	if (insn->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
		return X86_CLASS_SYSTEM;
	if (names_system_register(insn, ops))
		return insn->mnemonic == ZYDIS_MNEMONIC_MOV &&
				       ops[0].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM &&
				       insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT
			       ? X86_CLASS_READ_SEGMENT
			       : X86_CLASS_SYSTEM;
	switch (insn->meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR: return branch_class(insn, ops);
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_POP: return stack_class(insn, ops);
	case ZYDIS_CATEGORY_STRINGOP:
	case ZYDIS_CATEGORY_IOSTRINGOP: return X86_CLASS_STRING;
	case ZYDIS_CATEGORY_AVX2GATHER: return X86_CLASS_SCATTERED;
	default: break;
	}
	if (insn->raw.disp.size && !(insn->attributes & ZYDIS_ATTRIB_HAS_MODRM))
		return X86_CLASS_SYSTEM; /* MOV with an offset */
	if (insn->meta.category == ZYDIS_CATEGORY_BITBYTE &&
	    ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY && ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
		return X86_CLASS_BIT_STRING;
	for (size_t i = 0; i < COUNT(data_categories); i++)
		if (data_categories[i] == insn->meta.category)
			return X86_CLASS_DATA;
	return X86_CLASS_SYSTEM;
}

static bool ends_block(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
	switch (insn->meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_INTERRUPT: return true;
	default:
		return insn->mnemonic == ZYDIS_MNEMONIC_HLT ||
		       insn->mnemonic == ZYDIS_MNEMONIC_UD2 ||
		       (insn->mnemonic == ZYDIS_MNEMONIC_MOV &&
			ZydisRegisterGetClass(ops[0].reg.value) == ZYDIS_REGCLASS_CONTROL);
	}
}

static bool is_fpu(const ZydisDecodedInstruction *insn)
{
	const char *name = ZydisISAExtGetString(insn->meta.isa_ext);

	if (is_one_of(insn->mnemonic, no_fpu, COUNT(no_fpu)))
		return false;
	for (size_t i = 0; i < COUNT(fpu_extensions); i++)
		if (!strcmp(name, fpu_extensions[i]))
			return true;
	return false;
}

static void take_flags(struct x86_encoding *encoding, const ZydisDecodedInstruction *insn,
		       const ZydisDecodedOperand *ops)
{
	bool by_cl = false;
	bool conditional = insn->meta.category == ZYDIS_CATEGORY_STRINGOP;
	bool immediate = insn->raw.imm[0].size;
	bool shifts = insn->meta.category == ZYDIS_CATEGORY_SHIFT ||
		      insn->meta.category == ZYDIS_CATEGORY_ROTATE;
	uint8_t kept;

	if (!insn->cpu_flags)
		return;
	for (int i = 0; i < insn->operand_count; i++) {
		by_cl |= shifts && ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
			 ops[i].reg.value == ZYDIS_REGISTER_CL &&
			 ops[i].encoding == ZYDIS_OPERAND_ENCODING_NONE;
		conditional |= ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
			       ZydisRegisterGetClass(ops[i].reg.value) == ZYDIS_REGCLASS_FLAGS &&
			       ops[i].actions & ZYDIS_OPERAND_ACTION_CONDWRITE;
	}
	encoding->flags_read |= flag_mask(insn->cpu_flags->tested);
	/* what saves them, or a stack that they are saved on, is no operand */
	if (insn->meta.category == ZYDIS_CATEGORY_SYSCALL ||
	    insn->meta.category == ZYDIS_CATEGORY_INTERRUPT)
		encoding->flags_read |= X86_ALL_FLAGS;
	encoding->flags_written |= flag_mask(insn->cpu_flags->modified | insn->cpu_flags->set_0 |
					     insn->cpu_flags->set_1 | insn->cpu_flags->undefined);
	kept = flag_mask(insn->cpu_flags->undefined);
	for (size_t i = 0; i < COUNT(always_written); i++)
		if (always_written[i].mnemonic == insn->mnemonic)
			kept &= (uint8_t)~always_written[i].flags;
	if (shifts && !immediate && !by_cl)
		kept &= (uint8_t)~X86_OF; /* by one: the manuals define it */
	if (by_cl || conditional || is_one_of(insn->mnemonic, all_undefined, COUNT(all_undefined)))
		kept = encoding->flags_written;
	encoding->flags_kept |= kept;
	if (shifts && immediate)
		encoding->attributes |= X86_ENC_COUNTED | (ops[0].size == 8 ? X86_ENC_RM8 : 0);
}

static uint8_t immediate_kind(const ZydisDecodedInstruction *insn)
{
	bool relative = insn->raw.imm[0].is_relative;

	if (insn->raw.disp.size && !(insn->attributes & ZYDIS_ATTRIB_HAS_MODRM))
		return X86_IMM_MOFFS;
	if (insn->raw.imm[1].size)
		return insn->mnemonic == ZYDIS_MNEMONIC_ENTER ? X86_IMM_16_8 : X86_IMM_FAR;
	switch (insn->raw.imm[0].size) {
	case 0: return X86_IMM_NONE;
	case 8: return relative ? X86_IMM_REL8 : X86_IMM_8;
	case 16: return X86_IMM_16;
	case 32: return relative ? X86_IMM_RELZ : X86_IMM_Z;
	default: return X86_IMM_V;
	}
}

/* ---- encodings ---- */

static size_t put_vex(ZyanU8 *b, const struct place *place, int wide, int vvvv)
{
	b[0] = 0xc4;
	b[1] = (ZyanU8)(0xe0 | place->map);
	b[2] = (ZyanU8)(wide << 7 | (~vvvv & 15) << 3 | (place->kind == X86_KIND_VEX256) << 2 |
			place->pp);
	return 3;
}

static size_t put_legacy(ZyanU8 *b, const struct place *place, int rex, bool extra66)
{
	static const ZyanU8 pp_byte[4] = { 0, 0x66, 0xf3, 0xf2 };
	size_t n = 0;

	if (extra66)
		b[n++] = 0x66;
	if (place->pp)
		b[n++] = pp_byte[place->pp];
	if (rex)
		b[n++] = (ZyanU8)rex;
	if (place->map)
		b[n++] = 0x0f;
	if (place->map > 1)
		b[n++] = place->map == 2 ? 0x38 : 0x3a;
	return n;
}

static bool decode(const struct place *place, ZyanU8 *b, size_t n, int modrm,
		   ZydisDecodedInstruction *insn, ZydisDecodedOperand *ops)
{
	b[n++] = (ZyanU8)place->opcode;
	b[n++] = (ZyanU8)modrm;
	b[n] = (modrm & 0xc7) == 4 ? 0x38 : 0x20; /* SIB: VSIB forms need distinct registers */
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(place->not_64 ? &decoder_32 : &decoder_64, b, 15,
						   insn, ops)) &&
	       is_offered(insn);
}

static bool decode_legacy(const struct place *place, int modrm, bool extra66,
			  ZydisDecodedInstruction *insn, ZydisDecodedOperand *ops)
{
	ZyanU8 b[32] = { 0 };

	return decode(place, b, put_legacy(b, place, 0, extra66), modrm, insn, ops);
}

/* Does 66 say something else than that an operand has 16 bits? */
static bool fixed_66(const struct place *place, int modrm)
{
	ZydisDecodedInstruction with, without;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT], other[ZYDIS_MAX_OPERAND_COUNT];
	struct place none = *place;
	ZyanU8 b[32] = { 0 };
	size_t n;

	if (place->pp < 2) {
		none.pp = 0;
		if (!decode_legacy(&none, modrm, true, &with, ops))
			return true;
		for (int i = 0; i < with.raw.prefix_count; i++)
			if (with.raw.prefixes[i].value == 0x66 &&
			    with.raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
				return true;
		if (!decode_legacy(&none, modrm, false, &without, other))
			return false;
	} else {
		n = put_legacy(b, place, 0, true);
		if (!decode(place, b, n, modrm, &with, ops) ||
		    !decode_legacy(place, modrm, false, &without, other))
			return true;
	}
	for (int i = 0; i < with.operand_count_visible; i++)
		if (ops[i].size != other[i].size)
			return false;
	return with.mnemonic == without.mnemonic && with.raw.imm[0].size == without.raw.imm[0].size;
}

static bool exists_in_64(const struct place *place, int modrm, bool extra66,
			 const ZydisDecodedInstruction *insn)
{
	ZydisDecodedInstruction other;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct place long_mode = *place;

	long_mode.not_64 = false;
	return (place->opcode & 0xf0) != 0x40 &&
	       decode_legacy(&long_mode, modrm, extra66, &other, ops) &&
	       other.mnemonic == insn->mnemonic;
}

static void take(struct x86_encoding *encoding, const ZydisDecodedInstruction *insn,
		 const ZydisDecodedOperand *ops, int width)
{
	bool may_not_write = insn->mnemonic == ZYDIS_MNEMONIC_BSF ||
			     insn->mnemonic == ZYDIS_MNEMONIC_BSR; /* of zero */

	encoding->attributes |=
		X86_ENC_VALID | (insn->attributes & ZYDIS_ATTRIB_HAS_MODRM ? X86_ENC_MODRM : 0);
	if (insn->attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK)
		encoding->attributes |= X86_ENC_LOCKABLE;
	if (insn->attributes & ZYDIS_ATTRIB_HAS_MODRM &&
	    !has_operand(insn, ops, ZYDIS_OPERAND_ENCODING_MODRM_REG))
		encoding->attributes |= X86_ENC_GROUP;
	if (has_operand(insn, ops, ZYDIS_OPERAND_ENCODING_NDSNDD))
		encoding->attributes |= X86_ENC_VVVV;
	if (has_operand(insn, ops, ZYDIS_OPERAND_ENCODING_IS4))
		encoding->attributes |= X86_ENC_IS4;
	if (width == 0 || !encoding->immediate || immediate_kind(insn) == X86_IMM_V)
		encoding->immediate = immediate_kind(insn);
	encoding->class = class_of(insn, ops);
	encoding->operation = operation_of(insn);
	take_flags(encoding, insn, ops);
	for (int i = 0; i < insn->operand_count; i++) {
		if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    ops[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
			take_memory(encoding, insn, &ops[i], width);
		if (is_gpr(&ops[i]))
			take_operand(encoding, &ops[i], may_not_write);
		if (is_on_stack(&ops[i]))
			encoding->attributes |= X86_ENC_STACK;
	}
	if (encoding->class == X86_CLASS_DATA && !writes_hidden_gpr(insn, ops) &&
	    !(encoding->attributes & X86_ENC_VVVV_WRITE) &&
	    insn->meta.category != ZYDIS_CATEGORY_X87_ALU &&
	    insn->meta.category != ZYDIS_CATEGORY_FCMOV &&
	    !is_one_of(insn->mnemonic, not_plain, COUNT(not_plain)))
		encoding->attributes |= X86_ENC_PLAIN;
	if (ends_block(insn, ops))
		encoding->attributes |= X86_ENC_ENDS_BLOCK;
	if (is_fpu(insn))
		encoding->attributes |= X86_ENC_FPU;
}

/* Does VEX.W widen an operand in 64-bit code, and say nothing in other code? */
static bool wide_in_64_only(const ZyanU8 *b, const ZydisDecodedInstruction *insn,
			    const ZydisDecodedOperand *ops)
{
	ZydisDecodedInstruction other;
	ZydisDecodedOperand other_ops[ZYDIS_MAX_OPERAND_COUNT];

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_32, b, 15, &other, other_ops)))
		return false;
	for (int i = 0; i < insn->operand_count_visible; i++)
		if ((is_gpr(&ops[i]) || ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY) &&
		    ops[i].size != other_ops[i].size)
			return true;
	return insn->mnemonic != other.mnemonic;
}

/*
 * One encoding in one width (0 plain, 1 REX.W or VEX.W, 2 with 66): merges what Zydis says into *e;
 * false: not offered.
 */
static bool ask(struct x86_encoding *encoding, const struct place *place, int modrm, int width)
{
	bool exchange = !place->kind && !place->map && place->opcode == 0x90;
	int rex =
		exchange && !place->not_64 ? 0x41 : 0; /* 90 is XCHG with R8, or with RAX itself */

	if (width == 1)
		rex = 0x48;
	for (int vvvv = 0; vvvv < 2; vvvv++) {
		ZydisDecodedInstruction insn;
		ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
		ZyanU8 b[32] = { 0 };
		size_t n = place->kind ? put_vex(b, place, width == 1, vvvv)
				   : put_legacy(b, place, rex, width == 2);

		if ((place->kind && width == 2) || (!place->kind && vvvv) ||
		    (place->not_64 && width == 1))
			continue;
		if (exchange && place->pp == 2)
			/* instead of F3, which processors ignore before XCHG and Zydis does not */
			b[width == 2] = 0x3e;
		if (!decode(place, b, n, modrm, &insn, ops))
			continue;
		take(encoding, &insn, ops, width);
		if (place->not_64 && !exists_in_64(place, modrm, width == 2, &insn))
			encoding->attributes |= X86_ENC_NOT_64;
		if (place->kind && width == 1 && wide_in_64_only(b, &insn, ops))
			encoding->attributes |= X86_ENC_W_64;
		return true;
	}
	return false;
}

/*
 * The immediate of a 66 row is that of the row without: its 2 bytes may be X86_IMM_Z or X86_IMM_16.
 */
static void take_immediate_of_plain_row(struct x86_encoding *encoding, const struct place *place,
					int modrm)
{
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct place none = *place;

	none.pp = 0;
	if (!place->kind && place->pp == 1 && encoding->immediate == X86_IMM_16 &&
	    decode_legacy(&none, modrm, false, &insn, ops))
		encoding->immediate = immediate_kind(&insn);
	if (!place->kind && place->pp == 1 && encoding->immediate == X86_IMM_RELZ)
		encoding->immediate = X86_IMM_RELZ;
}

static struct x86_encoding variant(const struct place *place, int value)
{
	int reg = value / 9;
	int form = value % 9;
	int modrm = reg << 3 | (form ? REGISTER_FORM | (form - 1) : 0);
	struct x86_encoding encoding = { 0 };
	struct x86_encoding with_sib = { 0 };

	if (place->not_64 && form &&
	    (place->opcode == 0x62 || place->opcode == 0xc4 || place->opcode == 0xc5))
		return encoding; /* EVEX, VEX */
	for (int width = 0; width < (place->pp >= 2 ? 3 : 2); width++)
		encoding.widths |= (ZyanU8)(ask(&encoding, place, modrm, width) << width);
	take_immediate_of_plain_row(&encoding, place, modrm);
	if (!place->kind && !place->map && place->opcode == 0x90 && place->pp == 2)
		encoding.class = X86_CLASS_PAUSE; /* without REX.B: see x86_decode() */
	if (!place->kind && encoding.widths && fixed_66(place, modrm))
		encoding.attributes |= X86_ENC_FIXED_66;
	if (!encoding.widths && place->kind && !form) { /* gathers exist only with a SIB byte */
		for (int width = 0; width < 2; width++)
			with_sib.widths |=
				(ZyanU8)(ask(&with_sib, place, modrm | 4, width) << width);
		return with_sib;
	}
	return encoding.widths & 3 ? encoding : (struct x86_encoding){ 0 };
}

/* ---- the table ---- */

static uint16_t intern(const struct x86_encoding *encoding)
{
	for (size_t i = 0; i < encoding_count; i++)
		if (!memcmp(&encodings[i], encoding, sizeof(*encoding)))
			return (uint16_t)i;
	if (encoding_count == MAX_ENCODINGS)
		exit(1);
	encodings[encoding_count] = *encoding;
	return (uint16_t)encoding_count++;
}

static unsigned intern_run(const uint16_t *run, size_t count)
{
	for (size_t i = 0; i + count <= variant_count; i++)
		if (!memcmp(&variants[i], run, count * sizeof(*run)))
			return (unsigned)i;
	if (variant_count + count > MAX_VARIANT_NUMBERS)
		exit(1);
	memcpy(&variants[variant_count], run, count * sizeof(*run));
	variant_count += count;
	return (unsigned)(variant_count - count);
}

static unsigned row(const struct place *place)
{
	uint16_t all[VARIANTS], folded[FOLDED];
	bool same = true;
	bool rm_matters = false;

	for (int value = 0; value < VARIANTS; value++) {
		struct x86_encoding encoding = variant(place, value);

		all[value] = intern(&encoding);
		same &= all[value] == all[0];
		rm_matters |= value % 9 > 1 && all[value] != all[value - value % 9 + 1];
	}
	if (same)
		return (unsigned)all[0] << 2 | X86_ROW_SINGLE;
	for (int i = 0; i < FOLDED; i++)
		folded[i] = all[(i & 7) * 9 + (i >> 3)];
	return rm_matters ? intern_run(all, VARIANTS) << 2 | X86_ROW_BY_RM
			  : intern_run(folded, FOLDED) << 2 | X86_ROW_BY_REG;
}

/* Numbers of one map, 24 a line; false: all are 0 and nothing was printed. */
static bool print_rows(const char *index, struct place place)
{
	unsigned rows[256];
	unsigned used = 0;

	for (place.opcode = 0; place.opcode < 256; place.opcode++) {
		rows[place.opcode] = row(&place);
		used |= rows[place.opcode];
	}
	if (!used)
		return false;
	printf("%s = {", index);
	for (int op = 0; op < 256; op++)
		printf("%s%u,", op % 24 ? " " : "\n\t", rows[op]);
	printf("\n},\n");
	return true;
}

static void print_encoding(const struct x86_encoding *encoding)
{
	printf("\t{ 0x%x, { %d, %d, %d }, %d, %d, %d, 0x%x, 0x%x, 0x%x, %d },\n",
	       encoding->attributes, encoding->mem_bytes[0], encoding->mem_bytes[1],
	       encoding->mem_bytes[2], encoding->immediate, encoding->class, encoding->widths,
	       encoding->flags_read, encoding->flags_written, encoding->flags_kept,
	       encoding->operation);
}

int main(void)
{
	char index[40];

	ZydisDecoderInit(&decoder_64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderInit(&decoder_32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	printf("/* Made by tools/gen-decode-table.c (make decode-table): do not edit. */\n"
	       "#include \"decode_internal.h\"\n\n");
	printf("const uint16_t x86_decode_rows[X86_KINDS][4][4][256] = {\n");
	for (int kind = 0; kind < X86_KINDS; kind++)
		for (int map = kind ? 1 : 0; map < 4; map++)
			for (int pp = 0; pp < 4; pp++) {
				snprintf(index, sizeof(index), "[%d][%d][%d]", kind, map, pp);
				print_rows(index,
					   (struct place){ .kind = kind, .map = map, .pp = pp });
			}
	printf("};\n\nconst uint16_t x86_rows_not_64[4][256] = {\n");
	for (int pp = 0; pp < 4; pp++) {
		snprintf(index, sizeof(index), "[%d]", pp);
		print_rows(index, (struct place){ .not_64 = true, .pp = pp });
	}
	printf("};\n\nconst uint16_t x86_variants[%zu] = {", variant_count);
	for (size_t i = 0; i < variant_count; i++)
		printf("%s%u,", i % 24 ? " " : "\n\t", variants[i]);
	printf("\n};\n\n/* The fields in their order. */\nconst struct x86_encoding "
	       "x86_encodings[%zu] = {\n",
	       encoding_count);
	for (size_t i = 0; i < encoding_count; i++)
		print_encoding(&encodings[i]);
	printf("};\n");
	return 0;
}
