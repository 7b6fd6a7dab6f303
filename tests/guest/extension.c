/*
 * Umbra's extension: versions, looping calls, rings, packets, cancellation with one outcome,
 * page-range operations.
 */
#include "hv.h"

static uint8_t *const memory = (uint8_t *)0x4000000; /* 64 MiB of the test's own */
enum { MEMORY_BYTES = 64 << 20, ENTRIES = 64 };
static uint64_t *in, *out;

static void versions(void)
{
	struct umbra umbra = hv;

	umbra_agree(&umbra, ~0u, 0);
	check_equal("the newest of both", umbra.version, UMBRA_1_1);
	umbra_agree(&umbra, UMBRA_1_0, UMBRA_1_0);
	check_equal("an older guest", umbra.version, UMBRA_1_0);
	check_equal("has no rings", umbra_call(&umbra, umbra_fast(UMBRA_CALL_DOORBELL), 0, 0),
		    UMBRA_UNAVAILABLE);
	check_equal("a guest too old", umbra_agree(&umbra, 0xffff, 0), UMBRA_UNAVAILABLE);
	check_equal("a guest too new", umbra_agree(&umbra, ~0u, 0x20000), UMBRA_UNAVAILABLE);
	check_equal("a range upside down", umbra_agree(&umbra, UMBRA_1_0, UMBRA_1_1),
		    UMBRA_BAD_PARAMETER);
	umbra_agree(&hv, ~0u, UMBRA_1_0);
}

static void fill(uint64_t id, unsigned operation, const void *at, uint64_t bytes, const void *to)
{
	in[0] = id;
	in[1] = operation;
	in[2] = gpa(at);
	in[3] = bytes;
	in[4] = gpa(to);
}

static uint64_t loop(unsigned operation, const void *at, uint64_t bytes, const void *to)
{
	static uint64_t id = 1000;

	fill(++id, operation, at, bytes, to);
	return umbra_call_until_done(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out));
}

