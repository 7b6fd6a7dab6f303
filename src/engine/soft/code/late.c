/*
 * Cold parts on first use. A block's way into a cold part leads to a stub, which names itself in
 * r11 and comes here; most stubs are never reached.
 *
 *   hot code   ... jcc stub ...
 *   stub       mov r11d, name;  jmp short to   jmp gs:[thunk_way_out]
 *   made       jmp part;        (the short jump stays: who was between the two comes here again)
 *
 *   kind       what happens
 *   CHAIN      the jump to the stub leads to its target from now on
 *   KICKED     the dispatcher looks what others want
 *   LATE       the block is made again from the bytes that were kept, into memory of our own; the
 *              cold part is emitted for where the block is; the stub becomes a jump to it
 *
 * The guest's registers and flags are as they were at the way out, r10 as well (an address);
 * r11 is nobody's there.
 *
 * The block may be dead, and its region closed: the guest's memory may hold other code. Nothing
 * of the instruction has happened yet, and so the dispatcher goes on with it, in a block of its
 * own, whose cold parts are made at once. The same when there is no room.
 */
#include <assert.h>

#include "code.h"
#include "engine/soft/translate/translate.h"

static struct way_out way_of(const struct soft_engine *engine, const struct block *b, unsigned stub)
{
	struct way_out way;

	memcpy(&way, engine->kept + b->kept_first + b->guest_bytes + stub * sizeof(way),
	       sizeof(way));
	return way;
}

static void *chain(struct soft_cpu *cpu, struct block *b, const uint8_t *stub,
		   struct way_out way)
{
	const uint8_t *host = cpu->engine->code_run + b->host_offset;

	if (!way.flags_in_word)
		cpu->flags_word = cpu->way_flags;
	cpu->state.rip = soft_page_rip(cpu, b) + way.target;
	if (x86_code_bits(&cpu->state) != 64)
		cpu->state.rip = (uint32_t)cpu->state.rip;
	if (way.kind == WAY_KICKED)
		return soft_dispatch(cpu);
	return soft_chain(cpu, b, way.flags_in_word, stub, host + way.link);
}

/* Where the new part begins; NULL: not made, and state is as the dispatcher wants it. */
static void *make_part(struct soft_cpu *cpu, struct block *b, unsigned stub)
{
	struct soft_engine *engine = cpu->engine;
	void *part = NULL;

	soft_acquire_code(engine);
	if (soft_make_room(engine) && !b->dead)
		part = soft_translate_part(engine, b, stub);
	if (!part)
		soft_leave_at_stub(cpu, b, stub);
	soft_release(&engine->lock);
	return part;
}

/* A stub of the block by its number; NULL: it has no more. The last one has a jump behind it. */
static uint8_t *stub_of(const struct soft_engine *engine, const struct block *b, unsigned n)
{
	const uint32_t offset = b->stubs + soft_stub_offset(n);

	return offset + 2 * STUB_BYTES <= b->host_bytes
		       ? engine->code_write + b->host_offset + offset
		       : NULL;
}

/* The offset in the code cache that a stub leads to, if it has become a jump; or 0. */
static uint32_t jumps_to(const struct soft_engine *engine, const uint8_t *stub)
{
	enum { JMP = 0xe9, JMP_BYTES = 5 };
	int32_t rel;

	memcpy(&rel, stub + 1, sizeof(rel));
	return *stub == JMP ? (uint32_t)(stub - engine->code_write) + JMP_BYTES + (uint32_t)rel : 0;
}

/* It names itself again: the first five bytes, the others have stayed. */
static void lead_home(uint8_t *stub, uint32_t name)
{
	const uint64_t begin = 0xbb41 | (uint64_t)name << 16; /* mov r11d, name */
	const uint64_t replaced = 0xffffffffff;
	uint64_t word;

	memcpy(&word, stub, sizeof(word));
	word = (word & ~replaced) | (begin & replaced);
	__atomic_store_n((uint64_t *)(void *)stub, word, __ATOMIC_SEQ_CST);
}

void soft_leave_part(struct soft_engine *engine, const struct block *part)
{
	struct block *b = &engine->blocks[part->parent];
	uint8_t *stub;

	if (engine->regions[part->parent / engine->budget.region_blocks].times_reused !=
	    part->parent_times_reused)
		return;
	for (unsigned n = soft_entry_stubs(b->mode); (stub = stub_of(engine, b, n)); n++)
		if (jumps_to(engine, stub) - part->host_offset < part->host_bytes)
			lead_home(stub, part->parent << STUB_BITS | n);
	soft_drop_links(engine, b, part->host_offset, part->host_offset + part->host_bytes);
}

/* Whether nobody comes to the stub of this way out any more. */
static bool leads_on(const struct soft_engine *engine, const struct block *b, unsigned n,
		     struct way_out way)
{
	const uint32_t stub = b->host_offset + b->stubs + soft_stub_offset(n);

