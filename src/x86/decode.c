/*
 * The decoder: prefixes, opcode map, row of the table (decode_internal.h), modrm and address,
 * immediates.
 *
 * 16- and 32-bit code has its own one-byte map and shares the others. Left out on purpose: 3DNow!,
 * XOP, EVEX, which the CPUID policy never offers.
 */
#include "decode.h"

#include <errno.h>
#include <string.h>

#include "lib/speculation.h"

struct cursor {
	const uint8_t *bytes;
	size_t available, at;
	bool short_of_bytes;
};

static uint8_t next(struct cursor *cursor)
{
	if (cursor->at >= cursor->available) {
		cursor->short_of_bytes = true;
		return 0;
	}
	return cursor->bytes[cursor->at++];
}

static uint64_t next_le(struct cursor *cursor, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)next(cursor) << (8 * i);
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

static uint8_t take_prefixes(struct cursor *cursor, unsigned code_bits, struct x86_insn *insn,
			     struct prefixes *prefixes)
{
	for (;;) {
		uint8_t b = next(cursor);

		if (cursor->short_of_bytes)
			return 0;
		switch (b) {
		case 0x66: insn->prefix66 = true; break;
		case 0x67: prefixes->address = true; break;
		case 0xf0: insn->lock = true; break;
		case 0xf2: insn->repne = true, insn->rep = false; break;
		case 0xf3: insn->rep = true, insn->repne = false; break;
		case 0x26:
			if (code_bits != 64)
				prefixes->segment = X86_ES;
			break;
		case 0x2e:
			if (code_bits != 64)
				prefixes->segment = X86_CS;
			break;
		case 0x36:
			if (code_bits != 64)
				prefixes->segment = X86_SS;
			break;
		case 0x3e:
			if (code_bits != 64)
				prefixes->segment = X86_DS;
			break;
		case 0x64: prefixes->segment = X86_FS; break;
		case 0x65: prefixes->segment = X86_GS; break;
		default:
			if (code_bits != 64 || (b & 0xf0) != 0x40)
				return b;
			prefixes->rex = b;
			b = next(cursor);
			if ((b & 0xf0) == 0x40 || b == 0x66 || b == 0x67 || b == 0xf0 ||
			    b == 0xf2 || b == 0xf3 || b == 0x26 || b == 0x2e || b == 0x36 ||
			    b == 0x3e || b == 0x64 || b == 0x65) {
				prefixes->rex = 0; /* a REX counts only right before the opcode */
				cursor->at--;
				continue;
			}
			return b;
		}
	}
}

static void take_vex(struct cursor *cursor, uint8_t first, unsigned code_bits,
		     struct x86_insn *insn, struct prefixes *prefixes)
{
	uint8_t b1 = next(cursor);
	uint8_t b2 = first == 0xc5 ? b1 : next(cursor);

	prefixes->rex = 0x40 | (~b1 >> 5 & 4); /* R */
	insn->map = 1;
	if (first == 0xc4) {
		prefixes->rex |= (~b1 >> 5 & 3) | (b2 >> 4 & 8); /* X, B, W */
		insn->map = b1 & 31;
	}
	insn->vvvv = ~b2 >> 3 & 15;
	if (code_bits != 64)
		prefixes->rex &= (uint8_t)~1; /* there are eight registers: B says nothing */
	insn->kind = b2 & 4 ? X86_KIND_VEX256 : X86_KIND_VEX128;
	insn->pp = b2 & 3;
	insn->opcode = next(cursor);
}

/* As VEX.pp numbers them: 0 none, 1 66, 2 F3, 3 F2. */
static uint8_t mandatory_prefix(const struct x86_insn *insn)
{
	if (insn->repne)
		return 3;
	if (insn->rep)
		return 2;
	return insn->prefix66 ? 1 : 0;
}

static void take_opcode(struct cursor *cursor, uint8_t b, struct x86_insn *insn)
{
	insn->map = 0;
	if (b == 0x0f) {
		b = next(cursor);
		insn->map = 1;
		if (b == 0x38 || b == 0x3a) {
			insn->map = b == 0x38 ? 2 : 3;
			b = next(cursor);
		}
	}
	insn->opcode = b;
	insn->pp = mandatory_prefix(insn);
}