static uint32_t crc32c(const uint8_t *data, size_t bytes)
{
	uint32_t crc = ~0u;

	while (bytes--) {
		crc ^= *data++;
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static void operations(void)
{
	for (unsigned n = 0; n < 4 * PAGE_BYTES; n++)
		memory[n] = (uint8_t)(n * 7 + (n >> 8));
	check_equal("checksum", loop(UMBRA_CHECKSUM, memory, 4 * PAGE_BYTES, NULL), 0);
	check_equal("its value", out[0], crc32c(memory, 4 * PAGE_BYTES));
	check_equal("bytes done", out[1], 4 * PAGE_BYTES);
	check_equal("copy", loop(UMBRA_COPY, memory, 4 * PAGE_BYTES, memory + 8 * PAGE_BYTES), 0);
	check_equal("the copy", crc32c(memory + 8 * PAGE_BYTES, 4 * PAGE_BYTES),
		    crc32c(memory, 4 * PAGE_BYTES));
	check_equal("zero", loop(UMBRA_ZERO, memory, PAGE_BYTES, NULL), 0);
	check("zeroed", !memory[1] && !memory[PAGE_OFFSET] && memory[PAGE_BYTES + 1]);
	check_equal("discard", loop(UMBRA_DISCARD, memory + PAGE_BYTES, PAGE_BYTES, NULL), 0);
	check("discarded", !memory[4097] && memory[8193]);
	check_equal("prefault", loop(UMBRA_PREFAULT, memory, MEMORY_BYTES, NULL), 0);
	check_equal("nothing", loop(UMBRA_NOTHING, NULL, 0, NULL), 0);
	check_equal("a machine operation that nobody provides", loop(0x100, NULL, 0, NULL),
		    UMBRA_UNAVAILABLE);
	check_equal("an overlay is copied as the guest sees it",
		    loop(UMBRA_CHECKSUM, hv.page, PAGE_BYTES, NULL), 0);
	check_equal("the same bytes", out[0], crc32c(hv.page, PAGE_BYTES));
	check_equal("an overlay that cannot be written",
		    loop(UMBRA_ZERO, hv.page, PAGE_BYTES, NULL), UMBRA_BAD_PARAMETER);
}

/* Code that a copy replaces is executed anew. */
static void code(void)
{
	static const uint8_t one[] = { 0xb8, 1, 0, 0, 0, 0xc3 }, two[] = { 0xb8, 2, 0, 0, 0, 0xc3 };
	int (*function)(void) = (int (*)(void))(uintptr_t)(memory + 0x100000);
	bool good = true;

	for (unsigned n = 0; n < sizeof(one); n++)
		memory[0x101000 + n] = one[n], memory[0x102000 + n] = two[n];
	for (int n = 0; n < 20; n++) {
		loop(UMBRA_COPY, memory + (n & 1 ? 0x101000 : 0x102000), PAGE_BYTES,
		     memory + 0x100000);
		good &= function() == (n & 1 ? 1 : 2);
	}
	check("copied code is executed", good);
}

static void interrupts_meanwhile(void)
{
	uint64_t status = 0;

	count_interrupts();
	wrmsr(MSR_TIMER0 + 1, 2000);
	wrmsr(MSR_TIMER0, 1 | 2 | 1 << 12 | 0x40 << 4);
	sti();
	/* how long one takes is the host's */
	for (int n = 0; n < 1000 && taken[0x40] < 5 && !status; n++)
		status = loop(UMBRA_CHECKSUM, memory, MEMORY_BYTES, NULL);
	check_equal("a long loop", status, 0);
	cli();
	wrmsr(MSR_TIMER0, 0);
	check("the partition's interrupts came meanwhile", taken[0x40] >= 5);
}

static void cancel_loop(void)
{
	uint64_t status;

	fill(7, UMBRA_CHECKSUM, memory, MEMORY_BYTES, NULL);
	check_equal("begun", umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out)), UMBRA_PENDING);
	in[3] = PAGE_BYTES;
	check_equal("the same id with other parameters",
		    umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out)), UMBRA_IN_USE);
	in[3] = MEMORY_BYTES;
	check_equal("cancelled", umbra_call(&hv, umbra_fast(UMBRA_CALL_CANCEL), 7, 0), 0);
	status = umbra_call_until_done(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out));
	check_equal("its outcome", status, UMBRA_CANCELLED);
	check("less than all was done", out[1] < MEMORY_BYTES);
	check_equal("it is gone", umbra_call(&hv, umbra_fast(UMBRA_CALL_CANCEL), 7, 0),
		    UMBRA_NOT_FOUND);
	for (uint64_t id = 1; id <= 64; id++) {
		fill(id, UMBRA_CHECKSUM, memory, MEMORY_BYTES, NULL);
		umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out));
	}
	fill(65, UMBRA_NOTHING, NULL, 0, NULL);
	check_equal("one more than there is room for",
		    umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out)), UMBRA_NO_BUFFERS);
	for (uint64_t id = 1; id <= 64; id++)
		umbra_call(&hv, umbra_fast(UMBRA_CALL_CANCEL), id, 0);
	status = 0;
	for (uint64_t id = 1; id <= 64; id++) {
		fill(id, UMBRA_CHECKSUM, memory, MEMORY_BYTES, NULL);
		status += umbra_call_until_done(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out)) ==
			  UMBRA_CANCELLED;
	}
	check_equal("all of them end cancelled", status, 64);
}

/* ---- rings ---- */

static struct umbra_ring ring;
static uint8_t *ring_memory;
enum { OUTCOMES = 4096 };
static unsigned outcomes[OUTCOMES];
static unsigned good_outcomes, cancelled_outcomes, other_outcomes;

static unsigned take_all(void)
{
	unsigned n, total = 0;

	while ((n = umbra_ring_done(&ring))) {
		for (unsigned k = 0; k < n; k++) {
			struct umbra_completion done = *umbra_ring_completion(&ring, k);

			if (done.id < OUTCOMES)
				outcomes[done.id]++;
			good_outcomes += done.status == 0;
			cancelled_outcomes += done.status == UMBRA_CANCELLED;
			other_outcomes += done.status && done.status != UMBRA_CANCELLED;
		}
		umbra_ring_take(&ring, n);
		total += n;
	}
	return total;
}

