/*
 * Encodings: what a decoder must refuse, what it must take, and where one instruction ends and
 * the next begins. Prefixes in every number and order, LOCK on what does not take it, opcodes
 * that do not exist, VEX, EVEX and XOP junk, immediates behind REP.
 */
#include "villain.h"

struct row { const char *name; const char *code; unsigned bytes; uint64_t allowed; };
#define ROW(name, code, allowed) { name, code, sizeof(code) - 1, allowed }
#define UNDEFINED(name, code) ROW(name, code, ALLOW(UD))
#define PROTECTED(name, code) ROW(name, code, ALLOW(GP))

enum { LONGEST = 15, NOP = 0x90 };
enum { CODE_16 = 0x38, CODE_32 = 0x18, LOW_CODE = 0x6000, LOW_STACK = 0x7ff0 };

static const struct row locked[] = {
	UNDEFINED("MOV store", "\xf0\x89\x03"),
	UNDEFINED("MOV load", "\xf0\x8b\x03"),
	UNDEFINED("MOV byte", "\xf0\x88\x03"),
	UNDEFINED("MOV immediate", "\xf0\xc7\x03\0\0\0\0"),
	UNDEFINED("MOV byte immediate", "\xf0\xc6\x03\0"),
	UNDEFINED("MOVABS", "\xf0\x48\xb8\0\0\0\0\0\0\0\0"),
	UNDEFINED("LEA", "\xf0\x8d\x03"),
	UNDEFINED("PUSH", "\xf0\x50"),
	UNDEFINED("PUSH memory", "\xf0\xff\x33"),
	UNDEFINED("POP memory", "\xf0\x8f\x03"),
	UNDEFINED("TEST", "\xf0\x85\x03"),
	UNDEFINED("TEST immediate", "\xf0\xf7\x03\0\0\0\0"),
	UNDEFINED("CMP", "\xf0\x39\x03"),
	UNDEFINED("CMP load", "\xf0\x3b\x03"),
	UNDEFINED("CMP immediate", "\xf0\x83\x3b\x01"),
	UNDEFINED("SHL", "\xf0\xd1\x23"),
	UNDEFINED("ROR by CL", "\xf0\xd3\x0b"),
	UNDEFINED("SHLD", "\xf0\x0f\xa4\x03\x01"),
	UNDEFINED("IMUL", "\xf0\x0f\xaf\x03"),
	UNDEFINED("MUL", "\xf0\xf7\x23"),
	UNDEFINED("DIV", "\xf0\xf7\x33"),
	UNDEFINED("CALL", "\xf0\xff\x13"),
	UNDEFINED("JMP", "\xf0\xff\x23"),
	UNDEFINED("JMP far", "\xf0\xff\x2b"),
	UNDEFINED("ADD load", "\xf0\x03\x03"),
	UNDEFINED("ADD registers", "\xf0\x01\xc0"),
	UNDEFINED("NOT register", "\xf0\xf7\xd0"),
	UNDEFINED("NEG register", "\xf0\xf7\xd8"),
	UNDEFINED("INC register", "\xf0\xff\xc0"),
	UNDEFINED("XCHG registers", "\xf0\x87\xc0"),
	UNDEFINED("XADD registers", "\xf0\x0f\xc1\xc0"),
	UNDEFINED("CMPXCHG registers", "\xf0\x0f\xb1\xc0"),
	UNDEFINED("BTS register", "\xf0\x0f\xab\xc0"),
	UNDEFINED("BT", "\xf0\x0f\xa3\x03"),
	UNDEFINED("BT immediate", "\xf0\x0f\xba\x23\x01"),
	UNDEFINED("CMPXCHG8B register", "\xf0\x0f\xc7\xc8"),
	UNDEFINED("NOP", "\xf0\x90"),
	UNDEFINED("NOP memory", "\xf0\x0f\x1f\x03"),
	UNDEFINED("RET", "\xf0\xc3"),
	UNDEFINED("INT3", "\xf0\xcc"),
	UNDEFINED("INT", "\xf0\xcd\x80"),
	UNDEFINED("IRET", "\xf0\xcf"),
	UNDEFINED("CPUID", "\xf0\x0f\xa2"),
	UNDEFINED("RDMSR", "\xf0\x0f\x32"),
	UNDEFINED("WRMSR", "\xf0\x0f\x30"),
	UNDEFINED("HLT", "\xf0\xf4"),
	UNDEFINED("CLI", "\xf0\xfa"),
	UNDEFINED("IN", "\xf0\xec"),
	UNDEFINED("OUT", "\xf0\xee"),
	UNDEFINED("MOVS", "\xf0\xa4"),
	UNDEFINED("REP STOS", "\xf0\xf3\xaa"),
	UNDEFINED("LGDT", "\xf0\x0f\x01\x13"),
	UNDEFINED("INVLPG", "\xf0\x0f\x01\x3b"),
	UNDEFINED("MOVAPS", "\xf0\x0f\x28\x03"),
	UNDEFINED("FADD", "\xf0\xd8\x03"),
	UNDEFINED("FXSAVE", "\xf0\x0f\xae\x03"),
	UNDEFINED("MOV from CR3", "\xf0\x0f\x20\xd8"),
	UNDEFINED("SYSCALL", "\xf0\x0f\x05"),
	UNDEFINED("VEX", "\xf0\xc5\xf8\x77"),
	UNDEFINED("Jcc", "\xf0\x74\x00"),
};

