/* See call_rules.h. */
#include "call_rules.h"

#include <asm/prctl.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "forker.h"
#include "lib/touch.h"
#include "port_window.h"

/* How many there are, and where. */
#define TESTS(...)                                                                  \
	sizeof((struct filter_test[]){ __VA_ARGS__ }) / sizeof(struct filter_test), \
		(const struct filter_test[])                                        \
	{                                                                           \
		__VA_ARGS__                                                         \
	}

static struct filter_test equal(unsigned argument, uint64_t value)
{
	return (struct filter_test){ .argument = argument,
				     .compare = FILTER_EQUAL,
				     .value = value };
}

static struct filter_test different(unsigned argument, uint64_t value)
{
	return (struct filter_test){ .argument = argument,
				     .compare = FILTER_DIFFERENT,
				     .value = value };
}

static struct filter_test masked(unsigned argument, uint64_t mask, uint64_t value)
{
	return (struct filter_test){
		.argument = argument, .compare = FILTER_MASKED, .value = value, .mask = mask
	};
}

static struct filter_test greater(unsigned argument, uint64_t value)
{
	return (struct filter_test){ .argument = argument,
				     .compare = FILTER_GREATER,
				     .value = value };
}

static struct filter_test at_most(unsigned argument, uint64_t value)
{
	return (struct filter_test){ .argument = argument,
				     .compare = FILTER_AT_MOST,
				     .value = value };
}

enum { OFF_PAGE_OTHERS = 2 };
enum { FUTEX_COMMAND = ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME) & 0xff };

static int rule(struct call_filter *filter, uint32_t call, struct filter_test condition)
{
	return call_filter_add(filter, SECCOMP_RET_ALLOW, call, TESTS(condition));
}

/* One rule for each of these values of an argument, ended by -1. */
static int allow_values(struct call_filter *filter, uint32_t call, unsigned argument,
			const long *values)
{
	int error = 0;

	for (; *values >= 0 && !error; values++)
		error = rule(filter, call, equal(argument, (uint64_t)*values));
	return error;
}

static int allow_grants(struct call_filter *filter, uint32_t call, grant_set grants)
{
	int error = 0;

	for (unsigned n = 0; n < GRANTS && !error; n++)
		if (grants & GRANT(n))
			error = rule(filter, call, equal(0, (uint64_t)grant_fd((enum grant)n)));
	return error;
}

static int allow_processes(struct call_filter *filter, uint32_t call)
{
	int error = allow_grants(filter, call, GRANT(GRANT_MACHINE));

	for (uint64_t value = 0; value < HELPERS_MOST && !error; value++)
		error = rule(filter, call, equal(0, HELPERS_FIRST_FD + value));
	return error;
}

static int allow_futex(struct call_filter *filter, uint32_t call)
{
	static const unsigned commands[] = { FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAIT_BITSET,
					     FUTEX_WAKE_BITSET };
	int error = 0;

	for (size_t n = 0; n < sizeof(commands) / sizeof(commands[0]) && !error; n++)
		error = rule(filter, call, masked(1, FUTEX_COMMAND, commands[n]));
	return error;
}

static int allow_terminal(struct call_filter *filter, uint32_t call)
{
	static const unsigned requests[] = { TCGETS, TCSETS, TCSETSW, TCSETSF };
	int error = 0;

	for (size_t n = 0; n < sizeof(requests) / sizeof(requests[0]) && !error; n++)
		error = call_filter_add(filter, SECCOMP_RET_ALLOW, call,
					TESTS(equal(0, STDIN_FILENO), equal(1, requests[n])));
	return error;
}

/* stat() of a path fails as if it could not be asked for. */
static int allow_on_open_file(struct call_filter *filter, uint32_t call)
{
	int error = rule(filter, call, equal(3, AT_EMPTY_PATH));

	return error ? error
		     : call_filter_add(filter, SECCOMP_RET_ERRNO | EACCES, call,
				       TESTS(different(3, AT_EMPTY_PATH)));
}

/*
 * Flags of a socket are let through. Ping is refused: who cannot have it as a datagram asks for a
 * raw socket.
 */
