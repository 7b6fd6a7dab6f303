/*
 * A guest that has itself forked (guest_forks.py): by a call that waits, through a ring, by a
 * packet, each completed once in the machine that has asked and once in its child. Requests that
 * are malformed, one while another is under way, one that is not wanted any more, one more than is
 * permitted. A child checks that it is one, and ends; the parent goes on.
 */
#include "hv.h"

enum { ENTRIES = 8, TRIES = 40, QUIET_TURNS = 20000 };
enum { REPLY_SINT = 5, REPLY_VECTOR = 0x61, REPLY = 0x80554d01u, SLOT_BYTES = 256 };
struct reply {
	uint32_t type, bytes;
	uint64_t sender, id;
	uint32_t status, reserved;
	uint64_t result, done_bytes;
};
static uint8_t *ring_memory;
static uint64_t *in, *out;
static struct umbra_ring ring;
static uint64_t next_id = 1;
static uint64_t children;

/* What ends a child: the test reads it on the child's console. */
static void say_child(const char *how)
{
	print("CHILD by a ");
	print(how);
	print("\n");
}

/* ---- malformed, by the call ---- */

static uint64_t submit(const struct umbra_work *work)
{
	in[0] = next_id++;
	for (unsigned n = 0; n < sizeof(*work) / 8; n++)
		in[1 + n] = ((const uint64_t *)(const void *)work)[n];
	return umbra_call(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out));
}

static void malformed(void)
{
	static const struct umbra_work acts[] = {
		{ .operation = UMBRA_FORK, .flags = 1 },
		{ .operation = UMBRA_FORK, .reserved = 1 },
		{ .operation = UMBRA_FORK, .gpa = PAGE_BYTES },
		{ .operation = UMBRA_FORK, .bytes = PAGE_BYTES },
		{ .operation = UMBRA_FORK, .argument = 1 },
	};
	const struct umbra_work other = { .operation = UMBRA_FORK + 1 };

	for (unsigned n = 0; n < sizeof(acts) / sizeof(acts[0]); n++)
		check_equal("a malformed fork", submit(&acts[n]), UMBRA_BAD_PARAMETER);
	check_equal("what no machine does to itself", submit(&other), UMBRA_UNAVAILABLE);
}

/* ---- through a ring ---- */

static uint64_t put_fork(void)
{
	const uint64_t id = next_id++;

	*umbra_ring_request(&ring, 0) = (struct umbra_request){
		.id = id, .code = UMBRA_CALL_WORK, .input = { UMBRA_FORK }
	};
	umbra_ring_put(&ring, 1);
	check_equal("the doorbell", umbra_ring_doorbell(&hv, &ring), 0);
	return id;
}

/* Its one outcome; the machine that is a child returns true. */
static bool take_outcome(uint64_t id, uint64_t *ret_status)
{
	struct umbra_completion done;

	while (!umbra_ring_done(&ring))
		cpu_relax();
	done = *umbra_ring_completion(&ring, 0);
	umbra_ring_take(&ring, 1);
	check_equal("the one that was asked for", done.id, id);
	check("its result is that of its status", !done.status || !done.output[0]);
	for (unsigned n = 0; n < QUIET_TURNS; n++)
		cpu_relax();
	check("once", !umbra_ring_done(&ring));
	*ret_status = done.status;
	if (done.status || done.output[0]) {
		if (!done.status)
			check("another number than before", done.output[0] > children);
		children = done.status ? children : done.output[0];
		return false;
	}
	return true;
}

static bool by_ring(void)
{
	uint64_t status;
	const bool is_child = take_outcome(put_fork(), &status);

	check_equal("forked", status, UMBRA_OK);
	if (is_child)
		say_child("ring");
	return is_child;
}

/*
 * Cancelled at once: on a busy host the fork may have been first all the same, and then it is one.
 * While it is under way another one is refused.
 */
