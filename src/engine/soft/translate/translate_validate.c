/*
 * Emitted copies looked at again: the host bytes are decoded as what they are now, 64-bit code, and
 * compared with the guest's instruction. Independent of how they were made; builds with checks and
 * engines with ENGINE_WITHOUT_TRUST do it for every copy of every block, tests with Zydis, too.
 *
 * Invariants
 *   - It is one whole data instruction: nothing that branches, is privileged, or touches memory
 *     that modrm does not name.
 *   - It has the guest's opcode, immediate, width and LOCK. What 64-bit code does not have has the
 *     one opcode that does the same; where a displaced register's slot stands for the operand of
 *     modrm.reg, the opcode is that of the other direction.
 *   - Its memory operand is addressed by what the lookup left (r10, or r11 and the guest's base or
 *     r10, which may be that of the last byte), lies within the bytes that were looked up, and is
 *     written only if they were looked up for writing; or it is the slot of a displaced register,
 *     and is read.
 *   - Its registers are the guest's. For a displaced one, or AH to BH where there must be REX, one
 *     of those that are lent stands. It changes neither r14 nor r15, which hold the tables.
 */
#include <stdio.h>
#include <unistd.h>

#include "translate_encoding.h"
#include "translate_internal.h"

static bool is_slot(const struct x86_insn *host)
{
	int32_t first = (int32_t)offsetof(struct soft_cpu, state.gpr);
	int32_t at = host->disp - first;

	return host->segment == X86_GS && host->base == X86_NO_REGISTER &&
	       host->index == X86_NO_REGISTER && at >= 0 && at % 8 == 0 && at / 8 < 16 &&
	       !x86_insn_is(host, X86_ENC_MEM_WRITE) && host->mem_bytes <= 8;
}

/* One of a strip: a delta of any of the scratch registers beside the guest's base or index. */
static bool is_strip_address(const struct x86_insn *host, const struct x86_insn *guest)
{
	bool has_delta = host->base == R10 || host->base == R11 || host->base == R14;

	if (host->disp != guest->disp)
		return false;
	if (has_delta)
		return host->index == guest->index && host->index < 16 &&
		       host->scale_log2 == guest->scale_log2;
	return host->base == guest->base && !host->scale_log2 &&
	       (host->index == R10 || host->index == R11 || host->index == R14);
}

static bool is_looked_up_address(const struct emitted_copy *copy, const struct x86_insn *host)
{
	const struct x86_insn *guest = copy->insn;

	if (host->segment_override || host->address_bytes != 8)
		return false;
	if (host->base == R10 && host->index == X86_NO_REGISTER)
		return host->disp == 0;
	if (copy->in_strip)
		return is_strip_address(host, guest);
	if (host->base == R10)
		return host->index == R11 && !host->scale_log2 &&
		       host->disp == -(int64_t)copy->r10_ahead;
	if (copy->code_bits != 64 || host->disp != guest->disp)
		return false;
	return host->index == R11 && !host->scale_log2 && host->base == guest->base &&
	       guest->index == X86_NO_REGISTER;
}

static const char *memory_error(const struct emitted_copy *copy, const struct x86_insn *host)
{
	bool bit_string = host->encoding.class == X86_CLASS_BIT_STRING;
	unsigned bytes = bit_string ? host->operand_bytes : host->mem_bytes;

	if (!copy->looked_up_bytes)
		return is_slot(host) ? NULL : "memory that was not looked up";
	if (!is_looked_up_address(copy, host))
		return "an address that was not looked up";
	if (!bytes || bytes > copy->looked_up_bytes)
		return "bytes beyond what was looked up";
	if (x86_insn_is(host, X86_ENC_MEM_WRITE) && !copy->writable)
		return "a write to what was looked up for reading";
	return bit_string && host->reg != R11 ? "a bit's number that was not cut" : NULL;
}

