/*
 * System instructions with random state and operands, in the engine and in a plain model that is
 * written from the manual (SDM Vol. 2): control, debug and model-specific registers, flags, XCR0,
 * bases, and what LAR, LSL, VERR and VERW say of random descriptors. Each is one instruction of
 * 64-bit code, at level 0 or 3, with UD2 behind it; there is no IDT, so every fault ends the
 * machine, which keeps the registers and the first fault's vector. All registers of the state are
 * compared. usage: system_test [INSTRUCTIONS [SEED]]
 *
 * Left to other tests: error codes, loads of segments, memory operands (tests/guest/gates,
 * exceptions, border), what caches forget, XSAVE (xsave_test).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory/memory.h"
#include "no_devices.h"
#include "x86/state.h"

enum {
	RAM_BYTES = 4 << 20,
	TABLES = 0x10000,
	GDT = 0x20000,
	GDT_ENTRIES = 16,
	CODE = 0x100000, /* of the kernel; a user's is the same frame in the next 2 MiB */
	USER_CODE = 0x300000,
	STACK = 0x180000,
	USER_STACK = 0x380000,
	PAGE_KERNEL = 3,
	PAGE_USER = 7,
	PAGE_OFFSET = GUEST_PAGE_BYTES - 1,
	NO_FAULT = -1,
	MOST_BAD = 40
};
enum { RAX, RCX, RDX, RSP = 4 };

static uint8_t *ram;
static struct guest_memory memory;
static struct engine *engine;
static struct engine_cpu *cpu;
static struct engine_state state;
static uint64_t seed_state;

/* One instruction, as bytes and as what they mean. */
struct op {
	uint8_t bytes[16], length, reg, number, operand_bytes;
};

static uint64_t rnd(void)
{
	seed_state ^= seed_state << 13;
	seed_state ^= seed_state >> 7;
	seed_state ^= seed_state << 17;
	return seed_state;
}

/* ---- numbers that decide something ---- */

static uint64_t any_number(void)
{
	switch (rnd() % 8) {
	case 0: return rnd() % 16;
	case 1: return 1ull << rnd() % 64;
	case 2: return (uint32_t)rnd();
	case 3: return 0x7fffffffffff + rnd() % 3;
	case 4: return 0xffff7fffffffffff + rnd() % 3;
	case 5: return rnd() % 0x10000;
	case 6: return rnd() & 0x0707070707070707;
	default: return rnd();
	}
}

/* What is there but for a few bits. */
static uint64_t near(uint64_t value)
{
	for (unsigned n = 0; n < rnd() % 4; n++)
		value ^= 1ull << (rnd() % 4 ? rnd() % 32 : rnd() % 64);
	return value;
}

static bool is_canonical(uint64_t value) { return value + 0x800000000000 < 0x1000000000000; }

/* ---- the model: 0 or more is the vector of a fault ---- */

static uint64_t read_register(const struct x86_state *now, const struct op *op)
{
	return now->gpr[op->reg];
}

static void write_register(struct x86_state *now, const struct op *op, uint64_t value)
{
	uint64_t *to = &now->gpr[op->reg];

	if (op->operand_bytes == 2)
		*to = (*to & ~0xffffull) | (value & 0xffff);
	else
		*to = op->operand_bytes == 4 ? (uint32_t)value : value;
}

static int load_cr0(struct x86_state *now, uint64_t value)
{
	const uint64_t known = CR0_PE | CR0_MP | CR0_EM | CR0_TS | 0x30 | CR0_WP | CR0_AM | CR0_NW |
			       CR0_CD | CR0_PG;

	if (value >> 32 || !(value & CR0_PG) || !(value & CR0_PE) ||
	    (value & CR0_NW && !(value & CR0_CD)))
		return EXC_GP;
	now->cr0 = (value & known) | 0x10;
	return NO_FAULT;
}

static int load_cr3(struct x86_state *now, uint64_t value)
{
	if (now->cr4 & CR4_PCIDE)
		value &= ~(1ull << 63);
	if (value >> X86_PHYSICAL_BITS)
		return EXC_GP;
	now->cr3 = value;
	return NO_FAULT;
}

