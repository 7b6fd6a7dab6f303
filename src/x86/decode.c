/*
 * The decoder: prefixes, opcode map, row of the table, modrm and address, immediates.
 *
 * The table was made for 64-bit mode; what 16- and 32-bit code has beyond it (INC/DEC by one byte, PUSHA, far pointers ...)
 * stands in legacy_encoding(). Left out on purpose: 3DNow!, XOP, EVEX, which the CPUID policy never offers.
 */
#include "decode.h"

#include <errno.h>
#include <string.h>

struct cursor {
	const uint8_t *bytes;
	size_t available, at;
	bool short_of_bytes;
};

static uint8_t next(struct cursor *c)
{
	if (c->at >= c->available) {
		c->short_of_bytes = true;
		return 0;
	}
	return c->bytes[c->at++];
}

static uint64_t next_le(struct cursor *c, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)next(c) << (8 * i);
	return value;
}

static int64_t sign_extend(uint64_t value, unsigned bytes)
{
	unsigned shift = 64 - 8 * bytes;

	return bytes ? (int64_t)(value << shift) >> shift : 0;
}

struct prefixes {
	uint8_t rex, segment;
	bool address, any66;
};

static uint8_t take_prefixes(struct cursor *c, unsigned code_bits, struct x86_insn *insn, struct prefixes *p)
{
	for (;;) {
		uint8_t b = next(c);

		if (c->short_of_bytes)
			return 0;
		switch (b) {
		case 0x66: insn->prefix66 = true; break;
		case 0x67: p->address = true; break;
		case 0xf0: insn->lock = true; break;
		case 0xf2: insn->repne = true, insn->rep = false; break;
		case 0xf3: insn->rep = true, insn->repne = false; break;
		case 0x26: if (code_bits != 64) p->segment = X86_ES; break;
		case 0x2e: if (code_bits != 64) p->segment = X86_CS; break;
		case 0x36: if (code_bits != 64) p->segment = X86_SS; break;
		case 0x3e: if (code_bits != 64) p->segment = X86_DS; break;
		case 0x64: p->segment = X86_FS; break;
		case 0x65: p->segment = X86_GS; break;
		default:
			if (code_bits != 64 || (b & 0xf0) != 0x40)
				return b;
			p->rex = b;
			b = next(c);
			if ((b & 0xf0) == 0x40 || b == 0x66 || b == 0x67 || b == 0xf0 || b == 0xf2 || b == 0xf3 || b == 0x26 ||
			    b == 0x2e || b == 0x36 || b == 0x3e || b == 0x64 || b == 0x65) {
				p->rex = 0; /* a REX counts only right before the opcode */
				c->at--;
				continue;
			}
			return b;
		}
	}
}

static void take_vex(struct cursor *c, uint8_t first, struct x86_insn *insn, struct prefixes *p)
{
	uint8_t b1 = next(c), b2 = first == 0xc5 ? b1 : next(c);

	p->rex = 0x40 | (~b1 >> 5 & 4); /* R */
	insn->map = 1;
	if (first == 0xc4) {
		p->rex |= (~b1 >> 5 & 3) | (b2 >> 4 & 8); /* X, B, W */
		insn->map = b1 & 31;
	}
	insn->vvvv = ~b2 >> 3 & 15;
	insn->kind = b2 & 4 ? X86_KIND_VEX256 : X86_KIND_VEX128;
	insn->pp = b2 & 3;
	insn->opcode = next(c);
}

static void take_opcode(struct cursor *c, uint8_t b, struct x86_insn *insn)
{
	insn->map = 0;
	if (b == 0x0f) {
		b = next(c);
		insn->map = 1;
		if (b == 0x38 || b == 0x3a) {
			insn->map = b == 0x38 ? 2 : 3;
			b = next(c);
		}
	}
	insn->opcode = b;
	insn->pp = insn->repne ? 3 : insn->rep ? 2 : insn->prefix66 ? 1 : 0;
}

