/* Port I/O. */
#include "insn.h"

int insn_port(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	unsigned bytes = i->opcode & 1 ? (i->operand_bytes == 2 ? 2 : 4) : 1;
	uint16_t port = i->opcode & 8 ? (uint16_t)s->gpr[2] : (uint8_t)i->imm;
	uint64_t v = 0;

	if (s->cpl > insn_iopl(s))
		return insn_general_protection(t);
	soft_outside(t->cpu);
	if (i->opcode & 2)
		t->cpu->ops->port_write(t->cpu->ops_context, port, bytes, bytes == 4 ? (uint32_t)s->gpr[0] : s->gpr[0] & ((1u << 8 * bytes) - 1));
	else
		v = t->cpu->ops->port_read(t->cpu->ops_context, port, bytes);
	soft_inside(t->cpu);
	if (!(i->opcode & 2))
		insn_set_gpr(t, 0, v, bytes);
	return 0;
}
