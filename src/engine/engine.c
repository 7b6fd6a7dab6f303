/*
 * engine.h in front of its implementations: which one a machine gets, and what every one of them
 * may assume of its caller.
 */
#include "engine_driver.h"

#include <assert.h>
#include <errno.h>

/* In order of preference. */
static const struct engine_driver *const drivers[] = { &soft_engine_driver };

struct engine *engine_create(const struct guest_memory *memory,
			     const struct engine_options *options)
{
	assert(memory);
	assert(options->cpus && options->overhead_bytes >= ENGINE_LEAST_OVERHEAD_BYTES);
	for (unsigned n = 0; n < sizeof(drivers) / sizeof(drivers[0]); n++) {
		struct engine *engine = drivers[n]->create(memory, options);

		if (engine)
			return engine;
	}
	return NULL;
}

void engine_destroy(struct engine *engine)
{
	if (engine)
		engine->driver->destroy(engine);
}

void engine_set_model(struct engine *engine, const struct cpu_model *model,
		      const struct cpu_host *host)
{
	assert(model && host);
	engine->driver->set_model(engine, model, host);
}

struct engine_cpu *engine_cpu_create(struct engine *engine, const struct engine_ops *ops,
				     void *context)
{
	assert(ops->port_read && ops->port_write && ops->mmio_read && ops->mmio_write &&
	       ops->msr_read && ops->msr_write);
	assert(ops->cpuid && ops->interrupt && ops->get_cr8 && ops->set_cr8 && ops->hypercall);
	return engine->driver->cpu_create(engine, ops, context);
}

void engine_cpu_destroy(struct engine_cpu *cpu)
{
	if (cpu)
		cpu->driver->cpu_destroy(cpu);
}

int engine_prepare_thread(struct engine_cpu *cpu) { return cpu->driver->prepare_thread(cpu); }

void engine_set_last_words(struct engine *engine, char *text, size_t bytes)
{
	assert(text || !bytes);
	engine->driver->set_last_words(engine, text, bytes);
}

void engine_get(const struct engine_cpu *cpu, unsigned groups, struct engine_state *state)
{
	assert(groups && !(groups & ~(unsigned)ENGINE_ALL));
	cpu->driver->get(cpu, groups, state);
}

int engine_set(struct engine_cpu *cpu, unsigned groups, const struct engine_state *state)
{
	int error;

	assert(groups && !(groups & ~(unsigned)ENGINE_ALL));
	error = cpu->driver->set(cpu, groups, state);
	assert(!error || (error == -EBADMSG && groups & ENGINE_VECTOR));
	return error;
}

void *engine_call_xmm(struct engine_cpu *cpu, unsigned n)
{
	assert(n < 16);
	return cpu->driver->call_xmm(cpu, n);
}

enum engine_exit engine_run(struct engine_cpu *cpu)
{
	enum engine_exit why = cpu->driver->run(cpu);

	assert(why != ENGINE_EXIT_NONE);
	return why;
}

void engine_kick(struct engine_cpu *cpu) { cpu->driver->kick(cpu); }

void engine_stop(struct engine_cpu *cpu, enum engine_exit why)
{
	assert(why != ENGINE_EXIT_NONE);
	cpu->driver->stop(cpu, why);
}

void engine_nmi(struct engine_cpu *cpu) { cpu->driver->nmi(cpu); }

bool engine_has_nmi(const struct engine_cpu *cpu) { return cpu->driver->has_nmi(cpu); }

size_t engine_statistics(const struct engine_cpu *cpu, char *text, size_t bytes)
{
	assert(bytes);
	return cpu->driver->statistics(cpu, text, bytes);
}

void engine_memory_written(struct engine *engine, uint64_t gpa, size_t bytes)
{
	engine->driver->memory_written(engine, gpa, bytes);
}

void engine_trim(struct engine *engine, unsigned idle_s)
{
	engine->driver->trim(engine, idle_s);
}

void engine_flush(struct engine *engine, uint64_t targets, const struct engine_gva_range *ranges,
		  unsigned count, bool global)
{
	assert(ranges || !count);
	engine->driver->flush(engine, targets, ranges, count, global);
}

void engine_place_overlay(struct engine *engine, struct guest_memory *memory, unsigned overlay,
			  uint64_t gpa, bool read_only)
{
	engine->driver->place_overlay(engine, memory, overlay, gpa, read_only);
}

uint64_t engine_take_dirty(struct engine *engine, uint64_t *dirty)
{
	return engine->driver->take_dirty(engine, dirty);
}

void engine_find_written(struct engine *engine, uint64_t *written)
{
	engine->driver->find_written(engine, written);
}

void engine_note_written(struct engine *engine, uint64_t frame, uint64_t frames)
{
	engine->driver->note_written(engine, frame, frames);
}

void engine_note_use(struct engine *engine, bool notes)
{
	engine->driver->note_use(engine, notes);
}

void engine_find_used(struct engine *engine, uint64_t *used, uint64_t most)
{
	engine->driver->find_used(engine, used, most);
}

unsigned engine_find_code(struct engine *engine, struct engine_place *ret)
{
	return engine->driver->find_code(engine, ret);
}

void engine_make_code(struct engine *engine, const struct engine_place *place)
{
	engine->driver->make_code(engine, place);
}

void engine_know_places(struct engine *engine, const uint8_t *places, size_t count)
{
	engine->driver->know_places(engine, places, count);
}

void engine_touch_ahead(struct engine *engine, size_t from, size_t end)
{
	engine->driver->touch_ahead(engine, from, end);
}

unsigned engine_take_code(struct engine *engine, struct engine_code *ret, unsigned most,
			  uint64_t *ret_lost)
{
	const unsigned count = engine->driver->take_code(engine, ret, most, ret_lost);

	assert(count <= most);
	return count;
}

bool engine_list(struct engine *engine, uint64_t gpa, uint64_t gva, unsigned n,
		 struct engine_listed *ret)
{
	bool found = engine->driver->list(engine, gpa, gva, n, ret);

	assert(!found || (ret->hot_begin <= ret->hot_end && ret->hot_end <= ret->host_bytes &&
			  ret->host_bytes <= ENGINE_LISTED_HOST_BYTES &&
			  ret->guest_bytes <= ENGINE_LISTED_GUEST_BYTES &&
			  ret->maps <= ENGINE_LISTED_MAPS));
	return found;
}

void engine_leave_code(struct engine *engine) { engine->driver->leave_code(engine); }
void engine_hold_code(struct engine *engine) { engine->driver->hold_code(engine); }
void engine_release_code(struct engine *engine) { engine->driver->release_code(engine); }

int engine_forked_bare(struct engine *engine) { return engine->driver->forked_bare(engine); }

int engine_forked(struct engine *engine, int code_fd)
{
	assert(code_fd >= 0);
	return engine->driver->forked(engine, code_fd);
}
