/* See instruction_text.h. */
#include "instruction_text.h"

#include <assert.h>

#ifdef UMBRA_HAS_ZYDIS
#include <Zydis/Zydis.h>

#include "lib/late.h"

#define CALLS(CALL)                                                                                \
	CALL(ZydisDecoderInit)                                                                     \
	CALL(ZydisDecoderDecodeFull)                                                               \
	CALL(ZydisFormatterInit)                                                                   \
	CALL(ZydisFormatterFormatInstruction)
CALLS(LATE_CALL)

bool instruction_text_load(void)
{
	static const struct late_call calls[] = { CALLS(LATE_ROW) };
	static const struct late_library library = {
		.file = "libZydis.so.4.0",
		.call = calls,
		.calls = sizeof(calls) / sizeof(calls[0]),
	};

	return late_load(&library);
}

static bool begin(ZydisDecoder *decoder, ZydisFormatter *formatter, unsigned code_bits)
{
	ZydisMachineMode mode = ZYDIS_MACHINE_MODE_LONG_64;
	ZydisStackWidth width = ZYDIS_STACK_WIDTH_64;

	if (code_bits == 32) {
		mode = ZYDIS_MACHINE_MODE_LEGACY_32;
		width = ZYDIS_STACK_WIDTH_32;
	} else if (code_bits == 16) {
		mode = ZYDIS_MACHINE_MODE_LEGACY_16;
		width = ZYDIS_STACK_WIDTH_16;
	}
	return ZYAN_SUCCESS(ZydisDecoderInit(decoder, mode, width)) &&
	       ZYAN_SUCCESS(ZydisFormatterInit(formatter, ZYDIS_FORMATTER_STYLE_INTEL));
}

unsigned instruction_text(const uint8_t *code, unsigned bytes, unsigned code_bits, uint64_t at,
			  char ret[INSTRUCTION_TEXT_BYTES])
{
	ZydisDecoder decoder;
	ZydisFormatter formatter;
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

	ret[0] = 0;
	if (!begin(&decoder, &formatter, code_bits) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, bytes, &insn, operands)) ||
	    !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &insn, operands,
							  insn.operand_count_visible, ret,
							  INSTRUCTION_TEXT_BYTES, at, NULL)))
		return 0;
	assert(insn.length && insn.length <= bytes);
	return insn.length;
}
#else
bool instruction_text_load(void) { return false; }

unsigned instruction_text(const uint8_t *code, unsigned bytes, unsigned code_bits, uint64_t at,
			  char ret[INSTRUCTION_TEXT_BYTES])
{
	(void)code;
	(void)bytes;
	(void)code_bits;
	(void)at;
	ret[0] = 0;
	return 0;
}
#endif
