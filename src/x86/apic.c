/*
 * See apic.h. Left out: logical destinations of lowest priority (the first one takes it), errors of
 * the APIC's own (ESR stays 0), and the LVT entry of machine checks, which the version register
 * does not offer.
 */
#include "apic.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/archive.h"
#include "lib/check.h"
#include "lib/speculation.h"
#include "state.h"

enum {
	REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_PPR = 0x0a, REG_EOI = 0x0b,
	REG_LDR = 0x0d, REG_DFR = 0x0e, REG_SVR = 0x0f,
	REG_ISR = 0x10, REG_TMR = 0x18, REG_IRR = 0x20, REG_ESR = 0x28, REG_ICR = 0x30,
	REG_ICR_HIGH = 0x31, REG_LVT_FIRST = 0x32,
	REG_LVT_LAST = 0x37, REG_INITIAL_COUNT = 0x38, REG_CURRENT_COUNT = 0x39, REG_DIVIDE = 0x3e,
	REG_SELF_IPI = 0x3f,
};
enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR };
enum {
	LVT_MASKED = 1 << 16, TIMER_PERIODIC = 1 << 17, TIMER_TSC_DEADLINE = 2 << 17,
	LVT_READ_ONLY = 1 << 12 | 1 << 14, LVT_MODE = 7 << 8, LVT_NMI = 4 << 8,
	LVT_EXTERNAL = 7 << 8
};
enum {
	LVT_TIMER_BITS = 0x710ff, LVT_BITS = 0x1f7ff, SVR_ON = 0x100, SVR_BITS = 0x1ff,
	TPR_BITS = 0xff, DIVIDE_BITS = 0xb
};
/*
 * Max LVT entry 5, version 0x14. ICR: delivery status is read only, the rest below 19:18 reserved.
 */
enum {
	VERSION = 0x50014, ICR_STATUS = 1 << 12, ICR_RESERVED_X2 = (int)0xfff32000, DFR_FLAT = 0xf,
	DFR_RESERVED = 0x0fffffff
};
enum {
	BASE_BOOT = 0x100, BASE_RESERVED = 0x2ff, MODE_SHIFT = 10, MODE_MASK = 3,
	BROADCAST_8 = 0xff, XAPIC_ID_SHIFT = 24
};
#define BASE_RESET 0xfee00800ull
#define NS_PER_TICK (1000000000ull / APIC_TIMER_HZ)

static const unsigned may_become[APIC_MODES] = {
	[APIC_OFF] = 1 << APIC_OFF | 1 << APIC_XAPIC,
	[APIC_XAPIC] = 1 << APIC_OFF | 1 << APIC_XAPIC | 1 << APIC_X2APIC,
	[APIC_X2APIC] = 1 << APIC_OFF | 1 << APIC_X2APIC,
};

/* ---- modes ---- */

static enum apic_mode mode_of(uint64_t base)
{
	return (enum apic_mode)(base >> MODE_SHIFT & MODE_MASK);
}
enum apic_mode apic_mode(const struct apic *apic) { return mode_of(apic->base); }
bool apic_is_x2(const struct apic *apic) { return apic_mode(apic) == APIC_X2APIC; }
static bool is_on(const struct apic *apic)
{
	return apic_mode(apic) != APIC_OFF && apic->svr & SVR_ON;
}

void check_apic(const struct apic *apic)
{
	assert(apic_mode(apic) != APIC_INVALID && apic_mode(apic) < APIC_MODES);
	assert(apic->tpr <= TPR_BITS && apic->svr <= SVR_BITS &&
	       !(apic->divide & ~(uint32_t)DIVIDE_BITS));
}

/* What a reset makes of all but the base, the identifier and the task priority. */
static void reset_registers(struct apic *apic)
{
	struct apic fresh = {
		.host = apic->host, .owner = apic->owner, .base = apic->base, .id = apic->id,
		.xapic_id = apic->id, .tpr = apic->tpr, .dfr = ~0u, .svr = 0xff,
	};

	for (int n = 0; n < APIC_LVTS; n++)
		fresh.lvt[n] = LVT_MASKED;
	*apic = fresh;
}

