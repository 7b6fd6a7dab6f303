/* The translate room: from guest code to host code. */
#pragma once

#include "engine/soft/soft_internal.h"

struct block;

/*
 * Under the lock, with room in the code cache: a block for state.rip, which is gpa. NULL: *fault.
 */
struct block *soft_translate(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode,
			     struct fault *fault);
