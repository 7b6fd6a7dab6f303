/* What the host's processor has: asked once, by CPUID; tests take away from it. */
#include "cpu_model.h"

#include <cpuid.h>
#include <string.h>

enum { CACHE_LEAF_INTEL = 4, CACHE_LEAF_AMD = 0x8000001d, BRAND_LEAF = 0x80000002, XCR0_AVX = 6 };

static void host_leaf(uint32_t leaf, uint32_t subleaf, uint32_t registers[4])
{
	uint32_t last = __get_cpuid_max(leaf & 0x80000000, NULL);

	memset(registers, 0, 16);
	if (leaf <= last)
		__cpuid_count(leaf, subleaf, registers[0], registers[1], registers[2],
			      registers[3]);
}

/* Features of one leaf follow each other: where this process is a guest itself each CPUID is an
 * exit of some microseconds. */
static void find_features(struct cpu_features *ret)
{
	struct cpu_leaf seen = { .leaf = CPU_LEAF_ARCH_CAPABILITIES };

	for (unsigned feature = 0; feature < CPU_FEATURES; feature++) {
		const struct cpu_feature_info *info = &cpu_feature_info[feature];

		if (info->leaf == CPU_LEAF_ARCH_CAPABILITIES)
			continue;
		if (info->leaf != seen.leaf || info->subleaf != seen.subleaf) {
			seen.leaf = info->leaf;
			seen.subleaf = info->subleaf;
			host_leaf(seen.leaf, seen.subleaf, seen.value);
		}
		if (seen.value[info->reg] >> info->bit & 1)
			cpu_add(ret, (enum cpu_feature)feature);
	}
}

/* Whether the host's system keeps the AVX registers. */
static bool saves_avx(void)
{
	uint32_t registers[4], low, high;

	host_leaf(1, 0, registers);
	if (!(registers[2] >> 27 & 1))
		return false;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & XCR0_AVX) == XCR0_AVX;
}

void cpu_host_find(struct cpu_host *ret)
{
	uint32_t registers[4];

	memset(ret, 0, sizeof(*ret));
	find_features(&ret->features);
	if (!saves_avx())
		cpu_remove(&ret->features, CPU_AVX);
	host_leaf(0, 0, registers);
	memcpy(ret->vendor_text, registers + 1, sizeof(ret->vendor_text));
	/* "AuthenticAMD" and "HygonGenuine" are of one family */
	ret->vendor = !memcmp(ret->vendor_text, "Auth", 4) || !memcmp(ret->vendor_text, "Hygo", 4)
			      ? CPU_AMD
			      : CPU_INTEL;
	host_leaf(1, 0, registers);
	ret->signature = registers[0];
	for (unsigned n = 0; n < 3; n++)
		host_leaf(BRAND_LEAF + n, 0, &ret->brand[4 * n]);
	for (uint32_t n = 0; n < 4; n++)
		host_leaf(ret->vendor == CPU_AMD ? CACHE_LEAF_AMD : CACHE_LEAF_INTEL, n,
			  ret->cache[n]);
	for (uint32_t n = 0; n < 2; n++)
		host_leaf(0x80000005 + n, 0, ret->legacy_cache[n]);
}

bool cpu_host_mask(struct cpu_host *host, const char *mask, const char **ret_bad, size_t *ret_bytes)
{
	while (*mask) {
		size_t bytes = strcspn(mask, ",");
		enum cpu_feature feature =
			*mask == '-' ? cpu_feature_find(mask + 1, bytes - 1) : CPU_FEATURES;

		if (feature == CPU_FEATURES) {
			*ret_bad = mask;
			*ret_bytes = bytes;
			return false;
		}
		cpu_remove(&host->features, feature);
		mask += bytes + (mask[bytes] == ',');
	}
	return true;
}
