/*
 * The device for foreign test suites (chipset/test_device.h) in a machine: its lines, its SINTs,
 * its connections.
 */
#include "machine_internal.h"

#include <errno.h>

static void set_line(void *context, unsigned gsi, bool high)
{
	chipset_set_line(&((struct machine *)context)->chipset, gsi, high);
}

static void notify(void *context)
{
	struct machine *machine = context;

	if (test_device_has_interrupt(machine->test_device))
		interrupt_notify(&machine->vcpus[0]);
}

static void assert_sint(void *context, uint32_t vp_index, unsigned sint)
{
	struct machine *machine = context;

	if (vp_index < machine->options.cpus)
		hv_assert_sint(hv_partition_cpu(machine->hv, vp_index), sint);
}

/*
 * The processor that a connection of the test device leads to; NULL: there is no such connection.
 * Under the lock.
 */
static struct hv_cpu *connected_cpu(struct machine *machine, enum test_device_kind kind,
				    uint32_t connection, unsigned *ret_sint)
{
	struct test_device_target target;

	if (!test_device_connection(machine->test_device, kind, connection, &target) ||
	    target.vp_index >= machine->options.cpus)
		return NULL;
	*ret_sint = target.sint;
	return hv_partition_cpu(machine->hv, target.vp_index);
}

static int message(void *context, uint32_t connection, uint32_t type, const uint8_t *payload,
		   size_t bytes)
{
	struct machine *machine = context;
	struct hv_cpu *cpu;
	unsigned sint;
	int error = -ENOENT;

	pthread_mutex_lock(&machine->lock);
	cpu = connected_cpu(machine, TEST_DEVICE_MESSAGES, connection, &sint);
	if (cpu)
		error = hv_post(cpu, sint, type, connection, payload, bytes) ? 0 : -EAGAIN;
	pthread_mutex_unlock(&machine->lock);
	return error == -ENOENT && machine->devices
		       ? devices_message(machine, connection, type, payload, bytes)
		       : error;
}

static int event(void *context, uint32_t connection, uint16_t flag)
{
	struct machine *machine = context;
	struct hv_cpu *cpu;
	unsigned sint;
	int error = -ENOENT;

	pthread_mutex_lock(&machine->lock);
	cpu = connected_cpu(machine, TEST_DEVICE_EVENTS, connection, &sint);
	if (cpu) {
		hv_signal(cpu, sint, connection);
		error = 0;
	}
	pthread_mutex_unlock(&machine->lock);
	return error == -ENOENT && machine->devices ? devices_event(machine, connection, flag)
						    : error;
}

static void unit_destroy(void *self) { test_device_destroy(self); }

static const struct unit_ops test_device_unit = { .name = "test device", .destroy = unit_destroy };

int machine_make_test_device(struct machine *machine)
{
	if (!machine->options.test_device)
		return 0;
	machine->test_device_host = (struct test_device_host){ .set_line = set_line,
							       .notify = notify,
							       .assert_sint = assert_sint,
							       .context = machine };
	machine->test_device = test_device_create(&machine->test_device_host);
	if (!machine->test_device)
		return -ENOMEM;
	unit_add(&machine->units, &test_device_unit, machine->test_device, 0);
	machine->hv_host.message = message;
	machine->hv_host.event = event;
	return 0;
}
