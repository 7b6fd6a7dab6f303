/*
 * What is lent, behind lender.h: for lender.c and for the test that breaks it. Under its lock:
 *
 *  1. An entry has a frame, pages and the place where they are meanwhile, or nothing of these.
 *  2. No page is in two entries.
 */
#pragma once

#include <pthread.h>

#include "lender.h"
#include "memory/memory.h"

enum { LENDER_RUNS = GUEST_WINDOW_PAGES };
#define NO_FRAME (~0ull)

/* Consecutive pages that are lent together, and where they are meanwhile. */
struct held { uint64_t gfn; /* NO_FRAME: none */ uint32_t pages; uint8_t *hva; };

struct lender {
	const struct guest_memory *memory;
	void (*memory_written)(void *context, uint64_t gpa, size_t bytes);
	void *context;
	pthread_mutex_t lock;
	struct held held[LENDER_RUNS];
};

void check_lender(const struct lender *lender);
