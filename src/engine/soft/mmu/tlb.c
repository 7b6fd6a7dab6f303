/*
 * What a processor's control registers and flushes mean for its address spaces (space.h). "Stale"
 * is what came from a page table that may have been written since; what is not, stays.
 *
 *   what happens                   what goes
 *   MOV to CR3, bit 63 clear       what is stale under its PCID: in the space that becomes current
 *                                  at once, in others before they are used again
 *   ... bit 63 set                 that only where it was kept under another PCID, or flushed since
 *   INVPCID 1 (one PCID)           what is stale under that PCID; of the kernel's entries, when it
 *                                  is the current one, those that are not global
 *   INVPCID 3, 2 (all)             the same of every space; with 2 all that is global too, stale or
 *                                  not
 *   INVLPG, INVPCID 0 (a page)     the page in the spaces of that PCID; by INVLPG also where it is
 *                                  global
 *   another mode of walking        every space, whole
 *
 * In docs/engine.md ("Translations") the same stands beside what else can happen to an entry.
 */
#include <assert.h>

#include "common.h"
#include "engine/soft/code/code.h"

enum { PCID_MASK = 0xfff };

static uint64_t root_of(const struct x86_state *state)
{
	return state->cr4 & CR4_PCIDE ? state->cr3 & ~(uint64_t)PCID_MASK : state->cr3;
}

static uint16_t pcid_of(const struct x86_state *state)
{
	return state->cr4 & CR4_PCIDE ? state->cr3 & PCID_MASK : 0;
}

static struct space_mode mode_of(const struct x86_state *state)
{
	return (struct space_mode){
		.cr0 = (uint32_t)state->cr0 & (CR0_PG | CR0_WP),
		.cr4 = (uint32_t)state->cr4 & (CR4_PSE | CR4_PAE | CR4_SMEP | CR4_SMAP | CR4_PCIDE),
		.efer = (uint32_t)state->efer & (EFER_LMA | EFER_NXE),
	};
}

/*
 * All that is cached under this PCID is flushed; but for one space, which the caller syncs, before
 * it is used again.
 */
static void forget_pcid(struct mmu *mmu, uint16_t pcid, const struct address_space *except)
{
	for (unsigned n = 1; n <= mmu->spaces_made; n++)
		if (&mmu->spaces[n] != except && mmu->spaces[n].pcid == pcid)
			mmu->spaces[n].pcid = NO_PCID;
}

/* Of a processor that has nothing cached. */
static void begin_anew(struct soft_cpu *cpu)
{
	struct mmu *mmu = cpu->mmu;

	mmu->mode = mode_of(&cpu->state);
	mmu_use_root(mmu, root_of(&cpu->state));
	mmu->current->pcid = pcid_of(&cpu->state);
	cpu->count.forgotten++;
}

void soft_forget_own(struct soft_cpu *cpu)
{
	mmu_forget(cpu->mmu);
	begin_anew(cpu);
}

void soft_forget_forked(struct soft_cpu *cpu)
{
	mmu_forked(cpu->mmu);
	soft_empty_slots(cpu);
	begin_anew(cpu);
}

void soft_forget(struct soft_cpu *cpu)
{
	common_forget(cpu->engine);
	soft_forget_own(cpu);
}

/* Under PAE four entries are those of CR3, which the tables do not have any more. */
static bool has_own_roots(const struct x86_state *state)
{
	return state->cr0 & CR0_PG && state->cr4 & CR4_PAE && !(state->efer & EFER_LMA);
}

void soft_change_mode(struct soft_cpu *cpu, bool global_pages)
{
	struct space_mode mode = mode_of(&cpu->state);

	/* the four entries were loaded anew: no table's version tells what came through them */
	if (!space_same_mode(&mode, &cpu->mmu->mode) ||
	    (global_pages && has_own_roots(&cpu->state)))
		soft_forget(cpu);
	else if (global_pages)
		soft_flush(cpu, true);
	soft_leave_mode(cpu); /* soft_mode() may be another */
}

void soft_change_root(struct soft_cpu *cpu, bool keep)
{
	struct mmu *mmu = cpu->mmu;
	struct address_space *before = mmu->current;
	uint16_t pcid = pcid_of(&cpu->state);

	if (!keep)
		forget_pcid(mmu, pcid, NULL);
	if (mmu_use_root(mmu, root_of(&cpu->state)))
		cpu->count.switches_known += mmu->current != before;
	else
		cpu->count.switches_new++;
	if (has_own_roots(&cpu->state)) {
		space_drop_locals(mmu, before);
		space_drop_locals(mmu, mmu->current);
	}
	if (!keep || mmu->current != before || mmu->current->pcid != pcid)
		space_drop_locals(mmu, &mmu->spaces[0]);
	if (!keep || mmu->current->pcid != pcid)
		common_sync(mmu);
	mmu->current->pcid = pcid;
}

