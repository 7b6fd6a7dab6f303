/*
 * What the hypervisor interface costs a guest, measured inside one (bench/hypercall runs it): one
 * line "name value unit" each. Times of loops are the best of RUNS passes; latencies are
 * percentiles over all samples.
 */
#include "../tests/guest/hv.h"

enum { RUNS = 15, LOOPS = 20000, SAMPLES = 2000, VECTOR = 0x40 };
enum { REPS_DONE_MASK = 0xfff };

static uint64_t tsc_hz;
static volatile uint32_t stop, spinning;
static uint64_t *in, *out;

void test_other(unsigned index)
{
	(void)index;
	sti();
	spinning = 1;
	while (!stop)
		__asm__ volatile("" : : : "memory");
	for (;;)
		__asm__ volatile("hlt");
}

static void report(const char *name, uint64_t value, const char *unit)
{
	char digits[24];
	char *at = digits + 23;

	*at = 0;
	do
		*--at = (char)('0' + value % 10);
	while (value /= 10);
	print(name);
	print(" ");
	print(at);
	print(unit);
}

/* a * b / c, where the quotient fits. */
static uint64_t muldiv(uint64_t a, uint64_t b, uint64_t divisor)
{
	uint64_t high;

	__asm__("mulq %2\n\tdivq %3" : "+a"(a), "=&d"(high) : "r"(b), "r"(divisor) : "cc");
	return a;
}

static uint64_t best_ps(void (*pass)(unsigned loops), unsigned loops)
{
	uint64_t best = ~0ull;

	for (unsigned n = 0; n < RUNS; n++) {
		uint64_t t0 = rdtsc();
		uint64_t elapsed;

		pass(loops);
		elapsed = rdtsc() - t0;
		best = elapsed < best ? elapsed : best;
	}
	return muldiv(best, 1000000000000ull, tsc_hz) / loops;
}

static void time_loop(const char *name, void (*pass)(unsigned loops), unsigned loops)
{
	report(name, best_ps(pass, loops) / 100, " tenths-of-ns\n");
}

/* ---- loops ---- */

static void null_call(unsigned n)
{
	while (n--)
		umbra_call(&hv, umbra_fast(UMBRA_CALL_NULL), 0, 0);
}
static void vp_index(unsigned n) { while (n--) rdmsr(MSR_VP_INDEX); }
static void reference_time(unsigned n) { while (n--) rdmsr(MSR_TIME); }

static uint64_t now_100ns(void) { return muldiv(rdtsc(), 10000000, tsc_hz); }
static uint64_t skew;

static void timer_later(unsigned n)
{
	for (uint64_t due = now_100ns() + skew + 1000000; n--; due++)
		wrmsr(MSR_TIMER0 + 1, due);
}

/*
 * Every one earlier than all before, in all runs, so that none finds the host's timer set well
 * enough.
 */
static void timer_earlier(unsigned n)
{
	static uint64_t due;

	if (!due) {
		/* what the host's timer was set to for the other loop has passed by then */
		due = now_100ns() + skew + 2000000;
		while (now_100ns() + skew < due)
			;
		due += 100000000;
	}
	while (n--)
		wrmsr(MSR_TIMER0 + 1, due--);
}

static void flush_one(unsigned n)
{
	in[0] = 0;
	in[1] = 2;
	in[2] = 2;
	in[3] = 0x4000000000;
	while (n--)
		umbra_call(&hv, umbra_rep(3, 1), gpa(in), 0);
}

static void flush_nobody(unsigned n)
{
	in[0] = 0;
	in[1] = 2;
	in[2] = 0;
	in[3] = 0x4000000000;
	while (n--)
		umbra_call(&hv, umbra_rep(3, 1), gpa(in), 0);
}

static void user_loop(unsigned loops)
{
	uint8_t *code = (uint8_t *)input_page();
	static const uint8_t program[] = {
		0xbb, 0, 0, 0, 0, 0x0f, 0x05, 0xff, 0xcb, 0x75, 0xfa, 0x0f, 0x0b
	}; /* mov ebx, n; 1: syscall; dec; jnz; ud2 */

	for (unsigned n = 0; n < sizeof(program); n++)
		code[n] = program[n];
	*(uint32_t *)(void *)(code + 1) = loops;
	try_user((void (*)(void))0x6000000000, 0x6000002000, 0x33);
}

static void null_syscall(void)
{
	extern char syscall_entry[];

	__asm__(".globl syscall_entry\n.pushsection .text.entry,\"ax\"\nsyscall_entry: sysretq\n"
		".popsection");
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
	wrmsr(0xc0000081, 0x20ull << 48 | 8ull << 32);
	wrmsr(0xc0000082, (uint64_t)syscall_entry);
	wrmsr(0xc0000084, 0x200);
	map_page(0x6000000000, gpa(input_page()), PAGE_P | PAGE_W | PAGE_U);
	map_page(0x6000001000, gpa(output_page()), PAGE_P | PAGE_W | PAGE_U);
	time_loop("null-syscall", user_loop, LOOPS);
}

