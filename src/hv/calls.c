/*
 * Handlers of the TLFS's calls: flushes, interprocessor interrupts, messages and events, memory
 * hints.
 */
#include "hv_internal.h"

#include <assert.h>
#include <stdlib.h>

enum {
	FLUSH_ALL_PROCESSORS = 1, FLUSH_ALL_SPACES = 2, FLUSH_NON_GLOBAL = 4, FLUSH_EXTENDED = 8,
	FLUSH_FLAGS = 15
};
enum { SET_SPARSE = 0, SET_ALL = 1, BANKS = 64, RANGES = 16 };
enum {
	HEAT_COLD_DISCARD = 2, LARGE_BYTES = 2 << 20, MESSAGE_TYPE_HYPERVISOR = 1u << 31,
	CONNECTION_BITS = 24
};
enum { CAPABILITY_BOOT_ZEROED = 1 << 0, CAPABILITY_HEAT = 1 << 1, CAPABILITY_HEAT_LINUX = 1 << 8 };

static uint64_t everybody(const struct hv_partition *partition)
{
	assert(partition->host->cpus && partition->host->cpus <= 64);
	return ~0ull >> (64 - partition->host->cpus);
}

/* A VP set (TLFS "Virtual processor sets"); processors that do not exist are ignored. */
static enum hv_status read_set(struct hv_call *call, const uint8_t *at, uint64_t *ret_targets)
{
	uint64_t format, valid, bank;

	memcpy(&format, at, 8);
	memcpy(&valid, at + 8, 8);
	*ret_targets = format == SET_ALL ? everybody(call->cpu->partition) : 0;
	if (format == SET_ALL)
		return HV_SUCCESS;
	if (format != SET_SPARSE)
		return HV_INVALID_PARAMETER;
	if ((unsigned)__builtin_popcountll(valid) * 8 > call->variable_bytes)
		return HV_INVALID_INPUT;
	if (valid & 1) { /* the first bank; X86_MAX_PROCESSORS lie in it */
		memcpy(&bank, at + 16, 8);
		*ret_targets = bank & everybody(call->cpu->partition);
	}
	return HV_SUCCESS;
}

/*
 * ---- flushes: any address space is flushed in whichever is current, which is what a processor
 * caches ----
 */

struct flush_head { uint64_t space, flags, targets; };

static enum hv_status check_flush(const struct hv_call *call, uint64_t flags)
{
	if (flags & ~(uint64_t)FLUSH_FLAGS ||
	    (flags & FLUSH_EXTENDED && !hv_has(call->cpu->partition, HV_EXT_GVA)))
		return HV_INVALID_PARAMETER;
	return HV_SUCCESS;
}

static enum hv_status flush_space(struct hv_call *call, uint64_t flags, uint64_t targets)
{
	struct hv_partition *partition = call->cpu->partition;
	enum hv_status status = check_flush(call, flags);

	if (status)
		return status;
	if (flags & FLUSH_ALL_PROCESSORS)
		targets = everybody(partition);
	partition->host->flush(partition->host->context, targets & everybody(partition), NULL, 0,
			       !(flags & FLUSH_NON_GLOBAL));
	return HV_SUCCESS;
}

/* Bits of an element: large pages, of 1 GiB instead of 2 MiB, and how many further pages. */
enum {
	RANGE_LARGE = 1 << 11, RANGE_GIGANTIC = 1 << 12, RANGE_FURTHER_EXTENDED = 0x7ff,
	RANGE_FURTHER = GUEST_PAGE_BYTES - 1, GIGANTIC_BYTES = 1 << 30
};

static uint64_t large_bytes(uint64_t entry)
{
	return entry & RANGE_GIGANTIC ? GIGANTIC_BYTES : LARGE_BYTES;
}

static struct engine_gva_range range_of(uint64_t entry, bool extended)
{
	uint32_t further = (uint32_t)(entry & (extended ? RANGE_FURTHER_EXTENDED : RANGE_FURTHER));
	uint64_t pages;

	if (!extended || !(entry & RANGE_LARGE))
		return (struct engine_gva_range){ .gva = guest_page_of(entry),
						  .pages = further + 1 };
	pages = (further + 1) * (large_bytes(entry) / GUEST_PAGE_BYTES);
	return (struct engine_gva_range){
		.gva = entry & ~(uint64_t)(LARGE_BYTES - 1),
		.pages = pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages,
	};
}

