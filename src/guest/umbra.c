/* See umbra.h. The call instruction uses the caller's stack: kernel code without a red zone. */
#include "umbra.h"

enum {
	LEAF_NAME = 0x40000000,
	LEAF_VENDOR = 0x40000100,
	MSR_OS_ID = 0x40000000,
	MSR_HYPERCALL = 0x40000001
};

static void cpuid(uint32_t leaf, uint32_t registers[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(registers[0]), "=b"(registers[1]), "=c"(registers[2]),
			   "=d"(registers[3])
			 : "a"(leaf), "c"(0));
}

static void write_msr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr"
			 :
			 : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr)
			 : "memory");
}

static uint64_t read_msr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

bool umbra_find(struct umbra *umbra)
{
	uint32_t registers[4];

	*umbra = (struct umbra){ 0 };
	cpuid(1, registers);
	if (!(registers[2] >> 31))
		return false;
	cpuid(LEAF_NAME, registers);
	if (registers[1] != 0x7263694d || registers[2] != 0x666f736f ||
	    registers[3] != 0x76482074) /* "Microsoft Hv" */
		return false;
	cpuid(LEAF_VENDOR, registers);
	if (registers[0] < LEAF_VENDOR + 1 || registers[1] != 0x72626d55 ||
	    registers[2] != 0x624d5661 || registers[3] != 0x20617262) /* "UmbraVMbra " */
		return true;
	cpuid(LEAF_VENDOR + 1, registers);
	umbra->newest = registers[0];
	umbra->oldest = registers[1];
	umbra->extension = registers[2];
	umbra->loop_offset = registers[3];
	return true;
}

bool umbra_find_by_page(struct umbra *umbra, const void *gva)
{
	const volatile uint32_t *word = gva;
	uint32_t bytes = word[3];
	uint32_t sum = 0;

	*umbra = (struct umbra){ 0 };
	if (word[0] != 0x52424d55 || word[1] != 0x4d4d5641 || bytes < 56 ||
	    bytes > UMBRA_PAGE_BYTES || bytes & 3) /* "UMBRAVMM" */
		return false;
	for (uint32_t n = 0; n < bytes / 4; n++)
		sum += word[n];
	if (sum)
		return false;
	umbra->newest = word[10];
	umbra->oldest = word[11];
	umbra->extension = word[12];
	umbra->loop_offset = word[13];
	return true;
}

bool umbra_enable(struct umbra *umbra, uint64_t os_id, uint64_t gpa, void *gva)
{
	write_msr(MSR_OS_ID, os_id);
	write_msr(MSR_HYPERCALL, (read_msr(MSR_HYPERCALL) & 0xffe) | gpa | 1);
	umbra->page = read_msr(MSR_HYPERCALL) & 1 ? gva : NULL;
	return umbra->page;
}

void umbra_disable(struct umbra *umbra)
{
	write_msr(MSR_HYPERCALL, 0);
	write_msr(MSR_OS_ID, 0);
	umbra->page = NULL;
	umbra->version = 0;
}

static uint64_t call_at(const uint8_t *entry, uint64_t control, uint64_t input, uint64_t output)
{
	register uint64_t r8 __asm__("r8") = output;
	uint64_t result;

	__asm__ volatile("call *%[entry]"
			 : "=a"(result), "+c"(control), "+d"(input), "+r"(r8)
			 : [entry] "r"(entry)
			 : "memory", "cc", "r9", "r10", "r11");
	return result;
}

uint64_t umbra_call(const struct umbra *umbra, uint64_t control, uint64_t input, uint64_t output)
{
	return call_at(umbra->page, control, input, output);
}

uint64_t umbra_call_until_done(const struct umbra *umbra, uint64_t control, uint64_t input,
			       uint64_t output)
{
	return call_at(umbra->page + umbra->loop_offset, control, input, output);
}

