/*
 * Guest memory as the image finds it:
 *
 *   0x413 KiB of conventional memory, as firmware leaves it there
 *   0x1000 GDT   0x2000 information   0x2100 memory map   0x2200 module list   0x3000 command line
 *   segments at their physical addresses: from 0x8000 to 0x9f000, or at or above 1 MiB
 *   below the end of low memory: module
 *
 * Every number of the file is checked against the file and the memory before it is used. ELF32 and
 * ELF64 (x86) images.
 */
#include "multiboot.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "x86/state.h"

enum {
	HEADER_MAGIC = 0x1badb002,
	LOADER_MAGIC = 0x2badb002,
	HEADER_SEARCH_BYTES = 8192,
	FLAG_UNSUPPORTED = 0xfffc & ~4,
	MAX_SEGMENTS = 64,
	GDT_GPA = 0x1000,
	INFO_GPA = 0x2000,
	MAP_GPA = 0x2100,
	MODULES_GPA = 0x2200,
	COMMAND_GPA = 0x3000,
	COMMAND_MAX = 0x1000,
	LOWEST_GPA = 0x100000,
	FREE_GPA = 0x8000,
	CONVENTIONAL_END = 0x9f000,
	CONVENTIONAL_KIB = CONVENTIONAL_END / 1024,
	BIOS_CONVENTIONAL_KIB_GPA = 0x413, /* of the BIOS data area: Xen looks there */
};
enum { INFO_MEMORY = 1, INFO_COMMAND = 4, INFO_MODULES = 8, INFO_MAP = 0x40, INFO_NAME = 0x200 };

struct segment { uint64_t offset, gpa, file_bytes, memory_bytes; };

static uint32_t get32(struct boot_file file, size_t at)
{
	uint32_t value;

	memcpy(&value, file.data + at, 4);
	return value;
}

static size_t find_header(struct boot_file file)
{
	for (size_t at = 0; at + 12 <= file.bytes && at < HEADER_SEARCH_BYTES; at += 4)
		if (get32(file, at) == HEADER_MAGIC &&
		    get32(file, at) + get32(file, at + 4) + get32(file, at + 8) == 0)
			return at;
	return SIZE_MAX;
}

bool boot_is_multiboot(struct boot_file image) { return find_header(image) != SIZE_MAX; }

/* Above what the loader writes itself, and not among the firmware's tables. */
static bool is_free(const struct segment *segment)
{
	if (segment->gpa >= LOWEST_GPA)
		return true;
	return segment->gpa >= FREE_GPA && segment->gpa < CONVENTIONAL_END &&
	       segment->memory_bytes <= CONVENTIONAL_END - segment->gpa;
}

static int load(const struct guest_memory *memory, struct boot_file file,
		const struct segment *segment, uint64_t *end, const char **reason)
{
	if (segment->offset > file.bytes || segment->file_bytes > file.bytes - segment->offset ||
	    segment->file_bytes > segment->memory_bytes)
		return boot_refuse(reason, "a segment lies outside the file", -ENOEXEC);
	if (!is_free(segment))
		return boot_refuse(reason, "a segment lies below 1 MiB where other things are",
				   -ENOEXEC);
	if (segment->gpa > memory->low_bytes ||
	    segment->memory_bytes > memory->low_bytes - segment->gpa)
		return boot_refuse(reason, "the memory is too small for it", -ENOMEM);
	memcpy(memory->ram + segment->gpa, file.data + segment->offset, segment->file_bytes);
	if (segment->gpa < *end) /* beyond what is loaded the memory is as it was made */
		memset(memory->ram + segment->gpa + segment->file_bytes, 0,
		       segment->memory_bytes - segment->file_bytes);
	*end = segment->gpa + segment->memory_bytes > *end ? segment->gpa + segment->memory_bytes
							   : *end;
	return 0;
}

/* Of either class: where the headers of its segments are, and what one of them says. */
struct program {
	uint64_t headers_at, entry;
	unsigned count, header_bytes;
	/* The size that this knows; a file may have larger ones. */
	size_t known_bytes;
	/* False: nothing to be loaded. */
	bool (*read)(const uint8_t *header, struct segment *ret);
};

