/*
 * Which part of the interface a guest is offered: one table from a name to the CPUID bits that
 * announce it (TLFS "Feature discovery"). What is not announced is refused: registers by #GP, calls
 * by "access denied" or "invalid call code".
 */
#include "hv_internal.h"

enum { EAX, EBX, ECX, EDX, PRIVILEGES = 3, HINTS = 4, SPINS_BEFORE_CALL = (1 << 12) - 1 };

/*
 * Up to two bits: of leaf 0x40000003 or 0x40000004. needs: without that feature this one is not
 * offered either.
 */
struct announced {
	const char *name;
	struct {
		uint8_t leaf, reg, bit;
	} bits[2];
	bool by_default;
	enum hv_feature needs;
};

static const struct announced features[HV_FEATURES] = {
	[HV_BASE] = { "base", { { PRIVILEGES, EAX, 5 }, { PRIVILEGES, EAX, 6 } }, true, HV_BASE },
	[HV_RUNTIME] = { "runtime", { { PRIVILEGES, EAX, 0 } }, true, HV_BASE },
	[HV_TIME_REF] = { "time-ref", { { PRIVILEGES, EAX, 1 } }, true, HV_BASE },
	[HV_SYNIC] = { "synic", { { PRIVILEGES, EAX, 2 } }, true, HV_BASE },
	/* guests read the one to program the other */
	[HV_STIMER] = { "stimer", { { PRIVILEGES, EAX, 3 } }, true, HV_TIME_REF },
	/* x2APIC registers are as quick here */
	[HV_VAPIC] = { "vapic", { { PRIVILEGES, EAX, 4 }, { HINTS, EAX, 3 } }, false, HV_BASE },
	[HV_RESET] = { "reset", { { PRIVILEGES, EAX, 7 } }, true, HV_BASE },
	[HV_REF_TSC] = { "ref-tsc", { { PRIVILEGES, EAX, 9 } }, true, HV_BASE },
	[HV_IDLE] = { "idle", { { PRIVILEGES, EAX, 10 }, { PRIVILEGES, EDX, 5 } }, true, HV_BASE },
	[HV_FREQUENCIES] = { "frequencies",
			     { { PRIVILEGES, EAX, 11 }, { PRIVILEGES, EDX, 8 } },
			     true,
			     HV_BASE },
	[HV_TSC_INVARIANT] = { "tsc-invariant", { { PRIVILEGES, EAX, 15 } }, true, HV_BASE },
	[HV_MESSAGES] = { "messages", { { PRIVILEGES, EBX, 4 } }, true, HV_BASE },
	[HV_EVENTS] = { "events", { { PRIVILEGES, EBX, 5 } }, true, HV_BASE },
	/* beside VSM: Linux takes the bit for a VTL */
	[HV_VP_REGISTERS] = { "vp-registers", { { PRIVILEGES, EBX, 17 } }, false, HV_BASE },
	[HV_EXT_CALLS] = { "ext-calls", { { PRIVILEGES, EBX, 20 } }, true, HV_BASE },
	[HV_XMM_INPUT] = { "xmm-input", { { PRIVILEGES, EDX, 4 } }, true, HV_BASE },
	[HV_CRASH] = { "crash", { { PRIVILEGES, EDX, 10 } }, true, HV_BASE },
	[HV_EXT_GVA] = { "ext-gva", { { PRIVILEGES, EDX, 14 } }, true, HV_BASE },
	[HV_XMM_OUTPUT] = { "xmm-output", { { PRIVILEGES, EDX, 15 } }, true, HV_BASE },
	[HV_SINT_POLLING] = { "sint-polling", { { PRIVILEGES, EDX, 17 } }, true, HV_SYNIC },
	[HV_CALL_LOCK] = { "call-lock", { { PRIVILEGES, EDX, 18 } }, true, HV_BASE },
	[HV_DIRECT_TIMERS] = { "direct-timers", { { PRIVILEGES, EDX, 19 } }, true, HV_STIMER },
	[HV_FLUSH] = { "flush", { { HINTS, EAX, 2 } }, true, HV_BASE },
	[HV_IPI] = { "ipi", { { HINTS, EAX, 10 } }, true, HV_BASE },
	[HV_EX_MASKS] = { "ex-masks", { { HINTS, EAX, 11 } }, true, HV_BASE },
	[HV_SPIN] = { "spin", { { 0 } }, true, HV_BASE },
	[HV_RELAXED] = { "relaxed", { { HINTS, EAX, 5 } }, true, HV_BASE },
	[HV_UMBRA] = { "umbra", { { 0 } }, true, HV_BASE },
};

