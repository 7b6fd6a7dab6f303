/*
 * Parts of saved machines: the first byte says which. What loads is used as a machine would use it,
 * is saved again, and that has to load, and to be the same bytes when it is saved once more.
 */
#include "chipset/chipset.h"
#include "lib/archive.h"
#include "memory/memory.h"
#include "x86/apic.h"
#include "x86/cpu_model.h"
#include "../hv/fake_host.h"
#include "fuzz.h"

enum kind { KIND_HV, KIND_APIC, KIND_CHIPSET, KIND_STATE, KINDS };
enum { NOW_NS = 1000000000, HYPERCALL_GPA = 0x7000, RING_GPA = 0x20000, INPUT_GPA = 0x10000 };

/* ---- objects, as they are in a machine that has run for a while ---- */

static void nothing(void *context, void *owner, uint32_t low, uint32_t destination)
{
	(void)context;
	(void)owner;
	(void)low;
	(void)destination;
}
static void raise_nothing(void *context, uint32_t low, uint32_t destination)
{
	(void)context;
	(void)low;
	(void)destination;
}
static void print_nothing(void *context, uint8_t byte)
{
	(void)context;
	(void)byte;
}
static void end_nothing(void *context) { (void)context; }
static uint64_t some_time(void *context) { (void)context; return 123456789; }

static void end_no_level(void *context, uint8_t vector)
{
	(void)context;
	(void)vector;
}

static const struct apic_host apic_host = { .send = nothing, .end_of_level = end_no_level };
static const struct chipset_host chipset_host = { .raise = raise_nothing,
						  .console = print_nothing,
						  .power_off = end_nothing,
						  .reset = end_nothing,
						  .now_100ns = some_time };

static void set(struct fake *fake, unsigned cpu, uint32_t msr, uint64_t value)
{
	bool timers;

	hv_msr_write(hv_partition_cpu(fake->partition, cpu), msr, value, &timers);
}

static uint64_t call(struct fake *fake, unsigned cpu, uint64_t control, uint64_t input,
		     uint64_t output)
{
	struct x86_state *state = &fake->state[cpu];

	state->gpr[1] = control;
	state->gpr[2] = input;
	state->gpr[8] = output;
	while (fake_hypercall(fake, cpu, true) == ENGINE_CALL_AGAIN)
		;
	return state->gpr[0];
}

static void input(struct fake *fake, const uint64_t *words, unsigned count)
{
	guest_memory_write(&fake->memory, INPUT_GPA, words, 8 * count);
}

/* Rings with work under way, packets, messages that wait for room, timers, pages everywhere. */
static void live(struct fake *fake, unsigned n)
{
	set(fake, 0, 0x40000000, 1);
	set(fake, 0, 0x40000001, HYPERCALL_GPA | 1);
	set(fake, 0, 0x40000021, n & 1 ? 0x9001 : 0);
	call(fake, 0, 0xc000 | 1 << 16, n & 2 ? 0xffffffff : 0x10000ull << 32 | 0x10000, 0);
	for (unsigned cpu = 0; cpu < 1 + n % FAKE_CPUS; cpu++) {
		set(fake, cpu, 0x40000073, 0xa001 + GUEST_PAGE_BYTES * cpu);
		set(fake, cpu, 0x40000082, 0x30001 + GUEST_PAGE_BYTES * cpu);
		set(fake, cpu, 0x40000083, 0x38001 + GUEST_PAGE_BYTES * cpu);
		set(fake, cpu, 0x40000080, 1);
		set(fake, cpu, 0x40000095, 0x51);
		set(fake, cpu, 0x400000b0, n & 4 ? 1 << 12 | 8 | 0x50 << 4 : 5 << 16 | 3);
		set(fake, cpu, 0x400000b1, 1000 + n);
	}
	input(fake, (uint64_t[]){ 1 | 16ull << 32, RING_GPA, 5 }, 3);
	call(fake, 0, 0xc010, INPUT_GPA, 0);
	for (unsigned k = 0; k < n % 30; k++) {
		input(fake, (uint64_t[]){ 0x554d01, 1 | 48ull << 32, 100 + k, 0, 0, 0, 0, 5 }, 8);
		call(fake, 0, 0x5c, INPUT_GPA, 0);
		if (k & 1)
			hv_work_step(fake->partition);
	}
	for (uint64_t k = 0; k < n % 8; k++) {
		const uint64_t request[8] = { 500 + k, 0xc001, 5, 0, GUEST_PAGE_BYTES };

		guest_memory_write(&fake->memory, RING_GPA + GUEST_PAGE_BYTES + 64 * k, request,
				   sizeof(request));
	}
	guest_memory_write(&fake->memory, RING_GPA, &(uint32_t){ n % 8 }, 4);
	call(fake, 0, 0xc012 | 1 << 16, 1, 0);
}

