/*
 * The code cache as a store of blocks: which block a host address belongs to, and which block a
 * guest address has.
 *
 * Two views of one memfd: code_write is never executable, code_run never writable. Blocks are only
 * appended; an invalidated block keeps its place, its two entries are overwritten by jumps that
 * lead to the dispatcher, and everything goes when the cache is full.
 */
#include <assert.h>

#include "code.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/translate.h"

static uint32_t part_offset(const struct block *b, bool cold)
{
	return cold ? b->cold_offset : b->host_offset;
}

/* The block whose hot or cold part holds host_pc. */
struct block *soft_block_of(struct soft_engine *e, uint64_t host_pc)
{
	uint64_t offset = host_pc - (uint64_t)e->code_run;
	uint32_t low = 0;
	uint32_t high = __atomic_load_n(&e->block_count, __ATOMIC_ACQUIRE);
	bool cold = offset >= e->cold_start;
	struct block *b;

	if (offset >= e->code_bytes)
		return NULL;
	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (part_offset(&e->blocks[middle], cold) <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	b = low ? &e->blocks[low - 1] : NULL;
	return b && offset < part_offset(b, cold) + (cold ? b->cold_bytes : b->host_bytes) ? b
											   : NULL;
}

bool soft_guest_pc(struct soft_engine *e, uint64_t host_pc, uint64_t *ret_rip, bool *ret_in_word)
{
	struct block *b = soft_block_of(e, host_pc);
	bool cold = host_pc - (uint64_t)e->code_run >= e->cold_start;
	const struct pc_map *map;
	uint32_t offset, n, count;

	if (!b)
		return false;
	map = &e->maps[b->map_first + (cold ? b->maps : 0u)];
	count = cold ? b->cold_maps : b->maps;
	offset = (uint32_t)(host_pc - (uint64_t)e->code_run - part_offset(b, cold));
	for (n = 1; n < count && map[n].host <= offset; n++)
		;
	*ret_rip = b->gva + map[n - 1].guest;
	*ret_in_word = map[n - 1].length & MAP_FLAGS_IN_WORD;
	return true;
}

/* The block that begins at this host address; NULL for the way out of the engine. */
struct block *soft_block_at(struct soft_engine *e, const void *entry)
{
	uint32_t index;

	if (entry == e->leave)
		return NULL;
	memcpy(&index, (const uint8_t *)entry - 4, 4);
	return &e->blocks[index];
}

/* The mode that it is found by. */
static uint32_t key_mode(const struct block *b) { return b->mode & ~(uint32_t)BLOCK_STRADDLES; }

static uint32_t bucket(uint64_t gpa, uint64_t gva, uint32_t mode)
{
	return (uint32_t)(((gpa ^ gva << 20 ^ mode) * 0x9e3779b97f4a7c15ull) >> 46) &
	       (HASH_BUCKETS - 1);
}

void soft_hide_block(struct soft_engine *e, struct block *b)
{
	uint32_t *link = &e->hash[bucket(b->gpa, b->gva, key_mode(b))];

	while (*link && &e->blocks[*link - 1] != b)
		link = &e->blocks[*link - 1].next_in_hash;
	if (*link)
		*link = b->next_in_hash;
}

/* The second page of an instruction that may straddle: its gpa, or 0 when it has none in RAM. */
static uint64_t second_page(struct soft_cpu *cpu, uint64_t gpa)
{
	const struct x86_state *s = &cpu->state;
	uint64_t linear =
		x86_code_bits(s) == 64 ? s->rip : (uint32_t)(s->segment[X86_CS].base + s->rip);
	uint64_t second;
	struct fault fault;
	unsigned rights;

	if ((gpa & PAGE_OFFSET_MASK) <= PAGE_BYTES - X86_INSN_MAX_BYTES ||
	    soft_walk(cpu, (linear | PAGE_OFFSET_MASK) + 1, ACCESS_EXEC, &second, &rights,
		      &fault) ||
	    !soft_hva(cpu->engine, second))
		return 0;
	return second;
}

/*
 * Without the lock, too: blocks are never reused before everybody has come through the dispatcher.
 * One that dies meanwhile is entered, and leads back here.
 */
static struct block *block_look_up(struct soft_cpu *cpu, uint64_t gpa, uint64_t second_gpa,
				   uint32_t mode)
{
	struct soft_engine *e = cpu->engine;

	for (uint32_t n =
		     __atomic_load_n(&e->hash[bucket(gpa, cpu->state.rip, mode)], __ATOMIC_ACQUIRE);
	     n; n = __atomic_load_n(&e->blocks[n - 1].next_in_hash, __ATOMIC_ACQUIRE)) {
		struct block *b = &e->blocks[n - 1];

		if (b->gpa == gpa && b->gva == cpu->state.rip && (key_mode(b)) == mode &&
		    (!(b->mode & BLOCK_STRADDLES) || b->second_gpa == second_gpa))
			return b;
	}
	return NULL;
}

static bool code_is_full(const struct soft_engine *e)
{
	enum { LARGEST_PART_BYTES = 128 << 10, MOST_MAPS = 512 };

	return e->code_used + LARGEST_PART_BYTES > e->cold_start ||
	       e->cold_used + LARGEST_PART_BYTES > e->code_bytes ||
	       e->block_count + 1 >= e->budget.blocks || e->map_count + MOST_MAPS > e->budget.maps;
}

static void block_insert(struct soft_engine *e, struct block *b, uint64_t frame, uint32_t mode)
{
	uint32_t *head = &e->hash[bucket(b->gpa, b->gva, mode)];

	b->next_in_hash = *head;
	b->next_in_page = e->page_blocks[frame];
	e->page_blocks[frame] = (uint32_t)(b - e->blocks) + 1;
	__atomic_store_n(head, e->page_blocks[frame], __ATOMIC_RELEASE);
}

/* Empties the code cache; its caller is alone. */
static void empty_code(struct soft_engine *e)
{
	e->block_count = e->map_count = e->straddlers = 0;
	e->code_used = e->thunks_end;
	e->cold_used = e->cold_start;
	e->generation++;
	memset(e->hash, 0, HASH_BUCKETS * sizeof(*e->hash));
	memset(e->page_blocks, 0,
	       (guest_memory_footprint_bytes(e->memory->ram_bytes) >> 12) *
		       sizeof(*e->page_blocks));
	for (uint64_t f = 0; f < guest_memory_footprint_bytes(e->memory->ram_bytes) >> 12; f++)
		e->frame_flags[f] &= (uint8_t)~(FRAME_CODE | FRAME_STRADDLED);
	for (unsigned n = 0; n < e->cpu_count; n++)
		soft_flush_jumps(e->cpus[n]);
}

/* The block at state.rip = gpa, made now if there is none. NULL: *fault. */
struct block *soft_find_block(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode,
			      struct fault *fault)
{
	struct soft_engine *e = cpu->engine;
	uint64_t second = second_page(cpu, gpa);
	struct block *b = block_look_up(cpu, gpa, second, mode);

