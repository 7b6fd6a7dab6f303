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
 * 10. Upper halves that are zero come back by VZEROUPPER: to a processor what was loaded there is
 * in use, whatever it is, and SSE instructions then wait for what their registers held before.
 */
#define REGISTERS(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) \
	f(14) f(15)

void soft_outside(struct soft_cpu *cpu)
{
#define YMM(n) "vmovdqa %%ymm" #n ", " #n "*32(%1)\n\t"
#define OR(to, with) "vorps %%ymm" #with ", %%ymm" #to ", %%ymm" #to "\n\t"
	__asm__ volatile(REGISTERS(YMM) OR(0, 8) OR(1, 9) OR(2, 10) OR(3, 11) OR(4, 12) OR(5, 13)
				 OR(6, 14) OR(7, 15) OR(0, 4) OR(1, 5) OR(2, 6) OR(3, 7) OR(0, 2)
				 OR(1, 3) OR(0, 1)
			 "vextractf128 $1, %%ymm0, %%xmm0\n\t"
			 "vptest %%xmm0, %%xmm0\n\t"
			 "vzeroupper"
			 : "=@ccnz"(cpu->has_upper_halves)
			 : "r"(cpu->ymm)
			 : "memory");
#undef OR
#undef YMM
	soft_stop_executing(cpu);
}

void soft_inside(struct soft_cpu *cpu)
{
	soft_start_executing(cpu);
#define YMM(n) "vmovdqa " #n "*32(%0), %%ymm" #n "\n\t"
#define XMM(n) "vmovdqa " #n "*32(%0), %%xmm" #n "\n\t"
	if (cpu->has_upper_halves)
		__asm__ volatile(REGISTERS(YMM) : : "r"(cpu->ymm) : "memory");
	else
		__asm__ volatile("vzeroupper\n\t" REGISTERS(XMM) : : "r"(cpu->ymm) : "memory");
#undef XMM
#undef YMM
}

void *soft_engine_call_xmm(struct engine_cpu *cpu, unsigned n)
{
	return ((struct soft_cpu *)cpu)->ymm[n];
}
