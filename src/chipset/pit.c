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

static uint16_t count(const struct pit_counter *counter, uint64_t ticks)
{
	uint64_t passed = ticks - counter->start_ticks;

	if (!counter->reload)
		return 0;
	/* the counters that reload begin again; the others go on through zero */
	return (uint16_t)((counter->mode & 3) >= 2 ? counter->reload - passed % counter->reload
						   : counter->reload - passed);
}

static bool output(const struct pit_counter *counter, uint64_t ticks)
{
	uint64_t passed = ticks - counter->start_ticks;

	if (!counter->reload || (counter->mode & 3) == 2)
		return true;
	if ((counter->mode & 3) == 3)
		return passed % counter->reload < (counter->reload + 1) / 2;
	return passed >= counter->reload;
}

uint8_t pit_read(struct pit *pit, uint16_t port, uint64_t ticks)
{
	struct pit_counter *counter;
	uint16_t value;

	if (port == SYSTEM_CONTROL)
		return (uint8_t)(pit->gate | (output(&pit->counter[2], ticks) ? OUTPUT : 0));
	if ((port & 3) == COMMAND)
		return 0xff;
	counter = &pit->counter[speculation_bound(port & 3, COMMAND)];
	value = counter->latched ? counter->latch : count(counter, ticks);
	if (counter->access == ACCESS_BOTH) {
		counter->read_high = !counter->read_high;
		if (counter->read_high)
			return (uint8_t)value;
	}
	counter->latched = false;
	return (uint8_t)(counter->access == ACCESS_LOW ? value : value >> 8);
}

static void load(struct pit_counter *counter, uint32_t value, uint64_t ticks)
{
	counter->reload = value ? value : 65536;
	counter->start_ticks = ticks;
	counter->write_high = false;
}

static void command(struct pit *pit, uint8_t value, uint64_t ticks)
{
	struct pit_counter *counter = &pit->counter[speculation_bound(value >> 6 & 3, COMMAND)];

	if (value >> 6 == 3)
		return;
	if ((value >> 4 & 3) == ACCESS_LATCH) {
		counter->latch = count(counter, ticks);
		counter->latched = true;
		return;
	}
	*counter = (struct pit_counter){ .access = value >> 4 & 3, .mode = value >> 1 & 7 };
}

/* What the counter is loaded with once this byte is written. */
static uint32_t loaded_value(const struct pit_counter *counter, uint8_t value)
{
	if (counter->access == ACCESS_LOW)
		return value;
	return (uint32_t)value << 8 | (counter->access == ACCESS_BOTH ? counter->low : 0);
}

void pit_write(struct pit *pit, uint16_t port, uint8_t value, uint64_t ticks)
{
	struct pit_counter *counter = &pit->counter[speculation_bound(port & 3, COMMAND)];

	if (port == SYSTEM_CONTROL) {
		if (value & GATE && !pit->gate)
			pit->counter[2].start_ticks = ticks;
		pit->gate = value & GATE;
	} else if ((port & 3) == COMMAND) {
		command(pit, value, ticks);
	} else if (counter->access == ACCESS_BOTH && !counter->write_high) {
		counter->low = value;
		counter->write_high = true;
		counter->reload = 0;
	} else {
		load(counter, loaded_value(counter, value), ticks);
	}
}

static void counter_archive(struct archive *archive, struct pit_counter *counter)
{
	archive_u32(archive, &counter->reload);
	archive_u8(archive, &counter->mode);
	archive_u8(archive, &counter->access);
	archive_bool(archive, &counter->write_high);
	archive_bool(archive, &counter->read_high);
	archive_bool(archive, &counter->latched);
	archive_u16(archive, &counter->latch);
	archive_u8(archive, &counter->low);
	archive_u64(archive, &counter->start_ticks);
	archive_check(archive, counter->reload <= 65536 && counter->mode < 8 &&
				       counter->access <= ACCESS_BOTH);
}

void pit_archive(struct archive *archive, struct pit *pit)
{
	for (int n = 0; n < 3; n++)
		counter_archive(archive, &pit->counter[n]);
	archive_bool(archive, &pit->gate);
}
