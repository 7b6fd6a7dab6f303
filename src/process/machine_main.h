/* The machine process: makes the machine, gives up its rights, runs the guest, and tells the broker how it ended. */
#pragma once

#include "broker.h"
#include "vm/machine.h"

/* Runs in the process that broker_run() made; its exit code. options->console and lock_down are set here, kernel and initrd unmapped. */
int machine_process(struct broker_client *client, struct machine_options *options, bool statistics);
