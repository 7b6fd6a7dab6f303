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
	uint64_t v = 0;

	memcpy(&v, byte_of(cpu, reg, element * bytes), bytes);
	return v;
}

static void put(struct soft_cpu *cpu, unsigned reg, unsigned element, unsigned bytes, uint64_t v)
{
	memcpy(byte_of(cpu, reg, element * bytes), &v, bytes);
}

static uint64_t element_address(struct soft_cpu *cpu, const struct x86_insn *i, unsigned element,
				unsigned index_bytes)
{
	const struct x86_state *s = &cpu->state;
	uint64_t index = get(cpu, i->index, element, index_bytes);
	uint64_t a = index_bytes == 4 ? (uint64_t)(int64_t)(int32_t)index : index;

	a = (a << i->scale_log2) + (uint64_t)(int64_t)i->disp;
	if (i->base < 16)
		a += s->gpr[i->base];
	return soft_linear_address(s, i->segment, a, i->address_bytes);
}

static int gather(struct soft_cpu *cpu, const struct x86_insn *i, struct fault *fault)
{
	unsigned bytes = i->rex_w ? 8 : 4;
	unsigned index_bytes = i->opcode & 1 ? 8 : 4;
	unsigned whole = i->kind == X86_KIND_VEX256 ? 32 : 16;
	unsigned count = whole / (bytes > index_bytes ? bytes : index_bytes);
	unsigned dest = i->reg;
	unsigned mask = i->vvvv;

	/* no index: the form without SIB */
	if (i->index >= 16 || dest == mask || dest == i->index || mask == i->index)
		return soft_fail(fault, EXC_UD, false, 0);
	for (unsigned n = 0; n < count; n++) { /* every mask element to all ones or zero */
		uint64_t m = get(cpu, mask, n, bytes);

		put(cpu, mask, n, bytes, m >> (8 * bytes - 1) ? ~0ull : 0);
	}
	for (unsigned n = 0; n < count; n++) {
		uint64_t value = 0;
		uint64_t m = get(cpu, mask, n, bytes);

		if (m && soft_read(cpu, element_address(cpu, i, n, index_bytes), &value, bytes,
				   ACCESS_READ, fault))
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

static int mask_move(struct soft_cpu *cpu, const struct x86_insn *i, struct fault *fault)
{
	const struct x86_state *s = &cpu->state;
	bool wide = i->pp == 1 || i->kind;
	uint8_t *data = wide ? byte_of(cpu, i->reg, 0) : cpu->save_area + 32 + 16 * (i->reg & 7);
	uint8_t *mask = wide ? byte_of(cpu, i->rm, 0) : cpu->save_area + 32 + 16 * (i->rm & 7);

	if (i->kind && (i->vvvv || i->kind == X86_KIND_VEX256))
		return soft_fail(fault, EXC_UD, false, 0);
	for (unsigned n = 0; n < (wide ? 16u : 8u); n++) {
		uint64_t at = soft_linear_address(s, i->segment, s->gpr[7] + n, i->address_bytes);

		if (mask[n] & 0x80 && soft_write(cpu, at, &data[n], 1, 0, fault))
			return -EFAULT;
	}
	return 0;
}

/*
 * VMASKMOVPS and its kin. Nothing has changed where an element faults. A page of which an element
 * was accessed gets its entry, so that the next one is the host's own instruction.
 */
static int masked_move(struct soft_cpu *cpu, const struct x86_insn *i, struct fault *fault)
{
	enum { STORES = 2, PACKED_INTEGERS = 0x8c, DOUBLE = 1 };
	bool integers = (i->opcode & 0xfd) == PACKED_INTEGERS;
	bool store = i->opcode & STORES;
	unsigned bytes = (integers ? i->rex_w : i->opcode & DOUBLE) ? 8 : 4;
	unsigned count = (i->kind == X86_KIND_VEX256 ? 32u : 16u) / bytes;
	uint64_t offset = soft_operand_offset(&cpu->state, i);
	uint64_t value[8] = { 0 };
	uint64_t used = 0;
	bool any = false;
	uint64_t gpa;
	uint8_t *hva;

	for (unsigned n = 0; n < count; n++) {
		uint64_t at = soft_linear_address(&cpu->state, i->segment, offset + n * bytes,
						  i->address_bytes);

		if (!(get(cpu, i->vvvv, n, bytes) >> (8 * bytes - 1)))
			continue;
		used = at;
		any = true;
		if (soft_check_segment(cpu, i->segment,
				       (offset + n * bytes) & soft_address_mask(i->address_bytes),
				       bytes, store, fault) ||
		    (store ? soft_check_write(cpu, at, bytes, 0, fault)
			   : soft_read(cpu, at, &value[n], bytes, ACCESS_READ, fault)))
			return -EFAULT;
	}
	for (unsigned n = 0; n < count && store; n++) {
		uint64_t at = soft_linear_address(&cpu->state, i->segment, offset + n * bytes,
						  i->address_bytes);

		value[n] = get(cpu, i->reg, n, bytes);
		if (get(cpu, i->vvvv, n, bytes) >> (8 * bytes - 1) &&
		    soft_write(cpu, at, &value[n], bytes, 0, fault))
			return -EFAULT;
	}
	for (unsigned n = 0; n < 32 / bytes && !store; n++)
		put(cpu, i->reg, n, bytes, value[n]);
	if (any)
		(void)soft_fill(cpu, used, store ? ACCESS_WRITE : ACCESS_READ, &hva, &gpa, fault);
	return 0;
}

int soft_scattered(struct soft_cpu *cpu, const struct x86_insn *i, struct fault *fault)
{
	int error;

	/* not in cpu->vector: an element may lie in a device, whose access uses that */
	memset(cpu->save_area + 512, 0, 64);
	__asm__ volatile("xsave64 (%0)" : : "r"(cpu->save_area), "a"(7), "d"(0) : "memory");
	*(uint64_t *)(void *)(cpu->save_area + 512) |= 7;
	if (x86_insn_is_masked(i))
		error = masked_move(cpu, i, fault);
	else if (i->encoding.attributes & X86_ENC_VSIB)
		error = gather(cpu, i, fault);
	else
		error = mask_move(cpu, i, fault);
	__asm__ volatile("xrstor64 (%0)" : : "r"(cpu->save_area), "a"(7), "d"(0) : "memory");
	return error;
}
