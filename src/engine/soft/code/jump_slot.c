/*
 * Jump slots: how a kernel's 64-bit code goes to an address in another page that is known when it
 * is translated. A slot stands for an address, a mode and where the flags are there; its number is
 * the engine's, what it holds is each processor's: where the block begins, or a stub that comes
 * here.
 *
 *   forwards   jmp gs:[slot]
 *   backwards  mov r11, gs:[slots]; jmp [r11 + slot]    who kicks changes which slots these are, as
 *                                                       he takes the key of the jump cache away
 *
 * So no comparison, and no flag that has to be saved. What is between two looks at a kick only goes
 * forwards, through as many pages as there are slots at most.
 *
 *   1. A slot holds its stub, or what an entry of the jump cache said for the key of its mode since
 *      the kernel's jumps were flushed last; also one that leads to a region that was closed since
 *      its processor has passed, or to a block that is dead, whose stub empties it.
 *   2. A number that was given stands for the same as long as the engine lives, so that a block is
 *      made again with the same ones. When there are none left a jump goes through the jump cache.
 *
 * check_jump_slots() asserts 1 as far as the host's addresses show it, and that number and name
 * find each other.
 */
#include <assert.h>

#include "code.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/translate/emit.h"

static uint64_t stub_of(const struct soft_engine *engine, uint32_t slot)
{
	return (uint64_t)(engine->code_run + CODE_SLOT_STUBS + slot * SLOT_STUB_BYTES);
}

static bool is_name(const struct jump_slot_name *name, uint64_t rip, uint32_t mode, bool in_word)
{
	return name->rip == rip && name->mode == mode && name->in_word == in_word;
}

/* Its bucket, or the one that is free for it: there are twice as many as slots. */
static uint16_t *bucket_of(const struct soft_engine *engine, uint64_t rip, uint32_t mode,
			   bool in_word)
{
	uint64_t n = (rip + ((uint64_t)mode << 1 | in_word)) * 0x9e3779b97f4a7c15ull >> 32;

	for (;; n++) {
		uint16_t *bucket = &engine->slot_buckets[n % SLOT_BUCKETS];
		const uint16_t slot = __atomic_load_n(bucket, __ATOMIC_ACQUIRE);

		if (!slot || is_name(&engine->slot_names[slot - 1], rip, mode, in_word))
			return bucket;
	}
}

static void emit_stub(const struct soft_engine *engine, uint32_t slot)
{
	struct emitter emitter = { engine->code_write + CODE_SLOT_STUBS + slot * SLOT_STUB_BYTES };

	emit_constant(&emitter, R11, slot);
	emit_jmp_cpu(&emitter, offsetof(struct soft_cpu, thunk_slot));
}

static void set(struct soft_cpu *cpu, uint32_t slot, uint64_t host)
{
	__atomic_store_n(&cpu->slots[slot], host, __ATOMIC_RELAXED);
}

static void empty(struct soft_cpu *cpu, uint32_t slot)
{
	set(cpu, slot, stub_of(cpu->engine, slot));
}

uint32_t soft_jump_slot(struct soft_engine *engine, uint64_t rip, uint32_t mode, bool in_word)
{
	uint16_t *bucket = bucket_of(engine, rip, mode, in_word);
	uint32_t slot = engine->slot_count;

	if (*bucket)
		return *bucket - 1u;
	if (slot == JUMP_SLOTS)
		return NO_JUMP_SLOT;
	engine->slot_names[slot] =
		(struct jump_slot_name){ .rip = rip, .mode = (uint16_t)mode, .in_word = in_word };
	emit_stub(engine, slot);
	engine->empty_slots[slot] = stub_of(engine, slot);
	for (unsigned n = 0; n < engine->cpu_count; n++)
		empty(engine->cpus[n], slot);
	__atomic_store_n(&engine->slot_count, slot + 1, __ATOMIC_RELEASE);
	__atomic_store_n(bucket, (uint16_t)(slot + 1), __ATOMIC_RELEASE);
	return slot;
}