static const struct row undefined[] = {
	UNDEFINED("06", "\x06"),
	UNDEFINED("07", "\x07"),
	UNDEFINED("0e", "\x0e"),
	UNDEFINED("16", "\x16"),
	UNDEFINED("17", "\x17"),
	UNDEFINED("1e", "\x1e"),
	UNDEFINED("1f", "\x1f"),
	UNDEFINED("27", "\x27"),
	UNDEFINED("2f", "\x2f"),
	UNDEFINED("37", "\x37"),
	UNDEFINED("3f", "\x3f"),
	UNDEFINED("60", "\x60"),
	UNDEFINED("61", "\x61"),
	UNDEFINED("82", "\x82\xc0\x01"),
	UNDEFINED("9a", "\x9a\0\0\0\0\x08\0"),
	UNDEFINED("ce", "\xce"),
	UNDEFINED("d4", "\xd4\x0a"),
	UNDEFINED("d5", "\xd5\x0a"),
	UNDEFINED("d6", "\xd6"),
	UNDEFINED("ea", "\xea\0\0\0\0\x08\0"),
	UNDEFINED("0f 04", "\x0f\x04"),
	UNDEFINED("0f 0a", "\x0f\x0a"),
	UNDEFINED("0f 0b", "\x0f\x0b"),
	UNDEFINED("0f 24", "\x0f\x24\xc0"),
	UNDEFINED("0f 26", "\x0f\x26\xc0"),
	UNDEFINED("0f 36", "\x0f\x36"),
	UNDEFINED("0f 39", "\x0f\x39"),
	UNDEFINED("0f 7a", "\x0f\x7a\xc0"),
	UNDEFINED("0f a6", "\x0f\xa6\xc0"),
	UNDEFINED("0f a7", "\x0f\xa7\xc0"),
	UNDEFINED("0f b9", "\x0f\xb9\xc0"),
	UNDEFINED("0f ff", "\x0f\xff\xc0"),
	UNDEFINED("8e /1", "\x8e\xc8"),
	UNDEFINED("8c /6", "\x8c\xf0"),
	UNDEFINED("c6 /1", "\xc6\xc8\x01"),
	UNDEFINED("c7 /7 memory", "\xc7\x3b\0\0\0\0"),
	UNDEFINED("fe /2", "\xfe\xd0"),
	UNDEFINED("fe /7", "\xfe\xf8"),
	UNDEFINED("ff /7", "\xff\xf8"),
	UNDEFINED("ff /3 register", "\xff\xd8"),
	UNDEFINED("ff /5 register", "\xff\xe8"),
	UNDEFINED("8d register", "\x8d\xc0"),
	UNDEFINED("0f b2 register", "\x0f\xb2\xc0"),
	UNDEFINED("0f ba /0", "\x0f\xba\xc0\x01"),
	UNDEFINED("0f c7 /0 memory", "\x0f\xc7\x03"),
	UNDEFINED("0f 00 /6", "\x0f\x00\xf0"),
	UNDEFINED("0f 01 /5 d7", "\x0f\x01\xd7"),
	UNDEFINED("0f 71 /0", "\x0f\x71\xc0\x01"),
	UNDEFINED("0f 73 /0", "\x0f\x73\xc0\x01"),
	UNDEFINED("0f 73 /3 without 66", "\x0f\x73\xd8\x01"),
	UNDEFINED("0f 38 ff", "\x0f\x38\xff\xc0"),
	UNDEFINED("0f 3a ff", "\x0f\x3a\xff\xc0\x01"),
	UNDEFINED("0f 3b", "\x0f\x3b\xc0"),
	UNDEFINED("d9 /1 memory", "\xd9\x0b"),
	UNDEFINED("db /4 memory", "\xdb\x23"),
	UNDEFINED("dd e8 + 16", "\xdd\xf8"),
	UNDEFINED("MOV to CR1", "\x0f\x22\xc8"),
	UNDEFINED("MOV from CR5", "\x0f\x20\xe8"),
	UNDEFINED("MOV from CR9", "\x44\x0f\x20\xc8"),
	UNDEFINED("MOV to CR15", "\x44\x0f\x22\xf8"),
	UNDEFINED("MOV from DR8", "\x44\x0f\x21\xc0"),
	UNDEFINED("SYSENTER's neighbour 0f 36", "\x66\x0f\x36"),
	UNDEFINED("VMCALL's neighbour 0f 01 c6", "\xf3\x0f\x01\xd7"),
	UNDEFINED("UD1 with 15 bytes", "\x66\x66\x66\x66\x66\x0f\xb9\x84\x25\0\0\0\0"),
};

