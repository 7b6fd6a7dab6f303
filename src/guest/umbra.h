/*
 * libumbra: how a program inside a guest finds the hypervisor, agrees with it on a version, and
 * calls it (docs/umbra-interface.md). C without libc, for code at privilege level 0; uses no vector
 * registers but those of XMM calls, which it restores.
 *
 * Addresses: the library is given both, gva and gpa, of every page; it translates none.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UMBRA_1_0 = 0x10000, UMBRA_1_1 = 0x10001 };
#define UMBRA_INFO_GPA 0xfed10000ull
enum { UMBRA_PAGE_BYTES = 4096 };

/* HV_STATUS in bits 15:0 of a result; elements done of a rep call in bits 43:32. */
enum umbra_status {
	UMBRA_OK = 0,
	UMBRA_BAD_CALL = 2,
	UMBRA_BAD_INPUT = 3,
	UMBRA_BAD_ALIGNMENT = 4,
	UMBRA_BAD_PARAMETER = 5,
	UMBRA_DENIED = 6,
	UMBRA_OPERATION_DENIED = 8,
	UMBRA_BAD_PARTITION = 0xd,
	UMBRA_BAD_VP = 0xe,
	UMBRA_NOT_FOUND = 0x10,
	UMBRA_BAD_CONNECTION = 0x12,
	UMBRA_NO_BUFFERS = 0x13,
	UMBRA_BAD_VP_STATE = 0x15,
	UMBRA_IN_USE = 0x19,
	UMBRA_UNAVAILABLE = 0x1e,
	UMBRA_CANCELLED = 0x77,
	UMBRA_PENDING = 0x79,
};
enum umbra_operation {
	UMBRA_NOTHING,
	UMBRA_PREFAULT,
	UMBRA_DISCARD,
	UMBRA_ZERO,
	UMBRA_COPY,
	UMBRA_CHECKSUM,
	UMBRA_FORK = 0x100
};
enum umbra_call {
	UMBRA_CALL_VERSION = 0xc000,
	UMBRA_CALL_WORK,
	UMBRA_CALL_CANCEL,
	UMBRA_CALL_NULL,
	UMBRA_CALL_PAGES,
	UMBRA_CALL_REGISTER_RING = 0xc010,
	UMBRA_CALL_UNREGISTER_RING,
	UMBRA_CALL_DOORBELL,
};

/*
 * What was found. features: enum of `--hv` as the information page has it, 0 when found by CPUID.
 */
struct umbra {
	uint32_t newest, oldest, extension, loop_offset; /* newest 0: no extension */
	uint32_t version;                                /* agreed upon; 0: not yet */
	/* the hypercall page's gva; NULL: not enabled */
	uint8_t *page;
};

struct umbra_work { uint16_t operation, flags; uint32_t reserved; uint64_t gpa, bytes, argument; };

struct umbra_request { uint64_t id; uint16_t code, flags; uint32_t reserved; uint64_t input[6]; };
struct umbra_completion {
	uint64_t id;
	uint16_t status, flags;
	uint32_t reserved;
	uint64_t output[2];
};

/*
 * One ring; its memory is `umbra_ring_bytes(entries)` contiguous bytes of page-aligned guest
 * physical memory.
 */
struct umbra_ring {
	uint8_t *base;
	uint32_t number, entries, request_tail, completion_head;
};

/* By CPUID: whether a hypervisor with this interface is there at all. */
bool umbra_find(struct umbra *umbra);
/* By the information page, mapped at gva; needs neither CPUID nor registers. */
bool umbra_find_by_page(struct umbra *umbra, const void *gva);
/*
 * States who the guest is and has the hypercall page shown at gpa, where `gva` is mapped
 * executable.
 */
bool umbra_enable(struct umbra *umbra, uint64_t os_id, uint64_t gpa, void *gva);
void umbra_disable(struct umbra *umbra);

/*
 * A call with this control word: input and output by guest physical address, or their two fast
 * words.
 */
uint64_t umbra_call(const struct umbra *umbra, uint64_t control, uint64_t input, uint64_t output);
/* As umbra_call(), again and again while it is "not finished"; interrupts are taken meanwhile. */
uint64_t umbra_call_until_done(const struct umbra *umbra, uint64_t control, uint64_t input,
			       uint64_t output);