static bool read_segment32(const uint8_t *header, struct segment *ret)
{
	Elf32_Phdr segment;

	memcpy(&segment, header, sizeof(segment));
	*ret = (struct segment){ .offset = segment.p_offset,
				 .gpa = segment.p_paddr,
				 .file_bytes = segment.p_filesz,
				 .memory_bytes = segment.p_memsz };
	return segment.p_type == PT_LOAD;
}

static bool read_segment64(const uint8_t *header, struct segment *ret)
{
	Elf64_Phdr segment;

	memcpy(&segment, header, sizeof(segment));
	*ret = (struct segment){ .offset = segment.p_offset,
				 .gpa = segment.p_paddr,
				 .file_bytes = segment.p_filesz,
				 .memory_bytes = segment.p_memsz };
	return segment.p_type == PT_LOAD;
}

/* False: it is for another processor. */
static bool read_program32(struct boot_file file, struct program *ret)
{
	Elf32_Ehdr elf;

	memcpy(&elf, file.data, sizeof(elf));
	*ret = (struct program){ .headers_at = elf.e_phoff,
				 .entry = elf.e_entry,
				 .count = elf.e_phnum,
				 .header_bytes = elf.e_phentsize,
				 .known_bytes = sizeof(Elf32_Phdr),
				 .read = read_segment32 };
	return elf.e_machine == EM_386;
}

static bool read_program64(struct boot_file file, struct program *ret)
{
	Elf64_Ehdr elf;

	memcpy(&elf, file.data, sizeof(elf));
	*ret = (struct program){ .headers_at = elf.e_phoff,
				 .entry = elf.e_entry,
				 .count = elf.e_phnum,
				 .header_bytes = elf.e_phentsize,
				 .known_bytes = sizeof(Elf64_Phdr),
				 .read = read_segment64 };
	return elf.e_machine == EM_X86_64;
}

static bool headers_fit(struct boot_file file, const struct program *program)
{
	return program->count <= MAX_SEGMENTS && program->header_bytes >= program->known_bytes &&
	       program->headers_at <= file.bytes &&
	       (uint64_t)program->count * program->header_bytes <= file.bytes - program->headers_at;
}

static int load_elf(const struct guest_memory *memory, struct boot_file file, uint64_t *entry,
		    uint64_t *end, const char **reason)
{
	struct program program;
	bool is_known = file.data[EI_CLASS] == ELFCLASS32 ? read_program32(file, &program)
							  : read_program64(file, &program);
	int error = 0;

	if (!is_known || !headers_fit(file, &program))
		return boot_refuse(reason, "its program headers lie outside the file", -ENOEXEC);
	for (unsigned n = 0; n < program.count && !error; n++) {
		const uint8_t *header =
			file.data + program.headers_at + n * (uint64_t)program.header_bytes;
		struct segment segment;

		if (program.read(header, &segment))
			error = load(memory, file, &segment, end, reason);
	}
	*entry = program.entry;
	return error;
}

static int load_image(const struct guest_memory *memory, struct boot_file file, uint64_t *entry,
		      uint64_t *end, const char **reason)
{
	if (get32(file, find_header(file) + 4) & FLAG_UNSUPPORTED)
		return boot_refuse(reason, "it asks for what is not offered (multiboot flags)",
				   -ENOEXEC);
	if (file.bytes < sizeof(Elf64_Ehdr) || memcmp(file.data, ELFMAG, SELFMAG))
		return boot_refuse(reason, "it is not an ELF file", -ENOEXEC);
	return load_elf(memory, file, entry, end, reason);
}

static void put32(uint8_t *at, uint32_t value) { memcpy(at, &value, 4); }

static void map_entry(uint8_t *at, uint64_t base, uint64_t bytes, uint32_t type)
{
	put32(at, 20);
	memcpy(at + 4, &base, 8);
	memcpy(at + 12, &bytes, 8);
	put32(at + 20, type);
}

