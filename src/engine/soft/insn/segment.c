/* Segments: descriptors, loads of segment registers, the tables' own registers, FS and GS bases. */
#include <errno.h>

#include "engine/soft/mmu/mmu.h"
#include "insn.h"

void soft_set_code_segment(struct x86_state *s, uint16_t selector, uint16_t attributes)
{
	s->segment[X86_CS] = (struct x86_segment_state){ .selector = selector, .attributes = attributes, .limit = ~0u };
}

int insn_read_descriptor(struct step *t, uint16_t selector, uint64_t ret[2], bool wide)
{
	const struct x86_state *s = t->s;
	uint64_t base = selector & 4 ? s->ldtr.base : s->gdtr.base, limit = selector & 4 ? s->ldtr.limit : s->gdtr.limit;

	ret[1] = 0;
	if ((selector & 0xfff8u) + (wide ? 15u : 7u) > limit)
		return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
	return soft_read(t->cpu, base + (selector & 0xfff8), ret, wide ? 16 : 8, ACCESS_SYSTEM | ACCESS_READ, t->fault);
}

struct x86_segment_state insn_unpack_descriptor(uint16_t selector, const uint64_t d[2])
{
	struct x86_segment_state r = { .selector = selector, .attributes = (uint16_t)(d[0] >> 40) & 0xf0ff };

	r.base = (d[0] >> 16 & 0xffffff) | (d[0] >> 32 & 0xff000000) | d[1] << 32;
	r.limit = (uint32_t)((d[0] & 0xffff) | (d[0] >> 32 & 0xf0000));
	if (r.attributes & 0x8000)
		r.limit = r.limit << 12 | 0xfff;
	return r;
}

int insn_load_segment(struct step *t, unsigned which, uint16_t selector)
{
	struct x86_state *s = t->s;
	uint64_t d[2];

	if (!(s->cr0 & CR0_PE)) {
		s->segment[which] = (struct x86_segment_state){ .selector = selector, .base = (uint64_t)selector << 4, .limit = 0xffff, .attributes = 0x93 };
		return 0;
	}
	if (!(selector & 0xfffc)) {
		if (which == X86_SS && !(x86_code_bits(s) == 64 && s->cpl < 3))
			return insn_general_protection(t);
		/* AMD keeps base and limit of a nulled segment; so do we: FS and GS bases are set by MSR */
		s->segment[which].selector = selector;
		s->segment[which].attributes = 0;
		if (which != X86_FS && which != X86_GS)
			s->segment[which].base = 0;
		return 0;
	}
	if (insn_read_descriptor(t, selector, d, false))
		return -EFAULT;
	if (!(d[0] >> 44 & 1) || (which == X86_SS && (d[0] >> 40 & 0xa) != 2))
		return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
	if (!(d[0] >> 47 & 1))
		return soft_fail(t->fault, which == X86_SS ? EXC_SS : EXC_NP, true, selector & 0xfffc);
	s->segment[which] = insn_unpack_descriptor(selector, d);
	return 0;
}

int insn_descriptor_tables(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	unsigned base_bytes = x86_code_bits(s) == 64 ? 8 : 4;
	struct x86_table *table = i->reg & 1 ? &s->idtr : &s->gdtr;
	uint8_t image[10] = { 0 };

	if (i->reg < 2) {
		if (s->cpl && s->cr4 & CR4_UMIP)
			return insn_general_protection(t);
		memcpy(image, &table->limit, 2);
		memcpy(image + 2, &table->base, 8);
		return soft_write(t->cpu, insn_address(t), image, 2 + base_bytes, 0, t->fault);
	}
	if (s->cpl)
		return insn_general_protection(t);
	if (soft_read(t->cpu, insn_address(t), image, 2 + base_bytes, ACCESS_READ, t->fault))
		return -EFAULT;
	table->base = 0;
	memcpy(&table->limit, image, 2);
	memcpy(&table->base, image + 2, i->operand_bytes == 2 && x86_code_bits(s) != 64 ? 3 : base_bytes);
	return 0;
}

