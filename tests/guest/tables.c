/*
 * Page tables tortured: random edits, flushes, switches of roots and PCIDs on up to four
 * processors, and every access is compared with what walks by hand allow. The command line: the
 * seed, and how many events.
 *
 *   pages     LOCAL ones, whose tables each root has for itself; GLOBAL ones, in tables that all
 *             roots share, with G set. They lead to FRAMES frames, each with its number in it
 *   history   of each root and page: what a walk found, a line for every change, by hand
 *   flushed   of each processor, PCID, root and page: how many changes there had been at the last
 *             flush
 *
 * An access may be served by what a walk found at any time since the flush, not before, under any
 * root that the PCID had meanwhile. If there was one answer only, it must be that one, and A and D
 * must be set behind it.
 *
 * Processors take turns under a lock: between two steps of one the others change its tables.
 */
#include "guest.h"

#define LOCAL 0x8000000000ull
#define GLOBAL 0x10000000000ull

enum {
	ROOTS = 6,
	PCIDS = 4,
	CPUS = 4,
	FRAMES = 24,
	PAGES = 24,
	GLOBALS = 8,
	GROUP = 8,
	SPACING = 1 << 21,
	CHANGES = 64,
	TOKEN = 8,
	CODE = 2048,
	CR4_PGE = 1 << 7,
	CR4_PCIDE = 1 << 17,
	CR4_SMAP = 1 << 21,
};
#define ADDRESS 0xffffffffff000ull
#define KEEP (1ull << 63)

struct history { uint64_t entry[CHANGES]; uint64_t count; };

static uint64_t *roots[ROOTS];
static uint8_t *frames[FRAMES];
/* [ROOTS]: of the global pages */
static struct history histories[ROOTS + 1][PAGES];
static struct {
	uint64_t flushed[PCIDS][ROOTS][PAGES], flushed_global[GLOBALS];
	uint32_t roots_of[PCIDS]; /* used since the PCID was flushed: a bit each */
	int root, pcid;
} cpus[CPUS];
static int last_page;
static uint64_t state, events, accesses, exact, wrong;
static bool has_pcid, has_smap;
static volatile uint32_t turn_lock, others_ready, go, others_done;
extern uint64_t boot_information, page_tables[];

static uint64_t rnd(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % below;
}

static void stac(void) { __asm__ volatile(".byte 0x0f, 0x01, 0xcb" : : : "memory"); }
static void clac(void) { __asm__ volatile(".byte 0x0f, 0x01, 0xca" : : : "memory"); }

/* Groups of pages lie 2 MiB apart, each with a page table of its own. */
static uint64_t address_of(int page, bool global)
{
	return (global ? GLOBAL : LOCAL) + (uint64_t)(page / GROUP) * SPACING +
	       (uint64_t)(page % GROUP) * PAGE_BYTES;
}

static bool is_users(int page) { return page / GROUP % 2 == 1; }

/* The way down to an entry, made where it is missing. */
static uint64_t *entry_of(uint64_t *table, uint64_t gva, int to_level)
{
	for (int level = 3; level > to_level; level--) {
		uint64_t *entry = &table[gva >> (12 + 9 * level) & 511];

		if (!(*entry & PAGE_P))
			*entry = (uint64_t)new_page() | PAGE_P | PAGE_W | PAGE_U;
		table = (uint64_t *)(*entry & ADDRESS);
	}
	return &table[gva >> (12 + 9 * to_level) & 511];
}

/* By hand: address, P, W and G; 0: not present. Whether A is set all the way, D at its end. */
static uint64_t walk(const uint64_t *table, uint64_t gva, bool *ret_accessed, bool *ret_dirty)
{
	uint64_t rights = PAGE_P | PAGE_W;

	*ret_accessed = true;
	for (int level = 3;; level--) {
		uint64_t entry = table[gva >> (12 + 9 * level) & 511];

		if (!(entry & PAGE_P))
			return 0;
		rights &= entry;
		*ret_accessed &= !!(entry & PAGE_A);
		*ret_dirty = entry & PAGE_D;
		if (!level)
			return (entry & ADDRESS) | rights | (entry & PAGE_G);
		table = (const uint64_t *)(entry & ADDRESS);
	}
}

/* Also where it finds the same: A or D were cleared, perhaps. */
static void note_changes(int first, int pages, bool global)
{
	bool unused;

	for (int root = global ? ROOTS : 0; root < ROOTS + global; root++)
		for (int page = first; page < first + pages; page++) {
			struct history *history = &histories[root][page];

			history->entry[history->count++ % CHANGES] = walk(
				roots[root % ROOTS], address_of(page, global), &unused, &unused);
		}
}

/* ---- edits ---- */

