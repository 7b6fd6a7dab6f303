/*
 * The TLB: the linear tables that translated code looks up.
 *
 * A view is a pair of tables (read, write) for one privilege: user, kernel, kernel with EFLAGS.AC (or without SMAP). Entries
 * are filled after a successful walk and go away as the SDM has it: INVLPG, CR3, CR4, PGE; nothing non-present is ever cached.
 * The journal lists what was filled, global entries apart, so that a flush costs what the fills did.
 *
 * Not here yet: tables of several address spaces side by side; every CR3 write drops the non-global entries.
 */
#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#include "engine/soft/code/code.h"
#include "mmu.h"

static int make_table(void **ret_memory, uint64_t *ret_base)
{
	uint8_t *at = soft_reserve(TABLE_RESERVED_BYTES);

	if (!at)
		return -ENOMEM;
	*ret_memory = at;
	madvise(at, TABLE_BYTES, MADV_NOHUGEPAGE);
	*ret_base = (((uint64_t)at + 0xffff) & ~0xffffull) + TABLE_BIAS;
	return 0;
}

int soft_create_space(struct soft_cpu *cpu)
{
	for (int n = 0; n < VIEWS; n++)
		if (make_table(&cpu->table_memory[n], &cpu->view_read[n]) || make_table(&cpu->table_memory[VIEWS + n], &cpu->view_write[n]))
			return -ENOMEM;
	return 0;
}

/* What the guest's kernel left in the host's buffers is overwritten (on hosts whose microcode does so); any writable segment will do. */
static void clear_buffers(void)
{
	uint16_t selector;

	__asm__ volatile("mov %%ss, %0; verw %0" : "=m"(selector) : : "cc");
}

void soft_destroy_space(struct soft_cpu *cpu)
{
	for (int n = 0; n < 2 * VIEWS; n++)
		if (cpu->table_memory[n])
			munmap(cpu->table_memory[n], TABLE_RESERVED_BYTES);
}

void soft_select_view(struct soft_cpu *cpu)
{
	const struct x86_state *s = &cpu->state;
	int view = s->cpl == 3 ? VIEW_USER : s->cr4 & CR4_SMAP && !(s->rflags & FLAG_AC) ? VIEW_KERNEL : VIEW_KERNEL_AC;

	if (view == VIEW_USER && cpu->engine->clears_buffers && cpu->read_table != cpu->view_read[VIEW_USER])
		clear_buffers();
	cpu->read_table = cpu->view_read[view];
	cpu->write_table = cpu->view_write[view];
}

static uint64_t index_of(uint64_t gva) { return gva << 16 >> 28; }

static uint64_t *entry_at(uint64_t table, uint64_t index) { return (uint64_t *)(table - TABLE_BIAS + index * 8); }

static void clear_entry(struct soft_cpu *cpu, uint64_t packed)
{
	*entry_at(cpu->view_read[packed & 3], packed >> 2) = 0;
	*entry_at(cpu->view_write[packed & 3], packed >> 2) = 0;
}

static void flush_journal(struct soft_cpu *cpu, int global)
{
	for (uint32_t n = 0; n < cpu->journal_used[global]; n++)
		clear_entry(cpu, cpu->journal[global][n]);
	cpu->journal_used[global] = 0;
}

void soft_flush(struct soft_cpu *cpu, bool global)
{
	flush_journal(cpu, 0);
	if (global) {
		flush_journal(cpu, 1);
		memset(cpu->large_filter, 0, sizeof(cpu->large_filter));
	}
	soft_flush_jumps(cpu, global);
}

static unsigned filter_bit(uint64_t number) { return (unsigned)((number * 0x9e3779b97f4a7c15ull) >> 52); }

void soft_flush_page(struct soft_cpu *cpu, uint64_t gva)
{
	unsigned bit = filter_bit(gva >> 21);

	for (unsigned view = 0; view < VIEWS; view++)
		clear_entry(cpu, index_of(gva) << 2 | view);
	if (cpu->large_filter[bit >> 6] >> (bit & 63) & 1)
		soft_flush(cpu, true);
	soft_flush_jumps_of_page(cpu, gva);
}

/* No write entry leads to this frame any more: every write to it comes to soft_memory(). */
void soft_revoke_writes(struct soft_cpu *cpu, uint64_t frame)
{
	for (int global = 0; global < 2; global++)
		for (uint32_t n = 0; n < cpu->journal_used[global]; n++) {
			uint64_t packed = cpu->journal[global][n], gva = (uint64_t)((int64_t)(packed >> 2 << 28) >> 16);
			uint64_t *e = entry_at(cpu->view_write[packed & 3], packed >> 2);

			if (*e && soft_frame(cpu->engine, (uint8_t *)((*e ^ cpu->poison) - 1 + gva)) == frame)
				*e = 0;
		}
}

void soft_insert_entry(struct soft_cpu *cpu, uint64_t gva, uint8_t *page, bool writable, unsigned rights)
{
	int view = cpu->read_table == cpu->view_read[0] ? 0 : cpu->read_table == cpu->view_read[1] ? 1 : 2;
	bool global = rights & RIGHT_GLOBAL;
	uint64_t base = gva & ~4095ull, value = (((uint64_t)page - base) | 1) ^ cpu->poison, index = index_of(gva);

	assert(view != VIEW_USER || rights & RIGHT_USER); /* docs/speculation.md: nothing there to forward */
	if (cpu->journal_used[global] == JOURNAL_ENTRIES)
		flush_journal(cpu, global);
	cpu->journal[global][cpu->journal_used[global]++] = index << 2 | (unsigned)view;
	if (rights & RIGHT_LARGE) {
		unsigned bit = filter_bit(gva >> 21);

		cpu->large_filter[bit >> 6] |= 1ull << (bit & 63);
	}
	*entry_at(cpu->view_read[view], index) = value;
	if (writable)
		*entry_at(cpu->view_write[view], index) = value;
	cpu->fills++;
}
