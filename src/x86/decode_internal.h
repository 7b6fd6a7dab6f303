/*
 * The instruction table behind decode.h: what every part asks about an instruction. Made by
 * tools/gen-decode-table.c, which asks Zydis about each encoding; committed as decode_table.c, so
 * that a build and a running engine need no decoder library.
 *
 * A new instruction: put its extension into `offered` in the generator. Give its mnemonic a row in
 * `classes` there if it is not of the class that its category has, and one in the lists beside it
 * if its flags or operands are not what Zydis says. Run `make decode-table` and commit the table.
 * tests/cpu/table_test.c compares its flags with Zydis, decode-table.sh the table with a fresh one.
 * What C executes (X86_CLASS_SYSTEM) also needs its case in engine/soft/insn.
 */
#pragma once

#include <stdint.h>

enum {
	X86_CF = 1,
	X86_PF = 2,
	X86_AF = 4,
	X86_ZF = 8,
	X86_SF = 16,
	X86_OF = 32,
	X86_ALL_FLAGS = 63
};

enum { X86_KIND_LEGACY, X86_KIND_VEX128, X86_KIND_VEX256, X86_KINDS };

/*
 * Who translates or executes it. Stack and control classes hold in 64-bit code; outside it most are
 * left to C.
 */
enum x86_class {
	X86_CLASS_SYSTEM,    /* left to C; so is whatever the generator does not know */
	X86_CLASS_DATA,      /* copied: registers renamed, memory operand rewritten */
	/* BT, BTS, BTR, BTC with a register: reach beyond the operand in memory */
	X86_CLASS_BIT_STRING,
	X86_CLASS_SCATTERED, /* several addresses: gathers, MASKMOVQ, MASKMOVDQU */
	X86_CLASS_STRING,    /* MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS */
	X86_CLASS_LEA,
	X86_CLASS_HINT,      /* nothing that a guest can see */
	X86_CLASS_JCC,
	X86_CLASS_JMP,
	X86_CLASS_JMP_INDIRECT,
	X86_CLASS_CALL,
	X86_CLASS_CALL_INDIRECT,
	X86_CLASS_RET,
	X86_CLASS_LOOP, /* LOOP, LOOPE, LOOPNE, JRCXZ */
	X86_CLASS_PUSH,
	X86_CLASS_PUSH_IMMEDIATE,
	X86_CLASS_PUSH_RM,
	X86_CLASS_POP,
	X86_CLASS_LEAVE,
	X86_CLASS_PUSHF,
	X86_CLASS_POPF,
	X86_CLASS_CLI,
	X86_CLASS_STI,
	X86_CLASS_CLAC,
	X86_CLASS_STAC,
	X86_CLASS_SWAPGS,
	X86_CLASS_READ_SEGMENT, /* MOV r/m, Sreg */
	X86_CLASS_RDTSC,
	X86_CLASS_RDTSCP,
	X86_CLASS_DIRECTION,    /* CLD, STD */
	X86_CLASS_FS_GS_BASE,   /* RDFSBASE, WRGSBASE and so on */
	X86_CLASS_READ_CONTROL, /* MOV r, CRn */
	X86_CLASS_SYSCALL,
	X86_CLASS_SYSRET,
	X86_CLASS_IRET,
	X86_CLASS_PAUSE,
	X86_CLASSES
};