static uint64_t random_entry(int page, bool global)
{
	uint64_t entry = (uint64_t)frames[rnd(FRAMES)] | PAGE_P;

	if (!rnd(6))
		return 0;
	entry |= rnd(3) ? PAGE_W : 0;
	entry |= global ? PAGE_G : 0;
	return entry | (!global && is_users(page) ? PAGE_U : 0);
}

/* Ways to write it: a store, a locked exchange, a string, another mapping of the table. */
static void put(uint64_t *at, uint64_t value)
{
	static uint64_t *window;
	uint64_t count = 1;
	uint64_t *to = at;

	switch (rnd(4)) {
	case 0: *(volatile uint64_t *)at = value; break;
	case 1: __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST); break;
	case 2:
		__asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
		break;
	default:
		if (!window)
			window = entry_of(page_tables, 0x18000000000ull, 0);
		*window = ((uint64_t)at & ADDRESS) | PAGE_P | PAGE_W;
		invlpg(0x18000000000ull);
		*(volatile uint64_t *)(0x18000000000ull | (uint64_t)at % PAGE_BYTES) = value;
	}
}

static void edit_page(bool global)
{
	int page = last_page = (int)rnd(global ? GLOBALS : PAGES);
	uint64_t *at = entry_of(roots[rnd(ROOTS)], address_of(page, global), 0);

	if (rnd(4))
		put(at, random_entry(page, global));
	else
		put(at, *at & ~(uint64_t)(rnd(2) ? PAGE_A : PAGE_D));
	note_changes(page, 1, global);
}

/* Two roots exchange a page table, or share it from now on. */
static void edit_table(void)
{
	int group = (int)rnd(PAGES / GROUP);
	uint64_t gva = address_of(group * GROUP, false);
	uint64_t *one = entry_of(roots[rnd(ROOTS)], gva, 1);
	uint64_t *two = entry_of(roots[rnd(ROOTS)], gva, 1);
	uint64_t before = *one;

	put(one, *two);
	if (rnd(2))
		put(two, before);
	note_changes(group * GROUP, GROUP, false);
}

/* ---- flushes ---- */

static void flushed(unsigned cpu, int pcid, int first, int pages)
{
	for (int root = 0; root < ROOTS; root++)
		for (int page = first; page < first + pages; page++)
			cpus[cpu].flushed[pcid][root][page] = histories[root][page].count;
	if (pages == PAGES)
		cpus[cpu].roots_of[pcid] = pcid == cpus[cpu].pcid ? 1u << cpus[cpu].root : 0;
}

static void flushed_globals(unsigned cpu, int first, int pages)
{
	for (int page = first; page < first + pages; page++)
		cpus[cpu].flushed_global[page] = histories[ROOTS][page].count;
}

static void flushed_all(unsigned cpu, bool global)
{
	for (int pcid = 0; pcid < PCIDS; pcid++)
		flushed(cpu, pcid, 0, PAGES);
	if (global)
		flushed_globals(cpu, 0, GLOBALS);
}

static void invpcid(uint64_t kind, uint64_t pcid, uint64_t gva)
{
	struct { uint64_t pcid, gva; } descriptor = { pcid, gva };

	__asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"(kind) : "memory");
}

static void flush(unsigned cpu)
{
	int page = rnd(2) ? last_page : (int)rnd(PAGES);
	int pcid = has_pcid ? (int)rnd(PCIDS) : 0;

	if (rnd(2))
		pcid = cpus[cpu].pcid;
	switch (rnd(has_pcid ? 8 : 3)) {
	case 0: case 3:
		invlpg(address_of(page, false));
		flushed(cpu, cpus[cpu].pcid, page, 1);
		break;
	case 1:
		invlpg(address_of(page % GLOBALS, true));
		flushed_globals(cpu, page % GLOBALS, 1);
		break;
	case 2:
		write_cr4(read_cr4() & ~(uint64_t)CR4_PGE);
		write_cr4(read_cr4() | CR4_PGE);
		flushed_all(cpu, true);
		break;
	case 4:
		invpcid(0, (uint64_t)pcid, address_of(page, false));
		flushed(cpu, pcid, page, 1);
		break;
	case 5:
		invpcid(1, (uint64_t)pcid, 0);
		flushed(cpu, pcid, 0, PAGES);
		break;
	case 6:
		invpcid(2, 0, 0);
		flushed_all(cpu, true);
		break;
	default:
		invpcid(3, 0, 0);
		flushed_all(cpu, false);
	}
}

