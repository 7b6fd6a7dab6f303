/*
 * Jump sites: how user code of 64 bits, which floats, goes to an address in another page that is
 * known relative to its own. Each such jump has a number, and by it an entry of its own beside the
 * jump cache: the same sum of address and key, so that one that matches leads where the jump cache
 * would lead, whoever has filled it. Neighbours in time share cache lines, and nothing is hashed.
 *
 *   site   compares the sum in its entry; r11 is the address, and where that is another one r10 the
 *          site's name
 *   thunk  looks into the jump cache, and what that has is the site's from now on; else C is next
 *
 *   - An entry of a site is what one of its processor's jump cache was, or leads to a block that
 *     has died since (check_jump_cache()): who comes there twice empties what leads there.
 *   - A number is given again when all were. A block is made again with the same ones.
 *   - All entries go where all of the jump cache go: with the key, and with closed regions.
 */
#include "code.h"
#include "engine/soft/translate/emit.h"

static struct host_mem entry_at(uint8_t base, size_t entries, size_t field)
{
	return (struct host_mem){ .base = base, .index = NO_REG, .gs = true,
				  .disp = (int32_t)(entries + field) };
}

static void shift(struct emitter *emitter, unsigned which, uint8_t reg, unsigned bits)
{
	emit_rr(emitter, OP32(0xc1), (uint8_t)which, reg);
	emit8(emitter, (uint8_t)bits);
}

/*
 * Nothing that is stored here is an address or an index where it is loaded again: that may be done
 * before, in speculation, and bring what the guest had there.
 */
void soft_emit_site_thunk(struct emitter *emitter)
{
	enum { SHL = 4, SHR = 5, ENTRY_LOG2 = 4, PAGE_LOG2 = 12 };
	const size_t cache = offsetof(struct soft_cpu, jump_cache);
	const size_t sites = offsetof(struct soft_cpu, jump_sites);
	const size_t sum = offsetof(struct jump_entry, sum);
	const size_t host = offsetof(struct jump_entry, host);
	uint8_t *miss;

	emit_store(emitter, R11, CPU(state.rip));
	emit_store(emitter, RAX, CPU(way_rax));
	emit_rr(emitter, OP32(0x69), RAX, R11); /* imul, as soft_jump_index() */
	emit32(emitter, JUMP_HASH_FACTOR);
	shift(emitter, SHR, RAX, 32 - JUMP_CACHE_BITS);
	shift(emitter, SHL, RAX, ENTRY_LOG2);
	emit_rm(emitter, OP64(0x03), R11,
		cpu_mem(offsetof(struct soft_cpu, jump_key) + sizeof(uint64_t))); /* of user mode */
	emit_rm(emitter, OP64(0x3b), R11, entry_at(RAX, cache, sum));
	miss = emit_short_jcc(emitter, CC_NZ);
	emit_load(emitter, RAX, entry_at(RAX, cache, host));
	shift(emitter, SHR, R10, PAGE_LOG2);
	shift(emitter, SHL, R10, ENTRY_LOG2);
	emit_store(emitter, RAX, entry_at(R10, sites, host));
	emit_store(emitter, R11, entry_at(R10, sites, sum));
	emit_load(emitter, RAX, CPU(way_rax));
	emit_load(emitter, R11, CPU(state.rip));
	emit_rm(emitter, OP32(0xff), 4, entry_at(R10, sites, host));
	set_short_jump(miss, emitter->out);
	emit_load(emitter, RAX, CPU(way_rax));
	emit_jmp_cpu(emitter, offsetof(struct soft_cpu, thunk_floating));
}

/* Whether that is what led there. */
static bool jump_cache_leads(struct soft_cpu *cpu, uint64_t sum)
{
	const struct jump_entry *entry = soft_jump_entry(cpu, cpu->state.rip);

	return entry->sum == sum && soft_block_at(cpu->engine, (const void *)entry->host)->dead;
}

static void forget_sites(struct soft_cpu *cpu)
{
	const uint64_t sum = cpu->state.rip + soft_jump_key(cpu, soft_mode(cpu));

	if (jump_cache_leads(cpu, sum))
		return;
	for (uint32_t n = 0; n < JUMP_SITES; n++)
		if (cpu->jump_sites[n].sum == sum)
			__atomic_store_n(&cpu->jump_sites[n].sum, 0, __ATOMIC_RELAXED);
}

void *soft_dead_floating(struct soft_cpu *cpu, uint64_t unused, uint64_t rip)
{
	(void)unused;
	cpu->state.rip = rip;
	if (cpu->engine->uses_slots)
		forget_sites(cpu);
	return soft_dispatch(cpu);
}