static enum hv_status flush_list(struct hv_call *call, const uint8_t *entries, uint64_t flags,
				 uint64_t targets)
{
	struct hv_partition *partition = call->cpu->partition;
	struct engine_gva_range ranges[RANGES];
	unsigned used = 0;
	enum hv_status status = check_flush(call, flags);

	if (status)
		return status;
	if (flags & FLUSH_ALL_PROCESSORS)
		targets = everybody(partition);
	for (uint32_t n = 0; n < call->rep_count - call->rep_start && used <= RANGES; n++, used++) {
		uint64_t entry;

		memcpy(&entry, entries + 8 * (size_t)n, 8);
		if (used < RANGES)
			ranges[used] = range_of(entry, flags & FLUSH_EXTENDED);
	}
	/* more than a few: everything at once is cheaper than one by one */
	partition->host->flush(partition->host->context, targets & everybody(partition), ranges,
			       used > RANGES ? 0 : used, true);
	call->reps_done = call->rep_count;
	return HV_SUCCESS;
}

enum hv_status hv_call_flush_space(struct hv_call *call)
{
	struct flush_head head;

	memcpy(&head, call->input, sizeof(head));
	return flush_space(call, head.flags, head.targets);
}

enum hv_status hv_call_flush_list(struct hv_call *call)
{
	struct flush_head head;

	memcpy(&head, call->input, sizeof(head));
	return flush_list(call, call->input + sizeof(head), head.flags, head.targets);
}

enum hv_status hv_call_flush_space_ex(struct hv_call *call)
{
	struct flush_head head;
	enum hv_status status = read_set(call, call->input + 16, &head.targets);

	memcpy(&head, call->input, 16);
	return status ? status : flush_space(call, head.flags, head.targets);
}

enum hv_status hv_call_flush_list_ex(struct hv_call *call)
{
	struct flush_head head;
	enum hv_status status = read_set(call, call->input + 16, &head.targets);

	memcpy(&head, call->input, 16);
	return status ? status
		      : flush_list(call, call->input + 32 + call->variable_bytes, head.flags,
				   head.targets);
}

/* ---- processors ---- */

enum hv_status hv_call_spin_wait(struct hv_call *call)
{
	const struct hv_host *host = call->cpu->partition->host;

	host->yield(host->context, call->cpu->index);
	return HV_SUCCESS;
}

static enum hv_status send_ipi(struct hv_call *call, uint32_t vector, uint32_t vtl,
			       uint64_t targets)
{
	struct hv_partition *partition = call->cpu->partition;

	if (vector < 0x10 || vector > 0xff || vtl)
		return HV_INVALID_PARAMETER;
	hv_lock(partition);
	for (targets &= everybody(partition); targets; targets &= targets - 1)
		partition->host->raise(partition->host->context, (uint32_t)__builtin_ctzll(targets),
				       (uint8_t)vector);
	hv_unlock(partition);
	return HV_SUCCESS;
}

enum hv_status hv_call_send_ipi(struct hv_call *call)
{
	struct { uint32_t vector, vtl; uint64_t targets; } in;

	memcpy(&in, call->input, sizeof(in));
	return send_ipi(call, in.vector, in.vtl, in.targets);
}

enum hv_status hv_call_send_ipi_ex(struct hv_call *call)
{
	struct { uint32_t vector, vtl; } in;
	uint64_t targets;
	enum hv_status status = read_set(call, call->input + 8, &targets);

	memcpy(&in, call->input, sizeof(in));
	return status ? status : send_ipi(call, in.vector, in.vtl, targets);
}

/* ---- messages and events: of the extension, and of the bus ---- */

static enum hv_status status_of(int error)
{
	switch (error) {
	case 0: return HV_SUCCESS;
	case -ENOENT: return HV_INVALID_CONNECTION_ID;
	case -EAGAIN: return HV_INSUFFICIENT_BUFFERS;
	default: return HV_INVALID_PARAMETER;
	}
}

enum hv_status hv_call_post_message(struct hv_call *call)
{
	const struct hv_host *host = call->cpu->partition->host;
	struct { uint32_t connection, reserved, type, bytes; } in;

	memcpy(&in, call->input, sizeof(in));
	if (in.reserved || !in.type || in.type & MESSAGE_TYPE_HYPERVISOR ||
	    in.bytes > PAYLOAD_BYTES)
		return HV_INVALID_PARAMETER;
	if (in.connection == UMBRA_CONNECTION_PACKET && call->cpu->partition->umbra_version)
		return umbra_packet(call->cpu, in.type, call->input + sizeof(in), in.bytes);
	return host->message ? status_of(host->message(host->context, in.connection, in.type,
						       call->input + sizeof(in), in.bytes))
			     : HV_INVALID_CONNECTION_ID;
}