void check_root(const struct soft_cpu *cpu)
{
	struct space_mode mode = mode_of(&cpu->state);

	assert(space_same_mode(&mode, &cpu->mmu->mode));
	assert(cpu->mmu->current->root == root_of(&cpu->state));
	assert(cpu->mmu->current->pcid == pcid_of(&cpu->state));
}

unsigned soft_view(const struct x86_state *state)
{
	if (state->cpl == 3)
		return VIEW_USER;
	return state->cr4 & CR4_SMAP && !(state->rflags & FLAG_AC) ? VIEW_KERNEL : VIEW_KERNEL_AC;
}

/*
 * What the guest's kernel left in the host's buffers is overwritten (on hosts whose microcode
 * does so); any writable segment will do.
 */
static void clear_buffers(void)
{
	uint16_t selector;

	__asm__ volatile("mov %%ss, %0; verw %0" : "=m"(selector) : : "cc");
}

void soft_select_view(struct soft_cpu *cpu)
{
	unsigned view = soft_view(&cpu->state);

	if (view == VIEW_USER && cpu->engine->clears_buffers && !cpu->in_user_view)
		clear_buffers();
	cpu->in_user_view = view == VIEW_USER;
	cpu->read_table = cpu->view_read[view];
	cpu->write_table = cpu->view_write[view];
}

void soft_flush(struct soft_cpu *cpu, bool global)
{
	struct mmu *mmu = cpu->mmu;

	for (unsigned n = 1; n <= mmu->spaces_made; n++) {
		if (&mmu->spaces[n] != mmu->current)
			mmu->spaces[n].pcid = NO_PCID;
		if (global)
			space_drop_globals(mmu, &mmu->spaces[n]);
	}
	if (global) {
		space_drop(mmu, &mmu->spaces[0]);
		common_flush_globals(cpu->engine);
	} else {
		space_drop_locals(mmu, &mmu->spaces[0]);
	}
	common_sync(mmu);
}

void soft_flush_pcid(struct soft_cpu *cpu, uint16_t pcid)
{
	struct mmu *mmu = cpu->mmu;

	forget_pcid(mmu, pcid, mmu->current);
	if (mmu->current->pcid != pcid)
		return;
	space_drop_locals(mmu, &mmu->spaces[0]);
	common_sync(mmu);
}

void soft_flush_page(struct soft_cpu *cpu, uint64_t gva)
{
	struct mmu *mmu = cpu->mmu;

	for (unsigned n = 1; n <= mmu->spaces_made; n++) {
		struct address_space *space = &mmu->spaces[n];

		if (space->pcid == mmu->current->pcid)
			space_drop_page(mmu, space, gva);
		else
			space_drop_global_page(mmu, space, gva);
	}
	common_flush_page(mmu, gva, mmu->current->pcid);
	space_drop_page(mmu, &mmu->spaces[0], gva);
	cpu->count.pages_flushed++;
}

void soft_flush_page_everywhere(struct soft_cpu *cpu, uint64_t gva)
{
	struct mmu *mmu = cpu->mmu;

	for (unsigned n = 0; n <= mmu->spaces_made; n++)
		space_drop_page(mmu, &mmu->spaces[n], gva);
	common_flush_page(mmu, gva, ANY_PCID);
	cpu->count.pages_flushed++;
}

void soft_flush_page_of_pcid(struct soft_cpu *cpu, uint64_t gva, uint16_t pcid)
{
	struct mmu *mmu = cpu->mmu;

	for (unsigned n = 1; n <= mmu->spaces_made; n++)
		if (mmu->spaces[n].pcid == pcid)
			space_drop_page(mmu, &mmu->spaces[n], gva);
	common_flush_page(mmu, gva, pcid);
	if (mmu->current->pcid == pcid)
		space_drop_page(mmu, &mmu->spaces[0], gva);
	cpu->count.pages_flushed++;
}

void soft_revoke_writes(struct soft_engine *engine, uint64_t frame)
{
	for (unsigned n = 0; n < engine->cpu_count; n++)
		space_revoke_writes(engine->cpus[n]->mmu, frame);
	common_revoke_writes(engine, frame);
}

bool soft_note_jump(struct soft_cpu *cpu, uint64_t linear, bool user,
		    const struct page_walk *found)
{
	return space_note_jump(cpu->mmu, linear, user, found);
}

uint64_t soft_epoch(const struct soft_cpu *cpu, bool user)
{
	return user ? cpu->mmu->current->epoch : cpu->mmu->spaces[0].epoch;
}

void soft_flush_jumps(struct soft_cpu *cpu)
{
	for (unsigned n = 0; n <= cpu->mmu->spaces_made; n++)
		space_forget_jumps(cpu->mmu, &cpu->mmu->spaces[n]);
}