static const struct row vectors[] = {
	UNDEFINED("VEX behind 66", "\x66\xc5\xf8\x77"),
	UNDEFINED("VEX behind F2", "\xf2\xc5\xf8\x77"),
	UNDEFINED("VEX behind F3", "\xf3\xc5\xf8\x77"),
	UNDEFINED("VEX behind REX", "\x48\xc5\xf8\x77"),
	UNDEFINED("VEX behind LOCK", "\xf0\xc4\xe1\x78\x77"),
	UNDEFINED("VEX map 0", "\xc4\xe0\x78\x28\xc0"),
	UNDEFINED("VEX map 4", "\xc4\xe4\x78\x28\xc0"),
	UNDEFINED("VEX map 8", "\xc4\xe8\x78\x28\xc0"),
	UNDEFINED("VEX map 16", "\xc4\xf0\x78\x28\xc0"),
	UNDEFINED("VEX map 31", "\xc4\xff\x78\x28\xc0"),
	UNDEFINED("VMOVAPS with a second source", "\xc5\xf0\x28\xc0"),
	UNDEFINED("VMOVUPS with one", "\xc5\xc0\x10\x03"),
	UNDEFINED("VLDMXCSR of 256 bits", "\xc5\xfc\xae\x13"),
	UNDEFINED("VMOVD of 256 bits", "\xc5\xfd\x6e\xc0"),
	UNDEFINED("VMASKMOVDQU of memory", "\xc5\xf9\xf7\x03"),
	UNDEFINED("VMOVNTDQ of a register", "\xc5\xf9\xe7\xc0"),
	UNDEFINED("VEX of ADD", "\xc5\xf8\x01\xc0"),
	UNDEFINED("VEX of CALL", "\xc5\xf8\xe8\0\0\0\0"),
	UNDEFINED("VEX of SYSCALL", "\xc5\xf8\x05"),
	UNDEFINED("VEX of CPUID", "\xc5\xf8\xa2"),
	UNDEFINED("VGATHER of a register", "\xc4\xe2\x79\x90\xc0"),
	UNDEFINED("VGATHER without SIB", "\xc4\xe2\x79\x90\x03"),
	UNDEFINED("VGATHER, mask is index", "\xc4\xe2\x71\x90\x04\x8b"),
	UNDEFINED("VGATHER, mask is target", "\xc4\xe2\x79\x90\x04\x93"),
	UNDEFINED("VGATHER, target is index", "\xc4\xe2\x69\x90\x04\x83"),
	UNDEFINED("VPERMQ of 128 bits", "\xc4\xe3\xf9\x00\xc0\x01"),
	UNDEFINED("VINSERTF128 of 128 bits", "\xc4\xe3\x79\x18\xc0\x01"),
	UNDEFINED("VMASKMOV of a register", "\xc4\xe2\x79\x2c\xc0"),
	UNDEFINED("VBROADCASTF128 of a register", "\xc4\xe2\x7d\x1a\xc0"),
	UNDEFINED("VZEROALL with a source", "\xc5\xf4\x77"),
	UNDEFINED("VEX, BLSR map, /0", "\xc4\xe2\x78\xf3\xc0"),
	UNDEFINED("VEX, BLSR map, /7", "\xc4\xe2\x78\xf3\xf8"),
	UNDEFINED("EVEX map 0", "\x62\xf0\x7c\x48\x28\xc0"),
	UNDEFINED("EVEX map 4", "\x62\xf4\x78\x48\x28\xc0"),
	UNDEFINED("EVEX map 7", "\x62\xf7\x7c\x48\x28\xc0"),
	UNDEFINED("EVEX with bit 3", "\x62\xf9\x7c\x48\x28\xc0"),
	UNDEFINED("EVEX behind 66", "\x66\x62\xf1\x7c\x48\x28\xc0"),
	UNDEFINED("EVEX behind REX", "\x40\x62\xf1\x7c\x48\x28\xc0"),
	UNDEFINED("EVEX, length 3", "\x62\xf1\x7c\x68\x28\x03"),
	UNDEFINED("EVEX, zeroing without mask", "\x62\xf1\x7c\xc8\x29\x03"),
	UNDEFINED("EVEX with bit 2 clear", "\x62\xf1\x78\x48\xff\xc0"),
	UNDEFINED("XOP map 8", "\x8f\xe8\x78\xff\xc0\x01"),
	UNDEFINED("XOP map 9", "\x8f\xe9\x78\xff\xc0"),
	UNDEFINED("XOP map 10", "\x8f\xea\x78\xff\xc0\0\0\0\0"),
	UNDEFINED("XOP map 31", "\x8f\xff\x78\x12\xc0"),
	UNDEFINED("REX2", "\xd5\x80\x90"),
};