/* ---- rings ---- */

static struct umbra_ring ring;

static uint64_t bad;

static void ring_of_64(unsigned n)
{
	while (n--) {
		for (uint32_t k = 0; k < 64; k++) {
			struct umbra_request *request = umbra_ring_request(&ring, k);

			request->id = k;
			request->code = UMBRA_CALL_NULL;
			request->flags = 0;
			request->reserved = 0;
		}
		umbra_ring_put(&ring, 64);
		umbra_ring_doorbell(&hv, &ring);
		for (uint32_t k = 0; k < 64; k++)
			bad += umbra_ring_completion(&ring, k)->status;
		umbra_ring_take(&ring, 64);
	}
}

static void single_64(unsigned n)
{
	while (n--)
		null_call(64);
}

/* ---- latencies ---- */

static uint64_t samples[SAMPLES];
static volatile uint32_t sampled;
static uint64_t due;

static bool on_timer(struct frame *frame)
{
	uint64_t now = rdmsr(MSR_TIME);

	if (frame->vector != VECTOR)
		return false;
	if (sampled < SAMPLES)
		samples[sampled] = now - due;
	sampled++;
	due = now + 2000 + (sampled * 37) % 1000;
	wrmsr(MSR_TIMER0 + 1, due);
	wrmsr(0x80b, 0);
	return true;
}

static void percentiles(const char *name, unsigned count)
{
	for (unsigned n = 1; n < count; n++)
		for (unsigned k = n; k && samples[k] < samples[k - 1]; k--) {
			uint64_t swapped = samples[k];

			samples[k] = samples[k - 1];
			samples[k - 1] = swapped;
		}
	print(name);
	report("-p50", samples[count / 2], " 100ns\n");
	print(name);
	report("-p99", samples[count * 99 / 100], " 100ns\n");
	print(name);
	report("-max", samples[count - 1], " 100ns\n");
}

static void measure_latency(const char *name, unsigned count, bool (*work)(void))
{
	wrmsr(MSR_TIMER0 + 1, 0);
	sti(); /* what is still pending from before */
	cli();
	sampled = 0;
	due = rdmsr(MSR_TIME) + 2000;
	wrmsr(MSR_TIMER0 + 1, due);
	while (sampled < count && work())
		;
	cli();
	percentiles(name, count < sampled ? count : sampled);
}

static bool halt(void) { __asm__ volatile("sti; hlt"); return true; }
static bool compute(void)
{
	sti();
	for (int n = 0; n < 1000; n++)
		__asm__ volatile("");
	return true;
}

static uint64_t elements;

static bool rep_call(void)
{
	sti();
	elements += umbra_call(&hv, umbra_rep(UMBRA_CALL_PAGES, 500), gpa(in), gpa(out)) >> 32 &
		    REPS_DONE_MASK;
	return elements < 1000000;
}

void test_main(void)
{
	uint64_t one, packed;
	unsigned total;

	hv_open();
	in = new_page();
	out = new_page();
	tsc_hz = rdmsr(MSR_TSC_HZ);
	count_interrupts();
	null_syscall();
	time_loop("null-hypercall", null_call, LOOPS);
	time_loop("read-vp-index", vp_index, LOOPS);
	time_loop("read-reference-time", reference_time, LOOPS);
	wrmsr(MSR_TIMER0, 1 << 3 | 1 << 12 | VECTOR << 4);
	skew = rdmsr(MSR_TIME) - now_100ns();
	time_loop("timer-later", timer_later, LOOPS);
	time_loop("timer-earlier", timer_earlier, LOOPS);
	wrmsr(MSR_TIMER0 + 1, 0);
	umbra_ring_open(&hv, &ring, 0, 64, (void *)0x8000000, 0x8000000, 0, in, gpa(in));
	one = best_ps(single_64, 200) / 64;
	packed = best_ps(ring_of_64, 200) / 64;
	report("single-call", one / 100, " tenths-of-ns\n");
	check_equal("the ring's calls were good", bad, 0);
	report("ring-call", packed / 100, " tenths-of-ns\n");
	on_trap = on_timer;
	measure_latency("timer-latency-halted", SAMPLES, halt);
	measure_latency("timer-latency-busy", SAMPLES, compute);
	in[0] = UMBRA_CHECKSUM;
	for (unsigned n = 0; n < 500; n++)
		in[1 + n] = 0x8000000 + UMBRA_PAGE_BYTES * (uint64_t)n;
	measure_latency("timer-latency-rep", SAMPLES, rep_call);
	report("rep-elements", elements, "\n");
	wrmsr(MSR_TIMER0 + 1, 0);
	total = start_processors();
	while (total > 1 && !spinning)
		cpu_relax();
	time_loop("flush-nobody", flush_nobody, 2000);
	time_loop("flush-one-remote-page", flush_one, 2000);
	stop = 1;
}
