/*
 * What bare-metal guests of 32 bits share: traps, users, descriptors. Paging is off when
 * test_main() begins.
 */
#pragma once

#include "../report.h"

struct frame {
	uint32_t gs, fs, es, ds, edi, esi, ebp, own_esp, ebx, edx, ecx, eax, vector, code, eip, cs,
		eflags;
	/* of a user, and of virtual-8086 mode */
	uint32_t esp, ss, virtual_es, virtual_ds, virtual_fs, virtual_gs;
};

/* Provided by the test. */
void test_main(void);

/* The last trap, and CR2 with it. */
extern struct frame last;
extern uint32_t last_cr2;
/* Called for each; true: handled, go on at the (changed) frame. */
extern bool (*on_trap)(struct frame *frame);
/* The vector that code raised, or -1. */
int try_code(void (*code)(void));
/*
 * Goes to a frame of so many words: EIP, CS, EFLAGS, and ESP, SS of a user, and ES, DS, FS, GS of
 * virtual-8086 mode. The vector that comes back.
 */
int try_iret(const uint32_t *frame, unsigned words);

enum {
	CODE = 8,
	DATA = 0x10,
	USER_CODE = 0x1b,
	USER_DATA = 0x23,
	CODE_16 = 0x28,
	DATA_16 = 0x30,
	TASK = 0x38,
	FREE = 0x40 /* from here on the tests' */
};
enum { NONE = -1, DE = 0, DB = 1, BP = 3, OF = 4, BR = 5, UD = 6, DF = 8, TS = 10, NP, SS, GP, PF };
enum { DONE = 0x80 }; /* INT 80H is for everybody */
enum {
	FLAG_CF = 1,
	FLAG_TF = 0x100,
	FLAG_IF = 0x200,
	FLAG_OF = 0x800,
	FLAG_IOPL = 0x3000,
	FLAG_NT = 0x4000,
	FLAG_RF = 0x10000,
	FLAG_VM = 0x20000,
	FLAG_AC = 0x40000
};
enum { CR0_PE = 1, CR0_TS = 8, CR0_WP = 0x10000 };
#define CR0_PG 0x80000000u
enum { CR4_PSE = 0x10, CR4_PAE = 0x20, CR4_PGE = 0x80, CR4_SMEP = 0x100000, CR4_SMAP = 0x200000 };
enum { PAGE_BYTES = 1 << 12 };
enum { PAGE_P = 1, PAGE_W = 2, PAGE_U = 4, PAGE_A = 0x20, PAGE_D = 0x40, PAGE_LARGE = 0x80 };

/*
 * A segment: its base, its limit as the descriptor has it, type and rights (bits 7:0), G and D (15,
 * 14).
 */
uint64_t descriptor(uint32_t base, uint32_t limit, unsigned attributes);
enum {
	SEGMENT_G = 0x8000,
	SEGMENT_D = 0x4000,
	SEGMENT_P = 0x80,
	DPL_3 = 0x60,
	TASK_32 = 9,
	TASK_16 = 1,
	TASK_BUSY = 2,
	CODE_KIND = 0x1b,
	DATA_KIND = 0x13,
	LOCAL_TABLE = 2
};
extern uint64_t gdt[];
void set_descriptor(unsigned selector, uint64_t value);
/* An interrupt gate to a handler, and any other. */
void set_gate(unsigned vector, const void *handler, unsigned dpl);
void set_raw_gate(unsigned vector, uint64_t gate);
uint64_t task_gate(unsigned selector, unsigned dpl);
/* The stub of a vector, which every gate leads to at first. */
const void *stub_of(unsigned vector);
/* The task that everything runs in. */
struct task {
	uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp,
		ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt;
	uint16_t trap, io_map;
	uint8_t ports[64], behind_ports;
} __attribute__((packed));
extern struct task main_task;
/* An address below 4 GiB as a number, and as a pointer. */
static inline uint32_t at(const volatile void *address) { return (uint32_t)(uintptr_t)address; }
void copy(uint32_t to, const uint8_t *code, const uint8_t *end);

/* Instructions, assembled for 16 or 32 bits. */
#define SNIPPET(bits, name, text)                                                              \
	__asm__(".code" #bits "\n.globl " #name ", " #name "_end\n" #name ": " text "\n" #name \
		"_end: .code32\n");                                                            \
	extern const uint8_t name[], name##_end[];

#define REGISTER(name)                                                          \
	static inline uint32_t read_##name(void)                                \
	{                                                                       \
		uint32_t value;                                                 \
		__asm__ volatile("mov %%" #name ", %0" : "=r"(value));          \
		return value;                                                   \
	}                                                                       \
	static inline void write_##name(uint32_t value)                         \
	{                                                                       \
		__asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory"); \
	}
REGISTER(cr0)
REGISTER(cr2)
REGISTER(cr3)
REGISTER(cr4)
REGISTER(dr6)
static inline void invlpg(uint32_t gva) { __asm__ volatile("invlpg (%0)" : : "r"(gva) : "memory"); }
static inline uint32_t read32(uint32_t gva) { return *(volatile uint32_t *)gva; }
static inline void write32(uint32_t gva, uint32_t value) { *(volatile uint32_t *)gva = value; }
static inline uint64_t rdmsr(uint32_t msr)
{
	uint64_t value;

	__asm__ volatile("rdmsr" : "=A"(value) : "c"(msr));
	return value;
}
static inline void wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "A"(value), "c"(msr) : "memory");
}
