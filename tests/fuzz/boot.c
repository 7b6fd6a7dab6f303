/*
 * The loaders: the input is a kernel file for a machine of 16 MiB; whatever they accept must have
 * left the state inside it.
 */
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "boot/multiboot.h"
#include "memory/memory.h"
#include "x86/state.h"
#include "fuzz.h"

enum { MEMORY_BYTES = 16 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct guest_memory memory;
	static struct x86_state state;
	struct boot_extent extent = { 0 };
	/* exactly as long as the input: a read beyond it is seen */
	uint8_t *copy = malloc(bytes ? bytes : 1);
	struct boot_file file = { copy, bytes };
	struct boot_file module = { copy, bytes / 3 };
	const char *reason = NULL;
	int error;

	if (!memory.ram) {
		memory.ram = malloc(MEMORY_BYTES);
		memory.ram_bytes = memory.low_bytes = MEMORY_BYTES;
	}
	memcpy(copy, data, bytes);
	if (boot_is_multiboot(file))
		error = boot_multiboot(&memory, file, module, "a b", &extent, &state, &reason);
	else
		error = boot_linux(&memory, file, module, "a b", &extent, &state, &reason);
	if (error ? !reason : state.rip >= MEMORY_BYTES || extent.end_gpa > MEMORY_BYTES)
		abort();
	free(copy);
	return 0;
}

static size_t linux_seed(unsigned n, uint8_t *data)
{
	static const uint8_t magic[] = { 'H', 'd', 'r', 'S', 0x0f, 0x02 };
	const uint32_t syssize = 0x100;
	const uint32_t init_size = 0x400000;
	const uint32_t command_max = 255;
	const uint64_t address = 0x100000 + n * 0x10000;

	memset(data, 0, 8192);
	data[0x1f1] = (uint8_t)(n % 8);
	memcpy(data + 0x1f4, &syssize, 4);
	data[0x1fe] = 0x55;
	data[0x1ff] = 0xaa;
	data[0x200] = 0xeb;
	data[0x201] = 0x66;
	memcpy(data + 0x202, magic, 6);
	data[0x236] = 1;
	memcpy(data + 0x238, &command_max, 4);
	memcpy(data + 0x258, &address, 8);
	memcpy(data + 0x260, &init_size, 4);
	return 8192;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	const uint32_t header[3] = { 0x1badb002, n & 3, -0x1badb002u - (n & 3) };

	if (n % 3 == 0)
		return linux_seed(n, data);
	memset(data, 0, GUEST_PAGE_BYTES);
	memcpy(data + 2048, header, sizeof(header));
	if (n % 3 == 1) {
		Elf64_Ehdr *header = (Elf64_Ehdr *)(void *)data;
		Elf64_Phdr *segment = (Elf64_Phdr *)(void *)(data + sizeof(*header));

		memcpy(header->e_ident, ELFMAG, SELFMAG);
		header->e_ident[EI_CLASS] = ELFCLASS64;
		*header = (Elf64_Ehdr){ .e_machine = EM_X86_64,
					.e_entry = 0x100010,
					.e_phoff = sizeof(*header),
					.e_phnum = 2,
					.e_phentsize = sizeof(*segment) };
		memcpy(header->e_ident, ELFMAG "\2", 5);
		segment[0] = (Elf64_Phdr){ .p_type = PT_LOAD,
					   .p_offset = 0,
					   .p_paddr = 0x100000,
					   .p_filesz = GUEST_PAGE_BYTES,
					   .p_memsz = 8192 };
		segment[1] = (Elf64_Phdr){ .p_type = PT_LOAD,
					   .p_offset = 100,
					   .p_paddr = 0x200000 + n,
					   .p_filesz = 100,
					   .p_memsz = 1u << n % 24 };
	} else {
		Elf32_Ehdr *header = (Elf32_Ehdr *)(void *)data;
		Elf32_Phdr *segment = (Elf32_Phdr *)(void *)(data + sizeof(*header));

		*header = (Elf32_Ehdr){ .e_machine = EM_386,
					.e_entry = 0x100010,
					.e_phoff = sizeof(*header),
					.e_phnum = 2,
					.e_phentsize = sizeof(*segment) };
		memcpy(header->e_ident, ELFMAG "\1", 5);
		segment[0] = (Elf32_Phdr){ .p_type = PT_LOAD,
					   .p_offset = 0,
					   .p_paddr = 0x100000,
					   .p_filesz = GUEST_PAGE_BYTES,
					   .p_memsz = 8192 };
		segment[1] = (Elf32_Phdr){ .p_type = PT_LOAD,
					   .p_offset = 100,
					   .p_paddr = 0x200000 + n,
					   .p_filesz = 100,
					   .p_memsz = 1u << n % 24 };
	}
	return GUEST_PAGE_BYTES;
}