static void switch_root(unsigned cpu)
{
	int pcid = has_pcid ? (int)rnd(PCIDS) : 0;
	int root = rnd(2) ? pcid : (int)rnd(ROOTS);
	bool keep = has_pcid && rnd(4);

	write_cr3((uint64_t)roots[root] | (uint64_t)pcid | (keep ? KEEP : 0));
	cpus[cpu].root = root;
	cpus[cpu].pcid = pcid;
	cpus[cpu].roots_of[pcid] |= 1u << root;
	if (!keep)
		flushed(cpu, pcid, 0, PAGES);
}

/* ---- accesses ---- */

static uint64_t token, got;
static void do_read(void *at) { got = *(volatile uint64_t *)at; }
static void do_write(void *at) { *(volatile uint64_t *)((uint8_t *)at + TOKEN) = token; }
static void do_call(void *at) { got = ((uint32_t (*)(void))((uint8_t *)at + CODE))(); }

enum kind { READ, WRITE, CALL };

/* Whether this answer of a walk explains what happened. */
static bool explains(uint64_t entry, enum kind kind, int64_t vector)
{
	uint8_t *frame = (uint8_t *)(entry & ADDRESS);

	if (!(entry & PAGE_P) || (kind == WRITE && !(entry & PAGE_W)))
		return vector == 14;
	if (vector != -1)
		return false;
	if (kind == WRITE)
		return *(volatile uint64_t *)(frame + TOKEN) == token;
	return got == *(uint64_t *)frame;
}

static void complain(unsigned cpu, int page, bool global, enum kind kind, int64_t vector)
{
	if (wrong++ > 4)
		return;
	print("# event ");
	print_number(events);
	print(" cpu ");
	print_count(cpu);
	print(global ? " global page " : " page ");
	print_count((unsigned)page);
	print(" root ");
	print_count((unsigned)cpus[cpu].root);
	print(" pcid ");
	print_count((unsigned)cpus[cpu].pcid);
	print(" kind ");
	print_count(kind);
	print(" vector ");
	print_number((uint64_t)vector);
	print("\n");
}

static bool is_allowed(const struct history *history, uint64_t since, enum kind kind,
		       int64_t vector)
{
	uint64_t first = since ? since - 1 : 0;

	if (history->count - first > CHANGES)
		return true; /* not known any more */
	for (uint64_t n = first; n < history->count; n++)
		if (explains(history->entry[n % CHANGES], kind, vector))
			return true;
	return false;
}

static int64_t act(enum kind kind, uint64_t gva, bool opens)
{
	static void (*const acts[])(void *) = { do_read, do_write, do_call };
	int64_t vector;

	token = state;
	got = ~0ull;
	if (opens)
		stac();
	vector = try_code(acts[kind], (void *)gva);
	if (has_smap)
		clac();
	return vector;
}

static bool is_allowed_of(unsigned cpu, int page, bool global, enum kind kind, int64_t vector)
{
	uint32_t left = cpus[cpu].roots_of[cpus[cpu].pcid];

	if (global)
		return is_allowed(&histories[ROOTS][page], cpus[cpu].flushed_global[page], kind,
				  vector);
	for (; left; left &= left - 1) {
		int root = __builtin_ctz(left);

		if (is_allowed(&histories[root][page],
			       cpus[cpu].flushed[cpus[cpu].pcid][root][page], kind, vector))
			return true;
	}
	return false;
}

/* Whether only one answer was allowed. */
static bool is_exact(unsigned cpu, int page, bool global)
{
	int root = cpus[cpu].root;
	int pcid = cpus[cpu].pcid;

	if (global)
		return cpus[cpu].flushed_global[page] == histories[ROOTS][page].count;
	return cpus[cpu].roots_of[pcid] == 1u << root &&
	       cpus[cpu].flushed[pcid][root][page] == histories[root][page].count;
}

static void use_page(unsigned cpu)
{
	bool global = !rnd(4);
	int page = (rnd(3) ? (int)rnd(PAGES) : last_page) % (global ? GLOBALS : PAGES);
	bool users = !global && is_users(page);
	enum kind kind = (enum kind)rnd(users || page % 4 ? 2 : 3);
	uint64_t gva = address_of(page, global);
	int64_t vector = act(kind, gva, has_smap && (users || !rnd(3)));
	bool accessed, dirty;

	accesses++;
	if (!is_allowed_of(cpu, page, global, kind, vector)) {
		complain(cpu, page, global, kind, vector);
		return;
	}
	if (!is_exact(cpu, page, global) || vector != -1)
		return;
	exact++;
	/* that of a global page was perhaps walked under another root */
	walk(roots[cpus[cpu].root], gva, &accessed, &dirty);
	accessed |= global && *entry_of(roots[0], gva, 0) & PAGE_A;
	if (!accessed || (kind == WRITE && !dirty))
		complain(cpu, page, global, kind, 100);
}

