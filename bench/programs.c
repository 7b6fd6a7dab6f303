/*
 * User programs for bench/engine, natively and in a guest. Each is a piece of work of some 0.1 to
 * 0.4 ms, so that a measure is shorter than a slice of the host's scheduler; its number is the
 * minimum of many measures. "PROGRAM name ns checksum" each: the checksum must be the same
 * everywhere, and is that of one piece of work after `prepare`.
 */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MEASURES = 400, MEASURES_LEAST = 5, MEASURES_MOST_NS = 250000000 };

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint32_t seed;

static uint32_t next_random(void) { return seed = seed * 1664525u + 1013904223u; }

static void prepare_nothing(void) {}

/* A ring through `count` of `order`, in no order of addresses. */
static void shuffle(uint32_t *order, uint32_t count)
{
	for (uint32_t n = 0; n < count; n++)
		order[n] = n;
	for (uint32_t n = count - 1; n; n--) {
		uint32_t other = (next_random() >> 8) % (n + 1);
		uint32_t kept = order[n];

		order[n] = order[other];
		order[other] = kept;
	}
}

/* ---- integer */

enum { LIST_NODES = 2048, LIST_ROUNDS = 16 };
struct node { struct node *next; uint64_t value; };
static struct node list_nodes[LIST_NODES], *list_head;
static uint32_t crc_table[256];

static void prepare_list(void)
{
	static uint32_t order[LIST_NODES];

	shuffle(order, LIST_NODES);
	for (uint32_t n = 0; n < LIST_NODES; n++)
		list_nodes[order[n]] =
			(struct node){ &list_nodes[order[(n + 1) % LIST_NODES]], next_random() };
	list_head = &list_nodes[order[0]];
	for (uint32_t n = 0; n < 256; n++) {
		uint32_t crc = n;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
		crc_table[n] = crc;
	}
}

static uint64_t run_list(void)
{
	const struct node *at = list_head;
	uint32_t crc = ~0u;

	for (int n = 0; n < LIST_NODES * LIST_ROUNDS; n++) {
		crc = crc >> 8 ^ crc_table[(crc ^ at->value) & 0xff];
		at = at->next;
	}
	return crc;
}

enum { BYTECODE_STEPS = 60000 };

static uint64_t run_bytecode(void)
{
	static const uint8_t code[] = { 0, 1, 2, 3, 1, 4, 0, 2, 5, 3, 1, 6, 2, 0, 4, 7 };
	uint64_t a = 1;
	uint64_t b = 2;
	uint64_t pc = 0;
	uint64_t stack[64] = { 0 };
	unsigned top = 0;

	for (int n = 0; n < BYTECODE_STEPS; n++) {
		switch (code[pc & 15]) {
		case 0: a += b; break;
		case 1: stack[top++ & 63] = a; break;
		case 2: b ^= a >> 3; break;
		case 3: a = a * 5 + 1; break;
		case 4: b += stack[--top & 63]; break;
		case 5: a -= b * 3 - pc; break;
		case 6: stack[top & 63] += b; break;
		default: pc += a & 3; break;
		}
		pc++;
	}
	return a ^ b;
}

enum { LZ_BYTES = 1 << 16, LZ_HASH_BITS = 13, LZ_LONGEST = 255, LZ_SHORTEST = 4 };
static uint8_t lz_in[LZ_BYTES], lz_out[2 * LZ_BYTES];
static uint32_t lz_table[1 << LZ_HASH_BITS];

static void prepare_lz(void)
{
	for (uint32_t n = 0; n < LZ_BYTES; n++) {
		bool again = n > 1000 && next_random() >> 30;

		lz_in[n] = again ? lz_in[n - 1 - (next_random() >> 8) % 1000]
				 : (uint8_t)(next_random() >> 24);
	}
}

