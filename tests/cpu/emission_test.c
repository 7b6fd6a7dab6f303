/*
 * Every copy that the translator emits, against Zydis: what the host will execute must be what the
 * guest wrote.
 *
 * Over every map, opcode, modrm form and combination of prefixes, in 16-, 32- and 64-bit code, each
 * copied instruction is decoded again: same mnemonic, operand sizes, immediate; registers are the
 * guest's, or those that stand for a displaced one; what it reaches in memory is what was looked
 * up, by the registers that hold the looked-up address; nothing privileged, no branch.
 *
 * Then it is executed, its operand at the end of a page, and at the begin of one, with nothing
 * accessible beyond.
 *
 * usage: emission_test [SLICES [SEED [FORMS]]]: one of so many slices of all encodings (1: all),
 * and random ones of that seed. FORMS: a file of the forms that were executed before, which those
 * of this run are added to, so that slices are counted together.
 */
#include <Zydis/Zydis.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "x86/decode.h"
#include "emission.h"

enum { PAGE = 4096, RAX = 0, R10 = 10, R11 = 11, R14 = 14, R15 = 15, NONE = 0xff };
enum { DISTINCT_SLOTS = 1 << 25, MOST_DISTINCT = DISTINCT_SLOTS / 4 * 3, RANDOM = 3000000 };
enum { MODES = 3, MODE_MASK = (1 << MODES) - 1 };

static unsigned slices = 1;
static unsigned slice;
static uint64_t seed;
static unsigned long encodings, copied, executed, known, beyond, failures, unknown;
static unsigned long executed_of[MODES]; /* forms that code of 16, 32, 64 bits was copied to */
static ZydisDecoder host_decoder, guest_decoders[MODES];
/*
 * Forms that were executed: a hash of bytes and reach, and in its lowest bits which modes had it.
 */
static uint64_t *distinct;

static unsigned mode_of(unsigned code_bits)
{
	return code_bits == 64 ? 2 : code_bits == 32;
}

/* ---- one copy against what the guest wrote ---- */

struct pair {
	const uint8_t *guest_bytes;
	unsigned code_bits;
	const struct emission *copy;
	bool host_known;
	ZydisDecodedInstruction guest, host;
	ZydisDecodedOperand guest_ops[ZYDIS_MAX_OPERAND_COUNT], host_ops[ZYDIS_MAX_OPERAND_COUNT];
};

static void fail(const struct pair *pair, const char *why)
{
	if (failures++ >= 20)
		return;
	printf("%s: %u-bit", why, pair->code_bits);
	for (unsigned n = 0; n < X86_INSN_MAX_BYTES; n++)
		printf(" %02x", pair->guest_bytes[n]);
	printf(" became");
	for (unsigned n = 0; n < pair->copy->bytes; n++)
		printf(" %02x", pair->copy->host[n]);
	printf(", %u bytes looked up\n", pair->copy->looked_up_bytes);
}

static bool is_displaced(unsigned reg)
{
	return reg == R10 || reg == R11 || reg == R14 || reg == R15;
}

/* 0 to 15, the register of which it is a part; or NONE. */
static unsigned gpr_of(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR8:
		if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
			return (unsigned)(reg - ZYDIS_REGISTER_AH);
		return (unsigned)(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
								   reg) -
				  ZYDIS_REGISTER_RAX);
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64: return (unsigned)ZydisRegisterGetId(reg);
	default: return NONE;
	}
}

static bool is_high_byte(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}

/* May this register of the host stand for that of the guest? */
static bool stands_for(const struct pair *pair, ZydisRegister guest, ZydisRegister host)
{
	unsigned guest_number = gpr_of(guest);
	unsigned host_number = gpr_of(host);
	bool lent = host_number == 5 || host_number == 6 || host_number == 8 || host_number == 9 ||
		    host_number == 12 || host_number == 13;

	if (guest_number == NONE || host_number == NONE)
		return guest == host;
	if (host_number == R14 || host_number == R15)
		return false;
	if (pair->guest.meta.category == ZYDIS_CATEGORY_BITBYTE && pair->copy->looked_up_bytes &&
	    host_number == R11)
		return true; /* the bit's number within the operand */
	if (is_displaced(guest_number))
		return host_number == R10 || host_number == R11 || lent;
	if (is_high_byte(guest) && pair->copy->looked_up_bytes)
		return host_number == R10 || host_number == R11 || lent || guest == host;
	return guest == host;
}