enum {
	X86_ENC_VALID = 1u << 0,
	X86_ENC_MODRM = 1u << 1,
	X86_ENC_MEM_READ = 1u << 2,
	X86_ENC_MEM_WRITE = 1u << 3,
	X86_ENC_ADDRESS_ONLY =
		1u << 4, /* LEA and the like: the address is computed, nothing is accessed */
	X86_ENC_VSIB = 1u << 5,
	X86_ENC_REG_GPR = 1u << 6, /* modrm.reg names a general register */
	X86_ENC_RM_GPR = 1u << 7, /* modrm.rm names one in the register form */
	X86_ENC_VVVV_GPR = 1u << 8, /* VEX.vvvv names one */
	/* the low opcode bits name one: as x86_insn.rm, with its attributes */
	X86_ENC_OPCODE_GPR = 1u << 9,
	X86_ENC_LOCKABLE = 1u << 10,
	X86_ENC_REG_READ =
		1u << 11, /* of the general registers above; both where a write may not happen */
	X86_ENC_REG_WRITE = 1u << 12,
	X86_ENC_RM_READ = 1u << 13,
	X86_ENC_RM_WRITE = 1u << 14,
	X86_ENC_VVVV_READ = 1u << 15,
	X86_ENC_VVVV_WRITE = 1u << 16,
	X86_ENC_REG8 = 1u << 17, /* those are byte registers: without REX, 4 to 7 are AH to BH */
	X86_ENC_RM8 = 1u << 18, /* also of a shift's byte in memory */
	X86_ENC_ACCUMULATOR = 1u << 19, /* AL, AX, EAX, RAX is an operand that no field names */
	/* modrm.reg is part of the opcode: REX.R says nothing there */
	X86_ENC_GROUP = 1u << 20,
	X86_ENC_FIXED_66 =
		1u << 21, /* 66 selects an instruction or nothing, never a 16-bit operand */
	/* X86_CLASS_DATA that writes no general register but those above */
	X86_ENC_PLAIN = 1u << 22,
	X86_ENC_COUNTED =
		1u << 23, /* a shift: the masked immediate decides which flags are written */
	X86_ENC_ENDS_BLOCK = 1u << 24,
	X86_ENC_FPU = 1u << 25, /* x87, MMX, SSE or AVX state: #NM while CR0.TS is set */
	X86_ENC_NOT_64 = 1u << 26, /* not in 64-bit code */
	X86_ENC_W_64 = 1u << 27, /* VEX.W says something in 64-bit code only */
	X86_ENC_VVVV = 1u << 28, /* VEX.vvvv names a register; elsewhere it must be 1111b */
	X86_ENC_IS4 = 1u << 29, /* bits 7:4 of the immediate name a register */
	X86_ENC_ACCUMULATOR_WRITE = 1u << 30, /* that accumulator may be another afterwards */
	/* reads or writes at the stack pointer though no operand says so */
	X86_ENC_STACK = 1u << 31,
};

/* What it does, where somebody asks for more than its operands and flags. */
enum x86_operation {
	X86_OPERATION_OTHER,
	X86_OPERATION_ADD,
	X86_OPERATION_SUB,
	X86_OPERATION_INC,
	X86_OPERATION_DEC,
	X86_OPERATION_EXCHANGE, /* XCHG, locked without a prefix where it has memory */
	X86_OPERATION_MASKED, /* moves only the elements that a mask enables */
	/*
	 * depends on or changes more than registers, flags and memory: control words, tags and
	 * pointers of the x87, random numbers, caches
	 */
	X86_OPERATION_ENVIRONMENT,
};

enum {
	X86_IMM_NONE,
	X86_IMM_8,
	X86_IMM_16,    /* zero-extended, of any operand size */
	X86_IMM_Z,     /* 2 bytes with a 66 prefix, else 4 */
	X86_IMM_V,     /* MOV r, imm: 2, 4 or 8 bytes */
	X86_IMM_MOFFS, /* as wide as an address */
	X86_IMM_16_8,  /* ENTER */
	X86_IMM_FAR,   /* offset (2 or 4 bytes) and selector */
	X86_IMM_REL8,
	X86_IMM_RELZ, /* 4 bytes in 64-bit mode */
};

enum { X86_ROW_SINGLE, X86_ROW_BY_REG, X86_ROW_BY_RM };

/*
 * One encoding; mem_bytes and the bits of widths are indexed by width: plain, W, 66 beside F2 or
 * F3. flags_written holds the undefined ones, too; flags_kept those of them that may stay as they
 * were (x86_flags_kept()).
 */
struct x86_encoding {
	uint32_t attributes;
	uint8_t mem_bytes[3];
	uint8_t immediate;
	uint8_t class;
	uint8_t widths;
	uint8_t flags_read;
	uint8_t flags_written;
	uint8_t flags_kept;
	uint8_t operation; /* X86_OPERATION_* */
};

/*
 * [kind][map][prefix: none 66 F3 F2][opcode] = n << 2 | X86_ROW_*; 0 = not an instruction. A single
 * row's encoding is x86_encodings[n], the others' x86_encodings[x86_variants[n + ...]].
 * x86_rows_not_64 is the one-byte map outside 64-bit mode.
 */
extern const uint16_t x86_decode_rows[X86_KINDS][4][4][256];
extern const uint16_t x86_rows_not_64[4][256];
extern const uint16_t x86_variants[];
extern const struct x86_encoding x86_encodings[];
