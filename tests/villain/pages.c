/*
 * Pages: instructions across two of which the second is absent, not executable, a device or beyond
 * the lower half; code that overwrites itself and what follows; page tables and code in devices, in
 * themselves, at the end of memory and beyond it; hostile areas for XRSTOR.
 */
#include "villain.h"

enum { INT3 = 0xcc, LONGEST = 15, TABLE_ENTRIES = 512, TABLE_SHIFT = 9, PAGE_SHIFT = 12 };
enum { LEVELS = 4, AREA_BYTES = 1024, HEADER_AT = 512, MXCSR_AT = 24 };
#define FRAME_MASK 0xffffffffff000ull
/* What may come of bytes that nobody wrote: all but what only a broken machine shows. */
#define OF_UNKNOWN_CODE (~(ALLOW(DF) | ALLOW(TS) | ALLOW(MC)))

/* MOVABS behind five prefixes: 15 bytes. */
static const uint8_t longest[LONGEST] = { 0x66, 0x66, 0x66, 0x66, 0x66, 0x48, 0xb8, 1, 2, 3, 4 };

#define SECOND(a_name, a_gva, a_gpa, a_flags, outcomes) \
	{ .name = a_name, .gva = a_gva, .gpa = a_gpa, .flags = a_flags, .allowed = outcomes }

static void act_borders(void)
{
	uint8_t *first = new_page();
	uint8_t *second = new_page();
	const struct {
		const char *name;
		uint64_t gva;
		uint64_t gpa;
		uint64_t flags;
		uint64_t allowed;
	} seconds[] = {
		SECOND("into an absent page", CODE_GVA, 0, 0, ALLOW(PF)),
		SECOND("into a page that is not executable", CODE_GVA, (uint64_t)second,
		    PAGE_P | PAGE_NX, ALLOW(PF)),
		SECOND("into another page", CODE_GVA, (uint64_t)second, PAGE_P, ALLOW(NOTHING)),
		SECOND("into the same page", CODE_GVA, (uint64_t)first, PAGE_P | PAGE_W,
		    OF_UNKNOWN_CODE),
		SECOND("into the IOAPIC", CODE_GVA, 0xfec00000, PAGE_P | PAGE_W, OF_UNKNOWN_CODE),
		SECOND("into memory that is none", CODE_GVA, 0xf0000000, PAGE_P | PAGE_W,
		    OF_UNKNOWN_CODE),
		SECOND("out of the lower half", NOT_CANONICAL - 2 * PAGE_BYTES, 0, 0,
		    ALLOW(PF) | ALLOW(GP)),
	};
	const struct registers registers = registers_at((uint64_t)new_page());
	char name[] = "00 bytes";

	for (unsigned n = 0; n < sizeof(seconds) / sizeof(seconds[0]); n++) {
		uint64_t gva = seconds[n].gva;

		if (seconds[n].gva != CODE_GVA)
			gva += PAGE_BYTES;
		map_page(gva, (uint64_t)first, PAGE_P | PAGE_W);
		if (gva == CODE_GVA)
			map_page(gva + PAGE_BYTES, seconds[n].gpa, seconds[n].flags);
		for (unsigned before = 1; before < LONGEST; before++) {
			uint8_t *at = first + PAGE_BYTES - before;

			for (unsigned b = 0; b < before; b++)
				at[b] = longest[b];
			put_bytes(second, longest + before, LONGEST - before);
			name[0] = (char)('0' + before / 10);
			name[1] = (char)('0' + before % 10);
			act("an instruction of 15 bytes,", name, seconds[n].name,
			run_at((void *)(gva + PAGE_BYTES - before), &registers),
			    seconds[n].allowed);
		}
	}
}

#define SELF(name, text) { name, code_##text }
#define CODE(name, text) \
	__asm__(".pushsection .rodata; code_" #name ": .byte 9f - 8f; 8: " text \
		"; 9: .popsection"); \
	extern const uint8_t code_##name[];
CODE(next_byte, "movb $0x90, 1f(%rip); 1: int3")
CODE(next_word, "movw $0x9090, 1f(%rip); 1: ud2")
CODE(next_long, "movl $0x90909090, 1f(%rip); 1: ud2; int3; int3")
CODE(next_quad,
     "mov 2f(%rip), %rax; mov %rax, 1f(%rip); 1: ud2; ud2; ud2; ud2; jmp 3f; "
     "2: .fill 8, 1, 0x90; 3:")
