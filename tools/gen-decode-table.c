/*
 * Makes src/x86/decode_table.c: the attributes of every instruction encoding that Umbra offers to guests, asked of Zydis one
 * encoding at a time. Run by `make decode-table` when the offered set changes; the result is committed, so that a build and a
 * running engine need no decoder library.
 *
 * A row is (kind, map, prefix, opcode). Its 72 variants are modrm.reg x {memory, register 0..7}; rows whose variants agree are
 * stored once, those that differ by (reg, memory/register) in 16 entries, the rest in 72. See src/x86/decode.h for the fields.
 */
#include <Zydis/Zydis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/decode_internal.h"

enum { VARIANTS = 72 };

static ZydisDecoder decoder;
static struct x86_encoding pool[16384];
static size_t pool_used = 1; /* entry 0: not an instruction */

/* Extensions that the CPUID policy never offers; everything else that Zydis knows is x86-64-v3 or a system instruction. */
static const char *const hidden[] = {
	"AVX512EVEX", "AVX512VEX", "XOP", "FMA4", "TBM", "AMX_TILE", "AMX_INT8", "AMX_BF16", "3DNOW", "SSE4A", "VTX", "SVM", "CET",
	"MPX", "AVX2GATHER_KNC", "AVX_GFNI", "GFNI", "VAES", "VPCLMULQDQ", "MOVDIR", "RTM", "LWP", "PADLOCK", "KNC", "KNCE", "KNCV",
	"PKU", "WAITPKG", "UINTR", "TSX_LDTRK", "HRESET", "SERIALIZE", "ENQCMD", "PCONFIG", "SGX", "SGX_ENCLV", "SMX", "RDPRU",
	"CLDEMOTE", "PTWRITE", "MCOMMIT", "SNP", "INVLPGB", "WBNOINVD", "AVX_VNNI", "CLZERO", "MONITOR", "MONITORX", "KEYLOCKER",
	"KEYLOCKER_WIDE", "AVX_VNNI_INT8", "AVX_IFMA", "AVX_NE_CONVERT", "CMPCCXADD", "RAO_INT", "MSRLIST", "PBNDKB", "TDX",
	"XSAVES", "RDPID", "CLWB", NULL,
};

static int offered(const ZydisDecodedInstruction *insn)
{
	const char *name = ZydisISAExtGetString(insn->meta.isa_ext);

	if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F && insn->opcode == 0x0d)
		return 1; /* PREFETCHW is filed under 3DNow! */
	if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F && insn->opcode == 0x1e)
		return 1; /* ENDBR64: a hint without CET */
	if (insn->mnemonic == ZYDIS_MNEMONIC_VMCALL || insn->mnemonic == ZYDIS_MNEMONIC_VMMCALL)
		return 1; /* hypercalls, filed under VT-x and SVM */
	for (size_t i = 0; hidden[i]; i++)
		if (!strcmp(name, hidden[i]))
			return 0;
	return 1;
}

static unsigned flag_mask(ZydisAccessedFlagsMask flags)
{
	unsigned mask = 0;

	mask |= flags & ZYDIS_CPUFLAG_CF ? X86_CF : 0;
	mask |= flags & ZYDIS_CPUFLAG_PF ? X86_PF : 0;
	mask |= flags & ZYDIS_CPUFLAG_AF ? X86_AF : 0;
	mask |= flags & ZYDIS_CPUFLAG_ZF ? X86_ZF : 0;
	mask |= flags & ZYDIS_CPUFLAG_SF ? X86_SF : 0;
	mask |= flags & ZYDIS_CPUFLAG_OF ? X86_OF : 0;
	return mask;
}

static int is_gpr(const ZydisDecodedOperand *op)
{
	if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return 0;
	switch (ZydisRegisterGetClass(op->reg.value)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return 1;
	default:
		return 0;
	}
}

