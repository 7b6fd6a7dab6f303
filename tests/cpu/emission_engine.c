/* The half of emission_test that is inside the engine: it translates without executing. */
#include <assert.h>
#include <sys/mman.h>

#include "engine/soft/code/code.h"
#include "engine/soft/translate/translate_internal.h"
#include "emission.h"
#include "no_devices.h"

enum {
	RAM_BYTES = 4 << 20,
	CODE_AT = 0x100000,
	TABLES_AT = 0x10000,
	HLT = 0xf4,
	DATA_SEGMENT = 0xc093,
	STARTS_HIGHER = 0x1000
};

static struct guest_memory memory;
static struct soft_cpu *cpu;
static struct emission last;
static unsigned copies;
static const struct block *made;

/* Copies that must be refused: reached bytes, right to write, immediate. */
static void try_spoilt(const struct emitted_copy *copy)
{
	const struct x86_insn *insn = copy->insn;
	struct emitted_copy spoilt = *copy;
	uint8_t bytes[X86_INSN_MAX_BYTES + 8];

	if (copy->looked_up_bytes) {
		spoilt.looked_up_bytes--;
		last.accepts_fewer_bytes = !soft_copy_error(&spoilt);
		spoilt.looked_up_bytes++;
		spoilt.writable = false;
		last.accepts_read_only = copy->writable && !soft_copy_error(&spoilt);
		spoilt.writable = copy->writable;
	}
	if (insn->imm_bytes && copy->bytes <= sizeof(bytes)) {
		memcpy(bytes, copy->host, copy->bytes);
		bytes[copy->bytes - 1] ^= 1;
		spoilt.host = bytes;
		last.accepts_other_immediate = !soft_copy_error(&spoilt);
	}
}

static void on_copy(void *context, const struct emitted_copy *copy)
{
	(void)context;
	copies++;
	last = (struct emission){ .host = copy->host,
				  .bytes = copy->bytes,
				  .looked_up_bytes = copy->looked_up_bytes,
				  .r10_ahead = copy->r10_ahead,
				  .writable = copy->writable,
				  .error = soft_copy_error(copy) };
	try_spoilt(copy);
}

/* The first 4 MiB where they are. */
static void make_tables(uint8_t *ram)
{
	enum { PRESENT_WRITE = 7, LARGE = 0x80, TABLE_BYTES_4K = 0x1000, LARGE_SHIFT = 21 };
	uint64_t *tables = (uint64_t *)(void *)(ram + TABLES_AT);
	unsigned entries = TABLE_BYTES_4K / 8;

	tables[0] = (TABLES_AT + TABLE_BYTES_4K) | PRESENT_WRITE;
	tables[entries] = (TABLES_AT + 2 * TABLE_BYTES_4K) | PRESENT_WRITE;
	for (unsigned n = 0; n < 2; n++)
		tables[2 * entries + n] = (uint64_t)n << LARGE_SHIFT | PRESENT_WRITE | LARGE;
}

