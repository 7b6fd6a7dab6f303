/*
 * Emitted copies looked at again: the host bytes are decoded as what they are now, 64-bit code, and
 * compared with the guest's instruction. Independent of how they were made; builds with checks do
 * it for every copy of every block, tests with Zydis, too.
 *
 * Invariants
 *  1. It is one whole data instruction: nothing that branches, is privileged, or touches memory
 *     that modrm does not name.
 *  2. It has the guest's immediate, width and LOCK.
 *  3. Its memory operand is addressed by what the lookup left (r10, a base and r11, or r11 in place
 *     of the base and the guest's index), lies within the bytes that were looked up, and is written
 *     only if they were looked up for writing; or it is the slot of a displaced register, and is
 *     read.
 *  4. It changes neither r14 nor r15, which hold the tables.
 */
#include <assert.h>

#include "translate_encoding.h"

static bool is_slot(const struct x86_insn *host)
{
	int32_t first = (int32_t)offsetof(struct soft_cpu, state.gpr);
	int32_t at = host->disp - first;

	return host->segment == X86_GS && host->base == X86_NO_REGISTER &&
	       host->index == X86_NO_REGISTER && at >= 0 && at % 8 == 0 && at / 8 < 16 &&
	       !x86_insn_is(host, X86_ENC_MEM_WRITE) && host->mem_bytes <= 8;
}

/* One of a strip: a delta of any of the scratch registers beside the guest's base or index. */
static bool is_strip_address(const struct x86_insn *host, const struct x86_insn *guest)
{
	bool has_delta = host->base == R10 || host->base == R11 || host->base == R14;

	if (host->disp != guest->disp)
		return false;
	if (has_delta)
		return host->index == guest->index && host->index < 16 &&
		       host->scale_log2 == guest->scale_log2;
	return host->base == guest->base && !host->scale_log2 &&
	       (host->index == R10 || host->index == R11 || host->index == R14);
}

static bool is_looked_up_address(const struct emitted_copy *copy, const struct x86_insn *host)
{
	const struct x86_insn *guest = copy->insn;

	if (host->segment_override || host->address_bytes != 8)
		return false;
	if (host->base == R10 && host->index == X86_NO_REGISTER)
		return host->disp == 0;
	if (copy->in_strip)
		return is_strip_address(host, guest);
	if (host->base == R10)
		return host->index == R11 && !host->scale_log2 && host->disp == 0;
	if (copy->code_bits != 64 || host->disp != guest->disp)
		return false;
	if (host->base == R11)
		return host->index < 16 && host->index == guest->index &&
		       host->scale_log2 == guest->scale_log2;
	return host->index == R11 && !host->scale_log2 && host->base == guest->base &&
	       guest->index == X86_NO_REGISTER;
}

static const char *memory_error(const struct emitted_copy *copy, const struct x86_insn *host)
{
	bool bit_string = host->encoding.class == X86_CLASS_BIT_STRING;
	unsigned bytes = bit_string ? host->operand_bytes : host->mem_bytes;

	if (!copy->looked_up_bytes)
		return is_slot(host) ? NULL : "memory that was not looked up";
	if (!is_looked_up_address(copy, host))
		return "an address that was not looked up";
	if (!bytes || bytes > copy->looked_up_bytes)
		return "bytes beyond what was looked up";
	if (x86_insn_is(host, X86_ENC_MEM_WRITE) && !copy->writable)
		return "a write to what was looked up for reading";
	return bit_string && host->reg != R11 ? "a bit's number that was not cut" : NULL;
}

static bool changes(const struct x86_insn *host, uint8_t reg)
{
	bool rm = (x86_insn_is(host, X86_ENC_RM_GPR) && host->mod == 3) ||
		  x86_insn_is(host, X86_ENC_OPCODE_GPR);

	return (x86_insn_is(host, X86_ENC_REG_GPR) && x86_insn_is(host, X86_ENC_REG_WRITE) &&
		host->reg == reg) ||
	       (rm && x86_insn_is(host, X86_ENC_RM_WRITE) && host->rm == reg) ||
	       (x86_insn_is(host, X86_ENC_VVVV_GPR) && x86_insn_is(host, X86_ENC_VVVV_WRITE) &&
		host->vvvv == reg);
}

static unsigned width_of(const struct x86_insn *insn)
{
	return x86_insn_is(insn, X86_ENC_FIXED_66) ? insn->rex_w : insn->operand_bytes;
}

/* What is wrong with it, or NULL. */
const char *soft_copy_error(const struct emitted_copy *copy)
{
	const struct x86_insn *guest = copy->insn;
	struct x86_insn host;

	if (x86_decode(copy->host, copy->bytes, 64, &host) || host.length != copy->bytes)
		return "not one instruction";
	if (host.encoding.class != X86_CLASS_DATA && host.encoding.class != X86_CLASS_BIT_STRING)
		return "not a data instruction";
	if (host.kind != guest->kind || host.map != guest->map ||
	    width_of(&host) != width_of(guest))
		return "another instruction, or of another width";
	if (host.imm_bytes != guest->imm_bytes || host.imm != guest->imm)
		return "another immediate";
	if (host.lock != guest->lock)
		return "another LOCK";
	if (changes(&host, R14) || changes(&host, R15))
		return "a table's register";
	if (x86_insn_has_memory(&host))
		return memory_error(copy, &host);
	return copy->looked_up_bytes ? "no memory operand" : NULL;
}

void soft_check_copy(void *context, const struct emitted_copy *copy)
{
	(void)context;
	assert(!soft_copy_error(copy));
}