static int load_cr4(struct x86_state *now, uint64_t value)
{
	if (value & ~(uint64_t)X86_CR4_KNOWN || !(value & CR4_PAE))
		return EXC_GP;
	if (value & ~now->cr4 & CR4_PCIDE && now->cr3 & PAGE_OFFSET)
		return EXC_GP;
	now->cr4 = value;
	return NO_FAULT;
}

static bool is_control_register(unsigned number)
{
	return number == 0 || number == 8 || (number >= 2 && number <= 4);
}

static int to_control(struct x86_state *now, const struct op *op)
{
	uint64_t value = read_register(now, op);

	if (!is_control_register(op->number))
		return EXC_UD;
	if (now->cpl)
		return EXC_GP;
	switch (op->number) {
	case 0: return load_cr0(now, value);
	case 2: now->cr2 = value; return NO_FAULT;
	case 3: return load_cr3(now, value);
	case 4: return load_cr4(now, value);
	default: return value >> 4 ? EXC_GP : NO_FAULT;
	}
}

static int from_control(struct x86_state *now, const struct op *op)
{
	const uint64_t values[9] = { now->cr0, 0, now->cr2, now->cr3, now->cr4 };

	if (!is_control_register(op->number))
		return EXC_UD;
	if (now->cpl)
		return EXC_GP;
	write_register(now, op, values[op->number]);
	return NO_FAULT;
}

/* 4 and 5 are 6 and 7 where CR4.DE does not say that they are none. */
static int debug_register(struct x86_state *now, const struct op *op, unsigned *ret)
{
	enum { CR4_DE = 8, DR7_GD = 0x2000, DR6_BD = 0x2000 };

	*ret = op->number == 4 || op->number == 5 ? op->number + 2u : op->number;
	if (op->number >= 8)
		return EXC_UD;
	if (now->cpl)
		return EXC_GP;
	if (*ret != op->number && now->cr4 & CR4_DE)
		return EXC_UD;
	if (!(now->dr[7] & DR7_GD))
		return NO_FAULT;
	now->dr[7] &= ~(uint64_t)DR7_GD;
	now->dr[6] |= DR6_BD;
	return EXC_DB;
}

static int to_debug(struct x86_state *now, const struct op *op)
{
	uint64_t value = read_register(now, op);
	unsigned number;
	int fault = debug_register(now, op, &number);

	if (fault != NO_FAULT)
		return fault;
	if (number >= 6 && value >> 32)
		return EXC_GP;
	if (number == 6)
		value = (value & 0xe00f) | 0xffff0ff0;
	if (number == 7)
		value = (value & 0xffff2bff) | 0x400;
	now->dr[number] = value;
	return NO_FAULT;
}

static int from_debug(struct x86_state *now, const struct op *op)
{
	unsigned number;
	int fault = debug_register(now, op, &number);

	if (fault == NO_FAULT)
		write_register(now, op, now->dr[number]);
	return fault;
}

static int store_machine_word(struct x86_state *now, const struct op *op)
{
	if (now->cpl && now->cr4 & CR4_UMIP)
		return EXC_GP;
	write_register(now, op, now->cr0);
	return NO_FAULT;
}

static int load_machine_word(struct x86_state *now, const struct op *op)
{
	if (now->cpl)
		return EXC_GP;
	now->cr0 = (now->cr0 & ~14ull) | (read_register(now, op) & 15);
	return NO_FAULT;
}

static int clear_task_switched(struct x86_state *now, const struct op *op)
{
	(void)op;
	if (now->cpl)
		return EXC_GP;
	now->cr0 &= ~(uint64_t)CR0_TS;
	return NO_FAULT;
}

static int cache_instruction(struct x86_state *now, const struct op *op)
{
	(void)op;
	return now->cpl ? EXC_GP : NO_FAULT;
}

/* ---- model-specific registers ---- */

static const uint32_t msrs[] = { 0x174,      0x175,      0x176,      0x277,      0xc0000080,
				 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100,
				 0xc0000101, 0xc0000102, 0xc0000103 };