const char *hv_feature_name(enum hv_feature feature) { return features[feature].name; }

uint64_t hv_default_features(void)
{
	uint64_t set = 0;

	for (unsigned n = 0; n < HV_FEATURES; n++)
		set |= (uint64_t)features[n].by_default << n;
	return set;
}

static bool is(const char *text, size_t bytes, const char *name)
{
	return strlen(name) == bytes && !memcmp(text, name, bytes);
}

static bool apply(const char *text, size_t bytes, uint64_t *set)
{
	bool off = bytes && *text == '-';
	size_t sign = off || (bytes && *text == '+');

	if (is(text, bytes, "all") || is(text, bytes, "none") || is(text, bytes, "default")) {
		*set = *text == 'd' ? hv_default_features() : 0;
		if (*text == 'a')
			*set = (1ull << HV_FEATURES) - 1;
		return true;
	}
	for (unsigned n = 0; n < HV_FEATURES; n++)
		if (is(text + sign, bytes - sign, features[n].name)) {
			*set = off ? *set & ~(1ull << n) : *set | 1ull << n;
			return true;
		}
	return false;
}

bool hv_parse_features(const char *text, uint64_t *ret_features, const char **ret_bad,
		       size_t *ret_bad_bytes)
{
	*ret_features = hv_default_features();
	for (;; text++) {
		size_t bytes = strcspn(text, ",");

		if (!apply(text, bytes, ret_features)) {
			*ret_bad = text;
			*ret_bad_bytes = bytes;
			return false;
		}
		text += bytes;
		if (!*text)
			break;
	}
	/* in the table's order what is needed comes first; all need the base, HV_BASE = 0 */
	for (unsigned n = 0; n < HV_FEATURES; n++)
		if (!(*ret_features >> features[n].needs & 1))
			*ret_features &= ~(1ull << n);
	return true;
}

static void announce(const struct hv_partition *partition, uint32_t leaf, uint32_t registers[4])
{
	for (unsigned n = 0; n < HV_FEATURES; n++)
		for (unsigned i = 0; hv_has(partition, (enum hv_feature)n) && i < 2; i++)
			if (features[n].bits[i].leaf == leaf)
				registers[features[n].bits[i].reg] |= 1u << features[n].bits[i].bit;
}

bool hv_cpuid(const struct hv_cpu *cpu, uint32_t leaf, uint32_t registers[4])
{
	/* "Microsoft Hv" */
	static const uint32_t name[4] = { 0x40000006, 0x7263694d, 0x666f736f, 0x76482074 };
	static const uint32_t interface[4] = { 0x31237648 };
	static const uint32_t version[4] = { 20348, 10u << 16 };
	const struct hv_partition *partition = cpu->partition;

	if (!hv_has(partition, HV_BASE))
		return false;
	if (leaf >= 0x40000100)
		return umbra_cpuid(partition, leaf, registers);
	if (leaf < 0x40000000 || leaf > 0x40000006)
		return false;
	memset(registers, 0, 16);
	switch (leaf & 15) {
	case 0: memcpy(registers, name, 16); break;
	case 1: memcpy(registers, interface, 16); break;
	case 2: memcpy(registers, version, 16); break;
	case PRIVILEGES: announce(partition, leaf & 15, registers); break;
	case HINTS:
		announce(partition, leaf & 15, registers);
		/*
		 * auto-EOI works, but Linux asks for it by default and it costs more than it saves
		 * here
		 */
		registers[EAX] |= 1u << 9;
		registers[EBX] = hv_has(partition, HV_SPIN) ? SPINS_BEFORE_CALL : ~0u;
		registers[ECX] = X86_PHYSICAL_BITS;
		break;
	case 5: registers[EAX] = registers[EBX] = partition->host->cpus; break;
	default: break;
	}
	return true;
}