uint32_t soft_jump_slot_known(const struct soft_engine *engine, uint64_t rip, uint32_t mode,
			      bool in_word)
{
	const uint16_t *bucket = bucket_of(engine, rip, mode, in_word);
	const uint16_t slot = __atomic_load_n(bucket, __ATOMIC_ACQUIRE);

	/* it may have been somebody's since it was found to be free */
	if (!slot || !is_name(&engine->slot_names[slot - 1], rip, mode, in_word))
		return NO_JUMP_SLOT;
	return slot - 1u;
}

static uint32_t slots_of(const struct soft_cpu *cpu)
{
	return __atomic_load_n(&cpu->engine->slot_count, __ATOMIC_ACQUIRE);
}

void soft_make_slots(struct soft_cpu *cpu)
{
	const uint32_t count = slots_of(cpu);

	for (uint32_t n = 0; n < count; n++)
		empty(cpu, n);
}

void soft_empty_slots(struct soft_cpu *cpu)
{
	const uint32_t count = slots_of(cpu);

	for (uint32_t part = 0; part * SLOTS_OF_A_PART < count; part++) {
		if (!cpu->slots_used[part])
			continue;
		cpu->slots_used[part] = false;
		for (uint32_t n = part * SLOTS_OF_A_PART;
		     n < (part + 1) * SLOTS_OF_A_PART && n < count; n++)
			empty(cpu, n);
	}
}

void soft_empty_slots_to(struct soft_cpu *cpu, uint64_t first, uint64_t bytes)
{
	const uint32_t count = slots_of(cpu);

	for (uint32_t n = 0; n < count; n++)
		if (__atomic_load_n(&cpu->slots[n], __ATOMIC_RELAXED) - first < bytes)
			empty(cpu, n);
}

void soft_empty_slots_at(struct soft_cpu *cpu, uint64_t rip, uint32_t mode)
{
	soft_acquire(&cpu->engine->lock);
	for (unsigned in_word = 0; in_word < 2; in_word++) {
		const uint16_t slot = *bucket_of(cpu->engine, rip, mode, in_word);

		if (slot)
			empty(cpu, slot - 1u);
	}
	soft_release(&cpu->engine->lock);
}

/* As the jump cache has it from now on. */
static void fill(struct soft_cpu *cpu, uint32_t slot, const struct jump_slot_name *name)
{
	const struct jump_entry *entry = soft_jump_entry(cpu, name->rip);
	const struct block *b;

	if (entry->sum != name->rip + soft_jump_key(cpu, name->mode))
		return;
	b = soft_block_at(cpu->engine, (const void *)entry->host);
	if (!b)
		return;
	cpu->slots_used[slot / SLOTS_OF_A_PART] = true;
	set(cpu, slot, entry->host + (name->in_word ? 0 : b->direct));
}

void *soft_slot_miss(struct soft_cpu *cpu, uint64_t unused, uint64_t slot)
{
	const struct jump_slot_name *name = &cpu->engine->slot_names[slot];
	void *host;

	(void)unused;
	cpu->state.rip = name->rip;
	if (!name->in_word)
		cpu->flags_word = cpu->way_flags;
	host = soft_go_on(cpu);
	fill(cpu, (uint32_t)slot, name);
	return host;
}

void check_jump_slots(const struct soft_cpu *cpu)
{
	const struct soft_engine *engine = cpu->engine;

	for (uint32_t n = 0; n < engine->slot_count; n++) {
		const struct jump_slot_name *name = &engine->slot_names[n];
		const uint64_t offset = cpu->slots[n] - (uint64_t)engine->code_run;
		const struct code_region *region;

		assert(*bucket_of(engine, name->rip, name->mode, name->in_word) == n + 1);
		if (cpu->slots[n] == stub_of(engine, n))
			continue;
		assert(cpu->slots_used[n / SLOTS_OF_A_PART] && offset >= CODE_THUNK_BYTES &&
		       offset < engine->code_bytes);
		region = &engine->regions[soft_region_of(engine, (uint32_t)offset)];
		assert(region->closed_at > cpu->forgotten ||
		       (!region->closed && soft_block_of(engine, cpu->slots[n])));
	}
}