static const struct row control[] = {
	PROTECTED("CR0: NW without CD",
	    "\x48\x0f\x20\xc0\x48\x0f\xba\xe8\x1d\x48\x0f\xba\xf0\x1e\x0f\x22\xc0"),
	PROTECTED("CR0: PG without PE", "\x48\x0f\x20\xc0\x48\x0f\xba\xf0\x00\x0f\x22\xc0"),
	PROTECTED("CR0: no paging in 64-bit mode",
	    "\x48\x0f\x20\xc0\x48\x0f\xba\xf0\x1f\x0f\x22\xc0"),
	PROTECTED("CR0: upper half", "\x48\x0f\x20\xc0\x48\x0f\xba\xe8\x20\x0f\x22\xc0"),
	PROTECTED("CR4: no PAE", "\x48\x0f\x20\xe0\x48\x0f\xba\xf0\x05\x0f\x22\xe0"),
	PROTECTED("CR4: reserved bit 15", "\x48\x0f\x20\xe0\x48\x0f\xba\xe8\x0f\x0f\x22\xe0"),
	PROTECTED("CR4: bit 63", "\x48\x0f\x20\xe0\x48\x0f\xba\xe8\x3f\x0f\x22\xe0"),
	PROTECTED("CR4: all", "\x48\x83\xc8\xff\x0f\x22\xe0"),
	PROTECTED("CR3: bit 52", "\x48\x0f\x20\xd8\x48\x0f\xba\xe8\x34\x0f\x22\xd8"),
	PROTECTED("CR3: bit 51", "\x48\x0f\x20\xd8\x48\x0f\xba\xe8\x33\x0f\x22\xd8"),
	PROTECTED("CR3: bit 62", "\x48\x0f\x20\xd8\x48\x0f\xba\xe8\x3e\x0f\x22\xd8"),
	PROTECTED("CR8: 16", "\xb8\x10\0\0\0\x44\x0f\x22\xc0"),
	PROTECTED("CR8: all", "\x48\x83\xc8\xff\x44\x0f\x22\xc0"),
	PROTECTED("DR7: bit 32", "\x31\xc0\x48\x0f\xba\xe8\x20\x0f\x23\xf8"),
	PROTECTED("DR6: bit 63", "\x31\xc0\x48\x0f\xba\xe8\x3f\x0f\x23\xf0"),
	ROW("DR7: general detect", "\xb8\0\x20\0\0\x0f\x23\xf8\x0f\x21\xf8", ALLOW(DB)),
	ROW("DR7: everything, on this code",
	    "\x48\x8d\x05\x0f\0\0\0\x0f\x23\xc0\xb8\xff\xdf\0\0\x0f\x23\xf8"
	    "\x90\x90\x90\x90\x90\x90\x90\x90",
	    ALLOW(DB) | ALLOW(NOTHING)),
	ROW("DR7: everything, on the stack",
	    "\x0f\x23\xe4\xb8\xff\x07\xff\xff\x0f\x23\xf8\x50\x58", ALLOW(DB) | ALLOW(NOTHING)),
	PROTECTED("XSETBV: 0", "\x31\xc0\x31\xd2\x31\xc9\x0f\x01\xd1"),
	PROTECTED("XSETBV: YMM without XMM", "\xb8\x05\0\0\0\x31\xd2\x31\xc9\x0f\x01\xd1"),
	PROTECTED("XSETBV: all", "\x83\xc8\xff\x83\xca\xff\x31\xc9\x0f\x01\xd1"),
	PROTECTED("XSETBV: register 1", "\xb8\x07\0\0\0\x31\xd2\xb9\x01\0\0\0\x0f\x01\xd1"),
	PROTECTED("XSETBV: register ~0", "\xb8\x07\0\0\0\x31\xd2\x83\xc9\xff\x0f\x01\xd1"),
	PROTECTED("XGETBV: register ~0", "\x83\xc9\xff\x0f\x01\xd0"),
	ROW("RDPMC of nothing", "\x83\xc9\xff\x0f\x33", ALLOW(GP) | ALLOW(UD)),
	ROW("LMSW cannot clear PE", "\x31\xc0\x0f\x01\xf0", ALLOW(NOTHING)),
	ROW("MONITOR with an extension",
	    "\x4c\x89\xf8\xb9\x01\0\0\0\x31\xd2\x0f\x01\xc8", ALLOW(GP) | ALLOW(UD)),
	ROW("MWAIT with an extension", "\xb9\x02\0\0\0\x31\xc0\x0f\x01\xc9", ALLOW(GP) | ALLOW(UD)),
	ROW("VMCALL", "\xb8\xff\xff\0\0\x0f\x01\xc1", ALLOW(NOTHING) | ALLOW(UD)),
	ROW("VMMCALL", "\xb8\xff\xff\0\0\x0f\x01\xd9", ALLOW(NOTHING) | ALLOW(UD)),
	ROW("VMXON", "\xf3\x0f\xc7\x33", ALLOW(UD)),
	ROW("VMREAD", "\x0f\x78\xc0", ALLOW(UD)),
	ROW("VMRUN", "\x0f\x01\xd8", ALLOW(UD)),
	ROW("STGI", "\x0f\x01\xdc", ALLOW(UD) | ALLOW(GP)),
	ROW("CLGI", "\x0f\x01\xdd", ALLOW(UD) | ALLOW(GP)),
	ROW("SKINIT", "\x0f\x01\xde", ALLOW(UD)),
	ROW("GETSEC", "\x31\xc0\x0f\x37", ALLOW(UD)),
	ROW("RSM", "\x0f\xaa", ALLOW(UD)),
	ROW("ENCLU", "\x0f\x01\xd7", ALLOW(UD)),
	ROW("XBEGIN", "\xc7\xf8\0\0\0\0", ALLOW(UD) | ALLOW(NOTHING)),
	ROW("XEND", "\x0f\x01\xd5", ALLOW(UD) | ALLOW(GP)),
	ROW("INT1", "\xf1", ALLOW(DB)),
	ROW("DIV of the least by -1",
	    "\x48\xb8\0\0\0\0\0\0\0\x80\x48\x99\x48\xc7\xc1\xff\xff\xff\xff"
	    "\x48\xf7\xf9", ALLOW(DE)),
	ROW("IDIV byte by 0", "\x30\xc9\xf6\xf9", ALLOW(DE)),
	ROW("SYSENTER without a segment",
	    "\xb9\x74\x01\0\0\x31\xc0\x31\xd2\x0f\x30\x0f\x34", ALLOW(GP) | ALLOW(UD)),
	ROW("SYSEXIT without a segment",
	    "\xb9\x74\x01\0\0\x31\xc0\x31\xd2\x0f\x30\x0f\x35", ALLOW(GP) | ALLOW(UD)),
	ROW("SWAPGS behind 66 F2 F3",
	    "\x66\xf2\xf3\x0f\x01\xf8\x0f\x01\xf8", ALLOW(NOTHING) | ALLOW(UD)),
	ROW("CLI; STI; CLI", "\xfa\xfb\xfa", ALLOW(NOTHING)),
	ROW("MOV SS; INT3", "\x8c\xd0\x8e\xd0\xcc", ALLOW(BP)),
	ROW("MOV SS; MOV SS; UD2", "\x8c\xd0\x8e\xd0\x8e\xd0\x0f\x0b", ALLOW(UD)),
	ROW("INT 8 by software", "\xcd\x0d\x90", ALLOW(GP) | ALLOW(NOTHING)),
};

