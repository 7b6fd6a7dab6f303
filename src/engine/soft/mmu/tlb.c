/*
 * A processor and its address space: which view translated code looks up, and what a flush drops.
 * The space is one per processor yet: a MOV to CR3 gives it another tag and drops what is not
 * global.
 */
#include <assert.h>

#include "engine/soft/code/code.h"
#include "mmu.h"
#include "space.h"

void soft_use_space(struct soft_cpu *cpu, struct address_space *space)
{
	cpu->space = space;
	memcpy(cpu->view_read, space->read, sizeof(cpu->view_read));
	memcpy(cpu->view_write, space->write, sizeof(cpu->view_write));
}

static struct space_tag tag_of(const struct x86_state *s)
{
	enum { PCID_MASK = 0xfff };

	return (struct space_tag){
		.root = s->cr3 & ~(uint64_t)PCID_MASK,
		.pcid = s->cr4 & CR4_PCIDE ? s->cr3 & PCID_MASK : 0,
		.cr0 = (uint32_t)s->cr0 & (CR0_PG | CR0_WP),
		.cr4 = (uint32_t)s->cr4 & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP),
		.efer = (uint32_t)s->efer & (EFER_LMA | EFER_NXE),
	};
}

void soft_change_space(struct soft_cpu *cpu, bool global)
{
	cpu->space->tag = tag_of(&cpu->state);
	soft_flush(cpu, global);
}

void check_tag(const struct soft_cpu *cpu)
{
	struct space_tag now = tag_of(&cpu->state);
	const struct space_tag *then = &cpu->space->tag;

	assert(now.root == then->root && now.pcid == then->pcid);
	assert(now.cr0 == then->cr0 && now.cr4 == then->cr4 && now.efer == then->efer);
}

unsigned soft_view(const struct x86_state *s)
{
	if (s->cpl == 3)
		return VIEW_USER;
	return s->cr4 & CR4_SMAP && !(s->rflags & FLAG_AC) ? VIEW_KERNEL : VIEW_KERNEL_AC;
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
	space_flush(cpu->space, global);
	soft_flush_jumps(cpu, global);
}

void soft_flush_page(struct soft_cpu *cpu, uint64_t gva)
{
	if (!space_flush_page(cpu->space, gva))
		soft_flush(cpu, true);
	if (space_may_have_jump(cpu->space, gva))
		soft_flush_jumps(cpu, true);
}
