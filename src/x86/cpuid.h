/* Which processor a guest sees: the host's own, less what the policy hides. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct archive;

/* What a guest takes for granted of its processor once it has seen it: the host's, or of a restored machine that of the host it began on. */
enum { CPUID_OFFERED = 9 };
struct cpuid_model { uint32_t vendor[3], signature, offered[CPUID_OFFERED]; };

void cpuid_host_model(struct cpuid_model *ret);
/* Whether this host can be that model: of the same vendor, with all that it offers. */
bool cpuid_is_possible(const struct cpuid_model *model);
/* Takes away from a leaf of cpuid_policy() what the model does not have. */
void cpuid_limit(const struct cpuid_model *model, uint32_t leaf, uint32_t subleaf, uint32_t r[4]);
/* As bytes and back (lib/archive.h). */
void cpuid_model_archive(struct archive *archive, struct cpuid_model *model);
/* One leaf for the processor with this APIC id, of `cpus`; 0x40000000.. are the Hyper-V interface's. */
void cpuid_policy(uint32_t leaf, uint32_t subleaf, uint32_t apic_id, unsigned cpus, uint32_t ret[4]);
