/*
 * Hypercalls, synthetic registers and rings: the input is a program of acts of a guest with 1 MiB
 * and four processors. Nothing may crash, a call's status is one that is documented, and time
 * passes in between.
 */
#include "lib/archive.h"
#include "../hv/fake_host.h"
#include "fuzz.h"

enum { SAVED_BYTES = 2 << 20 };

struct act {
	uint8_t kind, cpu;
	uint16_t code;
	uint8_t where, flags;
	uint16_t count;
	uint64_t a, b;
};

static bool is_documented(uint64_t status)
{
	static const uint8_t known[] = { 0,    2,    3,    4,    5,    6,    8,    0xd, 0xe,
					 0x10, 0x12, 0x13, 0x15, 0x19, 0x1e, 0x77, 0x79 };

	return memchr(known, (int)(status & 0xff), sizeof(known)) && !(status >> 8 & 0xff);
}

static uint64_t place(const struct act *a, bool output)
{
	static const uint64_t places[] = { 0x10000,  0x11000,
					   0x20ff8,  0xff000,
					   0x40000,  0xfed10000,
					   0x100000, ~(uint64_t)(GUEST_PAGE_BYTES - 1) };

	uint64_t from = places[(output ? a->where >> 4 : a->where) & 7];

	if (a->flags & 0x40 && output)
		from = a->b;
	return from + (a->flags & 0x80 ? a->count % GUEST_PAGE_BYTES : 0);
}

static void call(struct fake *fake, const struct act *a, const uint8_t *rest, size_t bytes)
{
	static const uint16_t codes[] = { 2,      3,      8,      0xb,    0x13,   0x14,
					  0x15,   0x50,   0x51,   0x5c,   0x5d,   0x9a,
					  0x8001, 0x8002, 0x8003, 0xc000, 0xc001, 0xc002,
					  0xc003, 0xc004, 0xc010, 0xc011, 0xc012 };
	uint64_t control =
		a->flags & 1 ? a->code : codes[a->code % (sizeof(codes) / sizeof(codes[0]))];
	uint64_t input = place(a, false);
	uint64_t output = place(a, true);
	struct x86_state *state = &fake->state[a->cpu & 3];
	bool long_mode = !(a->flags & 32);

	control |= a->flags & 2 ? 1 << 16 : 0;
	control |= (uint64_t)(a->count & 0x1ff) << 32 |
		   (a->flags & 4 ? (uint64_t)(a->count >> 9 & 7) << 48 : 0);
	control |= a->flags & 8 ? (uint64_t)(a->code >> 8 & 15) << 17 : 0;
	control |= a->flags & 16 ? a->a & 0xf000f000f8000000 : 0;
	if (bytes > 112)
		memcpy(fake->xmm[a->cpu & 3], rest, 112);
	if (a->flags & 2) {
		input = a->a;
		output = a->b;
	}
	state->gpr[1] = control;
	state->gpr[2] = input;
	state->gpr[8] = output;
	if (!long_mode) {
		state->gpr[2] = control >> 32;
		state->gpr[0] = (uint32_t)control;
		state->gpr[3] = input >> 32;
		state->gpr[1] = (uint32_t)input;
		state->gpr[7] = output >> 32;
		state->gpr[6] = (uint32_t)output;
	}
	for (enum engine_call again = ENGINE_CALL_AGAIN; again == ENGINE_CALL_AGAIN;) {
		again = fake_hypercall(fake, a->cpu & 3, long_mode);
		if (again == ENGINE_CALL_DONE && !is_documented(state->gpr[0]))
			abort();
	}
}

static void act(struct fake *fake, const struct act *a, const uint8_t *rest, size_t bytes)
{
	struct hv_cpu *cpu = hv_partition_cpu(fake->partition, a->cpu & 3);
	uint64_t value;
	bool timers;

	switch (a->kind % 8) {
	case 0: hv_msr_write(cpu, 0x40000000 + a->code % 0x120, a->a, &timers); break;
	case 1:
		hv_msr_read(cpu, a->flags & 1 ? (uint32_t)a->a : 0x40000000u + a->code % 0x120,
			    &value);
		break;
	case 2: /* what an overlay register takes */
		hv_msr_write(cpu,
			     (const uint32_t[]){ 0x40000001, 0x40000021, 0x40000073, 0x40000082,
						 0x40000083 }[a->code % 5],
			     place(a, false) | 1, &timers);
		break;
	case 3:
		guest_memory_write(&fake->memory, place(a, false), rest, bytes < 256 ? bytes : 256);
		break;
	case 4:
		hv_work_step(fake->partition);
		if (a->flags & 1)
			hv_fork_ended(fake->partition, -(a->code % 130), a->count);
		break;
	case 5:
		pthread_mutex_lock(&fake->lock);
		fake->now += a->a & 0xffffff;
		hv_run_timers(cpu);
		pthread_mutex_unlock(&fake->lock);
		break;
	default: call(fake, a, rest, bytes);
	}
}