/*
 * Ends with INT 0x80; a decoder that takes the immediate for one of another size runs into INT3,
 * or swallows the end.
 */
#define SIXTEEN(name, code) ROW(name, code "\xcd\x80", ALLOW(NOTHING))
static const struct row sixteen[] = {
	SIXTEEN("F2 MOV imm16", "\xf2\xb8\x34\x12"),
	SIXTEEN("F3 MOV imm16", "\xf3\xb8\x34\x12"),
	SIXTEEN("F2 66 MOV imm32", "\xf2\x66\xb8\x34\x12\0\0"),
	SIXTEEN("66 F3 MOV imm32", "\x66\xf3\xb8\x34\x12\0\0"),
	SIXTEEN("F2 ADD imm16", "\xf2\x05\x34\x12"),
	SIXTEEN("F3 ADD r/m, imm16", "\xf3\x81\xc3\x34\x12"),
	SIXTEEN("F2 IMUL imm16", "\xf2\x69\xc0\x34\x12"),
	SIXTEEN("F3 TEST imm16", "\xf3\xa9\x34\x12"),
	SIXTEEN("F2 TEST r/m, imm16", "\xf2\xf7\xc3\x34\x12"),
	SIXTEEN("F3 MOV r/m, imm16", "\xf3\xc7\xc0\x34\x12"),
	SIXTEEN("F2 PUSH imm16", "\xf2\x68\x34\x12\x58"),
	SIXTEEN("F3 JMP rel16", "\xf3\xe9\0\0"),
	SIXTEEN("F2 CALL rel16", "\xf2\xe8\0\0\x58"),
	SIXTEEN("F3 Jcc rel16", "\xf3\x0f\x84\0\0"),
	SIXTEEN("F2 MOV moffs16", "\xf2\xa1\0\x60"),
	SIXTEEN("F3 67 MOV moffs32", "\xf3\x67\xa1\0\x60\0\0"),
	SIXTEEN("66 67 LEA disp32", "\x66\x67\x8d\x80\0\0\0\0"),
	SIXTEEN("F2 ENTER; POP BP", "\xf2\xc8\0\0\0\x5d"),
	SIXTEEN("F3 F2 66 66 NOP", "\xf3\xf2\x66\x66\x90"),
	SIXTEEN("F2 OR imm8", "\xf2\x0c\x12"),
	SIXTEEN("2e 36 3e 26 64 65 NOP", "\x2e\x36\x3e\x26\x64\x65\x90"),
	ROW("ARPL, BOUND beyond", "\x62\x06\0\x60\xcd\x80", ALLOW(BR) | ALLOW(NOTHING)),
	ROW("far JMP to nowhere", "\xea\0\0\xf8\xff", ALLOW(GP)),
	ROW("far CALL to data", "\x9a\0\0\x10\0", ALLOW(GP)),
};

