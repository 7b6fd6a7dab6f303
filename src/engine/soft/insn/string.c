/*
 * MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS: page piece by page piece at the host's own speed,
 * resumable at every element.
 */
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/mmu/mmu.h"
#include "address.h"
#include "insn.h"

struct string_op {
	struct soft_cpu *cpu;
	struct x86_state *s;
	const struct x86_insn *i;
	unsigned bytes;
	uint64_t mask;
	bool down;
	struct fault *fault;
};

static uint64_t source(const struct string_op *o)
{
	return soft_linear_address(o->s, o->i->segment, o->s->gpr[6], o->i->address_bytes);
}

static uint64_t destination(const struct string_op *o)
{
	return soft_linear_address(o->s, X86_ES, o->s->gpr[7], o->i->address_bytes);
}

static void advance(struct string_op *o, unsigned reg, uint64_t bytes)
{
	uint64_t v = o->down ? o->s->gpr[reg] - bytes : o->s->gpr[reg] + bytes;

	o->s->gpr[reg] =
		o->mask == 0xffff ? (o->s->gpr[reg] & ~0xffffull) | (v & 0xffff) : v & o->mask;
}

static void compare(struct string_op *o, uint64_t a, uint64_t b)
{
	uint64_t flags;
	unsigned shift = 64 - 8 * o->bytes;

	/*
	 * the operands in the high bits give CF ZF SF OF of their size; AF and PF come from the low
	 * byte
	 */
	__asm__("cmp %2, %1; pushfq; pop %0"
		: "=r"(flags)
		: "r"(a << shift), "r"(b << shift)
		: "cc", "memory");
	uint64_t low;

	__asm__("cmp %b2, %b1; pushfq; pop %0" : "=r"(low) : "q"(a), "q"(b) : "cc", "memory");
	flags = (flags & ~0x14ull) | (low & 0x14);
	o->cpu->flags_word = (flags & 0xd5) << 8 | (flags >> 11 & 1);
}

/* Whether limits and alignment have to be looked at element by element. */
static bool is_checked(const struct string_op *o)
{
	return soft_mode(o->cpu) & MODE_CHECKS;
}

static int check_source(const struct string_op *o)
{
	if (soft_check_segment(o->cpu, o->i->segment, o->s->gpr[6] & o->mask, o->bytes, false,
			       o->fault))
		return -EFAULT;
	return soft_check_alignment(o->cpu, source(o), o->bytes, o->fault);
}

static int check_destination(const struct string_op *o, bool write)
{
	if (soft_check_segment(o->cpu, X86_ES, o->s->gpr[7] & o->mask, o->bytes, write, o->fault))
		return -EFAULT;
	return soft_check_alignment(o->cpu, destination(o), o->bytes, o->fault);
}

static bool reads_source(const struct x86_insn *i)
{
	enum { OUTS = 0x6e, STOS = 0xaa, LODS = 0xac };
	uint8_t kind = i->opcode & 0xfe;

	return kind == OUTS || kind == LODS || (kind > OUTS && kind < STOS);
}

static bool has_destination(const struct x86_insn *i)
{
	enum { OUTS = 0x6e, LODS = 0xac };

	return (i->opcode & 0xfe) != OUTS && (i->opcode & 0xfe) != LODS;
}

static int check_element(const struct string_op *o)
{
	uint8_t kind = o->i->opcode & 0xfe;
	bool compares = kind == 0xa6 || kind == 0xae;

	if (reads_source(o->i) && check_source(o))
		return -EFAULT;
	return has_destination(o->i) ? check_destination(o, !compares) : 0;
}

/*
 * How many elements can be done at once: up to the end of the page of both addresses, and to where
 * a register of 16 or 32 bits begins anew. 0: one element, the slow way.
 */
static uint64_t run_length(const struct string_op *o, uint64_t gva, uint64_t count)
{
	uint64_t offset = gva & PAGE_OFFSET_MASK;
	uint64_t left = o->down ? offset / o->bytes + 1 : (PAGE_BYTES - offset) / o->bytes;

	if (o->down && offset + o->bytes > PAGE_BYTES)
		return 0;
	return left < count ? left : count;
}

