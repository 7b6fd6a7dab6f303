/*
 * What translated code leaves to C: privileged and system instructions, segment loads, far control transfers, and forms too rare
 * to translate. One instruction a call; state.rip is its address until it has succeeded. Left out: task switches, call gates.
 */
#include <errno.h>

#include "engine/soft/soft_internal.h"
#include "address.h"

enum { CODE_DB = 0x4000 };

struct step { struct soft_cpu *cpu; struct x86_state *s; const struct x86_insn *i; uint64_t next; struct fault *fault; };

static int general_protection(struct step *t) { return soft_fail(t->fault, EXC_GP, true, 0); }
static int undefined(struct step *t) { return soft_fail(t->fault, EXC_UD, false, 0); }

static void set_cpl(struct soft_cpu *cpu, unsigned cpl)
{
	cpu->state.cpl = (uint8_t)cpl;
	soft_select_view(cpu);
}

/* ---- segments ---------------------------------------------------------------------------------------------------------------------- */

static int read_descriptor(struct step *t, uint16_t selector, uint64_t ret[2], bool wide)
{
	const struct x86_state *s = t->s;
	uint64_t base = selector & 4 ? s->ldtr.base : s->gdtr.base, limit = selector & 4 ? s->ldtr.limit : s->gdtr.limit;

	ret[1] = 0;
	if ((selector & 0xfff8u) + (wide ? 15u : 7u) > limit)
		return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
	return soft_read(t->cpu, base + (selector & 0xfff8), ret, wide ? 16 : 8, ACCESS_SYSTEM | ACCESS_READ, t->fault);
}

static struct x86_segment_state unpack(uint16_t selector, const uint64_t d[2])
{
	struct x86_segment_state r = { .selector = selector, .attributes = (uint16_t)(d[0] >> 40) & 0xf0ff };

	r.base = (d[0] >> 16 & 0xffffff) | (d[0] >> 32 & 0xff000000) | d[1] << 32;
	r.limit = (uint32_t)((d[0] & 0xffff) | (d[0] >> 32 & 0xf0000));
	if (r.attributes & 0x8000)
		r.limit = r.limit << 12 | 0xfff;
	return r;
}

static int load_segment(struct step *t, unsigned which, uint16_t selector)
{
	struct x86_state *s = t->s;
	uint64_t d[2];

	if (!(s->cr0 & CR0_PE)) {
		s->segment[which] = (struct x86_segment_state){ .selector = selector, .base = (uint64_t)selector << 4, .limit = 0xffff, .attributes = 0x93 };
		return 0;
	}
	if (!(selector & 0xfffc)) {
		if (which == X86_SS && !(s->code_bits == 64 && s->cpl < 3))
			return general_protection(t);
		/* AMD keeps base and limit of a nulled segment; so do we: FS and GS bases are set by MSR */
		s->segment[which].selector = selector;
		s->segment[which].attributes = 0;
		if (which != X86_FS && which != X86_GS)
			s->segment[which].base = 0;
		return 0;
	}
	if (read_descriptor(t, selector, d, false))
		return -EFAULT;
	if (!(d[0] >> 44 & 1) || (which == X86_SS && (d[0] >> 40 & 0xa) != 2))
		return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
	if (!(d[0] >> 47 & 1))
		return soft_fail(t->fault, which == X86_SS ? EXC_SS : EXC_NP, true, selector & 0xfffc);
	s->segment[which] = unpack(selector, d);
	return 0;
}

static int far_jump(struct step *t, uint16_t selector, uint64_t offset, unsigned new_cpl)
{
	struct x86_state *s = t->s;
	uint64_t d[2], old_base = s->segment[X86_CS].base;

	if (!(s->cr0 & CR0_PE)) {
		s->segment[X86_CS].selector = selector;
		s->segment[X86_CS].base = (uint64_t)selector << 4;
	} else {
		if (!(selector & 0xfffc))
			return general_protection(t);
		if (read_descriptor(t, selector, d, false))
			return -EFAULT;
		if ((d[0] >> 43 & 3) != 3)
			return soft_fail(t->fault, EXC_GP, true, selector & 0xfffc);
		if (!(d[0] >> 47 & 1))
			return soft_fail(t->fault, EXC_NP, true, selector & 0xfffc);
		s->segment[X86_CS] = unpack((uint16_t)((selector & 0xfffc) | new_cpl), d);
		soft_set_code_bits(s);
		s->cpl = (uint8_t)new_cpl;
	}
	t->next = offset;
	if (old_base != s->segment[X86_CS].base)
		soft_flush_jumps(t->cpu, true); /* the jump cache knows offsets in the segment */
	return 0;
}

/* ---- operands ------------------------------------------------------------------------------------------------------------------------ */

static uint64_t address(const struct step *t) { return soft_operand_address(t->s, t->i); }

static int get_rm(struct step *t, unsigned bytes, uint64_t *ret)
{
	*ret = 0;
	if (x86_insn_has_memory(t->i))
		return soft_read(t->cpu, address(t), ret, bytes, ACCESS_READ, t->fault);
	*ret = bytes == 8 ? t->s->gpr[t->i->rm] : t->s->gpr[t->i->rm] & ((1ull << 8 * bytes) - 1);
	return 0;
}

