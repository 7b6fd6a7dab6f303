/*
 * A device for foreign test suites (--test-device), in the spirit of QEMU's pc-testdev and
 * hyperv-testdev:
 *
 *   ports 0xe0 to 0xe3   a latch, read and written in any width; 0xe8 to 0xeb lead to the same
 *                        four bytes
 *   port  0xe4           asks for a page to be mapped anew: nothing to do here
 *   port  0x2000 + n     line n of the IOAPIC, and of the 8259s where n is below 16, becomes the
 *                        value's bit 0 (n below 24)
 *   ports 0x20, 0xa0     a pair of 8259s (pic.h), whose output goes to the boot processor's LINT0
 *   port  0x3000         32 bits, write only:
 *                        connection << 24 | command << 16 | VP index << 8 | SINT
 *   0xff000000           64 KiB that behave like memory, but are a device
 *
 * Called under the machine's lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_device;

/*
 * In RAX after a hypercall instruction that the Hyper-V interface does not take: suites for KVM
 * expect its answer, no #UD.
 */
#define TEST_DEVICE_NO_SUCH_CALL ((uint64_t)-1000)

/*
 * What the device asks of its machine, under the machine's lock. The SINT is below 16; the VP index
 * is what the guest said.
 */
struct test_device_host {
	void (*set_line)(void *context, unsigned gsi, bool high);
	/* The 8259s may have something for the boot processor. */
	void (*notify)(void *context);
	void (*assert_sint)(void *context, uint32_t vp_index, unsigned sint);
	void *context;
};

enum test_device_kind { TEST_DEVICE_MESSAGES, TEST_DEVICE_EVENTS };
/* Where a connection leads. */
struct test_device_target { uint8_t vp_index, sint; };

/* NULL: no memory. The host outlives the device. */
struct test_device *test_device_create(const struct test_device_host *host);
void test_device_destroy(struct test_device *device);
/* False: the port is another device's. bytes: 1, 2 or 4. */
bool test_device_port_read(struct test_device *device, uint16_t port, unsigned bytes,
			   uint64_t *ret_value);
bool test_device_port_write(struct test_device *device, uint16_t port, unsigned bytes,
			    uint64_t value);
/* Of the 8259s: whether a vector is due, and which one, with its acknowledgement; -1: none. */
bool test_device_has_interrupt(const struct test_device *device);
int test_device_take_interrupt(struct test_device *device);
/* False: the address is another device's. */
bool test_device_read(const struct test_device *device, uint64_t gpa, void *to, size_t bytes);
bool test_device_write(struct test_device *device, uint64_t gpa, const void *from, size_t bytes);
/* False: the guest has made no such connection. */
bool test_device_connection(const struct test_device *device, enum test_device_kind kind,
			    uint32_t connection, struct test_device_target *ret_target);
