/* See ioapic.h. */
#include "ioapic.h"

#include <assert.h>

#include "lib/archive.h"
#include "lib/check.h"
#include "lib/speculation.h"

enum {
	OFFSET_SELECT = 0, OFFSET_WINDOW = 0x10, REG_ID = 0, REG_VERSION = 1, REG_ARBITRATION = 2,
	REG_ENTRIES = 0x10
};
enum {
	SELECT_BITS = 0xff, ID_BITS = 0x0f000000, VERSION = 0x00170011,
	REG_END = REG_ENTRIES + 2 * IOAPIC_LINES
};
enum {
	ENTRY_STATUS = 1 << 12, ENTRY_REMOTE_IRR = 1 << 14, ENTRY_LEVEL = 1 << 15,
	ENTRY_MASKED = 1 << 16, ENTRY_INTERRUPT = 0xfff
};
enum { ENTRY_READ_ONLY = ENTRY_STATUS | ENTRY_REMOTE_IRR, ENTRY_DESTINATION_SHIFT = 56 };

/* Remote IRR of an entry that is no level's would never be taken back. */
static bool is_entry(uint64_t entry) { return !(entry & ENTRY_REMOTE_IRR) || entry & ENTRY_LEVEL; }

void check_ioapic(const struct ioapic *ioapic)
{
	assert(ioapic->raise);
	assert(!(ioapic->lines >> IOAPIC_LINES));
	assert(!(ioapic->select & ~(uint32_t)SELECT_BITS) && !(ioapic->id & ~(uint32_t)ID_BITS));
	for (unsigned n = 0; n < IOAPIC_LINES; n++)
		assert(is_entry(ioapic->entry[n]));
}

void ioapic_init(struct ioapic *ioapic,
		 void (*raise)(void *context, uint32_t low, uint32_t destination), void *context)
{
	assert(raise);
	*ioapic = (struct ioapic){ .raise = raise, .context = context };
	for (unsigned n = 0; n < IOAPIC_LINES; n++)
		ioapic->entry[n] = ENTRY_MASKED;
}

static void deliver(struct ioapic *ioapic, unsigned line)
{
	uint64_t *entry = &ioapic->entry[line];

	if (*entry & ENTRY_MASKED)
		return;
	if (*entry & ENTRY_LEVEL) {
		if (*entry & ENTRY_REMOTE_IRR)
			return;
		*entry |= ENTRY_REMOTE_IRR;
	}
	ioapic->raise(ioapic->context, (uint32_t)*entry & (ENTRY_INTERRUPT | ENTRY_LEVEL),
		      (uint32_t)(*entry >> ENTRY_DESTINATION_SHIFT));
}

bool ioapic_line(const struct ioapic *ioapic, unsigned line) { return ioapic->lines >> line & 1; }

void ioapic_set_line(struct ioapic *ioapic, unsigned line, bool asserted)
{
	bool before = ioapic_line(ioapic, line);

	assert(line < IOAPIC_LINES);
	ioapic->lines = asserted ? ioapic->lines | 1u << line : ioapic->lines & ~(1u << line);
	if (asserted && !before)
		deliver(ioapic, line);
	CHECK(check_ioapic(ioapic));
}

void ioapic_end_of_interrupt(struct ioapic *ioapic, uint8_t vector)
{
	for (unsigned line = 0; line < IOAPIC_LINES; line++) {
		uint64_t *entry = &ioapic->entry[line];

		if (!(*entry & ENTRY_LEVEL) || !(*entry & ENTRY_REMOTE_IRR) ||
		    (uint8_t)*entry != vector)
			continue;
		*entry &= ~(uint64_t)ENTRY_REMOTE_IRR;
		if (ioapic_line(ioapic, line))
			deliver(ioapic, line);
	}
}

static unsigned entry_of(uint32_t reg)
{
	return (unsigned)speculation_bound((reg - REG_ENTRIES) / 2, IOAPIC_LINES);
}

uint32_t ioapic_read(const struct ioapic *ioapic, uint32_t offset)
{
	uint32_t reg = ioapic->select;

	if (offset == OFFSET_SELECT)
		return reg;
	if (offset != OFFSET_WINDOW)
		return 0;
	if (reg >= REG_ENTRIES && reg < REG_END)
		return (uint32_t)(ioapic->entry[entry_of(reg)] >> (reg & 1 ? 32 : 0));
	switch (reg) {
	case REG_ID: case REG_ARBITRATION: return ioapic->id;
	case REG_VERSION: return VERSION;
	default: return 0;
	}
}

/*
 * An entry that is no level forgets that it was delivered; a line that is asserted is delivered
 * when it is unmasked.
 */
static void write_entry(struct ioapic *ioapic, unsigned line, bool high, uint32_t value)
{
	uint64_t *entry = &ioapic->entry[line];
	uint32_t low = (uint32_t)*entry;

	if (high) {
		*entry = low | (uint64_t)value << 32;
		return;
	}
	low = (value & ~(uint32_t)ENTRY_READ_ONLY) | (low & ENTRY_READ_ONLY);
	if (!(low & ENTRY_LEVEL))
		low &= ~(uint32_t)ENTRY_REMOTE_IRR;
	*entry = (*entry & ~(uint64_t)UINT32_MAX) | low;
	if (ioapic_line(ioapic, line))
		deliver(ioapic, line);
}

void ioapic_write(struct ioapic *ioapic, uint32_t offset, uint32_t value)
{
	uint32_t reg = ioapic->select;

	if (offset == OFFSET_SELECT)
		ioapic->select = value & SELECT_BITS;
	else if (offset == OFFSET_WINDOW && reg == REG_ID)
		ioapic->id = value & ID_BITS;
	else if (offset == OFFSET_WINDOW && reg >= REG_ENTRIES && reg < REG_END)
		write_entry(ioapic, entry_of(reg), reg & 1, value);
	CHECK(check_ioapic(ioapic));
}

/*
 * The identifier is in the upper bits of the word of the selection, which older files have as
 * zeros.
 */
void ioapic_archive(struct archive *archive, struct ioapic *ioapic)
{
	uint32_t select_and_id = ioapic->select | ioapic->id;

	archive_u32(archive, &select_and_id);
	archive_u64s(archive, ioapic->entry, IOAPIC_LINES);
	for (unsigned n = 0; n < IOAPIC_LINES; n++)
		archive_check(archive, is_entry(ioapic->entry[n]));
	archive_check(archive, !(select_and_id & ~(uint32_t)(SELECT_BITS | ID_BITS)));
	ioapic->select = select_and_id & SELECT_BITS;
	ioapic->id = select_and_id & ID_BITS;
}
