/*
 * The code cache and the way in and out of it: finding blocks, chaining them, taking them back when guest code changes.
 *
 * Two views of one memfd: code_write is never executable, code_run never writable. Blocks are only appended; an invalidated
 * block keeps its place, its two entries are overwritten by jumps that lead to the dispatcher, and everything goes when the
 * cache is full.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine/soft/translate/emit.h"

void *memcpy(void *to, const void *from, size_t bytes)
{
	void *start = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
	return start;
}

void *memset(void *to, int value, size_t bytes)
{
	void *start = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
	return start;
}

static const uint8_t kept[] = { RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8, R9, R12, R13, RSP }; /* the stack last: on_signal() */

static struct host_mem gpr(uint8_t reg) { return cpu_mem(offsetof(struct soft_cpu, state.gpr) + 8u * reg); }

/* scratch: where r10 and r11 are; code uses temp itself, which a signal must leave alone. */
static void emit_resume(struct soft_engine *engine, struct emitter *e, size_t scratch)
{
	emit_load(e, R15, CPU(read_table));
	emit_load(e, R14, CPU(write_table));
	emit_load(e, R10, cpu_mem(scratch));
	emit_load(e, R11, cpu_mem(scratch + 8));
	for (unsigned n = 0; n < sizeof(kept); n++)
		emit_load(e, kept[n], gpr(kept[n]));
	engine->resume_jumps[engine->resume_jump_count++] = (uint64_t)(engine->code_run + (e->out - engine->code_write));
	emit_jmp_cpu(e, offsetof(struct soft_cpu, resume));
}

/* Brings back the flags that a signal of the host's own interrupted, and goes on there. Everything else is loaded. */
static void emit_refresh(struct soft_engine *engine, struct emitter *e)
{
	engine->refresh = engine->code_run + (e->out - engine->code_write);
	emit_store(e, RAX, CPU(signal_rax));
	emit_rm(e, (struct host_op){ .opcode = 0xb7, .map = 1 }, RAX, CPU(signal_word));
	emit8(e, 0x04), emit8(e, 0x7f);
	emit8(e, 0x9e);
	emit_load(e, RAX, CPU(signal_rax));
	emit_jmp_cpu(e, offsetof(struct soft_cpu, signal_pc));
	engine->reload = engine->code_run + (e->out - engine->code_write);
	emit_resume(engine, e, offsetof(struct soft_cpu, signal_scratch));
}

static void *emit_thunk(struct soft_engine *engine, struct emitter *e, void *function, bool is_signal)
{
	uint8_t *at = e->out;
	size_t scratch = is_signal ? offsetof(struct soft_cpu, signal_scratch) : offsetof(struct soft_cpu, temp);

	for (unsigned n = 0; n < sizeof(kept); n++)
		if (!is_signal || kept[n] != RSP)
			emit_store(e, kept[n], gpr(kept[n]));
	emit_store(e, R10, cpu_mem(scratch));
	emit_store(e, R11, cpu_mem(scratch + 8));
	emit_load(e, RSP, CPU(host_rsp));
	emit_load(e, RDI, CPU(self));
	emit_mov(e, RSI, R10);
	emit_mov(e, RDX, R11);
	emit_constant(e, RAX, (uint64_t)function);
	emit_rr(e, OP32(0xff), 2, RAX);
	emit_store(e, RAX, CPU(resume));
	emit_resume(engine, e, scratch);
	return engine->code_run + (at - engine->code_write);
}

static void *system_thunk(struct soft_cpu *cpu, uint64_t unused, const struct x86_insn *insn)
{
	struct x86_insn copy = *insn;

	(void)unused;
	return soft_system(cpu, &copy);
}

/* The block that begins at this host address; NULL for the way out of the engine. */
static struct block *block_at(struct soft_engine *e, const void *entry)
{
	uint32_t index;

	if (entry == e->leave)
		return NULL;
	memcpy(&index, (const uint8_t *)entry - 4, 4);
	return &e->blocks[index];
}

static void *chain_thunk(struct soft_cpu *cpu, uint64_t unused, uint8_t *link)
{
	struct soft_engine *e = cpu->engine;
	uint64_t before = e->generation;
	bool word = cpu->temp[2] & 1;
	uint64_t target = cpu->state.rip;
	void *entry;
	struct block *b;

	(void)unused;
	cpu->chains++;
	entry = soft_go_on(cpu);
	b = block_at(e, entry);
	if (!b || b->mode & (BLOCK_ALONE | BLOCK_STRADDLES) || b->gva != target)
		return entry;
	soft_acquire(&e->lock);
	if (!b->dead && e->generation == before)
		set_jump(e->code_write + (link - e->code_run), e->code_write + (word ? b->host_offset : b->direct_offset));
	soft_release(&e->lock);
	return entry;
}

static void *miss_thunk(struct soft_cpu *cpu) { return soft_dispatch(cpu); }
static bool uses_stack(const struct x86_insn *i)
{
	if (x86_insn_has_memory(i) && i->base == RSP)
		return true;
	if (i->kind || i->map)
		return false;
	switch (i->opcode) {
	case 0x68: case 0x6a: case 0x8f: case 0x9c: case 0x9d: case 0xc2: case 0xc3: case 0xe8: return true;
	case 0xff: return i->reg == 2 || i->reg == 6;
	default: return i->opcode >= 0x50 && i->opcode <= 0x5f;
	}
}

/*
 * The guest's stack pointer is not canonical, and the host raised #GP, #SS or #UD: because of this instruction, or because the host was
 * interrupted and cannot return to such a stack pointer (some hosts cannot). True: the latter; go on where it was.
 */
