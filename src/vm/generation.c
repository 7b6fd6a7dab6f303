/*
 * The generation id (MS-VMGENID): 16 bytes of the guest's memory that say which of all machines
 * that were forked of one, or restored from one file, this is. Who is told so draws random numbers
 * anew, asks for another address, drops what it has taken for its own.
 *
 *   - It is another one before the first instruction of a machine that was forked or restored, and
 *     the event that says so (a GPE, chipset/generation.asl) is pending by then.
 *   - It is random, and comes from outside: whoever started the machine, or had it forked, has
 *     drawn it.
 *   - A guest whose tables do not have it (it was saved before there was one) is left alone.
 */
#include <string.h>

#include "chipset/acpi.h"
#include "machine_internal.h"

static void write_id(struct machine *machine)
{
	memcpy(guest_ram_hva(&machine->memory, GENERATION_GPA), machine->options.generation,
	       MACHINE_GENERATION_BYTES);
	engine_memory_written(machine->engine, GENERATION_GPA, MACHINE_GENERATION_BYTES);
}

void generation_begin(struct machine *machine)
{
	if (machine->options.generation && machine->memory.ram_bytes > GENERATION_GPA)
		write_id(machine);
}

void generation_change(struct machine *machine)
{
	pthread_mutex_lock(&machine->lock);
	if (machine->options.generation && machine->chipset.has_generation) {
		generation_begin(machine);
		chipset_generation_changed(&machine->chipset);
	}
	pthread_mutex_unlock(&machine->lock);
}
