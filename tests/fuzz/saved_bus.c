/*
 * Parts of saved machines that have a bus: the first byte says which. What loads is used as a
 * machine would use it, is saved again, and that has to load, and to be the same bytes when it is
 * saved once more.
 */
#include "../bus/live_guest.h"
#include "fuzz.h"

/* Into a new guest. Whether it loads; and if it does, what it is when it is saved at once. */
static bool load(struct live *live, enum live_part part, const uint8_t *data, size_t bytes,
		 uint8_t *again, size_t *ret_bytes)
{
	int error;

	live_create(live, 0);
	error = live_load(live, part, data, bytes);
	if (!error)
		*ret_bytes = live_save(live, part, again, FUZZ_MAX_BYTES);
	return !error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static uint8_t first[FUZZ_MAX_BYTES], second[FUZZ_MAX_BYTES];
	static struct live live;
	enum live_part part = bytes ? data[0] % LIVE_PARTS : 0;
	size_t first_bytes = 0;
	size_t second_bytes = 0;
	/* of just that length, so that a read behind it is noticed */
	uint8_t *exact = malloc(bytes);
	bool good;

	if (!bytes) {
		free(exact);
		return 0;
	}
	memcpy(exact, data + 1, bytes - 1);
	good = load(&live, part, exact, bytes - 1, first, &first_bytes);
	if (good)
		live_use(&live);
	live_destroy(&live);
	free(exact);
	if (!good)
		return 0;
	good = load(&live, part, first, first_bytes, second, &second_bytes);
	live_destroy(&live);
	if (!good || first_bytes != second_bytes || memcmp(first, second, first_bytes))
		abort();
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *data)
{
	static struct live live;
	enum live_part part = n % 3 ? PART_BUS : (enum live_part)(n / 3 % LIVE_PARTS);
	size_t bytes;

	live_create(&live, n);
	data[0] = (uint8_t)part;
	bytes = live_save(&live, part, data + 1, FUZZ_MAX_BYTES - 1);
	live_destroy(&live);
	return bytes + 1;
}
