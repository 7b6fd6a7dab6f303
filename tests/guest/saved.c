/*
 * A guest that is saved while it runs, and goes on in several places (saved.sh): calls that yield,
 * work that is under way in each of the three ways, timers, clocks, registers, all processors. It
 * cannot know when that happens; whatever it sees has to be right at every moment. Cancelled
 * requests it counts, and saved.sh knows where there may be any.
 */
#include "hv.h"

enum {
	ELEMENTS = 500,
	PAGES_PER_ELEMENT = 16,
	ENTRIES = 32,
	RING_SINT = 6,
	REPLY_SINT = 5,
	REPLY_VECTOR = 0x61,
	OTHERS_MAX = 16
};

static uint8_t *const memory = (uint8_t *)0x4000000;
static uint64_t const memory_bytes = ELEMENTS * PAGES_PER_ELEMENT * (uint64_t)PAGE_BYTES;
static uint64_t *in, *out, expected[ELEMENTS], whole;
static volatile uint8_t *simp;
static volatile uint64_t *reference;
static struct umbra_ring ring, background;
static volatile uint64_t progress[OTHERS_MAX][8]; /* a cache line each */
static unsigned total, done, cancelled, failed, rounds;
#ifdef ROUNDS
static unsigned told_to_go_on; /* in this round, the last time */
#endif
static uint64_t next_id = 1;

static void count(uint64_t status)
{
	done += status == UMBRA_OK;
	cancelled += status == UMBRA_CANCELLED;
	failed += status != UMBRA_OK && status != UMBRA_CANCELLED;
}

/* ---- the other processors: locked additions, flushes of everybody, halts ---- */

void test_other(unsigned me)
{
	uint64_t *page = new_page();

	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	page[1] = 3;
	for (;; __atomic_add_fetch(&progress[me][0], 1, __ATOMIC_SEQ_CST)) {
		wrmsr(MSR_TIMER0 + 1, rdmsr(MSR_TIME) + 5000);
		wrmsr(MSR_TIMER0, 1 | 1 << 12 | 0x70 << 4);
		if (umbra_call(&hv, 2, gpa(page), 0))
			failed++;
		__asm__ volatile("sti; hlt; cli");
	}
}

static void others_go_on(const uint64_t before[OTHERS_MAX])
{
	for (unsigned n = 1; n < total; n++)
		while (progress[n][0] == before[n])
			cpu_relax(); /* one that stays behind is a test that does not end */
}

/* ---- calls ---- */

/* All elements at once: many slices of 50 us, and the state between them is in registers. */
static bool rep_call(uint64_t ret[ELEMENTS])
{
	in[0] = UMBRA_CHECKSUM;
	for (unsigned n = 0; n < ELEMENTS; n++)
		in[1 + n] = gpa(memory + n * PAGES_PER_ELEMENT * (uint64_t)PAGE_BYTES) |
			    (PAGES_PER_ELEMENT - 1);
	for (unsigned n = 0; n < ELEMENTS; n++)
		out[n] = ~0ull;
	if (umbra_call(&hv, umbra_rep(UMBRA_CALL_PAGES, ELEMENTS), gpa(in), gpa(out)) !=
	    (uint64_t)ELEMENTS << 32)
		return false;
	for (unsigned n = 0; n < ELEMENTS; n++)
		ret[n] = out[n];
	return true;
}

static bool loop(void)
{
	uint64_t status;

	in[0] = next_id++;
	in[1] = UMBRA_CHECKSUM;
	in[2] = gpa(memory);
	in[3] = memory_bytes;
	in[4] = 0;
	status = umbra_call_until_done(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out));
	count(status);
	return status || (out[0] == whole && out[1] == memory_bytes);
}

/* Long and short requests; each has to complete once, and no other. */
static bool through_ring(void)
{
	uint64_t first = next_id, seen = 0;
	unsigned completions = 0;

	for (unsigned n = 0; n < ENTRIES; n++)
		*umbra_ring_request(&ring, n) =
			(struct umbra_request){ .id = next_id++,
						.code = n & 1 ? UMBRA_CALL_NULL : UMBRA_CALL_WORK,
						.input = { UMBRA_CHECKSUM, gpa(memory),
							   n & 1 ? 0 : 65536 * (1 + n) } };
	umbra_ring_put(&ring, ENTRIES);
	if (umbra_ring_doorbell(&hv, &ring))
		return false;
	while (completions < ENTRIES) {
		unsigned n = umbra_ring_done(&ring);

		for (unsigned k = 0; k < n; k++) {
			const struct umbra_completion *completion = umbra_ring_completion(&ring, k);
			uint64_t bit = 1ull << (completion->id - first);

			if (completion->id - first >= ENTRIES || seen & bit)
				return false;
			seen |= bit;
			count(completion->status);
		}
		umbra_ring_take(&ring, n);
		completions += n;
	}
	return umbra_ring_done(&ring) == 0;
}

