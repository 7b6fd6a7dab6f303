/*
 * Code that is held (code/code_hold.c), while somebody copies it: a processor goes on in what there
 * is, and waits where it comes to something new, until it is released; meanwhile no byte changes.
 */
#include <pthread.h>
#include <time.h>

#include "bare_guest.h"

enum {
	RAM_BYTES = 4 << 20,
	CODE = 0x100000,
	NEW = 0x101000,
	STACK = 0x1f0000,
	ROUNDS_AT = 0x1f1000,
	LEAVES_AT = 0x1f1008,
	TARGET_AT = 0x1f1010,
	HALT_AT = 0x102000,
	MANY_ROUNDS = 10000,
	WAIT_NS = 50000000
};

/* Round and round until LEAVES is set; then where TARGET says. */
static const uint8_t around[] = {
	0x48, 0xff, 0x04, 0x25, 0x00, 0x10, 0x1f, 0x00,       /* inc qword [ROUNDS_AT] */
	0x80, 0x3c, 0x25, 0x08, 0x10, 0x1f, 0x00, 0x00,       /* cmp byte [LEAVES_AT], 0 */
	0x74, 0xee,                                           /* je to the begin */
	0xff, 0x24, 0x25, 0x10, 0x10, 0x1f, 0x00,             /* jmp [TARGET_AT] */
};
static const uint8_t halts[] = { 0x90, HLT };

struct watcher {
	struct soft_engine *engine;
	uint8_t *copy;
	size_t bytes;
	bool has_gone_on, has_changed, has_waited, has_ended;
};

static uint64_t rounds(void)
{
	return __atomic_load_n((uint64_t *)(void *)(ram + ROUNDS_AT), __ATOMIC_ACQUIRE);
}

static void wait_some(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = WAIT_NS }, NULL);
}

/* Beside a processor that runs while its code is held. */
static void *watch(void *context)
{
	struct watcher *watcher = context;
	const uint64_t begun = rounds();

	for (unsigned n = 0; n < 100 && rounds() < begun + MANY_ROUNDS; n++)
		wait_some();
	watcher->has_gone_on = rounds() >= begun + MANY_ROUNDS;
	__atomic_store_n(ram + LEAVES_AT, 1, __ATOMIC_RELEASE);
	wait_some();
	watcher->has_waited = !__atomic_load_n(&watcher->has_ended, __ATOMIC_ACQUIRE);
	watcher->has_changed =
		memcmp(watcher->copy, watcher->engine->code_run, watcher->bytes) != 0;
	engine_release_code((struct engine *)watcher->engine);
	return NULL;
}

static void make_code(void)
{
	const uint64_t halt = HALT_AT;

	memcpy(ram + CODE, around, sizeof(around));
	memcpy(ram + NEW, halts, sizeof(halts));
	memcpy(ram + HALT_AT, halts, sizeof(halts));
	memcpy(ram + TARGET_AT, &halt, sizeof(halt));
	ram[LEAVES_AT] = 1;
}

int main(void)
{
	const uint64_t new = NEW;
	struct watcher watcher = { .has_ended = false };
	struct guest guest;
	pthread_t thread;

	make_ram(RAM_BYTES);
	make_code();
	guest = begin(ENGINE_DEFAULT_OVERHEAD_BYTES, 0);
	watcher.engine = (struct soft_engine *)guest.engine;
	run_flat(guest, CODE, STACK);
	ram[LEAVES_AT] = 0;
	memcpy(ram + TARGET_AT, &new, sizeof(new));
	engine_hold_code(guest.engine);
	watcher.bytes = soft_open_region(watcher.engine)->used;
	watcher.copy = malloc(watcher.bytes);
	memcpy(watcher.copy, watcher.engine->code_run, watcher.bytes);
	pthread_create(&thread, NULL, watch, &watcher);
	run_flat(guest, CODE, STACK);
	__atomic_store_n(&watcher.has_ended, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	expect(watcher.has_gone_on, "a processor goes on in code that is held");
	expect(watcher.has_waited, "and waits where it would change it");
	expect(!watcher.has_changed, "of which no byte is another one");
	expect(soft_open_region(watcher.engine)->used > watcher.bytes, "then there is more of it");
	engine_release_code(guest.engine);
	free(watcher.copy);
	end(guest);
	return failures != 0;
}
