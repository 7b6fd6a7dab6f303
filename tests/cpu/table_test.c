/*
 * The instruction table's flags against Zydis: over every encoding in 64- and 32-bit code, each
 * flag that the manuals call undefined must be one that may stay as it was (x86_flags_kept), or
 * stand in the list below of those that every processor writes; and a flag that an instruction may
 * leave alone must not count as written. Liveness in the translator goes by these.
 *
 * That the committed table is what the generator makes is another test (decode-table).
 */
#include <Zydis/Zydis.h>
#include <stdio.h>
#include <string.h>

#include "x86/decode.h"

/* Undefined in the manuals, but written by every known processor. */
static const struct { ZydisMnemonic mnemonic; uint8_t flags; } always_written[] = {
	{ ZYDIS_MNEMONIC_AND, X86_AF }, /* cleared */
	{ ZYDIS_MNEMONIC_OR, X86_AF },
	{ ZYDIS_MNEMONIC_XOR, X86_AF },
	{ ZYDIS_MNEMONIC_TEST, X86_AF },
	{ ZYDIS_MNEMONIC_SHL, X86_AF | X86_OF },
	{ ZYDIS_MNEMONIC_SHR, X86_AF | X86_OF },
	{ ZYDIS_MNEMONIC_SAR, X86_AF | X86_OF },
	{ ZYDIS_MNEMONIC_SBB, X86_AF }, /* which the manuals define */
};

static unsigned long encodings, failures;

static uint8_t flag_mask(uint32_t flags)
{
	static const struct { uint32_t theirs; uint8_t ours;
	} map[] = {
		{ ZYDIS_CPUFLAG_CF, X86_CF }, { ZYDIS_CPUFLAG_PF, X86_PF },
		{ ZYDIS_CPUFLAG_AF, X86_AF }, { ZYDIS_CPUFLAG_ZF, X86_ZF },
		{ ZYDIS_CPUFLAG_SF, X86_SF }, { ZYDIS_CPUFLAG_OF, X86_OF },
	};
	uint8_t mask = 0;

	for (unsigned n = 0; n < sizeof(map) / sizeof(map[0]); n++)
		mask |= flags & map[n].theirs ? map[n].ours : 0;
	return mask;
}

static uint8_t listed(const ZydisDecodedInstruction *theirs, const struct x86_insn *ours)
{
	bool shift = theirs->meta.category == ZYDIS_CATEGORY_SHIFT ||
		     theirs->meta.category == ZYDIS_CATEGORY_ROTATE;
	bool by_one = ours->map == 0 && (ours->opcode & 0xfe) == 0xd0;
	unsigned mask = ours->rex_w ? 63 : 31;
	uint8_t flags = 0;

	for (unsigned n = 0; n < sizeof(always_written) / sizeof(always_written[0]); n++)
		if (always_written[n].mnemonic == theirs->mnemonic)
			flags |= always_written[n].flags;
	if (shift && (by_one || (ours->imm_bytes && (ours->imm & mask) == 1)))
		flags |= X86_OF; /* the manuals define it for a count of 1 */
	return flags;
}

static bool is_copied(const struct x86_insn *insn)
{
	return insn->encoding.class == X86_CLASS_DATA ||
	       insn->encoding.class == X86_CLASS_BIT_STRING ||
	       insn->encoding.class == X86_CLASS_STRING;
}

static bool writes_flags_conditionally(const ZydisDecodedInstruction *insn,
				       const ZydisDecodedOperand *ops)
{
	for (int n = 0; n < insn->operand_count; n++)
		if (ops[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(ops[n].reg.value) == ZYDIS_REGCLASS_FLAGS &&
		    ops[n].actions & ZYDIS_OPERAND_ACTION_CONDWRITE)
			return true;
	return false;
}

static void report(const char *what, const uint8_t *bytes, unsigned flags)
{
	if (failures++ >= 10)
		return;
	printf("%s %02x:", what, flags);
	for (int n = 0; n < X86_INSN_MAX_BYTES; n++)
		printf(" %02x", bytes[n]);
	printf("\n");
}

static void check_bytes(const ZydisDecoder *decoder, unsigned bits, const uint8_t *bytes)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction theirs;
	struct x86_insn ours;
	uint8_t undefined, written, kept, surely_written;

	if (x86_decode(bytes, X86_INSN_MAX_BYTES, bits, &ours) || !is_copied(&ours) ||
	    !ZYAN_SUCCESS(
		    ZydisDecoderDecodeFull(decoder, bytes, X86_INSN_MAX_BYTES, &theirs, ops)) ||
	    !theirs.cpu_flags)
		return;
	encodings++;
	undefined = flag_mask(theirs.cpu_flags->undefined);
	written = flag_mask(theirs.cpu_flags->modified | theirs.cpu_flags->set_0 |
			    theirs.cpu_flags->set_1) |
		  undefined;
	kept = x86_flags_kept(&ours);
	surely_written = ours.encoding.flags_written & (uint8_t)~kept;
	if (undefined & surely_written & ~listed(&theirs, &ours))
		report("undefined, but counts as written", bytes, undefined & surely_written);
	if (surely_written & ~written)
		report("not written, but counts as written", bytes, surely_written & ~written);
	if (writes_flags_conditionally(&theirs, ops) && surely_written)
		report("written only sometimes, but counts as written", bytes, surely_written);
	if (flag_mask(theirs.cpu_flags->tested) & ~ours.encoding.flags_read)
		report("read, but does not count as read", bytes,
		       flag_mask(theirs.cpu_flags->tested));
}