/* Something is always under way: when it is done the next begins. */
static bool in_background(void)
{
	static uint64_t id;
	bool good = true;

	if (id && !umbra_ring_done(&background))
		return true;
	if (id) {
		const struct umbra_completion *completion = umbra_ring_completion(&background, 0);

		good = completion->id == id &&
		       (completion->status || completion->output[0] == whole);
		count(completion->status);
		umbra_ring_take(&background, 1);
	}
	id = next_id++;
	*umbra_ring_request(&background, 0) =
		(struct umbra_request){ .id = id,
					.code = UMBRA_CALL_WORK,
					.input = { UMBRA_CHECKSUM, gpa(memory), memory_bytes } };
	umbra_ring_put(&background, 1);
	return good && !umbra_ring_doorbell(&hv, &background);
}

struct reply {
	uint32_t type;
	uint8_t bytes, flags;
	uint16_t reserved;
	uint64_t sender, id;
	uint32_t status, reserved2;
	uint64_t result, done_bytes;
};

static bool packets(void)
{
	volatile struct reply *slot = (volatile struct reply *)(simp + 256 * REPLY_SINT);
	uint64_t first = next_id;

	for (unsigned n = 0; n < 8; n++) {
		for (unsigned k = 0; k < 9; k++)
			in[k] = 0;
		in[0] = 0x554d01;
		in[1] = 1 | 48ull << 32;
		in[2] = next_id++;
		in[3] = UMBRA_CHECKSUM;
		in[4] = gpa(memory);
		in[5] = 1 << 20;
		in[7] = REPLY_SINT;
		if (umbra_call(&hv, 0x5c, gpa(in), 0))
			return false;
	}
	for (uint64_t id = first; id < next_id; id++) { /* in the order in which they were sent */
		while (!slot->type)
			cpu_relax();
		if (slot->id != id)
			return false;
		count(slot->status);
		slot->type = 0;
		if (slot->flags & 1)
			wrmsr(MSR_EOM, 0);
	}
	return true;
}

/* ---- memory that is written in all ways, while it is saved as well: none of it may be old ---- */

enum {
	SPOTS = 700,
	SPOT_BYTES = 8192,
	KINDS = 7,
	KIND_FXSAVE = 6,
	FXSAVE_BYTES = 512,
	XMM0_OFFSET = 160,
	WINDOWS = 3
};
static uint8_t *const spots = (uint8_t *)0x8000000;

static uint64_t *spot(unsigned n) /* of two kinds across two pages */
{
	static const uint16_t offsets[KINDS] = { 64, 64, 64, 64, 4092, 4092, 1024 + XMM0_OFFSET };

	return (uint64_t *)(void *)(spots + (size_t)n * SPOT_BYTES + offsets[n % KINDS]);
}

static void write_spot(unsigned n, uint64_t value)
{
	uint64_t *at = spot(n);
	uint64_t count = 8;
	void *to = at;
	const void *from = &value;

	switch (n % KINDS) {
	case 0: *(volatile uint64_t *)at = value; break;
	case 1:
		__asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
		break;
	case 2: __atomic_fetch_add(at, value - *at, __ATOMIC_SEQ_CST); break;
	case 3:
		__asm__ volatile("mov %%rsp, %%rcx; mov %0, %%rsp; push %1; mov %%rcx, %%rsp"
				 :
				 : "r"(at + 1), "r"(value)
				 : "rcx", "memory");
		break;
	case 4: *(volatile uint64_t *)at = value; break;
	case KIND_FXSAVE:
		__asm__ volatile("movq %1, %%xmm0; fxsave -%c2(%0)"
				 :
				 : "r"(at), "r"(value), "i"(XMM0_OFFSET)
				 : "memory");
		break;
	default:
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
		break;
	}
}

