/*
 * Left out: the interrupt of the first counter (the local APIC's timer and the synthetic ones have
 * none of its faults), BCD, and the read-back command.
 */
#include "pit.h"

#include "lib/archive.h"
#include "lib/speculation.h"

enum {
	ACCESS_LATCH = 0,
	ACCESS_LOW = 1,
	ACCESS_BOTH = 3,
	MODE_TERMINAL_COUNT = 0,
	SYSTEM_CONTROL = 0x61,
	GATE = 1,
	OUTPUT = 0x20,
	COMMAND = 3,
	SPEAKER = 2
};

static uint16_t count(const struct pit_counter *c, uint64_t ticks)
{
	uint64_t passed = ticks - c->start_ticks;

	if (!c->reload)
		return 0;
	/* the counters that reload begin again; the others go on through zero */
	return (uint16_t)((c->mode & 3) >= 2 ? c->reload - passed % c->reload : c->reload - passed);
}

static bool output(const struct pit_counter *c, uint64_t ticks)
{
	uint64_t passed = ticks - c->start_ticks;

	if (!c->reload || (c->mode & 3) == 2)
		return true;
	if ((c->mode & 3) == 3)
		return passed % c->reload < (c->reload + 1) / 2;
	return passed >= c->reload;
}

uint8_t pit_read(struct pit *p, uint16_t port, uint64_t ticks)
{
	struct pit_counter *c;
	uint16_t v;

	if (port == SYSTEM_CONTROL)
		return (uint8_t)(p->gate | (output(&p->counter[2], ticks) ? OUTPUT : 0));
	if ((port & 3) == COMMAND)
		return 0xff;
	c = &p->counter[speculation_bound(port & 3, COMMAND)];
	v = c->latched ? c->latch : count(c, ticks);
	if (c->access == ACCESS_BOTH) {
		c->read_high = !c->read_high;
		if (c->read_high)
			return (uint8_t)v;
	}
	c->latched = false;
	return (uint8_t)(c->access == ACCESS_LOW ? v : v >> 8);
}

static void load(struct pit_counter *c, uint32_t value, uint64_t ticks)
{
	c->reload = value ? value : 65536;
	c->start_ticks = ticks;
	c->write_high = false;
}

static void command(struct pit *p, uint8_t v, uint64_t ticks)
{
	struct pit_counter *c = &p->counter[speculation_bound(v >> 6 & 3, COMMAND)];

	if (v >> 6 == 3)
		return;
	if ((v >> 4 & 3) == ACCESS_LATCH) {
		c->latch = count(c, ticks);
		c->latched = true;
		return;
	}
	*c = (struct pit_counter){ .access = v >> 4 & 3, .mode = v >> 1 & 7 };
}

/* What the counter is loaded with once this byte is written. */
static uint32_t loaded_value(const struct pit_counter *c, uint8_t v)
{
	if (c->access == ACCESS_LOW)
		return v;
	return (uint32_t)v << 8 | (c->access == ACCESS_BOTH ? c->low : 0);
}

void pit_write(struct pit *p, uint16_t port, uint8_t v, uint64_t ticks)
{
	struct pit_counter *c = &p->counter[speculation_bound(port & 3, COMMAND)];

	if (port == SYSTEM_CONTROL) {
		if (v & GATE && !p->gate)
			p->counter[2].start_ticks = ticks;
		p->gate = v & GATE;
	} else if ((port & 3) == COMMAND) {
		command(p, v, ticks);
	} else if (c->access == ACCESS_BOTH && !c->write_high) {
		c->low = v;
		c->write_high = true;
		c->reload = 0;
	} else {
		load(c, loaded_value(c, v), ticks);
	}
}

static void counter_archive(struct archive *a, struct pit_counter *c)
{
	archive_u32(a, &c->reload);
	archive_u8(a, &c->mode);
	archive_u8(a, &c->access);
	archive_bool(a, &c->write_high);
	archive_bool(a, &c->read_high);
	archive_bool(a, &c->latched);
	archive_u16(a, &c->latch);
	archive_u8(a, &c->low);
	archive_u64(a, &c->start_ticks);
	archive_check(a, c->reload <= 65536 && c->mode < 8 && c->access <= ACCESS_BOTH);
}

void pit_archive(struct archive *a, struct pit *p)
{
	for (int n = 0; n < 3; n++)
		counter_archive(a, &p->counter[n]);
	archive_bool(a, &p->gate);
}