static const struct x86_encoding *look_up(const struct x86_insn *insn, unsigned pp, bool not_64,
					  uint8_t modrm)
{
	enum { MAPS = 4 };
	uint64_t map = speculation_bound(insn->map, MAPS);
	unsigned row = not_64 ? x86_rows_not_64[pp][insn->opcode]
			      : x86_decode_rows[insn->kind][map][pp][insn->opcode];
	unsigned first = row >> 2;
	unsigned reg = modrm >> 3 & 7;
	bool register_form = modrm >> 6 == 3;

	switch (row & 3) {
	case X86_ROW_BY_REG:
		return &x86_encodings[x86_variants[first + reg + 8 * register_form]];
	case X86_ROW_BY_RM:
		return &x86_encodings[x86_variants[first + reg * 9 +
						   (register_form ? 1 + (modrm & 7) : 0)]];
	default:
		return &x86_encodings[first];
	}
}

/* W and vvvv, where the row says what they mean. */
static void take_vex_fields(struct x86_insn *insn, unsigned code_bits)
{
	const struct x86_encoding *encoding = &insn->encoding;

	if (code_bits != 64 && encoding->attributes & X86_ENC_W_64 && insn->rex_w) {
		insn->rex_w = false;
		insn->operand_bytes = 4;
	}
	if (!(encoding->widths >> insn->rex_w & 1) ||
	    (insn->vvvv && !(encoding->attributes & X86_ENC_VVVV)))
		insn->encoding = x86_encodings[0];
	else if (code_bits != 64)
		insn->vvvv &= 7;
}

/*
 * The row, and with it what the canonical 64-bit encoding of the instruction has in place of the
 * guest's prefixes: pp and canonical66. In 16-bit code 66 means the opposite, but where it selects
 * an instruction; F2 and F3 change nothing of that.
 */
static void find_encoding(struct x86_insn *insn, unsigned code_bits, uint8_t modrm)
{
	bool not_64 = code_bits != 64 && !insn->kind && !insn->map;
	const struct x86_encoding *encoding = look_up(insn, insn->pp, not_64, modrm);

	insn->canonical66 = insn->prefix66;
	if (code_bits == 16 && !insn->kind && !(encoding->attributes & X86_ENC_FIXED_66)) {
		insn->canonical66 = insn->operand_bytes == 2;
		if (insn->pp < 2) {
			insn->pp = insn->canonical66;
			encoding = look_up(insn, insn->pp, not_64, modrm);
			if (encoding->attributes & X86_ENC_FIXED_66)
				encoding = &x86_encodings
						   [0]; /* only with the prefix that is not there */
		}
	}
	insn->encoding = *encoding;
	if (insn->kind)
		take_vex_fields(insn, code_bits);
}

static void address16(struct cursor *cursor, uint8_t modrm, struct x86_insn *insn)
{
	static const uint8_t bases[8] = { 3, 3, 5, 5, 6, 7, 5, 3 };
	static const uint8_t indexes[8] = { 6, 7, 6, 7, X86_NO_REGISTER, X86_NO_REGISTER,
					    X86_NO_REGISTER, X86_NO_REGISTER };
	unsigned rm = modrm & 7;

	insn->base = bases[rm];
	insn->index = indexes[rm];
	insn->segment = rm == 2 || rm == 3 || rm == 6 ? X86_SS : X86_DS;
	if (insn->mod == 0 && rm == 6) {
		insn->base = X86_NO_REGISTER;
		insn->segment = X86_DS;
		insn->disp = (int16_t)next_le(cursor, 2);
	} else if (insn->mod) {
		insn->disp = (int32_t)sign_extend(next_le(cursor, insn->mod), insn->mod);
	}
}

static void address32(struct cursor *cursor, uint8_t modrm, uint8_t rex, unsigned code_bits,
		      struct x86_insn *insn)
{
	unsigned rm = modrm & 7;