void apic_reset(struct apic *apic, const struct apic_host *host, void *owner, uint32_t id,
		bool boot_processor)
{
	assert(host->send && host->end_of_level);
	*apic = (struct apic){ .host = host,
			       .owner = owner,
			       .id = id,
			       .base = BASE_RESET | (boot_processor ? BASE_BOOT : 0) };
	reset_registers(apic);
}

int apic_set_base(struct apic *apic, uint64_t base, bool x2apic)
{
	enum apic_mode from = apic_mode(apic);
	enum apic_mode to = mode_of(base);

	if (base >> X86_PHYSICAL_BITS || base & (BASE_RESERVED & ~(uint64_t)BASE_BOOT))
		return -EINVAL;
	if (!(may_become[from] >> to & 1) || (to == APIC_X2APIC && !x2apic))
		return -EINVAL;
	apic->base = (base & ~(uint64_t)BASE_BOOT) | (apic->base & BASE_BOOT);
	if (from == APIC_X2APIC && to == APIC_OFF)
		reset_registers(apic); /* SDM Vol. 3A 11.12.5.1: nothing but the identifier stays */
	if (to != APIC_XAPIC)
		apic->xapic_id = apic->id;
	CHECK(check_apic(apic));
	return 0;
}

/* ---- requests and priorities ---- */

static int highest(const uint32_t bits[APIC_VECTOR_WORDS])
{
	for (int n = APIC_VECTOR_WORDS - 1; n >= 0; n--)
		if (bits[n])
			return n * 32 + 31 - __builtin_clz(bits[n]);
	return -1;
}

static uint32_t bit_of(unsigned vector) { return 1u << (vector & 31); }
static unsigned word_of(unsigned vector) { return vector >> 5; }

void apic_raise(struct apic *apic, uint8_t vector, bool level)
{
	uint32_t *tmr = &apic->tmr[word_of(vector)];

	if (!is_on(apic))
		return;
	apic->irr[word_of(vector)] |= bit_of(vector);
	*tmr = level ? *tmr | bit_of(vector) : *tmr & ~bit_of(vector);
}

void apic_set_virtual_wire(struct apic *apic)
{
	apic->svr |= SVR_ON;
	apic->lvt[LVT_LINT0] = LVT_EXTERNAL;
	apic->lvt[LVT_LINT1] = LVT_NMI;
}

bool apic_takes_external(const struct apic *apic)
{
	uint32_t entry = apic->lvt[LVT_LINT0];

	return apic_mode(apic) == APIC_OFF || (entry & (LVT_MASKED | LVT_MODE)) == LVT_EXTERNAL;
}

static int deliverable(const struct apic *apic)
{
	int requested = highest(apic->irr);
	int in_service = highest(apic->isr);

	if (requested < 0 || !is_on(apic))
		return -1;
	if (in_service >= 0 && requested >> 4 <= in_service >> 4)
		return -1;
	return (uint32_t)requested >> 4 <= apic->tpr >> 4 ? -1 : requested;
}

bool apic_has_interrupt(const struct apic *apic) { return deliverable(apic) >= 0; }

int apic_take(struct apic *apic)
{
	int vector = deliverable(apic);

	if (vector >= 0) {
		apic->irr[word_of((unsigned)vector)] &= ~bit_of((unsigned)vector);
		apic->isr[word_of((unsigned)vector)] |=
			bit_of((unsigned)vector) & ~apic->auto_eoi[word_of((unsigned)vector)];
	}
	return vector;
}

void apic_set_auto_eoi(struct apic *apic, uint8_t vector, bool on)
{
	uint32_t *bits = &apic->auto_eoi[word_of(vector)];

	*bits = on ? *bits | bit_of(vector) : *bits & ~bit_of(vector);
}

static void end_of_interrupt(struct apic *apic)
{
	int vector = highest(apic->isr);

	if (vector < 0)
		return;
	apic->isr[word_of((unsigned)vector)] &= ~bit_of((unsigned)vector);
	if (apic->tmr[word_of((unsigned)vector)] & bit_of((unsigned)vector))
		apic->host->end_of_level(apic->host->context, (uint8_t)vector);
}

