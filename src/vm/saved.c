/*
 * A machine as a stream of bytes, and back (docs/saved-state.md).
 *
 *   head        128 bytes: what has to be known to make a machine that can take the rest
 *   sections    { name, version, bytes, crc } payload, zeros up to a multiple of 8
 *               MACH, then in any order PAGE (any number), CPU (one for each processor), HV, CHIP; END is the last
 *
 *  1. Memory is written while the machine runs, pages that change again, until few do. What is left, and everything that is not memory,
 *     is written while it stands still: no processor executes, the worker is in no piece, nobody prints. Of a page the last one counts.
 *  2. It is read by a process that has no rights any more, before the first instruction. Everything in it is checked, and what is
 *     refused has changed nothing outside of a machine that never runs.
 *  3. A version that is not known is refused, never guessed (-ENOTSUP).
 *  4. Time stands still while a machine is saved: TSC, reference time and timers go on where they were. The clock of the day does not.
 *  5. Nothing of the host is in it: no addresses, descriptors or names.
 */
#include "saved.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/archive.h"
#include "lib/crc32c.h"

enum { FORMAT_VERSION = 1, HEAD_BYTES = 128, SECTION_HEAD_BYTES = 24, PAGES_PER_SECTION = 256, BUFFER_BYTES = 2 << 20, TSC_TOLERANCE_PPM = 200 };
enum { PASSES_MAX = 8, FEW_PAGES = 256, MEMORY_MIN_BYTES = 1 << 20, CRC_COVERED_BYTES = HEAD_BYTES - 4 };
#define NAME(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
enum { SECTION_MACHINE = NAME('M', 'A', 'C', 'H'), SECTION_PAGES = NAME('P', 'A', 'G', 'E'), SECTION_CPU = NAME('C', 'P', 'U', ' '),
       SECTION_HV = NAME('H', 'V', ' ', ' '), SECTION_CHIPSET = NAME('C', 'H', 'I', 'P'), SECTION_END = NAME('E', 'N', 'D', ' ') };

struct section { uint32_t name, version; uint64_t bytes; uint32_t crc, head_crc; };
_Static_assert(sizeof(struct section) == SECTION_HEAD_BYTES, "as in the file");

static const char damaged[] = "it is damaged, or no saved machine";

/* ---- both directions -------------------------------------------------------------------------------------------------------------- */

static void head_archive(struct archive *a, struct saved_head *h)
{
	char magic[8] = { 'U', 'M', 'B', 'R', 'A', 'S', 'A', 'V' };
	uint32_t format = FORMAT_VERSION, bytes = HEAD_BYTES, crc;

	archive_check(a, a->bytes >= HEAD_BYTES);
	archive_bytes(a, magic, sizeof(magic));
	archive_check(a, !memcmp(magic, "UMBRASAV", 8));
	archive_u32(a, &format);
	if (!a->error && format != FORMAT_VERSION)
		archive_fail(a, -ENOTSUP, "it is of a version that this Umbra does not know");
	archive_u32(a, &bytes);
	archive_u64(a, &h->memory_bytes);
	archive_u64(a, &h->features);
	archive_u64(a, &h->tsc_hz);
	archive_u32(a, &h->cpus);
	archive_u16(a, &h->debug_exit);
	if (a->error)
		return;
	if (!a->loading)
		memset(a->data + a->used, 0, HEAD_BYTES - a->used);
	for (; a->used < CRC_COVERED_BYTES; a->used++)
		archive_check(a, !a->data[a->used]);
	crc = crc32c(0, a->data, CRC_COVERED_BYTES);
	if (!a->loading)
		memcpy(a->data + CRC_COVERED_BYTES, &crc, 4);
	archive_check(a, bytes == HEAD_BYTES && !memcmp(&crc, a->data + CRC_COVERED_BYTES, 4));
}

/* tsc: the host's, at the moment for which the processors' are right. */
static void machine_archive(struct archive *a, struct machine *m, uint64_t *now_100ns, uint64_t *tsc)
{
	archive_u64(a, now_100ns);
	archive_u64(a, tsc);
	archive_u64(a, &m->hv_host.tsc_offset);
	cpuid_model_archive(a, &m->model);
}

