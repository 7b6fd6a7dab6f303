/* See call_filter.h. */
#include "call_filter.h"

#include <assert.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RULES_STEP = 64, X32_FIRST_CALL = 0x40000000, JUMP_MOST = 255 };

struct call_filter {
	uint32_t otherwise;
	unsigned rules, room;
	struct filter_rule *rule;
};

/* What is being made; one instruction more than fits is counted, and not written. */
struct program {
	unsigned length;
	struct sock_filter *code; /* BPF_MAXINSNS of them */
};

struct call_filter *call_filter_new(uint32_t otherwise)
{
	struct call_filter *filter = calloc(1, sizeof(*filter));

	if (filter)
		filter->otherwise = otherwise;
	return filter;
}

void call_filter_free(struct call_filter *filter)
{
	if (!filter)
		return;
	free(filter->rule);
	free(filter);
}

static int make_room(struct call_filter *filter)
{
	struct filter_rule *more;

	if (filter->rules < filter->room)
		return 0;
	more = realloc(filter->rule, (filter->room + RULES_STEP) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	filter->rule = more;
	filter->room += RULES_STEP;
	return 0;
}

int call_filter_add(struct call_filter *filter, uint32_t action, uint32_t call, unsigned count,
		    const struct filter_test *tests)
{
	int error = make_room(filter);
	struct filter_rule *rule;

	assert(count <= FILTER_TESTS && call < X32_FIRST_CALL);
	if (error)
		return error;
	rule = &filter->rule[filter->rules++];
	*rule = (struct filter_rule){ .action = action, .call = call, .tests = count };
	for (unsigned n = 0; n < count; n++) {
		assert(tests[n].argument < FILTER_TESTS + 1);
		rule->test[n] = tests[n];
	}
	return 0;
}

const struct filter_rule *call_filter_rule(const struct call_filter *filter, unsigned number)
{
	return number < filter->rules ? &filter->rule[number] : NULL;
}

/* ---- the program ---- */

static void emit(struct program *program, uint16_t code, uint32_t value, unsigned yes, unsigned no)
{
	assert(yes <= JUMP_MOST && no <= JUMP_MOST);
	if (program->length < BPF_MAXINSNS)
		program->code[program->length] = (struct sock_filter){
			.code = code, .jt = (uint8_t)yes, .jf = (uint8_t)no, .k = value
		};
	program->length++;
}

static void emit_load(struct program *program, size_t at)
{
	emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)at, 0, 0);
}

static void emit_return(struct program *program, uint32_t action)
{
	emit(program, BPF_RET | BPF_K, action, 0, 0);
}

static void emit_jump(struct program *program, uint16_t compare, uint32_t value, unsigned yes,
		      unsigned no)
{
	emit(program, BPF_JMP | BPF_K | compare, value, yes, no);
}

/* The two halves of an argument; where they lie is said by a host that stores the low one first. */
static size_t argument_low(unsigned n) { return offsetof(struct seccomp_data, args) + n * 8; }
static size_t argument_high(unsigned n) { return argument_low(n) + 4; }

static uint32_t high_of(uint64_t value) { return (uint32_t)(value >> 32); }

/*
 * Instructions that go on behind themselves where the test holds, and `fail` instructions further
 * where it does not. So many are these:
 */
static unsigned test_length(const struct filter_test *test)
{
	switch (test->compare) {
	case FILTER_MASKED: return 6;
	case FILTER_GREATER:
	case FILTER_AT_MOST: return 5;
	default: return 4;
	}
}

static void emit_masked(struct program *program, const struct filter_test *test, unsigned fail)
{
	emit_load(program, argument_high(test->argument));
	emit(program, BPF_ALU | BPF_AND | BPF_K, high_of(test->mask), 0, 0);
	emit_jump(program, BPF_JEQ, high_of(test->value), 0, fail + 3);
	emit_load(program, argument_low(test->argument));
	emit(program, BPF_ALU | BPF_AND | BPF_K, (uint32_t)test->mask, 0, 0);
	emit_jump(program, BPF_JEQ, (uint32_t)test->value, 0, fail);
}

static void emit_equal(struct program *program, const struct filter_test *test, unsigned fail)
{
	emit_load(program, argument_high(test->argument));
	emit_jump(program, BPF_JEQ, high_of(test->value), 0, fail + 2);
	emit_load(program, argument_low(test->argument));
	emit_jump(program, BPF_JEQ, (uint32_t)test->value, 0, fail);
}

static void emit_different(struct program *program, const struct filter_test *test, unsigned fail)
{
	emit_load(program, argument_high(test->argument));
	emit_jump(program, BPF_JEQ, high_of(test->value), 0, 2);
	emit_load(program, argument_low(test->argument));
	emit_jump(program, BPF_JEQ, (uint32_t)test->value, fail, 0);
}

