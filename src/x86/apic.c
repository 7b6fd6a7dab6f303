/*
 * The local APIC (SDM Vol. 3A chapter 11). Used under the machine's lock. Interprocessor interrupts go to the host's
 * table, which finds their targets by apic_is_destination().
 */
#include "apic.h"

#include <errno.h>
#include <string.h>

#include "lib/archive.h"

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_CMCI };
enum { LVT_MASKED = 1 << 16, TIMER_PERIODIC = 1 << 17, TIMER_TSC_DEADLINE = 2 << 17 };

enum { BASE_X2APIC = 0x400, BASE_ON = 0x800, BASE_BITS = 0xd00 };

void apic_reset(struct apic *a, const struct apic_host *host, void *owner, uint32_t id, bool boot_processor)
{
	memset(a, 0, sizeof(*a));
	a->host = host;
	a->owner = owner;
	a->id = id;
	a->base = 0xfee00800ull | (boot_processor ? 0x100 : 0);
	a->dfr = ~0u;
	a->svr = 0xff;
	for (int n = 0; n < 7; n++)
		a->lvt[n] = LVT_MASKED;
}

static int highest(const uint32_t bits[8])
{
	for (int n = 7; n >= 0; n--)
		if (bits[n])
			return n * 32 + 31 - __builtin_clz(bits[n]);
	return -1;
}

void apic_raise(struct apic *a, uint8_t vector) { a->irr[vector >> 5] |= 1u << (vector & 31); }

static int deliverable(const struct apic *a)
{
	int irr = highest(a->irr), isr = highest(a->isr);

	if (irr < 0 || !(a->svr & 0x100) || (irr >> 4) <= (isr < 0 ? 0 : isr >> 4) || (unsigned)(irr >> 4) <= a->tpr >> 4)
		return -1;
	return irr;
}

bool apic_has_interrupt(const struct apic *a) { return deliverable(a) >= 0; }

int apic_take(struct apic *a)
{
	int vector = deliverable(a);

	if (vector >= 0) {
		a->irr[vector >> 5] &= ~(1u << (vector & 31));
		a->isr[vector >> 5] |= 1u << (vector & 31) & ~a->auto_eoi[vector >> 5];
	}
	return vector;
}

void apic_set_auto_eoi(struct apic *a, uint8_t vector, bool on)
{
	uint32_t bit = 1u << (vector & 31);

	a->auto_eoi[vector >> 5] = on ? a->auto_eoi[vector >> 5] | bit : a->auto_eoi[vector >> 5] & ~bit;
}

bool apic_is_x2(const struct apic *a) { return a->base & BASE_X2APIC; }

static unsigned divisor(const struct apic *a)
{
	unsigned code = (a->divide & 3) | (a->divide >> 1 & 4);

	return code == 7 ? 1 : 2u << code;
}

static uint64_t count_ns(const struct apic *a) { return (uint64_t)a->initial_count * divisor(a) * (1000000000ull / APIC_TIMER_HZ); }

static void arm(struct apic *a, uint64_t now_ns)
{
	a->timer_deadline_ns = a->initial_count && !(a->lvt[LVT_TIMER] & TIMER_TSC_DEADLINE) ? now_ns + count_ns(a) : 0;
}

uint64_t apic_run_timer(struct apic *a, uint64_t now_ns)
{
	if (a->timer_deadline_ns && now_ns >= a->timer_deadline_ns) {
		if (!(a->lvt[LVT_TIMER] & LVT_MASKED))
			apic_raise(a, (uint8_t)a->lvt[LVT_TIMER]);
		if (a->lvt[LVT_TIMER] & TIMER_PERIODIC && count_ns(a)) {
			a->timer_deadline_ns += count_ns(a);
			if (a->timer_deadline_ns <= now_ns)
				a->timer_deadline_ns = now_ns + count_ns(a);
		} else {
			a->timer_deadline_ns = 0;
			a->tsc_deadline = 0;
		}
	}
	return a->timer_deadline_ns ? a->timer_deadline_ns : UINT64_MAX;
}

static uint32_t current_count(const struct apic *a, uint64_t now_ns)
{
	uint64_t left;

	if (!a->timer_deadline_ns || a->lvt[LVT_TIMER] & TIMER_TSC_DEADLINE || now_ns >= a->timer_deadline_ns)
		return 0;
	left = (a->timer_deadline_ns - now_ns) / (1000000000ull / APIC_TIMER_HZ) / divisor(a);
	return (uint32_t)left;
}

int apic_read(struct apic *a, uint32_t reg, uint64_t now_ns, uint64_t *ret)
{
	bool x2 = a->base & 0x400;

	*ret = 0;
	if (reg >= 0x10 && reg <= 0x17)
		return *ret = a->isr[reg - 0x10], 0;
	if (reg >= 0x18 && reg <= 0x1f)
		return *ret = a->tmr[reg - 0x18], 0;
	if (reg >= 0x20 && reg <= 0x27)
		return *ret = a->irr[reg - 0x20], 0;
	switch (reg) {
	case 0x02: *ret = x2 ? a->id : a->id << 24; return 0;
	case 0x03: *ret = 0x50014 | 0; return 0;
	case 0x08: *ret = a->tpr; return 0;
	case 0x0a: {
		int isr = highest(a->isr);
		uint32_t in_service = isr < 0 ? 0 : (uint32_t)isr & 0xf0;

		*ret = (a->tpr & 0xf0) >= in_service ? a->tpr : in_service;
		return 0;
	}
	case 0x0d: *ret = x2 ? (a->id >> 4 << 16) | 1u << (a->id & 15) : a->ldr; return 0;
	case 0x0e: *ret = a->dfr; return x2 ? -EINVAL : 0;
	case 0x0f: *ret = a->svr; return 0;
	case 0x28: *ret = a->esr; return 0;
	case 0x2f: *ret = a->lvt[LVT_CMCI]; return 0;
	case 0x30: *ret = a->icr_low | (x2 ? (uint64_t)a->icr_high << 32 : 0); return 0;
	case 0x31: *ret = a->icr_high; return x2 ? -EINVAL : 0;
	case 0x32: case 0x33: case 0x34: case 0x35: case 0x36: case 0x37: *ret = a->lvt[reg - 0x32]; return 0;
	case 0x38: *ret = a->initial_count; return 0;
	case 0x39: *ret = current_count(a, now_ns); return 0;
	case 0x3e: *ret = a->divide; return 0;
	default: return -EINVAL;
	}
}

