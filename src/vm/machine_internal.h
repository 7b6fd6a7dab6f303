/*
 * Inside a machine: its virtual processors, its units, and what they share.
 *
 *   machine.c        making and unmaking
 *   vcpu.c           one processor: what its engine asks, its run loop
 *   halt.c           what one that halts does before it sleeps
 *   exits.c          what it leaves its engine for, counted and traced
 *   lifecycle.c      created, running ... ended
 *   unit_list.c      the list of its parts
 *   interrupt.c      interrupts to and between processors
 *   code_names.c     what translated code there is, by the guest's names
 *   deadline.c       when a processor has to look at its clocks
 *   clock.c          TSC and reference time
 *   platform.c, hyperv.c, devices.c       what the parts ask of the machine
 *   save.c, restore.c, machine_fork.c     the whole as bytes, back, and twice
 *   machine_msr.c    registers that are neither the engine's nor Hyper-V's
 *
 * One lock guards the chipset, the APICs and the Hyper-V state, and what is not the engine's of the
 * processors. Processors take it in engine_ops where they touch more than themselves, other threads
 * in the functions of machine.h.
 */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "machine.h"

#include "chipset/chipset.h"
#include "chipset/test_device.h"
#include "engine/engine.h"
#include "hv/hv.h"
#include "ipc/trace_ring.h"
#include "lib/brief_wait.h"
#include "lib/give_way.h"
#include "lib/speculation.h"
#include "code_ahead.h"
#include "demand.h"
#include "unit_list.h"
#include "x86/apic.h"
#include "x86/cpu_model.h"
#include "x86/state.h"

enum { MTRRS = 0x210, CONSOLE_BYTES = 512, CONSOLE_LINE_BYTES = 160, CRASH_TEXT_BYTES = 4096 };

enum vcpu_activity { VCPU_RUNNING, VCPU_WAITS_FOR_SIPI };

/* Of a processor that does not seem to get on (stuck.c). */
struct spin {
	unsigned samples; /* 0: none */
	uint64_t rip, gpr[16], devices_asked, runtime_100ns;
};

struct vcpu {
	struct machine *machine;
	uint32_t index; /* also the APIC id and the VP index */
	struct thread thread;
	int error; /* of its thread's preparations */
	struct engine_cpu *cpu;
	struct apic apic;
	struct hv_cpu *hv;
	uint64_t mtrr[0x100]; /* from MTRRS on */
	uint64_t model_registers[CPU_MODEL_REGISTERS];
	uint64_t armed_ns;    /* what the timer is set to; 0: nothing */
	timer_t timer;
	pthread_cond_t wake;
	uint32_t wakes; /* how often, by vcpu_wake(); read also without the lock */
	bool holds_wake, wake_due;
	struct brief_wait brief, asked; /* on its own thread: it halts; its guest asks to look */
	uint64_t due_ns; /* when a clock would have ended its last sleep */
	enum vcpu_activity activity;
	bool init_pending, start_pending;
	bool halted; /* it waits for an interrupt that is not masked */
	bool idle;   /* it waits for an interrupt, also for a masked one (HV_X64_MSR_GUEST_IDLE) */
	uint8_t sipi_vector;
	bool sleeps; /* until an event: it is where it would stand still */
	bool stands; /* it is among those that `standing` counts */
	bool look_wanted;
	struct machine_registers registers; /* when it last looked */
	struct spin spin;
	struct give_way way; /* on its own thread */
	uint64_t exits[TRACE_KINDS]; /* written on its own thread */
	uint64_t devices_asked; /* ports and memory of devices, how often */
	uint64_t runtime_100ns;        /* when it last stood still, or fell asleep */
	uint64_t runtime_before_100ns; /* on the threads that it had before it was restored */
};

/* lifecycle.c has the table of what follows what. */
enum life {
	LIFE_CREATED, LIFE_RUNNING, LIFE_PAUSING, LIFE_PAUSED, LIFE_SAVING, LIFE_FORKING,
	LIFE_ENDED, LIVES
};

/*
 * Reference time = (partition's TSC * scale >> 64) + offset, in 100 ns. stands: since when all
 * processors stand still; zero: they do not.
 */
struct machine_clock { uint64_t tsc_hz, scale, offset_100ns; struct machine_moment stands; };

struct devices;
struct served;
struct ticker;