static const struct row thirty_two[] = {
	ROW("AAM 0", "\xd4\0", ALLOW(DE)),
	ROW("PUSH CS; POP SS", "\x0e\x17", ALLOW(GP)),
	ROW("far JMP to nowhere", "\xea\0\0\0\0\xf8\xff", ALLOW(GP)),
	ROW("far CALL to data", "\x9a\0\0\0\0\x10\0", ALLOW(GP)),
	ROW("far JMP to a task", "\xea\0\0\0\0\x48\0", ALLOW(GP)),
	ROW("LES of a register", "\xc4\xc0", ALLOW(UD)),
	ROW("INTO", "\xb0\x7f\x04\x01\xce", ALLOW(OF)),
	ROW("BOUND of a register", "\x62\xc0", ALLOW(UD)),
	ROW("SYSRET", "\x0f\x07", ALLOW(UD) | ALLOW(GP) | ALLOW(PF)),
	SIXTEEN("DAA DAS AAA AAS", "\x27\x2f\x37\x3f"),
	SIXTEEN("PUSHA; POPA", "\x60\x61"),
	SIXTEEN("82 /0", "\x82\xc0\x01"),
	SIXTEEN("SALC", "\xd6"),
	SIXTEEN("INC, DEC, where REX would be", "\x40\x48"),
	SIXTEEN("F2 MOV imm32", "\xf2\xb8\x34\x12\0\0"),
	SIXTEEN("F3 66 MOV imm16", "\xf3\x66\xb8\x34\x12"),
};

