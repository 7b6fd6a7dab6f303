/*
 * Lists of calls, as they are compiled here (lib/call_filter.h), say what their rules say, and the
 * same as what libseccomp makes of these: of every role, each call number with arguments at, beside
 * and far from every number that a rule compares with. Both programs are executed here, as the
 * kernel would. Then the kernel takes each.
 *
 * libseccomp 2.5.4 merges what rules of one call have in common, and with more than one comparison
 * of size among these lets through what none allows: a mapping put over the forker's page, for one.
 * Where it differs from the rules it is counted, and not asked again; that must be of such a call.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/call_rules.h"

enum { HIGHEST_CALL = 480, VALUES = 40, ROUNDS = 400, X32_CALL = 0x40000000 };

static int failures;
static unsigned long compared, merged;

/* Rules, and the program of each of the two. */
struct list {
	const char *whom;
	uint32_t otherwise;
	struct call_filter *filter;
	struct sock_fprog own, other;
};

static void expect(const char *what, const char *whom, bool good)
{
	if (!good)
		printf("FAIL %s: %s\n", whom, what);
	failures += !good;
}

/* ---- the kernel ---- */

static uint32_t loaded(const struct seccomp_data *data, uint32_t at)
{
	uint32_t value;

	memcpy(&value, (const uint8_t *)data + at, sizeof(value));
	return value;
}

static bool jumps(uint16_t code, uint32_t left, uint32_t right)
{
	switch (BPF_OP(code)) {
	case BPF_JEQ: return left == right;
	case BPF_JGT: return left > right;
	case BPF_JGE: return left >= right;
	case BPF_JSET: return left & right;
	default: abort();
	}
}

static uint32_t execute(const struct sock_fprog *program, const struct seccomp_data *data)
{
	uint32_t accumulator = 0;

	for (unsigned n = 0; n < program->len; n++) {
		const struct sock_filter *insn = &program->filter[n];

		switch (BPF_CLASS(insn->code)) {
		case BPF_LD: accumulator = loaded(data, insn->k); break;
		case BPF_ALU: accumulator &= insn->k; break;
		case BPF_RET: return insn->k;
		case BPF_JMP:
			if (BPF_OP(insn->code) == BPF_JA)
				n += insn->k;
			else
				n += jumps(insn->code, accumulator, insn->k) ? insn->jt : insn->jf;
			break;
		default: abort();
		}
	}
	abort(); /* it has no end */
}

/* ---- the same rules by libseccomp ---- */

static uint32_t action_of(uint32_t action)
{
	switch (action & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_ALLOW: return SCMP_ACT_ALLOW;
	case SECCOMP_RET_ERRNO: return SCMP_ACT_ERRNO(action & SECCOMP_RET_DATA);
	default: return SCMP_ACT_KILL_PROCESS;
	}
}

static struct scmp_arg_cmp test_of(const struct filter_test *test)
{
	static const enum scmp_compare compares[] = {
		[FILTER_EQUAL] = SCMP_CMP_EQ,         [FILTER_DIFFERENT] = SCMP_CMP_NE,
		[FILTER_MASKED] = SCMP_CMP_MASKED_EQ, [FILTER_GREATER] = SCMP_CMP_GT,
		[FILTER_AT_MOST] = SCMP_CMP_LE,
	};
	const bool masked = test->compare == FILTER_MASKED;

	return (struct scmp_arg_cmp){ .arg = test->argument,
				      .op = compares[test->compare],
				      .datum_a = masked ? test->mask : test->value,
				      .datum_b = masked ? test->value : 0 };
}

static bool add_other(scmp_filter_ctx other, const struct filter_rule *rule)
{
	struct scmp_arg_cmp tests[FILTER_TESTS];

	for (unsigned n = 0; n < rule->tests; n++)
		tests[n] = test_of(&rule->test[n]);
	return !seccomp_rule_add_array(other, action_of(rule->action), (int)rule->call, rule->tests,
				       tests);
}

static bool compile_other(struct list *list)
{
	scmp_filter_ctx other = seccomp_init(action_of(list->otherwise));
	struct sock_fprog *ret = &list->other;
	const int fd = memfd_create("list", MFD_CLOEXEC);
	const struct filter_rule *rule;
	bool good = other && fd >= 0;
	off_t bytes;

	for (unsigned n = 0; good && (rule = call_filter_rule(list->filter, n)); n++)
		good = add_other(other, rule);
	good = good && !seccomp_export_bpf(other, fd);
	seccomp_release(other);
	bytes = lseek(fd, 0, SEEK_END);
	ret->len = (unsigned short)((size_t)bytes / sizeof(*ret->filter));
	ret->filter = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return good && ret->filter != MAP_FAILED;
}

/* ---- both ---- */

static uint64_t random_state = 88172645463325252ull;