static void end_of_interrupt(struct apic *a)
{
	int vector = highest(a->isr);

	if (vector >= 0)
		a->isr[vector >> 5] &= ~(1u << (vector & 31));
}

bool apic_is_destination(const struct apic *a, bool logical, uint32_t d)
{
	bool x2 = a->base & BASE_X2APIC;

	if (d == ~0u || (!x2 && (d & 0xff) == 0xff))
		return true;
	if (!logical)
		return d == a->id;
	if (x2)
		return d >> 16 == a->id >> 4 && d >> (a->id & 15) & 1;
	if (a->dfr >> 28 == 0xf)
		return a->ldr >> 24 & d;
	return a->ldr >> 28 == d >> 4 && a->ldr >> 24 & 15 & d;
}

static void command(struct apic *a, uint64_t value, bool x2)
{
	a->host->send(a->host->context, a->owner, (uint32_t)value, x2 ? (uint32_t)(value >> 32) : a->icr_high >> 24);
}

int apic_write(struct apic *a, uint32_t reg, uint64_t v, uint64_t now_ns)
{
	bool x2 = a->base & 0x400;

	switch (reg) {
	case 0x08: a->tpr = v & 0xff; return 0;
	case 0x0b: end_of_interrupt(a); return x2 && v ? -EINVAL : 0;
	case 0x0d: a->ldr = (uint32_t)v & 0xff000000; return x2 ? -EINVAL : 0;
	case 0x0e: a->dfr = (uint32_t)v | 0x0fffffff; return x2 ? -EINVAL : 0;
	case 0x0f: a->svr = v & 0x1ff; return 0;
	case 0x28: a->esr = 0; return 0;
	case 0x2f: a->lvt[LVT_CMCI] = (uint32_t)v; return 0;
	case 0x30:
		a->icr_low = (uint32_t)v & ~(1u << 12);
		if (x2)
			a->icr_high = (uint32_t)(v >> 32);
		command(a, v, x2);
		return 0;
	case 0x31: a->icr_high = (uint32_t)v; return x2 ? -EINVAL : 0;
	case 0x32:
		a->lvt[LVT_TIMER] = (uint32_t)v & 0x710ff;
		if (v & TIMER_TSC_DEADLINE)
			a->timer_deadline_ns = 0;
		return 0;
	case 0x33: case 0x34: case 0x35: case 0x36: case 0x37: a->lvt[reg - 0x32] = (uint32_t)v & 0x1f7ff; return 0;
	case 0x38: a->initial_count = (uint32_t)v; arm(a, now_ns); return 0;
	case 0x3e: a->divide = v & 0xb; return 0;
	case 0x3f: apic_raise(a, (uint8_t)v); return x2 ? 0 : -EINVAL;
	default: return -EINVAL;
	}
}

/* The longest that a one-shot of 32 bits at the largest divisor takes. */
#define LONGEST_NS ((uint64_t)UINT32_MAX * 128 * (1000000000ull / APIC_TIMER_HZ))

void apic_archive(struct archive *archive, struct apic *a, uint64_t now_ns)
{
	uint32_t *const registers[] = { &a->tpr, &a->ldr, &a->dfr, &a->svr, &a->esr, &a->icr_low, &a->icr_high, &a->divide, &a->initial_count };
	uint64_t left_ns = a->timer_deadline_ns > now_ns ? a->timer_deadline_ns - now_ns : a->timer_deadline_ns ? 1 : 0;

	archive_u64(archive, &a->base);
	for (unsigned n = 0; n < sizeof(registers) / sizeof(registers[0]); n++)
		archive_u32(archive, registers[n]);
	archive_u32s(archive, a->lvt, 7);
	archive_u32s(archive, a->irr, 8);
	archive_u32s(archive, a->isr, 8);
	archive_u32s(archive, a->tmr, 8);
	archive_u32s(archive, a->auto_eoi, 8);
	archive_u64(archive, &left_ns);
	archive_u64(archive, &a->tsc_deadline);
	archive_check(archive, !(a->base & (0xfff & ~BASE_BITS)) && !(a->base >> 40) && (a->base & BASE_ON || !(a->base & BASE_X2APIC)) &&
				       !(a->base & 0x100) == (a->id != 0));
	if (archive_check(archive, a->tpr < 0x100 && a->svr < 0x200 && !(a->divide & ~0xbu) && left_ns <= LONGEST_NS) && archive->loading)
		a->timer_deadline_ns = left_ns ? now_ns + left_ns : 0;
}
