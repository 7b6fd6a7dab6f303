/*
 * A partition as bytes and back. First the versions of everything that the guest has been shown or
 * has agreed upon: a restored machine goes on with those, also where this program knows newer ones,
 * and one that needs what it does not know is refused (-ENOTSUP).
 *
 *  1. The contents of the overlay pages are saved with the memory; where they show follows from the
 *     registers.
 *  2. Requests not finished are cancelled in the machine that is restored, and go on in the one
 *     that was saved, if that goes on: so each has one outcome on either side, and what it does
 *     outside of its machine is not done twice.
 *  3. What is loaded passes the checks that the guest's own calls and register writes pass.
 */
#include "hv_internal.h"

#include "lib/archive.h"

static void versions_archive(struct archive *archive, struct hv_partition *partition)
{
	uint32_t call_page = HYPERCALL_PAGE_VERSION;
	uint32_t info_page = INFO_PAGE_VERSION;
	uint32_t synic = SYNIC_VERSION;

	archive_u32(archive, &call_page);
	archive_u32(archive, &info_page);
	archive_u32(archive, &synic);
	archive_u32(archive, &partition->umbra_newest);
	archive_u32(archive, &partition->umbra_version);
	if (!archive->loading || archive->error)
		return;
	if (call_page != HYPERCALL_PAGE_VERSION)
		archive_fail(archive, -ENOTSUP,
			     "its hypercall page is of a version that this Umbra does not know");
	if (info_page != INFO_PAGE_VERSION)
		archive_fail(archive, -ENOTSUP,
			     "its information page is of a version that this Umbra does not know");
	if (synic != SYNIC_VERSION)
		archive_fail(archive, -ENOTSUP,
			     "its synthetic interrupt controller is of a version that this Umbra "
			     "does not know");
	if (partition->umbra_newest > UMBRA_NEWEST || partition->umbra_newest < UMBRA_OLDEST)
		archive_fail(
			archive, -ENOTSUP,
			"it was offered a version of the extension that this Umbra does not know");
	archive_check(archive, !partition->umbra_version ||
				       (partition->umbra_version >= UMBRA_OLDEST &&
					partition->umbra_version <= partition->umbra_newest));
}

static void registers_archive(struct archive *archive, struct hv_partition *partition)
{
	archive_u64(archive, &partition->guest_os_id);
	archive_u64(archive, &partition->hypercall);
	archive_u64(archive, &partition->reference_tsc);
	archive_u64(archive, &partition->tsc_invariant);
	archive_u64s(archive, partition->crash, 5);
	archive_check(archive, partition->tsc_invariant <= 1 &&
				       (partition->guest_os_id || !(partition->hypercall & 1)));
}

static void queue_archive(struct archive *archive, struct hv_queue *queue)
{
	uint32_t count = archive->loading ? 0 : queue->count;

	archive_u32(archive, &count);
	if (!archive_check(archive, count <= QUEUE_MESSAGES))
		return;
	/* of one that is new nothing is touched that is not needed: each is a page */
	if (archive->loading && count) {
		queue->first = 0;
		queue->count = count;
	}
	for (unsigned n = 0; n < count; n++) {
		struct hv_message *message = &queue->message[(queue->first + n) % QUEUE_MESSAGES];

		archive_bytes(archive, message, sizeof(*message));
		archive_check(archive, message->type && message->payload_bytes <= PAYLOAD_BYTES &&
					       !message->flags && !message->reserved);
	}
}

static void cpu_archive(struct archive *archive, struct hv_cpu *cpu)
{
	archive_u64(archive, &cpu->vp_assist);
	archive_u64(archive, &cpu->scontrol);
	archive_u64(archive, &cpu->siefp);
	archive_u64(archive, &cpu->simp);
	archive_u64s(archive, cpu->sint, HV_SINTS);
	archive_check(archive, cpu->scontrol <= 1);
	for (unsigned n = 0; n < HV_SINTS; n++) {
		archive_check(archive, hv_is_sint(cpu, cpu->sint[n]));
		queue_archive(archive, &cpu->queue[n]);
	}
	for (unsigned n = 0; n < HV_TIMERS; n++) {
		archive_u64(archive, &cpu->timer[n].config);
		archive_u64(archive, &cpu->timer[n].count);
		archive_u64(archive, &cpu->timer[n].due_100ns);
		archive_check(archive, hv_is_timer(cpu, &cpu->timer[n]));
	}
}

