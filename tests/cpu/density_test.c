/*
 * How many host instructions and bytes hot code takes, for the samples of samples.S: compared with
 * the stored table, so that a change of the translator shows in a diff. A listing of a block, guest
 * and host side by side, is what one looks at then. How many of them are there for the mend of
 * speculation alone (docs/speculation.md): in the mean of these samples no more than 5 in 100.
 *
 * usage: density_test TABLE               compares
 *        density_test --write TABLE       writes it anew
 *        density_test --list [NAME]       the blocks of the samples
 *        density_test --list FILE OFFSET  the block at a byte of any file: 64-bit user code
 *        density_test --sweep FILE OFFSET BYTES [kernel]  counts over all blocks of code that lies
 *                                         there, one behind the other
 */
#include <Zydis/Zydis.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emission.h"

struct sample { const char *name; const uint8_t *code; };
extern const struct sample samples[], samples_end[];

enum { SAMPLE_BYTES = 256, LINE_BYTES = 200, CODE_PAGE_BYTES = 4096 };

static ZydisDecoder decoder;
static ZydisFormatter formatter;

/* The instruction at `code` in words; its bytes, or 0. */
static unsigned format(const uint8_t *code, unsigned bytes, uint64_t address, char *text)
{
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

	text[0] = 0;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, bytes, &insn, operands)))
		return 0;
	ZydisFormatterFormatInstruction(&formatter, &insn, operands, insn.operand_count_visible,
					text, LINE_BYTES, address, NULL);
	return insn.length;
}

/* The host's part that begins with mark n; up to what is no instruction (data of an exit). */
static unsigned part_end(const struct emission_block *block, unsigned n)
{
	return n + 1 < block->marks ? block->mark[n + 1].host : block->host_bytes;
}

/*
 * The only instructions that exclusive-or something of a table, or of the processor's structure,
 * take the secret out of an entry.
 */
static bool is_mend(const uint8_t *code, unsigned bytes)
{
	char text[LINE_BYTES];

	return format(code, bytes, 0, text) && !strncmp(text, "xor ", 4) &&
	       (strstr(text, ", gs:[") || strstr(text, ", [r15+0x04]"));
}

/* *ret_mend: those of the mend. */
static unsigned count_host(const struct emission_block *block, unsigned *ret_mend)
{
	char text[LINE_BYTES];
	unsigned count = 0;
	unsigned at = 0;

	*ret_mend = 0;

	for (unsigned n = 0; n < block->marks; n++)
		for (unsigned end = part_end(block, n); at < end;) {
			unsigned bytes = format(block->host + at, end - at, 0, text);

			count += bytes != 0;
			*ret_mend += is_mend(block->host + at, end - at);
			at = bytes ? at + bytes : end;
		}
	return count;
}

static unsigned count_guest(const uint8_t *code, const struct emission_block *block)
{
	char text[LINE_BYTES];
	unsigned count = 0;

	for (unsigned at = 0; at < block->guest_bytes; count++) {
		unsigned bytes = format(code + at, block->guest_bytes - at, 0, text);

		at += bytes ? bytes : 1;
	}
	return count;
}

static void list_block(const char *name, const uint8_t *code, const struct emission_block *block)
{
	char text[LINE_BYTES];
	unsigned at = 0;

	printf("%s: %u guest bytes, %u host bytes\n", name, block->guest_bytes, block->host_bytes);
	for (unsigned n = 0; n < block->marks; n++) {
		unsigned end = part_end(block, n);

		while (!n && at < block->mark[0].host) {
			unsigned bytes = format(block->host + at, end - at, at, text);

			printf("%32s | %4x  %s\n", "", at, text);
			at = bytes ? at + bytes : end;
		}
		format(code + block->mark[n].guest, block->guest_bytes - block->mark[n].guest,
		       block->mark[n].guest, text);
		printf("%-32s |\n", text);
		while (at < end) {
			unsigned bytes = format(block->host + at, end - at, at, text);

			printf("%32s | %4x  %s\n", "", at, bytes ? text : "data");
			at = bytes ? at + bytes : end;
		}
	}
}