static bool cancelled(void)
{
	const struct umbra_work work = { .operation = UMBRA_FORK };
	uint64_t status = 0;
	unsigned tries = 0;

	for (; status != UMBRA_CANCELLED && tries < TRIES; tries++) {
		const uint64_t id = put_fork();
		const uint64_t second = submit(&work);
		const uint64_t cancel = umbra_call(&hv, umbra_fast(UMBRA_CALL_CANCEL), id, 0);

		if (take_outcome(id, &status)) {
			say_child("ring that was too late");
			return true;
		}
		if (second == UMBRA_PENDING) /* the first was done already */
			umbra_call_until_done(&hv, UMBRA_CALL_WORK, gpa(in), gpa(out));
		else
			check_equal("another one meanwhile", second, UMBRA_NO_BUFFERS);
		check("cancelling", cancel == UMBRA_OK || cancel == UMBRA_NOT_FOUND);
	}
	check_equal("one that is not wanted any more", status, UMBRA_CANCELLED);
	check_equal("which is no more then",
		    umbra_call(&hv, umbra_fast(UMBRA_CALL_CANCEL), next_id - 1, 0),
		    UMBRA_NOT_FOUND);
	return false;
}

/* ---- by the call that waits ---- */

static bool by_call(uint64_t want)
{
	uint32_t child = ~0u;

	check_equal("a fork by the call", umbra_fork(&hv, next_id++, in, gpa(in), &child), want);
	if (want) {
		check_equal("no child", child, 0);
		return false;
	}
	if (!child) {
		say_child("call");
		return true;
	}
	check("another number than before", child > children);
	children = child;
	return false;
}

/* ---- by a packet ---- */

static uint64_t post_fork(uint64_t id)
{
	in[0] = 0x554d01;
	in[1] = 1 | 48ull << 32;
	in[2] = id;
	in[3] = UMBRA_FORK;
	in[4] = in[5] = in[6] = 0;
	in[7] = REPLY_SINT;
	return umbra_call(&hv, 0x5c, gpa(in), 0);
}

static bool by_packet(void)
{
	uint8_t *simp = new_page();
	volatile struct reply *reply = (volatile struct reply *)(simp + REPLY_SINT * SLOT_BYTES);
	const uint64_t id = next_id++;

	wrmsr(MSR_SIMP, gpa(simp) | 1);
	wrmsr(MSR_SINT0 + REPLY_SINT, REPLY_VECTOR);
	wrmsr(MSR_SCONTROL, 1);
	check_equal("a packet", post_fork(id), 0);
	while (reply->type != REPLY)
		cpu_relax();
	check_equal("the reply's request", reply->id, id);
	check_equal("its status", reply->status, UMBRA_OK);
	check("another number than before, or the child",
	      !reply->result || reply->result > children);
	if (!reply->result) {
		say_child("packet");
		return true;
	}
	children = reply->result;
	reply->type = 0;
	wrmsr(MSR_EOM, 0);
	for (unsigned n = 0; n < QUIET_TURNS; n++)
		cpu_relax();
	check("one reply", !reply->type);
	return false;
}

/* As many as it may have were made, or too many in a minute. */
static void one_too_many(void)
{
	uint32_t child;
	uint64_t status = 0;

	for (unsigned n = 0; n < 2 * TRIES && !status; n++) {
		status = umbra_fork(&hv, next_id++, in, gpa(in), &child);
		if (!status && !child)
			return;
	}
	check_equal("one too many", status, UMBRA_NO_BUFFERS);
}

void test_main(void)
{
	hv_open();
	in = new_page();
	out = new_page();
	ring_memory = (uint8_t *)0x2000000;
	check_equal("a ring",
		    umbra_ring_open(&hv, &ring, 0, ENTRIES, ring_memory, gpa(ring_memory), 0, in,
				    gpa(in)),
		    0);
	malformed();
	if (cancelled() || by_call(UMBRA_OK) || by_ring() || by_packet())
		return;
	one_too_many();
	print("PARENT\n");
}
