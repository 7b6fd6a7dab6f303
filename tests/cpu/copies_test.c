/*
 * --debug-copies: an emission that is wrong ends the process before it is executed, and is told.
 *
 * The canonical encoding of one instruction is spoilt on its way (soft_host_encoding, by the
 * linker's --wrap) in each of the ways that would be a hole; the program is then run by an engine
 * with ENGINE_WITHOUT_TRUST, in a process of its own. Good emissions run; without the option one
 * that is spoilt, but harmless, is executed: it is the option that looks.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/soft/soft_internal.h"
#include "engine/soft/translate/translate_encoding.h"
#include "lib/check.h"
#include "no_devices.h"

enum {
	RAM_BYTES = 1 << 20,
	CODE = 0x1000,
	DATA = 0x3000,
	WORDS_BYTES = 256,
	EXIT_FAULT = 70,
	HLT = 0xf4,
	OPCODE_MOV = 0xb8,
	OPCODE_ADD = 0x01
};

/* 16-bit code: mov eax, 0x12345678; add [si], eax; hlt */
static const uint8_t program[] = { 0x66, OPCODE_MOV, 0x78, 0x56, 0x34,
				   0x12, 0x66,	     OPCODE_ADD, 0x04, HLT };
enum { VALUE = 0x12345678, BEFORE = 0x11111111 };

typedef void spoil_code(struct host_encoding *encoding);
static spoil_code *spoil;
static uint8_t spoilt_opcode;

bool __real_soft_host_encoding(const struct x86_insn *insn, struct host_encoding *ret);
bool __wrap_soft_host_encoding(const struct x86_insn *insn, struct host_encoding *ret);

bool __wrap_soft_host_encoding(const struct x86_insn *insn, struct host_encoding *ret)
{
	bool is_copied = __real_soft_host_encoding(insn, ret);

	if (is_copied && spoil && insn->opcode == spoilt_opcode)
		spoil(ret);
	return is_copied;
}

/* What a review found once: the host reads two bytes fewer, and executes these. */
static void narrow(struct host_encoding *encoding) { encoding->op.extra66 = true; }
static void change_immediate(struct host_encoding *encoding) { encoding->immediate ^= 1; }
static void lengthen(struct host_encoding *encoding) { encoding->immediate_bytes++; }
static void reach_further(struct host_encoding *encoding) { encoding->op.rex_w = true; }
static void look_up_less(struct host_encoding *encoding) { encoding->memory_bytes--; }
static void take_another(struct host_encoding *encoding) { encoding->reg = 3; }
static void lock(struct host_encoding *encoding) { encoding->op.lock = true; }
static void subtract(struct host_encoding *encoding) { encoding->op.opcode = 0x29; }

static void jump(struct host_encoding *encoding)
{
	encoding->op.opcode = 0xff;
	encoding->reg = 4;
}

static void load_table(struct host_encoding *encoding) /* LGDT [m] */
{
	encoding->op.map = 1;
	encoding->op.opcode = 1;
	encoding->reg = 2;
}

struct wrong { const char *what; uint8_t opcode; spoil_code *spoil; };
static const struct wrong wrongs[] = {
	{ "an immediate of two bytes fewer", OPCODE_MOV, narrow },
	{ "an immediate of one byte more", OPCODE_MOV, lengthen },
	{ "another immediate", OPCODE_MOV, change_immediate },
	{ "an access that is wider", OPCODE_ADD, reach_further },
	{ "a lookup of fewer bytes", OPCODE_ADD, look_up_less },
	{ "another register", OPCODE_ADD, take_another },
	{ "LOCK", OPCODE_ADD, lock },
	{ "another opcode", OPCODE_ADD, subtract },
	{ "a jump", OPCODE_ADD, jump },
	{ "a privileged instruction", OPCODE_ADD, load_table },
};

/* ---- a machine of one processor in real mode ---- */