static bool is_kernel(const char *name) { return strncmp(name, "kernel", 6) == 0; }

static void make_block(const struct sample *sample, struct emission_block *block)
{
	if (!emission_block(sample->code, SAMPLE_BYTES, !is_kernel(sample->name), block)) {
		printf("density_test: %s is not translated\n", sample->name);
		exit(70);
	}
}

static void print_row(FILE *to, const struct sample *sample)
{
	struct emission_block block;
	unsigned mend;
	unsigned count;

	make_block(sample, &block);
	count = count_host(&block, &mend);
	fprintf(to, "%-18s %5u %5u %5u %5u\n", sample->name, count_guest(sample->code, &block),
		count, block.host_bytes, mend);
}

/* The geometric mean of how many times as many host instructions there are with the mend. */
static bool is_mend_cheap(void)
{
	double sum = 0;
	double mean;

	for (const struct sample *sample = samples; sample < samples_end; sample++) {
		struct emission_block block;
		unsigned mend;
		unsigned count;

		make_block(sample, &block);
		count = count_host(&block, &mend);
		sum += log((double)count / (count - mend));
	}
	mean = exp(sum / (double)(samples_end - samples));
	printf("# with the mend of speculation %.3f times the host instructions\n", mean);
	return mean > 1 && mean <= 1.05;
}

static void write_table(FILE *to)
{
	fprintf(to, "# hot code: guest instructions, host instructions, host bytes, and of the "
		    "instructions those of the mend of speculation (density_test --write)\n");
	for (const struct sample *sample = samples; sample < samples_end; sample++)
		print_row(to, sample);
}

static int compare_table(const char *path)
{
	char *now = NULL;
	size_t now_bytes = 0;
	char line[LINE_BYTES], want[LINE_BYTES];
	FILE *memory = open_memstream(&now, &now_bytes);
	FILE *stored = fopen(path, "r");
	int differences = 0;

	if (!stored || !memory)
		return 70;
	write_table(memory);
	fclose(memory);
	memory = fmemopen(now, now_bytes, "r");
	while (fgets(line, sizeof(line), memory)) {
		if (!fgets(want, sizeof(want), stored))
			want[0] = 0;
		if (strcmp(line, want)) {
			printf("- %s%s+ %s", want, *want ? "" : "\n", line);
			differences++;
		}
	}
	fclose(memory);
	fclose(stored);
	free(now);
	if (differences)
		printf("density_test: if that is meant, --write %s\n", path);
	return differences != 0;
}

static int list_file(const char *path, const char *offset)
{
	static uint8_t code[SAMPLE_BYTES];
	struct emission_block block;
	FILE *file = fopen(path, "rb");
	size_t have = 0;

	if (file && !fseek(file, strtol(offset, NULL, 0), SEEK_SET))
		have = fread(code, 1, sizeof(code), file);
	if (!have || !emission_block(code, (unsigned)have, true, &block)) {
		printf("density_test: nothing at %s of %s\n", offset, path);
		return 1;
	}
	list_block(path, code, &block);
	return 0;
}

/* What a byte of hot code is for. */
enum cause {
	OWN, /* the guest's own instruction, renamed */
	ADDRESS,
	INDEX,
	ENTRY,
	TEST,
	BRANCH,
	SECRET,
	FLAGS,
	REGISTERS,
	PAGE,
	STACK,
	JUMPS,
	KICK,
	BEGIN,
	CAUSES
};
static const char *const cause_names[CAUSES] = {
	[OWN] = "the guest's own",
	[ADDRESS] = "lookup: address",
	[INDEX] = "lookup: index",
	[ENTRY] = "lookup: entry",
	[TEST] = "lookup: test",
	[BRANCH] = "lookup: branch",
	[SECRET] = "lookup: secret",
	[FLAGS] = "flags",
	[REGISTERS] = "displaced registers",
	[PAGE] = "page of floating code",
	[STACK] = "moves of RSP",
	[JUMPS] = "jumps out of the page",
	[KICK] = "polls",
	[BEGIN] = "entries",
};

