/* Port I/O, and who may do it (SDM Vol. 1 19.5). */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

int soft_check_port(struct soft_cpu *cpu, uint16_t port, unsigned bytes, struct fault *fault)
{
	enum { TSS_IO_MAP = 0x66, TSS_IS_32 = 8 };
	const struct x86_state *state = &cpu->state;
	uint64_t map = 0;
	uint64_t bits = 0;

	if (!(state->cr0 & CR0_PE) || (!insn_is_virtual(state) && state->cpl <= insn_iopl(state)))
		return 0;
	if (!(state->tr.attributes & TSS_IS_32) || state->tr.limit < TSS_IO_MAP + 1)
		return soft_fail(fault, EXC_GP, true, 0);
	if (soft_read(cpu, state->tr.base + TSS_IO_MAP, &map, 2, ACCESS_SYSTEM | ACCESS_READ,
		      fault))
		return -EFAULT;
	map += port / 8u;
	if (map + 1 > state->tr.limit)
		return soft_fail(fault, EXC_GP, true, 0);
	if (soft_read(cpu, state->tr.base + map, &bits, 2, ACCESS_SYSTEM | ACCESS_READ, fault))
		return -EFAULT;
	return bits >> port % 8 & ((1u << bytes) - 1) ? soft_fail(fault, EXC_GP, true, 0) : 0;
}

static unsigned port_bytes(const struct x86_insn *insn)
{
	if (!(insn->opcode & 1))
		return 1;
	return insn->operand_bytes == 2 ? 2 : 4;
}

int insn_port(struct step *step)
{
	const struct x86_insn *insn = step->insn;
	struct x86_state *state = step->state;
	unsigned bytes = port_bytes(insn);
	uint16_t port = insn->opcode & 8 ? (uint16_t)state->gpr[2] : (uint8_t)insn->imm;
	uint64_t value = 0;

	if (soft_check_port(step->cpu, port, bytes, step->fault))
		return -EFAULT;
	soft_outside(step->cpu);
	if (insn->opcode & 2)
		step->cpu->ops->port_write(step->cpu->ops_context, port, bytes,
					   bytes == 4 ? (uint32_t)state->gpr[0]
						      : state->gpr[0] & ((1u << 8 * bytes) - 1));
	else
		value = step->cpu->ops->port_read(step->cpu->ops_context, port, bytes);
	soft_inside(step->cpu);
	soft_watch_port(step->cpu, port, bytes);
	if (!(insn->opcode & 2))
		insn_set_gpr(step, 0, value, bytes);
	return 0;
}