static void step(unsigned cpu)
{
	switch (rnd(16)) {
	case 0: case 1: edit_page(false); break;
	case 2: edit_page(true); break;
	case 3:
		if (!rnd(4))
			edit_table();
		break;
	case 4: flush(cpu); break;
	case 5: switch_root(cpu); break;
	default: use_page(cpu);
	}
}

static void begin_on(unsigned cpu)
{
	uint64_t cr4 = read_cr4() | CR4_PGE | (has_smap ? CR4_SMAP : 0);

	write_cr4(cr4);
	write_cr3((uint64_t)roots[0]);
	if (has_pcid)
		write_cr4(cr4 | CR4_PCIDE);
	flushed_all(cpu, true);
}

static void take_turns(unsigned cpu)
{
	uint64_t left = events / CPUS + 1;

	while (left--) {
		while (__atomic_exchange_n(&turn_lock, 1, __ATOMIC_ACQUIRE))
			cpu_relax();
		for (unsigned n = 0; n < 1 + rnd(4); n++)
			step(cpu);
		__atomic_store_n(&turn_lock, 0, __ATOMIC_RELEASE);
	}
}

void test_other(unsigned index)
{
	__atomic_fetch_add(&others_ready, 1, __ATOMIC_SEQ_CST);
	while (!go)
		cpu_relax();
	if (index < CPUS) {
		while (__atomic_exchange_n(&turn_lock, 1, __ATOMIC_ACQUIRE))
			cpu_relax();
		begin_on(index);
		__atomic_store_n(&turn_lock, 0, __ATOMIC_RELEASE);
		take_turns(index);
	}
	__atomic_fetch_add(&others_done, 1, __ATOMIC_SEQ_CST);
}

static void make_frames(void)
{
	for (unsigned n = 0; n < FRAMES; n++) {
		uint8_t *code;

		frames[n] = new_page();
		*(uint64_t *)frames[n] = 1000 + n;
		code = frames[n] + CODE; /* mov eax, 1000 + n; ret */
		*code++ = 0xb8;
		*code++ = (uint8_t)(1000 + n);
		*code++ = (uint8_t)((1000 + n) >> 8);
		*code++ = 0, *code++ = 0, *code = 0xc3;
	}
}

/* The map that the guest itself is in stays when CR3 is written. */
static void make_identity_global(void)
{
	const uint64_t *pointers = (const uint64_t *)(page_tables[0] & ADDRESS);

	for (int n = 0; n < 512; n++) {
		uint64_t *directory = (uint64_t *)(pointers[n] & ADDRESS);

		for (int m = 0; pointers[n] & PAGE_P && m < 512; m++)
			if (directory[m] & PAGE_P)
				directory[m] |= PAGE_G;
	}
}

static void make_roots(void)
{
	make_identity_global();
	entry_of(page_tables, 0x18000000000ull, 0);
	for (int page = 0; page < GLOBALS; page++)
		*entry_of(page_tables, address_of(page, true), 0) = random_entry(page, true);
	for (int root = 0; root < ROOTS; root++) {
		roots[root] = new_page();
		for (int n = 0; n < 512; n++)
			roots[root][n] = page_tables[n];
		for (int page = 0; page < PAGES; page++)
			*entry_of(roots[root], address_of(page, false), 0) =
				random_entry(page, false);
	}
	note_changes(0, PAGES, false);
	note_changes(0, GLOBALS, true);
}

void test_main(void)
{
	uint32_t ebx = 0, ecx = 0, edx;
	uint32_t leaf = 1;
	uint32_t information = *(uint32_t *)(boot_information + 16);
	const char *text = (const char *)(uint64_t)information;
	unsigned count;

	state = (next_number(&text, 1) + 1) * 0x9e3779b97f4a7c15ull;
	events = next_number(&text, 200000);
	__asm__ volatile("cpuid" : "+a"(leaf), "+b"(ebx), "+c"(ecx), "=d"(edx));
	has_pcid = ecx >> 17 & 1;
	leaf = 7, ecx = 0;
	__asm__ volatile("cpuid" : "+a"(leaf), "+b"(ebx), "+c"(ecx), "=d"(edx));
	has_smap = ebx >> 20 & 1;
	has_pcid &= ebx >> 10 & 1;
	make_frames();
	make_roots();
	count = start_processors();
	while (others_ready < count - 1)
		cpu_relax();
	begin_on(0);
	go = 1;
	take_turns(0);
	while (others_done < count - 1)
		cpu_relax();
	print("# accesses ");
	print_number(accesses);
	print(", of one answer only ");
	print_number(exact);
	print("\n");
	check("there were accesses", accesses > 0 && exact > accesses / 20);
	check_equal("accesses that no walk explains", wrong, 0);
}
