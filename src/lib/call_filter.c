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

enum {
	RULES_STEP = 64,
	X32_FIRST_CALL = 0x40000000,
	JUMP_MOST = 255,
	TEST_JUMPS_MOST = 3, /* that a test adds to how far it goes where it fails */
	VALUES_MOST = 200,
};

struct call_filter {
	uint32_t otherwise;
	unsigned rules, room;
	struct filter_rule *rule;
};

/* What is being made. What does not fit, and all where there is no code, is only counted. */
struct program {
	unsigned length;
	struct sock_filter *code; /* BPF_MAXINSNS of them, or NULL */
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
	if (program->code && program->length < BPF_MAXINSNS)
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
 * where it does not.
 */
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

/* ---- rules of one call ---- */

/* Some of these, one behind the other. */
struct part {
	const struct filter_rule *const *rule;
	unsigned count;
};

static struct part part_of(struct part part, unsigned from, unsigned count)
{
	assert(from + count <= part.count);
	return (struct part){ .rule = part.rule + from, .count = count };
}

static bool is_same_test(const struct filter_test *one, const struct filter_test *other)
{
	return one->argument == other->argument && one->compare == other->compare &&
	       one->value == other->value && one->mask == other->mask;
}

/* How many begin with the same test, behind so many that they have in common. */
static unsigned count_same(struct part part, unsigned depth)
{
	unsigned count = 1;

	while (count < part.count && part.rule[count]->tests > depth &&
	       is_same_test(&part.rule[0]->test[depth], &part.rule[count]->test[depth]))
		count++;
	return count;
}

/* They have nothing left but what one argument is, and differ in its low half. */
static bool are_alike(const struct filter_rule *one, const struct filter_rule *other,
		      unsigned depth)
{
	const struct filter_test *first = &one->test[depth];
	const struct filter_test *second = &other->test[depth];

	return one->tests == depth + 1 && other->tests == depth + 1 &&
	       one->action == other->action && first->compare == FILTER_EQUAL &&
	       second->compare == FILTER_EQUAL && first->argument == second->argument &&
	       high_of(first->value) == high_of(second->value);
}

static unsigned count_alike(struct part part, unsigned depth)
{
	unsigned count = 1;

	while (count < part.count && count < VALUES_MOST &&
	       are_alike(part.rule[0], part.rule[count], depth))
		count++;
	return count;
}

static void emit_values(struct program *program, struct part part, unsigned depth)
{
	const struct filter_test *test = &part.rule[0]->test[depth];

	emit_load(program, argument_high(test->argument));
	emit_jump(program, BPF_JEQ, high_of(test->value), 0, part.count + 2);
	emit_load(program, argument_low(test->argument));
	for (unsigned n = 0; n < part.count; n++)
		emit_jump(program, BPF_JEQ, (uint32_t)part.rule[n]->test[depth].value,
			  part.count - 1 - n, n + 1 == part.count);
	emit_return(program, part.rule[0]->action);
}

static void emit_part(struct program *program, struct part part, unsigned depth);

static unsigned part_length(struct part part, unsigned depth)
{
	struct program counted = { .length = 0 };

	emit_part(&counted, part, depth);
	return counted.length;
}

/* The test that all of them begin with, and what is left of them. */
static void emit_below(struct program *program, struct part part, unsigned depth)
{
	const unsigned length = part_length(part, depth + 1);
	const struct filter_test *test = &part.rule[0]->test[depth];

	if (length <= JUMP_MOST - TEST_JUMPS_MOST) {
		emit_test(program, test, length);
	} else {
		emit_test(program, test, 1);
		emit(program, BPF_JMP | BPF_JA, 1, 0, 0);
		emit(program, BPF_JMP | BPF_JA, length, 0, 0);
	}
	emit_part(program, part, depth + 1);
}

/* Their first `depth` tests hold. Where none of them holds it goes on behind them. */
static void emit_part(struct program *program, struct part part, unsigned depth)
{
	unsigned count;

	for (unsigned n = 0; n < part.count; n += count) {
		const struct part rest = part_of(part, n, part.count - n);

		if (rest.rule[0]->tests == depth) { /* nobody comes to those behind it */
			emit_return(program, rest.rule[0]->action);
			return;
		}
		count = count_alike(rest, depth);
		if (count > 1) {
			emit_values(program, part_of(rest, 0, count), depth);
			continue;
		}
		count = count_same(rest, depth);
		emit_below(program, part_of(rest, 0, count), depth);
	}
}

/* ---- calls ---- */

static void emit_call(struct program *program, struct part part, uint32_t otherwise)
{
	const unsigned length = part_length(part, 0) + 1;

	/* behind the rules the number is what was loaded before: no rule falls through */
	if (length <= JUMP_MOST) {
		emit_jump(program, BPF_JEQ, part.rule[0]->call, 0, length);
	} else {
		emit_jump(program, BPF_JEQ, part.rule[0]->call, 1, 0);
		emit(program, BPF_JMP | BPF_JA, length, 0, 0);
	}
	emit_part(program, part, 0);
	emit_return(program, otherwise);
}

/* The rules of this one's call, which stand one behind the other. */
static unsigned count_of_call(struct part part)
{
	unsigned count = 1;

	while (count < part.count && part.rule[count]->call == part.rule[0]->call)
		count++;
	return count;
}

/* By its number alone is said what happens: of the first rules of calls one with no test. */
static bool is_plain_as(const struct filter_rule *rule, uint32_t action)
{
	return !rule->tests && rule->action == action;
}

/* All calls to which the same happens, whatever their arguments are. */
static void emit_plain(struct program *program, struct part firsts, uint32_t action)
{
	unsigned left = 0;

	for (unsigned n = 0; n < firsts.count; n++)
		left += is_plain_as(firsts.rule[n], action);
	for (unsigned n = 0; n < firsts.count; n++)
		if (is_plain_as(firsts.rule[n], action)) {
			left--;
			emit_jump(program, BPF_JEQ, firsts.rule[n]->call, left, !left);
		}
	emit_return(program, action);
}

static bool is_first_of_action(struct part firsts, unsigned number)
{
	for (unsigned n = 0; n < number; n++)
		if (is_plain_as(firsts.rule[n], firsts.rule[number]->action))
			return false;
	return true;
}

static void emit_calls(struct program *program, struct part all, struct part firsts,
		       uint32_t otherwise)
{
	unsigned count;

	for (unsigned n = 0; n < firsts.count; n++)
		if (!firsts.rule[n]->tests && is_first_of_action(firsts, n))
			emit_plain(program, firsts, firsts.rule[n]->action);
	for (unsigned n = 0; n < all.count; n += count) {
		count = count_of_call(part_of(all, n, all.count - n));
		if (all.rule[n]->tests)
			emit_call(program, part_of(all, n, count), otherwise);
	}
}

static void emit_all(struct program *program, struct part all, struct part firsts,
		     uint32_t otherwise)
{
	emit_load(program, offsetof(struct seccomp_data, arch));
	emit_jump(program, BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0);
	emit_return(program, SECCOMP_RET_KILL_PROCESS);
	emit_load(program, offsetof(struct seccomp_data, nr));
	emit_jump(program, BPF_JGE, X32_FIRST_CALL, 0, 1);
	emit_return(program, SECCOMP_RET_KILL_PROCESS);
	emit_calls(program, all, firsts, otherwise);
	emit_return(program, otherwise);
}

static bool is_first_of_call(const struct call_filter *filter, unsigned number)
{
	for (unsigned n = 0; n < number; n++)
		if (filter->rule[n].call == filter->rule[number].call)
			return false;
	return true;
}

/*
 * all: room for every rule; those of a call stand behind its first one then. firsts: the first of
 * each call. How many calls there are.
 */
static unsigned sort_by_call(const struct call_filter *filter, const struct filter_rule **all,
			     const struct filter_rule **firsts)
{
	unsigned calls = 0;
	unsigned sorted = 0;

	for (unsigned n = 0; n < filter->rules; n++) {
		if (!is_first_of_call(filter, n))
			continue;
		firsts[calls++] = &filter->rule[n];
		for (unsigned of = n; of < filter->rules; of++)
			if (filter->rule[of].call == filter->rule[n].call)
				all[sorted++] = &filter->rule[of];
	}
	return calls;
}

static int emit_filter(struct program *program, const struct call_filter *filter)
{
	const struct filter_rule **all = calloc(2 * filter->rules + 1, sizeof(void *));
	const struct filter_rule **firsts = all ? all + filter->rules : NULL;
	unsigned calls;

	if (!all)
		return -ENOMEM;
	calls = sort_by_call(filter, all, firsts);
	emit_all(program, (struct part){ .rule = all, .count = filter->rules },
		 (struct part){ .rule = firsts, .count = calls }, filter->otherwise);
	free(all);
	return program->length > BPF_MAXINSNS ? -E2BIG : 0;
}

int call_filter_compile(const struct call_filter *filter, struct sock_fprog *ret)
{
	const size_t bytes = BPF_MAXINSNS * sizeof(struct sock_filter);
	struct program program = { .length = 0 };
	void *code = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int error;

	if (code == MAP_FAILED)
		return -ENOMEM;
	program.code = code;
	error = emit_filter(&program, filter);
	if (!error && mprotect(code, bytes, PROT_READ))
		error = -ENOMEM;
	if (error) {
		munmap(code, bytes);
		return error;
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