static bool is_hosts_own(struct soft_cpu *cpu, struct fault *f)
{
	struct fault unused;
	struct x86_insn i;
	uint8_t raw[X86_INSN_MAX_BYTES];

	if (!cpu->signal_in_block)
		return true;
	if (!soft_read(cpu, cpu->signal_rip, raw, sizeof(raw), ACCESS_EXEC, &unused) && !x86_decode(raw, sizeof(raw), 64, &i) && uses_stack(&i)) {
		f->vector = EXC_SS;
		return false;
	}
	/* at the same place, and nothing came through C in between */
	cpu->stack_retries = cpu->signal_pc == cpu->stack_retry_pc && cpu->stack_retry_work == cpu->systems + cpu->misses ? cpu->stack_retries + 1 : 0;
	cpu->stack_retry_pc = cpu->signal_pc;
	cpu->stack_retry_work = cpu->systems + cpu->misses;
	return cpu->stack_retries < 100;
}

static bool may_be_hosts_own(unsigned vector) { return vector == EXC_GP || vector == EXC_SS || vector == EXC_UD; }
static void *signal_thunk(struct soft_cpu *cpu)
{
	struct fault f = { .vector = (uint8_t)cpu->signal_vector, .has_code = cpu->signal_vector == EXC_GP || cpu->signal_vector == EXC_SS };

	if (may_be_hosts_own(f.vector) && !soft_canonical(cpu->state.gpr[RSP]) && is_hosts_own(cpu, &f))
		return cpu->engine->refresh;
	cpu->state.rip = cpu->signal_rip;
	if (!cpu->signal_in_word)
		cpu->flags_word = cpu->signal_word;
	return soft_raise(cpu, &f);
}