CODE(next_xmm,
     "movups 2f(%rip), %xmm0; movups %xmm0, 1f(%rip); 1: .fill 16, 1, 0xcc; jmp 3f; "
     "2: .fill 16, 1, 0x90; 3:")
CODE(next_locked, "mov $0x90, %al; lock xchg %al, 1f(%rip); 1: int3")
CODE(next_string, "mov $0x90, %al; mov $4, %ecx; lea 1f(%rip), %rdi; rep stosb; 1: ud2; ud2")
CODE(itself_string,
     "mov $0x90, %al; mov $16, %ecx; lea 1f(%rip), %rdi; 1: rep stosb; .fill 14, 1, 0xcc")
CODE(itself, "movl $0x90909090, 1f(%rip); 1: nop; nop; nop; nop")
CODE(itself_first, "1: movb $0x90, 1b(%rip)")
CODE(loop_body, "mov $3, %ecx; 1: nop; movb $0x90, 1b(%rip); dec %ecx; jnz 1b")
CODE(call_target, "movb $0xc3, 1f(%rip); call 1f; jmp 2f; 1: int3; 2:")
CODE(immediate, "movl $7, 1f+1(%rip); 1: mov $1, %eax; cmp $7, %eax; je 2f; int3; 2:")
CODE(push_on_code,
     "mov %rsp, %rbx; lea 1f+8(%rip), %rsp; mov 2f(%rip), %rax; push %rax; 1: ud2; ud2; "
     "ud2; ud2; mov %rbx, %rsp; jmp 3f; 2: .fill 8, 1, 0x90; 3:")
CODE(alias, "lea 1f(%rip), %rax; movb $0x90, (%rax); 1: int3")
CODE(prefix, "movb $0x3e, 1f(%rip); 1: lock; nop")

static void act_self_modifying(void)
{
	static const struct { const char *name; const uint8_t *code; } rows[] = {
		SELF("a byte of what follows", next_byte),
		SELF("a word", next_word),
		SELF("a long word", next_long),
		SELF("a quad word", next_quad),
		SELF("16 bytes", next_xmm),
		SELF("by XCHG", next_locked),
		SELF("by REP STOS", next_string),
		SELF("REP STOS itself and on", itself_string),
		SELF("no change of it", itself),
		SELF("its own first byte", itself_first), SELF("the loop it is in", loop_body),
		SELF("what it calls", call_target),
		SELF("an immediate", immediate),
		SELF("by PUSH", push_on_code),
		SELF("by a pointer", alias), SELF("a prefix of what follows", prefix),
	};
	const struct registers registers = registers_at((uint64_t)new_page());
	uint8_t *page = new_page();
	uint8_t *other = new_page();

	map_page(CODE_GVA, (uint64_t)page, PAGE_P | PAGE_W);
	map_page(CODE_GVA + PAGE_BYTES, (uint64_t)other, PAGE_P | PAGE_W);
	for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++)
		act("code overwrites", rows[n].name, NULL, run_bytes(rows[n].code + 1,
		    rows[n].code[0], &registers),
		    ALLOW(NOTHING));
	for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
		/* Its middle is at the border: instructions, and what they write, are across it. */
		uint64_t gva = CODE_GVA + PAGE_BYTES - rows[n].code[0] / 2;

		put_bytes((uint8_t *)gva, rows[n].code + 1, rows[n].code[0]);
		act("code across pages overwrites", rows[n].name, NULL, run_at((void *)gva,
		    &registers), ALLOW(NOTHING));
	}
}

/* The entry of DATA_GVA in a level (3: the root's) names a page where no table, or no memory,
    is. */
