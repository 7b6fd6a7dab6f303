/*
 * A mutex and a wait word on futexes. libc's may use vector registers, which hold guest state while
 * the engine's C runs.
 *
 *   word: 0 free, 1 held, 2 held and waited for
 *
 * It is held for some microseconds, in which a block is made or linked: who wants it looks for as
 * long before it sleeps, since to sleep and to be woken takes both sides longer than that.
 */
#pragma once

#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>

struct soft_lock { uint32_t word; };

/* Some 20 us. */
enum { SOFT_LOCK_LOOKS = 1000 };

static inline long soft_futex(uint32_t *word, int operation, uint32_t value)
{
	register long r10 __asm__("r10") = 0;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(SYS_futex), "D"(word), "S"(operation), "d"(value), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
}
static inline void soft_wait(uint32_t *word, uint32_t while_value)
{
	soft_futex(word, FUTEX_WAIT_PRIVATE, while_value);
}
static inline void soft_wake_all(uint32_t *word)
{
	soft_futex(word, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

static inline bool soft_try_to_acquire(struct soft_lock *lock)
{
	uint32_t free = 0;

	return __atomic_compare_exchange_n(&lock->word, &free, 1, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

/* False: it was not free for as long. */
static inline bool soft_acquire_soon(struct soft_lock *lock)
{
	for (unsigned n = 0; n < SOFT_LOCK_LOOKS; n++) {
		if (!__atomic_load_n(&lock->word, __ATOMIC_RELAXED) && soft_try_to_acquire(lock))
			return true;
		__builtin_ia32_pause();
	}
	return false;
}

static inline void soft_acquire(struct soft_lock *lock)
{
	if (soft_try_to_acquire(lock) || soft_acquire_soon(lock))
		return;
	while (__atomic_exchange_n(&lock->word, 2, __ATOMIC_ACQUIRE))
		soft_wait(&lock->word, 2);
}

static inline void soft_release(struct soft_lock *lock)
{
	if (__atomic_exchange_n(&lock->word, 0, __ATOMIC_RELEASE) == 2)
		soft_futex(&lock->word, FUTEX_WAKE_PRIVATE, 1);
}
