/* See code_listing.h. */
#include "code_listing.h"

#include <string.h>

static bool is_good_head(const struct listing_head *head)
{
	return (head->code_bits == 16 || head->code_bits == 32 || head->code_bits == 64) &&
	       head->guest_bytes && head->guest_bytes <= LISTING_GUEST_BYTES &&
	       head->host_bytes <= LISTING_HOST_BYTES && head->hot_begin <= head->hot_end &&
	       head->hot_end <= head->host_bytes && head->maps <= LISTING_MAPS;
}

static bool are_good_maps(const struct listing *listing)
{
	unsigned before = 0;

	for (unsigned n = 0; n < listing->head.maps; n++) {
		const struct listing_map *map = &listing->map[n];

		if (map->host < before || map->host > listing->head.host_bytes ||
		    map->guest >= listing->head.guest_bytes)
			return false;
		before = map->host;
	}
	return true;
}

size_t listing_read(const uint8_t *data, size_t bytes, struct listing *ret)
{
	struct listing_head *head = &ret->head;
	size_t map_bytes, all;

	if (bytes < sizeof(*head))
		return 0;
	memcpy(head, data, sizeof(*head));
	if (!is_good_head(head))
		return 0;
	map_bytes = head->maps * sizeof(struct listing_map);
	all = sizeof(*head) + map_bytes + head->guest_bytes + head->host_bytes;
	if (all > bytes)
		return 0;
	memcpy(ret->map, data + sizeof(*head), map_bytes);
	ret->guest = data + sizeof(*head) + map_bytes;
	ret->host = ret->guest + head->guest_bytes;
	return are_good_maps(ret) ? all : 0;
}
