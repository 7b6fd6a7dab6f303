/* The translate room: from guest code to host code. */
#pragma once

#include "engine/soft/soft_internal.h"

struct block;

/* Under the lock, with room in the code cache: a block for state.rip, which is gpa. NULL: *fault. */
struct block *soft_translate(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode, struct fault *fault);
/* Whether CR0.TS and CR0.EM concern it. */
bool soft_uses_fpu(const struct x86_insn *insn);
