/*
 * One local APIC: xAPIC and x2APIC registers, modes, priorities, timer (SDM Vol. 3A chapter 11).
 * Times are in units of the caller's clock. Under the machine's lock.
 *
 *   off <--> xAPIC --> x2APIC --> off        IA32_APIC_BASE bits 11:10; every other change is #GP
 *
 *  1. The mode is one of the three; registers answer in the page of xAPIC mode, or by MSR in x2APIC
 *     mode, and nowhere while it is off.
 *  2. A vector that ends by itself (auto_eoi) is not in service when it is taken.
 *  3. A bit of tmr is set where the vector was requested by a level: its end of interrupt is told
 *     to the host.
 *  4. Identifiers: that of x2APIC mode is fixed. That of xAPIC mode is the same until the guest
 *     writes it, and again after the APIC was off (SDM Vol. 3A 11.4.6 leaves it to the processor;
 *     AMD's can be written).
 *  5. The task priority stays through every change of mode: CR8 is its upper half also where the
 *     APIC is off.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct archive;

enum { APIC_TIMER_HZ = 200000000, APIC_VECTOR_WORDS = 8, APIC_LVTS = 7 };
/* IA32_APIC_BASE, bits 11:10. */
enum apic_mode { APIC_OFF, APIC_INVALID, APIC_XAPIC, APIC_X2APIC, APIC_MODES };

struct apic_host {
	/*
	 * Interprocessor interrupts: low half of the ICR, destination of 8 or 32 bits as the mode
	 * has it.
	 */
	void (*send)(void *context, void *owner, uint32_t low, uint32_t destination);
	/* Of a vector that was requested by a level. */
	void (*end_of_level)(void *context, uint8_t vector);
	void *context;
};

struct apic {
	const struct apic_host *host;
	void *owner;
	uint64_t base; /* IA32_APIC_BASE */
	uint32_t id; /* of x2APIC mode */
	uint32_t xapic_id, tpr, ldr, dfr, svr, esr, icr_low, icr_high, lvt[APIC_LVTS], divide,
		initial_count;
	uint32_t irr[APIC_VECTOR_WORDS], isr[APIC_VECTOR_WORDS], tmr[APIC_VECTOR_WORDS],
		auto_eoi[APIC_VECTOR_WORDS];
	uint64_t timer_deadline_ns; /* 0: not armed */
	uint64_t tsc_deadline;
};

void apic_reset(struct apic *apic, const struct apic_host *host, void *owner, uint32_t id,
		bool boot_processor);
enum apic_mode apic_mode(const struct apic *apic);
bool apic_is_x2(const struct apic *apic);
/* A write to IA32_APIC_BASE; x2apic: whether the processor has that mode. 0, or -EINVAL for #GP. */
int apic_set_base(struct apic *apic, uint64_t base, bool x2apic);
/* Whether an interrupt with this destination is for this APIC (SDM Vol. 3A 11.6.2, 11.12.10). */
bool apic_is_destination(const struct apic *apic, bool logical, uint32_t destination);
/*
 * LINT0 leads to an 8259, as firmware leaves the boot processor; whether what comes there is to be
 * delivered now: with a vector that the 8259 gives.
 */
void apic_set_virtual_wire(struct apic *apic);
bool apic_takes_external(const struct apic *apic);
/* Requests an interrupt, by an edge or a level; one that is off, also by software, takes none. */
void apic_raise(struct apic *apic, uint8_t vector, bool level);
void apic_set_auto_eoi(struct apic *apic, uint8_t vector, bool on);
/* The vector to be delivered now and its acknowledgement; -1: none above the priority. */
int apic_take(struct apic *apic);
bool apic_has_interrupt(const struct apic *apic);
/*
 * Register by x2APIC number (MSR - 0x800, MMIO offset / 16). 0, or -EINVAL: in x2APIC mode #GP; in
 * xAPIC mode nothing is there. now_ns: monotonic.
 */
int apic_read(struct apic *apic, uint32_t reg, uint64_t now_ns, uint64_t *ret_value);
int apic_write(struct apic *apic, uint32_t reg, uint64_t value, uint64_t now_ns);
/* Fires what is due. The next deadline, or UINT64_MAX. */
uint64_t apic_run_timer(struct apic *apic, uint64_t now_ns);
/* Nobody's time went on for so long. */
void apic_stood(struct apic *apic, uint64_t ns);
/*
 * As bytes and back (lib/archive.h), after apic_reset() where it is loaded; the timer's rest is
 * counted from now_ns.
 */
void apic_archive(struct archive *archive, struct apic *apic, uint64_t now_ns);
/* What version 2 of a processor's section has beside it. */
void apic_archive_2(struct archive *archive, struct apic *apic);
/* Invariant 1, and what registers can hold. */
void check_apic(const struct apic *apic);