static void take_operand(struct x86_encoding *e, const ZydisDecodedOperand *op, int width_index)
{
	const unsigned reads = ZYDIS_OPERAND_ACTION_MASK_READ, writes = ZYDIS_OPERAND_ACTION_MASK_WRITE;

	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
		e->mem_bytes[width_index] = op->size / 8 > 255 ? 255 : op->size / 8;
		if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
			e->attributes |= X86_ENC_ADDRESS_ONLY;
		if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			e->attributes |= X86_ENC_VSIB;
		e->attributes |= (op->actions & reads ? X86_ENC_MEM_READ : 0) | (op->actions & writes ? X86_ENC_MEM_WRITE : 0);
	}
	if (!is_gpr(op))
		return;
	if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
		e->attributes |= X86_ENC_REG_GPR;
	if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
		e->attributes |= X86_ENC_RM_GPR;
	if (op->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD)
		e->attributes |= X86_ENC_VVVV_GPR;
	if (op->encoding == ZYDIS_OPERAND_ENCODING_OPCODE)
		e->attributes |= X86_ENC_OPCODE_GPR;
}

static unsigned immediate_kind(const ZydisDecodedInstruction *insn)
{
	unsigned bits = insn->raw.imm[0].size, second = insn->raw.imm[1].size;

	if (insn->raw.disp.size && !(insn->attributes & ZYDIS_ATTRIB_HAS_MODRM))
		return X86_IMM_MOFFS;
	if (second)
		return X86_IMM_16_8;
	switch (bits) {
	case 0: return X86_IMM_NONE;
	case 8: return insn->raw.imm[0].is_relative ? X86_IMM_REL8 : X86_IMM_8;
	case 16: return X86_IMM_16; /* told from X86_IMM_Z by the caller: a 66 prefix */
	case 32: return insn->raw.imm[0].is_relative ? X86_IMM_RELZ : X86_IMM_Z;
	default: return X86_IMM_V;
	}
}

static size_t put_vex(ZyanU8 *b, int l, int map, int pp, int w, int vvvv)
{
	static const int pp_field[4] = { 0, 1, 2, 3 };

	b[0] = 0xc4;
	b[1] = (ZyanU8)(0xe0 | map);
	b[2] = (ZyanU8)(w << 7 | (~vvvv & 15) << 3 | l << 2 | pp_field[pp]);
	return 3;
}

static size_t put_legacy(ZyanU8 *b, int map, int pp, int w, int extra66)
{
	static const ZyanU8 pp_byte[4] = { 0, 0x66, 0xf3, 0xf2 };
	size_t n = 0;

	if (extra66)
		b[n++] = 0x66;
	if (pp)
		b[n++] = pp_byte[pp];
	if (w)
		b[n++] = 0x48;
	if (map)
		b[n++] = 0x0f;
	if (map == 2)
		b[n++] = 0x38;
	if (map == 3)
		b[n++] = 0x3a;
	return n;
}

/* One encoding in one width (0 plain, 1 REX.W or VEX.W, 2 with 66): merges what Zydis says into *e; 0 when it is not offered. */
static int ask(struct x86_encoding *e, int kind, int map, int pp, int opcode, int modrm, int width)
{
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

	for (int vvvv = 0; vvvv < 2; vvvv++) {
		ZyanU8 b[32] = { 0 };
		size_t n = kind ? put_vex(b, kind == X86_KIND_VEX256, map, pp, width == 1, vvvv) : put_legacy(b, map, pp, width == 1, width == 2);

		if ((kind && width == 2) || (!kind && vvvv))
			continue;
		b[n++] = (ZyanU8)opcode;
		b[n++] = (ZyanU8)modrm;
		b[n] = 0x20; /* SIB: VSIB forms need distinct registers */
		if ((modrm & 0xc7) == 4)
			b[n] = 0x38;
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, b, 15, &insn, ops)) || !offered(&insn))
			continue;
		e->attributes |= X86_ENC_VALID | (insn.attributes & ZYDIS_ATTRIB_HAS_MODRM ? X86_ENC_MODRM : 0);
		if (insn.attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK)
			e->attributes |= X86_ENC_LOCKABLE;
		if (width != 2 && (width == 0 || !e->immediate))
			e->immediate = (ZyanU8)immediate_kind(&insn);
		if (insn.cpu_flags) {
			e->flags_read |= flag_mask(insn.cpu_flags->tested);
			e->flags_written |= flag_mask(insn.cpu_flags->modified | insn.cpu_flags->set_0 | insn.cpu_flags->set_1 | insn.cpu_flags->undefined);
		}
		for (int i = 0; i < insn.operand_count; i++)
			take_operand(e, &ops[i], width);
		return 1;
	}
	return 0;
}

