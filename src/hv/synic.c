/*
 * Synthetic interrupt controller of one processor: message slots, event flags, SINTs (TLFS
 * "Inter-partition communication").
 *
 *  1. A message goes into its slot only if the slot's type is 0; otherwise the slot's "pending"
 *     flag is set and it waits in the queue of its SINT, QUEUE_MESSAGES long, until the guest ends
 *     the message (EOM). A full queue refuses; nothing is dropped.
 *  2. The pages are the hypervisor's own overlay pages; the guest writes them at any time, so a
 *     slot's type is read once, and nothing else that stands there is believed.
 */
#include "hv_internal.h"

#include <assert.h>

#include "lib/check.h"

enum { SINT_MASKED = 1 << 16, SINT_AUTO_EOI = 1 << 17, SINT_POLLING = 1 << 18 };

static uint8_t *page_of(struct hv_cpu *cpu, unsigned which)
{
	return hv_overlay(cpu->partition, OVERLAY_CPU + OVERLAYS_OF_CPU * cpu->index + which);
}

static void interrupt(struct hv_cpu *cpu, unsigned sint)
{
	const struct hv_host *host = cpu->partition->host;
	uint64_t source = cpu->sint[speculation_bound(sint, HV_SINTS)];

	if (!(source & (SINT_MASKED | SINT_POLLING)))
		host->raise(host->context, cpu->index, (uint8_t)source);
}

bool hv_try_slot(struct hv_cpu *cpu, unsigned sint, const struct hv_message *message, bool more)
{
	uint8_t *slot = page_of(cpu, OVERLAY_SIMP) +
			MESSAGE_BYTES * speculation_bound(sint, HV_SINTS);

	assert(sint < HV_SINTS && message->type && message->payload_bytes <= PAYLOAD_BYTES);
	if (!(cpu->simp & 1) || !(cpu->scontrol & 1))
		return false;
	if (__atomic_load_n((uint32_t *)(void *)slot, __ATOMIC_ACQUIRE)) {
		__atomic_fetch_or(slot + 5, 1, __ATOMIC_SEQ_CST);
		/* it may have been emptied before the flag was there, and then no EOM comes */
		if (__atomic_load_n((uint32_t *)(void *)slot, __ATOMIC_SEQ_CST))
			return false;
	}
	memcpy(slot + 4, (const uint8_t *)message + 4, MESSAGE_BYTES - 4);
	slot[5] = more;
	__atomic_store_n((uint32_t *)(void *)slot, message->type, __ATOMIC_RELEASE);
	interrupt(cpu, sint);
	return true;
}

static void drain(struct hv_cpu *cpu, unsigned sint)
{
	struct hv_queue *queue = &cpu->queue[speculation_bound(sint, HV_SINTS)];

	while (queue->count &&
	       hv_try_slot(cpu, sint, &queue->message[queue->first], queue->count > 1)) {
		queue->first = (queue->first + 1) % QUEUE_MESSAGES;
		queue->count--;
	}
}

bool hv_post(struct hv_cpu *cpu, unsigned sint, uint32_t type, uint64_t sender, const void *payload,
	     size_t bytes)
{
	struct hv_queue *queue = &cpu->queue[speculation_bound(sint, HV_SINTS)];
	struct hv_message *message =
		&queue->message[(queue->first + queue->count) % QUEUE_MESSAGES];

	assert(sint < HV_SINTS && type && bytes <= PAYLOAD_BYTES);
	if (queue->count == QUEUE_MESSAGES)
		return false;
	*message = (struct hv_message){ .type = type,
					.payload_bytes = (uint8_t)bytes,
					.sender = sender };
	memcpy(message->payload, payload, bytes);
	queue->count++;
	drain(cpu, sint);
	return true;
}

void hv_signal(struct hv_cpu *cpu, unsigned sint, unsigned flag)
{
	uint8_t *flags = page_of(cpu, OVERLAY_SIEFP) + 256 * speculation_bound(sint, HV_SINTS);
	uint8_t bit = (uint8_t)(1 << (flag & 7));

	assert(sint < HV_SINTS);
	if (!(cpu->siefp & 1) || !(cpu->scontrol & 1))
		return;
	if (!(__atomic_fetch_or(flags + (flag >> 3 & 255), bit, __ATOMIC_SEQ_CST) & bit))
		interrupt(cpu, sint);
}

void hv_assert_sint(struct hv_cpu *cpu, unsigned sint)
{
	assert(sint < HV_SINTS);
	if (cpu->scontrol & 1)
		interrupt(cpu, sint);
}

void hv_end_of_message(struct hv_cpu *cpu)
{
	for (unsigned n = 0; n < HV_SINTS; n++)
		drain(cpu, n);
	work_deliver_waiting(cpu->partition);
	CHECK(check_partition(cpu->partition));
	if (cpu->partition->host->messages_taken)
		cpu->partition->host->messages_taken(cpu->partition->host->context);
}

bool hv_is_sint(const struct hv_cpu *cpu, uint64_t value)
{
	return (value & SINT_MASKED || (value & 0xff) >= 16) && !(value >> 19) &&
	       (!(value & SINT_POLLING) || hv_has(cpu->partition, HV_SINT_POLLING));
}

int hv_set_sint(struct hv_cpu *cpu, unsigned n, uint64_t value)
{
	const struct hv_host *host = cpu->partition->host;

	assert(n < HV_SINTS);
	if (!hv_is_sint(cpu, value))
		return -EINVAL;
	if (cpu->sint[n] & SINT_AUTO_EOI)
		host->set_auto_eoi(host->context, cpu->index, (uint8_t)cpu->sint[n], false);
	cpu->sint[n] = value & (0xff | SINT_MASKED | SINT_AUTO_EOI | SINT_POLLING);
	for (unsigned i = 0; i < HV_SINTS; i++) /* another SINT may share the vector that lost it */
		if (cpu->sint[i] & SINT_AUTO_EOI)
			host->set_auto_eoi(host->context, cpu->index, (uint8_t)cpu->sint[i], true);
	return 0;
}