/* ---- timer ---- */

static unsigned divisor(const struct apic *apic)
{
	unsigned code = (apic->divide & 3) | (apic->divide >> 1 & 4);

	return code == 7 ? 1 : 2u << code;
}

static uint64_t count_ns(const struct apic *apic)
{
	return (uint64_t)apic->initial_count * divisor(apic) * NS_PER_TICK;
}
static bool counts(const struct apic *apic) { return !(apic->lvt[LVT_TIMER] & TIMER_TSC_DEADLINE); }

static void arm_timer(struct apic *apic, uint64_t now_ns)
{
	apic->timer_deadline_ns = apic->initial_count && counts(apic) ? now_ns + count_ns(apic) : 0;
}

uint64_t apic_run_timer(struct apic *apic, uint64_t now_ns)
{
	if (apic->timer_deadline_ns && now_ns >= apic->timer_deadline_ns) {
		if (!(apic->lvt[LVT_TIMER] & LVT_MASKED))
			apic_raise(apic, (uint8_t)apic->lvt[LVT_TIMER], false);
		if (apic->lvt[LVT_TIMER] & TIMER_PERIODIC && count_ns(apic)) {
			apic->timer_deadline_ns += count_ns(apic);
			if (apic->timer_deadline_ns <= now_ns)
				apic->timer_deadline_ns = now_ns + count_ns(apic);
		} else {
			apic->timer_deadline_ns = 0;
			apic->tsc_deadline = 0;
		}
	}
	return apic->timer_deadline_ns ? apic->timer_deadline_ns : UINT64_MAX;
}

void apic_stood(struct apic *apic, uint64_t ns)
{
	if (apic->timer_deadline_ns)
		apic->timer_deadline_ns += ns;
}

static uint32_t current_count(const struct apic *apic, uint64_t now_ns)
{
	if (!apic->timer_deadline_ns || !counts(apic) || now_ns >= apic->timer_deadline_ns)
		return 0;
	return (uint32_t)((apic->timer_deadline_ns - now_ns) / NS_PER_TICK / divisor(apic));
}

/* ---- registers: reading ---- */

static uint32_t processor_priority(const struct apic *apic)
{
	int vector = highest(apic->isr);
	uint32_t in_service = vector < 0 ? 0 : (uint32_t)vector & 0xf0;

	return (apic->tpr & 0xf0) >= in_service ? apic->tpr : in_service;
}

static uint32_t logical_id_x2(const struct apic *apic)
{
	return (apic->id >> 4 << 16) | 1u << (apic->id & 15);
}

static int read_vectors(const uint32_t bits[APIC_VECTOR_WORDS], uint32_t word, uint64_t *ret)
{
	*ret = bits[speculation_bound(word, APIC_VECTOR_WORDS)];
	return 0;
}

static uint32_t *lvt_of(struct apic *apic, uint32_t reg)
{
	return &apic->lvt[speculation_bound(reg - REG_LVT_FIRST, APIC_LVTS)];
}

int apic_read(struct apic *apic, uint32_t reg, uint64_t now_ns, uint64_t *ret)
{
	bool x2 = apic_is_x2(apic);

	*ret = 0;
	if (reg >= REG_ISR && reg < REG_TMR)
		return read_vectors(apic->isr, reg - REG_ISR, ret);
	if (reg >= REG_TMR && reg < REG_IRR)
		return read_vectors(apic->tmr, reg - REG_TMR, ret);
	if (reg >= REG_IRR && reg < REG_ESR)
		return read_vectors(apic->irr, reg - REG_IRR, ret);
	switch (reg) {
	case REG_ID: *ret = x2 ? apic->id : apic->xapic_id << XAPIC_ID_SHIFT; return 0;
	case REG_VERSION: *ret = VERSION; return 0;
	case REG_TPR: *ret = apic->tpr; return 0;
	case REG_PPR: *ret = processor_priority(apic); return 0;
	case REG_LDR: *ret = x2 ? logical_id_x2(apic) : apic->ldr; return 0;
	case REG_DFR: *ret = apic->dfr; return x2 ? -EINVAL : 0;
	case REG_SVR: *ret = apic->svr; return 0;
	case REG_ESR: *ret = apic->esr; return 0;
	case REG_ICR: *ret = apic->icr_low | (x2 ? (uint64_t)apic->icr_high << 32 : 0); return 0;
	case REG_ICR_HIGH: *ret = apic->icr_high; return x2 ? -EINVAL : 0;
	case REG_LVT_FIRST ... REG_LVT_LAST: *ret = *lvt_of(apic, reg); return 0;
	case REG_INITIAL_COUNT: *ret = apic->initial_count; return 0;
	case REG_CURRENT_COUNT: *ret = current_count(apic, now_ns); return 0;
	case REG_DIVIDE: *ret = apic->divide; return 0;
	default: return -EINVAL;
	}
}

