/*
 * TLB misses: a walk, an entry, or the access on the bounce buffer (pages crossed, MMIO, pages with
 * code).
 */
#include <errno.h>

#include "common.h"
#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"

/*
 * Whether a write entry to this frame may be made; then it is told as written. One that has code is
 * not: who made more code of it would look for write entries to it, alone.
 */
static bool open_for_writes(struct soft_cpu *cpu, uint64_t frame)
{
	uint8_t *flags = &cpu->engine->frame_flags[frame];
	uint8_t seen = __atomic_load_n(flags, __ATOMIC_SEQ_CST);

	while (!(seen & (FRAME_CODE | FRAME_WRITTEN)))
		if (__atomic_compare_exchange_n(flags, &seen, seen | FRAME_WRITTEN, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return true;
	return !(seen & FRAME_CODE);
}

bool soft_is_open_for_writes(const struct soft_engine *engine, const uint8_t *hva)
{
	const uint8_t flags = __atomic_load_n(&engine->frame_flags[soft_frame(engine, hva)],
					      __ATOMIC_SEQ_CST);

	return (flags & (FRAME_CODE | FRAME_WRITTEN)) == FRAME_WRITTEN;
}

static void note_miss(struct mmu *mmu, unsigned view, uint64_t gva)
{
	struct space_place at;

	if (mmu->joined && view != VIEW_KERNEL &&
	    table_knows_miss(space_pair(mmu->joined, view), gva))
		return;
	at = space_enter(mmu, view);
	space_note_miss(at, gva);
	space_leave(at);
}

/* Translates and, for RAM, caches. *ret_hva is NULL for anything else than RAM. */
int soft_fill(struct soft_cpu *cpu, uint64_t gva, unsigned access, uint8_t **ret_hva,
	      uint64_t *ret_gpa, struct fault *fault)
{
	struct soft_engine *engine = cpu->engine;
	bool write = access & ACCESS_WRITE;
	unsigned view = soft_view(&cpu->state);
	struct space_place at;
	struct page_walk found;
	uint64_t frame;
	uint8_t *hva;
	bool open;

	note_miss(cpu->mmu, view, gva);
	if (soft_walk_pages(cpu, gva, access, &found, fault))
		return -EFAULT;
	*ret_gpa = found.gpa;
	*ret_hva = hva = soft_hva(engine, found.gpa);
	if (!hva)
		return 0;
	frame = soft_frame(engine, hva);
	if (write && engine->frame_flags[frame] & FRAME_READ_ONLY)
		return soft_fail(fault, EXC_GP, true, 0);
	if (write) {
		soft_mark_dirty(engine, hva);
		page_table_hold(engine, frame, space_holder(cpu->mmu, view), &cpu->count);
	}
	if (access & (ACCESS_EXEC | ACCESS_SYSTEM))
		return 0;
	/*
	 * of a watched page, too: the access that comes is the host's own, and no code may be made
	 * of the frame before it is through
	 */
	open = write && open_for_writes(cpu, frame);
	if (soft_is_watched_page(cpu, gva))
		return 0;
	at = space_enter(cpu->mmu, view);
	space_insert(at, gva, hva - (gva & PAGE_OFFSET_MASK), open, &found);
	cpu->fills++;
	soft_fill_beside(cpu, at, gva, write, &found);
	space_leave(at);
	return 0;
}

/* Where an access leads, page by page; the second part is empty where it does not cross. */
struct reached { struct part { uint8_t *hva; uint64_t gpa; unsigned bytes; } part[2]; };

static int reach(struct soft_cpu *cpu, const struct memory_site *site, uint64_t gva,
		 struct reached *to, struct fault *fault)
{
	unsigned access = site->write ? ACCESS_WRITE : ACCESS_READ;
	unsigned left = PAGE_BYTES - (gva & PAGE_OFFSET_MASK);

	to->part[0].bytes = site->bytes < left ? site->bytes : left;
	to->part[1].bytes = site->bytes - to->part[0].bytes;
	if (soft_fill(cpu, gva, access, &to->part[0].hva, &to->part[0].gpa, fault))
		return -EFAULT;
	if (cpu->watchpoints)
		soft_watch(cpu, gva, site->bytes, site->write);
	if (!to->part[1].bytes)
		return 0;
	return soft_fill(cpu, gva + left, access, &to->part[1].hva, &to->part[1].gpa, fault);
}

static bool has_code(const struct soft_cpu *cpu, const struct part *part)
{
	return part->bytes && part->hva &&
	       cpu->engine->frame_flags[soft_frame(cpu->engine, part->hva)] & FRAME_CODE;
}

/* With the write that makes its page data every block of it goes, too. */
static bool hits_block(const struct soft_cpu *cpu, const struct part *part, const struct block *b)
{
	return soft_block_has(b, part->gpa, part->bytes) ||
	       (part->gpa / PAGE_BYTES == b->gpa / PAGE_BYTES &&
		soft_becomes_data(cpu->engine, soft_frame(cpu->engine, part->hva)));
}

/* Whether a store would change the block that it stands in, with more than it in it. */
static bool changes_own_block(const struct soft_cpu *cpu, const struct memory_site *site,
			      const struct reached *to)
{
	bool first = has_code(cpu, &to->part[0]);
	bool second = has_code(cpu, &to->part[1]);
	const struct block *b;

	if (!site->write || (!first && !second))
		return false;
	b = soft_block_of(cpu->engine, (uint64_t)site);
	return b && !(b->mode & BLOCK_ALONE) &&
	       ((first && hits_block(cpu, &to->part[0], b)) ||
		(second && hits_block(cpu, &to->part[1], b)));
}

static void *raise_at(struct soft_cpu *cpu, struct memory_site *site, const struct fault *fault)
{
	bool in_word;

	soft_guest_pc(cpu, (uint64_t)site, &cpu->state.rip, &in_word);
	return soft_raise(cpu, fault);
}

/* A locked access across a cache line. */
static bool splits_line(const struct memory_site *site, uint64_t gva)
{
	return site->locked && (gva & (CACHE_LINE_BYTES - 1)) + site->bytes > CACHE_LINE_BYTES;
}

/* As aligned as the guest's operand, in one cache line where it is locked. */
static uint8_t *bounce_place(struct soft_cpu *cpu, const struct memory_site *site, uint64_t gva)
{
	enum { LARGEST_LOCKED_BYTES = 16 };

	return cpu->bounce + (gva & ((site->locked ? LARGEST_LOCKED_BYTES : CACHE_LINE_BYTES) - 1));
}

/*
 * A locked access to a page with code happens where it is, as others expect of it, and is told
 * afterwards: who has translated what it changes has done so before that.
 */
static void *lock_in_place(struct soft_cpu *cpu, struct memory_site *site, uint64_t gva,
			   const struct part *part)
{
	cpu->locked_gpa = part->gpa;
	cpu->locked_hva = part->hva;
	cpu->bounce_site = site;
	cpu->temp[1] = (uint64_t)part->hva - gva;
	return (uint8_t *)site + site->bounce;
}

/*
 * The slow path of a lookup: fill and go on, or let the access happen on the bounce buffer (pages
 * crossed, MMIO, code pages).
 */
void *soft_memory(struct soft_cpu *cpu, uint64_t gva, struct memory_site *site)
{
	struct reached to;
	struct fault fault;
	uint8_t *place;

	cpu->bounce_site = NULL; /* an access that faulted on the bounce buffer leaves it behind */
	cpu->locked_hva = NULL;
	if (x86_code_bits(&cpu->state) != 64)
		gva = (uint32_t)gva;
	if (!soft_all_canonical(gva, site->bytes)) {
		fault = (struct fault){ .vector = site->stack ? EXC_SS : EXC_GP, .has_code = true };
		return raise_at(cpu, site, &fault);
	}
	if (reach(cpu, site, gva, &to, &fault))
		return raise_at(cpu, site, &fault);
	if (to.part[0].hva && !to.part[1].bytes && !splits_line(site, gva) &&
	    (!site->write || soft_is_open_for_writes(cpu->engine, to.part[0].hva))) {
		cpu->temp[1] = (uint64_t)to.part[0].hva - gva;
		return (uint8_t *)site + site->bounce;
	}
	if (changes_own_block(cpu, site, &to)) {
		bool in_word;

		/*
		 * the block would change under its own feet: this instruction alone, then the new
		 * code
		 */
		soft_guest_pc(cpu, (uint64_t)site, &cpu->state.rip, &in_word);
		soft_begin_anew(cpu);
		return soft_dispatch(cpu);
	}
	if (site->locked && to.part[0].hva && !to.part[1].bytes && !splits_line(site, gva))
		return lock_in_place(cpu, site, gva, &to.part[0]);
	if (site->locked && cpu->engine->cpu_count > 1 && !(cpu->pending & PENDING_ALONE)) {
		bool in_word;

		soft_guest_pc(cpu, (uint64_t)site, &cpu->state.rip, &in_word);
		soft_begin_anew(cpu);
		cpu->pending |= PENDING_WANT_ALONE;
		return soft_dispatch(cpu);
	}
	place = bounce_place(cpu, site, gva);
	if (site->read && soft_read(cpu, gva, place, site->bytes, 0, &fault))
		return raise_at(cpu, site, &fault);
	cpu->split_locks += splits_line(site, gva);
	cpu->bounce_gva = gva;
	cpu->bounce_site = site;
	cpu->temp[1] = (uint64_t)place - gva;
	return (uint8_t *)site + site->bounce;
}

void *soft_commit(struct soft_cpu *cpu)
{
	struct fault fault;

	const struct memory_site *site = cpu->bounce_site;

	/* without: the access already went to guest memory, which nobody has to be told of */
	cpu->bounce_site = NULL;
	if (site && cpu->locked_hva)
		soft_has_written(cpu->engine, cpu->locked_hva, cpu->locked_gpa, site->bytes);
	else if (site)
		soft_write(cpu, cpu->bounce_gva, bounce_place(cpu, site, cpu->bounce_gva),
			   site->bytes, 0, &fault);
	return (void *)cpu->temp[1];
}