static uint64_t *msr_in(struct x86_state *now, uint32_t number)
{
	switch (number) {
	case 0x174: return &now->sysenter_cs;
	case 0x175: return &now->sysenter_esp;
	case 0x176: return &now->sysenter_eip;
	case 0x277: return &now->pat;
	case 0xc0000080: return &now->efer;
	case 0xc0000081: return &now->star;
	case 0xc0000082: return &now->lstar;
	case 0xc0000083: return &now->cstar;
	case 0xc0000084: return &now->sfmask;
	case 0xc0000100: return &now->segment[X86_FS].base;
	case 0xc0000101: return &now->segment[X86_GS].base;
	case 0xc0000102: return &now->kernel_gs_base;
	default: return &now->tsc_aux;
	}
}

/* Memory types: 0, 1, 4 to 7 (SDM Vol. 3A 12.12.2). */
static bool is_memory_types(uint64_t value)
{
	for (unsigned n = 0; n < 8; n++, value >>= 8)
		if ((value & 0xff) > 7 || (value & 0xff) == 2 || (value & 0xff) == 3)
			return false;
	return true;
}

static bool is_msr_value(const struct x86_state *now, uint32_t number, uint64_t value)
{
	switch (number) {
	case 0x175:
	case 0x176:
	case 0xc0000082:
	case 0xc0000083:
	case 0xc0000100:
	case 0xc0000101:
	case 0xc0000102: return is_canonical(value);
	case 0x277: return is_memory_types(value);
	case 0xc0000080: return !(value & ~(uint64_t)X86_EFER_KNOWN) && value & EFER_LME;
	default: return now;
	}
}

static int write_msr(struct x86_state *now, const struct op *op)
{
	uint32_t number = (uint32_t)now->gpr[RCX];
	uint64_t value = now->gpr[RDX] << 32 | (uint32_t)now->gpr[RAX];

	(void)op;
	if (now->cpl || !is_msr_value(now, number, value))
		return EXC_GP;
	if (number == 0xc0000080)
		value |= EFER_LMA;
	*msr_in(now, number) = value;
	return NO_FAULT;
}

static int read_msr(struct x86_state *now, const struct op *op)
{
	uint64_t value = *msr_in(now, (uint32_t)now->gpr[RCX]);

	(void)op;
	if (now->cpl)
		return EXC_GP;
	now->gpr[RAX] = (uint32_t)value;
	now->gpr[RDX] = value >> 32;
	return NO_FAULT;
}

static int swap_gs(struct x86_state *now, const struct op *op)
{
	uint64_t base = now->segment[X86_GS].base;

	(void)op;
	if (now->cpl)
		return EXC_GP;
	now->segment[X86_GS].base = now->kernel_gs_base;
	now->kernel_gs_base = base;
	return NO_FAULT;
}

/* number: RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE. */
static int segment_base(struct x86_state *now, const struct op *op)
{
	uint64_t *base = &now->segment[op->number & 1 ? X86_GS : X86_FS].base;
	uint64_t value = read_register(now, op);

	if (!(now->cr4 & CR4_FSGSBASE))
		return EXC_UD;
	if (op->number < 2) {
		write_register(now, op, *base);
		return NO_FAULT;
	}
	if (op->operand_bytes == 8 && !is_canonical(value))
		return EXC_GP;
	*base = op->operand_bytes == 8 ? value : (uint32_t)value;
	return NO_FAULT;
}

/* ---- flags ---- */

static bool is_privileged(const struct x86_state *now)
{
	return now->cpl <= (now->rflags >> 12 & 3);
}

/* number: CLI, STI, CLD, STD, of 0xfa to 0xfd. */
static int set_flag(struct x86_state *now, const struct op *op)
{
	uint64_t flag = op->number < 2 ? FLAG_IF : FLAG_DF;

	if (op->number < 2 && !is_privileged(now))
		return EXC_GP;
	now->rflags = op->number & 1 ? now->rflags | flag : now->rflags & ~flag;
	return NO_FAULT;
}

/* number: CLAC, STAC. */
static int set_alignment(struct x86_state *now, const struct op *op)
{
	if (now->cpl)
		return EXC_UD;
	now->rflags = op->number ? now->rflags | FLAG_AC : now->rflags & ~(uint64_t)FLAG_AC;
	return NO_FAULT;
}

