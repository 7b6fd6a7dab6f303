/*
 * Guest memory as the kernel finds it:
 *
 *   0x1000 GDT   0x2000 zero page   0x3000 command line   0x4000.. page tables (identity, 4 GiB of
 *                2 MiB pages)
 *   0xe0000 ACPI tables   pref_address kernel   below the end of low memory: initrd
 *
 * Every number of the header is checked against the file and the memory before it is used.
 */
#include "linux.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "x86/state.h"

enum {
	GDT_GPA = 0x1000, ZERO_PAGE_GPA = 0x2000, COMMAND_GPA = 0x3000, TABLES_GPA = 0x4000,
	COMMAND_MAX = 0x1000
};

struct header { uint32_t setup_bytes, init_size, command_max; uint64_t address, payload_bytes; };

int boot_refuse(const char **ret_reason, const char *reason, int error)
{
	assert(error < 0);
	*ret_reason = reason;
	return error;
}

static uint64_t header_field(const uint8_t *at, size_t bytes)
{
	uint64_t value = 0;

	memcpy(&value, at, bytes);
	return value;
}

static void put(uint8_t *at, uint64_t value, size_t bytes) { memcpy(at, &value, bytes); }

bool boot_is_linux(struct boot_file kernel)
{
	return kernel.bytes >= BOOT_LINUX_HEAD_BYTES && !memcmp(kernel.data + 0x202, "HdrS", 4) &&
	       header_field(kernel.data + 0x1fe, 2) == 0xaa55;
}

static int parse(struct boot_file kernel, struct header *header, const char **reason)
{
	uint64_t syssize;

	if (!boot_is_linux(kernel))
		return boot_refuse(reason, "it is not a Linux bzImage", -ENOEXEC);
	if (header_field(kernel.data + 0x206, 2) < 0x20c ||
	    !(header_field(kernel.data + 0x236, 2) & 1))
		return boot_refuse(reason, "it has no 64-bit entry (boot protocol 2.12 is needed)",
				   -ENOEXEC);
	header->setup_bytes = ((uint32_t)(kernel.data[0x1f1] ? kernel.data[0x1f1] : 4) + 1) * 512;
	syssize = header_field(kernel.data + 0x1f4, 4) * 16;
	if (header->setup_bytes >= kernel.bytes)
		return boot_refuse(reason, "it is truncated", -ENOEXEC);
	header->payload_bytes = kernel.bytes - header->setup_bytes;
	if (syssize > header->payload_bytes + 16)
		return boot_refuse(reason, "it is truncated", -ENOEXEC);
	header->address = header_field(kernel.data + 0x258, 8);
	header->init_size = (uint32_t)header_field(kernel.data + 0x260, 4);
	header->command_max = (uint32_t)header_field(kernel.data + 0x238, 4);
	if (header->address < 0x100000 || header->address > 1ull << 30 ||
	    header->payload_bytes > header->init_size)
		return boot_refuse(reason, "its header lies about addresses or sizes", -ENOEXEC);
	return 0;
}

static void e820(uint8_t *zero, uint64_t base, uint64_t bytes, uint32_t type)
{
	uint8_t *entry = zero + 0x2d0 + 20 * zero[0x1e8]++;

	put(entry, base, 8);
	put(entry + 8, bytes, 8);
	put(entry + 16, type, 4);
}

/* The first 4 GiB: one table of the first level, one of the second, four of 2 MiB pages. */
static void identity_map(uint8_t *ram)
{
	enum { PRESENT_WRITABLE = 3, LARGE = 0x80, ENTRIES = 512, ENTRY_BYTES = 8, GIBS = 4 };
	const uint64_t second_gpa = TABLES_GPA + GUEST_PAGE_BYTES;
	const uint64_t third_gpa = second_gpa + GUEST_PAGE_BYTES;

	put(ram + TABLES_GPA, second_gpa | PRESENT_WRITABLE, ENTRY_BYTES);
	for (uint64_t gib = 0; gib < GIBS; gib++) {
		uint64_t table_gpa = third_gpa + gib * GUEST_PAGE_BYTES;

		put(ram + second_gpa + ENTRY_BYTES * gib, table_gpa | PRESENT_WRITABLE,
		    ENTRY_BYTES);
		for (uint64_t n = 0; n < ENTRIES; n++)
			put(ram + table_gpa + ENTRY_BYTES * n,
			    (gib << 30 | n << 21) | LARGE | PRESENT_WRITABLE, ENTRY_BYTES);
	}
}