void emission_begin(void)
{
	uint8_t *ram = mmap(NULL, guest_memory_footprint_bytes(RAM_BYTES), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert(ram != MAP_FAILED);
	make_tables(ram);
	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	cpu = (struct soft_cpu *)engine_cpu_create(engine_create(&memory, &engine_options), &ops,
						   NULL);
	assert(cpu);
	cpu->engine->on_copy = on_copy;
}

static uint16_t code_attributes(unsigned code_bits)
{
	if (code_bits == 64)
		return 0xa09b;
	return code_bits == 32 ? 0xc09b : 0x809b;
}

void emission_set_mode(unsigned code_bits, bool flat)
{
	struct x86_state *state = &cpu->state;

	memset(state, 0, sizeof(*state));
	state->cr0 = CR0_PE | CR0_PG;
	state->cr3 = TABLES_AT;
	state->cr4 = CR4_PAE | 0x600 | CR4_OSXSAVE;
	state->xcr0 = 7;
	state->efer = EFER_LMA | EFER_LME;
	for (unsigned n = 0; n < X86_SEGMENTS; n++)
		state->segment[n] =
			(struct x86_segment_state){ .attributes = DATA_SEGMENT,
						    .limit = ~0u,
						    .base = flat || n == X86_CS ? 0
										: STARTS_HIGHER };
	state->segment[X86_CS].attributes = code_attributes(code_bits);
}

static struct block *translate(uint64_t gpa, uint64_t second_page, uint32_t mode)
{
	const struct x86_segment_state *cs = &cpu->state.segment[X86_CS];
	const struct code_place place = { .rip = cpu->state.rip, .gpa = gpa,
					  .second_page = second_page, .cs_base = cs->base,
					  .cs_limit = cs->limit, .mode = mode };
	struct fault unused;

	return soft_translate(cpu->engine, &place, &unused);
}

unsigned emission_translate(const uint8_t *bytes, unsigned count, struct emission *ret)
{
	struct soft_engine *engine = cpu->engine;
	uint8_t *code = memory.ram + CODE_AT;
	uint32_t mode = soft_mode(cpu);

	/* C has looked at the segment's limit already: without, accesses by CS are not copied */
	if (x86_code_bits(&cpu->state) != 64)
		mode |= BLOCK_CHECKED;
	memcpy(code, bytes, count);
	code[count] = HLT;
	cpu->state.rip = CODE_AT;
	engine->regions[0] = (struct code_region){ 0 };
	soft_make_regions(engine);
	copies = 0;
	made = translate(CODE_AT, 0, mode);
	if (!made)
		return 0;
	*ret = last;
	return copies;
}

static void describe(const struct block *b, struct emission_block *ret)
{
	struct soft_engine *engine = cpu->engine;

	ret->host = engine->code_write + b->host_offset;
	ret->host_bytes = b->hot_bytes;
	ret->all_bytes = b->host_bytes;
	ret->guest_bytes = b->guest_bytes;
	ret->marks = 0;
	for (unsigned n = 0; n < b->maps && n < EMISSION_MARKS; n++, ret->marks++) {
		const struct pc_map *map = &engine->maps[b->map_first + n];

		ret->mark[n].host = map->host;
		ret->mark[n].guest = map->guest & MAP_GUEST;
	}
}

bool emission_block(const uint8_t *bytes, unsigned count, bool user, struct emission_block *ret)
{
	struct emission unused;

	emission_set_mode(64, true);
	cpu->state.cpl = user ? 3 : 0;
	emission_translate(bytes, count, &unused);
	if (made)
		describe(made, ret);
	return made;
}

bool emission_block_in_page(const uint8_t *page, unsigned offset, bool user,
			    struct emission_block *ret)
{
	struct soft_engine *engine = cpu->engine;
	const struct block *b;

	emission_set_mode(64, true);
	cpu->state.cpl = user ? 3 : 0;
	memcpy(memory.ram + CODE_AT, page, PAGE_BYTES);
	cpu->state.rip = CODE_AT + offset;
	engine->regions[0] = (struct code_region){ 0 };
	soft_make_regions(engine);
	b = translate(CODE_AT + offset, CODE_AT / PAGE_BYTES + 2, soft_mode(cpu));
	if (b)
		describe(b, ret);
	return b;
}

int32_t emission_slot(unsigned reg) { return slot((uint8_t)reg).disp; }

static bool lies_in(int32_t displacement, size_t field, size_t bytes)
{
	return (size_t)displacement - field < bytes;
}
#define LIES_IN(displacement, field)                                                               \
	lies_in(displacement, offsetof(struct soft_cpu, field),                                    \
		sizeof(((struct soft_cpu *)0)->field))

enum emission_field emission_field(int32_t displacement)
{
	const size_t thunks = offsetof(struct soft_cpu, thunk_memory);

	if (LIES_IN(displacement, state.gpr))
		return FIELD_REGISTER;
	if (LIES_IN(displacement, flags_word) || LIES_IN(displacement, temp[3]))
		return FIELD_FLAGS;
	if (LIES_IN(displacement, code_page))
		return FIELD_PAGE;
	if (LIES_IN(displacement, kick))
		return FIELD_KICK;
	if (LIES_IN(displacement, state.rip) || LIES_IN(displacement, jump_key) ||
	    LIES_IN(displacement, jump_sites) || LIES_IN(displacement, jump_cache) ||
	    LIES_IN(displacement, slots) || LIES_IN(displacement, slot_base) ||
	    lies_in(displacement, thunks, offsetof(struct soft_cpu, way_flags) - thunks))
		return FIELD_JUMP;
	return FIELD_OTHER;
}
