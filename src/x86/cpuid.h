/* Which processor a guest sees: the host's own, less what the policy hides. */
#pragma once

#include <stdint.h>

/* One leaf for the processor with this APIC id, of `cpus`; 0x40000000.. are the Hyper-V interface's. */
void cpuid_policy(uint32_t leaf, uint32_t subleaf, uint32_t apic_id, unsigned cpus, uint32_t ret[4]);