static uint64_t random_number(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* At, beside, and with one bit more or less than a number of the rules of that call. */
static uint64_t argument_for(const struct filter_rule *rule, unsigned argument)
{
	uint64_t value = random_number() & 1 ? random_number() : random_number() % VALUES;

	for (unsigned n = 0; n < rule->tests; n++)
		if (rule->test[n].argument == argument && random_number() % 8)
			value = rule->test[n].value;
	switch (random_number() % 8) {
	case 0: return value + 1;
	case 1: return value - 1;
	case 2: return value ^ 1ull << random_number() % 64;
	case 3: return value | random_number() << 32;
	default: return value;
	}
}

static bool holds(const struct filter_test *test, uint64_t value)
{
	switch (test->compare) {
	case FILTER_EQUAL: return value == test->value;
	case FILTER_DIFFERENT: return value != test->value;
	case FILTER_MASKED: return (value & test->mask) == test->value;
	case FILTER_GREATER: return value > test->value;
	case FILTER_AT_MOST: return value <= test->value;
	}
	abort();
}

static bool applies(const struct filter_rule *rule, const struct seccomp_data *data)
{
	for (unsigned n = 0; n < rule->tests; n++)
		if (!holds(&rule->test[n], data->args[rule->test[n].argument]))
			return false;
	return rule->call == (uint32_t)data->nr;
}

/* What the rules say. */
static uint32_t meant(const struct list *list, const struct seccomp_data *data)
{
	const struct filter_rule *rule;

	for (unsigned n = 0; (rule = call_filter_rule(list->filter, n)); n++)
		if (applies(rule, data))
			return rule->action;
	return list->otherwise;
}

static bool compares_sizes(const struct list *list, int call)
{
	const struct filter_rule *rule;

	for (unsigned n = 0; (rule = call_filter_rule(list->filter, n)); n++)
		for (unsigned k = 0; k < rule->tests && rule->call == (uint32_t)call; k++)
			if (rule->test[k].compare >= FILTER_GREATER)
				return true;
	return false;
}

static void compare_once(const struct list *list, const struct seccomp_data *data)
{
	const uint32_t want = meant(list, data);
	const uint32_t here = execute(&list->own, data);
	const uint32_t there = execute(&list->other, data);

	compared++;
	merged += there != want;
	if (here == want && (there == want || compares_sizes(list, data->nr)))
		return;
	printf("FAIL %s: call %d (%llx, %llx, %llx, %llx, %llx): %x, meant is %x, libseccomp says "
	       "%x\n",
	       list->whom, data->nr, data->args[0], data->args[1], data->args[2], data->args[3],
	       data->args[4], here, want, there);
	failures++;
}

static void compare_rule(const struct list *list, const struct filter_rule *rule)
{
	struct seccomp_data data = { .nr = (int)rule->call, .arch = AUDIT_ARCH_X86_64 };

	for (unsigned round = 0; round < ROUNDS && !failures; round++) {
		for (unsigned n = 0; n < 6; n++)
			data.args[n] = argument_for(rule, n);
		compare_once(list, &data);
	}
}

static void compare_numbers(const struct list *list)
{
	struct seccomp_data data = { .arch = AUDIT_ARCH_X86_64 };

	for (int n = 0; n < HIGHEST_CALL; n++) {
		data.nr = n;
		memset(data.args, 0, sizeof(data.args));
		compare_once(list, &data);
		memset(data.args, 0xff, sizeof(data.args));
		compare_once(list, &data);
		data.nr = n + X32_CALL;
		expect("a call of x32", list->whom,
		       execute(&list->own, &data) == SECCOMP_RET_KILL_PROCESS);
	}
	data = (struct seccomp_data){ .nr = SYS_exit_group, .arch = AUDIT_ARCH_I386 };
	expect("another architecture", list->whom,
	       execute(&list->own, &data) == SECCOMP_RET_KILL_PROCESS);
}

/* In a process of its own, which may end afterwards or not. */
static bool kernel_takes(const struct sock_fprog *program)
{
	int status;
	const pid_t child = fork();

	if (!child) {
		int error;

		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		error = call_filter_load(program);
		syscall(SYS_exit_group, error ? 1 : 0);
	}
	return child > 0 && waitpid(child, &status, 0) == child &&
	       (!status || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS));
}

static bool list_make(struct list *list, const struct role_call *calls, bool meets)
{
	list->filter = call_rules_make(calls, list->otherwise);
	return list->filter && (!meets || !call_rules_add(list->filter, meeting_calls)) &&
	       !call_filter_compile(list->filter, &list->own) && compile_other(list);
}

static void compare(const char *whom, const struct role_call *calls, uint32_t otherwise, bool meets)
{
	struct list list = { .whom = whom, .otherwise = otherwise };
	const struct filter_rule *rule;

	if (list_make(&list, calls, meets)) {
		compare_numbers(&list);
		for (unsigned n = 0; (rule = call_filter_rule(list.filter, n)); n++)
			compare_rule(&list, rule);
		expect("the kernel refuses it", whom, kernel_takes(&list.own));
		printf("%s: %u instructions, %u by libseccomp\n", whom, list.own.len,
		       list.other.len);
	} else {
		expect("it is not made", whom, false);
	}
	call_filter_free(list.filter);
}