static void act_rows(const char *subject, const struct row *rows, unsigned count)
{
	static uint64_t data[64] __attribute__((aligned(64)));
	const struct registers registers = registers_at((uint64_t)data);

	for (unsigned n = 0; n < count; n++) {
		unsigned outcome = run_bytes(rows[n].code, rows[n].bytes, &registers);

		act(subject, rows[n].name, NULL, outcome, rows[n].allowed);
	}
}

/* In a compatibility mode segment, below 64 KiB. */
static void act_rows_compatible(const char *subject, const struct row *rows, unsigned count,
				uint16_t selector)
{
	volatile uint8_t *const code = (volatile uint8_t *)LOW_CODE;

	for (unsigned n = 0; n < count; n++) {
		unsigned at = 0;
		int64_t vector;

		for (; at < rows[n].bytes; at++)
			code[at] = (uint8_t)rows[n].code[at];
		for (; at < 64; at++)
			code[at] = 0xcc;
		vector = try_user((void (*)(void))LOW_CODE, LOW_STACK, selector);
		act(subject, rows[n].name, NULL, outcome_of(vector), rows[n].allowed);
	}
}

/* 14 of a prefix before NOP are an instruction of 15 bytes; 15 are none. */
static void act_prefix_numbers(void)
{
	static const struct { const char *name; uint8_t prefix; } prefixes[] = {
		{ "26", 0x26 }, { "2e", 0x2e }, { "36", 0x36 }, { "3e", 0x3e }, { "64", 0x64 },
		{ "65", 0x65 },
		{ "66", 0x66 }, { "67", 0x67 }, { "f2", 0xf2 }, { "f3", 0xf3 }, { "40", 0x40 },
		{ "48", 0x48 },
		{ "4f", 0x4f },
	};
	const struct registers registers = registers_at(DATA_GVA);

	for (unsigned n = 0; n < sizeof(prefixes) / sizeof(prefixes[0]); n++)
		for (unsigned bytes = LONGEST - 1; bytes <= LONGEST + 1; bytes++) {
			static const char *const names[] = { "14 bytes", "15 bytes", "16 bytes" };
			bool long_ = bytes > LONGEST;
			uint8_t code[LONGEST + 1];

			for (unsigned at = 0; at < bytes; at++)
				code[at] = at + 1 < bytes ? prefixes[n].prefix : NOP;
			act("NOP behind prefixes", prefixes[n].name, names[bytes + 1 - LONGEST],
			    run_bytes(code, bytes, &registers), ALLOW(long_ ? GP : NOTHING));
		}
}