static void set_gpr(struct step *t, unsigned reg, uint64_t value, unsigned bytes)
{
	uint64_t *r = &t->s->gpr[reg];

	*r = bytes == 8 ? value : bytes == 4 ? (uint32_t)value : bytes == 2 ? (*r & ~0xffffull) | (value & 0xffff) : (*r & ~0xffull) | (value & 0xff);
}

static int put_rm(struct step *t, unsigned bytes, uint64_t value)
{
	if (x86_insn_has_memory(t->i))
		return soft_write(t->cpu, address(t), &value, bytes, 0, t->fault);
	set_gpr(t, t->i->rm, value, bytes);
	return 0;
}

static unsigned stack_operand(const struct step *t) { return t->s->code_bits == 64 ? (t->i->prefix66 ? 2 : 8) : t->i->operand_bytes; }
static unsigned stack_address_bytes(const struct step *t)
{
	return t->s->code_bits == 64 ? 8 : t->s->segment[X86_SS].attributes & CODE_DB ? 4 : 2;
}

static uint64_t stack_mask(const struct step *t) { return soft_address_mask(stack_address_bytes(t)); }

static uint64_t stack_address(const struct step *t, uint64_t sp)
{
	return soft_linear_address(t->s, X86_SS, sp, stack_address_bytes(t));
}

static int push(struct step *t, uint64_t value, unsigned bytes)
{
	uint64_t mask = stack_mask(t), sp = (t->s->gpr[4] - bytes) & mask;

	if (soft_write(t->cpu, stack_address(t, sp), &value, bytes, 0, t->fault))
		return -EFAULT;
	t->s->gpr[4] = (t->s->gpr[4] & ~mask) | sp;
	return 0;
}

static int pop(struct step *t, uint64_t *ret, unsigned bytes)
{
	uint64_t mask = stack_mask(t), sp = t->s->gpr[4] & mask;

	*ret = 0;
	if (soft_read(t->cpu, stack_address(t, sp), ret, bytes, ACCESS_READ, t->fault))
		return -EFAULT;
	t->s->gpr[4] = (t->s->gpr[4] & ~mask) | ((sp + bytes) & mask);
	return 0;
}

/* ---- control registers and MSRs ----------------------------------------------------------------------------------------------------- */

static int write_cr(struct step *t, unsigned cr, uint64_t v)
{
	struct soft_cpu *cpu = t->cpu;
	struct x86_state *s = t->s;

	switch (cr) {
	case 0:
		if (v >> 32 || (v & CR0_PG && !(v & CR0_PE)) || (!(v & CR0_PG) && s->cr4 & CR4_PCIDE))
			return general_protection(t);
		if (v & CR0_PG && !(s->cr0 & CR0_PG) && s->efer & EFER_LME && !(s->cr4 & CR4_PAE))
			return general_protection(t);
		if (v & CR0_PG && !(s->cr0 & CR0_PG) && s->efer & EFER_LME)
			s->efer |= EFER_LMA;
		if (!(v & CR0_PG))
			s->efer &= ~(uint64_t)EFER_LMA;
		s->cr0 = v | 0x10;
		soft_set_code_bits(s);
		soft_flush(cpu, true);
		return 0;
	case 2: s->cr2 = v; return 0;
	case 3: /* whether bit 63 asks to keep entries or not, none of another context may be seen: all that are not global go */
		if (v & ~(s->cr4 & CR4_PCIDE ? 1ull << 63 : 0) & ~0ull << X86_PHYSICAL_BITS)
			return general_protection(t);
		s->cr3 = v & ~(1ull << 63);
		soft_flush(cpu, false);
		return 0;
	case 4:
		if (v & ~(uint64_t)X86_CR4_KNOWN)
			return general_protection(t);
		if (v & ~s->cr4 & CR4_PCIDE && (!(s->efer & EFER_LMA) || s->cr3 & 0xfff))
			return general_protection(t);
		if (s->efer & EFER_LMA && !(v & CR4_PAE))
			return general_protection(t);
		s->cr4 = v;
		soft_flush(cpu, true);
		return 0;
	case 8:
		s->cr8 = v & 15;
		soft_outside(cpu);
		cpu->ops->set_cr8(cpu->ops_context, (uint8_t)s->cr8);
		soft_inside(cpu);
		return 0;
	default: return undefined(t);
	}
}

static int mov_control(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	unsigned bytes = s->code_bits == 64 ? 8 : 4;

	if (s->cpl)
		return general_protection(t);
	switch (i->opcode) {
	case 0x20: {
		const uint64_t values[16] = { s->cr0, 0, s->cr2, s->cr3, s->cr4, 0, 0, 0, s->cr8 };

		if (i->reg == 1 || (i->reg > 4 && i->reg != 8))
			return undefined(t);
		set_gpr(t, i->rm, values[i->reg], bytes);
		return 0;
	}
	case 0x22: return write_cr(t, i->reg, bytes == 8 ? s->gpr[i->rm] : (uint32_t)s->gpr[i->rm]);
	case 0x21: {
		uint64_t v;

		if (soft_read_dr(t->cpu, i->reg & 7, &v, t->fault))
			return -EFAULT;
		set_gpr(t, i->rm, v, bytes);
		return 0;
	}
	default: return soft_write_dr(t->cpu, i->reg & 7, bytes == 8 ? s->gpr[i->rm] : (uint32_t)s->gpr[i->rm], t->fault);
	}
}

