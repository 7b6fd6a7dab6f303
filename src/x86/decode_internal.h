/* The table behind decode.h, shared with its generator (tools/gen-decode-table.c). */
#pragma once

#include <stdint.h>

enum { X86_CF = 1, X86_PF = 2, X86_AF = 4, X86_ZF = 8, X86_SF = 16, X86_OF = 32, X86_ALL_FLAGS = 63 };

enum { X86_KIND_LEGACY, X86_KIND_VEX128, X86_KIND_VEX256, X86_KINDS };

enum {
	X86_ENC_VALID = 1u << 0,
	X86_ENC_MODRM = 1u << 1,
	X86_ENC_MEM_READ = 1u << 2,
	X86_ENC_MEM_WRITE = 1u << 3,
	X86_ENC_ADDRESS_ONLY = 1u << 4, /* LEA and the like: the address is computed, nothing is accessed */
	X86_ENC_VSIB = 1u << 5,
	X86_ENC_REG_GPR = 1u << 6,    /* modrm.reg names a general register */
	X86_ENC_RM_GPR = 1u << 7,     /* modrm.rm names one in the register form */
	X86_ENC_VVVV_GPR = 1u << 8,   /* VEX.vvvv names one */
	X86_ENC_OPCODE_GPR = 1u << 9, /* the low opcode bits name one */
	X86_ENC_LOCKABLE = 1u << 10,
};

enum {
	X86_IMM_NONE,
	X86_IMM_8,
	X86_IMM_16,
	X86_IMM_Z,     /* 2 bytes with a 66 prefix, else 4 */
	X86_IMM_V,     /* MOV r, imm: 2, 4 or 8 bytes */
	X86_IMM_MOFFS, /* as wide as an address */
	X86_IMM_16_8,  /* ENTER */
	X86_IMM_REL8,
	X86_IMM_RELZ, /* 4 bytes in 64-bit mode */
};

enum { X86_ROW_SINGLE, X86_ROW_BY_REG, X86_ROW_BY_RM };

/* One encoding; mem_bytes and the bits of widths are indexed by width: plain, W, 66. */
struct x86_encoding {
	uint16_t attributes;
	uint8_t mem_bytes[3];
	uint8_t immediate;
	uint8_t widths;
	uint8_t flags_read;
	uint8_t flags_written;
};

/* [kind][map][prefix: none 66 F3 F2][opcode] = first encoding << 2 | X86_ROW_*; 0 = not an instruction. */
extern const unsigned short x86_decode_rows[X86_KINDS][4][4][256];
extern const struct x86_encoding x86_encodings[];
