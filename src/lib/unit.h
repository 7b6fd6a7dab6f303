/*
 * A unit is a part of a machine with a life of its own: the chipset, a processor, the Hyper-V
 * partition, the bus, a device on it. Each file that makes one says in a table what it does; the
 * machine keeps a list of units and treats all alike (vm/unit_list.c).
 *
 *   (made) -> reset -> run <-> pause, resume -> stop -> destroy
 *
 *   - Whatever is NULL the unit does not need. `self` is what it was made as.
 *   - reset() comes once before run(), on one thread; restored() as well, where archive() has
 *     loaded the unit, and everything else.
 *   - A unit with run() has a thread of its own, on which it is called once the process has given
 *     up its rights; it returns soon after stop().
 *   - Between pause() and resume() nothing of the guest's state changes by the unit's own doing.
 *     Then, or before run(), archive().
 *   - In a machine that was forked forked() comes between pause() and resume(), while there is one
 *     thread: it makes locks and conditions anew. Then run() is called again.
 *   - stood() says for how long the machine's clocks did not go on, where it stood so long
 *     (vm/clock.c): between pause() and resume(), after forked(). What a unit counts for its guest
 *     by the host's clock, it moves by that.
 *   - tick(), statistics() and pause() come on any thread, without the machine's lock; archive(),
 *     restored() and stood() with it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct archive;

#define UNIT_SECTION(a, b, c, d) \
	((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

struct unit_ops {
	const char *name;
	uint32_t section; /* its name in a saved machine: UNIT_SECTION(); 0 without archive() */
	bool numbered;    /* there are several: in a saved machine their number comes first */
	bool later;       /* a saved machine may be from before there was such a unit */
	/* As it is when the machine is switched on. */
	void (*reset)(void *self);
	void (*run)(void *self);
	void (*pause)(void *self);
	void (*resume)(void *self);
	void (*forked)(void *self);
	void (*stood)(void *self, uint64_t ns);
	/* From another thread than that of run(). */
	void (*stop)(void *self);
	void (*destroy)(void *self);
	/* As bytes and back (lib/archive.h). */
	void (*archive)(struct archive *archive, void *self);
	void (*restored)(void *self);
	/* Every second while the guest runs; `seconds` counts them from 1. */
	void (*tick)(void *self, unsigned seconds);
	/* Counters as text; the length without the NUL, less than bytes. */
	size_t (*statistics)(const void *self, char *text, size_t bytes);
};
