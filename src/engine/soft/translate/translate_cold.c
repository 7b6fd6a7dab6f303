/*
 * What is written behind the hot code of a block: slow paths of accesses, links of chains, the
 * cases left to C.
 */
#include "translate_internal.h"

#include <assert.h>

/* r = where the access begins, in what it may not cross; the flags say "above" if it crosses. */
static void compare_begin(struct translation *translation, const struct cold *cold, uint8_t reg)
{
	emit_lea(out(translation), reg, cold->ea);
	emit_rr(out(translation), OP32(0x81), 4, reg);
	emit32(out(translation), cold->unit_bytes - 1u);
	emit_rr(out(translation), OP32(0x81), 7, reg);
	emit32(out(translation), (uint32_t)cold->unit_bytes - cold->bytes);
}

static struct host_mem last_byte(const struct cold *cold)
{
	struct host_mem last = cold->ea;

	last.disp += cold->bytes - 1;
	return last;
}

/*
 * The test on the path also stops what ends just behind a page's begin without crossing it: that
 * goes back. Where that is mispredicted the access is one of its last byte on.
 */
static void sort_out_crossing(struct translation *translation, const struct cold *cold)
{
	uint8_t *crosses;

	compare_begin(translation, cold, R11);
	crosses = emit_jcc(out(translation), CC_A);
	emit_lea(out(translation), R11, last_byte(cold));
	emit_cmov(out(translation), CC_A, R10, R11);
	set_jump(emit_jmp(out(translation)), cold->lookup);
	set_jump(crosses, out(translation)->out);
}

/* The same where one branch stands for both: the entry is looked up again. */
void translate_sort_out_one(struct translation *translation, const struct cold *cold)
{
	if (cold->last_in_r10)
		emit_store(out(translation), R10, CPU(temp[2]));
	else
		emit_lea(out(translation), R10, last_byte(cold));
	emit_entry(translation, R10, cold->write);
	compare_begin(translation, cold, R10);
	emit_drop_entry(translation, CC_A);
	emit_rr(out(translation), OP32(0xf6), 0, R11);
	emit8(out(translation), 1);
	if (cold->last_in_r10)
		emit_load(out(translation), R10, CPU(temp[2]));
	set_jump(emit_jcc(out(translation), CC_NZ), cold->lookup);
}

static void cold_memory(struct translation *translation, struct cold *cold)
{
	const struct x86_insn *insn = &translation->at->insn;
	struct memory_site site = { .write = cold->write,
				    .locked = x86_insn_is_locked(insn),
				    .stack = (!cold->ea_in_r10 && cold->ea.base == RSP) ||
					     (x86_insn_has_memory(insn) && insn->segment == X86_SS),
				    .read = cold->read,
				    .bytes = cold->bytes };
	uint8_t *to_site, *bounce, *at_site;
	size_t copied = (size_t)(cold->after - cold->back);

	if (cold->crossing)
		sort_out_crossing(translation, cold);
	cold->slow = out(translation)->out;
	if (cold->one_branch)
		translate_sort_out_one(translation, cold);
	if (!cold->ea_in_r10 || cold->last_in_r10)
		emit_lea(out(translation), R10, cold->ea);
	to_site = emit_lea_rip(out(translation), R11);
	emit_jmp_cpu(out(translation), offsetof(struct soft_cpu, thunk_memory));
	translate_align_data(translation);
	at_site = out(translation)->out;
	set_jump(to_site, at_site);
	out(translation)->out += sizeof(site);
	bounce = out(translation)->out;
	if (cold->last_in_r10)
		emit_lea(out(translation), R10, mem(R10, cold->bytes - 1));
	memcpy(out(translation)->out, cold->back, copied);
	out(translation)->out += copied;
	site.bounce = (int32_t)(bounce - at_site);
	if (cold->write) { /* flags and r11 may be results of the access */
		if (cold->keeps_result)
			emit_save_flags(out(translation), false);
		emit_store(out(translation), R11, CPU(commit_r11));
		to_site = emit_lea_rip(out(translation), R11);
		emit_jmp_cpu(out(translation), offsetof(struct soft_cpu, thunk_commit));
		set_jump(to_site, out(translation)->out);
		emit_load(out(translation), R11, CPU(commit_r11));
		if (cold->keeps_result || cold->restores)
			emit_restore_flags(out(translation));
	}
	set_jump(emit_jmp(out(translation)), cold->after);
	memcpy(at_site, &site, sizeof(site));
}