struct machine {
	struct machine_options options;
	struct guest_memory memory;
	struct engine *engine;
	struct unit_list units;
	struct machine_clock clock;
	struct hv_host hv_host;
	struct hv_partition *hv;
	struct chipset_host chipset_host;
	struct chipset chipset;
	struct test_device_host test_device_host;
	struct test_device *test_device; /* NULL: none */
	struct apic_host apic_host;
	struct cpu_model model;
	struct ticker *ticker;
	struct devices *devices; /* NULL: there is no bus */
	pthread_mutex_t lock;
	enum life life;          /* changed under the lock, read also without */
	unsigned standing;       /* how many processors stand still, or sleep since they did */
	pthread_cond_t changed;  /* life, or standing */
	pthread_cond_t looked;   /* a processor (look.c) */
	pthread_barrier_t prepared; /* the processors' threads */
	bool is_forked;
	bool knows_written;      /* what no engine_find_written() finds is zeros */
	struct served *served;   /* machine_serve(); NULL */
	enum machine_end end;    /* of LIFE_ENDED */
	int refusal;             /* of what it begins with: -errno, and why */
	const char *refusal_text;
	int debug_exit_code;
	char crash_text[CRASH_TEXT_BYTES + 1];
	uint8_t console[CONSOLE_BYTES];
	char line[CONSOLE_LINE_BYTES + 1];      /* what the guest prints now */
	char last_line[CONSOLE_LINE_BYTES + 1]; /* the last that was not empty */
	size_t line_used;
	bool stuck_told, time_is_up;
	unsigned idle_s; /* the ticker's: for how long it has had nothing to do (idle.c) */
	uint64_t idle_used_ns; /* of a processor, when that was looked at */
	size_t console_used;
	struct demand demand;
	struct code_ahead code_ahead;
	struct trace trace;
	struct vcpu vcpus[MACHINE_MAX_CPUS];
};

/* ---- machine.c ---- */

/*
 * What the first instruction finds: kernel and initrd, or a saved machine, which are hostile.
 * In a process that has no rights any more, before any processor runs; unmaps them. 0 or -errno,
 * with *ret_reason.
 */
int machine_load(struct machine *machine, const char **ret_reason);
/* Of what it went on from nothing is looked at any more. */
void machine_leave_saved(struct machine *machine);

/* ---- generation.c ---- */

/* Of a machine that boots. */
void generation_begin(struct machine *machine);
/*
 * Of one that was forked or restored, before its guest goes on and while its processors have their
 * threads. Not under the lock.
 */
void generation_change(struct machine *machine);

/* ---- lifecycle.c ---- */

bool machine_has_begun(const struct machine *machine);
bool machine_has_ended(const struct machine *machine);
/* Processors are to stand still, or do. */
bool machine_is_still(const struct machine *machine);
/* Under the lock. False: it has ended, and nothing follows. */
bool machine_move(struct machine *machine, enum life to);
/* The first reason counts. Under the lock. */
void machine_finish(struct machine *machine, enum machine_end end);
/* The guest says that it has crashed; text may be empty. Under the lock. */
void machine_crashed(struct machine *machine, const char *text, size_t bytes,
		     const uint64_t parameters[5]);
/* Until its memory holds what the first instruction finds. 0, or -ECANCELED as machine_pause(). */
int machine_wait_for_begin(struct machine *machine);
/*
 * Until every unit is paused and every processor stands still: 0; -ECANCELED: the machine ended
 * first; -EBUSY: it does not run. On one thread at a time, not under the lock; machine_resume()
 * ends it.
 */
int machine_pause(struct machine *machine);
/* Until every processor's thread is prepared: 0 or the first one's -errno. */
int machine_meet_processors(struct machine *machine);
/* The same as machine_resume(), of one that was forked: its units were not released yet. */
void machine_resume_forked(struct machine *machine);
/* What `life` says of the rest. Under the lock. */
void check_lifecycle(const struct machine *machine);

/* ---- clock.c ---- */

uint64_t clock_monotonic_ns(void);
uint64_t clock_tsc(void);
/*
 * For how long the host's TSC is measured at least. Looks are some 20 ns apart at worst: 5 parts in
 * a million, and 20 where it is only compared with that of a saved machine (saved_check_rate()).
 */
enum { CLOCK_MEASURE_NS = 8000000, CLOCK_COMPARE_NS = 2000000 };
/* Of the host's TSC; `begun` (machine_options.begun) has it wait less. */
uint64_t clock_measure_tsc_hz(const struct machine_moment *begun, uint64_t least_ns);
/*
 * After machine_connect_hv(). Reference time is reference_100ns where the partition's TSC is
 * partition_tsc.
 */
