/* One local APIC: xAPIC and x2APIC registers, priorities, timer. Times are in units of the caller's clock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct archive;

enum { APIC_TIMER_HZ = 200000000 };

/* Where interprocessor interrupts go: low half of the ICR, destination of 8 or 32 bits as the mode has it. */
struct apic_host { void (*send)(void *context, void *owner, uint32_t low, uint32_t destination); void *context; };

struct apic {
	const struct apic_host *host;
	void *owner;
	uint64_t base; /* IA32_APIC_BASE */
	uint32_t id, tpr, ldr, dfr, svr, esr, icr_low, icr_high, lvt[7], divide, initial_count;
	uint32_t irr[8], isr[8], tmr[8], auto_eoi[8]; /* auto_eoi: such vectors are never in service */
	uint64_t timer_deadline_ns; /* 0: not armed */
	uint64_t tsc_deadline;
};

void apic_reset(struct apic *apic, const struct apic_host *host, void *owner, uint32_t id, bool boot_processor);
/* Whether an interrupt with this destination is for this APIC (SDM Vol. 3A 11.6.2, 11.12.10). */
bool apic_is_destination(const struct apic *apic, bool logical, uint32_t destination);
void apic_raise(struct apic *apic, uint8_t vector);
void apic_set_auto_eoi(struct apic *apic, uint8_t vector, bool on);
bool apic_is_x2(const struct apic *apic);
/* The vector to be delivered now and its acknowledgement; -1: none above the priority. */
int apic_take(struct apic *apic);
bool apic_has_interrupt(const struct apic *apic);
/* Register by x2APIC number (MSR - 0x800, MMIO offset / 16). 0 or -EINVAL. now_ns: monotonic. */
int apic_read(struct apic *apic, uint32_t reg, uint64_t now_ns, uint64_t *ret_value);
int apic_write(struct apic *apic, uint32_t reg, uint64_t value, uint64_t now_ns);
/* Fires what is due. The next deadline, or UINT64_MAX. */
uint64_t apic_run_timer(struct apic *apic, uint64_t now_ns);
/* As bytes and back (lib/archive.h), after apic_reset() where it is loaded; the timer's rest is counted from now_ns. */
void apic_archive(struct archive *archive, struct apic *apic, uint64_t now_ns);
