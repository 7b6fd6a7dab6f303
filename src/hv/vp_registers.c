/*
 * HvCallGetVpRegisters and HvCallSetVpRegisters: the names of the TLFS that this processor has. A
 * processor reads and writes its own registers, and those of one that waits for its start-up
 * interrupt; of any other the state is "invalid". Left out: RFLAGS and vector registers, which the
 * engine keeps in a form of its own during a call.
 */
#include "hv_internal.h"

#include <stddef.h>

enum { VALUE_BYTES = 16 };
#define OWN_VP 0xfffffffeu
#define OWN_PARTITION ~0ull
enum kind { KIND_64, KIND_SEGMENT, KIND_TABLE, KIND_CPU_64, KIND_PARTITION_64, KIND_TIME };

struct name { uint32_t first, count; enum kind kind; bool writable; size_t offset; size_t stride; };

#define X(member) offsetof(struct x86_state, member)
static const struct name names[] = {
	{ .first = 0x00020000, .count = 16, .kind = KIND_64,
	  .writable = true, .offset = X(gpr), .stride = 8 },
	{ .first = 0x00020010, .count = 1, .kind = KIND_64, .offset = X(rip) },
	{ .first = 0x00040000, .count = 1, .kind = KIND_64, .offset = X(cr0) },
	{ .first = 0x00040001, .count = 1, .kind = KIND_64, .offset = X(cr2) },
	{ .first = 0x00040002, .count = 1, .kind = KIND_64, .offset = X(cr3) },
	{ .first = 0x00040003, .count = 1, .kind = KIND_64, .offset = X(cr4) },
	{ .first = 0x00040004, .count = 1, .kind = KIND_64, .offset = X(cr8) },
	{ .first = 0x00050000, .count = 4, .kind = KIND_64, .offset = X(dr), .stride = 8 },
	{ .first = 0x00050004, .count = 1, .kind = KIND_64, .offset = X(dr) + 48 },
	{ .first = 0x00050005, .count = 1, .kind = KIND_64, .offset = X(dr) + 56 },
	{ .first = 0x00060000, .count = X86_SEGMENTS, .kind = KIND_SEGMENT,
	  .offset = X(segment), .stride = sizeof(struct x86_segment_state) },
	{ .first = 0x00060006, .count = 1, .kind = KIND_SEGMENT, .offset = X(ldtr) },
	{ .first = 0x00060007, .count = 1, .kind = KIND_SEGMENT, .offset = X(tr) },
	{ .first = 0x00070000, .count = 1, .kind = KIND_TABLE, .offset = X(idtr) },
	{ .first = 0x00070001, .count = 1, .kind = KIND_TABLE, .offset = X(gdtr) },
	{ .first = 0x00080001, .count = 1, .kind = KIND_64, .offset = X(efer) },
	{ .first = 0x00080004, .count = 1, .kind = KIND_64, .offset = X(pat) },
	{ .first = 0x00090002, .count = 1, .kind = KIND_PARTITION_64,
	  .offset = offsetof(struct hv_partition, guest_os_id) },
	{ .first = 0x00090003, .count = 1, .kind = KIND_CPU_64,
	  .offset = offsetof(struct hv_cpu, index) },
	{ .first = 0x00090004, .count = 1, .kind = KIND_TIME },
	{ .first = 0x00090013, .count = 1, .kind = KIND_CPU_64,
	  .offset = offsetof(struct hv_cpu, vp_assist) },
	{ .first = 0x000a0000, .count = HV_SINTS, .kind = KIND_CPU_64,
	  .offset = offsetof(struct hv_cpu, sint), .stride = 8 },
	{ .first = 0x000a0010, .count = 1, .kind = KIND_CPU_64,
	  .offset = offsetof(struct hv_cpu, scontrol) },
	{ .first = 0x000a0012, .count = 1, .kind = KIND_CPU_64,
	  .offset = offsetof(struct hv_cpu, siefp) },
	{ .first = 0x000a0013, .count = 1, .kind = KIND_CPU_64,
	  .offset = offsetof(struct hv_cpu, simp) },
};

struct head { uint64_t partition; uint32_t vp; uint8_t vtl, reserved[3]; };

