/*
 * SynIC and synthetic timers: messages and their order, busy slots, EOM, masks, auto-EOI, polling;
 * one-shot, periodic, direct.
 */
#include "hv.h"

enum {
	MASKED = 1 << 16,
	AUTO_EOI = 1 << 17,
	POLLING = 1 << 18,
	ENABLE = 1,
	PERIODIC = 2,
	AUTO = 8,
	DIRECT = 1 << 12
};

struct message {
	uint32_t type;
	uint8_t bytes, flags;
	uint16_t reserved;
	uint64_t sender;
	uint32_t timer, reserved2;
	uint64_t due, now;
};

static volatile uint8_t *simp;
static bool no_eoi;
enum { OWN_VECTOR = 0x58, OWN_MESSAGES = 20, CPUS_MAX = 17 };
static volatile struct { uint32_t messages, wrong, interrupts, done; } own[CPUS_MAX];

static volatile struct message *slot(unsigned sint)
{
	return (volatile struct message *)(simp + 256 * sint);
}
static void wait_us(unsigned us)
{
	uint64_t end = rdmsr(MSR_TIME) + 10 * us;
	sti();
	while (rdmsr(MSR_TIME) < end)
		cpu_relax();
	cli();
}
static bool wait_for(unsigned vector)
{
	for (int n = 0; n < 2000 && !taken[vector]; n++)
		wait_us(50);
	return taken[vector];
}

static bool without_eoi(struct frame *frame)
{
	if (frame->vector < 32)
		return false;
	taken[frame->vector]++;
	if (frame->vector == OWN_VECTOR)
		own[apic_id()].interrupts++;
	if (!no_eoi)
		wrmsr(0x80b, 0);
	return true;
}

static void one_shot(void)
{
	uint64_t due = rdmsr(MSR_TIME) + 500000; /* after the next look */

	taken[0x50] = 0;
	wrmsr(MSR_SINT0 + 4, 0x50);
	wrmsr(MSR_TIMER0, AUTO | 4 << 16);
	wrmsr(MSR_TIMER0 + 1, due);
	check_equal("a count enables the timer", rdmsr(MSR_TIMER0) & ENABLE, ENABLE);
	check("the message came", wait_for(0x50));
	check_equal("its type", slot(4)->type, 0x80000010);
	check("timer and times", slot(4)->timer == 0 && slot(4)->due == due && slot(4)->now >= due);
	check_equal("the timer is off", rdmsr(MSR_TIMER0) & ENABLE, 0);
	slot(4)->type = 0;
	wrmsr(MSR_TIMER0 + 1, rdmsr(MSR_TIME) + 100000);
	wrmsr(MSR_TIMER0 + 1, 0);
	taken[0x50] = 0;
	wait_us(15000);
	check_equal("a count of 0 disables it", taken[0x50], 0);
	wrmsr(MSR_TIMER0 + 1, 1);
	check("a time that has passed expires at once", wait_for(0x50));
	slot(4)->type = 0;
}

static void busy_slot(void)
{
	taken[0x50] = 0;
	slot(4)->type = 1;
	wrmsr(MSR_TIMER0 + 1, 1);
	wait_us(500);
	check_equal("a busy slot: no interrupt", taken[0x50], 0);
	check_equal("but the pending flag", slot(4)->flags & 1, 1);
	slot(4)->type = 0;
	slot(4)->flags = 0;
	wrmsr(MSR_EOM, 0);
	check("after EOM it comes", wait_for(0x50));
	slot(4)->type = 0;
}

static void masks(void)
{
	taken[0x50] = 0;
	wrmsr(MSR_SINT0 + 4, 0x50 | MASKED);
	wrmsr(MSR_TIMER0 + 1, 1);
	wait_us(500);
	check("masked: a message without an interrupt", slot(4)->type && !taken[0x50]);
	slot(4)->type = 0;
	wrmsr(MSR_SINT0 + 4, 0x50 | POLLING);
	wrmsr(MSR_TIMER0 + 1, 1);
	wait_us(500);
	check("polling: a message without an interrupt", slot(4)->type && !taken[0x50]);
	slot(4)->type = 0;
	wrmsr(MSR_SINT0 + 4, 0x50 | AUTO_EOI);
	no_eoi = true;
	wrmsr(MSR_TIMER0 + 1, 1);
	check("auto-EOI: it comes", wait_for(0x50));
	check_equal("and is not in service", rdmsr(0x810 + (0x50 >> 5)), 0);
	no_eoi = false;
	slot(4)->type = 0;
	wrmsr(MSR_SINT0 + 4, 0x50);
	wrmsr(MSR_SCONTROL, 0);
	taken[0x50] = 0;
	wrmsr(MSR_TIMER0 + 1, 1);
	wait_us(500);
	check("SynIC off: nothing", !slot(4)->type && !taken[0x50]);
	wrmsr(MSR_SCONTROL, 1);
	check("on again: it comes", wait_for(0x50));
	slot(4)->type = 0;
}