void boot_state_init(struct x86_state *state, uint64_t entry, const struct x86_segment_state *code,
		     const struct x86_segment_state *data)
{
	assert(code->selector && data->selector && code->selector != data->selector);
	memset(state, 0, sizeof(*state));
	for (int n = 0; n < X86_SEGMENTS; n++)
		state->segment[n] = n == X86_CS ? *code : *data;
	state->tr = (struct x86_segment_state){ .attributes = 0x8b };
	state->xcr0 = 1;
	state->pat = 0x0007040600070406;
	state->dr[6] = 0xffff0ff0;
	state->dr[7] = 0x400;
	state->rflags = 2;
	state->rip = entry;
}

static void entry_state(uint8_t *ram, uint64_t entry, struct x86_state *state)
{
	const uint64_t gdt[4] = { 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff };
	const struct x86_segment_state code = { .selector = 0x10,
						.attributes = 0xa09b,
						.limit = ~0u };
	const struct x86_segment_state data = { .selector = 0x18,
						.attributes = 0xc093,
						.limit = ~0u };

	memcpy(ram + GDT_GPA, gdt, sizeof(gdt));
	boot_state_init(state, entry, &code, &data);
	state->tr.limit = 0x67;
	state->gdtr = (struct x86_table){ GDT_GPA, 31 };
	state->cr0 = CR0_PE | CR0_PG | 0x30;
	state->cr3 = TABLES_GPA;
	state->cr4 = CR4_PAE;
	state->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	state->gpr[6] = ZERO_PAGE_GPA;
}

uint64_t boot_module_gpa(const struct guest_memory *memory, uint64_t bytes)
{
	return (memory->low_bytes - bytes) & ~(uint64_t)(GUEST_PAGE_BYTES - 1);
}

int boot_linux(const struct guest_memory *memory, struct boot_file kernel, struct boot_file initrd,
	       const char *command_line, struct boot_extent *ret_extent,
	       struct x86_state *ret_state, const char **reason)
{
	struct header header = { .setup_bytes = 0 };
	uint8_t *zero = memory->ram + ZERO_PAGE_GPA;
	uint64_t initrd_gpa = 0;
	int error = parse(kernel, &header, reason);

	assert(command_line && (initrd.data || !initrd.bytes));
	if (error)
		return error;
	if (header.address + header.init_size > memory->low_bytes)
		return boot_refuse(reason, "the memory is too small for it", -ENOMEM);
	if (strlen(command_line) > header.command_max || strlen(command_line) >= COMMAND_MAX)
		return boot_refuse(reason, "the command line is longer than it takes", -E2BIG);
	memcpy(memory->ram + header.address, kernel.data + header.setup_bytes,
	       header.payload_bytes);
	*ret_extent = (struct boot_extent){ .gpa = header.address,
					    .end_gpa = header.address + header.payload_bytes };
	memset(zero, 0, GUEST_PAGE_BYTES);
	memcpy(zero + 0x1f1, kernel.data + 0x1f1,
	       0x11 + kernel.data[0x201] > 0x7f ? 0x7f : 0x11u + kernel.data[0x201]);
	if (initrd.bytes) {
		initrd_gpa = boot_module_gpa(memory, initrd.bytes);
		if (initrd.bytes > memory->low_bytes ||
		    initrd_gpa < header.address + header.init_size)
			return boot_refuse(reason, "the initrd does not fit beside it", -ENOMEM);
		memcpy(memory->ram + initrd_gpa, initrd.data, initrd.bytes);
	}
	zero[0x210] = 0xff;
	put(zero + 0x218, initrd_gpa, 4);
	put(zero + 0x21c, initrd.bytes, 4);
	put(zero + 0x228, COMMAND_GPA, 4);
	put(zero + 0x070, 0xe0000, 8);
	strcpy((char *)memory->ram + COMMAND_GPA, command_line);
	e820(zero, 0, 0x9f000, 1);
	e820(zero, 0xe0000, 0x10000, 3);
	e820(zero, 0xf0000, 0x10000, 2);
	e820(zero, 0x100000, memory->low_bytes - 0x100000, 1);
	if (guest_memory_populated_bytes(memory) > memory->low_bytes)
		e820(zero, 1ull << 32, guest_memory_populated_bytes(memory) - memory->low_bytes, 1);
	identity_map(memory->ram);
	entry_state(memory->ram, header.address + 0x200, ret_state);
	return 0;
}