static bool memory_is_as_written(void)
{
	static uint64_t last;
	uint64_t next = last * 6364136223846793005ull + 1442695040888963407ull;
	bool good = true;

	cli(); /* one of them has the stack elsewhere for a moment */
	for (unsigned n = 0; n < SPOTS; n++) {
		good &= !last || *spot(n) == (last ^ n);
		write_spot(n, next ^ n);
	}
	last = next;
	return good;
}

/*
 * Dirty flags of page tables, which only the processor writes: cleared in one round, set by a write
 * in the next, looked at in the third.
 */
static bool dirty_flags_stay(void)
{
	static uint64_t *entries[WINDOWS];
	static unsigned turn;
	bool good = true;

	/* each has a table of its own, so that the others do not write to it */
	for (unsigned n = 0; n < WINDOWS; n++) {
		uint64_t gva = 0x5000000000 + 0x200000ull * n;

		if (!entries[n])
			entries[n] = map_page(gva, gpa(new_page()), PAGE_P | PAGE_W);
		else if ((turn + n) % 3 == 0)
			*entries[n] &= ~(uint64_t)(PAGE_A | PAGE_D), invlpg(gva);
		else if ((turn + n) % 3 == 1)
			*(volatile uint8_t *)gva = 1;
		else if (turn > 3)
			good &= (*entries[n] & (PAGE_A | PAGE_D)) == (PAGE_A | PAGE_D);
	}
	turn++;
	return good;
}

/* ---- time, registers ---- */

static uint64_t reference_time(void)
{
	uint64_t sequence, scale, offset, tsc;

	do {
		sequence = (uint32_t)reference[0];
		scale = reference[1];
		offset = reference[2];
		tsc = rdtsc();
	} while ((uint32_t)reference[0] != sequence || !sequence);
	return (uint64_t)((unsigned __int128)tsc * scale >> 64) + offset;
}

/* The register, the page, and the register again; nothing goes backwards. */
static bool clocks(void)
{
	static uint64_t last_tsc, last_time;
	bool good = true;

	for (int n = 0; n < 200; n++) {
		uint64_t before = rdmsr(MSR_TIME), page = reference_time(), after = rdmsr(MSR_TIME),
			 tsc = rdtsc();

		good &= before >= last_time && page + 20 >= before && page <= after + 20 &&
			tsc > last_tsc;
		last_time = after;
		last_tsc = tsc;
	}
	return good;
}

/* How often HLT has ended without an interrupt. */
static unsigned woken_for_nothing;

static void halt(void)
{
	uint32_t before = 0, after = 0;

	for (unsigned n = 32; n < 256; n++)
		before += taken[n];
	__asm__ volatile("sti; hlt; cli");
	for (unsigned n = 32; n < 256; n++)
		after += taken[n];
	woken_for_nothing += after == before;
}

static bool one_timer(void)
{
	uint64_t due = rdmsr(MSR_TIME) + 50000;

	taken[0x50] = 0;
	wrmsr(MSR_TIMER0, 1 << 12 | 8 | 0x50 << 4);
	wrmsr(MSR_TIMER0 + 1, due);
	while (!taken[0x50])
		halt();
	return rdmsr(MSR_TIME) >= due && taken[0x50] == 1;
}

static uint64_t pattern(unsigned n) { return 0x0123456789abcdefull * (2 * n + 1); }