/* Whether the register begins anew before the end of so many elements. */
static bool wraps(const struct string_op *o, unsigned reg, uint64_t count)
{
	uint64_t offset = o->s->gpr[reg] & o->mask;
	uint64_t span = (count - 1) * o->bytes;

	if (o->mask == ~0ull)
		return false;
	return o->down ? offset < span || offset + o->bytes - 1 > o->mask
		       : offset + span + o->bytes - 1 > o->mask;
}

static int block_move(struct string_op *o, uint64_t count, uint64_t *ret_done)
{
	bool move = o->i->opcode < 0xaa;
	uint64_t from = source(o);
	uint64_t to = destination(o);
	uint64_t n = run_length(o, to, count);
	uint64_t gpa;
	uint64_t value = o->s->gpr[0];
	uint8_t *from_hva = NULL;
	uint8_t *to_hva;

	*ret_done = 0;
	if (move) {
		uint64_t m = run_length(o, from, count);

		n = m < n ? m : n;
	}
	if (n < 1 || o->cpu->watchpoints || is_checked(o) || wraps(o, 7, n) ||
	    (move && wraps(o, 6, n)))
		return 0;
	if (move && soft_fill(o->cpu, from, ACCESS_READ, &from_hva, &gpa, o->fault))
		return -EFAULT;
	if (soft_fill(o->cpu, to, ACCESS_WRITE, &to_hva, &gpa, o->fault))
		return -EFAULT;
	if (!to_hva || (move && !from_hva) ||
	    o->cpu->engine->frame_flags[soft_frame(o->cpu->engine, to_hva)] & FRAME_CODE)
		return 0;
	*ret_done = n;
	if (o->down)
		__asm__ volatile("std");
	if (move) {
		switch (o->bytes) {
		case 1:
			__asm__ volatile("rep movsb"
					 : "+D"(to_hva), "+S"(from_hva), "+c"(n)
					 :
					 : "memory");
			break;
		case 2:
			__asm__ volatile("rep movsw"
					 : "+D"(to_hva), "+S"(from_hva), "+c"(n)
					 :
					 : "memory");
			break;
		case 4:
			__asm__ volatile("rep movsl"
					 : "+D"(to_hva), "+S"(from_hva), "+c"(n)
					 :
					 : "memory");
			break;
		default:
			__asm__ volatile("rep movsq"
					 : "+D"(to_hva), "+S"(from_hva), "+c"(n)
					 :
					 : "memory");
			break;
		}
	} else {
		switch (o->bytes) {
		case 1:
			__asm__ volatile("rep stosb"
					 : "+D"(to_hva), "+c"(n)
					 : "a"(value)
					 : "memory");
			break;
		case 2:
			__asm__ volatile("rep stosw"
					 : "+D"(to_hva), "+c"(n)
					 : "a"(value)
					 : "memory");
			break;
		case 4:
			__asm__ volatile("rep stosl"
					 : "+D"(to_hva), "+c"(n)
					 : "a"(value)
					 : "memory");
			break;
		default:
			__asm__ volatile("rep stosq"
					 : "+D"(to_hva), "+c"(n)
					 : "a"(value)
					 : "memory");
			break;
		}
	}
	if (o->down)
		__asm__ volatile("cld");
	advance(o, 7, *ret_done * o->bytes);
	if (move)
		advance(o, 6, *ret_done * o->bytes);
	return 0;
}

