/*
 * The instruction room: what translated code leaves to C, one noun a file; and delivery of
 * exceptions.
 */
#pragma once

#include "engine/soft/soft_internal.h"

/* One instruction. next: where it leads; fault: what -EFAULT means. */
struct step {
	struct soft_cpu *cpu;
	struct x86_state *state;
	const struct x86_insn *insn;
	uint64_t next;
	struct fault *fault;
};

/* system.c: does one instruction, and returns the host code to go on with. */
void *soft_system(struct soft_cpu *cpu, const struct x86_insn *insn);
int insn_general_protection(struct step *step);
int insn_undefined(struct step *step);
static inline bool insn_model_has(const struct step *step, enum cpu_feature feature)
{
	const struct cpu_model *model = step->cpu->engine->model;

	return !model || cpu_has(&model->features, feature);
}

/* Where the manuals of the vendors differ; with no model neither is. */
static inline bool insn_is_vendor(const struct step *step, enum cpu_vendor vendor)
{
	const struct cpu_model *model = step->cpu->engine->model;

	return model && model->vendor == vendor;
}

/* exception.c */
uint64_t soft_rflags(const struct soft_cpu *cpu);
void soft_set_rflags(struct soft_cpu *cpu, uint64_t value);
/* Fills *fault; -EFAULT. */
int soft_fail(struct fault *fault, unsigned vector, bool has_code, uint32_t code);
/*
 * Delivery through the IDT; faults on the way are dealt with (SDM table 6-5). -EIO: a triple fault,
 * the processor stops. Every fault comes through soft_deliver_fault(): CR2 is set there and nowhere
 * else.
 */
int soft_deliver_fault(struct soft_cpu *cpu, const struct fault *fault);
int soft_deliver_interrupt(struct soft_cpu *cpu, uint8_t vector); /* also NMI, and #DB as a trap */
/* INT n, INT3, INTO */
int soft_deliver_software(struct soft_cpu *cpu, uint8_t vector, uint64_t return_rip);
/* INT1: no gate's DPL is looked at */
int soft_deliver_icebp(struct soft_cpu *cpu, uint64_t return_rip);

/* delivery.c: one event, once. -EFAULT: *fault came up on the way. */
enum event_kind { EVENT_FAULT, EVENT_INTERRUPT, EVENT_SOFTWARE };
struct event {
	uint8_t vector;
	bool has_code;
	enum event_kind kind;
	uint32_t code;
	uint64_t return_rip;
};
int soft_deliver_event(struct soft_cpu *cpu, const struct event *event, struct fault *fault);
/* The stack of an inner level in protected mode, from the TSS (SDM Vol. 3A 6.12.1, 7.2.1). */
int insn_inner_stack(struct step *step, unsigned cpl, uint32_t ext, struct x86_segment_state *ret,
		     uint64_t *ret_pointer);

/*
 * task.c: leaves the task for that of the TSS that selector names (SDM Vol. 3A 7.3). step->next is
 * where the old one goes on, flags what is saved of it, state->rip then where the new one does; ext
 * goes into error codes. Faults up to the commit leave all as it was; those behind it belong to the
 * new task.
 */
enum task_reason { TASK_BY_JMP, TASK_BY_CALL, TASK_BY_IRET, TASK_BY_INTERRUPT };
int insn_switch_task(struct step *step, uint16_t selector, enum task_reason reason, uint64_t flags,
		     uint32_t ext);

/* operand.c */
uint64_t insn_address(const struct step *step);
int insn_get_rm(struct step *step, unsigned bytes, uint64_t *ret);
/* An operand in memory that is an offset and a selector behind it. *ret_bytes: the offset's. */
int insn_get_far_pointer(struct step *step, uint64_t *ret_offset, uint16_t *ret_selector,
			 unsigned *ret_bytes);
int insn_put_rm(struct step *step, unsigned bytes, uint64_t value);
void insn_set_gpr(struct step *step, unsigned reg, uint64_t value, unsigned bytes);