enum hv_status hv_call_signal_event(struct hv_call *call)
{
	const struct hv_host *host = call->cpu->partition->host;
	struct { uint32_t connection; uint16_t flag, reserved; } in;
	uint32_t ring;

	memcpy(&in, call->input, sizeof(in));
	if (in.reserved || in.connection >> CONNECTION_BITS)
		return HV_INVALID_PARAMETER;
	ring = in.connection - UMBRA_CONNECTION_DOORBELL;
	if (ring >= RINGS && host->event)
		return status_of(host->event(host->context, in.connection, in.flag));
	if (ring >= RINGS || call->cpu->partition->umbra_version < UMBRA_VERSION_1_1)
		return HV_INVALID_CONNECTION_ID;
	return in.flag ? HV_INVALID_PARAMETER : ring_doorbell(call->cpu, ring);
}

/* ---- extended calls ---- */

enum hv_status hv_call_capabilities(struct hv_call *call)
{
	const uint64_t capabilities =
		CAPABILITY_BOOT_ZEROED | CAPABILITY_HEAT | CAPABILITY_HEAT_LINUX;

	memcpy(call->output, &capabilities, 8);
	return HV_SUCCESS;
}

/* All RAM was zero when the machine began: { start gfn, pages } each, below and above 4 GiB. */
enum hv_status hv_call_boot_zeroed(struct hv_call *call)
{
	const struct guest_memory *memory = call->cpu->partition->host->memory;
	const uint64_t high_bytes = guest_memory_populated_bytes(memory) - memory->low_bytes;
	const uint64_t out[5] = { high_bytes ? 2 : 1, 0, memory->low_bytes >> 12, 1 << 20,
				  high_bytes >> 12 };

	memcpy(call->output, out, sizeof(out));
	return HV_SUCCESS;
}

/*
 * One element: bits 10:0 further pages, 11 large, 12 1 GiB instead of 2 MiB, 63:21 or 63:12 the
 * page.
 */
static enum hv_status heat_range(const struct hv_partition *partition, uint64_t entry,
				 uint64_t *ret_gpa, uint64_t *ret_bytes)
{
	bool large = entry & RANGE_LARGE;

	*ret_gpa = large ? entry & ~(uint64_t)(LARGE_BYTES - 1) : guest_page_of(entry);
	*ret_bytes = ((entry & RANGE_FURTHER_EXTENDED) + 1) *
		     (large ? large_bytes(entry) : GUEST_PAGE_BYTES);
	return guest_memory_probe(partition->host->memory, *ret_gpa, *ret_bytes, true)
		       ? HV_INVALID_PARAMETER
		       : HV_SUCCESS;
}

/* What no device has of a piece. */
static void discard_cold(struct hv_partition *partition, uint64_t gpa, size_t bytes)
{
	const struct hv_host *host = partition->host;
	const bool some_are_held = host->holds && host->holds(host->context, gpa, bytes);
	const size_t step = some_are_held ? GUEST_PAGE_BYTES : bytes;
	struct work_parameters parameters = { .operation = WORK_DISCARD, .gpa = gpa };
	uint64_t none;

	for (size_t done = 0; done < bytes; done += step)
		if (!some_are_held || !host->holds(host->context, gpa + done, step))
			work_piece(partition, &parameters, done, step, &none);
}

enum hv_status hv_call_heat_hint(struct hv_call *call)
{
	struct hv_partition *partition = call->cpu->partition;
	struct { uint8_t type, reserved[7]; } head;
	uint64_t entry, gpa, bytes;

	memcpy(&head, call->input, sizeof(head));
	if (head.type != HEAT_COLD_DISCARD)
		return HV_INVALID_PARAMETER;
	for (const uint8_t *at = call->input + sizeof(head);
	     call->reps_done < call->rep_count && !hv_call_must_yield(call);
	     at += 8, call->reps_done++) {
		memcpy(&entry, at, 8);
		if (heat_range(partition, entry, &gpa, &bytes))
			return HV_INVALID_PARAMETER;
		for (uint64_t done = 0; done < bytes; done += LARGE_BYTES)
			discard_cold(partition, gpa + done,
				     bytes - done < LARGE_BYTES ? bytes - done : LARGE_BYTES);
	}
	return HV_SUCCESS;
}