void clock_set(struct machine *machine, uint64_t tsc_hz, uint64_t partition_tsc,
	       uint64_t reference_100ns);
/* Reference time at a moment of the host's TSC. */
uint64_t clock_reference_100ns(const struct machine *machine, uint64_t host_tsc);
/* hv_host's and chipset_host's. */
uint64_t machine_now_100ns(void *machine);
/* Of the partition and of each processor, modulo 2^64, while none runs. Under the lock. */
void clock_move_tsc(struct machine *machine, uint64_t by);
/* All processors stand still, and are to go on. Under the lock. */
void clock_stands(struct machine *machine);
/* For how long its clocks did not go on; 0: they did. */
uint64_t clock_goes_on(struct machine *machine);
/* The one for which the rest of the machine is right: while it stands, when that began. */
struct machine_moment clock_moment(const struct machine *machine);

/* ---- platform.c, hyperv.c, devices.c: what the parts ask of the machine ---- */

void machine_connect_chipset(struct machine *machine);
/* Under the lock. */
void machine_flush_console(struct machine *machine);
void machine_connect_hv(struct machine *machine, uint64_t tsc_hz);
/* ACPI_* bits of what the features have devices for. */
unsigned machine_hv_acpi_parts(const struct machine *machine);
/* The bus and what is on it, where there are disks; before the partition is made. 0 or -errno. */
int machine_make_devices(struct machine *machine);
void machine_destroy_devices(struct machine *machine);
/* hv_host's, for what is on the bus. */
int devices_message(void *machine, uint32_t connection, uint32_t type, const uint8_t *payload,
		    size_t bytes);
/*
 * A guest says that there may be something in its monitor page; ports are looked at, too. NULL:
 * there are no devices.
 */
void devices_look(struct devices *devices);
/*
 * Without the lock, by a processor whose guest asks for what ports bring: takes it, and whether
 * there was any. What comes next wakes nobody until devices_leave(), or until the devices' thread
 * has looked at the monitor page.
 */
bool devices_look_at_ports(struct devices *devices);
void devices_leave(struct devices *devices);
/*
 * Without the lock, by a processor that has nothing to do: from devices_watch(), unless that says
 * that another one does so already, to devices_unwatch() what comes of disks, cards and ports
 * wakes nobody, and devices_collect() takes it.
 */
bool devices_watch(struct devices *devices);
void devices_collect(struct devices *devices);
void devices_unwatch(struct devices *devices);
int devices_event(void *machine, uint32_t connection, uint16_t flag);
/* Until their thread stands still, or the machine ends; it waits for devices_let_go(). */
void devices_hold(struct devices *devices);
/* While it stands still, before it is forked. */
void devices_stand(struct devices *devices);
/* Then: of frames as saved_frames() counts them, a bit each, those that others write, too. */
void devices_mark_lent(struct devices *devices, uint64_t *frames);
/* In what was forked and never runs: what is lent is its own. */
void devices_leave_lent(struct devices *devices);
void devices_let_go(struct devices *devices);
/* machine_test_device.c; after machine_make_devices(). 0 or -ENOMEM. */
int machine_make_test_device(struct machine *machine);
/* What the guest's drivers say. Without the lock. */
void devices_state(const struct devices *devices, struct machine_state *ret);
/* Whether a channel or another machine has one of these pages: they are not given back. */
bool devices_hold_pages(const struct devices *devices, uint64_t gpa, uint64_t bytes);

/* ---- ticker.c ---- */

/* A unit that ticks the others each second; after them. 0 or -ENOMEM. */
int machine_make_ticker(struct machine *machine);
/* Tells what has changed of the guest's state soon, and not at the next tick. Under any lock. */
void ticker_look(struct machine *machine);
/* It is forked: what machine_rejoin() was told is common soon. */
void ticker_drop_span(struct machine *machine);

/* ---- code_names.c ---- */

/* A unit that tells options.code() what is translated, where that is wanted. 0 or -ENOMEM. */
int machine_make_code_names(struct machine *machine);

/*
 * ---- machine_msr.c; under the lock, and not those of the Hyper-V interface ----
 * 0, or -EINVAL for #GP.
 */

int machine_msr_read(struct vcpu *vcpu, uint32_t msr, uint64_t *ret_value);
int machine_msr_write(struct vcpu *vcpu, uint32_t msr, uint64_t value);

/* ---- idle.c ---- */

/* Every second, not under the lock. */
void idle_tick(struct machine *machine);