static void use(struct fake *fake)
{
	uint64_t value;

	hv_restored(fake->partition);
	for (unsigned cpu = 0; cpu < FAKE_CPUS; cpu++) {
		for (uint32_t msr = 0x40000000; msr < 0x40000120; msr++)
			hv_msr_read(hv_partition_cpu(fake->partition, cpu), msr, &value);
		hv_run_timers(hv_partition_cpu(fake->partition, cpu));
		set(fake, cpu, 0x40000084, 0);
	}
	for (uint64_t ring = 0; ring < 8; ring++)
		call(fake, 1, 0xc012 | 1 << 16, ring, 0);
	for (uint64_t ring = 0; ring < 8; ring++)
		call(fake, 1, 0xc011 | 1 << 16, ring, 0);
	call(fake, 0, 0xc001, INPUT_GPA, INPUT_GPA + 64);
	while (hv_work_step(fake->partition))
		;
}

/* ---- one part, loaded and used ---- */

union part {
	struct fake fake;
	struct apic apic;
	struct chipset chipset;
	struct x86_state state;
};

static void begin(enum kind kind, union part *part)
{
	switch (kind) {
	case KIND_HV: fake_init(&part->fake, hv_default_features()); break;
	case KIND_APIC: apic_reset(&part->apic, &apic_host, NULL, 1, false); break;
	case KIND_CHIPSET: chipset_init(&part->chipset, &chipset_host); break;
	default: memset(&part->state, 0, sizeof(part->state)); part->state.xcr0 = 1; break;
	}
}

static void archive(enum kind kind, union part *part, struct archive *a)
{
	switch (kind) {
	case KIND_HV: hv_archive(a, part->fake.partition); break;
	case KIND_APIC: apic_archive(a, &part->apic, NOW_NS); break;
	case KIND_CHIPSET: chipset_archive(a, &part->chipset); break;
	default: x86_state_archive(a, &part->state); break;
	}
}

static void use_part(enum kind kind, union part *part)
{
	uint64_t value;

	switch (kind) {
	case KIND_HV: use(&part->fake); break;
	case KIND_APIC:
		for (uint32_t reg = 0; reg < 0x40; reg++)
			apic_read(&part->apic, reg, NOW_NS, &value);
		apic_run_timer(&part->apic, NOW_NS * 2);
		while (apic_take(&part->apic) >= 0)
			apic_write(&part->apic, 0x0b, 0, NOW_NS);
		break;
	case KIND_CHIPSET:
		for (unsigned port = 0; port < 0x500; port++)
			chipset_port_read(&part->chipset, (uint16_t)port, 1);
		for (unsigned n = 0; n < 2 * UART_FIFO_BYTES; n++)
			chipset_input(&part->chipset, 'x'),
				chipset_port_read(&part->chipset, 0x3f8, 1);
		chipset_ioapic_read(&part->chipset, 0x10);
		break;
	default: break;
	}
}

static void end(enum kind kind, union part *part)
{
	if (kind == KIND_HV)
		fake_destroy(&part->fake);
}

static size_t save(enum kind kind, union part *part, uint8_t *to)
{
	struct archive a = archive_save_to(to, FUZZ_MAX_BYTES);

	archive(kind, part, &a);
	if (a.error)
		abort();
	return a.used;
}

/* Whether it loads; and if it does, what it is when it is saved at once. */
static bool load(enum kind kind, const uint8_t *data, size_t bytes, union part *part,
		 uint8_t *again, size_t *ret_bytes)
{
	struct archive a = archive_load_from(data, bytes);

	begin(kind, part);
	archive(kind, part, &a);
	archive_check_end(&a);
	if (!a.error)
		*ret_bytes = save(kind, part, again);
	return !a.error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static uint8_t first[FUZZ_MAX_BYTES], second[FUZZ_MAX_BYTES];
	static union part part;
	size_t first_bytes = 0;
	size_t second_bytes = 0;
	/* of just that length, so that a read behind it is noticed */
	uint8_t *exact = malloc(bytes);
	enum kind kind = bytes ? data[0] % KINDS : 0;
	bool good;

	if (!bytes) {
		free(exact);
		return 0;
	}
	memcpy(exact, data + 1, bytes - 1);
	good = load(kind, exact, bytes - 1, &part, first, &first_bytes);
	if (good)
		use_part(kind, &part);
	end(kind, &part);
	if (good) {
		if (!load(kind, first, first_bytes, &part, second, &second_bytes) ||
		    first_bytes != second_bytes || memcmp(first, second, first_bytes))
			abort();
		end(kind, &part);
	}
	free(exact);
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static uint8_t again[FUZZ_MAX_BYTES];
	static union part part;
	size_t again_bytes;
	enum kind kind = n % 2 ? KIND_HV : (enum kind)(n / 2 % KINDS);
	size_t bytes;

	begin(kind, &part);
	if (kind == KIND_HV) {
		live(&part.fake, n);
	} else if (kind == KIND_APIC) {
		apic_write(&part.apic, 0x32, 0x20040 | n << 17, NOW_NS);
		apic_write(&part.apic, 0x38, 1000 * n, NOW_NS);
		apic_write(&part.apic, 0x0f, 0x1ff, NOW_NS);
		apic_raise(&part.apic, (uint8_t)(n + 32), n & 8);
	}
	data[0] = (uint8_t)kind;
	bytes = save(kind, &part, data + 1);
	end(kind, &part);
	/* else nothing would be tested */
	if (!load(kind, data + 1, bytes, &part, again, &again_bytes))
		abort();
	end(kind, &part);
	return bytes + 1;
}
