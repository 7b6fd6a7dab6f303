/*
 * Vector instructions with several addresses: AVX2 gathers, MASKMOVQ, MASKMOVDQU (SDM Vol. 2).
 * Element by element through soft_read() and soft_write(), on the guest's vector state saved to
 * memory; a fault leaves a gather where it is, with the mask of what remains.
 *
 *   XSAVE area: XMM n at 160 + 16 n, upper half of YMM n at 576 + 16 n, MM n at 32 + 16 n
 */
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "address.h"
#include "insn.h"

static uint8_t *byte_of(struct soft_cpu *cpu, unsigned reg, unsigned byte)
{
	return cpu->save_area + (byte < 16 ? 160 + 16 * reg + byte : 576 + 16 * reg + byte - 16);
}

static uint64_t get(struct soft_cpu *cpu, unsigned reg, unsigned element, unsigned bytes)
{
	uint64_t value = 0;

	memcpy(&value, byte_of(cpu, reg, element * bytes), bytes);
	return value;
}

static void put(struct soft_cpu *cpu, unsigned reg, unsigned element, unsigned bytes,
		uint64_t value)
{
	memcpy(byte_of(cpu, reg, element * bytes), &value, bytes);
}

/* An element's address, at an offset in the instruction's segment, if it may be accessed. */
static int find_element(struct soft_cpu *cpu, const struct x86_insn *insn, uint64_t offset,
			unsigned bytes, bool write, uint64_t *ret, struct fault *fault)
{
	*ret = soft_linear_address(&cpu->state, insn->segment, offset, insn->address_bytes);
	return soft_check_segment(cpu, insn->segment,
				  offset & soft_address_mask(insn->address_bytes), bytes, write,
				  fault);
}

static uint64_t element_offset(struct soft_cpu *cpu, const struct x86_insn *insn, unsigned element,
			       unsigned index_bytes)
{
	uint64_t index = get(cpu, insn->index, element, index_bytes);
	uint64_t a = index_bytes == 4 ? (uint64_t)(int64_t)(int32_t)index : index;

	a = (a << insn->scale_log2) + (uint64_t)(int64_t)insn->disp;
	return insn->base < 16 ? a + cpu->state.gpr[insn->base] : a;
}

static int read_element(struct soft_cpu *cpu, const struct x86_insn *insn, uint64_t offset,
			unsigned bytes, uint64_t *ret, struct fault *fault)
{
	uint64_t at;

	*ret = 0;
	if (find_element(cpu, insn, offset, bytes, false, &at, fault) ||
	    soft_check_alignment(cpu, at, bytes, fault))
		return -EFAULT;
	return soft_read(cpu, at, ret, bytes, ACCESS_READ, fault);
}

static int gather(struct soft_cpu *cpu, const struct x86_insn *insn, struct fault *fault)
{
	unsigned bytes = insn->rex_w ? 8 : 4;
	unsigned index_bytes = insn->opcode & 1 ? 8 : 4;
	unsigned whole = insn->kind == X86_KIND_VEX256 ? 32 : 16;
	unsigned count = whole / (bytes > index_bytes ? bytes : index_bytes);
	unsigned dest = insn->reg;
	unsigned mask = insn->vvvv;

	/* no index: the form without SIB */
	if (insn->index >= 16 || dest == mask || dest == insn->index || mask == insn->index)
		return soft_fail(fault, EXC_UD, false, 0);
	for (unsigned n = 0; n < count; n++) { /* every mask element to all ones or zero */
		uint64_t m = get(cpu, mask, n, bytes);

		put(cpu, mask, n, bytes, m >> (8 * bytes - 1) ? ~0ull : 0);
	}
	for (unsigned n = 0; n < count; n++) {
		uint64_t value = 0;
		uint64_t m = get(cpu, mask, n, bytes);

		if (m && read_element(cpu, insn, element_offset(cpu, insn, n, index_bytes), bytes,
				      &value, fault))
			return -EFAULT;
		if (m)
			put(cpu, dest, n, bytes, value);
		put(cpu, mask, n, bytes, 0);
	}
	for (unsigned byte = count * bytes; byte < 32; byte++)
		*byte_of(cpu, dest, byte) = 0;
	for (unsigned byte = 0; byte < 32; byte++)
		*byte_of(cpu, mask, byte) = 0;
	return 0;
}