static bool is_forbidden(const ZydisDecodedInstruction *insn)
{
	if (insn->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED ||
	    insn->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
		return true;
	switch (insn->meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
	case ZYDIS_CATEGORY_POP:
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_RDWRFSGS:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_SEGOP:
	case ZYDIS_CATEGORY_STRINGOP:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_VTX:
	case ZYDIS_CATEGORY_XSAVE:
	case ZYDIS_CATEGORY_XSAVEOPT: return true;
	default:
		return insn->mnemonic == ZYDIS_MNEMONIC_CPUID ||
		       insn->mnemonic == ZYDIS_MNEMONIC_ENTER ||
		       insn->mnemonic == ZYDIS_MNEMONIC_LEAVE ||
		       insn->mnemonic == ZYDIS_MNEMONIC_XLAT;
	}
}

/* The slot of a displaced register, in place of that register. */
static bool is_slot_of(const ZydisDecodedOperand *host, unsigned guest_register)
{
	return host->mem.segment == ZYDIS_REGISTER_GS && host->mem.base == ZYDIS_REGISTER_NONE &&
	       host->mem.index == ZYDIS_REGISTER_NONE &&
	       host->mem.disp.value == emission_slot(guest_register) && host->size <= 64 &&
	       !(host->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
}

/*
 * Where the lookup has left the address: r10, or r10 or the guest's base with the delta in r11. r10
 * may be that of the last byte.
 */
static bool is_looked_up_address(const struct pair *pair, const ZydisDecodedOperand *guest,
				 const ZydisDecodedOperand *host)
{
	int64_t disp = host->mem.disp.has_displacement ? host->mem.disp.value : 0;
	int64_t guest_disp = guest->mem.disp.has_displacement ? guest->mem.disp.value : 0;

	if (host->mem.segment == ZYDIS_REGISTER_GS || host->mem.segment == ZYDIS_REGISTER_FS)
		return false;
	if (host->mem.base == ZYDIS_REGISTER_R10 && host->mem.index == ZYDIS_REGISTER_NONE)
		return disp == 0;
	if (host->mem.base == ZYDIS_REGISTER_R10)
		return host->mem.index == ZYDIS_REGISTER_R11 && host->mem.scale == 1 &&
		       disp == -(int64_t)pair->copy->r10_ahead;
	if (pair->code_bits != 64 || disp != guest_disp)
		return false;
	return host->mem.index == ZYDIS_REGISTER_R11 && host->mem.scale == 1 &&
	       host->mem.base == guest->mem.base && guest->mem.index == ZYDIS_REGISTER_NONE;
}

static bool is_line_flush(const struct pair *pair)
{
	return pair->host.mnemonic == ZYDIS_MNEMONIC_CLFLUSH ||
	       pair->host.mnemonic == ZYDIS_MNEMONIC_CLFLUSHOPT;
}

static void check_memory(const struct pair *pair, const ZydisDecodedOperand *guest,
			 const ZydisDecodedOperand *host)
{
	unsigned bytes = is_line_flush(pair) ? 1 : host->size / 8;

	if (host->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM ||
	    guest->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
		fail(pair, "memory that modrm does not name");
	else if (!is_looked_up_address(pair, guest, host))
		fail(pair, "an address that was not looked up");
	else if (bytes > pair->copy->looked_up_bytes)
		fail(pair, "reaches beyond what was looked up");
	else if (guest->size != host->size || pair->copy->looked_up_bytes != bytes)
		fail(pair, "reaches another number of bytes");
	else if (host->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE && !pair->copy->writable)
		fail(pair, "writes what was looked up for reading");
}

static void check_operand(const struct pair *pair, const ZydisDecodedOperand *guest,
			  const ZydisDecodedOperand *host)
{
	if (host->type == ZYDIS_OPERAND_TYPE_MEMORY && guest->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		if (!is_displaced(gpr_of(guest->reg.value)) ||
		    !is_slot_of(host, gpr_of(guest->reg.value)) || host->size != guest->size)
			fail(pair, "memory in place of a register");
		return;
	}
	if (host->type != guest->type || host->size != guest->size) {
		fail(pair, "another operand, or of another size");
		return;
	}
	if (host->type == ZYDIS_OPERAND_TYPE_MEMORY)
		check_memory(pair, guest, host);
	else if (host->type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
		 host->imm.value.u != guest->imm.value.u)
		fail(pair, "another immediate");
	else if (host->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		 !stands_for(pair, guest->reg.value, host->reg.value))
		fail(pair, "another register");
}

/* What an instruction touches without naming it. */
static void check_hidden_operands(const struct pair *pair)
{
	for (unsigned n = pair->host.operand_count_visible; n < pair->host.operand_count; n++) {
		const ZydisDecodedOperand *op = &pair->host_ops[n];
		unsigned reg =
			op->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(op->reg.value) : NONE;

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
			fail(pair, "hidden memory");
		else if (reg != NONE && (is_displaced(reg) || reg == 4))
			fail(pair, "a hidden register of ours");
	}
}

static void check_prefixes(const struct pair *pair)
{
	bool guest_lock = pair->guest.attributes & ZYDIS_ATTRIB_HAS_LOCK;
	bool host_lock = pair->host.attributes & ZYDIS_ATTRIB_HAS_LOCK;

	if (guest_lock != host_lock)
		fail(pair, "another LOCK");
	if (pair->host.address_width != 64)
		fail(pair, "an address of 32 bits");
}

/* The engine's own validator must agree, and refuse what is spoilt. */
static void check_validator(const struct pair *pair)
{
	if (pair->copy->error)
		fail(pair, pair->copy->error);
	if (pair->copy->accepts_fewer_bytes)
		fail(pair, "the validator takes fewer bytes");
	if (pair->copy->accepts_read_only)
		fail(pair, "the validator takes a write to what is read");
	if (pair->copy->accepts_other_immediate)
		fail(pair, "the validator takes another immediate");
}

static void swap_operands(struct pair *pair)
{
	ZydisDecodedOperand first = pair->guest_ops[0];

	pair->guest_ops[0] = pair->guest_ops[1];
	pair->guest_ops[1] = first;
}

static void check_copy(struct pair *pair)
{
	bool guest_known = ZYAN_SUCCESS(ZydisDecoderDecodeFull(
		&guest_decoders[mode_of(pair->code_bits)],
		pair->guest_bytes, X86_INSN_MAX_BYTES, &pair->guest, pair->guest_ops));

	pair->host_known = ZYAN_SUCCESS(ZydisDecoderDecodeFull(
		&host_decoder, pair->copy->host, pair->copy->bytes, &pair->host, pair->host_ops));

	if (!guest_known && !pair->host_known) {
		unknown++; /* #UD for both */
		return;
	}
	if (!pair->host_known || pair->host.length != pair->copy->bytes) {
		fail(pair, "not one instruction");
		return;
	}
	if (is_forbidden(&pair->host))
		fail(pair, "not a data instruction");
	if (!guest_known) {
		fail(pair, "an instruction where the guest has none");
		return;
	}
	if (pair->guest.mnemonic != pair->host.mnemonic ||
	    pair->guest.operand_count_visible != pair->host.operand_count_visible) {
		fail(pair, "another instruction");
		return;
	}
	if (pair->host.mnemonic == ZYDIS_MNEMONIC_TEST &&
	    pair->host_ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
	    pair->guest_ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    !is_slot_of(&pair->host_ops[0], gpr_of(pair->guest_ops[0].reg.value)))
		swap_operands(pair); /* its sides do not matter */
	for (unsigned n = 0; n < pair->host.operand_count_visible; n++)
		check_operand(pair, &pair->guest_ops[n], &pair->host_ops[n]);
	check_hidden_operands(pair);
	check_prefixes(pair);
	check_validator(pair);
}

/* ---- executing it between guard pages ---- */

/* one accessible page between two that are not; where the copy is executed */
static uint8_t *data, *code;
static greg_t registers[16];
static uint8_t *fault_address;
static int fault_signal;
static sigjmp_buf back;

static const int greg[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
			      REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
			      REG_R12, REG_R13, REG_R14, REG_R15 };

static void on_start(int number, siginfo_t *info, void *context)
{
	ucontext_t *interrupted = context;

	(void)number;
	(void)info;
	for (int n = 0; n < 16; n++)
		interrupted->uc_mcontext.gregs[greg[n]] = registers[n];
	interrupted->uc_mcontext.gregs[REG_RIP] = (greg_t)code;
}

static void on_end(int number, siginfo_t *info, void *context)
{
	(void)context;
	fault_signal = number;
	fault_address = number == SIGSEGV || number == SIGBUS ? info->si_addr : NULL;
	siglongjmp(back, 1);
}

/*
 * Far from what the guest's stack pointer comes to by an instruction that writes 16 bits of it: a
 * signal that finds it inside of this stack is taken for one of a handler's.
 */
static uint8_t *make_signal_stack(size_t bytes)
{
	enum { APART = 1 << 16 };
	uint8_t *place = mmap(NULL, bytes + 2 * APART, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			      0);

	if (place == MAP_FAILED || mprotect(place + APART, bytes, PROT_READ | PROT_WRITE))
		exit(70);
	return place + APART;
}

static void prepare_execution(void)
{
	enum { STACK_BYTES = 1 << 17 };
	static const int ends[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	struct sigaction start = { .sa_sigaction = on_start, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct sigaction end = { .sa_sigaction = on_end,
				 .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	stack_t stack = { .ss_sp = make_signal_stack(STACK_BYTES), .ss_size = STACK_BYTES };

	data = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	if (data == MAP_FAILED || code == MAP_FAILED ||
	    mprotect(data + PAGE, PAGE, PROT_READ | PROT_WRITE))
		exit(70);
	data += PAGE;
	sigaltstack(&stack, NULL);
	sigaction(SIGUSR1, &start, NULL);
	for (unsigned n = 0; n < sizeof(ends) / sizeof(ends[0]); n++)
		sigaction(ends[n], &end, NULL);
}

/* Registers as the lookup leaves them: with the operand's first byte at `at`. */
static void set_registers(const struct pair *pair, uint8_t *at)
{
	for (unsigned n = 0; n < pair->host.operand_count_visible; n++) {
		const ZydisDecodedOperand *op = &pair->host_ops[n];
		int64_t disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (op->mem.index != ZYDIS_REGISTER_NONE) {
			registers[gpr_of(op->mem.index)] = 1;
			disp += op->mem.scale;
		}
		registers[gpr_of(op->mem.base)] = (greg_t)(at - disp);
	}
}

static void execute_at(const struct pair *pair, uint8_t *at)
{
	memset(registers, 0, sizeof(registers));
	registers[4] = (greg_t)(data + PAGE / 2);
	set_registers(pair, at);
	fault_signal = 0;
	if (!sigsetjmp(back, 1)) {
		raise(SIGUSR1);
		exit(70);
	}
	if (fault_address && fault_address >= data - PAGE && fault_address < data + 2 * PAGE) {
		beyond++;
		fail(pair, "touches what is beyond its operand");
	}
}

/* Where this hash is, or a free place for it. */
static uint64_t *slot_of(uint64_t hash)
{
	size_t slot = (size_t)(hash >> 20) % DISTINCT_SLOTS;

	while (distinct[slot] && (distinct[slot] ^ hash) & ~(uint64_t)MODE_MASK)
		slot = (slot + 1) % DISTINCT_SLOTS;
	return &distinct[slot];
}

static void remember(uint64_t *slot, uint64_t hash_and_modes)
{
	known += !*slot;
	if (known > MOST_DISTINCT) {
		printf("emission_test: more forms than there is room for\n");
		exit(EXIT_FAILURE);
	}
	*slot |= hash_and_modes;
}

static bool is_new(const struct pair *pair)
{
	uint64_t hash = 0xcbf29ce484222325ull ^ pair->copy->looked_up_bytes;
	uint64_t mode = 1u << mode_of(pair->code_bits);
	uint64_t *slot;
	bool is_new;

	for (unsigned n = 0; n < pair->copy->bytes; n++)
		hash = (hash ^ pair->copy->host[n]) * 0x100000001b3ull;
	hash &= ~(uint64_t)MODE_MASK;
	slot = slot_of(hash);
	is_new = !*slot;
	executed_of[mode_of(pair->code_bits)] += !(*slot & mode);
	remember(slot, hash | mode);
	return is_new;
}

static void read_forms(const char *path)
{
	FILE *forms = fopen(path, "rb");
	uint64_t form;

	if (!forms)
		return; /* the first slice */
	while (fread(&form, sizeof(form), 1, forms) == 1) {
		remember(slot_of(form), form);
		for (unsigned mode = 0; mode < MODES; mode++)
			executed_of[mode] += form >> mode & 1;
	}
	fclose(forms);
}

static bool write_forms(const char *path)
{
	FILE *forms = fopen(path, "wb");
	bool good = forms;

	for (size_t slot = 0; good && slot < DISTINCT_SLOTS; slot++)
		good = !distinct[slot] ||
		       fwrite(&distinct[slot], sizeof(distinct[slot]), 1, forms) == 1;
	if (forms && fclose(forms))
		good = false;
	return good;
}

static void execute(const struct pair *pair)
{
	if (!pair->copy->looked_up_bytes || !is_new(pair))
		return;
	memcpy(code, pair->copy->host, pair->copy->bytes);
	code[pair->copy->bytes] = 0xcc;
	execute_at(pair, data + PAGE - pair->copy->looked_up_bytes);
	execute_at(pair, data);
	executed++;
}

/* ---- every encoding ---- */

static void try_encoding(unsigned code_bits, const uint8_t *bytes)
{
	struct pair pair = { .guest_bytes = bytes, .code_bits = code_bits };
	struct x86_insn insn;
	struct emission copy;
	unsigned long before = failures;

	encodings++;
	if (x86_decode(bytes, X86_INSN_MAX_BYTES, code_bits, &insn) ||
	    (insn.encoding.class != X86_CLASS_DATA && insn.encoding.class != X86_CLASS_BIT_STRING))
		return;
	pair.copy = &copy;
	if (emission_translate(bytes, insn.length, &copy) != 1) {
		copy.bytes = 0;
		fail(&pair, "not one copy");
		return;
	}
	copied++;
	check_copy(&pair);
	if (failures == before && pair.host_known)
		execute(&pair);
}

/*
 * A few of each kind: base, SIB without and with an index, without a base, displacement only,
 * displacements of both sizes; and all registers.
 */
struct form { uint8_t modrm, next; };
static const struct form forms[] = {
	{ 0x01, 0x21 }, { 0x04, 0x21 }, { 0x04, 0x88 }, { 0x04, 0x25 }, { 0x05, 0x21 },
	{ 0x06, 0x21 }, { 0x42, 0x21 }, { 0x44, 0x21 }, { 0x44, 0xd3 }, { 0x86, 0x21 },
	{ 0x84, 0x7a }, { 0x87, 0x21 }, { 0xc0, 0x21 }, { 0xc1, 0x21 }, { 0xc2, 0x21 },
	{ 0xc3, 0x21 }, { 0xc4, 0x21 }, { 0xc5, 0x21 }, { 0xc6, 0x21 }, { 0xc7, 0x21 },
};
enum { FORMS = sizeof(forms) / sizeof(forms[0]), REGISTERS = 8 };

/* Of what has this number, the first form of this slice; every slices'th behind it is, too. */
static unsigned first_form(uint64_t number)
{
	return (unsigned)(((number * 0x9e3779b97f4a7c15ull >> 40) + slice) % slices);
}

/* Opcode, modrm, and something behind them that is no small number. */
static void finish_encoding(unsigned code_bits, uint8_t *bytes, unsigned at, unsigned opcode,
			    unsigned form)
{
	static const uint8_t rest[] = { 0x12, 0xf3, 0x34, 0x0f, 0x05, 0x99, 0x07, 0x66, 0x03 };

	bytes[at++] = (uint8_t)opcode;
	bytes[at++] = (uint8_t)(forms[form % FORMS].modrm | (form / FORMS & 7) << 3);
	if (at < X86_INSN_MAX_BYTES)
		bytes[at++] = forms[form % FORMS].next;
	for (unsigned n = 0; at < X86_INSN_MAX_BYTES && n < sizeof(rest); n++)
		bytes[at++] = rest[n];
	try_encoding(code_bits, bytes);
}

static void try_legacy(unsigned code_bits, unsigned map, unsigned first, unsigned second,
		       unsigned rex, unsigned opcode)
{
	uint64_t number = ((((uint64_t)opcode * 256 + rex) * 256 + second) * 256 + first) * 256 +
			  map * 4 + code_bits / 32;

	for (unsigned form = first_form(number); form < FORMS * REGISTERS; form += slices) {
		uint8_t bytes[X86_INSN_MAX_BYTES] = { 0 };
		unsigned at = 0;

		if (first)
			bytes[at++] = (uint8_t)first;
		if (second)
			bytes[at++] = (uint8_t)second;
		if (rex)
			bytes[at++] = (uint8_t)rex;
		if (map)
			bytes[at++] = 0x0f;
		if (map > 1)
			bytes[at++] = map == 2 ? 0x38 : 0x3a;
		finish_encoding(code_bits, bytes, at, opcode, form);
	}
}

static void try_legacy_prefixes(unsigned code_bits, unsigned map, unsigned opcode)
{
	static const uint8_t prefixes[] = { 0,	  0x66, 0x67, 0xf2, 0xf3, 0xf0,
					    0x64, 0x36, 0x26, 0x2e, 0x3e, 0x65 };
	static const uint8_t rexes[] = { 0, 0x40, 0x41, 0x44, 0x48, 0x4f };

	for (unsigned a = 0; a < sizeof(prefixes); a++)
		for (unsigned b = 0; b < sizeof(prefixes); b++)
			for (unsigned rex = 0; rex < (code_bits == 64 ? sizeof(rexes) : 1); rex++)
				if ((a || !b) && (!a || a != b))
					try_legacy(code_bits, map, prefixes[a], prefixes[b],
						   rexes[rex], opcode);
}

/* vector: L, W, pp and vvvv; extension: R, X, B. */
static void try_vex(unsigned code_bits, unsigned map, unsigned opcode, unsigned vector,
		    unsigned extension, unsigned prefix)
{
	uint64_t number = ((((uint64_t)opcode * 256 + vector) * 256 + extension) * 256 + prefix) *
				  256 + map * 4 + code_bits / 32;

	for (unsigned form = first_form(number); form < FORMS * REGISTERS; form += slices) {
		uint8_t bytes[X86_INSN_MAX_BYTES] = { 0 };
		unsigned at = 0;

		if (prefix)
			bytes[at++] = (uint8_t)prefix;
		bytes[at++] = 0xc4;
		bytes[at++] = (uint8_t)(extension << 5 | map);
		bytes[at++] = (uint8_t)vector;
		finish_encoding(code_bits, bytes, at, opcode, form);
	}
}

static void try_vex_prefixes(unsigned code_bits, unsigned map, unsigned opcode)
{
	static const uint8_t extensions[] = { 7, 6, 3, 0 };
	static const uint8_t prefixes[] = { 0, 0x67, 0x64 };
	enum { VECTORS = 256, VVVV = 0x78 }; /* W, vvvv, L, pp */

	for (unsigned value = 0; value < VECTORS; value++)
		for (unsigned x = 0; x < sizeof(extensions); x++)
			for (unsigned prefix = 0; prefix < sizeof(prefixes); prefix++)
				if ((code_bits == 64 || extensions[x] >= 6) &&
				    (!prefix || (value & VVVV) == VVVV || !(value & VVVV)))
					try_vex(code_bits, map, opcode, value, extensions[x],
						prefixes[prefix]);
}

/* The short form: R, vvvv, L, pp. */
static void try_short_vex(unsigned code_bits, unsigned opcode)
{
	enum { MAP_OF_THEIR_OWN = 8, VECTORS = 256 };

	for (unsigned vector = code_bits == 64 ? 0 : 0xc0; vector < VECTORS; vector++) {
		uint64_t number = ((uint64_t)opcode * 256 + vector) * 256 + MAP_OF_THEIR_OWN * 4 +
				  code_bits / 32;

		for (unsigned form = first_form(number); form < FORMS * REGISTERS; form += slices) {
			uint8_t bytes[X86_INSN_MAX_BYTES] = { 0xc5, (uint8_t)vector };

			finish_encoding(code_bits, bytes, 2, opcode, form);
		}
	}
}

static void try_mode(unsigned code_bits)
{
	for (unsigned flat = 0; flat < (code_bits == 64 ? 1 : 2); flat++) {
		emission_set_mode(code_bits, flat);
		for (unsigned opcode = 0; opcode < 256; opcode++) {
			for (unsigned map = 0; map < 4; map++)
				try_legacy_prefixes(code_bits, map, opcode);
			for (unsigned map = 1; map < 4; map++)
				try_vex_prefixes(code_bits, map, opcode);
			try_short_vex(code_bits, opcode);
		}
	}
}

static uint64_t rnd(void)
{
	static uint64_t state;

	state = state ? state : (seed + 1) * 0x9e3779b97f4a7c15ull;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Up to six prefixes, REX or a begin of VEX, a map, and what follows: all by chance. */
static void try_random(unsigned code_bits)
{
	static const uint8_t prefixes[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x26, 0x2e, 0x36,
					    0x3e, 0x64, 0x65, 0x40, 0x48, 0x4c, 0x4f, 0x66 };
	uint8_t bytes[X86_INSN_MAX_BYTES];
	unsigned at = 0;

	for (unsigned n = rnd() % 7; n; n--)
		bytes[at++] = prefixes[rnd() % sizeof(prefixes)];
	switch (rnd() % 4) {
	case 0: bytes[at++] = 0x0f; break;
	case 1:
		bytes[at++] = 0x0f;
		bytes[at++] = rnd() % 2 ? 0x38 : 0x3a;
		break;
	case 2: bytes[at++] = rnd() % 2 ? 0xc4 : 0xc5; break;
	default: break;
	}
	while (at < sizeof(bytes))
		bytes[at++] = (uint8_t)rnd();
	try_encoding(code_bits, bytes);
}

static void try_random_mode(unsigned code_bits, bool flat)
{
	emission_set_mode(code_bits, flat);
	for (unsigned n = 0; n < RANDOM / slices; n++)
		try_random(code_bits);
}

static void make_decoders(void)
{
	ZydisDecoderInit(&host_decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderInit(&guest_decoders[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	ZydisDecoderInit(&guest_decoders[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	guest_decoders[2] = host_decoder;
}

static void try_all(void)
{
	static const unsigned modes[] = { 64, 32, 16 };

	for (unsigned n = 0; n < MODES; n++) {
		try_mode(modes[n]);
		try_random_mode(modes[n], true);
		try_random_mode(modes[n], false);
	}
}

int main(int argc, char **argv)
{
	const char *path = argc > 3 ? argv[3] : NULL;

	slices = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 1;
	seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;
	slice = (unsigned)(seed % slices);
	distinct = calloc(DISTINCT_SLOTS, sizeof(*distinct));
	if (!distinct)
		return EXIT_FAILURE;
	make_decoders();
	emission_begin();
	prepare_execution();
	if (path)
		read_forms(path);
	try_all();
	if (path && !write_forms(path)) {
		perror(path);
		return EXIT_FAILURE;
	}
	printf("emission_test: slice %u of %u: %lu encodings, %lu copies (%lu of instructions "
	       "that Zydis does not know), %lu failures; %lu new forms executed, %lu beyond; "
	       "known %lu distinct, of 16-bit code %lu, 32-bit %lu, 64-bit %lu\n",
	       slice, slices, encodings, copied, unknown, failures, executed, beyond, known,
	       executed_of[0], executed_of[1], executed_of[2]);
	return failures || !copied || !executed;
}
