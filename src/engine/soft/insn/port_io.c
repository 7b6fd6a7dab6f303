/* Port I/O, and who may do it (SDM Vol. 1 19.5). */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

int soft_check_port(struct soft_cpu *cpu, uint16_t port, unsigned bytes, struct fault *fault)
{
	enum { TSS_IO_MAP = 0x66, TSS_IS_32 = 8 };
	const struct x86_state *s = &cpu->state;
	uint64_t map = 0;
	uint64_t bits = 0;

	if (!(s->cr0 & CR0_PE) || (!insn_is_virtual(s) && s->cpl <= insn_iopl(s)))
		return 0;
	if (!(s->tr.attributes & TSS_IS_32) || s->tr.limit < TSS_IO_MAP + 1)
		return soft_fail(fault, EXC_GP, true, 0);
	if (soft_read(cpu, s->tr.base + TSS_IO_MAP, &map, 2, ACCESS_SYSTEM | ACCESS_READ, fault))
		return -EFAULT;
	map += port / 8u;
	if (map + 1 > s->tr.limit)
		return soft_fail(fault, EXC_GP, true, 0);
	if (soft_read(cpu, s->tr.base + map, &bits, 2, ACCESS_SYSTEM | ACCESS_READ, fault))
		return -EFAULT;
	return bits >> port % 8 & ((1u << bytes) - 1) ? soft_fail(fault, EXC_GP, true, 0) : 0;
}

static unsigned port_bytes(const struct x86_insn *insn)
{
	if (!(insn->opcode & 1))
		return 1;
	return insn->operand_bytes == 2 ? 2 : 4;
}

int insn_port(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	unsigned bytes = port_bytes(i);
	uint16_t port = i->opcode & 8 ? (uint16_t)s->gpr[2] : (uint8_t)i->imm;
	uint64_t v = 0;

	if (soft_check_port(t->cpu, port, bytes, t->fault))
		return -EFAULT;
	soft_outside(t->cpu);
	if (i->opcode & 2)
		t->cpu->ops->port_write(t->cpu->ops_context, port, bytes,
					bytes == 4 ? (uint32_t)s->gpr[0]
						   : s->gpr[0] & ((1u << 8 * bytes) - 1));
	else
		v = t->cpu->ops->port_read(t->cpu->ops_context, port, bytes);
	soft_inside(t->cpu);
	soft_watch_port(t->cpu, port, bytes);
	if (!(i->opcode & 2))
		insn_set_gpr(t, 0, v, bytes);
	return 0;
}