static uint64_t *stack_of(const struct x86_state *now)
{
	return (uint64_t *)(void *)(ram + STACK + now->gpr[RSP] % GUEST_PAGE_BYTES);
}

static int pop_flags(struct x86_state *now, const struct op *op)
{
	uint64_t change = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT;
	uint64_t value = *stack_of(now);

	if (op->operand_bytes == 8)
		change |= FLAG_AC | FLAG_ID | FLAG_RF;
	if (is_privileged(now))
		change |= FLAG_IF;
	if (!now->cpl)
		change |= FLAG_IOPL;
	value &= ~(uint64_t)FLAG_RF;
	now->rflags = (now->rflags & ~change) | (value & change);
	now->gpr[RSP] += op->operand_bytes;
	return NO_FAULT;
}

/* ---- XCR0 ---- */

static int get_xcr(struct x86_state *now, const struct op *op)
{
	(void)op;
	if (!(now->cr4 & CR4_OSXSAVE))
		return EXC_UD;
	if ((uint32_t)now->gpr[RCX])
		return EXC_GP;
	now->gpr[RAX] = (uint32_t)now->xcr0;
	now->gpr[RDX] = now->xcr0 >> 32;
	return NO_FAULT;
}

static int set_xcr(struct x86_state *now, const struct op *op)
{
	uint64_t value = now->gpr[RDX] << 32 | (uint32_t)now->gpr[RAX];

	(void)op;
	if (!(now->cr4 & CR4_OSXSAVE))
		return EXC_UD;
	if (now->cpl || (uint32_t)now->gpr[RCX] || value >> 3 || !(value & 1) || (value & 6) == 4)
		return EXC_GP;
	now->xcr0 = value;
	return NO_FAULT;
}

/* ---- descriptors ---- */

static bool descriptor_of(const struct x86_state *now, uint16_t selector, uint64_t *ret)
{
	unsigned at = selector & ~7u;

	if (!(selector & ~3u) || selector & 4 || at + 7 > now->gdtr.limit)
		return false;
	memcpy(ret, ram + GDT + at, sizeof(*ret));
	return true;
}

enum { IS_CODE = 8, CONFORMING = 4, READ_OR_WRITE = 2, NOT_SYSTEM = 16 };

static bool is_reached(const struct x86_state *now, uint16_t selector, uint64_t descriptor)
{
	unsigned type = descriptor >> 40 & 0x1f;
	unsigned level = descriptor >> 45 & 3;

	if (type & NOT_SYSTEM && type & IS_CODE && type & CONFORMING)
		return true;
	return level >= now->cpl && level >= (selector & 3u);
}

static bool has_type(uint64_t descriptor, bool limit)
{
	unsigned type = descriptor >> 40 & 0x1f;

	return type & NOT_SYSTEM || type == 2 || type == 9 || type == 11 || (type == 12 && !limit);
}

static uint64_t limit_of(uint64_t descriptor)
{
	uint64_t limit = (descriptor & 0xffff) | (descriptor >> 48 & 15) << 16;

	return descriptor >> 55 & 1 ? limit << 12 | PAGE_OFFSET : limit;
}

static void set_zero_flag(struct x86_state *now, bool set)
{
	now->rflags = set ? now->rflags | FLAG_ZF : now->rflags & ~(uint64_t)FLAG_ZF;
}

/* The selector is in number's register. */
static int load_rights_or_limit(struct x86_state *now, const struct op *op, bool limit)
{
	uint16_t selector = (uint16_t)now->gpr[op->number];
	uint64_t descriptor = 0;
	bool good = descriptor_of(now, selector, &descriptor) && has_type(descriptor, limit) &&
		    is_reached(now, selector, descriptor);

	if (good)
		write_register(now, op, limit ? limit_of(descriptor) : descriptor >> 32 & 0xffff00);
	set_zero_flag(now, good);
	return NO_FAULT;
}

static int load_rights(struct x86_state *now, const struct op *op)
{
	return load_rights_or_limit(now, op, false);
}

static int load_limit(struct x86_state *now, const struct op *op)
{
	return load_rights_or_limit(now, op, true);
}