/* Does the operand size prefix select a SIMD form (rather than a 16-bit operand) for this opcode? */
static bool simd_opcode(const struct x86_insn *insn)
{
	uint8_t op = insn->opcode;

	if (insn->map == 2)
		return op < 0xf0;
	if (insn->map == 3)
		return true;
	return insn->map == 1 && ((op >= 0x10 && op <= 0x17) || (op >= 0x28 && op <= 0x2f) || (op >= 0x50 && op <= 0x7f) ||
				  op == 0xc2 || (op >= 0xc4 && op <= 0xc6) || op >= 0xd0);
}

/* Encodings that exist only outside 64-bit mode; false when the table decides. */
static bool legacy_encoding(const struct x86_insn *insn, struct x86_encoding *e)
{
	uint8_t op = insn->opcode;

	memset(e, 0, sizeof(*e));
	e->attributes = X86_ENC_VALID;
	e->widths = 7;
	if (insn->map)
		return false;
	if (op >= 0x40 && op <= 0x4f) {
		e->attributes |= X86_ENC_OPCODE_GPR;
		e->flags_written = X86_ALL_FLAGS & ~X86_CF;
		return true;
	}
	switch (op) {
	case 0x06: case 0x07: case 0x0e: case 0x16: case 0x17: case 0x1e: case 0x1f: case 0x60: case 0x61: case 0xce: case 0xd6:
		return true;
	case 0x27: case 0x2f: case 0x37: case 0x3f:
		e->flags_read = X86_CF | X86_AF;
		e->flags_written = X86_ALL_FLAGS;
		return true;
	case 0x62: case 0x63: case 0xc4: case 0xc5:
		e->attributes |= X86_ENC_MODRM;
		e->flags_written = op == 0x63 ? X86_ZF : 0;
		return true;
	case 0x9a: case 0xea:
		e->immediate = X86_IMM_16_8; /* far pointer: read specially */
		return true;
	case 0xd4: case 0xd5:
		e->immediate = X86_IMM_8;
		e->flags_written = X86_ALL_FLAGS;
		return true;
	default:
		return false;
	}
}

static const struct x86_encoding *look_up(const struct x86_insn *insn, uint8_t modrm)
{
	unsigned row = x86_decode_rows[insn->kind][insn->map][insn->pp][insn->opcode];
	unsigned reg = modrm >> 3 & 7, form = modrm >> 6 == 3;

	switch (row & 3) {
	case X86_ROW_BY_REG:
		return &x86_encodings[(row >> 2) + reg + 8 * form];
	case X86_ROW_BY_RM:
		return &x86_encodings[(row >> 2) + reg * 9 + (form ? 1 + (modrm & 7) : 0)];
	default:
		return &x86_encodings[row >> 2];
	}
}

/* Opcodes whose modrm.reg is part of the opcode: REX.R says nothing there. */
static bool is_group(const struct x86_insn *i)
{
	uint8_t op = i->opcode;

	if (i->map == 0)
		return (op >= 0x80 && op <= 0x83) || op == 0x8f || (op & 0xfe) == 0xc0 || (op & 0xfe) == 0xc6 || (op >= 0xd0 && op <= 0xd3) ||
		       (op >= 0xd8 && op <= 0xdf) || (op & 0xfe) == 0xf6 || op >= 0xfe;
	if (i->map == 1)
		return op <= 0x01 || op == 0x0d || (op >= 0x18 && op <= 0x1f) || (op >= 0x71 && op <= 0x73) || op == 0xae || op == 0xba || op == 0xc7;
	return i->kind && i->map == 2 && op == 0xf3;
}

static void address16(struct cursor *c, uint8_t modrm, struct x86_insn *insn)
{
	static const uint8_t bases[8] = { 3, 3, 5, 5, 6, 7, 5, 3 };
	unsigned rm = modrm & 7;

	insn->base = bases[rm];
	insn->index = rm < 4 ? (rm & 1 ? 7 : 6) : X86_NO_REGISTER;
	insn->segment = rm == 2 || rm == 3 || rm == 6 ? X86_SS : X86_DS;
	if (insn->mod == 0 && rm == 6) {
		insn->base = X86_NO_REGISTER;
		insn->segment = X86_DS;
		insn->disp = (int16_t)next_le(c, 2);
	} else if (insn->mod) {
		insn->disp = (int32_t)sign_extend(next_le(c, insn->mod), insn->mod);
	}
}

