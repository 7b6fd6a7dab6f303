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
	struct x86_state *state;
	const struct x86_insn *insn;
	unsigned bytes;
	uint64_t mask;
	bool down;
	struct fault *fault;
};

static uint64_t source(const struct string_op *operation)
{
	return soft_linear_address(operation->state, operation->insn->segment,
				   operation->state->gpr[6], operation->insn->address_bytes);
}

static uint64_t destination(const struct string_op *operation)
{
	return soft_linear_address(operation->state, X86_ES, operation->state->gpr[7],
				   operation->insn->address_bytes);
}

static void advance(struct string_op *operation, unsigned reg, uint64_t bytes)
{
	uint64_t value = operation->down ? operation->state->gpr[reg] - bytes
					 : operation->state->gpr[reg] + bytes;

	operation->state->gpr[reg] =
		operation->mask == 0xffff
			? (operation->state->gpr[reg] & ~0xffffull) | (value & 0xffff)
			: value & operation->mask;
}

static void compare(struct string_op *operation, uint64_t a, uint64_t b)
{
	uint64_t flags;
	unsigned shift = 64 - 8 * operation->bytes;

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
	operation->cpu->flags_word = (flags & 0xd5) << 8 | (flags >> 11 & 1);
}

/* Whether limits and alignment have to be looked at element by element. */
static bool is_checked(const struct string_op *operation)
{
	return soft_mode(operation->cpu) & MODE_CHECKS;
}

static int check_source(const struct string_op *operation)
{
	if (soft_check_segment(operation->cpu, operation->insn->segment,
			       operation->state->gpr[6] & operation->mask, operation->bytes, false,
			       operation->fault))
		return -EFAULT;
	return soft_check_alignment(operation->cpu, source(operation), operation->bytes,
				    operation->fault);
}

static int check_destination(const struct string_op *operation, bool write)
{
	if (soft_check_segment(operation->cpu, X86_ES, operation->state->gpr[7] & operation->mask,
			       operation->bytes, write, operation->fault))
		return -EFAULT;
	return soft_check_alignment(operation->cpu, destination(operation), operation->bytes,
				    operation->fault);
}

static bool reads_source(const struct x86_insn *insn)
{
	enum { OUTS = 0x6e, STOS = 0xaa, LODS = 0xac };
	uint8_t kind = insn->opcode & 0xfe;

	return kind == OUTS || kind == LODS || (kind > OUTS && kind < STOS);
}

static bool has_destination(const struct x86_insn *insn)
{
	enum { OUTS = 0x6e, LODS = 0xac };

	return (insn->opcode & 0xfe) != OUTS && (insn->opcode & 0xfe) != LODS;
}

static int check_element(const struct string_op *operation)
{
	uint8_t kind = operation->insn->opcode & 0xfe;
	bool compares = kind == 0xa6 || kind == 0xae;

	if (reads_source(operation->insn) && check_source(operation))
		return -EFAULT;
	return has_destination(operation->insn) ? check_destination(operation, !compares) : 0;
}

/*
 * How many elements can be done at once: up to the end of the page of both addresses, and to where
 * a register of 16 or 32 bits begins anew. 0: one element, the slow way.
 */
static uint64_t run_length(const struct string_op *operation, uint64_t gva, uint64_t count)
{
	uint64_t offset = gva & PAGE_OFFSET_MASK;
	uint64_t left = operation->down ? offset / operation->bytes + 1
					: (PAGE_BYTES - offset) / operation->bytes;

	if (operation->down && offset + operation->bytes > PAGE_BYTES)
		return 0;
	return left < count ? left : count;
}

/* Whether the register begins anew before the end of so many elements. */
static bool wraps(const struct string_op *operation, unsigned reg, uint64_t count)
{
	uint64_t offset = operation->state->gpr[reg] & operation->mask;
	uint64_t span = (count - 1) * operation->bytes;

	if (operation->mask == ~0ull)
		return false;
	return operation->down ? offset < span || offset + operation->bytes - 1 > operation->mask
		       : offset + span + operation->bytes - 1 > operation->mask;
}