/* Whatever a guest does to its partition, it can be saved and gone on with. */
static void must_load(struct fake *fake, uint64_t features)
{
	static uint8_t saved[SAVED_BYTES];
	struct archive a = archive_save_to(saved, sizeof(saved));
	struct fake other;

	hv_archive(&a, fake->partition);
	if (a.error)
		abort();
	a = archive_load_from(saved, a.used);
	fake_init(&other, features);
	hv_archive(&a, other.partition);
	if (!archive_check_end(&a))
		abort();
	hv_restored(other.partition);
	fake_destroy(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct fake fake;
	bool timers;
	uint64_t features =
		bytes && data[0] & 1 ? ~0ull >> (64 - HV_FEATURES) : hv_default_features();

	fake_init(&fake, features);
	hv_msr_write(hv_partition_cpu(fake.partition, 0), 0x40000000, 0x8100, &timers);
	hv_msr_write(hv_partition_cpu(fake.partition, 0), 0x40000001, 0x5001, &timers);
	if (bytes && data[0] & 2)
		fake_call(&fake, 0, 0xc000 | 1 << 16, 0xffffffff, 0);
	for (size_t at = 1; at + sizeof(struct act) <= bytes;) {
		struct act a;

		memcpy(&a, data + at, sizeof(a));
		at += sizeof(a);
		act(&fake, &a, data + at, bytes - at);
		if ((a.kind % 8) == 3)
			at += bytes - at < 64 ? bytes - at : 64;
	}
	must_load(&fake, features);
	hv_work_cancel_all(fake.partition);
	fake_destroy(&fake);
	return 0;
}

/* Which bits of byte i of an act may be set: few places, and flags that are rare. */
static uint64_t sparse(size_t i, uint64_t random)
{
	if (i == offsetof(struct act, where))
		return 0x77;
	return i == offsetof(struct act, flags) ? random >> 8 & random >> 16 : ~0ull;
}

/*
 * Half of them a ring with a few requests, a packet and a flush list, in order; the others acts at
 * random.
 */
size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static const struct act acts[] = {
		{ .kind = 3 },
		{ .kind = 6, .code = 20 },
		{ .kind = 3, .where = 4 },
		{ .kind = 6, .cpu = 1, .code = 22, .flags = 2 },
		{ .kind = 4 },
		{ .kind = 6, .code = 16, .where = 0x10 },
		{ .kind = 6, .cpu = 2, .code = 9 },
		{ .kind = 6, .cpu = 3, .code = 5, .where = 0x10, .flags = 8, .count = 3 },
		{ .kind = 2, .code = 4, .where = 3 },
		{ .kind = 5, .a = 1000 },
	};
	static const uint32_t ring[6] = { 0, 2, 0x40000, 0, 2, 0 };
	static const uint32_t tail[16] = { 1 };
	static uint64_t random = 88172645463325252ull;
	size_t used = 1;

	data[0] = (uint8_t)(2 | (n >> 1 & 1));
	for (unsigned k = 0; k < 60; k++) {
		struct act a = acts[(k + (n >> 2)) % 10];

		for (size_t i = 0; n & 1 && i < sizeof(a); i++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			((uint8_t *)&a)[i] = (uint8_t)(random & sparse(i, random));
		}
		memcpy(data + used, &a, sizeof(a));
		used += sizeof(a);
		if (a.kind % 8 == 3) {
			memset(data + used, 0, 64);
			memcpy(data + used, a.where & 4 ? (const void *)tail : (const void *)ring,
			       a.where & 4 ? 64 : 24);
			used += 64;
		}
	}
	return used;
}