static void set_state(struct engine_cpu *cpu)
{
	struct engine_state state = { .nmi_pending = false };
	struct x86_state *x86 = &state.x86;

	x86->cr0 = 0x30;
	x86->dr[7] = 0x400;
	x86->xcr0 = 1;
	for (unsigned n = 0; n < X86_SEGMENTS; n++)
		x86->segment[n] =
			(struct x86_segment_state){ .attributes = 0x93, .limit = UINT16_MAX };
	x86->segment[X86_CS].attributes = 0x9b;
	x86->rip = CODE;
	x86->rflags = 2;
	x86->gpr[RSI] = DATA;
	engine_set(cpu, ENGINE_ALL & ~ENGINE_VECTOR, &state);
}

struct outcome { uint32_t eax, sum; };

/* In a process of its own. False: there is no machine. */
static bool run_program(unsigned without, char *last_words, struct outcome *ret)
{
	struct engine_options options = engine_options;
	struct guest_memory memory;
	struct engine_state state;
	struct engine_cpu *cpu;
	struct engine *engine;
	uint8_t *ram = mmap(NULL, guest_memory_footprint_bytes(RAM_BYTES), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ram == MAP_FAILED)
		return false;
	guest_memory_init(&memory, ram, RAM_BYTES, RAM_BYTES);
	memcpy(ram + CODE, program, sizeof(program));
	memcpy(ram + DATA, &(uint32_t){ BEFORE }, sizeof(uint32_t));
	options.without = without;
	engine = engine_create(&memory, &options);
	cpu = engine ? engine_cpu_create(engine, &ops, NULL) : NULL;
	if (!cpu || engine_prepare_thread(cpu))
		return false;
	engine_set_last_words(engine, last_words, WORDS_BYTES);
	set_state(cpu);
	engine_run(cpu);
	engine_get(cpu, ENGINE_GENERAL, &state);
	ret->eax = (uint32_t)state.x86.gpr[RAX];
	memcpy(&ret->sum, ram + DATA, sizeof(ret->sum));
	return true;
}

struct report { struct outcome outcome; char last_words[WORDS_BYTES]; };

/* Its exit status; what the program came to, or the last words, are in *report. */
static int run_apart(const struct wrong *wrong, unsigned without, struct report *report)
{
	int status = -1;
	pid_t child;

	memset(report, 0, sizeof(*report));
	child = fork();
	if (!child) {
		spoil = wrong ? wrong->spoil : NULL;
		spoilt_opcode = wrong ? wrong->opcode : 0;
		_exit(!run_program(without, report->last_words, &report->outcome));
	}
	return child < 0 || waitpid(child, &status, 0) != child ? -1 : status;
}

static bool is_good(int status, const struct report *report)
{
	return status == 0 && !report->last_words[0] && report->outcome.eax == VALUE &&
	       report->outcome.sum == VALUE + BEFORE;
}

static bool is_caught(int status, const struct report *report)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAULT &&
	       strstr(report->last_words, "a copy of opcode");
}

static int expect(bool holds, const char *what, const struct report *report)
{
	printf("%s: %s (%s)\n", holds ? "ok" : "FAIL", what, report->last_words);
	return !holds;
}

int main(void)
{
	struct report *report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	static const struct wrong harmless = { "", OPCODE_MOV, change_immediate };
	int failures = 0;
	int status;

	if (report == MAP_FAILED)
		return EXIT_FAULT;
	status = run_apart(NULL, ENGINE_WITHOUT_TRUST, report);
	failures += expect(is_good(status, report), "what is emitted well runs", report);
	for (unsigned n = 0; n < sizeof(wrongs) / sizeof(wrongs[0]); n++) {
		status = run_apart(&wrongs[n], ENGINE_WITHOUT_TRUST, report);
		failures += expect(is_caught(status, report), wrongs[n].what, report);
	}
	status = run_apart(&harmless, 0, report);
	failures += expect(CHECKS_RUN ? is_caught(status, report)
				      : !status && report->outcome.eax == (VALUE ^ 1),
			   "without the option nobody looks", report);
	return failures != 0;
}