static void set_vectors(void)
{
	static const uint32_t mxcsr = 0x9fc0; /* flush to zero, denormals are zero */
	static const uint16_t control = 0x0f7f;

#define SET(n)                                                      \
	{                                                           \
		uint64_t v[2] = { pattern(n), ~pattern(n) };        \
		__asm__ volatile("movups %0, %%xmm" #n : : "m"(v)); \
	}
	SET(6) SET(7) SET(8) SET(9) SET(10) SET(11) SET(12) SET(13) SET(14) SET(15)
	__asm__ volatile("ldmxcsr %0; fldcw %1; fldpi; fld1" : : "m"(mxcsr), "m"(control));
}

static bool vectors_are_there(void)
{
	static uint8_t area[512] __attribute__((aligned(64)));
	bool good;

	__asm__ volatile("fxsave (%0)" : : "r"(area) : "memory");
	good = *(uint32_t *)(void *)(area + 24) == 0x9fc0 && *(uint16_t *)(void *)area == 0x0f7f &&
	       *(uint64_t *)(void *)(area + 32) == 1ull << 63 &&
	       *(uint64_t *)(void *)(area + 48) ==
		       0xc90fdaa22168c234ull; /* pi, rounded down as the control word has it */
	for (unsigned n = 6; n < 16; n++)
		good &= *(uint64_t *)(void *)(area + 160 + 16 * n) == pattern(n) &&
			*(uint64_t *)(void *)(area + 168 + 16 * n) == ~pattern(n);
	return good;
}

/* ---- all of it ---- */

static void open_everything(void)
{
	uint8_t *ring_memory = memory + memory_bytes;
	volatile void *page = new_page();

	simp = new_page();
	reference = new_page();
	wrmsr(MSR_SIMP, gpa(simp) | 1);
	wrmsr(MSR_SIEFP, gpa(page) | 1);
	wrmsr(MSR_REFERENCE, gpa(reference) | 1);
	wrmsr(MSR_SCONTROL, 1);
	wrmsr(MSR_SINT0 + REPLY_SINT, REPLY_VECTOR);
	check_equal("a ring",
		    umbra_ring_open(&hv, &ring, 3, ENTRIES, ring_memory, gpa(ring_memory),
				    RING_SINT, in, gpa(in)),
		    0);
	ring_memory += 65536;
	check_equal("another",
		    umbra_ring_open(&hv, &background, 7, 2, ring_memory, gpa(ring_memory), 0, in,
				    gpa(in)),
		    0);
	for (uint64_t n = 0; n < memory_bytes; n += 8)
		*(uint64_t *)(void *)(memory + n) = n * 0x9e3779b97f4a7c15ull;
	check("checksums", rep_call(expected));
	in[0] = next_id++;
	in[1] = UMBRA_CHECKSUM, in[2] = gpa(memory), in[3] = memory_bytes, in[4] = 0;
	umbra_call_until_done(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out));
	whole = out[0];
	set_vectors();
}

enum { ROUNDS_LEAST = 3 };

enum { UART_DATA = 0x3f8, UART_LINE_STATUS = 0x3fd };

#ifdef ROUNDS
/* Nobody has said for a while that it is to go on (guest-forked): a forked machine has nobody. */
static bool is_told_to_end(void)
{
	while (inb(UART_LINE_STATUS) & 1) {
		inb(UART_DATA);
		told_to_go_on = rounds;
	}
	return rounds - told_to_go_on >= ROUNDS;
}
#else
/* Somebody has said that it is enough. */
static bool is_told_to_end(void) { return inb(UART_LINE_STATUS) & 1; }
#endif

void test_main(void)
{
	bool good[8] = { true, true, true, true, true, true, true, true };
	uint64_t results[ELEMENTS];

	hv_open();
	in = new_page();
	out = new_page();
	open_everything();
	count_interrupts();
	total = start_processors();
	print("READY\n");
	/* however slow the host is: a few rounds, or nothing was tried */
	while (rounds < ROUNDS_LEAST || !is_told_to_end()) {
		uint64_t before[OTHERS_MAX];

		for (unsigned n = 0; n < total; n++)
			before[n] = progress[n][0];
		good[0] &= rep_call(results);
		for (unsigned n = 0; n < ELEMENTS; n++)
			good[0] &= results[n] == expected[n];
		good[1] &= loop();
		good[2] &= through_ring();
		good[3] &= packets();
		/* meanwhile: what follows, and the calls of the next round */
		good[2] &= in_background();
		for (unsigned n = 0; n < 10; n++)
			good[7] &= memory_is_as_written();
		good[7] &= dirty_flags_stay();
		good[4] &= clocks();
		good[5] &= one_timer();
		good[6] &= vectors_are_there();
		others_go_on(before);
		rounds++;
	}
	check("calls that yield", good[0]);
	check("looping calls", good[1]);
	check("rings: each request one completion", good[2]);
	check("packets: each request one reply, in order", good[3]);
	check("clocks agree and do not go back", good[4]);
	check("timers", good[5]);
	check("vector registers", good[6]);
	check("memory", good[7]);
	check_equal("no request failed", failed, 0);
	check_equal("HLT ends with an interrupt only", woken_for_nothing, 0);
	check("several rounds", rounds >= ROUNDS_LEAST);
	print("CANCELLED ");
	print_number(cancelled);
	print("\nDONE ");
	print_number(done);
	print("\n");
}
