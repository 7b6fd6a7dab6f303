/*
 * What the x87 unit stores of where it was. Its instruction and data pointers are the host's, of
 * the code cache and of guest RAM as the machine process has it; a guest must learn neither. Every
 * image has zero there, as on processors that keep them for pending exceptions only
 * (docs/engine.md, known deviations).
 *
 *   32-bit environment   0 FCW   4 FSW   8 FTW   12 FIP   16 FCS, FOP   20 FDP   24 FDS
 *   16-bit environment   0 FCW   2 FSW   4 FTW    6 FIP    8 FCS        10 FDP   12 FDS
 *   FXSAVE area          0 FCW   2 FSW   4 FTW    6 FOP    8 FIP        16 FDP   24 MXCSR
 */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

enum {
	WIDE_BYTES = 28,
	WIDE_POINTERS_AT = 12,
	NARROW_BYTES = 14,
	NARROW_POINTERS_AT = 6,
	REGISTERS_BYTES = 80
};
enum { AREA_POINTERS_AT = 8, AREA_POINTERS_BYTES = 16 };

void insn_clear_x87_pointers(uint8_t *area)
{
	memset(area + AREA_POINTERS_AT, 0, AREA_POINTERS_BYTES);
}

static void store_environment(uint8_t *to, bool wide)
{
	if (wide)
		__asm__ volatile("fnstenv (%0)" : : "r"(to) : "memory");
	else
		__asm__ volatile("data16 fnstenv (%0)" : : "r"(to) : "memory");
}

static void save_state(uint8_t *to, bool wide)
{
	if (wide)
		__asm__ volatile("fnsave (%0)" : : "r"(to) : "memory");
	else
		__asm__ volatile("data16 fnsave (%0)" : : "r"(to) : "memory");
}

int insn_x87_environment(struct step *step)
{
	enum { FNSAVE = 0xdd };
	bool wide = step->insn->operand_bytes != 2;
	bool save = step->insn->opcode == FNSAVE;
	size_t bytes = wide ? WIDE_BYTES : NARROW_BYTES;
	size_t pointers = wide ? WIDE_POINTERS_AT : NARROW_POINTERS_AT;
	size_t all = save ? bytes + REGISTERS_BYTES : bytes;
	uint8_t *image = step->cpu->save_area;
	uint64_t gva = insn_address(step);

	if (soft_check_write(step->cpu, gva, all, 0, step->fault)) /* before it changes anything */
		return -EFAULT;
	if (save)
		save_state(image, wide);
	else
		store_environment(image, wide);
	memset(image + pointers, 0, bytes - pointers);
	return soft_write(step->cpu, gva, image, all, 0, step->fault);
}