	if (b)
		return b;
	soft_acquire(&e->lock);
	while (!(b = block_look_up(cpu, gpa, second, mode))) {
		uint8_t *hva = soft_hva(e, gpa); /* with the lock: overlays do not move */

		if (!hva || (second && !soft_hva(e, second))) {
			*fault = (struct fault){ .vector = EXC_GP, .has_code = true };
			break;
		}
		if (code_is_full(e)) {
			soft_release(&e->lock);
			soft_begin_alone(cpu);
			if (code_is_full(e))
				empty_code(e);
			soft_end_alone(cpu);
			soft_acquire(&e->lock);
			continue;
		}
		if (!soft_protect_code(cpu, soft_frame(e, hva)))
			continue;
		/* the bytes may run into the next page; whether they do is known only afterwards */
		if (second && !soft_protect_code(cpu, soft_frame(e, soft_hva(e, second))))
			continue;
		b = soft_translate(cpu, gpa, mode, fault);
		if (b && b->mode & BLOCK_STRADDLES && second) {
			b->second_gpa = second;
			b->next_straddler = e->straddlers;
			e->straddlers = (uint32_t)(b - e->blocks) + 1;
			__atomic_fetch_or(&e->frame_flags[soft_frame(e, soft_hva(e, second))],
					  FRAME_STRADDLED, __ATOMIC_SEQ_CST);
		}
		if (b)
			block_insert(e, b, soft_frame(e, hva), mode);
		break;
	}
	soft_release(&e->lock);
	return b;
}

static void check_order(const struct soft_engine *e)
{
	for (uint32_t n = 1; n < e->block_count; n++) {
		const struct block *before = &e->blocks[n - 1];
		const struct block *b = &e->blocks[n];

		assert(before->host_offset + before->host_bytes <= b->host_offset);
		assert(before->cold_offset + before->cold_bytes <= b->cold_offset);
	}
}

static void check_hash(const struct soft_engine *e)
{
	for (uint32_t head = 0; head < HASH_BUCKETS; head++)
		for (uint32_t n = e->hash[head]; n; n = e->blocks[n - 1].next_in_hash) {
			const struct block *b = &e->blocks[n - 1];

			assert(n <= e->block_count && !b->dead);
			assert(bucket(b->gpa, b->gva, key_mode(b)) == head);
		}
}

static bool is_in_list_of(const struct soft_engine *e, const struct block *wanted, uint64_t frame)
{
	for (uint32_t n = e->page_blocks[frame]; n; n = e->blocks[n - 1].next_in_page)
		if (&e->blocks[n - 1] == wanted)
			return true;
	return false;
}

static void check_frames(const struct soft_engine *e)
{
	for (uint32_t n = 0; n < e->block_count; n++) {
		const struct block *b = &e->blocks[n];
		uint64_t frame;

		if (b->dead)
			continue;
		frame = soft_frame(e, soft_hva(e, b->gpa));
		assert(e->frame_flags[frame] & FRAME_CODE && is_in_list_of(e, b, frame));
		if (b->mode & BLOCK_STRADDLES && b->second_gpa)
			assert(e->frame_flags[soft_frame(e, soft_hva(e, b->second_gpa))] &
			       FRAME_STRADDLED);
	}
}

void check_blocks(const struct soft_engine *e)
{
	check_order(e);
	check_hash(e);
	check_frames(e);
}