static uint64_t *plain_msr(struct x86_state *s, uint32_t msr)
{
	switch (msr) {
	case 0x174: return &s->sysenter_cs;
	case 0x175: return &s->sysenter_esp;
	case 0x176: return &s->sysenter_eip;
	case 0x277: return &s->pat;
	case 0xc0000081: return &s->star;
	case 0xc0000082: return &s->lstar;
	case 0xc0000083: return &s->cstar;
	case 0xc0000084: return &s->sfmask;
	case 0xc0000100: return &s->segment[X86_FS].base;
	case 0xc0000101: return &s->segment[X86_GS].base;
	case 0xc0000102: return &s->kernel_gs_base;
	case 0xc0000103: return &s->tsc_aux;
	default: return NULL;
	}
}

static uint64_t host_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static int access_msr(struct step *t, bool write)
{
	struct x86_state *s = t->s;
	uint32_t msr = (uint32_t)s->gpr[1];
	uint64_t v = s->gpr[2] << 32 | (uint32_t)s->gpr[0], *plain = plain_msr(s, msr);
	int error;

	if (s->cpl)
		return general_protection(t);
	if (write && plain) {
		if (((msr & 0xfffffffe) == 0xc0000082 || (msr >= 0xc0000100 && msr <= 0xc0000102)) && !soft_canonical(v))
			return general_protection(t);
		*plain = v;
		return 0;
	}
	if (write && msr == 0xc0000080) {
		if (v & ~0xd01ull)
			return general_protection(t);
		s->efer = (v & ~(uint64_t)EFER_LMA) | (s->efer & EFER_LMA);
		soft_flush(t->cpu, true);
		return 0;
	}
	if (write && msr == 0x10) {
		s->tsc_offset = v - host_tsc();
		return 0;
	}
	if (!write && plain)
		v = *plain;
	else if (!write && msr == 0xc0000080)
		v = s->efer;
	else if (!write && msr == 0x10)
		v = host_tsc() + s->tsc_offset;
	else {
		soft_outside(t->cpu);
		error = write ? t->cpu->ops->msr_write(t->cpu->ops_context, msr, v) : t->cpu->ops->msr_read(t->cpu->ops_context, msr, &v);
		soft_inside(t->cpu);
		if (error)
			return general_protection(t);
	}
	if (!write) {
		s->gpr[0] = (uint32_t)v;
		s->gpr[2] = v >> 32;
	}
	return 0;
}

static int port_io(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	unsigned bytes = i->opcode & 1 ? (i->operand_bytes == 2 ? 2 : 4) : 1;
	uint16_t port = i->opcode & 8 ? (uint16_t)s->gpr[2] : (uint8_t)i->imm;
	uint64_t v = 0;

	if (s->cpl > (s->rflags >> 12 & 3))
		return general_protection(t);
	soft_outside(t->cpu);
	if (i->opcode & 2)
		t->cpu->ops->port_write(t->cpu->ops_context, port, bytes, bytes == 4 ? (uint32_t)s->gpr[0] : s->gpr[0] & ((1u << 8 * bytes) - 1));
	else
		v = t->cpu->ops->port_read(t->cpu->ops_context, port, bytes);
	soft_inside(t->cpu);
	if (!(i->opcode & 2))
		set_gpr(t, 0, v, bytes);
	return 0;
}

static int cpuid(struct step *t)
{
	uint32_t r[4];

	soft_outside(t->cpu);
	t->cpu->ops->cpuid(t->cpu->ops_context, (uint32_t)t->s->gpr[0], (uint32_t)t->s->gpr[1], r);
	soft_inside(t->cpu);
	t->s->gpr[0] = r[0];
	t->s->gpr[3] = r[1];
	t->s->gpr[1] = r[2];
	t->s->gpr[2] = r[3];
	return 0;
}

/* ---- system calls and returns --------------------------------------------------------------------------------------------------------- */

static int syscall_enter(struct step *t)
{
	struct x86_state *s = t->s;

	if (!(s->efer & EFER_SCE))
		return undefined(t);
	s->gpr[1] = t->next;
	s->gpr[11] = soft_rflags(t->cpu) & ~(uint64_t)FLAG_RF;
	t->next = s->code_bits == 64 ? s->lstar : s->cstar;
	soft_set_code_segment(s, (uint16_t)(s->star >> 32 & 0xfffc), 0xa09b);
	s->segment[X86_SS] = (struct x86_segment_state){ .selector = (uint16_t)((s->star >> 32 & 0xfffc) + 8), .attributes = 0xc093, .limit = ~0u };
	s->code_bits = 64;
	soft_set_rflags(t->cpu, s->gpr[11] & ~s->sfmask);
	set_cpl(t->cpu, 0);
	return 0;
}

