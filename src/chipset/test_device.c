/* See test_device.h. Left out: creation of SINT routes (1, 2), which every SINT has here anyway. */
#include "test_device.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/speculation.h"
#include "pic.h"

enum {
	LATCH_PORT = 0xe0,
	LATCH_TWIN_PORT = 0xe8,
	LATCH_BYTES = 4,
	FLUSH_PORT = 0xe4,
	LINE_PORT = 0x2000,
	LINES = 24,
	HYPERV_PORT = 0x3000,
	MEMORY_GPA = 0xff000000u,
	MEMORY_BYTES = 0x10000,
	CONNECTIONS = 256,
	KINDS = 2,
	SINTS = 16,
};
enum command {
	SINT_ASSERT = 3,
	MESSAGE_CREATE = 4,
	MESSAGE_DESTROY = 5,
	EVENT_CREATE = 6,
	EVENT_DESTROY = 7
};

struct connection { bool exists; struct test_device_target target; };

struct test_device {
	const struct test_device_host *host;
	struct pic pic;
	struct connection connection[KINDS][CONNECTIONS];
	uint8_t latch[LATCH_BYTES];
	uint8_t memory[MEMORY_BYTES];
};

struct test_device *test_device_create(const struct test_device_host *host)
{
	struct test_device *device = calloc(1, sizeof(*device));

	assert(host->set_line && host->notify && host->assert_sint);
	if (!device)
		return NULL;
	device->host = host;
	pic_reset(&device->pic);
	return device;
}

void test_device_destroy(struct test_device *device) { free(device); }

/* The byte of the latch that the port leads to; LATCH_BYTES: none. */
static unsigned latch_offset(uint16_t port)
{
	if (port >= LATCH_PORT && port < LATCH_PORT + LATCH_BYTES)
		return port - LATCH_PORT;
	if (port >= LATCH_TWIN_PORT && port < LATCH_TWIN_PORT + LATCH_BYTES)
		return port - LATCH_TWIN_PORT;
	return LATCH_BYTES;
}

static uint8_t *latch_at(struct test_device *device, unsigned offset)
{
	return device->latch + speculation_bound(offset, LATCH_BYTES);
}

bool test_device_port_read(struct test_device *device, uint16_t port, unsigned bytes, uint64_t *ret)
{
	unsigned offset = latch_offset(port);
	uint8_t value;

	assert(bytes <= LATCH_BYTES);
	if (pic_read(&device->pic, port, &value)) {
		*ret = value;
		return true;
	}
	if (offset == LATCH_BYTES)
		return false;
	*ret = 0;
	memcpy(ret, latch_at(device, offset),
	       bytes < LATCH_BYTES - offset ? bytes : LATCH_BYTES - offset);
	return true;
}

static void connection_open(struct test_device *device, enum test_device_kind kind,
			    uint32_t request)
{
	struct connection *connection = &device->connection[kind][request >> 24];

	*connection = (struct connection){
		true, { .vp_index = (uint8_t)(request >> 8), .sint = request % SINTS }
	};
}

static void hyperv_command(struct test_device *device, uint32_t request)
{
	switch ((enum command)(request >> 16 & 0xff)) {
	case SINT_ASSERT:
		device->host->assert_sint(device->host->context, request >> 8 & 0xff,
					  request % SINTS);
		return;
	case MESSAGE_CREATE: connection_open(device, TEST_DEVICE_MESSAGES, request); return;
	case EVENT_CREATE: connection_open(device, TEST_DEVICE_EVENTS, request); return;
	case MESSAGE_DESTROY:
		device->connection[TEST_DEVICE_MESSAGES][request >> 24].exists = false;
		return;
	case EVENT_DESTROY:
		device->connection[TEST_DEVICE_EVENTS][request >> 24].exists = false;
		return;
	default: return;
	}
}

static void set_line(struct test_device *device, unsigned line, bool high)
{
	device->host->set_line(device->host->context, line, high);
	if (line >= PIC_LINES)
		return;
	pic_set_line(&device->pic, line, high);
	device->host->notify(device->host->context);
}

bool test_device_has_interrupt(const struct test_device *device)
{
	return pic_has_interrupt(&device->pic);
}

int test_device_take_interrupt(struct test_device *device) { return pic_take(&device->pic); }

bool test_device_port_write(struct test_device *device, uint16_t port, unsigned bytes,
			    uint64_t value)
{
	unsigned offset = latch_offset(port);

	assert(bytes <= LATCH_BYTES);
	if (offset < LATCH_BYTES) {
		memcpy(latch_at(device, offset), &value,
		       bytes < LATCH_BYTES - offset ? bytes : LATCH_BYTES - offset);
		return true;
	}
	if (port >= LINE_PORT && port < LINE_PORT + LINES) {
		set_line(device, port - LINE_PORT, value & 1);
		return true;
	}
	if (pic_write(&device->pic, port, (uint8_t)value)) {
		device->host->notify(device->host->context);
		return true;
	}
	if (port == HYPERV_PORT && bytes == 4)
		hyperv_command(device, (uint32_t)value);
	return port == HYPERV_PORT || port == FLUSH_PORT;
}

/* Whether all of [gpa, gpa + bytes) is the device's memory. */
static bool is_memory(uint64_t gpa, size_t bytes)
{
	return gpa >= MEMORY_GPA && bytes <= MEMORY_BYTES &&
	       gpa - MEMORY_GPA <= MEMORY_BYTES - bytes;
}

bool test_device_read(const struct test_device *device, uint64_t gpa, void *to, size_t bytes)
{
	if (!is_memory(gpa, bytes))
		return false;
	memcpy(to, device->memory + speculation_bound(gpa - MEMORY_GPA, MEMORY_BYTES), bytes);
	return true;
}

bool test_device_write(struct test_device *device, uint64_t gpa, const void *from, size_t bytes)
{
	if (!is_memory(gpa, bytes))
		return false;
	memcpy(device->memory + speculation_bound(gpa - MEMORY_GPA, MEMORY_BYTES), from, bytes);
	return true;
}

bool test_device_connection(const struct test_device *device, enum test_device_kind kind,
			    uint32_t connection, struct test_device_target *ret)
{
	assert(kind == TEST_DEVICE_MESSAGES || kind == TEST_DEVICE_EVENTS);
	const struct connection *entry =
		&device->connection[kind][speculation_bound(connection, CONNECTIONS)];

	if (connection >= CONNECTIONS || !entry->exists)
		return false;
	*ret = entry->target;
	return true;
}
