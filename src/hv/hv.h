/*
 * The Hyper-V interface of a partition and its processors, used under the machine's lock: CPUID leaves, synthetic MSRs, SynIC,
 * synthetic timers, crash registers (TLFS).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HV_TIMERS = 4, HV_SINTS = 16 };

/* What the interface needs of its machine. */
struct hv_host {
	uint8_t *(*guest_page)(void *context, uint64_t gpa); /* 4096 bytes of RAM, or NULL */
	void (*page_written)(void *context, uint64_t gpa);
	void (*raise)(void *context, uint32_t vp_index, uint8_t vector);
	uint64_t (*now_100ns)(void *context);
	void (*crashed)(void *context, const char *text, size_t bytes, const uint64_t parameters[5]);
	void (*reset)(void *context);
	void *context;
	uint64_t tsc_hz, apic_hz;
	unsigned cpus;
};

struct hv_timer { uint64_t config, count, due_100ns; };

/* What the processors of a partition share. */
struct hv_partition {
	const struct hv_host *host;
	uint64_t guest_os_id, hypercall, reference_tsc, tsc_invariant, crash[5];
};

struct hv_cpu {
	struct hv_partition *partition;
	const struct hv_host *host;
	uint32_t index;
	uint64_t vp_assist, scontrol, siefp, simp, sint[HV_SINTS];
	struct hv_timer timer[HV_TIMERS];
};

void hv_partition_reset(struct hv_partition *partition, const struct hv_host *host);
void hv_reset(struct hv_cpu *cpu, struct hv_partition *partition, uint32_t index);
/* Leaves 0x40000000 to 0x40000006; false for others. */
bool hv_cpuid(const struct hv_cpu *cpu, uint32_t leaf, uint32_t ret[4]);
/* 0, or -EINVAL where the TLFS has #GP. */
int hv_msr_read(struct hv_cpu *cpu, uint32_t msr, uint64_t *ret_value);
int hv_msr_write(struct hv_cpu *cpu, uint32_t msr, uint64_t value);
/* Fires what is due; the next due time in 100 ns, or UINT64_MAX. */
uint64_t hv_run_timers(struct hv_cpu *cpu);
/* The HV_STATUS of a hypercall with this input control word. */
uint64_t hv_hypercall(struct hv_cpu *cpu, uint64_t control);