static int port_element(struct string_op *o)
{
	struct soft_cpu *cpu = o->cpu;
	uint16_t port = (uint16_t)o->s->gpr[2];
	uint64_t v = 0;

	if (soft_check_port(cpu, port, o->bytes, o->fault))
		return -EFAULT;
	if (o->i->opcode < 0x6e) {
		if (soft_check_write(cpu, destination(o), o->bytes, 0, o->fault))
			return -EFAULT;
		soft_outside(cpu);
		v = cpu->ops->port_read(cpu->ops_context, port, o->bytes);
		soft_inside(cpu);
		soft_watch_port(cpu, port, o->bytes);
		if (soft_write(cpu, destination(o), &v, o->bytes, 0, o->fault))
			return -EFAULT;
		advance(o, 7, o->bytes);
		return 0;
	}
	if (soft_read(cpu, source(o), &v, o->bytes, ACCESS_READ, o->fault))
		return -EFAULT;
	soft_outside(cpu);
	cpu->ops->port_write(cpu->ops_context, port, o->bytes, v);
	soft_inside(cpu);
	soft_watch_port(cpu, port, o->bytes);
	advance(o, 6, o->bytes);
	return 0;
}

static int element(struct string_op *o)
{
	uint64_t a = 0;
	uint64_t b = 0;
	uint64_t keep = o->bytes == 8 ? ~0ull : (1ull << 8 * o->bytes) - 1;
	uint64_t *rax = &o->s->gpr[0];

	if (is_checked(o) && check_element(o))
		return -EFAULT;
	switch (o->i->opcode & 0xfe) {
	case 0xa4: case 0xaa:
		a = *rax;
		if ((o->i->opcode < 0xaa &&
		     soft_read(o->cpu, source(o), &a, o->bytes, ACCESS_READ, o->fault)) ||
		    soft_write(o->cpu, destination(o), &a, o->bytes, 0, o->fault))
			return -EFAULT;
		if (o->i->opcode < 0xaa)
			advance(o, 6, o->bytes);
		advance(o, 7, o->bytes);
		return 0;
	case 0xac:
		if (soft_read(o->cpu, source(o), &a, o->bytes, ACCESS_READ, o->fault))
			return -EFAULT;
		*rax = o->bytes >= 4 ? a : (*rax & ~keep) | a;
		advance(o, 6, o->bytes);
		return 0;
	case 0xa6: case 0xae:
		a = *rax & keep;
		if ((o->i->opcode < 0xa8 &&
		     soft_read(o->cpu, source(o), &a, o->bytes, ACCESS_READ, o->fault)) ||
		    soft_read(o->cpu, destination(o), &b, o->bytes, ACCESS_READ, o->fault))
			return -EFAULT;
		compare(o, a, b);
		if (o->i->opcode < 0xa8)
			advance(o, 6, o->bytes);
		advance(o, 7, o->bytes);
		return 0;
	default: return port_element(o);
	}
}

static uint64_t counter(const struct string_op *o) { return o->s->gpr[1] & o->mask; }
static void set_counter(struct string_op *o, uint64_t v)
{
	o->s->gpr[1] = o->mask == 0xffff ? (o->s->gpr[1] & ~0xffffull) | v : v;
}

/*
 * 0: done; -EFAULT: fault, with the registers at the element that met it; -EAGAIN: an event is
 * pending, elements remain.
 */
int soft_string(struct soft_cpu *cpu, const struct x86_insn *insn, struct fault *fault)
{
	struct string_op o = {
		.cpu = cpu,
		.s = &cpu->state,
		.i = insn,
		.bytes = insn->opcode & 1 ? insn->operand_bytes : 1,
		.mask = soft_address_mask(insn->address_bytes),
		.down = cpu->state.rflags & FLAG_DF,
		.fault = fault,
	};
	uint8_t kind = insn->opcode & 0xfe;
	bool moves = kind == 0xa4 || kind == 0xaa;
	bool compares = kind == 0xa6 || kind == 0xae;

	if (insn->opcode < 0x70 && o.bytes == 8)
		o.bytes = 4;
	if (!insn->rep && !insn->repne)
		return element(&o);
	while (counter(&o)) {
		uint64_t done = 0;

		if (moves && block_move(&o, counter(&o), &done))
			return -EFAULT;
		if (!done) {
			if (element(&o))
				return -EFAULT;
			done = 1;
		}
		set_counter(&o, counter(&o) - done);
		if (compares && !(cpu->flags_word >> 8 & FLAG_ZF) == insn->rep)
			break;
		if (counter(&o) && cpu->kick)
			return -EAGAIN;
	}
	return 0;
}