/* Control words. */
static inline uint64_t umbra_fast(uint16_t code) { return code | 1u << 16; }
static inline uint64_t umbra_rep(uint16_t code, uint32_t count)
{
	return code | (uint64_t)count << 32;
}
static inline uint64_t umbra_with_header(uint64_t control, uint32_t header_bytes)
{
	return control | (uint64_t)(header_bytes / 8) << 17;
}
/*
 * A fast call of up to 112 bytes in rdx, r8 and XMM0-5; registers[14] holds input and, afterwards,
 * output.
 */
uint64_t umbra_call_xmm(const struct umbra *umbra, uint64_t control, uint64_t registers[14]);

/*
 * Forks this machine, and waits for that (docs/umbra-interface.md): 0, and *ret_child is the number
 * of the child in the machine that has asked, 0 in the child; or a status, and there is no child.
 * scratch: 64 bytes of guest memory, 8-aligned, within a page.
 */
uint64_t umbra_fork(const struct umbra *umbra, uint64_t id, void *scratch_gva,
		    uint64_t scratch_gpa, uint32_t *ret_child);
/* The newest version that both know, not beyond `newest`; 0 or a status. */
uint64_t umbra_agree(struct umbra *umbra, uint32_t newest, uint32_t oldest);

static inline size_t umbra_ring_bytes(uint32_t entries)
{
	return UMBRA_PAGE_BYTES + 96 * (size_t)entries;
}
/*
 * Registers ring `number`; scratch: 24 bytes of guest memory, 8-aligned, within a page. sint 0:
 * completions are only polled for.
 */
uint64_t umbra_ring_open(struct umbra *umbra, struct umbra_ring *ring, uint32_t number,
			 uint32_t entries, void *gva, uint64_t gpa, uint32_t sint,
			 void *scratch_gva, uint64_t scratch_gpa);
uint64_t umbra_ring_close(const struct umbra *umbra, const struct umbra_ring *ring);
uint64_t umbra_ring_doorbell(const struct umbra *umbra, const struct umbra_ring *ring);
/* Asks for an event flag at each completion, or no more. Look for completions once after asking. */
void umbra_ring_want_events(struct umbra_ring *ring, bool wants);

enum {
	UMBRA_RING_REQUEST_TAIL = 0,
	UMBRA_RING_REQUEST_HEAD = 64,
	UMBRA_RING_COMPLETION_TAIL = 128,
	UMBRA_RING_COMPLETION_HEAD = 192,
	UMBRA_RING_WANTS_EVENTS = 256,
	UMBRA_RING_REQUESTS = 4096
};

static inline volatile uint32_t *umbra_ring_word(const struct umbra_ring *ring, unsigned offset)
{
	return (volatile uint32_t *)(void *)(ring->base + offset);
}

/*
 * Requests that fit now; they are filled in at umbra_ring_request(0), (1) ... and made visible
 * together by umbra_ring_put().
 */
static inline uint32_t umbra_ring_free(const struct umbra_ring *ring)
{
	return ring->entries -
	       (ring->request_tail - *umbra_ring_word(ring, UMBRA_RING_REQUEST_HEAD));
}

static inline struct umbra_request *umbra_ring_request(const struct umbra_ring *ring, uint32_t n)
{
	return (struct umbra_request *)(void *)(ring->base + UMBRA_RING_REQUESTS) +
	       ((ring->request_tail + n) & (ring->entries - 1));
}

static inline void umbra_ring_put(struct umbra_ring *ring, uint32_t count)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
	ring->request_tail += count;
	*umbra_ring_word(ring, UMBRA_RING_REQUEST_TAIL) = ring->request_tail;
}

/*
 * Completions that are there; they are read at umbra_ring_completion(0), (1) ... and given back
 * together by umbra_ring_take().
 */
static inline uint32_t umbra_ring_done(const struct umbra_ring *ring)
{
	uint32_t n = *umbra_ring_word(ring, UMBRA_RING_COMPLETION_TAIL) - ring->completion_head;

	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return n;
}

static inline const struct umbra_completion *umbra_ring_completion(const struct umbra_ring *ring,
								   uint32_t n)
{
	return (const struct umbra_completion *)(void *)(ring->base + UMBRA_RING_REQUESTS +
							 64 * (size_t)ring->entries) +
	       ((ring->completion_head + n) & (ring->entries - 1));
}

static inline void umbra_ring_take(struct umbra_ring *ring, uint32_t count)
{
	ring->completion_head += count;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	*umbra_ring_word(ring, UMBRA_RING_COMPLETION_HEAD) = ring->completion_head;
}
