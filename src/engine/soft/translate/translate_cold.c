/*
 * What is written behind the hot code of a block: slow paths of accesses, links of chains, the
 * cases left to C.
 */
#include "translate_internal.h"

/*
 * The test on the path also stops what ends just behind a page's begin without crossing it: that
 * goes back.
 */
static void sort_out_crossing(struct translation *t, struct cold *c)
{
	struct host_mem last = c->ea;
	uint8_t *over, *crosses;

	over = c->from[1] ? emit_jmp(out(t)) : NULL;
	set_jump(c->crossing, out(t)->out);
	emit_lea(out(t), R11, c->ea);
	emit_rr(out(t), OP32(0x81), 4, R11);
	emit32(out(t), c->unit_bytes - 1u);
	emit_rr(out(t), OP32(0x81), 7, R11);
	emit32(out(t), (uint32_t)c->unit_bytes - c->bytes);
	crosses = emit_jcc(out(t), 7);
	last.disp += c->bytes - 1;
	emit_lea(out(t), R11, last);
	set_jump(emit_jmp(out(t)), c->lookup);
	set_jump(crosses, out(t)->out);
	if (over)
		set_jump(over, out(t)->out);
}

/* The same where one branch stands for both: r11 is the entry. */
void translate_sort_out_one(struct translation *t, const struct cold *c)
{
	uint8_t *absent, *crosses;

	emit_rr(out(t), OP32(0xf6), 0, R11);
	emit8(out(t), 1);
	absent = emit_jcc(out(t), CC_Z);
	emit_lea(out(t), R10, c->ea);
	emit_rr(out(t), OP32(0x81), 4, R10);
	emit32(out(t), c->unit_bytes - 1u);
	emit_rr(out(t), OP32(0x81), 7, R10);
	emit32(out(t), (uint32_t)c->unit_bytes - c->bytes);
	crosses = emit_jcc(out(t), 7);
	set_jump(emit_jmp(out(t)), c->lookup);
	set_jump(absent, out(t)->out);
	set_jump(crosses, out(t)->out);
}

void translate_cold_memory(struct translation *t, struct cold *c)
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

void translate_cold_chain(struct translation *t, struct cold *c)
{
	struct emitter *e = out(t);
	uint8_t *link = c->from[0];
	uint8_t *to_link;

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
		emit_constant(e, R11, c->target);
		emit_store(e, R11, CPU(state.rip));
		emit_jmp_cpu(e, offsetof(struct soft_cpu, thunk_miss));
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
		set_jump(link, e->out);
	}
	if (!c->flags_in_word)
		emit_save_flags(e, true);
	emit_constant(e, R11, c->target);
	emit_store(e, R11, CPU(state.rip));
	to_link = emit_lea_rip(e, R11);
	set_jump(to_link, link);
	emit_rm(e, OP32(0xc6), 0, CPU(temp[2]));
	emit8(e, c->flags_in_word);
	emit_jmp_cpu(e, offsetof(struct soft_cpu, thunk_chain));
}

void translate_add_map(struct translation *t, const struct guest_insn *g, bool in_word)
{
	struct soft_engine *e = t->engine;

	e->maps[e->map_count++] = (struct pc_map){
		.host = (uint32_t)(out(t)->out - t->base),
		.guest = (uint16_t)(g->rip - t->insns[0].rip),
		.length = (uint16_t)(g->insn.length | (in_word ? MAP_FLAGS_IN_WORD : 0))
	};
}
