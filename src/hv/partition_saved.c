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

static void versions_archive(struct archive *a, struct hv_partition *p)
{
	uint32_t call_page = HYPERCALL_PAGE_VERSION;
	uint32_t info_page = INFO_PAGE_VERSION;
	uint32_t synic = SYNIC_VERSION;

	archive_u32(a, &call_page);
	archive_u32(a, &info_page);
	archive_u32(a, &synic);
	archive_u32(a, &p->umbra_newest);
	archive_u32(a, &p->umbra_version);
	if (!a->loading || a->error)
		return;
	if (call_page != HYPERCALL_PAGE_VERSION)
		archive_fail(a, -ENOTSUP,
			     "its hypercall page is of a version that this Umbra does not know");
	if (info_page != INFO_PAGE_VERSION)
		archive_fail(a, -ENOTSUP,
			     "its information page is of a version that this Umbra does not know");
	if (synic != SYNIC_VERSION)
		archive_fail(a, -ENOTSUP,
			     "its synthetic interrupt controller is of a version that this Umbra "
			     "does not know");
	if (p->umbra_newest > UMBRA_NEWEST || p->umbra_newest < UMBRA_OLDEST)
		archive_fail(
			a, -ENOTSUP,
			"it was offered a version of the extension that this Umbra does not know");
	archive_check(a, !p->umbra_version || (p->umbra_version >= UMBRA_OLDEST &&
					       p->umbra_version <= p->umbra_newest));
}

static void registers_archive(struct archive *a, struct hv_partition *p)
{
	archive_u64(a, &p->guest_os_id);
	archive_u64(a, &p->hypercall);
	archive_u64(a, &p->reference_tsc);
	archive_u64(a, &p->tsc_invariant);
	archive_u64s(a, p->crash, 5);
	archive_check(a, p->tsc_invariant <= 1 && (p->guest_os_id || !(p->hypercall & 1)));
}

static void queue_archive(struct archive *a, struct hv_queue *q)
{
	uint32_t count = q->count;

	archive_u32(a, &count);
	if (!archive_check(a, count <= QUEUE_MESSAGES))
		return;
	if (a->loading)
		*q = (struct hv_queue){ .count = count };
	for (unsigned n = 0; n < count; n++) {
		struct hv_message *m = &q->message[(q->first + n) % QUEUE_MESSAGES];

		archive_bytes(a, m, sizeof(*m));
		archive_check(a, m->type && m->payload_bytes <= PAYLOAD_BYTES && !m->flags &&
					 !m->reserved);
	}
}

static void cpu_archive(struct archive *a, struct hv_cpu *cpu)
{
	archive_u64(a, &cpu->vp_assist);
	archive_u64(a, &cpu->scontrol);
	archive_u64(a, &cpu->siefp);
	archive_u64(a, &cpu->simp);
	archive_u64s(a, cpu->sint, HV_SINTS);
	archive_check(a, cpu->scontrol <= 1);
	for (unsigned n = 0; n < HV_SINTS; n++) {
		archive_check(a, hv_is_sint(cpu, cpu->sint[n]));
		queue_archive(a, &cpu->queue[n]);
	}
	for (unsigned n = 0; n < HV_TIMERS; n++) {
		archive_u64(a, &cpu->timer[n].config);
		archive_u64(a, &cpu->timer[n].count);
		archive_u64(a, &cpu->timer[n].due_100ns);
		archive_check(a, hv_is_timer(cpu, &cpu->timer[n]));
	}
}

static void rings_archive(struct archive *a, struct hv_partition *p)
{
	for (unsigned n = 0; n < RINGS; n++) {
		struct hv_ring *r = &p->ring[n];

		archive_bool(a, &r->registered);
		if (!r->registered)
			continue;
		archive_bool(a, &r->broken);
		archive_u32(a, &r->entries);
		archive_u32(a, &r->vp_index);
		archive_u32(a, &r->sint);
		archive_u64(a, &r->gpa);
		archive_u32(a, &r->request_head);
		archive_u32(a, &r->completion_tail);
		archive_check(a, r->vp_index < p->host->cpus &&
					 ring_is_possible(p, r->entries, r->gpa, r->sint));
	}
}

static bool has_target(struct hv_partition *p, const struct work_request *r)
{
	struct hv_ring *ring = &p->ring[r->target % RINGS];

	switch (r->delivery) {
	case DELIVER_LOOP: return !r->target;
	case DELIVER_MESSAGE:
		return r->target >> 8 < p->host->cpus && r->target & 0xff &&
		       (r->target & 0xff) < HV_SINTS;
	case DELIVER_RING:
		return r->target < RINGS && ring->registered && ring->in_flight < ring->entries;
	default: return false;
	}
}

static void request_archive(struct archive *a, struct hv_partition *p, struct work_request *r)
{
	uint8_t delivery = (uint8_t)r->delivery;
	uint32_t outcome = r->state == WORK_FINISHED ? r->outcome : HV_CANCELLED;

	archive_u64(a, &r->id);
	archive_u8(a, &delivery);
	archive_u32(a, &r->target);
	archive_u32(a, &outcome);
	archive_u64(a, &r->result);
	archive_u64(a, &r->done_bytes);
	archive_bytes(a, &r->parameters, sizeof(r->parameters));
	if (!a->loading || a->error)
		return;
	r->delivery = (enum work_delivery)delivery;
	r->outcome = (enum hv_status)outcome;
	if (!archive_check(a, r->id && !work_find(p, r->id) && outcome < HV_STATUSES &&
				      delivery <= DELIVER_MESSAGE && has_target(p, r)))
		return;
	r->state = WORK_FINISHED;
	r->sequence = ++p->work_sequence;
	if (r->delivery == DELIVER_RING)
		p->ring[r->target].in_flight++;
}

/* In the order in which they were submitted. */
static void requests_archive(struct archive *a, struct hv_partition *p)
{
	struct work_request *r = NULL;
	uint32_t count = 0;

	for (unsigned n = 0; n < WORK_REQUESTS; n++)
		count += p->work[n].state != WORK_FREE;
	archive_u32(a, &count);
	if (!archive_check(a, count <= WORK_REQUESTS))
		return;
	for (unsigned n = 0; n < count; n++) {
		r = a->loading ? &p->work[n] : work_after(p, r);
		request_archive(a, p, r);
	}
}

void hv_archive(struct archive *a, struct hv_partition *p)
{
	versions_archive(a, p);
	registers_archive(a, p);
	for (unsigned n = 0; n < p->host->cpus; n++)
		cpu_archive(a, &p->cpu[n]);
	rings_archive(a, p);
	requests_archive(a, p);
}

void hv_restored(struct hv_partition *p)
{
	hv_place(p, OVERLAY_HYPERCALL, p->hypercall, true);
	if (p->reference_tsc & 1)
		hv_write_reference_tsc(p);
	hv_place(p, OVERLAY_REFERENCE_TSC, p->reference_tsc, true);
	for (unsigned n = 0; n < p->host->cpus; n++)
		hv_place_cpu(&p->cpu[n]);
	work_deliver_waiting(p);
	check_partition(p);
}
