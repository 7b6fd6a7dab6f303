/*
 * One instruction of each kind that touches memory, in each of a list of places: addresses that
 * are not canonical, absent, read only, devices, beyond memory, and across the borders of these.
 * What may come of it follows from what the place is.
 */
#include "villain.h"

enum { READS = 1, WRITES = 2, BOTH = 3, ON_STACK = 4, NEVER = 8 };
enum { AVX = 16, ALIGNED = 32, LOADS_STATE = 64, BYTE = 128 };

/*
 * Name, assembly, what it does to memory. RBX, RSI, RDI, RBP (and RSP: ON_STACK) are the place;
 * RCX is 4.
 */
#define INSTRUCTIONS(X) \
	X(load_1, "mov (%rbx), %al", READS | BYTE) \
	X(load_2, "mov (%rbx), %ax", READS) \
	X(load_4, "mov (%rbx), %eax", READS) \
	X(load_8, "mov (%rbx), %rax", READS) \
	X(load_far, "lfs (%rbx), %eax", READS | LOADS_STATE) \
	X(store_1, "mov %al, (%rbx)", WRITES | BYTE) \
	X(store_2, "mov %ax, (%rbx)", WRITES) \
	X(store_4, "movl $-1, (%rbx)", WRITES) \
	X(store_8, "movq $-1, (%rbx)", WRITES) \
	X(add, "add %rax, (%rbx)", BOTH) \
	X(lock_add_1, "lock addb $1, (%rbx)", BOTH | BYTE) \
	X(lock_add_8, "lock addq $-1, (%rbx)", BOTH) \
	X(xchg, "xchg %eax, (%rbx)", BOTH) \
	X(lock_xadd, "lock xadd %ax, (%rbx)", BOTH) \
	X(lock_btc, "lock btcl $3, (%rbx)", BOTH) \
	X(cmpxchg8b, "lock cmpxchg8b (%rdi)", BOTH) \
	X(cmpxchg16b, "lock cmpxchg16b (%rdi)", BOTH | ALIGNED) \
	X(movsb_from, "mov %r15, %rdi; sub $512, %rdi; rep movsb", READS) \
	X(movsq_to, "mov %r15, %rsi; rep movsq", WRITES) \
	X(movsw_both, "rep movsw", BOTH) \
	X(stosb, "rep stosb", WRITES) \
	X(stosq_down, "std; rep stosq", WRITES | NEVER) \
	X(lodsq, "rep lodsq", READS) \
	X(scasl, "xor %eax, %eax; repne scasl", READS) \
	X(cmpsb, "repe cmpsb", READS) \
	X(insb, "mov $0x80, %dx; rep insb", WRITES) \
	X(outsw, "mov $0x80, %dx; rep outsw", READS) \
	X(push_memory, "push (%rbx)", READS) \
	X(pop_memory, "push %rax; pop (%rbx)", WRITES) \
	X(call_memory, "call *(%rbx)", READS | LOADS_STATE) \
	X(jump_far_memory, "ljmp *(%rbx)", READS | LOADS_STATE) \
	X(push, "push %rax", WRITES | ON_STACK) \
	X(pop, "pop %rax", READS | ON_STACK) \
	X(pushf, "pushf", WRITES | ON_STACK) \
	X(popf, "popf", READS | ON_STACK | LOADS_STATE) \
	X(call, "call 1f; 1:", WRITES | ON_STACK) \
	X(ret, "ret", READS | ON_STACK | LOADS_STATE) \
	X(retf, "lretq", READS | ON_STACK | LOADS_STATE) \
	X(iret, "iretq", READS | ON_STACK | LOADS_STATE) \
	X(enter, "enter $8, $0", WRITES | ON_STACK) \
	X(leave, "leave", READS | ON_STACK) \
	X(movups_load, "movups (%rbx), %xmm0", READS) \
	X(movups_store, "movups %xmm0, (%rbx)", WRITES) \
	X(movaps, "movaps %xmm0, (%rbx)", WRITES | ALIGNED) \
	X(movntdq, "movntdq %xmm0, (%rbx)", WRITES | ALIGNED) \
	X(movq_mmx, "movq (%rbx), %mm0; emms", READS) \
	X(maskmovdqu, "pcmpeqb %xmm1, %xmm1; maskmovdqu %xmm1, %xmm0", WRITES) \
	X(vmovdqu_load, "vmovdqu (%rbx), %ymm0", READS | AVX) \
	X(vmovdqu_store, "vmovdqu %ymm0, (%rbx)", WRITES | AVX) \
	X(vmovntdq, "vmovntdq %ymm0, (%rbx)", WRITES | ALIGNED | AVX) \
	X(vmaskmov_load, \
	  "vpcmpeqd %ymm1, %ymm1, %ymm1; vmaskmovps (%rbx), %ymm1, %ymm0", READS | AVX) \
	X(vmaskmov_store, \
	  "vpcmpeqd %ymm1, %ymm1, %ymm1; vmaskmovps %ymm0, %ymm1, (%rbx)", WRITES | AVX) \
	X(vmaskmov_none, \
	  "vpxor %ymm1, %ymm1, %ymm1;" \
	  " vmaskmovps %ymm0, %ymm1, (%rbx)", WRITES | NEVER | AVX) \
	X(gather, \
	  "vpcmpeqd %ymm1, %ymm1, %ymm1; vpxor %ymm2, %ymm2, %ymm2;" \
	  " vpgatherdd %ymm1, (%rbx,%ymm2,4), %ymm0", READS | AVX) \
	X(fxsave, "fxsave (%rbx)", WRITES | ALIGNED) \
	X(fxrstor, "fxrstor (%rbx)", READS | ALIGNED | LOADS_STATE) \
	X(xsave, "mov $-1, %eax; mov $-1, %edx; xsave (%rbx)", WRITES | ALIGNED | AVX) \
	X(xrstor, \
	  "mov $-1, %eax; mov $-1, %edx;" \
	  " xrstor (%rbx)", READS | ALIGNED | LOADS_STATE | AVX) \
	X(fldt, "fldt (%rbx)", READS) \
	X(fstpt, "fld1; fstpt (%rbx)", WRITES) \
	X(fbstp, "fld1; fbstp (%rbx)", WRITES) \
	X(fnsave, "fnsave (%rbx)", WRITES) \
	X(frstor, "frstor (%rbx)", READS | LOADS_STATE) \
	X(fnstenv, "fnstenv (%rbx)", WRITES) \
	X(ldmxcsr, "ldmxcsr (%rbx)", READS | LOADS_STATE) \
	X(sgdt, "sgdt (%rbx)", WRITES) \
	X(lgdt, "lgdt (%rbx)", READS | LOADS_STATE) \
	X(lldt, "lldt (%rbx)", READS | LOADS_STATE) \
	X(ltr, "ltr (%rbx)", READS | LOADS_STATE) \
	X(lmsw, "smsw (%rbx)", WRITES) \
	X(bt_register, "mov $-1, %ecx; bt %ecx, 8(%rbx)", READS) \
	X(clflush, "clflush (%rbx)", READS | BYTE) \
	X(prefetch, "prefetcht0 (%rbx)", NEVER) \
	X(invlpg, "invlpg (%rbx)", NEVER) \
	X(jump, "jmp *%rbx", READS | BYTE | LOADS_STATE)

