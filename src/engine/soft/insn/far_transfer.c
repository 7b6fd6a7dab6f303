/*
 * Transfers that may change CS and the privilege level: far jumps, calls and returns, IRET, SYSCALL, SYSRET, INT n.
 * Left out: call gates and task switches.
 */
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "insn.h"

static void set_cpl(struct soft_cpu *cpu, unsigned cpl)
{
	cpu->state.cpl = (uint8_t)cpl;
	soft_select_view(cpu);
}

int insn_far_jump(struct step *t, uint16_t selector, uint64_t offset, unsigned new_cpl)
{
	struct x86_state *s = t->s;
	uint64_t d[2], old_base = s->segment[X86_CS].base;

	if (!(s->cr0 & CR0_PE)) {
		s->segment[X86_CS].selector = selector;
		s->segment[X86_CS].base = (uint64_t)selector << 4;
	} else {
		if (!(selector & 0xfffc))
			return insn_general_protection(t);
		if (insn_read_descriptor(t, selector, d, false))
			return -EFAULT;
		if ((d[0] >> 43 & 3) != 3)
			return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
		if (!(d[0] >> 47 & 1))
			return soft_fail(t->fault, EXC_NP, true, selector & 0xfffc);
		s->segment[X86_CS] = insn_unpack_descriptor((uint16_t)((selector & 0xfffc) | new_cpl), d);
			s->cpl = (uint8_t)new_cpl;
	}
	t->next = offset;
	if (old_base != s->segment[X86_CS].base)
		soft_flush_jumps(t->cpu, true); /* the jump cache knows offsets in the segment */
	return 0;
}

int insn_far_call(struct step *t)
{
	if (insn_push(t, t->s->segment[X86_CS].selector, t->i->operand_bytes) || insn_push(t, t->next, t->i->operand_bytes))
		return -EFAULT;
	return insn_far_jump(t, (uint16_t)t->i->disp, t->i->imm, t->s->cpl);
}

/* FF /3 and /5: the operand is an offset and a selector. */
int insn_far_indirect(struct step *t, bool call)
{
	unsigned bytes = t->i->rex_w ? 8 : t->i->operand_bytes;
	uint64_t offset = 0, selector = 0;

	if (!x86_insn_has_memory(t->i))
		return insn_undefined(t);
	if (soft_read(t->cpu, insn_address(t), &offset, bytes, ACCESS_READ, t->fault) ||
	    soft_read(t->cpu, insn_address(t) + bytes, &selector, 2, ACCESS_READ, t->fault))
		return -EFAULT;
	if (call && (insn_push(t, t->s->segment[X86_CS].selector, bytes) || insn_push(t, t->next, bytes)))
		return -EFAULT;
	return insn_far_jump(t, (uint16_t)selector, offset, t->s->cpl);
}

int insn_far_return(struct step *t)
{
	unsigned bytes = t->i->rex_w ? 8 : t->i->operand_bytes;
	uint64_t rip, cs, rsp, ss, old = t->s->gpr[4];
	unsigned cpl;

	if (insn_pop(t, &rip, bytes) || insn_pop(t, &cs, bytes))
		return t->s->gpr[4] = old, -EFAULT;
	t->s->gpr[4] += t->i->opcode == 0xca ? t->i->imm : 0;
	cpl = t->s->cr0 & CR0_PE ? cs & 3 : 0;
	if (cpl > t->s->cpl) {
		if (insn_pop(t, &rsp, bytes) || insn_pop(t, &ss, bytes) || insn_far_jump(t, (uint16_t)cs, rip, cpl))
			return t->s->gpr[4] = old, -EFAULT;
		t->s->gpr[4] = rsp;
		soft_select_view(t->cpu);
		return insn_load_segment(t, X86_SS, (uint16_t)ss);
	}
	if (insn_far_jump(t, (uint16_t)cs, rip, t->s->cpl))
		return t->s->gpr[4] = old, -EFAULT;
	return 0;
}