/* Elements by the host's own instruction, in the direction that its flag has just now. */
static inline void move_elements(unsigned bytes, uint8_t *to, const uint8_t *from, uint64_t count)
{
	switch (bytes) {
	case 1:
		__asm__ volatile("rep movsb"
				 : "+D"(to), "+S"(from), "+c"(count)
				 :
				 : "memory");
		break;
	case 2:
		__asm__ volatile("rep movsw"
				 : "+D"(to), "+S"(from), "+c"(count)
				 :
				 : "memory");
		break;
	case 4:
		__asm__ volatile("rep movsl"
				 : "+D"(to), "+S"(from), "+c"(count)
				 :
				 : "memory");
		break;
	default:
		__asm__ volatile("rep movsq"
				 : "+D"(to), "+S"(from), "+c"(count)
				 :
				 : "memory");
		break;
	}
}

static inline void store_elements(unsigned bytes, uint8_t *to, uint64_t value, uint64_t count)
{
	switch (bytes) {
	case 1:
		__asm__ volatile("rep stosb"
				 : "+D"(to), "+c"(count)
				 : "a"(value)
				 : "memory");
		break;
	case 2:
		__asm__ volatile("rep stosw"
				 : "+D"(to), "+c"(count)
				 : "a"(value)
				 : "memory");
		break;
	case 4:
		__asm__ volatile("rep stosl"
				 : "+D"(to), "+c"(count)
				 : "a"(value)
				 : "memory");
		break;
	default:
		__asm__ volatile("rep stosq"
				 : "+D"(to), "+c"(count)
				 : "a"(value)
				 : "memory");
		break;
	}
}

static int block_move(struct string_op *operation, uint64_t count, uint64_t *ret_done)
{
	bool move = operation->insn->opcode < 0xaa;
	uint64_t from = source(operation);
	uint64_t to = destination(operation);
	uint64_t n = run_length(operation, to, count);
	uint64_t gpa;
	uint8_t *from_hva = NULL;
	uint8_t *to_hva;

	*ret_done = 0;
	if (move) {
		uint64_t m = run_length(operation, from, count);

		n = m < n ? m : n;
	}
	if (n < 1 || operation->cpu->watchpoints || is_checked(operation) ||
	    wraps(operation, 7, n) || (move && wraps(operation, 6, n)))
		return 0;
	if (move && soft_fill(operation->cpu, from, ACCESS_READ, &from_hva, &gpa, operation->fault))
		return -EFAULT;
	if (soft_fill(operation->cpu, to, ACCESS_WRITE, &to_hva, &gpa, operation->fault))
		return -EFAULT;
	if (!to_hva || (move && !from_hva) ||
	    !soft_is_open_for_writes(operation->cpu->engine, to_hva))
		return 0;
	*ret_done = n;
	if (operation->down)
		__asm__ volatile("std");
	if (move)
		move_elements(operation->bytes, to_hva, from_hva, n);
	else
		store_elements(operation->bytes, to_hva, operation->state->gpr[0], n);
	if (operation->down)
		__asm__ volatile("cld");
	advance(operation, 7, *ret_done * operation->bytes);
	if (move)
		advance(operation, 6, *ret_done * operation->bytes);
	return 0;
}

static int port_element(struct string_op *operation)
{
	struct soft_cpu *cpu = operation->cpu;
	uint16_t port = (uint16_t)operation->state->gpr[2];
	uint64_t value = 0;

	if (soft_check_port(cpu, port, operation->bytes, operation->fault))
		return -EFAULT;
	if (operation->insn->opcode < 0x6e) {
		if (soft_check_write(cpu, destination(operation), operation->bytes, 0,
				     operation->fault))
			return -EFAULT;
		soft_outside(cpu);
		value = cpu->ops->port_read(cpu->ops_context, port, operation->bytes);
		soft_inside(cpu);
		soft_watch_port(cpu, port, operation->bytes);
		if (soft_write(cpu, destination(operation), &value, operation->bytes, 0,
			       operation->fault))
			return -EFAULT;
		advance(operation, 7, operation->bytes);
		return 0;
	}
	if (soft_read(cpu, source(operation), &value, operation->bytes, ACCESS_READ,
		      operation->fault))
		return -EFAULT;
	soft_outside(cpu);
	cpu->ops->port_write(cpu->ops_context, port, operation->bytes, value);
	soft_inside(cpu);
	soft_watch_port(cpu, port, operation->bytes);
	advance(operation, 6, operation->bytes);
	return 0;
}