static int allow_internet(struct call_filter *filter, uint32_t call)
{
	static const struct {
		uint32_t action;
		int type, protocol;
	} kinds[] = {
		{ SECCOMP_RET_ALLOW, SOCK_STREAM, 0 },
		{ SECCOMP_RET_ALLOW, SOCK_STREAM, IPPROTO_TCP },
		{ SECCOMP_RET_ALLOW, SOCK_DGRAM, 0 },
		{ SECCOMP_RET_ALLOW, SOCK_DGRAM, IPPROTO_UDP },
		{ SECCOMP_RET_ERRNO | EACCES, SOCK_DGRAM, IPPROTO_ICMP },
		{ SECCOMP_RET_ERRNO | EACCES, SOCK_DGRAM, IPPROTO_ICMPV6 },
		{ SECCOMP_RET_ERRNO | EACCES, SOCK_RAW, IPPROTO_ICMP },
		{ SECCOMP_RET_ERRNO | EACCES, SOCK_RAW, IPPROTO_ICMPV6 },
	};
	static const int domains[] = { AF_INET, AF_INET6 };
	const uint64_t type_bits = ~(uint64_t)(SOCK_CLOEXEC | SOCK_NONBLOCK);
	int error = 0;

	for (size_t n = 0; n < 2 * sizeof(kinds) / sizeof(kinds[0]) && !error; n++)
		error = call_filter_add(filter, kinds[n / 2].action, call,
					TESTS(equal(0, (uint64_t)domains[n % 2]),
					      masked(1, type_bits, (uint64_t)kinds[n / 2].type),
					      equal(2, (uint64_t)kinds[n / 2].protocol)));
	return error;
}

/* The same rule with each of these descriptors at argument 4; NULL: whatever is there. */
static int add_with_fds(struct call_filter *filter, uint32_t call, struct filter_test *tests,
			unsigned count, const int *fds)
{
	int error = 0;

	if (!fds)
		return call_filter_add(filter, SECCOMP_RET_ALLOW, call, count, tests);
	for (; *fds >= 0 && !error; fds++) {
		tests[count] = equal(4, (uint64_t)*fds);
		error = call_filter_add(filter, SECCOMP_RET_ALLOW, call, count + 1, tests);
	}
	return error;
}

/*
 * Rules for a call that takes away what lies at argument 0, of argument 1 bytes: nothing of the
 * forker's page (forker.h). Numbers are compared here and not added, so that what lies
 * before the page is allowed by how long it is; the last of these lengths is an engine's table.
 * fds: to -1, or NULL. They are compared last: what all have in common is compared once.
 */
static int allow_off_page(struct call_filter *filter, uint32_t call,
			  const struct filter_test *others, unsigned count, const int *fds)
{
	static const uint64_t most_bytes[] = { 64ull << 10, 2ull << 20, 1ull << 30,
					       (512ull << 30) + (128ull << 10) };
	const uint64_t page = forker_page();
	struct filter_test all[OFF_PAGE_OTHERS + 3];
	int error;

	assert(count <= OFF_PAGE_OTHERS && page > most_bytes[0]);
	if (count)
		memcpy(all, others, count * sizeof(*others));
	all[count] = greater(0, page);
	error = add_with_fds(filter, call, all, count + 1, fds);
	for (size_t n = 0; n < sizeof(most_bytes) / sizeof(most_bytes[0]) && !error; n++) {
		if (page < most_bytes[n])
			break;
		all[count] = at_most(0, page - most_bytes[n]);
		all[count + 1] = at_most(1, most_bytes[n]);
		error = add_with_fds(filter, call, all, count + 2, fds);
	}
	return error;
}

/*
 * Of nobody else's: what is shared would be so with who is forked, too. The kernel makes a mapping
 * of huge pages longer than it was asked for.
 */
static int allow_own_memory(struct call_filter *filter, uint32_t call)
{
	const uint64_t kind = MAP_ANONYMOUS | MAP_SHARED | MAP_HUGETLB;
	const struct filter_test in_place[] = {
		masked(2, PROT_EXEC, 0),
		masked(3, kind | MAP_FIXED, MAP_ANONYMOUS | MAP_FIXED),
	};
	int error = call_filter_add(
		filter, SECCOMP_RET_ALLOW, call,
		TESTS(masked(2, PROT_EXEC, 0), masked(3, kind | MAP_FIXED, MAP_ANONYMOUS)));

	return error ? error : allow_off_page(filter, call, in_place, 2, NULL);
}

/* fds: to -1. */
static int allow_in_place(struct call_filter *filter, uint32_t call, const int *fds,
			  struct filter_test protection)
{
	const struct filter_test in_place[] = {
		equal(3, MAP_SHARED | MAP_FIXED),
		protection,
	};

	return allow_off_page(filter, call, in_place, OFF_PAGE_OTHERS, fds);
}

static int allow_window(struct call_filter *filter, uint32_t call)
{
	static const uint64_t protections[] = { PROT_READ | PROT_WRITE, PROT_READ };
	static const int window[] = { WINDOW_RECEIVED_FD, -1 };
	int error = 0;

	for (unsigned n = 0; n < 2 && !error; n++)
		error = allow_in_place(filter, call, window, equal(2, protections[n]));
	return error;
}

