/*
 * Configuration mechanism 1 of PCI with one function behind it, of a machine that has a screen
 * (device/display/video.h). Drivers of it look for this function (1414:5353, as a generation-1
 * machine has it) before they use the screen's channel; it does nothing else.
 *
 *   0xcf8  address: bit 31, bus 23:16, device 15:11, function 10:8, register 7:2
 *   0xcfc  4 bytes of that register; what is not there reads as all ones
 *
 * Its one range of memory is nowhere: nothing answers there.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct archive;

enum { PCI_ADDRESS_PORT = 0xcf8, PCI_DATA_PORT = 0xcfc };

struct pci_display { bool is_there; uint32_t address, range; uint16_t command; };

void pci_display_init(struct pci_display *display, bool is_there);
uint64_t pci_display_read(const struct pci_display *display, uint16_t port, unsigned bytes);
void pci_display_write(struct pci_display *display, uint16_t port, unsigned bytes, uint64_t value);
void pci_display_archive(struct archive *archive, struct pci_display *display);