/* number: VERR, VERW. */
static int verify(struct x86_state *now, const struct op *op)
{
	uint16_t selector = (uint16_t)read_register(now, op);
	uint64_t descriptor = 0;
	bool good = descriptor_of(now, selector, &descriptor) &&
		    is_reached(now, selector, descriptor) && descriptor >> 40 & NOT_SYSTEM;
	unsigned type = descriptor >> 40 & 0x1f;

	if (op->number)
		good &= !(type & IS_CODE) && type & READ_OR_WRITE;
	else
		good &= !(type & IS_CODE) || type & READ_OR_WRITE;
	set_zero_flag(now, good);
	return NO_FAULT;
}

/* number: SLDT, STR. */
static int store_selector(struct x86_state *now, const struct op *op)
{
	if (now->cpl && now->cr4 & CR4_UMIP)
		return EXC_GP;
	write_register(now, op, op->number ? now->tr.selector : now->ldtr.selector);
	return NO_FAULT;
}

/* ---- instructions ---- */

/* How the bytes are made: what stands in ModRM and what in the operand size. */
enum form { FORM_PLAIN, FORM_RM, FORM_BOTH };

static const struct kind {
	const char *name;
	int (*model)(struct x86_state *now, const struct op *op);
	uint8_t code[3], code_bytes, prefix;
	enum form form;
	uint8_t digit; /* of FORM_RM; number is added to it */
	uint8_t numbers; /* so many */
	bool sized, wide; /* 16, 32 or 64 bits; always 64 */
} kinds[] = {
	{ .name = "mov cr, r",
	  .model = to_control,
	  .code = { 0x0f, 0x22 },
	  .code_bytes = 2,
	  .form = FORM_BOTH,
	  .numbers = 16,
	  .wide = true },
	{ .name = "mov r, cr",
	  .model = from_control,
	  .code = { 0x0f, 0x20 },
	  .code_bytes = 2,
	  .form = FORM_BOTH,
	  .numbers = 16,
	  .wide = true },
	{ .name = "mov dr, r",
	  .model = to_debug,
	  .code = { 0x0f, 0x23 },
	  .code_bytes = 2,
	  .form = FORM_BOTH,
	  .numbers = 9,
	  .wide = true },
	{ .name = "mov r, dr",
	  .model = from_debug,
	  .code = { 0x0f, 0x21 },
	  .code_bytes = 2,
	  .form = FORM_BOTH,
	  .numbers = 9,
	  .wide = true },
	{ .name = "smsw",
	  .model = store_machine_word,
	  .code = { 0x0f, 1 },
	  .code_bytes = 2,
	  .form = FORM_RM,
	  .digit = 4,
	  .numbers = 1,
	  .sized = true },
	{ .name = "lmsw",
	  .model = load_machine_word,
	  .code = { 0x0f, 1 },
	  .code_bytes = 2,
	  .form = FORM_RM,
	  .digit = 6,
	  .numbers = 1 },
	{ .name = "clts", .model = clear_task_switched, .code = { 0x0f, 6 }, .code_bytes = 2 },
	{ .name = "wbinvd", .model = cache_instruction, .code = { 0x0f, 9 }, .code_bytes = 2 },
	{ .name = "wrmsr", .model = write_msr, .code = { 0x0f, 0x30 }, .code_bytes = 2 },
	{ .name = "rdmsr", .model = read_msr, .code = { 0x0f, 0x32 }, .code_bytes = 2 },
	{ .name = "swapgs", .model = swap_gs, .code = { 0x0f, 1, 0xf8 }, .code_bytes = 3 },
	{ .name = "rdfsbase and kin",
	  .model = segment_base,
	  .code = { 0x0f, 0xae },
	  .code_bytes = 2,
	  .prefix = 0xf3,
	  .form = FORM_RM,
	  .numbers = 4,
	  .sized = true },
	{ .name = "cli and kin",
	  .model = set_flag,
	  .code = { 0xfa },
	  .code_bytes = 1,
	  .numbers = 4 },
	{ .name = "clac, stac",
	  .model = set_alignment,
	  .code = { 0x0f, 1, 0xca },
	  .code_bytes = 3,
	  .numbers = 2 },
	{ .name = "popf", .model = pop_flags, .code = { 0x9d }, .code_bytes = 1, .sized = true },
	{ .name = "xgetbv", .model = get_xcr, .code = { 0x0f, 1, 0xd0 }, .code_bytes = 3 },
	{ .name = "xsetbv", .model = set_xcr, .code = { 0x0f, 1, 0xd1 }, .code_bytes = 3 },
	{ .name = "lar",
	  .model = load_rights,
	  .code = { 0x0f, 2 },
	  .code_bytes = 2,
	  .form = FORM_BOTH,
	  .numbers = 16,
	  .sized = true },
	{ .name = "lsl",
	  .model = load_limit,
	  .code = { 0x0f, 3 },
	  .code_bytes = 2,
	  .form = FORM_BOTH,
	  .numbers = 16,
	  .sized = true },
	{ .name = "verr, verw",
	  .model = verify,
	  .code = { 0x0f, 0 },
	  .code_bytes = 2,
	  .form = FORM_RM,
	  .digit = 4,
	  .numbers = 2 },
	{ .name = "sldt, str",
	  .model = store_selector,
	  .code = { 0x0f, 0 },
	  .code_bytes = 2,
	  .form = FORM_RM,
	  .numbers = 2,
	  .sized = true },
};

