/* What the chipset asks of the machine: interrupts, the console's bytes, power. */
#include "machine_internal.h"

#include <assert.h>

static void platform_raise(void *context, uint32_t low, uint32_t destination)
{
	interrupt_send(context, NULL, low, destination);
}

void machine_flush_console(struct machine *machine)
{
	if (machine->console_used)
		machine->options.console(machine->options.context, machine->console,
					 machine->console_used);
	machine->console_used = 0;
}

static void platform_console(void *context, uint8_t byte)
{
	struct machine *machine = context;

	stuck_console_byte(machine, byte);
	assert(machine->console_used < CONSOLE_BYTES);
	machine->console[machine->console_used++] = byte;
	if (byte == '\n' || machine->console_used == CONSOLE_BYTES)
		machine_flush_console(machine);
}

static void platform_power_off(void *context) { machine_finish(context, MACHINE_POWERED_OFF); }
static void platform_reset(void *context) { machine_finish(context, MACHINE_RESET); }

void machine_connect_chipset(struct machine *machine)
{
	machine->chipset_host = (struct chipset_host){
		.raise = platform_raise, .console = platform_console,
		.power_off = platform_power_off,
		.reset = platform_reset, .now_100ns = machine_now_100ns, .context = machine,
	};
	machine->chipset.pci_display.is_there = machine->options.display;
	chipset_init(&machine->chipset, &machine->chipset_host);
	unit_add(&machine->units, &chipset_unit, &machine->chipset, 0);
}

size_t machine_input(struct machine *machine, const uint8_t *data, size_t bytes)
{
	size_t taken = 0;

	if (machine_wait_for_begin(machine))
		return 0;
	pthread_mutex_lock(&machine->lock);
	while (taken < bytes && chipset_input(&machine->chipset, data[taken]))
		taken++;
	pthread_mutex_unlock(&machine->lock);
	return taken;
}
