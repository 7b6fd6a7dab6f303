/* See pci_display.h. */
#include "pci_display.h"

#include <string.h>

#include "lib/archive.h"

enum {
	IDENTITY = 0, COMMAND = 4, CLASS = 8, RANGE = 0x10, SUBSYSTEM = 0x2c,
	COMMAND_BITS = 3 /* it answers at ports, and in memory */
};
#define ENABLED 0x80000000u
#define ADDRESS_BITS 0x80fffffcu
#define PLACE_BITS 0x00ffff00u
#define PLACE 0x00004000u /* bus 0, device 8, function 0 */
#define VENDOR_AND_DEVICE 0x53531414u
#define VGA_CLASS 0x03000000u
/* What display.asl says of its bridge. */
#define RANGE_GPA 0xf0000000u
#define RANGE_BITS 0xffc00000u /* 4 MiB */

void pci_display_init(struct pci_display *display, bool is_there)
{
	*display = (struct pci_display){ .is_there = is_there, .range = RANGE_GPA };
}

static bool is_addressed(const struct pci_display *display)
{
	return display->is_there && display->address & ENABLED &&
	       (display->address & PLACE_BITS) == PLACE;
}

static uint32_t register_value(const struct pci_display *display)
{
	if (!is_addressed(display))
		return ~0u;
	switch (display->address & 0xfc) {
	case IDENTITY:
	case SUBSYSTEM: return VENDOR_AND_DEVICE;
	case COMMAND: return display->command;
	case CLASS: return VGA_CLASS;
	case RANGE: return display->range;
	default: return 0;
	}
}

/* Of 4 bytes those from `at` on, and all ones beyond. */
static uint64_t part_of(uint32_t value, unsigned at, unsigned bytes)
{
	const uint64_t whole = ~0ull << 32 | value;
	const uint64_t part = (uint64_t)((int64_t)whole >> 8 * at);

	return bytes == sizeof(whole) ? part : part & ((1ull << 8 * bytes) - 1);
}

uint64_t pci_display_read(const struct pci_display *display, uint16_t port, unsigned bytes)
{
	if (!display->is_there)
		return part_of(~0u, 0, bytes);
	if (port == PCI_ADDRESS_PORT && bytes != sizeof(display->address))
		return part_of(~0u, 0, bytes);
	if (port == PCI_ADDRESS_PORT)
		return display->address;
	return part_of(register_value(display), port - PCI_DATA_PORT, bytes);
}

void pci_display_write(struct pci_display *display, uint16_t port, unsigned bytes, uint64_t value)
{
	if (port == PCI_ADDRESS_PORT) {
		if (bytes == sizeof(display->address))
			display->address = (uint32_t)value & ADDRESS_BITS;
		return;
	}
	if (port != PCI_DATA_PORT || !is_addressed(display))
		return;
	if ((display->address & 0xfc) == COMMAND && bytes >= sizeof(display->command))
		display->command = value & COMMAND_BITS;
	if ((display->address & 0xfc) == RANGE && bytes == sizeof(display->range))
		display->range = (uint32_t)value & RANGE_BITS;
}

void pci_display_archive(struct archive *archive, struct pci_display *display)
{
	archive_u32(archive, &display->address);
	archive_u32(archive, &display->range);
	archive_u16(archive, &display->command);
	archive_check(archive, !(display->address & ~ADDRESS_BITS) &&
				       !(display->range & ~RANGE_BITS) &&
				       display->command <= COMMAND_BITS);
}