	if (way.kind == WAY_LATE)
		return jumps_to(engine, engine->code_write + stub);
	return way.kind == WAY_CHAIN && !soft_leads_to(engine, b->host_offset + way.link, stub);
}

unsigned soft_next_way(const struct soft_engine *engine, const struct block *b, unsigned n)
{
	if (n < soft_entry_stubs(b->mode))
		n = soft_entry_stubs(b->mode) - 1;
	while (stub_of(engine, b, ++n))
		if (leads_on(engine, b, n, way_of(engine, b, n)))
			return n;
	return 0;
}

/* To a block of its page. True: there is none at *ret yet. */
static bool chain_ahead(struct soft_engine *engine, struct block *b, unsigned n, struct way_out way,
			struct code_place *ret)
{
	const uint64_t page = ~(uint64_t)PAGE_OFFSET_MASK;
	const struct block *target;

	*ret = (struct code_place){ .rip = (b->gva & page) | way.target,
				    .gpa = (b->gpa & page) | way.target,
				    .mode = soft_key_mode(b) };
	target = soft_look_up_ahead(engine, ret);
	if (target)
		soft_link(engine, b, b->host_offset + way.link,
			  b->host_offset + b->stubs + soft_stub_offset(n),
			  target->host_offset + (way.flags_in_word ? soft_entry_in_word(target)
								   : target->direct));
	return !target;
}

bool soft_make_way_ahead(struct soft_engine *engine, struct block *b, unsigned n,
			 struct code_place *ret)
{
	struct way_out way;

	if (b->dead || n < soft_entry_stubs(b->mode) || !stub_of(engine, b, n))
		return false;
	way = way_of(engine, b, n);
	if (leads_on(engine, b, n, way))
		return false;
	/* of a draft cold parts were made; for those of another block it would be made again */
	return way.kind == WAY_CHAIN && chain_ahead(engine, b, n, way, ret);
}

static bool is_late(const struct soft_engine *engine, const struct block *b, unsigned n)
{
	struct way_out way;

	if (n < soft_entry_stubs(b->mode) || !stub_of(engine, b, n))
		return false;
	way = way_of(engine, b, n);
	return way.kind == WAY_LATE && !leads_on(engine, b, n, way);
}

void soft_make_parts_of_draft(struct soft_engine *engine, struct draft *draft, struct block *b,
			      uint64_t ways)
{
	for (unsigned n = 0; n < WAYS_KNOWN && !b->dead; n++)
		if (ways >> n & 1 && is_late(engine, b, n) && soft_make_room(engine) && !b->dead)
			soft_translate_draft_part(draft, b, n);
}

static void check_stubs_of(const struct soft_engine *engine, const struct block *b)
{
	const uint8_t *stub;

	for (unsigned n = soft_entry_stubs(b->mode); (stub = stub_of(engine, b, n)); n++) {
		const uint32_t to = jumps_to(engine, stub);

		assert(!to || (soft_block_of(engine, (uint64_t)(engine->code_run + to)) == b &&
			       !engine->regions[soft_region_of(engine, to)].closed));
	}
}

void check_stubs(const struct soft_engine *engine)
{
	for (uint32_t number = 0; number < CODE_REGIONS; number++) {
		const struct block *b = &engine->blocks[number * engine->budget.region_blocks];

		if (engine->regions[number].closed)
			continue;
		for (const struct block *end = b + engine->regions[number].blocks; b < end; b++)
			if (b->form != BLOCK_PART)
				check_stubs_of(engine, b);
	}
}

void *soft_way_out(struct soft_cpu *cpu, uint64_t unused, uint64_t name)
{
	const struct soft_engine *engine = cpu->engine;
	struct block *b = &engine->blocks[(uint32_t)name >> STUB_BITS];
	unsigned stub = name & ((1 << STUB_BITS) - 1);
	const uint8_t *host = engine->code_run + b->host_offset;
	struct way_out way;
	void *part;

	(void)unused;
	if (stub < soft_entry_stubs(b->mode)) {
		if (stub == STUB_DEAD_DIRECT)
			cpu->flags_word = cpu->way_flags;
		cpu->state.rip = soft_page_rip(cpu, b) + (b->gpa & PAGE_OFFSET_MASK);
		if (x86_code_bits(&cpu->state) != 64)
			cpu->state.rip = (uint32_t)cpu->state.rip;
		if (engine->uses_slots && !soft_floats(b->mode))
			soft_empty_slots_at(cpu, cpu->state.rip, b->mode & MODE_BITS);
		return soft_dispatch(cpu);
	}
	way = way_of(engine, b, stub);
	if (way.kind != WAY_LATE)
		return chain(cpu, b, host + b->stubs + soft_stub_offset(stub), way);
	part = make_part(cpu, b, stub);
	return part ? part : soft_dispatch(cpu);
}
