/*
 * The hypervisor's pages in the guest's address space (TLFS "GPA overlay pages"): where a
 * register's bit 0 is set, the page shows at bits 63:12. A page that moves keeps its contents; a
 * page outside of the address space is nowhere, and nothing else happens.
 *
 * The hypercall, reference TSC and information pages cannot be written by the guest (#GP).
 */
#include "hv_internal.h"

#include <assert.h>

unsigned hv_overlays(unsigned cpus) { return OVERLAY_CPU + OVERLAYS_OF_CPU * cpus; }

uint8_t *hv_overlay(struct hv_partition *partition, unsigned n)
{
	assert(n < OVERLAY_CPU + OVERLAYS_OF_CPU * X86_MAX_PROCESSORS || n == OVERLAY_INFO);
	return guest_overlay_page(partition->host->memory, n);
}

void hv_place(struct hv_partition *partition, unsigned n, uint64_t msr_value, bool read_only)
{
	bool shows = msr_value & 1 && !(msr_value >> X86_PHYSICAL_BITS);
	uint64_t gpa = shows ? guest_page_of(msr_value) : GUEST_NOWHERE;

	assert(gpa == GUEST_NOWHERE || !(gpa % GUEST_PAGE_BYTES));
	if (partition->host->memory->overlay[n].gpa != gpa)
		partition->host->place_overlay(partition->host->context, n, gpa, read_only);
}

void hv_place_cpu(struct hv_cpu *cpu)
{
	const uint64_t values[OVERLAYS_OF_CPU] = { [OVERLAY_ASSIST] = cpu->vp_assist,
						   [OVERLAY_SIMP] = cpu->simp,
						   [OVERLAY_SIEFP] = cpu->siefp };

	for (unsigned n = 0; n < OVERLAYS_OF_CPU; n++)
		hv_place(cpu->partition, OVERLAY_CPU + OVERLAYS_OF_CPU * cpu->index + n, values[n],
			 false);
}

/*
 *   0      endbr64; vmcall; ret                                          a call
 *   0x100  endbr64; 1: vmcall; cmp ax, HV_CALL_PENDING; jne 2f; pause; jmp 1b; 2: ret   a call
 *          until it is finished
 *   0xff0  the version of these contents
 */
void hv_write_hypercall_page(struct hv_partition *partition)
{
	static const uint8_t call[] = { 0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x01, 0xc1, 0xc3 };
	static const uint8_t loop[] = { 0xf3, 0x0f, 0x1e, 0xfa, 0x0f,
					0x01, 0xc1, 0x66, 0x3d, HV_CALL_PENDING,
					0x00, 0x75, 0x04, 0xf3, 0x90,
					0xeb, 0xf3, 0xc3 };
	uint8_t *page = hv_overlay(partition, OVERLAY_HYPERCALL);
	const uint32_t version = HYPERCALL_PAGE_VERSION;

	memset(page, 0xcc, GUEST_PAGE_BYTES);
	memcpy(page, call, sizeof(call));
	memcpy(page + HYPERCALL_LOOP_OFFSET, loop, sizeof(loop));
	memcpy(page + 0xff0, &version, 4);
}

/*
 * time_100ns = (tsc * scale >> 64) + offset (TLFS "Partition reference TSC mechanism"): with the
 * machine's own scale and offset, so that a guest reads the same time here and in the reference
 * counter.
 */
void hv_write_reference_tsc(struct hv_partition *partition)
{
	enum { SEQUENCE_INVALID = 0, SCALE_AT = 8, OFFSET_AT = 16 };
	uint8_t *page = hv_overlay(partition, OVERLAY_REFERENCE_TSC);
	uint32_t *sequence = (uint32_t *)(void *)page;
	uint32_t next = *sequence + 1;

	__atomic_store_n(sequence, SEQUENCE_INVALID, __ATOMIC_SEQ_CST);
	memcpy(page + SCALE_AT, &partition->host->reference_scale, sizeof(uint64_t));
	memcpy(page + OFFSET_AT, &partition->host->reference_offset_100ns, sizeof(uint64_t));
	__atomic_store_n(sequence, next && next != ~0u ? next : 1, __ATOMIC_SEQ_CST);
}

/*
 * What a guest can know without CPUID or registers (docs/umbra-interface.md, "Information page"):
 *
 *   0   "UMBRAVMM"       8  u32 version of this page   12  u32 bytes that count    16  u32 sum: all
 *       counted words add up to 0
 *   20  u32 processors   24 u64 features (--hv order)  32  u64 TSC Hz              40  u32 newest,
 *       44 u32 oldest extension version
 *   48  u32 extension feature bits   52 u32 offset of the looping entry in the hypercall page
 */
void hv_write_info_page(struct hv_partition *partition)
{
	struct {
		char magic[8];
		uint32_t version, bytes, sum, cpus;
		uint64_t features, tsc_hz;
		uint32_t newest, oldest, extension, loop_offset;
	} info = {
		.magic = { 'U', 'M', 'B', 'R', 'A', 'V', 'M', 'M' },
		.version = INFO_PAGE_VERSION,
		.bytes = sizeof(info),
		.cpus = partition->host->cpus,
		.features = partition->host->features,
		.tsc_hz = partition->host->tsc_hz,
		.newest = partition->umbra_newest,
		.oldest = UMBRA_OLDEST,
		.extension = UMBRA_FEATURES,
		.loop_offset = HYPERCALL_LOOP_OFFSET,
	};
	uint32_t words[sizeof(info) / 4];

	memcpy(words, &info, sizeof(info));
	for (unsigned n = 0; n < sizeof(info) / 4; n++)
		info.sum -= words[n];
	memcpy(hv_overlay(partition, OVERLAY_INFO), &info, sizeof(info));
}