/* stack.c */
unsigned insn_stack_bytes(const struct step *step);
unsigned insn_stack_address_bytes(const struct step *step);
/* 0, or -EFAULT: what segmentation and alignment checking say of the stack at this offset. */
int insn_check_stack(struct step *step, uint64_t sp, unsigned bytes, bool write);
void insn_move_stack(struct step *step, uint64_t bytes);
int insn_push(struct step *step, uint64_t value, unsigned bytes);
int insn_pop(struct step *step, uint64_t *ret, unsigned bytes);
int insn_push_pop(struct step *step);
/* Near jumps, calls and returns, LEAVE. */
int insn_near_transfer(struct step *step);
/* Whether code can be fetched at t->next: inside the limit, or canonical. */
bool insn_may_go_on(const struct step *step);

/* limit.c */
/* MODE_LIMITED, MODE_FS_LIMITED, MODE_GS_LIMITED of 16- and 32-bit code. */
uint32_t soft_limited_segments(const struct x86_state *state);
/* Whether user code is checked for aligned operands. */
bool soft_checks_alignment(const struct x86_state *state);
/* 0, or -EFAULT: #SS or #GP; #AC where the access is not aligned to so many bytes. */
int soft_check_segment(struct soft_cpu *cpu, unsigned segment, uint64_t offset, unsigned bytes,
		       bool write, struct fault *fault);
int soft_check_alignment(struct soft_cpu *cpu, uint64_t gva, unsigned bytes, struct fault *fault);
/* The same of the operand in memory that modrm or an offset names. */
int insn_check_operand(struct step *step);
/* Whether so many bytes at an offset are within a segment's limit, whatever else it is. */
bool soft_segment_holds(const struct x86_segment_state *segment, uint64_t offset, unsigned bytes);

/* segment.c */
enum { /* x86_segment_state.attributes */
       SEGMENT_ACCESSED = 1,
       SEGMENT_WRITE_OR_READ = 2,
       CODE_CONFORMING = 4,
       SEGMENT_CODE = 8,
       SEGMENT_NOT_SYSTEM = 0x10,
       SEGMENT_PRESENT = 0x80,
       CODE_LONG = 0x2000,
       CODE_DB = 0x4000 /* L, D or B */,
};
static inline bool insn_is_code(const struct x86_segment_state *segment)
{
	return (segment->attributes & (SEGMENT_NOT_SYSTEM | SEGMENT_CODE)) ==
	       (SEGMENT_NOT_SYSTEM | SEGMENT_CODE);
}
static inline bool insn_is_writable(const struct x86_segment_state *segment)
{
	return (segment->attributes &
		(SEGMENT_NOT_SYSTEM | SEGMENT_CODE | SEGMENT_WRITE_OR_READ)) ==
	       (SEGMENT_NOT_SYSTEM | SEGMENT_WRITE_OR_READ);
}
/* Virtual-8086 mode; and whether segments are what they are in real mode. */
static inline bool insn_is_virtual(const struct x86_state *state)
{
	return state->cr0 & CR0_PE && state->rflags & FLAG_VM;
}
static inline bool insn_is_real(const struct x86_state *state)
{
	return !(state->cr0 & CR0_PE) || state->rflags & FLAG_VM;
}
/* A segment of virtual-8086 mode. */
static inline struct x86_segment_state insn_virtual_segment(uint16_t selector)
{
	return (struct x86_segment_state){ .selector = selector,
					   .attributes = 0xf3,
					   .limit = 0xffff,
					   .base = (uint64_t)selector << 4 };
}
/* Sets the descriptor's accessed bit in its table, where it is not set. */
int insn_mark_accessed(struct step *step, uint16_t selector, const uint64_t descriptor[2]);
/* Every load of CS outside of SYSCALL and its like, which have one base. */
void insn_set_code(struct soft_cpu *cpu, const struct x86_segment_state *code);
void soft_set_code_segment(struct x86_state *state, uint16_t selector, uint16_t attributes);
int insn_read_descriptor(struct step *step, uint16_t selector, uint64_t ret[2], bool wide);
struct x86_segment_state insn_unpack_descriptor(uint16_t selector, const uint64_t descriptor[2]);
int insn_load_segment(struct step *step, unsigned which, uint16_t selector);
int insn_descriptor_tables(struct step *step);
int insn_system_segments(struct step *step);
int insn_lar_lsl(struct step *step);
int insn_fs_gs_base(struct step *step);
int insn_swapgs(struct step *step);
int insn_mov_from_segment(struct step *step);
int insn_mov_to_segment(struct step *step);
int insn_pop_segment(struct step *step, unsigned which);