/* A number that a row names is that of its name. */
static void check_numbers(const struct role_call *calls)
{
	for (; calls && *calls->name; calls++)
		expect("another number", calls->name,
		       seccomp_syscall_resolve_name(calls->name) == (int)calls->number);
}

static bool lets_through(const struct sock_fprog *program, const struct seccomp_data *data)
{
	return execute(program, data) == SECCOMP_RET_ALLOW;
}

/* Of the pipe by which it says that it runs: which is closed once the guest does. */
static bool is_of_ready(const struct seccomp_data *data)
{
	return (data->nr == SYS_write || data->nr == SYS_close) &&
	       data->args[0] == (uint64_t)grant_fd(GRANT_READY);
}

/* On which of the host's processors the thread itself may be. */
static bool is_of_own_place(const struct seccomp_data *data)
{
	return data->nr == SYS_sched_setaffinity && !data->args[0];
}

/* No more than the machine process's list lets through, of what it can name: windows it has not. */
static void compare_forked_once(const struct sock_fprog lists[3], const struct seccomp_data *data)
{
	const bool is_its_own = is_of_ready(data) || is_of_own_place(data);

	if (!is_its_own && lets_through(&lists[0], data) && lets_through(&lists[1], data) &&
	    !lets_through(&lists[2], data)) {
		printf("FAIL what was forked may do more: call %d of %llx %llx %llx %llx\n",
		       data->nr, data->args[0], data->args[1], data->args[2], data->args[3]);
		failures++;
	}
}

/* The forker's list, what that is to lose, and the machine process's. */
static void compare_forked(void)
{
	const struct role_call *const calls = role_describe(ROLE_FORKER)->calls;
	struct call_filter *filters[] = {
		call_rules_make(calls, SECCOMP_RET_KILL_PROCESS),
		call_rules_make_less(role_describe(ROLE_MACHINE)->forked_calls),
		call_rules_make(role_describe(ROLE_MACHINE)->calls, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog lists[3];
	const struct filter_rule *rule;
	struct seccomp_data data = { .arch = AUDIT_ARCH_X86_64 };

	for (unsigned n = 0; n < 3; n++)
		if (!filters[n] || call_filter_compile(filters[n], &lists[n])) {
			expect("it is not made", "what was forked", false);
			return;
		}
	for (data.nr = 0; data.nr < HIGHEST_CALL; data.nr++)
		compare_forked_once(lists, &data);
	for (unsigned n = 0; (rule = call_filter_rule(filters[0], n)); n++)
		for (unsigned round = 0; round < ROUNDS; round++) {
			data.nr = (int)rule->call;
			for (unsigned argument = 0; argument < 6; argument++)
				data.args[argument] = argument_for(rule, argument);
			compare_forked_once(lists, &data);
		}
	printf("what was forked loses: %u instructions\n", lists[1].len);
	for (unsigned n = 0; n < 3; n++)
		call_filter_free(filters[n]);
}

/* More than the kernel takes is said, and is not cut off. */
static void check_most(void)
{
	struct filter_test test = { .compare = FILTER_EQUAL };
	struct call_filter *filter = call_filter_new(SECCOMP_RET_KILL_PROCESS);
	struct sock_fprog program;

	for (unsigned n = 0; n < BPF_MAXINSNS / 5 + 1; n++) {
		test.argument = n % 2; /* neighbours have nothing in common */
		expect("no memory", "many",
		       !call_filter_add(filter, SECCOMP_RET_ALLOW, 1, 1, &test));
	}
	expect("too long, and made", "many", call_filter_compile(filter, &program) == -E2BIG);
	call_filter_free(filter);
}

int main(void)
{
	for (unsigned n = 0; n < ROLES; n++) {
		const struct role_description *role = role_describe((enum role)n);

		check_numbers(role->calls);
		check_numbers(role->opening_calls);
		check_numbers(role->starting_calls);
		if (role->calls)
			compare(role->name, role->calls, SECCOMP_RET_KILL_PROCESS, false);
		if (role->opening_calls)
			compare(role->name, role->opening_calls, SECCOMP_RET_ERRNO | EPERM, false);
		if (role->starting_calls)
			compare(role->name, role->starting_calls, SECCOMP_RET_ERRNO | EPERM,
				n == ROLE_JOINER);
	}
	check_numbers(meeting_calls);
	check_most();
	compare_forked();
	printf("%lu comparisons, %d failures; libseccomp lets through or refuses %lu otherwise\n",
	       compared, failures, merged);
	return failures ? 1 : 0;
}