static void emit_greater(struct program *program, const struct filter_test *test, unsigned fail)
{
	emit_load(program, argument_high(test->argument));
	emit_jump(program, BPF_JGT, high_of(test->value), 3, 0);
	emit_jump(program, BPF_JEQ, high_of(test->value), 0, fail + 2);
	emit_load(program, argument_low(test->argument));
	emit_jump(program, BPF_JGT, (uint32_t)test->value, 0, fail);
}

static void emit_at_most(struct program *program, const struct filter_test *test, unsigned fail)
{
	emit_load(program, argument_high(test->argument));
	emit_jump(program, BPF_JGT, high_of(test->value), fail + 3, 0);
	emit_jump(program, BPF_JEQ, high_of(test->value), 0, 2);
	emit_load(program, argument_low(test->argument));
	emit_jump(program, BPF_JGT, (uint32_t)test->value, fail, 0);
}

static void emit_test(struct program *program, const struct filter_test *test, unsigned fail)
{
	switch (test->compare) {
	case FILTER_EQUAL: emit_equal(program, test, fail); break;
	case FILTER_DIFFERENT: emit_different(program, test, fail); break;
	case FILTER_MASKED: emit_masked(program, test, fail); break;
	case FILTER_GREATER: emit_greater(program, test, fail); break;
	case FILTER_AT_MOST: emit_at_most(program, test, fail); break;
	}
}

/* With its end, what happens. */
static unsigned rule_length(const struct filter_rule *rule)
{
	unsigned length = 1;

	for (unsigned n = 0; n < rule->tests; n++)
		length += test_length(&rule->test[n]);
	return length;
}

static void emit_rule(struct program *program, const struct filter_rule *rule)
{
	unsigned left = rule_length(rule);

	for (unsigned n = 0; n < rule->tests; n++) {
		left -= test_length(&rule->test[n]);
		emit_test(program, &rule->test[n], left);
	}
	emit_return(program, rule->action);
}

/* All rules of that call, from its first one on. */
static unsigned call_length(const struct call_filter *filter, unsigned first)
{
	unsigned length = 1;

	for (unsigned n = first; n < filter->rules; n++)
		if (filter->rule[n].call == filter->rule[first].call)
			length += rule_length(&filter->rule[n]);
	return length;
}

static void emit_call(struct program *program, const struct call_filter *filter, unsigned first)
{
	const unsigned length = call_length(filter, first);
	const uint32_t call = filter->rule[first].call;

	/* behind the rules the number is what was loaded before: no rule falls through */
	if (length <= JUMP_MOST) {
		emit_jump(program, BPF_JEQ, call, 0, length);
	} else {
		emit_jump(program, BPF_JEQ, call, 1, 0);
		emit(program, BPF_JMP | BPF_JA, length, 0, 0);
	}
	for (unsigned n = first; n < filter->rules; n++)
		if (filter->rule[n].call == call)
			emit_rule(program, &filter->rule[n]);
	emit_return(program, filter->otherwise);
}

static bool is_first_of_call(const struct call_filter *filter, unsigned number)
{
	for (unsigned n = 0; n < number; n++)
		if (filter->rule[n].call == filter->rule[number].call)
			return false;
	return true;
}

static void emit_all(struct program *program, const struct call_filter *filter)
{
	emit_load(program, offsetof(struct seccomp_data, arch));
	emit_jump(program, BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0);
	emit_return(program, SECCOMP_RET_KILL_PROCESS);
	emit_load(program, offsetof(struct seccomp_data, nr));
	emit_jump(program, BPF_JGE, X32_FIRST_CALL, 0, 1);
	emit_return(program, SECCOMP_RET_KILL_PROCESS);
	for (unsigned n = 0; n < filter->rules; n++)
		if (is_first_of_call(filter, n))
			emit_call(program, filter, n);
	emit_return(program, filter->otherwise);
}

int call_filter_compile(const struct call_filter *filter, struct sock_fprog *ret)
{
	const size_t bytes = BPF_MAXINSNS * sizeof(struct sock_filter);
	struct program program = { .length = 0 };
	void *code = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (code == MAP_FAILED)
		return -ENOMEM;
	program.code = code;
	emit_all(&program, filter);
	if (program.length > BPF_MAXINSNS || mprotect(code, bytes, PROT_READ)) {
		munmap(code, bytes);
		return program.length > BPF_MAXINSNS ? -E2BIG : -ENOMEM;
	}
	*ret = (struct sock_fprog){ .len = (unsigned short)program.length, .filter = code };
	return 0;
}

int call_filter_load(const struct sock_fprog *program)
{
	const long result =
		syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, program);

	if (result < 0)
		return -errno;
	return result ? -ESRCH : 0; /* a thread that could not have it */
}