#define CODE(name, text, access) \
	__asm__(".pushsection .rodata; code_" #name ": .byte 9f - 8f; 8: " text "; 9: .popsection");
INSTRUCTIONS(CODE)
#define DECLARE(name, text, access) extern const uint8_t code_##name[];
INSTRUCTIONS(DECLARE)

struct instruction { const char *name; const uint8_t *code; unsigned access; };
#define ROW(name, text, access) { #name, code_##name, access },
static const struct instruction instructions[] = { INSTRUCTIONS(ROW) };

static uint64_t allowed_in(const struct instruction *instruction, const struct place *place)
{
	unsigned access = instruction->access;
	uint64_t fault = ALLOW(PF);
	uint64_t ret = 0;

	if (access & AVX && !has_avx2())
		return ALLOW(UD);
	if (!(place->kind & CANONICAL))
		fault = ALLOW(GP) | (access & ON_STACK ? ALLOW(SS) : 0);
	if (access & NEVER || (place->kind & BORDER && access & BYTE) || access & LOADS_STATE)
		ret |= ALLOW(NOTHING);
	if (!(place->kind & MAPPED) || (access & WRITES && !(place->kind & WRITABLE)))
		ret |= fault;
	else
		ret |= ALLOW(NOTHING);
	if (place->kind & BORDER && access & ON_STACK)
		ret |= ALLOW(NOTHING); /* a push is below the border */
	if (place->kind & BORDER && access & ALIGNED)
		ret |= ALLOW(GP);
	if (place->kind & BORDER && access & NEVER)
		ret |= fault;
	if (access & LOADS_STATE && (place->kind & (CANONICAL | MAPPED)) == (CANONICAL | MAPPED))
		ret |= ALLOW(GP) | ALLOW(PF) | ALLOW(UD) | ALLOW(NP) | ALLOW(SS) | ALLOW(DB) |
		       ALLOW(BP);
	if (access & LOADS_STATE && !(place->kind & MAPPED) && !(place->kind & BORDER))
		ret &= ~ALLOW(NOTHING);
	return ret;
}

void act_in_places(const struct place *places, unsigned count)
{
	const unsigned kinds = sizeof(instructions) / sizeof(instructions[0]);

	for (unsigned place = 0; place < count; place++)
		for (unsigned n = 0; n < kinds; n++) {
			const struct instruction *instruction = &instructions[n];
			struct registers registers = registers_at(places[place].gva);
			unsigned outcome;

			if (instruction->access & ON_STACK)
				registers.rsp = places[place].gva;
			outcome = run_bytes(instruction->code + 1, instruction->code[0],
					    &registers);
			act(instruction->name, NULL, places[place].name, outcome,
			    allowed_in(instruction, &places[place]));
		}
}