/* The thunks are the same for every processor; each keeps their addresses where its code finds them. */
static void make_thunks(struct soft_engine *engine, struct soft_cpu *cpu)
{
	static const uint8_t saved[] = { RBX, RBP, R12, R13, R14, R15 };
	struct emitter e = { engine->code_write + engine->code_used };
	uint8_t *at;

	cpu->thunk_memory = emit_thunk(engine, &e, (void *)soft_memory, false);
	cpu->thunk_commit = emit_thunk(engine, &e, (void *)soft_commit, false);
	cpu->thunk_system = emit_thunk(engine, &e, (void *)system_thunk, false);
	cpu->thunk_chain = emit_thunk(engine, &e, (void *)chain_thunk, false);
	cpu->thunk_miss = emit_thunk(engine, &e, (void *)miss_thunk, false);
	engine->signal = emit_thunk(engine, &e, (void *)signal_thunk, true);
	emit_refresh(engine, &e);
	at = e.out;
	for (unsigned n = 0; n < sizeof(saved); n++)
		emit_prefixes(&e, OP32(0), false, 0, NO_REG, saved[n]), emit8(&e, 0x50 | (saved[n] & 7));
	emit_lea(&e, RSP, mem(RSP, -8));
	emit_store(&e, RSP, CPU(host_rsp));
	emit_store(&e, RSI, CPU(resume));
	emit_resume(engine, &e, offsetof(struct soft_cpu, temp));
	engine->enter = engine->code_run + (at - engine->code_write);
	at = e.out;
	emit_load(&e, RSP, CPU(host_rsp));
	emit_lea(&e, RSP, mem(RSP, 8));
	for (unsigned n = sizeof(saved); n-- > 0;)
		emit_prefixes(&e, OP32(0), false, 0, NO_REG, saved[n]), emit8(&e, 0x58 | (saved[n] & 7));
	emit8(&e, 0xc3);
	engine->leave = engine->code_run + (at - engine->code_write);
	engine->code_used = engine->thunks_end = (size_t)(e.out - engine->code_write);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------------- */

static uint32_t part_offset(const struct block *b, bool cold) { return cold ? b->cold_offset : b->host_offset; }

/* The block whose hot or cold part holds host_pc. */
struct block *soft_block_of(struct soft_engine *e, uint64_t host_pc)
{
	uint64_t offset = host_pc - (uint64_t)e->code_run;
	uint32_t low = 0, high = __atomic_load_n(&e->block_count, __ATOMIC_ACQUIRE);
	bool cold = offset >= e->cold_start;
	struct block *b;

	if (offset >= e->code_bytes)
		return NULL;
	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (part_offset(&e->blocks[middle], cold) <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	b = low ? &e->blocks[low - 1] : NULL;
	return b && offset < part_offset(b, cold) + (cold ? b->cold_bytes : b->host_bytes) ? b : NULL;
}

bool soft_guest_pc(struct soft_engine *e, uint64_t host_pc, uint64_t *ret_rip, bool *ret_in_word)
{
	struct block *b = soft_block_of(e, host_pc);
	bool cold = host_pc - (uint64_t)e->code_run >= e->cold_start;
	const struct pc_map *map;
	uint32_t offset, n, count;

	if (!b)
		return false;
	map = &e->maps[b->map_first + (cold ? b->maps : 0u)];
	count = cold ? b->cold_maps : b->maps;
	offset = (uint32_t)(host_pc - (uint64_t)e->code_run - part_offset(b, cold));
	for (n = 1; n < count && map[n].host <= offset; n++)
		;
	*ret_rip = b->gva + map[n - 1].guest;
	*ret_in_word = map[n - 1].length & MAP_FLAGS_IN_WORD;
	return true;
}

static uint32_t bucket(uint64_t gpa, uint64_t gva, uint32_t mode)
{
	return (uint32_t)(((gpa ^ gva << 20 ^ mode) * 0x9e3779b97f4a7c15ull) >> 46) & (HASH_BUCKETS - 1);
}

/* Empties the code cache; its caller is alone. */
static void reset(struct soft_engine *e)
{
	e->block_count = e->map_count = e->straddlers = 0;
	e->code_used = e->thunks_end;
	e->cold_used = e->cold_start;
	e->generation++;
	memset(e->hash, 0, HASH_BUCKETS * sizeof(*e->hash));
	memset(e->page_blocks, 0, (guest_memory_footprint_bytes(e->memory->ram_bytes) >> 12) * sizeof(*e->page_blocks));
	for (uint64_t f = 0; f < guest_memory_footprint_bytes(e->memory->ram_bytes) >> 12; f++)
		e->frame_flags[f] &= (uint8_t)~(FRAME_CODE | FRAME_STRADDLED);
	for (unsigned n = 0; n < e->cpu_count; n++)
		soft_flush_jumps(e->cpus[n], true);
}

/* Mode and epoch: user and kernel entries are dropped apart, by a new epoch each. */
static uint64_t jump_key(const struct soft_cpu *cpu, uint32_t mode)
{
	uint64_t x = cpu->engine->secret + ((uint64_t)cpu->jump_epoch[mode & MODE_USER ? 1 : 0] << 8 | (mode & 0x7f)) * 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* Addresses may lead elsewhere now; unless global, those of global pages do not. */
void soft_flush_jumps(struct soft_cpu *cpu, bool global)
{
	for (int user = global || cpu->kernel_jumps_local ? 0 : 1; user < 2; user++)
		cpu->jump_epoch[user]++;
	if (global || cpu->kernel_jumps_local) {
		memset(cpu->code_filter, 0, sizeof(cpu->code_filter));
		cpu->kernel_jumps_local = false;
	}
	cpu->jump_key = cpu->engine->no_key;
}

static struct jump_entry *jump_entry(struct soft_cpu *cpu, uint64_t rip) { return &cpu->jump_cache[(rip ^ rip >> 12) & (JUMP_CACHE_ENTRIES - 1)]; }

/*
 * Both entries begin with one instruction of at least five bytes at a multiple of eight: a processor is before it or behind it,
 * and one aligned store makes it a jump.
 */
static void replace_entry(uint8_t *entry, const uint8_t *target)
{
	uint64_t word, rel = (uint32_t)(target - (entry + 5));

	memcpy(&word, entry, 8);
	word = (word & ~0xffffffffffull) | 0xe9 | rel << 8;
	__atomic_store_n((uint64_t *)(void *)entry, word, __ATOMIC_SEQ_CST);
}

static void kill_block(struct soft_engine *e, struct block *b)
{
	uint8_t *stub = e->code_write + b->stub_offset;
	uint32_t *link = &e->hash[bucket(b->gpa, b->gva, b->mode & 0xff)];
	const size_t flag_save_bytes = 3 + 1 + 3 + 9 + 3; /* of emit_save_flags(r10 free) */

	while (*link && &e->blocks[*link - 1] != b)
		link = &e->blocks[*link - 1].next_in_hash;
	if (*link)
		*link = b->next_in_hash;
	__atomic_store_n(&b->dead, true, __ATOMIC_SEQ_CST);
	for (unsigned n = 0; n < e->cpu_count; n++) {
		struct jump_entry *j = jump_entry(e->cpus[n], b->gva);

		if (__atomic_load_n(&j->host, __ATOMIC_SEQ_CST) == (uint64_t)(e->code_run + b->host_offset))
			__atomic_store_n(&j->sum, 0, __ATOMIC_SEQ_CST);
	}
	replace_entry(e->code_write + b->host_offset, stub + flag_save_bytes);
	replace_entry(e->code_write + b->direct_offset, stub);
}

/* Guest memory was written: blocks made from these bytes are taken back. */
void soft_invalidate_locked(struct soft_engine *e, uint64_t gpa, size_t bytes)
{
	uint64_t frame = soft_frame(e, soft_hva(e, gpa));
	bool all;

	all = ++e->frame_writes[frame] >= WRITES_UNTIL_DATA; /* a page that held code once and is data now */
	if (all)
		e->frame_writes[frame] = 0;
	for (uint32_t *link = &e->page_blocks[frame]; *link;) {
		struct block *b = &e->blocks[*link - 1];

		if (all || (gpa < b->gpa + b->guest_bytes && gpa + bytes > b->gpa)) {
			if (!b->dead)
				kill_block(e, b);
			*link = b->next_in_page;
		} else {
			link = &b->next_in_page;
		}
	}
	if (e->frame_flags[frame] & FRAME_STRADDLED)
		for (uint32_t *link = &e->straddlers; *link;) {
			struct block *b = &e->blocks[*link - 1];

			bool here = b->second_gpa >> 12 == gpa >> 12;

			if (!b->dead && here && (all || (gpa < b->second_gpa + 15 && gpa + bytes > b->second_gpa)))
				kill_block(e, b); /* it stays in the list of its first page until that is written */
			if (b->dead)
				*link = b->next_straddler;
			else
				link = &b->next_straddler;
		}
	if (all)
		__atomic_fetch_and(&e->frame_flags[frame], (uint8_t)~FRAME_STRADDLED, __ATOMIC_SEQ_CST);
	if (!e->page_blocks[frame] && !(e->frame_flags[frame] & FRAME_STRADDLED))
		__atomic_fetch_and(&e->frame_flags[frame], (uint8_t)~FRAME_CODE, __ATOMIC_SEQ_CST);
}

void soft_invalidate(struct soft_engine *e, uint64_t gpa, size_t bytes)
{
	soft_acquire(&e->lock);
	soft_invalidate_locked(e, gpa, bytes);
	soft_release(&e->lock);
}

/*
 * From now on every write to this frame comes to C. False: done, but the lock was given up meanwhile, so that what was found
 * before must be found again. Called with the lock.
 */
static bool protect(struct soft_cpu *cpu, uint64_t frame)
{
	struct soft_engine *e = cpu->engine;

	if (!(__atomic_fetch_or(&e->frame_flags[frame], FRAME_CODE, __ATOMIC_SEQ_CST) & FRAME_WRITTEN))
		return true;
	soft_release(&e->lock);
	soft_begin_alone(cpu);
	for (unsigned n = 0; n < e->cpu_count; n++)
		soft_revoke_writes(e->cpus[n], frame);
	__atomic_fetch_and(&e->frame_flags[frame], (uint8_t)~FRAME_WRITTEN, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&e->frame_flags[frame], FRAME_CODE, __ATOMIC_SEQ_CST);
	soft_end_alone(cpu);
	soft_acquire(&e->lock);
	return false;
}

uint32_t soft_mode(struct soft_cpu *cpu)
{
	const struct x86_state *s = &cpu->state;
	uint32_t mode = s->code_bits == 64 ? 0 : s->code_bits == 32 ? 1 : 2;
	bool flat = true;

	if (s->code_bits != 64)
		for (int n = X86_ES; n <= X86_DS; n++)
			flat &= s->segment[n].base == 0;
	mode |= s->cpl == 3 ? MODE_USER : 0;
	mode |= s->cr0 & (CR0_TS | CR0_EM) ? MODE_FPU_OFF : 0;
	mode |= s->cr4 & CR4_OSXSAVE && (s->xcr0 & 6) == 6 ? 0 : MODE_AVX_OFF;
	mode |= flat ? 0 : MODE_NOT_FLAT;
	return mode;
}

/* The second page of an instruction that may straddle: its gpa, or 0 when it has none in RAM. */
static uint64_t second_page(struct soft_cpu *cpu, uint64_t gpa)
{
	const struct x86_state *s = &cpu->state;
	uint64_t linear = s->code_bits == 64 ? s->rip : (uint32_t)(s->segment[X86_CS].base + s->rip), second;
	struct fault fault;
	unsigned rights;

	if ((gpa & 4095) <= 4096 - 15 || soft_walk(cpu, (linear | 4095) + 1, ACCESS_EXEC, &second, &rights, &fault) || !soft_hva(cpu->engine, second))
		return 0;
	return second;
}

/*
 * Without the lock, too: blocks are never reused before everybody has come through the dispatcher. One that dies meanwhile is
 * entered, and leads back here.
 */
static struct block *look_up(struct soft_cpu *cpu, uint64_t gpa, uint64_t second_gpa, uint32_t mode)
{
	struct soft_engine *e = cpu->engine;

	for (uint32_t n = __atomic_load_n(&e->hash[bucket(gpa, cpu->state.rip, mode)], __ATOMIC_ACQUIRE); n;
	     n = __atomic_load_n(&e->blocks[n - 1].next_in_hash, __ATOMIC_ACQUIRE)) {
		struct block *b = &e->blocks[n - 1];

		if (b->gpa == gpa && b->gva == cpu->state.rip && (b->mode & 0xff) == mode &&
		    (!(b->mode & BLOCK_STRADDLES) || b->second_gpa == second_gpa))
			return b;
	}
	return NULL;
}

static bool is_full(const struct soft_engine *e)
{
	return e->code_used + (128 << 10) > e->cold_start || e->cold_used + (128 << 10) > e->code_bytes || e->block_count + 1 >= MAX_BLOCKS ||
	       e->map_count + 512 > MAX_MAPS;
}

static void insert_block(struct soft_engine *e, struct block *b, uint64_t frame, uint32_t mode)
{
	uint32_t *head = &e->hash[bucket(b->gpa, b->gva, mode)];

	b->next_in_hash = *head;
	b->next_in_page = e->page_blocks[frame];
	e->page_blocks[frame] = (uint32_t)(b - e->blocks) + 1;
	__atomic_store_n(head, e->page_blocks[frame], __ATOMIC_RELEASE);
}

/* The block at state.rip = gpa, made now if there is none. NULL: *fault. */
static struct block *find(struct soft_cpu *cpu, uint64_t gpa, uint32_t mode, struct fault *fault)
{
	struct soft_engine *e = cpu->engine;
	uint64_t second = second_page(cpu, gpa);
	struct block *b = look_up(cpu, gpa, second, mode);

	if (b)
		return b;
	soft_acquire(&e->lock);
	while (!(b = look_up(cpu, gpa, second, mode))) {
		uint8_t *hva = soft_hva(e, gpa); /* with the lock: overlays do not move */

		if (!hva || (second && !soft_hva(e, second))) {
			*fault = (struct fault){ .vector = EXC_GP, .has_code = true };
			break;
		}
		if (is_full(e)) {
			soft_release(&e->lock);
			soft_begin_alone(cpu);
			if (is_full(e))
				reset(e);
			soft_end_alone(cpu);
			soft_acquire(&e->lock);
			continue;
		}
		if (!protect(cpu, soft_frame(e, hva)))
			continue;
		/* the bytes may run into the next page; whether they do is known only afterwards */
		if (second && !protect(cpu, soft_frame(e, soft_hva(e, second))))
			continue;
		b = soft_translate(cpu, gpa, mode, fault);
		if (b && b->mode & BLOCK_STRADDLES && second) {
			b->second_gpa = second;
			b->next_straddler = e->straddlers;
			e->straddlers = (uint32_t)(b - e->blocks) + 1;
			__atomic_fetch_or(&e->frame_flags[soft_frame(e, soft_hva(e, second))], FRAME_STRADDLED, __ATOMIC_SEQ_CST);
		}
		if (b)
			insert_block(e, b, soft_frame(e, hva), mode);
		break;
	}
	soft_release(&e->lock);
	return b;
}

static bool take_interrupt(struct soft_cpu *cpu)
{
	int vector;

	if (cpu->nmi_pending && !cpu->nmi_blocked && !cpu->state.interrupt_shadow) {
		__atomic_store_n(&cpu->nmi_pending, 0, __ATOMIC_SEQ_CST);
		cpu->nmi_blocked = true;
		cpu->interrupt_pending = 1;
		return soft_deliver(cpu, EXC_NMI, false, false, 0) == 0;
	}
	if (!cpu->state.interrupt_flag || cpu->state.interrupt_shadow) {
		cpu->interrupt_pending = 1;
		return false;
	}
	soft_outside(cpu);
	vector = cpu->ops->interrupt(cpu->ops_context);
	soft_inside(cpu);
	cpu->interrupt_pending = 0;
	if (vector < 0)
		return false;
	cpu->interrupt_pending = 1; /* there may be more */
	return soft_deliver(cpu, (unsigned)vector, false, false, 0) == 0;
}

static void note_page(struct soft_cpu *cpu, uint64_t linear)
{
	unsigned bit = (unsigned)((linear >> 12) * 0x9e3779b97f4a7c15ull >> 52);

	cpu->code_filter[bit >> 6] |= 1ull << (bit & 63);
}

static void remember_jump(struct soft_cpu *cpu, const struct block *b, uint64_t linear, uint64_t key, unsigned rights)
{
	struct jump_entry *j = jump_entry(cpu, b->gva);

	j->sum = 0;
	__atomic_store_n(&j->host, (uint64_t)(cpu->engine->code_run + b->host_offset), __ATOMIC_SEQ_CST);
	__atomic_store_n(&j->sum, b->gva + key, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (b->dead) /* since it was found: kill_block() may have been here before; what leads to a dead block would never end */
		j->sum = 0;
	cpu->kernel_jumps_local |= !(b->mode & MODE_USER) && !(rights & RIGHT_GLOBAL);
	note_page(cpu, linear);
	if (b->mode & BLOCK_STRADDLES)
		note_page(cpu, linear + 4096);
}

/* From here on a kick that came before is seen by the first exit, one that comes later clears the key itself. */
static void enter_mode(struct soft_cpu *cpu, uint32_t mode)
{
	__atomic_store_n(&cpu->jump_key, jump_key(cpu, mode), __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cpu->kick, __ATOMIC_SEQ_CST))
		cpu->jump_key = cpu->engine->no_key;
}

/* As soft_dispatch(), for the usual case that nothing is pending and the jump cache knows the way; NULL if not so. */
static void *dispatch_quickly(struct soft_cpu *cpu)
{
	const struct x86_state *s = &cpu->state;
	struct jump_entry *j = jump_entry(cpu, s->rip);
	uint32_t mode;

	if (cpu->stop || cpu->stop_asked || cpu->trap_after || cpu->breakpoints || cpu->single_once || cpu->want_alone || cpu->alone ||
	    s->interrupt_shadow || s->rflags & FLAG_TF || cpu->kick || (cpu->interrupt_pending && s->interrupt_flag))
		return NULL;
	mode = soft_mode(cpu);
	if (j->sum != s->rip + jump_key(cpu, mode))
		return NULL;
	soft_select_view(cpu);
	enter_mode(cpu, mode);
	return (void *)j->host;
}

/* After a system instruction. */
void *soft_go_on(struct soft_cpu *cpu)
{
	void *host = dispatch_quickly(cpu);

	return host ? host : soft_dispatch(cpu);
}

/* Whether the processor is to leave; its own reason, a halt say, is not lost where somebody else asks at the same time. */
static bool take_stop(struct soft_cpu *cpu)
{
	uint32_t why = cpu->stop;

	cpu->stop = ENGINE_EXIT_NONE;
	if (!why && __atomic_load_n(&cpu->stop_asked, __ATOMIC_SEQ_CST))
		why = __atomic_exchange_n(&cpu->stop_asked, ENGINE_EXIT_NONE, __ATOMIC_SEQ_CST);
	if (why)
		cpu->exit = (enum engine_exit)why;
	return why;
}

/* The host code to go on with at state.rip: pending events first. */
void *soft_dispatch(struct soft_cpu *cpu)
{
	struct soft_engine *e = cpu->engine;
	struct fault fault;
	struct block *b;
	uint32_t mode;
	uint64_t gpa, linear;
	unsigned rights;
	uint32_t kick;
	bool alone = false;

	cpu->misses++;
	if (cpu->alone)
		soft_end_alone(cpu);
	if (cpu->state.interrupt_shadow == SHADOW_MOV_SS)
		cpu->trap_after = false;
	if ((cpu->trap_after || cpu->watch_hits) && soft_debug_trap(cpu))
		soft_deliver(cpu, EXC_DB, false, false, 0);
	kick = __atomic_exchange_n(&cpu->kick, 0, __ATOMIC_SEQ_CST);
	if (kick & KICK_FLUSH)
		soft_take_flushes(cpu);
	if (cpu->want_alone) {
		cpu->want_alone = false;
		soft_begin_alone(cpu);
	} else if (__atomic_load_n(&e->owner, __ATOMIC_SEQ_CST)) {
		soft_park(cpu);
	}
	if (take_stop(cpu))
		return e->leave;
	if (kick & KICK_EVENT || (cpu->interrupt_pending && cpu->state.interrupt_flag && !cpu->state.interrupt_shadow))
		take_interrupt(cpu);
	for (;;) {
		if (take_stop(cpu))
			return e->leave;
		soft_select_view(cpu);
		alone = cpu->single_once || cpu->state.interrupt_shadow || cpu->state.rflags & FLAG_TF || cpu->breakpoints;
		mode = soft_mode(cpu) | (alone ? BLOCK_ALONE : 0);
		linear = cpu->state.code_bits == 64 ? cpu->state.rip : (uint32_t)(cpu->state.segment[X86_CS].base + cpu->state.rip);
		if (cpu->breakpoints && cpu->state.interrupt_shadow != SHADOW_MOV_SS && soft_hits_breakpoint(cpu, linear)) {
			soft_deliver(cpu, EXC_DB, false, false, 0);
			continue;
		}
		if (soft_walk(cpu, linear, ACCESS_EXEC, &gpa, &rights, &fault)) {
			soft_deliver(cpu, fault.vector, false, fault.has_code, (cpu->state.cr2 = fault.vector == EXC_PF ? fault.address : cpu->state.cr2, fault.code));
			continue;
		}
		b = find(cpu, gpa, mode, &fault);
		if (b)
			break;
		if (fault.vector == EXC_PF)
			cpu->state.cr2 = fault.address;
		soft_deliver(cpu, fault.vector, false, fault.has_code, fault.code);
	}
	if (alone) {
		cpu->trap_after = cpu->state.rflags & FLAG_TF;
		cpu->single_once = false;
		cpu->state.interrupt_shadow = 0;
		cpu->jump_key = cpu->engine->no_key; /* the block leaves through the jump cache: come back here */
	} else {
		enter_mode(cpu, mode);
		remember_jump(cpu, b, linear, jump_key(cpu, mode), rights);
	}
	return e->code_run + b->host_offset;
}

void *soft_raise(struct soft_cpu *cpu, const struct fault *fault)
{
	cpu->trap_after = false;
	cpu->watch_hits = 0;
	if (fault->vector == EXC_PF)
		cpu->state.cr2 = fault->address;
	soft_deliver(cpu, fault->vector, false, fault->has_code, fault->code);
	return soft_dispatch(cpu);
}

/* ---- running --------------------------------------------------------------------------------------------------------------------- */

static void store_vectors(struct soft_cpu *cpu)
{
	static const uint32_t mxcsr = 0x1f80;

	__asm__ volatile("xsave64 (%0)" : : "r"(cpu->vector), "a"(7), "d"(0) : "memory");
	__asm__ volatile("ldmxcsr %0; fninit; vzeroupper" : : "m"(mxcsr));
}

static void load_vectors(struct soft_cpu *cpu) { __asm__ volatile("xrstor64 (%0)" : : "r"(cpu->vector), "a"(7), "d"(0) : "memory"); }

/*
 * What runs outside is compiled for general registers only: x87, MXCSR and the rest stay as they are. Only libc uses vector
 * registers there, and XSAVE and XRSTOR of everything cost 140 ns, this 10.
 */
void soft_outside(struct soft_cpu *cpu)
{
#define YMM(n) "vmovdqa %%ymm" #n ", " #n "*32(%0)\n\t"
	__asm__ volatile(YMM(0) YMM(1) YMM(2) YMM(3) YMM(4) YMM(5) YMM(6) YMM(7) YMM(8) YMM(9) YMM(10) YMM(11) YMM(12) YMM(13) YMM(14) YMM(15) "vzeroupper"
			 : : "r"(cpu->ymm) : "memory");
#undef YMM
	soft_stop_executing(cpu);
}

void soft_inside(struct soft_cpu *cpu)
{
	soft_start_executing(cpu);
#define YMM(n) "vmovdqa " #n "*32(%0), %%ymm" #n "\n\t"
	__asm__ volatile(YMM(0) YMM(1) YMM(2) YMM(3) YMM(4) YMM(5) YMM(6) YMM(7) YMM(8) YMM(9) YMM(10) YMM(11) YMM(12) YMM(13) YMM(14) YMM(15)
			 : : "r"(cpu->ymm) : "memory");
#undef YMM
}

void *engine_cpu_xmm(struct engine_cpu *cpu, unsigned n) { return ((struct soft_cpu *)cpu)->ymm[n]; }

static __thread struct soft_cpu *running;

static void own_fault(int number, const siginfo_t *info, const greg_t *g)
{
	const struct soft_engine *e = running ? running->engine : NULL;

	if (e && e->last_words)
		snprintf(e->last_words, e->last_words_bytes, "signal %d at %lx (code %+ld), address %p", number, (unsigned long)g[REG_RIP],
			 (long)(g[REG_RIP] - (greg_t)e->code_run), info->si_addr);
	_exit(70);
}

/* What the fault was; 0: none that a guest can cause. */
static unsigned vector_of(int number, const siginfo_t *info, const ucontext_t *u)
{
	switch (number) {
	case SIGFPE:
		if (u->uc_mcontext.fpregs && (u->uc_mcontext.fpregs->swd & 0x80))
			return EXC_MF;
		return info->si_code == FPE_INTDIV || info->si_code == FPE_INTOVF ? EXC_DE + 0x100 : EXC_XM;
	case SIGILL: return EXC_UD;
	case SIGBUS: return EXC_SS;
	default: return info->si_addr ? 0 : EXC_GP; /* an address: a fault of ours */
	}
}

/*
 * On a stack pointer that is not canonical some hosts raise #GP, #SS or #UD when they return from an interrupt, anywhere in the code cache:
 * also in the way out of a thunk (then what it was to resume is what goes on) and in emit_refresh() (then that begins again).
 */
static void on_signal(int number, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	greg_t *g = u->uc_mcontext.gregs;
	struct soft_cpu *cpu = running;
	struct soft_engine *e = cpu ? cpu->engine : NULL;
	uint64_t pc = (uint64_t)g[REG_RIP];
	unsigned vector = vector_of(number, info, u);
	bool odd_stack = may_be_hosts_own(vector) && !soft_canonical((uint64_t)g[REG_RSP]);

	if (!e || !vector || pc - (uint64_t)e->code_run >= e->code_bytes) {
		own_fault(number, info, g);
		return;
	}
	for (unsigned n = 0; odd_stack && n < e->resume_jump_count; n++)
		if (pc == e->resume_jumps[n])
			pc = (uint64_t)cpu->resume;
	if (odd_stack && pc >= (uint64_t)e->refresh && pc < (uint64_t)e->reload) {
		cpu->resume = e->refresh;
		g[REG_RSP] = (greg_t)cpu->host_rsp;
		g[REG_RIP] = (greg_t)e->reload;
		return;
	}
	cpu->signal_in_block = soft_guest_pc(e, pc, &cpu->signal_rip, &cpu->signal_in_word);
	if (!cpu->signal_in_block && !odd_stack) {
		own_fault(number, info, g);
		return;
	}
	cpu->signal_vector = vector & 0xff;
	cpu->signal_pc = pc;
	cpu->signal_word = ((uint64_t)g[REG_EFL] & 0xff) << 8 | ((uint64_t)g[REG_EFL] >> 11 & 1);
	g[REG_EFL] &= ~(greg_t)FLAG_DF;
	cpu->state.gpr[RSP] = (uint64_t)g[REG_RSP];
	g[REG_RSP] = (greg_t)cpu->host_rsp; /* the guest's may be non-canonical: the host cannot return to that */
	g[REG_RIP] = (greg_t)e->signal;
}

static int install_signals(void)
{
	static const int numbers[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t stack = { .ss_size = 64 << 10 };

	stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL))
		return -errno;
	for (unsigned n = 0; n < 4; n++)
		sigaction(numbers[n], &action, NULL);
	return 0;
}

int engine_prepare_thread(struct engine_cpu *opaque)
{
	int error = install_signals();

	if (error)
		return error;
	syscall(SYS_arch_prctl, ARCH_SET_GS, opaque); /* WRGSBASE would be lost at a switch where the kernel does not use it */
	running = (struct soft_cpu *)opaque;
	return 0;
}

void engine_reset(struct engine_cpu *opaque)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;

	soft_flush(cpu, true);
	cpu->nmi_pending = 0;
	cpu->nmi_blocked = cpu->trap_after = cpu->single_once = false;
}

unsigned engine_cpu_nmi(const struct engine_cpu *opaque)
{
	const struct soft_cpu *cpu = (const struct soft_cpu *)opaque;

	return (cpu->nmi_pending ? ENGINE_NMI_PENDING : 0) | (cpu->nmi_blocked ? ENGINE_NMI_BLOCKED : 0);
}

/* What XRSTOR would refuse (SDM Vol. 1 13.8.1) would be a fault of ours. */
static bool is_loadable(const uint8_t *area)
{
	uint64_t header[8];
	uint32_t mxcsr;

	memcpy(header, area + 512, sizeof(header));
	memcpy(&mxcsr, area + 24, 4);
	if (header[0] & ~7ull || header[1] || mxcsr >> 16) /* an x86-64-v3 processor has all 16 */
		return false;
	for (int n = 2; n < 8; n++)
		if (header[n])
			return false;
	return true;
}

int engine_cpu_restored(struct engine_cpu *opaque, unsigned nmi)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;

	if (!is_loadable(cpu->vector))
		return -EBADMSG;
	engine_reset(opaque);
	cpu->nmi_pending = nmi & ENGINE_NMI_PENDING ? 1 : 0;
	cpu->nmi_blocked = nmi & ENGINE_NMI_BLOCKED;
	soft_set_code_bits(&cpu->state);
	soft_debug_changed(cpu);
	engine_kick(opaque);
	return 0;
}

