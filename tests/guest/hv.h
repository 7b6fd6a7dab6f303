/* What guests that test the Hyper-V interface share. GVA and GPA are the same (start.S). */
#pragma once

#include "guest/umbra.h"
#include "guest.h"

/* Elements done in a result, and to do in a call: 12 bits. */
enum { REP_MASK = 0xfff };

#define OS_ID 0x8100000601000000ull
enum {
	MSR_OS_ID = 0x40000000,
	MSR_HYPERCALL,
	MSR_VP_INDEX,
	MSR_RESET,
	MSR_RUNTIME = 0x40000010,
	MSR_TIME = 0x40000020,
	MSR_REFERENCE,
	MSR_TSC_HZ,
	MSR_APIC_HZ,
	MSR_EOI = 0x40000070,
	MSR_ICR,
	MSR_TPR,
	MSR_ASSIST,
	MSR_SCONTROL = 0x40000080,
	MSR_SVERSION,
	MSR_SIEFP,
	MSR_SIMP,
	MSR_EOM,
	MSR_SINT0 = 0x40000090,
	MSR_TIMER0 = 0x400000b0,
	MSR_IDLE = 0x400000f0,
	MSR_CRASH0 = 0x40000100,
	MSR_CRASH_CONTROL = 0x40000105,
	MSR_INVARIANT = 0x40000118,
};

extern struct umbra hv;
/*
 * Finds the hypervisor, enables the hypercall page and agrees on the newest version; ends the test
 * where that fails.
 */
void hv_open(void);
/* Other monitors with the Hyper-V interface have no extension. */
static inline bool hv_is_umbra(void) { return hv.newest != 0; }
/*
 * The line of one wrong act: its name and its outcome (a status, or TRAP), which must be `want`.
 * Other monitors may differ, as the interface lets them: what counts there is that the machine goes
 * on.
 */
void check_act(const char *name, uint64_t got, uint64_t want);
static inline uint64_t gpa(const volatile void *pointer) { return (uint64_t)pointer; }
/* The vector that reading or writing raises, or -1. */
int64_t try_rdmsr(uint32_t msr);
int64_t try_wrmsr(uint32_t msr, uint64_t value);
/*
 * Processor local APIC in x2APIC mode, interrupts enabled by the caller. Vectors count in taken[];
 * EOI is written.
 */
void count_interrupts(void);
extern volatile uint32_t taken[256];
static inline void cpuid(uint32_t leaf, uint32_t registers[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(registers[0]), "=b"(registers[1]), "=c"(registers[2]),
			   "=d"(registers[3])
			 : "a"(leaf), "c"(0));
}
static inline void sti(void) { __asm__ volatile("sti; nop" : : : "memory"); }
static inline void cli(void) { __asm__ volatile("cli" : : : "memory"); }

/* One wrong act of tests/guest/wrong: run() returns what came of it, to be equal to `want`. */
struct wrong_act { const char *name; uint64_t (*run)(void); uint64_t want; };
#define WRONG_ACT(text, expected)                                                             \
	static uint64_t run(void);                                                            \
	static const struct wrong_act act = { text, run, expected };                          \
	static const struct wrong_act *const pointer __attribute__((section("acts"), used)) = \
		&act;                                                                         \
	static uint64_t run(void)
/* A trap as an outcome. */
#define TRAP(vector) (0x100000000ull | (vector))
uint64_t outcome_of_wrmsr(uint32_t msr, uint64_t value);
uint64_t outcome_of_rdmsr(uint32_t msr);
uint64_t outcome_of_store(volatile void *at);
/* A zeroed page to put input into, the same each time. */
uint64_t *input_page(void);
uint64_t *output_page(void);