static int syscall_return(struct step *t)
{
	struct x86_state *s = t->s;
	uint16_t base = (uint16_t)(s->star >> 48);

	if (!(s->efer & EFER_SCE))
		return undefined(t);
	if (s->cpl || (t->i->rex_w && !soft_canonical(s->gpr[1])))
		return general_protection(t);
	t->next = t->i->rex_w ? s->gpr[1] : (uint32_t)s->gpr[1];
	soft_set_rflags(t->cpu, (s->gpr[11] & 0x3c7fd7) | 2);
	soft_set_code_segment(s, (uint16_t)((base + (t->i->rex_w ? 16 : 0)) | 3), t->i->rex_w ? 0xa0fb : 0xc0fb);
	s->segment[X86_SS] = (struct x86_segment_state){ .selector = (uint16_t)((base + 8) | 3), .attributes = 0xc0f3, .limit = ~0u };
	s->code_bits = t->i->rex_w ? 64 : 32;
	set_cpl(t->cpu, 3);
	return 0;
}

static int interrupt_return(struct step *t)
{
	struct x86_state *s = t->s;
	unsigned bytes = t->i->rex_w ? 8 : t->i->operand_bytes;
	uint64_t rip, cs, rflags, rsp = 0, ss = 0, old_rsp = s->gpr[4], keep = 0;
	unsigned cpl;

	if (pop(t, &rip, bytes) || pop(t, &cs, bytes) || pop(t, &rflags, bytes))
		goto undo;
	cpl = cs & 3;
	if (s->code_bits == 64 || cpl > s->cpl)
		if (pop(t, &rsp, bytes) || pop(t, &ss, bytes))
			goto undo;
	if (cpl < s->cpl || (s->efer & EFER_LMA && !soft_canonical(rip))) {
		s->gpr[4] = old_rsp;
		return general_protection(t);
	}
	if (s->cpl)
		keep = FLAG_IOPL | (s->cpl > (s->rflags >> 12 & 3) ? FLAG_IF : 0);
	{
		uint64_t flags = (rflags & ~keep) | (soft_rflags(t->cpu) & keep), d[2];
		bool had_stack = s->code_bits == 64 || cpl > s->cpl;
		struct x86_segment_state old_cs = s->segment[X86_CS];

		if (read_descriptor(t, (uint16_t)cs, d, false))
			goto undo;
		if ((d[0] >> 43 & 3) != 3 || !(d[0] >> 47 & 1)) {
			s->gpr[4] = old_rsp;
			return soft_fail(t->fault, EXC_GP, true, cs & 0xfffc);
		}
		s->segment[X86_CS] = unpack((uint16_t)cs, d);
		soft_set_code_bits(s);
		if (old_cs.base != s->segment[X86_CS].base)
			soft_flush_jumps(t->cpu, true); /* the jump cache knows offsets in the segment */
		if (had_stack) {
			s->gpr[4] = s->code_bits == 64 ? rsp : (uint32_t)rsp;
			if ((ss & 0xfffc) && !read_descriptor(t, (uint16_t)ss, d, false))
				s->segment[X86_SS] = unpack((uint16_t)ss, d);
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

static int far_return(struct step *t)
{
	unsigned bytes = t->i->rex_w ? 8 : t->i->operand_bytes;
	uint64_t rip, cs, rsp, ss, old = t->s->gpr[4];
	unsigned cpl;

	if (pop(t, &rip, bytes) || pop(t, &cs, bytes))
		return t->s->gpr[4] = old, -EFAULT;
	t->s->gpr[4] += t->i->opcode == 0xca ? t->i->imm : 0;
	cpl = t->s->cr0 & CR0_PE ? cs & 3 : 0;
	if (cpl > t->s->cpl) {
		if (pop(t, &rsp, bytes) || pop(t, &ss, bytes) || far_jump(t, (uint16_t)cs, rip, cpl))
			return t->s->gpr[4] = old, -EFAULT;
		t->s->gpr[4] = rsp;
		soft_select_view(t->cpu);
		return load_segment(t, X86_SS, (uint16_t)ss);
	}
	if (far_jump(t, (uint16_t)cs, rip, t->s->cpl))
		return t->s->gpr[4] = old, -EFAULT;
	return 0;
}

static int software_interrupt(struct step *t, unsigned vector)
{
	t->s->rip = t->next;
	soft_deliver(t->cpu, vector, true, false, 0);
	t->next = t->s->rip;
	return 0;
}

/* ---- vector state ------------------------------------------------------------------------------------------------------------------------ */

static int save_area(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct soft_cpu *cpu = t->cpu;
	struct x86_state *s = t->s;
	uint32_t mask = (uint32_t)(s->gpr[0] & s->xcr0);
	bool fx = i->opcode == 0xae && i->reg < 2;
	size_t bytes = fx ? 512 : s->xcr0 & 4 ? 832 : 576;
	uint8_t *area = cpu->save_area;
	uint64_t gva = address(t);
	bool load = i->opcode == 0xae && (i->reg & 1);
	struct fault fault;

	if (!fx && !(s->cr4 & CR4_OSXSAVE))
		return undefined(t);
	if (gva & (fx ? 15 : 63))
		return general_protection(t);
	if (soft_read(cpu, gva, area, bytes, ACCESS_READ, t->fault))
		return -EFAULT;
	if (load) {
		uint64_t *header = (uint64_t *)(void *)(area + 512);

		if (*(uint32_t *)(void *)(area + 24) & ~0xffffu)
			return general_protection(t);
		if (fx) {
			__asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
			return 0;
		}
		if (header[1] & 1ull << 63 ? (header[1] & ~(1ull << 63 | s->xcr0)) || header[0] & ~header[1] : header[1] || header[0] & ~s->xcr0)
			return general_protection(t);
		for (int n = 2; n < 8; n++)
			if (header[n])
				return general_protection(t);
		__asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
		return 0;
	}
	if (soft_write(cpu, gva, area, 1, 0, &fault)) /* the write right comes before the save */
		return *t->fault = fault, -EFAULT;
	if (fx)
		__asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
	else if (i->opcode == 0xc7)
		__asm__ volatile("xsavec64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
	else
		__asm__ volatile("xsave64 (%0)" : : "r"(area), "a"(mask), "d"(0) : "memory");
	return soft_write(cpu, gva, area, bytes, 0, t->fault);
}

/* ---- the groups ------------------------------------------------------------------------------------------------------------------------------ */

static int descriptor_tables(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	unsigned base_bytes = s->code_bits == 64 ? 8 : 4;
	struct x86_table *table = i->reg & 1 ? &s->idtr : &s->gdtr;
	uint8_t image[10] = { 0 };

	if (i->reg < 2) {
		if (s->cpl && s->cr4 & CR4_UMIP)
			return general_protection(t);
		memcpy(image, &table->limit, 2);
		memcpy(image + 2, &table->base, 8);
		return soft_write(t->cpu, address(t), image, 2 + base_bytes, 0, t->fault);
	}
	if (s->cpl)
		return general_protection(t);
	if (soft_read(t->cpu, address(t), image, 2 + base_bytes, ACCESS_READ, t->fault))
		return -EFAULT;
	table->base = 0;
	memcpy(&table->limit, image, 2);
	memcpy(&table->base, image + 2, i->operand_bytes == 2 && s->code_bits != 64 ? 3 : base_bytes);
	return 0;
}

static int register_forms_01(struct step *t)
{
	struct soft_cpu *cpu = t->cpu;
	struct x86_state *s = t->s;
	uint8_t code = (uint8_t)(0xc0 | (t->i->reg & 7) << 3 | (t->i->rm & 7));
	uint64_t swap;
	enum engine_call call;

	switch (code) {
	case 0xc1: case 0xd9: /* VMCALL, VMMCALL */
		if (s->cpl)
			return undefined(t);
		soft_outside(cpu);
		call = cpu->ops->hypercall(cpu->ops_context);
		soft_inside(cpu);
		if (call == ENGINE_CALL_AGAIN)
			t->next = s->rip;
		return call == ENGINE_CALL_UNDEFINED ? undefined(t) : 0;
	case 0xca: case 0xcb:
		if (s->cpl)
			return undefined(t);
		s->rflags = code == 0xcb ? s->rflags | FLAG_AC : s->rflags & ~(uint64_t)FLAG_AC;
		soft_select_view(cpu);
		return 0;
	case 0xd0:
		if (!(s->cr4 & CR4_OSXSAVE))
			return undefined(t);
		if ((uint32_t)s->gpr[1] > 1)
			return general_protection(t);
		s->gpr[0] = (uint32_t)s->xcr0;
		s->gpr[2] = 0;
		return 0;
	case 0xd1:
		if (!(s->cr4 & CR4_OSXSAVE))
			return undefined(t);
		swap = s->gpr[2] << 32 | (uint32_t)s->gpr[0];
		if (s->cpl || (uint32_t)s->gpr[1] || !(swap & 1) || swap & ~7ull || (swap & 6) == 4)
			return general_protection(t);
		s->xcr0 = swap;
		return 0;
	case 0xf8:
		if (s->cpl)
			return general_protection(t);
		swap = s->kernel_gs_base;
		s->kernel_gs_base = s->segment[X86_GS].base;
		s->segment[X86_GS].base = swap;
		return 0;
	case 0xf9:
		swap = host_tsc() + s->tsc_offset;
		s->gpr[0] = (uint32_t)swap;
		s->gpr[2] = swap >> 32;
		s->gpr[1] = (uint32_t)s->tsc_aux;
		return 0;
	default: return undefined(t);
	}
}

static int group_01(struct step *t)
{
	const struct x86_insn *i = t->i;
	uint64_t v;

	if (i->reg == 4) {
		if (t->s->cpl && t->s->cr4 & CR4_UMIP)
			return general_protection(t);
		return put_rm(t, i->mod == 3 ? i->operand_bytes : 2, t->s->cr0);
	}
	if (i->reg == 6) {
		if (t->s->cpl)
			return general_protection(t);
		if (get_rm(t, 2, &v))
			return -EFAULT;
		return write_cr(t, 0, (t->s->cr0 & ~14ull) | (v & 15));
	}
	if (i->mod == 3)
		return register_forms_01(t);
	if (i->reg < 4)
		return descriptor_tables(t);
	if (i->reg != 7)
		return undefined(t);
	if (t->s->cpl)
		return general_protection(t);
	soft_flush_page(t->cpu, address(t));
	return 0;
}

static int group_00(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	struct x86_segment_state *to = i->reg & 1 ? &s->tr : &s->ldtr;
	uint64_t v, d[2];

	if (i->reg < 2) {
		if (s->cpl && s->cr4 & CR4_UMIP)
			return general_protection(t);
		return put_rm(t, i->mod == 3 ? i->operand_bytes : 2, to->selector);
	}
	if (get_rm(t, 2, &v))
		return -EFAULT;
	if (i->reg >= 4) { /* VERR, VERW */
		bool ok = (v & 0xfffc) && !read_descriptor(t, (uint16_t)v, d, false) && d[0] >> 44 & 1 && d[0] >> 47 & 1;

		if (ok && i->reg == 5)
			ok = (d[0] >> 40 & 0xa) == 2;
		t->cpu->flags_word = (t->cpu->flags_word & ~(uint64_t)(FLAG_ZF << 8)) | (ok ? FLAG_ZF << 8 : 0);
		return 0;
	}
	if (s->cpl)
		return general_protection(t);
	if (!(v & 0xfffc) && i->reg == 2) {
		*to = (struct x86_segment_state){ .selector = (uint16_t)v };
		return 0;
	}
	if (read_descriptor(t, (uint16_t)v, d, s->efer & EFER_LMA))
		return -EFAULT;
	*to = unpack((uint16_t)v, d);
	return 0;
}

static int lar_lsl(struct step *t)
{
	uint64_t v, d[2];
	bool ok;

	if (get_rm(t, 2, &v))
		return -EFAULT;
	ok = (v & 0xfffc) && !read_descriptor(t, (uint16_t)v, d, false);
	if (ok && t->i->opcode == 2)
		set_gpr(t, t->i->reg, d[0] >> 32 & 0xffff00, t->i->operand_bytes);
	else if (ok)
		set_gpr(t, t->i->reg, unpack((uint16_t)v, d).limit, t->i->operand_bytes);
	t->cpu->flags_word = (t->cpu->flags_word & ~(uint64_t)(FLAG_ZF << 8)) | (ok ? FLAG_ZF << 8 : 0);
	return 0;
}

static int fs_gs_base(struct step *t)
{
	unsigned bytes = t->i->rex_w ? 8 : 4;
	uint64_t *base = &t->s->segment[t->i->reg & 1 ? X86_GS : X86_FS].base;

	if (!(t->s->cr4 & CR4_FSGSBASE) || t->s->code_bits != 64)
		return undefined(t);
	if (t->i->reg < 2) {
		set_gpr(t, t->i->rm, *base, bytes);
		return 0;
	}
	if (bytes == 8 && !soft_canonical(t->s->gpr[t->i->rm]))
		return general_protection(t);
	*base = bytes == 8 ? t->s->gpr[t->i->rm] : (uint32_t)t->s->gpr[t->i->rm];
	return 0;
}

/* INVPCID: entries are not kept apart by context, so that every type may drop more than it names. */
static int invpcid(struct step *t)
{
	struct x86_state *s = t->s;
	uint64_t descriptor[2], kind = s->code_bits == 64 ? s->gpr[t->i->reg] : (uint32_t)s->gpr[t->i->reg];

	if (s->cpl || kind > 3)
		return general_protection(t);
	if (soft_read(t->cpu, address(t), descriptor, 16, ACCESS_READ, t->fault))
		return -EFAULT;
	if (descriptor[0] >> 12 || (kind < 2 && !(s->cr4 & CR4_PCIDE) && descriptor[0]) || (kind == 0 && !soft_canonical(descriptor[1])))
		return general_protection(t);
	if (kind == 0)
		soft_flush_page(t->cpu, descriptor[1]);
	else
		soft_flush(t->cpu, kind == 2);
	return 0;
}

static int two_bytes(struct step *t)
{
	struct x86_state *s = t->s;
	uint64_t v;

	switch (t->i->opcode) {
	case 0x00: return group_00(t);
	case 0x01: return group_01(t);
	case 0x02: case 0x03: return lar_lsl(t);
	case 0x05: return syscall_enter(t);
	case 0x07: return syscall_return(t);
	case 0x06:
		if (s->cpl)
			return general_protection(t);
		s->cr0 &= ~(uint64_t)CR0_TS;
		return 0;
	case 0x08: case 0x09: return s->cpl ? general_protection(t) : 0;
	case 0x20: case 0x21: case 0x22: case 0x23: return mov_control(t);
	case 0x30: return access_msr(t, true);
	case 0x32: return access_msr(t, false);
	case 0xa2: return cpuid(t);
	case 0xa0: case 0xa8: return push(t, s->segment[t->i->opcode == 0xa0 ? X86_FS : X86_GS].selector, stack_operand(t));
	case 0xa1: case 0xa9:
		if (pop(t, &v, stack_operand(t)))
			return -EFAULT;
		return load_segment(t, t->i->opcode == 0xa1 ? X86_FS : X86_GS, (uint16_t)v);
	case 0xae:
		if (t->i->mod == 3)
			return fs_gs_base(t);
		return save_area(t);
	case 0xc7: return t->i->reg == 4 ? save_area(t) : undefined(t);
	default: return undefined(t);
	}
}

static int push_pop_flags(struct step *t)
{
	struct x86_state *s = t->s;
	unsigned bytes = stack_operand(t);
	uint64_t v, keep = FLAG_VM | 0x180000;

	if (t->i->opcode == 0x9c)
		return push(t, soft_rflags(t->cpu) & ~(uint64_t)(FLAG_RF | FLAG_VM), bytes);
	if (pop(t, &v, bytes))
		return -EFAULT;
	if (s->cpl)
		keep |= FLAG_IOPL;
	if (s->cpl > (s->rflags >> 12 & 3))
		keep |= FLAG_IF;
	if (bytes == 2)
		keep |= ~0xffffull;
	soft_set_rflags(t->cpu, ((v & ~keep) | (soft_rflags(t->cpu) & keep)) & ~(uint64_t)FLAG_RF);
	soft_select_view(t->cpu);
	return 0;
}

static int halt(struct step *t)
{
	if (t->s->cpl)
		return general_protection(t);
	t->cpu->stop = ENGINE_EXIT_HALT;
	return 0;
}

static int near_control(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	uint64_t mask = s->code_bits == 64 ? ~0ull : i->operand_bytes == 2 ? 0xffff : 0xffffffff, v;
	unsigned bytes = stack_operand(t);

	switch (i->opcode) {
	case 0xe8:
		if (push(t, t->next, bytes))
			return -EFAULT;
		t->next = (t->next + i->imm) & mask;
		return 0;
	case 0xc2: case 0xc3:
		if (pop(t, &v, bytes))
			return -EFAULT;
		s->gpr[4] += i->opcode == 0xc2 ? i->imm : 0;
		t->next = v;
		return 0;
	case 0xc9:
		v = s->gpr[4];
		s->gpr[4] = (s->gpr[4] & ~stack_mask(t)) | (s->gpr[5] & stack_mask(t));
		if (pop(t, &mask, bytes))
			return s->gpr[4] = v, -EFAULT;
		set_gpr(t, 5, mask, bytes);
		return 0;
	default: /* E0..E3 with 16-bit addresses */
		if (i->opcode != 0xe3)
			set_gpr(t, 1, s->gpr[1] - 1, 2);
		if (((uint16_t)s->gpr[1] == 0) == (i->opcode == 0xe3) &&
		    (i->opcode >= 0xe2 || (soft_rflags(t->cpu) & FLAG_ZF ? 1 : 0) == (i->opcode == 0xe1)))
			t->next = (t->next + i->imm) & mask;
		return 0;
	}
}

static int group_ff(struct step *t)
{
	const struct x86_insn *i = t->i;
	uint64_t v, selector = 0;
	unsigned bytes = stack_operand(t);

	if (i->reg == 3 || i->reg == 5) {
		bytes = i->rex_w ? 8 : i->operand_bytes;
		if (!x86_insn_has_memory(i))
			return undefined(t);
		v = 0;
		if (soft_read(t->cpu, address(t), &v, bytes, ACCESS_READ, t->fault) ||
		    soft_read(t->cpu, address(t) + bytes, &selector, 2, ACCESS_READ, t->fault))
			return -EFAULT;
		if (i->reg == 3 && (push(t, t->s->segment[X86_CS].selector, bytes) || push(t, t->next, bytes)))
			return -EFAULT;
		return far_jump(t, (uint16_t)selector, v, t->s->cpl);
	}
	if (get_rm(t, bytes, &v))
		return -EFAULT;
	if (i->reg == 6)
		return push(t, v, bytes);
	if (i->reg == 2 && push(t, t->next, bytes))
		return -EFAULT;
	t->next = v;
	return 0;
}

static int pushes(struct step *t)
{
	struct x86_state *s = t->s;
	unsigned bytes = stack_operand(t);
	uint64_t v, sp = s->gpr[4];
	uint8_t op = t->i->opcode;

	switch (op) {
	case 0x60:
		for (int n = 0; n < 8; n++)
			if (push(t, n == 4 ? sp : s->gpr[n], bytes))
				return s->gpr[4] = sp, -EFAULT;
		return 0;
	case 0x61:
		for (int n = 7; n >= 0; n--) {
			if (pop(t, &v, bytes))
				return s->gpr[4] = sp, -EFAULT;
			if (n != 4)
				set_gpr(t, (unsigned)n, v, bytes);
		}
		return 0;
	case 0x68: case 0x6a: return push(t, t->i->imm, bytes);
	case 0x8f:
		if (pop(t, &v, bytes))
			return -EFAULT;
		if (put_rm(t, bytes, v))
			return s->gpr[4] = sp, -EFAULT;
		return 0;
	case 0x06: case 0x0e: case 0x16: case 0x1e: return push(t, s->segment[op >> 3].selector, bytes);
	case 0x07: case 0x17: case 0x1f:
		if (pop(t, &v, bytes))
			return -EFAULT;
		if (load_segment(t, op >> 3, (uint16_t)v))
			return s->gpr[4] = sp, -EFAULT;
		if (op == 0x17)
			s->interrupt_shadow = SHADOW_MOV_SS;
		return 0;
	default:
		if (op < 0x58)
			return push(t, s->gpr[t->i->rm], bytes);
		if (pop(t, &v, bytes))
			return -EFAULT;
		set_gpr(t, t->i->rm, v, bytes);
		return 0;
	}
}

static int moffs(struct step *t)
{
	unsigned bytes = t->i->opcode & 1 ? t->i->operand_bytes : 1;
	uint64_t a = address(t), v = 0;

	if (t->i->opcode & 2)
		return soft_write(t->cpu, a, &t->s->gpr[0], bytes, 0, t->fault);
	if (soft_read(t->cpu, a, &v, bytes, ACCESS_READ, t->fault))
		return -EFAULT;
	set_gpr(t, 0, v, bytes);
	return 0;
}

static int one_byte(struct step *t)
{
	const struct x86_insn *i = t->i;
	struct x86_state *s = t->s;
	uint64_t v, a;
	int error;

	switch (i->opcode) {
	case 0x90:
		/* a processor that waits for one that has no host processor now: let it have this one */
		if (!(++t->cpu->pauses & 31))
			soft_yield();
		return 0;
	case 0x8c: return put_rm(t, i->mod == 3 ? i->operand_bytes : 2, s->segment[i->reg & 7].selector);
	case 0x8e:
		if ((i->reg & 7) == X86_CS || (i->reg & 7) > X86_GS)
			return undefined(t);
		if (get_rm(t, 2, &v))
			return -EFAULT;
		error = load_segment(t, i->reg & 7, (uint16_t)v);
		if (!error && (i->reg & 7) == X86_SS)
			s->interrupt_shadow = SHADOW_MOV_SS;
		return error;
	case 0x9c: case 0x9d: return push_pop_flags(t);
	case 0xa0: case 0xa1: case 0xa2: case 0xa3: return moffs(t);
	case 0xc3: case 0xc2: case 0xc9: case 0xe8: case 0xe0: case 0xe1: case 0xe2: case 0xe3: return near_control(t);
	case 0xca: case 0xcb: return far_return(t);
	case 0xcc: return software_interrupt(t, EXC_BP);
	case 0xcd: return software_interrupt(t, (uint8_t)i->imm);
	case 0xf1: return software_interrupt(t, EXC_DB);
	case 0xcf: return interrupt_return(t);
	case 0xd7:
		a = soft_linear_address(s, i->segment, s->gpr[3] + (uint8_t)s->gpr[0], i->address_bytes);
		v = 0;
		if (soft_read(t->cpu, a, &v, 1, ACCESS_READ, t->fault))
			return -EFAULT;
		set_gpr(t, 0, v, 1);
		return 0;
	case 0xe4: case 0xe5: case 0xe6: case 0xe7: case 0xec: case 0xed: case 0xee: case 0xef: return port_io(t);
	case 0xea: return far_jump(t, (uint16_t)i->disp, i->imm, s->cpl);
	case 0x9a:
		if (push(t, s->segment[X86_CS].selector, i->operand_bytes) || push(t, t->next, i->operand_bytes))
			return -EFAULT;
		return far_jump(t, (uint16_t)i->disp, i->imm, s->cpl);
	case 0xf4: return halt(t);
	case 0xfa: case 0xfb:
		if (s->cpl > (s->rflags >> 12 & 3))
			return general_protection(t);
		if (i->opcode == 0xfb && !s->interrupt_flag)
			s->interrupt_shadow = SHADOW_STI;
		s->interrupt_flag = i->opcode & 1;
		return 0;
	case 0xfc: case 0xfd:
		s->rflags = i->opcode & 1 ? s->rflags | FLAG_DF : s->rflags & ~(uint64_t)FLAG_DF;
		return 0;
	case 0xff: return group_ff(t);
	case 0x06: case 0x07: case 0x0e: case 0x16: case 0x17: case 0x1e: case 0x1f: case 0x60: case 0x61: case 0x68: case 0x6a: case 0x8f:
		return pushes(t);
	default:
		if (i->opcode >= 0x50 && i->opcode <= 0x5f)
			return pushes(t);
		return undefined(t);
	}
}

/* Does what translated code left to C, and returns the host code to go on with. */
void *soft_system(struct soft_cpu *cpu, const struct x86_insn *insn)
{
	struct fault fault = { 0 };
	struct step t = { cpu, &cpu->state, insn, cpu->state.rip + insn->length, &fault };
	uint8_t op = insn->opcode;
	int error;

	cpu->systems++;
	if (cpu->state.code_bits != 64)
		t.next = (uint32_t)t.next;
	if (cpu->state.cr0 & (CR0_TS | CR0_EM) && soft_uses_fpu(insn)) {
		bool x87 = !insn->kind && insn->map == 0;

		error = x87 || !(cpu->state.cr0 & CR0_EM) ? soft_fail(&fault, EXC_NM, false, 0) : undefined(&t);
	} else if (soft_is_scattered(insn)) {
		error = insn->kind && soft_mode(cpu) & MODE_AVX_OFF ? undefined(&t) : soft_scattered(cpu, insn, &fault);
	} else if (!insn->kind && insn->map == 0 && ((op >= 0x6c && op <= 0x6f) || (op >= 0xa4 && op <= 0xa7) || (op >= 0xaa && op <= 0xaf))) {
		error = soft_string(cpu, insn, &fault);
		if (error == -EAGAIN) /* an event in the middle: the instruction is executed again */
			return soft_dispatch(cpu);
	} else if (!insn->kind && insn->map == 0) {
		error = one_byte(&t);
	} else if (!insn->kind && insn->map == 1) {
		error = two_bytes(&t);
	} else if (!insn->kind && insn->map == 2 && op == 0x82) {
		error = invpcid(&t);
	} else {
		error = undefined(&t);
	}
	if (error)
		return soft_raise(cpu, &fault);
	cpu->state.rip = t.next;
	return soft_go_on(cpu);
}