enum engine_exit engine_run(struct engine_cpu *opaque)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;
	void (*enter)(struct soft_cpu *, void *) = (void (*)(struct soft_cpu *, void *))cpu->engine->enter;

	cpu->exit = ENGINE_EXIT_NONE;
	soft_set_rflags(cpu, cpu->state.rflags | (cpu->state.interrupt_flag ? FLAG_IF : 0));
	load_vectors(cpu);
	soft_enter(cpu);
	soft_start_executing(cpu);
	enter(cpu, soft_dispatch(cpu));
	soft_stop_executing(cpu);
	soft_exit(cpu);
	store_vectors(cpu);
	cpu->state.rflags = soft_rflags(cpu);
	return cpu->exit;
}

void soft_kick(struct soft_cpu *cpu, uint32_t why)
{
	__atomic_fetch_or(&cpu->kick, why, __ATOMIC_SEQ_CST);
	__atomic_store_n(&cpu->jump_key, cpu->engine->no_key, __ATOMIC_SEQ_CST);
}

void engine_kick(struct engine_cpu *opaque) { soft_kick((struct soft_cpu *)opaque, KICK_EVENT); }

bool engine_has_nmi(const struct engine_cpu *opaque) { return __atomic_load_n(&((const struct soft_cpu *)opaque)->nmi_pending, __ATOMIC_SEQ_CST); }