static void add(struct op *op, unsigned byte) { op->bytes[op->length++] = (uint8_t)byte; }

/* In LAR and LSL the destination is ModRM.reg; elsewhere ModRM.rm is the general register. */
static bool has_destination_in_reg(const struct kind *kind)
{
	return kind->model == load_rights || kind->model == load_limit;
}

static void add_prefixes(struct op *op, const struct kind *kind, unsigned reg, unsigned rm)
{
	unsigned rex = (op->operand_bytes == 8 && kind->sized && kind->model != pop_flags ? 8 : 0) |
		       (reg >> 3) << 2 | rm >> 3;

	if (kind->prefix)
		add(op, kind->prefix);
	if (op->operand_bytes == 2 && kind->sized && !kind->prefix)
		add(op, 0x66);
	if (rex)
		add(op, 0x40 | rex);
}

static struct op make_op(const struct kind *kind)
{
	static const uint8_t sizes[] = { 2, 4, 8 };
	struct op op = { .reg = rnd() % 16, .operand_bytes = 8 };
	unsigned reg, rm;

	op.reg = op.reg == RSP ? RAX : op.reg;
	op.number = kind->numbers ? (uint8_t)(rnd() % kind->numbers) : 0;
	if (kind->sized)
		op.operand_bytes = sizes[rnd() % 3];
	if (op.operand_bytes == 2 && kind->prefix)
		op.operand_bytes = 4;
	if (op.operand_bytes == 4 && kind->model == pop_flags)
		op.operand_bytes = 8;
	reg = kind->form == FORM_BOTH ? op.number : 0u;
	rm = kind->form == FORM_PLAIN ? 0u : op.reg;
	if (has_destination_in_reg(kind)) {
		reg = op.reg;
		rm = op.number;
	}
	add_prefixes(&op, kind, reg, rm);
	for (unsigned n = 0; n < kind->code_bytes; n++)
		add(&op, kind->code[n]);
	if (kind->form == FORM_PLAIN)
		op.bytes[op.length - 1] = (uint8_t)(op.bytes[op.length - 1] + op.number);
	else if (kind->form == FORM_RM)
		add(&op, 0xc0 | (kind->digit + op.number) << 3 | (rm & 7));
	else
		add(&op, 0xc0 | (reg & 7) << 3 | (rm & 7));
	return op;
}

/* ---- states ---- */

