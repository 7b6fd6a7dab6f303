/* Accesses from C to guest memory by linear address, piece by piece, MMIO included. */
#include <errno.h>

#include "engine/soft/code/code.h"
#include "engine/soft/insn/insn.h"
#include "mmu.h"
#include "table.h"
#include "page_table.h"

static void copy_words(uint64_t *to, const uint64_t *from, size_t words)
{
	for (size_t n = 0; n < words; n++)
		__atomic_store_n(&to[n], __atomic_load_n(&from[n], __ATOMIC_RELAXED),
				 __ATOMIC_RELEASE);
}

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
	if (!(((uintptr_t)to | (uintptr_t)from | bytes) & 7)) {
		copy_words(to, from, bytes / 8);
		return;
	}
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

void soft_has_written(struct soft_engine *engine, uint8_t *hva, uint64_t gpa, size_t bytes)
{
	uint64_t frame = soft_frame(engine, hva);

	soft_mark_dirty(engine, hva);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	page_table_written(engine, frame);
	if (engine->frame_flags[frame] & FRAME_CODE)
		soft_invalidate(engine, gpa, bytes);
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
			soft_has_written(cpu->engine, hva, gpa, n);
		} else {
			copy(buffer + done, hva, n);
		}
		done += n;
	}
	return 0;
}

static unsigned view_of(const struct soft_cpu *cpu, unsigned access)
{
	if (!(access & ACCESS_SYSTEM))
		return soft_view(&cpu->state);
	return cpu->state.cr4 & CR4_SMAP ? VIEW_KERNEL : VIEW_KERNEL_AC;
}

/* As translated code looks an address up; NULL: nothing is cached there. */
static uint8_t *look_up(const struct soft_cpu *cpu, uint64_t gva, unsigned access)
{
	unsigned view = view_of(cpu, access);
	uint64_t table = access & ACCESS_WRITE ? cpu->view_write[view] : cpu->view_read[view];
	uint64_t entry = __atomic_load_n(table_entry(table, gva), __ATOMIC_RELAXED);

	return entry ? (uint8_t *)((entry ^ cpu->poison) + gva) : NULL;
}

/* What nobody has accessed yet is cached for what is to come; the system's own as the kernel's. */
static int fill(struct soft_cpu *cpu, uint64_t gva, unsigned access, struct fault *fault)
{
	struct x86_state *state = &cpu->state;
	const uint64_t flags = state->rflags;
	const uint8_t cpl = state->cpl;
	uint64_t gpa;
	uint8_t *hva;
	int error;

	if (access & ACCESS_SYSTEM) {
		state->cpl = 0;
		state->rflags &= ~(uint64_t)FLAG_AC;
	}
	error = soft_fill(cpu, gva, access & (ACCESS_READ | ACCESS_WRITE), &hva, &gpa, fault);
	state->cpl = cpl;
	state->rflags = flags;
	return error;
}

/*
 * The host address of an access within a page, in long mode. *ret_hva = NULL: it is to be done
 * piece by piece, since it is none, or goes to a device or to code.
 */
static int reach(struct soft_cpu *cpu, uint64_t gva, size_t bytes, unsigned access,
		 uint8_t **ret_hva, struct fault *fault)
{
	*ret_hva = NULL;
	if (!(cpu->state.efer & EFER_LMA) || access & ACCESS_EXEC || cpu->watchpoints ||
	    !soft_canonical(gva) || (gva & PAGE_OFFSET_MASK) + bytes > PAGE_BYTES)
		return 0;
	*ret_hva = look_up(cpu, gva, access);
	if (*ret_hva)
		return 0;
	if (fill(cpu, gva, access, fault))
		return -EFAULT;
	*ret_hva = look_up(cpu, gva, access);
	return 0;
}

int soft_read(struct soft_cpu *cpu, uint64_t gva, void *to, size_t bytes, unsigned access,
	      struct fault *fault)
{
	uint8_t *hva;

	if (reach(cpu, gva, bytes, access, &hva, fault))
		return -EFAULT;
	if (hva) {
		copy(to, hva, bytes);
		return 0;
	}
	return access_pieces(cpu, gva, to, bytes, access, fault);
}

bool soft_read_words(const struct soft_cpu *cpu, uint64_t gva, uint64_t *to, unsigned words)
{
	const uint8_t *hva;

	if (!(cpu->state.efer & EFER_LMA) || cpu->watchpoints || !soft_canonical(gva) ||
	    gva % sizeof(*to) || gva % PAGE_BYTES + words * sizeof(*to) > PAGE_BYTES)
		return false;
	hva = look_up(cpu, gva, ACCESS_READ);
	if (hva)
		copy_words(to, (const uint64_t *)(const void *)hva, words);
	return hva;
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
	uint8_t *hva;

	if (reach(cpu, gva, bytes, access | ACCESS_WRITE, &hva, fault))
		return -EFAULT;
	if (hva) {
		copy(hva, from, bytes);
		return 0;
	}
	/* nothing is written where not all can be */
	if ((gva + bytes - 1) / PAGE_BYTES != gva / PAGE_BYTES &&
	    soft_check_write(cpu, gva, bytes, access, fault))
		return -EFAULT;
	return access_pieces(cpu, gva, (uint8_t *)(uintptr_t)from, bytes, access | ACCESS_WRITE,
			     fault);
}
