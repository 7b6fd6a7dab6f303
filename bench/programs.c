/*
 * Small programs for bench/run-programs: natively, and in a guest. Each prints its name, its time
 * in microseconds (the best of three) and a checksum, which must be the same everywhere.
 */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint32_t seed = 12345;
static uint32_t rnd(void) { return seed = seed * 1664525u + 1013904223u; }

struct node { struct node *next; uint64_t value; };
static uint64_t list(void)
{
	static struct node nodes[65536];
	static uint32_t order[65536];
	uint64_t sum = 0;
	struct node *at;

	for (uint32_t n = 0; n < 65536; n++)
		order[n] = n;
	for (uint32_t n = 65535; n; n--) {
		uint32_t k = rnd() % (n + 1), swap = order[n];

		order[n] = order[k];
		order[k] = swap;
	}
	for (uint32_t n = 0; n < 65536; n++)
		nodes[order[n]] = (struct node){ &nodes[order[(n + 1) % 65536]], n };
	at = &nodes[order[0]];
	for (int n = 0; n < 2000000; n++) {
		sum += at->value;
		at = at->next;
	}
	return sum;
}

static uint64_t sieve(void)
{
	static uint8_t composite[1 << 18];
	uint64_t count = 0;

	for (int round = 0; round < 20; round++) {
		memset(composite, 0, sizeof(composite));
		count = 0;
		for (uint32_t n = 2; n < sizeof(composite); n++) {
			if (composite[n])
				continue;
			count++;
			for (uint32_t k = n * 2; k < sizeof(composite); k += n)
				composite[k] = 1;
		}
	}
	return count;
}

static uint64_t lz(void)
{
	static uint8_t in[1 << 18], out[1 << 19];
	static uint32_t table[1 << 14];
	size_t o = 0;
	uint64_t sum = 0;

	for (size_t n = 0; n < sizeof(in); n++)
		in[n] = (uint8_t)(n > 1000 && rnd() % 4 ? in[n - 1 - rnd() % 1000] : rnd() >> 24);
	memset(table, 0, sizeof(table));
	for (size_t n = 0; n + 8 < sizeof(in);) {
		uint32_t word, h, length = 0;
		size_t from;

		memcpy(&word, in + n, 4);
		h = word * 2654435761u >> 18;
		from = table[h];
		table[h] = (uint32_t)n;
		while (from < n && n + length + 1 < sizeof(in) && length < 255 &&
		       in[from + length] == in[n + length])
			length++;
		if (length >= 4) {
			out[o++] = 255;
			out[o++] = (uint8_t)length;
			n += length;
		} else {
			out[o++] = in[n++];
		}
	}
	for (size_t n = 0; n < o; n++)
		sum = sum * 31 + out[n];
	return sum;
}

static uint64_t interpreter(void)
{
	static const uint8_t code[] = { 0, 1, 2, 3, 1, 4, 0, 2, 5, 3, 1, 6, 2, 0, 4, 7 };
	uint64_t a = 1, b = 2, stack[64] = { 0 }, pc = 0;
	unsigned sp = 0;

	for (int n = 0; n < 4000000; n++) {
		switch (code[pc & 15]) {
		case 0: a += b; break;
		case 1: stack[sp++ & 63] = a; break;
		case 2: b ^= a >> 3; break;
		case 3: a = a * 5 + 1; break;
		case 4: b += stack[--sp & 63]; break;
		case 5: a -= b; break;
		case 6: stack[sp & 63] += b; break;
		default: pc += a & 3; break;
		}
		pc++;
	}
	return a ^ b;
}

static int compare(const void *x, const void *y)
{
	uint32_t a = *(const uint32_t *)x;
	uint32_t b = *(const uint32_t *)y;

	return a < b ? -1 : a > b;
}
static uint64_t quicksort(void)
{
	static uint32_t v[200000];

	for (size_t n = 0; n < 200000; n++)
		v[n] = rnd();
	qsort(v, 200000, 4, compare);
	return v[1000] ^ v[100000];
}

static uint64_t hash(void)
{
	static struct { uint64_t key, count; } table[1 << 16];
	uint64_t sum = 0;

	memset(table, 0, sizeof(table));
	for (int n = 0; n < 1000000; n++) {
		uint64_t key = rnd() % 40000 + 1, at = key * 0x9e3779b97f4a7c15ull >> 48;

		while (table[at & 65535].key && table[at & 65535].key != key)
			at++;
		table[at & 65535].key = key;
		sum += ++table[at & 65535].count;
	}
	return sum;
}

static uint64_t __attribute__((noinline)) fib(unsigned n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}
static uint64_t fibonacci(void) { return fib(32); }

static uint64_t sse(void)
{
	static float a[4096] __attribute__((aligned(16))), b[4096] __attribute__((aligned(16)));
	uint32_t bits;

	for (int n = 0; n < 4096; n++)
		a[n] = (float)n, b[n] = (float)(4096 - n);
	for (int round = 0; round < 4000; round++)
		for (int n = 0; n < 4096; n += 4)
			_mm_store_ps(
				b + n,
				_mm_add_ps(_mm_mul_ps(_mm_load_ps(a + n), _mm_set1_ps(0.5f)),
					   _mm_mul_ps(_mm_load_ps(b + n), _mm_set1_ps(0.25f))));
	memcpy(&bits, b + 77, 4);
	return bits;
}

__attribute__((target("avx2,fma"))) static uint64_t avx2(void)
{
	static double a[64][64] __attribute__((aligned(32))),
		b[64][64] __attribute__((aligned(32))), c[64][64] __attribute__((aligned(32)));
	uint64_t bits;

	for (int n = 0; n < 64 * 64; n++)
		(&a[0][0])[n] = n % 17, (&b[0][0])[n] = n % 13;
	memset(c, 0, sizeof(c));
	for (int round = 0; round < 60; round++)
		for (int i = 0; i < 64; i++)
			for (int k = 0; k < 64; k++) {
				__m256d x = _mm256_set1_pd(a[i][k]);

				for (int j = 0; j < 64; j += 4)
					_mm256_store_pd(&c[i][j],
							_mm256_fmadd_pd(x, _mm256_load_pd(&b[k][j]),
									_mm256_load_pd(&c[i][j])));
			}
	memcpy(&bits, &c[5][7], 8);
	return bits;
}

int main(void)
{
	static const struct { const char *name; uint64_t (*run)(void);
	} programs[] = {
		{ "list", list },
		{ "sieve", sieve },
		{ "lz", lz },
		{ "interpreter", interpreter },
		{ "quicksort", quicksort },
		{ "hash", hash },
		{ "fib", fibonacci },
		{ "sse", sse },
		{ "avx2", avx2 },
	};

	for (unsigned n = 0; n < sizeof(programs) / sizeof(programs[0]); n++) {
		uint64_t best = UINT64_MAX, sum = 0;

		for (int k = 0; k < 3; k++) {
			uint64_t start = now_us(), took;

			seed = 12345;
			sum = programs[n].run();
			took = now_us() - start;
			best = took < best ? took : best;
		}
		printf("P %s %lu %lx\n", programs[n].name, best, sum);
		fflush(stdout);
	}
	return 0;
}
