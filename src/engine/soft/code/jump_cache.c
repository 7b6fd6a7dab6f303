/* The jump cache of a processor: where an address leads in its current mode, in one comparison. */
#include "code.h"
#include "engine/soft/mmu/mmu.h"

struct jump_entry *soft_jump_entry(struct soft_cpu *cpu, uint64_t rip) { return &cpu->jump_cache[(rip ^ rip >> 12) & (JUMP_CACHE_ENTRIES - 1)]; }

/* Mode and epoch: user and kernel entries are dropped apart, by a new epoch each. */
uint64_t soft_jump_key(const struct soft_cpu *cpu, uint32_t mode)
{
	uint64_t x = cpu->engine->secret + ((uint64_t)cpu->jump_epoch[mode & MODE_USER ? 1 : 0] << 8 | (mode & 0x7f)) * 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* Addresses may lead elsewhere now; unless global, those of global pages do not. */
void soft_flush_jumps(struct soft_cpu *cpu, bool global)
{
	for (int user = global || cpu->kernel_jumps_local ? 0 : 1; user < 2; user++)
		cpu->jump_epoch[user]++;
	if (global || cpu->kernel_jumps_local) {
		memset(cpu->code_filter, 0, sizeof(cpu->code_filter));
		cpu->kernel_jumps_local = false;
	}
	cpu->jump_key = cpu->engine->no_key;
}

static unsigned filter_bit(uint64_t linear)
{
	return (unsigned)((linear >> 12) * 0x9e3779b97f4a7c15ull >> 52);
}

static void note_page(struct soft_cpu *cpu, uint64_t linear)
{
	unsigned bit = filter_bit(linear);

	cpu->code_filter[bit >> 6] |= 1ull << (bit & 63);
}

void soft_remember_jump(struct soft_cpu *cpu, const struct block *b, uint64_t linear, uint64_t key, unsigned rights)
{
	struct jump_entry *j = soft_jump_entry(cpu, b->gva);

	j->sum = 0;
	__atomic_store_n(&j->host, (uint64_t)(cpu->engine->code_run + b->host_offset), __ATOMIC_SEQ_CST);
	__atomic_store_n(&j->sum, b->gva + key, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (b->dead) /* since it was found: block_kill() may have been here before; what leads to a dead block would never end */
		j->sum = 0;
	cpu->kernel_jumps_local |= !(b->mode & MODE_USER) && !(rights & RIGHT_GLOBAL);
	note_page(cpu, linear);
	if (b->mode & BLOCK_STRADDLES)
		note_page(cpu, linear + 4096);
}

/* From here on a kick that came before is seen by the first exit, one that comes later clears the key itself. */
void soft_enter_mode(struct soft_cpu *cpu, uint32_t mode)
{
	__atomic_store_n(&cpu->jump_key, soft_jump_key(cpu, mode), __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cpu->kick, __ATOMIC_SEQ_CST))
		cpu->jump_key = cpu->engine->no_key;
}

void soft_flush_jumps_of_page(struct soft_cpu *cpu, uint64_t linear)
{
	unsigned bit = filter_bit(linear);

	if (cpu->code_filter[bit >> 6] >> (bit & 63) & 1)
		soft_flush_jumps(cpu, true);
}

void soft_forget_block(struct soft_cpu *cpu, const struct block *b)
{
	struct jump_entry *j = soft_jump_entry(cpu, b->gva);

	if (__atomic_load_n(&j->host, __ATOMIC_SEQ_CST) == (uint64_t)(cpu->engine->code_run + b->host_offset))
		__atomic_store_n(&j->sum, 0, __ATOMIC_SEQ_CST);
}
