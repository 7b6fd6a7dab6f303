/*
 * Umbra's extension of the hypercall interface: versions, looping and packet requests,
 * cancellation, page ranges. The contract with a guest is docs/umbra-interface.md.
 */
#include "hv/hv_internal.h"

enum { LEAF_FIRST = 0x40000100, LEAF_LAST = HV_UMBRA_LEAF_LOOK };
enum { PAGES_PER_ELEMENT = 16, PACKET_REQUEST = 1 };

bool umbra_cpuid(const struct hv_partition *partition, uint32_t leaf, uint32_t registers[4])
{
	/* "UmbraVMbra " */
	static const uint32_t name[4] = { LEAF_LAST, 0x72626d55, 0x624d5661, 0x20617262 };

	if (!hv_has(partition, HV_UMBRA) || leaf > LEAF_LAST)
		return false;
	memset(registers, 0, 16);
	switch (leaf - LEAF_FIRST) {
	case 0: memcpy(registers, name, 16); break;
	case 1:
		registers[0] = partition->umbra_newest;
		registers[1] = UMBRA_OLDEST;
		registers[2] = UMBRA_FEATURES;
		registers[3] = HYPERCALL_LOOP_OFFSET;
		break;
	case 3: break; /* what it does the machine knows (hv.h) */
	default:
		registers[0] = WORK_REQUESTS;
		registers[1] = RINGS;
		registers[2] = RING_ENTRIES_MAX;
		registers[3] = UMBRA_CONNECTION_PACKET;
	}
	return true;
}

/* The newest that both know. { newest, oldest } of the guest's; { version, feature bits }. */
enum hv_status umbra_call_version(struct hv_call *call)
{
	struct hv_partition *partition = call->cpu->partition;
	struct { uint32_t newest, oldest; } in;
	struct { uint32_t version, features; } out = { 0, UMBRA_FEATURES };

	memcpy(&in, call->input, sizeof(in));
	if (in.oldest > in.newest)
		return HV_INVALID_PARAMETER;
	if (in.newest < UMBRA_OLDEST || in.oldest > partition->umbra_newest)
		return HV_FEATURE_UNAVAILABLE;
	/* between two that we know there is none that we do not: minor numbers have no gaps */
	out.version = in.newest < partition->umbra_newest ? in.newest : partition->umbra_newest;
	if (out.version < UMBRA_VERSION_1_1)
		out.features &= ~2u;
	hv_lock(partition);
	partition->umbra_version = out.version;
	hv_unlock(partition);
	memcpy(call->output, &out, sizeof(out));
	return HV_SUCCESS;
}

/*
 * { id, parameters } in, { result, bytes done } out. The first call begins, those that follow ask;
 * the last takes the result.
 */
enum hv_status umbra_call_work(struct hv_call *call)
{
	struct hv_partition *partition = call->cpu->partition;
	struct { uint64_t id; struct work_parameters work; } in;
	struct { uint64_t result, done_bytes; } out = { 0 };
	struct work_request *request;
	enum hv_status status = HV_CALL_PENDING;
	bool begun = false;

	memcpy(&in, call->input, sizeof(in));
	if (!in.id)
		return HV_INVALID_PARAMETER;
	hv_lock(partition);
	request = work_find(partition, in.id);
	if (!request) {
		status = work_check(partition, &in.work);
		if (!status)
			status = work_submit(partition, in.id, &in.work, DELIVER_LOOP, 0)
					 ? HV_CALL_PENDING
					 : HV_INSUFFICIENT_BUFFERS;
		begun = true;
	} else if (request->delivery != DELIVER_LOOP ||
		   memcmp(&request->parameters, &in.work, sizeof(in.work))) {
		status = HV_OBJECT_IN_USE;
	} else {
		out.result = request->result;
		out.done_bytes = request->done_bytes;
		if (request->state == WORK_FINISHED) {
			status = request->outcome;
			work_release(request);
		}
	}
	hv_unlock(partition);
	memcpy(call->output, &out, sizeof(out));
	if (status == HV_CALL_PENDING && !begun)
		/* the worker may need this processor */
		partition->host->yield(partition->host->context, call->cpu->index);
	return status;
}

enum hv_status umbra_call_cancel(struct hv_call *call)
{
	struct hv_partition *partition = call->cpu->partition;
	enum hv_status status;
	uint64_t id;

	memcpy(&id, call->input, 8);
	hv_lock(partition);
	status = work_cancel(partition, id);
	hv_unlock(partition);
	return status;
}

enum hv_status umbra_call_null(struct hv_call *call)
{
	(void)call;
	return HV_SUCCESS;
}

/*
 * { operation } and elements { page | further pages }; one result for each. On the calling
 * processor, restartable.
 */
enum hv_status umbra_call_pages(struct hv_call *call)
{
	struct hv_partition *partition = call->cpu->partition;
	struct { uint16_t operation, flags; uint32_t reserved; } head;

	memcpy(&head, call->input, sizeof(head));
	if (head.flags || head.reserved)
		return HV_INVALID_PARAMETER;
	if (head.operation == WORK_NOTHING || head.operation == WORK_COPY ||
	    head.operation >= WORK_OPERATIONS)
		return HV_INVALID_PARAMETER;
	for (uint32_t i = 0; call->reps_done < call->rep_count && !hv_call_must_yield(call);
	     i++, call->reps_done++) {
		struct work_parameters parameters = { .operation = head.operation };
		uint64_t element;
		uint64_t result = 0;
		enum hv_status status;

		memcpy(&element, call->input + sizeof(head) + 8 * (size_t)i, 8);
		parameters.gpa = guest_page_of(element);
		parameters.bytes = (element % GUEST_PAGE_BYTES + 1) * GUEST_PAGE_BYTES;
		if (parameters.bytes > PAGES_PER_ELEMENT * GUEST_PAGE_BYTES)
			return HV_INVALID_PARAMETER;
		status = work_check(partition, &parameters);
		if (!status)
			status = work_piece(partition, &parameters, 0, parameters.bytes, &result);
		if (status)
			return status;
		memcpy(call->output + 8 * (size_t)i, &result, 8);
	}
	return HV_SUCCESS;
}

/*
 * A packet: { id, parameters, sint, flags }, posted as a message to UMBRA_CONNECTION_PACKET. The
 * reply is a message in that SINT of the processor that posted. Refused with "insufficient buffers"
 * while too many are under way: post again after a reply.
 */
enum hv_status umbra_packet(struct hv_cpu *cpu, uint32_t type, const uint8_t *payload, size_t bytes)
{
	struct hv_partition *partition = cpu->partition;
	struct { uint64_t id; struct work_parameters work; uint32_t sint, reserved; } in;
	enum hv_status status;

	if (type != PACKET_REQUEST || bytes != sizeof(in))
		return HV_INVALID_PARAMETER;
	memcpy(&in, payload, sizeof(in));
	if (!in.id || in.reserved || !in.sint || in.sint >= HV_SINTS)
		return HV_INVALID_PARAMETER;
	hv_lock(partition);
	status = work_check(partition, &in.work);
	if (!status && work_find(partition, in.id))
		status = HV_OBJECT_IN_USE;
	if (!status &&
	    !work_submit(partition, in.id, &in.work, DELIVER_MESSAGE, cpu->index << 8 | in.sint))
		status = HV_INSUFFICIENT_BUFFERS;
	hv_unlock(partition);
	return status;
}