static void address32(struct cursor *c, uint8_t modrm, uint8_t rex, unsigned code_bits, struct x86_insn *insn)
{
	unsigned rm = modrm & 7;

	insn->base = (uint8_t)(rm | (rex & 1) << 3);
	if (rm == 4) {
		uint8_t sib = next(c);

		insn->scale_log2 = sib >> 6;
		insn->index = (uint8_t)((sib >> 3 & 7) | (rex & 2) << 2);
		insn->base = (uint8_t)((sib & 7) | (rex & 1) << 3);
		if (insn->index == 4 && !(insn->encoding.attributes & X86_ENC_VSIB))
			insn->index = X86_NO_REGISTER;
		rm = sib & 7;
		if (rm == 5 && insn->mod == 0)
			insn->base = X86_NO_REGISTER;
	} else if (rm == 5 && insn->mod == 0) {
		insn->base = code_bits == 64 ? X86_RIP : X86_NO_REGISTER;
	}
	insn->segment = insn->base == 4 || insn->base == 5 ? X86_SS : X86_DS;
	if (insn->mod == 1)
		insn->disp = (int8_t)next(c);
	else if (insn->mod == 2 || rm == 5)
		if (insn->mod != 1)
			insn->disp = (int32_t)next_le(c, 4);
}

static void take_immediate(struct cursor *c, unsigned code_bits, struct x86_insn *insn)
{
	unsigned z = insn->operand_bytes == 2 ? 2 : 4;

	if (!insn->kind && insn->map == 0 && insn->opcode >= 0xb8 && insn->opcode <= 0xbf)
		insn->encoding.immediate = X86_IMM_V; /* the row cannot tell it from Z */
	switch (insn->encoding.immediate) {
	case X86_IMM_8: case X86_IMM_REL8: insn->imm_bytes = 1; break;
	case X86_IMM_16:
		insn->imm_bytes = insn->map == 0 && (insn->opcode == 0xc2 || insn->opcode == 0xca) ? 2 : (uint8_t)z;
		break;
	case X86_IMM_Z: insn->imm_bytes = (uint8_t)z; break;
	case X86_IMM_V: insn->imm_bytes = insn->operand_bytes; break;
	case X86_IMM_RELZ: insn->imm_bytes = code_bits == 64 ? 4 : (uint8_t)z; break;
	case X86_IMM_MOFFS: insn->imm_bytes = insn->address_bytes; break;
	case X86_IMM_16_8:
		if (insn->opcode != 0xc8) { /* far pointer: offset, then selector in disp */
			insn->imm = next_le(c, z);
			insn->disp = (int32_t)next_le(c, 2);
			insn->imm_bytes = (uint8_t)(z + 2);
			return;
		}
		insn->imm = next_le(c, 2);
		insn->imm2 = next(c);
		insn->imm_bytes = 3;
		return;
	default: return;
	}
	insn->imm = next_le(c, insn->imm_bytes);
	if (insn->encoding.immediate != X86_IMM_MOFFS && !(insn->map == 0 && (insn->opcode == 0xc2 || insn->opcode == 0xca)))
		insn->imm = (uint64_t)sign_extend(insn->imm, insn->imm_bytes);
}

static void set_sizes(struct x86_insn *insn, const struct prefixes *p, unsigned code_bits)
{
	if (code_bits == 64)
		insn->address_bytes = p->address ? 4 : 8;
	else
		insn->address_bytes = (code_bits == 32) != p->address ? 4 : 2;
	insn->operand_bytes = insn->rex_w ? 8 : (code_bits == 16) != insn->prefix66 ? 2 : 4;
}

