/*
 * Records between the broker and a machine process (record_ring.h has the layout and the rules):
 * put, get, and the sleep of a producer that found no room.
 */
#include "record_ring.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct record { uint32_t kind, bytes; };

static_assert(!(RING_BYTES & (RING_BYTES - 1)), "indices wrap at 2^32");
static_assert(RING_RECORD_MAX_BYTES + sizeof(struct record) <= RING_BYTES / 2,
	      "a producer that was woken has room for any record");

static uint32_t padded(uint32_t bytes)
{
	return (uint32_t)sizeof(struct record) + ((bytes + 7) & ~7u);
}

static void copy_in(struct ring_memory *memory, uint32_t at, const void *from, uint32_t bytes)
{
	uint32_t first = RING_BYTES - at % RING_BYTES;

	first = first < bytes ? first : bytes;
	memcpy(memory->data + at % RING_BYTES, from, first);
	memcpy(memory->data, (const uint8_t *)from + first, bytes - first);
}

static void copy_out(const struct ring_memory *memory, uint32_t at, void *to, uint32_t bytes)
{
	uint32_t first = RING_BYTES - at % RING_BYTES;

	first = first < bytes ? first : bytes;
	memcpy(to, memory->data + at % RING_BYTES, first);
	memcpy((uint8_t *)to + first, memory->data, bytes - first);
}

void check_ring_end(const struct ring_end *end)
{
	assert(end->memory && !((uintptr_t)end->memory % _Alignof(struct ring_memory)));
	assert(!(end->at & 7)); /* records are padded to 8 */
}

int ring_add(struct ring_end *end, uint32_t kind, const void *data, uint32_t bytes)
{
	struct ring_memory *memory = end->memory;
	struct record record = { kind, bytes };
	uint32_t used = end->at - __atomic_load_n(&memory->tail, __ATOMIC_ACQUIRE);

	check_ring_end(end);
	assert(data || !bytes);
	if (bytes > RING_RECORD_MAX_BYTES)
		return -EMSGSIZE;
	if (used > RING_BYTES)
		return -EBADMSG;
	if (RING_BYTES - used < padded(bytes))
		return -EAGAIN;
	copy_in(memory, end->at, &record, sizeof(record));
	if (bytes)
		copy_in(memory, end->at + (uint32_t)sizeof(record), data, bytes);
	end->at += padded(bytes);
	__atomic_store_n(&memory->head, end->at, __ATOMIC_RELEASE);
	return 0;
}

int ring_wake(const struct ring_end *end)
{
	const uint64_t one = 1;

	assert(end->wake_fd >= 0);
	return write(end->wake_fd, &one, 8) == 8 || errno == EAGAIN ? 0 : -errno;
}

int ring_put(struct ring_end *end, uint32_t kind, const void *data, uint32_t bytes)
{
	const int error = ring_add(end, kind, data, bytes);

	return error ? error : ring_wake(end);
}

void ring_wait(struct ring_end *end)
{
	struct ring_memory *memory = end->memory;
	uint32_t tail;

	/*
	 * the wish before the look, and only this side takes it back: each tail that is stored
	 * after the look finds it
	 */
	__atomic_store_n(&memory->producer_waits, 1, __ATOMIC_SEQ_CST);
	tail = __atomic_load_n(&memory->tail, __ATOMIC_SEQ_CST);
	if (end->at - tail > RING_BYTES / 2)
		syscall(SYS_futex, &memory->tail, FUTEX_WAIT, tail, NULL, NULL, 0);
	__atomic_store_n(&memory->producer_waits, 0, __ATOMIC_SEQ_CST);
}

int ring_get(struct ring_end *end, uint32_t *ret_kind, void *data, uint32_t *ret_bytes)
{
	struct ring_memory *memory = end->memory;
	uint32_t used = __atomic_load_n(&memory->head, __ATOMIC_ACQUIRE) - end->at;
	struct record record;

	check_ring_end(end);
	assert(data);
	if (!used)
		return 0;
	if (used > RING_BYTES || used < sizeof(record))
		return -EBADMSG;
	copy_out(memory, end->at, &record, sizeof(record));
	if (record.bytes > RING_RECORD_MAX_BYTES || padded(record.bytes) > used)
		return -EBADMSG;
	copy_out(memory, end->at + (uint32_t)sizeof(record), data, record.bytes);
	*ret_kind = record.kind;
	*ret_bytes = record.bytes;
	end->at += padded(record.bytes);
	__atomic_store_n(&memory->tail, end->at, __ATOMIC_SEQ_CST);
	if (used - padded(record.bytes) <= RING_BYTES / 2 &&
	    __atomic_load_n(&memory->producer_waits, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &memory->tail, FUTEX_WAKE, 1, NULL, NULL, 0);
	return 1;
}