	insn->base = (uint8_t)(rm | (rex & 1) << 3);
	if (rm == 4) {
		uint8_t sib = next(cursor);

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
		insn->disp = (int8_t)next(cursor);
	else if (insn->mod == 2 || rm == 5)
		if (insn->mod != 1)
			insn->disp = (int32_t)next_le(cursor, 4);
}

static void take_far_pointer(struct cursor *cursor, struct x86_insn *insn, unsigned bytes)
{
	insn->imm = next_le(cursor, bytes);
	insn->disp = (int32_t)next_le(cursor, 2); /* the selector */
	insn->imm_bytes = (uint8_t)(bytes + 2);
}

static void take_immediate(struct cursor *cursor, unsigned code_bits, struct x86_insn *insn)
{
	unsigned bytes = insn->operand_bytes == 2 ? 2 : 4;

	switch (insn->encoding.immediate) {
	case X86_IMM_8: case X86_IMM_REL8: insn->imm_bytes = 1; break;
	case X86_IMM_16: insn->imm_bytes = 2; break;
	case X86_IMM_Z: insn->imm_bytes = (uint8_t)bytes; break;
	case X86_IMM_V: insn->imm_bytes = insn->operand_bytes; break;
	case X86_IMM_RELZ: insn->imm_bytes = code_bits == 64 ? 4 : (uint8_t)bytes; break;
	case X86_IMM_MOFFS: insn->imm_bytes = insn->address_bytes; break;
	case X86_IMM_FAR: take_far_pointer(cursor, insn, bytes); return;
	case X86_IMM_16_8:
		insn->imm = next_le(cursor, 2);
		insn->imm2 = next(cursor);
		insn->imm_bytes = 3;
		return;
	default: return;
	}
	insn->imm = next_le(cursor, insn->imm_bytes);
	if (insn->encoding.immediate != X86_IMM_MOFFS && insn->encoding.immediate != X86_IMM_16)
		insn->imm = (uint64_t)sign_extend(insn->imm, insn->imm_bytes);
	if (insn->encoding.attributes & X86_ENC_IS4 && code_bits != 64)
		insn->imm &= 0x7f; /* there are eight registers */
}

static void set_sizes(struct x86_insn *insn, const struct prefixes *prefixes, unsigned code_bits)
{
	if (code_bits == 64)
		insn->address_bytes = prefixes->address ? 4 : 8;
	else
		insn->address_bytes = (code_bits == 32) != prefixes->address ? 4 : 2;
	if (insn->rex_w)
		insn->operand_bytes = 8;
	else if (!insn->kind && (code_bits == 16) != insn->prefix66)
		insn->operand_bytes = 2;
	else
		insn->operand_bytes = 4;
}

static uint8_t memory_bytes(const struct x86_insn *insn)
{
	if (insn->rex_w)
		return insn->encoding.mem_bytes[1];
	return insn->encoding.mem_bytes[insn->pp >= 2 && insn->canonical66 ? 2 : 0];
}

/* C4 and C5 begin a VEX prefix in 64-bit code, and elsewhere where LES or LDS had a register. */
static bool is_vex(const struct cursor *cursor, uint8_t b, unsigned code_bits)
{
	if ((b != 0xc4 && b != 0xc5) || cursor->short_of_bytes)
		return false;
	return code_bits == 64 ||
	       (cursor->at < cursor->available && cursor->bytes[cursor->at] >= 0xc0);
}

static void take_modrm(struct cursor *cursor, uint8_t modrm, uint8_t rex, unsigned code_bits,
		       struct x86_insn *insn)
{
	const bool is_group = insn->encoding.attributes & X86_ENC_GROUP;