static const struct name *register_find(uint32_t name)
{
	for (unsigned n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		if (name - names[n].first < names[n].count)
			return &names[n];
	return NULL;
}

/* The TLFS's numbers of the general registers are those of the instruction set. */
static void register_get(struct hv_cpu *cpu, const struct name *row, uint32_t name,
			 uint8_t value[VALUE_BYTES])
{
	struct hv_partition *partition = cpu->partition;
	struct x86_state registers;
	const uint8_t *state = (const uint8_t *)&registers;
	size_t at = row->offset + (name - row->first) * row->stride;
	struct x86_segment_state segment;
	struct x86_table table;
	uint64_t now;

	memset(value, 0, VALUE_BYTES);
	if (row->kind == KIND_64 || row->kind == KIND_SEGMENT || row->kind == KIND_TABLE)
		partition->host->get_state(partition->host->context, cpu->index, &registers);
	switch (row->kind) {
	case KIND_64: memcpy(value, state + at, 8); break;
	case KIND_CPU_64:
		memcpy(value, (uint8_t *)cpu + at, at == offsetof(struct hv_cpu, index) ? 4 : 8);
		break;
	case KIND_PARTITION_64: memcpy(value, (uint8_t *)partition + at, 8); break;
	case KIND_TIME:
		now = hv_now(partition);
		memcpy(value, &now, 8);
		break;
	case KIND_SEGMENT: /* base, limit, selector, attributes */
		memcpy(&segment, state + at, sizeof(segment));
		memcpy(value, &segment.base, 8);
		memcpy(value + 8, &segment.limit, 4);
		memcpy(value + 12, &segment.selector, 2);
		memcpy(value + 14, &segment.attributes, 2);
		break;
	case KIND_TABLE: /* three reserved words, limit, base */
		memcpy(&table, state + at, sizeof(table));
		memcpy(value + 6, &table.limit, 2);
		memcpy(value + 8, &table.base, 8);
		break;
	}
}

static enum hv_status check_head(struct hv_call *call, struct hv_cpu **ret_target)
{
	struct hv_partition *partition = call->cpu->partition;
	struct head head;

	memcpy(&head, call->input, sizeof(head));
	if (head.partition != OWN_PARTITION)
		return HV_INVALID_PARTITION_ID;
	if (head.vtl || head.reserved[0] || head.reserved[1] || head.reserved[2])
		return HV_INVALID_PARAMETER;
	if (head.vp == OWN_VP)
		head.vp = call->cpu->index;
	if (head.vp >= partition->host->cpus)
		return HV_INVALID_VP_INDEX;
	*ret_target = &partition->cpu[speculation_bound(head.vp, partition->host->cpus)];
	if (head.vp != call->cpu->index &&
	    !partition->host->is_waiting(partition->host->context, head.vp))
		return HV_INVALID_VP_STATE;
	return HV_SUCCESS;
}

static enum hv_status get_all(struct hv_call *call)
{
	struct hv_cpu *target;
	enum hv_status status = check_head(call, &target);

	for (uint32_t i = 0;
	     !status && call->reps_done < call->rep_count && !hv_call_must_yield(call);
	     i++, call->reps_done++) {
		const struct name *row;
		uint32_t name;

		memcpy(&name, call->input + sizeof(struct head) + 4 * (size_t)i, 4);
		row = register_find(name);
		if (!row)
			return HV_INVALID_PARAMETER;
		register_get(target, row, name, call->output + VALUE_BYTES * (size_t)i);
	}
	return status;
}

static enum hv_status set_all(struct hv_call *call)
{
	struct hv_partition *partition = call->cpu->partition;
	struct x86_state state;
	struct hv_cpu *target;
	enum hv_status status = check_head(call, &target);

	for (uint32_t i = 0;
	     !status && call->reps_done < call->rep_count && !hv_call_must_yield(call);
	     i++, call->reps_done++) {
		struct { uint32_t name, reserved[3]; uint64_t value[2]; } element;
		const struct name *row;

		memcpy(&element, call->input + sizeof(struct head) + sizeof(element) * (size_t)i,
		       sizeof(element));
		row = register_find(element.name);
		if (!row || element.reserved[0] || element.reserved[1] || element.reserved[2] ||
		    element.value[1])
			return HV_INVALID_PARAMETER;
		if (!row->writable)
			return HV_ACCESS_DENIED;
		partition->host->get_state(partition->host->context, target->index, &state);
		memcpy((uint8_t *)&state + row->offset + (element.name - row->first) * row->stride,
		       element.value, 8);
		partition->host->set_general(partition->host->context, target->index, &state);
	}
	return status;
}

/* Under the lock a processor that waits goes on waiting. */
enum hv_status hv_call_get_registers(struct hv_call *call)
{
	enum hv_status status;

	hv_lock(call->cpu->partition);
	status = get_all(call);
	hv_unlock(call->cpu->partition);
	return status;
}

enum hv_status hv_call_set_registers(struct hv_call *call)
{
	enum hv_status status;

	hv_lock(call->cpu->partition);
	status = set_all(call);
	hv_unlock(call->cpu->partition);
	return status;
}

/* An APIC id is the VP index here. */
enum hv_status hv_call_vp_index(struct hv_call *call)
{
	struct { uint64_t partition; uint8_t vtl, reserved[7]; } header;

	memcpy(&header, call->input, sizeof(header));
	if (header.partition != OWN_PARTITION)
		return HV_INVALID_PARTITION_ID;
	for (uint32_t i = 0; call->reps_done < call->rep_count && !hv_call_must_yield(call);
	     i++, call->reps_done++) {
		uint32_t id;

		memcpy(&id, call->input + sizeof(header) + 4 * (size_t)i, 4);
		if (id >= call->cpu->partition->host->cpus)
			return HV_INVALID_PARAMETER;
		memcpy(call->output + 4 * (size_t)i, &id, 4);
	}
	return HV_SUCCESS;
}