static int mask_move(struct soft_cpu *cpu, const struct x86_insn *insn, struct fault *fault)
{
	bool wide = insn->pp == 1 || insn->kind;
	uint8_t *data =
		wide ? byte_of(cpu, insn->reg, 0) : cpu->save_area + 32 + 16 * (insn->reg & 7);
	uint8_t *mask =
		wide ? byte_of(cpu, insn->rm, 0) : cpu->save_area + 32 + 16 * (insn->rm & 7);

	if (insn->kind && (insn->vvvv || insn->kind == X86_KIND_VEX256))
		return soft_fail(fault, EXC_UD, false, 0);
	for (unsigned n = 0; n < (wide ? 16u : 8u); n++) {
		uint64_t at;

		if (!(mask[n] & 0x80))
			continue;
		if (find_element(cpu, insn, cpu->state.gpr[7] + n, 1, true, &at, fault) ||
		    soft_write(cpu, at, &data[n], 1, 0, fault))
			return -EFAULT;
	}
	return 0;
}

/*
 * VMASKMOVPS and its kin. Nothing has changed where an element faults. A page of which an element
 * was accessed gets its entry, so that the next one is the host's own instruction.
 */
static int masked_move(struct soft_cpu *cpu, const struct x86_insn *insn, struct fault *fault)
{
	enum { STORES = 2, PACKED_INTEGERS = 0x8c, DOUBLE = 1 };
	bool integers = (insn->opcode & 0xfd) == PACKED_INTEGERS;
	bool store = insn->opcode & STORES;
	unsigned bytes = (integers ? insn->rex_w : insn->opcode & DOUBLE) ? 8 : 4;
	unsigned count = (insn->kind == X86_KIND_VEX256 ? 32u : 16u) / bytes;
	uint64_t offset = soft_operand_offset(&cpu->state, insn);
	uint64_t value[8] = { 0 };
	uint64_t used = 0;
	bool any = false;
	uint64_t gpa;
	uint8_t *hva;

	for (unsigned n = 0; n < count; n++) {
		uint64_t at;

		if (!(get(cpu, insn->vvvv, n, bytes) >> (8 * bytes - 1)))
			continue;
		if (find_element(cpu, insn, offset + n * bytes, bytes, store, &at, fault))
			return -EFAULT;
		used = at;
		any = true;
		if (store ? soft_check_write(cpu, at, bytes, 0, fault)
			  : soft_read(cpu, at, &value[n], bytes, ACCESS_READ, fault))
			return -EFAULT;
	}
	for (unsigned n = 0; n < count && store; n++) {
		uint64_t at = soft_linear_address(&cpu->state, insn->segment, offset + n * bytes,
						  insn->address_bytes);

		value[n] = get(cpu, insn->reg, n, bytes);
		if (get(cpu, insn->vvvv, n, bytes) >> (8 * bytes - 1) &&
		    soft_write(cpu, at, &value[n], bytes, 0, fault))
			return -EFAULT;
	}
	for (unsigned n = 0; n < 32 / bytes && !store; n++)
		put(cpu, insn->reg, n, bytes, value[n]);
	if (any)
		(void)soft_fill(cpu, used, store ? ACCESS_WRITE : ACCESS_READ, &hva, &gpa, fault);
	return 0;
}

int soft_scattered(struct soft_cpu *cpu, const struct x86_insn *insn, struct fault *fault)
{
	int error;

	/* not in cpu->vector: an element may lie in a device, whose access uses that */
	memset(cpu->save_area + 512, 0, 64);
	__asm__ volatile("xsave64 (%0)" : : "r"(cpu->save_area), "a"(7), "d"(0) : "memory");
	*(uint64_t *)(void *)(cpu->save_area + 512) |= 7;
	if (x86_insn_is_masked(insn))
		error = masked_move(cpu, insn, fault);
	else if (insn->encoding.attributes & X86_ENC_VSIB)
		error = gather(cpu, insn, fault);
	else
		error = mask_move(cpu, insn, fault);
	__asm__ volatile("xrstor64 (%0)" : : "r"(cpu->save_area), "a"(7), "d"(0) : "memory");
	return error;
}