/*
 * Four prefixes in each of their orders before a string instruction that repeats zero times, so
 * that it touches nothing.
 */
static void act_prefix_orders(void)
{
	static const uint8_t prefixes[4] = { 0x66, 0x67, 0xf3, 0x65 };
	struct registers registers = registers_at(NOT_CANONICAL);

	registers.rcx = 0;
	for (unsigned order = 0; order < 256; order++) {
		unsigned first = order & 3;
		unsigned second = order >> 2 & 3;
		unsigned third = order >> 4 & 3;
		unsigned fourth = order >> 6;
		const uint8_t code[] = { prefixes[first], prefixes[second], prefixes[third],
					 prefixes[fourth], 0xa5 };
		char name[] = "0123";

		if ((1u << first | 1u << second | 1u << third | 1u << fourth) != 15)
			continue;
		for (unsigned n = 0; n < 4; n++)
			name[n] = (char)('a' + (order >> 2 * n & 3));
		act("REP MOVS behind 66 (a), 67 (b), F3 (c), 65 (d) in the order", name, NULL,
		    run_bytes(code, sizeof(code), &registers), ALLOW(NOTHING));
	}
}

#define ACT_ROWS(subject, rows) act_rows(subject, rows, sizeof(rows) / sizeof((rows)[0]))
#define ACT_ROWS_COMPATIBLE(subject, rows, selector) \
	act_rows_compatible(subject, rows, sizeof(rows) / sizeof((rows)[0]), selector)

void act_encodings(void)
{
	act_prefix_numbers();
	act_prefix_orders();
	ACT_ROWS("LOCK", locked);
	ACT_ROWS("undefined", undefined);
	ACT_ROWS("vector encoding:", vectors);
	ACT_ROWS("control:", control);
	ACT_ROWS_COMPATIBLE("16-bit code:", sixteen, CODE_16);
	ACT_ROWS_COMPATIBLE("32-bit code:", thirty_two, CODE_32);
}