static void check_every_encoding(const ZydisDecoder *decoder, unsigned bits, bool vex)
{
	static const uint8_t prefixes[4] = { 0x3e, 0x66, 0xf3, 0xf2 };
	static const uint8_t immediates[] = { 0, 1, 2, 0x20, 0x21, 0x40 };

	for (unsigned n = 0; n < 4u * 4 * 256 * 256; n++) {
		unsigned pp = n >> 18;
		unsigned map = n >> 16 & 3;
		unsigned at = 0;
		uint8_t bytes[16] = { 0 };

		if (vex) {
			bytes[at++] = 0xc4;
			bytes[at++] = (uint8_t)(0xe0 | map);
			bytes[at++] = (uint8_t)(0x78 | pp);
		} else {
			bytes[at++] = prefixes[pp];
			if (map)
				bytes[at++] = 0x0f;
			if (map > 1)
				bytes[at++] = map == 2 ? 0x38 : 0x3a;
		}
		bytes[at++] = (uint8_t)(n >> 8);
		bytes[at++] = (uint8_t)n;
		for (unsigned k = 0; k < sizeof(immediates); k++) {
			memset(bytes + at, immediates[k], sizeof(bytes) - at);
			check_bytes(decoder, bits, bytes);
			if ((n & 0xc0) != 0xc0)
				break; /* the immediate is not where it was put */
		}
	}
}

static uint8_t kept_by(const uint8_t *bytes)
{
	struct x86_insn insn;

	return x86_decode(bytes, X86_INSN_MAX_BYTES, 64, &insn) ? 0xff : x86_flags_kept(&insn);
}

static void check_equal(const char *what, unsigned got, unsigned want)
{
	if (got != want) {
		printf("%s: %x, not %x\n", what, got, want);
		failures++;
	}
}

/* The cases that were wrong once, or nearly. */
static void check_shifts(void)
{
	check_equal("ROL by 1", kept_by((const uint8_t[15]){ 0xc1, 0xc0, 1 }), 0);
	check_equal("ROL by 2 may leave OF", kept_by((const uint8_t[15]){ 0xc1, 0xc0, 2 }), X86_OF);
	check_equal("ROR of a byte by 31 may leave OF",
		    kept_by((const uint8_t[15]){ 0xc0, 0xc8, 31 }), X86_OF);
	check_equal("ROL of 8 bytes by 33 may leave OF",
		    kept_by((const uint8_t[15]){ 0x48, 0xc1, 0xc0, 33 }), X86_OF);
	check_equal("RCL by 2 may leave OF", kept_by((const uint8_t[15]){ 0xc1, 0xd0, 2 }), X86_OF);
	check_equal("ROL by 32 is by 0", kept_by((const uint8_t[15]){ 0xc1, 0xc0, 32 }),
		    X86_CF | X86_OF);
	check_equal("SHL by 2", kept_by((const uint8_t[15]){ 0xc1, 0xe0, 2 }), 0);
	check_equal("SHL by 0", kept_by((const uint8_t[15]){ 0xc1, 0xe0, 0 }), X86_ALL_FLAGS);
	check_equal("SHL of 8 bytes by 32", kept_by((const uint8_t[15]){ 0x48, 0xc1, 0xe0, 32 }),
		    0);
	check_equal("SAR of a byte in memory with REX.W by 32 is by 0",
		    kept_by((const uint8_t[15]){ 0x48, 0xc0, 0x3e, 32 }), X86_ALL_FLAGS);
	check_equal("SHL by CL", kept_by((const uint8_t[15]){ 0xd3, 0xe0 }), X86_ALL_FLAGS);
	check_equal("ADD", kept_by((const uint8_t[15]){ 0x01, 0xc0 }), 0);
	check_equal("IMUL", kept_by((const uint8_t[15]){ 0x0f, 0xaf, 0xc0 }),
		    X86_SF | X86_ZF | X86_AF | X86_PF);
}

int main(void)
{
	ZydisDecoder decoder_64, decoder_32;

	ZydisDecoderInit(&decoder_64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderInit(&decoder_32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	for (int vex = 0; vex < 2; vex++) {
		check_every_encoding(&decoder_64, 64, vex);
		check_every_encoding(&decoder_32, 32, vex);
	}
	check_shifts();
	printf("table_test: %lu encodings, %lu failures\n", encodings, failures);
	return failures || !encodings;
}
