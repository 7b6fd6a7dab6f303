/*
 * What bare-metal test guests share: traps, pages, processors. Of 64 bits; 32/guest.h has those of
 * 32.
 */
#pragma once

#include "report.h"

struct frame {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, vector,
		code, rip, cs, rflags, rsp, ss;
};

/* Provided by the test. */
void test_main(void);
/* Runs on every other processor that start_processors() woke. */
void test_other(unsigned index);

/* The last trap that try_code() or try_user() met, or that a handler returned from. */
extern struct frame last;
extern uint64_t last_cr2;
/* Called for a trap that is not caught by try; true: handled, go on at the (changed) frame. */
extern bool (*on_trap)(struct frame *frame);
/* The vector that code raised, or -1. */
int64_t try_code(void (*code)(void *), void *argument);
int64_t try_user(void (*code)(void), uint64_t stack, uint64_t selector);
/* RFLAGS that try_user() begins with: 2. */
extern uint64_t try_flags;

/*
 * Maps one 4 KiB page at gva (below 512 GiB) with these flags; makes tables with all rights.
 * Returns the entry.
 */
uint64_t *map_page(uint64_t gva, uint64_t gpa, uint64_t flags);
/* A fresh zeroed page of guest memory. */
void *new_page(void);
/* So many fresh ones from gva on, which a user may write. */
void map_user_pages(uint64_t gva, unsigned pages);
void put_code(uint64_t gva, const uint8_t *code, const uint8_t *end);
/*
 * Code that ends with INT 80H, as a user at gva with this stack and code selector: which vector it
 * must raise, and RAX if it is that one. Whether it must be.
 */
struct user_place { uint64_t gva, stack, selector; };
enum { USER_DONE = 0x80 };
bool check_user_code(const struct user_place *place, const char *name, const uint8_t *code,
		     const uint8_t *end, int64_t vector, uint64_t rax);
void set_gate(unsigned vector, void *handler, unsigned ist, unsigned dpl);
/* This vector's handler runs on a stack of its own (IST 1) from now on. */
void use_trap_stack(unsigned vector);
/* Wakes the other processors; how many there are with this one. */
unsigned start_processors(void);
unsigned apic_id(void);

enum { PAGE_BYTES = 4096, PAGE_OFFSET = PAGE_BYTES - 1 };
enum { PAGE_P = 1, PAGE_W = 2, PAGE_U = 4, PAGE_A = 0x20, PAGE_D = 0x40, PAGE_G = 0x100 };
#define PAGE_NX (1ull << 63)

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}
static inline void wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr"
			 :
			 : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr)
			 : "memory");
}
static inline void invlpg(uint64_t gva) { __asm__ volatile("invlpg (%0)" : : "r"(gva) : "memory"); }
static inline uint64_t read_cr0(void)
{
	uint64_t value;
	__asm__ volatile("mov %%cr0, %0" : "=r"(value));
	return value;
}
static inline uint64_t read_cr3(void)
{
	uint64_t value;
	__asm__ volatile("mov %%cr3, %0" : "=r"(value));
	return value;
}
static inline uint64_t read_cr4(void)
{
	uint64_t value;
	__asm__ volatile("mov %%cr4, %0" : "=r"(value));
	return value;
}
static inline void write_cr0(uint64_t value)
{
	__asm__ volatile("mov %0, %%cr0" : : "r"(value) : "memory");
}
static inline void write_cr3(uint64_t value)
{
	__asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory");
}
static inline void write_cr4(uint64_t value)
{
	__asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}
static inline uint64_t rdtsc(void)
{
	uint32_t low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}
static inline void cpu_relax(void) { __asm__ volatile("pause"); }
