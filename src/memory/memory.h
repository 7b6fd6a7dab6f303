/*
 * The guest physical address space of one machine: RAM, and pages that lie over it.
 *
 *   gpa  [0, low_bytes) and [4 GiB, 4 GiB + populated_bytes - low_bytes)      RAM
 *        [GUEST_WINDOW_GPA, + window_bytes)                             windows
 *   hva  ram [0, ram_bytes), GUEST_OVERLAYS pages, GUEST_WINDOW_PAGES pages
 *
 * An overlay (TLFS "GPA overlay pages") is a page of the hypervisor's that shows at a place of the
 * guest's choice, RAM or not, and hides what is there; the hidden bytes stay as they are and come
 * back when it is moved or taken away.
 *
 * A window is a range that is no RAM and is described to the guest by a device: there pages of
 * another machine appear (docs/sharing.md). Who writes them there tells nobody, as with overlays,
 * and the engine treats the frames alike. Of the last of them the host writes nothing, and cannot:
 * they are mapped so (window_read_only).
 *
 *  1. A frame number is an offset from `ram` in pages; overlay n is frame ram_bytes / 4096 + n
 *     wherever it shows.
 *  2. Where two overlays show at one place, the one with the lower number is seen (the TLFS leaves
 *     it open).
 *  3. Places change under one lock of the owner; readers take none, and see the old place or the
 *     new one. Who needs more asks the engine to forget what it has cached (engine_remapped()).
 *  4. guest_memory_read() and guest_memory_load() are the only ways by which what a guest says
 *     enters the host. They read every byte once. In the build with UMBRA_DOUBLE_FETCH, a byte that
 *     is read again between two guest_memory_begin() of a thread reads differently.
 *  5. Of `ram` the first populated_bytes are the guest's RAM; what is behind them is address space
 *     for memory that is added later, and nowhere until then. It grows while processors run.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/speculation.h"

enum {
	GUEST_PAGE_BYTES = 4096,
	GUEST_OVERLAYS = 64,
	GUEST_SHOWN_WORDS = 8,
	GUEST_WINDOW_PAGES = 1026
};
#define GUEST_NOWHERE (~0ull)
#define GUEST_WINDOW_GPA (1ull << 37) /* far above any RAM */
#define GUEST_HIGH_GPA (1ull << 32) /* where RAM goes on above the devices */

struct guest_overlay { uint64_t gpa; /* GUEST_NOWHERE: hidden */ bool read_only; };

struct guest_memory {
	uint8_t *ram;
	uint64_t ram_bytes, low_bytes; /* both multiples of a page */
	uint64_t populated_bytes; /* atomic; between the two */
	uint64_t window_bytes; /* 0, or what of the windows can be seen */
	uint64_t window_read_only; /* from this offset on; window_bytes: nothing */
	struct guest_overlay overlay[GUEST_OVERLAYS];
	uint64_t shown[GUEST_SHOWN_WORDS]; /* bit gfn % 512: an overlay may show there */
};

static inline uint8_t *guest_overlay_page(const struct guest_memory *memory, unsigned n)
{
	return memory->ram + memory->ram_bytes + n * (size_t)GUEST_PAGE_BYTES;
}

/* The overlay that shows at this page, or -1. */
int guest_overlay_at(const struct guest_memory *memory, uint64_t gpa);

static inline uint64_t guest_memory_populated_bytes(const struct guest_memory *memory)
{
	return __atomic_load_n(&memory->populated_bytes, __ATOMIC_RELAXED);
}

/* A page of the windows, behind those of the overlays. */
static inline uint8_t *guest_window_page(const struct guest_memory *memory, unsigned n)
{
	return guest_overlay_page(memory, GUEST_OVERLAYS) + n * (size_t)GUEST_PAGE_BYTES;
}

static inline uint8_t *guest_window_hva(const struct guest_memory *memory, uint64_t gpa)
{
	const uint64_t offset = gpa - GUEST_WINDOW_GPA;

	if (offset >= memory->window_bytes)
		return NULL;
	return guest_window_page(memory, 0) + speculation_bound(offset, memory->window_bytes);
}

/* Whether this is a place of the windows that nobody here can write. */
static inline bool guest_window_is_read_only(const struct guest_memory *memory, uint64_t gpa)
{
	const uint64_t offset = gpa - GUEST_WINDOW_GPA;

	return offset < memory->window_bytes && offset >= memory->window_read_only;
}