bool apic_is_destination(const struct apic *apic, bool logical, uint32_t destination)
{
	bool x2 = apic_is_x2(apic);

	if (apic_mode(apic) == APIC_OFF)
		return false;
	if (destination == ~0u || (!x2 && (destination & BROADCAST_8) == BROADCAST_8))
		return true;
	if (!logical)
		return destination == (x2 ? apic->id : apic->xapic_id);
	if (x2)
		return destination >> 16 == apic->id >> 4 && destination >> (apic->id & 15) & 1;
	if (apic->dfr >> 28 == DFR_FLAT)
		return apic->ldr >> 24 & destination;
	return apic->ldr >> 28 == destination >> 4 && apic->ldr >> 24 & 15 & destination;
}

/* ---- registers: writing ---- */

static uint32_t lvt_bits(uint32_t reg)
{
	return reg == REG_LVT_FIRST + LVT_TIMER ? LVT_TIMER_BITS : LVT_BITS;
}

/* What x2APIC mode refuses; in xAPIC mode such bits are ignored (SDM Vol. 3A 11.12.1.2). */
static bool has_reserved_bits(uint32_t reg, uint64_t value)
{
	if (reg == REG_ID)
		return true;
	if (reg == REG_ICR)
		return value & (uint32_t)ICR_RESERVED_X2;
	if (value >> 32)
		return true;
	switch (reg) {
	case REG_TPR: case REG_SELF_IPI: return value & ~(uint64_t)TPR_BITS;
	case REG_EOI: case REG_ESR: return value;
	case REG_LDR: case REG_DFR: case REG_ICR_HIGH: return true;
	case REG_SVR: return value & ~(uint64_t)SVR_BITS;
	case REG_LVT_FIRST ... REG_LVT_LAST: return value & ~(uint64_t)lvt_bits(reg);
	case REG_DIVIDE: return value & ~(uint64_t)DIVIDE_BITS;
	default: return false;
	}
}

/* By software off: every entry of the local vector table is masked (SDM Vol. 3A 11.4.7.2). */
static void write_svr(struct apic *apic, uint32_t value)
{
	apic->svr = value & SVR_BITS;
	if (apic->svr & SVR_ON)
		return;
	for (int n = 0; n < APIC_LVTS; n++)
		apic->lvt[n] |= LVT_MASKED;
}

static void write_icr(struct apic *apic, uint64_t value)
{
	bool x2 = apic_is_x2(apic);
	uint32_t destination;

	apic->icr_low = (uint32_t)value & ~(uint32_t)ICR_STATUS;
	if (x2)
		apic->icr_high = (uint32_t)(value >> 32);
	destination = x2 ? apic->icr_high : apic->icr_high >> 24;
	apic->host->send(apic->host->context, apic->owner, apic->icr_low, destination);
}

static void write_lvt(struct apic *apic, uint32_t reg, uint32_t value)
{
	uint32_t *entry = lvt_of(apic, reg);

	*entry = (value & lvt_bits(reg) & ~(uint32_t)LVT_READ_ONLY) |
		 (apic->svr & SVR_ON ? 0 : LVT_MASKED);
	if (reg == REG_LVT_FIRST + LVT_TIMER && !counts(apic))
		apic->timer_deadline_ns = 0;
}