static int allow_own_or_window(struct call_filter *filter, uint32_t call)
{
	const int error = allow_own_memory(filter, call);

	return error ? error : allow_window(filter, call);
}

/* The forker's list says how and where. */
static int allow_own_or_received(struct call_filter *filter, uint32_t call)
{
	const int error = call_filter_add(
		filter, SECCOMP_RET_ALLOW, call,
		TESTS(masked(2, PROT_EXEC, 0),
		      masked(3, MAP_ANONYMOUS | MAP_SHARED, MAP_ANONYMOUS)));

	return error ? error
		     : rule(filter, call, equal(4, (uint64_t)WINDOW_RECEIVED_FD));
}

/* As allow_own_or_window(); or what it was given, in place of what it had there. */
static int allow_own_mapping(struct call_filter *filter, uint32_t call)
{
	static const enum grant data[] = { GRANT_RINGS,	      GRANT_SLOTS,	GRANT_CODE,
					   GRANT_CONNECTIONS, GRANT_CARDS,	GRANT_CARDS + 1,
					   GRANT_CARDS + 2,   GRANT_CARDS_LAST, GRANT_PORTS,
					   GRANT_PORTS_LAST };
	const int code[] = { grant_fd(GRANT_CODE), -1 };
	int fds[sizeof(data) / sizeof(data[0]) + 1];
	int error = allow_own_or_window(filter, call);

	for (size_t n = 0; n < sizeof(data) / sizeof(data[0]); n++)
		fds[n] = grant_fd(data[n]);
	fds[sizeof(data) / sizeof(data[0])] = -1;
	if (!error)
		error = allow_in_place(filter, call, fds, masked(2, PROT_EXEC, 0));
	if (!error)
		error = allow_in_place(filter, call, code, equal(2, PROT_READ | PROT_EXEC));
	return error;
}

/* A list of calls more, and nobody who is asked about calls. */
static int allow_filter(struct call_filter *filter, uint32_t call)
{
	static const long flags[] = { 0, SECCOMP_FILTER_FLAG_TSYNC };
	int error = 0;

	for (unsigned n = 0; n < 2 && !error; n++)
		error = call_filter_add(
			filter, SECCOMP_RET_ALLOW, call,
			TESTS(equal(0, SECCOMP_SET_MODE_FILTER), equal(1, (uint64_t)flags[n])));
	return error;
}

/*
 * Pages, as many as half a window, take a place, be they there already or (old size 0) shared ones
 * once more; or they move away to where nothing is, and their place stays what it is. Neither they
 * nor their place has the forker's page in it: of what lies before it, which is the program's own,
 * so much is left alone.
 */
static int allow_take_place(struct call_filter *filter, uint32_t call)
{
	const uint64_t page = forker_page();
	const uint64_t most = WINDOW_HALF_BYTES;
	const struct filter_test from[] = { greater(0, page), at_most(0, page - most) };
	const struct filter_test to[] = { greater(4, page), at_most(4, page - most) };
	int error = 0;

	assert(page > most);
	for (unsigned n = 0; n < 2 && !error; n++)
		error = call_filter_add(filter, SECCOMP_RET_ALLOW, call,
					TESTS(from[n], at_most(1, most), at_most(2, most),
					      equal(3, MREMAP_MAYMOVE | MREMAP_DONTUNMAP)));
	for (unsigned n = 0; n < 4 && !error; n++)
		error = call_filter_add(filter, SECCOMP_RET_ALLOW, call,
					TESTS(from[n / 2], at_most(1, most), at_most(2, most),
					      equal(3, MREMAP_MAYMOVE | MREMAP_FIXED), to[n % 2]));
	return error;
}

/* ---- of who starts others ---- */

/* TCP and UDP, as who serves a network may ask for them; streams and packets of this host. */
static int allow_sockets(struct call_filter *filter, uint32_t call)
{
	static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET };
	const uint64_t type_bits = ~(uint64_t)(SOCK_CLOEXEC | SOCK_NONBLOCK);
	int error = allow_internet(filter, call);

	for (size_t n = 0; n < sizeof(types) / sizeof(types[0]) && !error; n++)
		error = call_filter_add(
			filter, SECCOMP_RET_ALLOW, call,
			TESTS(equal(0, AF_UNIX), masked(1, type_bits, (uint64_t)types[n])));
	return error;
}