static void information(const struct guest_memory *memory, uint64_t module_gpa,
			uint64_t module_bytes)
{
	uint8_t *info = memory->ram + INFO_GPA;
	uint8_t *map = memory->ram + MAP_GPA;
	const uint16_t conventional_kib = CONVENTIONAL_KIB;
	unsigned entries = 3;

	memcpy(memory->ram + BIOS_CONVENTIONAL_KIB_GPA, &conventional_kib,
	       sizeof(conventional_kib));
	memset(info, 0, GUEST_PAGE_BYTES);
	put32(info, INFO_MEMORY | INFO_COMMAND | INFO_MAP | (module_bytes ? INFO_MODULES : 0));
	put32(info + 4, CONVENTIONAL_KIB);
	put32(info + 8, (uint32_t)((memory->low_bytes - LOWEST_GPA) / 1024));
	put32(info + 16, COMMAND_GPA);
	put32(info + 20, module_bytes ? 1 : 0);
	put32(info + 24, MODULES_GPA);
	put32(memory->ram + MODULES_GPA, (uint32_t)module_gpa);
	put32(memory->ram + MODULES_GPA + 4, (uint32_t)(module_gpa + module_bytes));
	put32(memory->ram + MODULES_GPA + 8, COMMAND_GPA);
	map_entry(map, 0, CONVENTIONAL_END, 1);
	map_entry(map + 24, 0xe0000, 0x20000, 2);
	map_entry(map + 48, LOWEST_GPA, memory->low_bytes - LOWEST_GPA, 1);
	if (guest_memory_populated_bytes(memory) > memory->low_bytes)
		map_entry(map + 24 * entries++, 1ull << 32,
			  guest_memory_populated_bytes(memory) - memory->low_bytes, 1);
	put32(info + 44, entries * 24);
	put32(info + 48, MAP_GPA);
}

static void entry_state(uint8_t *ram, uint64_t entry, struct x86_state *state)
{
	const uint64_t gdt[3] = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff };
	const struct x86_segment_state code = { .selector = 8,
						.attributes = 0xc09b,
						.limit = ~0u };
	const struct x86_segment_state data = { .selector = 0x10,
						.attributes = 0xc093,
						.limit = ~0u };

	memcpy(ram + GDT_GPA, gdt, sizeof(gdt));
	boot_state_init(state, entry, &code, &data);
	state->tr.limit = 0xffff;
	state->gdtr = (struct x86_table){ GDT_GPA, sizeof(gdt) - 1 };
	state->cr0 = CR0_PE | 0x10;
	state->gpr[0] = LOADER_MAGIC;
	state->gpr[3] = INFO_GPA;
}

int boot_multiboot(const struct guest_memory *memory, struct boot_file image,
		   struct boot_file module, const char *command_line,
		   struct boot_extent *ret_extent, struct x86_state *ret_state,
		   const char **reason)
{
	uint64_t entry = 0;
	uint64_t end = 0;
	const uint64_t module_gpa = boot_module_gpa(memory, module.bytes);
	int error;

	assert(boot_is_multiboot(image) && (module.data || !module.bytes));
	if (strlen(command_line) >= COMMAND_MAX)
		return boot_refuse(reason, "the command line is longer than it takes", -E2BIG);
	error = load_image(memory, image, &entry, &end, reason);
	if (error)
		return error;
	if (entry < FREE_GPA || entry >= end)
		return boot_refuse(reason, "its entry lies outside its segments", -ENOEXEC);
	if (module.bytes > memory->low_bytes || module_gpa < end)
		return boot_refuse(reason, "the module does not fit beside it", -ENOMEM);
	if (module.bytes)
		memcpy(memory->ram + module_gpa, module.data, module.bytes);
	*ret_extent = (struct boot_extent){ .gpa = LOWEST_GPA, .end_gpa = end };
	information(memory, module_gpa, module.bytes);
	strcpy((char *)memory->ram + COMMAND_GPA, command_line);
	entry_state(memory->ram, entry, ret_state);
	return 0;
}
