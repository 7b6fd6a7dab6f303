/*
 * What is written behind the hot code of a block: slow paths of accesses, links of chains, the
 * cases left to C.
 */
#include "translate_internal.h"

/* r = where the access begins, in what it may not cross; the flags say "above" if it crosses. */
static void compare_begin(struct translation *t, const struct cold *c, uint8_t r)
{
	emit_lea(out(t), r, c->ea);
	emit_rr(out(t), OP32(0x81), 4, r);
	emit32(out(t), c->unit_bytes - 1u);
	emit_rr(out(t), OP32(0x81), 7, r);
	emit32(out(t), (uint32_t)c->unit_bytes - c->bytes);
}

static struct host_mem last_byte(const struct cold *c)
{
	struct host_mem last = c->ea;

	last.disp += c->bytes - 1;
	return last;
}

/*
 * The test on the path also stops what ends just behind a page's begin without crossing it: that
 * goes back. Where that is mispredicted the access is one of its last byte on.
 */
static void sort_out_crossing(struct translation *t, const struct cold *c)
{
	uint8_t *crosses;

	compare_begin(t, c, R11);
	crosses = emit_jcc(out(t), CC_A);
	emit_lea(out(t), R11, last_byte(c));
	emit_cmov(out(t), CC_A, R10, R11);
	set_jump(emit_jmp(out(t)), c->lookup);
	set_jump(crosses, out(t)->out);
}

/* The same where one branch stands for both: the entry is looked up again. */
void translate_sort_out_one(struct translation *t, const struct cold *c)
{
	emit_lea(out(t), R10, last_byte(c));
	emit_entry(t, R10, c->write);
	compare_begin(t, c, R10);
	emit_drop_entry(t, CC_A);
	emit_rr(out(t), OP32(0xf6), 0, R11);
	emit8(out(t), 1);
	set_jump(emit_jcc(out(t), CC_NZ), c->lookup);
}

static void cold_memory(struct translation *t, struct cold *c)
{
	const struct x86_insn *i = &t->at->insn;
	struct memory_site site = { .write = c->write,
				    .locked = x86_insn_is_locked(i),
				    .stack = (!c->ea_in_r10 && c->ea.base == RSP) ||
					     (x86_insn_has_memory(i) && i->segment == X86_SS),
				    .read = c->read,
				    .bytes = c->bytes };
	uint8_t *to_site, *bounce, *at_site;
	size_t copied = (size_t)(c->after - c->back);

	if (c->crossing)
		sort_out_crossing(t, c);
	c->slow = out(t)->out;
	if (c->one_branch)
		translate_sort_out_one(t, c);
	if (!c->ea_in_r10)
		emit_lea(out(t), R10, c->ea);
	to_site = emit_lea_rip(out(t), R11);
	emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_memory));
	translate_align_data(t);
	at_site = out(t)->out;
	set_jump(to_site, at_site);
	out(t)->out += sizeof(site);
	bounce = out(t)->out;
	memcpy(bounce, c->back, copied);
	out(t)->out += copied;
	site.bounce = (int32_t)(bounce - at_site);
	if (c->write) { /* flags and r11 may be results of the access */
		if (c->keeps_result)
			emit_save_flags(out(t), false);
		emit_store(out(t), R11, CPU(commit_r11));
		to_site = emit_lea_rip(out(t), R11);
		emit_jmp_cpu(out(t), offsetof(struct soft_cpu, thunk_commit));
		set_jump(to_site, out(t)->out);
		emit_load(out(t), R11, CPU(commit_r11));
		if (c->keeps_result || c->restores)
			emit_restore_flags(out(t));
	}
	set_jump(emit_jmp(out(t)), c->after);
	memcpy(at_site, &site, sizeof(site));
}

/* A jump within the page from a cold part or from a block whose cold parts are made at once. */
static void cold_chain(struct translation *t, struct cold *c)
{
	struct emitter *e = out(t);
	uint8_t *link = c->from[0];
	uint8_t *home = e->out;

	/* backwards or to another page: look at the kick without touching flags */
	if (c->kind == COLD_POLL) {
		emit_mov(e, R11, RCX);
		emit_rm(e, OP32(0x8b), RCX, CPU(kick));
		emit8(e, 0x67);
		emit8(e, 0xe3);
		emit8(e, 0);
		uint8_t *calm = e->out;

		emit_mov(e, RCX, R11);
		if (!c->flags_in_word)
			emit_save_flags(e, true);
		emit_rip(t, R11, c->target);
		emit_store(e, R11, CPU(state.rip));
		translate_miss(t);
		calm[-1] = (uint8_t)(e->out - calm);
		emit_mov(e, RCX, R11);
		if (!translate_same_page(t, c->target)) {
			if (!c->flags_in_word)
				emit_save_flags(e, true);
			translate_exit_constant(t, c->target);
			return;
		}
		translate_align_rel32(t, 1);
		link = emit_jmp(e);
		home = e->out;
		set_jump(link, home);
	}
	if (!c->flags_in_word)
		emit_save_flags(e, true);
	emit_rip(t, R11, c->target);
	emit_store(e, R11, CPU(state.rip));
	set_jump(emit_lea_rip(e, R11), link);
	set_jump(emit_lea_rip(e, R10), home);
	emit_rm(e, OP32(0xc6), 0, CPU(temp[2]));
	emit8(e, c->flags_in_word);
	emit_jmp_cpu(e, offsetof(struct soft_cpu, thunk_chain));
}

void translate_add_map(struct translation *t, const struct guest_insn *g, bool in_word)
{
	t->maps[t->map_count++] = (struct pc_map){
		.host = (uint16_t)(out(t)->out - t->base),
		.guest = (uint16_t)((g->rip - t->rip) | (in_word ? MAP_FLAGS_IN_WORD : 0))
	};
}

void translate_cold_part(struct translation *t, struct cold *c)
{
	t->at = &t->insns[c->insn];
	translate_add_map(t, t->at, c->flags_in_word);
	c->slow = out(t)->out;
	switch (c->kind) {
	case COLD_MEMORY: cold_memory(t, c); break;
	case COLD_SYSTEM: translate_leave_for_system(t); break;
	case COLD_GROUP: translate_cold_group(t, c); break;
	default: cold_chain(t, c); break;
	}
}

void translate_cold_parts(struct translation *t, unsigned from)
{
	for (unsigned n = from; n < t->cold_count; n++) {
		struct cold *c = &t->cold[n];
		uint8_t *begin = out(t)->out;

		translate_cold_part(t, c);
		for (unsigned k = 0; k < sizeof(c->from) / sizeof(*c->from); k++)
			if (c->from[k])
				set_jump(c->from[k], c->slow);
		if (c->crossing && c->kind == COLD_MEMORY)
			set_jump(c->crossing, begin);
	}
}
