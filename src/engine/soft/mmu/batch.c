/*
 * Entries that nobody has asked for yet: beside a page that was looked up in vain, and for the page
 * that the guest's fault handler has just mapped, when it returns.
 *
 *    - Nothing is changed by it: only pages whose A is set already, and D for a write entry, which
 *      the guest could not tell from pages that it has touched. A processor may cache them (SDM
 *      Vol. 3A 4.10.2.3).
 *    - A write entry is made only to a frame to which the processor has had one: no table of the
 *      guest is opened by it, no code given up, nothing told as dirty.
 */
#include "common.h"
#include "engine/soft/insn/insn.h"

static bool may_be_in_view(unsigned view, unsigned rights)
{
	if (view == VIEW_USER)
		return rights & RIGHT_USER;
	return view == VIEW_KERNEL_AC || !(rights & RIGHT_USER);
}

static bool is_open_for_writes(const struct soft_cpu *cpu, uint8_t holder, uint64_t frame)
{
	const uint8_t written = FRAME_WRITTEN | FRAME_DIRTY;
	uint8_t flags = __atomic_load_n(&cpu->engine->frame_flags[frame], __ATOMIC_SEQ_CST);

	return (flags & (written | FRAME_CODE | FRAME_READ_ONLY)) == written &&
	       __atomic_load_n(&cpu->engine->frame_holders[frame], __ATOMIC_SEQ_CST) & holder;
}

static void insert_marked(struct soft_cpu *cpu, struct space_place at, uint64_t gva, bool write,
			  const struct page_walk *found)
{
	const unsigned writable = RIGHT_WRITE | RIGHT_DIRTY;
	uint8_t *page = soft_hva(cpu->engine, found->gpa & ~(uint64_t)PAGE_OFFSET_MASK);

	if (!page || !(found->rights & RIGHT_ACCESSED) || !may_be_in_view(at.view, found->rights) ||
	    soft_is_watched_page(cpu, gva))
		return;
	space_insert(at, gva, page,
		     write && (found->rights & writable) == writable &&
			     is_open_for_writes(cpu, at.set->holder, soft_frame(cpu->engine, page)),
		     found);
	if (soft_notes_use(cpu->engine))
		soft_mark_used(cpu->engine, page);
	cpu->count.filled_ahead++;
}

void soft_fill_beside(struct soft_cpu *cpu, struct space_place at, uint64_t gva, bool write,
		      const struct page_walk *found)
{
	const uint64_t group_bytes = (uint64_t)SPACE_GROUP_PAGES * PAGE_BYTES;
	uint64_t first = gva & ~(group_bytes - 1);
	unsigned missing;

	/* what is noted is what was asked for */
	if (!cpu->engine->fills_ahead || soft_notes_use(cpu->engine))
		return;
	missing = ~space_cached_group(at, gva) & ~(1u << (gva - first) / PAGE_BYTES) &
		  ((1u << SPACE_GROUP_PAGES) - 1);
	for (; missing; missing &= missing - 1) {
		uint64_t page = first + (uint64_t)__builtin_ctz(missing) * PAGE_BYTES;
		struct page_walk beside;

		if (soft_look_beside(cpu, found, page, &beside))
			insert_marked(cpu, at, page, write, &beside);
	}
}

void soft_note_fault(struct soft_cpu *cpu, const struct fault *fault)
{
	enum { CODE_WRITE = 2, CODE_FETCH = 16 };

	cpu->fault_waits = cpu->engine->fills_ahead && cpu->state.cpl == 3 &&
			   fault->vector == EXC_PF && !(fault->code & CODE_FETCH);
	cpu->fault_gva = fault->address;
	cpu->fault_writes = fault->code & CODE_WRITE;
}

void soft_fill_after_fault(struct soft_cpu *cpu)
{
	struct space_place at;
	struct page_walk found;

	cpu->fault_waits = false;
	if (cpu->state.cpl != 3 || !soft_look_up(cpu, cpu->state.cr3, cpu->fault_gva, &found))
		return;
	at = space_enter(cpu->mmu, VIEW_USER);
	space_note_miss(at, cpu->fault_gva);
	if (!space_has(at, cpu->fault_gva, false))
		insert_marked(cpu, at, cpu->fault_gva, cpu->fault_writes, &found);
	soft_fill_beside(cpu, at, cpu->fault_gva, cpu->fault_writes, &found);
	space_leave(at);
}
