/*
 * The policy: what the software engine executes exactly as the host does is offered if the host has it; the rest is hidden,
 * each with its reason in the table. XCR0 is x87, SSE and AVX.
 */
#include "cpuid.h"

#include <cpuid.h>
#include <string.h>

#include "lib/archive.h"

struct offered { uint32_t leaf, subleaf; uint8_t reg; uint32_t mask; };

/*
 * Masks of what is offered. Hidden and why:
 *  1.ECX   MONITOR, DTES64, DS-CPL, VMX, SMX, EIST, TM2, CNXT, SDBG, xTPR, PDCM, DCA: no such hardware is modelled
 *  1.EDX   MCE, MCA, DS, ACPI, SS, HTT, TM, PBE: not modelled; VME: no virtual-8086 guests in the software engine
 *  7.EBX   HLE, RTM, PQM, PQE, MPX, INTEL_PT, SGX: not modelled; AVX-512: its registers are the engine's;
 *          TSC_ADJUST: not modelled; CLWB: no persistent memory
 *  7.ECX   all but UMIP: PKU, LA57, CET, VAES, GFNI, VPCLMULQDQ, RDPID are not in the offered set of the decoder
 *  80000001  SVM, IBS, XOP, SKINIT, LWP, FMA4, TBM, topology, PMU, MWAITX: as above
 */
static const struct offered policy[] = {
	{ 1, 0, 2, 0x7ed83203 | 1u << 17 }, { 1, 0, 3, 0x0783b97d | 1u << 9 | 1u << 12 | 1u << 16 | 1u << 19 },
	{ 7, 0, 1, 1u << 0 | 1u << 3 | 1u << 5 | 1u << 7 | 1u << 8 | 1u << 9 | 1u << 10 | 1u << 18 | 1u << 19 | 1u << 20 | 1u << 23 | 1u << 29 },
	{ 7, 0, 2, 1u << 2 }, { 7, 0, 3, 1u << 4 },
	{ 0xd, 1, 0, 1u << 0 | 1u << 1 },
	{ 0x80000001, 0, 2, 1u << 0 | 1u << 5 | 1u << 8 }, { 0x80000001, 0, 3, 1u << 11 | 1u << 20 | 1u << 22 | 1u << 26 | 1u << 27 | 1u << 29 | 0x0183f3ff },
	{ 0x80000007, 0, 3, 1u << 8 },
};

_Static_assert(sizeof(policy) / sizeof(policy[0]) == CPUID_OFFERED, "a word for each row");

static int masked(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	int known = 0;
	uint32_t keep[4] = { r[0], 0, 0, 0 };

	for (unsigned n = 0; n < sizeof(policy) / sizeof(policy[0]); n++)
		if (policy[n].leaf == leaf && policy[n].subleaf == subleaf) {
			keep[policy[n].reg] = r[policy[n].reg] & policy[n].mask;
			known = 1;
		}
	if (known)
		memcpy(r, keep, sizeof(keep));
	return known;
}

void cpuid_policy(uint32_t leaf, uint32_t subleaf, uint32_t apic_id, unsigned cpus, uint32_t r[4])
{
	__cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
	switch (leaf) {
	case 0: r[0] = 0xd; return;
	case 1: {
		uint32_t ebx = r[1];

		masked(1, 0, r);
		r[1] = (ebx & 0xff00) | cpus << 16 | apic_id << 24;
		r[2] |= 1u << 31 | 1u << 21 | 1u << 24 | 1u << 17; /* the engine's own: hypervisor, x2APIC, TSC deadline, PCID */
		return;
	}
	case 2: case 4: case 0x80000005: case 0x80000006: return;
	case 6: memset(r, 0, 16); r[0] = 1u << 2; return; /* the APIC timer never stops */
	case 7:
		if (subleaf || !masked(7, 0, r))
			memset(r, 0, 16);
		else
			r[1] |= 1u << 10; /* INVPCID is the engine's own */
		r[0] = 0;
		return;
	case 0xb:
		r[0] = subleaf == 1 ? 32 - (uint32_t)__builtin_clz(cpus | 1) : 0;
		r[1] = subleaf == 0 ? 1 : subleaf == 1 ? cpus : 0;
		r[2] = subleaf | (subleaf < 2 ? (subleaf + 1) << 8 : 0);
		r[3] = apic_id;
		return;
	case 0xd:
		if (subleaf == 0) {
			r[0] = 7, r[1] = r[2] = 832, r[3] = 0;
		} else if (subleaf == 1) {
			r[0] &= 3; /* XSAVEOPT, XSAVEC */
			r[1] = 832; /* XSAVEC: x87, SSE, AVX */
			r[2] = r[3] = 0;
		} else if (subleaf != 2) {
			memset(r, 0, 16);
		}
		return;
	case 0x80000000: r[0] = 0x80000008; return;
	case 0x80000002: case 0x80000003: case 0x80000004: return;
	case 0x80000001: masked(leaf, 0, r); r[0] = 0; return;
	case 0x80000007: masked(leaf, 0, r); r[0] = 0; return;
	case 0x80000008: r[1] = r[2] = r[3] = 0; r[0] = 0x3028; return;
	default: memset(r, 0, 16);
	}
}

void cpuid_host_model(struct cpuid_model *m)
{
	uint32_t r[4];

	cpuid_policy(0, 0, 0, 1, r);
	memcpy(m->vendor, r + 1, sizeof(m->vendor));
	cpuid_policy(1, 0, 0, 1, r);
	m->signature = r[0];
	for (unsigned n = 0; n < CPUID_OFFERED; n++) {
		cpuid_policy(policy[n].leaf, policy[n].subleaf, 0, 1, r);
		m->offered[n] = r[policy[n].reg] & policy[n].mask;
	}
}

bool cpuid_is_possible(const struct cpuid_model *m)
{
	struct cpuid_model host;

	cpuid_host_model(&host);
	for (unsigned n = 0; n < CPUID_OFFERED; n++)
		if (m->offered[n] & ~host.offered[n])
			return false;
	return !memcmp(m->vendor, host.vendor, sizeof(host.vendor));
}

void cpuid_limit(const struct cpuid_model *m, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	if (leaf == 1)
		r[0] = m->signature;
	for (unsigned n = 0; n < CPUID_OFFERED; n++)
		if (policy[n].leaf == leaf && policy[n].subleaf == subleaf)
			r[policy[n].reg] &= m->offered[n] | ~policy[n].mask;
}

void cpuid_model_archive(struct archive *a, struct cpuid_model *m)
{
	archive_u32s(a, m->vendor, 3);
	archive_u32(a, &m->signature);
	archive_u32s(a, m->offered, CPUID_OFFERED);
}