	next(cursor);
	insn->has_modrm = true;
	insn->mod = modrm >> 6;
	insn->reg = (uint8_t)((modrm >> 3 & 7) | (is_group ? 0 : (rex & 4) << 1));
	insn->rm = (uint8_t)((modrm & 7) | (rex & 1) << 3);
	if (insn->map == 1 && insn->opcode >= 0x20 && insn->opcode <= 0x23)
		insn->mod = 3; /* MOV CR/DR ignore mod */
	if (insn->mod == 3)
		return;
	if (insn->address_bytes == 2)
		address16(cursor, modrm, insn);
	else
		address32(cursor, modrm, rex, code_bits, insn);
}

/* The register that the last bits of an opcode name. */
static void take_opcode_register(uint8_t rex, struct x86_insn *insn)
{
	insn->rm = (uint8_t)((insn->opcode & 7) | (rex & 1) << 3);
	if (insn->encoding.class == X86_CLASS_PAUSE && insn->rm)
		insn->encoding.class = X86_CLASS_DATA; /* XCHG R8, RAX: F3 says nothing there */
}

int x86_decode(const uint8_t *bytes, size_t available, unsigned code_bits, struct x86_insn *insn)
{
	struct cursor cursor = { bytes,
				 available < X86_INSN_MAX_BYTES ? available : X86_INSN_MAX_BYTES, 0,
				 false };
	struct prefixes prefixes = { .segment = X86_NO_REGISTER };
	uint8_t b;
	uint8_t modrm = 0;

	/* no memset(): that of a sanitizer uses vector registers, which are the guest's */
	*insn = (struct x86_insn){ 0 };
	insn->index = insn->base = X86_NO_REGISTER;
	insn->segment = X86_DS;
	b = take_prefixes(&cursor, code_bits, insn, &prefixes);
	if (is_vex(&cursor, b, code_bits)) {
		if (insn->lock || insn->rep || insn->repne || insn->prefix66 || prefixes.rex)
			return -EINVAL;
		take_vex(&cursor, b, code_bits, insn, &prefixes);
		if (insn->map > 3 || insn->map == 0)
			return cursor.short_of_bytes ? -EAGAIN : -EINVAL;
	} else {
		if ((b == 0xc4 || b == 0xc5) && cursor.at >= cursor.available)
			cursor.short_of_bytes = true;
		take_opcode(&cursor, b, insn);
	}
	insn->rex = prefixes.rex && !insn->kind;
	insn->rex_w = prefixes.rex & 8;
	set_sizes(insn, &prefixes, code_bits);
	if (cursor.at < cursor.available)
		modrm = bytes[cursor.at];
	find_encoding(insn, code_bits, modrm);
	if (insn->encoding.attributes & X86_ENC_MODRM ||
	    !(insn->encoding.attributes & X86_ENC_VALID)) {
		if (cursor.at >= cursor.available)
			cursor.short_of_bytes = true;
	}
	if (cursor.short_of_bytes)
		return available < X86_INSN_MAX_BYTES ? -EAGAIN : -E2BIG;
	if (!(insn->encoding.attributes & X86_ENC_VALID))
		return -EINVAL;
	if (insn->encoding.attributes & X86_ENC_MODRM)
		take_modrm(&cursor, modrm, prefixes.rex, code_bits, insn);
	else
		take_opcode_register(prefixes.rex, insn);
	if (prefixes.segment != X86_NO_REGISTER) {
		insn->segment = prefixes.segment;
		insn->segment_override = true;
	}
	take_immediate(&cursor, code_bits, insn);
	if (cursor.short_of_bytes)
		return available < X86_INSN_MAX_BYTES ? -EAGAIN : -E2BIG;
	insn->mem_bytes = memory_bytes(insn);
	insn->length = (uint8_t)cursor.at;
	if (insn->lock &&
	    !(insn->encoding.attributes & X86_ENC_LOCKABLE && x86_insn_has_memory(insn)))
		return -EINVAL;
	return 0;
}

uint8_t x86_flags_kept(const struct x86_insn *insn)
{
	const struct x86_encoding *encoding = &insn->encoding;
	unsigned count;

	if (!(encoding->attributes & X86_ENC_COUNTED))
		return encoding->flags_kept;
	count = insn->imm & (insn->rex_w && !(encoding->attributes & X86_ENC_RM8) ? 63 : 31);
	if (!count)
		return encoding->flags_written;
	return count == 1 ? encoding->flags_kept & (uint8_t)~X86_OF : encoding->flags_kept;
}