void engine_nmi(struct engine_cpu *opaque)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;

	__atomic_store_n(&cpu->nmi_pending, 1, __ATOMIC_SEQ_CST);
	soft_kick(cpu, KICK_EVENT);
}

void engine_stop(struct engine_cpu *opaque, enum engine_exit why)
{
	struct soft_cpu *cpu = (struct soft_cpu *)opaque;

	__atomic_store_n(&cpu->stop_asked, why, __ATOMIC_SEQ_CST);
	engine_kick(opaque);
}

void engine_memory_written(struct engine *opaque, uint64_t gpa, size_t bytes)
{
	struct soft_engine *e = (struct soft_engine *)opaque;

	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the write before the look: see find() */
	while (bytes) {
		size_t left = PAGE_BYTES - (gpa & 4095), n = bytes < left ? bytes : left;
		uint8_t *hva = soft_hva(e, gpa);

		if (hva)
			soft_mark_dirty(e, hva);
		if (hva && e->frame_flags[soft_frame(e, hva)] & FRAME_CODE)
			soft_invalidate(e, gpa, n);
		gpa += n;
		bytes -= n;
	}
}

static void *reserve(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

struct engine *engine_create(const struct guest_memory *memory)
{
	size_t frames = guest_memory_footprint_bytes(memory->ram_bytes) >> 12;
	struct soft_engine *e = calloc(1, sizeof(*e));
	int fd = memfd_create("umbra-code", MFD_CLOEXEC);

	if (!e || fd < 0)
		return NULL;
	e->memory = memory;
	e->ram = memory->ram;
	e->code_bytes = 64 << 20;
	e->cold_start = e->cold_used = 24 << 20;
	if (ftruncate(fd, (off_t)e->code_bytes) || getrandom(&e->secret, 8, 0) != 8 || getrandom(&e->no_key, 8, 0) != 8)
		return NULL;
	e->code_write = mmap(NULL, e->code_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	e->code_run = mmap(NULL, e->code_bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	close(fd);
	e->blocks = reserve(MAX_BLOCKS * sizeof(*e->blocks));
	e->hash = reserve(HASH_BUCKETS * sizeof(*e->hash));
	e->maps = reserve(MAX_MAPS * sizeof(*e->maps));
	e->page_blocks = reserve(frames * sizeof(*e->page_blocks));
	e->frame_flags = reserve(frames);
	e->frame_writes = reserve(frames);
	if (e->code_write == MAP_FAILED || e->code_run == MAP_FAILED || !e->blocks || !e->hash || !e->maps || !e->page_blocks || !e->frame_flags || !e->frame_writes)
		return NULL;
	return (struct engine *)e;
}

static int make_table(uint64_t *ret_base)
{
	uint8_t *at = reserve(TABLE_BYTES + 0x20000);

	if (!at)
		return -ENOMEM;
	madvise(at, TABLE_BYTES, MADV_NOHUGEPAGE);
	*ret_base = (((uint64_t)at + 0xffff) & ~0xffffull) + TABLE_BIAS;
	return 0;
}

struct engine_cpu *engine_cpu_create(struct engine *engine, const struct engine_ops *ops, void *context)
{
	struct soft_engine *e = (struct soft_engine *)engine;
	struct soft_cpu *cpu = e->cpu_count < MAX_CPUS ? reserve(sizeof(*cpu)) : NULL;

	if (!cpu)
		return NULL;
	for (int n = 0; n < VIEWS; n++)
		if (make_table(&cpu->view_read[n]) || make_table(&cpu->view_write[n]))
			return NULL;
	cpu->self = cpu;
	cpu->engine = e;
	cpu->ops = ops;
	cpu->ops_context = context;
	*(uint16_t *)(void *)(cpu->vector) = 0x37f;
	*(uint32_t *)(void *)(cpu->vector + 24) = 0x1f80;
	if (e->cpu_count) {
		const struct soft_cpu *first = e->cpus[0];

		cpu->thunk_memory = first->thunk_memory;
		cpu->thunk_commit = first->thunk_commit;
		cpu->thunk_system = first->thunk_system;
		cpu->thunk_chain = first->thunk_chain;
		cpu->thunk_miss = first->thunk_miss;
	} else {
		make_thunks(e, cpu);
	}
	e->cpus[e->cpu_count++] = cpu;
	return (struct engine_cpu *)cpu;
}

void *engine_cpu_vector(struct engine_cpu *cpu) { return ((struct soft_cpu *)cpu)->vector; }
struct x86_state *engine_cpu_state(struct engine_cpu *cpu) { return &((struct soft_cpu *)cpu)->state; }

size_t engine_statistics(struct engine_cpu *opaque, char *text, size_t bytes)
{
	struct soft_cpu *c = (struct soft_cpu *)opaque;
	int n = snprintf(text, bytes, "rip %lx translations %lu fills %lu dispatches %lu chains %lu system %lu code %zu KiB\n", c->state.rip,
			 c->translations, c->fills, c->misses, c->chains, c->systems, (c->engine->code_used + c->engine->cold_used - c->engine->cold_start) >> 10);

	return n < 0 ? 0 : (size_t)n < bytes ? (size_t)n : bytes - 1;
}

void engine_set_last_words(struct engine *engine, char *text, size_t bytes)
{
	((struct soft_engine *)engine)->last_words = text;
	((struct soft_engine *)engine)->last_words_bytes = bytes;
}