static void random_registers(struct x86_state *now)
{
	for (unsigned n = 0; n < 16; n++)
		now->gpr[n] = any_number();
	now->cr0 = CR0_PE | CR0_PG | 0x10 | (rnd() & (CR0_MP | CR0_EM | CR0_TS | CR0_WP | 0x20));
	now->cr2 = any_number();
	now->cr3 = TABLES;
	now->cr4 = CR4_PAE | (rnd() & X86_CR4_KNOWN);
	now->cr3 |= now->cr4 & CR4_PCIDE || rnd() % 2 ? rnd() & PAGE_OFFSET : 0;
	now->efer = EFER_LME | EFER_LMA | (rnd() & (EFER_SCE | EFER_NXE));
	now->xcr0 = rnd() % 2 ? 7 : 3;
	for (unsigned n = 0; n < sizeof(msrs) / sizeof(*msrs); n++)
		if (msrs[n] != 0xc0000080)
			*msr_in(now, msrs[n]) = rnd() >> 17;
	now->pat = 0x0007040600070406;
	for (unsigned n = 0; n < 4; n++)
		now->dr[n] = rnd() >> 17 | 1ull << 45; /* not where anything is */
	now->dr[6] = 0xffff0ff0 | (rnd() & 0xe00f);
	now->dr[7] = 0x400 | (rnd() % 4 ? 0 : 0x2000);
	now->rflags = 2 | (rnd() & (FLAGS_ARITHMETIC | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT |
				    FLAG_AC | FLAG_ID));
}

static void random_place(struct x86_state *now)
{
	now->cpl = rnd() % 4 ? 0 : 3;
	now->segment[X86_CS].attributes = now->cpl ? 0xa0fb : 0xa09b;
	now->segment[X86_SS].attributes = now->cpl ? 0xc0f3 : 0xc093;
	now->segment[X86_SS].limit = now->segment[X86_CS].limit = ~0u;
	now->tr.selector = (uint16_t)rnd();
	now->ldtr.selector = (uint16_t)rnd();
	now->gdtr = (struct x86_table){ .base = GDT, .limit = GDT_ENTRIES * 8 - 1 };
	now->idtr = (struct x86_table){ .limit = 0 };
	now->rip = now->cpl ? USER_CODE : CODE;
	now->gpr[RSP] = (now->cpl ? USER_STACK : STACK) + rnd() % 64 * 8;
}

/* Operands near what makes a difference to this instruction. */
static void fit_operands(struct x86_state *now, const struct kind *kind, const struct op *op)
{
	const uint64_t values[5] = { now->cr0, 0, now->cr2, TABLES | (rnd() & PAGE_OFFSET),
				     now->cr4 };
	uint64_t value;

	if (kind->model == to_control && op->number < 5)
		now->gpr[op->reg] = near(values[op->number]);
	if (kind->model == to_control && op->number == 3 &&
	    !(now->gpr[op->reg] << 1 >> (X86_PHYSICAL_BITS + 1)))
		now->gpr[op->reg] = values[3]; /* elsewhere there are no tables */
	if (kind->model == to_control && op->number == 3 && rnd() % 2)
		now->gpr[op->reg] = values[3] | 1ull << 63;
	if (kind->model == read_msr || kind->model == write_msr)
		now->gpr[RCX] = (rnd() << 32) | msrs[rnd() % (sizeof(msrs) / sizeof(*msrs))];
	if (kind->model == write_msr && (uint32_t)now->gpr[RCX] == 0xc0000080) {
		value = near(now->efer);
		now->gpr[RAX] = (uint32_t)value;
		now->gpr[RDX] = value >> 32;
	}
	if (kind->model == get_xcr || kind->model == set_xcr)
		now->gpr[RCX] = rnd() % 4 ? rnd() << 32 : any_number();
	if (kind->model == get_xcr && (uint32_t)now->gpr[RCX] == 1)
		now->gpr[RCX] ^= 1; /* what is in use: xsave_test */
	if (kind->model == set_xcr) {
		now->gpr[RAX] = rnd() % 10;
		now->gpr[RDX] = rnd() % 4 ? 0 : any_number();
	}
	if (has_destination_in_reg(kind) && op->number != RSP)
		now->gpr[op->number] = rnd() % (8 * GDT_ENTRIES + 16);
	if (kind->model == verify)
		now->gpr[op->reg] = rnd() % (8 * GDT_ENTRIES + 16);
}

static void place(const struct op *op, const struct x86_state *now)
{
	static const uint8_t end[] = { 0x0f, 0x0b };

	memcpy(ram + CODE, op->bytes, op->length);
	memcpy(ram + CODE + op->length, end, sizeof(end));
	engine_memory_written(engine, CODE, 32);
	*stack_of(now) = any_number() & ~(uint64_t)FLAG_TF;
	for (unsigned n = 0; n < GDT_ENTRIES; n++)
		((uint64_t *)(void *)(ram + GDT))[n] = rnd();
}