static void rings_archive(struct archive *archive, struct hv_partition *partition)
{
	for (unsigned n = 0; n < RINGS; n++) {
		struct hv_ring *ring = &partition->ring[n];

		archive_bool(archive, &ring->registered);
		if (!ring->registered)
			continue;
		archive_bool(archive, &ring->broken);
		archive_u32(archive, &ring->entries);
		archive_u32(archive, &ring->vp_index);
		archive_u32(archive, &ring->sint);
		archive_u64(archive, &ring->gpa);
		archive_u32(archive, &ring->request_head);
		archive_u32(archive, &ring->completion_tail);
		archive_check(archive, ring->vp_index < partition->host->cpus &&
					       ring_is_possible(partition, ring->entries, ring->gpa,
								ring->sint));
	}
}

static bool has_target(struct hv_partition *partition, const struct work_request *request)
{
	struct hv_ring *ring = &partition->ring[request->target % RINGS];

	switch (request->delivery) {
	case DELIVER_LOOP: return !request->target;
	case DELIVER_MESSAGE:
		return request->target >> 8 < partition->host->cpus && request->target & 0xff &&
		       (request->target & 0xff) < HV_SINTS;
	case DELIVER_RING:
		return request->target < RINGS && ring->registered &&
		       ring->in_flight < ring->entries;
	default: return false;
	}
}

static void request_archive(struct archive *archive, struct hv_partition *partition,
			    struct work_request *request)
{
	uint8_t delivery = (uint8_t)request->delivery;
	uint32_t outcome = request->state == WORK_FINISHED ? request->outcome : HV_CANCELLED;

	archive_u64(archive, &request->id);
	archive_u8(archive, &delivery);
	archive_u32(archive, &request->target);
	archive_u32(archive, &outcome);
	archive_u64(archive, &request->result);
	archive_u64(archive, &request->done_bytes);
	archive_bytes(archive, &request->parameters, sizeof(request->parameters));
	if (!archive->loading || archive->error)
		return;
	request->delivery = (enum work_delivery)delivery;
	request->outcome = (enum hv_status)outcome;
	if (!archive_check(archive, request->id && !work_find(partition, request->id) &&
					    outcome < HV_STATUSES && delivery <= DELIVER_MESSAGE &&
					    has_target(partition, request)))
		return;
	request->state = WORK_FINISHED;
	request->sequence = ++partition->work_sequence;
	if (request->delivery == DELIVER_RING)
		partition->ring[request->target].in_flight++;
}

/* In the order in which they were submitted. */
static void requests_archive(struct archive *archive, struct hv_partition *partition)
{
	struct work_request *request = NULL;
	uint32_t count = 0;

	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		count += partition->work[n].state != WORK_FREE;
	archive_u32(archive, &count);
	if (!archive_check(archive, count <= WORK_REQUESTS))
		return;
	for (unsigned n = 0; n < count; n++) {
		request = archive->loading ? &partition->work[n] : work_after(partition, request);
		request_archive(archive, partition, request);
	}
}

void hv_archive(struct archive *archive, struct hv_partition *partition)
{
	versions_archive(archive, partition);
	registers_archive(archive, partition);
	for (unsigned n = 0; n < partition->host->cpus; n++)
		cpu_archive(archive, &partition->cpu[n]);
	rings_archive(archive, partition);
	requests_archive(archive, partition);
}

void hv_restored(struct hv_partition *partition)
{
	hv_place(partition, OVERLAY_HYPERCALL, partition->hypercall, true);
	if (partition->reference_tsc & 1)
		hv_write_reference_tsc(partition);
	hv_place(partition, OVERLAY_REFERENCE_TSC, partition->reference_tsc, true);
	for (unsigned n = 0; n < partition->host->cpus; n++)
		hv_place_cpu(&partition->cpu[n]);
	work_deliver_waiting(partition);
	check_partition(partition);
}