static bool put(uint64_t id, uint16_t code, unsigned operation, const void *at, uint64_t bytes)
{
	if (!umbra_ring_free(&ring))
		return false;
	*umbra_ring_request(&ring, 0) = (struct umbra_request){
		.id = id, .code = code, .input = { operation, gpa(at), bytes }
	};
	umbra_ring_put(&ring, 1);
	return true;
}

static void simple_ring(void)
{
	unsigned n;

	ring_memory = memory + MEMORY_BYTES;
	check_equal("a ring",
		    umbra_ring_open(&hv, &ring, 0, ENTRIES, ring_memory, gpa(ring_memory), 6, in,
				    gpa(in)),
		    0);
	check_equal("twice",
		    umbra_ring_open(&hv, &ring, 0, ENTRIES, ring_memory, gpa(ring_memory), 6, in,
				    gpa(in)),
		    UMBRA_IN_USE);
	for (n = 0; n < ENTRIES; n++)
		put(n, UMBRA_CALL_NULL, 0, NULL, 0);
	check("then it is full", !umbra_ring_free(&ring));
	check_equal("one doorbell", umbra_ring_doorbell(&hv, &ring), 0);
	check_equal("completes them all", take_all(), ENTRIES);
	for (n = 0; n < ENTRIES && outcomes[n] == 1; n++)
		;
	check_equal("each once", n, ENTRIES);
	put(1, 0x5c, 0, NULL, 0);
	put(2, 0xffff, 0, NULL, 0);
	put(3, 0x5d, 0x554d10, NULL, 0);
	other_outcomes = 0;
	umbra_ring_doorbell(&hv, &ring);
	take_all();
	check_equal("calls that do not go through a ring", other_outcomes, 3);
	put(4, UMBRA_CALL_NULL, 0, NULL, 0);
	check_equal("the doorbell as an event", umbra_call(&hv, umbra_fast(0x5d), 0x554d10, 0), 0);
	check_equal("completes it", take_all(), 1);
}

static void back_pressure(void)
{
	unsigned n;

	for (n = 0; n < ENTRIES; n++)
		put(n, UMBRA_CALL_NULL, 0, NULL, 0);
	umbra_ring_doorbell(&hv, &ring);
	for (n = 0; n < ENTRIES; n++)
		put(100 + n, UMBRA_CALL_NULL, 0, NULL, 0);
	umbra_ring_doorbell(&hv, &ring);
	check("completions not taken: requests wait", !umbra_ring_free(&ring));
	check_equal("the first half", take_all(), ENTRIES);
	umbra_ring_doorbell(&hv, &ring);
	check_equal("the second half", take_all(), ENTRIES);
}

static void asynchronous(void)
{
	volatile uint8_t *siefp = new_page();
	unsigned done = 0;

	wrmsr(MSR_SIEFP, gpa(siefp) | 1);
	wrmsr(MSR_SCONTROL, 1);
	wrmsr(MSR_SINT0 + 6, 0x60);
	taken[0x60] = 0;
	umbra_ring_want_events(&ring, true);
	put(200, UMBRA_CALL_WORK, UMBRA_CHECKSUM, memory, MEMORY_BYTES);
	check_equal("long work in a ring", umbra_ring_doorbell(&hv, &ring), 0);
	check_equal("is not finished yet", take_all(), 0);
	check_equal("the ring stays while it runs", umbra_ring_close(&hv, &ring), UMBRA_IN_USE);
	while (!taken[0x60])
		__asm__ volatile("sti; hlt; cli");
	check_equal("the event's flag is the ring's number", siefp[256 * 6], 1);
	siefp[256 * 6] = 0;
	while (!(done = take_all()))
		cpu_relax();
	check_equal("one completion", done, 1);
	umbra_ring_want_events(&ring, false);
}

