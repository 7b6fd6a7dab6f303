/*
 * A pair of 8259 interrupt controllers as a PC has them: ports 0x20 and 0x21, 0xa0 and 0xa1, the
 * second one on line 2 of the first. Only a machine with the test device has it. Called under the
 * machine's lock.
 *
 *  1. Lines are edges: a line that rises is requested until it is taken, also where it has fallen
 *     since.
 *  2. Of requests that are not masked the lowest line is next, unless one as low is in service.
 *  3. Line 2 of the first is requested while the second has an interrupt, and only then.
 *
 * Left out: levels, rotating priorities, special masks, polling.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { PIC_CHIPS = 2, PIC_LINES = 16 };

struct pic_chip {
	uint8_t lines, request, service, mask, vector_base;
	uint8_t init_step; /* of the four initialisation words; 0: none is due */
	bool wants_word_4, ends_by_itself, shows_service;
};

struct pic { struct pic_chip chip[PIC_CHIPS]; };

/* As a PC's firmware leaves it: vectors from 8 and 0x70, nothing masked. */
void pic_reset(struct pic *pic);
void pic_set_line(struct pic *pic, unsigned line, bool high);
bool pic_has_interrupt(const struct pic *pic);
/* The vector to be delivered, and its acknowledgement; -1: none. */
int pic_take(struct pic *pic);
/* False: the port is another device's. */
bool pic_read(const struct pic *pic, uint16_t port, uint8_t *ret_value);
bool pic_write(struct pic *pic, uint16_t port, uint8_t value);
/* Invariant 3, and what writes can leave. Under the machine's lock. */
void check_pic(const struct pic *pic);