int insn_iret(struct step *t)
{
	struct x86_state *s = t->s;
	unsigned bytes = t->i->rex_w ? 8 : t->i->operand_bytes;
	uint64_t rip, cs, rflags, rsp = 0, ss = 0, old_rsp = s->gpr[4], keep = 0;
	unsigned cpl;

	if (insn_pop(t, &rip, bytes) || insn_pop(t, &cs, bytes) || insn_pop(t, &rflags, bytes))
		goto undo;
	cpl = cs & 3;
	if (x86_code_bits(s) == 64 || cpl > s->cpl)
		if (insn_pop(t, &rsp, bytes) || insn_pop(t, &ss, bytes))
			goto undo;
	if (cpl < s->cpl || (s->efer & EFER_LMA && !soft_canonical(rip))) {
		s->gpr[4] = old_rsp;
		return insn_general_protection(t);
	}
	if (s->cpl)
		keep = FLAG_IOPL | (s->cpl > (s->rflags >> 12 & 3) ? FLAG_IF : 0);
	{
		uint64_t flags = (rflags & ~keep) | (soft_rflags(t->cpu) & keep), d[2];
		bool had_stack = x86_code_bits(s) == 64 || cpl > s->cpl;
		struct x86_segment_state old_cs = s->segment[X86_CS];

		if (insn_read_descriptor(t, (uint16_t)cs, d, false))
			goto undo;
		if ((d[0] >> 43 & 3) != 3 || !(d[0] >> 47 & 1)) {
			s->gpr[4] = old_rsp;
			return soft_fail(t->fault, EXC_GP, true, cs & 0xfffc);
		}
		s->segment[X86_CS] = insn_unpack_descriptor((uint16_t)cs, d);
			if (old_cs.base != s->segment[X86_CS].base)
			soft_flush_jumps(t->cpu, true); /* the jump cache knows offsets in the segment */
		if (had_stack) {
			s->gpr[4] = x86_code_bits(s) == 64 ? rsp : (uint32_t)rsp;
			if ((ss & 0xfffc) && !insn_read_descriptor(t, (uint16_t)ss, d, false))
				s->segment[X86_SS] = insn_unpack_descriptor((uint16_t)ss, d);
			s->segment[X86_SS].selector = (uint16_t)ss;
		}
		t->next = rip;
		soft_set_rflags(t->cpu, flags);
		set_cpl(t->cpu, cpl);
		t->cpu->nmi_blocked = false;
	}
	return 0;
undo:
	s->gpr[4] = old_rsp;
	return -EFAULT;
}

int insn_syscall(struct step *t)
{
	struct x86_state *s = t->s;

	if (!(s->efer & EFER_SCE))
		return insn_undefined(t);
	s->gpr[1] = t->next;
	s->gpr[11] = soft_rflags(t->cpu) & ~(uint64_t)FLAG_RF;
	t->next = x86_code_bits(s) == 64 ? s->lstar : s->cstar;
	soft_set_code_segment(s, (uint16_t)(s->star >> 32 & 0xfffc), 0xa09b);
	s->segment[X86_SS] = (struct x86_segment_state){ .selector = (uint16_t)((s->star >> 32 & 0xfffc) + 8), .attributes = 0xc093, .limit = ~0u };
	soft_set_rflags(t->cpu, s->gpr[11] & ~s->sfmask);
	set_cpl(t->cpu, 0);
	return 0;
}

int insn_sysret(struct step *t)
{
	struct x86_state *s = t->s;
	uint16_t base = (uint16_t)(s->star >> 48);

	if (!(s->efer & EFER_SCE))
		return insn_undefined(t);
	if (s->cpl || (t->i->rex_w && !soft_canonical(s->gpr[1])))
		return insn_general_protection(t);
	t->next = t->i->rex_w ? s->gpr[1] : (uint32_t)s->gpr[1];
	soft_set_rflags(t->cpu, (s->gpr[11] & 0x3c7fd7) | 2);
	soft_set_code_segment(s, (uint16_t)((base + (t->i->rex_w ? 16 : 0)) | 3), t->i->rex_w ? 0xa0fb : 0xc0fb);
	s->segment[X86_SS] = (struct x86_segment_state){ .selector = (uint16_t)((base + 8) | 3), .attributes = 0xc0f3, .limit = ~0u };
	set_cpl(t->cpu, 3);
	return 0;
}

int insn_software_interrupt(struct step *t, uint8_t vector)
{
	t->s->rip = t->next;
	soft_deliver_software(t->cpu, vector);
	t->next = t->s->rip;
	return 0;
}