int x86_decode(const uint8_t *bytes, size_t available, unsigned code_bits, struct x86_insn *insn)
{
	struct cursor c = { bytes, available < X86_INSN_MAX_BYTES ? available : X86_INSN_MAX_BYTES, 0, false };
	struct prefixes p = { .segment = X86_NO_REGISTER };
	uint8_t b, modrm = 0;

	memset(insn, 0, sizeof(*insn));
	insn->index = insn->base = X86_NO_REGISTER;
	insn->segment = X86_DS;
	b = take_prefixes(&c, code_bits, insn, &p);
	if ((b == 0xc4 || b == 0xc5) && !c.short_of_bytes && (code_bits == 64 || (c.at < c.available && bytes[c.at] >= 0xc0))) {
		if (insn->lock || insn->rep || insn->repne || insn->prefix66 || p.rex)
			return -EINVAL;
		take_vex(&c, b, insn, &p);
		if (insn->map > 3 || insn->map == 0)
			return c.short_of_bytes ? -EAGAIN : -EINVAL;
	} else {
		if (b == 0xc4 || b == 0xc5)
			if (c.at >= c.available)
				c.short_of_bytes = true;
		take_opcode(&c, b, insn);
	}
	insn->rex = p.rex && !insn->kind;
	insn->rex_w = p.rex & 8;
	set_sizes(insn, &p, code_bits);
	/* In 16-bit code the prefix means the opposite, but for SIMD. F2 and F3 change nothing of that. */
	insn->canonical66 = code_bits == 16 && !insn->kind && !simd_opcode(insn) ? insn->operand_bytes == 2 : insn->prefix66;
	if (!insn->kind && insn->pp < 2)
		insn->pp = insn->canonical66;
	if (c.at < c.available)
		modrm = bytes[c.at];
	insn->encoding = *look_up(insn, modrm);
	if (code_bits != 64 && !insn->kind) {
		struct x86_encoding legacy;

		if (legacy_encoding(insn, &legacy))
			insn->encoding = legacy;
	}
	if (insn->encoding.attributes & X86_ENC_MODRM || !(insn->encoding.attributes & X86_ENC_VALID)) {
		if (c.at >= c.available)
			c.short_of_bytes = true;
	}
	if (c.short_of_bytes)
		return available < X86_INSN_MAX_BYTES ? -EAGAIN : -E2BIG;
	if (!(insn->encoding.attributes & X86_ENC_VALID))
		return -EINVAL;
	if (insn->encoding.attributes & X86_ENC_MODRM) {
		next(&c);
		insn->has_modrm = true;
		insn->mod = modrm >> 6;
		insn->reg = (uint8_t)((modrm >> 3 & 7) | (is_group(insn) ? 0 : (p.rex & 4) << 1));
		insn->rm = (uint8_t)((modrm & 7) | (p.rex & 1) << 3);
		if (insn->map == 1 && insn->opcode >= 0x20 && insn->opcode <= 0x23)
			insn->mod = 3; /* MOV CR/DR ignore mod */
		if (code_bits != 64 && !insn->kind && insn->map == 0 && insn->opcode == 0x62 && insn->mod == 3)
			return -EINVAL; /* EVEX */
		if (insn->mod != 3) {
			if (insn->address_bytes == 2)
				address16(&c, modrm, insn);
			else
				address32(&c, modrm, p.rex, code_bits, insn);
		}
	} else {
		insn->rm = (uint8_t)((insn->opcode & 7) | (p.rex & 1) << 3);
	}
	if (p.segment != X86_NO_REGISTER) {
		insn->segment = p.segment;
		insn->segment_override = true;
	}
	take_immediate(&c, code_bits, insn);
	if (c.short_of_bytes)
		return available < X86_INSN_MAX_BYTES ? -EAGAIN : -E2BIG;
	insn->mem_bytes = insn->encoding.mem_bytes[insn->rex_w ? 1 : insn->pp >= 2 && insn->canonical66 ? 2 : 0];
	insn->length = (uint8_t)c.at;
	if (insn->lock && !(insn->encoding.attributes & X86_ENC_LOCKABLE && x86_insn_has_memory(insn)))
		return -EINVAL;
	return 0;
}