/* ---- both ---- */

static unsigned differs(const char *name, uint64_t got, uint64_t want)
{
	if (got != want)
		printf(" %s %lx, model %lx;", name, got, want);
	return got != want;
}

#define DIFFERS(field) differs(#field, got->field, want->field)

static bool states_differ(const struct x86_state *got, const struct x86_state *want)
{
	unsigned bad = 0;

	for (unsigned n = 0; n < 16; n++)
		bad |= differs("register", got->gpr[n], want->gpr[n]);
	for (unsigned n = 0; n < 8; n++)
		bad |= differs("dr", got->dr[n], want->dr[n]);
	bad |= DIFFERS(rip) | DIFFERS(rflags) | DIFFERS(cpl) | DIFFERS(cr0) | DIFFERS(cr2);
	bad |= DIFFERS(cr3) | DIFFERS(cr4) | DIFFERS(efer) | DIFFERS(xcr0) | DIFFERS(star);
	bad |= DIFFERS(lstar) | DIFFERS(cstar) | DIFFERS(sfmask) | DIFFERS(kernel_gs_base);
	bad |= DIFFERS(pat) | DIFFERS(tsc_aux) | DIFFERS(sysenter_cs) | DIFFERS(sysenter_esp);
	bad |= DIFFERS(sysenter_eip) | DIFFERS(segment[X86_FS].base);
	bad |= DIFFERS(segment[X86_GS].base);
	return bad;
}

/* Whether it is as the model says; *ret_fault: whether the instruction faulted. */
static bool is_same(const struct kind *kind, bool *ret_fault)
{
	const unsigned groups = ENGINE_ALL & ~(unsigned)ENGINE_VECTOR;
	struct op op = make_op(kind);
	struct x86_state *now = &state.x86;
	struct x86_state want;
	int fault;
	bool bad;

	random_registers(now);
	random_place(now);
	fit_operands(now, kind, &op);
	place(&op, now);
	want = *now;
	if (engine_set(cpu, groups, &state))
		exit(70);
	fault = kind->model(&want, &op);
	*ret_fault = fault != NO_FAULT;
	if (fault == NO_FAULT) {
		fault = EXC_UD; /* of what stands behind it */
		want.rip += op.length;
	}
	if (engine_run(cpu) != ENGINE_EXIT_SHUTDOWN)
		exit(70);
	engine_get(cpu, groups, &state);
	bad = states_differ(now, &want);
	bad |= differs("vector", state.fault_vector, (uint64_t)fault);
	if (bad) {
		printf(" of %s:", kind->name);
		for (unsigned n = 0; n < op.length; n++)
			printf(" %02x", op.bytes[n]);
		printf(" at level %u\n", want.cpl);
	}
	return !bad;
}

static void make_guest(void)
{
	uint64_t *tables;

	ram = mmap(NULL, guest_memory_footprint_bytes(RAM_BYTES), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		exit(70);
	tables = (uint64_t *)(void *)(ram + TABLES);
	tables[0] = (TABLES + GUEST_PAGE_BYTES) | PAGE_USER;
	tables[512] = (TABLES + 2 * GUEST_PAGE_BYTES) | PAGE_USER;
	tables[1024] = 0x80 | PAGE_KERNEL;
	tables[1025] = 0x80 | PAGE_USER; /* the same two MiB */
	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	engine = engine_create(&memory, &engine_options);
	cpu = engine ? engine_cpu_create(engine, &ops, NULL) : NULL;
	if (!cpu || engine_prepare_thread(cpu))
		exit(70);
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 100000;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	unsigned long bad = 0;
	unsigned long faults = 0;

	seed_state = seed * 0x9e3779b97f4a7c15ull + 1;
	make_guest();
	for (unsigned long n = 0; n < count && bad < MOST_BAD; n++) {
		bool fault;

		bad += !is_same(&kinds[rnd() % (sizeof(kinds) / sizeof(*kinds))], &fault);
		faults += fault;
	}
	printf("system_test: seed %lu, %lu instructions, %lu faulted, %lu differences\n", seed,
	       count, faults, bad);
	return bad != 0;
}