/* RAM below the overlays, or a window. NULL: neither. */
static inline uint8_t *guest_ram_hva(const struct guest_memory *memory, uint64_t gpa)
{
	uint64_t high_bytes = guest_memory_populated_bytes(memory) - memory->low_bytes;
	uint64_t high_offset = gpa - GUEST_HIGH_GPA;

	if (gpa < memory->low_bytes)
		return memory->ram + speculation_bound(gpa, memory->low_bytes);
	if (high_offset < high_bytes)
		return memory->ram + memory->low_bytes + speculation_bound(high_offset, high_bytes);
	return guest_window_hva(memory, gpa);
}

static inline uint64_t guest_page_of(uint64_t gpa)
{
	return gpa / GUEST_PAGE_BYTES * GUEST_PAGE_BYTES;
}

/* Of `shown`: the bit of a page, which others share. */
static inline unsigned guest_shown_word(uint64_t gpa)
{
	return gpa / GUEST_PAGE_BYTES / 64 % GUEST_SHOWN_WORDS;
}
static inline uint64_t guest_shown_bit(uint64_t gpa) { return 1ull << gpa / GUEST_PAGE_BYTES % 64; }

static inline bool guest_may_be_overlaid(const struct guest_memory *memory, uint64_t gpa)
{
	const uint64_t *word = &memory->shown[guest_shown_word(gpa)];

	return (__atomic_load_n(word, __ATOMIC_RELAXED) & guest_shown_bit(gpa)) != 0;
}

/* Where the byte at gpa lies, up to the end of its page. NULL: neither RAM nor an overlay. */
static inline uint8_t *guest_hva(const struct guest_memory *memory, uint64_t gpa)
{
	int n = guest_may_be_overlaid(memory, gpa) ? guest_overlay_at(memory, gpa) : -1;

	if (n < 0)
		return guest_ram_hva(memory, gpa);
	return guest_overlay_page(memory, (unsigned)n) + gpa % GUEST_PAGE_BYTES;
}

/* Bytes to reserve at `ram` for this much RAM. */
static inline uint64_t guest_memory_footprint_bytes(uint64_t ram_bytes)
{
	return ram_bytes + (GUEST_OVERLAYS + GUEST_WINDOW_PAGES) * (uint64_t)GUEST_PAGE_BYTES;
}

/* Over guest_memory_footprint_bytes(ram_bytes) zeroed bytes at ram; all of it is populated. */
void guest_memory_init(struct guest_memory *memory, void *ram, uint64_t ram_bytes,
		       uint64_t low_bytes);
/*
 * How much of it is the guest's RAM, from low_bytes to ram_bytes, in pages: less only before
 * anything runs, more also then.
 */
void guest_memory_populate(struct guest_memory *memory, uint64_t bytes);
/*
 * Overlay n shows at the page of gpa from now on; GUEST_NOWHERE hides it. Under the owner's lock.
 */
void guest_overlay_place(struct guest_memory *memory, unsigned n, uint64_t gpa, bool read_only);
/*
 * Copies; 0, or -EFAULT when a byte of it is nowhere (then *to is undefined). Lengths up to any
 * size, no address wraps.
 */
int guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *to, size_t bytes);
/* Also -EROFS. Nothing is written unless all can be. The caller tells the engine. */
int guest_memory_write(const struct guest_memory *memory, uint64_t gpa, const void *from,
		       size_t bytes);
/*
 * Aligned 32-bit load with acquire semantics, aligned 32-bit store with release semantics. 0;
 * -EFAULT: no memory, or not aligned; -EROFS.
 */
int guest_memory_load(const struct guest_memory *memory, uint64_t gpa, uint32_t *ret);
int guest_memory_store(const struct guest_memory *memory, uint64_t gpa, uint32_t value);
/* An aligned 32-bit word, and 0 in its place, in one step. The same errors. */
int guest_memory_take(const struct guest_memory *memory, uint64_t gpa, uint32_t *ret);
/*
 * 0, -EFAULT or -EROFS, as guest_memory_write() would; of more than 1 MiB also -EFAULT where it is
 * not in one piece of RAM. In bounded time.
 */
int guest_memory_probe(const struct guest_memory *memory, uint64_t gpa, uint64_t bytes, bool write);
/*
 * Invariants 1 to 3: the sizes, and that `shown` has every place of an overlay. Under the owner's
 * lock.
 */
void check_guest_memory(const struct guest_memory *memory);
/* A new call of the guest begins on this thread (4). */
void guest_memory_begin(void);