/* ---- stuck.c; under the lock ---- */

/* What the guest prints. */
void stuck_console_byte(struct machine *machine, uint8_t byte);
/* Ends the machine; says where the processor stands. */
void stuck_triple_fault(struct vcpu *vcpu);
/* This processor is about to sleep: says so if none will ever wake. */
void stuck_look(struct vcpu *vcpu);
/* Its registers were just taken: says so if it spins; ends the machine whose time is up. */
void stuck_sample(struct vcpu *vcpu);
/* Every second, without the lock. */
void stuck_tick(struct machine *machine, unsigned seconds);

/* ---- look.c; under the lock ---- */

void look_ask(struct vcpu *vcpu);
/* On the processor's own thread, outside of its engine. */
void look_take(struct vcpu *vcpu);

/* ---- exits.c; on the processor's own thread ---- */

/* Of one thing that it leaves its engine for. begin_ns: 0: nobody wants to know. */
struct exit { struct vcpu *vcpu; enum trace_kind kind; uint64_t begin_ns; };

extern const struct engine_ops exits_engine_ops;
/* Counts it. */
struct exit exit_begin(struct vcpu *vcpu, enum trace_kind kind);
void exit_end(const struct exit *exit, uint64_t first, uint64_t second);
/* A message of the bus; from any thread. */
void exit_bus_message(struct machine *machine, enum trace_kind kind, const void *payload,
		      size_t bytes);
/* One line, of all processors together; as engine_statistics(). From any thread. */
size_t exits_statistics(const struct machine *machine, char *text, size_t bytes);

/* ---- vcpu.c ---- */

/* What exits_engine_ops ask, and count. */
extern const struct engine_ops vcpu_asked;

/* After the partition and the engine. 0 or -ENOMEM. */
int vcpu_make(struct machine *machine, unsigned index);
/* A processor's thread; `self` is a struct vcpu. Until the machine has ended. */
void vcpu_thread(void *self);
/* In a forked machine: it has no thread, no timer, and nobody sleeps on its condition. */
void vcpu_forked(struct vcpu *vcpu);
/* As after INIT, the APIC's base apart. */
void vcpu_reset(struct vcpu *vcpu);
/* The upper half of the task priority: what CR8 shows. */
uint8_t vcpu_task_priority_class(const struct vcpu *vcpu);
/* What it has executed, restores included; on its own thread. */
uint64_t vcpu_runtime_100ns(const struct vcpu *vcpu);

/* ---- halt.c; under the lock ---- */

/* Something has changed for a processor that may sleep; from any thread. */
void vcpu_wake(struct vcpu *vcpu);
/* Under the lock: it is one of those that stand still. From another thread only where it sleeps. */
void vcpu_stand(struct vcpu *vcpu);
/*
 * What wakes it until vcpu_let_wake() is held; true: something has, and the caller calls
 * vcpu_rouse(), which needs no lock, once it has given the lock back: a processor that wakes takes
 * the lock first, and would sleep again until it is free.
 */
void vcpu_hold_wake(struct vcpu *vcpu);
bool vcpu_let_wake(struct vcpu *vcpu);
void vcpu_rouse(struct vcpu *vcpu);
/*
 * A processor is about to sleep until next_ns at most, on its own thread: it looks for what it
 * waits for a moment, without the lock. False: it may sleep; true: what it waits for may be there.
 */
bool halt_looks(struct vcpu *vcpu, uint64_t next_ns);
/* It sleeps no more. */
void halt_ends(struct vcpu *vcpu);
/* Without the lock, on its own thread: its guest would wait a moment for what ports bring. */
void halt_waits_for_ports(struct vcpu *vcpu);

/* ---- interrupt.c; under the lock ---- */

/* An interrupt became pending, or something else changed for it; from any thread. */
void interrupt_notify(struct vcpu *vcpu);
/*
 * An interprocessor or device interrupt: low half of an ICR or IOAPIC entry, and the destination.
 * from: NULL of a device.
 */
void interrupt_send(struct machine *machine, struct vcpu *from, uint32_t low, uint32_t destination);

/* ---- deadline.c; under the lock, on the processor's own thread ---- */

/* 0 or -errno. */
int timer_prepare_thread(struct vcpu *vcpu);
/* Fires what is due; the next deadline in monotonic nanoseconds, UINT64_MAX: none. */
uint64_t timer_run(struct vcpu *vcpu);
/* Its deadlines have changed. */
void timer_arm(struct vcpu *vcpu);