static struct x86_encoding variant(int kind, int map, int pp, int opcode, int v)
{
	int reg = v / 9, form = v % 9;
	int modrm = reg << 3 | (form ? 0xc0 | (form - 1) : 0);
	struct x86_encoding e = { 0 }, with_sib = { 0 };

	for (int width = 0; width < (pp >= 2 ? 3 : 2); width++)
		e.widths |= (ZyanU8)(ask(&e, kind, map, pp, opcode, modrm, width) << width);
	if (!e.widths && kind && !form) { /* gathers exist only with a SIB byte */
		for (int width = 0; width < 2; width++)
			with_sib.widths |= (ZyanU8)(ask(&with_sib, kind, map, pp, opcode, modrm | 4, width) << width);
		return with_sib;
	}
	return e.widths & 3 ? e : (struct x86_encoding){ 0 };
}

static unsigned intern(const struct x86_encoding *run, size_t count)
{
	for (size_t i = 0; i + count <= pool_used; i++)
		if (!memcmp(&pool[i], run, count * sizeof(*run)))
			return (unsigned)i;
	if (pool_used + count > sizeof(pool) / sizeof(pool[0]))
		exit(1);
	memcpy(&pool[pool_used], run, count * sizeof(*run));
	pool_used += count;
	return (unsigned)(pool_used - count);
}

static unsigned row(int kind, int map, int pp, int opcode)
{
	struct x86_encoding all[VARIANTS], folded[16];
	int same = 1, rm_matters = 0;

	for (int v = 0; v < VARIANTS; v++) {
		all[v] = variant(kind, map, pp, opcode, v);
		same &= !memcmp(&all[v], &all[0], sizeof(all[0]));
		rm_matters |= v % 9 > 1 && memcmp(&all[v], &all[v - v % 9 + 1], sizeof(all[0]));
	}
	if (same)
		return intern(all, 1) << 2 | X86_ROW_SINGLE;
	for (int i = 0; i < 16; i++)
		folded[i] = all[(i & 7) * 9 + (i >> 3)];
	return rm_matters ? intern(all, VARIANTS) << 2 | X86_ROW_BY_RM : intern(folded, 16) << 2 | X86_ROW_BY_REG;
}

int main(void)
{
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	printf("/* Made by tools/gen-decode-table.c: do not edit. */\n#include \"decode_internal.h\"\n\n");
	printf("const unsigned short x86_decode_rows[X86_KINDS][4][4][256] = {\n");
	for (int kind = 0; kind < X86_KINDS; kind++)
		for (int map = 0; map < 4; map++)
			for (int pp = 0; pp < 4; pp++) {
				int used = 0;
				unsigned rows[256];

				for (int op = 0; op < 256; op++)
					used |= (int)(rows[op] = kind && !map ? 0 : row(kind, map, pp, op));
				if (!used)
					continue;
				printf("[%d][%d][%d] = {", kind, map, pp);
				for (int op = 0; op < 256; op++)
					printf("%s%u,", op % 24 ? " " : "\n\t", rows[op]);
				printf("\n},\n");
			}
	printf("};\n\nconst struct x86_encoding x86_encodings[%zu] = {\n", pool_used);
	for (size_t i = 0; i < pool_used; i++)
		printf("\t{0x%x, {%d, %d, %d}, %d, %d, 0x%x, 0x%x},\n", pool[i].attributes, pool[i].mem_bytes[0], pool[i].mem_bytes[1],
		       pool[i].mem_bytes[2], pool[i].immediate, pool[i].widths, pool[i].flags_read, pool[i].flags_written);
	printf("};\n");
	return 0;
}
