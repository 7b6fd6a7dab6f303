/*
 * The border between translated code and engine_ops: the guest's vector registers, and who may be
 * waited for.
 */
#include "engine/soft/insn/insn.h"
#include "engine/soft/mmu/mmu.h"
#include "soft_internal.h"

void soft_store_vectors(struct soft_cpu *cpu)
{
	static const uint32_t mxcsr = 0x1f80;

	__asm__ volatile("xsave64 (%0)" : : "r"(cpu->vector), "a"(7), "d"(0) : "memory");
	__asm__ volatile("ldmxcsr %0; fninit; vzeroupper" : : "m"(mxcsr));
	insn_clear_x87_pointers(cpu->vector); /* a saved machine has this area */
}

void soft_load_vectors(struct soft_cpu *cpu)
{
	__asm__ volatile("xrstor64 (%0)" : : "r"(cpu->vector), "a"(7), "d"(0) : "memory");
}

/*
 * What runs outside is compiled for general registers only: x87, MXCSR and the rest stay as they
 * are. Only libc uses vector registers there, and XSAVE and XRSTOR of everything cost 140 ns, this
 * 10.
 */
void soft_outside(struct soft_cpu *cpu)
{
#define YMM(n) "vmovdqa %%ymm" #n ", " #n "*32(%0)\n\t"
	__asm__ volatile(YMM(0) YMM(1) YMM(2) YMM(3) YMM(4) YMM(5) YMM(6) YMM(7) YMM(8) YMM(9)
				 YMM(10) YMM(11) YMM(12) YMM(13) YMM(14) YMM(15) "vzeroupper"
			 :
			 : "r"(cpu->ymm)
			 : "memory");
#undef YMM
	soft_stop_executing(cpu);
}

void soft_inside(struct soft_cpu *cpu)
{
	soft_start_executing(cpu);
#define YMM(n) "vmovdqa " #n "*32(%0), %%ymm" #n "\n\t"
	__asm__ volatile(YMM(0) YMM(1) YMM(2) YMM(3) YMM(4) YMM(5) YMM(6) YMM(7) YMM(8) YMM(9)
				 YMM(10) YMM(11) YMM(12) YMM(13) YMM(14) YMM(15)
			 :
			 : "r"(cpu->ymm)
			 : "memory");
#undef YMM
}

void *soft_engine_call_xmm(struct engine_cpu *cpu, unsigned n)
{
	return ((struct soft_cpu *)cpu)->ymm[n];
}