int apic_write(struct apic *apic, uint32_t reg, uint64_t value, uint64_t now_ns)
{
	bool x2 = apic_is_x2(apic);

	if (x2 && has_reserved_bits(reg, value))
		return -EINVAL;
	switch (reg) {
	case REG_ID:
		apic->xapic_id = (uint32_t)value >> XAPIC_ID_SHIFT;
		return 0;
	case REG_TPR: apic->tpr = value & TPR_BITS; return 0;
	case REG_EOI: end_of_interrupt(apic); return 0;
	case REG_LDR: apic->ldr = (uint32_t)value & 0xff000000; return 0;
	case REG_DFR: apic->dfr = (uint32_t)value | DFR_RESERVED; return 0;
	case REG_SVR: write_svr(apic, (uint32_t)value); return 0;
	case REG_ESR: apic->esr = 0; return 0;
	case REG_ICR: write_icr(apic, value); return 0;
	case REG_ICR_HIGH: apic->icr_high = (uint32_t)value; return 0;
	case REG_LVT_FIRST ... REG_LVT_LAST: write_lvt(apic, reg, (uint32_t)value); return 0;
	case REG_INITIAL_COUNT:
		apic->initial_count = (uint32_t)value;
		arm_timer(apic, now_ns);
		return 0;
	case REG_DIVIDE: apic->divide = value & DIVIDE_BITS; return 0;
	case REG_SELF_IPI:
		if (x2)
			apic_raise(apic, (uint8_t)value, false);
		return x2 ? 0 : -EINVAL;
	default: return -EINVAL;
	}
}

/* ---- saved state ---- */

/* The longest that a one-shot of 32 bits at the largest divisor takes. */
#define LONGEST_NS ((uint64_t)UINT32_MAX * 128 * NS_PER_TICK)

static uint64_t timer_left_ns(const struct apic *apic, uint64_t now_ns)
{
	if (!apic->timer_deadline_ns)
		return 0;
	return apic->timer_deadline_ns > now_ns ? apic->timer_deadline_ns - now_ns : 1;
}

void apic_archive(struct archive *archive, struct apic *apic, uint64_t now_ns)
{
	uint32_t *const registers[] = {
		&apic->tpr,     &apic->ldr,      &apic->dfr,    &apic->svr,           &apic->esr,
		&apic->icr_low, &apic->icr_high, &apic->divide, &apic->initial_count,
	};
	uint64_t left_ns = timer_left_ns(apic, now_ns);

	archive_u64(archive, &apic->base);
	for (unsigned n = 0; n < sizeof(registers) / sizeof(registers[0]); n++)
		archive_u32(archive, registers[n]);
	archive_u32s(archive, apic->lvt, APIC_LVTS);
	archive_u32s(archive, apic->irr, APIC_VECTOR_WORDS);
	archive_u32s(archive, apic->isr, APIC_VECTOR_WORDS);
	archive_u32s(archive, apic->tmr, APIC_VECTOR_WORDS);
	archive_u32s(archive, apic->auto_eoi, APIC_VECTOR_WORDS);
	archive_u64(archive, &left_ns);
	archive_u64(archive, &apic->tsc_deadline);
	if (archive->error || !archive->loading)
		return;
	archive_check(archive, !(apic->base & (BASE_RESERVED & ~(uint64_t)BASE_BOOT)) &&
				       !(apic->base >> X86_PHYSICAL_BITS));
	archive_check(archive, apic_mode(apic) != APIC_INVALID &&
				       !(apic->base & BASE_BOOT) == (apic->id != 0));
	archive_check(archive, apic->tpr <= TPR_BITS && apic->svr <= SVR_BITS &&
				       !(apic->divide & ~(uint32_t)DIVIDE_BITS));
	if (archive_check(archive, left_ns <= LONGEST_NS))
		apic->timer_deadline_ns = left_ns ? now_ns + left_ns : 0;
}

void apic_archive_2(struct archive *archive, struct apic *apic)
{
	archive_u32(archive, &apic->xapic_id);
	archive_check(archive, apic->xapic_id <= BROADCAST_8);
}
