/*
 * Pages: user, SMEP, SMAP, global, large, aliases, what INVLPG and CR3 drop and what they keep,
 * PCID.
 */
#include "guest.h"

#define AT 0x8000000000ull

static void read_at(void *a) { (void)*(volatile uint8_t *)a; }
static void write_at(void *a) { *(volatile uint8_t *)a = 1; }
static void call_at(void *a) { ((void (*)(void))a)(); }
static uint64_t value_at(uint64_t a) { return *(volatile uint64_t *)a; }
static void stac(void) { __asm__ volatile(".byte 0x0f, 0x01, 0xcb" : : : "memory"); }
static void clac(void) { __asm__ volatile(".byte 0x0f, 0x01, 0xca" : : : "memory"); }

__asm__("user_read: movabs $0x8000000000, %rcx; mov (%rcx), %eax; int $0x80");
void user_read(void);

static void user_pages(void)
{
	uint64_t page = (uint64_t)new_page(), stack = AT + 0x10000, code = AT + 0x20000;
	uint8_t *from = (uint8_t *)user_read, *to = new_page();

	for (int n = 0; n < 64; n++)
		to[n] = from[n];
	map_page(code, (uint64_t)to, PAGE_P | PAGE_U);
	map_page(stack, (uint64_t)new_page(), PAGE_P | PAGE_W | PAGE_U);
	map_page(AT, page, PAGE_P);
	check_equal("a user reads a kernel page",
		    (uint64_t)try_user((void (*)(void))code, stack + PAGE_BYTES, 0x33), 14);
	check_equal("#PF code of a user", last.code, 5);
	map_page(AT, page, PAGE_P | PAGE_U);
	check_equal("a user reads a user page",
		    (uint64_t)try_user((void (*)(void))code, stack + PAGE_BYTES, 0x33), 0x80);
	to[0] = 0xf4;
	check_equal("HLT of a user",
		    (uint64_t)try_user((void (*)(void))code, stack + PAGE_BYTES, 0x33), 13);
	to[0] = 0xfa;
	check_equal("CLI of a user",
		    (uint64_t)try_user((void (*)(void))code, stack + PAGE_BYTES, 0x33), 13);
	to[0] = 0xec;
	check_equal("IN of a user",
		    (uint64_t)try_user((void (*)(void))code, stack + PAGE_BYTES, 0x33), 13);
	to[0] = 0x0f, to[1] = 0x01, to[2] = 0xe0; /* smsw eax */
	to[3] = 0xcd, to[4] = 0x80;
	check_equal("SMSW of a user",
		    (uint64_t)try_user((void (*)(void))code, stack + PAGE_BYTES, 0x33), 0x80);
	write_cr4(read_cr4() | 0x800);
	check_equal("SMSW with UMIP",
		    (uint64_t)try_user((void (*)(void))code, stack + PAGE_BYTES, 0x33), 13);
	write_cr4(read_cr4() & ~0x800ull);
	to[0] = 0xc3;
	check_equal("the kernel calls a user page", (uint64_t)try_code(call_at, (void *)code),
		    (uint64_t)-1);
	write_cr4(read_cr4() | 0x100000);
	check_equal("SMEP", (uint64_t)try_code(call_at, (void *)code), 14);
	check_equal("#PF code of SMEP", last.code, 0x11);
	write_cr4(read_cr4() | 0x200000);
	check_equal("SMAP", (uint64_t)try_code(read_at, (void *)AT), 14);
	check_equal("#PF code of SMAP", last.code, 1);
	stac();
	read_at((void *)AT);
	clac();
	check("STAC opens", true);
	check_equal("CLAC closes", (uint64_t)try_code(read_at, (void *)AT), 14);
	write_cr4(read_cr4() & ~0x300000ull);
}

static void tlb(void)
{
	uint64_t *a = new_page(), *b = new_page(), *entry;
	uint64_t cr4 = read_cr4();

	a[0] = 1, b[0] = 2;
	entry = map_page(AT, (uint64_t)a, PAGE_P | PAGE_W);
	check_equal("first page", value_at(AT), 1);
	*entry = (uint64_t)b | PAGE_P | PAGE_W;
	invlpg(AT);
	check_equal("INVLPG", value_at(AT), 2);
	*entry = (uint64_t)a | PAGE_P | PAGE_W;
	write_cr3(read_cr3());
	check_equal("CR3", value_at(AT), 1);
	*entry = 0;
	invlpg(AT);
	check_equal("not present", (uint64_t)try_code(read_at, (void *)AT), 14);
	*entry = (uint64_t)b | PAGE_P; /* nothing non-present is cached: no flush is due */
	check_equal("present at once", value_at(AT), 2);
	check_equal("and read-only", (uint64_t)try_code(write_at, (void *)AT), 14);
	*entry |= PAGE_W;
	invlpg(AT);
	check_equal("then writable", (uint64_t)try_code(write_at, (void *)AT), (uint64_t)-1);
	write_cr4(cr4 | 0x80);
	*entry = (uint64_t)a | PAGE_P | PAGE_G;
	invlpg(AT);
	check_equal("global page", value_at(AT), 1);
	*entry = (uint64_t)b | PAGE_P | PAGE_G;
	invlpg(AT);
	check_equal("INVLPG drops a global page", value_at(AT) & 0xfe, 0);
	*entry = (uint64_t)a | PAGE_P | PAGE_G;
	write_cr4(cr4);
	check_equal("PGE off drops it", value_at(AT), 1);
}