static void periodic_and_direct(void)
{
	uint64_t t0, passed;

	taken[0x51] = 0;
	wrmsr(MSR_TIMER0 + 2, 0);
	wrmsr(MSR_TIMER0 + 3, 10000);
	wrmsr(MSR_TIMER0 + 2, ENABLE | PERIODIC | DIRECT | 0x51 << 4);
	t0 = rdmsr(MSR_TIME);
	while (taken[0x51] < 20 && rdmsr(MSR_TIME) - t0 < 10000000)
		wait_us(100);
	passed = rdmsr(MSR_TIME) - t0;
	wrmsr(MSR_TIMER0 + 2, 0);
	check("twenty periods of a millisecond", taken[0x51] >= 20);
	check("in no less than their time", passed >= 190000);
	taken[0x51] = 0;
	wait_us(5000);
	check_equal("off", taken[0x51], 0);
	wrmsr(MSR_TIMER0 + 4, ENABLE);
	check_equal("no SINT, not direct: not enabled", rdmsr(MSR_TIMER0 + 4) & ENABLE, 0);
	wrmsr(MSR_TIMER0 + 4, AUTO);
	wrmsr(MSR_TIMER0 + 5, 10000);
	check_equal("nor by a count", rdmsr(MSR_TIMER0 + 4) & ENABLE, 0);
	wrmsr(MSR_TIMER0 + 6, AUTO | DIRECT | 0x52 << 4);
	wrmsr(MSR_TIMER0 + 7, rdmsr(MSR_TIME) + 1000);
	check("the fourth timer, direct", wait_for(0x52));
}

/* HLT and the idle register both wake by a timer; the latter with interrupts masked as well. */
static void waiting(void)
{
	uint64_t t0 = rdmsr(MSR_TIME);

	taken[0x52] = 0;
	wrmsr(MSR_TIMER0 + 7, t0 + 50000);
	rdmsr(MSR_IDLE);
	check("the idle register waits for a masked interrupt",
	      rdmsr(MSR_TIME) - t0 >= 50000 && !taken[0x52]);
	check("which then comes", wait_for(0x52));
	taken[0x52] = 0;
	t0 = rdmsr(MSR_TIME);
	wrmsr(MSR_TIMER0 + 7, t0 + 50000);
	__asm__ volatile("sti; hlt; cli");
	check("HLT waits for it", rdmsr(MSR_TIME) - t0 >= 50000 && taken[0x52]);
}

static bool send_packet(uint64_t id)
{
	uint64_t *in = input_page();

	in[0] = 0x554d01;
	in[1] = 1 | 48ull << 32;
	in[2] = id;
	in[3] = in[4] = in[5] = in[6] = 0;
	in[7] = 5;
	return !umbra_call(&hv, 0x5c, gpa(in), 0);
}

/*
 * Packets whose replies have no room wait in order; also when others are sent meanwhile, which take
 * the places of those that went.
 */
static void queued_replies(void)
{
	uint64_t order = 0, sent = 20;
	struct { uint64_t id; uint32_t status, reserved; uint64_t result, done; } reply;
	bool good = true;

	wrmsr(MSR_SINT0 + 5, 0x53);
	for (uint64_t id = 1; id <= 20; id++)
		good &= send_packet(id);
	check("twenty packets are taken", good);
	wait_us(3000);
	for (int n = 0; n < 4000 && order < 40; n++) {
		volatile uint64_t *from = (volatile uint64_t *)(simp + 256 * 5 + 16);

		if (!slot(5)->type) {
			wait_us(20);
			continue;
		}
		for (int i = 0; i < 4; i++)
			((uint64_t *)&reply)[i] = from[i];
		good &= reply.id == ++order && !reply.status;
		slot(5)->type = 0;
		__asm__ volatile("mfence" : : : "memory");
		if (slot(5)->flags & 1)
			wrmsr(MSR_EOM, 0);
		if (sent < 40) {
			good &= send_packet(++sent);
			wait_us(300); /* it is done before there is room */
		}
	}
	check_equal("forty replies", order, 40);
	check("in order, all of them good", good);
}

/*
 * Each processor: a periodic timer's messages in its own page, each with an interrupt of its own.
 */
void test_other(unsigned me)
{
	volatile uint8_t *page = new_page();
	volatile struct message *message = (volatile struct message *)(page + 256 * 4);
	uint64_t last = 0;

	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	wrmsr(MSR_SIMP, gpa(page) | 1);
	wrmsr(MSR_SCONTROL, 1);
	wrmsr(MSR_SINT0 + 4, OWN_VECTOR);
	wrmsr(MSR_TIMER0 + 3, 5000);
	wrmsr(MSR_TIMER0 + 2, ENABLE | PERIODIC | 4 << 16);
	while (own[me].messages < OWN_MESSAGES) {
		__asm__ volatile("sti; hlt; cli");
		if (!message->type)
			continue;
		own[me].wrong += message->type != 0x80000010 || message->timer != 1 ||
				 message->now < message->due || message->due <= last;
		own[me].messages++;
		last = message->due;
		message->type = 0;
		__asm__ volatile("mfence" : : : "memory");
		if (message->flags & 1)
			wrmsr(MSR_EOM, 0);
	}
	wrmsr(MSR_TIMER0 + 2, 0);
	own[me].done = 1;
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void every_processor(void)
{
	unsigned total = start_processors(), done = 0, wrong = 0, interrupts = 0;

	for (int tries = 0; tries < 40000 && done < total - 1; tries++) {
		wait_us(100);
		done = 0;
		for (unsigned n = 1; n < total; n++)
			done += own[n].done;
	}
	for (unsigned n = 1; n < total; n++) {
		wrong += own[n].wrong;
		interrupts += own[n].interrupts >= OWN_MESSAGES;
	}
	check_equal("every processor got its timer's messages", done, total - 1);
	check_equal("none of them wrong", wrong, 0);
	check_equal("each with an interrupt", interrupts, total - 1);
}

void test_main(void)
{
	hv_open();
	count_interrupts();
	on_trap = without_eoi;
	simp = new_page();
	wrmsr(MSR_SIMP, gpa(simp) | 1);
	wrmsr(MSR_SCONTROL, 1);
	one_shot();
	busy_slot();
	masks();
	periodic_and_direct();
	waiting();
	queued_replies();
	every_processor();
}
