/* For implementations of engine.h: what each provides, and how its objects begin. */
#pragma once

#include "engine/engine.h"

/* Functions as in engine.h, where their rules are. */
struct engine_driver {
	const char *name;
	struct engine *(*create)(const struct guest_memory *memory,
				 const struct engine_options *options);
	void (*destroy)(struct engine *engine);
	struct engine_cpu *(*cpu_create)(struct engine *engine, const struct engine_ops *ops,
					 void *context);
	void (*cpu_destroy)(struct engine_cpu *cpu);
	int (*prepare_thread)(struct engine_cpu *cpu);
	void (*set_model)(struct engine *engine, const struct cpu_model *model,
			  const struct cpu_host *host);
	void (*set_last_words)(struct engine *engine, char *text, size_t bytes);
	void (*get)(const struct engine_cpu *cpu, unsigned groups, struct engine_state *state);
	int (*set)(struct engine_cpu *cpu, unsigned groups, const struct engine_state *state);
	void *(*call_xmm)(struct engine_cpu *cpu, unsigned n);
	enum engine_exit (*run)(struct engine_cpu *cpu);
	void (*kick)(struct engine_cpu *cpu);
	void (*stop)(struct engine_cpu *cpu, enum engine_exit why);
	void (*nmi)(struct engine_cpu *cpu);
	bool (*has_nmi)(const struct engine_cpu *cpu);
	size_t (*statistics)(const struct engine_cpu *cpu, char *text, size_t bytes);
	void (*memory_written)(struct engine *engine, uint64_t gpa, size_t bytes);
	void (*trim)(struct engine *engine, unsigned idle_s);
	void (*flush)(struct engine *engine, uint64_t targets,
		      const struct engine_gva_range *ranges, unsigned count, bool global);
	void (*place_overlay)(struct engine *engine, struct guest_memory *memory, unsigned overlay,
			      uint64_t gpa, bool read_only);
	uint64_t (*take_dirty)(struct engine *engine, uint64_t *dirty);
	void (*find_written)(struct engine *engine, uint64_t *written);
	void (*note_written)(struct engine *engine, uint64_t frame, uint64_t frames);
	void (*note_use)(struct engine *engine, bool notes);
	void (*find_used)(struct engine *engine, uint64_t *used, uint64_t most);
	unsigned (*find_code)(struct engine *engine, struct engine_place *ret);
	void (*make_code)(struct engine *engine, const struct engine_place *place);
	void (*know_places)(struct engine *engine, const uint8_t *places, size_t count);
	void (*touch_ahead)(struct engine *engine, size_t from, size_t end);
	unsigned (*take_code)(struct engine *engine, struct engine_code *ret, unsigned most,
			      uint64_t *ret_lost);
	bool (*list)(struct engine *engine, uint64_t gpa, uint64_t gva, unsigned n,
		     struct engine_listed *ret);
	void (*leave_code)(struct engine *engine);
	void (*hold_code)(struct engine *engine);
	void (*release_code)(struct engine *engine);
	int (*forked_bare)(struct engine *engine);
	int (*forked)(struct engine *engine, int code_fd);
};

/* First member of an implementation's own structures. */
struct engine { const struct engine_driver *driver; };
struct engine_cpu { const struct engine_driver *driver; };

extern const struct engine_driver soft_engine_driver;