static uint64_t run_lz(void)
{
	uint64_t sum = 0;
	size_t out = 0;

	memset(lz_table, 0, sizeof(lz_table));
	for (size_t n = 0; n + 8 < LZ_BYTES;) {
		uint32_t word, hash;
		uint32_t length = 0;
		size_t from;

		memcpy(&word, lz_in + n, 4);
		hash = word * 2654435761u >> (32 - LZ_HASH_BITS);
		from = lz_table[hash];
		lz_table[hash] = (uint32_t)n;
		while (from < n && n + length + 1 < LZ_BYTES && length < LZ_LONGEST &&
		       lz_in[from + length] == lz_in[n + length])
			length++;
		if (length >= LZ_SHORTEST) {
			lz_out[out++] = 255;
			lz_out[out++] = (uint8_t)length;
			n += length;
		} else {
			lz_out[out++] = lz_in[n++];
		}
	}
	for (size_t n = 0; n < out; n++)
		sum = sum * 31 + lz_out[n];
	return sum;
}

enum { SORT_COUNT = 4000 };
static uint32_t unsorted[SORT_COUNT], sorted[SORT_COUNT];

static int compare(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left;
	uint32_t b = *(const uint32_t *)right;

	return a < b ? -1 : a > b;
}

static void prepare_sort(void)
{
	for (size_t n = 0; n < SORT_COUNT; n++)
		unsorted[n] = next_random();
}

static uint64_t run_sort(void)
{
	memcpy(sorted, unsorted, sizeof(sorted));
	qsort(sorted, SORT_COUNT, sizeof(*sorted), compare);
	return sorted[100] ^ sorted[SORT_COUNT / 2];
}

