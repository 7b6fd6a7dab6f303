/* Accesses from C to guest memory by linear address, piece by piece, MMIO included. */
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"
#include "mmu.h"

/* Aligned operands in one access each: another processor may look. */
static void copy(void *to, const void *from, size_t bytes)
{
	if (!(((uintptr_t)to | (uintptr_t)from) & (bytes - 1)) && bytes <= 8 &&
	    !(bytes & (bytes - 1))) {
		switch (bytes) {
		case 1:
			__atomic_store_n((uint8_t *)to,
					 __atomic_load_n((const uint8_t *)from, __ATOMIC_RELAXED),
					 __ATOMIC_RELEASE);
			return;
		case 2:
			__atomic_store_n((uint16_t *)to,
					 __atomic_load_n((const uint16_t *)from, __ATOMIC_RELAXED),
					 __ATOMIC_RELEASE);
			return;
		case 4:
			__atomic_store_n((uint32_t *)to,
					 __atomic_load_n((const uint32_t *)from, __ATOMIC_RELAXED),
					 __ATOMIC_RELEASE);
			return;
		default:
			__atomic_store_n((uint64_t *)to,
					 __atomic_load_n((const uint64_t *)from, __ATOMIC_RELAXED),
					 __ATOMIC_RELEASE);
			return;
		}
	}
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static int access_pieces(struct soft_cpu *cpu, uint64_t gva, uint8_t *buffer, size_t bytes,
			 unsigned access, struct fault *fault)
{
	if (cpu->watchpoints && !(access & (ACCESS_EXEC | ACCESS_SYSTEM)))
		soft_watch(cpu, gva, bytes, access & ACCESS_WRITE);
	for (size_t done = 0; done < bytes;) {
		size_t left = PAGE_BYTES - ((gva + done) & PAGE_OFFSET_MASK);
		size_t n = bytes - done < left ? bytes - done : left;
		uint64_t gpa;
		unsigned rights;
		uint8_t *hva;

		if (soft_walk(cpu, gva + done, access, &gpa, &rights, fault))
			return -EFAULT;
		hva = soft_hva(cpu->engine, gpa);
		if (hva ? access & ACCESS_WRITE &&
				    cpu->engine->frame_flags[soft_frame(cpu->engine, hva)] &
					    FRAME_READ_ONLY
			: access & ACCESS_EXEC)
			return soft_fail(fault, EXC_GP, true, 0);
		if (!hva) {
			soft_outside(cpu);
			if (access & ACCESS_WRITE)
				cpu->ops->mmio_write(cpu->ops_context, gpa, buffer + done, n);
			else
				cpu->ops->mmio_read(cpu->ops_context, gpa, buffer + done, n);
			soft_inside(cpu);
			/* what a device's register has made deliverable, STI finds */
			if (cpu->kick & KICK_EVENT)
				cpu->interrupt_pending = 1;
		} else if (access & ACCESS_WRITE) {
			copy(hva, buffer + done, n);
			soft_mark_dirty(cpu->engine, hva);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			if (cpu->engine->frame_flags[soft_frame(cpu->engine, hva)] & FRAME_CODE)
				soft_invalidate(cpu->engine, gpa, n);
		} else {
			copy(buffer + done, hva, n);
		}
		done += n;
	}
	return 0;
}

int soft_read(struct soft_cpu *cpu, uint64_t gva, void *to, size_t bytes, unsigned access,
	      struct fault *fault)
{
	return access_pieces(cpu, gva, to, bytes, access, fault);
}

static int check_page_write(struct soft_cpu *cpu, uint64_t gva, unsigned access,
			    struct fault *fault)
{
	uint64_t gpa;
	unsigned rights;
	const uint8_t *hva;

	if (soft_walk(cpu, gva, access | ACCESS_WRITE, &gpa, &rights, fault))
		return -EFAULT;
	hva = soft_hva(cpu->engine, gpa);
	if (hva && cpu->engine->frame_flags[soft_frame(cpu->engine, hva)] & FRAME_READ_ONLY)
		return soft_fail(fault, EXC_GP, true, 0);
	return 0;
}

int soft_check_write(struct soft_cpu *cpu, uint64_t gva, size_t bytes, unsigned access,
		     struct fault *fault)
{
	uint64_t last = gva + bytes - 1;

	if (check_page_write(cpu, gva, access, fault))
		return -EFAULT;
	return last / PAGE_BYTES != gva / PAGE_BYTES ? check_page_write(cpu, last, access, fault)
						     : 0;
}

int soft_write(struct soft_cpu *cpu, uint64_t gva, const void *from, size_t bytes, unsigned access,
	       struct fault *fault)
{
	/* nothing is written where not all can be */
	if ((gva + bytes - 1) / PAGE_BYTES != gva / PAGE_BYTES &&
	    soft_check_write(cpu, gva, bytes, access, fault))
		return -EFAULT;
	return access_pieces(cpu, gva, (uint8_t *)(uintptr_t)from, bytes, access | ACCESS_WRITE,
			     fault);
}
