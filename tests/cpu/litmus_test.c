/*
 * The memory model's litmus tests on the host itself, with the outcomes that
 * tests/guest/processors.c forbids in the engine: what is forbidden there must be forbidden here,
 * and what TSO allows (store buffering without fences) is counted to show that the test can see it.
 * usage: litmus_test [ROUNDS]
 */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static volatile uint32_t x __attribute__((aligned(64))), y __attribute__((aligned(64))),
	r[2] __attribute__((aligned(64)));
static uint32_t arrived __attribute__((aligned(64))), generation __attribute__((aligned(64)));
static unsigned long rounds = 20000;
static unsigned long allowed, forbidden[3];

static void meet(void)
{
	uint32_t before = __atomic_load_n(&generation, __ATOMIC_SEQ_CST);

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == 2) {
		__atomic_store_n(&arrived, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&generation, before + 1, __ATOMIC_SEQ_CST);
		return;
	}
	for (unsigned n = 1; __atomic_load_n(&generation, __ATOMIC_SEQ_CST) == before; n++)
		if (n % 1000 == 0)
			sched_yield();
}

enum kind { BUFFERING, BUFFERING_FENCED, BUFFERING_LOCKED, PASSING, KINDS };

static void act(int me, enum kind kind)
{
	volatile uint32_t *mine = me ? &y : &x;
	volatile uint32_t *other = me ? &x : &y;

	if (kind == PASSING) {
		if (me) {
			r[0] = y;
			__asm__ volatile("" : : : "memory");
			r[1] = x;
		} else {
			x = 1;
			y = 1;
		}
		return;
	}
	if (kind == BUFFERING_LOCKED)
		__atomic_exchange_n(mine, 1, __ATOMIC_SEQ_CST);
	else
		*mine = 1;
	if (kind == BUFFERING_FENCED)
		__asm__ volatile("mfence" : : : "memory");
	r[me] = *other;
}

static void judge(enum kind kind)
{
	bool both_old = !r[0] && !r[1];

	if (kind == BUFFERING)
		allowed += both_old;
	else if (kind == PASSING)
		forbidden[2] += r[0] && !r[1];
	else
		forbidden[kind - BUFFERING_FENCED] += both_old;
}

static void *run(void *context)
{
	int me = context != NULL;

	for (unsigned long n = 0; n < rounds; n++)
		for (enum kind kind = BUFFERING; kind < KINDS; kind++) {
			if (!me)
				x = y = 0;
			meet();
			act(me, kind);
			meet();
			if (!me)
				judge(kind);
		}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t other;

	if (argc > 1)
		rounds = strtoul(argv[1], NULL, 0);
	if (pthread_create(&other, NULL, run, &rounds))
		return 70;
	run(NULL);
	pthread_join(other, NULL);
	printf("litmus_test: %lu rounds, store buffering seen %lu times; forbidden: with fences "
	       "%lu, locked %lu, message passing %lu\n",
	       rounds, allowed, forbidden[0], forbidden[1], forbidden[2]);
	return forbidden[0] || forbidden[1] || forbidden[2];
}