static void large_pages(void)
{
	uint64_t *table = (uint64_t *)(read_cr3() & ~(uint64_t)PAGE_OFFSET), *pd,
		 *big = (uint64_t *)0x4000000;

	map_page(AT + (1ull << 30), 0, 0);
	table = (uint64_t *)(table[AT >> 39 & 511] & ~(uint64_t)PAGE_OFFSET);
	pd = (uint64_t *)(table[(AT + (1ull << 30)) >> 30 & 511] & ~(uint64_t)PAGE_OFFSET);
	big[0] = 77;
	big[0x1ff000 / 8] = 78;
	pd[1] = 0x4000000 | 0x83;
	check_equal("2 MiB page, first", value_at(AT + (1ull << 30) + 0x200000), 77);
	check_equal("2 MiB page, last", value_at(AT + (1ull << 30) + 0x3ff000), 78);
	pd[1] = 0x4200000 | 0x83;
	invlpg(AT + (1ull << 30) + 0x234567);
	check_equal("INVLPG anywhere drops all of it", value_at(AT + (1ull << 30) + 0x200000),
		    *(uint64_t *)0x4200000);
	check_equal("at its end, too", value_at(AT + (1ull << 30) + 0x3ff000),
		    *(uint64_t *)0x43ff000);
}

static void aliases(void)
{
	uint8_t *page = new_page();
	uint64_t one = AT + 0x100000, two = AT + 0x200000;

	map_page(one, (uint64_t)page, PAGE_P | PAGE_W);
	map_page(two, (uint64_t)page, PAGE_P | PAGE_W);
	*(volatile uint64_t *)one = 0x1234;
	check_equal("two addresses, one page", value_at(two), 0x1234);
	/* mov eax, 1; ret */
	page[0] = 0xb8, page[1] = 1, page[2] = page[3] = page[4] = 0, page[5] = 0xc3;
	check_equal("code by one address", ((uint32_t (*)(void))one)(), 1);
	*(volatile uint8_t *)(two + 1) = 2;
	check_equal("changed by the other", ((uint32_t (*)(void))one)(), 2);
}

static void write_pcid_bits(void *a) { write_cr3(read_cr3() | (uint64_t)a); }
static void set_pcide(void *a) { (void)a; write_cr4(read_cr4() | 0x20000); }

static void pcid(void)
{
	uint32_t eax = 1, ebx, ecx = 0, edx;
	uint64_t root = read_cr3(), *one = new_page(), *two = new_page(), *entry;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (!(ecx >> 17 & 1)) {
		check_equal("PCIDE without PCID", (uint64_t)try_code(set_pcide, NULL), 13);
		return;
	}
	check_equal("PCIDE", (uint64_t)try_code(set_pcide, NULL), (uint64_t)-1);
	one[0] = 1, two[0] = 2;
	entry = map_page(AT, (uint64_t)one, PAGE_P | PAGE_W);
	write_cr3(root | 5);
	check_equal("PCID 5", value_at(AT), 1);
	*entry = (uint64_t)two | PAGE_P;
	write_cr3(root | 5);
	check_equal("CR3 without bit 63 drops its own", value_at(AT), 2);
	check_equal("a PCID in CR3 reads back", read_cr3() & PAGE_OFFSET, 5);
	*entry = (uint64_t)one | PAGE_P;
	__asm__ volatile("invpcid %0, %1"
			 :
			 : "m"(*(const struct { uint64_t pcid, gva; } *)&(uint64_t[2]){ 5, 0 }),
			   "r"(1ull)
			 : "memory");
	check_equal("INVPCID one context", value_at(AT), 1);
	*entry = (uint64_t)two | PAGE_P;
	__asm__ volatile("invpcid %0, %1"
			 :
			 : "m"(*(const struct { uint64_t pcid, gva; } *)&(uint64_t[2]){ 5, AT }),
			   "r"(0ull)
			 : "memory");
	check_equal("INVPCID one address", value_at(AT), 2);
	*entry = (uint64_t)one | PAGE_P;
	__asm__ volatile("invpcid %0, %1"
			 :
			 : "m"(*(const struct { uint64_t pcid, gva; } *)&(uint64_t[2]){ 0, 0 }),
			   "r"(2ull)
			 : "memory");
	check_equal("INVPCID everything", value_at(AT), 1);
	write_cr3(root);
	write_cr4(read_cr4() & ~0x20000ull);
	check_equal("PCID bits without PCIDE", (uint64_t)try_code(write_pcid_bits, (void *)0),
		    (uint64_t)-1);
}

void test_main(void)
{
	write_cr4(read_cr4() | 0x80);
	user_pages();
	tlb();
	large_pages();
	aliases();
	pcid();
}