__attribute__((noinline)) static uint64_t fibonacci(unsigned n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t run_fib(void) { return fibonacci(23); }

enum { SIEVE_BYTES = 1 << 16 };

static uint64_t run_sieve(void)
{
	static uint8_t composite[SIEVE_BYTES];
	uint64_t count = 0;

	memset(composite, 0, sizeof(composite));
	for (uint32_t n = 2; n < SIEVE_BYTES; n++) {
		if (composite[n])
			continue;
		count++;
		for (uint32_t k = n * 2; k < SIEVE_BYTES; k += n)
			composite[k] = 1;
	}
	return count;
}

enum { CHASE_POINTERS = (64 << 10) / sizeof(void *), CHASE_STEPS = 100000 };
static void *chase[CHASE_POINTERS];

static void prepare_chase(void)
{
	static uint32_t order[CHASE_POINTERS];

	shuffle(order, CHASE_POINTERS);
	for (uint32_t n = 0; n < CHASE_POINTERS; n++)
		chase[order[n]] = &chase[order[(n + 1) % CHASE_POINTERS]];
}

static uint64_t run_chase(void)
{
	void **at = chase;

	for (int n = 0; n < CHASE_STEPS; n++)
		at = *at;
	return (uint64_t)(at - chase);
}

/* ---- floating point and vectors */

enum { BODIES = 5, NBODY_STEPS = 1200 };
struct body { double at[3], speed[3], mass; };
static struct body bodies_first[BODIES], bodies[BODIES];

static void prepare_nbody(void)
{
	for (int n = 0; n < BODIES; n++) {
		for (int axis = 0; axis < 3; axis++) {
			bodies_first[n].at[axis] = n * 3 + axis * 0.5 + 1;
			bodies_first[n].speed[axis] = 0.01 * (n - axis);
		}
		bodies_first[n].mass = n ? 0.01 * n : 30;
	}
}

static void attract(struct body *a, struct body *b, double time)
{
	double away[3], distance, strength;

	for (int axis = 0; axis < 3; axis++)
		away[axis] = a->at[axis] - b->at[axis];
	distance = away[0] * away[0] + away[1] * away[1] + away[2] * away[2];
	strength = time / (distance * __builtin_sqrt(distance));
	for (int axis = 0; axis < 3; axis++) {
		a->speed[axis] -= away[axis] * b->mass * strength;
		b->speed[axis] += away[axis] * a->mass * strength;
	}
}

static uint64_t run_nbody(void)
{
	uint64_t bits;

	memcpy(bodies, bodies_first, sizeof(bodies));
	for (int step = 0; step < NBODY_STEPS; step++) {
		for (int a = 0; a < BODIES; a++)
			for (int b = a + 1; b < BODIES; b++)
				attract(&bodies[a], &bodies[b], 0.001);
		for (int n = 0; n < BODIES; n++)
			for (int axis = 0; axis < 3; axis++)
				bodies[n].at[axis] += 0.001 * bodies[n].speed[axis];
	}
	memcpy(&bits, &bodies[1].at[2], sizeof(bits));
	return bits;
}

enum { AXPY_FLOATS = 4096, AXPY_ROUNDS = 200 };

static uint64_t run_axpy(void)
{
	static float x[AXPY_FLOATS] __attribute__((aligned(64)));
	static float y[AXPY_FLOATS] __attribute__((aligned(64)));
	uint32_t bits;

	for (int n = 0; n < AXPY_FLOATS; n++) {
		x[n] = (float)n;
		y[n] = (float)(AXPY_FLOATS - n);
	}
	for (int round = 0; round < AXPY_ROUNDS; round++)
		for (int n = 0; n < AXPY_FLOATS; n += 4) {
			__m128 scaled = _mm_mul_ps(_mm_load_ps(x + n), _mm_set1_ps(0.5f));

			_mm_store_ps(y + n, _mm_add_ps(_mm_load_ps(y + n), scaled));
		}
	memcpy(&bits, &y[77], sizeof(bits));
	return bits;
}

enum { MATRIX = 64, MATRIX_ROUNDS = 5 };
static double left[MATRIX][MATRIX] __attribute__((aligned(64)));
static double right[MATRIX][MATRIX] __attribute__((aligned(64)));
static double product[MATRIX][MATRIX] __attribute__((aligned(64)));

static void prepare_matmul(void)
{
	for (int n = 0; n < MATRIX * MATRIX; n++) {
		left[n / MATRIX][n % MATRIX] = n % 17;
		right[n / MATRIX][n % MATRIX] = n % 13;
	}
}

__attribute__((target("avx2,fma"))) static void multiply_row(int row, int k)
{
	__m256d factor = _mm256_set1_pd(left[row][k]);

	for (int column = 0; column < MATRIX; column += 4)
		_mm256_store_pd(&product[row][column],
				_mm256_fmadd_pd(factor, _mm256_load_pd(&right[k][column]),
						_mm256_load_pd(&product[row][column])));
}

static uint64_t run_matmul(void)
{
	uint64_t bits;

	memset(product, 0, sizeof(product));
	for (int round = 0; round < MATRIX_ROUNDS; round++)
		for (int row = 0; row < MATRIX; row++)
			for (int k = 0; k < MATRIX; k++)
				multiply_row(row, k);
	memcpy(&bits, &product[5][7], sizeof(bits));
	return bits;
}

static const struct program {
	const char *name;
	void (*prepare)(void);
	uint64_t (*run)(void);
} programs[] = {
	{ "list", prepare_list, run_list },
	{ "bytecode", prepare_nothing, run_bytecode },
	{ "lz", prepare_lz, run_lz },
	{ "qsort", prepare_sort, run_sort },
	{ "fib", prepare_nothing, run_fib },
	{ "sieve", prepare_nothing, run_sieve },
	{ "chase", prepare_chase, run_chase },
	{ "nbody", prepare_nbody, run_nbody },
	{ "axpy", prepare_nothing, run_axpy },
	{ "matmul", prepare_matmul, run_matmul },
};

static void measure(const struct program *program)
{
	uint64_t least = UINT64_MAX;
	uint64_t begin = now_ns();
	uint64_t sum = 0;

	seed = 12345;
	program->prepare();
	for (int n = 0; n < MEASURES; n++) {
		uint64_t start = now_ns();
		uint64_t took;

		sum = program->run();
		took = now_ns() - start;
		least = took < least ? took : least;
		if (n >= MEASURES_LEAST && now_ns() - begin > MEASURES_MOST_NS)
			break;
	}
	printf("PROGRAM %s %lu %lx\n", program->name, least, sum);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	for (unsigned n = 0; n < sizeof(programs) / sizeof(programs[0]); n++)
		if (argc < 2 || !strcmp(argv[1], programs[n].name))
			measure(&programs[n]);
	return 0;
}