static bool changes(const struct x86_insn *host, uint8_t reg)
{
	bool rm = (x86_insn_is(host, X86_ENC_RM_GPR) && host->mod == 3) ||
		  x86_insn_is(host, X86_ENC_OPCODE_GPR);

	return (x86_insn_is(host, X86_ENC_REG_GPR) && x86_insn_is(host, X86_ENC_REG_WRITE) &&
		host->reg == reg) ||
	       (rm && x86_insn_is(host, X86_ENC_RM_WRITE) && host->rm == reg) ||
	       (x86_insn_is(host, X86_ENC_VVVV_GPR) && x86_insn_is(host, X86_ENC_VVVV_WRITE) &&
		host->vvvv == reg);
}

/* ---- registers ---- */

/* A general register as an operand: AH to BH are 4 to 7, too. */
struct operand { uint8_t reg; bool is_high; };

static struct operand reg_of(const struct x86_insn *insn)
{
	bool is_high = x86_insn_is(insn, X86_ENC_REG8) && !insn->rex;

	return (struct operand){ insn->reg, is_high && insn->reg >= 4 && insn->reg < 8 };
}

static struct operand rm_of(const struct x86_insn *insn)
{
	bool is_high = x86_insn_is(insn, X86_ENC_RM8) && !insn->rex;

	return (struct operand){ insn->rm, is_high && insn->rm >= 4 && insn->rm < 8 };
}

static bool has_gpr_rm(const struct x86_insn *insn)
{
	return (x86_insn_is(insn, X86_ENC_RM_GPR) && insn->has_modrm && insn->mod == 3) ||
	       x86_insn_is(insn, X86_ENC_OPCODE_GPR);
}

static bool is_lent(uint8_t reg)
{
	return reg == R10 || reg == R11 || reg == R13 || reg == R12 || reg == R9 || reg == R8 ||
	       reg == RBP || reg == RSI;
}

/* May this register of the host stand for that of the guest? */
static bool stands_for(struct operand guest, struct operand host)
{
	if (displaced(guest.reg))
		return is_lent(host.reg) && !host.is_high;
	return (guest.reg == host.reg && guest.is_high == host.is_high) ||
	       (guest.is_high && is_lent(host.reg) && !host.is_high);
}

static uint8_t slot_register(const struct x86_insn *host)
{
	return (uint8_t)((host->disp - (int32_t)offsetof(struct soft_cpu, state.gpr)) / 8);
}

/* The copy has a displaced register's slot where the guest has that register. */
static bool has_slot(const struct emitted_copy *copy, const struct x86_insn *host)
{
	return x86_insn_has_memory(host) && !copy->looked_up_bytes;
}

/* Of one with a slot: its other operand, and whether the slot is that of the guest's modrm.reg. */
static bool slot_is_of_reg(const struct x86_insn *guest, const struct x86_insn *host)
{
	return x86_insn_is(guest, X86_ENC_REG_GPR) && displaced(guest->reg) &&
	       slot_register(host) == guest->reg && !displaced(guest->rm) &&
	       host->reg == guest->rm;
}

static const char *slot_error(const struct x86_insn *guest, const struct x86_insn *host)
{
	bool is_of_rm = has_gpr_rm(guest) && displaced(guest->rm) &&
			slot_register(host) == guest->rm && host->reg == guest->reg;

	return is_of_rm || slot_is_of_reg(guest, host) ? NULL : "another register's slot";
}

static const char *register_error(const struct emitted_copy *copy, const struct x86_insn *host)
{
	const struct x86_insn *guest = copy->insn;
	bool is_bit_string = guest->encoding.class == X86_CLASS_BIT_STRING;
	bool reg_is_other = x86_insn_is(guest, X86_ENC_REG_GPR)
				    ? !stands_for(reg_of(guest), reg_of(host))
				    : guest->reg != host->reg;
	bool vvvv_is_other =
		x86_insn_is(guest, X86_ENC_VVVV_GPR)
			? !stands_for((struct operand){ .reg = guest->vvvv },
				      (struct operand){ .reg = host->vvvv })
			: guest->vvvv != host->vvvv;

	if (changes(host, R14) || changes(host, R15))
		return "a table's register";
	if (has_slot(copy, host))
		return slot_error(guest, host);
	if (guest->has_modrm && reg_is_other && !(is_bit_string && copy->looked_up_bytes))
		return "another register";
	if (vvvv_is_other)
		return "another register in VEX";
	if (has_gpr_rm(guest))
		return stands_for(rm_of(guest), rm_of(host)) ? NULL : "another register in r/m";
	return guest->has_modrm && guest->mod == 3 && guest->rm != host->rm
		       ? "another register in r/m"
		       : NULL;
}