uint64_t umbra_call_xmm(const struct umbra *umbra, uint64_t control, uint64_t registers[14])
{
	register uint64_t r8 __asm__("r8") = registers[1];
	uint64_t result;
	uint64_t rdx = registers[0];
	uint8_t kept[96];

	__asm__ volatile("movups %%xmm0, (%[kept])\n\tmovups %%xmm1, 16(%[kept])\n\t"
			 "movups %%xmm2, 32(%[kept])\n\tmovups %%xmm3, 48(%[kept])\n\t"
			 "movups %%xmm4, 64(%[kept])\n\tmovups %%xmm5, 80(%[kept])\n\t"
			 "movups 16(%[r]), %%xmm0\n\tmovups 32(%[r]), %%xmm1\n\t"
			 "movups 48(%[r]), %%xmm2\n\tmovups 64(%[r]), %%xmm3\n\t"
			 "movups 80(%[r]), %%xmm4\n\tmovups 96(%[r]), %%xmm5\n\t"
			 "call *%[entry]\n\t"
			 "movups %%xmm0, 16(%[r])\n\tmovups %%xmm1, 32(%[r])\n\t"
			 "movups %%xmm2, 48(%[r])\n\tmovups %%xmm3, 64(%[r])\n\t"
			 "movups %%xmm4, 80(%[r])\n\tmovups %%xmm5, 96(%[r])\n\t"
			 "movups (%[kept]), %%xmm0\n\tmovups 16(%[kept]), %%xmm1\n\t"
			 "movups 32(%[kept]), %%xmm2\n\tmovups 48(%[kept]), %%xmm3\n\t"
			 "movups 64(%[kept]), %%xmm4\n\tmovups 80(%[kept]), %%xmm5"
			 : "=a"(result), "+c"(control), "+d"(rdx), "+r"(r8)
			 : [entry] "r"(umbra->page), [r] "r"(registers), [kept] "r"(kept)
			 : "memory", "cc", "r9", "r10", "r11");
	registers[0] = rdx;
	registers[1] = r8;
	return result;
}

uint64_t umbra_agree(struct umbra *umbra, uint32_t newest, uint32_t oldest)
{
	uint64_t registers[14] = { newest | (uint64_t)oldest << 32 };
	uint64_t status = umbra_call_xmm(umbra, umbra_fast(UMBRA_CALL_VERSION), registers);

	umbra->version = status ? 0 : (uint32_t)registers[2];
	return status;
}

uint64_t umbra_fork(const struct umbra *umbra, uint64_t id, void *scratch_gva,
		    uint64_t scratch_gpa, uint32_t *ret_child)
{
	struct { uint64_t id; struct umbra_work work; uint64_t output[2]; } *call = scratch_gva;
	uint64_t status;

	call->id = id;
	call->work = (struct umbra_work){ .operation = UMBRA_FORK };
	status = umbra_call_until_done(
		umbra, UMBRA_CALL_WORK, scratch_gpa,
		scratch_gpa + (uint64_t)((uint8_t *)call->output - (uint8_t *)call));
	*ret_child = status ? 0 : (uint32_t)call->output[0];
	return status;
}

/* ---- rings ---- */

uint64_t umbra_ring_open(struct umbra *umbra, struct umbra_ring *given, uint32_t number,
			 uint32_t entries, void *gva, uint64_t gpa, uint32_t sint,
			 void *scratch_gva, uint64_t scratch_gpa)
{
	struct { uint32_t ring, entries; uint64_t gpa; uint32_t sint, reserved; } *in = scratch_gva;

	*given = (struct umbra_ring){ .base = gva, .number = number, .entries = entries };
	for (unsigned offset = 0; offset <= UMBRA_RING_WANTS_EVENTS; offset += 64)
		*umbra_ring_word(given, offset) = 0;
	in->ring = number;
	in->entries = entries;
	in->gpa = gpa;
	in->sint = sint;
	in->reserved = 0;
	return umbra_call(umbra, UMBRA_CALL_REGISTER_RING, scratch_gpa, 0);
}

uint64_t umbra_ring_close(const struct umbra *umbra, const struct umbra_ring *ring)
{
	return umbra_call(umbra, umbra_fast(UMBRA_CALL_UNREGISTER_RING), ring->number, 0);
}

uint64_t umbra_ring_doorbell(const struct umbra *umbra, const struct umbra_ring *ring)
{
	return umbra_call_until_done(umbra, umbra_fast(UMBRA_CALL_DOORBELL), ring->number, 0);
}

void umbra_ring_want_events(struct umbra_ring *ring, bool wants)
{
	*umbra_ring_word(ring, UMBRA_RING_WANTS_EVENTS) = wants;
	/* the wish before the look at the tail: see the host's side */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}