void act_tables(void)
{
	static const char *const levels[] = { "a page at", "a table at", "a directory at",
	    "a directory of directories at" };
	static const struct { const char *name; const uint8_t code[4]; unsigned bytes; } uses[] = {
		{ "read", { 0x8a, 0x03 }, 2 },
		{ "written", { 0x88, 0x03 }, 2 },
		{ "executed", { 0xff, 0xe3 }, 2 },
		{ "locked", { 0xf0, 0xfe, 0x03 }, 3 },
	};
	enum { ITSELF = 1, EXECUTED = 2 };
	static const struct { const char *name; uint64_t gpa; } targets[] = {
		{ "the IOAPIC", 0xfec00000 },
		{ "the local APIC", 0xfee00000 },
		/* Umbra has random numbers in its first page: as code they may do anything. */
		{ "a PC's ROM", 0xff000 },
		{ "a PC's screen", 0xa0000 },
		{ "no memory", 0xf0000000 },
		{ "the last page of memory", 0xffff000 },
		{ "the first beyond memory", 0x10000000 },
		{ "the last below 4 GiB", 0xfffff000 },
		{ "address 2^37", 1ull << 37 },
		{ "the last address there is", FRAME_MASK }, { "itself", ITSELF },
	};

	for (unsigned level = 0; level < LEVELS; level++)
		for (unsigned n = 0; n < sizeof(targets) / sizeof(targets[0]); n++)
			for (unsigned use = 0; use < sizeof(uses) / sizeof(uses[0]); use++) {
				const struct registers registers = registers_at(DATA_GVA);
				uint64_t *table = (uint64_t *)(read_cr3() & FRAME_MASK);
				uint64_t *entry;
				uint64_t before;
				unsigned outcome;

				if (targets[n].gpa == ITSELF && use == EXECUTED)
					continue; /* entries as code may destroy this guest */
				map_page(DATA_GVA, (uint64_t)new_page(), PAGE_P | PAGE_W);
				for (unsigned at = LEVELS - 1;; at--) {
					unsigned shift = PAGE_SHIFT + TABLE_SHIFT * at;

					entry = &table[DATA_GVA >> shift & (TABLE_ENTRIES - 1)];
					if (at == level)
						break;
					table = (uint64_t *)(*entry & FRAME_MASK);
				}
				before = *entry;
				*entry = targets[n].gpa | PAGE_P | PAGE_W;
				if (targets[n].gpa == ITSELF)
					*entry |= (uint64_t)table;
				write_cr3(read_cr3());
				outcome = run_bytes(uses[use].code, uses[use].bytes, &registers);
				*entry = before;
				write_cr3(read_cr3());
				act(levels[level], targets[n].name, uses[use].name, outcome,
				    OF_UNKNOWN_CODE);
			}
}

static void act_areas(void)
{
	static const uint8_t xrstor[] = { 0x83, 0xc8, 0xff, 0x83, 0xca, 0xff, 0x0f, 0xae, 0x2b };
	static const uint8_t fxrstor[] = { 0x0f, 0xae, 0x0b };
	static const uint8_t ldmxcsr[] = { 0x0f, 0xae, 0x53, 0x18 };
	static const struct {
		const char *name;
		unsigned at;
		uint64_t value;
		uint64_t allowed;
	} rows[] = {
		{ "every component", HEADER_AT, ~0ull, ALLOW(GP) },
		{ "a component that is not enabled", HEADER_AT, 1ull << 62, ALLOW(GP) },
		{ "component 8", HEADER_AT, 1 << 8, ALLOW(GP) },
		{ "compacted", HEADER_AT + 8, 1ull << 63, ALLOW(GP) | ALLOW(NOTHING) },
		{ "compacted, every component", HEADER_AT + 8, ~0ull, ALLOW(GP) },
		{ "reserved bytes 16 to 23", HEADER_AT + 16, ~0ull, ALLOW(GP) },
		{ "reserved bytes 24 to 31", HEADER_AT + 24, 1, ALLOW(GP) | ALLOW(NOTHING) },
		{ "reserved bytes 56 to 63", HEADER_AT + 56, ~0ull, ALLOW(GP) | ALLOW(NOTHING) },
	};
	uint8_t *area = new_page();
	const struct registers registers = registers_at((uint64_t)area);
	uint64_t *mxcsr = (uint64_t *)(void *)(area + MXCSR_AT);

	for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
		uint64_t *word = (uint64_t *)(void *)(area + rows[n].at);

		*word = rows[n].value;
		act("XRSTOR,", rows[n].name, NULL, run_bytes(xrstor, sizeof(xrstor), &registers),
		    has_avx2() ? rows[n].allowed : ALLOW(UD));
		*word = 0;
	}
	*mxcsr = ~0ull;
	*(uint64_t *)(void *)(area + HEADER_AT) = 2;
	act("XRSTOR,", "every bit of MXCSR", NULL, run_bytes(xrstor, sizeof(xrstor), &registers),
	    has_avx2() ? ALLOW(GP) : ALLOW(UD));
	act("FXRSTOR,", "every bit of MXCSR", NULL, run_bytes(fxrstor, sizeof(fxrstor),
	    &registers), ALLOW(GP));
	act("LDMXCSR,", "every bit", NULL, run_bytes(ldmxcsr, sizeof(ldmxcsr), &registers),
	    ALLOW(GP));
}

void act_pages(void)
{
	act_borders();
	act_self_modifying();
	act_areas();
}
