/* See memory.h: places of overlays, and copies in and out. */
#include "memory.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/check.h"

enum { LONG_BYTES = 1 << 20 };

void check_guest_memory(const struct guest_memory *memory)
{
	assert(memory->ram && memory->low_bytes && memory->low_bytes <= memory->ram_bytes &&
	       memory->low_bytes <= GUEST_HIGH_GPA);
	assert(guest_memory_populated_bytes(memory) >= memory->low_bytes &&
	       guest_memory_populated_bytes(memory) <= memory->ram_bytes &&
	       guest_memory_populated_bytes(memory) % GUEST_PAGE_BYTES == 0);
	assert(memory->window_bytes <= GUEST_WINDOW_PAGES * (uint64_t)GUEST_PAGE_BYTES &&
	       memory->window_read_only <= memory->window_bytes);
	assert(memory->ram_bytes % GUEST_PAGE_BYTES == 0 &&
	       memory->low_bytes % GUEST_PAGE_BYTES == 0);
	for (unsigned n = 0; n < GUEST_OVERLAYS; n++) {
		uint64_t gpa = memory->overlay[n].gpa;

		assert(gpa == GUEST_NOWHERE || gpa % GUEST_PAGE_BYTES == 0);
		assert(gpa == GUEST_NOWHERE || guest_may_be_overlaid(memory, gpa));
	}
}

void guest_memory_init(struct guest_memory *memory, void *ram, uint64_t ram_bytes,
		       uint64_t low_bytes)
{
	*memory = (struct guest_memory){ .ram = ram,
					 .ram_bytes = ram_bytes,
					 .low_bytes = low_bytes,
					 .populated_bytes = ram_bytes };
	for (unsigned n = 0; n < GUEST_OVERLAYS; n++)
		memory->overlay[n].gpa = GUEST_NOWHERE;
	check_guest_memory(memory);
}

void guest_memory_populate(struct guest_memory *memory, uint64_t bytes)
{
	assert(bytes >= memory->low_bytes && bytes <= memory->ram_bytes &&
	       bytes % GUEST_PAGE_BYTES == 0);
	__atomic_store_n(&memory->populated_bytes, bytes, __ATOMIC_RELEASE);
}

int guest_overlay_at(const struct guest_memory *memory, uint64_t gpa)
{
	uint64_t page = guest_page_of(gpa);

	for (unsigned n = 0; n < GUEST_OVERLAYS; n++)
		if (__atomic_load_n(&memory->overlay[n].gpa, __ATOMIC_ACQUIRE) == page)
			return (int)n;
	return -1;
}

void guest_overlay_place(struct guest_memory *memory, unsigned n, uint64_t gpa, bool read_only)
{
	uint64_t page = gpa == GUEST_NOWHERE ? gpa : guest_page_of(gpa);
	uint64_t shown[GUEST_SHOWN_WORDS] = { 0 };

	assert(n < GUEST_OVERLAYS);
	if (gpa != GUEST_NOWHERE)
		__atomic_fetch_or(&memory->shown[guest_shown_word(gpa)], guest_shown_bit(gpa),
				  __ATOMIC_SEQ_CST);
	memory->overlay[n].read_only = read_only;
	__atomic_store_n(&memory->overlay[n].gpa, page, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < GUEST_OVERLAYS; i++) {
		uint64_t at = memory->overlay[i].gpa;

		if (at != GUEST_NOWHERE)
			shown[guest_shown_word(at)] |= guest_shown_bit(at);
	}
	for (unsigned i = 0; i < GUEST_SHOWN_WORDS; i++)
		__atomic_store_n(&memory->shown[i], shown[i], __ATOMIC_SEQ_CST);
	CHECK(check_guest_memory(memory));
}

static bool is_read_only_at(const struct guest_memory *memory, unsigned n, uint64_t gpa,
			    uint64_t bytes)
{
	const struct guest_overlay *overlay = &memory->overlay[n];

	return overlay->read_only && overlay->gpa != GUEST_NOWHERE &&
	       overlay->gpa - guest_page_of(gpa) < bytes;
}

/* A range too long to go through page by page: in one piece of RAM, or nowhere. */
static int probe_long(const struct guest_memory *memory, uint64_t gpa, uint64_t bytes, bool write)
{
	const uint8_t *first = guest_ram_hva(memory, gpa);
	const uint8_t *last = guest_ram_hva(memory, gpa + bytes - 1);

	if (!first || !last || (uint64_t)(last - first) != bytes - 1)
		return -EFAULT;
	if (write && guest_window_is_read_only(memory, gpa + bytes - 1))
		return -EROFS;
	for (unsigned n = 0; n < GUEST_OVERLAYS; n++)
		if (write && is_read_only_at(memory, n, gpa, bytes))
			return -EROFS;
	return 0;
}

static int probe_page(const struct guest_memory *memory, uint64_t page, bool write)
{
	int n = guest_may_be_overlaid(memory, page) ? guest_overlay_at(memory, page) : -1;

	if (n < 0 && !guest_ram_hva(memory, page))
		return -EFAULT;
	if (n < 0)
		return write && guest_window_is_read_only(memory, page) ? -EROFS : 0;
	return write && memory->overlay[n].read_only ? -EROFS : 0;
}