int insn_system_segments(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	struct x86_segment_state *to = i->reg & 1 ? &s->tr : &s->ldtr;
	uint64_t v, d[2];

	if (i->reg < 2) {
		if (s->cpl && s->cr4 & CR4_UMIP)
			return insn_general_protection(t);
		return insn_put_rm(t, i->mod == 3 ? i->operand_bytes : 2, to->selector);
	}
	if (insn_get_rm(t, 2, &v))
		return -EFAULT;
	if (i->reg >= 4) { /* VERR, VERW */
		bool ok = (v & 0xfffc) && !insn_read_descriptor(t, (uint16_t)v, d, false) && d[0] >> 44 & 1 && d[0] >> 47 & 1;

		if (ok && i->reg == 5)
			ok = (d[0] >> 40 & 0xa) == 2;
		t->cpu->flags_word = (t->cpu->flags_word & ~(uint64_t)(FLAG_ZF << 8)) | (ok ? FLAG_ZF << 8 : 0);
		return 0;
	}
	if (s->cpl)
		return insn_general_protection(t);
	if (!(v & 0xfffc) && i->reg == 2) {
		*to = (struct x86_segment_state){ .selector = (uint16_t)v };
		return 0;
	}
	if (insn_read_descriptor(t, (uint16_t)v, d, s->efer & EFER_LMA))
		return -EFAULT;
	*to = insn_unpack_descriptor((uint16_t)v, d);
	return 0;
}

int insn_lar_lsl(struct step *t)
{
	uint64_t v, d[2];
	bool ok;

	if (insn_get_rm(t, 2, &v))
		return -EFAULT;
	ok = (v & 0xfffc) && !insn_read_descriptor(t, (uint16_t)v, d, false);
	if (ok && t->i->opcode == 2)
		insn_set_gpr(t, t->i->reg, d[0] >> 32 & 0xffff00, t->i->operand_bytes);
	else if (ok)
		insn_set_gpr(t, t->i->reg, insn_unpack_descriptor((uint16_t)v, d).limit, t->i->operand_bytes);
	t->cpu->flags_word = (t->cpu->flags_word & ~(uint64_t)(FLAG_ZF << 8)) | (ok ? FLAG_ZF << 8 : 0);
	return 0;
}

int insn_fs_gs_base(struct step *t)
{
	unsigned bytes = t->i->rex_w ? 8 : 4;
	uint64_t *base = &t->s->segment[t->i->reg & 1 ? X86_GS : X86_FS].base;

	if (!(t->s->cr4 & CR4_FSGSBASE) || x86_code_bits(t->s) != 64)
		return insn_undefined(t);
	if (t->i->reg < 2) {
		insn_set_gpr(t, t->i->rm, *base, bytes);
		return 0;
	}
	if (bytes == 8 && !soft_canonical(t->s->gpr[t->i->rm]))
		return insn_general_protection(t);
	*base = bytes == 8 ? t->s->gpr[t->i->rm] : (uint32_t)t->s->gpr[t->i->rm];
	return 0;
}

int insn_swapgs(struct step *t)
{
	struct x86_state *s = t->s;
	uint64_t base = s->segment[X86_GS].base;

	if (s->cpl)
		return insn_general_protection(t);
	s->segment[X86_GS].base = s->kernel_gs_base;
	s->kernel_gs_base = base;
	return 0;
}

int insn_mov_from_segment(struct step *t)
{
	return insn_put_rm(t, t->i->mod == 3 ? t->i->operand_bytes : 2, t->s->segment[t->i->reg & 7].selector);
}

int insn_mov_to_segment(struct step *t)
{
	unsigned which = t->i->reg & 7;
	uint64_t selector;

	if (which == X86_CS || which > X86_GS)
		return insn_undefined(t);
	if (insn_get_rm(t, 2, &selector) || insn_load_segment(t, which, (uint16_t)selector))
		return -EFAULT;
	if (which == X86_SS)
		soft_set_shadow(t->cpu, PENDING_MOV_SS_SHADOW);
	return 0;
}

int insn_pop_segment(struct step *t, unsigned which)
{
	uint64_t selector;

	if (insn_pop(t, &selector, insn_stack_bytes(t)))
		return -EFAULT;
	return insn_load_segment(t, which, (uint16_t)selector);
}