/* Cancelling at all moments: each request ends once, done or cancelled. */
static void cancel_race(void)
{
	unsigned wrong = 0, ended = 0, begun = 0;

	good_outcomes = cancelled_outcomes = other_outcomes = 0;
	for (unsigned n = 300; n < 1300; n++) {
		outcomes[n] = 0;
		begun += put(n, UMBRA_CALL_WORK, n & 3 ? UMBRA_PREFAULT : UMBRA_CHECKSUM, memory,
			     (n & 31) * 65536 + PAGE_BYTES);
		umbra_ring_doorbell(&hv, &ring);
		for (unsigned k = 0; k < (n * 37) % 400; k++)
			cpu_relax();
		umbra_call(&hv, umbra_fast(UMBRA_CALL_CANCEL), n - n % 3, 0);
		ended += take_all();
		while (begun - ended > 40)
			ended += take_all();
	}
	while (ended < begun)
		ended += take_all();
	for (unsigned n = 300; n < 1300; n++)
		wrong += outcomes[n] != 1;
	check_equal("a thousand requests, each with one outcome", wrong, 0);
	check("some done, some cancelled, none failed",
	      good_outcomes && cancelled_outcomes && !other_outcomes);
}

/*
 * Completions that the machine writes across a page boundary, over code in the second page: it is
 * executed anew.
 */
static void across_pages(void)
{
	enum { MANY = 256, LAST_OF_PAGE = 127 };
	static const uint8_t one[] = { 0xb8, 1, 0, 0, 0, 0xc3, 0, 0 },
			     two[] = { 0xb8, 2, 0, 0, 0, 0xc3, 0, 0 };
	uint8_t *at = memory + 0x200000,
		*place = at + PAGE_BYTES + 64 * MANY + 32 * (LAST_OF_PAGE + 1);
	struct umbra_ring many;
	uint64_t id;

	check_equal("a ring of 256",
		    umbra_ring_open(&hv, &many, 1, MANY, at, gpa(at), 0, in, gpa(in)), 0);
	for (unsigned n = 0; n < LAST_OF_PAGE; n++) {
		*umbra_ring_request(&many, 0) =
			(struct umbra_request){ .id = 1, .code = UMBRA_CALL_NULL };
		umbra_ring_put(&many, 1);
	}
	umbra_ring_doorbell(&hv, &many);
	umbra_ring_take(&many, LAST_OF_PAGE);
	for (unsigned n = 0; n < sizeof(one); n++)
		place[n] = one[n];
	check_equal("code where a completion will be",
		    (uint64_t)((int (*)(void))(uintptr_t)place)(), 1);
	*umbra_ring_request(&many, 0) = (struct umbra_request){ .id = 1, .code = UMBRA_CALL_NULL };
	for (unsigned n = 0; n < sizeof(two); n++)
		((uint8_t *)&id)[n] = two[n];
	*umbra_ring_request(&many, 1) = (struct umbra_request){ .id = id, .code = UMBRA_CALL_NULL };
	umbra_ring_put(&many, 2);
	umbra_ring_doorbell(&hv, &many);
	check_equal("two completions across pages", umbra_ring_done(&many), 2);
	check_equal("what they wrote is executed", (uint64_t)((int (*)(void))(uintptr_t)place)(),
		    2);
	umbra_ring_take(&many, 2);
	umbra_ring_close(&hv, &many);
}

static void broken_ring(void)
{
	volatile uint32_t *tail = (volatile uint32_t *)(void *)ring_memory;

	*tail += ENTRIES + 1;
	check_equal("an index out of range", umbra_ring_doorbell(&hv, &ring), UMBRA_BAD_PARAMETER);
	*tail -= ENTRIES + 1;
	check_equal("the ring stays broken", umbra_ring_doorbell(&hv, &ring), UMBRA_BAD_PARAMETER);
	check_equal("closed", umbra_ring_close(&hv, &ring), 0);
	check_equal("twice", umbra_ring_close(&hv, &ring), UMBRA_NOT_FOUND);
	check_equal(
		"opened anew",
		umbra_ring_open(&hv, &ring, 0, 2, ring_memory, gpa(ring_memory), 0, in, gpa(in)),
		0);
	put(1, UMBRA_CALL_NULL, 0, NULL, 0);
	umbra_ring_doorbell(&hv, &ring);
	check_equal("it works", take_all(), 1);
	umbra_ring_close(&hv, &ring);
}

void test_main(void)
{
	hv_open();
	in = new_page();
	out = new_page();
	versions();
	operations();
	code();
	interrupts_meanwhile();
	cancel_loop();
	simple_ring();
	back_pressure();
	asynchronous();
	cancel_race();
	across_pages();
	broken_ring();
}