int guest_memory_probe(const struct guest_memory *memory, uint64_t gpa, uint64_t bytes, bool write)
{
	uint64_t last;
	int error = 0;

	if (!bytes)
		return 0;
	if (bytes - 1 > UINT64_MAX - gpa)
		return -EFAULT;
	if (bytes > LONG_BYTES)
		return probe_long(memory, gpa, bytes, write);
	last = guest_page_of(gpa + bytes - 1);
	for (uint64_t page = guest_page_of(gpa); !error; page += GUEST_PAGE_BYTES) {
		error = probe_page(memory, page, write);
		if (page == last)
			break;
	}
	return error;
}

#ifdef UMBRA_DOUBLE_FETCH
enum { FETCHES = 1 << 12 };
static __thread struct { uint64_t gpa; size_t bytes; } fetch[FETCHES];
static __thread unsigned fetches;

void guest_memory_begin(void) { fetches = 0; }

/* The guest has changed, meanwhile, every byte that this call has read before. */
static void change_what_was_read(uint64_t gpa, uint8_t *to, size_t bytes)
{
	for (unsigned n = 0; n < fetches; n++)
		for (size_t i = 0; i < bytes; i++)
			if (gpa + i - fetch[n].gpa < fetch[n].bytes)
				to[i] ^= 0xff;
	if (fetches < FETCHES) {
		fetch[fetches].gpa = gpa;
		fetch[fetches++].bytes = bytes;
	}
}
#else
void guest_memory_begin(void) {}
static void change_what_was_read(uint64_t gpa, uint8_t *to, size_t bytes)
{
	(void)gpa;
	(void)to;
	(void)bytes;
}
#endif

/*
 * Where the byte at gpa lies, and how many of `bytes` follow it there in one piece: no more than
 * LONG_BYTES, as address space without anything in it stands around the guest's memory. NULL:
 * nowhere.
 */
static uint8_t *piece_at(const struct guest_memory *memory, uint64_t gpa, size_t bytes,
			 size_t *ret_bytes)
{
	const size_t most = bytes < LONG_BYTES ? bytes : LONG_BYTES;
	size_t count = GUEST_PAGE_BYTES - gpa % GUEST_PAGE_BYTES;
	uint8_t *hva = guest_hva(memory, gpa);

	while (hva && count < most && !guest_may_be_overlaid(memory, gpa + count) &&
	       guest_ram_hva(memory, gpa + count) == hva + count)
		count += GUEST_PAGE_BYTES;
	*ret_bytes = count < most ? count : most;
	return hva;
}

int guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *to, size_t bytes)
{
	size_t n;

	for (size_t done = 0; done < bytes; done += n) {
		uint64_t at = gpa + done;
		const uint8_t *hva =
			at < gpa ? NULL : piece_at(memory, at, bytes - done, &n);

		if (!hva)
			return -EFAULT;
		/* gcc knows that n is small, and would take `rep movs`, which begins slowly */
		__asm__("" : "+r"(n));
		memcpy((uint8_t *)to + done, hva, n);
	}
	change_what_was_read(gpa, to, bytes);
	return 0;
}

static uint32_t *word_at(const struct guest_memory *memory, uint64_t gpa)
{
	return gpa & 3 ? NULL : (uint32_t *)(void *)guest_hva(memory, gpa);
}

int guest_memory_load(const struct guest_memory *memory, uint64_t gpa, uint32_t *ret)
{
	const uint32_t *word = word_at(memory, gpa);

	if (!word)
		return -EFAULT;
	*ret = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	change_what_was_read(gpa, (uint8_t *)ret, sizeof(*ret));
	return 0;
}

int guest_memory_store(const struct guest_memory *memory, uint64_t gpa, uint32_t value)
{
	int error = guest_memory_probe(memory, gpa, sizeof(value), true);
	uint32_t *word = error ? NULL : word_at(memory, gpa);

	if (!word)
		return error ? error : -EFAULT;
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	return 0;
}

int guest_memory_take(const struct guest_memory *memory, uint64_t gpa, uint32_t *ret)
{
	int error = guest_memory_probe(memory, gpa, sizeof(*ret), true);
	uint32_t *word = error ? NULL : word_at(memory, gpa);

	if (!word)
		return error ? error : -EFAULT;
	*ret = __atomic_exchange_n(word, 0, __ATOMIC_ACQ_REL);
	return 0;
}

int guest_memory_write(const struct guest_memory *memory, uint64_t gpa, const void *from,
		       size_t bytes)
{
	int error = guest_memory_probe(memory, gpa, bytes, true);
	size_t n;

	for (size_t done = 0; done < bytes && !error; done += n) {
		uint8_t *hva = piece_at(memory, gpa + done, bytes - done, &n);

		if (!hva) /* an overlay went away since the probe */
			return -EFAULT;
		__asm__("" : "+r"(n)); /* as above */
		memcpy(hva, (const uint8_t *)from + done, n);
	}
	return error;
}