/* A jump within the page from a cold part or from a block whose cold parts are made at once. */
static void cold_chain(struct translation *translation, struct cold *cold)
{
	struct emitter *emitter = out(translation);
	uint8_t *link = cold->from[0];
	uint8_t *home = emitter->out;

	if (cold->kind == COLD_POLL && !translate_same_page(translation, cold->target) &&
	    translate_exit_by_slot(translation, cold->target, cold->flags_in_word))
		return;
	/* backwards or to another page: look at the kick without touching flags */
	if (cold->kind == COLD_POLL) {
		emit_mov(emitter, R11, RCX);
		emit_rm(emitter, OP32(0x8b), RCX, CPU(kick));
		emit8(emitter, 0x67);
		emit8(emitter, 0xe3);
		emit8(emitter, 0);
		uint8_t *calm = emitter->out;

		emit_mov(emitter, RCX, R11);
		if (!cold->flags_in_word)
			emit_save_flags(emitter, true);
		emit_rip(translation, R11, cold->target);
		emit_store(emitter, R11, CPU(state.rip));
		translate_miss(translation);
		calm[-1] = (uint8_t)(emitter->out - calm);
		emit_mov(emitter, RCX, R11);
		if (!translate_same_page(translation, cold->target)) {
			if (!cold->flags_in_word)
				emit_save_flags(emitter, true);
			translate_exit_constant(translation, cold->target);
			return;
		}
		translate_align_rel32(translation, 1);
		link = emit_jmp(emitter);
		home = emitter->out;
		set_jump(link, home);
	}
	if (!cold->flags_in_word)
		emit_save_flags(emitter, true);
	emit_rip(translation, R11, cold->target);
	emit_store(emitter, R11, CPU(state.rip));
	set_jump(emit_lea_rip(emitter, R11), link);
	set_jump(emit_lea_rip(emitter, R10), home);
	emit_rm(emitter, OP32(0xc6), 0, CPU(temp[2]));
	emit8(emitter, cold->flags_in_word);
	emit_jmp_cpu(emitter, offsetof(struct soft_cpu, thunk_chain));
}

/* The flags are in flags_word. */
static void cold_kicked(struct translation *translation, const struct cold *cold)
{
	emit_rip(translation, R11, cold->target);
	emit_store(out(translation), R11, CPU(state.rip));
	translate_miss(translation);
}

void translate_add_map(struct translation *translation, const struct guest_insn *guest_insn,
		       bool in_word)
{
	assert(translation->map_count < MOST_MAPS);
	translation->maps[translation->map_count++] =
		(struct pc_map){ .host = (uint16_t)(out(translation)->out - translation->base),
				 .guest = (uint16_t)(guest_insn->at |
						     (in_word ? MAP_FLAGS_IN_WORD : 0)) };
}

void translate_cold_part(struct translation *translation, struct cold *cold)
{
	translation->at = &translation->insns[cold->insn];
	translate_add_map(translation, translation->at, cold->flags_in_word);
	cold->slow = out(translation)->out;
	switch (cold->kind) {
	case COLD_MEMORY: cold_memory(translation, cold); break;
	case COLD_SYSTEM: translate_leave_for_system(translation); break;
	case COLD_GROUP: translate_cold_group(translation, cold); break;
	case COLD_KICKED: cold_kicked(translation, cold); break;
	default: cold_chain(translation, cold); break;
	}
}

void translate_cold_parts(struct translation *translation, unsigned from)
{
	for (unsigned n = from; n < translation->cold_count; n++) {
		struct cold *cold = &translation->cold[n];
		uint8_t *begin = out(translation)->out;

		translate_cold_part(translation, cold);
		for (unsigned k = 0; k < sizeof(cold->from) / sizeof(*cold->from); k++)
			if (cold->from[k])
				set_jump(cold->from[k], cold->slow);
		if (cold->crossing && cold->kind == COLD_MEMORY)
			set_jump(cold->crossing, begin);
	}
}
