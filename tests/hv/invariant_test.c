/*
 * The invariants of the partition: SynIC, timers, long work and rings, each broken: check_*() sees
 * it.
 */
#include "../lib/caught.h"
#include "fake_host.h"
#include "hv/hv_internal.h"

enum { RING_GPA = 0x80000, ENTRIES = 16 };

static struct hv_partition *partition_in(void *partition) { return partition; }
static struct hv_cpu *cpu_in(void *partition) { return &partition_in(partition)->cpu[0]; }
static struct work_request *work_in(void *partition) { return &partition_in(partition)->work[0]; }
static struct hv_ring *ring_in(void *partition) { return &partition_in(partition)->ring[0]; }
static void check_partition_of(void *partition) { check_partition(partition); }

static void control_of_no_meaning(void *partition) { cpu_in(partition)->scontrol = 2; }
static void sint_of_no_meaning(void *partition) { cpu_in(partition)->sint[1] = 1; }
static void queue_too_long(void *partition)
{
	cpu_in(partition)->queue[2].count = QUEUE_MESSAGES + 1;
}
static void queue_past_its_end(void *partition)
{
	cpu_in(partition)->queue[2].first = QUEUE_MESSAGES;
}
static void timer_of_no_meaning(void *partition) { cpu_in(partition)->timer[0].config = ~0ull; }
static void work_without_a_name(void *partition) { work_in(partition)->id = 0; }
static void work_of_the_future(void *partition)
{
	work_in(partition)->sequence = partition_in(partition)->work_sequence + 1;
}
static void two_of_one_name(void *partition)
{
	work_in(partition)[1] = work_in(partition)[0];
	partition_in(partition)->ring[0].in_flight++;
}
static void two_that_run(void *partition)
{
	work_in(partition)[1] = work_in(partition)[0];
	work_in(partition)[1].id++;
	work_in(partition)[0].state = WORK_RUNNING;
	work_in(partition)[1].state = WORK_RUNNING;
	partition_in(partition)->ring[0].in_flight++;
}
static void fork_that_nobody_asked_for(void *partition)
{
	work_in(partition)->is_asked = true;
}
static void work_for_no_ring(void *partition) { work_in(partition)->target = RINGS; }
static void under_way_and_not_counted(void *partition) { ring_in(partition)->in_flight = 0; }
static void ring_that_is_gone(void *partition) { ring_in(partition)->registered = false; }
static void odd_ring(void *partition) { ring_in(partition)->entries = ENTRIES - 1; }
static void ring_between_pages(void *partition) { ring_in(partition)->gpa++; }
static void ring_of_no_processor(void *partition) { ring_in(partition)->vp_index = FAKE_CPUS; }

static const struct spoiling spoilings[] = {
	{ "a SCONTROL that no write leaves", control_of_no_meaning },
	{ "a SINT that no write leaves", sint_of_no_meaning },
	{ "more messages than a queue has", queue_too_long },
	{ "a queue that begins behind its end", queue_past_its_end },
	{ "a timer that no write leaves", timer_of_no_meaning },
	{ "work without a name", work_without_a_name },
	{ "work that was not submitted yet", work_of_the_future },
	{ "two requests of one name", two_of_one_name },
	{ "two requests that run", two_that_run },
	{ "what is no fork, but asked of the host", fork_that_nobody_asked_for },
	{ "work for a ring that is none", work_for_no_ring },
	{ "work that its ring does not count", under_way_and_not_counted },
	{ "work for a ring that is gone", ring_that_is_gone },
	{ "a ring whose entries are no power of two", odd_ring },
	{ "a ring between two pages", ring_between_pages },
	{ "a ring of a processor that is none", ring_of_no_processor },
};

int main(void)
{
	struct hv_partition *partition;
	struct fake fake;
	unsigned missed;

	fake_init(&fake, ~0ull);
	partition = fake.partition;
	partition->ring[0] = (struct hv_ring){
		.registered = true, .entries = ENTRIES, .gpa = RING_GPA, .in_flight = 1
	};
	partition->work[0] = (struct work_request){
		.state = WORK_QUEUED, .delivery = DELIVER_RING, .id = 1, .sequence = 1
	};
	partition->work_sequence = 1;
	missed = CAUGHT_MISSED("partition", check_partition_of, partition, spoilings);
	partition->work[0].state = WORK_FREE;
	partition->ring[0].in_flight = 0;
	fake_destroy(&fake);
	return missed != 0;
}
