/* The Hyper-V interface of one processor: CPUID leaves, synthetic MSRs, SynIC, synthetic timers, crash registers (TLFS). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HV_TIMERS = 4, HV_SINTS = 16 };

/* What the interface needs of its machine. */
struct hv_host {
	uint8_t *(*guest_page)(void *context, uint64_t gpa); /* 4096 bytes of RAM, or NULL */
	void (*page_written)(void *context, uint64_t gpa);
	void (*raise)(void *context, uint8_t vector);
	uint64_t (*now_100ns)(void *context);
	void (*crashed)(void *context, const char *text, size_t bytes, const uint64_t parameters[5]);
	void (*reset)(void *context);
	void *context;
	uint64_t tsc_hz, apic_hz;
	unsigned cpus;
};

struct hv_timer { uint64_t config, count, due_100ns; };

struct hv_cpu {
	const struct hv_host *host;
	uint32_t index;
	uint64_t guest_os_id, hypercall, reference_tsc, vp_assist, scontrol, siefp, simp, sint[HV_SINTS], crash[5];
	struct hv_timer timer[HV_TIMERS];
	uint64_t tsc_invariant;
};

void hv_reset(struct hv_cpu *cpu, const struct hv_host *host, uint32_t index);
/* Leaves 0x40000000 to 0x40000006; false for others. */
bool hv_cpuid(const struct hv_cpu *cpu, uint32_t leaf, uint32_t ret[4]);
/* 0, or -EINVAL where the TLFS has #GP. */
int hv_msr_read(struct hv_cpu *cpu, uint32_t msr, uint64_t *ret_value);
int hv_msr_write(struct hv_cpu *cpu, uint32_t msr, uint64_t value);
/* Fires what is due; the next due time in 100 ns, or UINT64_MAX. */
uint64_t hv_run_timers(struct hv_cpu *cpu);
/* The HV_STATUS of a hypercall with this input control word. */
uint64_t hv_hypercall(struct hv_cpu *cpu, uint64_t control);
