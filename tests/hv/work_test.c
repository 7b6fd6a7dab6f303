/*
 * Long work from several threads at once, as processors do: looping requests, rings and
 * cancellation in every order. Each request ends with exactly one outcome, a cancelled ring loses
 * nothing, cancelling everything ends everything. usage: work_test [ROUNDS]
 */
#include <errno.h>
#include <stdio.h>

#include "guest/umbra.h"
#include "memory/memory.h"
#include "fake_host.h"

enum {
	WORK_GPA = 0x40000 /* 64 pages */,
	RING_GPA = 0x80000,
	RING_STRIDE = 0x8000,
	ENTRIES = 16,
	THREADS = 3,
	IDS = 100000
};

static struct fake fake;
static unsigned long rounds;
static uint8_t outcome[THREADS][IDS]; /* how many each id had */
static unsigned long ends[THREADS][2], errors;

static void fail(const char *what, uint64_t value)
{
	fprintf(stderr, "work_test: %s (%#lx)\n", what, value);
	__atomic_fetch_add(&errors, 1, __ATOMIC_RELAXED);
}

static uint64_t random_of(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t id_of(unsigned me, uint64_t n) { return (uint64_t)(me + 1) << 32 | (n + 1); }

static struct umbra_ring ring_of(unsigned me)
{
	return (struct umbra_ring){ .base = fake.memory.ram + RING_GPA + me * RING_STRIDE,
				    .number = me,
				    .entries = ENTRIES };
}

static void open_ring(unsigned me)
{
	const uint32_t in[6] = { me, ENTRIES, RING_GPA + me * RING_STRIDE, 0, 0, 0 };
	uint64_t gpa = GUEST_PAGE_BYTES * (me + 1);

	guest_memory_write(&fake.memory, gpa, in, sizeof(in));
	if (fake_call(&fake, me, UMBRA_CALL_REGISTER_RING, gpa, 0))
		fail("no ring", me);
}

static unsigned take(unsigned me, struct umbra_ring *ring)
{
	unsigned n = __atomic_load_n((uint32_t *)(void *)(ring->base + UMBRA_RING_COMPLETION_TAIL),
				     __ATOMIC_ACQUIRE) -
		     ring->completion_head;

	for (unsigned k = 0; k < n; k++) {
		struct umbra_completion completion = *umbra_ring_completion(ring, k);
		uint64_t at = (uint32_t)completion.id - 1;

		if (completion.id >> 32 != me + 1 || at >= IDS || ++outcome[me][at] != 1)
			fail("a completion of nobody's, or a second one", completion.id);
		if (completion.status && completion.status != UMBRA_CANCELLED)
			fail("an outcome that nobody asked for", completion.status);
		ends[me][completion.status == UMBRA_CANCELLED]++;
	}
	ring->completion_head += n;
	__atomic_store_n((uint32_t *)(void *)(ring->base + UMBRA_RING_COMPLETION_HEAD),
			 ring->completion_head, __ATOMIC_RELEASE);
	return n;
}

static void put(unsigned me, struct umbra_ring *ring, uint64_t n, uint64_t pages)
{
	*umbra_ring_request(ring, 0) =
		(struct umbra_request){ .id = id_of(me, n),
					.code = UMBRA_CALL_WORK,
					.input = { UMBRA_CHECKSUM, WORK_GPA,
						   pages * GUEST_PAGE_BYTES } };
	ring->request_tail++;
	__atomic_store_n((uint32_t *)(void *)ring->base, ring->request_tail, __ATOMIC_RELEASE);
}

/* Begins, rings, cancels something, takes what there is. */
static void *processor(void *argument)
{
	unsigned me = (unsigned)(uintptr_t)argument;
	uint64_t state = 0x9e3779b97f4a7c15ull * (me + 1);
	uint64_t begun = 0;
	uint64_t ended = 0;
	struct umbra_ring ring = ring_of(me);

	open_ring(me);
	while (begun < rounds && !errors) {
		/* as many as the ring takes: it must not finish more than it has room to say */
		while (begun < rounds &&
		       ring.request_tail - *umbra_ring_word(&ring, UMBRA_RING_REQUEST_HEAD) <
			       ENTRIES &&
		       random_of(&state) % 4)
			put(me, &ring, begun++, random_of(&state) % 64 + 1);
		if (fake_call(&fake, me, umbra_fast(UMBRA_CALL_DOORBELL), me, 0) & 0xff & ~0x79ull)
			fail("the doorbell", fake.state[me].gpr[0]);
		if (random_of(&state) % 3 == 0)
			fake_call(&fake, me, umbra_fast(UMBRA_CALL_CANCEL),
				  id_of(random_of(&state) % THREADS,
					begun - 1 - random_of(&state) % 4),
				  0);
		if (random_of(&state) % 8 == 0)
			ended += take(me, &ring);
	}
	for (unsigned long tries = 0; ended < begun && !errors; tries++) {
		fake_call(&fake, me, umbra_fast(UMBRA_CALL_DOORBELL), me, 0);
		ended += take(me, &ring);
		if (tries > 100000000)
			fail("lost completions", begun - ended);
	}
	return NULL;
}

static void *worker(void *argument)
{
	(void)argument;
	hv_work_run(fake.partition);
	return NULL;
}

/* ---- forks of the machine, step by step: the host's answers come when this says ---- */

static void expect(const char *what, uint64_t got, uint64_t want)
{
	if (got == want)
		return;
	fprintf(stderr, "work_test: %s: %#lx, not %#lx\n", what, got, want);
	errors++;
}

/* The looping call: the first time it begins, then it asks. */
static uint64_t fork_call(uint64_t id, uint64_t *ret_child)
{
	const uint64_t in[5] = { id, UMBRA_FORK };
	uint64_t out[2];
	uint64_t status;

	guest_memory_write(&fake.memory, GUEST_PAGE_BYTES, in, sizeof(in));
	status = fake_call(&fake, 0, UMBRA_CALL_WORK, GUEST_PAGE_BYTES, 2 * GUEST_PAGE_BYTES);
	guest_memory_read(&fake.memory, 2 * GUEST_PAGE_BYTES, out, sizeof(out));
	*ret_child = out[0];
	return status;
}

static void cancel(uint64_t id, uint64_t want)
{
	expect("cancelling a fork", fake_call(&fake, 0, umbra_fast(UMBRA_CALL_CANCEL), id, 0),
	       want);
}

static void fork_steps(void)
{
	static const struct { int error; uint64_t status; } outcomes[] = {
		{ 0, 0 }, { -ECANCELED, UMBRA_CANCELLED }, { -EPERM, UMBRA_DENIED },
		{ -EDQUOT, UMBRA_NO_BUFFERS }, { -EAGAIN, UMBRA_NO_BUFFERS },
		{ -EIO, UMBRA_OPERATION_DENIED }, { 7, UMBRA_OPERATION_DENIED },
	};
	uint64_t child;

	for (uint64_t n = 0; n < sizeof(outcomes) / sizeof(outcomes[0]); n++) {
		expect("a fork begins", fork_call(n + 1, &child), UMBRA_PENDING);
		expect("one more", fork_call(100, &child), UMBRA_NO_BUFFERS);
		hv_work_step(fake.partition);
		expect("is asked for", fake.wanted_forks, n + 1);
		expect("and not there yet", fork_call(n + 1, &child), UMBRA_PENDING);
		hv_fork_ended(fake.partition, outcomes[n].error, 40 + (uint32_t)n);
		hv_fork_ended(fake.partition, 0, 99); /* nobody waits any more */
		expect("its outcome", fork_call(n + 1, &child), outcomes[n].status);
		expect("its child", child, outcomes[n].status ? 0 : 40 + n);
	}
}

static void fork_cancelled(void)
{
	const uint32_t wanted = fake.wanted_forks;
	uint64_t child;

	fork_call(1, &child);
	cancel(1, 0);
	expect("cancelled before the host was asked", fork_call(1, &child), UMBRA_CANCELLED);
	hv_work_step(fake.partition);
	expect("who is not asked then", fake.wanted_forks, wanted);
	fork_call(2, &child);
	hv_work_step(fake.partition);
	cancel(2, 0);
	hv_work_step(fake.partition);
	hv_work_step(fake.partition);
	expect("the host is told once", fake.unwanted_forks, 1);
	hv_fork_ended(fake.partition, 0, 5);
	expect("too late: it has its outcome", fork_call(2, &child), 0);
	fork_call(3, &child);
	hv_work_step(fake.partition);
	hv_work_cancel_all(fake.partition);
	expect("all is cancelled", fork_call(3, &child), UMBRA_CANCELLED);
	expect("none before the host has answered", fork_call(4, &child), UMBRA_NO_BUFFERS);
	hv_fork_ended(fake.partition, 0, 6);
}

/* As in what was forked: the request that the host was asked for ends there as the child's. */
static void fork_child(void)
{
	uint64_t child;

	fork_call(1, &child);
	hv_work_step(fake.partition);
	hv_work_forked(fake.partition);
	cancel(1, 0);
	hv_work_step(fake.partition);
	expect("it is the child", fork_call(1, &child), 0);
	expect("as fork(2) has it", child, 0);
	expect("which may fork", fork_call(2, &child), UMBRA_PENDING);
	cancel(2, 0);
	fork_call(2, &child);
}

static bool ended;
static unsigned long holds;

/* While the worker is held its memory is ours: ThreadSanitizer sees when that is not so. */
static void *holder(void *unused)
{
	(void)unused;
	for (; !__atomic_load_n(&ended, __ATOMIC_RELAXED); holds++) {
		hv_work_hold(fake.partition);
		fake.memory.ram[WORK_GPA]++;
		hv_work_go_on(fake.partition);
		sched_yield();
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS], worker_thread, holder_thread;
	unsigned long done = 0;
	unsigned long cancelled = 0;
	bool timers;

	rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 20000;
	rounds = rounds < IDS ? rounds : IDS;
	fake_init(&fake, hv_default_features());
	hv_msr_write(hv_partition_cpu(fake.partition, 0), 0x40000000, 1, &timers);
	hv_msr_write(hv_partition_cpu(fake.partition, 0), 0x40000001, 0x7001, &timers);
	fake_call(&fake, 0, umbra_fast(UMBRA_CALL_VERSION), 0xffffffff, 0);
	fork_steps();
	fork_cancelled();
	fork_child();
	pthread_create(&worker_thread, NULL, worker, NULL);
	pthread_create(&holder_thread, NULL, holder, NULL);
	for (unsigned n = 0; n < THREADS; n++)
		pthread_create(&threads[n], NULL, processor, (void *)(uintptr_t)n);
	for (unsigned n = 0; n < THREADS; n++)
		pthread_join(threads[n], NULL);
	for (unsigned n = 0; n < THREADS; n++) {
		done += ends[n][0];
		cancelled += ends[n][1];
	}
	__atomic_store_n(&ended, true, __ATOMIC_RELAXED);
	pthread_join(holder_thread, NULL);
	hv_work_hold(fake.partition); /* its end comes to one that is held as well */
	hv_work_stop(fake.partition);
	pthread_join(worker_thread, NULL);
	printf("work_test: %lu done, %lu cancelled, %lu holds, %lu errors\n", done, cancelled,
	       holds, errors);
	if (done + cancelled != THREADS * rounds || !done || !cancelled || !holds)
		errors++;
	fake_destroy(&fake);
	return errors ? 1 : 0;
}