static void mtrr_archive(struct archive *a, struct processor *p)
{
	archive_u64s(a, p->mtrr, 0x10);
	archive_u64s(a, p->mtrr + 0x50, 0x20);
	archive_u64(a, &p->mtrr[0xff]);
}

static void cpu_archive(struct archive *a, struct processor *p, unsigned *nmi)
{
	uint32_t activity = p->activity, nmis = *nmi;

	archive_u32(a, &activity);
	archive_bool(a, &p->init_pending);
	archive_bool(a, &p->start_pending);
	archive_bool(a, &p->idle);
	archive_bool(a, &p->halted);
	archive_u8(a, &p->sipi_vector);
	archive_u64(a, &p->runtime_100ns);
	archive_u32(a, &nmis);
	archive_check(a, activity <= PROCESSOR_WAITS_FOR_SIPI && nmis <= (ENGINE_NMI_PENDING | ENGINE_NMI_BLOCKED));
	x86_state_archive(a, engine_cpu_state(p->cpu));
	archive_bytes(a, engine_cpu_vector(p->cpu), ENGINE_VECTOR_BYTES);
	mtrr_archive(a, p);
	apic_archive(a, &p->apic, machine_now_ns());
	p->activity = (enum processor_activity)activity;
	p->runtime_before_100ns = a->loading ? p->runtime_100ns : p->runtime_before_100ns;
	*nmi = nmis;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------------ */

struct saver {
	struct machine *machine;
	int (*write)(void *context, const void *data, size_t bytes);
	void *context;
	uint8_t *buffer;
	uint64_t *dirty; /* a bit for each frame */
	uint64_t sections;
	int error;
};

static void put(struct saver *s, const void *data, size_t bytes)
{
	if (!s->error && bytes)
		s->error = s->write(s->context, data, bytes);
}

/* The payload in two parts. */
static void put_section(struct saver *s, uint32_t name, const void *first, size_t first_bytes, const void *second, size_t second_bytes)
{
	static const uint8_t zeros[8];
	struct section head = { .name = name, .version = 1, .bytes = first_bytes + second_bytes };

	head.crc = crc32c(crc32c(0, first, first_bytes), second, second_bytes);
	head.head_crc = crc32c(0, &head, offsetof(struct section, head_crc));
	put(s, &head, sizeof(head));
	put(s, first, first_bytes);
	put(s, second, second_bytes);
	put(s, zeros, -(first_bytes + second_bytes) & 7);
	s->sections++;
}

static bool is_zero(const uint8_t *page)
{
	const uint64_t *words = (const uint64_t *)(const void *)page;

	for (unsigned n = 0; n < GUEST_PAGE_BYTES / 8; n += 4)
		if (words[n] | words[n + 1] | words[n + 2] | words[n + 3])
			return false;
	return true;
}

static uint64_t frames_of(const struct machine *m) { return guest_memory_footprint_bytes(m->memory.ram_bytes) / GUEST_PAGE_BYTES; }

/* Up to PAGES_PER_SECTION pages, copied first: where the guest runs they may change, and the checksum would be wrong. */
static void put_run(struct saver *s, uint64_t first, uint64_t end)
{
	memcpy(s->buffer, s->machine->memory.ram + first * GUEST_PAGE_BYTES, (end - first) * GUEST_PAGE_BYTES);
	put_section(s, SECTION_PAGES, &first, 8, s->buffer, (end - first) * GUEST_PAGE_BYTES);
}

static bool is_dirty(const struct saver *s, uint64_t frame) { return s->dirty[frame / 64] >> frame % 64 & 1; }
static bool is_used(const struct saver *s, uint64_t frame) { return !is_zero(s->machine->memory.ram + frame * GUEST_PAGE_BYTES); }

/* The frames that `wanted` has, in runs. */
static void put_pages(struct saver *s, bool (*wanted)(const struct saver *s, uint64_t frame))
{
	uint64_t frames = frames_of(s->machine), first, end;

	for (first = 0; first < frames && !s->error; first = end + 1) {
		for (end = first; end < frames && end - first < PAGES_PER_SECTION && wanted(s, end); end++)
			;
		if (end > first)
			put_run(s, first, end);
		end -= end - first == PAGES_PER_SECTION; /* this one was not looked at */
	}
}

static size_t dirty_bytes(const struct machine *m) { return (frames_of(m) + 63) / 64 * 8; }

/*
 * While the machine runs: every page that holds something, then those that were written meanwhile, until only few are, or it is no use.
 * What is in `dirty` afterwards has still to be written. A page is written again as often as that; the last one counts.
 */
static void put_while_running(struct saver *s)
{
	struct machine *m = s->machine;
	uint64_t count, before = UINT64_MAX;

	engine_take_dirty(m->engine, s->dirty);
	put_pages(s, is_used);
	for (unsigned n = 0; n < PASSES_MAX && !s->error; n++) {
		memset(s->dirty, 0, dirty_bytes(m));
		count = engine_take_dirty(m->engine, s->dirty);
		if (count <= FEW_PAGES || count > before / 2)
			return;
		before = count;
		put_pages(s, is_dirty);
	}
	memset(s->dirty, 0, dirty_bytes(m));
}

/* While it stands still: the rest. The machine writes to overlay pages by itself. */
static void put_rest(struct saver *s)
{
	struct machine *m = s->machine;

	engine_take_dirty(m->engine, s->dirty);
	for (uint64_t n = m->memory.ram_bytes / GUEST_PAGE_BYTES; n < frames_of(m); n++)
		s->dirty[n / 64] |= 1ull << n % 64;
	put_pages(s, is_dirty);
}

struct part { uint32_t name; const uint8_t *data; size_t bytes; };
struct parts { struct part part[3 + MACHINE_MAX_CPUS]; unsigned count; };

/* What the archive got since the part before. */
static void end_part(struct parts *parts, uint32_t name, const struct archive *a)
{
	const struct part *last = parts->count ? &parts->part[parts->count - 1] : NULL;
	const uint8_t *begin = last ? last->data + last->bytes : a->data;

	parts->part[parts->count++] = (struct part){ name, begin, (size_t)(a->data + a->used - begin) };
}

/* Under the lock all of it is of one moment: console input comes while processors stand still, too. */
static int archive_parts(struct saver *s, struct parts *parts)
{
	struct machine *m = s->machine;
	uint64_t tsc = machine_tsc(), now_100ns = machine_now_100ns(m);
	struct archive a = archive_save_to(s->buffer, BUFFER_BYTES);

	machine_archive(&a, m, &now_100ns, &tsc);
	end_part(parts, SECTION_MACHINE, &a);
	for (uint32_t n = 0; n < m->options.cpus; n++) {
		unsigned nmi = engine_cpu_nmi(m->processors[n].cpu);

		archive_u32(&a, &n);
		cpu_archive(&a, &m->processors[n], &nmi);
		end_part(parts, SECTION_CPU, &a);
	}
	hv_archive(&a, m->hv);
	end_part(parts, SECTION_HV, &a);
	chipset_archive(&a, &m->chipset);
	end_part(parts, SECTION_CHIPSET, &a);
	return a.error;
}

static void put_parts(struct saver *s)
{
	struct parts parts = { .count = 0 };

	pthread_mutex_lock(&s->machine->lock);
	s->error = archive_parts(s, &parts);
	pthread_mutex_unlock(&s->machine->lock);
	for (unsigned n = 0; n < parts.count; n++)
		put_section(s, parts.part[n].name, parts.part[n].data, parts.part[n].bytes, NULL, 0);
	put_rest(s);
	put_section(s, SECTION_END, &s->sections, 8, NULL, 0);
}

static void save(struct saver *s)
{
	struct machine *m = s->machine;
	struct saved_head head = { m->options.memory_bytes, m->options.hv_features, m->hv_host.tsc_hz, m->options.cpus, m->options.debug_exit };
	struct archive a = archive_save_to(s->buffer, HEAD_BYTES);

	s->error = machine_wait_for_begin(m);
	if (s->error)
		return;
	head_archive(&a, &head);
	put(s, a.data, HEAD_BYTES);
	put_while_running(s);
	if (!s->error)
		s->error = machine_pause(m);
	if (s->error)
		return;
	put_parts(s);
	if (s->error)
		machine_resume(m);
}

int machine_save(struct machine *m, int (*write)(void *context, const void *data, size_t bytes), void *context)
{
	struct saver s = { .machine = m, .write = write, .context = context };

	if (m->bus || m->test_device)
		return -EOPNOTSUPP; /* what its disks hold would have to be saved with it */
	/* not malloc(): in a second thread it may change protections, and who calls has lost the right to */
	s.buffer = mmap(NULL, BUFFER_BYTES + dirty_bytes(m), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s.buffer == MAP_FAILED)
		return -ENOMEM;
	s.dirty = (uint64_t *)(void *)(s.buffer + BUFFER_BYTES);
	save(&s);
	munmap(s.buffer, BUFFER_BYTES + dirty_bytes(m));
	return s.error;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------------ */

int saved_read_head(const struct boot_file *file, struct saved_head *ret, const char **ret_reason)
{
	struct archive a = archive_load_from(file->data, file->bytes < HEAD_BYTES ? file->bytes : HEAD_BYTES);
	uint64_t host_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * GUEST_PAGE_BYTES;

	head_archive(&a, ret);
	archive_check(&a, ret->memory_bytes >= MEMORY_MIN_BYTES && !(ret->memory_bytes & (GUEST_PAGE_BYTES - 1)));
	archive_check(&a, ret->cpus && ret->cpus <= MACHINE_MAX_CPUS && ret->tsc_hz >= 1000000);
	if (!a.error && ret->features >> HV_FEATURES)
		archive_fail(&a, -ENOTSUP, "it was offered a feature of the Hyper-V interface that this Umbra does not know");
	if (!a.error && ret->memory_bytes > host_bytes)
		archive_fail(&a, -ENOTSUP, "it has more memory than this host");
	*ret_reason = a.reason ? a.reason : damaged;
	return a.error;
}

int saved_check_rate(uint64_t saved_hz, uint64_t host_hz, const char **ret_reason)
{
	uint64_t difference = saved_hz > host_hz ? saved_hz - host_hz : host_hz - saved_hz;

	*ret_reason = "the time stamp counter of this host runs at another rate";
	return (unsigned __int128)difference * 1000000 > (unsigned __int128)saved_hz * TSC_TOLERANCE_PPM ? -ENOTSUP : 0;
}

struct loader {
	struct machine *machine;
	const uint8_t *at;
	size_t left;
	uint64_t sections, now_100ns, tsc;
	uint32_t cpus; /* bit n: this one is there */
	bool has_machine, has_hv, has_chipset, ended;
	int error;
	const char *reason;
};

static void refuse(struct loader *l, int error, const char *reason)
{
	if (!l->error) {
		l->error = error;
		l->reason = reason ? reason : damaged;
	}
}

static void load_machine(struct loader *l, struct archive *a)
{
	machine_archive(a, l->machine, &l->now_100ns, &l->tsc);
	archive_check(a, !l->has_machine && l->now_100ns <= INT64_MAX);
	if (!a->error && !cpuid_is_possible(&l->machine->model))
		archive_fail(a, -ENOTSUP, "the processor of this host lacks what it has been offered");
	l->has_machine = true;
}

static void load_cpu(struct loader *l, struct archive *a)
{
	struct processor *p;
	uint32_t index = 0;
	unsigned nmi = 0;

	archive_u32(a, &index);
	if (!archive_check(a, index < l->machine->options.cpus && !(l->cpus >> index & 1)))
		return;
	p = &l->machine->processors[index];
	cpu_archive(a, p, &nmi);
	if (!a->error && engine_cpu_restored(p->cpu, nmi))
		archive_check(a, false);
	l->cpus |= 1u << index;
}

static void load_pages(struct loader *l, struct archive *a)
{
	struct machine *m = l->machine;
	uint64_t first = 0, pages = a->bytes < 8 ? 0 : (a->bytes - 8) / GUEST_PAGE_BYTES;

	archive_u64(a, &first);
	if (archive_check(a, pages && first < frames_of(m) && pages <= frames_of(m) - first))
		archive_bytes(a, m->memory.ram + first * GUEST_PAGE_BYTES, pages * GUEST_PAGE_BYTES);
}

static void load_end(struct loader *l, struct archive *a)
{
	uint64_t sections = 0;

	archive_u64(a, &sections);
	archive_check(a, sections == l->sections && l->has_machine && l->has_hv && l->has_chipset && l->cpus == (1u << l->machine->options.cpus) - 1);
	l->ended = true;
}

static void load_section(struct loader *l, const struct section *head, const uint8_t *payload)
{
	struct archive a = archive_load_from(payload, head->bytes);

	if (head->version != 1) {
		refuse(l, -ENOTSUP, "a part of it is of a version that this Umbra does not know");
		return;
	}
	archive_check(&a, crc32c(0, payload, head->bytes) == head->crc);
	switch (head->name) {
	case SECTION_MACHINE: load_machine(l, &a); break;
	case SECTION_PAGES: load_pages(l, &a); break;
	case SECTION_CPU: load_cpu(l, &a); break;
	case SECTION_HV:
		archive_check(&a, !l->has_hv);
		hv_archive(&a, l->machine->hv);
		l->has_hv = true;
		break;
	case SECTION_CHIPSET:
		archive_check(&a, !l->has_chipset);
		chipset_archive(&a, &l->machine->chipset);
		l->has_chipset = true;
		break;
	case SECTION_END: load_end(l, &a); break;
	default: refuse(l, -ENOTSUP, "it has a part that this Umbra does not know"); return;
	}
	archive_check_end(&a);
	if (a.error)
		refuse(l, a.error, a.reason);
}

/* False at the end, and on a refusal. */
static bool load_next(struct loader *l)
{
	struct section head;
	uint64_t padded;

	if (l->left < sizeof(head))
		return refuse(l, -EBADMSG, NULL), false;
	memcpy(&head, l->at, sizeof(head));
	padded = (head.bytes + 7) & ~7ull;
	if (head.head_crc != crc32c(0, &head, offsetof(struct section, head_crc)) || head.bytes > l->left || padded > l->left - sizeof(head))
		return refuse(l, -EBADMSG, NULL), false;
	load_section(l, &head, l->at + sizeof(head));
	l->sections++;
	l->at += sizeof(head) + padded;
	l->left -= sizeof(head) + padded;
	return !l->error && !l->ended;
}

/* Everything is there: from now on time passes. */
static void begin_time(struct loader *l)
{
	struct machine *m = l->machine;
	uint64_t now = machine_tsc(), behind = l->tsc - now; /* modulo 2^64, as offsets are */

	m->hv_host.tsc_offset += behind;
	for (unsigned n = 0; n < m->options.cpus; n++)
		engine_cpu_state(m->processors[n].cpu)->tsc_offset += behind;
	m->tsc_start = now - (uint64_t)(((unsigned __int128)l->now_100ns * m->hv_host.tsc_hz + 9999999) / 10000000);
}

int saved_load(struct machine *m, const char **ret_reason)
{
	const struct boot_file *file = &m->options.saved;
	struct loader l = { .machine = m, .at = file->data + HEAD_BYTES, .left = file->bytes - HEAD_BYTES };

	pthread_mutex_lock(&m->lock);
	while (load_next(&l))
		;
	if (!l.error && l.left)
		refuse(&l, -EBADMSG, NULL);
	if (!l.error) {
		begin_time(&l);
		hv_restored(m->hv);
	}
	pthread_mutex_unlock(&m->lock);
	*ret_reason = l.reason;
	munmap((void *)(uintptr_t)file->data, file->bytes);
	return l.error;
}
