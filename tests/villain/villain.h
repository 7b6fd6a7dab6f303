/*
 * What the images of tests/villain share. An act runs some code with hostile registers; its
 * outcome is the exception that comes of it or NOTHING, which must be one of a set that the
 * manual allows. Each act is one line; then the processor is put in order.
 */
#pragma once

#include "../guest/guest.h"

/* Outcomes: exception vectors, and that none came. Sets of them: ALLOW() joined by |. */
enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF };
enum { MF = 16, AC, MC, XM, CP = 21, NOTHING = 32 };
#define ALLOW(outcome) (1ull << (outcome))

/* Nothing is mapped from here up (start.S maps 4 GiB); a root entry of it for each purpose. */
#define ABSENT_GVA 0x100000000000ull
#define CODE_GVA 0x110000000000ull
#define DATA_GVA 0x120000000000ull
#define NOT_CANONICAL 0x800000000000ull

/* What an act begins with. rsp 0: a good stack. */
struct registers { uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp; };

/* Must be called first: exceptions get a stack of their own. */
void villain_open(void);
/* All registers that address memory are `at`, RCX is 4. */
struct registers registers_at(uint64_t at);
/* Copies code to `to`, and behind it what ends an act. Returns the first byte after that. */
uint8_t *put_bytes(uint8_t *to, const void *code, unsigned bytes);
/* The outcome of what begins at `code`, which put_bytes() wrote. */
unsigned run_at(const void *code, const struct registers *registers);
/* put_bytes() to a page of its own, and run_at(). */
unsigned run_bytes(const void *code, unsigned bytes, const struct registers *registers);
/* An outcome of try_code() or try_user(). */
unsigned outcome_of(int64_t vector);
/* The line of an act: its name in up to three parts (NULL: none). */
void act(const char *subject, const char *what, const char *where, unsigned outcome,
	 uint64_t allowed);
/*
 * Segment, control and debug registers, tables and floating point as they were. act() does that,
 * too.
 */
void put_in_order(void);
/* Whether this processor has AVX2 and it was switched on; else acts with it are #UD. */
bool has_avx2(void);

/* One instruction with RBX, RSI, RDI or RSP as its address, in places of the caller's: places.c. */
enum { WRITABLE = 1, CANONICAL = 4, MAPPED = 8, BORDER = 16 };
enum { DEVICE = CANONICAL | MAPPED | WRITABLE };
struct place { const char *name; uint64_t gva; unsigned kind; };
void act_in_places(const struct place *places, unsigned count);
/* What each file does, in the order of the image. */
void act_encodings(void);
void act_pages(void);
void act_system(void);
void act_tables(void);