static int allow_reads(struct call_filter *filter, uint32_t call)
{
	return rule(filter, call, masked(2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
}

/* Nothing that was there is written. */
static int allow_opens(struct call_filter *filter, uint32_t call)
{
	int error = allow_reads(filter, call);

	return error ? error
		     : call_filter_add(filter, SECCOMP_RET_ALLOW, call,
				       TESTS(equal(2, COPY_FLAGS), equal(3, COPY_MODE)));
}

static int allow_not_both(struct call_filter *filter, uint32_t call)
{
	static const uint64_t kept[] = { 0, PROT_WRITE, PROT_EXEC };
	int error = 0;

	for (size_t n = 0; n < sizeof(kept) / sizeof(kept[0]) && !error; n++)
		error = rule(filter, call, masked(2, PROT_WRITE | PROT_EXEC, kept[n]));
	return error;
}

/* ---- one condition after the other ---- */

static const long descriptors[] = {
	F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_ADD_SEALS, F_GET_SEALS, -1
};
static const long seals[] = { F_ADD_SEALS, -1 };
static const long give_up[] = {
	PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_SET_PDEATHSIG, PR_SET_SECCOMP,
	-1
};
static const long cards[] = { FIONREAD, FIONBIO, TUNSETVNETHDRSZ, TUNSETOFFLOAD, -1 };
static const long forks[] = { FORKER_FORK_FLAGS, FORKER_SELF_FLAGS, FORKER_THREAD_FLAGS, -1 };
static const long gs[] = { ARCH_SET_GS, -1 };
static const long give_back[] = {
	MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTFORK, -1
};
static const long received[] = { WINDOW_RECEIVED_FD, -1 };
static const long empty[] = {
	MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTFORK, MADV_REMOVE,
	MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_COLLAPSE, -1
};
static const long locks[] = { F_OFD_GETLK, F_OFD_SETLK, -1 };
static const long control[] = {
	F_OFD_GETLK, F_OFD_SETLK, F_SETLK, F_GETLK, F_GETFD, F_DUPFD_CLOEXEC, F_SETFD, F_GETFL,
	-1
};
static const long readable[] = { FIONREAD, FIONBIO, -1 };
static const long blocking[] = { F_GETFL, F_SETFL, F_GETFD, F_SETFD, -1 };
static const long pages[] = {
	UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_WAKE, UFFDIO_UNREGISTER, -1
};
static const long enter[] = {
	0, 1 /* IORING_ENTER_GETEVENTS */, 2 /* SQ_WAKEUP */, 3, 9 /* GETEVENTS, EXT_ARG */,
	-1
};

/* What one of a call's arguments may be; behind the last is -1. */
static const struct { unsigned argument; const long *values;
} lists[] = {
	[CALL_DESCRIPTORS] = { 1, descriptors },
	[CALL_GIVE_UP] = { 0, give_up },
	[CALL_CARDS] = { 1, cards },
	[CALL_RECEIVED] = { 0, received },
	[CALL_GIVE_BACK] = { 2, give_back },
	[CALL_EMPTY] = { 2, empty },
	[CALL_LOCKS] = { 1, locks },
	[CALL_SEALS] = { 1, seals },
	[CALL_READABLE_BYTES] = { 1, readable },
	[CALL_BLOCKING] = { 1, blocking },
	[CALL_RING_ENTER] = { 3, enter },
	[CALL_FILE_CONTROL] = { 1, control },
	[CALL_FORK] = { 0, forks },
	[CALL_PAGES] = { 1, pages },
	[CALL_GS] = { 0, gs },
};

static int allow_to_start(struct call_filter *filter, const struct role_call *entry, int call)
{
	switch (entry->condition) {
	case CALL_PROCESS: return rule(filter, call, masked(0, CLONE_VM | CLONE_THREAD, 0));
	case CALL_BY_DESCRIPTOR: return rule(filter, call, equal(4, AT_EMPTY_PATH));
	case CALL_NOT_BOTH: return allow_not_both(filter, call);
	case CALL_OPENS: return allow_opens(filter, call);
	case CALL_OF_COPY: return rule(filter, call, equal(1, COPY_FOLDER_MODE));
	case CALL_OWN_ONLY: return rule(filter, call, equal(0, 0));
	case CALL_SOCKETS: return allow_sockets(filter, call);
	default: return call_filter_add(filter, SECCOMP_RET_ALLOW, call, 0, NULL);
	}
}

static int allow(struct call_filter *filter, const struct role_call *entry)
{
	const uint32_t call = entry->number;
	const size_t condition = entry->condition;

	if (condition < sizeof(lists) / sizeof(lists[0]) && lists[condition].values)
		return allow_values(filter, call, lists[condition].argument,
				    lists[condition].values);
	switch (entry->condition) {
	case CALL_ON_GRANTS: return allow_grants(filter, call, entry->grants);
	case CALL_OWN_PROCESS: return rule(filter, call, equal(0, (uint64_t)getpid()));
	case CALL_ON_PROCESSES: return allow_processes(filter, call);
	case CALL_NO_EXECUTION: return rule(filter, call, masked(2, PROT_EXEC, 0));
	case CALL_ANONYMOUS:
		return call_filter_add(filter, SECCOMP_RET_ALLOW, call,
				       TESTS(masked(2, PROT_EXEC, 0),
					     masked(3, MAP_ANONYMOUS | MAP_SHARED, MAP_ANONYMOUS)));
	case CALL_OWN_MEMORY: return allow_own_memory(filter, call);
	case CALL_OWN_OR_WINDOW: return allow_own_or_window(filter, call);
	case CALL_OWN_OR_RECEIVED: return allow_own_or_received(filter, call);
	case CALL_OFF_PAGE: return allow_off_page(filter, call, NULL, 0, NULL);
	case CALL_FILTER: return allow_filter(filter, call);
	case CALL_WAIT_OR_WAKE: return allow_futex(filter, call);
	case CALL_TERMINAL: return allow_terminal(filter, call);
	case CALL_ON_OPEN_FILE: return allow_on_open_file(filter, call);
	case CALL_REFUSED:
		return call_filter_add(filter, SECCOMP_RET_ERRNO | EACCES, call, 0, NULL);
	case CALL_INTERNET: return allow_internet(filter, call);
	case CALL_LOCAL:
		return call_filter_add(
			filter, SECCOMP_RET_ALLOW, call,
			TESTS(equal(0, AF_UNIX),
			      masked(1, ~(uint64_t)(SOCK_CLOEXEC | SOCK_NONBLOCK), SOCK_STREAM)));
	case CALL_READS_ONLY: return allow_reads(filter, call);
	case CALL_THREAD: return rule(filter, call, masked(0, CLONE_THREAD, CLONE_THREAD));
	case CALL_UNKNOWN:
		return call_filter_add(filter, SECCOMP_RET_ERRNO | ENOSYS, call, 0, NULL);
	case CALL_OWN_MAPPING: return allow_own_mapping(filter, call);
	case CALL_TAKE_PLACE: return allow_take_place(filter, call);
	default: return allow_to_start(filter, entry, call);
	}
}

int call_rules_add(struct call_filter *filter, const struct role_call *calls)
{
	int error = 0;

	for (; *calls->name && !error; calls++)
		error = allow(filter, calls);
	return error;
}

struct call_filter *call_rules_make_less(const struct role_call *calls)
{
	struct call_filter *filter = call_filter_new(SECCOMP_RET_ALLOW);
	int error = filter ? 0 : -ENOMEM;

	for (; *calls->name && !error; calls++) {
		if (calls->condition != CALL_NEVER)
			error = allow(filter, calls);
		/* behind the last row of that call */
		if (!error && (!*calls[1].name || calls[1].number != calls->number))
			error = call_filter_add(filter, SECCOMP_RET_KILL_PROCESS, calls->number, 0,
						NULL);
	}
	if (!error)
		return filter;
	call_filter_free(filter);
	return NULL;
}

/* NULL: no memory. */
struct call_filter *call_rules_make(const struct role_call *calls, uint32_t otherwise)
{
	struct call_filter *filter = call_filter_new(otherwise);
	int error = filter ? call_rules_add(filter, calls) : -ENOMEM;

	assert(calls);
#ifdef __SANITIZE_ADDRESS__
	/*
	 * Its allocator takes memory of each size by mmap, whenever one is first asked for; and
	 * shadow of what is unmapped is mapped anew, and said to want no huge pages. A thread that
	 * ends gives back the stack of its signals.
	 */
	if (!error)
		error = call_filter_add(
			filter, SECCOMP_RET_ALLOW, SYS_mmap,
			TESTS(masked(2, PROT_EXEC, 0),
			      masked(3, MAP_ANONYMOUS | MAP_SHARED, MAP_ANONYMOUS)));
	if (!error)
		error = allow(filter, &(struct role_call){ .name = "madvise",
							   .number = SYS_madvise,
							   .condition = CALL_GIVE_BACK });
	if (!error)
		error = call_filter_add(filter, SECCOMP_RET_ALLOW, SYS_sigaltstack, 0, NULL);
#endif
	if (!error)
		return filter;
	call_filter_free(filter);
	return NULL;
}