struct sweep {
	uint64_t blocks, guest, host, host_bytes, all_bytes;
	uint64_t insns[CAUSES], bytes[CAUSES];
};

/* An instruction of the host's. */
struct piece { char text[LINE_BYTES]; unsigned bytes; enum cause cause; };

enum { MOST_PIECES = 4096 };

static bool begins(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

/* What the instruction says by itself, but for the processor's structure. */
static const struct { const char *begin; enum cause cause; } said[] = {
	{ "bextr ", INDEX },
	{ "mov r11, [r15+r11*8+0x34]", ENTRY },
	{ "mov r11, [r14+r11*8+0x34]", ENTRY },
	{ "and r10d, r11d", TEST },
	{ "test r10d, 0x", TEST },
	{ "test r11d, r11d", TEST },
	{ "test r11b, 0x01", TEST },
	{ "xor r11, [r15+0x04]", SECRET },
	{ "mov r10, rax", FLAGS },
	{ "mov rax, r10", FLAGS },
	{ "lahf", FLAGS },
	{ "seto al", FLAGS },
	{ "sahf", FLAGS },
	{ "add al, 0x7F", FLAGS },
	{ "lea rsp, [rsp", STACK },
	{ "imul r10d, r11d, 0x9E37", JUMPS },
	{ "add r10, r11", JUMPS },
	{ "shr r10d, ", JUMPS },
	{ "shl r10d, ", JUMPS },
};

static enum cause cause_by_field(enum emission_field field)
{
	switch (field) {
	case FIELD_REGISTER: return REGISTERS;
	case FIELD_FLAGS: return FLAGS;
	case FIELD_PAGE: return PAGE;
	case FIELD_JUMP: return JUMPS;
	case FIELD_KICK: return KICK;
	default: return OWN;
	}
}

static enum cause cause_by_itself(const char *text)
{
	const char *gs = strstr(text, "gs:[0x");

	if (strstr(text, "gs:[r10+0x"))
		return JUMPS;
	if (gs)
		return cause_by_field(
			emission_field((int32_t)strtoul(gs + strlen("gs:["), NULL, 16)));
	for (unsigned n = 0; n < sizeof(said) / sizeof(*said); n++)
		if (begins(text, said[n].begin))
			return said[n].cause;
	return OWN;
}

/* What only its neighbours say. */
static void look_beside(struct piece *piece, unsigned n, unsigned count)
{
	struct piece *at = &piece[n];
	const enum cause before = n ? piece[n - 1].cause : OWN;
	const enum cause behind = n + 1 < count ? piece[n + 1].cause : OWN;

	if (at->cause != OWN)
		return;
	if (behind == INDEX && (begins(at->text, "lea r10, ") || begins(at->text, "lea r11, ")))
		at->cause = ADDRESS;
	else if (before == TEST && begins(at->text, "jz "))
		at->cause = BRANCH;
	else if (before == PAGE && begins(at->text, "lea r1"))
		at->cause = PAGE;
	else if (before == KICK || (before == JUMPS && begins(at->text, "jnz ")))
		at->cause = before;
	else if (behind == JUMPS && (begins(at->text, "mov r10d, 0x") ||
				     begins(at->text, "lea r11, ")))
		at->cause = JUMPS;
}

static unsigned cut(const struct emission_block *block, struct piece *piece)
{
	unsigned count = 0;
	unsigned at = 0;

	for (unsigned n = 0; n <= block->marks; n++)
		for (unsigned end = n ? part_end(block, n - 1) : block->mark[0].host;
		     at < end && count < MOST_PIECES; at += piece[count++].bytes) {
			struct piece *next = &piece[count];
			unsigned bytes = format(block->host + at, end - at, 0, next->text);

			next->bytes = bytes ? bytes : end - at;
			next->cause = n ? cause_by_itself(next->text) : BEGIN;
		}
	return count;
}

static void sweep_block(const uint8_t *code, const struct emission_block *block,
			struct sweep *sweep)
{
	static struct piece piece[MOST_PIECES];
	const unsigned count = cut(block, piece);

	sweep->blocks++;
	sweep->guest += count_guest(code, block);
	sweep->host_bytes += block->host_bytes;
	sweep->all_bytes += block->all_bytes;
	sweep->host += count;
	for (unsigned n = 0; n < count; n++)
		look_beside(piece, n, count);
	for (unsigned n = 0; n < count; n++) {
		sweep->insns[piece[n].cause]++;
		sweep->bytes[piece[n].cause] += piece[n].bytes;
	}
}

/* The page of code at `at`, and what follows. */
static bool read_page(FILE *file, unsigned long at, uint8_t *page)
{
	return !fseek(file, (long)(at & ~(CODE_PAGE_BYTES - 1ul)), SEEK_SET) &&
	       fread(page, 1, CODE_PAGE_BYTES, file) == CODE_PAGE_BYTES;
}

static void sweep_code(FILE *file, unsigned long begin, unsigned long end, bool user,
		       struct sweep *sweep)
{
	/* a block may end in the next page */
	static uint8_t page[CODE_PAGE_BYTES + SAMPLE_BYTES];
	unsigned long have = begin + CODE_PAGE_BYTES;
	struct emission_block block;

	for (unsigned long at = begin; at < end; at += block.guest_bytes) {
		unsigned offset = at % CODE_PAGE_BYTES;

		if (at / CODE_PAGE_BYTES != have / CODE_PAGE_BYTES && !read_page(file, at, page))
			return;
		have = at;
		block.guest_bytes = 1;
		if (emission_block_in_page(page, offset, user, &block))
			sweep_block(page + offset, &block, sweep);
	}
}

static int sweep_file(char **words, bool user)
{
	struct sweep sweep = { 0 };
	FILE *file = fopen(words[0], "rb");
	unsigned long begin = strtoul(words[1], NULL, 0);

	if (file)
		sweep_code(file, begin, begin + strtoul(words[2], NULL, 0), user, &sweep);
	if (!sweep.guest) {
		printf("density_test: nothing at %s of %s\n", words[1], words[0]);
		return 1;
	}
	printf("%s: %lu blocks, %lu guest instructions; host: %.3f instructions, %.2f bytes "
	       "each, %.2f with stubs\n",
	       words[0], sweep.blocks, sweep.guest, (double)sweep.host / (double)sweep.guest,
	       (double)sweep.host_bytes / (double)sweep.guest,
	       (double)sweep.all_bytes / (double)sweep.guest);
	for (unsigned k = 0; k < CAUSES; k++)
		printf("  %-22s %6.3f instructions, %6.2f bytes\n", cause_names[k],
		       (double)sweep.insns[k] / (double)sweep.guest,
		       (double)sweep.bytes[k] / (double)sweep.guest);
	return 0;
}

static int list_samples(const char *name)
{
	struct emission_block block;

	for (const struct sample *sample = samples; sample < samples_end; sample++)
		if (!name || !strcmp(name, sample->name)) {
			make_block(sample, &block);
			list_block(sample->name, sample->code, &block);
		}
	return 0;
}

int main(int argc, char **argv)
{
	FILE *to;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	emission_begin();
	emission_set_mode(64, true);
	if (argc > 4 && !strcmp(argv[1], "--sweep"))
		return sweep_file(argv + 2, argc == 5);
	if (argc > 3 && !strcmp(argv[1], "--list"))
		return list_file(argv[2], argv[3]);
	if (argc > 1 && !strcmp(argv[1], "--list"))
		return list_samples(argc > 2 ? argv[2] : NULL);
	if (argc == 3 && !strcmp(argv[1], "--write") && (to = fopen(argv[2], "w"))) {
		write_table(to);
		return fclose(to);
	}
	if (argc != 2)
		return 64;
	return is_mend_cheap() ? compare_table(argv[1]) : 1;
}