/* ---- opcodes ---- */

/* What has another opcode in 64-bit code: INC and DEC of one byte, 82. */
static bool is_rewritten(const struct x86_insn *guest, const struct x86_insn *host)
{
	enum { GROUP_1_ALIAS = 0x82, GROUP_1 = 0x80, INC = 0x40, DEC = 0x48, GROUP_5 = 0xff };

	if (!x86_insn_is(guest, X86_ENC_NOT_64) || guest->map)
		return false;
	if (guest->opcode == GROUP_1_ALIAS)
		return host->opcode == GROUP_1 && host->reg == guest->reg;
	return guest->opcode >= INC && guest->opcode < DEC + 8 && host->opcode == GROUP_5 &&
	       host->mod == 3 && host->reg == (guest->opcode >= DEC);
}

static bool has_same_opcode(const struct emitted_copy *copy, const struct x86_insn *host)
{
	const struct x86_insn *guest = copy->insn;
	enum { TEST = 0x85, FROM_RM = 2 };

	if (host->kind != guest->kind || host->map != guest->map || host->pp != guest->pp)
		return false;
	if (x86_insn_is(guest, X86_ENC_NOT_64))
		return is_rewritten(guest, host);
	if (x86_insn_is(guest, X86_ENC_OPCODE_GPR))
		return !((host->opcode ^ guest->opcode) & 0xf8);
	if (has_slot(copy, host) && slot_is_of_reg(guest, host) && guest->opcode != TEST)
		return host->opcode == (guest->opcode | FROM_RM) && host->opcode != guest->opcode;
	return host->opcode == guest->opcode;
}

static unsigned width_of(const struct x86_insn *insn)
{
	return x86_insn_is(insn, X86_ENC_FIXED_66) ? insn->rex_w : insn->operand_bytes;
}

/* What is wrong with it, or NULL. */
const char *soft_copy_error(const struct emitted_copy *copy)
{
	const struct x86_insn *guest = copy->insn;
	struct x86_insn host;
	const char *error;

	if (x86_decode(copy->host, copy->bytes, 64, &host) || host.length != copy->bytes)
		return "not one instruction";
	if (host.encoding.class != X86_CLASS_DATA && host.encoding.class != X86_CLASS_BIT_STRING)
		return "not a data instruction";
	if (!has_same_opcode(copy, &host) || width_of(&host) != width_of(guest))
		return "another instruction, or of another width";
	if (host.imm_bytes != guest->imm_bytes || host.imm != guest->imm)
		return "another immediate";
	if (host.lock != guest->lock)
		return "another LOCK";
	if (!x86_insn_has_memory(&host) && copy->looked_up_bytes)
		return "no memory operand";
	error = x86_insn_has_memory(&host) ? memory_error(copy, &host) : NULL;
	return error ? error : register_error(copy, &host);
}

/* The engine's last words, where it has a place for them; the process ends. */
static void give_up(const struct soft_engine *engine, const struct emitted_copy *copy,
		    const char *error)
{
	enum { TEXT_BYTES = 200, EXIT_FAULT = 70 };
	char text[TEXT_BYTES];
	int at = snprintf(text, sizeof(text), "a copy of opcode %02x of %u-bit code is wrong (%s):",
			  copy->insn->opcode, copy->code_bits, error);

	for (unsigned n = 0; n < copy->bytes && at < TEXT_BYTES; n++)
		at += snprintf(text + at, (size_t)(TEXT_BYTES - at), " %02x", copy->host[n]);
	if (engine->last_words)
		snprintf(engine->last_words, engine->last_words_bytes, "%s", text);
	else
		fprintf(stderr, "umbra: %s\n", text);
	_exit(EXIT_FAULT);
}

void soft_check_copy(void *engine, const struct emitted_copy *copy)
{
	const char *error = soft_copy_error(copy);

	if (error)
		give_up(engine, copy, error);
}