/* far_transfer.c */
int insn_far_direct(struct step *step, bool call);
int insn_far_indirect(struct step *step, bool call);
int insn_far_return(struct step *step);
int insn_iret(struct step *step);
int insn_syscall(struct step *step);
int insn_sysret(struct step *step);
int insn_sysenter(struct step *step);
int insn_sysexit(struct step *step);
int insn_interrupt(struct step *step);
int insn_icebp(struct step *step);
int insn_software_interrupt(struct step *step, uint8_t vector);

/* legacy.c */
int insn_decimal_adjust(struct step *step, bool subtract);
int insn_ascii_adjust(struct step *step, bool subtract);
int insn_aam(struct step *step);
int insn_aad(struct step *step);
int insn_salc(struct step *step);
int insn_into(struct step *step);
int insn_bound(struct step *step);
int insn_arpl(struct step *step);
int insn_load_far_pointer(struct step *step, unsigned segment);
int insn_enter(struct step *step);

/* control_register.c */
int insn_write_cr(struct step *step, unsigned cr, uint64_t value);
int insn_mov_control(struct step *step);
int insn_smsw(struct step *step);
int insn_lmsw(struct step *step);
int insn_clts(struct step *step);

/* msr.c */
int insn_access_msr(struct step *step, bool write);
int insn_rdtscp(struct step *step);
int insn_rdpmc(struct step *step);

/* port_io.c */
/* Whether the level, or the task's bitmap, allows it: 0, or -EFAULT. */
int soft_check_port(struct soft_cpu *cpu, uint16_t port, unsigned bytes, struct fault *fault);
int insn_port(struct step *step);

/* xsave.c */
int insn_save_area(struct step *step);
int insn_xgetbv(struct step *step);
int insn_xsetbv(struct step *step);

/* x87.c */
/* In the first bytes of an FXSAVE or XSAVE area. */
void insn_clear_x87_pointers(uint8_t *area);
/* FNSTENV, FNSAVE. */
int insn_x87_environment(struct step *step);

/* invlpg.c */
int insn_invlpg(struct step *step);
int insn_invpcid(struct step *step);

/* flags.c */
void insn_set_zero_flag(struct step *step, bool set);
static inline unsigned insn_iopl(const struct x86_state *state) { return state->rflags >> 12 & 3; }
int insn_push_pop_flags(struct step *step);
int insn_set_interrupt_flag(struct step *step, bool set);
int insn_set_alignment_check(struct step *step, bool set);
int insn_set_direction(struct step *step, bool set);

/* string.c */
int soft_string(struct soft_cpu *cpu, const struct x86_insn *insn, struct fault *fault);

/* vector.c: the vector state is in the host's registers before and after */
int soft_scattered(struct soft_cpu *cpu, const struct x86_insn *insn, struct fault *fault);

/* debug.c */
int soft_read_dr(struct soft_cpu *cpu, unsigned number, uint64_t *ret, struct fault *fault);
int soft_write_dr(struct soft_cpu *cpu, unsigned number, uint64_t value, struct fault *fault);
bool soft_hits_breakpoint(struct soft_cpu *cpu, uint64_t linear);
bool soft_is_watched_page(const struct soft_cpu *cpu, uint64_t gva);
void soft_watch(struct soft_cpu *cpu, uint64_t gva, size_t bytes, bool write);
/* A port: its trap comes after the instruction. */
void soft_watch_port(struct soft_cpu *cpu, uint16_t port, unsigned bytes);
bool soft_debug_trap(struct soft_cpu *cpu);
void soft_debug_merge(struct soft_cpu *cpu);
/* DR0 to DR3 or DR7 are others now. */
void soft_debug_changed(struct soft_cpu *cpu);