static int element(struct string_op *operation)
{
	uint64_t a = 0;
	uint64_t b = 0;
	uint64_t keep = operation->bytes == 8 ? ~0ull : (1ull << 8 * operation->bytes) - 1;
	uint64_t *rax = &operation->state->gpr[0];

	if (is_checked(operation) && check_element(operation))
		return -EFAULT;
	switch (operation->insn->opcode & 0xfe) {
	case 0xa4: case 0xaa:
		a = *rax;
		if ((operation->insn->opcode < 0xaa &&
		     soft_read(operation->cpu, source(operation), &a, operation->bytes, ACCESS_READ,
			       operation->fault)) ||
		    soft_write(operation->cpu, destination(operation), &a, operation->bytes, 0,
			       operation->fault))
			return -EFAULT;
		if (operation->insn->opcode < 0xaa)
			advance(operation, 6, operation->bytes);
		advance(operation, 7, operation->bytes);
		return 0;
	case 0xac:
		if (soft_read(operation->cpu, source(operation), &a, operation->bytes, ACCESS_READ,
			      operation->fault))
			return -EFAULT;
		*rax = operation->bytes >= 4 ? a : (*rax & ~keep) | a;
		advance(operation, 6, operation->bytes);
		return 0;
	case 0xa6: case 0xae:
		a = *rax & keep;
		if ((operation->insn->opcode < 0xa8 &&
		     soft_read(operation->cpu, source(operation), &a, operation->bytes, ACCESS_READ,
			       operation->fault)) ||
		    soft_read(operation->cpu, destination(operation), &b, operation->bytes,
			      ACCESS_READ, operation->fault))
			return -EFAULT;
		compare(operation, a, b);
		if (operation->insn->opcode < 0xa8)
			advance(operation, 6, operation->bytes);
		advance(operation, 7, operation->bytes);
		return 0;
	default: return port_element(operation);
	}
}

static uint64_t counter(const struct string_op *operation)
{
	return operation->state->gpr[1] & operation->mask;
}
static void set_counter(struct string_op *operation, uint64_t value)
{
	operation->state->gpr[1] =
		operation->mask == 0xffff ? (operation->state->gpr[1] & ~0xffffull) | value : value;
}

/*
 * 0: done; -EFAULT: fault, with the registers at the element that met it; -EAGAIN: an event is
 * pending, elements remain.
 */
int soft_string(struct soft_cpu *cpu, const struct x86_insn *insn, struct fault *fault)
{
	struct string_op operation = {
		.cpu = cpu,
		.state = &cpu->state,
		.insn = insn,
		.bytes = insn->opcode & 1 ? insn->operand_bytes : 1,
		.mask = soft_address_mask(insn->address_bytes),
		.down = cpu->state.rflags & FLAG_DF,
		.fault = fault,
	};
	uint8_t kind = insn->opcode & 0xfe;
	bool moves = kind == 0xa4 || kind == 0xaa;
	bool compares = kind == 0xa6 || kind == 0xae;

	if (insn->opcode < 0x70 && operation.bytes == 8)
		operation.bytes = 4;
	if (!insn->rep && !insn->repne)
		return element(&operation);
	while (counter(&operation)) {
		uint64_t done = 0;

		if (moves && block_move(&operation, counter(&operation), &done))
			return -EFAULT;
		if (!done) {
			if (element(&operation))
				return -EFAULT;
			done = 1;
		}
		set_counter(&operation, counter(&operation) - done);
		if (compares && !(cpu->flags_word >> 8 & FLAG_ZF) == insn->rep)
			break;
		if (counter(&operation) && cpu->kick)
			return -EAGAIN;
	}
	return 0;
}
