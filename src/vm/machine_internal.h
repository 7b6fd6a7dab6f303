/* Inside a machine: its processors and what they share. */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "machine.h"

#include "ipc/block.h"
#include "vmbus/vmbus.h"
#include "chipset/chipset.h"
#include "chipset/test_device.h"
#include "engine/engine.h"
#include "hv/hv.h"
#include "device/dynamic_memory/balloon.h"
#include "device/storvsp/storage.h"
#include "device/ic/utility.h"
#include "x86/apic.h"
#include "x86/cpuid.h"
#include "x86/state.h"

enum { DEVICE_THREADS = 2 };
enum { MTRRS = 0x210, CONSOLE_BYTES = 512, MSR_HV_FIRST = 0x40000000, MSR_HV_END = 0x40000200 };

enum processor_activity { PROCESSOR_RUNNING, PROCESSOR_WAITS_FOR_SIPI };

struct processor {
	struct machine *machine;
	uint32_t index; /* also the APIC id and the VP index */
	struct engine_cpu *cpu;
	struct apic apic;
	struct hv_cpu *hv;
	uint64_t mtrr[0x100]; /* from MTRRS on */
	uint64_t armed_ns; /* what the timer is set to; 0: nothing */
	timer_t timer;
	pthread_t thread;
	pthread_cond_t wake;
	enum processor_activity activity;
	bool init_pending, start_pending;
	bool halted; /* it waits for an interrupt that is not masked */
	bool idle; /* it waits for an interrupt, also for a masked one (HV_X64_MSR_GUEST_IDLE) */
	uint8_t sipi_vector;
	uint64_t runtime_100ns; /* when it last stood still */
	uint64_t runtime_before_100ns; /* on the threads that it had before it was restored */
};

struct machine {
	struct machine_options options;
	struct guest_memory memory;
	struct engine *engine;
	struct hv_host hv_host;
	struct hv_partition *hv;
	struct chipset_host chipset_host;
	struct chipset chipset;
	struct test_device_host test_device_host;
	struct test_device *test_device; /* NULL: none */
	struct apic_host apic_host;
	struct cpuid_model model;
	uint64_t tsc_start, tsc_scale; /* 100 ns units per tick, 64 fraction bits */
	struct bus_host bus_host;
	struct bus *bus; /* NULL: nothing is on it */
	struct block_client block;
	struct storage *storage;
	struct balloon_host balloon_host;
	struct balloon *balloon;
	struct utility_clock utility_clock;
	struct utility *utility[UTILITY_KINDS];
	bool devices_stop; /* atomic */
	pthread_cond_t tick; /* devices_stop, or time has passed */
	pthread_t worker, devices, ticker;
	pthread_mutex_t lock; /* all of this, the processors' devices included, but not their engine state */
	pthread_barrier_t prepared, released;
	bool pause; /* processors are to stand still */
	unsigned standing; /* how many do */
	bool begun; /* memory is what the first instruction finds */
	pthread_cond_t quiet; /* one of these has changed, or end */
	int refusal; /* of a saved machine: -errno, and why */
	const char *refusal_text;
	int end; /* enum machine_end + 1; atomic */
	int debug_exit_code;
	char crash_text[4097];
	uint8_t console[CONSOLE_BYTES];
	size_t console_used;
	struct processor processors[MACHINE_MAX_CPUS];
};

/* machine.c */
void machine_finish(struct machine *machine, enum machine_end end);
/* The guest says that it has crashed; text may be empty. Under the lock. */
void machine_crashed(struct machine *machine, const char *text, size_t bytes, const uint64_t parameters[5]);
uint64_t machine_now_ns(void);
uint64_t machine_tsc(void);
uint64_t machine_now_100ns(void *machine);
void machine_flush_console(struct machine *machine);
/* devices.c: the bus and what is on it; before the partition is made. 0 or -errno. */
int machine_make_devices(struct machine *machine);
/* test_device.c; after machine_make_devices(). */
int machine_make_test_device(struct machine *machine);
void machine_destroy_devices(struct machine *machine);
/* The threads of the disks' replies and of what happens every few seconds; none where there are no disks. */
int machine_start_devices(struct machine *machine);
void machine_stop_devices(struct machine *machine);
void machine_device_statistics(const struct machine *machine, char *text, size_t bytes);
/* hyperv.c */
void machine_connect_hv(struct machine *machine);
/* ACPI_* bits of what the features have devices for. */
unsigned machine_hv_acpi_parts(const struct machine *machine);
/* msr.c; under the lock, and not those of the Hyper-V interface. 0, or -EINVAL for #GP. */
int machine_msr_read(struct processor *p, uint32_t msr, uint64_t *ret_value);
int machine_msr_write(struct processor *p, uint32_t msr, uint64_t value);
/* Until its memory holds what the first instruction finds. 0, or -ECANCELED as machine_pause(). */
int machine_wait_for_begin(struct machine *machine);
/* Until every processor stands still and the worker is held: 0, or -ECANCELED when the machine ends first. Not under the lock. */
int machine_pause(struct machine *machine);
/* processor.c */
extern const struct engine_ops processor_engine_ops;
void processor_reset(struct processor *p);
/* An interrupt became pending, or something else changed for it; under the lock, from any thread. */
void processor_notify(struct processor *p);
/* Its deadlines have changed. Under the lock, on its own thread. */
void processor_arm(struct processor *p);
/* An interprocessor or device interrupt: low half of an ICR or IOAPIC entry, and the destination. Under the lock. */
void processor_send(struct machine *machine, struct processor *from, uint32_t low, uint32_t destination);
/* What it has executed, restores included; on its own thread. */
uint64_t processor_runtime_100ns(const struct processor *p);
int processor_prepare_thread(struct processor *p);
void processor_run(struct processor *p);
