/*
 * The processor that a guest sees: a named, versioned model, from which every CPUID leaf and every
 * model-specific register comes (docs/cpu-models.md). The host only decides whether a model can
 * run.
 *
 *  1. A model is resolved once, before the machine's first instruction; afterwards nothing of it
 * changes.
 *  2. What a leaf or a register says, cr4_valid, efer_valid and cpu_model_allows() all follow from
 * `features`.
 */
#pragma once

#include "cpu_feature.h"

struct archive;

enum { CPU_MODEL_NAME_BYTES = 32, CPU_LEAF_ROWS = 48, CPU_MODEL_REGISTERS = 8 };

/* What there is of the host that a machine or the engine depends on. Nothing else asks the host's
 * CPUID. */
struct cpu_host {
	struct cpu_features features;
	enum cpu_vendor vendor;
	uint32_t vendor_text[3], signature, brand[12];
	uint32_t cache[4][4];	     /* as leaf 4, or 0x8000001d */
	uint32_t legacy_cache[2][4]; /* 0x80000005 and 0x80000006 */
	bool leaks_buffers; /* a context can sample what another one left in its buffers (MDS and
			       its kind), and VERW clears them */
};

struct cpu_leaf {
	uint32_t leaf, subleaf, value[4];
};

struct cpu_model {
	char name[CPU_MODEL_NAME_BYTES]; /* with its version, as umbra-amd-v1 */
	enum cpu_vendor vendor;
	struct cpu_features features;
	uint32_t signature;
	uint32_t leaf_count;
	struct cpu_leaf
		leaf[CPU_LEAF_ROWS]; /* ascending; of one leaf all subleaves that are not zero */
	/* From here on made from what stands before. */
	uint8_t first[2][0x30]; /* [extended][leaf]: its first row + 1 */
	uint64_t cr4_valid, efer_valid;
};

/* The host as it is. */
void cpu_host_find(struct cpu_host *ret);
/* A host that lacks more: names with '-' before them, by commas. False: *ret_bad (bytes long) is
 * not understood. */
bool cpu_host_mask(struct cpu_host *host, const char *mask, const char **ret_bad,
		   size_t *ret_bytes);

/*
 * What the guest is told about attacks by speculation: what is true; nothing, so that it defends
 * itself; or that it need do nothing.
 */
enum cpu_mitigations { CPU_MITIGATIONS_TRUE, CPU_MITIGATIONS_GUEST, CPU_MITIGATIONS_OFF };

/* The n-th model's name and what it is, or NULL. "host" is one. */
const char *cpu_model_name(unsigned n, const char **ret_summary);
/*
 * text: NAME[,+feature][,-feature]; NULL or "default" is the default, a name without version its
 * newest. 0; -EINVAL: a name that is not known; -ENOTSUP: this host, or the engine, cannot be that.
 * ret_reason is then one line without an end.
 */
int cpu_model_resolve(struct cpu_model *ret, const char *text, enum cpu_mitigations mitigations,
		      unsigned cpus, const struct cpu_host *host, char *ret_reason,
		      size_t reason_bytes);
/* Whether the guest is told of any immunity against speculation; not with CPU_MITIGATIONS_GUEST. */
bool cpu_model_tells_immunity(const struct cpu_model *model);
/* The first feature that the host lacks; CPU_FEATURES: it can run the model. */
enum cpu_feature cpu_model_lacks(const struct cpu_model *model, const struct cpu_host *host);

/* One leaf for the processor with this APIC id; 0x40000000.. are the Hyper-V interface's. Changes
 * no vector register. */
void cpu_model_leaf(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
		    uint32_t apic_id, uint64_t cr4, uint64_t xcr0, uint32_t ret[4]);
/* Whether this instruction exists on the model. NULL: every one that decodes. */
static inline bool cpu_model_allows(const struct cpu_model *model, const struct x86_insn *insn)
{
	return !model || cpu_has(&model->features, cpu_feature_of(insn));
}

/* Model-specific registers that only have a value: not those of APIC, MTRRs, engine and Hyper-V.
 * `stored` is the processor's. */
void cpu_model_reset(const struct cpu_model *model, uint64_t stored[CPU_MODEL_REGISTERS]);
/* 0, or -EINVAL for #GP. */
int cpu_model_read(const struct cpu_model *model, const uint64_t stored[CPU_MODEL_REGISTERS],
		   uint32_t msr, uint64_t *ret_value);
int cpu_model_write(const struct cpu_model *model, uint64_t stored[CPU_MODEL_REGISTERS],
		    uint32_t msr, uint64_t value);

/* As bytes and back (lib/archive.h). */
void cpu_model_archive(struct archive *archive, struct cpu_model *model);
